"""What a function cannot take it refuses in one sentence that names the argument: shapes, ranges, kinds, counts."""

import numpy as np
import pytest
import torch

from course_lib import (
    generate,
    guidance,
    hippocampus,
    inverse,
    likelihood,
    networks,
    nifti,
    operators,
    profiling,
    runtime,
    samplers,
    scans,
)
from course_lib.applications import anomaly, classical, counterfactual, denoising, segmentation
from course_lib.arguments import alike, floating, images, one_of, positive, rising, shaped, whole, within
from course_lib.denoisers import (
    Counted,
    EmpiricalDenoiser,
    FunctionDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    NetworkDenoiser,
)
from course_lib.experiments import anomaly as anomaly_study
from course_lib.experiments import image_to_image
from course_lib.generative import models, scoreboard, training
from course_lib.images import in_batches
from course_lib.schedules import Cosine, Linear, VarianceExploding, uniform_times
from course_lib.viz import figures, planes, widgets

COSINE = Cosine()
X = torch.linspace(-1, 1, 512).reshape(2, 1, 16, 16)
TWO = torch.stack([torch.linspace(0, 1, 20), torch.linspace(1, 0, 20) ** 2], 1)  # points (20, 2)
MAPS = torch.full((2, 96, 96), 3)
VOLUME = np.linspace(-1, 1, 720).reshape(8, 9, 10)
TRUTH = np.zeros((8, 9, 10), np.uint8)
LABELS = {"xlabel": "x", "ylabel": "y", "title": "t"}
POINT = GaussianDenoiser(torch.zeros(4), torch.eye(4), COSINE)


pixel = FunctionDenoiser(lambda x_t, t: COSINE.alpha(t) * x_t, COSINE)


def refused(argument, function, *args, **kwargs):
    """The call raises ValueError in one short sentence that begins with, or holds, the argument's name."""
    with pytest.raises(ValueError, match=rf"\b{argument}(?!\w)") as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def generator():
    return torch.Generator().manual_seed(0)


def test_each_check_takes_what_is_right_and_names_what_is_not():
    whole(n=1, m=np.int64(3))
    positive(std=0.5, t=torch.tensor(0.5))
    within(0, 1, eta=0, zeta=np.float32(1))
    rising(low=1, high=2.5)
    one_of({"T1": 0, "T2": 1}, contrast="T1")
    shaped("N, H, W", x=np.zeros((2, 3, 4)))
    alike(x=X, y=X + 1)
    floating(x=X)
    images(x=1.5 * X, y=X[:0])
    for value in (0, -1, 1.0, "3", None, True, [1]):
        refused("n", whole, n=value)
    for value in (0, -1, float("nan"), float("inf"), "1", None, [1.0], torch.ones(2)):
        refused("std", positive, std=value)
    for value in (-0.1, 1.1, float("nan"), "0.5", None):
        refused("eta", within, 0, 1, eta=value)
    refused("low", rising, low=2, high=1)
    for value in ("t1", None, 1, ["T1"]):
        refused("contrast", one_of, ("T1", "T2"), contrast=value)
    for value in (X, [[1]], None):
        refused("x", shaped, "N, H, W", x=value)
    refused("y", alike, x=X, y=X[:1])
    for value in (X.int(), X.numpy(), [0.5], None):
        refused("x", floating, x=value)
    for value in (X.byte(), (X + 1) * 127.5, X / 0):
        refused("x", images, x=value)


MASK = operators.Mask(torch.ones(16, 16))
TAKE_A_DENOISER = {
    "sample": lambda D: samplers.sample(D, X, [0.9, 0.5]),
    **{name: lambda D, step=step: step(D, X, 0.9, 0.5) for name, step in samplers.STEPS.items()},
    "consistency": lambda D: samplers.consistency_step(D, X, 0.9, 0.5),
    "diffpir_step": lambda D: inverse.diffpir_step(D, X, 0.9, 0.5),
    "replacement": lambda D: inverse.replacement(MASK, X)(D, X, 0.9, 0.5),
    "ddnm": lambda D: inverse.ddnm(D, MASK, X),
    "dps": lambda D: inverse.dps(D, MASK, X, 0.1),
    "pigdm": lambda D: inverse.pigdm(D, MASK, X, 0.1),
    "diffpir": lambda D: inverse.diffpir(D, MASK, X, 0.1),
    "ClassifierFree": lambda D: guidance.ClassifierFree(D, 2, 1.5),
    "ClassifierGuided": lambda D: guidance.ClassifierGuided(D, lambda x_t, t: x_t.flatten(1), 1.5),
    "Autoguidance": lambda D: guidance.Autoguidance(D, D, 1.5),
    "Clipped": guidance.Clipped,
    "Counted": Counted,
    "elbo_terms": lambda D: likelihood.elbo_terms(D, X, uniform_times(2)),
    "ode_log_likelihood": lambda D: likelihood.ode_log_likelihood(D, X, 1, t_max=0.9, probes=1),
    "generate": lambda D: generate.generate(D, X),
    "posterior_mean": lambda D: denoising.posterior_mean(D, X, 0.5),
    "posterior_sample": lambda D: denoising.posterior_sample(D, X, 0.5, 2),
    "noise_and_denoise": lambda D: anomaly.noise_and_denoise(D, X, 0.5, 2, runtime.seeded(0)),
    "one_step": lambda D: anomaly.one_step(D, X, 0.5, 1, runtime.seeded(0)),
    "invert": lambda D: anomaly.invert(D, X, 0.5, 2),
}


@pytest.mark.parametrize("name", TAKE_A_DENOISER)
def test_what_takes_a_denoiser_says_how_to_make_one(name):
    TAKE_A_DENOISER[name](pixel)
    for other in (pixel.function, torch.nn.Identity(), FunctionDenoiser(pixel.function, Cosine)):
        refused(r"FunctionDenoiser\(f, schedule\)", TAKE_A_DENOISER[name], other)


def test_what_takes_a_denoiser_with_a_condition_says_how_to_make_one():
    for draw in (
        lambda D: generate.draw_along(D, torch.zeros(1), torch.tensor([0.9]), samplers.ddim_step),
        lambda D: segmentation.draw_masks(D, X, 1),
    ):
        refused(r"FunctionDenoiser\(f, schedule\)", draw, pixel.function)


@pytest.mark.parametrize("method", [inverse.dps, inverse.pigdm, inverse.diffpir])
def test_a_measurement_must_be_one_of_the_operator(method):
    t = torch.tensor(0.5)
    assert method(pixel, MASK, X[:1], 0.1)(X, t).shape == X.shape  # one for all
    for y in (X[..., :8], X.repeat(2, 1, 1, 1)):
        refused("y", method(pixel, MASK, y, 0.1), X, t)


def test_a_networks_denoiser_takes_tensors_of_floats():
    denoiser = NetworkDenoiser(lambda x_t, t, y: x_t, COSINE)
    for x_t in (X.numpy(), X.int()):
        refused("x_t", denoiser, x_t, 0.5)


def test_anomalies():
    for x in ((X * 127).byte(), (X + 1) * 127.5, X / 0):
        refused("x", anomaly.brain, x)
        refused("x", anomaly.noise_and_denoise, pixel, x, 0.2, 2, generator())
        refused("x", anomaly.with_coarse_noise, x, generator())
    refused("x", anomaly.with_coarse_noise, X[:, 0], generator())
    refused("generator", anomaly.with_coarse_noise, X, 0)
    refused("twin", anomaly.residual_score, X[:, 0], X[:1, 0])
    for sigma in (0, -1, "1"):
        refused("sigma", anomaly.smooth, X[:, 0], sigma)
    for t_0 in (0, -0.2, 2, 250, "0.2", None):
        refused("t_0", anomaly.heal, pixel, pixel, X, t_0, 2)
    for n in (0, -1, 2.5):
        refused("n", anomaly.noise_and_denoise, pixel, X, 0.2, n, generator())
        refused("n", anomaly.invert, pixel, X, 0.2, n)
        refused("draws", anomaly.one_step, pixel, X, 0.2, n, generator())
    refused("generator", anomaly.noise_and_denoise, pixel, X, 0.2, 2, 0)
    healthy = anomaly.Healthy(torch.rand(6, 4, 4, generator=generator()), K=2)
    refused("K", healthy.project, torch.zeros(1, 4, 4), 3)
    refused("x", healthy.z, torch.zeros(1, 5, 5))
    refused("x", anomaly.Healthy, torch.full((6, 4, 4), torch.nan), 2)
    refused("a", anomaly.detectability, torch.eye(3), COSINE, 0.3, torch.zeros(3))
    refused("draws", anomaly.detectability, torch.eye(3), COSINE, 0.3, torch.ones(3), 0)
    refused("t", anomaly.detectability, torch.eye(3), COSINE, 0.0, torch.ones(3))


def test_edits_of_maps():
    for labels in (MAPS.float(), MAPS[0], X):
        refused("labels", counterfactual.area, labels)
    for asked in ([100.0], 100.0, [float("nan"), 1.0], [-5.0, 5.0]):
        refused("asked", counterfactual.grown, MAPS, asked)
        refused("asked", counterfactual.amount, MAPS, asked, 6.0)
    round_brain = torch.zeros(1, 96, 96, dtype=torch.long)
    round_brain[:, 8:88, 8:88], round_brain[:, 44:52, 44:52] = 3, 1  # 80 x 80 pixels of 4 mm^2
    refused("asked must be at most the brain's 25600 mm", counterfactual.grown, round_brain, [25601.9 + 1])
    assert ((counterfactual.grown(round_brain, [25600.0]) == 1) == (round_brain > 0)).all()
    for reach in (0, -6.0):
        refused("reach", counterfactual.push, MAPS, 2.0, reach)
    for by in ([1.0, 2.0, 3.0], float("nan")):
        refused("by", counterfactual.push, MAPS, by, 6.0)
    for shape in ((2, 16, 16), (1, 16, 16, 2), (2, 8, 8, 2)):
        refused("field", counterfactual.moved, X, torch.zeros(shape))
    refused("mode", counterfactual.moved, X, torch.zeros(2, 16, 16, 2), "linear")
    refused("edited", counterfactual.painted, torch.zeros(2, 1, 96, 96), MAPS, MAPS[:1])
    refused("edited", counterfactual.fresh, pixel, MAPS[0], 2, generator())


def test_restoration():
    for noise in (0, -0.1, float("nan"), float("inf"), "0.1", None):
        refused("noise", denoising.posterior_mean, pixel, X, noise)
        refused("noise", denoising.walk_times, COSINE, noise, 4)
    for n in (0, -2, 2.5):
        refused("n", denoising.posterior_sample, pixel, X, 0.1, n, generator())
    refused("noise", denoising.rician, X, -0.1, generator())
    refused("x", denoising.rician, (X + 1) * 127.5, 0.1, generator())
    refused("s", denoising.rician_mean, 0.5, 0)
    for name, options in (
        ("blurred", {"width": -1}),
        ("nonlocal_means", {"h": -1}),
        ("total_variation", {"weight": 0}),
    ):
        refused(next(iter(options)), getattr(classical, name), X, 0.1, **options)
    hole = torch.zeros(2, 1, 16, 16)
    for wrong in (hole, hole[:1] > 0, hole == 0):
        refused("hole", classical.biharmonic, X, wrong)
        refused("hole", classical.mirror_fill, X, wrong)
    small = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    small[..., 4:6, 4:6] = True
    refused("x", classical.mirror_fill, torch.where(small, float("nan"), X), small)
    refused("reach", classical.mirrored, X, 16)
    refused("like", classical.mirrored, X, like=X[:1])


def test_families_of_models():
    vae, gan, broken = models.VAE(width=4), models.GAN(width=4), TWO.clone()
    broken[3] = float("nan")
    for x in (broken, TWO.numpy(), X):
        refused("x", next, training.fit(vae, x, 2))
    for name, value in (("steps", 0), ("steps", 2.5), ("batch", 0), ("rate", -1)):
        refused(name, next, training.fit(vae, TWO, **({"steps": 2} | {name: value})))
        refused(name, next, training.fit_gan(gan, TWO, **({"steps": 2} | {name: value})))
    refused("fit_gan", next, training.fit(gan, TWO, 2))
    refused("GAN", next, training.fit_gan(vae, TWO, 2))
    refused("rate", list, training.fit(models.VAE(width=4), TWO * 1e30, 2))
    refused("states", training.follow, iter(()), [1])
    refused("at", training.follow, training.fit(vae, TWO, 1), 1)
    for n in (-1, 2.5, "10"):
        for model in (vae, gan, models.Flow(width=4), models.Diffusion(width=4), models.Gaussian(TWO)):
            refused("n", model.sample, n)
    refused("K", vae.iw_bound, TWO, 0)
    refused("latent", models.VAE(latent=3, width=4).log_prob_on_grid, TWO)
    refused("dim", models.Flow, dim=1)
    refused("steps", models.Diffusion(width=4).log_prob, TWO, steps=-4)
    refused("bandwidths", models.KernelDensity, TWO, (0.1, -0.1))
    refused("a and b", scoreboard.energy_distance, TWO, TWO[:, :1])
    refused("b", scoreboard.energy_distance, TWO, TWO[:1])
    refused("shares", scoreboard.modes_hit, torch.ones(8) / 8, torch.ones(7) / 7)
    for shares, n in (([0.5, 0.25, 0.25], 4), ([-0.5, 1.5], 4), ([0.5, 0.5], 4000)):
        refused("shares", models.evenly, [0, 0, 1, 1], shares, n)
    for k in (0, 5, 1.5):
        refused("k", models.PCA, X, k)
    refused("images", scoreboard.sharpness, (X + 1) * 127.5)


def test_likelihoods():
    times = uniform_times(4)
    for wrong in (torch.tensor([0.0]), [], 10, torch.tensor([1.0, 0.5])):
        refused("times", likelihood.elbo_terms, POINT, torch.zeros(2, 4), wrong)
        refused("times", likelihood.gaussian_elbo_gap, COSINE, wrong, 1.0)
    refused("eps", likelihood.elbo_terms, POINT, torch.zeros(2, 4), times, eps=torch.zeros(1, 4))
    refused("data_variance", likelihood.gaussian_elbo_gap, COSINE, times, -1.0)
    refused("var_p", likelihood.gaussian_kl, torch.zeros(2, 3), 1.0, torch.zeros(2, 3), -1.0)
    refused("x", likelihood.ode_log_likelihood, POINT, torch.zeros(4), steps=2, t_max=0.9)


def test_volumes_and_costs():
    for corner in ((0, 0), (0.5, 0, 0), "abc", (float("nan"), 0, 0)):
        refused("corner", nifti.cut_out, VOLUME, corner, (4, 4, 4))
    for shape in ((4, 4), (0, 4, 4), (-4, 4, 4)):
        refused("shape", nifti.cut_out, VOLUME, (0, 0, 0), shape)
    refused("mode", nifti.cut_out, VOLUME, (0, 0, 0), (4, 4, 4), "nearest")
    refused("label", hippocampus.hippocampus_box, TRUTH)  # empty
    refused("label", hippocampus.hippocampus_channels, VOLUME, TRUTH[:4], (0, 0, 0))
    refused("label", hippocampus.hippocampus_channels, VOLUME, TRUTH + 7, (0, 0, 0))
    refused("x", hippocampus.labels_of, torch.zeros(3, 4, 4, 4))
    refused("labels", hippocampus.label_volumes, torch.rand(2, 4, 4, 4))
    for repeats in (0, 1.5, "3"):
        refused("repeats", profiling.seconds, int, repeats=repeats)
    for cost in (profiling.seconds, profiling.peak_bytes, profiling.saved_bytes):
        refused("function", cost, "network")


def test_figures():
    for columns in (0, -1, 1.5):
        refused("columns", figures.image_grid, X, columns=columns)
        refused("columns", widgets.tile, X, columns)
    refused("images", figures.image_grid, X[:0])
    for rows in ([], {}):
        refused("rows", figures.image_rows, rows)
    refused("vmin", figures.image_rows, [X, X], vmin=[0])
    refused("outlines", figures.image_rows, [X], outlines=X[:1, 0])
    refused("masks", figures.close_ups, X[:, 0], X[:1, 0], 4)
    for lines in ([1, 2, 3], {}):
        refused("lines", figures.curves, [1, 2, 3], lines, **LABELS)
    refused("a", figures.curves, [1, 2, 3], {"a": [1, 2]}, **LABELS)
    refused("bands", figures.curves, [1, 2], {"a": [1, 2]}, bands={"b": ([1, 2], [2, 3])}, **LABELS)
    refused("yscale", figures.curves, [1, 2], {"a": [1, 2]}, yscale="logg", **LABELS)
    refused("a", figures.curves, [1, 2], {"a": [-1, -2]}, yscale="log", **LABELS)
    refused("losses", figures.loss_curve, [])
    refused("errors", figures.bars, {"a": 1}, errors={"b": 1}, xlabel="x", title="t")
    for values in ([1, 2], {}):
        refused("values", figures.bars, values, xlabel="x", title="t")
    for value in (float("nan"), "x", [1, 2]):
        refused("a", figures.bars, {"a": value}, xlabel="x", title="t")
    refused("samples", figures.histogram, [float("nan"), 1], xlabel="x", title="t")
    refused("bins", figures.histogram, [1, 2], bins=0, xlabel="x", title="t")
    refused("span", figures.histogram, [1, 2], span=(3, 1), xlabel="x", title="t")
    for panels in (TWO, {}):
        refused("panels", figures.scatter, panels, **LABELS)
    refused("a", figures.scatter, {"a": TWO[:, :1]}, **LABELS)
    refused("limits", figures.scatter, {"a": TWO}, limits=(3, -3), **LABELS)
    refused("paths", figures.scatter, {"a": TWO}, paths={"b": torch.zeros(3, 2, 2)}, **LABELS)
    refused("fig", figures.show, X, "Two grey pictures.")
    refused("start", widgets.stepper, [X[0, 0]], title="t", alt="a grey picture", start=1)


def test_planes():
    for affine in (np.eye(3), np.zeros((4, 4)), TRUTH):
        refused("affine", planes.three_planes, VOLUME, affine, title="t")
    for at in ((float("nan"), 1, 1), (1.5, 1, 1), "mid"):
        refused("at", planes.three_planes, VOLUME, at=at, title="t")
    for labels in (TRUTH + 0.5, TRUTH - 1.0):
        refused("labels", planes.three_planes, VOLUME, labels=labels, title="t")
    for name, value in (("axis", 3), ("axis", "x"), ("n", 0), ("n", 2.5)):
        refused(name, planes.through, VOLUME, title="t", **{name: value})
    for wrong in ({"a": VOLUME}, VOLUME):
        refused("volumes", planes.viewer, wrong, title="t", alt="three planes")
    at = torch.tensor([4, 4, 5])
    planes.through(VOLUME, at=at, n=2, title="t")
    assert at.tolist() == [4, 4, 5]  # the caller's point stays where it was


def test_denoisers_schedules_and_samplers():
    refused("cov", GaussianDenoiser, torch.zeros(2), 1.0, COSINE)
    refused("x_t", POINT, torch.zeros(2, 5), 0.5)
    refused("weights", MixtureDenoiser, [0.5, 0.5], torch.zeros(2, 2), 0.1, COSINE)
    refused("x_t", models.ring(), torch.zeros(3, 3), 0.5)
    refused("n", models.ring().sample_data, -1)
    refused("data", EmpiricalDenoiser, torch.zeros(0, 2), COSINE)
    refused("beta_min", Linear, beta_min=-1)
    refused("sigma_max", VarianceExploding, 5, 1)
    for t in ("0.5", None):
        refused("t", COSINE.alpha, t)
    refused("step", list, samplers.trajectory(pixel, X, uniform_times(2), "ddim"))
    refused("denoiser", list, samplers.trajectory("mednist", X, uniform_times(2)))
    refused("x_t", list, samplers.trajectory(pixel, X.byte(), uniform_times(2)))
    refused("generator", list, samplers.trajectory(pixel, X, uniform_times(2), samplers.ddpm_step, 0))
    refused("schedule", samplers.sample, lambda x_t, t: x_t, X, uniform_times(2))
    refused("function", FunctionDenoiser, "D", COSINE)
    for patch in (0, -2, 2.0):
        refused("patch", networks.pixel_unshuffle, X, patch)
    refused("channels", networks.pixel_shuffle, X, 3)


def test_drawing_and_benches():
    for y in (-1, 0):
        refused("y", generate.draw, pixel, y)
    for y in ([0, 1], "Hand", torch.tensor(3)):
        refused("y", generate.draw, pixel, y, nfe=2, size=8)
    refused("denoiser", generate.draw, "mednist", torch.tensor([0]))
    refused("size", generate.draw, pixel, 2, size=-64)
    for seed in (-1, "a", 1.5, None):
        refused("seed", runtime.seeded, seed)
    for batch_size in (0, -1):
        refused("batch_size", in_batches, torch.relu, X[:, 0].numpy(), batch_size)
    for accelerations in (4, [4]):
        refused("accelerations", scans.scan_mri, X, accelerations, generator())
    for problem in ("PET", "MRI, R = ", None):
        refused("problem", scans.noise_of, problem)
    for problem in ("PET", "MRI", "CT, 24 views", None):
        refused("problem", scans.acceleration, problem)
    noise = {problem: scans.noise_of(problem) for problem in ("MRI", *scans.PROBLEMS)}
    assert noise["MRI"] == noise["MRI, R = 4"] == noise["MRI, R = 8"] != noise["CT, 24 views"]
    refused("family", image_to_image.removal_cases, "hiper", "test")
    refused("family", anomaly_study.cases, "test", "hiper")
    refused("split", anomaly_study.cases, "testing", "hyper")
    for p in (torch.full((1, 4, 4), 2.0), torch.full((1, 4, 4), float("nan"))):
        refused("p", segmentation.independent, p)
