"""Images, latents and volumes drawn from a denoiser, a batch at a time."""

from numbers import Integral

import torch

from course_lib import runtime
from course_lib.arguments import shaped, whole
from course_lib.hippocampus import HIPPOCAMPUS_SHAPE
from course_lib.samplers import dpmpp_2m_step, sample
from course_lib.schedules import log_snr_times, schedule_of


def generate(denoiser, noise, y=None, nfe=25, batch_size=100):
    """Samples of the shape of ``noise`` (N, C, ...), by DPM-Solver++(2M), ``nfe`` evaluations evenly spaced in log-SNR.

    denoiser : any, with its schedule; y : its condition, a tensor (N, ...) or None. noise : standard normal; the start
    is noise sqrt(alpha_t^2 + sigma_t^2), which has the variance that data of variance 1 has there. Returns a tensor of
    the dtype and on the device of the noise. Raises ValueError where y is not of as many as noise, or batch_size is
    below 1.
    """
    schedule = schedule_of(denoiser)
    if y is not None and not isinstance(y, torch.Tensor):
        raise ValueError(f"y must be a tensor, such as torch.tensor([0, 1]) of classes, got {y!r:.80}")
    whole(nfe=nfe)
    if not len(noise):
        raise ValueError("ask for one sample or more, got none")
    if batch_size < 1 or (y is not None and len(y) != len(noise)):
        raise ValueError(
            f"batch_size must be at least 1, and y of as many as there is noise, {len(noise)}; got batch_size "
            f"{batch_size}" + (f" and {len(y)} of y" if y is not None else "")
        )
    times = log_snr_times(schedule, nfe)
    scale = (schedule.alpha(times[0]) ** 2 + schedule.sigma(times[0]) ** 2).sqrt()
    parts = []
    for start in range(0, len(noise), batch_size):
        part = slice(start, start + batch_size)
        bound = denoiser if y is None else denoiser.given(y[part])
        parts.append(sample(bound, scale * noise[part], times, dpmpp_2m_step))
    return torch.cat(parts)


def draw(denoiser, y, nfe=25, seed=0, size=64, batch_size=100):
    """Images (N, size, size), float32 in [-1, 1], by :func:`generate` from the noise of ``seed``.

    y : classes (N,), or, for a network without classes, the number N.
    """
    if isinstance(y, Integral):
        n, y = y, None
        whole(y=n)
    else:
        shaped("N", y=y)
        n = len(y)
    whole(size=size)
    noise = torch.randn(n, 1, size, size, generator=runtime.seeded(seed))
    return generate(denoiser, noise, y, nfe, batch_size)[:, 0].clamp(-1, 1)


def draw_along(denoiser, y, times, step, seed=0, size=64, batch_size=100):
    """Images (N, size, size), float32 in [-1, 1], of classes y (N,): steps between the ``times``, and the denoised
    image at the last of them, which is not 0. So len(times) evaluations, if a step takes one.

    Starts from sigma_t eps at times[0]: one seed gives all schedules the same noise eps.
    """
    generator = runtime.seeded(seed + 1_000_000)
    noise = schedule_of(denoiser).sigma(times[0]) * torch.randn(len(y), 1, size, size, generator=runtime.seeded(seed))
    parts = []
    for start in range(0, len(y), batch_size):
        part = slice(start, start + batch_size)
        bound = denoiser.given(y[part])
        parts.append(bound(sample(bound, noise[part], times, step, generator), times[-1]))
    return torch.cat(parts)[:, 0].clamp(-1, 1)


def draw_latents(denoiser, autoencoder, n, nfe=25, seed=0, size=128, batch_size=100):
    """n scaled latents (n, C, size / f, size / f), by :func:`generate` from the noise of ``seed``, and the images (n,
    size, size) in [-1, 1] that the autoencoder decodes them to; of volumes, with ``size`` the three sides, latents (n,
    C, X / f, Y / f, Z / f) and channels (n, 3, X, Y, Z). denoiser : of latents, without clipping. Raises ValueError for
    a size that the factor f does not divide, and for another number of sides than the autoencoder's."""
    sides = (size,) * autoencoder.spatial_dims if isinstance(size, Integral) else tuple(size)
    for side in sides:
        whole(n=n, size=side)
    if len(sides) != autoencoder.spatial_dims:
        raise ValueError(f"size must be {autoencoder.spatial_dims} sides, those of the autoencoder, or one; got {size}")
    if any(side % autoencoder.factor for side in sides):
        raise ValueError(f"size must be a multiple of {autoencoder.factor}, the factor of the autoencoder, got {size}")
    small = [side // autoencoder.factor for side in sides]
    noise = torch.randn(n, autoencoder.latent_channels, *small, generator=runtime.seeded(seed))
    z = generate(denoiser, noise, nfe=nfe, batch_size=batch_size)
    with runtime.fast():
        parts = [autoencoder.decode(part.to(runtime.device())).float().cpu() for part in z.split(50)]
    return z, torch.cat(parts).squeeze(1).clamp(-1, 1)


def draw_volumes(denoiser, n, nfe=25, seed=0, shape=HIPPOCAMPUS_SHAPE, batch_size=10):
    """n volumes of channels (n, 3, *shape) in [-1, 1], image and two labels, by :func:`generate` from the noise of
    ``seed``."""
    whole(n=n)
    noise = torch.randn(n, 3, *shape, generator=runtime.seeded(seed))
    return generate(denoiser, noise, nfe=nfe, batch_size=batch_size).clamp(-1, 1)
