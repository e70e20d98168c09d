"""Exercises of notebook 06: the exact answer, replacement, a round of RePaint, the adjoint, 3 dB, zero convolutions."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number, prop

LEFT = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(2, 1, 4, 4)  # the left half is known
ONES, ZEROS = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
RAMP = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
WAVE = torch.sin(7 * RAMP)
BUMP = torch.cos(5 * RAMP + 1)


# ---- q1: the exact answer --------------------------------------------------------------------------------------------

q1 = number(
    r"""Two neighbouring voxels, each with mean 100 and standard deviation 20, have correlation $\rho = 0.8$.
    You measure only the first, with independent noise of standard deviation 20, and read $y = 50$.
    What is the exact mean of $x_2$ given that?""",
    solution="100 + 0.8 * 20**2 / (20**2 + 20**2) * (50 - 100)",
    mistakes=[
        (60, "That takes y for x_1. Half of y's variance is noise, so y says less of both voxels."),
        (75, "That is the mean of x_1. The second voxel follows it by rho only."),
        (84, "That squares rho. The square belongs into the variance."),
        (120, "Check the sign: a positive correlation pulls x_2 to the side of y."),
        (40, "That is 0.8 y. The line passes through the means, 100 and 100, and the noise makes it flatter."),
        (20, "50 is no deviation: it lies 50 below the mean of 100."),
        (50, "That is y itself; noise and a correlation below one both draw the answer back to the mean."),
        (100, "That is the mean before the measurement."),
        (
            71.7,
            """0.8 is the correlation with x_1. With y it is smaller, as y has noise: the slope is the covariance over
            the variance of y, which has two parts.""",
        ),
        (90, "Standard deviations do not add: the variance of y is 20^2 + 20^2."),
        (87.5, "Weigh with the covariance over the variance of y, which has two parts."),
    ],
    also_right=["80,0", np.float32(80)],
    hints=[
        "For a joint Gaussian, E[x_2 | y] is a straight line in y that passes through the means.",
        "Its slope is the covariance of x_2 and y over the variance of y; the noise adds to the latter alone.",
        "The slope is 0.8 * 400 / (400 + 400) = 0.4.",
    ],
    explanation="""100 + 0.4 (50 - 100) = 80 (Bishop, PRML 2006, eq. 2.81 and 2.82). Two things draw the answer back to
    the prior mean: the noise, by 1/2, and the correlation, by 0.8. Without noise this is rho x_1 of the text.""",
)


# ---- q2: the replacement step ----------------------------------------------------------------------------------------


def replace(x_s, y, z, m, alpha, sigma, sigma_y):
    lacking = (sigma**2 - (alpha * sigma_y) ** 2).clamp(min=0).sqrt()
    return m * (alpha * y + lacking * z) + (1 - m) * x_s


def _known(noisy):
    """`replace` with something else in the place of the known pixels."""
    return lambda x_s, y, z, m, alpha, sigma, sigma_y: m * noisy(y, z, alpha, sigma, sigma_y) + (1 - m) * x_s


def _added(noise):
    """`replace` with another factor of z, a function of alpha, sigma and sigma_y, 0 where that is below 0."""
    return _known(lambda y, z, alpha, *levels: alpha * y + noise(alpha, *levels).clamp(min=0) * z)


def _noisier(noisy):
    """`replace` with something else in the place of the known pixels where alpha y is noisier than the level."""

    def known(y, z, alpha, sigma, sigma_y):
        lacking = sigma**2 - (alpha * sigma_y) ** 2
        return noisy(y, z, alpha, sigma) if lacking < 0 else alpha * y + lacking**0.5 * z

    return _known(known)


q2 = function(
    """The known pixels were measured, and the measurement has noise of its own: y = x_0 + sigma_y n. Write
    `replace(x_s, y, z, m, alpha, sigma, sigma_y)`: the sampler has just made `x_s` at the level `alpha`, `sigma`. Put
    the known pixels in (where the mask `m` is 1) with the signal and the noise of that level, drawing from `z` only
    what is **lacking**; where alpha y is noisier than the level, draw nothing. Leave the hole (`m` is 0) as it is.""",
    solution=replace,
    tests=[
        case(
            "the hole",
            (RAMP, ONES, BUMP, ZEROS, 0.8, 0.6, 0.5),
            "Nothing is known here: x_s must come back unchanged. Does noise leak into the hole? Mind the brackets.",
        ),
        case(
            "a clean measurement",
            (RAMP, WAVE, BUMP, LEFT, 0.8, 0.6, 0.0),
            """With sigma_y = 0 it is the formula of the text: signal alpha y, as in any noisy image of that level, and
            noise sigma z, no power of it. Is the mask the right way round? Clamp no picture.""",
        ),
        case(
            "what is lacking",
            (RAMP, WAVE, BUMP, LEFT, 0.8, 0.6, 0.5),
            """alpha y brings noise of variance (alpha sigma_y)^2 = 0.16 along; the level has sigma^2 = 0.36.
            Independent noises add up by variances: what has z to bring?""",
        ),
        case(
            "noisier than the level",
            (RAMP, WAVE, BUMP, LEFT, 0.96, 0.28, 0.5),
            """Here alpha y brings 0.48, the level has 0.28: nothing is drawn, and the known pixels are alpha y. The
            root of a negative number is none.""",
        ),
        case(
            "what alpha leaves of it",
            (RAMP, WAVE, BUMP, LEFT, 0.6, 0.8, 1.0),
            """sigma_y = 1 is above the level's 0.8, but alpha y has alpha sigma_y = 0.6: noise is lacking here, and z
            brings it.""",
        ),
    ],
    mistakes=[
        mistake(lambda x_s, y, z, m, *levels: replace(x_s, y, z, ONES, *levels), "the hole", "replaces all"),
        mistake(
            lambda x_s, y, z, m, alpha, sigma, sigma_y: m * alpha * y + sigma * z + (1 - m) * x_s,
            "the hole",
            "bracket forgotten",
        ),
        mistake(lambda x_s, y, z, m, *levels: replace(x_s, y, z, 1 - m, *levels), "the hole", "mask inverted"),
        mistake(
            lambda x_s, y, z, m, *levels: replace(x_s, y, z, m, *levels) + m * x_s, "a clean measurement", "adds up"
        ),
        mistake(_known(lambda y, z, *levels: y), "a clean measurement", "known pixels left as they are"),
        mistake(_known(lambda y, z, alpha, *levels: alpha * y), "a clean measurement", "no noise"),
        mistake(_known(lambda y, z, alpha, sigma, sigma_y: alpha * y + sigma**2 * z), "a clean measurement"),
        mistake(_known(lambda y, z, alpha, sigma, sigma_y: sigma * y + alpha * z), "a clean measurement", "swapped"),
        mistake(_known(lambda y, z, alpha, sigma, sigma_y: alpha * y - sigma * z), "a clean measurement", "a minus"),
        mistake(
            lambda x_s, y, z, m, alpha, *levels: replace(alpha * x_s, y, z, m, alpha, *levels), "the hole", "scaled"
        ),
        mistake(
            _known(lambda y, z, alpha, sigma, sigma_y: alpha * y + sigma * z), "what is lacking", "as if y were clean"
        ),
        mistake(_added(lambda alpha, sigma, sigma_y: (sigma**2 - sigma_y**2).clamp(min=0) ** 0.5), "what is lacking"),
        mistake(_added(lambda alpha, sigma, sigma_y: sigma - alpha * sigma_y), "what is lacking", "not by variances"),
        mistake(
            _added(lambda alpha, sigma, sigma_y: sigma**2 - (alpha * sigma_y) ** 2), "a clean measurement", "no root"
        ),
        mistake(
            _added(lambda alpha, sigma, sigma_y: (sigma**2 + (alpha * sigma_y) ** 2) ** 0.5),
            "what is lacking",
            "a plus",
        ),
        mistake(
            _known(lambda y, z, alpha, sigma, sigma_y: alpha * (y + sigma_y * z) + sigma * z),
            "what is lacking",
            "the noise of y drawn again",
        ),
        mistake(
            _known(lambda y, z, alpha, sigma, sigma_y: alpha * y + (sigma**2 - (alpha * sigma_y) ** 2) ** 0.5 * z),
            "noisier than the level",
            "the root of a negative number",
        ),
        mistake(
            _known(
                lambda y, z, alpha, sigma, sigma_y: alpha * y + (sigma**2 - (alpha * sigma_y) ** 2).abs() ** 0.5 * z
            ),
            "noisier than the level",
            "the root of its size",
        ),
        mistake(
            _noisier(lambda y, z, alpha, sigma: alpha * y + sigma * z),
            "noisier than the level",
            "the noise of the text",
        ),
        mistake(_noisier(lambda y, z, alpha, sigma: y), "noisier than the level", "y for alpha y"),
        mistake(
            _added(lambda alpha, sigma, sigma_y: (sigma > sigma_y) * (sigma**2 - (alpha * sigma_y) ** 2).abs() ** 0.5),
            "what alpha leaves of it",
            "y compared with the level, not alpha y",
        ),
        mistake(lambda *args: replace(*args).clamp(-1, 1), "a clean measurement", "clamped"),
    ],
    also_right=[
        lambda x_s, y, z, m, alpha, sigma, sigma_y: torch.where(
            m > 0, alpha * y + max(float(sigma**2 - alpha**2 * sigma_y**2), 0.0) ** 0.5 * z, x_s
        ),
        lambda x_s, y, z, m, alpha, sigma, sigma_y: (
            x_s + m * (alpha * y + torch.relu(sigma**2 - (alpha * sigma_y) ** 2) ** 0.5 * z - x_s)
        ),
        lambda x_s, y, z, m, alpha, sigma, sigma_y: np.where(
            m > 0, float(alpha) * y + np.sqrt(max(0.0, float(sigma**2 - (alpha * sigma_y) ** 2))) * z, x_s
        ),
    ],
    hints=[
        "What would the known pixels look like in a noisy image of this level? What noise does alpha y have already?",
        "The variance of z's part is sigma^2 - (alpha sigma_y)^2, and 0 where that is negative.",
    ],
    explanation="""With sigma_y = 0: Song et al. (ICLR 2021), app. I.2; Lugmayr et al. (CVPR 2022), eq. 8. The network
    has only ever seen images that are equally noisy everywhere: clean pixels in a noisy image would be new to it. At
    the end the known pixels are y, its noise included: to weigh the measurement against the prior is notebook 09.""",
)


# ---- q3: one round of RePaint ----------------------------------------------------------------------------------------


def one_round(step, x_t, y, z, w, m, t, s):
    (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s
    x_s = m * (alpha_s * y + sigma_s * z) + (1 - m) * step(x_t)
    ratio = alpha_t / alpha_s
    return ratio * x_s + (sigma_t**2 - ratio**2 * sigma_s**2) ** 0.5 * w


def _halve(x_t):
    """A stand-in for the sampler's step."""
    return 0.5 * x_t


def _ignore(x_t):
    """A step that draws zeros."""
    return 0 * x_t


def _missing(t, s, ratio):
    return (t[1] ** 2 - ratio**2 * s[1] ** 2) ** 0.5


def _round(known=lambda t, s: s, scale=lambda t, s: t[0] / s[0], noise=_missing):
    """`one_round` with another level of the known part, or another factor or noise on the way up."""

    def wrong(step, x_t, y, z, w, m, t, s):
        alpha, sigma = known(t, s)
        x_s = m * (alpha * y + sigma * z) + (1 - m) * step(x_t)
        return scale(t, s) * x_s + noise(t, s, t[0] / s[0]) * w

    return wrong


HIGH, LOW = (0.28, 0.96), (0.6, 0.8)

q3 = function(
    """Someone's RePaint draws grey patches. One round of it goes from time t down to s and up to t again.
    It has two bugs. Mend it, as `one_round(step, x_t, y, z, w, m, t, s)`; `step(x_t)` draws the hole at time s, `z` and
    `w` are noise, `t` and `s` are pairs (alpha, sigma).

    ```python
    def one_round(step, x_t, y, z, w, m, t, s):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s
        x_s = m * (alpha_t * y + sigma_t * z) + (1 - m) * step(x_t)
        ratio = alpha_t / alpha_s
        return ratio * x_s + sigma_t * w
    ```""",
    solution=one_round,
    tests=[
        case(
            "the hole",
            (_halve, RAMP, WAVE, ZEROS, ZEROS, ZEROS, HIGH, LOW),
            """The hole comes from step(x_t), and is scaled by alpha_t / alpha_s on the way up. Is the mask
            the right way round?""",
        ),
        case(
            "the known part",
            (_halve, RAMP, WAVE, BUMP, ZEROS, ONES, HIGH, LOW),
            """After the step the image is at time s, so the known part must have the noise level of s; its noise is z
            (w is for the way up).""",
        ),
        case(
            "the noise on the way up",
            (_ignore, RAMP, ZEROS, ZEROS, WAVE, ZEROS, HIGH, LOW),
            """x_s brings noise of its own, scaled by the ratio. Variances add: how much is missing to sigma_t^2? And
            take its root.""",
        ),
    ],
    mistakes=[
        mistake(_round(known=lambda t, s: t, noise=lambda t, s, ratio: t[1]), "the known part", "both bugs"),
        mistake(_round(known=lambda t, s: t), "the known part", "the level of the known part"),
        mistake(_round(scale=lambda t, s: 1.0), "the hole", "no factor on the way up"),
        mistake(lambda step, *others: one_round(lambda x_t: x_t, *others), "the hole", "no step"),
        mistake(_round(noise=lambda t, s, ratio: t[1]), "the noise on the way up", "all the noise of t on top"),
        mistake(
            _round(noise=lambda t, s, ratio: (t[1] ** 2 - s[1] ** 2) ** 0.5),
            "the noise on the way up",
            "the factor is left out of the variance",
        ),
        mistake(
            lambda step, x_t, y, z, w, *others: one_round(step, x_t, y, w, z, *others),
            "the known part",
            "the two noises swapped",
        ),
        mistake(lambda step, x_t, y, z, w, m, t, s: one_round(step, x_t, y, z, w, 1 - m, t, s), "the hole", "mask"),
        mistake(
            _round(scale=lambda t, s: s[1] / t[1], noise=lambda t, s, ratio: _missing(t, s, s[1] / t[1])),
            "the hole",
            "sigmas for alphas",
        ),
        mistake(
            _round(noise=lambda t, s, ratio: _missing(t, s, ratio) ** 2),
            "the noise on the way up",
            "a variance for its root",
        ),
    ],
    also_right=[
        lambda step, x_t, y, z, w, m, t, s: (
            t[0] / s[0] * torch.where(m == 1, s[0] * y + s[1] * z, step(x_t)) + torch.sqrt(1 - (t[0] / s[0]) ** 2) * w
        ),
        lambda step, x_t, y, z, w, m, t, s: (
            t[0] / s[0] * (m * (s[0] * y + s[1] * z) + (1 - m) * step(x_t))
            + math.sqrt(t[1] ** 2 - (t[0] / s[0]) ** 2 * s[1] ** 2) * w
        ),
    ],
    hints=[
        "Write beside each line at which time its result lives: t, s, t.",
        "The first bug is in the line of x_s. The second is the noise of the last line.",
        "Compare with the forward step of notebook 03: variance sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2.",
    ],
    explanation="""Lugmayr et al. (CVPR 2022), Algorithm 1: the known part at the level of the time just reached, then
    one forward step back up. With either bug the image is noisier than the network is told, and it answers with the
    mean of many brains.""",
)


# ---- q4: the adjoint -------------------------------------------------------------------------------------------------


def adjoint(y):
    return torch.kron(y, torch.ones(2, 2)) / 4


CORNER = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
MEANS = RAMP[0, 0].reshape(2, 2, 2, 2).mean((1, 3))  # A x of an image (4, 4)
SMALL = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
q4 = function(
    r"""Downsampling takes the mean over squares of 2 x 2 pixels. Write its adjoint, `adjoint(y)`: from a tensor (h, w)
    to one (2h, 2w), so that $\langle A x, y\rangle = \langle x, A^T y\rangle$ for all x and y.""",
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
            lambda f: abs((MEANS * SMALL).sum() - (RAMP[0, 0] * f(SMALL)).sum()) < 1e-5,
            "<A x, y> and <x, A^T y> differ. Do rows stay rows?",
        ),
        case(
            "not square",
            (torch.arange(6.0).reshape(2, 3),),
            "From (2, 3) it must come to (4, 6): the two sides are not always equal.",
        ),
    ],
    mistakes=[
        mistake(lambda y: torch.kron(y, torch.ones(2, 2)), "one pixel", "the pseudo-inverse"),
        mistake(lambda y: torch.kron(y, torch.ones(2, 2)) / 2, "one pixel", "the square root"),
        mistake(lambda y: torch.kron(y, torch.tensor([[1.0, 0.0], [0.0, 0.0]])), "one pixel", "one corner"),
        mistake(lambda y: torch.kron(torch.ones(2, 2), y) / 4, "its place", "tiles the whole image"),
        mistake(lambda y: torch.kron(y.T.contiguous(), torch.ones(2, 2)) / 4, "inner product", "transposed"),
        mistake(
            lambda y: torch.kron(y, torch.ones(2, 2))[: 2 * len(y), : 2 * len(y)] / 4, "not square", "squares alone"
        ),
        mistake(
            lambda y: F.interpolate(y[None, None], scale_factor=2, mode="bilinear")[0, 0] / 4, "its place", "smooth"
        ),
        mistake(lambda y: y.repeat_interleave(2, 0) / 2, "shape", "one direction"),
        mistake(lambda y: torch.kron(y.flip(0), torch.ones(2, 2)) / 4, "its place", "upside down"),
    ],
    also_right=[
        lambda y: y.repeat_interleave(2, 0).repeat_interleave(2, 1) / 4,
        lambda y: np.kron(y.numpy(), np.full((2, 2), 0.25)),
        lambda y: F.interpolate(y[None, None], scale_factor=2, mode="nearest")[0, 0] / 4,
        lambda y: F.conv_transpose2d(y[None, None], torch.full((1, 1, 2, 2), 0.25), stride=2)[0, 0],
    ],
    hints=[
        "Write A for one square as a row: (1/4, 1/4, 1/4, 1/4). What is its transpose?",
        "Each value of y goes to the four pixels of its square, divided by 4.",
        "torch.kron(y, torch.ones(2, 2)) repeats each value on a square.",
    ],
    explanation="""The transpose of (1/4, 1/4, 1/4, 1/4) sends y to y/4 on each of the four pixels.
    The pseudo-inverse sends it to y itself: A A^+ y = y, while A A^T y = y/4.""",
)


# ---- q5: 3 dB --------------------------------------------------------------------------------------------------------

q5 = number(
    """An L2 network that reaches the smallest possible error scores a PSNR of 30 dB. A perfect posterior sampler draws
    four samples, and you take their mean. What PSNR does that score, in dB? Give two decimals.""",
    solution="30 - 10 * math.log10(1 + 1 / 4)",
    mistakes=[
        (30 - 10 * math.log10(2), "That is one sample: twice the error. The mean of K has (1 + 1/K) times the least."),
        (30.0, "That takes infinitely many samples."),
        (29.0, "Close, but not to two decimals."),
        (30 - 20 * math.log10(1.25), "PSNR goes with 10 log10 of the squared error."),
        (30 + 10 * math.log10(1.25), "No estimate has a smaller squared error than the posterior mean."),
        (24.0, "The error is not multiplied by K but by 1 + 1/K."),
        (30 - 10 * math.log10(1 + 1 / 16), "The variance of a mean of K falls with 1/K, not with 1/K^2."),
    ],
    also_right=["29.03", "29,03", 30 + 10 * math.log10(4 / 5)],
    hints=[
        "Error of the mean of K samples = error of the posterior mean + variance of the mean of K samples.",
        "For a perfect posterior sampler the variance of one sample equals the error of the posterior mean.",
        "So the squared error is (1 + 1/4) of the least. What is that in decibel?",
    ],
    explanation="""MSE = (1 + 1/K) of the least: 1.25 times for K = 4, which costs 10 log10(1.25) = 0.97 dB.
    One sample costs 3.01 dB.""",
    rtol=0.0004,
)


# ---- q6: zero convolutions -------------------------------------------------------------------------------------------

q6 = choice(
    """A fresh ControlNet is put on a trained network: a copy of its encoder, and every output passes through a
    convolution whose weights are zero. Before any training, what does the whole draw when it is given a map?""",
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
    explanation="""The residuals are zero, so the output is the base's, bit for bit: training starts at a network that
    already draws. The weights do learn, as their input is not zero (Zhang et al., ICCV 2023, sec. 3.1).""",
)

summary = Exercises(vars()).summary
