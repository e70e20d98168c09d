"""The record ``13_trends``: four networks of one size and one length of training on MedNIST at 32 x 32, each with the
sampler it was made for and with one sampler for all, by number of evaluations.

``python -m course_lib.experiments 13_trends`` remakes it (about 6 minutes on one free core, with MedNIST in the cache
for the reference). It may be interrupted: rows that are there are not computed anew, unless their network has changed.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from course_lib import pretrained, runtime
from course_lib.datasets import mednist_small, random_of_each_class
from course_lib.files import read_tensors, write_rows, write_tensors
from course_lib.generate import draw_along
from course_lib.images import to_uint8
from course_lib.metrics.distribution import Moments, frechet_distance, moments
from course_lib.metrics.intervals import jackknife
from course_lib.recipes import FD_IMAGES, TREND_SIZE, small_judged, small_reference
from course_lib.samplers import consistency_step, ddim_step, ddpm_step, dpmpp_2m_step, heun_step
from course_lib.schedules import karras_levels, uniform_times

EVALUATIONS = (1, 2, 4, 8, 15, 50)
ODD = (1, 3, 7, 15, 49)  # Heun takes two evaluations a step, and one at the last time
STUDENT = (1, 2, 4, 8)  # more steps than its teacher took, it does not know
SHOWN = 12  # the first images of a set, which are in the record themselves
NETWORKS = {"DDPM": "trend_ddpm", "EDM": "trend_edm", "flow": "trend_flow", "student": "trend_student"}
CUT = -4.0  # log-SNR below which the flow answers for DDPM
MENDED = f"DDPM, flow below {CUT:.0f}"


def even_times(schedule, nfe):
    """nfe times, evenly spaced in t, from 1."""
    return uniform_times(nfe)[:-1]


def _for_heun(schedule, nfe):
    if nfe % 2 == 0:
        raise ValueError(f"Heun needs an odd number of evaluations, two a step and one at the end; got {nfe}")
    return karras_levels(schedule, (nfe + 1) // 2)


class Mended:
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


#: (method, sampler) -> Way. The first of a method is the one that it was made for; 2M is the one for all. At the end
#: one experiment: do DDPM's answers in much noise spoil its walks?
WAYS = {
    ("DDPM", "ancestral"): Way("trend_ddpm", ddpm_step, even_times),
    ("DDPM", "DDIM"): Way("trend_ddpm", ddim_step, even_times),
    ("EDM", "Heun"): Way("trend_edm", heun_step, _for_heun, ODD),
    ("flow", "Euler"): Way("trend_flow", ddim_step, even_times),  # in this schedule DDIM is Euler's step along u
    ("student", "consistency"): Way("trend_student", consistency_step, even_times, STUDENT),
    ("DDPM", "2M"): Way("trend_ddpm", dpmpp_2m_step, karras_levels),
    ("EDM", "2M"): Way("trend_edm", dpmpp_2m_step, karras_levels),
    ("flow", "2M"): Way("trend_flow", dpmpp_2m_step, karras_levels),
    (MENDED, "2M"): Way("trend_ddpm", dpmpp_2m_step, karras_levels, (15,), noisy="trend_flow"),
    (MENDED, "DDIM"): Way("trend_ddpm", ddim_step, even_times, (15,), noisy="trend_flow"),
    (MENDED, "ancestral"): Way("trend_ddpm", ddpm_step, even_times, (15,), noisy="trend_flow"),
}


def classes_in_turn(n=FD_IMAGES):
    """Classes 0..5 in turn, (n,)."""
    return torch.arange(n) % 6


def draw_set(method, sampler, nfe, n=FD_IMAGES, seed=0):
    """n images (n, 32, 32), the classes in turn, float32 in [-1, 1], and their processor seconds an image.

    One seed gives all methods the same starting noise. Raises ValueError for an unknown method or sampler.
    """
    if (method, sampler) not in WAYS:
        known = "; ".join(f"{m} with {s}" for m, s in WAYS)
        raise ValueError(f"no {method!r} with {sampler!r}: choose one of {known}")
    way = WAYS[method, sampler]
    denoiser = way.denoiser()
    times = way.times(denoiser.schedule, nfe)
    runtime.precision()  # measured once, before the clock starts
    start = time.process_time()
    images = draw_along(denoiser, classes_in_turn(n), times, way.step, seed, TREND_SIZE)
    return images, (time.process_time() - start) / n


def row(method, sampler, nfe, reference):
    """One row of the record, computed, and the first images of its set, uint8 (12, 32, 32). reference : moments."""
    images, seconds = draw_set(method, sampler, nfe)
    features, logits = small_judged(images)
    distance, error = jackknife(lambda part: frechet_distance(moments(part), reference), features, turn=6)
    right = (logits.argmax(1) == classes_in_turn()).float().mean()
    return {
        "method": method,
        "sampler": sampler,
        "nfe": nfe,
        "frechet_distance": round(distance, 3),
        "error": round(error, 3),
        "recognised": round(float(right), 4),
        "seconds": round(seconds, 5),
        "needs": pretrained.sha256_of(WAYS[method, sampler].networks),
    }, torch.as_tensor(to_uint8(images[:SHOWN]))


def plan():
    """(method, sampler, nfe) of every row; the samplers that methods were made for come first."""
    return [(*way, nfe) for way, about in WAYS.items() for nfe in about.evaluations]


# ---- The record ------------------------------------------------------------------------------------------------------


def key(method, sampler, nfe):
    """The name of a row's images in the record's tensors."""
    return f"{method}, {sampler}, {nfe}"


def pictures(path, method, sampler, nfe):
    """The first images of a row, uint8 (12, 32, 32), out of the record at ``path``; the classes take turns."""
    return read_tensors(path.with_suffix(".tensors.safetensors"))[0][key(method, sampler, nfe)]


def test_split(reference):
    """Fréchet distances of five sets of as many images of MedNIST's test split, 100 of each class: unseen images, where
    the floor's are neighbours of the reference."""
    images, labels = mednist_small("test")
    labels, generator = torch.as_tensor(labels), runtime.seeded(0)
    draws = [random_of_each_class(labels, FD_IMAGES // 6, generator) for _ in range(5)]
    distances = [frechet_distance(moments(small_judged(images[chosen.numpy()])[0]), reference) for chosen in draws]
    return [round(distance, 4) for distance in distances]


def make(path):
    """Compute the rows that the record at ``path`` lacks, and write it after each of them."""
    tensors_path = path.with_suffix(".tensors.safetensors")
    if path.exists():
        record, tensors = json.loads(path.read_text(encoding="utf-8")), read_tensors(tensors_path)[0]
    else:
        real, floor = small_reference()
        record = {
            "made_by": f"python -m course_lib.experiments {path.stem}",
            "sha256": pretrained.sha256_of(["mednist_features"]),
            "images": FD_IMAGES,
            "reference_images": real.n,
            "precision": runtime.precision_name(),
            "floor": floor["of_each_draw"],
            "rows": [],
        }
        tensors = {"reference.mean": real.mean, "reference.cov": real.cov, "reference.n": torch.tensor(real.n)}
        write_tensors(tensors_path, tensors)

    def as_it_was(entry):
        return entry["needs"] == pretrained.sha256_of(WAYS[entry["method"], entry["sampler"]].networks)

    record["rows"] = [entry for entry in record["rows"] if as_it_was(entry)]
    reference = Moments(tensors["reference.mean"], tensors["reference.cov"], int(tensors["reference.n"]))
    if "test_split" not in record:
        record["test_split"] = test_split(reference)
        write_rows(path, record)
    done = {(r["method"], r["sampler"], r["nfe"]) for r in record["rows"]}
    for wanted in plan():
        if wanted in done or not set(WAYS[wanted[:2]].networks) <= set(pretrained.names()):
            continue
        found, images = row(*wanted, reference)
        tensors[key(*wanted)] = images
        write_tensors(tensors_path, tensors)
        record["rows"].append(found)
        write_rows(path, record)
        print(found, flush=True)
