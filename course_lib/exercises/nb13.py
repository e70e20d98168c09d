"""Exercises of notebook 13: EDM's target, two exact steps, a student's price, fair claims, MONAI's flow, blindness."""

from fractions import Fraction

import torch

from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop

RAMP = torch.linspace(-1, 1, 12, dtype=torch.float64)
WAVE = torch.sin(5 * RAMP) + 0.2


# ---- q1: what EDM's network must say ---------------------------------------------------------------------------------


def edm_target(x_0, x_t, sigma, sigma_data):
    s = sigma**2 + sigma_data**2
    return (x_0 - sigma_data**2 / s * x_t) * s**0.5 / (sigma * sigma_data)


def _at_half(f):
    """The answer at sigma 0.6 and unit deviation; there c_out is 0.51, so that no two slips look alike."""
    return f(WAVE, WAVE + 0.6 * RAMP, 0.6, 1.0)


def _near(answer, factor):
    return torch.allclose(answer, factor * edm_target(WAVE, WAVE + 0.6 * RAMP, 0.6, 1.0), atol=1e-4)


def _sign(f):
    more, less = (f(RAMP, RAMP + eps, 1e-3, 0.5) for eps in (1e-3 * WAVE, -1e-3 * WAVE))
    return float(((more - less) * WAVE).sum()) <= 0


def _divided(f):
    return not _near(_at_half(f), 0.36 / 1.36)  # c_out squared


def _in_units(f):
    return not _near(_at_half(f), 0.6 / 1.36**0.5)  # c_out


def _kept(f):
    """F is a multiple of x_0 - c_skip x_t, whatever the multiple is."""
    zero = torch.zeros_like(RAMP)
    return torch.allclose(f(zero, RAMP / 4, 0.6, 1.0), -f(RAMP / 4, zero, 0.6, 1.0) / 1.36, atol=1e-4)


def _says_x_0(f):
    return torch.allclose(f(RAMP, RAMP + 1e4 * WAVE, 1e4, 0.5), (RAMP - 0.25e-4 * WAVE) / 0.5, atol=1e-3)


def _over(c_out):
    """`edm_target` with another c_out."""

    def wrong(x_0, x_t, sigma, sigma_data):
        return (x_0 - sigma_data**2 / (sigma**2 + sigma_data**2) * x_t) / c_out(sigma, sigma_data)

    return wrong


q1 = function(
    r"""EDM's denoised image is $D = c_\text{skip} x_t + c_\text{out} F$, with $s = \sigma^2 + \sigma_d^2$,
    $c_\text{skip} = \sigma_d^2 / s$ and $c_\text{out} = \sigma \sigma_d / \sqrt s$.
    Write `edm_target(x_0, x_t, sigma, sigma_data)`: what $F$ must say so that $D$ is $x_0$.""",
    solution=edm_target,
    tests=[
        prop("sign", _sign, "At very little noise F must say about -eps. Is that the sign of yours?"),
        prop(
            "divided",
            _divided,
            """Put your F back into D: it does not give x_0. What c_out multiplies there, you must divide by it, not
            multiply.""",
        ),
        prop(
            "in units",
            _in_units,
            "That is what c_skip x_t lacks of x_0. In D it is c_out F, so F is not yet all of it: what about c_out?",
        ),
        prop(
            "kept",
            _kept,
            """How much of x_t has D already, before F says anything? Take off c_skip x_t, with c_skip = sigma_d^2 / s
            and s = sigma^2 + sigma_d^2 of the arguments, and divide the whole difference, in brackets, by c_out.""",
        ),
        case(
            "unit deviation",
            (WAVE, WAVE + 0.6 * RAMP, 0.6, 1.0),
            """Sign and c_skip are right, the size is not. Put F back into D: is it x_0? Look at c_out and its root. (F
            has no limits: nothing is clamped.)""",
        ),
        case(
            "another deviation",
            (WAVE, WAVE + 0.6 * RAMP, 0.6, 0.5),
            "Right for sigma_data = 1, not for 0.5. Where does sigma_data stand in c_skip and in c_out?",
        ),
        prop(
            "much noise",
            _says_x_0,
            """In very much noise F must say about x_0 / sigma_data.
            Rounding aside: is a large number subtracted from a large one?""",
        ),
    ],
    mistakes=[
        mistake(lambda x_0, x_t, sigma, sigma_data: (x_t - x_0) / sigma, "sign", "the noise"),
        mistake(lambda x_0, x_t, sigma, sigma_data: x_0, "kept", "the image"),
        mistake(lambda x_0, x_t, sigma, sigma_data: (x_0 - x_t) / sigma, "kept", "minus the noise"),
        mistake(_over(lambda sigma, sigma_data: 1.0), "in units", "c_out forgotten"),
        mistake(
            _over(lambda sigma, sigma_data: sigma * sigma_data / (sigma**2 + sigma_data**2)),
            "unit deviation",
            "no root in c_out",
        ),
        mistake(lambda *args: -edm_target(*args), "sign", "v"),
        mistake(
            _over(lambda sigma, sigma_data: (sigma**2 + sigma_data**2) ** 0.5 / (sigma * sigma_data)),
            "divided",
            "times c_out",
        ),
        mistake(
            lambda x_0, x_t, sigma, sigma_data: edm_target(x_0, x_t, sigma, 1.0),
            "another deviation",
            "sigma_data forgotten",
        ),
        mistake(
            _over(lambda sigma, sigma_data: sigma / (sigma**2 + sigma_data**2) ** 0.5),
            "another deviation",
            "sigma_data not in c_out",
        ),
        mistake(
            lambda x_0, x_t, sigma, sigma_data: edm_target(x_0, x_t, min(sigma, 80.0), sigma_data),
            "much noise",
            "noise cut off",
        ),
        mistake(_over(lambda sigma, sigma_data: sigma), "unit deviation", "sigma for c_out"),
        mistake(lambda *args: edm_target(*args).clamp(-1, 1), "unit deviation", "clamped"),
    ],
    also_right=[
        lambda x_0, x_t, sigma, sigma_data: (
            ((sigma**2 + sigma_data**2) * x_0 - sigma_data**2 * x_t)
            / (sigma * sigma_data * (sigma**2 + sigma_data**2).sqrt())
        ),
        lambda x_0, x_t, sigma, sigma_data: (
            (x_0 - x_t * sigma_data**2 / torch.hypot(sigma, sigma_data) ** 2)
            / (sigma * sigma_data / torch.hypot(sigma, sigma_data))
        ),
        lambda x_0, x_t, sigma, sigma_data: edm_target(x_0.numpy(), x_t.numpy(), float(sigma), float(sigma_data)),
    ],
    hints=["Put x_0 for D and solve for F.", "F = (x_0 - c_skip x_t) / c_out."],
    explanation="""At little noise c_out is about sigma and F is about minus the noise; at much noise c_out is about
    sigma_data and F is the image in units of its own spread. In between it blends, and its variance stays 1.""",
)


# ---- q2: two exact steps ---------------------------------------------------------------------------------------------

q2 = number(
    r"""One pixel, $x_0 \sim \mathcal N(m, s^2)$ with $s = 0.5$, straight lines, an **exact** denoiser.
    Euler takes two steps: from $t = 1$ to $1/2$, and to 0. The first leads to $x_{1/2} = (m + \epsilon)/2$;
    the second ends at $D(x_{1/2}) = m + g\,(x_{1/2} - m/2)$ with the gain $g = \dfrac{s^2/2}{s^2/4 + 1/4}$.
    What is the standard deviation of the end?""",
    solution="0.5 * (0.5**2 / 2) / (0.5**2 / 4 + 1 / 4)",
    mistakes=[
        (0.5, "That is the spread of the data. Two steps do not reach it."),
        (0, "One step gives the mean alone; the second has something to work with."),
        (0.4, "That is the gain g. What is the standard deviation of x_{1/2}?"),
        (0.04, "That is the variance."),
        (0.5**0.5 * 0.4, "eps / 2 has the variance 1/4, not 1/2."),
        (0.4 * 1.25**0.5 / 2, "That is with x_{1/2} = (x_0 + eps)/2. Euler's first step put m in place of x_0."),
        (0.1, "x_{1/2} spreads by eps / 2, a deviation of 1/2; s is not in it."),
        (0.25, "The half of s? What spread has x_{1/2}, and by what does D multiply it?"),
        (0.8, "Check the gain: its numerator is alpha s^2 = s^2 / 2."),
        (0.2**0.5, "One root too many: g multiplies a standard deviation, not a variance."),
        (0.16, "g squared is the factor of variances; the spread of x_{1/2} is missing, and so is the root."),
    ],
    also_right=[Fraction(1, 5), "1/5", 0.2],
    hints=["x_{1/2} - m/2 = eps / 2, and eps has standard deviation 1.", "The end spreads by g / 2."],
    explanation="""0.2 instead of 0.5: less than half of the spread. Few steps of a perfect denoiser give pictures that
    are too much alike; in a table this is one reason for the left end of the flow's curve.""",
)


# ---- q3: what a student costs ----------------------------------------------------------------------------------------

q3 = number(
    """A student is trained for 1,700 steps. Each step walks **4 paths of 8 evaluations** with the teacher and trains
    the student on the 32 states. Count a teacher's evaluation as 1 and a training example (forward and backward) as 3.
    In use, the student needs 4 evaluations an image where the teacher needs 15.
    **After how many images** has its training paid for itself? (The teacher was there anyway.)""",
    solution="1700 * (4 * 8 * 1 + 32 * 3) / (15 - 4)",
    rtol=0.012,  # "nearly 20,000" is right
    mistakes=[
        (1700 * 128, "That is the price in evaluations. Divide by what each image saves."),
        (1700 * 128 / 15, "An image by the student is not free: it saves 15 - 4."),
        (1700 * 128 / 4, "What does an image save?"),
        (1700 * 96 / 11, "The teacher's walks are missing: 32 evaluations a step."),
        (
            1700 * 32 / 11,
            "That counts 32 a step: the teacher's walks without the training, or one path in place of four.",
        ),
        (1700 * 35 / 11, "Each of the 32 states is a training example: 32 times 3."),
        (1700 * 104 / 11, "Four paths of 8 evaluations, not one."),
        (1700 * 64 / 11, "A training example counts three: forward, and backward twice as much."),
    ],
    also_right=["19782", 19782, 19_800, 20_000],
    hints=[
        "Price of a step: 32 evaluations of the teacher, and 32 examples at 3.",
        "1700 x 128 evaluations, over 11 saved an image.",
    ],
    explanation="""Nearly 20,000 images. For a figure in a paper a student never pays; for a service that draws day and
    night, or where an answer must come while somebody waits, it does.
    If its pictures are worse, the sum is another.""",
)


# ---- q4: what follows ------------------------------------------------------------------------------------------------

q4 = choices(
    """An abstract: "Our flow model (24 M parameters, 300 epochs, Euler, 10 evaluations, FID 6.1) beats a published
    DDPM (18 M parameters, 75 epochs, ancestral sampling, 10 evaluations, FID 41, from that paper). We train on the same
    public data set." Which sentences are **true of this comparison**? Give all letters that are true.""",
    {
        "a": "It shows that straight lines train better than DDPM's mixture.",
        "b": "Part of the gap may be the sampler: the two models were walked in different ways.",
        "c": "Part of the gap may be the longer training of a larger network.",
        "d": "The two FIDs can be compared, since the data set is the same.",
        "e": "The DDPM with another sampler, at 10 evaluations, is missing; given its weights, that costs no training.",
        "f": "With 6.1 the flow model is near the real-vs-real floor.",
    },
    answers="bce",
    feedback={
        "a": "Network, epochs and sampler differ as well. What was held fixed here?",
        "b": "How far did the FD of one network move in this notebook when only its sampler was changed?",
        "c": "24 M against 18 M, 300 epochs against 75: is that nothing?",
        "d": "An FID also depends on the extractor, the number of images, their preparation and the reference.",
        "e": "The cheapest test of whether the recipe or the walk made the gain.",
        "f": "Does the abstract report a floor?",
    },
    hints=["Ask what was held fixed.", "Three letters are true."],
    explanation="""One thing at a time: the same network, training and judge, and each model with the same sampler as
    well as with its own. Then it can be said which part of a gain is the recipe.""",
)


# ---- q5: MONAI's velocity --------------------------------------------------------------------------------------------


def rflow_step(x_t, v, t, s):
    return x_t + (t - s) * v, x_t + t * v


def _ends_at_image(f):
    x_s, _ = f(0.3 * RAMP + 0.7 * WAVE, RAMP - WAVE, 0.7, 0.0)
    return torch.allclose(x_s, RAMP, atol=1e-5)


q5 = function(
    r"""A network trained with MONAI's `RFlowScheduler` says $v = x_0 - \epsilon$ at $x_t = (1 - t)\,x_0 + t\,\epsilon$,
    with t = 1 for noise. Write `rflow_step(x_t, v, t, s)`: the pair $(x_s, x_0)$ of Euler's step from t to an earlier s
    < t, and of the clean image that v stands for.""",
    solution=rflow_step,
    tests=[
        prop(
            "whole step",
            _ends_at_image,
            """A step down to s = 0 along the true v must end at the image: is the sign that of image minus noise, and
            the length t - s?""",
        ),
        case(
            "part of the way",
            (WAVE, RAMP, 0.7, 0.5),
            """x_s first, x_0 second. From 0.7 to 0.5 the step has length 0.2; the clean image is the whole way along
            v, x_t + t v, and not cut off.""",
        ),
    ],
    mistakes=[
        mistake(lambda x_t, v, t, s: x_t + (t - s) * v, "shape", "the next state alone"),
        mistake(lambda x_t, v, t, s: (x_t - (t - s) * v, x_t - t * v), "whole step", "noise minus image"),
        mistake(lambda x_t, v, t, s: (x_t + (s - t) * v, x_t + t * v), "whole step", "backwards"),
        mistake(lambda x_t, v, t, s: (x_t + v, x_t + v), "whole step", "always length one"),
        mistake(lambda x_t, v, t, s: (x_t + t * v, x_t + t * v), "part of the way", "always to the end"),
        mistake(lambda x_t, v, t, s: (x_t + (t - s) * v, x_t + (1 - t) * v), "part of the way", "to the noise"),
        mistake(lambda x_t, v, t, s: (x_t + (t - s) * v, x_t + (t - s) * v), "part of the way", "no clean image"),
        mistake(lambda x_t, v, t, s: (x_t + t * v, x_t + (t - s) * v), "part of the way", "the two swapped"),
        mistake(lambda x_t, v, t, s: ((1 - s) * x_t + s * v, x_t + t * v), "whole step", "x_t and v mixed at s"),
        mistake(lambda x_t, v, t, s: (x_t + (t - s) * v, v), "part of the way", "v for the image"),
        mistake(lambda x_t, v, t, s: (x_t + (t - s) / t * v, x_t + v), "whole step", "v as the whole way"),
        mistake(lambda x_t, v, t, s: (x_t + (t - s) * v, x_t + s * v), "part of the way", "s for t"),
    ],
    also_right=[
        lambda x_t, v, t, s: [x_t + (t - s) * v, x_t + t * v],
        lambda x_t, v, t, s: torch.stack([x_t - (s - t) * v, x_t + t * v]),
        lambda x_t, v, t, s: (s / t * x_t + (1 - s / t) * (x_t + t * v), x_t + t * v),
        lambda x_t, v, t, s: ((x_t + (t - s) * v).tolist(), (x_t + t * v).numpy()),
    ],
    hints=["x_t + t v = (1 - t) x_0 + t eps + t x_0 - t eps.", "The step is the same with t - s in place of t."],
    explanation="""In Lipman et al. t = 0 is noise and t = 1 data; MONAI has 0 for data and 1000 for noise, but the
    velocity of the former, image minus noise; this course has u = eps - x_0 = -v. A wrong sign here gives noise that
    grows, and no error message.""",
)


# ---- q6: a blind network ---------------------------------------------------------------------------------------------

q6 = choices(
    """Which of these MONAI U-Nets **cannot know** time and class? Their residual blocks normalise in `norm_num_groups`
    groups just after time and class are added as one number a channel. Give all letters.""",
    {
        "a": "`channels=(32, 32)`, `norm_num_groups=32`",
        "b": "`channels=(32, 64)`, `norm_num_groups=32`",
        "c": "`channels=(64, 64, 64)`, `norm_num_groups=64`",
        "d": "`channels=(64, 64)`, `norm_num_groups=32`",
        "e": "`channels=(32, 32)`, `norm_num_groups=1`",
        "f": "`channels=(64, 128, 192)`, `norm_num_groups=32`",
    },
    answers="ac",
    feedback={
        "a": "32 channels in 32 groups: what is left of one number a channel?",
        "b": "On the second level each group holds two channels. Can their difference pass?",
        "c": "64 channels in 64 groups, on all levels.",
        "d": "Each group holds two channels: only their mean is lost.",
        "e": "One group of 32 channels: one mean is lost, 31 differences pass.",
        "f": "Groups of 2, 4 and 6 channels.",
    },
    hints=["How many channels has a group?", "Blind means a single channel a group on every level. Two letters."],
    explanation="""A group of one channel is instance normalisation, which takes off each channel's mean, and with it
    whatever was added to the channel. The U-Nets of this notebook have 32
    channels in 8 groups; the large MedNIST network has 64, 128 and 192 in 32.""",
)

summary = Exercises(vars()).summary
