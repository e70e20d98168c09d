"""The record ``13_trends``: networks of one size, or of as much computation, that saw as many images of MedNIST at
32 x 32, each with the sampler it was made for and with one sampler for all, by number of evaluations.

It takes about 6 minutes on one free core, with MedNIST in the cache for the reference.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from course_lib import pretrained, runtime
from course_lib.datasets import mednist_small, random_of_each_class
from course_lib.denoisers import Denoiser
from course_lib.experiments.mednist_sets import JUDGE, classes_in_turn
from course_lib.experiments.record import rounded, tensors
from course_lib.experiments.samplers import heun_steps
from course_lib.experiments.study import Study
from course_lib.generate import draw_along
from course_lib.images import to_uint8
from course_lib.metrics.distribution import Moments, frechet_distance, moments
from course_lib.metrics.intervals import jackknife
from course_lib.recipes.mednist import FD_IMAGES
from course_lib.recipes.trends import TREND_SIZE, small_judged, small_reference
from course_lib.samplers import consistency_step, ddim_step, ddpm_step, dpmpp_2m_step, heun_step, meanflow_step
from course_lib.schedules import karras_levels, uniform_times

EVALUATIONS = (1, 2, 4, 8, 15, 50)
ODD = (1, 3, 7, 15, 49)  # Heun takes two evaluations a step, and one at the last time
STUDENT = (1, 2, 4, 8)  # more steps than its teacher took, it does not know
SHOWN = 6  # the first images of a set, which are in the record themselves
NETWORKS = {"DDPM": "trend_ddpm", "EDM": "trend_edm", "flow": "trend_flow", "student": "trend_student"}
NETWORKS |= {"MeanFlow": "trend_meanflow", "DiT": "trend_dit"}
CUT = -4.0  # log-SNR below which the flow answers for DDPM
MENDED = f"DDPM, flow below {CUT:.0f}"


def even_times(schedule, nfe):
    """nfe times, evenly spaced in t, from 1."""
    return uniform_times(nfe)[:-1]


class Mended(Denoiser):
    """The denoiser ``clean``, but below the log-SNR ``cut``, in much noise, the answers of the denoiser ``noisy``.

    Its schedule is that of ``clean``. ``noisy`` is asked at the time of its own schedule that has the same log-SNR, and
    shown the same x_t / alpha_t; so two exact denoisers of the same data give one exact denoiser.
    """

    def __init__(self, clean, noisy, cut=CUT):
        self.clean, self.noisy, self.cut, self.schedule = clean, noisy, cut, clean.schedule

    def __call__(self, x_t, t, y=None):
        t = torch.as_tensor(t, dtype=torch.float64)
        log_snr = self.schedule.log_snr(t)
        if log_snr >= self.cut:
            return self.clean(x_t, float(t), y=y)
        there = self.noisy.schedule.time(log_snr)
        scale = self.noisy.schedule.alpha(there) / self.schedule.alpha(t)
        return self.noisy(float(scale) * x_t, float(there), y=y)


@dataclass(frozen=True)
class Way:
    """A way to draw from a network: step, times(schedule, nfe), and the numbers of evaluations to measure.

    noisy: the network that answers in its place below the log-SNR CUT, if there is one.
    """

    network: str
    step: Callable
    times: Callable
    evaluations: tuple = EVALUATIONS
    noisy: str | None = None

    @property
    def networks(self):
        """Names of all its networks."""
        return [name for name in (self.network, self.noisy) if name]

    def denoiser(self):
        """The denoiser of its network or networks."""
        denoisers = [pretrained.load_denoiser(name) for name in self.networks]
        return Mended(*denoisers) if self.noisy else denoisers[0]

    def drawn(self, denoiser, nfe, n=FD_IMAGES, seed=0):
        """n images (n, 32, 32) that a denoiser draws this way, the classes in turn, float32 in [-1, 1]."""
        times = self.times(denoiser.schedule, nfe)
        return draw_along(denoiser, classes_in_turn(n), times, self.step, seed, TREND_SIZE)


#: (method, sampler) -> Way. The first of a method is the one that it was made for; 2M is the one for all. At the end
#: one experiment: do DDPM's answers in much noise spoil its walks?
WAYS = {
    ("DDPM", "ancestral"): Way("trend_ddpm", ddpm_step, even_times),
    ("DDPM", "DDIM"): Way("trend_ddpm", ddim_step, even_times),
    ("EDM", "Heun"): Way("trend_edm", heun_step, lambda schedule, nfe: karras_levels(schedule, heun_steps(nfe)), ODD),
    ("flow", "Euler"): Way("trend_flow", ddim_step, even_times),  # in this schedule DDIM is Euler's step along u
    ("student", "consistency"): Way("trend_student", consistency_step, even_times, STUDENT),
    ("MeanFlow", "MeanFlow"): Way("trend_meanflow", meanflow_step, even_times),
    ("DiT", "2M"): Way("trend_dit", dpmpp_2m_step, karras_levels),
    ("DDPM", "2M"): Way("trend_ddpm", dpmpp_2m_step, karras_levels),
    ("EDM", "2M"): Way("trend_edm", dpmpp_2m_step, karras_levels),
    ("flow", "2M"): Way("trend_flow", dpmpp_2m_step, karras_levels),
    (MENDED, "2M"): Way("trend_ddpm", dpmpp_2m_step, karras_levels, (15,), noisy="trend_flow"),
    (MENDED, "DDIM"): Way("trend_ddpm", ddim_step, even_times, (15,), noisy="trend_flow"),
    (MENDED, "ancestral"): Way("trend_ddpm", ddpm_step, even_times, (15,), noisy="trend_flow"),
}


def draw_set(method, sampler, nfe, n=FD_IMAGES, seed=0):
    """n images (n, 32, 32), the classes in turn, float32 in [-1, 1], and their processor seconds an image.

    One seed gives all methods the same starting noise. Raises ValueError for an unknown method or sampler.
    """
    if (method, sampler) not in WAYS:
        known = "; ".join(f"{m} with {s}" for m, s in WAYS)
        raise ValueError(f"no {method!r} with {sampler!r}: choose one of {known}")
    way = WAYS[method, sampler]
    denoiser = way.denoiser()
    start = time.process_time()
    images = way.drawn(denoiser, nfe, n, seed)
    return images, (time.process_time() - start) / n


def recognised(logits):
    """Share of images, the classes in turn, whose logits (N, classes) are largest at their class."""
    return rounded((logits.argmax(1) == classes_in_turn(len(logits))).float().mean())


def reference():
    """Moments of the features of the real images, out of the record."""
    kept = tensors(STUDY.name)
    return Moments(kept["reference.mean"], kept["reference.cov"], int(kept["reference.n"]))


def measure(method, sampler, nfe):
    """A row, and the first images of its set, uint8 (6, 32, 32)."""
    images, seconds = draw_set(method, sampler, nfe)
    features, logits = small_judged(images)
    real = reference()
    distance, error = jackknife(lambda part: frechet_distance(moments(part), real), features, turn=6)
    return {
        "frechet_distance": rounded(distance, 3),
        "error": rounded(error, 3),
        "recognised": recognised(logits),
        "seconds": rounded(seconds, 5),
    }, {f"{method}, {sampler}, {nfe}": torch.as_tensor(to_uint8(images[:SHOWN]))}


def plan(record=None):
    """The rows; the samplers that methods were made for come first."""
    return [
        {"method": method, "sampler": sampler, "nfe": nfe}
        for (method, sampler), way in WAYS.items()
        for nfe in way.evaluations
    ]


def test_split(real):
    """Fréchet distances of five sets of as many images of MedNIST's test split, 100 of each class: unseen images, where
    the floor's are neighbours of the reference."""
    images, labels = mednist_small("test")
    labels, generator = torch.as_tensor(labels), runtime.seeded(0)
    draws = [random_of_each_class(labels, FD_IMAGES // 6, generator) for _ in range(5)]
    return rounded([frechet_distance(moments(small_judged(images[drawn.numpy()])[0]), real) for drawn in draws])


def begin():
    """What stands above the rows, and the reference. Needs MedNIST."""
    real, floor = small_reference()
    return {
        "images": FD_IMAGES,
        "reference_images": real.n,
        "precision": runtime.precision_name(),
        "floor": floor["of_each_draw"],
        "test_split": test_split(real),
    }, {"reference.mean": real.mean, "reference.cov": real.cov, "reference.n": torch.tensor(real.n)}


STUDY = Study(
    "13_trends", plan, measure, begin, (JUDGE,), networks=lambda key: WAYS[key["method"], key["sampler"]].networks
)
