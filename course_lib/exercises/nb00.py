"""Exercises of notebook 00: mixing image and noise, the two meanings of alpha, the three nouns."""

import math
from fractions import Fraction

import torch

from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number

RAMP = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
WAVE = torch.sin(7 * RAMP)
ZEROS = torch.zeros(2, 1, 4, 4)


# ---- q1: the mix -----------------------------------------------------------------------------------------------------


def noisy(x_0, eps, alpha):
    sigma = (1 - alpha**2) ** 0.5
    return alpha * x_0 + sigma * eps


q1 = function(
    r"""Write `noisy(x_0, eps, alpha)`: the noisy image $x_t = \alpha_t x_0 + \sigma_t \epsilon$ for a given signal
    level `alpha` between 0 and 1. You have to find $\sigma_t$ yourself: $\alpha_t^2 + \sigma_t^2 = 1$.""",
    solution=noisy,
    tests=[
        case("clean", (RAMP, WAVE, 1.0), "At alpha = 1 sigma is 0, so the clean image must come back."),
        case(
            "signal",
            (RAMP, ZEROS, 0.8),
            "Without noise alpha x_0 must remain: alpha itself, no square, no root, and no noise but eps.",
        ),
        case(
            "noise",
            (ZEROS, WAVE, 0.8),
            "At alpha = 0.8 the noise must be multiplied by 0.6. The squares add up to 1, so sigma is a square root.",
        ),
        case("pure noise", (RAMP, WAVE, 0.0), "At alpha = 0 nothing of the image may be left, and all of the noise."),
        case("beyond the range", (3 * RAMP, 3 * WAVE, 0.8), "x_t goes beyond -1 and 1, and must: clamp nothing."),
    ],
    mistakes=[
        mistake(lambda x_0, eps, alpha: alpha * x_0 + (1 - alpha) * eps, "noise", "sigma = 1 - alpha"),
        mistake(lambda x_0, eps, alpha: alpha * x_0 + (1 - alpha**2) * eps, "noise", "a variance, not its root"),
        mistake(lambda x_0, eps, alpha: alpha * x_0 + (1 - alpha) ** 0.5 * eps, "noise", "alpha taken for abar"),
        mistake(lambda x_0, eps, alpha: alpha**0.5 * x_0 + (1 - alpha) ** 0.5 * eps, "signal", "alpha taken for abar"),
        mistake(lambda x_0, eps, alpha: alpha**2 * x_0 + (1 - alpha**2) ** 0.5 * eps, "signal"),
        mistake(lambda x_0, eps, alpha: x_0 + (1 - alpha**2) ** 0.5 * eps, "signal", "alpha left out"),
        mistake(lambda x_0, eps, alpha: alpha * x_0 + eps, "clean", "sigma left out"),
        mistake(lambda x_0, eps, alpha: x_0 if alpha == 0 else noisy(x_0, eps, alpha), "pure noise"),
        mistake(lambda x_0, eps, alpha: (1 - alpha**2) ** 0.5 * x_0 + alpha * eps, "clean", "swapped"),
        mistake(lambda x_0, eps, alpha: alpha * x_0 - (1 - alpha**2) ** 0.5 * eps, "noise", "noise subtracted"),
        mistake(
            lambda x_0, eps, alpha: alpha * x_0 + (1 - alpha**2) ** 0.5 * torch.ones_like(eps), "signal", "own noise"
        ),
        mistake(lambda x_0, eps, alpha: noisy(x_0, eps, alpha).clamp(-1, 1), "beyond the range", "clamped"),
    ],
    also_right=[
        lambda x_0, eps, alpha: alpha * x_0 + torch.sqrt(1 - alpha**2) * eps,
        lambda x_0, eps, alpha: alpha * x_0 + (1 - alpha**2).sqrt() * eps,
        lambda x_0, eps, alpha: alpha * x_0 + math.sqrt(1 - alpha**2) * eps,
        lambda x_0, eps, alpha: x_0.mul_(alpha).add_(eps, alpha=float(1 - alpha**2) ** 0.5),
        lambda x_0, eps, alpha: alpha * x_0.numpy() + math.sin(math.acos(alpha)) * eps.numpy(),
    ],
    hints=[
        "Find sigma first: sigma squared is 1 - alpha squared.",
        "`sigma = (1 - alpha**2) ** 0.5`; then add alpha times the image and sigma times the noise.",
    ],
    explanation=r"""Independent variances add up. If the image and the noise both have variance 1, so has
    $\alpha_t x_0 + \sigma_t \epsilon$ at every $t$, because $\alpha_t^2 + \sigma_t^2 = 1$.
    The network therefore sees numbers of the same size at all noise levels.""",
)


# ---- q2: alpha and abar ----------------------------------------------------------------------------------------------

q2 = number(
    r"""MONAI's `DDPMScheduler` has a table `alphas_cumprod`, the papers' $\bar\alpha$.
    At one step it says 0.25, and a colleague writes `x_t = 0.25 * x_0 + 0.75 * eps`. Image and noise are independent,
    each of variance 1, and the network was trained on an x_t of variance 1. Which **variance** has hers?""",
    solution="0.25**2 + 0.75**2",
    mistakes=[
        (1, "That is the variance of the right mix, with alpha = sqrt(0.25). She multiplies by abar and 1 - abar."),
        (0.625**0.5, "That is the standard deviation; asked is the variance."),
        (0.25**2, "That is the image's part alone. The noise adds its own."),
        (0.75**2, "That is the noise's part alone. The image adds its own."),
        (0.5, "0.5 is the right factor of the image. Which variance has the mix that she made?"),
        (0.75, "That is the noise's variance in the right mix. A factor enters the variance squared."),
        (0.25, "That is the image's variance in the right mix. She multiplies it by 0.25, which enters squared."),
        (62.5, "As a variance, not in per cent: divide by 100."),
    ],
    also_right=[Fraction(5, 8), 0.63, "62.5 %"],
    hints=["A factor c multiplies the variance by c squared.", "Variances of independent images add up."],
    explanation=r"""0.0625 + 0.5625 = 0.625. With this course's letters $\alpha_t = \sqrt{\bar\alpha_t} = 0.5$ and
    $\sigma_t = \sqrt{1 - \bar\alpha_t} \approx 0.87$, and the variances 0.25 and 0.75 add up to 1.
    Her mix holds half of the signal that the network expects, and no error message says so.""",
)


# ---- q3: which noun --------------------------------------------------------------------------------------------------

q3 = choice(
    """You have the trained network of this notebook and want images from 8 looks instead of 15, without training
    anything. Which of the three do you change?""",
    {
        "a": "the schedule: less noise, so fewer looks",
        "b": "the denoiser: it must learn to answer faster",
        "c": "the sampler: larger steps from t to s, with the same denoiser and schedule",
        "d": "all three: they were trained together",
    },
    answer="c",
    feedback={
        "a": """The network was trained with this schedule: it expects exactly this mix of image and noise at each t.
        The schedule says how much noise there is at a time t, not how many times are visited.""",
        "b": """The denoiser answers one question, what was the clean image?
        That answer does not depend on how many times it is asked, and a new denoiser would have to be trained.""",
        "d": "Only the denoiser was trained, and with one schedule. No sampler took part in its training.",
    },
    hints=["Which of the three decides which times are visited?", "Training is finished: what can change without it?"],
    explanation="""The sampler chooses the times and the step.
    Training fixes schedule and denoiser, and never knows how many steps will be taken. That is why one network serves
    at 5, 15 or 1000 looks, and why faster samplers (notebook 04) need no new training.""",
)

summary = Exercises(vars()).summary
