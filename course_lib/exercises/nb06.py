"""Exercises of notebook 06: the exact answer, replacement, a round of RePaint, the adjoint, 3 dB, zero convolutions."""

import math

import torch

from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number, prop

LEFT = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(2, 1, 4, 4)  # the left half is known
ONES, ZEROS = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
RAMP = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
WAVE = torch.sin(7 * RAMP)
BUMP = torch.cos(5 * RAMP + 1)


# ---- q1: the exact answer --------------------------------------------------------------------------------------------

q1 = number(
    "Two neighbouring voxels, each with mean 0 and standard deviation 1, have correlation $\\rho = 0.8$. You measure "
    "$x_1 = -2$. What is the exact mean of $x_2$ given that?",
    solution="0.8 * -2",
    mistakes=[
        (1.6, "Check the sign: a positive correlation pulls x_2 to the side of x_1."),
        (-2.0, "That is x_1 itself; the correlation is less than one, so x_2 falls back towards its mean."),
        (-1.28, "That is rho squared times x_1. The square belongs into the variance."),
        (-0.72, "That is (1 - rho^2) x_1; 1 - rho^2 is the variance that is left."),
        (-2.5, "Multiplied, not divided: the answer lies between the prior mean 0 and x_1."),
        (0.0, "That is the mean before the measurement."),
        (0.36, "That is the variance that is left, 1 - rho^2. Asked is the mean."),
        (0.6, "That is the standard deviation that is left. Asked is the mean."),
    ],
    hints=[
        "For a joint Gaussian, E[x_2 | x_1] is a straight line in x_1 through the origin.",
        "Its slope is the covariance over the variance of x_1: rho / 1.",
    ],
    explanation="E[x_2 | x_1] = rho x_1 = -1.6, with standard deviation sqrt(1 - rho^2) = 0.6 (Bishop, PRML 2006, "
    "eq. 2.81 and 2.82).",
)


# ---- q2: the replacement step ----------------------------------------------------------------------------------------


def replace(x_s, y, z, m, alpha, sigma):
    return m * (alpha * y + sigma * z) + (1 - m) * x_s


q2 = function(
    "Write `replace(x_s, y, z, m, alpha, sigma)`: the sampler has just made `x_s` at the level `alpha`, `sigma`. Put "
    "the known pixels `y` in (where the mask `m` is 1), noised with `z` to the same level, and leave the hole (`m` "
    "is 0) as it is.",
    solution=replace,
    tests=[
        case(
            "the hole",
            (RAMP, ONES, BUMP, ZEROS, 0.8, 0.6),
            "Nothing is known here: x_s must come back unchanged. Does noise leak into the hole? Mind the brackets.",
        ),
        case(
            "no noise left",
            (RAMP, WAVE, BUMP, LEFT, 1.0, 0.0),
            "At the end (alpha 1, sigma 0) the known pixels must be y itself, and the hole x_s. Is the mask the right "
            "way round?",
        ),
        case(
            "the signal",
            (ZEROS, WAVE, ZEROS, ONES, 0.8, 0.6),
            "Known pixels have the signal alpha y, as in any noisy image of that level.",
        ),
        case(
            "the noise", (RAMP, WAVE, BUMP, LEFT, 0.8, 0.6), "Known pixels need noise too: sigma z, and no power of it."
        ),
    ],
    mistakes=[
        mistake(lambda x_s, y, z, m, alpha, sigma: alpha * y + sigma * z, "the hole", "replaces all"),
        mistake(
            lambda x_s, y, z, m, alpha, sigma: m * alpha * y + sigma * z + (1 - m) * x_s,
            "the hole",
            "bracket forgotten",
        ),
        mistake(
            lambda x_s, y, z, m, alpha, sigma: (1 - m) * (alpha * y + sigma * z) + m * x_s, "the hole", "mask inverted"
        ),
        mistake(lambda x_s, y, z, m, alpha, sigma: m * (alpha * y + sigma * z) + x_s, "no noise left", "adds up"),
        mistake(lambda x_s, y, z, m, alpha, sigma: m * y + (1 - m) * x_s, "the signal", "known pixels left clean"),
        mistake(lambda x_s, y, z, m, alpha, sigma: m * alpha * y + (1 - m) * x_s, "the noise", "no noise"),
        mistake(lambda x_s, y, z, m, alpha, sigma: m * (alpha * y + sigma**2 * z) + (1 - m) * x_s, "the noise"),
    ],
    hints=[
        "What would the known pixels look like in a noisy image of this level?",
        "alpha y + sigma z, where m is 1; x_s, where m is 0.",
    ],
    explanation="Song et al. (ICLR 2021), app. I.2; Lugmayr et al. (CVPR 2022), eq. 8. The network has only ever seen "
    "images that are equally noisy everywhere: clean pixels in a noisy image would be new to it.",
)


# ---- q3: one round of RePaint ----------------------------------------------------------------------------------------


def one_round(step, x_t, y, z, w, m, t, s):
    (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s
    x_s = m * (alpha_s * y + sigma_s * z) + (1 - m) * step(x_t)
    ratio = alpha_t / alpha_s
    return ratio * x_s + (sigma_t**2 - ratio**2 * sigma_s**2) ** 0.5 * w


def _round(level="s", up="exact", scaled=True):
    """A round with its mistakes: the level of the known part, the noise on the way up, the factor on the way up."""

    def wrong(step, x_t, y, z, w, m, t, s):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s
        alpha, sigma = t if level == "t" else s
        x_s = m * (alpha * y + sigma * z) + (1 - m) * step(x_t)
        ratio = alpha_t / alpha_s
        noise = {
            "exact": (sigma_t**2 - ratio**2 * sigma_s**2) ** 0.5,
            "all": sigma_t,
            "difference": (sigma_t**2 - sigma_s**2) ** 0.5,
        }[up]
        return (ratio if scaled else 1.0) * x_s + noise * w

    return wrong


def _halve(x_t):
    """A stand-in for the sampler's step."""
    return 0.5 * x_t


def _ignore(x_t):
    """A step that draws zeros."""
    return 0 * x_t


HIGH, LOW = (0.6, 0.8), (0.8, 0.6)
q3 = function(
    "Someone's RePaint draws grey patches. One round of it goes from time t down to s and up to t again. It has two "
    "bugs. Mend it, as `one_round(step, x_t, y, z, w, m, t, s)`; `step(x_t)` draws the hole at time s, `z` and `w` are "
    "noise, `t` and `s` are pairs (alpha, sigma).\n\n"
    "```python\ndef one_round(step, x_t, y, z, w, m, t, s):\n    (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s\n"
    "    x_s = m * (alpha_t * y + sigma_t * z) + (1 - m) * step(x_t)\n    ratio = alpha_t / alpha_s\n"
    "    return ratio * x_s + sigma_t * w\n```",
    solution=one_round,
    tests=[
        case(
            "the known part",
            (_halve, RAMP, WAVE, BUMP, ZEROS, ONES, HIGH, LOW),
            "After the step the image is at time s, so the known part must have the noise level of s.",
        ),
        case(
            "the hole",
            (_halve, RAMP, WAVE, BUMP, ZEROS, ZEROS, HIGH, LOW),
            "The hole comes from step(x_t), and is scaled by alpha_t / alpha_s on the way up.",
        ),
        case(
            "the noise on the way up",
            (_ignore, RAMP, ZEROS, ZEROS, WAVE, ZEROS, HIGH, LOW),
            "x_s has noise of its own. Variances add: what is missing is sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2.",
        ),
    ],
    mistakes=[
        mistake(_round("t", "all"), "the known part", "both bugs"),
        mistake(_round("t", "exact"), "the known part", "the level of the known part"),
        mistake(_round("s", "exact", scaled=False), "the known part", "no factor on the way up"),
        mistake(
            lambda step, x_t, y, z, w, m, t, s: one_round(lambda x: x, x_t, y, z, w, m, t, s), "the hole", "no step"
        ),
        mistake(_round("s", "all"), "the noise on the way up", "all the noise of t on top"),
        mistake(_round("s", "difference"), "the noise on the way up", "the factor is left out of the variance"),
    ],
    hints=[
        "Write beside each line at which time its result lives: t, s, t.",
        "The first bug is in the line of x_s. The second is the noise of the last line.",
        "Compare with the forward step of notebook 03: variance sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2.",
    ],
    explanation="Lugmayr et al. (CVPR 2022), Algorithm 1: the known part at the level of the time just reached, then "
    "one forward step back up. With either bug the image is noisier than the network is told, and it answers with "
    "the mean of many brains.",
)


# ---- q4: the adjoint -------------------------------------------------------------------------------------------------


def adjoint(y):
    return torch.kron(y, torch.ones(2, 2)) / 4


CORNER = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
MEANS = RAMP[0, 0].reshape(2, 2, 2, 2).mean((1, 3))  # A x of an image (4, 4)
SMALL = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
q4 = function(
    "Downsampling takes the mean over squares of 2 x 2 pixels. Write its adjoint, `adjoint(y)`: from a tensor (h, w) "
    "to one (2h, 2w), so that $\\langle A x, y\\rangle = \\langle x, A^T y\\rangle$ for all x and y.",
    solution=adjoint,
    tests=[
        case(
            "one pixel",
            (torch.ones(1, 1),),
            "One pixel y = 1 becomes a square of 2 x 2 pixels. Ask: by how much does each of the four change A x?",
        ),
        case(
            "its place", (CORNER,), "Each value of y must land on its own square, and on no other: nearest, not smooth."
        ),
        prop(
            "inner product",
            lambda f: abs((MEANS * SMALL).sum() - (RAMP[0, 0] * torch.as_tensor(f(SMALL))).sum()) < 1e-5,
            "<A x, y> and <x, A^T y> differ. Do rows stay rows?",
        ),
    ],
    mistakes=[
        mistake(lambda y: torch.kron(y, torch.ones(2, 2)), "one pixel", "the pseudo-inverse"),
        mistake(lambda y: torch.kron(y, torch.ones(2, 2)) / 2, "one pixel", "the square root"),
        mistake(lambda y: torch.kron(y, torch.tensor([[1.0, 0.0], [0.0, 0.0]])), "one pixel", "one corner"),
        mistake(lambda y: torch.kron(torch.ones(2, 2), y) / 4, "its place", "tiles the whole image"),
        mistake(lambda y: torch.kron(y.T.contiguous(), torch.ones(2, 2)) / 4, "inner product", "transposed"),
    ],
    hints=[
        "Write A for one square as a row: (1/4, 1/4, 1/4, 1/4). What is its transpose?",
        "Each value of y goes to the four pixels of its square, divided by 4.",
        "torch.kron(y, torch.ones(2, 2)) repeats each value on a square.",
    ],
    explanation="The transpose of (1/4, 1/4, 1/4, 1/4) sends y to y/4 on each of the four pixels. The pseudo-inverse "
    "sends it to y itself: A A^+ y = y, while A A^T y = y/4.",
)


# ---- q5: 3 dB --------------------------------------------------------------------------------------------------------

q5 = number(
    "An L2 network that reaches the smallest possible error scores a PSNR of 30 dB. A perfect posterior sampler draws "
    "four samples, and you take their mean. What PSNR does that score, in dB? Give two decimals.",
    solution="30 - 10 * math.log10(1 + 1 / 4)",
    mistakes=[
        (30 - 10 * math.log10(2), "That is one sample: twice the error. The mean of K has (1 + 1/K) times the least."),
        (30.0, "That takes infinitely many samples."),
        (29.0, "Close: give two decimals."),
        (30 - 20 * math.log10(1.25), "PSNR goes with 10 log10 of the squared error."),
        (30 + 10 * math.log10(1.25), "No estimate has a smaller squared error than the posterior mean."),
        (24.0, "The error is not multiplied by K but by 1 + 1/K."),
        (30 - 10 * math.log10(1 + 1 / 16), "The variance of a mean of K falls with 1/K, not with 1/K^2."),
    ],
    hints=[
        "Error of the mean of K samples = error of the posterior mean + variance of the mean of K samples.",
        "For a perfect posterior sampler the variance of one sample equals the error of the posterior mean.",
        "So the squared error is (1 + 1/4) of the least. What is that in decibel?",
    ],
    explanation="MSE = (1 + 1/K) of the least: 1.25 times for K = 4, which costs 10 log10(1.25) = 0.97 dB. One sample "
    "costs 3.01 dB.",
    rtol=0.001,
)


# ---- q6: zero convolutions -------------------------------------------------------------------------------------------

q6 = choice(
    "A fresh ControlNet is put on a trained network: a copy of its encoder, and every output passes through a "
    "convolution whose weights are zero. Before any training, what does the whole draw when it is given a map?",
    {
        "a": "noise, since the new layers are untrained",
        "b": "exactly what the base network draws, whatever the map",
        "c": "the map's outline, faintly",
        "d": "nothing that ever changes: zero weights get zero gradients",
    },
    answer="b",
    feedback={
        "a": "What do untrained layers add if their last convolution is zero?",
        "c": "The map enters the copy, but what leaves the copy is multiplied by zero.",
        "d": "The gradient of a weight is its input times the gradient from above. The input is not zero.",
    },
    hints=["What does a convolution with zero weights and zero bias give out?", "Base + 0 = ?"],
    explanation="The residuals are zero, so the output is the base's, bit for bit: training starts at a network that "
    "already draws. The weights do learn, as their input is not zero (Zhang et al., ICCV 2023, sec. 3.1).",
)

summary = Exercises(vars()).summary
