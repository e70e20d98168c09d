"""Exercises of notebook 00: mixing image and noise, the two meanings of alpha, the three nouns."""

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
    "Write `noisy(x_0, eps, alpha)`: the noisy image $x_t = \\alpha_t x_0 + \\sigma_t \\varepsilon$ for a given signal "
    "level `alpha` between 0 and 1. You have to find $\\sigma_t$ yourself: $\\alpha_t^2 + \\sigma_t^2 = 1$.",
    solution=noisy,
    tests=[
        case("clean", (RAMP, WAVE, 1.0), "At alpha = 1 sigma is 0, so the clean image must come back."),
        case("signal", (RAMP, ZEROS, 0.8), "Only x_0 is multiplied by alpha, and by alpha itself: no square, no root."),
        case(
            "noise",
            (ZEROS, WAVE, 0.8),
            "At alpha = 0.8 the noise must be multiplied by 0.6. The squares add up to 1, so sigma is a square root.",
        ),
        case("pure noise", (RAMP, WAVE, 0.0), "At alpha = 0 nothing of the image may be left, and all of the noise."),
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
    ],
    hints=[
        "Find sigma first: sigma squared is 1 - alpha squared.",
        "`sigma = (1 - alpha**2) ** 0.5`; then add alpha times the image and sigma times the noise.",
    ],
    explanation="Independent variances add up. If the image and the noise both have variance 1, so has "
    "$\\alpha_t x_0 + \\sigma_t \\varepsilon$ at every $t$, because $\\alpha_t^2 + \\sigma_t^2 = 1$. The network "
    "therefore sees numbers of the same size at all noise levels.",
)


# ---- q2: alpha and abar ----------------------------------------------------------------------------------------------

q2 = number(
    "MONAI's `DDPMScheduler` has a table `alphas_cumprod`, the papers' $\\bar\\alpha$. At one step it says 0.25. What "
    "is this course's $\\alpha_t$ there?",
    solution="0.25 ** 0.5",
    mistakes=[
        (0.25, "That is abar itself. Our alpha multiplies the image; abar is its square."),
        (0.0625, "You squared it. It is the other way round: abar is alpha squared."),
        (0.75, "That is 1 - abar, the variance of the noise, sigma squared."),
        (0.75**0.5, "That is sigma, the noise level, the square root of 1 - abar."),
    ],
    hints=["Which of the two multiplies the image, and which is a squared number?", "abar = alpha squared."],
    explanation="$\\alpha_t = \\sqrt{\\bar\\alpha_t} = 0.5$ and "
    "$\\sigma_t = \\sqrt{1 - \\bar\\alpha_t} \\approx 0.87$. Who multiplies the image by 0.25 "
    "instead throws half of the signal away, and no error message says so.",
)


# ---- q3: which noun --------------------------------------------------------------------------------------------------

q3 = choice(
    "You have the trained network of this notebook and want images from 8 looks instead of 15, without training "
    "anything. Which of the three do you change?",
    {
        "a": "the schedule: less noise, so fewer looks",
        "b": "the denoiser: it must learn to answer faster",
        "c": "the sampler: larger steps from t to s, with the same denoiser and schedule",
        "d": "all three: they were trained together",
    },
    answer="c",
    feedback={
        "a": "The network was trained with this schedule: it expects exactly this mix of image and noise at each t. "
        "The schedule says how much noise there is at a time t, not how many times are visited.",
        "b": "The denoiser answers one question, what was the clean image? That answer does not depend on how many "
        "times it is asked, and a new denoiser would have to be trained.",
        "d": "Only the denoiser was trained, and with one schedule. No sampler took part in its training.",
    },
    hints=["Which of the three decides which times are visited?", "Training is finished: what can change without it?"],
    explanation="The sampler chooses the times and the step. Training fixes schedule and denoiser, and never knows how "
    "many steps will be taken. That is why one network serves at 5, 15 or 1000 looks, and why faster samplers "
    "(notebook 04) need no new training.",
)

summary = Exercises(vars()).summary
