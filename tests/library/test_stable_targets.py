"""StableTargetLoss against the exact denoiser of its training images, and against the loss that it is a form of."""

import dataclasses
import math

import pytest
import torch

from course_lib import schedules
from course_lib.denoisers import EmpiricalDenoiser
from course_lib.losses import DiffusionLoss, StableTargetLoss
from course_lib.predictions import KINDS, target
from course_lib.recipes import RECIPES
from course_lib.recipes.runs import run
from course_lib.schedules import match_dims
from course_lib.training import step_generator

SCHEDULE = schedules.Cosine()
IMAGES = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.arange(40) % 2
SMALL = {"channels": (32, 32), "num_res_blocks": 1, "patch": 1}


class Spy:
    """A network that says nothing, and keeps what it was shown."""

    num_classes = 2

    def __call__(self, x_t, t, y):
        self.shown = x_t, t, y
        return torch.zeros_like(x_t)


def wanted(kind, data, x_t, t):
    """The square of what the exact denoiser of ``data`` says at x_t, as a prediction of a kind."""
    x_t, t = x_t.double(), t.double()
    x_0 = EmpiricalDenoiser(data.double(), SCHEDULE)(x_t, t)
    alpha, sigma = (match_dims(part(t), x_t) for part in (SCHEDULE.alpha, SCHEDULE.sigma))
    return target(kind, x_0, (x_t - alpha * x_0) / sigma, alpha, sigma).square()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "score"])
def test_late_targets_are_those_of_the_exact_denoiser(kind):
    loss, net = StableTargetLoss(SCHEDULE, kind, since=0.3).of(IMAGES), Spy()
    error, t = loss.error(net, (IMAGES[:32], None), step_generator(0, 0))
    late = t >= 0.3
    assert 0 < late.sum() < 32
    torch.testing.assert_close(
        error[late].double(), wanted(kind, IMAGES, net.shown[0][late], t[late]), rtol=1e-4, atol=1e-5
    )
    plain, _ = DiffusionLoss(SCHEDULE, kind).error(Spy(), (IMAGES[:32], None), step_generator(0, 0))
    assert torch.equal(error[~late], plain[~late]) and not torch.equal(error[late], plain[late])


def test_at_the_ends_of_since():
    """From 1 on no time is late but 1 itself; from 0 on all are, and without noise the image is its own origin."""
    for since, same in ((1.0, True), (0.0, False)):
        loss = StableTargetLoss(SCHEDULE, since=since).of(IMAGES)
        error, t = loss.error(Spy(), (IMAGES[:16], None), step_generator(0, 1))
        plain, _ = DiffusionLoss(SCHEDULE).error(Spy(), (IMAGES[:16], None), step_generator(0, 1))
        assert torch.equal(error, plain) is same
        assert error.isfinite().all()
        first = t < 0.1
        torch.testing.assert_close(error[first], plain[first], rtol=1e-3, atol=1e-3)


def test_a_class_has_its_own_images_and_none_has_all():
    loss, net = StableTargetLoss(SCHEDULE, drop_class=0.5, since=0.5).of(IMAGES, LABELS), Spy()
    error, t = loss.error(net, (IMAGES[:32], LABELS[:32]), step_generator(0, 2))
    x_t, _, y = net.shown
    for told, data in ((0, IMAGES[LABELS == 0]), (1, IMAGES[LABELS == 1]), (2, IMAGES)):
        these = (t >= 0.5) & (y == told)
        assert these.any()
        torch.testing.assert_close(error[these].double(), wanted("v", data, x_t[these], t[these]), rtol=1e-4, atol=1e-5)


USUAL = ((0, 0.5), (0.25, 0.1), (1, 0.02))


def test_each_time_counts_alike():
    """Between two pairs the usual loss lies on a line, so that the mean of its inverse is a logarithm:
    (t2 - t1) ln(l2 / l1) / (l2 - l1)."""
    weighted, t = StableTargetLoss(SCHEDULE, usual=USUAL).of(IMAGES).error(Spy(), (IMAGES, None), step_generator(0, 4))
    plain, same_t = StableTargetLoss(SCHEDULE).of(IMAGES).error(Spy(), (IMAGES, None), step_generator(0, 4))
    assert torch.equal(t, same_t)
    usual = torch.where(t < 0.25, 0.5 - 1.6 * t, 0.1 - 0.08 / 0.75 * (t - 0.25))
    mean = 0.25 * math.log(5) / 0.4 + 0.75 * math.log(5) / 0.08
    torch.testing.assert_close(weighted, plain / match_dims(usual * mean, plain), rtol=1e-3, atol=0)


def test_one_usual_loss_for_all_times_changes_nothing():
    flat = StableTargetLoss(SCHEDULE, usual=((0, 0.3), (1, 0.3))).of(IMAGES)
    plain = StableTargetLoss(SCHEDULE).of(IMAGES)
    first, second = (loss(Spy(), (IMAGES, None), step_generator(0, 5))[0] for loss in (flat, plain))
    torch.testing.assert_close(first, second)


def test_half_precision_of_the_network_does_not_reach_the_target():
    loss = StableTargetLoss(SCHEDULE, since=0.3).of(IMAGES)
    plain, _ = loss(Spy(), (IMAGES[:32], None), step_generator(0, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast, _ = loss(Spy(), (IMAGES[:32], None), step_generator(0, 3))
    assert torch.equal(plain, fast)


def test_the_gradient_is_the_same_with_less_chance_in_it():
    """Of net = w x_t + b at late times: the means over 4,000 batches agree to four standard errors, and the variance
    falls."""

    def gradients(loss):
        found = []
        for k in range(4000):
            w, b = torch.tensor(0.1, requires_grad=True), torch.tensor(0.1, requires_grad=True)
            chosen = torch.randperm(40, generator=step_generator(1, k))[:8]
            error, t = loss.error(lambda x, t, y, w=w, b=b: w * x + b, (IMAGES[chosen], None), step_generator(0, k))
            late = error[t >= 0.7].sum()  # at early ones both losses are the same
            found.append(torch.stack(torch.autograd.grad(late, (w, b))))
        return torch.stack(found)

    plain = gradients(DiffusionLoss(SCHEDULE))
    stable = gradients(StableTargetLoss(SCHEDULE, since=0.7).of(IMAGES))
    apart = (plain - stable).mean(0) / ((plain.var(0) + stable.var(0)) / 4000).sqrt()
    assert (apart.abs() < 4).all(), apart
    assert (stable.var(0) < 0.7 * plain.var(0)).all(), stable.var(0) / plain.var(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"since": 1.5}, "since must lie from 0 to 1"),
        ({"concat": 1}, "condition and concat must be left out"),
        ({"condition": torch.abs}, "condition and concat must be left out"),
        ({"kind": "noise"}, "kind must be one of"),
        ({"usual": ()}, "times of usual must rise from 0 to 1"),
        ({"usual": ((0, 1.0), (0.9, 1.0))}, "times of usual must rise from 0 to 1"),
        ({"usual": ((0.1, 1.0), (1, 1.0))}, "times of usual must rise from 0 to 1"),
        ({"usual": ((0, 1.0), (0.6, 1.0), (0.5, 1.0), (1, 1.0))}, "times of usual must rise from 0 to 1"),
        ({"usual": ((0, 1.0), (0.5, 0.0), (1, 1.0))}, "usual at 0.5 must be"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        StableTargetLoss(SCHEDULE, **settings)


def test_without_a_training_set_it_says_so():
    with pytest.raises(ValueError, match="does not know its training images"):
        StableTargetLoss(SCHEDULE, since=0.3)(Spy(), (IMAGES, None), step_generator(0, 0))


def test_a_recipe_tells_it_the_images_of_its_run(tmp_path):
    """Two sets of images are two runs; a run has the loss of its own images."""
    recipe = dataclasses.replace(
        RECIPES["brain_latent"], network_args=SMALL, load_data=lambda: (IMAGES.numpy(), None), batch_size=8, steps=1
    )
    (state,) = run(recipe, tmp_path, torch.float32)
    assert state.identity["loss.class"] == "StableTargetLoss" and len(state.identity["loss.training_set"]) == 3
    others = dataclasses.replace(recipe, load_data=lambda: (-IMAGES.numpy(), None))
    with pytest.raises(ValueError, match="loss.training_set was"):
        list(run(others, tmp_path, torch.float32))
