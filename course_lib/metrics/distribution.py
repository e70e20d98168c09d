"""How far apart are two distributions of images, seen through the features of a network."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of features, float64, and the number of images n that they come from."""

    mean: torch.Tensor
    cov: torch.Tensor
    n: int


def moments(features):
    """:class:`Moments` of features (N, d), with the unbiased covariance. Raises ValueError for fewer than two rows."""
    features = torch.as_tensor(features).double()
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be (N, d) with N >= 2; got shape {tuple(features.shape)}")
    return Moments(features.mean(0), torch.cov(features.T), len(features))


def frechet_distance(a, b):
    """Squared Fréchet distance of two Gaussians given by :class:`Moments` a and b; a float >= 0.

    ||mean_a - mean_b||^2 + tr(cov_a + cov_b - 2 (cov_a^1/2 cov_b cov_a^1/2)^1/2)

    Dowson & Landau (J. Multivariate Analysis 1982); in Inception features it is the FID of Heusel et al. (NeurIPS
    2017).
    The two sets are finite, so two samples of one distribution score above zero: quote the floor beside it.
    """
    root = _symmetric_root(a.cov)
    cross = torch.linalg.eigvalsh(root @ b.cov @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(float(distance), 0.0)


def _symmetric_root(matrix):
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
