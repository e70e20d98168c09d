"""How probable does a diffusion model find an image? A bound from its steps (ELBO), and a value from its ODE.

=========================  =====================================================================================
function                   gives
=========================  =====================================================================================
model_variance             the variance of the step x_t -> x_s: "small", "large", or a function of t and s
gaussian_kl                divergence of two Gaussians
elbo_terms                 the terms of the negative ELBO, one a step, for any denoiser
optimal_variance           the variance of the reverse step that makes Gaussian data's bound tight
gaussian_elbo_gap          how far the bound of Gaussian data lies from the truth, in closed form
ode_log_likelihood         log p by the probability-flow ODE, divergence exact or by Hutchinson's estimator
bits_per_dim               nats -> bits per dimension
=========================  =====================================================================================

All log-likelihoods are in nats, for the whole of x (a sum over its dimensions), of a density in the units of x.
"""

import math
from dataclasses import dataclass

import torch

from course_lib.arguments import alike, differentiable, floating, positive, whole
from course_lib.samplers import noise_like, reverse_moments
from course_lib.schedules import has_no_signal, schedule_of

LOG_2PI = math.log(2 * math.pi)


def bits_per_dim(nats, dims, levels=None):
    """Negative log-likelihood in nats of an x with ``dims`` dimensions -> bits per dimension.

    ``levels``: give 256 for 8-bit images that were scaled to [-1, 1] (with uniform dequantisation): each pixel value
    then fills 2 / 256, and log2(256 / 2) = 7 bits are added (Theis et al., ICLR 2016, sec. 3.1). None: no such shift.
    Raises ValueError unless dims and levels are whole numbers from 1 on.
    """
    whole(dims=dims)
    whole(levels=1 if levels is None else levels)
    return nats / (dims * math.log(2)) + (0.0 if levels is None else math.log2(levels / 2))


def standard_normal(x):
    """log N(x; 0, I) in nats; x (B, ...) -> (B,)."""
    return -(x.square() + LOG_2PI).flatten(1).sum(1) / 2


def _centred_normal(x, variance):
    """log N(x; 0, variance I) in nats; x (B, ...), variance a scalar -> (B,)."""
    return -(x.square() / variance + variance.log() + LOG_2PI).flatten(1).sum(1) / 2


# ---- the evidence lower bound ----------------------------------------------------------------------------------------


def gaussian_kl(mean_q, var_q, mean_p, var_p):
    """KL(N(mean_q, var_q I) || N(mean_p, var_p I)) in nats: means (B, ...), variances scalars -> (B,).

    d (r - 1 - ln r) / 2 + ||mean_q - mean_p||^2 / (2 var_p),  with r = var_q / var_p (first part 0 at r = 1)
    """
    positive(var_q=var_q, var_p=var_p)
    alike(mean_q=mean_q, mean_p=mean_p)
    r = torch.as_tensor(var_q / var_p)
    apart = (mean_q - mean_p).square().flatten(1)
    return apart.shape[1] * (r - 1 - r.log()) / 2 + apart.sum(1) / (2 * var_p)


def optimal_variance(schedule, t, s, data_variance):
    """Variance of the true q(x_s | x_t) for x_0 ~ N(m, data_variance I): what x_t leaves open about x_0 is added.

    small + b^2 Var(x_0 | x_t),  Var(x_0 | x_t) = data_variance sigma_t^2 / (alpha_t^2 data_variance + sigma_t^2)

    Bao et al., Analytic-DPM (ICLR 2022), theorem 1. Returns what has the shape of t and s.
    """
    _, b, small, _ = reverse_moments(schedule, t, s)
    var_t = schedule.sigma(t) ** 2
    return small + b**2 * data_variance * var_t / (schedule.alpha(t) ** 2 * data_variance + var_t)


def model_variance(schedule, t, s, variance="small"):
    """The model's variance of the step from t to s: "small", "large", or ``variance(t, s)`` if that is a function.

    t and s are scalars or tensors of one shape. Raises ValueError for another name, and unless s < t.
    "small" is zero at s = 0, where the model must say how sharp its last answer is; there "large" stands in.
    """
    if callable(variance):
        v = variance(t, s)
        return v if torch.is_tensor(v) else torch.tensor(v, dtype=torch.float64)
    if variance not in ("small", "large"):
        raise ValueError(f'variance must be "small", "large" or a function of (t, s), got {variance!r}')
    _, _, small, large = reverse_moments(schedule, t, s)
    return torch.where(torch.as_tensor(s) > 0, small, large) if variance == "small" else large


def _check_times(times, schedule):
    """Raises ValueError unless times are those of a bound, a tensor (T + 1,) that ends at 0, where no noise is left."""
    if not isinstance(times, torch.Tensor) or times.ndim != 1 or len(times) < 2:
        raise ValueError("times must be a tensor (T + 1,) with T from 1 on, as uniform_times(T) gives")
    if times[-1] != 0:
        raise ValueError(f"the last of the times must be 0, where the bound ends, got {float(times[-1]):g}")
    if schedule.sigma(times[-1]) > 0:
        raise ValueError(
            f"{type(schedule).__name__} keeps noise of {float(schedule.sigma(times[-1])):g} at t = 0: the bound, whose "
            "last step gives x_0, needs a schedule without"
        )


def elbo_terms(denoiser, x_0, times, variance="small", eps=None, generator=None):
    """The negative ELBO of x_0 in nats, term by term (Ho et al., NeurIPS 2020, eq. 5): -log p(x_0) <= sum of the terms.

        prior  KL(q(x_t | x_0) || N(0, I))                                      at the first t; no parameters
        step   KL(q(x_s | x_t, x_0) || N(a x_t + b D(x_t, t), v I))             for each pair t > s > 0
        last   -log N(x_0; D(x_t, t), v I)                                      at s = 0

    Each term holds for the one x_t = alpha_t x_0 + sigma_t eps that it draws; average over draws.

    Parameters
    ----------
    denoiser : D(x_t, t); every one will do, and only the exact one with the right variance makes the bound tight.
    x_0 : (B, ...).
    times : falling times (T + 1,), the last 0; ValueError otherwise, and where the schedule keeps noise at 0.
    variance : v, see :func:`model_variance`.
    eps : noise (B, ...) to use at every step, for quadrature or to compare models; left out, each step draws its own,
        from ``generator``.

    Returns (T + 1, B): the prior first, then the steps in the order of ``times``, so the last row is the last step.
    """
    floating(x_0=x_0)
    schedule = schedule_of(denoiser)
    _check_times(times, schedule)
    if eps is not None:
        alike(x_0=x_0, eps=eps)
    draw = (lambda: noise_like(x_0, generator)) if eps is None else (lambda: eps)
    start = times[0]
    zero = torch.zeros_like(x_0)
    terms = [gaussian_kl(schedule.alpha(start) * x_0, schedule.sigma(start) ** 2, zero, 1.0)]
    for t, s in zip(times[:-1], times[1:]):
        x_t = schedule.noisy(x_0, draw(), t)
        a, b, small, _ = reverse_moments(schedule, t, s)
        mean, v = a * x_t + b * denoiser(x_t, t), model_variance(schedule, t, s, variance)
        if s > 0:
            terms.append(gaussian_kl(a * x_t + b * x_0, small, mean, v))
        else:
            terms.append(((x_0 - mean).square() / v + v.log() + LOG_2PI).flatten(1).sum(1) / 2)
    return torch.stack(terms)


def gaussian_elbo_gap(schedule, times, data_variance, variance="small"):
    """Mean negative ELBO minus the entropy, in nats a dimension, for x_0 ~ N(0, data_variance I) and its exact D.

    Sum over the prior and the steps of (r - 1 - ln r) / 2, with r the ratio of the true to the model's variance: the
    means agree, so each divergence is one of variances. Prior: r = alpha_1^2 data_variance + sigma_1^2. Step:
    r = optimal_variance / model_variance. It is KL(q(x_0, ..., x_1) || p(x_0, ..., x_1)), by the chain rule.

    Returns (T + 1,), the order of :func:`elbo_terms`. Raises ValueError as that does.
    """
    _check_times(times, schedule)
    positive(data_variance=data_variance)
    t, s = times[:-1], times[1:]
    prior = schedule.alpha(times[:1]) ** 2 * data_variance + schedule.sigma(times[:1]) ** 2
    steps = optimal_variance(schedule, t, s, data_variance) / model_variance(schedule, t, s, variance)
    r = torch.cat([prior, steps])
    return (r - 1 - r.log()) / 2


# ---- likelihood by the probability-flow ODE --------------------------------------------------------------------------


@dataclass(frozen=True)
class OdeLikelihood:
    """What :func:`ode_log_likelihood` returns: log_p (B,) in nats, the end point x_end (B, ...) of each path, the
    integral of the divergence (B,), and the standard error (B,) of log_p due to random probes (None if exact, and for a
    single probe)."""

    log_p: torch.Tensor
    x_end: torch.Tensor
    log_det: torch.Tensor
    standard_error: torch.Tensor | None


def ode_log_likelihood(denoiser, x, steps=200, t_min=1e-4, t_max=1.0, log_prior=None, probes=None, generator=None):
    """log p(x) by the probability-flow ODE (Song et al., ICLR 2021, eq. 39), in the units of x.

    In z = x_t / alpha_t and rho = ln(sigma_t / alpha_t) the ODE is dz/drho = z - D(x_t, t), for every schedule, and

        log p(x) = log_prior(x_end) + d ln(alpha_end / alpha_start) + integral of div(z - D) drho

    The classical Runge-Kutta method takes ``steps`` even steps in rho: the error falls with the fourth power.
    x is taken as a point at t_min: the result is the density of the data after that little noise.

    Parameters
    ----------
    denoiser : D(x_t, t), differentiable in x_t (wrap no ``no_grad`` around it).
    x : (B, ...), double precision if you want digits.
    steps : a whole number from 1 on.
    t_min, t_max : ends of the path, 0 <= t_min < t_max <= 1, with some noise at t_min and some signal at t_max.
    log_prior : log density at t_max, (B, ...) -> (B,). The exact log p_t leaves only the solver's error. Left out, that
        of N(0, (alpha_end^2 + sigma_end^2) I), which a sampler starts from: the standard normal where the schedule
        preserves the variance. It adds the prior mismatch log_prior(x_end) - log p_t(x_end).
    probes : None for the exact divergence, d backward passes an evaluation; or K for Hutchinson's estimator, the mean
        of K values of v^T J v with random signs v that are kept along the path (Grathwohl et al., ICLR 2019, eq. 8).
    generator : source of the signs.

    Raises ValueError for steps, ends or probes of other values.
    """
    whole(steps=steps)
    floating(x=x)
    schedule = schedule_of(denoiser)
    if x.ndim < 2:
        raise ValueError(f"x must be (B, ...), got shape {tuple(x.shape)}: one alone is x[None]")
    if not 0 <= t_min < t_max <= 1 or has_no_signal(schedule, t_max) or schedule.sigma(t_min) == 0:
        raise ValueError(
            f"the path needs 0 <= t_min < t_max <= 1, noise at t_min and signal at t_max; got {t_min!r} and {t_max!r}"
        )
    signs = None
    if probes is not None:
        whole(probes=probes)
        signs = torch.randint(2, (probes, *x.shape), generator=generator).to(x) * 2 - 1
    ends = torch.tensor([t_min, t_max], dtype=torch.float64)
    alpha_start, alpha_end = schedule.alpha(ends)
    rho_start, rho_end = -schedule.log_snr(ends) / 2
    h = (rho_end - rho_start) / steps
    grid = schedule.time(-2 * torch.linspace(rho_start, rho_end, 2 * steps + 1, dtype=torch.float64))  # with midpoints
    z, log_det = runge_kutta(lambda z, t: _slope(denoiser, z, t, signs), x / alpha_start, grid, h)  # log_det (K, B)
    x_end = alpha_end * z
    volume = x[0].numel() * torch.log(alpha_end / alpha_start)
    error = log_det.std(0) / probes**0.5 if probes is not None and probes > 1 else None
    spread = alpha_end**2 + schedule.sigma(ends)[1] ** 2
    end = _centred_normal(x_end, spread) if log_prior is None else log_prior(x_end)
    return OdeLikelihood(end + volume + log_det.mean(0), x_end, log_det.mean(0), error)


def runge_kutta(slope, x, grid, h):
    """The classical Runge-Kutta method for dx/du = f, and the integral of a second function g along the path.

    slope(x, u) gives f, the shape of x, and g, of any shape; grid (2 n + 1,): the values of u at the ends and in the
    middle of n steps of length h. Returns x at the last of them, and the integral.
    """
    integral = 0.0
    for u, middle, end in zip(grid[:-2:2], grid[1::2], grid[2::2]):
        f1, g1 = slope(x, u)
        f2, g2 = slope(x + h / 2 * f1, middle)
        f3, g3 = slope(x + h / 2 * f2, middle)
        f4, g4 = slope(x + h * f3, end)
        x = x + h / 6 * (f1 + 2 * f2 + 2 * f3 + f4)
        integral = integral + h / 6 * (g1 + 2 * g2 + 2 * g3 + g4)
    return x, integral


def _slope(denoiser, z, t, signs):
    """dz/drho = z - D(alpha z, t), and its divergence (K, B): exact in one row (K = 1), or one row a probe."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        x_0 = denoiser(denoiser.schedule.alpha(t).to(z) * z, t)
        differentiable(x_0)
        slope = z - x_0
        if signs is None:
            flat, divergence = slope.flatten(1), 0.0
            for i in range(flat.shape[1]):
                (row,) = torch.autograd.grad(flat[:, i].sum(), z, retain_graph=True)
                divergence = divergence + row.flatten(1)[:, i]
            return slope.detach(), divergence.detach()[None]
        products = [torch.autograd.grad(slope, z, v, retain_graph=True)[0] * v for v in signs]
    return slope.detach(), torch.stack([product.flatten(1).sum(1) for product in products])
