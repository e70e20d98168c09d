"""Training: the loss against its definition, resuming against not having stopped, many processes against one."""

import dataclasses
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_training
from helpers.tiny_training import Tiny, plain_run, tiny_run

from course_lib import checkpoints, schedules
from course_lib.checkpoints import load_checkpoint, save_checkpoint
from course_lib.files import read_tensors, write_atomically, write_tensors
from course_lib.images import to_tensor, to_uint8
from course_lib.losses import (
    AutoencoderLoss,
    ClassificationLoss,
    DiffusionLoss,
    DistillationLoss,
    EDMLoss,
    NoisyClassificationLoss,
    RegressionLoss,
    shifted_times,
    stratified_times,
)
from course_lib.networks import DiffusionUNet
from course_lib.training import Batches, ema_decay, learning_rate, step_generator, train, update_ema

ROOT = Path(__file__).resolve().parents[2]


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
            state.core_seconds = 1e6
            save_checkpoint(tmp_path / "c.safetensors", state)
            break
    for resumed in tiny_run(20, resume=tmp_path / "c.safetensors"):
        pass
    assert 0 < whole.core_seconds < 1e3 < 1e6 < resumed.core_seconds  # the time of the first part counts
    for a, b in ((whole.net, resumed.net), (whole.ema, resumed.ema)):
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key
    for a, b in zip(whole.optimizer.state_dict()["state"].values(), resumed.optimizer.state_dict()["state"].values()):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(state.net.layers[0].weight, whole.net.layers[0].weight)


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler for torch.compile")
@pytest.mark.parametrize("compiled_first", [True, False])
def test_compiled_and_plain_training_are_one_run(tmp_path, compiled_first):
    """The checkpoint of either goes on with the other, and ends with the same weights and averages but for rounding."""
    path = tmp_path / "c.safetensors"
    for whole in tiny_run(6):
        pass
    for state in tiny_run(6, compiled=compiled_first):
        if state.step == 3:
            save_checkpoint(path, state)
            break
    for resumed in tiny_run(6, resume=path, compiled=not compiled_first):
        pass
    for key in ("net", "ema"):
        wanted, found = (getattr(state, key).state_dict() for state in (whole, resumed))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_without_a_compiler_it_is_one_sentence(monkeypatch):
    def broken(function):
        raise RuntimeError("No working C++ compiler found\nat length")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        ValueError, match=r"no compiler works .*\(No working C\+\+ compiler found\): install one, .*--no-comp"
    ):
        next(tiny_run(1, compiled=True))


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


def test_each_step_draws_anew_and_the_average_follows_its_decay():
    """Step k draws from (seed, k), and ema <- d ema + (1 - d) net with d = (1 + k) / (10 + k)."""
    seeds = []

    class Listening(DiffusionLoss):
        def __call__(self, net, batch, generator):
            seeds.append(generator.initial_seed())
            return super().__call__(net, batch, generator)

    torch.manual_seed(1)
    net, batches = Tiny(), Batches(np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2, batch_size=4)
    expected = net.layers[0].weight.detach().clone()
    for k, state in enumerate(train(net, batches, Listening(schedules.Cosine()), steps=5, peak_rate=1.0, seed=3)):
        decay = (1 + k) / (10 + k)
        expected = decay * expected + (1 - decay) * state.net.layers[0].weight.detach()
        torch.testing.assert_close(state.ema.layers[0].weight, expected, rtol=0, atol=1e-6)
    assert seeds == [step_generator(3, k).initial_seed() for k in range(5)] and len(set(seeds)) == 5


@pytest.mark.parametrize(("factor", "length"), [(1e4, 1.0), (1e-4, None)])
def test_a_gradient_longer_than_one_is_cut_to_one(factor, length):
    """AdamW's first moment after one step is a tenth of the gradient that it was given."""

    class Scaled(DiffusionLoss):
        def __call__(self, net, batch, generator):
            value, t = super().__call__(net, batch, generator)
            return factor * value, t

    torch.manual_seed(1)
    net, batches = Tiny(), Batches(np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2, batch_size=8)
    loss = Scaled(schedules.Cosine())
    if length is None:
        loss(net, batches(0), step_generator(0, 0))[0].mean().backward()
        length = float(torch.cat([weight.grad.flatten() for weight in net.parameters()]).norm())
        net.zero_grad()
        assert 0 < length < 1e-2
    state = next(train(net, batches, loss, steps=1))
    first = [moments["exp_avg"].flatten() for moments in state.optimizer.state_dict()["state"].values()]
    assert float(torch.cat(first).norm()) == pytest.approx(0.1 * length, rel=1e-3)


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


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What both of two processes under torchrun say of a part of tiny_training.PARTS; started once for all parts."""
    folder = tmp_path_factory.mktemp("two_processes")
    for batch_size in (5, 1):
        *_, alone = plain_run(batch_size)
        moments = alone.optimizer.state_dict()["state"]
        flat = {f"{k}.{key}": moments[k][key] for k in moments for key in ("exp_avg", "exp_avg_sq")}
        write_tensors(folder / f"{batch_size}.safetensors", flat)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    command += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", tiny_training.__file__]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=300, env=environment)

    def said(part):
        reports = [folder / f"{part}, process {rank}.txt" for rank in range(2)]
        return [path.read_text(encoding="utf-8") if path.exists() else done.stderr[-3000:] for path in reports]

    return said


def test_two_processes_average_their_gradients(two_processes):
    """Two processes, each with half of every batch, end with the same weights, which differ from their start."""
    assert two_processes("averaged") == ["passed", "passed"]


@pytest.mark.parametrize("batch_size", [5, 1])
def test_unequal_shares_give_the_gradient_of_the_whole_batch(two_processes, batch_size):
    """Five images over two processes, and one image, of which the second process gets none: the first and second
    moments, which hold the gradient, are those of one process."""
    assert two_processes(f"unequal {batch_size}") == ["passed", "passed"]


def test_a_loss_that_is_not_finite_stops_all_processes(two_processes):
    assert two_processes("not finite") == ["passed", "passed"]


def test_image_beside_may_come_with_the_batch():
    """The last channels as y, or y made out of x_0: the same loss."""
    x_0 = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pair = torch.cat([x_0, 0.5 * x_0], 1)

    def net(x, t, y=None):
        return x.sin() + (0 if y is None else y)

    for loss in (DiffusionLoss(schedules.Cosine()), RegressionLoss()):
        made = dataclasses.replace(loss, condition=lambda x: 0.5 * x)
        given = dataclasses.replace(loss, concat=1)
        found = [
            part(net, batch, torch.Generator().manual_seed(1))[0]
            for part, batch in ((made, (x_0, None)), (given, (pair, None)))
        ]
        torch.testing.assert_close(*found, rtol=0, atol=1e-6)


# ---- What stops a run, and what it leaves ----------------------------------------------------------------------------


def same(a, b):
    """Whether two networks have the same weights to the last bit."""
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def last(states):
    for state in states:
        pass
    return state


def test_a_loss_that_is_not_finite_changes_nothing(tmp_path):
    """NaN in the data of step 6: the error names the step; weights, averages and checkpoint are those of step 5."""
    path, bad = tmp_path / "c.safetensors", {5}
    labels = np.arange(40) % 2
    batches = Batches(np.uint8(40 + 150 * labels)[:, None, None] * np.ones((1, 4, 4), np.uint8), labels, batch_size=8)

    def given(k):
        x, y = batches(k)
        return (x * float("nan") if k in bad else x), y

    def run(batches, steps=8, resume=None):
        torch.manual_seed(1)
        return train(Tiny(), batches, DiffusionLoss(schedules.Cosine()), steps=steps, resume=resume)

    states = run(given)
    for _ in range(5):
        state = next(states)
        save_checkpoint(path, state)
    with pytest.raises(ValueError, match=r"step 6 of 8: the loss is nan, at 8 of 8 images.*lower peak_rate"):
        next(states)
    for whole in run(batches):
        if whole.step == 5:
            assert same(state.net, whole.net) and same(state.ema, whole.ema)
    bad.clear()
    resumed = last(run(given, resume=path))
    assert resumed.step == 8 and same(resumed.net, whole.net) and same(resumed.ema, whole.ema)


def test_a_gradient_that_is_not_finite_stops_too():
    """sqrt(0) has an infinite slope: a finite loss, and no step."""

    def loss(net, batch, generator):
        return (0 * net.weight.sum()).sqrt().expand(len(batch[0])), None

    net = torch.nn.Linear(2, 2)
    before = net.weight.clone()
    with pytest.raises(ValueError, match="step 1 of 3: the gradient is not finite; the step was not taken"):
        list(train(net, Batches(np.zeros((8, 2, 2), np.uint8), batch_size=4), loss, steps=3))
    assert torch.equal(net.weight, before)


@pytest.fixture
def checkpoint(tmp_path):
    """The checkpoint of step 4 of 20 of the tiny run."""
    path = tmp_path / "c.safetensors"
    for state in tiny_run(20):
        if state.step == 4:
            save_checkpoint(path, state)
            return path


def resumed(path, *, steps=20, seed=0, batch_size=8, order=0, kind="v", schedule=None, **more):
    """The tiny run again with some settings of its own, from its checkpoint."""
    torch.manual_seed(1)
    labels = np.arange(40) % 2
    images = np.uint8(40 + 150 * labels)[:, None, None] + np.arange(16, dtype=np.uint8).reshape(4, 4)
    batches = Batches(images, labels, batch_size=batch_size, seed=order)
    loss = DiffusionLoss(schedule or schedules.Cosine(), kind)
    return next(train(Tiny(), batches, loss, steps=steps, seed=seed, resume=path, **more))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "eps"}, r"\(loss.kind was 'v' and is 'eps'\): go back to those, or move or delete the file"),
        ({"schedule": schedules.Linear()}, "loss.schedule.class was 'Cosine' and is 'Linear'"),
        ({"batch_size": 4}, "batch_size was 8 and is 4"),
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"order": 3}, "order of the images was 0 and is 3"),
        ({"peak_rate": 1e-3}, "peak_rate was 0.0005 and is 0.001"),
        ({"precision": torch.bfloat16}, "precision was 'float32' and is 'bfloat16'"),
        ({"steps": 4}, "steps was 20 and is 4"),
        ({"about": {"recipe": "other"}}, "recipe was None and is 'other'"),
    ],
)
def test_a_resume_under_other_settings_is_refused(checkpoint, settings, message):
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"c\.safetensors is of a run with other settings.*" + message):
        resumed(checkpoint, **settings)
    assert checkpoint.read_bytes() == before


def test_parameters_of_a_schedule_are_part_of_a_run(tmp_path):
    path = tmp_path / "c.safetensors"
    torch.manual_seed(1)
    save_checkpoint(path, resumed(None, schedule=schedules.Linear()))
    with pytest.raises(ValueError, match="loss.schedule.beta_max was 20.0 and is 10.0"):
        resumed(path, schedule=schedules.Linear(beta_max=10.0))
    path.unlink()
    betas = torch.linspace(1e-4, 0.02, 50, dtype=torch.float64)
    save_checkpoint(path, resumed(None, schedule=schedules.Discrete(betas)))
    assert resumed(path, schedule=schedules.Discrete(betas)).step == 2
    with pytest.raises(ValueError, match="loss.schedule.betas was '[0-9a-f]{16}' and is '[0-9a-f]{16}'"):
        resumed(path, schedule=schedules.Discrete(1.01 * betas))


def described(value):
    """What a run's settings say of a condition, or whatever it is."""
    net, loss = torch.nn.Linear(1, 1), RegressionLoss(condition=value)
    said = checkpoints.identity(net, None, loss, steps=1, peak_rate=1.0, seed=0, precision=torch.float32)
    return {key: part for key, part in said.items() if key.startswith("loss.condition")}


def scaled(factor):
    def condition(x):
        return factor * x

    return condition


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def condition(self, x):
        return self.factor * x


def test_functions_are_told_apart_by_what_they_hold():
    nets = [torch.nn.Linear(2, 2) for _ in range(2)]
    twin = torch.nn.Linear(2, 2)
    twin.load_state_dict(nets[0].state_dict())
    for one, same, other in (
        (lambda x: 2 * x, lambda x: 2 * x, lambda x: 3 * x),
        (lambda x, k=2: k * x, lambda x, k=2: k * x, lambda x, k=3: k * x),
        (lambda x, *, k=2: k * x, lambda x, *, k=2: k * x, lambda x, *, k=3: k * x),
        (scaled(2), scaled(2), scaled(3)),
        (scaled(nets[0]), scaled(twin), scaled(nets[1])),
        (Scaled(2).condition, Scaled(2).condition, Scaled(3).condition),
        (functools.partial(torch.add, 2), functools.partial(torch.add, 2), functools.partial(torch.add, 3)),
        (nets[0], twin, nets[1]),
    ):
        assert described(one) == described(same) != described(other)
    assert described(to_tensor) == {"loss.condition": "to_tensor"}


def test_a_function_that_holds_itself_has_a_description():
    def halved(x):
        return x if x < 1 else halved(x / 2)

    assert "halved" in str(described(halved))


def test_more_steps_are_welcome_until_the_learning_rate_falls(checkpoint):
    """The rates of the first 4 of 20 steps are those of the first 4 of 30, so the run is the same to the last bit."""
    assert same(last(tiny_run(30, resume=checkpoint)).net, last(tiny_run(30)).net)
    save_checkpoint(checkpoint, last(tiny_run(20)))
    with pytest.raises(ValueError, match="steps was 20 and is 30"):
        next(tiny_run(30, resume=checkpoint))


def test_other_versions_are_told_and_go_on(checkpoint, caplog, monkeypatch):
    monkeypatch.setattr(checkpoints, "_version", lambda: "9.9")
    assert resumed(checkpoint).step == 5
    assert len(caplog.messages) == 1 and "and is '9.9'" in caplog.messages[0]


def test_checkpoints_without_settings_go_on_and_say_so(checkpoint, caplog):
    """As they were written before they held any: the step alone, and no checksum."""
    tensors, said = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors, {"step": said["step"]})
    assert same(last(tiny_run(20, resume=checkpoint)).net, last(tiny_run(20)).net)
    assert len(caplog.messages) == 1 and "does not say by which settings it was made" in caplog.messages[0]


@pytest.mark.parametrize("steps", [0, -5, 2.5])
def test_steps_are_counted_from_one(steps):
    with pytest.raises(ValueError, match="steps must be a whole number from 1 on, got"):
        next(tiny_run(steps))


def test_fewer_steps_than_done(checkpoint):
    tensors, said = read_tensors(checkpoint)
    write_tensors(checkpoint, tensors, {"step": said["step"]})
    with pytest.raises(ValueError, match="has 4 steps already, more than steps = 3: give 4 or more"):
        next(tiny_run(3, resume=checkpoint))
    assert list(tiny_run(4, resume=checkpoint)) == []


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-10])


def edited(path, change):
    tensors, said = read_tensors(path)
    write_tensors(path, *change(tensors, said))


def without_moments(tensors):
    return {name: value for name, value in tensors.items() if not name.startswith("optimizer")}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flipped, "is damaged or was edited"),
        (truncated, "is not a whole safetensors file"),
        (lambda path: edited(path, lambda t, m: (t, m | {"step": "99"})), "is damaged or was edited"),
        (lambda path: edited(path, lambda t, m: (without_moments(t), m)), "is damaged or was edited"),
        (lambda path: edited(path, lambda t, m: (without_moments(t), {"step": "4"})), "is no whole checkpoint"),
        (lambda path: edited(path, lambda t, m: (t, {})), "is no whole checkpoint"),
        (lambda path: write_tensors(path, {"a": torch.ones(2)}, {"step": "4"}), "is no whole checkpoint"),
        (lambda path: path.write_bytes(b""), "is not a whole safetensors file"),
    ],
)
def test_a_damaged_checkpoint_is_refused(checkpoint, harm, message):
    harm(checkpoint)
    with pytest.raises(ValueError, match=r"c\.safetensors " + message + ".*delete it"):
        next(tiny_run(20, resume=checkpoint))


class Tied(torch.nn.Module):
    """Two names for one layer."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.second = self.first

    def forward(self, y, t):
        return self.second(self.first(y))


def test_tied_weights_train_and_resume(tmp_path):
    def run(resume=None):
        torch.manual_seed(0)
        images = np.random.default_rng(0).integers(0, 256, (16, 8, 8), dtype=np.uint8)
        return train(
            Tied(), Batches(images, batch_size=8), RegressionLoss(condition=lambda x: x), steps=9, resume=resume
        )

    for whole in run():
        if whole.step == 4:
            save_checkpoint(tmp_path / "c.safetensors", whole)
    again = last(run(tmp_path / "c.safetensors"))
    assert same(again.net, whole.net) and same(again.ema, whole.ema) and again.net.first is again.net.second


def test_an_average_is_taken_once_of_tied_weights():
    net, average = Tied(), Tied()
    expected = 0.75 * average.first.weight + 0.25 * net.first.weight
    update_ema(average, net, 0.75)
    torch.testing.assert_close(average.first.weight, expected)


def test_a_full_disk_keeps_the_last_checkpoint(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*c\.safetensors'"):
        save_checkpoint(checkpoint, next(tiny_run(1)))
    assert checkpoint.read_bytes() == before and [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_leftovers_of_killed_writes_go(tmp_path):
    """Only temporary files of the same path, and only old ones."""
    path, old = tmp_path / "c.json", time.time() - 7200
    names = {"c.jsonabcd12_3.part": old, "c.jsonabcd12_4.part": None, "d.jsonabcd12_3.part": old, "c.json.part": old}
    for name, when in names.items():
        (tmp_path / name).write_bytes(b"x")
        if when:
            os.utime(tmp_path / name, (when, when))
    write_atomically(path, b"{}")
    assert {p.name for p in tmp_path.iterdir()} == {"c.json", *names} - {"c.jsonabcd12_3.part"}


def test_training_that_is_killed_again_and_again_ends_the_same(tmp_path):
    """SIGKILL at six random moments: what is resumed ends, bit for bit, as what was never stopped."""
    path, rng = tmp_path / "c.safetensors", np.random.default_rng(0)
    command, environment = [sys.executable, tiny_training.__file__, str(path)], os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, env=environment, **pipes) as forks:
        for _ in range(6):
            forks.stdin.write("\n")
            number = int(forks.stdout.readline())  # once a step is done and written
            time.sleep(rng.uniform(0, 0.03))
            os.kill(number, signal.SIGKILL)
            assert "gone\n" in iter(forks.stdout.readline, "")
    assert 6 <= json.loads(read_tensors(path)[1]["step"]) < 60
    for state in tiny_run(60, resume=path):
        save_checkpoint(path, state)
    step, whole = json.loads(read_tensors(path)[1]["step"]), last(tiny_run(60))
    assert step == 60
    net, ema = Tiny(), Tiny()
    load_checkpoint(path, net, ema, torch.optim.AdamW(net.parameters()))
    assert same(net, whole.net) and same(ema, whole.ema)


# ---- Arguments beyond their range ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffusionLoss(schedules.Cosine(), drop_class=2), "drop_class must lie from 0 to 1"),
        (lambda: DiffusionLoss(schedules.Cosine(), drop_class=-0.1), "drop_class must lie"),
        (lambda: DiffusionLoss(schedules.Cosine(), drop_class=float("nan")), "drop_class must lie"),
        (lambda: DiffusionLoss(schedules.Cosine(), time_shift=0), "time_shift must be positive"),
        (lambda: DiffusionLoss(schedules.Cosine(), "noise"), "kind must be one of 'x0', .*got 'noise'"),
        (lambda: DiffusionLoss(schedules.Cosine(), concat=-1), "concat must be a whole number from 0 on"),
        (lambda: EDMLoss(0.0), "sigma_data must be positive"),
        (lambda: EDMLoss(0.5, std=-1), "std must be positive"),
        (lambda: NoisyClassificationLoss(schedules.Cosine(), latest=1.5), "latest must lie from 0 to 1"),
        (lambda: NoisyClassificationLoss(schedules.Cosine(), latest=0), "latest must be"),
        (lambda: DistillationLoss(None, schedules.RectifiedFlow(), steps=0), "steps must be a whole number from 1 on"),
        (lambda: AutoencoderLoss(kl_weight=-1), "kl_weight must be 0 or more"),
        (lambda: ClassificationLoss(shift=1.5), "shift must be a whole number"),
        (lambda: Batches(np.zeros((4, 2, 2), np.uint8), batch_size=0), "batch_size must be a whole number from 1 on"),
        (lambda: Batches(np.zeros((4, 2, 2), np.int16), batch_size=2), "uint8 in 0..255 or floats.*got int16"),
        (lambda: Batches(np.full((4, 2, 2), 255.0), batch_size=2), r"in \[-1, 1\], .* reach 255: of 0..255 make"),
        (lambda: Batches(np.zeros((4, 2, 2), np.uint8), np.arange(5), batch_size=2), "as many as there are images, 4"),
        (lambda: Batches(np.zeros((4, 2, 2), np.uint8), np.zeros(4), batch_size=2), "whole numbers.*got float64"),
        (lambda: Batches(np.zeros((4, 2, 2), np.uint8), np.arange(4) - 1, batch_size=2), "of at least 0"),
        (
            lambda: Batches([np.zeros((2, 2), np.uint8)] * 4, batch_size=2),
            "images must be an array or tensor, got a list",
        ),
        (
            lambda: Batches(np.zeros((4, 2, 2), np.uint8), [0, 1, 2, 3], 2),
            "labels must be an array or tensor, got a list",
        ),
        (lambda: to_tensor(np.array([[[0.0, np.nan]]])), "images .* some values are NaN or infinite"),
        (lambda: to_tensor(np.zeros((2, 2), np.uint8)), r"got shape \(2, 2\): one alone is image\[None\]"),
        (lambda: to_tensor(np.zeros((2, 2, 2), bool)), "got bool"),
        (lambda: to_uint8(np.array([[[0.0, np.inf]]])), "images .* some values are NaN or infinite"),
        (lambda: to_uint8(np.array([[[0.0, 255.0]]])), "reach 255"),
        (lambda: to_uint8(np.zeros((1, 2, 2), np.uint8)), "must be floats .*got uint8"),
    ],
)
def test_arguments_beyond_their_range_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_rate_without_a_rise_or_a_fall():
    assert learning_rate(0, 10, 2.0, warmup=0, decay=0.5) == 2.0
    assert [learning_rate(k, 10, 2.0, warmup=2, decay=0) for k in range(10)] == [1.0] + [2.0] * 9


def test_arrays_of_every_kind_are_images():
    x = torch.linspace(-1, 1, 24).reshape(2, 3, 4)
    torch.testing.assert_close(to_tensor(x.bfloat16())[:, 0], x, rtol=0, atol=2**-8)
    assert torch.equal(to_tensor(x.numpy()[:, ::-1])[:, 0], x.flip(1))
    to_tensor(x.requires_grad_()).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_ends_of_the_ranges_are_fine():
    DiffusionLoss(schedules.Cosine(), drop_class=0)
    DiffusionLoss(schedules.Cosine(), drop_class=1.0)
    NoisyClassificationLoss(schedules.Cosine(), latest=1)
    x = np.zeros((3, 2, 4, 5), np.uint8)
    for labels in (np.array([True, False, True]), np.zeros((3, 4, 5), np.uint8), torch.tensor([0, 1, 2])):
        assert Batches(x, labels, batch_size=3)(0)[0].shape == (3, 2, 4, 5)
    latents = 4.0 * np.ones((2, 3, 4, 4), np.float32)
    assert (to_tensor(latents).numpy() == latents).all()
    assert to_uint8(np.array([-1.01, -1, 0, 1, 1.01])).tolist() == [0, 0, 128, 255, 255]


def test_labels_that_the_network_does_not_know():
    batches = Batches(np.zeros((8, 16, 16), np.uint8), np.arange(8) % 4, batch_size=4)
    net = DiffusionUNet(channels=(32,), patch=4, num_classes=3)
    with pytest.raises(ValueError, match=r"labels must lie in 0..2, since the network knows 3; the largest is 3"):
        next(train(net, batches, DiffusionLoss(schedules.Cosine()), steps=1))
