"""Measures of masks and of distributions of masks. Masks are tensors (..., H, W) of 0 and 1 (or bool)."""

import torch


def iou(a, b):
    """Intersection over union of masks (..., H, W), broadcast against each other: (...). Two empty masks score 1."""
    a, b = torch.as_tensor(a).bool(), torch.as_tensor(b).bool()
    union = (a | b).flatten(-2).sum(-1)
    return torch.where(union > 0, (a & b).flatten(-2).sum(-1) / union.clamp(min=1), 1.0)


def generalised_energy_distance(samples, ratings, chances=None):
    """Squared generalised energy distance of two distributions of masks: 2 E d(s, r) - E d(s, s') - E d(r, r').

    d = 1 - IoU; s, s' are samples of a model, r, r' ratings. Zero if and only if both distributions are the same.
    Székely & Rizzo (J. Stat. Plan. Inference 2013); for segmentation Kohl et al. (NeurIPS 2018), eq. 5.

    samples : (K, ..., H, W), K >= 2, equally likely; the mean over pairs s, s' leaves out s with itself, so that the
        estimate is unbiased (and may fall below 0). ratings : (R, ..., H, W) with chances (R,), equal by default, taken
        as the whole distribution: pairs r, r' include r with itself. Returns (...).
    Raises ValueError for fewer than two samples.
    """
    samples, ratings = torch.as_tensor(samples).bool(), torch.as_tensor(ratings).bool()
    K, R = len(samples), len(ratings)
    if K < 2:
        raise ValueError(f"one sample has no spread: give at least 2 samples of each case, not {K}")
    chances = torch.full((R,), 1 / R) if chances is None else torch.as_tensor(chances, dtype=torch.float32)
    between = torch.stack([1 - iou(samples, r) for r in ratings]).mean(1)  # (R, ...), the mean over samples
    within_samples = torch.stack([1 - iou(samples, s) for s in samples]).sum((0, 1)) / (K * (K - 1))
    within_ratings = torch.stack([1 - iou(ratings, r) for r in ratings])  # (R, R, ...)
    return (
        2 * torch.tensordot(chances, between, 1)
        - within_samples
        - torch.tensordot(chances, torch.tensordot(chances, within_ratings, 1), 1)
    )
