"""Exercises of notebook 04: DDIM with eta, DPM-Solver++(2M), evaluations, order, a fault of MONAI's, a call to mend."""

import functools
import inspect
import math
import textwrap

import torch

from course_lib.denoisers import FunctionDenoiser, MixtureDenoiser
from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number, prop
from course_lib.monai_bridge import from_monai
from course_lib.samplers import dpmpp_2m_step, heun_step, sample
from course_lib.schedules import Cosine, uniform_times

DOUBLE = torch.float64
RAMP = torch.linspace(-1, 1, 16, dtype=DOUBLE).reshape(1, 1, 4, 4)
WAVE = torch.sin(7 * RAMP)
ZEROS = torch.zeros_like(RAMP)
ONES = torch.ones_like(RAMP)


# ---- q1: DDIM with eta -----------------------------------------------------------------------------------------------


def ddim(x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s):
    eps = (x_t - alpha_t * x_0) / sigma_t
    var_ts = sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2
    sigma_eta = eta * sigma_s / sigma_t * var_ts**0.5
    return alpha_s * x_0 + (sigma_s**2 - sigma_eta**2) ** 0.5 * eps + sigma_eta * z


def _wrong_level(x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s):
    """The noise is taken from the level of s."""
    return ddim(x_t, x_0, z, eta, alpha_s, sigma_s, alpha_s, sigma_s)


def _alphas_swapped(x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s):
    eps = (x_t - alpha_t * x_0) / sigma_t
    return alpha_t * x_0 + sigma_s * eps


def _ratio_of_alphas(x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s):
    eps = (x_t - alpha_t * x_0) / sigma_t
    sigma_eta = eta * alpha_t / alpha_s * (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) ** 0.5
    return alpha_s * x_0 + (sigma_s**2 - sigma_eta**2) ** 0.5 * eps + sigma_eta * z


def _noisy(fresh, old=lambda e, s, f: (s**2 - (e * f) ** 2) ** 0.5):
    """`ddim` with other factors of z and of eps, as functions of eta, sigma_s and the full standard deviation."""

    def wrong(x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s):
        eps = (x_t - alpha_t * x_0) / sigma_t
        full = sigma_s / sigma_t * (sigma_t**2 - (alpha_t / alpha_s) ** 2 * sigma_s**2) ** 0.5
        return alpha_s * x_0 + old(eta, sigma_s, full) * eps + fresh(eta, sigma_s, full) * z

    return wrong


LEVELS = (0.28, 0.96, 0.6, 0.8)  # alpha_t, sigma_t, alpha_s, sigma_s: no two of them or of their ratios are equal

q1 = function(
    """Write `ddim(x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s)`: the DDIM step from $t$ to $s$, where `x_0` is
    the denoised image and `z` standard normal noise.""",
    solution=ddim,
    tests=[
        case(
            "eta = 0",
            (3 * RAMP, 3 * WAVE, 100 * ONES, 0.0, *LEVELS),
            """At eta = 0 the step is alpha_s x_0 + sigma_s eps, with eps = (x_t - alpha_t x_0) / sigma_t; z plays no
            part, and nothing is clamped. Are t and s in their places?""",
        ),
        case(
            "the fresh noise",
            (ZEROS, ZEROS, ONES, 1.0, *LEVELS),
            """The factor of z is not right. sigma_eta is a standard deviation: eta times the square root of the
            variance of q(x_s | x_t, x_0).""",
        ),
        case(
            "the old noise",
            (ONES, ZEROS, ZEROS, 0.7, *LEVELS),
            """What comes in as fresh noise must go from the old: the factor of eps is sqrt(sigma_s^2 - sigma_eta^2).
            Else x_s has too much noise.""",
        ),
        case(
            "all together",
            (RAMP, WAVE, ONES, 0.5, *LEVELS),
            "eta scales a standard deviation: at eta = 0.5 z gets half of what it gets at eta = 1.",
        ),
    ],
    mistakes=[
        mistake(_wrong_level, "eta = 0"),
        mistake(_alphas_swapped, "eta = 0"),
        mistake(
            _noisy(lambda e, s, f: e * s, lambda e, s, f: (s**2 - (e * s) ** 2) ** 0.5),
            "the fresh noise",
            "eta sigma_s",
        ),
        mistake(
            _noisy(lambda e, s, f: e * f**2, lambda e, s, f: (s**2 - (e * f**2) ** 2) ** 0.5),
            "the fresh noise",
            "a variance for its root",
        ),
        mistake(_noisy(lambda e, s, f: e * f, lambda e, s, f: s), "the old noise", "all of the old noise kept"),
        mistake(_ratio_of_alphas, "the fresh noise", "alphas for sigmas"),
        mistake(_noisy(lambda e, s, f: e**0.5 * f), "all together", "eta scales the variance"),
        mistake(_noisy(lambda e, s, f: e**2 * f), "all together", "eta squared"),
        mistake(_noisy(lambda e, s, f: f), "eta = 0", "noise whatever eta is"),
        mistake(_noisy(lambda e, s, f: e * f, lambda e, s, f: s - e * f), "the old noise", "deviations subtracted"),
        mistake(_noisy(lambda e, s, f: e * f, lambda e, s, f: (1 - (e * f) ** 2) ** 0.5), "eta = 0", "from 1"),
        mistake(lambda *args: ddim(*args).clamp(-1, 1), "eta = 0", "x_s clamped"),
        mistake(lambda x_t, x_0, *others: ddim(x_t, x_0.clamp(-1, 1), *others), "eta = 0", "the image clamped"),
    ],
    also_right=[
        lambda x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s: (
            alpha_s * x_0
            + torch.sqrt(sigma_s**2 - eta**2 * (sigma_s / sigma_t) ** 2 * (1 - (alpha_t / alpha_s) ** 2))
            * (x_t - alpha_t * x_0)
            / sigma_t
            + eta * (sigma_s / sigma_t) * (1 - (alpha_t / alpha_s) ** 2).sqrt() * z
        ),
        lambda x_t, x_0, z, eta, alpha_t, sigma_t, alpha_s, sigma_s: ddim(
            x_t, x_0, z, eta, alpha_t, math.sqrt(1 - alpha_t**2), alpha_s, math.sqrt(1 - alpha_s**2)
        ),
    ],
    hints=[
        "First recover the noise that x_t holds: eps = (x_t - alpha_t x_0) / sigma_t.",
        "sigma_eta = eta * sigma_s / sigma_t * sqrt(sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2).",
        "The two noises together must have variance sigma_s^2.",
    ],
    explanation="""Song et al. (ICLR 2021), eq. 12 and 16. eta = 0 is deterministic, eta = 1 is DDPM;
    every eta has the same distribution of x_s if x_0 is known exactly.""",
)


# ---- q2: DPM-Solver++(2M) --------------------------------------------------------------------------------------------


def two_m_step(denoiser, x_t, t, s, previous=None, generator=None):
    schedule, x_0 = denoiser.schedule, denoiser(x_t, t)
    h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
    x_0_prime = x_0
    if previous is not None and schedule.sigma(s) > 0:
        u, x_0_previous = previous
        q = (schedule.log_snr(t) - schedule.log_snr(u)) / 2 / h
        x_0_prime = x_0 + (x_0 - x_0_previous) / (2 * q)
    x_s = schedule.sigma(s) / schedule.sigma(t) * x_t - schedule.alpha(s) * torch.expm1(-h) * x_0_prime
    return x_s, x_0


def _by_ratios(denoiser, x_t, t, s, previous=None, generator=None):
    """`two_m_step` without logarithms of its own: exp(-h) is a ratio of alpha / sigma."""
    alpha, sigma, x_0 = denoiser.schedule.alpha, denoiser.schedule.sigma, denoiser(x_t, t)
    u, x_0_previous = previous or (2 * t - s, x_0)
    if not sigma(s):
        return alpha(s) * x_0, x_0
    h = torch.log(alpha(s) * sigma(t) / (sigma(s) * alpha(t)))
    r = torch.log(alpha(t) * sigma(u) / (sigma(t) * alpha(u))) / h
    ahead = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * x_0_previous
    return (sigma(s) / sigma(t) * x_t + alpha(s) * (1 - torch.exp(-h)) * ahead, x_0)


def _two_m(weight=lambda q: 1 / (2 * q), factor=1.0):
    """`two_m_step` with its usual mistakes: weight of the last change as a function of q, factor of h."""

    def wrong(denoiser, x_t, t, s, previous=None, generator=None):
        schedule, x_0 = denoiser.schedule, denoiser(x_t, t)
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        u, x_0_previous = previous or (2 * t - s, x_0)  # without a past: no change
        q = (schedule.log_snr(t) - schedule.log_snr(u)) / 2 / h
        x_0_prime = x_0 + (x_0 - x_0_previous) * weight(q)
        x_s = schedule.sigma(s) / schedule.sigma(t) * x_t - schedule.alpha(s) * torch.expm1(-factor * h) * x_0_prime
        return x_s, x_0

    return wrong


def _changed(change):
    """`two_m_step` whose pair is change(x_s, x_0, previous, alpha_t / alpha_s)."""

    def wrong(denoiser, x_t, t, s, previous=None, generator=None):
        ratio = denoiser.schedule.alpha(t) / denoiser.schedule.alpha(s)
        return change(*two_m_step(denoiser, x_t, t, s, previous), previous, ratio)

    return wrong


def _remembering(past):
    """`two_m_step` after another step: past(previous, x_t, t, s)."""
    return lambda denoiser, x_t, t, s, previous, generator: two_m_step(denoiser, x_t, t, s, past(previous, x_t, t, s))


def _zigzag(n):
    """n + 1 falling times whose steps in log-SNR are long and short by turns: there q is 2 and 1/2, never 1."""
    steps = torch.tensor([2.0, 1.0], dtype=DOUBLE).repeat(n // 2)
    position = torch.cat([torch.zeros(1, dtype=DOUBLE), steps.cumsum(0)]) / steps.sum()
    return Cosine().time(-8 + 14 * position)


@functools.cache
def _problem():
    """An exact denoiser, noise, and the images that it leads to."""
    means = torch.tensor([[-1.0, 0.5], [0.8, 0.9], [0.3, -1.0]], dtype=DOUBLE)
    weights, stds = torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE), torch.tensor([0.2, 0.3, 0.25], dtype=DOUBLE)
    denoiser = MixtureDenoiser(weights, means, stds, Cosine())
    noise = torch.randn(64, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    return denoiser, noise, sample(denoiser, noise, _zigzag(800), heun_step)


def slope(answer, steps=(40, 160)):
    """Measured order of a step: by which power of the number of steps the median error falls, on a zigzag grid."""
    denoiser, noise, truth = _problem()

    def step(denoiser, x_t, t, s, previous=None, generator=None):
        return answer(denoiser, x_t, t, s, previous, generator)

    errors = [(sample(denoiser, noise, _zigzag(n), step) - truth).norm(dim=1).median() for n in steps]
    return math.log(errors[0] / errors[1]) / math.log(steps[1] / steps[0])


_COSINE = Cosine()
_EVEN, _UNEVEN = (tuple(_COSINE.time(torch.tensor(at, dtype=DOUBLE))) for at in ([-1.0, 0.0, 1.0], [-1.0, 0.0, 3.0]))


def _at(times, x_0_previous, drift=0.0):
    """Arguments of a step after one whose denoiser said `x_0_previous`, or after none; its own denoiser says WAVE at t,
    and `drift` more where the time is 1 more."""
    u, t, s = times
    previous = None if x_0_previous is None else (u, x_0_previous)
    return FunctionDenoiser(lambda x, time: WAVE + drift * (time - t), _COSINE), RAMP, t, s, previous, None


q2 = function(
    r"""Write `two_m_step(denoiser, x_t, t, s, previous, generator)`: the DPM-Solver++(2M) step from $t$ to $s$, with
    the arguments and the result of the library's steps. `previous` is the pair (u, D_previous) of the step before, at
    the time $u > t$; in the first step it is None. In a last step that ends without noise, $\sigma_s = 0$, take
    $D' = D$. Return the pair (x_s, D). `denoiser.schedule` has `alpha`, `sigma`
    and `log_snr` ($\lambda_t = \log(\alpha_t^2/\sigma_t^2)$, twice the paper's); `generator` plays no part.""",
    solution=two_m_step,
    tests=[
        case(
            "no change",
            _at(_EVEN, WAVE),
            """Where the denoised image has not changed, the step is DDIM's. Is it exp(-h) with h > 0, and is h half of
            our lambda's difference (the paper's lambda is log(alpha / sigma))? Is the pair (x_s, D), x_s first?""",
        ),
        case(
            "D at its time",
            _at(_EVEN, WAVE, drift=1.0),
            """The answer of this D depends on its time. Ask for it once, at (x_t, t): not at s, and D_previous comes
            from `previous`.""",
        ),
        case(
            "the first step",
            _at(_EVEN, None),
            "In the first step `previous` is None: there is no change to extrapolate, D' is D, and the step is DDIM's.",
        ),
        prop(
            "the denoised image",
            lambda f: torch.allclose(f(*_at(_EVEN, ZEROS))[1], WAVE, atol=1e-5),
            "Return D(x_t, t) itself beside x_s, not D': the next step gets it as `previous`.",
        ),
        case(
            "a change, equal steps",
            _at(_EVEN, ZEROS),
            """With equal steps q = h_previous / h = 1, and D' = 1.5 D - 0.5 D_previous: extrapolate ahead, by half of
            the last change. Are both h's halved, or neither in the ratio?""",
        ),
        prop(
            "the slope",
            lambda f: slope(f) > 1.7,
            """On a grid of long and short steps the error must fall with the square of the number of steps, and yours
            does not. Is q there, the step before over this one?""",
        ),
        case(
            "unequal steps",
            _at(_UNEVEN, ZEROS),
            """q is the step before over this one, in lambda, and it divides: after a short step one looks far ahead.
            (In Python `/ 2 * q` multiplies by q: brackets.)""",
        ),
        case(
            "the last step",
            _at((*_EVEN[1:], torch.zeros((), dtype=DOUBLE)), ZEROS),
            """Where the step ends at sigma = 0, h is infinite and q is 0: 1 / (2q) divides by zero. Take D' = D there,
            as in the first step.""",
        ),
    ],
    mistakes=[
        mistake(_two_m(factor=2.0), "no change", "lambda instead of half lambda"),
        mistake(_two_m(factor=-1.0), "no change", "sign of h"),
        mistake(
            lambda denoiser, x_t, t, s, previous, generator: two_m_step(
                FunctionDenoiser(lambda x, time: denoiser(x, s), denoiser.schedule), x_t, t, s, previous
            ),
            "D at its time",
            "D asked at s",
        ),
        mistake(
            lambda denoiser, x_t, t, s, previous, generator: two_m_step(
                denoiser, x_t, t, s, previous and (previous[0], denoiser(x_t, previous[0]))
            ),
            "D at its time",
            "D_previous worked out anew",
        ),
        mistake(_two_m(lambda q: 0.0), "a change, equal steps", "no memory: DDIM"),
        mistake(_two_m(lambda q: 1 / q), "a change, equal steps", "the 2 is missing"),
        mistake(_two_m(lambda q: 1 / (4 * q)), "a change, equal steps", "h_previous is not halved"),
        mistake(_two_m(lambda q: -1 / (2 * q)), "a change, equal steps", "extrapolates backwards"),
        mistake(_two_m(lambda q: q / 2), "unequal steps", "q inverted"),
        mistake(_two_m(lambda q: 0.5), "the slope", "q left out"),
        mistake(_two_m(), "the last step", "a division by zero where the noise ends"),
        mistake(_changed(lambda x_s, x_0, previous, ratio: (ratio * x_s, x_0)), "no change", "alpha of t"),
        mistake(_changed(lambda x_s, x_0, *others: (x_0, x_0)), "no change", "the denoised image alone"),
        mistake(_two_m(lambda q: -1 - 1 / (2 * q)), "a change, equal steps", "now and before swapped"),
        mistake(_two_m(lambda q: 1.0), "a change, equal steps", "the whole of the last change"),
        mistake(_changed(lambda x_s, *others: x_s), "shape", "x_s alone"),
        mistake(_changed(lambda x_s, x_0, *others: (x_0, x_s)), "no change", "the pair swapped"),
        mistake(_remembering(lambda previous, *others: tuple(previous)), "the first step", "a past taken for granted"),
        mistake(
            _remembering(lambda previous, x_t, t, s: previous or (2 * t - s, 0 * x_t)),
            "the first step",
            "zeros for the image before the first",
        ),
        mistake(
            _changed(lambda x_s, x_0, previous, ratio: (x_s, x_0 + (x_0 - previous[1]) / 2 if previous else x_0)),
            "the denoised image",
            "D' returned for D",
        ),
    ],
    also_right=[
        _by_ratios,
        dpmpp_2m_step,
        lambda denoiser, x_t, t, s, previous, generator: two_m_step(
            denoiser, x_t, t, s, previous and (previous[0], previous[len(previous) - 1])
        ),
    ],
    hints=[
        "Ask `denoiser(x_t, t)` once, and unpack `previous` where it is not None.",
        "h = (lambda_s - lambda_t) / 2 and q = (lambda_t - lambda_u) / (lambda_s - lambda_t).",
        "D' = D + (D - D_previous) / (2 q): the value that D is expected to have in the middle of the step.",
        "x_s = sigma_s / sigma_t * x_t - alpha_s * (exp(-h) - 1) * D'.",
    ],
    explanation="""Lu et al. (2022), DPM-Solver++, Algorithm 2. With equal steps q = 1, and leaving it out passes
    unseen. An inverted q is caught by no slope test at all: its errors, (h^2 - h_previous^2) / 2 a step, cancel from
    step to step, so that the order stays 2. A test of the order is no test of the formula.""",
)


# ---- q3, q4, q5 ------------------------------------------------------------------------------------------------------

q3 = number(
    r"""DDIM, of first order, has the error 0.08 at 10 steps; Heun, of second order, 0.16 at 10 steps.
    Both go on like this, and Heun's last step ends at $\sigma = 0$, where it needs no second look. What is the smallest
    **number of network evaluations** at which Heun has the smaller error, when DDIM gets just as many?""",
    solution="next(2 * n - 1 for n in range(1, 1000) if 16 / n**2 < 0.8 / (2 * n - 1))",
    mistakes=[
        (21, "That compares at equal steps. A step of Heun costs two evaluations, and DDIM may spend as many."),
        (20, "At equal steps, 20, the errors are equal; but a step of Heun costs two evaluations."),
        (40, "That is Heun's number of steps. Asked is the number of evaluations, 2 n - 1."),
        (80, "n steps cost 2 n - 1: at sigma = 0 there is no slope to average with."),
        (
            78,
            "With 78 Heun can make 39 steps only, for 77 evaluations, and its error 16 / 39^2 is not yet the smaller.",
        ),
        (77, "39 steps: 16 / 39^2 = 0.0105, and DDIM has 0.8 / 77 = 0.0104. Not yet."),
        (82, "41 steps of two evaluations each; but n steps cost 2 n - 1: at sigma = 0 there is nothing to average."),
        (81, "With 41 steps Heun is ahead, but so it is with fewer: DDIM gets 2 n - 1 steps, not 2 n."),
        (41, "That is a number of steps. Asked is the number of evaluations, 2 n - 1, and fewer steps will do."),
        (39, "39 steps are one too few, and asked is the number of evaluations, 2 n - 1."),
    ],
    also_right=["79", [79]],
    hints=[
        "DDIM's error is 0.8 / n at n steps, Heun's 16 / n^2.",
        "n steps of Heun cost 2 n - 1 evaluations: compare 16 / n^2 with 0.8 / (2 n - 1).",
    ],
    explanation="""At 40 steps, 79 evaluations, Heun has 0.0100 and DDIM 0.0101. The higher order pays only beyond that.
    Compare samplers at equal evaluations, never at equal steps.""",
    rtol=0.001,
)


q4 = number(
    """A sampler's error is 0.064 at 10 steps and 0.004 at 40.
    If it goes on like this, how many steps does an error of 0.001 take?""",
    solution="40 * (0.004 / 0.001) ** (1 / 2)",
    mistakes=[
        (160, "That would be first order. Four times the steps divided the error by 16: what is the order?"),
        (20, "That is fewer steps than 40, and the error is to be smaller than at 40."),
        (60, "The error falls with a power of the steps, not along a straight line."),
        (2, "That is the order. How many times 40 steps does it take to divide the error by 4?"),
        (640, "The exponent is upside down: steps = 40 * 4 ** (1 / order)."),
    ],
    also_right=["80 ", 80.0],
    hints=[
        "Order = log(0.064 / 0.004) / log(40 / 10).",
        "The error must fall by 4 more; at order 2 that takes a factor sqrt(4).",
    ],
    explanation="The order is 2, so 80 steps. A first-order sampler would need 160.",
)

q5 = choice(
    """A colleague trains a diffusion model on label maps with the values 0, 1, 2, 3 and samples with MONAI's
    `DDIMScheduler(num_train_timesteps=1000)`, all 1000 steps.
    The loss is excellent; but the samples have no 2 and no 3. What is wrong?""",
    {
        "a": "1000 steps are too few for DDIM",
        "b": "`set_timesteps` makes a grid that does not fit the stride of `step`",
        "c": "`clip_sample=True`, the default, clamps the denoised image to [-1, 1]",
        "d": "eta is 0, so rare labels are never drawn",
    },
    answer="c",
    feedback={
        "a": "At 1000 steps DDIM's error is small, and it would not cut off exactly the values above 1.",
        "b": "With all 1000 steps grid and stride agree. Which setting knows the numbers -1 and 1?",
        "d": "A deterministic sampler draws its variety from the starting noise: eta = 0 misses no mode.",
    },
    hints=["The values that are missing are those above 1.", "Read the list of default arguments of the scheduler."],
    explanation="`clip_sample=False`, or `clip_sample_max=3`, or training on labels scaled to [-1, 1].",
)


# ---- q6: a call of MONAI's to mend -----------------------------------------------------------------------------------


def as_found(net, noise):
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(250)
    return DiffusionInferer(scheduler).sample(noise, net, scheduler, verbose=False)


def mended_call(net, noise):
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDIMScheduler

    scheduler = DDIMScheduler(
        num_train_timesteps=1000, schedule="cosine", prediction_type="v_prediction", clip_sample=False
    )
    scheduler.set_timesteps(250)
    return DiffusionInferer(scheduler).sample(noise, net, scheduler, verbose=False)


def _trained():
    """The scheduler that the network of q6 was trained with."""
    from monai.networks.schedulers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=1000, schedule="cosine", prediction_type="v_prediction", clip_sample=False)


@functools.cache
def exact_network(std):
    """The network of q6 for images (B, 1, H, W) of independent pixels N(0, std^2), net(x, timesteps): their exact v,

    E[alpha eps - sigma x_0 | x] = alpha sigma (1 - std^2) / (alpha^2 std^2 + sigma^2) x.

    MONAI, which takes seconds to import, is imported here, where they do not count against an answer.
    """
    from monai.inferers import DiffusionInferer  # noqa: F401

    abar = _trained().alphas_cumprod.double()  # alpha^2; sigma^2 is 1 - abar
    gain = (abar * (1 - abar)).sqrt() * (1 - std**2) / (abar * std**2 + 1 - abar)

    def net(x, timesteps, context=None):
        return gain[timesteps.round().long()].reshape(-1, 1, 1, 1).to(x) * x

    return net


_NOISE = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
_NOISE = (_NOISE - _NOISE.mean()) / _NOISE.std()


def _is_clamped(x):
    """Whether more than 2 % of the values are the largest or the smallest, of images that are not all of one grey."""
    at_an_end = (x == x.max()) | (x == x.min())
    return x.std() > 0.1 and at_an_end.double().mean() > 0.02


def _call(kind="DDIMScheduler", steps=250, **settings):
    """`mended_call` with another scheduler, number of steps or settings."""

    def call(net, noise):
        from monai import inferers
        from monai.networks import schedulers

        right = {"schedule": "cosine", "prediction_type": "v_prediction"}
        right |= {} if kind == "PNDMScheduler" else {"clip_sample": False}
        scheduler = getattr(schedulers, kind)(num_train_timesteps=1000, **right | settings)
        scheduler.set_timesteps(steps)
        return inferers.DiffusionInferer(scheduler).sample(noise, net, scheduler, verbose=False)

    return call


_BETAS, _EPSILON, _CLIP = {"schedule": "linear_beta"}, {"prediction_type": "epsilon"}, {"clip_sample": True}

q6 = function(
    f"""A network was trained on standardised images (mean 0, standard deviation 1) to predict v, with MONAI's
    `DDPMScheduler(1000, schedule="cosine")`. A colleague samples from it like this:

    ```python
{textwrap.indent(inspect.getsource(as_found), "    ").rstrip()}
    ```

    No error, and wrong images: three settings of the scheduler are not the network's. Mend the call, as
    `mended_call(net, noise)`. The check hands it networks that are exact for data that it knows.""",
    solution=mended_call,
    tests=[
        prop(
            "the clamp",
            lambda f: not _is_clamped(f(exact_network(1.0), _NOISE)),
            """The values pile up at two ends: of images with standard deviation 1 a third of all values lie outside
            [-1, 1], and in yours they are cut off there. The images are flat, their brightest and darkest parts one
            grey. Which default clamps the denoised image?""",
        ),
        prop(
            "the prediction type",
            lambda f: 0.5 < f(exact_network(1.0), _NOISE).std() < 2,
            """Images of standard deviation 1 come out hundreds of times too large, or all one grey: what the network
            answers is taken for something else. It predicts v; taken for the noise, it lets the image grow at every
            step, and taken for the image it leaves nothing.""",
        ),
        prop(
            "the noise",
            lambda f: f(exact_network(0.3), _NOISE).std() < 0.45,
            """Noise is left in the images: pixels of standard deviation 0.3 come out much wider. Does the scheduler go
            the whole way from noise to image in the steps that it is given (Case 1), and is the network asked?""",
        ),
        prop(
            "the schedule",
            lambda f: abs(f(exact_network(0.3), _NOISE).std() / 0.3 - 1) < 0.05,
            """Too smooth: pixels of standard deviation 0.3 come out with less, while those of standard deviation 1 are
            right, so that fine detail is lost. The scheduler goes down another table of betas than the network's, so
            that at each index the network takes the image for noisier than it is. (With the right table: did you take
            fewer steps?)""",
        ),
        prop(
            "fine detail",
            lambda f: abs(f(exact_network(0.05), _NOISE).std() / 0.05 - 1) < 0.15,
            """Pixels of standard deviation 0.05 come out with another one: the settings are right now, but the steps
            are too few. The colleague's call takes 250.""",
        ),
    ],
    mistakes=[
        mistake(as_found, "the clamp", "as it was found"),
        mistake(_call(**_CLIP), "the clamp", "schedule and prediction type are mended"),
        mistake(_call(**_CLIP, **_BETAS), "the clamp", "the prediction type alone is mended"),
        mistake(_call(**_CLIP, **_EPSILON), "the clamp", "the schedule alone is mended"),
        mistake(_call(clip_sample=True, clip_sample_min=-2.0, clip_sample_max=2.0), "the clamp", "a wider clamp"),
        mistake(_call(**_EPSILON), "the prediction type", "schedule and clamp are mended"),
        mistake(_call(**_EPSILON, **_BETAS), "the prediction type", "the clamp alone is mended"),
        mistake(_call(prediction_type="sample"), "the prediction type", "v for the image"),
        mistake(_call("DDPMScheduler"), "the noise", "250 steps of DDPM's table of 1000"),
        mistake(lambda net, noise: noise, "the noise", "the noise handed back"),
        mistake(_call(**_BETAS), "the schedule", "prediction type and clamp are mended"),
        mistake(_call(schedule="scaled_linear_beta"), "the schedule", "another table"),
        mistake(_call(steps=10), "the schedule", "ten steps"),
        mistake(_call(steps=5), "fine detail", "five steps"),
        mistake(_call(steps=25), "fine detail", "25 steps"),
    ],
    also_right=[
        _call(steps=1000),
        _call("DDPMScheduler", 1000),
        _call("PNDMScheduler", skip_prk_steps=True),
        _call(clip_sample=True, clip_sample_min=-8.0, clip_sample_max=8.0),
        lambda net, noise: sample(from_monai(net, _trained()), noise, uniform_times(250), dpmpp_2m_step),
    ],
    hints=[
        "A scheduler knows nothing of the network: what is not said is a default. Read those of `DDIMScheduler`.",
        "Which betas was the network trained with, what does it predict, and in which range are its images?",
        '`schedule="cosine"`, `prediction_type="v_prediction"`, and no clamp: `clip_sample=False`.',
    ],
    explanation="""Each of the three alone spoils the images: the clamp makes standard deviation 1 into 0.71, v taken
    for the noise into 20,000, and the linear betas leave 1 as it is but make 0.3 into 0.19. Two exact networks tell
    them apart: for pixels N(0, 1) the exact v is 0 at every t, whatever the betas, so that only the clamp and the
    prediction type show; 0.3 shows the betas.""",
)

summary = Exercises(vars()).summary
