"""Inverse problems with an unconditional prior: a denoiser and an operator make a new denoiser, or a new step.

=============  =====================  ==========================================================================
name           makes                  source
=============  =====================  ==========================================================================
replacement    a step                 Song et al. (ICLR 2021), sec. 5 and app. I.2: known pixels are overwritten
repaint_times  a grid that turns back Lugmayr et al. (CVPR 2022), Algorithm 1 and sec. 4.2
ddnm           a denoiser             Wang et al. (ICLR 2023), eq. 13
=============  =====================  ==========================================================================

    A = Mask(known)
    step = replacement(A, A(x_true))
    x = last(sample(denoiser, schedule, noise, uniform_times(50), step))                                 # replacement
    x = last(sample(denoiser, schedule, noise, repaint_times(uniform_times(50), rounds=10), step))       # RePaint
    x = last(sample(ddnm(denoiser, A, A(x_true)), schedule, noise, uniform_times(50), ddpm_step))        # DDNM

Letters: y = A x_0 is the measurement, A^+ the pseudo-inverse. None of them needs training, none knows the network.
"""

import torch

from course_lib.samplers import ddpm_step, noise_like


def renoise(x_s, s, t, schedule, generator=None):
    """The forward process from s to a later t > s: x_t = alpha_ts x_s + sqrt(sigma_t^2 - alpha_ts^2 sigma_s^2) z.

    alpha_ts = alpha_t / alpha_s. x_s (B, ...); returns x_t of its shape.
    """
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

    def replaced(denoiser, x_t, t, s, schedule, previous=None, generator=None):
        if s > t:
            return renoise(x_t, t, s, schedule, generator), None if previous is None else previous[1]
        x_s, x_0 = step(denoiser, x_t, t, s, schedule, generator=generator)
        known = schedule.alpha(s) * y.to(x_s) + schedule.sigma(s) * noise_like(x_s, generator)
        return mask(known) + (x_s - mask(x_s)), x_0

    return replaced


def repaint_times(times, rounds=10, jump=1):
    """A grid of times that turns back: each stretch of ``jump`` steps is walked down ``rounds`` times, up in one go.

    With times a, b, c, rounds 2 and jump 1: a, b, a, b, c, b, c. Going up is one draw of noise, however far. A
    sampler evaluates the denoiser ``rounds`` (n - 1) times on n times. Lugmayr et al. use rounds 10 (their r) and
    stretches of 10 of 250 steps (their j); unlike them, the stretch that ends at t = 0 is repeated too.

    times (n,), falling. Returns a tensor of the same type. Raises ValueError if rounds or jump is below 1.
    """
    if rounds < 1 or jump < 1:
        raise ValueError(f"rounds and jump are whole numbers from 1 on; got {rounds!r} and {jump!r}")
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

    denoiser : D(x_t, t) -> (B, ...); operator : one of :mod:`course_lib.operators`; y : what it measured.
    """
    fitted = operator.pinv(y)

    def consistent(x_t, t, **cond):
        x_0 = denoiser(x_t, t, **cond)
        return fitted.to(x_0) + (x_0 - operator.pinv(operator(x_0)))

    return consistent
