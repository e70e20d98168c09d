"""The record ``05_guidance``: accuracy, coverage, Fréchet distance and saturation of guided MedNIST samples over w.

``python -m course_lib.experiments 05_guidance`` remakes it (needs MedNIST in the cache for the real features). It may
be interrupted: rows that are there, and were made with the networks as they are now, are not computed anew.
"""

import functools
import json

import torch

from course_lib import guidance, pretrained, runtime
from course_lib.datasets import in_reference, mednist_images, random_of_each_class
from course_lib.files import read_tensors, write_rows, write_tensors
from course_lib.generate import draw
from course_lib.images import in_batches
from course_lib.metrics.distribution import density_coverage, frechet_distance, moments
from course_lib.metrics.intervals import jackknife

IMAGES = 120  # a set: the six classes take turns, so that its beginning is a smaller set
STEPS = 15
K = 5
NONE = 6  # the class that stands for "no class" in the shipped networks
INTERVAL = (0.17, 0.79)  # in t: sigma/alpha from 0.28 to 2.9; not tuned


def guided(method, w):
    """The guided denoiser of a row. Raises ValueError for an unknown method."""
    free = functools.partial(guidance.ClassifierFree, none=NONE)
    good = pretrained.load_denoiser("mednist", clip=False)
    if method == "classifier-free":
        return guidance.Clipped(free(good, w=w))
    if method == "clipped before":
        return free(pretrained.load_denoiser("mednist", clip=True), w=w)
    if method == "not clipped":
        return free(good, w=w)
    if method == "interval":
        return guidance.Clipped(free(good, w=guidance.interval(w, *INTERVAL)))
    if method == "autoguidance":
        return guidance.Clipped(guidance.Autoguidance(pretrained.load_denoiser("mednist_weak", clip=False), good, w))
    if method == "noise-aware classifier":
        logits = pretrained.load("mednist_noisy_classifier")
        return guidance.Clipped(guidance.ClassifierGuided(good, logits, good.schedule, w))
    raise ValueError(f"no guidance {method!r}; there are: {', '.join(dict.fromkeys(name for name, _ in PLAN))}")


NEEDS = {"noise-aware classifier": ["mednist_noisy_classifier"], "autoguidance": ["mednist_weak"]}
PLAN = (
    [("classifier-free", w) for w in (1, 3, 8, 0, 12, 2, 5, 1.5)]
    + [("interval", w) for w in (3, 8)]
    + [("autoguidance", w) for w in (2, 3, 1.25)]
    + [("noise-aware classifier", w) for w in (3, 1)]
    + [("not clipped", 8), ("clipped before", 8), ("interval", 12)]
)


def draw_set(method, w, n=IMAGES, seed=0):
    """The first n images of a row's set, float32 (n, 64, 64) in [-1, 1], and their classes (n,)."""
    y = torch.arange(n) % 6
    return draw(guided(method, w), y, nfe=STEPS, seed=seed, batch_size=60), y


def real_features(seed, split="train"):
    """Features (IMAGES, 320) of real images that are not in the reference, as many of each class. Needs MedNIST.

    split : "train": scans of which other slices are in the reference, too; "test": scans held out.
    """
    images, labels = mednist_images(split)
    labels = torch.as_tensor(labels)
    left = (~in_reference(labels) if split == "train" else torch.ones(len(labels), dtype=torch.bool)).nonzero()[:, 0]
    chosen = left[random_of_each_class(labels[left], IMAGES // 6, runtime.seeded(seed))].numpy()
    return in_batches(pretrained.load("mednist_features").features, images[chosen]), images[chosen]


def row(method, w, real):
    """One row of the record, computed: what a set scores, and the means and spreads of its first six images."""
    images, y = draw_set(method, w)
    judge, reference = pretrained.load("mednist_features"), pretrained.reference("mednist_features")
    features = in_batches(judge.features, images)
    found = in_batches(judge, images).argmax(1)
    distance, distance_error = jackknife(lambda f: frechet_distance(moments(f), reference), features)
    density, coverage = density_coverage(real, features, K)
    return {
        "method": method,
        "w": w,
        "accuracy": round(float((found == y).float().mean()), 4),
        "coverage": round(coverage, 4),
        "density": round(density, 4),
        "frechet_distance": round(distance, 3),
        "frechet_distance_error": round(distance_error, 3),
        "white": round(float((images > SATURATED).float().mean()), 5),
        "black": round(float((images < -SATURATED).float().mean()), 5),
        "needs": needs(method),
        "first_six": [[round(float(v), 3) for v in (image.mean(), image.std())] for image in images[:6]],
    }


SATURATED = 0.98  # beyond plus or minus this a pixel counts as white or black


def needs(method):
    """sha256 of the networks that a method uses besides the record's two; {} where one of them is not there."""
    return pretrained.sha256_of(NEEDS.get(method, ())) or {}


def floor(real, split="train"):
    """What real images of a split score, five sets of other draws: the same figures as :func:`row`, a list each."""
    reference = pretrained.reference("mednist_features")
    draws = [real_features(seed, split) for seed in range(1, 6)]
    pairs = [density_coverage(real, features, K) for features, _ in draws]
    pixels = [torch.as_tensor(images).float() / 127.5 - 1 for _, images in draws]
    return {
        "frechet_distance": [round(frechet_distance(moments(features), reference), 4) for features, _ in draws],
        "density": [round(density, 4) for density, _ in pairs],
        "coverage": [round(coverage, 4) for _, coverage in pairs],
        "white": [round(float((x > SATURATED).float().mean()), 5) for x in pixels],
        "black": [round(float((x < -SATURATED).float().mean()), 5) for x in pixels],
    }


def real(path):
    """The stored features of real images (IMAGES, 320), float32, of the record at ``path``."""
    return read_tensors(path.with_suffix(".tensors.safetensors"))[0]["real"].float()


def make(path):
    """Compute the rows that the record at ``path`` lacks, and write it after each of them."""
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        record["rows"] = [entry for entry in record["rows"] if entry.get("needs", {}) == needs(entry["method"])]
    else:
        write_tensors(path.with_suffix(".tensors.safetensors"), {"real": real_features(0)[0].half()})
        record = {
            "made_by": f"python -m course_lib.experiments {path.stem}",
            "sha256": {name: pretrained.card(name)["sha256"] for name in ("mednist", "mednist_features")},
            "images": IMAGES,
            "steps": STEPS,
            "k": K,
            "interval": INTERVAL,
            "precision": runtime.precision_name(),
            "floor": floor(real(path)),
            "held_out": floor(real(path), "test"),
            "rows": [],
        }
    done = {(entry["method"], entry["w"]) for entry in record["rows"]}
    for method, w in PLAN:
        if (method, w) in done or not set(NEEDS.get(method, ())) <= set(pretrained.names()):
            continue
        record["rows"].append(row(method, w, real(path)))
        write_rows(path, record)
        print(record["rows"][-1], flush=True)
