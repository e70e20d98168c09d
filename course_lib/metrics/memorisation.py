"""Are the images copies? Distances to the nearest training images, judged against images that cannot be copies."""

import math

import torch

from course_lib.arguments import inside, shaped
from course_lib.metrics import checks

_BLOCK = 4096  # of the others at a time, so that float64 needs no second copy of a data set


def _nearest(images, others, k):
    """RMS differences of each image to its k nearest of ``others``, rising, and which they are: two tensors (N, k).

    The mean of the others is taken off and float64 kept, since ||a - b||^2 is computed as ||a||^2 - 2 a b + ||b||^2,
    which cancels where the values are large beside their differences.
    """
    images, others = torch.as_tensor(images).flatten(1), torch.as_tensor(others).flatten(1)
    if images.shape[1] != others.shape[1]:
        raise ValueError(f"images have {images.shape[1]} pixels, the others {others.shape[1]}: resample one of them")
    if images.is_floating_point() != others.is_floating_point():
        raise ValueError(
            f"images and others must both be floats or both whole numbers, got {images.dtype} and {others.dtype}: "
            "to_tensor makes floats in [-1, 1] of 0..255"
        )
    checks.finite(images, "pixels of the images")
    centre = sum(part.double().sum(0) for part in others.split(_BLOCK)) / len(others)
    checks.finite(centre, "pixels of the others' mean")
    images = images.double() - centre
    best, which = images.new_full((len(images), k), float("inf")), torch.zeros(len(images), k, dtype=torch.int64)
    which = which.to(images.device)
    for first in range(0, len(others), _BLOCK):
        part = others[first : first + _BLOCK].double() - centre
        distance = torch.cat([best, torch.cdist(images, part)], 1)  # those before come first: of equals they stay
        best, order = distance.topk(k, largest=False)
        index = torch.arange(first, first + len(part), device=which.device).expand(len(images), -1)
        which = torch.cat([which, index], 1).gather(1, order)
    return (best / images.shape[1] ** 0.5).float(), which


def nearest_rms(images, others):
    """Root mean square difference of each image (N, ...) to the nearest of ``others`` (M, ...), float32 (N,), and which
    it is, int64 (N,). Values of any range and type. Raises ValueError where sizes differ, for none, and for NaN."""
    if not len(others):
        raise ValueError("there are no others to be near to: give one image at least")
    distance, which = _nearest(images, others, 1)
    return distance[:, 0], which[:, 0]


def nearest_and_crowd(images, others, k=50):
    """RMS difference of each image (N, ...) to the nearest of ``others`` (M, ...), and its mean over the k nearest.

    Returns two tensors (N,), float32. Their ratio is the distance of Carlini et al. (USENIX Security 2023), sec. 4.1,
    up to a constant: a copy is much nearer to one training image than to its surroundings. A blurred image is near to
    all of them, so the plain distance takes it for a copy and the ratio does not. Raises ValueError with fewer than k
    others, and as :func:`nearest_rms`.
    """
    if len(others) < k or k < 1:
        raise ValueError(
            f"{k} neighbours are asked for among {len(others)} images: choose k between 1 and their number"
        )
    distance, _ = _nearest(images, others, k)
    return distance[:, 0], distance.mean(1)


def threshold(null, level=0.05):
    """The largest threshold h such that a new value like those in ``null`` (n,) falls below h in a share of at most
    ``level``.

    It is the floor(level (n + 1))-th smallest of them. A new value that is exchangeable with the n lies strictly below
    it with probability at most ``level``, for every n and every distribution (the argument of conformal prediction: its
    rank among n + 1 is uniform). Raises ValueError where n is too small for the level.
    """
    null = checks.finite(null, "held-out values")
    shaped("n", null=null)
    inside(0, 1, level=level)
    rank = int(level * (len(null) + 1) + 1e-9)
    if rank < 1:
        least = math.ceil(1 / level - 1e-6) - 1
        raise ValueError(f"{len(null)} held-out values cannot give a level of {level}: take at least {least}")
    return float(null.sort().values[rank - 1])
