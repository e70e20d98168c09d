"""The record ``05_guidance``: accuracy, coverage, Fréchet distance and saturation of guided MedNIST samples over w.

It needs MedNIST in the cache for the real features.
"""

import functools

from course_lib import guidance, pretrained, runtime
from course_lib.datasets import random_of_each_class
from course_lib.experiments.mednist_sets import (
    JUDGE,
    beside_reference,
    classes_in_turn,
    classes_of,
    distance,
    features_of,
    first_six,
    mednist,
)
from course_lib.experiments.record import rounded, tensors
from course_lib.experiments.study import Study
from course_lib.generate import draw
from course_lib.images import to_tensor
from course_lib.metrics.distribution import density_coverage
from course_lib.metrics.intervals import jackknife

IMAGES = 120  # a set: the six classes take turns, so that its beginning is a smaller set
STEPS = 15
K = 5
NONE = 6  # the class that stands for "no class" in the shipped networks
INTERVAL = (0.17, 0.79)  # in t: sigma/alpha from 0.27 to 2.9; not tuned
SATURATED = 0.98  # beyond plus or minus this a pixel counts as white or black


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
        logits = pretrained.load_classifier("mednist_noisy_classifier")
        return guidance.Clipped(guidance.ClassifierGuided(good, logits, w))
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
    y = classes_in_turn(n)
    return draw(guided(method, w), y, nfe=STEPS, seed=seed, batch_size=60), y


def real_features(seed, split="train"):
    """Features (IMAGES, 320) of real images that are not in the reference, as many of each class, and the images."""
    images, labels = mednist(split)
    left = beside_reference(split)
    chosen = images[left[random_of_each_class(labels[left], IMAGES // 6, runtime.seeded(seed))]]
    return features_of(chosen), chosen


def saturated(images, dim=None):
    """Shares of white and of black pixels of images (N, H, W): over all of them, or over the axes ``dim``."""
    shares = {"white": images > SATURATED, "black": images < -SATURATED}
    return {name: rounded(share.float().mean(dim), 5) for name, share in shares.items()}


def measure(method, w):
    """A row: what a set scores, and the means and spreads of its first six images."""
    images, y = draw_set(method, w)
    features = features_of(images)
    found, error = jackknife(distance, features)
    density, coverage = density_coverage(tensors(STUDY.name)["real"], features, K)
    return {
        "accuracy": rounded((classes_of(images) == y).float().mean()),
        "coverage": rounded(coverage),
        "density": rounded(density),
        "frechet_distance": rounded(found, 3),
        "frechet_distance_error": rounded(error, 3),
        **saturated(images),
        "first_six": first_six(images),
    }, {}


def reference(real, split):
    """What real images of a split score, five sets of other draws: a list for each figure of :func:`measure`."""
    features, images = zip(*(real_features(seed, split) for seed in range(1, 6)))
    density, coverage = zip(*(density_coverage(real, drawn, K) for drawn in features))
    shares = [saturated(to_tensor(drawn)) for drawn in images]
    return {
        "frechet_distance": rounded([distance(drawn) for drawn in features]),
        "density": rounded(density),
        "coverage": rounded(coverage),
        **{name: [share[name] for share in shares] for name in ("white", "black")},
    }


def begin():
    """What stands above the rows, with both references, and the real features that coverage is taken of."""
    real = real_features(0)[0].half()
    scored = {name: reference(real.float(), split) for name, split in (("floor", "train"), ("held_out", "test"))}
    about = {"images": IMAGES, "steps": STEPS, "k": K, "interval": INTERVAL, "precision": runtime.precision_name()}
    return about | scored, {"real": real}


def plan(record=None):
    """The rows, what the notebook needs most first."""
    return [{"method": method, "w": w} for method, w in PLAN]


STUDY = Study(
    "05_guidance", plan, measure, begin, ("mednist", JUDGE), networks=lambda key: NEEDS.get(key["method"], ())
)
