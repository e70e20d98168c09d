"""Networks that saw few or many brains of 32 x 32, briefly or long: which of them hand out copies?"""

import torch
from torch.nn import functional as F

from course_lib import datasets, pretrained, runtime
from course_lib.images import in_batches, to_tensor, to_uint8
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.metrics.memorisation import nearest_and_crowd, nearest_rms, threshold
from course_lib.recipes.brain import brain_data
from course_lib.recipes.quality import floor, images, sampling

#: (images, steps) of the networks copies_10_3000 and so on; each set of images holds the smaller ones.
COPIES = ((10, 3000), (100, 3000), (1000, 3000), (10_000, 3000), (10, 480), (100, 9000), (10_000, 9000))
SIZE = 32
LEVEL = 0.01  # of the test for copies
SAMPLES = 300


def _coarse(split, n):
    """Synthetic healthy slices at 32 x 32, uint8 (n, 32, 32)."""
    return datasets.healthy_brains(split, n, size=SIZE)


def few_brains(n):
    """The data of a recipe: slices of the first n subjects."""
    return brain_data(lambda: (_coarse("train", n), None), n, image_size=SIZE, batch_size=min(n, 16), peak_rate=1e-3)


def coarse_features(x):
    """Features (N, d) of images (N, 32, 32), uint8 or in [-1, 1], blown up to the size that the judge of brains
    knows."""
    judge, side = pretrained.load("brain_features"), (datasets.BRAIN_SIZE,) * 2
    return in_batches(lambda x: judge.features(F.interpolate(x, size=side, mode="bilinear")), x, 100)


def measure_copies(recipe, net):
    """How many of 300 samples are copies of training images, and whether the Fréchet distance notices.

    The test is that of :mod:`course_lib.metrics.memorisation`: distance to the nearest training image over the mean
    distance to the k nearest, k = min(50, N / 2); its threshold is set on 500 subjects that nobody was trained on, and
    checked on 500 others. Beside the samples' Fréchet distance: the floor, five sets of 300 real images, and a copier,
    which hands out training images.
    """
    known, n = to_tensor(recipe.load_data()[0])[:, 0], SAMPLES
    k = min(50, len(known) // 2)

    def relative(x):
        nearest, crowd = nearest_and_crowd(x, known, k)
        return nearest / crowd

    drawn = images(recipe, net, n)
    null, check = (relative(part) for part in to_tensor(_coarse("test", 1000))[:, 0].split(500))
    values, limit = relative(drawn), threshold(null, LEVEL)
    reference = moments(coarse_features(_coarse("validation", 2000)))

    def distance(x):
        return round(frechet_distance(moments(coarse_features(x)), reference), 4)

    copied = known[torch.randint(len(known), (n,), generator=runtime.seeded(1))]
    _, which = nearest_rms(drawn, known)
    real = torch.as_tensor(datasets.healthy_brains("test", 5 * n, size=SIZE, seed=9))
    quality = {
        "training_images": len(known),
        "share_of_copies": round(float((values < limit).float().mean()), 4),
        "share_of_held_out": round(float((check < limit).float().mean()), 4),
        "test": {"level": LEVEL, "threshold": round(limit, 4), "neighbours": k, "held_out": len(check)},
        "frechet_distance": distance(drawn),
        "frechet_distance_of_a_copier": distance(copied),
        "floor": floor([distance(part) for part in real.split(n)], n),
        "reference_images": reference.n,
        "images": n,
    }
    shown = {"samples": drawn[:12], "nearest": known[which[:12]]}
    return quality | sampling(), {f"reference.{key}": torch.as_tensor(to_uint8(x)) for key, x in shown.items()}
