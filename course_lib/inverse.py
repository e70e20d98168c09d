"""Inverse problems with an unconditional prior: a denoiser and an operator make a new denoiser, or a new step.

=============  ======================  ==========================================================================
name           makes                   source
=============  ======================  ==========================================================================
replacement    a step                  Song et al. (ICLR 2021), sec. 5 and app. I.2: known pixels are overwritten
repaint_times  a grid that turns back  Lugmayr et al. (CVPR 2022), Algorithm 1 and sec. 4.2
ddnm           a denoiser              Wang et al. (ICLR 2023), eq. 13
dps            a denoiser              Chung et al. (ICLR 2023), sec. 3.2, with sigma_y taken at its word
dps_step       a step                  Chung et al. (ICLR 2023), Algorithm 1, with a step size that is tuned
pigdm          a denoiser              Song et al. (ICLR 2023), sec. 3
diffpir        a denoiser              Zhu et al. (CVPRW 2023), Algorithm 1, the data step
diffpir_step   a step                  Zhu et al. (CVPRW 2023), Algorithm 1, the way to s
tv             an image, no prior      Rudin et al. (1992), by FISTA (Beck & Teboulle, 2009)
=============  ======================  ==========================================================================

    A = Mask(known)
    step = replacement(A, A(x_true))
    x = sample(denoiser, eps, uniform_times(50), step)                                   # replacement
    x = sample(denoiser, eps, repaint_times(uniform_times(50), rounds=10), step)         # RePaint
    x = sample(ddnm(denoiser, A, A(x_true)), eps, uniform_times(50), ddpm_step)          # DDNM
    x = sample(denoiser, eps, uniform_times(50), dps_step(A, y, scale=0.5))              # DPS
    x = sample(pigdm(denoiser, A, y, sigma_y), eps, log_snr_times(schedule, 20))         # PiGDM
    x = sample(diffpir(denoiser, A, y, sigma_y), eps, uniform_times(20), diffpir_step)   # DiffPIR

Letters: eps is the noise at t = 1, y = A x_0 + n the measurement, A^+ the pseudo-inverse, sigma_y the standard
deviation of n (the argument ``noise``), which is white and Gaussian; where y is complex, of its real and of its
imaginary part. D = D(x_t, t). Where alpha_t = 0, PiGDM and DiffPIR have limits, and take them. None needs
training, none knows the network. dps, dps_step and pigdm differentiate the denoiser, at about three times the cost;
give them one that does not clip its answer, since a clipped pixel has no gradient.
"""

import math

import torch

from course_lib.arguments import alike, differentiable, floating, positive, shaped, whole, within
from course_lib.denoisers import FunctionDenoiser
from course_lib.operators import Mask, conjugate_gradients, operator_norm, require
from course_lib.predictions import eps_from_x0
from course_lib.samplers import ddpm_step, falls, noise_like
from course_lib.schedules import has_no_signal, schedule_of


def renoise(x_s, s, t, schedule, generator=None):
    """The forward process from s to a later t > s: x_t = alpha_ts x_s + sqrt(sigma_t^2 - alpha_ts^2 sigma_s^2) z.

    alpha_ts = alpha_t / alpha_s. x_s (B, ...); returns x_t of its shape. Raises ValueError unless s < t.
    """
    falls(t, s)
    alpha_ts = schedule.alpha(t) / schedule.alpha(s)
    var_ts = schedule.sigma(t) ** 2 - alpha_ts**2 * schedule.sigma(s) ** 2
    return alpha_ts * x_s + var_ts.sqrt() * noise_like(x_s, generator)


def replacement(mask, y, step=ddpm_step):
    """A step that knows part of the image: after ``step``, known pixels are overwritten by y noised to the level of s.

        x_s <- m (alpha_s y + sigma_s z) + (1 - m) x_s,    z fresh standard normal noise

    On a grid that turns back (:func:`repaint_times`), a step to a later time adds noise instead (:func:`renoise`).

    mask : :class:`~course_lib.operators.Mask`; y : known values, broadcast against x_t; what stands in the hole is
    ignored. step : the step for the unknown pixels, one of :mod:`course_lib.samplers` or a partial of it; not one that
    needs ``previous`` (2M), whose past the overwriting makes untrue.
    """

    def replaced(denoiser, x_t, t, s, previous=None, generator=None):
        schedule = schedule_of(denoiser)
        if s > t:
            return renoise(x_t, t, s, schedule, generator), None if previous is None else previous.x_0
        x_s, x_0 = step(denoiser, x_t, t, s, generator=generator)
        known = schedule.alpha(s) * y.to(x_s) + schedule.sigma(s) * noise_like(x_s, generator)
        return mask(known) + (x_s - mask(x_s)), x_0

    return replaced


def repaint_times(times, rounds=10, jump=1):
    """A grid of times that turns back: each stretch of ``jump`` steps is walked down ``rounds`` times, up in one go.

    With times a, b, c, rounds 2 and jump 1: a, b, a, b, c, b, c. Going up is one draw of noise, however far. A
    sampler evaluates the denoiser ``rounds`` (n - 1) times on n times. Lugmayr et al. use rounds 10 (their r) and
    stretches of 10 of 250 steps (their j); unlike them, the stretch that ends at t = 0 is repeated too.

    times (n,), falling. Returns a tensor of the same type. Raises ValueError if they do not fall, or if rounds or jump
    is below 1.
    """
    whole(rounds=rounds, jump=jump)
    floating(times=times)
    shaped("n", times=times)
    if not (times.diff() < 0).all():
        raise ValueError("times must fall, as uniform_times(50) does: turning back is what repaint_times adds")
    walk = [times[:1]]
    for start in range(0, len(times) - 1, jump):
        down = times[start + 1 : start + 1 + jump]
        again = torch.cat([times[start : start + 1], down])
        walk += [down] + [again] * (rounds - 1)
    return torch.cat(walk)


def ddnm(denoiser, operator, y):
    """A denoiser whose answers fit the measurement: D'(x_t, t) = A^+ y + (I - A^+ A) D(x_t, t).

    What A sees is taken from y, the rest (the null space of A) from the prior; so A D' = A A^+ y, which is y itself for
    a measurement without noise. Use it where y has none: with noise it reproduces the noise.

    denoiser : D(x_t, t) -> (B, ...); operator : one of :mod:`course_lib.operators`, or another with a ``pinv``; y :
    what it measured. Raises ValueError for an operator without one.
    """
    require(operator, "ddnm", "pinv")
    schedule, fitted = schedule_of(denoiser), operator.pinv(y)

    def consistent(x_t, t, **cond):
        x_0 = denoiser(x_t, t, **cond)
        return fitted.to(x_0) + (x_0 - operator.pinv(operator(x_0)))

    return FunctionDenoiser(consistent, schedule)


def _with_gradient(denoiser, x_t, t, cond):
    """D(x_t, t), and a function that gives J^T v for v of its shape, J the derivative of D with respect to x_t."""
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        x_0 = denoiser(x, t, **cond)
    differentiable(x_0)

    def transposed(v):
        return torch.autograd.grad(x_0, x, v.to(x_0))[0]

    return x_0.detach(), transposed


def _rest(operator, y, x_0):
    """y - A x_0, on the device of x_0. Raises ValueError for a y that A does not measure."""
    y, seen = y.to(x_0.device), operator(x_0)
    try:
        return y.expand_as(seen) - seen
    except RuntimeError:
        raise ValueError(
            f"y must have the shape of what the operator measures, {tuple(seen.shape)}; got {tuple(y.shape)}"
        ) from None


def _fit(operator, y, weight):
    """(A^T A + weight I)^-1 A^T y, by the operator's own ``fit`` or ``solve``, or by conjugate gradients."""
    if hasattr(operator, "fit"):
        return operator.fit(y, weight)
    b = operator.adjoint(y)
    if hasattr(operator, "solve"):
        return operator.solve(b, weight)
    return conjugate_gradients(lambda x: operator.adjoint(operator(x)) + weight * x, b, 100)


def _noisy(noise):
    if not noise > 0:
        raise ValueError(f"noise must be positive, got {noise!r}; for a measurement without noise use ddnm")


def _one_time(t):
    if torch.as_tensor(t).numel() != 1:
        raise ValueError(f"t must be one time for the whole batch, got {tuple(t.shape)}: pass it as a number")


def dps(denoiser, operator, y, noise):
    """Diffusion posterior sampling as a denoiser: D + (sigma_t^2 / alpha_t) J^T A^T (y - A D) / sigma_y^2.

    The gradient of log p(y | x_t), if x_0 were known to be D: the covariance of x_0 given x_t is left out. So it is
    :func:`pigdm` with r_t = 0. It trusts the measurement too much, and with strong data (A^T A / sigma_y^2 large) needs
    very many steps; on images use :func:`dps_step`. noise : sigma_y > 0. Raises ValueError otherwise, and where
    alpha_t = 0: start a little later, as log_snr_times does. It asks for one t for the whole batch.
    """
    schedule = schedule_of(denoiser)
    require(operator, "dps", "adjoint")
    _noisy(noise)

    def guided(x_t, t, **cond):
        _one_time(t)
        if has_no_signal(schedule, t):
            raise ValueError(f"no signal at t = {float(t):g}: DPS starts a little later, as log_snr_times does")
        x_0, transposed = _with_gradient(denoiser, x_t, t, cond)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return x_0 + (sigma**2 / alpha).to(x_0) * transposed(operator.adjoint(_rest(operator, y, x_0))) / noise**2

    return FunctionDenoiser(guided, schedule)


def _norms(y, ndim):
    """The norm of each of y (B, ...), in a tensor (B, 1, ..., 1) of that many dimensions."""
    return y.abs().square().flatten(1).sum(1).sqrt().reshape(-1, *[1] * (ndim - 1))


def dps_step(operator, y, scale, step=ddpm_step):
    """Diffusion posterior sampling as published: after ``step``, x_s <- x_s - scale grad ||y - A D(x_t, t)||.

    The norm is that of each image, its gradient is with respect to x_t; it is 0 where y = A D up to rounding. ``scale``
    (zeta' of the paper) stands for all that :func:`dps` leaves out, and is tuned: 0 or more, or ValueError. Steps that
    need ``previous`` (2M) are not meant.
    """
    require(operator, "dps_step", "adjoint")
    if not scale >= 0:
        raise ValueError(f"scale must be 0 or more, got {scale!r}: a step below 0 leaves the measurement")

    if isinstance(operator, Mask):
        y = operator(y)  # what stands in the hole was not measured, and has no part in the norm

    def guided(denoiser, x_t, t, s, previous=None, generator=None):
        x_0, transposed = _with_gradient(denoiser, x_t, t, {})
        rest = _rest(operator, y, x_0)
        size, measured = (_norms(v, x_t.ndim).to(x_0) for v in (rest, y))
        met = size <= 10 * torch.finfo(x_0.dtype).eps * measured
        uphill = torch.where(met, 0.0, transposed(operator.adjoint(rest)) / torch.where(met, 1.0, size))
        # what was asked need not be asked again; a step of two evaluations asks for more
        asked = FunctionDenoiser(lambda x, u: x_0 if x is x_t else denoiser(x, u), schedule_of(denoiser))
        x_s, _ = step(asked, x_t, t, s, generator=generator)
        return x_s + scale * uphill.to(x_s), x_0

    return guided


def pigdm(denoiser, operator, y, noise, spread=1.0):
    """Pseudo-inverse guidance: D + (sigma_t^2 / alpha_t) J^T A^T (r_t^2 A A^T + sigma_y^2 I)^-1 (y - A D).

    The gradient of log p(y | x_t) if x_0 given x_t were N(D, r_t^2 I) with r_t^2 = c^2 sigma_t^2 / (c^2 alpha_t^2 +
    sigma_t^2), which is its variance for data N(0, c^2 I); the paper has c = 1. Exact for such data. Where alpha_t = 0
    J is zero too, and (sigma_t^2 / alpha_t) J^T, the covariance of x_0 given x_t, is taken at the same word: r_t^2 I.

    Without noise at t it is D.

    noise : sigma_y > 0. spread : c > 0. Raises ValueError otherwise, and unless there is one t for the whole batch.
    """
    schedule = schedule_of(denoiser)
    require(operator, "pigdm", "adjoint")
    _noisy(noise)
    positive(spread=spread)

    def guided(x_t, t, **cond):
        _one_time(t)
        x_0, transposed = _with_gradient(denoiser, x_t, t, cond)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        r2 = float(spread**2 * sigma**2 / (spread**2 * alpha**2 + sigma**2))
        if r2 == 0:
            return x_0
        # A^T (r2 A A^T + sigma_y^2 I)^-1 = (A^T A + (sigma_y^2 / r2) I)^-1 A^T / r2
        pull = _fit(operator, _rest(operator, y, x_0), noise**2 / r2) / r2
        if has_no_signal(schedule, t):
            return x_0 + r2 * pull.to(x_0)
        return x_0 + (sigma**2 / alpha).to(x_0) * transposed(pull)

    return FunctionDenoiser(guided, schedule)


def diffpir(denoiser, operator, y, noise, weight=1.0):
    """Half of the splitting of DiffPIR, a denoiser without gradients: the image that fits both y and D best,

        argmin_x ||y - A x||^2 + rho ||x - D||^2 = (A^T A + rho I)^-1 (A^T y + rho D),
        rho = weight sigma_y^2 alpha_t^2 / sigma_t^2

    That is the posterior mean if x_0 given x_t were N(D, sigma_t^2 / (weight alpha_t^2) I). Where alpha_t = 0 it is the
    limit for rho -> 0, D + A^+ (y - A D): of all images that fit y best, the nearest to D. Where sigma_t = 0 it is D.

    noise : sigma_y > 0. weight : lambda of the paper, > 0. Raises ValueError otherwise, and unless there is one t for
    the whole batch.
    """
    schedule = schedule_of(denoiser)
    require(operator, "diffpir", "adjoint")
    _noisy(noise)
    positive(weight=weight)

    def fitted(x_t, t, **cond):
        _one_time(t)
        x_0 = denoiser(x_t, t, **cond)
        if has_no_signal(schedule, t):
            require(operator, "diffpir at t = 1", "pinv")
            return x_0 + operator.pinv(_rest(operator, y, x_0)).to(x_0)
        rho = float(weight * noise**2 * schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2)
        if math.isinf(rho):
            return x_0
        # the same, written as a change of D: float rounding then scales with what changes
        return x_0 + _fit(operator, _rest(operator, y, x_0), rho).to(x_0)

    return FunctionDenoiser(fitted, schedule)


def diffpir_step(denoiser, x_t, t, s, previous=None, generator=None, zeta=0.3):
    """The other half: x_s = alpha_s D + sigma_s (sqrt(1 - zeta) eps + sqrt(zeta) z), eps = (x_t - alpha_t D) / sigma_t.

    zeta from 0 (DDIM) to 1: the share of the noise that is drawn anew. Raises ValueError for any other, and unless
    s < t.
    """
    within(0, 1, zeta=zeta)
    falls(t, s)
    schedule, x_0 = schedule_of(denoiser), denoiser(x_t, t)
    eps = eps_from_x0(x_t, x_0, schedule.alpha(t), schedule.sigma(t))
    noise = (1 - zeta) ** 0.5 * eps + zeta**0.5 * noise_like(x_t, generator)
    return schedule.alpha(s) * x_0 + schedule.sigma(s) * noise, x_0


def tv(operator, y, weight, iterations=60, start=None):
    """argmin_x ||y - A x||^2 / 2 + weight TV(x): no network, the classical reconstruction of images that are piecewise
    flat. x (B, C, H, W).

    FISTA: a gradient step of length 1/L, with L the largest eigenvalue of A^T A by power iteration, then scikit-image's
    ``denoise_tv_chambolle`` (isotropic TV) of strength weight / L. start : of the shape of x; left out, A^T y / L.
    Raises ValueError for other shapes, for an A that is 0, and unless weight is positive and iterations a whole number
    from 1 on.
    """
    require(operator, "tv", "adjoint")
    positive(weight=weight)
    whole(iterations=iterations)
    from skimage.restoration import denoise_tv_chambolle

    back = operator.adjoint(y)
    shaped("B, C, H, W", **{"A^T y": back})
    if start is not None:
        alike(start=start, **{"A^T y": back})
    noise = torch.randn(back.shape, generator=torch.Generator().manual_seed(0)).to(back)
    L = 1.02 * operator_norm(operator, noise) ** 2  # which comes from below
    if not L > 0:
        raise ValueError("operator must see something, but A is 0 for random images")

    def shrink(x):
        images = x.flatten(0, 1).cpu().numpy()
        flat = [denoise_tv_chambolle(image, weight / L, eps=1e-5, max_num_iter=40) for image in images]
        return torch.stack([torch.as_tensor(image) for image in flat]).reshape(x.shape).to(x)

    x = z = back / L if start is None else start
    momentum = 1.0
    for _ in range(iterations):
        new = shrink(z - (operator.adjoint(operator(z)) - back) / L)
        after = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        z = new + (momentum - 1) / after * (new - x)
        x, momentum = new, after
    return x
