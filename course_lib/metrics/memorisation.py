"""Are the images copies? Distances to the nearest training images, judged against images that cannot be copies."""

import torch


def nearest_rms(images, others):
    """Root mean square difference of each image (N, ...) to the nearest of ``others`` (M, ...), and which it is."""
    images, others = torch.as_tensor(images).flatten(1), torch.as_tensor(others).flatten(1)
    distance, which = torch.cdist(images, others).min(1)
    return distance / images.shape[1] ** 0.5, which


def nearest_and_crowd(images, others, k=50):
    """RMS difference of each image (N, ...) to the nearest of ``others`` (M, ...), and its mean over the k nearest.

    Returns two tensors (N,). Their ratio is the distance of Carlini et al. (USENIX Security 2023), sec. 4.1, up to a
    constant: a copy is much nearer to one training image than to its surroundings. A blurred image is near to all of
    them, so the plain distance takes it for a copy and the ratio does not. Raises ValueError with fewer than k others.
    """
    images, others = torch.as_tensor(images).flatten(1), torch.as_tensor(others).flatten(1)
    if len(others) < k or k < 1:
        raise ValueError(
            f"{k} neighbours are asked for among {len(others)} images: choose k between 1 and their number"
        )
    distance = torch.cdist(images, others).topk(k, largest=False).values / images.shape[1] ** 0.5  # (N, k), rising
    return distance[:, 0], distance.mean(1)


def threshold(null, level=0.05):
    """The largest threshold h such that a new value like those in ``null`` (n,) falls below h in a share of at most
    ``level``.

    It is the floor(level (n + 1))-th smallest of them. A new value that is exchangeable with the n lies strictly below
    it with probability at most ``level``, for every n and every distribution (the argument of conformal prediction: its
    rank among n + 1 is uniform). Raises ValueError where n is too small for the level.
    """
    null = torch.as_tensor(null)
    rank = int(level * (len(null) + 1) + 1e-9)
    if rank < 1:
        raise ValueError(f"{len(null)} held-out values cannot give a level of {level}: take at least {int(1 / level)}")
    return float(null.sort().values[rank - 1])
