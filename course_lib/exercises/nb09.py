"""Exercises of notebook 09: the adjoint of a scan, acceleration, the missing covariance, coverage, an unseen lesion."""

import numpy as np
import torch

from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number, prop

RAMP = torch.linspace(-1, 1, 48).reshape(6, 8)
WAVE = torch.sin(7 * RAMP) + 0.3
ALL, SOME = torch.ones(8), torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
SPECTRUM = torch.complex(WAVE, torch.cos(5 * RAMP + 1))


# ---- q1: the adjoint of a scan ---------------------------------------------------------------------------------------


def adjoint(y, lines):
    return torch.fft.ifft2(lines * y, norm="ortho").real


def _keeps_inner_product(f):
    y = SPECTRUM
    left = (SOME * torch.fft.fft2(RAMP, norm="ortho") * y.conj()).sum().real
    return abs(left - (RAMP * f(y, SOME)).sum()) < 1e-4


q1 = function(
    r"""A scanner measures `A(x) = lines * torch.fft.fft2(x, norm="ortho")`: the Fourier transform of a real picture
    x (H, W), on the columns where `lines` (W,) is 1. Write its adjoint, `adjoint(y, lines)`: a real picture from a
    complex measurement y, so that $\mathrm{Re}\,\langle A x, y\rangle = \langle x, A^T y\rangle$ for every real x and
    every complex y.""",
    solution=adjoint,
    tests=[
        case(
            "all lines",
            (torch.fft.fft2(RAMP, norm="ortho"), ALL),
            "With all lines the orthonormal transform loses nothing: A^T A x must be x itself.",
        ),
        prop(
            "inner product",
            _keeps_inner_product,
            """Re <A x, y> and <x, A^T y> differ. What y says where nothing was measured cannot matter, and nothing is
            made up for missing lines.""",
        ),
    ],
    mistakes=[
        mistake(lambda y, lines: torch.fft.fft2(lines * y, norm="ortho").real, "all lines", "forward again"),
        mistake(lambda y, lines: torch.fft.ifft2(lines * y).real, "all lines", "another norm"),
        mistake(lambda y, lines: torch.fft.ifft2(lines * y, norm="ortho").abs(), "all lines", "magnitude"),
        mistake(lambda y, lines: torch.fft.ifft2(y, norm="ortho").real, "inner product", "no mask"),
        mistake(
            lambda y, lines: torch.fft.ifft2(lines * y, norm="ortho").real * len(lines) / lines.sum(),
            "inner product",
            "made up for missing lines",
        ),
        mistake(lambda y, lines: torch.fft.ifft2(lines * y.conj(), norm="ortho").real, "all lines", "conjugated"),
        mistake(
            lambda y, lines: lines * torch.fft.ifft2(y, norm="ortho").real, "inner product", "a mask on the picture"
        ),
        mistake(
            lambda y, lines: torch.fft.ifft2(lines * y.real, norm="ortho").real, "all lines", "real part too early"
        ),
        mistake(lambda y, lines: torch.fft.ifft2(lines * y, norm="ortho").imag, "all lines", "imaginary part"),
        mistake(
            lambda y, lines: torch.fft.ifft2((1 - lines) * y, norm="ortho").real, "all lines", "the lines not measured"
        ),
        mistake(lambda y, lines: torch.fft.ifft(lines * y, norm="ortho").real, "all lines", "one direction"),
    ],
    also_right=[
        lambda y, lines: torch.fft.fft2((lines * y).conj(), norm="ortho").conj().real,
        lambda y, lines: torch.real(torch.fft.ifft2(y * lines[None], norm="ortho")),
        lambda y, lines: np.fft.ifft2(lines.numpy() * y.numpy(), norm="ortho").real,
        lambda y, lines: torch.fft.ifft2(torch.where(lines > 0, y, 0)).real * y.numel() ** 0.5,
    ],
    hints=[
        "The adjoint of a product is the product of the adjoints, in reverse order.",
        "A diagonal of zeros and ones is its own adjoint; that of the orthonormal transform is its inverse.",
        "x is real: only the real part of what comes back is paired with it.",
    ],
    explanation="""A = M F, so its adjoint is F^-1 M followed by the real part. This is the zero-filled picture.
    A magnitude instead of the real part is not linear, and no adjoint of anything.""",
)


# ---- q2: acceleration ------------------------------------------------------------------------------------------------

q2 = number(
    r"""A paper simulates a scan: it takes real-valued magnitude pictures with 128 phase-encoding lines and keeps 32 of
    them, all from the left half of k-space, none in the middle or at the edge. It reports R = 4. The picture is real,
    so $y(-k) = \overline{y(k)}$. What is R in truth: all lines over the lines that are **known**?""",
    solution="128 / (2 * 32)",
    mistakes=[
        (4, "That counts the measured lines. Each of them also tells its mirror line."),
        (8, "Knowing more lines lowers R."),
        (64, "That is the number of lines known. R is the number of all lines over it."),
        (1, "All lines would be known from one whole half, 64 lines."),
        (0.5, "Upside down: R is all lines over known lines."),
    ],
    also_right=[2.0, "2", 128 / 64],
    hints=["How many lines does a line on the left make known?", "32 measured, 32 mirrored."],
    explanation="""64 of 128 lines are known: R = 2. True scans have phase, from coils, field and flow, and give no line
    for nothing. The course measures k and -k together, so that a picture without phase gains nothing.""",
)


# ---- q3: the missing covariance --------------------------------------------------------------------------------------


def posterior_denoiser(x_t, y, alpha, sigma, sigma_y):
    D = alpha * x_t / (alpha**2 + sigma**2)
    r2 = sigma**2 / (alpha**2 + sigma**2)
    return D + r2 / (r2 + sigma_y**2) * (y - D)


def _with(gain):
    """A denoiser with another gain(r2, alpha, sigma, sigma_y)."""

    def wrong(x_t, y, alpha, sigma, sigma_y):
        D = alpha * x_t / (alpha**2 + sigma**2)
        return D + gain(sigma**2 / (alpha**2 + sigma**2), alpha, sigma, sigma_y) * (y - D)

    return wrong


LINE = torch.linspace(-2, 2, 8)
q3 = function(
    r"""One pixel, $x_0 \sim \mathcal N(0, 1)$, so that given $x_t$ it has mean
    $D = \alpha x_t / (\alpha^2 + \sigma^2)$ and variance $r_t^2 = \sigma^2 / (\alpha^2 + \sigma^2)$.
    It is also measured: $y = x_0 + n$, with noise of standard deviation $\sigma_y$.
    Write `posterior_denoiser(x_t, y, alpha, sigma, sigma_y)`, the exact $\mathbb E[x_0 \mid x_t, y]$.""",
    solution=posterior_denoiser,
    tests=[
        case(
            "a useless measurement",
            (LINE, 1.5, 0.8, 0.6, 1e6),
            "With huge sigma_y the answer is D, without y, and D = alpha x_t / (alpha^2 + sigma^2).",
        ),
        case("a perfect measurement", (LINE, 1.5, 0.8, 0.6, 1e-7), "With sigma_y near 0 the answer is y, for any x_t."),
        case(
            "the gain",
            (LINE, 1.5, 0.8, 0.6, 0.5),
            "Between them: the gain weighs the two variances, r_t^2 of what x_t says and sigma_y^2 of the measurement.",
        ),
        case("another schedule", (LINE, 1.5, 1.0, 2.0, 0.5), "It must hold where alpha^2 + sigma^2 is not 1, too."),
    ],
    mistakes=[
        mistake(_with(lambda r2, a, s, v: r2 / v**2), "a perfect measurement", "DPS: the covariance is missing"),
        mistake(_with(lambda r2, a, s, v: r2**0.5 / (r2**0.5 + v)), "the gain", "standard deviations, not variances"),
        mistake(_with(lambda r2, a, s, v: v**2 / (r2 + v**2)), "a useless measurement", "the wrong way round"),
        mistake(_with(lambda r2, a, s, v: s**2 / (s**2 + v**2)), "another schedule", "sigma^2 for r_t^2"),
        mistake(
            _with(lambda r2, a, s, v: s**2 / a**2 / (s**2 / a**2 + v**2)), "the gain", "DiffPIR: sigma^2 / alpha^2"
        ),
        mistake(_with(lambda r2, a, s, v: 1 / (1 + v**2)), "the gain", "ignores x_t"),
        mistake(_with(lambda r2, a, s, v: r2 / (r2 + v)), "the gain", "sigma_y not squared"),
        mistake(_with(lambda r2, a, s, v: r2**2 / (r2**2 + v**2)), "the gain", "r_t^2 squared once more"),
        mistake(_with(lambda r2, a, s, v: 1.0), "a useless measurement", "the measurement alone"),
        mistake(_with(lambda r2, a, s, v: (r2 / (r2 + v**2)) ** 0.5), "the gain", "a root of the gain"),
        mistake(
            lambda x_t, y, alpha, sigma, sigma_y: alpha * x_t + sigma**2 / (sigma**2 + sigma_y**2) * (y - alpha * x_t),
            "another schedule",
            "variance-preserving alone",
        ),
        mistake(
            lambda x_t, y, alpha, sigma, sigma_y: x_t / alpha + sigma**2 / (sigma**2 + sigma_y**2) * (y - x_t / alpha),
            "a useless measurement",
            "x_t / alpha for D",
        ),
        mistake(
            lambda x_t, y, alpha, sigma, sigma_y: x_t + sigma**2 / (sigma**2 + sigma_y**2) * (y - x_t),
            "a useless measurement",
            "x_t for D",
        ),
    ],
    also_right=[
        lambda x_t, y, alpha, sigma, sigma_y: (
            (alpha / sigma**2 * x_t + y / sigma_y**2) / (1 + alpha**2 / sigma**2 + 1 / sigma_y**2)
        ),
        lambda x_t, y, alpha, sigma, sigma_y: (
            (torch.square(sigma_y) * alpha * x_t + torch.square(sigma) * y)
            / (sigma**2 + sigma_y**2 * (alpha**2 + sigma**2))
        ),
        lambda x_t, y, alpha, sigma, sigma_y: [
            posterior_denoiser(float(x), float(y), float(alpha), float(sigma), float(sigma_y)) for x in x_t
        ],
    ],
    hints=[
        "Two independent pieces of news about x_0: D with variance r_t^2, and y with variance sigma_y^2.",
        "Weigh each by the inverse of its variance, or start at D and go part of the way to y.",
        "The part is r_t^2 / (r_t^2 + sigma_y^2).",
    ],
    explanation="""DPS has r_t^2 / sigma_y^2 in this place: as if x_0 were known to be D.
    Where r_t^2 is larger than sigma_y^2 that oversteps y. PiGDM puts r_t^2 back into the denominator.""",
)


# ---- q4: coverage ----------------------------------------------------------------------------------------------------

q4 = number(
    """You draw K = 9 samples from the **exact** posterior and take each pixel's range, from the smallest to the largest
    of the nine. In what share of the pixels does the truth lie in its range? (The truth is one more such draw.)""",
    solution="8 / 10",
    share=True,
    mistakes=[
        (0.9, "The truth is a tenth draw: each of the ten is the smallest with the same chance of 1/10."),
        (1.0, "The truth may well lie outside of nine draws."),
        (8 / 9, "There are ten values, nine samples and the truth, and ten places in the order."),
        (0.95, "Count: among ten equal draws, how often is a certain one the smallest or the largest?"),
        (1 / 9, "That is near the chance to be at one end; it is the share inside that is asked for."),
        (0.2, "That is the share outside."),
        (0.1, "That is the chance to be the smallest of the ten, one of two ways to be outside."),
        (7 / 9, "Two ends of nine places: but samples and truth are ten values."),
    ],
    also_right=["80 %", "4/5", 1 - 2 / 10],
    hints=[
        "Samples and truth are ten draws of one distribution, in random order.",
        "The truth is outside if it is the smallest or the largest of the ten.",
    ],
    explanation="""1 - 2 / (K + 1) = 0.8. For 90 % that way one needs K = 19.
    The notebook's interval uses Student's t instead, which gives 90 % at any K, if the samples are Gaussian.""",
)


# ---- q5: a lesion that is not seen -----------------------------------------------------------------------------------

q5 = choice(
    """A scan at R = 8 is reconstructed with a diffusion prior of healthy brains.
    All of 16 posterior samples agree: no lesion. The measured lines are fitted within the noise. What do you know?""",
    {
        "a": "there is no lesion: the samples agree and the data fit",
        "b": "there is a lesion of which the measured lines show nothing",
        "c": "the measured lines do not demand a lesion; a small one may hide where nothing was measured",
        "d": "the prior is wrong: samples should disagree",
    },
    answer="c",
    feedback={
        "a": "Do samples of a prior that knows no lesions count as independent witnesses?",
        "b": "That goes too far: nothing speaks for a lesion either.",
        "d": "They agree because the prior leaves no doubt. Is that a fault of the samples, or of asking this prior?",
    },
    hints=[
        "Two pictures that differ only on unmeasured lines have the same data.",
        "What fills those lines, and what has it seen in training?",
    ],
    explanation="""Where nothing was measured the prior answers, and this one has seen healthy brains only. Agreement
    among its samples is certainty about the prior's world. The notebook measures how much contrast is left.""",
)

summary = Exercises(vars()).summary
