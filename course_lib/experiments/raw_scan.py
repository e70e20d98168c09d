"""The record ``09_raw_scan``: a real head from the raw k-space of eight coils, judged at points that no method saw.

Needs the data set ``raw_mri`` in the cache, and takes some ten minutes of one core. No picture is stored.
"""

import functools
import time

import torch

from course_lib import datasets, pretrained, runtime
from course_lib.applications.raw_scan import (
    RealAndImaginary,
    as_scan,
    brain_mask,
    outermost,
    raw_scan,
    seen_by_prior,
)
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Method, Study, grid
from course_lib.inverse import diffpir, diffpir_step, dps_step, tv
from course_lib.samplers import sample
from course_lib.schedules import log_snr_times, uniform_times

SIDES, CENTRE = (128, 96), 24
NOISE = 0.02  # of DiffPIR, whose weight is tuned: what counts is weight x noise^2
SAMPLES = 4
STEPS = {"DiffPIR": 60, "DPS": 100}
SPREAD = 0.04  # of the imaginary part; on validation points 0.03 is best with the skull taken off, 0.05 without
TV_WEIGHT = 0.001  # of the picture whose skull is taken off: the best of TV on validation points


@functools.cache
def scan():
    """The scan, as all methods see it."""
    return raw_scan(torch.as_tensor(datasets.raw_kspace()[0]), SIDES, CENTRE)


def zero_filled(scan, seed):
    return scan.A.adjoint(scan.y)


def sense(scan, seed, weight):
    return scan.A.solve(scan.A.adjoint(scan.y), weight)


def total_variation(scan, seed, weight):
    return tv(scan.A, scan.y, weight, iterations=60)


def by_diffpir(name, scan, seed, level, weight):
    """One sample of DiffPIR with the prior of that name, unclipped: scalp is brighter than any brain."""
    prior = RealAndImaginary(pretrained.load_denoiser(name, clip=False), SPREAD)
    guided = diffpir(prior, scan.A, seen_by_prior(scan, level), NOISE, weight)
    times = log_snr_times(prior.schedule, STEPS["DiffPIR"], -8.0, 8.0)
    return as_scan(
        sample(guided, _noise(seed), times, functools.partial(diffpir_step, zeta=1.0), runtime.seeded(seed)), level
    )


def by_dps(name, scan, seed, level, scale):
    """One sample of DPS with the prior of that name."""
    prior = RealAndImaginary(pretrained.load_denoiser(name, clip=False), SPREAD)
    step = dps_step(scan.A, seen_by_prior(scan, level), scale)
    return as_scan(sample(prior, _noise(seed), uniform_times(STEPS["DPS"]), step, runtime.seeded(seed)), level)


def _noise(seed):
    return torch.randn(1, 2, *SIDES, generator=runtime.seeded(1000 + seed))


def outside_brain(scan):
    """What lies outside the brain in the picture by TV, (1, 2, H, W), 0 in the brain; and the brain, bool (H, W)."""
    z = total_variation(scan, 0, TV_WEIGHT)
    brain = brain_mask(z)
    return ~brain * z, brain


def skull_first(method, scan, seed, **setting):
    """The picture by a method whose prior knows no skull: what TV shows outside the brain is taken off the measurement
    first, and put back at the end."""
    outside, _ = outside_brain(scan)
    return outside + method(scan.without(outside), seed, **setting)


def _sampler(kind, method, prior, settings):
    """The methods of a sampler: as it is, and with the skull taken off first."""
    run = functools.partial(method, prior)
    ways = {kind: run, f"{kind}, skull taken off first": functools.partial(skull_first, run)}
    return {name: Method(way, settings, (prior,), STEPS[kind]) for name, way in ways.items()}


LEVELS = (1.5, 2.0, 2.5, 3.0)  # at 2.0 the median of the brain is as bright as in the slices that the prior knows
METHODS = {
    "zeros, coils combined": Method(zero_filled),
    "CG-SENSE": Method(sense, grid(weight=(0.003, 0.01, 0.03))),
    "TV": Method(total_variation, grid(weight=(0.0003, 0.001, 0.003))),
    **_sampler("DiffPIR", by_diffpir, "brain", grid(level=LEVELS, weight=(0.03, 0.1, 0.3, 1.0))),
    **_sampler("DPS", by_dps, "brain", grid(level=LEVELS, scale=(10.0, 20.0, 40.0))),
}
SIMPLE = tuple(METHODS)[:3]


def plan(record):
    """The rows; none without the data set."""
    return [{"method": name} for name in METHODS] if datasets.is_here("raw_mri") else []


def swapped(scan, z):
    """Share of the energy of the test points that a picture z does not predict once a part of it has taken the place of
    that part in the picture by TV: the brain, or what lies outside."""
    outside, brain = outside_brain(scan)
    both = {"brain": brain * z + outside, "outside": ~brain * z + brain * total_variation(scan, 0, TV_WEIGHT)}
    return {part: rounded(scan.unpredicted(picture, scan.test).mean()) for part, picture in both.items()}


def measure(method):
    """A row: what each setting does not predict of the validation points, and the best one of each test point, on
    average over ``SAMPLES`` samples where the method draws; then also what their mean does not."""
    about, found = METHODS[method], scan()
    tried = [
        {**s, "validation": rounded(found.unpredicted(about.run(found, 0, **s), found.validation).mean())}
        for s in about.settings
    ]
    settings = about.settings[min(range(len(tried)), key=lambda k: tried[k]["validation"])]
    start = time.process_time()
    pictures = [about.run(found, seed, **settings) for seed in range(1, 1 + (SAMPLES if about.evaluations else 1))]
    seconds = (time.process_time() - start) / len(pictures)
    shares = torch.stack([found.unpredicted(z, found.test) for z in pictures])
    row = {"setting": settings, "tried": tried, "evaluations": about.evaluations, "seconds": rounded(seconds, 2)}
    row |= {"samples": rounded(shares.mean(1)), "test": rounded(shares.mean(0))}
    if about.evaluations:
        mean = torch.cat(pictures).mean(0, keepdim=True)
        row |= {"test_of_mean": rounded(found.unpredicted(mean, found.test)), "swapped": swapped(found, mean)}
    return row, {}


def begin():
    """What stands above the rows."""
    about = {"precision": runtime.precision_name(), "sides": SIDES}
    if datasets.is_here("raw_mri"):
        points = {"seen": scan().A.points, "validation": scan().validation, "test": scan().test}
        about["points"] = {name: int(where.sum()) for name, where in points.items()}
        noise = outermost(torch.as_tensor(datasets.raw_kspace()[0])) / scan().unit
        about["floor"] = rounded(scan().noise_floor(noise))
    return about, {}


STUDY = Study("09_raw_scan", plan, measure, begin, (), lambda key: METHODS[key["method"]].networks)
