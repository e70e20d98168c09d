"""How far apart are two distributions of images, seen through the features of a network."""

from dataclasses import dataclass

import torch

from course_lib.arguments import alike
from course_lib.metrics import checks


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of features, float64, and the number of images n that they come from."""

    mean: torch.Tensor
    cov: torch.Tensor
    n: int


def moments(features):
    """:class:`Moments` of features (N, d), with the unbiased covariance. Raises ValueError for fewer than two rows, and
    where one is NaN or infinite."""
    features = checks.finite(features, "features").double()
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features must be (N, d) with N >= 2; got shape {tuple(features.shape)}")
    cov = torch.cov(features.T).reshape(features.shape[1], -1)  # of one feature torch gives a number
    return Moments(features.mean(0), cov, len(features))


def frechet_distance(a, b):
    """Squared Fréchet distance of two Gaussians given by :class:`Moments` a and b; a float >= 0.

    ||mean_a - mean_b||^2 + tr(cov_a + cov_b - 2 (cov_a^1/2 cov_b cov_a^1/2)^1/2)

    Dowson & Landau (J. Multivariate Analysis 1982); in Inception features it is the FID of Heusel et al. (NeurIPS
    2017).
    The two sets are finite, so two samples of one distribution score above zero: quote the floor beside it. Raises
    ValueError where the features are not of one kind (d).
    """
    alike(**{"the means of features a": a.mean, "b": b.mean})
    root = _symmetric_root(a.cov)
    cross = torch.linalg.eigvalsh(root @ b.cov @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(float(distance), 0.0)


def _symmetric_root(matrix):
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def expected_floor(cov, n, m):
    """What two samples of one Gaussian N(mean, cov), of n and m images, score on average as Fréchet distance: a float.

    To first order in 1/n and 1/m, with l_i the eigenvalues of cov (d, d):

        (1/n + 1/m) [ sum_i l_i + 1/4 sum_i l_i + 1/2 sum_ij l_i l_j / (l_i + l_j) ].

    The first term is the means'. The rest is the second-order expansion of the covariances' part,
    1/2 sum_ij E_ij^2 / (l_i + l_j) for a small difference E, with the Wishart variance l_i l_j (1 + delta_ij) / n of an
    entry. For cov = I and n = m = N it is d (d + 5) / (2 N): simulation agrees within a few per cent down to N = d, or
    rather to the number of directions that vary. Below, it is too large. Raises ValueError for n or m below 2.
    """
    if min(n, m) < 2:
        raise ValueError(f"n and m must be 2 images or more; got {n!r} and {m!r}")
    values = torch.linalg.eigvalsh(torch.as_tensor(cov).double()).clamp(min=1e-300)
    pairs = 1 / (1 / values[:, None] + 1 / values[None])  # l_i l_j / (l_i + l_j)
    return float((1 / n + 1 / m) * (1.25 * values.sum() + 0.5 * pairs.sum()))


def extrapolated(sizes, distances):
    """The Fréchet distance of infinitely many images: the constant of the straight line in 1/N through ``distances``
    (K,), measured at ``sizes`` (K,); and the line's slope.

    Chong & Forsyth, Effectively unbiased FID and Inception Score (CVPR 2020), sec. 3. May be below zero, by noise.
    Raises ValueError for fewer than two different sizes.
    """
    sizes, distances = torch.as_tensor(sizes).double(), torch.as_tensor(distances).double()
    if sizes.shape != distances.shape or len(set(sizes.tolist())) < 2:
        raise ValueError(f"a line needs two sizes and their distances; got {sizes.tolist()} and {distances.tolist()}")
    x = 1 / sizes - (1 / sizes).mean()
    slope = (x * distances).sum() / x.square().sum()
    return float(distances.mean() - slope * (1 / sizes).mean()), float(slope)


def kernel_distance(x, y):
    """Squared maximum mean discrepancy of features x (M, d) and y (N, d), unbiased, so that it may be below zero.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j),   k(a, b) = (a . b / d + 1)^3

    Gretton et al. (JMLR 2012), eq. 3; with this kernel in Inception features it is the KID of Bińkowski et al. (ICLR
    2018). Raises ValueError unless both are (., d) with at least two rows.
    """
    x, y = _two_sets(x, y, 1)
    _two_sets(y, x, 1)

    def kernel(a, b):
        return (a @ b.T / x.shape[1] + 1) ** 3

    def off_diagonal_mean(matrix):
        return (matrix.sum() - matrix.trace()) / (len(matrix) * (len(matrix) - 1))

    return float(off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean())


def density_coverage(real, fake, k=5):
    """Density and coverage of features fake (N, d) with respect to features real (M, d): two floats.

    Each real point has a ball that reaches to its k-th nearest real neighbour (not counting itself). Density: how many
    balls a fake point lies in, on average, over k; about 1 when both sets come from one distribution, above 1 when the
    fake ones keep to where the real ones crowd. Coverage: the share of balls that hold a fake point.

    Naeem et al., Reliable fidelity and diversity metrics for generative models (ICML 2020), eq. 5 and 6. Two samples of
    one distribution with M = N large have an expected coverage of 1 - 2^-k (their Lemma 2): 0.97 at k = 5.
    Raises ValueError unless both are (., d) with M > k.
    """
    real, fake = _two_sets(real, fake, k)
    inside = torch.cdist(real, fake) <= _reach(real, k)[:, None]  # (M, N)
    return float(inside.sum()) / (k * len(fake)), float(inside.any(1).double().mean())


def precision_recall(real, fake, k=5):
    """Improved precision and recall of features fake (N, d) with respect to features real (M, d): two floats.

    Precision: the share of fake points that lie in the ball of a real point (as in :func:`density_coverage`); recall:
    the share of real points that lie in the ball of a fake one. Kynkäänniemi et al. (NeurIPS 2019), eq. 2.
    Raises ValueError unless both are (., d) with more than k rows.
    """
    real, fake = _two_sets(real, fake, k)
    _two_sets(fake, real, k)
    distance = torch.cdist(real, fake)  # (M, N)
    precision = (distance <= _reach(real, k)[:, None]).any(0)
    recall = (distance <= _reach(fake, k)[None]).any(1)
    return float(precision.double().mean()), float(recall.double().mean())


def _two_sets(real, fake, k):
    """Both as float64. Raises ValueError where they do not fit each other, or where ``real`` has not more than k
    rows."""
    real, fake = (checks.finite(features, "features").double() for features in (real, fake))
    if k < 1:
        raise ValueError(f"k must be 1 neighbour or more, and is {k!r}")
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or len(real) <= k or len(fake) < 1:
        raise ValueError(
            f"features must be (M, d) and (N, d) with M > k = {k}; got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    return real, fake


def _reach(points, k):
    """Distance from each point to its k-th nearest neighbour among the others (M,)."""
    return torch.cdist(points, points).fill_diagonal_(float("inf")).kthvalue(k, 1).values
