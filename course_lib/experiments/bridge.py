"""The record ``13_bridge``: real CT at a low dose and at full dose, restored by a regression, by a diffusion network
that sees the low-dose image beside x_t, and by a bridge that begins at the low-dose image; three seeds each.

The images are real (lung nodules of LIDC-IDRI), the noise of the low dose is made. Each row is a training of minutes on
one core; checkpoints go to ``runs/seeds``. Needs LIDC in the cache.
"""

import functools

import numpy as np
import torch

from course_lib import datasets, runtime
from course_lib.experiments.mednist_sets import JUDGE, features_of
from course_lib.experiments.record import as_bytes, rounded
from course_lib.experiments.seeds import FOLDER, SEEDS
from course_lib.experiments.study import Study
from course_lib.experiments.trends import EVALUATIONS
from course_lib.images import in_batches, to_tensor
from course_lib.losses import BridgeLoss, DiffusionLoss, RegressionLoss
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.metrics.images import psnr
from course_lib.metrics.intervals import means_of
from course_lib.operators import Blur
from course_lib.recipes import SMALLER
from course_lib.recipes.nodules import READINGS
from course_lib.recipes.recipe import MUON, unet
from course_lib.recipes.runs import finished
from course_lib.samplers import bridge_step, dpmpp_2m_step, noise_like, sample
from course_lib.schedules import BrownianBridge, RectifiedFlow, karras_levels, uniform_times

NOISE = 0.3  # standard deviation of the low dose's noise, where the grey values of a crop reach from -1 to 1
SHOWN = 2
LOSSES = {
    "regression": RegressionLoss(concat=1),
    "beside": DiffusionLoss(RectifiedFlow(), "flow", concat=1),
    "bridge": BridgeLoss(BrownianBridge(0.5)),
}
FINE = Blur(1.5)  # detail is what this takes away


def low_dose(x, generator):
    """Images (N, 1, H, W) with the noise of a low dose: Gaussian, of the spread NOISE, its power along the frequency f
    that of the ramp filter with a Hann window, as after filtered back-projection. Kak & Slaney (1988), sec. 3.3."""
    fy, fx = torch.fft.fftfreq(x.shape[-2]), torch.fft.rfftfreq(x.shape[-1])
    f = (fy[:, None] ** 2 + fx**2).sqrt().clamp(max=0.5)
    gain = (f * (1 + torch.cos(2 * torch.pi * f)) / 2).sqrt()
    noise = torch.fft.irfft2(gain * torch.fft.rfft2(noise_like(x, generator)), s=x.shape[-2:])
    return x + NOISE * noise / noise.std()


@functools.cache
def pairs(split):
    """Images (N, 2, 64, 64), full dose and low dose, of all slices for training, and of the middle one of each nodule
    for a test; and the persons (N,)."""
    found = datasets.lidc(split)
    images, persons = (found.images, found.persons) if split == "train" else datasets.lidc_cases(split)[::2]
    x_0 = to_tensor(images)
    return torch.cat([x_0, low_dose(x_0, runtime.seeded(13))], 1), np.asarray(persons)


def recipe_of(method, seed):
    """What is trained for a row: one U-Net for all, told the low-dose image beside x_t, or in its place, and 48,000
    images."""
    data = READINGS | {"load_data": lambda: (pairs("train")[0].numpy(), None), "batch_size": 32}
    network = SMALLER | {"concat": int(method != "regression")}
    return unet(f"bridge_{method}_{seed}", network, LOSSES[method], data, None, steps=1500, seed=seed, **MUON)


def restored(method, net, y, nfe=1, seed=0):
    """Images (N, 1, H, W) in [-1, 1] from low-dose ones y, by nfe evaluations of a method's network."""
    denoiser, generator = recipe_of(method, seed).denoiser, runtime.seeded(seed)
    if method == "regression":
        return in_batches(lambda part: net(part, 0.0).clamp(-1, 1), y)
    beside = denoiser(net).given(y)
    if method == "bridge":
        return sample(beside, y, uniform_times(nfe), bridge_step, generator)
    times = torch.cat([karras_levels(beside.schedule, nfe), torch.zeros(1)])
    start = beside.schedule.sigma(times[0]) * noise_like(y, generator)
    return sample(beside, start, times, dpmpp_2m_step)


def judged(x, x_0, persons):
    """What is measured of images x (N, 1, H, W) whose full dose is x_0: PSNR, its mean over persons and the error of
    that; how much of the fine detail's energy there is, of the full dose's; and the Fréchet distance to the training
    images at full dose."""
    by_person = means_of(psnr(x, x_0), persons)
    fine, real = ((image - FINE(image)).square().mean() for image in (x, x_0))
    return {
        "psnr": rounded(by_person.mean()),
        "psnr_error": rounded(by_person.std() / len(by_person) ** 0.5),
        "detail": rounded(fine / real),
        "frechet_distance": rounded(frechet_distance(moments(features_of(x)), reference()), 3),
    }


@functools.cache
def reference():
    """Moments of the features of the training images at full dose."""
    return moments(features_of(pairs("train")[0][:, :1]))


def measure(method, seed):
    """A row: what :func:`judged` says, by number of evaluations; and the first images of the first seed."""
    images, persons = pairs("test")
    x_0, y = images.split(1, 1)
    net = runtime.placed(finished(recipe_of(method, seed), FOLDER)[0])
    found = {}
    for nfe in EVALUATIONS if method != "regression" else (1,):
        x = restored(method, net, y, nfe, seed)
        found[nfe] = judged(x, x_0, persons)
    row = {"nfe": list(found)} | {key: [of[key] for of in found.values()] for key in found[1]}
    return row, {f"{method}": as_bytes(x[:SHOWN, 0])} if seed == 0 else {}


def begin():
    """What stands above the rows: what the low-dose images score, and unseen images at full dose; and some of them."""
    images, persons = pairs("test")
    x_0, y = images.split(1, 1)
    above = {"images": len(x_0), "persons": len(np.unique(persons)), "noise": NOISE}
    above |= {"low dose": judged(y, x_0, persons), "precision": runtime.precision_name()}
    above |= {"unseen": rounded(frechet_distance(moments(features_of(x_0)), reference()), 3)}
    return above, {"full dose": as_bytes(x_0[:SHOWN, 0]), "low dose": as_bytes(y[:SHOWN, 0])}


def plan(record=None):
    """The rows, the first seed of all methods first."""
    return [{"method": method, "seed": seed} for seed in SEEDS for method in LOSSES]


STUDY = Study("13_bridge", plan, measure, begin, (JUDGE,))
