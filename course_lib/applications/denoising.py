"""Denoising with a diffusion prior, and the noise of magnitude images.

A picture y = x_0 + sigma_y n with noise of known size is a state of the forward process, once it is scaled: alpha_t y
with sigma_t / alpha_t = sigma_y. So the prior's own denoiser answers, and nothing is trained or guided:

    E[x_0 | y] = D(alpha_t y, t),    sigma_t / alpha_t = sigma_y

==================  =============================  ==========================================
name                gives                          source
==================  =============================  ==========================================
posterior_mean      E[x_0 | y], one evaluation     Tweedie; Robbins (1956), Efron (JASA 2011)
posterior_sample    a draw from p(x_0 | y)         DDPM's steps from t on
rician              a magnitude image              Gudbjartsson & Patz (MRM 1995)
remove_rician_bias  sqrt(M^2 - 2 s^2)              E[M^2] = A^2 + 2 s^2, as there
==================  =============================  ==========================================

Images are (B, 1, H, W) in [-1, 1], background -1; the intensity of such a pixel is A = (x + 1) / 2, and the
noise in it s = sigma_y / 2.
"""

import math

import numpy as np
import torch

from course_lib.arguments import floating, images, positive, whole, within
from course_lib.samplers import ddpm_step, sample
from course_lib.schedules import schedule_of


def noise_time(schedule, noise):
    """The t (float64) with sigma_t / alpha_t = noise. Raises ValueError unless noise > 0."""
    positive(noise=noise)  # a clean image needs no t
    return schedule.time(-2 * math.log(noise))


def posterior_mean(denoiser, y, noise):
    """E[x_0 | y] = D(alpha_t y, t): one evaluation. y (B, ...) = x_0 + noise n. Raises ValueError unless noise > 0."""
    schedule = schedule_of(denoiser)
    t = noise_time(schedule, noise)
    floating(y=y)
    return denoiser((schedule.alpha(t) * y).to(y.dtype), t)


def walk_times(schedule, noise, n, log_snr_max=8.0):
    """n times evenly spaced in lambda from the t of the noise to log_snr_max, then 0 (float64, n + 1 in all). Where the
    noise is as small as that, they reach one beyond it, or as far as the schedule does."""
    positive(noise=noise)
    whole(n=n)
    first, reach = -2 * math.log(noise), schedule.log_snr_range()[1]
    last = max(log_snr_max, first + 1)
    inside = torch.linspace(first, min(last, reach), n if last < reach else n + 1, dtype=torch.float64)[:n]
    times = schedule.time(inside)
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def posterior_sample(denoiser, y, noise, n, generator=None, step=ddpm_step):
    """A draw from p(x_0 | y): n steps on from x_t = alpha_t y. y (B, ...); Raises ValueError unless noise > 0.

    The step must be a random one. A deterministic one (DDIM, 2M) leads to one image for each y: that is no draw.
    """
    schedule = schedule_of(denoiser)
    t = noise_time(schedule, noise)
    floating(y=y)
    start = (schedule.alpha(t) * y).to(y.dtype)
    return sample(denoiser, start, walk_times(schedule, noise, n), step, generator)


# ---- Magnitude images ------------------------------------------------------------------------------------------------


def rician(x, noise, generator):
    """The magnitude image of x with noise in both of its channels: y = 2 M - 1, M = |A + (noise / 2)(n_1 + i n_2)|.

    The noise of A is half of that of x = 2 A - 1, so ``noise`` means the same as in y = x + noise n. x (B, 1, H, W).
    """
    images(x=x)
    within(0, math.inf, noise=noise)
    n = torch.randn(2, *x.shape, generator=generator).to(x) * noise / 2
    return 2 * torch.hypot((x + 1) / 2 + n[0], n[1]) - 1


def remove_rician_bias(y, noise):
    """y = 2 M - 1 -> 2 sqrt(max(M^2 - 2 s^2, 0)) - 1 with s = noise / 2: M^2 has the mean A^2 + 2 s^2."""
    floating(y=y)
    within(0, math.inf, noise=noise)
    M2 = ((y + 1) / 2).square()
    return 2 * (M2 - noise**2 / 2).clamp(min=0).sqrt() - 1


def rician_mean(A, s):
    """E[M] of a magnitude with signal A and noise s: s sqrt(pi / 2) L_1/2(-A^2 / 2 s^2), with L by Bessel functions.

    A : array, s > 0. Gudbjartsson & Patz (1995), from Rice (1944).
    """
    from scipy.special import ive

    positive(s=s)
    u = np.asarray(A, dtype=float) ** 2 / (4 * s**2)  # ive holds the factor exp(-u), so that nothing overflows
    return s * math.sqrt(math.pi / 2) * ((1 + 2 * u) * ive(0, u) + 2 * u * ive(1, u))
