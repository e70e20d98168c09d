"""Samplers: from x_t at time t to x_s at an earlier time s. One loop, :func:`trajectory`, serves them all;
:func:`sample` gives its last image.

=====================  ===========  =====  ====================================================
step                   randomness   order  source
=====================  ===========  =====  ====================================================
ddpm_step              yes          1      Ho et al. (NeurIPS 2020), eq. 6 and 7, for any t > s
ddim_step              eta          1      Song et al. (ICLR 2021), eq. 12
euler_step             none         1      Karras et al. (NeurIPS 2022), Algorithm 1 without lines 6 to 8
heun_step              none         2      Karras et al. (NeurIPS 2022), Algorithm 1
dpmpp_2m_step          none         2      Lu et al. (2022), DPM-Solver++, Algorithm 2
consistency_step       yes          -      Song et al. (ICML 2023), Algorithm 1; for few-step students
meanflow_step          none         -      Geng et al. (NeurIPS 2025); for mean velocities
bridge_step            yes          1      Liu et al. (ICML 2023); from an image to an image
unmask_step            yes          1      Sahoo et al. (NeurIPS 2024); for labels
=====================  ===========  =====  ====================================================

Every step, one's own too, is a function

    step(denoiser, x_t, t, s, previous=None, generator=None) -> (x_s, x_0)

x_t (B, ...) is the state at t, t and s are scalars, floats or 0-d tensors (float64 keeps more digits). It returns two
tensors of the shape of x_t: x_s, the state at s, and x_0, the denoised image D(x_t, t), or None where it asked for
none. ``previous`` is None in the first step, and else the :class:`Previous` of the step before: its time, its denoised
image, and the x_t that it started from. The generator, from which all noise is drawn, lives on the CPU. The schedule is
``schedule_of(denoiser)``. The loop checks what a step returns; a step that cannot be made raises ValueError.

Of the steps here: where s has no noise, every one returns D, but unmask_step labels drawn from it. Random steps go
down, from t to s < t, and so does meanflow_step. The others go up as well, which encodes an image in noise, from a t
that has some. The order is that of the global error on a smooth problem.
"""

from dataclasses import dataclass

import torch

from course_lib.arguments import floating, one_of, within
from course_lib.predictions import eps_from_x0
from course_lib.schedules import BrownianBridge, RectifiedFlow, has_no_signal, schedule_of


def noise_like(x, generator):
    """Standard normal noise of the shape, dtype and device of x, drawn on the CPU. Raises ValueError unless x is a
    tensor of floats and generator a ``torch.Generator`` or None."""
    floating(x=x)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise ValueError(f"generator must be a torch.Generator, as runtime.seeded(0) makes, got {generator!r}")
    return torch.randn(x.shape, dtype=x.dtype, generator=generator).to(x.device)


def falls(t, s):
    """Raises ValueError unless s < t, for scalars or tensors of one shape: the way of every random step, and of
    MeanFlow's."""
    if not torch.as_tensor(s < t).all():
        raise ValueError("this step goes down, from a time t to an earlier s < t: let the times fall, as from 1 to 0")


def _has_signal(schedule, t):
    if has_no_signal(schedule, t):
        raise ValueError(f"no signal at t = {float(t):g}: this step keeps a little below it, as log_snr_times does")


def _has_noise(schedule, t):
    if schedule.sigma(t) == 0:
        raise ValueError(
            f"no noise at t = {float(t):g}: a step starts from a t with some; up from an image, a little above"
        )


def _schedule_of(denoiser, kind):
    """The schedule of a denoiser. Raises ValueError unless it is of that kind."""
    schedule = schedule_of(denoiser)
    if not isinstance(schedule, kind):
        raise ValueError(f"denoiser must be of the schedule {kind.__name__}, got {type(schedule).__name__}")
    return schedule


def reverse_moments(schedule, t, s):
    """The step back from t to s < t when x_0 is known: q(x_s | x_t, x_0) = N(a x_t + b x_0, small I).

    With alpha_ts = alpha_t / alpha_s and large = sigma_t^2 - alpha_ts^2 sigma_s^2, the variance of the forward step:

        a = alpha_ts sigma_s^2 / sigma_t^2,   b = alpha_s large / sigma_t^2,   small = large sigma_s^2 / sigma_t^2

    Kingma et al. (NeurIPS 2021), eq. 25 and 26; for neighbours in a table, Ho et al. (NeurIPS 2020), eq. 7.
    Returns (a, b, small, large), scalars, or of the shape of t and s. Without noise at s: a = 0, b = 1, small = 0.
    Raises ValueError unless s < t, and where there is no noise at t.
    """
    falls(t, s)
    alpha_t, alpha_s, var_t, var_s = (
        schedule.alpha(t),
        schedule.alpha(s),
        schedule.sigma(t) ** 2,
        schedule.sigma(s) ** 2,
    )
    if (torch.as_tensor(var_t) == 0).any():
        raise ValueError("no noise at t: a step back starts from a t with some; that of a bridge is bridge_step")
    alpha_ts = alpha_t / alpha_s
    large = var_t - alpha_ts**2 * var_s
    return alpha_ts * var_s / var_t, alpha_s * large / var_t, large * var_s / var_t, large


def ddpm_step(denoiser, x_t, t, s, previous=None, generator=None, variance="small"):
    """Ancestral sampling: x_s ~ q(x_s | x_t, x_0 = D(x_t, t)), right for any t > s, neighbours in a table or not.

    With alpha_ts = alpha_t / alpha_s and sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2 (Kingma et al., 2021, eq. 24
    to 26):

        mean = (alpha_ts sigma_s^2 x_t + alpha_s sigma_ts^2 D) / sigma_t^2
        variance "small": sigma_ts^2 sigma_s^2 / sigma_t^2, the posterior's;  "large": sigma_ts^2
    """
    schedule = schedule_of(denoiser)
    one_of(("small", "large"), variance=variance)
    x_0 = denoiser(x_t, t)
    a, b, small, large = reverse_moments(schedule, t, s)
    mean, var = a * x_t + b * x_0, small if variance == "small" else large
    return (mean + var.sqrt() * noise_like(x_t, generator) if schedule.sigma(s) > 0 else mean), x_0


def ddim_step(denoiser, x_t, t, s, previous=None, generator=None, eta=0.0):
    """DDIM: x_s = alpha_s D + sqrt(sigma_s^2 - sigma_eta^2) eps + sigma_eta z, with eps = (x_t - alpha_t D) / sigma_t.

    sigma_eta = eta * the standard deviation of :func:`ddpm_step` ("small"), so that eta = 0 is deterministic and eta
    = 1 is DDPM. Raises ValueError for eta outside [0, 1]: above 1 it adds more noise than the posterior has, and from
    some eta on more than sigma_s.
    """
    schedule = schedule_of(denoiser)
    within(0, 1, eta=eta)
    x_0 = denoiser(x_t, t)
    alpha_t, alpha_s, sigma_t, sigma_s = schedule.alpha(t), schedule.alpha(s), schedule.sigma(t), schedule.sigma(s)
    eps = eps_from_x0(x_t, x_0, alpha_t, sigma_t)
    if eta == 0:
        return alpha_s * x_0 + sigma_s * eps, x_0
    var_eta = eta**2 * reverse_moments(schedule, t, s)[2]
    left = (sigma_s**2 - var_eta).clamp(min=0)  # rounding may take it below
    x_s = alpha_s * x_0 + left.sqrt() * eps
    return x_s + var_eta.sqrt() * noise_like(x_t, generator), x_0


def euler_step(denoiser, x_t, t, s, previous=None, generator=None):
    """Euler's method for the probability-flow ODE in the coordinates z = x_t / alpha_t, r = sigma_t / alpha_t.

    dz/dr = (z - D) / r, so that z_s = z_t + (r_s - r_t) (z_t - D) / r_t. Equal to DDIM with eta = 0. Raises
    ValueError where alpha_t = 0, since z is not defined there.
    """
    schedule = schedule_of(denoiser)
    _has_signal(schedule, t)
    _has_signal(schedule, s)
    _has_noise(schedule, t)
    x_0 = denoiser(x_t, t)
    alpha_s = schedule.alpha(s)
    r_t, r_s = schedule.sigma(t) / schedule.alpha(t), schedule.sigma(s) / alpha_s
    z_t = x_t / schedule.alpha(t)
    return alpha_s * (z_t + (r_s - r_t) * (z_t - x_0) / r_t), x_0


def heun_step(denoiser, x_t, t, s, previous=None, generator=None):
    """Heun's method in the coordinates of :func:`euler_step`: the slope is the mean of those at t and at Euler's
    guess for s.

    Two evaluations a step, but one where s has no noise: there the slope is not defined, and the step is Euler's.
    """
    schedule = schedule_of(denoiser)
    x_s, x_0 = euler_step(denoiser, x_t, t, s)
    if schedule.sigma(s) == 0:
        return x_s, x_0
    alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
    r_t, r_s = schedule.sigma(t) / alpha_t, schedule.sigma(s) / alpha_s
    z_t, z_s = x_t / alpha_t, x_s / alpha_s
    slope_t, slope_s = (z_t - x_0) / r_t, (z_s - denoiser(x_s, s)) / r_s
    return alpha_s * (z_t + (r_s - r_t) * (slope_t + slope_s) / 2), x_0


def dpmpp_2m_step(denoiser, x_t, t, s, previous=None, generator=None):
    """DPM-Solver++(2M): one evaluation a step; D is extrapolated in lambda from the step before.

    With h = (lambda_s - lambda_t) / 2 (the paper's lambda is half of ours) and q = h_previous / h:

        D' = (1 + 1 / (2 q)) D(x_t, t) - 1 / (2 q) D_previous
        x_s = (sigma_s / sigma_t) x_t - alpha_s (exp(-h) - 1) D'

    The first step, and the last one to s without noise, where lambda is infinite, are of first order (DDIM).
    """
    schedule = schedule_of(denoiser)
    _has_signal(schedule, s)
    _has_noise(schedule, t)
    x_0 = denoiser(x_t, t)
    alpha_t, alpha_s, sigma_t, sigma_s = schedule.alpha(t), schedule.alpha(s), schedule.sigma(t), schedule.sigma(s)
    exp_minus_h = alpha_t * sigma_s / (alpha_s * sigma_t)
    x_0_prime = x_0
    if previous is not None and sigma_s > 0:
        t_previous, x_0_previous = previous
        lambda_t = schedule.log_snr(t)
        q = (lambda_t - schedule.log_snr(t_previous)) / (schedule.log_snr(s) - lambda_t)
        x_0_prime = x_0 + (x_0 - x_0_previous) / (2 * q)
    return (sigma_s / sigma_t) * x_t - alpha_s * (exp_minus_h - 1) * x_0_prime, x_0


def consistency_step(denoiser, x_t, t, s, previous=None, generator=None):
    """Multistep consistency sampling: x_s = alpha_s f(x_t, t) + sigma_s z, with fresh noise z.

    For a ``denoiser`` that is a student's f(x_t, t), the end of the path through x_t: an image, where D is a mean.
    """
    schedule = schedule_of(denoiser)
    falls(t, s)
    x_0 = denoiser(x_t, t)
    return schedule.alpha(s) * x_0 + schedule.sigma(s) * noise_like(x_t, generator), x_0


def meanflow_step(denoiser, x_t, t, s, previous=None, generator=None):
    """MeanFlow: x_s = x_t - (t - s) u(x_t, s, t), the end at s of the path through x_t, however far it is.

    For a ``denoiser`` of the schedule ``RectifiedFlow`` that is told where the step ends, and answers x_t - t u, where
    a mean velocity u that held on to 0 would lead; for s = 0, the end of the path. With that in place of D, DDIM's
    step. Geng et al. (NeurIPS 2025).
    """
    schedule = _schedule_of(denoiser, RectifiedFlow)
    falls(t, s)
    x_0 = denoiser(x_t, t, s=s)
    eps = eps_from_x0(x_t, x_0, schedule.alpha(t), schedule.sigma(t))
    return schedule.alpha(s) * x_0 + schedule.sigma(s) * eps, x_0


def bridge_step(denoiser, x_t, t, s, previous=None, generator=None):
    """One step of a bridge: x_s = (s / t) x_t + (1 - s / t) D + std sqrt(s (t - s) / t) z, the law of a Brownian bridge
    between D at 0 and x_t at t.

    For a ``denoiser`` of the schedule :class:`~course_lib.schedules.BrownianBridge`; the walk begins at t = 1 with the
    image y itself. It is :func:`ddpm_step` for x_t - t y, which does not depend on y; so y is not asked for. Liu et
    al., I2SB (ICML 2023).
    """
    schedule = _schedule_of(denoiser, BrownianBridge)
    falls(t, s)
    x_0, left = denoiser(x_t, t), s / t
    std = schedule.std * (s * (1 - left)) ** 0.5
    return left * x_t + (1 - left) * x_0 + std * noise_like(x_t, generator), x_0


def unmask_step(denoiser, x_t, t, s, previous=None, generator=None):
    """One step of masked diffusion: of the places that are hidden at t each is shown with probability (alpha_s -
    alpha_t) / (1 - alpha_t), as a label drawn from D there, all independently of each other.

    x_t (B, K + 1, ...) is 1 in the channel of each place's label, or in the last one where it is hidden; D has the
    probabilities of the labels, E[x_0 | x_t]. alpha_t is the share that is shown at t. Sahoo et al., Simple and
    effective masked diffusion language models (NeurIPS 2024).
    """
    schedule = schedule_of(denoiser)
    falls(t, s)
    x_0 = denoiser(x_t, t)
    chance = (schedule.alpha(s) - schedule.alpha(t)) / (1 - schedule.alpha(t))
    uniform = torch.rand(2, *x_t[:, :1].shape, generator=generator).to(x_t.device)
    p = x_0.to(torch.promote_types(x_0.dtype, torch.float32))  # in half precision uniform numbers round to 1
    label = (p.cumsum(1) <= uniform[0] * p.sum(1, keepdim=True)).sum(1).clamp(max=x_t.shape[1] - 2)
    drawn = torch.nn.functional.one_hot(label, x_t.shape[1]).movedim(-1, 1).to(x_t)
    shown = (x_t[:, -1:] == 1) & (uniform[1] < chance)
    return torch.where(shown, drawn, x_t), x_0


STEPS = {
    "ddpm": ddpm_step,
    "ddim": ddim_step,
    "euler": euler_step,
    "heun": heun_step,
    "dpmpp_2m": dpmpp_2m_step,
}


@dataclass(frozen=True)
class Previous:
    """The step before, as a multistep method needs it: its time t, the denoised image x_0 = D(x_t, t), and the noisy
    x_t. As a sequence it is the pair (t, x_0): ``t_previous, x_0_previous = previous``, ``previous[0]``."""

    t: torch.Tensor
    x_0: torch.Tensor | None
    x_t: torch.Tensor

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (self.t, self.x_0)[index]


@dataclass(frozen=True)
class State:
    """One state of a sampling run: its time t, the noisy x_t, and the denoised image of the step that led here (or
    None)."""

    t: torch.Tensor
    x_t: torch.Tensor
    x_0: torch.Tensor | None


def _pair(step, returned, x_t):
    """x_s and x_0 as a step returned them. Raises ValueError, naming the step and what was expected, for anything else:
    a tensor of two images would else pass for a pair."""
    if isinstance(returned, (tuple, list)) and len(returned) == 2:
        x_s, x_0 = returned
        if _fits(x_s, x_t) and (x_0 is None or _fits(x_0, x_t)):
            return x_s, x_0
        found = f"({_kind(x_s)}, {_kind(x_0)})"
    else:
        found = _kind(returned)
    name = getattr(getattr(step, "func", step), "__name__", type(step).__name__)  # func: of a partial
    raise ValueError(
        f"{name} must return the pair (x_s, x_0), two tensors of floats of the shape of x_t, {tuple(x_t.shape)}: the "
        f"state at s and the denoised image, or None for the latter; got {found}"
    )


def _fits(value, x_t):
    return torch.is_tensor(value) and value.is_floating_point() and value.shape == x_t.shape


def _kind(value):
    """What a value is, in a few words for an error."""
    if torch.is_tensor(value):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, (tuple, list)) else repr(value)[:60]


def trajectory(denoiser, x_t, times, step=ddim_step, generator=None):
    """The sampling loop: yields a :class:`State` for the start and after each step.

    Parameters
    ----------
    denoiser : D(x_t, t), with its schedule; bind a condition first, ``denoiser.given(y)``.
    x_t : start (B, ...) at times[0]; for times[0] = 1 and a variance-preserving schedule, standard normal noise.
    times : falling times (n + 1,) in [0, 1], such as ``uniform_times(n)``; the last is usually 0. They rise where a
        deterministic step encodes an image, and turn back with :func:`~course_lib.inverse.repaint_times`.
    step : one of this module's steps, or one's own, by the contract at the top of this module; bind its options with
        ``functools.partial(ddim_step, eta=0.5)``.
    generator : source of the noise of the random steps.

    Raises ValueError for times that are no vector or that stand still, for a denoiser without a schedule, and for a
    step that returns something else than (x_s, x_0).
    """
    for name, value in (("denoiser", denoiser), ("step", step)):
        if not callable(value):
            raise ValueError(f"{name} must be a function, as ddim_step is, or a denoiser; got {value!r:.80}")
    schedule_of(denoiser)
    floating(x_t=x_t)
    line = torch.as_tensor(times)
    if line.ndim != 1 or not len(line) or (line.diff() == 0).any():
        raise ValueError("times must be a vector of at least one time, and no time may follow itself")
    previous = None
    yield State(times[0], x_t, None)
    for t, s in zip(times[:-1], times[1:]):
        x_s, x_0 = _pair(step, step(denoiser, x_t, t, s, previous=previous, generator=generator), x_t)
        previous, x_t = Previous(t, x_0, x_t), x_s
        yield State(s, x_t, x_0)


def sample(denoiser, x_t, times, step=ddim_step, generator=None):
    """The image at the last of the times, (B, ...): where the :func:`trajectory` of the same arguments ends.

    A step of one's own is step(denoiser, x_t, t, s, previous=None, generator=None) -> (x_s, x_0), two tensors of the
    shape of x_t: the state at s, and D(x_t, t). ``previous`` is None or the :class:`Previous` of the step before, with
    its t, x_0 and x_t. Raises ValueError as :func:`trajectory`.
    """
    for state in trajectory(denoiser, x_t, times, step, generator):
        pass
    return state.x_t
