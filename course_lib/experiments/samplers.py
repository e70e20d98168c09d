"""The record ``04_samplers``: Fréchet distance of MedNIST samples for each sampler, number of evaluations and seed.

It needs MedNIST in the cache for both floors.
"""

import time
from functools import partial

import torch

from course_lib import pretrained, runtime
from course_lib.datasets import random_of_each_class
from course_lib.experiments.mednist_sets import JUDGE, beside_reference, distance, features_of, mednist
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Study
from course_lib.samplers import ddim_step, ddpm_step, dpmpp_2m_step, heun_step, sample
from course_lib.schedules import log_snr_times, uniform_times

IMAGES = 60  # a set, from one seed: the six classes take turns
SEEDS = 3
EVALUATIONS = (5, 9, 15, 25)
FLOOR_DRAWS = 10


def _uniform(schedule, nfe):
    return uniform_times(nfe)


def heun_steps(nfe):
    """Steps of Heun for a number of evaluations, two a step but one for the last. Raises ValueError for even ones."""
    if nfe % 2 == 0:
        raise ValueError(f"Heun needs an odd number of evaluations, two a step and one for the last; got {nfe}")
    return (nfe + 1) // 2


#: name -> (step, times(schedule, nfe)). "even t" and "even log-SNR" say how the times are spaced.
SAMPLERS = {
    "DDPM, even t": (ddpm_step, _uniform),
    "DDIM eta 0.5, even t": (partial(ddim_step, eta=0.5), _uniform),
    "DDIM, even t": (ddim_step, _uniform),
    "DDIM = Euler, even log-SNR": (ddim_step, log_snr_times),
    "Heun, even log-SNR": (heun_step, lambda schedule, nfe: log_snr_times(schedule, heun_steps(nfe))),
    "2M, even log-SNR": (dpmpp_2m_step, log_snr_times),
}


def draw_set(name, nfe, seed):
    """A set of images (60, 64, 64) of the shipped network, float32 in [-1, 1], and its processor seconds an image.

    One seed gives every sampler the same starting noise. Raises ValueError for an unknown sampler.
    """
    if name not in SAMPLERS:
        raise ValueError(f"no sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    step, times = SAMPLERS[name]
    denoiser = pretrained.load_denoiser("mednist")
    noise = torch.randn(IMAGES, 1, 64, 64, generator=runtime.seeded(seed))
    bound = denoiser.given(torch.arange(IMAGES) % 6)
    grid, generator = times(denoiser.schedule, nfe), runtime.seeded(seed + 1_000_000)
    start = time.process_time()
    images = sample(bound, noise, grid, step, generator)
    return images[:, 0].clamp(-1, 1), (time.process_time() - start) / IMAGES


def score(images):
    """Fréchet distance of images (N, 64, 64), float in [-1, 1] or uint8, from 30,000 real ones, in shipped features."""
    return distance(features_of(images))


def measure(sampler, nfe, seed):
    """A row: the Fréchet distance of a set, and its processor seconds an image."""
    images, seconds = draw_set(sampler, nfe, seed)
    return {"frechet_distance": rounded(score(images)), "seconds": rounded(seconds)}, {}


def of_real_sets(split):
    """Fréchet distances of sets of 60 real images that are not in the reference, 10 of each class. Needs MedNIST.

    Those of the training split, the floor, are many of them slices of scans that the reference holds; the scans of the
    test split are in part other ones and lie farther from it.
    """
    images, labels = mednist(split)
    left, generator = beside_reference(split), runtime.seeded(0)
    draws = [random_of_each_class(labels[left], IMAGES // 6, generator) for _ in range(FLOOR_DRAWS)]
    return rounded([score(images[left[chosen]]) for chosen in draws])


def begin():
    """What stands above the rows. Needs MedNIST."""
    floors = {"floor": of_real_sets("train"), "unseen": of_real_sets("test")}
    return {"images": IMAGES, "precision": runtime.precision_name()} | floors, {}


def plan(record=None):
    """The rows, what the notebook needs most first."""
    few = [(name, nfe, 0) for nfe in EVALUATIONS for name in SAMPLERS]
    quick, long = ("2M, even log-SNR", 15), ("DDPM, even t", 1000)
    rows = [*few, (*quick, 1), (*quick, 2)]
    for seed in range(SEEDS):
        rows += [(*long, seed), ("DDPM, even t", 100, seed)]
    for seed in range(SEEDS):
        rows += [(name, nfe, seed) for nfe in EVALUATIONS for name in SAMPLERS]
    return [dict(zip(("sampler", "nfe", "seed"), row)) for row in dict.fromkeys(rows)]


STUDY = Study("04_samplers", plan, measure, begin, ("mednist", JUDGE))
