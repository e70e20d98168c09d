"""Exercises of notebook 02: score from denoiser, v from eps, their errors, the gap of a step, SDE and ODE, bits."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number, prop

ZEROS = torch.zeros(3, 2)
RAMP = torch.linspace(-1, 1, 6).reshape(3, 2)
WAVE = torch.sin(7 * RAMP)


# ---- q1: the score from the denoiser (Tweedie) -----------------------------------------------------------------------


def score(x_t, D, alpha, sigma):
    return (alpha * D - x_t) / sigma**2


q1 = function(
    r"""Turn Tweedie's formula round. Write `score(x_t, D, alpha, sigma)`: the score $\nabla \log p_t(x_t)$ from the
    denoised image `D`, for any schedule: `alpha**2 + sigma**2` need not be 1.""",
    solution=score,
    tests=[
        prop(
            "direction",
            lambda f: (f(RAMP, ZEROS, 0.6, 0.8) * RAMP < 0).all(),
            "The score points to where data are more likely: from x_t towards alpha D. Is the sign turned round?",
        ),
        case(
            "noise",
            (RAMP, ZEROS, 1.0, 0.5),
            "Divide by the variance sigma^2 alone: not by sigma, 2 sigma^2, 1 - alpha^2 or alpha^2 + sigma^2.",
        ),
        case(
            "signal",
            (RAMP, WAVE, 0.6, 0.5),
            """x_t is a noisy alpha x_0, so the comparison is with alpha D, and the whole difference is divided. Has the
            alpha gone astray?""",
        ),
        case("far", (RAMP, 3 * WAVE, 0.8, 0.5), "D may lie beyond 1 and -1: nothing is clamped."),
    ],
    mistakes=[
        mistake(lambda x_t, D, alpha, sigma: (x_t - alpha * D) / sigma**2, "direction"),
        mistake(lambda x_t, D, alpha, sigma: (D - x_t) / sigma**2, "signal"),
        mistake(lambda x_t, D, alpha, sigma: (D - x_t / alpha) / sigma**2, "signal", "divided by alpha"),
        mistake(lambda x_t, D, alpha, sigma: (alpha * D - x_t) / sigma, "noise", "eps, but for the sign"),
        mistake(lambda x_t, D, alpha, sigma: alpha * (D - x_t) / sigma**2, "signal", "alpha before both"),
        mistake(lambda x_t, D, alpha, sigma: (D - alpha * x_t) / sigma**2, "signal", "alpha with x_t"),
        mistake(lambda x_t, D, alpha, sigma: (alpha * D - x_t) / (1 - alpha**2), "noise", "1 - alpha^2"),
        mistake(lambda x_t, D, alpha, sigma: (alpha * D - x_t) / (2 * sigma**2), "noise", "2 sigma^2"),
        mistake(lambda x_t, D, alpha, sigma: alpha * D - x_t / sigma**2, "signal", "half of it divided"),
        mistake(lambda x_t, D, alpha, sigma: score(x_t, D.clamp(-1, 1), alpha, sigma), "far", "clamped"),
        mistake(lambda x_t, D, alpha, sigma: alpha * D - x_t, "noise", "not divided"),
        mistake(lambda x_t, D, alpha, sigma: (alpha * D - x_t) / sigma**2 * alpha, "signal", "alpha twice"),
    ],
    also_right=[
        lambda x_t, D, alpha, sigma: -((x_t - alpha * D) / sigma) / sigma,
        lambda x_t, D, alpha, sigma: torch.sub(alpha * D, x_t) / torch.square(sigma),
        lambda x_t, D, alpha, sigma: (float(alpha) * D.numpy() - x_t.numpy()) / float(sigma) ** 2,
    ],
    hints=["Tweedie: alpha D = x_t + sigma^2 score.", "Solve it for the score."],
    explanation="""score = (alpha D - x_t) / sigma^2 = -eps / sigma, with eps the noise that D implies.
    A denoiser knows the slope of the log density.""",
)


# ---- q2: v from eps --------------------------------------------------------------------------------------------------


def v_from_eps(eps, x_t, alpha, sigma):
    x_0 = (x_t - sigma * eps) / alpha
    return alpha * eps - sigma * x_0


def _v(denoised):
    """`v_from_eps` with another clean image."""
    return lambda eps, x_t, alpha, sigma: alpha * eps - sigma * denoised(x_t, eps, alpha, sigma)


q2 = function(
    r"""A network was trained to predict the noise. Write `v_from_eps(eps, x_t, alpha, sigma)`: what it says about
    $v = \alpha_t\,\epsilon - \sigma_t\,x_0$. The clean image is not given; get it from `eps` first.
    It must hold for any schedule: `alpha**2 + sigma**2` need not be 1.""",
    solution=v_from_eps,
    tests=[
        case(
            "no noise predicted",
            (ZEROS, RAMP, 0.8, 0.6),
            """With eps = 0 the clean image is x_t / alpha, so v must be -sigma x_t / alpha.
            Is x_t divided by alpha, the sign a minus, and nothing clamped?""",
        ),
        case(
            "noise",
            (WAVE, ZEROS, 0.8, 0.6),
            "eps enters twice: in alpha eps, and in the x_0 that it implies, x_0 = (x_t - sigma eps) / alpha.",
        ),
        case("both", (WAVE, RAMP, 1.0, 3.0), "It must also hold where alpha^2 + sigma^2 is not 1."),
    ],
    mistakes=[
        mistake(_v(lambda x_t, eps, alpha, sigma: x_t), "no noise predicted", "x_t for x_0"),
        mistake(_v(lambda x_t, eps, alpha, sigma: -(x_t - sigma * eps) / alpha), "no noise predicted", "sign"),
        mistake(
            lambda eps, x_t, alpha, sigma: sigma * eps - alpha * (x_t - sigma * eps) / alpha,
            "no noise predicted",
            "alpha and sigma swapped",
        ),
        mistake(_v(lambda x_t, eps, alpha, sigma: x_t / alpha), "noise", "noise left in x_0"),
        mistake(lambda eps, x_t, alpha, sigma: (eps - sigma * x_t) / alpha, "both", "only if variance is preserved"),
        mistake(lambda eps, x_t, alpha, sigma: sigma * eps - alpha * (x_t - sigma * eps), "no noise predicted"),
        mistake(_v(lambda x_t, eps, alpha, sigma: (x_t + sigma * eps) / alpha), "noise", "sign in x_0"),
        mistake(_v(lambda x_t, eps, alpha, sigma: (x_t - eps) / alpha), "noise", "sigma forgotten"),
        mistake(lambda eps, x_t, alpha, sigma: (x_t - sigma * eps) / alpha, "no noise predicted", "x_0"),
    ],
    also_right=[
        lambda eps, x_t, alpha, sigma: ((alpha**2 + sigma**2) * eps - sigma * x_t) / alpha,
        lambda eps, x_t, alpha, sigma: alpha * eps - torch.div(sigma, alpha) * (x_t - sigma * eps),
    ],
    hints=["x_t = alpha x_0 + sigma eps: solve for x_0.", "Then put x_0 and eps into v = alpha eps - sigma x_0."],
    explanation="""Any one of the five, together with x_t, gives all the others.
    With alpha^2 + sigma^2 = 1 the answer shortens to (eps - sigma x_t) / alpha.""",
)


# ---- q3: errors of eps and v -----------------------------------------------------------------------------------------

q3 = number(
    """Variance-preserving schedule, log-SNR = -2. A network that predicts the noise and one that predicts v both err by
    0.1 a pixel in their output. How many times larger is the first one's error in $x_0$?""",
    solution="1 / math.sqrt(1 / (1 + math.exp(2)))",
    mistakes=[
        (2.718281828459045, "That is sigma / alpha, the factor of eps alone. v has a factor too: sigma. Divide."),
        (
            7.38905609893065,
            """Either the ratio of variances, SNR upside down (errors go with standard deviations), or log-SNR taken for
            ln(alpha / sigma): it is ln(alpha^2 / sigma^2).""",
        ),
        (8.38905609893065, "That is 1 / alpha^2: you are a square root away."),
        (1.0, "At equal error in the output the errors in x_0 differ: put each output into its formula for x_0."),
        (0.3453, "That is v's error over that of eps (or alpha itself). Asked is the first over the second."),
        (2.5512, "That is sigma / alpha times sigma: divide by v's factor, do not multiply."),
        (0.2718, "That is the first error itself; asked is its ratio to the second."),
        (1.0656, "That is 1 / sigma, or 1 / alpha at log-SNR = +2. At -2 noise prevails: alpha < sigma."),
    ],
    also_right=[math.exp(1) * math.sqrt(1 + math.exp(-2)), "2.896", 2.9],
    hints=[
        "An error in eps is multiplied by sigma / alpha, one in v by sigma, since alpha^2 + sigma^2 = 1.",
        "The ratio is 1 / alpha. From log-SNR = ln(alpha^2 / (1 - alpha^2)) follows alpha^2 = 1 / (1 + exp(2)).",
    ],
    explanation="""(sigma / alpha) / sigma = 1 / alpha = 2.9. At log-SNR = -10 it is 148.
    At little noise alpha is nearly 1, and both are alike.""",
)


# ---- q4: the gap of one step -----------------------------------------------------------------------------------------


def gap(true_mean, true_var, model_mean, model_var):
    r = true_var / model_var
    return (r - 1 - torch.log(r)) / 2 + (true_mean - model_mean) ** 2 / (2 * model_var)


def _of_ratio(nats):
    """A gap whose first part is another function of the ratio of the two variances."""
    return lambda m, true_var, n, model_var: nats(true_var / model_var) + (m - n) ** 2 / (2 * model_var)


def _of_error(nats):
    """A gap whose second part is another function of the error of the mean and of both variances."""
    return lambda m, true_var, n, model_var: gap(m, true_var, m, model_var) + nats(m - n, true_var, model_var)


def _of_means(square):
    """A gap with something else for the squared error of the mean."""
    return lambda m, true_var, n, model_var: gap(m, true_var, m, model_var) + square(m, n) / (2 * model_var)


VARS = torch.tensor([0.5, 1.0, 2.0])
ONES, ZERO = torch.ones(3), torch.zeros(3)
MEANS, OFF = torch.tensor([-1.5, 0.5, 2.0]), torch.tensor([0.5, 2.0, -1.0])

q4 = function(
    """So far the mean was right, and the variance alone was not. A trained network errs in both. Write
    `gap(true_mean, true_var, model_mean, model_var)`: KL(true || model), in nats, of one reverse step whose true and
    modelled distributions are Gaussians in one dimension. All four are tensors of one shape; return one value for each
    entry.""",
    solution=gap,
    tests=[
        case(
            "nothing to lose",
            (ZERO, ONES, ZERO, ONES),
            "With the right mean and variance nothing is lost: zero at r = true_var / model_var = 1. Is the -1 there?",
        ),
        case(
            "same mean",
            (MEANS, ONES, MEANS, ONES),
            "Equal means are no error: it is the difference true_mean - model_mean that is squared.",
        ),
        prop(
            "never negative",
            lambda f: (f(ZERO, VARS, ZERO, ONES) >= -1e-6).all() and (f(MEANS, ONES, ZERO, ONES) >= -1e-6).all(),
            """A divergence cannot be negative. Is r the ratio of the variances in every term, is it minus the natural
            logarithm of r, does the half stand before all three terms, and is the error of the mean squared?""",
        ),
        case(
            "which over which",
            (ZERO, VARS, ZERO, ONES),
            """With equal means: r is the true over the model's variance, so being too sure costs more than being too
            careful. r is a ratio of variances, as given: no root, no square (`Normal` takes standard deviations). All
            of it is halved, and in nats, with the natural logarithm.""",
        ),
        case(
            "ratio only",
            (ZERO, 40 * VARS, ZERO, torch.tensor([40.0, 40.0, 4.0])),
            "With equal means only the ratio counts: scaling both variances changes nothing. And a gap may exceed 1.",
        ),
        case(
            "wrong mean",
            (MEANS, ONES, ZERO, ONES),
            """With both variances at 1 a wrong mean costs half the square of its error, each entry its own: no average,
            and no upper limit.""",
        ),
        case(
            "which difference",
            (MEANS, ONES, OFF, ONES),
            "Subtract the means first, then square: not a difference of squares.",
        ),
        case(
            "error in whose variance",
            (MEANS, torch.tensor([1.5, 0.25, 6.0]), OFF, VARS),
            """The error of the mean is measured in units of what the model says, its own variance: the more sure it
            says it is, the more an error costs. What the truth spreads does not enter here.""",
        ),
    ],
    mistakes=[
        mistake(_of_ratio(lambda r: (r - torch.log(r)) / 2), "nothing to lose"),
        mistake(_of_ratio(lambda r: (r - 1 + torch.log(r)) / 2), "never negative"),
        mistake(_of_ratio(lambda r: (1 / r - 1 + torch.log(r)) / 2), "which over which", "KL(model || true)"),
        mistake(_of_ratio(lambda r: r - 1 - torch.log(r)), "which over which", "not halved"),
        mistake(
            lambda m, true_var, n, model_var: (
                (true_var - model_var - torch.log(true_var / model_var)) / 2 + (m - n) ** 2 / (2 * model_var)
            ),
            "ratio only",
            "a difference of variances",
        ),
        mistake(_of_ratio(lambda r: (r - 1 - torch.log10(r)) / 2), "never negative", "the decimal logarithm"),
        mistake(_of_ratio(lambda r: (r - 1) ** 2 / 4), "which over which", "near r = 1 only"),
        mistake(
            _of_ratio(lambda r: (r.sqrt() - 1 - torch.log(r.sqrt())) / 2), "which over which", "standard deviations"
        ),
        mistake(lambda *given: gap(*given).sum(), "shape", "all steps at once"),
        mistake(_of_ratio(lambda r: -torch.log(r) / 2), "never negative", "the entropies"),
        mistake(_of_ratio(lambda r: (r - 1) / 2 - torch.log(r)), "never negative", "half of two terms"),
        mistake(lambda *given: gap(*given).clamp(0, 1), "ratio only", "cut off at 1"),
        mistake(_of_error(lambda e, p, q: 0 * e), "wrong mean", "the means left out"),
        mistake(_of_error(lambda e, p, q: e**2 / q), "wrong mean", "the error not halved"),
        mistake(_of_error(lambda e, p, q: e.abs() / (2 * q)), "wrong mean", "the error not squared"),
        mistake(_of_error(lambda e, p, q: e / (2 * q)), "never negative", "the error with its sign"),
        mistake(_of_error(lambda e, p, q: e**2 / (2 * p)), "error in whose variance", "KL(model || true)"),
        mistake(_of_error(lambda e, p, q: e**2 / 2), "error in whose variance", "no variance"),
        mistake(_of_error(lambda e, p, q: e**2 / (2 * q.sqrt())), "error in whose variance", "standard deviation"),
        mistake(_of_error(lambda e, p, q: e**2 / (2 * q**2)), "error in whose variance", "the variance squared"),
        mistake(_of_error(lambda e, p, q: e**2 / (p + q)), "error in whose variance", "both variances"),
        mistake(_of_error(lambda e, p, q: e**2 / (2 * torch.minimum(p, q))), "error in whose variance", "the smaller"),
        mistake(_of_error(lambda e, p, q: (e**2).mean() / (2 * q)), "wrong mean", "the mean error of all entries"),
        mistake(_of_means(lambda m, n: (m + n) ** 2), "same mean", "the sum"),
        mistake(_of_means(lambda m, n: m**2 - n**2), "which difference", "squares before the difference"),
        mistake(_of_means(lambda m, n: (m.abs() - n.abs()) ** 2), "which difference", "sizes of the means"),
    ],
    also_right=[
        lambda m, true_var, n, model_var: kl_divergence(Normal(m, true_var**0.5), Normal(n, model_var**0.5)),
        lambda m, true_var, n, model_var: (
            0.5 * ((true_var + (m - n) ** 2) / model_var - 1 + model_var.log() - true_var.log())
        ),
    ],
    hints=[
        """KL = E[log q - log p] under q, with q the true and p the model's density. Write both log densities; the
        factor sqrt(2 pi) cancels.""",
        "Under the true distribution, E[(x - model_mean)^2] is the true variance plus the squared error of the mean.",
        "With equal means: (r - 1 - ln r) / 2 with r = true / model.",
    ],
    explanation="""E[log q - log p] = (r - 1 - ln r) / 2 + (error of the mean)^2 / (2 model_var). The first part is the
    price of the variance with a perfect mean, which notebook 02 adds over the steps. The second is what training
    lowers, the loss of the bound (Ho et al., NeurIPS 2020, Eq. 8); written in the noise, L_simple (Eq. 14) leaves the
    whole factor before ||eps - eps_hat||^2 out.""",
)


# ---- q5: two ways back -----------------------------------------------------------------------------------------------

q5 = choice(
    """From the same noise image $x_1$, exact score, infinitely many steps: you run the reverse SDE twice and the
    probability-flow ODE twice. What do you get?""",
    {
        "a": "four different images, for the two equations sample different distributions",
        "b": "SDE: two different images; ODE: twice the same; but over many x_1 all follow one distribution",
        "c": "four times the same image, for the marginals agree at every time",
        "d": "SDE: two different images; ODE: their mean, since it lacks the noise",
    },
    answer="b",
    feedback={
        "a": "The distributions at each time agree. What differs is how a single point travels.",
        "c": "Equal marginals say how many particles are where, not which goes where. The SDE rolls dice on the way.",
        "d": """The mean of many images is blurred. The ODE's end is a sample: its drift carries half of the score,
        which is what the missing noise needs.""",
    },
    hints=["Which of the two has randomness after the start?", "Marginals are about crowds, not about single paths."],
    explanation="""Both have the marginals p_t. The ODE is a one-to-one map between noise and image, which gives
    likelihoods and inversion; the SDE forgets its start, and with it earlier errors.""",
)

# ---- q6: bits per dimension ------------------------------------------------------------------------------------------

q6 = number(
    """A paper states a negative log-likelihood of 8,000 nats for images of 64 x 64 grey pixels, whose intensities are
    integers from 0 to 255 and were modelled as such. How many bits per pixel is that?""",
    solution="8000 / (64 * 64) / math.log(2)",
    mistakes=[
        (8000 / 4096, "That is nats a pixel. One bit is ln 2 = 0.693 nats: divide by it."),
        (
            8000 / 4096 * 0.6931471805599453,
            "A bit is less than a nat, so the number in bits is larger: divide by ln 2.",
        ),
        (8000 / 64 / 0.6931471805599453, "An image of 64 x 64 has 4,096 pixels, not 64."),
        (
            8000 / 4096 / 0.6931471805599453 + 8,
            "8 bits a pixel is what it takes without a model; nothing is added, since the integers were modelled.",
        ),
        (8000 / 0.6931471805599453, "That is bits for the whole image: divide by the number of pixels."),
        (
            8000 / 4096 / 0.6931471805599453 + 7,
            "The 7 bits are needed for densities on [-1, 1]; here the integers were modelled.",
        ),
    ],
    also_right=[8000 / math.log(2) / 64**2, math.log2(math.e) * 8000 / 4096, "2,82"],
    hints=["One bit is ln 2 nats.", "Divide by the number of pixels and by ln 2."],
    explanation="""8000 / 4096 / 0.693 = 2.82 bits a pixel, against 8 without any model.
    Always ask: of what density, in which units, with how many pixels?""",
)


summary = Exercises(vars()).summary
