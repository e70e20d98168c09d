"""Training: the loss against its definition, resuming against not having stopped, many processes against one."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch

from course_lib import schedules
from course_lib.store import read_tensors, write_tensors
from course_lib.training import (
    Batches,
    DiffusionLoss,
    RegressionLoss,
    ema_decay,
    learning_rate,
    load_checkpoint,
    save_checkpoint,
    shifted_times,
    step_generator,
    stratified_times,
    to_tensor,
    train,
)


class Tiny(torch.nn.Module):
    """A network small enough to train in a test: a per-pixel function of x_t, t and the class."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(5, 8, 1), torch.nn.SiLU(), torch.nn.Conv2d(8, 1, 1))

    def forward(self, x_t, t, y=None):
        cond = torch.nn.functional.one_hot(y, 3).float()
        maps = torch.cat([t[:, None], cond], 1)[:, :, None, None].expand(-1, -1, *x_t.shape[2:])
        return self.layers(torch.cat([x_t, maps], 1))


def tiny_run(steps, resume=None, seed=0):
    torch.manual_seed(1)
    labels = np.arange(40) % 2
    images = np.uint8(40 + 150 * labels)[:, None, None] + np.arange(16, dtype=np.uint8).reshape(4, 4)
    batches = Batches(images, labels, batch_size=8, seed=seed)
    return train(Tiny(), batches, DiffusionLoss(schedules.Cosine()), steps=steps, seed=seed, resume=resume)


def test_loss_is_its_definition():
    """For a network that returns zero the loss is the mean square of the target; for one that returns it, zero."""
    schedule, x_0 = schedules.Cosine(), torch.rand(6, 1, 4, 4) * 2 - 1
    for kind in ("eps", "v", "x0", "flow"):
        loss = DiffusionLoss(schedule, kind, drop_class=0.0)
        value, t = loss(lambda x_t, t, y: torch.zeros_like(x_t), (x_0, None), step_generator(0, 0))
        generator = step_generator(0, 0)
        stratified_times(6, generator)
        eps = torch.randn(x_0.shape, generator=generator)
        a, s = torch.cos(t * torch.pi / 2).view(-1, 1, 1, 1), torch.sin(t * torch.pi / 2).view(-1, 1, 1, 1)
        wanted = {"eps": eps, "v": a * eps - s * x_0, "x0": x_0, "flow": eps - x_0}[kind]
        torch.testing.assert_close(value, wanted.square().mean((1, 2, 3)))
        value, _ = loss(lambda x_t, t, y, answer=wanted: answer, (x_0, None), step_generator(0, 0))
        assert value.abs().max() < 1e-12


def test_class_is_dropped_as_often_as_asked():
    seen = []

    class Spy:
        num_classes = 3

        def __call__(self, x_t, t, y):
            seen.append(y)
            return x_t

    batch = torch.zeros(20_000, 1, 1, 1), torch.ones(20_000, dtype=torch.int64)
    DiffusionLoss(schedules.Cosine(), drop_class=0.1)(Spy(), batch, step_generator(0, 0))
    share = float((seen[0] == 3).float().mean())
    assert abs(share - 0.1) < 3 * (0.1 * 0.9 / 20_000) ** 0.5
    assert set(seen[0].tolist()) == {1, 3}


def test_times_are_stratified():
    t = stratified_times(50, step_generator(0, 0)).sort().values
    assert ((t * 50).floor() == torch.arange(50)).all()


def test_shifted_times_are_those_of_a_noise_to_signal_ratio_times_s():
    """For rectified flow, where sigma/alpha = t/(1 - t), a shift by s multiplies that ratio by s."""
    t, flow = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=torch.float64), schedules.RectifiedFlow()
    shifted = shifted_times(t, 6)
    torch.testing.assert_close(flow.sigma(shifted) / flow.alpha(shifted), 6 * flow.sigma(t) / flow.alpha(t))
    assert shifted_times(torch.tensor([0.0, 1.0]), 6).tolist() == [0, 1] and torch.equal(shifted_times(t, 1.0), t)
    loss, batch = DiffusionLoss(schedules.Cosine(), drop_class=0.0, time_shift=6.0), (torch.zeros(32, 1, 2, 2), None)
    _, found = loss(lambda x_t, t, y: x_t, batch, step_generator(0, 0))
    torch.testing.assert_close(found, shifted_times(stratified_times(32, step_generator(0, 0)), 6.0))


def test_batches_visit_every_image_once_an_epoch():
    images = np.arange(12, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    batches = Batches(images, np.arange(12), batch_size=4)
    epoch = torch.cat([batches(k)[1] for k in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))
    assert (batches(0)[0][:, 0, 0, 0] == batches(0)[1]).all()  # image and label stay together
    assert not torch.equal(batches(3)[1], batches(0)[1])
    with pytest.raises(ValueError, match="fewer than one batch"):
        Batches(images, batch_size=13)


def test_bytes_become_minus_one_to_one():
    assert to_tensor(np.array([[[0, 255]]], np.uint8)).flatten().tolist() == [-1.0, 1.0]


def test_resumed_run_ends_with_the_same_weights(tmp_path):
    """Killed after step 7 of 20 and resumed: every weight, average and moment equal to the last bit."""
    for whole in tiny_run(20):
        pass
    for state in tiny_run(20):
        if state.step == 7:
            save_checkpoint(tmp_path / "c.safetensors", state)
            break
    for resumed in tiny_run(20, resume=tmp_path / "c.safetensors"):
        pass
    for a, b in ((whole.net, resumed.net), (whole.ema, resumed.ema)):
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key
    for a, b in zip(whole.optimizer.state_dict()["state"].values(), resumed.optimizer.state_dict()["state"].values()):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(state.net.layers[0].weight, whole.net.layers[0].weight)


def test_the_checkpoint_of_another_network_is_named(tmp_path):
    save_checkpoint(tmp_path / "c.safetensors", next(iter(tiny_run(1))))
    other = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="c.safetensors was made by another network: move or delete it"):
        load_checkpoint(tmp_path / "c.safetensors", other, other, torch.optim.AdamW(other.parameters()))


def test_another_seed_is_another_run():
    first, second = (list(tiny_run(3, seed=seed))[-1] for seed in (0, 1))
    assert not torch.equal(first.net.layers[0].weight, second.net.layers[0].weight)


def test_training_improves():
    losses = [float(state.loss.mean()) for state in tiny_run(400)]
    assert np.mean(losses[-50:]) < 0.8 * np.mean(losses[:20])


def test_learning_rate_warms_up_stays_and_falls_to_zero():
    rates = [learning_rate(k, 1000, 2.0, warmup=100, decay=0.3) for k in range(1000)]
    assert rates[0] == pytest.approx(0.02) and rates[100] == rates[699] == 2.0
    assert rates[850] == pytest.approx(1.0) and rates[999] < 0.01


def test_ema_forgets_its_start():
    assert ema_decay(0) == 0.1 and ema_decay(90) == pytest.approx(0.91) and ema_decay(10**6) == 0.998


def test_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "c.safetensors"
    write_tensors(path, {"a": torch.ones(3)})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="c.safetensors is not a whole safetensors file"):
        read_tensors(path)


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    write_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_tensors(path, {"a": torch.zeros(3)})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_two_processes_average_their_gradients(tmp_path):
    """Two processes, each with half of every batch, end with the same weights, which differ from their start."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        "sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "from test_core_training import tiny_run\n"
        "torch.distributed.init_process_group('gloo')\n"
        "states = list(tiny_run(5))\n"
        "assert all(len(s.loss) == 4 for s in states)\n"
        "mine = torch.cat([p.detach().flatten() for p in states[-1].net.parameters()])\n"
        "both = [torch.empty_like(mine) for _ in range(2)]\n"
        "torch.distributed.all_gather(both, mine)\n"
        "assert torch.equal(both[0], both[1]) and mine.isfinite().all()\n"
        "losses = [torch.empty(4) for _ in range(2)]\n"
        "torch.distributed.all_gather(losses, states[-1].loss)\n"
        "assert not torch.equal(losses[0], losses[1])\n"
    )
    tests = str(__import__("pathlib").Path(__file__).parent)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-addr=127.0.0.1",
        "--master-port=0",
    ]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", str(script), tests, tests + "/.."]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={**__import__("os").environ, "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_image_beside_may_come_with_the_batch():
    """The last channels as y, or y made out of x_0: the same loss."""
    x_0 = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pair = torch.cat([x_0, 0.5 * x_0], 1)

    def net(x, t, y=None):
        return x.sin() + (0 if y is None else y)

    for loss in (DiffusionLoss(schedules.Cosine()), RegressionLoss()):
        made = dataclasses.replace(loss, condition=lambda x: 0.5 * x)
        given = dataclasses.replace(loss, beside=1)
        found = [
            part(net, batch, torch.Generator().manual_seed(1))[0]
            for part, batch in ((made, (x_0, None)), (given, (pair, None)))
        ]
        torch.testing.assert_close(*found, rtol=0, atol=1e-6)
