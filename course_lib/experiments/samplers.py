"""The record ``04_samplers``: Fréchet distance of MedNIST samples for each sampler, number of evaluations and seed.

It needs MedNIST in the cache for both floors.
"""

import time
from functools import partial

import torch

from course_lib import pretrained, runtime
from course_lib.datasets import in_reference, mednist_images, random_of_each_class
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Study
from course_lib.images import in_batches
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.recipes import RECIPES
from course_lib.samplers import ddim_step, ddpm_step, dpmpp_2m_step, heun_step, last, sample
from course_lib.schedules import log_snr_times, uniform_times

IMAGES = 60  # a set, from one seed: the six classes take turns
SEEDS = 3
EVALUATIONS = (5, 9, 15, 25)
FLOOR_DRAWS = 10


def _uniform(schedule, nfe):
    return uniform_times(nfe)


def _for_heun(schedule, nfe):
    """Heun takes two evaluations a step, but one for the last."""
    if nfe % 2 == 0:
        raise ValueError(f"Heun needs an odd number of evaluations, two a step and one for the last; got {nfe}")
    return log_snr_times(schedule, (nfe + 1) // 2)


#: name -> (step, times(schedule, nfe)). "even t" and "even log-SNR" say how the times are spaced.
SAMPLERS = {
    "DDPM, even t": (ddpm_step, _uniform),
    "DDIM eta 0.5, even t": (partial(ddim_step, eta=0.5), _uniform),
    "DDIM, even t": (ddim_step, _uniform),
    "DDIM = Euler, even log-SNR": (ddim_step, log_snr_times),
    "Heun, even log-SNR": (heun_step, _for_heun),
    "2M, even log-SNR": (dpmpp_2m_step, log_snr_times),
}


def draw_set(name, nfe, seed):
    """A set of images (60, 64, 64) of the shipped network, float32 in [-1, 1], and its processor seconds an image.

    One seed gives every sampler the same starting noise. Raises ValueError for an unknown sampler.
    """
    if name not in SAMPLERS:
        raise ValueError(f"no sampler {name!r}: choose one of {', '.join(SAMPLERS)}")
    step, times = SAMPLERS[name]
    denoiser, where = pretrained.load_denoiser("mednist"), runtime.device()
    noise = torch.randn(IMAGES, 1, 64, 64, generator=runtime.seeded(seed)).to(where)
    bound = partial(denoiser, y=torch.arange(IMAGES, device=where) % 6)
    grid, generator = times(denoiser.schedule, nfe), runtime.seeded(seed + 1_000_000)
    runtime.precision()  # measured once, before the clock starts
    start = time.process_time()
    with runtime.fast():
        images = last(sample(bound, denoiser.schedule, noise, grid, step, generator)).float().cpu()
    return images[:, 0].clamp(-1, 1), (time.process_time() - start) / IMAGES


def score(images):
    """Fréchet distance of images (N, 64, 64), float in [-1, 1] or uint8, from 30,000 real ones, in shipped features."""
    judge, reference = pretrained.load("mednist_features"), pretrained.reference("mednist_features")
    return frechet_distance(moments(in_batches(judge.features, images)), reference)


def measure(sampler, nfe, seed):
    """A row: the Fréchet distance of a set, and its processor seconds an image."""
    images, seconds = draw_set(sampler, nfe, seed)
    return {"frechet_distance": rounded(score(images)), "seconds": rounded(seconds)}, {}


def floor():
    """Fréchet distances of sets of 60 real images, 10 of each class, of the training split but not in the reference;
    many are slices of scans that are. Needs MedNIST."""
    images, labels = RECIPES["mednist_features"].load_data()
    return _of_real_sets(images, labels, ~in_reference(torch.as_tensor(labels)))


def unseen():
    """The same of the test split, whose scans are in part other ones: they lie farther from the reference."""
    images, labels = mednist_images("test")
    return _of_real_sets(images, labels, torch.ones(len(labels), dtype=torch.bool))


def _of_real_sets(images, labels, allowed):
    labels, left, generator = torch.as_tensor(labels), allowed.nonzero()[:, 0], runtime.seeded(0)
    draws = [random_of_each_class(labels[left], IMAGES // 6, generator) for _ in range(FLOOR_DRAWS)]
    return rounded([score(images[left[chosen].numpy()]) for chosen in draws])


def begin():
    """What stands above the rows. Needs MedNIST."""
    about = {"images": IMAGES, "precision": runtime.precision_name(), "floor": floor(), "unseen": unseen()}
    return about, {}


def keys(record=None):
    """The rows, what the notebook needs most first."""
    few = [(name, nfe, 0) for nfe in EVALUATIONS for name in SAMPLERS]
    quick, long = ("2M, even log-SNR", 15), ("DDPM, even t", 1000)
    rows = [*few, (*quick, 1), (*quick, 2)]
    for seed in range(SEEDS):
        rows += [(*long, seed), ("DDPM, even t", 100, seed)]
    for seed in range(SEEDS):
        rows += [(name, nfe, seed) for nfe in EVALUATIONS for name in SAMPLERS]
    return [dict(zip(("sampler", "nfe", "seed"), row)) for row in dict.fromkeys(rows)]


STUDY = Study("04_samplers", keys, measure, begin, shared=("mednist", "mednist_features"))
