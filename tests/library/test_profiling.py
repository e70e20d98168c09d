"""Bytes of activations against counts by hand."""

import pytest
import torch

from course_lib import profiling


def test_peak_counts_what_is_alive_at_once():
    """relu(2 x) + 1 of 1000 floats: two tensors at any time; keeping the first as well makes three."""
    x = torch.randn(1000)
    assert profiling.peak_bytes(lambda x: torch.relu(2 * x) + 1, x) == 8000

    def keeps(x):
        first = 2 * x
        return torch.relu(first) + 1, first

    assert profiling.peak_bytes(keeps, x) == 12_000


def test_peak_ignores_input_weights_views_and_work_in_place():
    layer, x = torch.nn.Linear(100, 50, bias=False), torch.randn(10, 100)
    assert profiling.peak_bytes(layer, x) == 10 * 50 * 4
    assert profiling.peak_bytes(lambda x: x[:5].reshape(-1), x) == 0
    assert profiling.peak_bytes(lambda x: (2 * x).relu_().t(), x) == 10 * 100 * 4


def test_saved_is_what_the_backward_pass_reads():
    """A linear layer keeps its input, a sigmoid its output; weights do not count, and nothing counts twice."""
    net = torch.nn.Sequential(torch.nn.Linear(100, 50), torch.nn.Sigmoid(), torch.nn.Linear(50, 20))
    x = torch.randn(10, 100)
    assert profiling.saved_bytes(net, x) == (10 * 100 + 10 * 50) * 4  # the sigmoid's output is the last layer's input


@pytest.mark.parametrize("batch", [2, 4])
def test_saved_grows_with_the_batch(batch):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.SiLU())
    one, many = (profiling.saved_bytes(net, torch.randn(n, 1, 8, 8)) for n in (1, batch))
    assert many == batch * one == batch * (1 + 4) * 64 * 4


def test_seconds_is_the_shortest_of_several():
    calls = []
    assert 0 <= profiling.seconds(calls.append, 1, repeats=3) < 1
    assert len(calls) == 4


def test_seconds_waits_for_a_device_that_computes_on_its_own_whatever_the_function_returns(monkeypatch):
    """A device that takes 2 s a call, of which the function itself, which returns a tuple, knows nothing."""
    clock, queued = [0.0], [0]

    def launch():
        queued[0] += 1
        return torch.zeros(1), None

    def wait():
        clock[0] += 2 * queued[0]
        queued[0] = 0

    monkeypatch.setattr(profiling.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", wait)
    assert profiling.seconds(launch, repeats=1) == 2


def test_the_cost_of_an_evaluation_is_that_of_one_image():
    class Net(torch.nn.Conv2d):
        def forward(self, x, t):
            return super().forward(t * x)

    net = Net(1, 4, 3, padding=1)
    seconds, alive, kept = profiling.evaluation_cost(net, 1, 8, 8)
    assert seconds > 0 and alive == (1 + 4) * 64 * 4 and kept == 64 * 4 and not net.weight.requires_grad
