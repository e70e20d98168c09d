"""Exercises of notebook 03: the forward jump, the posterior, the loss, the average of the weights."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number, prop

ONES = torch.ones(2, 1, 4, 4)
ZEROS = torch.zeros(2, 1, 4, 4)
RAMP = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
WAVE = torch.sin(7 * RAMP)


# ---- q1: the forward jump --------------------------------------------------------------------------------------------


def _jump(signal, noise):
    """`q_jump` with other factors of x_i and eps, functions of abar_j / abar_i, abar_i and abar_j."""

    def wrong(x_i, eps, abar_i, abar_j):
        told = abar_j / abar_i, abar_i, abar_j
        return signal(*told) * x_i + noise(*told) * eps

    return wrong


def _shrunk(ratio, i, j):
    return ratio**0.5


def _fresh(ratio, i, j):
    return (1 - ratio) ** 0.5


def q_jump(x_i, eps, abar_i, abar_j):
    ratio = abar_j / abar_i
    return ratio**0.5 * x_i + (1 - ratio) ** 0.5 * eps


q1 = function(
    r"""From one noisy image to a noisier one. Write `q_jump(x_i, eps, abar_i, abar_j)`: jump from $x_i$ to $x_j$, with
    $j \ge i$, in one go, with **fresh** noise `eps`; `abar_i` and `abar_j` are $\bar\alpha_i$ and $\bar\alpha_j$,
    numbers.""",
    solution=q_jump,
    tests=[
        case("nowhere", (RAMP, WAVE, 0.64, 0.64), "From a step to itself nothing happens: x_j is x_i, without noise."),
        case(
            "from the clean image",
            (RAMP, WAVE, 1.0, 0.64),
            """At abar_i = 1 the image is clean, and the jump that of the text: abar_j = 0.64 gives 0.8 x_0 + 0.6 eps.
            No noise comes in but eps.""",
        ),
        case(
            "signal",
            (RAMP, ZEROS, 0.81, 0.36),
            "x_i has the signal already shrunk by 0.9, and x_j is to have it shrunk by 0.6: by what is x_i multiplied?",
        ),
        case(
            "noise",
            (ZEROS, WAVE, 0.81, 0.36),
            """x_i brings noise along, of variance 1 - abar_i, and it shrinks with the image. Fresh noise adds what its
            variance lacks of 1 - abar_j.""",
        ),
    ],
    mistakes=[
        mistake(
            lambda x_i, eps, abar_i, abar_j: abar_j**0.5 * x_i + (1 - abar_j) ** 0.5 * eps,
            "nowhere",
            "x_i taken for x_0",
        ),
        mistake(_jump(lambda ratio, i, j: ratio, _fresh), "from the clean image", "no root in the signal"),
        mistake(_jump(_shrunk, lambda ratio, i, j: 1 - ratio), "from the clean image", "no root in the noise"),
        mistake(_jump(_shrunk, lambda ratio, i, j: -((1 - ratio) ** 0.5)), "from the clean image", "a minus"),
        mistake(_jump(lambda ratio, i, j: 1.0, _fresh), "from the clean image", "the image in full"),
        mistake(_jump(_shrunk, lambda ratio, i, j: (i - j) ** 0.5), "noise", "the old noise does not shrink"),
        mistake(_jump(_shrunk, lambda ratio, i, j: (1 - j) ** 0.5 - (1 - i) ** 0.5), "noise", "deviations subtracted"),
        mistake(
            _jump(_shrunk, lambda ratio, i, j: (1 - j) ** 0.5 - (ratio * (1 - i)) ** 0.5),
            "noise",
            "the old noise taken for the new",
        ),
        mistake(_jump(lambda ratio, i, j: ratio**-0.5, _fresh), "from the clean image", "upside down"),
        mistake(
            lambda x_i, eps, abar_i, abar_j: q_jump(x_i, WAVE.flip(0), abar_i, abar_j),
            "from the clean image",
            "noise of its own",
        ),
        mistake(_jump(lambda ratio, i, j: (1 - i + j) ** 0.5, _fresh), "signal", "a difference for the ratio"),
    ],
    also_right=[
        lambda x_i, eps, abar_i, abar_j: (abar_j / abar_i).sqrt() * x_i + (1 - abar_j / abar_i).sqrt() * eps,
        lambda x_i, eps, abar_i, abar_j: (
            math.sqrt(abar_j) / math.sqrt(abar_i) * x_i + math.sqrt(1 - abar_j - abar_j / abar_i * (1 - abar_i)) * eps
        ),
        lambda x_i, eps, abar_i, abar_j: ((abar_j**0.5 * x_i) + (abar_i - abar_j) ** 0.5 * eps) / abar_i**0.5,
        lambda x_i, eps, abar_i, abar_j: (
            np.sqrt(float(abar_j / abar_i)) * x_i.numpy() + np.sqrt(1 - float(abar_j / abar_i)) * eps.numpy()
        ),
    ],
    hints=[
        "Between i and j lie the steps i + 1 ... j: what is the product of their 1 - beta?",
        "abar_j / abar_i takes the place that abar has in a jump from x_0.",
    ],
    explanation="""q(x_j | x_i) is a Gaussian with mean sqrt(abar_j / abar_i) x_i and variance 1 - abar_j / abar_i: with
    i = 0 the jump of the text (Ho et al. 2020, eq. 4), with j = i + 1 a single step (eq. 2). A sampler of few steps
    walks such a jump backwards.""",
)


# ---- q2: the posterior variance --------------------------------------------------------------------------------------


def posterior_variance(beta, abar, abar_prev):
    return (1 - abar_prev) / (1 - abar) * beta


q2 = function(
    r"""Write `posterior_variance(beta, abar, abar_prev)`: the variance of $q(x_{i-1} \mid x_i, x_0)$, from $\beta_i$,
    $\bar\alpha_i$ and $\bar\alpha_{i-1}$.""",
    solution=posterior_variance,
    tests=[
        prop(
            "below beta",
            lambda f: f(0.5, 0.45, 0.9) <= 0.5,
            "Knowing x_0 can only narrow it: below beta. Is the ratio upside down?",
        ),
        case(
            "first step",
            (0.1, 0.9, 1.0),
            "At i = 1 the step before is the clean image, known exactly: the variance is zero, and no division fails.",
        ),
        case(
            "far from the data",
            (0.02, 1e-9, 1e-9 / 0.98),
            """Where x_t is pure noise the variance tends to beta itself. Is beta a factor, once, and in no root or
            bracket?""",
        ),
        case(
            "a middle step",
            (0.2, 0.4, 0.5),
            """The factor of beta is a ratio of two variances, those of x_(i-1) and x_i given x_0. Are both there, and
            is each plain, without a root or a square?""",
        ),
    ],
    mistakes=[
        mistake(lambda beta, abar, abar_prev: beta, "first step", "the forward variance"),
        mistake(lambda beta, abar, abar_prev: (1 - abar) / (1 - abar_prev) * beta, "below beta", "upside down"),
        mistake(
            lambda beta, abar, abar_prev: ((1 - abar_prev) / (1 - abar) * beta) ** 0.5,
            "far from the data",
            "a standard deviation",
        ),
        mistake(lambda beta, abar, abar_prev: (1 - abar_prev) * beta, "a middle step", "no denominator"),
        mistake(
            lambda beta, abar, abar_prev: ((1 - abar_prev) / (1 - abar)) ** 0.5 * beta,
            "a middle step",
            "the root of the ratio",
        ),
        mistake(lambda beta, abar, abar_prev: (1 - abar_prev) / (1 - abar) * beta**2, "far from the data", "beta^2"),
        mistake(lambda beta, abar, abar_prev: (1 - abar_prev) / (1 - abar), "far from the data", "beta forgotten"),
        mistake(lambda beta, abar, abar_prev: 1 / (1 / beta + 1 / (1 - abar_prev)), "far from the data", "no 1 - beta"),
    ],
    also_right=[
        lambda beta, abar, abar_prev: beta * (1 - abar_prev) / (1 - abar),
        lambda beta, abar, abar_prev: 1 / ((1 - beta) / beta + 1 / torch.as_tensor(1 - abar_prev)),
        lambda beta, abar, abar_prev: float(beta) * (1 - float(abar_prev)) / (1 - float(abar)),
    ],
    hints=[
        "Two Gaussians in x_{i-1} are multiplied: q(x_i | x_{i-1}) and q(x_{i-1} | x_0). Precisions add.",
        "1 / variance = (1 - beta) / beta + 1 / (1 - abar_prev).",
        "Bring it on one denominator and use abar = (1 - beta) abar_prev.",
    ],
    explanation="""Precisions add: (1 - beta)/beta + 1/(1 - abar_prev) = (1 - abar) / (beta (1 - abar_prev)).
    Ho et al. (2020), eq. 7.""",
    rtol=1e-6,
    atol=1e-12,
)


# ---- q3: mend the loss -----------------------------------------------------------------------------------------------


def _half(x_t, i=None, timesteps=None):
    """A stand-in for the network: predicts half of what it sees."""
    return 0.5 * x_t


def _silent(x_t, i=None, timesteps=None):
    """A stand-in that says: no noise."""
    return torch.zeros_like(x_t)


def _told_the_time(x_t, i=None, timesteps=None):
    """A stand-in that only passes on the step it was told, one number an image."""
    return torch.as_tensor(timesteps if i is None else i, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(x_t.shape)


ABAR = torch.linspace(0.99, 0.01, 10)


def loss_mended(net, x_0, eps, i, abar):
    a = abar[i].reshape(-1, 1, 1, 1)  # one level an image
    x_t = a.sqrt() * x_0 + (1 - a).sqrt() * eps
    return (net(x_t, i) - eps).square().mean()


def _own_level(abar, i):
    return abar[i].reshape(-1, 1, 1, 1)


def _without_roots(a):
    return a, 1 - a


def _the_image(x_0, eps):
    return x_0


def _sum(error):
    return error.square().sum()


def _loss(
    level=_own_level,
    mix=lambda a: (a.sqrt(), (1 - a).sqrt()),
    told=lambda abar, i: i,
    target=lambda x_0, eps: eps,
    error=lambda error: error.square().mean(),
):
    """`loss_mended` with another level, mix of image and noise, step for the network, target, or mean of the error."""

    def wrong(net, x_0, eps, i, abar):
        alpha, sigma = mix(level(abar, i))
        return error(net(alpha * x_0 + sigma * eps, told(abar, i)) - target(x_0, eps))

    return wrong


SAME = torch.tensor([4, 4])

q3 = function(
    """This loss has three bugs. Mend it, as `loss_mended(net, x_0, eps, i, abar)` with images (B, 1, H, W), steps `i`
    (B,) as indices from 0 into the table `abar` (T,), and `net(x_t, i)` predicting the noise. It returns the mean over
    pixels and images.

    ```python
    def loss(net, x_0, eps, i, abar):
        a = abar[i].reshape(-1, 1, 1, 1)
        x_t = a * x_0 + (1 - a) * eps
        return (net(x_t, i) - x_0).square().sum()
    ```""",
    solution=loss_mended,
    tests=[
        case(
            "the target",
            (_silent, ONES, ZEROS, SAME, ABAR),
            """A network that says 'no noise' where there is none must have no loss.
            Is the target eps, and not the image?""",
        ),
        case(
            "squares",
            (_silent, ZEROS, torch.cat([2 * ONES[:1], -2 * ONES[:1]]), SAME, ABAR),
            "Errors of +2 and -2 must not cancel, and the loss is a mean: square first, then average over all pixels.",
        ),
        case(
            "the noisy image",
            (_half, RAMP, WAVE, SAME, ABAR),
            "x_t is not right: are the square roots of abar and 1 - abar there, and is abar[i] the entry of the table?",
        ),
        case(
            "its own level",
            (_half, RAMP.exp(), WAVE, torch.tensor([1, 8]), ABAR),
            "Each image of the batch has its own step: abar[i], not one for all.",
        ),
        case(
            "the time",
            (_told_the_time, RAMP, WAVE, torch.tensor([1, 8]), ABAR),
            "The network must be told the steps i that the noise was made with.",
        ),
    ],
    mistakes=[
        mistake(_loss(mix=_without_roots, target=_the_image, error=_sum), "the target", "all three bugs"),
        mistake(_loss(target=_the_image), "the target"),
        mistake(_loss(error=_sum), "squares"),
        mistake(_loss(error=lambda error: error.mean().square()), "squares"),
        mistake(_loss(mix=_without_roots), "the noisy image"),
        mistake(_loss(level=lambda abar, i: abar[i[0]]), "its own level"),
        mistake(_loss(told=lambda abar, i: 0 * i), "the time"),
        mistake(_loss(error=lambda error: error.abs().mean()), "squares", "absolute errors"),
        mistake(_loss(error=lambda error: error.square().mean().sqrt()), "squares", "a root over the mean"),
        mistake(lambda net, x_0, eps, i, abar: loss_mended(net, x_0, eps, i, 1 - abar), "the noisy image", "swapped"),
        mistake(lambda net, x_0, eps, i, abar: loss_mended(net, x_0, -eps, i, abar), "the noisy image", "a minus"),
        mistake(_loss(told=lambda abar, i: abar[i]), "the time", "abar for the step"),
        mistake(
            _loss(level=lambda abar, i: _own_level(abar, i.flip(0)), told=lambda abar, i: i.flip(0)),
            "its own level",
            "another's step",
        ),
        mistake(
            _loss(level=lambda abar, i: abar[i].reshape(1, -1, 1, 1)), "its own level", "levels along the channels"
        ),
    ],
    also_right=[
        lambda net, x_0, eps, i, abar: F.mse_loss(
            net(
                torch.sqrt(abar[i])[:, None, None, None] * x_0 + torch.sqrt(1 - abar[i])[:, None, None, None] * eps,
                timesteps=i,
            ),
            eps,
        ),
        lambda net, x_0, eps, i, abar: float(loss_mended(net, x_0, eps, i, abar)),
    ],
    hints=[
        "Compare with the jump of section 1: what multiplies x_0 and eps?",
        "The network predicts the noise. What should its answer be compared with?",
        "A sum grows with the size of the batch, and with it every step of the optimiser.",
    ],
    explanation="""L_simple = E || eps - eps_theta(x_t, i) ||^2 (Ho et al. 2020, eq. 14), as a mean over pixels and
    images.""",
)


# ---- q4: the mean of the reverse step --------------------------------------------------------------------------------


def ddpm_mean(x_t, eps, beta, abar):
    return (x_t - beta / (1 - abar) ** 0.5 * eps) / (1 - beta) ** 0.5


def _mean(share):
    """`ddpm_mean` with another share of the noise removed."""
    return lambda x_t, eps, beta, abar: (x_t - share(beta, abar) * eps) / (1 - beta) ** 0.5


q4 = function(
    """Write `ddpm_mean(x_t, eps, beta, abar)`: the mean of the reverse step, straight from the predicted noise `eps`,
    without computing $x_0$ on the way.""",
    solution=ddpm_mean,
    tests=[
        case(
            "no noise predicted",
            (ONES, ZEROS, 0.19, 0.5),
            "Without noise to remove, x_t only grows back, by 1 / sqrt(1 - beta).",
        ),
        case(
            "the noise's share",
            (RAMP, WAVE, 0.02, 0.3),
            """beta / sqrt(1 - abar) times the noise is taken away, and the division by sqrt(1 - beta) takes in both
            terms.""",
        ),
    ],
    mistakes=[
        mistake(lambda x_t, eps, beta, abar: x_t - beta / (1 - abar) ** 0.5 * eps, "no noise predicted"),
        mistake(_mean(lambda beta, abar: (1 - abar) ** 0.5), "the noise's share", "goes all the way"),
        mistake(_mean(lambda beta, abar: beta / (1 - abar)), "the noise's share", "epsilon's root"),
        mistake(
            lambda x_t, eps, beta, abar: x_t / (1 - beta) ** 0.5 - beta / (1 - abar) ** 0.5 * eps, "the noise's share"
        ),
        mistake(lambda x_t, eps, beta, abar: (x_t - beta / (1 - abar) ** 0.5 * eps) / (1 - beta), "no noise predicted"),
        mistake(_mean(lambda beta, abar: -beta / (1 - abar) ** 0.5), "the noise's share", "a plus"),
        mistake(_mean(lambda beta, abar: beta / abar**0.5), "the noise's share", "abar"),
        mistake(_mean(lambda beta, abar: beta), "the noise's share", "no division"),
        mistake(_mean(lambda beta, abar: beta**0.5), "the noise's share", "root of beta"),
    ],
    also_right=[
        lambda x_t, eps, beta, abar: (x_t - beta / torch.sqrt(1 - abar) * eps) / torch.sqrt(1 - beta),
        lambda x_t, eps, beta, abar: (x_t - beta / (1 - abar).sqrt() * eps) / (1 - beta).sqrt(),
        lambda x_t, eps, beta, abar: (x_t - beta / math.sqrt(1 - abar) * eps) / math.sqrt(1 - beta),
    ],
    hints=[
        "Put x_0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar) into the posterior's mean.",
        "Collect the terms in x_t: they give 1 / sqrt(1 - beta).",
    ],
    explanation="Ho et al. (2020), eq. 11: mu = (x_t - beta / sqrt(1 - abar) eps) / sqrt(1 - beta).",
)


# ---- q5, q6 ----------------------------------------------------------------------------------------------------------

q5 = number(
    """The average of the weights keeps 0.998 of itself each step.
    After how many steps does a weight's contribution have half of its first share? (a number of steps, to 1 %)""",
    solution="math.log(0.5) / math.log(0.998)",
    mistakes=[
        (500, "That is 1 / (1 - 0.998), after which 1/e = 37 % is left; half is gone sooner."),
        (
            250,
            "Half of 1 / (1 - 0.998) would be right for a straight line; the share falls exponentially: 0.998^n = 0.5.",
        ),
        (0.001, "0.998^n = 0.5: solve for n with logarithms."),
        (math.log(0.998) / math.log(0.5), "That is upside down: one over it is the number of steps."),
        (math.log(0.5) / -math.log(0.998), "The number of steps is positive: both logarithms are negative."),
        (math.log(0.5) / math.log(0.98), "Is the decay 0.98 or 0.998? One digit is a factor of ten in memory."),
        (35, "Is the decay 0.98 or 0.998? One digit is a factor of ten in memory."),
    ],
    also_right=[346, 347, math.log(2) / -math.log(0.998)],
    hints=["After n steps the share is 0.998^n.", "n = log(0.5) / log(0.998)."],
    explanation="""About 346 steps: the average remembers the last few hundred steps, so it lags behind at the start of
    training.""",
)

q6 = choice(
    """To save time you build MONAI's `DDPMScheduler(1000, clip_sample=False)` and call `set_timesteps(50)`.
    The denoiser is perfect, the data have standard deviation 0.3. Which standard deviation do the samples have?""",
    {
        "a": "0.30: a perfect denoiser gives the right spread with any number of steps",
        "b": "0.25: the same as our own sampler at 50 steps",
        "c": "0.89: nearly pure noise",
        "d": "0.00: all samples are the mean",
    },
    answer="c",
    feedback={
        "a": "Section 3 shows that even the right sampler is 16 % short at 50 steps, with a perfect denoiser.",
        "b": """Ours takes the step from t to the s asked for.
        What does a `step` do that only knows the neighbour i - 1?""",
        "d": "Each step removes too little, not too much. How far does one step of a table of 1000 go?",
    },
    hints=[
        "`step` of MONAI's DDPMScheduler goes from i to i - 1, whatever the next time in `timesteps` is.",
        "Fifty steps, each as short as a thousandth of the way: how much noise has been removed at the end?",
    ],
    explanation="""Fifty short steps cover a twentieth of the way, so nearly all the noise is still there:
    0.89 at 50 steps, 0.60 at 250, 0.296 at 1000 (as in section 3), measured with MONAI 1.6.1.
    Walk the whole table, or use a sampler that takes any t and s.""",
)

summary = Exercises(vars()).summary
