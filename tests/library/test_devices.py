"""Training and sampling work on a device that is not the CPU: every tensor they make is where the images are."""

from functools import partial

import numpy as np
import pytest
import torch
from simulated_device import DEVICE, simulated_device
from torch.nn import functional as F

from course_lib import guidance, hippocampus, inverse, likelihood, losses, runtime, scans, training
from course_lib.applications import anomaly, classical, counterfactual, raw_scan
from course_lib.applications import segmentation as draws
from course_lib.denoisers import FunctionDenoiser, MaskedDenoiser, MixtureDenoiser, NetworkDenoiser
from course_lib.experiments import labels
from course_lib.metrics import intervals, linear, segmentation
from course_lib.metrics.images import psnr, ssim
from course_lib.networks import build
from course_lib.operators import KSpace, Mask, Radon, sampled_lines
from course_lib.samplers import STEPS, consistency_step, sample
from course_lib.schedules import Cosine, Discrete, VarianceExploding, log_snr_times, uniform_times

SMALL = {"channels": (32, 32), "num_classes": 2, "norm_groups": 8}
SCHEDULE = Cosine()


@pytest.fixture(autouse=True, params=[True, False], ids=["with float64", "without"])
def device(request):
    """A device that is not the CPU; the second is as Apple's, without double precision."""
    with simulated_device(request.param):
        yield


def images(*shape):
    """Noise on the device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def network_denoiser(**arguments):
    """An untrained network on the device, as a denoiser."""
    return NetworkDenoiser(build("DiffusionUNet", **SMALL | arguments).eval().to(DEVICE), SCHEDULE)


def test_the_device_mixes_with_nothing_else():
    """What this file rests on: mistakes that only a GPU shows are errors here too."""
    here, there = torch.ones(3), torch.ones(3, device=DEVICE)
    assert (there * torch.tensor(2.0) + torch.ones_like(there)).device.type == DEVICE
    assert (there.cpu() + here).device.type == "cpu"
    assert float((there * 2).sum()) == 6
    for mistake in (
        lambda: there.numpy(),
        lambda: there + here,
        lambda: torch.where(here > 0, there, there),
        lambda: torch.cat([here, there]),
        lambda: torch.randn(3, generator=torch.Generator(), device=DEVICE),
    ):
        with pytest.raises(RuntimeError):
            mistake()


def test_a_device_may_lack_double_precision():
    """An Apple GPU has none, and refuses what would make some."""
    with simulated_device(float64=False):
        for mistake in (
            lambda: torch.ones(3, dtype=torch.float64).to(DEVICE),
            lambda: torch.ones(3, device=DEVICE).double(),
            lambda: torch.linspace(0, 1, 3, dtype=torch.float64, device=DEVICE),
        ):
            with pytest.raises(TypeError, match="float64"):
                mistake()


@pytest.mark.parametrize("t", [0.5, [0.5], [0.3, 0.5]], ids=["a number", "one time", "a time an image"])
@pytest.mark.parametrize("schedule", [Cosine(), Discrete.linear(10)], ids=["Cosine", "Discrete"])
def test_noise_levels_meet_images_wherever_the_times_are(schedule, t):
    x, t = images(2, 1, 4, 4), t if isinstance(t, float) else torch.tensor(t)
    expected = (schedule.alpha(t) * x.cpu().movedim(0, -1)).movedim(-1, 0)
    for times in (t, torch.as_tensor(t).double(), torch.as_tensor(t, dtype=torch.float32).to(DEVICE)):
        for where in (x, x.cpu()):
            found = schedule.noisy(where, 0 * where, times)
            assert found.device == where.device
            torch.testing.assert_close(found.cpu(), expected)


def test_a_mixture_is_denoised_where_its_means_are():
    x, means, t = images(4, 2), images(3, 2), torch.tensor(0.5)
    found = MixtureDenoiser(torch.full((3,), 1 / 3).to(DEVICE), means, 0.1, SCHEDULE)(x, t)
    expected = MixtureDenoiser(torch.full((3,), 1 / 3), means.cpu(), 0.1, SCHEDULE)(x.cpu(), t)
    assert found.device.type == DEVICE
    torch.testing.assert_close(found.cpu(), expected)


LOSSES = {
    "diffusion": (losses.DiffusionLoss(SCHEDULE), "DiffusionUNet", SMALL),
    "EDM": (losses.EDMLoss(0.5), "PreconditionedUNet", SMALL | {"sigma_data": 0.5}),
    "classifier": (losses.ClassificationLoss(), "Classifier", {"num_classes": 2, "channels": (8, 8)}),
    "noisy classifier": (
        losses.NoisyClassificationLoss(SCHEDULE),
        "NoisyClassifier",
        {"num_classes": 2, "channels": (32,), "image_size": 16},
    ),
    "autoencoder": (losses.AutoencoderLoss(), "Autoencoder", {"channels": (32, 32)}),
}


@pytest.mark.parametrize("name", LOSSES)
def test_training(name):
    loss, network, arguments = LOSSES[name]
    net = build(network, **arguments).to(DEVICE)
    batches = training.Batches(np.zeros((4, 16, 16), np.float32), np.arange(4) % 2, batch_size=4)
    *_, state = training.train(net, batches, loss, steps=2)
    assert all(parameter.device.type == DEVICE for parameter in state.ema.parameters())
    assert torch.isfinite(state.loss.cpu()).all()


def test_regression_and_segmentation_and_distillation():
    generator, x = training.step_generator(0, 0), images(4, 2, 16, 16)
    teacher = network_denoiser(num_classes=0)
    losses.RegressionLoss(concat=1)(teacher.net, (x, None), generator)
    segmenter = build("Segmenter", num_labels=2, channels=(8, 8)).to(DEVICE)
    losses.SegmentationLoss()(segmenter, (x[:, :1], (x[:, 0] > 0).long()), generator)
    stochastic = build("StochasticSegmenter", rank=2, channels=(8, 8)).to(DEVICE)
    losses.StochasticSegmentationLoss()(stochastic, (x[:, :1], (x[:, 0] > 0).long()), generator)
    losses.DistillationLoss(lambda: teacher, SCHEDULE, steps=2)(teacher.net, (x[:, :1], None), generator)


@pytest.mark.parametrize("name", [*STEPS, "consistency"])
@pytest.mark.parametrize(
    "schedule", [Cosine(), Discrete.linear(10), VarianceExploding()], ids=lambda s: type(s).__name__
)
def test_sampling(name, schedule):
    """The denoiser is a formula here: what is tested are the steps, the loop and the schedules."""
    step = STEPS.get(name, consistency_step)
    times = log_snr_times(schedule, 3)
    x = sample(FunctionDenoiser(lambda x_t, t: 0.5 * x_t, schedule), images(2, 1, 4, 4), times, step, torch.Generator())
    assert x.device.type == DEVICE


def test_guidance():
    denoiser, y = network_denoiser(), torch.tensor([0, 1], device=DEVICE)
    judge = build("NoisyClassifier", num_classes=2, channels=(32,), image_size=16).to(DEVICE)
    for guided in (
        guidance.ClassifierFree(denoiser, none=2, w=2.0),
        guidance.ClassifierGuided(denoiser, judge, w=guidance.interval(2.0, 0.1, 0.9)),
    ):
        x = sample(guided.given(y), images(2, 1, 16, 16), log_snr_times(SCHEDULE, 2))
        assert x.device.type == DEVICE


def test_a_networks_denoiser_takes_images_and_conditions_from_anywhere_and_answers_where_the_images_are():
    denoiser, classes = network_denoiser(), torch.tensor([0, 1])
    here = images(2, 1, 16, 16).cpu()
    for x_t in (here, here.to(DEVICE)):
        for y in (classes, classes.to(DEVICE), None):
            assert denoiser(x_t, 0.5, y=y).device == x_t.device
    x = sample(guidance.ClassifierFree(denoiser, none=2, w=2.0).given(classes), here, log_snr_times(SCHEDULE, 2))
    assert x.device.type == "cpu"


def test_a_masked_denoiser_takes_maps_from_anywhere_in_any_floating_type():
    net = build("DiffusionUNet", channels=(32, 32), in_channels=3, norm_groups=8).eval().to(DEVICE)
    hidden = torch.zeros(2, 3, 16, 16)
    hidden[:, -1] = 1
    expected = MaskedDenoiser(net)(hidden.to(DEVICE), 0.5).cpu()
    for x_t in (hidden, hidden.double(), hidden.to(DEVICE)):
        found = MaskedDenoiser(net)(x_t, 0.5)
        assert (found.device, found.dtype) == (x_t.device, x_t.dtype)
        torch.testing.assert_close(found.cpu().float(), expected)


def test_the_bound_of_maps_of_labels_is_that_of_the_cpu(monkeypatch):
    net = build("DiffusionUNet", channels=(32, 32), in_channels=4, norm_groups=8).eval()
    monkeypatch.setattr(labels, "maps", lambda split: 2 * F.one_hot(torch.arange(96) % 3, 3).T.reshape(1, 3, 12, 8) - 1)
    monkeypatch.setattr(runtime, "device", lambda: "cpu")
    expected = labels.nats(net, 1)
    monkeypatch.setattr(runtime, "device", lambda: DEVICE)
    assert labels.nats(net.to(DEVICE), 1) == pytest.approx(expected, rel=1e-3)


def test_reconstruction():
    denoiser, truth = network_denoiser(num_classes=0), images(1, 1, 16, 16)
    for operator in (KSpace(sampled_lines(16, 4)), Mask(torch.eye(16)), Radon(16, 4)):
        y = operator(truth).cpu()  # a scan may come from the CPU
        for make in (inverse.ddnm, partial(inverse.pigdm, noise=0.1), partial(inverse.diffpir, noise=0.1)):
            assert make(denoiser, operator, y)(truth, 0.5).device.type == DEVICE
    for step in (
        inverse.replacement(Mask(torch.eye(16)), truth.cpu()),
        inverse.dps_step(Mask(torch.eye(16)), truth.cpu(), scale=1.0),
    ):
        sample(denoiser, truth, torch.tensor([0.5, 0.2, 0.0]), step, torch.Generator())


def test_a_finer_scan_is_where_the_images_are():
    fine = images(1, 1, 32, 32)
    (_, here), (_, there) = (scans.finer_scan("MRI, R = 4", x, 0) for x in (fine.cpu(), fine))
    assert there.device.type == DEVICE
    torch.testing.assert_close(there.cpu(), here)


def test_open_shares_are_those_of_the_cpu():
    x, denoiser = images(8, 1, 4, 4).clamp(-1, 1), FunctionDenoiser(lambda x_t, t: 0.5 * x_t, SCHEDULE)
    here = linear.principal_directions(x.cpu(), 3)
    there = linear.Directions(*(part.to(DEVICE) for part in (here.mean, here.vectors, here.variances)))
    expected = linear.open_shares(denoiser, x.cpu(), here, 0.5, torch.Generator().manual_seed(0))
    found = linear.open_shares(denoiser, x, there, 0.5, torch.Generator().manual_seed(0))
    torch.testing.assert_close([share.cpu() for share in found], list(expected))


def test_anomaly_and_likelihood():
    denoiser, x = network_denoiser(num_classes=0), images(1, 1, 16, 16)
    twin = anomaly.noise_and_denoise(denoiser, x, 0.3, 2, torch.Generator())
    assert anomaly.residual_score(x[:, 0], twin[:, 0]).device.type == DEVICE
    assert anomaly.invert(denoiser, x, 0.3, 2).device.type == DEVICE
    assert anomaly.with_coarse_noise(x, torch.Generator()).device.type == DEVICE
    assert likelihood.elbo_terms(denoiser, x, uniform_times(2)).device.type == DEVICE
    found = likelihood.ode_log_likelihood(denoiser, x, steps=1, t_max=0.9, probes=1)
    assert found.log_p.device.type == DEVICE


@pytest.mark.parametrize("operator", [Mask(torch.ones(1, 1, 16, 16)), Radon(16, 8)], ids=["mask", "rays"])
def test_total_variation(operator):
    x = images(2, 1, 16, 16)
    assert inverse.tv(operator, operator(x), 0.1, iterations=2).device.type == DEVICE


def test_methods_without_a_network_and_their_scores():
    x = images(2, 1, 16, 16).clamp(-1, 1)
    for method, settings in classical.DENOISERS.values():
        assert method(x, 0.1, **settings[0]).device.type == DEVICE
    filled = classical.biharmonic(x, x > 0.9)
    assert filled.device.type == classical.mirror_fill(x, x > 0.9).device.type == DEVICE
    assert psnr(filled, x).device.type == ssim(filled, x).device.type == DEVICE


def test_edits_of_maps():
    tissue = torch.full((2, 48, 48), 2)
    tissue[:, 20:28, 20:28] = counterfactual.CSF
    tissue = tissue.to(DEVICE)
    asked = counterfactual.area(tissue) * 1.5
    assert (asked.cpu() > 0).all()
    edited = counterfactual.grown(tissue, asked.cpu())
    by = counterfactual.amount(tissue, asked, 20.0)
    for same in (asked.cpu(), asked.cpu().tolist()):  # as grown and push take them
        assert torch.equal(counterfactual.amount(tissue, same, 20.0).cpu(), by.cpu())
    pulled = counterfactual.moved(images(2, 1, 48, 48), counterfactual.push(tissue, by, 20.0))
    for found in (edited, by, pulled, counterfactual.painted(pulled, tissue, edited)):
        assert found.device.type == DEVICE


MASKS = torch.rand(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
SCORES = torch.rand(8, generator=torch.Generator().manual_seed(0))
COV = torch.eye(4) + 0.1
COILS = torch.complex(*torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
HEAD = F.pad(torch.ones(1, 2, 32, 32), [16] * 4)
PERSONS = torch.arange(8) // 2
# a function of where its tensors go
SAME = {
    "gain": lambda to: anomaly.gain(to(COV), SCHEDULE, 0.5),
    "detectability": lambda to: anomaly.detectability(to(COV), SCHEDULE, 0.5, to(torch.ones(4))),
    "noise of a raw scan": lambda to: raw_scan.outermost(to(COILS)),
    "raw scan": lambda to: raw_scan.raw_scan(to(COILS), (16, 16), 6).y,
    "brain": lambda to: raw_scan.brain_mask(to(HEAD)),
    "energy distance": lambda to: segmentation.generalised_energy_distance(to(MASKS[:3]), to(MASKS)),
    "expected Dice": lambda to: segmentation.expected_dice(to(MASKS[0]), to(MASKS), [0.25] * 4),
    "Dice of volumes": lambda to: segmentation.volume_dice(to(torch.ones(4, 2, 3)), PERSONS[:4]),
    "bootstrap": lambda to: intervals.bootstrap(to(SCORES), PERSONS),
    "bootstrap of the AUROC": lambda to: intervals.bootstrap_auroc(to(SCORES), to(SCORES[:5])),
    "conformal quantile": lambda to: intervals.conformal_quantile(to(SCORES), 0.5),
    "pieces": lambda to: hippocampus.largest_shares(to(MASKS[None, 0].long())),
}
IN_DOUBLE = {
    "independent masks": lambda to: draws.independent(to(SCORES.reshape(2, 2, 2))),
    "level sets": lambda to: draws.random_threshold(to(SCORES.reshape(2, 2, 2))),
    "means of persons": lambda to: intervals.means_of(to(SCORES), PERSONS),
}


def is_the_same_there(function):
    """Whether a result is that of the CPU, and lies where the tensors are if it is one."""
    expected, found = (function(to) for to in (lambda x: x, lambda x: x.to(DEVICE)))
    if torch.is_tensor(found):
        assert found.device.type == DEVICE
        found = found.cpu()
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("name", SAME)
def test_measures_and_scans_are_those_of_the_cpu(name):
    is_the_same_there(SAME[name])


@pytest.mark.parametrize("device", [True], indirect=True)
@pytest.mark.parametrize("name", IN_DOUBLE)
def test_what_is_computed_in_double_precision_is_that_of_the_cpu(name):
    is_the_same_there(IN_DOUBLE[name])
