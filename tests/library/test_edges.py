"""Inputs at the edge of what a function is for: it is right there, or says what it wants; it draws nothing wrong."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from course_lib import checkpoints, datasets, losses, operators
from course_lib.applications import denoising
from course_lib.denoisers import FunctionDenoiser, GaussianDenoiser, NetworkDenoiser
from course_lib.experiments import segmentation
from course_lib.generative import models, scoreboard
from course_lib.inverse import dps_step, tv
from course_lib.likelihood import gaussian_elbo_gap
from course_lib.metrics.images import contrast_kept
from course_lib.recipes import gpu_day
from course_lib.samplers import bridge_step, ddim_step, ddpm_step, meanflow_step, sample, unmask_step
from course_lib.schedules import BrownianBridge, Cosine, RectifiedFlow, VarianceExploding, uniform_times
from course_lib.viz import figures

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def refused(match, function, *arguments, **options):
    with pytest.raises(ValueError, match=match):
        function(*arguments, **options)


LOSSES = {
    "diffusion": (losses.DiffusionLoss(Cosine()), lambda x, t, y: 0 * x),
    "EDM": (losses.EDMLoss(0.5), lambda x, t, y: 0 * x),
    "flow": (losses.MeanFlowLoss(apart=0.0), lambda x, t, y, s: 0 * x),
    "bridge": (losses.BridgeLoss(BrownianBridge(), concat=0), lambda x, t, y: 0 * x),
    "regression": (losses.RegressionLoss(lambda x: x), lambda y, t: 0 * y),
    "autoencoder": (losses.AutoencoderLoss(), lambda x, generator: (0 * x, 0 * x, 0 * x + 1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_compares_no_image_with_another(name):
    """An answer without its channel broadcasts: (4, 8, 8) against (4, 1, 8, 8) pairs every image with all."""
    loss, net = LOSSES[name]
    batch = (X, X) if name == "bridge" else (X, None)
    assert loss(net, batch, seeded())[0].shape == (4,)

    def without_channel(*asked):
        answer = net(*asked)
        return (answer[0][:, 0], *answer[1:]) if isinstance(answer, tuple) else answer[:, 0]

    refused("the answer of net", loss, without_channel, batch, seeded())


def test_a_denoiser_and_the_forward_process_broadcast_no_image():
    refused("the answer of net and x_t must have one shape", NetworkDenoiser(lambda x, t, y: x[:, 0], Cosine()), X, 0.5)
    refused("x_0 and eps must have one shape", Cosine().noisy, X, X[:, 0], 0.5)


def test_dps_leaves_what_stands_in_the_hole_out_of_the_norm():
    A, D = operators.Mask(torch.tensor([1, 0, 1])), FunctionDenoiser(lambda x, t: x.tanh(), Cosine())
    y, x = torch.tensor([[0.3, float("nan"), 0.2]]), torch.ones(1, 3)
    found = [dps_step(A, one, 1.0, ddim_step)(D, x, 0.5, 0.4)[0] for one in (y, A(y), y.nan_to_num(9.0))]
    assert found[0].isfinite().all() and torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_a_measurement_of_another_shape_is_not_broadcast():
    A = operators.KSpace(operators.sampled_lines(8, 2))
    refused("x and A\\^T y must have one shape", operators.fitted, A, A(X)[:, 0], X, 0.1)
    whole = operators.Mask(torch.ones(8, 8))
    refused("A\\^T y must be an array or tensor \\(B, C, H, W\\)", tv, whole, X[:, 0], 0.3, 5)
    refused("start and A\\^T y must have one shape", tv, whole, X, 0.3, 5, start=X[:1])


def test_ddim_with_all_of_the_noise_is_ddpm_in_single_precision():
    """There rounding takes sigma_s^2 - sigma_eta^2 below 0, where sigma_s is far below sigma_t."""
    schedule, times = VarianceExploding(), torch.tensor([1.0, 0.05, 0.0])
    D, start = GaussianDenoiser(torch.zeros(1), torch.eye(1) / 4, schedule), 80 * torch.randn(50, 1, generator=seeded())
    found = [sample(D, start, times, step, seeded(1)) for step in (partial(ddim_step, eta=1.0), ddpm_step)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_a_step_back_starts_from_noise():
    D = GaussianDenoiser(torch.zeros(1), torch.eye(1), BrownianBridge())
    refused("no noise at t", sample, D, torch.zeros(2, 1), uniform_times(4), ddpm_step)
    refused("no noise at t", gaussian_elbo_gap, BrownianBridge(), torch.tensor([1.0, 0.5, 0.0]), 1.0)


def test_steps_of_one_schedule_refuse_others():
    other = FunctionDenoiser(lambda x, t, **told: x, Cosine())
    refused("schedule BrownianBridge, got Cosine", bridge_step, other, X, 0.5, 0.4)
    refused("schedule RectifiedFlow, got Cosine", meanflow_step, other, X, 0.5, 0.4)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_unmasking_shows_every_place_in_the_end(kind):
    hidden = torch.zeros(1, 5, 256, 256, dtype=kind)
    hidden[:, -1] = 1
    D = FunctionDenoiser(lambda x, t: torch.full_like(x[:, :-1], 0.25), RectifiedFlow())
    shown = unmask_step(D, hidden, torch.tensor(1.0), torch.tensor(0.0), generator=seeded())[0]
    assert not shown[:, -1].any() and torch.equal(shown.sum(1), torch.ones(1, 256, 256, dtype=kind))
    torch.testing.assert_close(shown[:, :4].float().mean((0, 2, 3)), torch.full((4,), 0.25), atol=0.01, rtol=0)


def test_unmasking_draws_no_label_of_probability_zero(monkeypatch):
    hidden = torch.eye(4)[None, :, 3:].repeat(1, 1, 6)
    p = torch.tensor([0.0, 0.5, 0.5])
    D = FunctionDenoiser(lambda x, t: p[None, :, None].expand(1, 3, 6), RectifiedFlow())
    monkeypatch.setattr(torch, "rand", lambda *shape, generator=None: torch.zeros(shape))
    shown = unmask_step(D, hidden, torch.tensor(1.0), torch.tensor(0.0))[0]
    assert torch.equal(shown.argmax(1), torch.ones(1, 6, dtype=torch.long))


def test_a_choice_of_each_class_holds_no_item_twice_and_none_too_few():
    labels, n = torch.tensor([0] * 3 + [1] * 5), 3
    for chosen in (datasets.spread_of_each_class(labels, n), datasets.random_of_each_class(labels, n, seeded())):
        assert torch.equal(labels[chosen].bincount(), torch.tensor([n, n])) and len(set(chosen.tolist())) == 2 * n
    refused("n must be at most 3", datasets.spread_of_each_class, labels, 5)
    refused("n must be at most 3", datasets.random_of_each_class, labels, 5, seeded())


def test_the_reference_of_a_small_copy_has_as_many_of_each_class():
    labels = torch.arange(6).repeat_interleave(torch.tensor([7, 5, 7, 7, 7, 7]))
    assert torch.equal(labels[datasets.in_reference(labels)].bincount(), torch.full((6,), 5))


@pytest.mark.parametrize(
    ("a", "b"), [({1, 2}, {1}), (range(3), range(4)), (torch.float32, torch.float16), (b"a", b"b")]
)
def test_settings_that_differ_have_other_identities(a, b):
    one, other, again = (checkpoints._described(SimpleNamespace(value=value)) for value in (a, b, a))
    assert one != other and one == again


def test_a_controlnet_takes_labels_and_no_picture():
    from course_lib.networks import ControlledUNet, DiffusionUNet

    net = ControlledUNet(DiffusionUNet(channels=(32, 32), num_res_blocks=1, patch=2), num_labels=5)
    labels = torch.arange(5).repeat(13)[:64].reshape(1, 8, 8)
    assert net(X[:1], 0.5, labels).shape == (1, 1, 8, 8)
    for y in (torch.full((1, 8, 8), 0.9), labels + 1, labels - 1):
        refused("whole labels from 0 to 4", net, X[:1], 0.5, y)


def test_a_threshold_that_finds_nothing_of_a_part_is_not_the_best():
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    truth[0, :, :2] = 1
    p = torch.zeros(1, 3, 4, 4)
    p[:, 1, :, :2] = 0.55  # all of part 1; part 2 is empty
    p[:, 2, 3, 3] = 0.55  # and a little of it where there is none
    p[:, 0] = 1 - p[:, 1] - p[:, 2]
    assert segmentation.chosen_threshold(p, truth, torch.zeros(1, dtype=torch.long)) < 0.55


def test_solvers_refuse_a_weight_of_nothing():
    b = torch.ones(1, 1, 8, 8)
    coils = operators.MultiCoil(torch.ones(8, 8), torch.ones(3, 8, 8, dtype=torch.complex64))
    for A in (operators.KSpace(torch.ones(8)), operators.Radon(8, 3), coils):
        for weight in (0.0, -1.0):
            refused("weight must be positive", A.solve, b, weight)
    refused("weight must be 0 or more", operators.KSpace(torch.ones(8)).fit, b + 0j, -1.0)


def test_many_coils_in_half_precision_are_those_in_single():
    coils = operators.MultiCoil(torch.ones(8, 8), torch.ones(3, 8, 8, dtype=torch.complex64), parts=1)
    assert torch.equal(coils(X.half()), coils(X.half().float()))


def test_contrast_of_no_lesion_is_no_number():
    mask = torch.ones_like(X, dtype=torch.bool)
    refused("change is 0 all over", contrast_kept, X, X, torch.zeros_like(X), mask)
    torch.testing.assert_close(contrast_kept(X, 0 * X, X, mask), torch.ones(4))
    assert contrast_kept(X, float("nan") * X, X, mask).isnan().all()


def test_components_of_one_picture_are_none():
    refused("images must differ", models.PCA, torch.zeros(5, 1, 4, 4), 2)
    refused("images must differ", models.PCA, X[:1], 1)


def test_the_spread_of_a_mode_that_was_missed_is_no_number():
    from course_lib.generative.scoreboard import RARE

    data = SimpleNamespace(means=torch.eye(2)[[0, 1] * 4], variances=torch.full((8,), 0.01))
    for n in (0, 1):
        samples = torch.cat([torch.full((5, 2), 9.0), data.means[RARE][None].repeat(n, 1)])
        refused(f"{n} of the samples lie in mode", scoreboard.spread_in_mode, samples, data)


def test_a_walk_from_little_noise_goes_as_far_as_the_schedule():
    schedule = VarianceExploding()
    times = denoising.walk_times(schedule, 0.003, 6)
    assert len(times) == 7 and (times.diff() < 0).all() and times[-1] == 0
    torch.testing.assert_close(times[0], denoising.noise_time(schedule, 0.003), rtol=0, atol=1e-12)
    D = GaussianDenoiser(torch.zeros(1), torch.eye(1), schedule)
    assert denoising.posterior_sample(D, torch.ones(3, 1), 0.003, 6, seeded()).isfinite().all()


def test_operators_that_see_nothing_are_told_apart():
    blind = operators.Mask(torch.zeros(4, 4))
    refused("A sees nothing", operators.check_adjoint, blind, (1, 1, 4, 4))
    refused("operator must see something", tv, blind, torch.zeros(1, 1, 4, 4), 0.3, 3)
    refused(
        "x must be random images", operators.operator_norm, operators.Mask(torch.ones(4, 4)), torch.zeros(1, 1, 4, 4)
    )
    assert operators.operator_norm(blind, torch.ones(1, 1, 4, 4)) == 0


def test_one_loss_that_is_nan_ends_no_running_mean():
    values = np.ones(100)
    values[50] = np.nan
    found = figures._running_mean(values, 5)
    assert np.array_equal(found, np.ones(100))
    assert np.isnan(figures._running_mean(values, 1)).nonzero()[0].tolist() == [50]


def test_more_groups_than_colours_are_drawn():
    groups = {str(k): np.arange(10.0) + k for k in range(9)}
    assert len(figures.histogram(groups, xlabel="x", title="nine").axes[0].get_legend().get_texts()) == 9
    points = {name: np.stack([values, values], 1) for name, values in groups.items()}
    drawn = figures.image_and_points(
        np.zeros((8, 8)), points, titles=("a", "b"), xlabel="x", ylabel="y", limits=(0, 20)
    )
    assert len(drawn.axes[1].lines) == 9


def test_arrays_are_on_the_disk_before_they_have_their_name(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(gpu_day.os, "fsync", lambda file: done.append("written"))
    replace = gpu_day.os.replace
    monkeypatch.setattr(gpu_day.os, "replace", lambda a, b: (done.append("named"), replace(a, b)))
    gpu_day._keep_data(tmp_path / "a.npz", np.zeros(3), None)
    assert done == ["written", "named"] and np.load(tmp_path / "a.npz")["images"].shape == (3,)
