"""Is a denoiser undertrained, and at which noise? The best linear denoiser as a floor that costs no training.

Directions are the principal ones of training images: the first few carry brightness and size, the later ones detail.
After denoising x_t, what share of a direction's variance is still open? For the best linear denoiser (Wiener filter,
exact for Gaussian data) it is sigma_t^2 / (alpha_t^2 lambda_k + sigma_t^2) in direction k of variance lambda_k. A
network may use more than means and covariances, so it has no excuse to be worse. Where it is, its samples vary too
little in that direction: what the network cannot see yet, the sampler leaves at the mean.
"""

from dataclasses import dataclass

import torch

from course_lib.arguments import images as check_images
from course_lib.arguments import whole
from course_lib.samplers import noise_like
from course_lib.schedules import NO_SIGNAL, schedule_of


@dataclass(frozen=True)
class Directions:
    """mean (d,), vectors (d, K) of length 1, and variances (K,), falling: principal directions of images."""

    mean: torch.Tensor
    vectors: torch.Tensor
    variances: torch.Tensor

    def along(self, x):
        """Images (B, ..., H, W) -> how far each lies from the mean along each direction, (B, K)."""
        return (x.flatten(1) - self.mean) @ self.vectors


def principal_directions(x, K):
    """The first K :class:`Directions` of training images x (N, ..., H, W), 1 <= K < N. Raises ValueError for others,
    and where the images vary in fewer than K directions, beyond rounding."""
    check_images(x=x)
    whole(K=K)
    if len(x) <= K:
        raise ValueError(f"K must be below the number of images, {len(x)}; got {K}")
    mean = x.flatten(1).mean(0)
    centred = x.flatten(1) - mean
    gram = centred.double() @ centred.double().T / len(x)  # N x N: there are fewer images than pixels
    values, vectors = torch.linalg.eigh(gram)
    rounding = max(torch.finfo(x.dtype).eps, len(x) * torch.finfo(gram.dtype).eps)
    rank = int((values > rounding * values[-1]).sum())
    if rank < K:
        raise ValueError(f"K must be at most {rank}, the number of directions in which the images vary; got {K}")
    values, vectors = values.flip(0)[:K].clamp_min(0), vectors.flip(1)[:, :K].to(x)
    directions = torch.nn.functional.normalize(centred.T @ vectors, dim=0)
    return Directions(mean, directions, values.to(x))


@torch.no_grad()
def open_shares(denoiser, x_0, directions, t, generator=None, batch_size=32):
    """What share of the variance of unseen images x_0 (N, C, H, W) in each direction is still open at time t: of the
    denoiser, (K,), of the best linear one on the same noisy images, (K,), and that variance itself, (K,). Raises
    ValueError for a denoiser without a schedule."""
    schedule = schedule_of(denoiser)
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    x_t = schedule.noisy(x_0, noise_like(x_0, generator), t)
    found = torch.cat([denoiser(part, t) for part in x_t.split(batch_size)])
    true = directions.along(x_0)
    seen = directions.along(x_t / alpha) if alpha > NO_SIGNAL else torch.zeros_like(true)
    gain = alpha**2 * directions.variances / (alpha**2 * directions.variances + sigma**2)
    variance = true.square().mean(0)
    errors = ((directions.along(found) - true).square().mean(0), (gain * seen - true).square().mean(0))
    return *(error / variance for error in errors), variance
