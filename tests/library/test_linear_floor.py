"""The best linear denoiser as a floor: against the exact Gaussian one, PCA of scikit-learn's kind, and at the ends."""

import numpy as np
import pytest
import torch

from course_lib.denoisers import FunctionDenoiser, GaussianDenoiser
from course_lib.metrics.linear import open_shares, principal_directions
from course_lib.schedules import Cosine


def gaussian_images(n, seed=0):
    """n images (n, 1, 3, 4) of a Gaussian with variances from 4 to 0.1 along turned axes; its mean and covariance."""
    generator = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(9)))
    variances = torch.logspace(np.log10(4), -1, 12, dtype=torch.float64)
    mean = torch.linspace(-1, 1, 12, dtype=torch.float64)
    x = mean + torch.randn(n, 12, dtype=torch.float64, generator=generator) * variances.sqrt() @ axes.T
    return x.reshape(n, 1, 3, 4), mean, axes @ torch.diag(variances) @ axes.T


def test_directions_are_those_of_the_covariance():
    x, _, _ = gaussian_images(300)
    found = principal_directions(x, 5)
    flat = x.flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
    np.testing.assert_allclose(found.variances, values[::-1][:5], rtol=1e-8)
    np.testing.assert_allclose(np.abs(found.vectors.numpy().T @ vectors[:, ::-1][:, :5]), np.eye(5), atol=1e-6)
    torch.testing.assert_close(found.along(x).square().mean(0), found.variances)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_on_gaussian_data_the_exact_denoiser_meets_the_floor(t):
    """Both at sigma^2 / (alpha^2 lambda + sigma^2), up to the chance of 4000 images; a blind one leaves all open."""
    x, mean, cov = gaussian_images(4000, seed=1)
    directions = principal_directions(gaussian_images(4000)[0], 6)
    exact = GaussianDenoiser(mean, cov, Cosine())
    flat = FunctionDenoiser(lambda x_t, t: exact(x_t.flatten(1), t).reshape(x_t.shape), exact.schedule)
    shares, linear, variance = open_shares(flat, x, directions, t, torch.Generator().manual_seed(0))
    alpha, sigma = float(exact.schedule.alpha(torch.tensor(t))), float(exact.schedule.sigma(torch.tensor(t)))
    expected = sigma**2 / (alpha**2 * directions.variances + sigma**2)
    torch.testing.assert_close(linear, expected, rtol=0.15, atol=0.01)
    torch.testing.assert_close(shares, linear, rtol=0.05, atol=0.01)
    torch.testing.assert_close(variance, directions.variances, rtol=0.1, atol=0)
    blind = FunctionDenoiser(lambda x_t, t: mean.reshape(1, 1, 3, 4).expand_as(x_t), exact.schedule)
    assert (open_shares(blind, x, directions, t)[0] - 1).abs().max() < 0.02


def test_at_pure_noise_all_is_open_and_without_noise_nothing():
    x, mean, cov = gaussian_images(500)
    directions = principal_directions(x, 3)
    exact = GaussianDenoiser(mean, cov, Cosine())
    flat = FunctionDenoiser(lambda x_t, t: exact(x_t.flatten(1), t).reshape(x_t.shape), exact.schedule)
    for t, open_ in ((1.0, 1.0), (0.0, 0.0)):
        shares, linear, _ = open_shares(flat, x, directions, t, torch.Generator().manual_seed(0))
        assert (shares - open_).abs().max() < 0.02 and (linear - open_).abs().max() < 0.02


def test_a_function_without_a_schedule_is_refused_with_the_remedy():
    x = gaussian_images(8)[0]
    with pytest.raises(ValueError, match="FunctionDenoiser"):
        open_shares(lambda x_t, t: x_t, x, principal_directions(x, 2), 0.5)


@pytest.mark.parametrize(
    ("x", "K", "message"),
    [
        (torch.zeros(5, 1, 2, 2), 5, "K must be below the number of images, 5"),
        (torch.zeros(5, 1, 2, 2), 0, "K"),
        (torch.full((5, 1, 2, 2), 255.0), 1, "x must lie in"),
    ],
)
def test_too_many_directions_are_named(x, K, message):
    with pytest.raises(ValueError, match=message):
        principal_directions(x, K)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 3])
def test_no_direction_is_made_of_rounding(kind, rank):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(50, rank, dtype=torch.float64, generator=generator)
    pictures = torch.linalg.qr(torch.randn(64, rank, dtype=torch.float64, generator=generator)).Q.T
    x = (0.3 + weights @ pictures).reshape(50, 1, 8, 8).to(kind)
    found = principal_directions(x, rank)
    torch.testing.assert_close((found.vectors.T @ found.vectors).double(), torch.eye(rank).double(), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=f"K must be at most {rank}, the number of directions"):
        principal_directions(x, rank + 1)
