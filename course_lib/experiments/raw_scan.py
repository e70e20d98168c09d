"""The record ``09_raw_scan``: a real head from the raw k-space of eight coils, judged at points that no method saw.

Needs the data set ``raw_mri`` in the cache, and takes some five minutes of one core. No picture is stored.
"""

import functools
import time

import torch

from course_lib import datasets, pretrained, runtime
from course_lib.applications.raw_scan import RealAndImaginary, as_scan, outermost, raw_scan, seen_by_prior
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Method, Study, grid
from course_lib.inverse import diffpir, diffpir_step, dps_step, tv
from course_lib.samplers import sample
from course_lib.schedules import log_snr_times, uniform_times

SIDES, CENTRE = (128, 96), 24
NOISE = 0.02  # of DiffPIR, whose weight is tuned: what counts is weight x noise^2
SAMPLES = 4
STEPS = {"DiffPIR": 60, "DPS": 100}
SPREAD = 0.1  # of the imaginary part


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
    """One sample of DiffPIR with the prior of that name."""
    prior = RealAndImaginary(pretrained.load_denoiser(name), SPREAD)
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


LEVELS = (1.0, 1.5)
METHODS = {
    "zeros, coils combined": Method(zero_filled),
    "CG-SENSE": Method(sense, grid(weight=(0.003, 0.01, 0.03))),
    "TV": Method(total_variation, grid(weight=(0.0003, 0.001, 0.003))),
    "DiffPIR, brains without skull": Method(
        functools.partial(by_diffpir, "brain"), grid(level=LEVELS, weight=(0.1, 0.3, 1.0)), ("brain",), STEPS["DiffPIR"]
    ),
    "DPS, brains without skull": Method(
        functools.partial(by_dps, "brain"), grid(level=LEVELS, scale=(1.0, 3.0, 10.0)), ("brain",), STEPS["DPS"]
    ),
}


def plan(record):
    """The rows; none without the data set."""
    return [{"method": name} for name in METHODS] if datasets.is_here("raw_mri") else []


def measure(method):
    """A row: the error at validation points of each setting, and at test points of the best one; of the mean of
    ``SAMPLES`` samples, too, where the method draws."""
    about, found = METHODS[method], scan()
    tried = [
        {**s, "validation": rounded(found.error(about.run(found, 0, **s), found.validation))} for s in about.settings
    ]
    best = min(range(len(tried)), key=lambda k: tried[k]["validation"])
    start, settings = time.process_time(), about.settings[best]
    pictures = [about.run(found, seed, **settings) for seed in range(1, 1 + (SAMPLES if about.evaluations else 1))]
    seconds = (time.process_time() - start) / len(pictures)
    errors = [found.error(z, found.test) for z in pictures]
    row = {"settings": settings, "tried": tried, "evaluations": about.evaluations, "seconds": rounded(seconds, 2)}
    row |= {"test": rounded(errors)}
    if len(pictures) > 1:
        row["test_of_mean"] = rounded(found.error(torch.cat(pictures).mean(0, keepdim=True), found.test))
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
