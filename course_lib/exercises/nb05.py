"""Exercises of notebook 05: guidance, label dropout, the variance, and the flipped label."""

from fractions import Fraction

import numpy as np
import torch

from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop

RAMP = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(2, 1, 4, 4)
WAVE = torch.sin(7 * RAMP)
ONES, ZEROS = torch.ones_like(RAMP), torch.zeros_like(RAMP)


# ---- q1: from the classifier's gradient to the noise -----------------------------------------------------------------


def classifier_guided(eps, gradient, alpha, sigma, w):
    return eps - w * sigma * gradient


q1 = function(
    r"""Much published code holds the predicted noise and not $D$. Write
    `classifier_guided(eps, gradient, alpha, sigma, w)`: the noise that goes with $D_w$, at the same $x_t$. `eps` goes
    with the unconditional $D$, by $x_t = \alpha D + \sigma\,\epsilon$; `gradient` is
    $\nabla_{x_t} \log p(y \mid x_t)$; `w` is the guidance scale, `alpha` and `sigma` are numbers of a
    variance-preserving schedule, $\alpha^2 + \sigma^2 = 1$. Not every argument is needed.""",
    solution=classifier_guided,
    tests=[
        case(
            "w = 0", (RAMP, WAVE, 0.8, 0.6, 0.0), "At w = 0 nobody asks the classifier: eps must come back unchanged."
        ),
        prop(
            "sign",
            lambda f: f(ZEROS, ONES, 0.8, 0.6, 1.0).mean() < 0,
            """At w = 1 and eps = 0 the answer must be negative where the gradient is positive: D moves uphill on
            log p(y | x_t), and x_t = alpha D + sigma eps stays as it is, so where D goes up, eps goes down.""",
        ),
        prop(
            "gradient as it is",
            lambda f: np.allclose(
                f(ZEROS, 3 * WAVE, 0.8, 0.6, 1.0), f(ZEROS, ONES, 0.8, 0.6, 1.0) * 3 * WAVE, atol=1e-5
            ),
            "The gradient enters as it is, pixel by pixel: not normalised, averaged or clamped, nor the result.",
        ),
        prop(
            "sigma",  # at little noise, where alpha hardly counts: sigma is 0.14 and sigma^2 0.02
            lambda f: abs(f(ZEROS, ONES, 0.99, (1 - 0.99**2) ** 0.5, 1.0).mean() / -(0.0199**0.5) - 1) < 0.1,
            """alpha D grows by w sigma^2 times the gradient, so sigma eps falls by as much. What is left of sigma^2
            for eps?""",
        ),
        case(
            "alpha",
            (ZEROS, WAVE, 0.6, 0.8, 1.0),
            "D_w has the gradient divided by alpha, and x_t has alpha D: what becomes of alpha?",
        ),
        case(
            "scale",
            (3 * RAMP, 3 * WAVE, 0.8, 0.6, 2.5),
            "At w = 2.5 the pull is 2.5 times that at w = 1, and eps stays. Nothing is clamped.",
        ),
    ],
    mistakes=[
        mistake(lambda eps, gradient, alpha, sigma, w: eps + w * sigma * gradient, "sign", "the sign of D"),
        mistake(lambda eps, gradient, alpha, sigma, w: eps + w * sigma**2 / alpha * gradient, "sign", "that of D"),
        mistake(
            lambda eps, gradient, alpha, sigma, w: eps - w * sigma**2 / alpha * gradient, "sigma", "D with a minus"
        ),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - w * sigma**2 * gradient, "sigma", "sigma^2"),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - w * gradient, "sigma", "the bare gradient"),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - w / sigma * gradient, "sigma", "the score as noise"),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - w * sigma / alpha * gradient, "alpha", "alpha left in"),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - w * alpha * sigma * gradient, "alpha", "times alpha"),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - (1 + w) * sigma * gradient, "w = 0", "w off by one"),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - w**2 * sigma * gradient, "scale"),
        mistake(lambda eps, gradient, alpha, sigma, w: (1 - w) * eps - w * sigma * gradient, "scale", "a blend"),
        mistake(lambda eps, gradient, alpha, sigma, w: (eps - w * sigma * gradient) / alpha, "w = 0", "eps divided"),
        mistake(
            lambda eps, gradient, alpha, sigma, w: (eps - w * sigma * gradient).clamp(-1, 1),
            "gradient as it is",
            "clamped",
        ),
        mistake(lambda eps, gradient, alpha, sigma, w: eps.clamp(-1, 1) - w * sigma * gradient, "scale", "eps clamped"),
        mistake(
            lambda eps, gradient, alpha, sigma, w: eps - w * sigma * gradient / gradient.norm(),
            "gradient as it is",
            "a gradient of length one",
        ),
        mistake(lambda eps, gradient, alpha, sigma, w: eps - int(w) * sigma * gradient, "scale", "whole scales only"),
    ],
    also_right=[
        lambda eps, gradient, alpha, sigma, w: eps - w * (1 - alpha**2) ** 0.5 * gradient,
        lambda eps, gradient, alpha, sigma, w: torch.add(eps, gradient, alpha=-float(w * sigma)),
        lambda eps, gradient, alpha, sigma, w: -sigma * (-eps / sigma + w * gradient),  # by the score
    ],
    hints=[
        "At the same x_t: alpha D_w + sigma eps_w = alpha D + sigma eps.",
        "So eps_w = eps - alpha (D_w - D) / sigma. Put in D_w - D.",
    ],
    explanation="""eps_w = eps - w sigma grad log p(y | x_t): a minus, one sigma and no alpha (Dhariwal & Nichol,
    NeurIPS 2021, Algorithm 2, at w = 1). The score is -eps / sigma, and Bayes adds w times the gradient to it.""",
)


# ---- q2: classifier-free guidance towards two findings ---------------------------------------------------------------


def two_findings(D_none, D_a, D_b, w_a, w_b):
    return D_none + w_a * (D_a - D_none) + w_b * (D_b - D_none)


q2 = function(
    r"""An image is to show two findings, a and b, and one network answers `D_none`, `D_a` and `D_b`: for nothing asked
    for, for a alone and for b alone. Suppose that, once $x_t$ is known, one finding says nothing more about the other:
    $\log p(a, b \mid x_t) = \log p(a \mid x_t) + \log p(b \mid x_t)$. Write
    `two_findings(D_none, D_a, D_b, w_a, w_b)` of three images of one shape and two numbers: the answer guided towards
    both, each with a scale of its own, in the course's scale: 0 does not ask for a finding, 1 asks for it and no
    more.""",
    solution=two_findings,
    tests=[
        prop(
            "roles",
            lambda f: f(ZEROS, ONES, ZEROS, 3.0, 0.0).mean() >= -1e-6,
            "The step must lead from the unconditional answer towards the conditional one. Are the roles swapped?",
        ),
        prop(
            "own scale",
            lambda f: f(ZEROS, ONES, ZEROS, 3.0, 0.0).mean() > 1e-6 and f(ZEROS, ZEROS, ONES, 0.0, 3.0).mean() > 1e-6,
            "w_a belongs to D_a and w_b to D_b: with the other scale at 0 each must still move the answer.",
        ),
        prop(
            "off by one",
            lambda f: abs(f(ZEROS, ONES, ZEROS, 3.0, 0.0).mean() - 4) > 1e-6,
            "That is the scale of Ho & Salimans: their w is ours minus 1. Here 1 must ask for a finding and no more.",
        ),
        case("nothing asked", (RAMP, WAVE, ONES, 0.0, 0.0), "With both scales at 0 only D_none is left, once."),
        case(
            "one finding",
            (RAMP, WAVE, -ONES, 1.0, 0.0),
            """At w_a = 1 and w_b = 0 only a is asked for: D_a must be left. Each finding has its own scale, and its own
            step.""",
        ),
        case(
            "both",
            (0.3 * RAMP, 0.3 * WAVE, 0.3 * WAVE.flip(-1), 1.0, 1.0),
            """Gradients add, so both steps start at D_none, and neither is made smaller because the other is there:
            D_none + (D_a - D_none) + (D_b - D_none) at scales of 1.""",
        ),
        case(
            "two scales",
            (2 * RAMP, 2 * WAVE, 2 * WAVE.flip(-1), 0.5, 3.0),
            "Each step is its scale times the difference of that finding, also beyond 1, and nothing is clamped.",
        ),
    ],
    mistakes=[
        mistake(lambda D_none, D_a, D_b, w_a, w_b: D_a + w_a * (D_none - D_a), "roles", "swapped"),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: D_none + (1 + w_a) * (D_a - D_none) + (1 + w_b) * (D_b - D_none),
            "off by one",
            "the other scale",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: (D_none + w_a * (D_a - D_none)) + (D_none + w_b * (D_b - D_none)),
            "nothing asked",
            "the base twice",
        ),
        mistake(lambda D_none, D_a, D_b, w_a, w_b: w_a * D_a + w_b * D_b, "nothing asked", "without the base"),
        mistake(lambda D_none, D_a, D_b, w_a, w_b: D_none + w_a * D_a + w_b * D_b, "one finding", "no difference"),
        mistake(lambda D_none, D_a, D_b, w_a, w_b: D_none + w_a * (D_a + D_b - 2 * D_none), "own scale", "one scale"),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: D_none + (w_a * (D_a - D_none) + w_b * (D_b - D_none)) / 2,
            "one finding",
            "the mean of both steps",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: (
                D_none + w_a * (D_a - D_none) + w_b * (D_b - (D_none + w_a * (D_a - D_none)))
            ),
            "both",
            "the second step from where the first ended",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: (
                D_none + (w_a * (D_a - D_none) + w_b * (D_b - D_none)) / max(1.0, w_a + w_b)
            ),
            "both",
            "scales that sum to one",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: D_none + min(w_a, 1) * (D_a - D_none) + min(w_b, 1) * (D_b - D_none),
            "two scales",
            "never extrapolates",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: two_findings(D_none, D_a, D_b, w_a, w_b).clamp(-1, 1),
            "two scales",
            "clamped",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: two_findings(D_none, D_a, D_b, w_b, w_a), "own scale", "swapped scales"
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: two_findings(D_none, D_a, D_b, w_a, min(w_b, 1)),
            "two scales",
            "b never extrapolates",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: two_findings(*(D.clamp(-1, 1) for D in (D_none, D_a, D_b)), w_a, w_b),
            "two scales",
            "clamped answers",
        ),
        mistake(
            lambda D_none, D_a, D_b, w_a, w_b: D_none + w_a**2 * (D_a - D_none) + w_b**2 * (D_b - D_none),
            "two scales",
            "squared",
        ),
    ],
    also_right=[
        lambda D_none, D_a, D_b, w_a, w_b: (1 - w_a - w_b) * D_none + w_a * D_a + w_b * D_b,
        lambda D_none, D_a, D_b, w_a, w_b: torch.lerp(D_none, D_a, w_a) + torch.lerp(D_none, D_b, w_b) - D_none,
    ],
    hints=[
        "Which gradient is D_a - D_none, up to the factor sigma^2 / alpha? And the gradient of a sum is the sum.",
        "With w_b = 0 it is the formula of this section.",
    ],
    explanation="""Each finding adds its own step, from D_none (Liu et al., Compositional visual generation with
    composable diffusion models, ECCV 2022). Three evaluations a step; and it is as good as the independence given x_t,
    which does not follow from findings that are independent in the data:
    findings that come together, or never, are not what it draws. MONAI's `cfg` is this scale; Ho & Salimans (2022)
    write 1 + w for it.""",
)


# ---- q3: label dropout ----------------------------------------------------------------------------------------------


def drop_labels(y, u, p, none):
    return torch.where(u < p, none, y)


CLASSES = torch.tensor([0, 3, 5, 1, 4, 2])
DRAWS = torch.tensor([0.05, 0.30, 0.92, 0.15, 0.60, 0.08])
MANY = torch.rand(20_000, generator=torch.Generator().manual_seed(0))

q3 = function(
    """Write `drop_labels(y, u, p, none)`, the line that makes a network ready for classifier-free guidance: the classes
    that it is told in one step of training. `y` (B,) are the true classes, whole numbers; `u` (B,) was drawn uniformly
    from [0, 1), a number for each image; `p` is the probability of being told nothing (as an image is whose u lies
    below p), and `none` the class that stands for it.""",
    solution=drop_labels,
    tests=[
        case("p = 0", (CLASSES, DRAWS, 0.0, 6), "With p = 0 nothing is dropped: every image keeps its own class."),
        case("p = 1", (CLASSES, DRAWS, 1.0, 6), "With p = 1 the network is told nothing, of any image."),
        prop(
            "the share",
            lambda f: (
                abs(float((f(torch.zeros(20_000, dtype=torch.long), MANY, 0.1, 6) == 6).double().mean()) - 0.1) < 0.01
            ),
            """With p = 0.1 a tenth of the images must be told the class `none`. Is each image's own u compared with p,
            and is it below?""",
        ),
        case(
            "each for itself",
            (CLASSES, DRAWS, 0.2, 6),
            """Which images are dropped? Those whose own u lies below p; u >= 1 - p is as likely and drops others. Not
            the first images of the batch, and no new random numbers.""",
        ),
        case(
            "another none",
            (CLASSES, DRAWS, 0.5, 9),
            "What stands for nothing is the argument `none`; a network of nine classes has another one.",
        ),
    ],
    mistakes=[
        mistake(lambda y, u, p, none: torch.where(u < p, y, none), "p = 0", "the two answers swapped"),
        mistake(lambda y, u, p, none: torch.where(u > p, none, y), "p = 0", "the share that is kept"),
        mistake(lambda y, u, p, none: torch.where(u < 0.1, none, y), "p = 0", "p as a constant"),
        mistake(
            lambda y, u, p, none: torch.where(u[0] < p, torch.full_like(y, int(none)), y), "the share", "all or none"
        ),
        mistake(lambda y, u, p, none: y * (u >= p), "p = 1", "class 0 for none"),
        mistake(lambda y, u, p, none: torch.where(u < p, -1, y), "p = 1", "minus one for none"),
        mistake(lambda y, u, p, none: torch.where(u < p, 6, y), "another none", "six for none"),
        mistake(lambda y, u, p, none: torch.where(u < p, none, y.sort().values), "p = 0", "labels in another order"),
        mistake(
            lambda y, u, p, none: torch.where(torch.arange(len(y)) < p * len(y), none, y),
            "each for itself",
            "the first images of each batch",
        ),
        mistake(lambda y, u, p, none: torch.where(u < p**2, none, y), "the share", "p squared"),
        mistake(lambda y, u, p, none: y[u >= p], "p = 1", "images left out"),
        mistake(lambda y, u, p, none: torch.where(u >= 1 - p, none, y), "each for itself", "the other end"),
    ],
    also_right=[
        lambda y, u, p, none: torch.where(u >= p, y, none),
        lambda y, u, p, none: y.masked_fill(u < p, int(none)),
        lambda y, u, p, none: (u < p) * none + (u >= p) * y,
        lambda y, u, p, none: [int(none) if draw < p else int(label) for label, draw in zip(y, u)],
    ],
    hints=[
        "An event of probability p: u < p.",
        "torch.where(condition, where true, where false) chooses for each image.",
    ],
    explanation="""Ho & Salimans (2022), Algorithm 1, line 3. In the loop u is `torch.rand(len(y))`. They tried p = 0.1,
    0.2 and 0.5, and 0.5 was the worst; the course's networks take 0.1.""",
)


# ---- q4: not the tilted density --------------------------------------------------------------------------------------

q4 = number(
    r"""A wider population. Class: $p(x \mid y) = \mathcal N(0, 1)$. All: $p(x) = \mathcal N(0, 3)$. Variance-exploding
    noise, both denoisers exact, the deterministic path (the ODE). Which **variance** do samples with w = 3 have?""",
    solution="3 ** (1 - 3)",
    mistakes=[
        (3 / 7, "That is the tilted density: precision 3 * 1 + (1 - 3) / 3 = 7/3. Guidance does not sample it."),
        (
            1 / 3,
            "1/3 is the standard deviation of the samples; or the variance at w = 2. Asked is the variance at w = 3.",
        ),
        (3**-3, "Check the exponent: w = 1 must give the class itself, variance 1."),
        (1 / 4, "That is the example of the text, with a population of variance 2. Here it is 3."),
        (0.5, "That is the tilted density of the text's example. Here the population has variance 3."),
        (
            0.75,
            """That is 3 / (w + 1), the text's 2 / (w + 1) with 3 for 2. The tilted density here is 3 / (2 w + 1), and
            samples do not follow it.""",
        ),
        (9, "Guidance narrows here: the class is narrower than the whole, and w > 1 goes on in that direction."),
        ((3 - 3**-4) / 10, "That is what the random path (DDPM) gives, a third answer. The question is about the ODE."),
    ],
    also_right=[Fraction(1, 9), "1/9", "0,111"],
    hints=[
        "Both answers are linear in x, so a path is scaled by a factor: d log x / d log sigma is a weighted sum.",
        "w = 0 gives 3 and w = 1 gives 1. The logarithm of the variance is linear in w.",
    ],
    explanation="""d log x / d sigma = w sigma / (1 + sigma^2) + (1 - w) sigma / (3 + sigma^2). Integrated from infinity
    to 0, the variance is 1^w 3^(1 - w): 1/9 at w = 3. The tilted density has 3 / (2 w + 1) = 3/7.""",
)


# ---- q5: the flipped label -------------------------------------------------------------------------------------------


def is_flipped(guided, unguided):
    return guided[-1].mean() < unguided[-1].mean()


def run(*ends, start=-3.0):
    """log p of four images in six steps, from one start: (6, 4)."""
    return torch.stack([torch.linspace(start, end, 6) for end in ends], 1)


HIGH, LOW = run(-0.1, -0.6, -0.2, -0.3), run(-2.1, -2.6, -1.7, -2.3)
DEEP = run(-6.0, -6.5, -5.7, -6.2)
DETOUR = torch.cat([HIGH[:1], HIGH[1:5] - 9, HIGH[5:]])  # ends as high as HIGH does


def _from_unguided(*changes):
    """(guided, unguided): the last row differs by these changes, one for each image."""
    ends = LOW[-1] + torch.tensor(changes)
    return run(*ends.tolist()), LOW


def _by_ends(less):
    """The two ends compared in another way: less(end with guidance, end without)."""
    return lambda guided, unguided: less(guided[-1], unguided[-1])


q5 = function(
    r"""Write `is_flipped(guided, unguided)`. Both are tensors (steps, B): $\log p(y \mid x_t)$ of the class that was
    **asked for**, along the run, with and without guidance from the same start, for B images. Return True when the
    guided run ended, on the average over the images, with **less** of what it was asked for than the unguided run.""",
    solution=is_flipped,
    tests=[
        case("working", (HIGH, LOW), "Guidance ended higher than no guidance: that is no fault."),
        case("flipped", (DEEP, HIGH), "Here guidance drives the asked class away. It must be True."),
        case(
            "falls either way",
            (run(-3.5, -3.2, -3.6, -3.4), DEEP),
            "The unguided run falls too, and further: guidance helped. Compare with it, not with the start.",
        ),
        case(
            "rises either way",
            (LOW, HIGH),
            "Both rise, but the guided run less: it works against you. Compare with the unguided run.",
        ),
        case(
            "one image",
            _from_unguided(1.0, 1.0, -1.5, 1.0),
            "A single image that does worse is chance. Average over the images.",
        ),
        case(
            "few fall far",
            _from_unguided(0.5, -4.0, 0.5, 0.5),
            "One image fell so far that the average ends lower. Average the values: no vote, no median, no single one.",
        ),
        case(
            "most fall a little",
            _from_unguided(-0.5, 4.0, -0.5, -0.5),
            "Three of four fell a little and one rose far: the average ends higher. Average the values, do not count.",
        ),
        case("the end", (DETOUR, LOW), "What counts is the image at the end of the run, not the way there."),
        case(
            "the end without guidance",
            (LOW, DETOUR),
            "The unguided run, too, counts by its last row: it ended higher, whatever it did on the way.",
        ),
        case("no difference", (LOW, LOW), "Equal ends are no fault: True is for less, not for as much."),
    ],
    mistakes=[
        mistake(_by_ends(lambda end, unguided: end.mean() > unguided.mean()), "working", "the sign"),
        mistake(lambda guided, unguided: guided[-1].mean() < guided[0].mean(), "falls either way", "no baseline"),
        mistake(_by_ends(lambda end, unguided: (end < unguided).any()), "one image", "any"),
        mistake(_by_ends(lambda end, unguided: end.min() < unguided.min()), "one image", "the worst image"),
        mistake(_by_ends(lambda end, unguided: (end < unguided).all()), "few fall far", "all"),
        mistake(_by_ends(lambda end, unguided: (end < unguided).double().mean() > 0.5), "few fall far", "a majority"),
        mistake(_by_ends(lambda end, unguided: end.median() < unguided.median()), "few fall far", "the median"),
        mistake(_by_ends(lambda end, unguided: end.max() < unguided.max()), "few fall far", "the best image"),
        mistake(_by_ends(lambda end, unguided: end[0] < unguided[0]), "few fall far", "the first image"),
        mistake(_by_ends(lambda end, unguided: end[-1] < unguided[-1]), "few fall far", "the last image"),
        mistake(
            _by_ends(lambda end, unguided: end.exp().mean() < unguided.exp().mean()),
            "few fall far",
            "probabilities, not their logarithms",
        ),
        mistake(
            _by_ends(lambda end, unguided: (end - unguided).clamp(max=1).mean() < 0),
            "most fall a little",
            "large gains cut off",
        ),
        mistake(lambda guided, unguided: guided.mean() < unguided.mean(), "the end", "the whole run"),
        mistake(lambda guided, unguided: (guided < unguided).any(1).any(), "one image", "at any time"),
        mistake(
            lambda guided, unguided: (guided[-1].mean() < unguided[-1].mean()) & (guided[-1] < guided[0]).all(),
            "rises either way",
        ),
        mistake(lambda guided, unguided: torch.tensor(False), "flipped", "sleeps"),
        mistake(_by_ends(lambda end, unguided: end.mean() <= unguided.mean()), "no difference", "or as much"),
        mistake(_by_ends(lambda end, unguided: end < unguided), "shape", "one answer for each image"),
        mistake(
            lambda guided, unguided: guided[-1].mean() < unguided[-2].mean(),
            "the end without guidance",
            "a row too early",
        ),
        mistake(
            lambda guided, unguided: guided[-1].mean() < unguided.mean(), "the end without guidance", "the run's mean"
        ),
    ],
    also_right=[
        lambda guided, unguided: bool(guided[-1].mean() < unguided[-1].mean()),
        lambda guided, unguided: (guided - unguided)[-1].sum() < 0,
        lambda guided, unguided: np.mean(guided.numpy()[-1]) < np.mean(unguided.numpy()[-1]),
        lambda guided, unguided: (guided[-1] - guided[0]).mean() < (unguided[-1] - unguided[0]).mean(),
        lambda guided, unguided: int(sum(guided[-1].tolist()) < sum(unguided[-1].tolist())),
    ],
    hints=[
        "The last row is the end of the run.",
        "Average each last row over the images, and compare the two numbers.",
    ],
    explanation="""Guidance must end with more of what was asked for than no guidance. The test is cheap and needs no
    truth. It finds a wrong sign, and a label that is the wrong way round in the guiding code. It does not find a wrong
    index that is used on both sides: look up the class for the test independently, by name or from labelled images.""",
)


# ---- q6: true or not -------------------------------------------------------------------------------------------------

q6 = choices(
    'Which of these statements are true? Give all their letters, such as "ab".',
    {
        "a": "A paper in Ho & Salimans' letters uses w = 2. In MONAI that is `cfg=3`.",
        "b": "With perfect denoisers, classifier-free guidance with w = 3 samples from p(x | y)^3 p(x)^-2, normalised.",
        "c": "In the last, nearly noise-free steps guidance is what makes rare forms of a class disappear.",
        "d": "Images with a high accuracy under an independent classifier may still lack whole forms of their class.",
        "e": """A classifier trained on clean images is a poor guide where it is shown x_t.
        Shown D(x_t, t), the same classifier points about as well as one trained on noise.""",
    },
    answers="ade",
    feedback={
        "a": "Their conditional model is w = 0, ours and MONAI's is w = 1: add one.",
        "b": "Look at the one-dimensional example: its variance is 2^(1 - w), that of this density 2 / (w + 1).",
        "c": "Which form an image takes is decided while there is much noise; look at the interval.",
        "d": "The toy disease at w = 8: every sample is clearly diseased, and one of the two forms is all but gone.",
        "e": """Its answers to x_t are not p(y | x_t), and its gradient points elsewhere; D(x_t, t) is a picture of the
        kind that it knows. See the figure of the push in section 2.""",
    },
    hints=[
        "Two of the five are refuted by figures of this notebook.",
        "Check b in one dimension, c with the interval.",
    ],
    explanation="""True: a, d, e. Guidance is an extrapolation of denoisers, not a way to sample a tilted density;
    what it costs in variety it costs at high noise; and accuracy cannot see what is missing.
    A clean classifier that is shown D(x_t, t) can guide; the price is a gradient through the denoiser at every step,
    and a bias, since D is taken for the one true x_0.""",
)

summary = Exercises(vars()).summary
