"""Exercises of notebook 11: one voxel, noise and denoise, a rare finding, what is left of a lesion, a threshold."""

import math

import numpy as np
import torch

from course_lib.denoisers import FunctionDenoiser
from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop
from course_lib.samplers import sample
from course_lib.schedules import Cosine

# ---- q1: one voxel --------------------------------------------------------------------------------------------------

q1 = number(
    r"""One voxel, healthy people $\mathcal N(0, 1)$, an anomaly $a = 3$.
    Noise to a $t_0$ with $\alpha^2 = 0.8$, $\sigma^2 = 0.2$, and restore **once** by sampling, exactly.
    Which $d'$ has the residual: its shift by the anomaly, divided by its standard deviation in healthy people?""",
    solution="(1 - 0.8) * 3 / (2 * 1 * (1 - 0.8)) ** 0.5",
    mistakes=[
        (3, "The matched filter, or the mean of infinitely many restorations. A single one has chance of its own."),
        (0.6 / 0.2**0.5, "That is with the posterior mean, one evaluation, in place of a sample: variance C (1 - G)."),
        (3 / 0.4**0.5, "Is the anomaly lost altogether? G = 0.8: most of it comes through noise and denoising."),
        (2.4 / 0.4**0.5, "2.4 is what is kept of the anomaly. The residual holds what is lost, (1 - G) a."),
        (0.6, "0.6 is the shift. Divide it by the standard deviation of the residual."),
        (1.5, "The variance is 2 C (1 - G) = 0.4; divide by its root."),
        (2.4, "2.4 is what is kept of the anomaly. The residual holds what is lost, over its standard deviation."),
        (0.3, "The shift of 0.6 is divided by a standard deviation, the root of 2 C (1 - G)."),
    ],
    also_right=["0.95", "0,9487", 0.6 / math.sqrt(0.4)],
    hints=["G = alpha^2 C / (alpha^2 C + sigma^2) = 0.8.", "The variance of one residual is 2 C (1 - G)."],
    explanation="""The residual shifts by (1 - 0.8) 3 = 0.6; its variance is 2 (1 - 0.8) = 0.4; d' = 0.95, a third of
    the ceiling of 3, which the mean of many restorations reaches: 0.6 / 0.2.""",
)


# ---- q2: noise and denoise ------------------------------------------------------------------------------------------

X = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 1, 3, 4)
EPS = torch.cos(9 * X)
TIMES = torch.tensor([0.6, 0.3, 0.1, 0.0], dtype=torch.float64)


ONE_STEP = TIMES[[0, 3]]

SHRINK = FunctionDenoiser(lambda x_t, t: 0.5 * x_t + 0.1 * t, Cosine())
KEEP = FunctionDenoiser(lambda x_t, t: x_t, Cosine())  # one step to 0 leaves its answer: here the noisy image itself
SURE = FunctionDenoiser(lambda x_t, t: 0.5 + 0 * x_t, Cosine())  # the same answer wherever it is asked
CLOCK = FunctionDenoiser(lambda x_t, t: t + 0 * x_t, Cosine())


def restored(D, x, eps, times):
    alpha, sigma = D.schedule.alpha, D.schedule.sigma
    x_t = alpha(times[0]) * x + sigma(times[0]) * eps
    for t, s in zip(times[:-1], times[1:]):
        x_0 = D(x_t, t)
        x_t = alpha(s) * x_0 + sigma(s) * (x_t - alpha(t) * x_0) / sigma(t)
    return x_t


def _from_slopes(D, x, eps, times):
    """The same steps with the terms sorted by x_t and by D."""
    alpha, sigma = D.schedule.alpha, D.schedule.sigma
    x_t = alpha(times[0]) * x + sigma(times[0]) * eps
    for i in range(len(times) - 1):
        ratio = sigma(times[i + 1]) / sigma(times[i])
        x_t = ratio * x_t + (alpha(times[i + 1]) - ratio * alpha(times[i])) * D(x_t, times[i])
    return x_t


def _done_at_0(D, x, eps, times):
    """`restored` that knows what alpha and sigma are at 0."""
    x_t = D.schedule.noisy(x, eps, times[0])
    for t, s in zip(times[:-1], times[1:]):
        x_0 = D(x_t, t)
        if s == 0:
            return x_0
        x_t = D.schedule.noisy(x_0, (x_t - D.schedule.alpha(t) * x_0) / D.schedule.sigma(t), s)


def _while_above_0(D, x, eps, times):
    alpha, sigma, i = D.schedule.alpha, D.schedule.sigma, 0
    x_t = alpha(times[0]) * x + sigma(times[0]) * eps
    while times[i] > 0:
        t, s = times[i], times[i + 1]
        x_0 = D(x_t, t)
        x_t, i = alpha(s) * x_0 + sigma(s) * (x_t - alpha(t) * x_0) / sigma(t), i + 1
    return x_t


def _restored(
    start=lambda x, eps, a, s: a * x + s * eps,
    noise=lambda first, x_t, x_0, a_t, s_t, a_s: (x_t - a_t * x_0) / s_t,
    levels=lambda schedule: (schedule.alpha, schedule.sigma),
):
    """`restored` with another start, another noise in each step, or other levels a and s of signal and noise."""

    def wrong(D, x, eps, times):
        alpha, sigma = levels(D.schedule)
        x_t = start(x, eps, alpha(times[0]), sigma(times[0]))
        for t, s in zip(times[:-1], times[1:]):
            x_0 = D(x_t, t)
            x_t = alpha(s) * x_0 + sigma(s) * noise(eps, x_t, x_0, alpha(t), sigma(t), alpha(s))
        return x_t

    return wrong


def _stepped(step):
    """`restored` with another step: step(x_t, x_0, alpha_t, sigma_t, alpha_s, sigma_s)."""

    def wrong(D, x, eps, times):
        levels = [(D.schedule.alpha(t), D.schedule.sigma(t)) for t in times]
        x_t = levels[0][0] * x + levels[0][1] * eps
        for t, at_t, at_s in zip(times, levels, levels[1:]):
            x_t = step(x_t, D(x_t, t), *at_t, *at_s)
        return x_t

    return wrong


def _same(a, b):
    """Equal but for the rounding of single precision."""
    return (a - b).abs().max() < 1e-5


FIRST_NOISE = _restored(noise=lambda first, x_t, x_0, *levels: first)

q2 = function(
    r"""Write `restored(D, x, eps, times)`: noise and denoise. Noise `x` to `times[0]` with `eps`, then
    walk along the falling `times`, the last of which is 0, with DDIM: $x_s = \alpha_s D + \sigma_s\,(x_t - \alpha_t
    D)/\sigma_t$. `D(x_t, t)` is the denoiser; `D.schedule.alpha(t)` and `D.schedule.sigma(t)` are its levels.""",
    solution=restored,
    tests=[
        case(
            "reaches 0",
            (SURE, X, EPS, ONE_STEP),
            """One step to 0 leaves D(x_t, t) and nothing else: alpha_s = 1 stands before D, sigma_s = 0 before the
            noise. Does your walk leave out the first time, or the last? Is it sigma_t that you divide by? sigma_s is 0
            here.""",
        ),
        prop(
            "starts from the image",
            lambda f: (f(SHRINK, X, EPS, TIMES) - f(SHRINK, -X, EPS, TIMES)).std() > 1e-3,
            "The result does not depend on x. Starting from pure noise draws some healthy person, not this one.",
        ),
        prop(
            "is noised",
            lambda f: (f(SHRINK, X, EPS, TIMES) - f(SHRINK, X, -EPS, TIMES)).std() > 1e-3,
            "The result does not depend on eps. Without noise nothing hides the lesion from the denoiser.",
        ),
        prop(
            "x is scaled",
            lambda f: not _same(f(KEEP, X, 0 * EPS, ONE_STEP), X),
            "The start keeps x as it is and adds noise. Multiply x by alpha(times[0]), which weakens it.",
        ),
        case(
            "x by alpha",
            (KEEP, X, 0 * EPS, ONE_STEP),
            """Without noise the start is alpha(times[0]) x. Is x multiplied by another number, by sigma? And no noise
            comes in but eps.""",
        ),
        prop(
            "eps is scaled",
            lambda f: not _same(f(KEEP, 0 * X, EPS, ONE_STEP), EPS),
            "The start adds the whole of eps, as if times[0] were 1. Multiply eps by sigma(times[0]).",
        ),
        case(
            "eps by sigma",
            (KEEP, 0 * X, EPS, ONE_STEP),
            "Without an image the start is sigma(times[0]) eps. Yours multiplies eps by another number: by alpha?",
        ),
        case(
            "D is told the time",
            (CLOCK, X, EPS, ONE_STEP),
            "The answer of this D depends on its time: ask for D(x_t, t) at the t at which x_t is, not at 0 or at s.",
        ),
        prop(
            "every time counts",
            lambda f: not _same(f(SHRINK, X, EPS, TIMES), f(SHRINK, X, EPS, ONE_STEP)),
            "The times in between change nothing: D is asked once. Ask it at each time but the last.",
        ),
        prop(
            "walks on",
            lambda f: not _same(f(SHRINK, X, EPS, TIMES), restored(SHRINK, X, EPS, TIMES[:2])),
            "Only the first step is made. Does `return` stand inside the loop?",
        ),
        prop(
            "the noise anew",
            lambda f: not _same(f(SHRINK, X, EPS, TIMES), FIRST_NOISE(SHRINK, X, EPS, TIMES)),
            """You put the noise of the start, eps, back in every step. After the first step it is another: work out
            (x_t - alpha_t D) / sigma_t anew.""",
        ),
        case(
            "the noise in x_t",
            (SHRINK, X, EPS, TIMES),
            """The start, the times and a single step are right; with three steps the noise is not. It is what is in
            x_t: (x_t - alpha_t D) / sigma_t, with both levels at t. Those at s stand outside the brackets.""",
        ),
    ],
    mistakes=[
        mistake(_restored(start=lambda x, eps, a, s: eps), "starts from the image", "ordinary sampling"),
        mistake(_restored(start=lambda x, eps, a, s: a * x), "is noised", "forgets sigma eps"),
        mistake(FIRST_NOISE, "the noise anew", "keeps the first noise"),
        mistake(lambda D, x, eps, times: restored(D, x, eps, times[:-1]), "reaches 0", "stops before 0"),
        mistake(_restored(levels=lambda schedule: (schedule.sigma, schedule.alpha)), "reaches 0", "levels swapped"),
        mistake(
            _stepped(lambda x_t, x_0, a_t, s_t, a_s, s_s: a_s * x_0 + s_s * (x_t - a_t * x_0) / s_s),
            "finite",
            "divided by sigma at s",
        ),
        mistake(
            _stepped(lambda x_t, x_0, a_t, s_t, a_s, s_s: a_t * x_0 + s_s * (x_t - a_t * x_0) / s_t),
            "reaches 0",
            "alpha at t before D",
        ),
        mistake(lambda D, x, *others: x - restored(D, x, *others), "reaches 0", "the residual"),
        mistake(lambda D, x, eps, times: restored(D, x, torch.randn_like(x), times), "x by alpha", "noise of its own"),
        mistake(
            lambda D, *others: restored(FunctionDenoiser(lambda x_t, t: D(x_t, 0 * t), D.schedule), *others),
            "D is told the time",
            "D is told 0",
        ),
        mistake(lambda D, x, eps, times: restored(D, x, eps, times[[0, -1]]), "every time counts", "one step only"),
        mistake(lambda D, x, eps, times: restored(D, x, eps, times[:2]), "walks on", "returns inside the loop"),
        mistake(
            lambda D, x, eps, times: D(D.schedule.noisy(x, eps, times[0]), times[0]),
            "every time counts",
            "the denoised image alone",
        ),
        mistake(
            _restored(noise=lambda first, x_t, x_0, a_t, s_t, a_s: (x_t - a_s * x_0) / s_t),
            "the noise in x_t",
            "the noise worked out at s",
        ),
        mistake(_restored(start=lambda x, eps, a, s: s * x + s * eps), "x by alpha", "sigma for alpha"),
        mistake(_restored(start=lambda x, eps, a, s: x + s * eps), "x is scaled", "x not scaled"),
        mistake(_restored(start=lambda x, eps, a, s: a * x + a * eps), "eps by sigma", "alpha for sigma"),
        mistake(_restored(start=lambda x, eps, a, s: a * x + eps), "eps is scaled", "eps not scaled"),
    ],
    also_right=[
        _from_slopes,
        _done_at_0,
        _while_above_0,
        lambda D, x, eps, times: restored(D, x, eps, [float(t) for t in times]),
        lambda D, x, eps, times: sample(D, D.schedule.noisy(x, eps, times[0]), times),
    ],
    hints=[
        """Begin with `alpha, sigma = D.schedule.alpha, D.schedule.sigma`.
        Start: `x_t = alpha(times[0]) * x + sigma(times[0]) * eps`.""",
        "`for t, s in zip(times[:-1], times[1:])`: ask D at t, work out the noise in x_t, put both together at s.",
    ],
    explanation="""Noise and denoise in a few lines; what matters is hidden in `times[0]`. After the first noise DDIM
    draws nothing: section 2's G becomes its root, and more of the lesion is kept. AnoDDPM (Wyatt et al., 2022) and the
    notebook's own runs draw at random.""",
)


# ---- q3: two per cent ------------------------------------------------------------------------------------------------

q3 = number(
    """Two per cent of the pixels are lesion. A detector finds 90 % of the lesion's pixels and flags 5 % of the healthy
    ones: in an ROC curve that is near the upper left corner.
    Which **precision** has it, that is, which share of the flagged pixels is lesion?""",
    share=True,
    solution="0.02 * 0.90 / (0.02 * 0.90 + 0.98 * 0.05)",
    mistakes=[
        (0.90, "90 % is the recall: the share of the lesion that is flagged. Asked is the share of the flagged."),
        (
            0.95,
            """0.95 is the specificity; 0.90 / (0.90 + 0.05) = 0.947 takes as many lesion pixels as healthy ones. Weigh
            with 2 % and 98 %.""",
        ),
        (0.018 / (0.018 + 0.05), "The 5 % are of the healthy pixels, which are 98 % of all."),
        (0.02, "That is the prevalence, the precision of a detector without any information."),
        (0.049 / 0.067, "That is the share of false alarms among the flagged pixels, one minus the precision."),
    ],
    also_right=["27 %", 180 / 670, "18/67"],
    hints=["Take 10,000 pixels: how many lesion pixels are flagged, and how many healthy ones?", "180 and 490."],
    explanation="""180 / (180 + 490) = 0.27: three of four flagged pixels are healthy. The ROC curve divides by the
    healthy pixels, which are many, and so it flatters; precision divides by what the reader has to look at.""",
)


# ---- q4: what healing leaves -----------------------------------------------------------------------------------------


def share_left(twin, image, healthy, mask):
    left, there = ((x - healthy).abs()[mask > 0].sum() for x in (twin, image))
    return left / there


def _inside(summary):
    """Another summary of the errors inside the lesion, divided by that of the untouched image."""

    def wrong(twin, image, healthy, mask):
        return summary((twin - healthy)[mask > 0]) / summary((image - healthy)[mask > 0])

    return wrong


TRUTH = np.sin(np.arange(32.0)).reshape(2, 4, 4)
MASK = (np.arange(32) % np.repeat([3, 7], 16) < 1).reshape(2, 4, 4)  # 6 pixels in one patient, 2 in the other
OWN = np.sin(np.arange(32.0) ** 2).reshape(2, 4, 4)
IMAGE = TRUTH + np.where(MASK, 0.7 * (1 + 0.5 * OWN), 0.05 * OWN)  # it differs a little outside the lesion, too
TWIN = TRUTH + 0.3 * np.cos(3 * np.arange(32.0)).reshape(2, 4, 4)
COUNTS = [int(lesion.sum()) for lesion in MASK]
FIRST = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
Q4 = tuple(torch.tensor(a) for a in (TWIN, IMAGE, TRUTH, MASK.astype(np.uint8)))

q4 = function(
    """How much of a lesion has the restoration left? Write `share_left(twin, image, healthy, mask)`: the mean absolute
    difference of the twin from the true healthy twin over the lesion pixels of all N patients together, as a share of
    that of the image that was given in. 1: nothing was healed; 0: all of it. All are tensors (N, H, W); `mask` is 1 on
    the lesion.""",
    solution=share_left,
    tests=[
        case("perfect", (Q4[2], *Q4[1:]), "A twin that equals the healthy image has nothing left: 0."),
        case("untouched", (Q4[1], *Q4[1:]), "A twin that is the image itself has all of it left: divide, and it is 1."),
        prop(
            "inside only",
            lambda f: f(Q4[2] + 1.0 * (Q4[3] == 0), *Q4[1:]) < 1e-5,
            "What differs outside the lesion does not count here: in section 5's table it has a column of its own.",
        ),
        case(
            "absolute",
            tuple(of_both[:1] for of_both in Q4),
            """Means of absolute differences, above and below: no squares, no median, no maximum, nothing that cancels.
            And the twin's difference is that from the healthy twin, not from the image.""",
        ),
        prop(
            "every pixel alike",
            lambda f: abs(f(Q4[2] + FIRST, Q4[2] + 1.0, *Q4[2:]) - COUNTS[0] / sum(COUNTS)) < 1e-5,
            """The image is off by 1 in both patients' lesions, the twin in the larger one alone: left is that lesion's
            share of all lesion pixels. A share for each patient, averaged, weighs a small lesion as much as a large
            one.""",
        ),
        case(
            "worse",
            (2 * Q4[1] - Q4[2], *Q4[1:]),
            "A restoration can be farther off than the image was: the share is then above 1, and nothing is clamped.",
        ),
    ],
    mistakes=[
        mistake(lambda twin, image, healthy, mask: (twin - healthy).abs()[mask > 0].mean(), "untouched", "no share"),
        mistake(lambda twin, image, healthy, mask: 1 - share_left(twin, image, healthy, mask), "perfect", "the healed"),
        mistake(lambda twin, image, healthy, mask: 1 / share_left(twin, image, healthy, mask), "finite", "upside down"),
        mistake(
            lambda twin, image, healthy, mask: (
                (twin - image).abs()[mask > 0].sum() / (image - healthy).abs()[mask > 0].sum()
            ),
            "perfect",
            "the residual",
        ),
        mistake(
            lambda twin, image, healthy, mask: (twin - healthy).abs().mean() / (image - healthy).abs().mean(),
            "inside only",
            "the whole image",
        ),
        mistake(
            lambda twin, image, healthy, mask: (twin - healthy).abs().mean() / (image - healthy).abs()[mask > 0].mean(),
            "untouched",
            "the whole image above, the lesion below",
        ),
        mistake(
            lambda twin, image, healthy, mask: (twin - healthy).abs()[mask > 0].mean() / (image - healthy).abs().mean(),
            "untouched",
            "the lesion above, the whole image below",
        ),
        mistake(
            lambda twin, image, healthy, mask: (
                1 - (image - twin).abs()[mask > 0].sum() / (image - healthy).abs()[mask > 0].sum()
            ),
            "absolute",
            "one minus the residual's share",
        ),
        mistake(lambda *args: share_left(*args).clamp(0, 1), "worse", "clamped"),
        mistake(_inside(torch.mean), "absolute", "errors cancel"),
        mistake(_inside(lambda error: error.square().mean()), "absolute", "squared"),
        mistake(_inside(lambda error: error.square().mean().sqrt()), "absolute", "root mean square"),
        mistake(_inside(lambda error: error.abs().max()), "absolute", "the largest"),
        mistake(_inside(lambda error: error.abs().median()), "absolute", "the median"),
        mistake(
            lambda twin, image, healthy, mask: (
                ((twin - healthy).abs() * mask).sum((1, 2)) / ((image - healthy).abs() * mask).sum((1, 2))
            ).mean(),
            "every pixel alike",
            "a share for each patient",
        ),
        mistake(
            lambda twin, image, healthy, mask: ((twin - healthy).abs() / (image - healthy).abs())[mask > 0].mean(),
            "absolute",
            "a share for each pixel",
        ),
    ],
    also_right=[
        _inside(lambda error: error.abs().mean()),
        lambda twin, image, healthy, mask: (
            ((twin - healthy).abs() * mask).sum() / ((image - healthy).abs() * mask).sum()
        ),
        lambda twin, image, healthy, mask: (
            torch.nn.functional.l1_loss(twin[mask == 1], healthy[mask == 1])
            / torch.nn.functional.l1_loss(image[mask == 1], healthy[mask == 1])
        ),
        lambda twin, image, healthy, mask: (
            float(np.abs(twin - healthy)[mask.bool()].mean()) / float(np.abs(image - healthy)[mask.bool()].mean())
        ),
    ],
    hints=[
        "`(x - healthy).abs()`, and then only where `mask > 0`: once for the twin, once for the image.",
        "The means have the same number of pixels: the sums will do.",
    ],
    explanation="""In section 5's table, at t_0 = 0.5, about 0.14 / 0.42: a third is left. It says nothing of what was
    added elsewhere. Only a cohort with true twins can ask this. Patients have none: there a low residual outside the
    lesion is all that can be shown of identity.""",
)


# ---- q5: the threshold ----------------------------------------------------------------------------------------------


def dice_at_chosen(thresholds, validation, test):
    chosen = validation.mean(0).argmax()
    return test[:, chosen].mean()


def _chosen_by(column):
    """The test cases' mean Dice at a threshold that is chosen in another way."""
    return lambda thresholds, validation, test: test[:, column(validation)].mean()


def _last_above_0(validation):
    """The column that a search for the largest mean ends at if it compares each with 0."""
    best, chosen = 0.0, 0
    for k in range(validation.shape[1]):
        if validation[:, k].mean() > best:
            chosen = k
    return chosen


THRESHOLDS = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
# The third threshold is best by the mean; others by the median, by the best or worst case, by a vote, on the test set.
VALIDATION = torch.tensor(
    [
        [0.60, 0.20, 0.15, 0.55, 0.85, 0.35],
        [0.15, 0.60, 0.75, 0.05, 0.35, 0.25],
        [0.75, 0.15, 0.60, 0.70, 0.55, 0.50],
        [0.70, 0.55, 0.60, 0.20, 0.50, 0.40],
        [0.15, 0.65, 0.45, 0.35, 0.10, 0.30],
    ]
)
TEST = torch.tensor(
    [
        [0.20, 0.70, 0.35, 0.85, 0.30, 0.70],
        [0.80, 0.20, 0.10, 0.20, 0.30, 0.05],
        [0.20, 0.60, 0.45, 0.80, 0.10, 0.55],
        [0.80, 0.25, 0.20, 0.60, 0.75, 0.15],
    ]
)
BEST = int(VALIDATION.mean(0).argmax())
BEST_ON_TEST = int(TEST.mean(0).argmax())

q5 = function(
    """Write `dice_at_chosen(thresholds, validation, test)`: the mean Dice that an honest report may print.
    `thresholds` (K,); `validation` (N, K) and `test` (M, K) hold the Dice of each case at each threshold. Choose the
    threshold that has the best mean Dice on the validation cases, and return the mean Dice of the test cases there.""",
    solution=dice_at_chosen,
    tests=[
        prop(
            "the test set does not choose",
            lambda f: abs(f(THRESHOLDS, VALIDATION, TEST) - float(TEST.mean(0).max())) > 1e-6,
            "You took the threshold that is best on the test set. That is the oracle: it has seen the truth.",
        ),
        prop(
            "reported on test",
            lambda f: abs(f(THRESHOLDS, VALIDATION, TEST) - float(VALIDATION[:, BEST].mean())) > 1e-4,
            "That is the Dice of the validation cases, on which the threshold was chosen: it flatters too.",
        ),
        prop(
            "the two sets in their places",
            lambda f: abs(f(THRESHOLDS, VALIDATION, TEST) - float(VALIDATION[:, BEST_ON_TEST].mean())) > 1e-4,
            "You chose on the test cases and reported validation: the two are swapped.",
        ),
        prop(
            "a Dice, no threshold",
            lambda f: all(abs(f(THRESHOLDS, VALIDATION, TEST) - x) > 1e-4 for x in (float(THRESHOLDS[BEST]), BEST)),
            "That is the threshold, or its column. Return the mean Dice of the test cases there.",
        ),
        case(
            "one threshold for all",
            (THRESHOLDS, VALIDATION, TEST),
            """One threshold for all cases: the one whose **mean** Dice on validation is highest.
            No median, no vote, no best case. In a loop, keep the best mean so far.""",
        ),
    ],
    mistakes=[
        mistake(lambda thresholds, validation, test: test.mean(0).max(), "the test set does not choose", "oracle"),
        mistake(lambda thresholds, validation, test: validation.mean(0).max(), "reported on test"),
        mistake(
            lambda thresholds, validation, test: test.max(1).values.mean(),
            "one threshold for all",
            "the best threshold of each image: an oracle a case",
        ),
        mistake(lambda thresholds, validation, test: test.mean(), "one threshold for all", "no choice at all"),
        mistake(_chosen_by(lambda v: v.median(0).values.argmax()), "one threshold for all", "by the median"),
        mistake(_chosen_by(lambda v: v.max(0).values.argmax()), "one threshold for all", "by the best case"),
        mistake(_chosen_by(lambda v: v.min(0).values.argmax()), "one threshold for all", "by the worst case"),
        mistake(_chosen_by(lambda v: v.argmax(1).bincount().argmax()), "one threshold for all", "by a vote"),
        mistake(_chosen_by(_last_above_0), "one threshold for all", "a loop that forgets the best so far"),
        mistake(
            _chosen_by(lambda v: int((v.mean(0).diff() > 0).nonzero().max()) + 1),
            "one threshold for all",
            "the last one better than its left neighbour",
        ),
        mistake(_chosen_by(lambda v: -1), "one threshold for all", "the largest threshold"),
        mistake(
            _chosen_by(lambda v: (THRESHOLDS - THRESHOLDS[v.argmax(1)].mean()).abs().argmin()),
            "one threshold for all",
            "by the mean of each case's best threshold",
        ),
        mistake(_chosen_by(lambda v: v[0].argmax()), "one threshold for all", "by the first case"),
        mistake(_chosen_by(lambda v: v.argmax() % v.shape[1]), "one threshold for all", "by the largest entry"),
        mistake(
            lambda thresholds, validation, test: test[:, validation.mean(0).argmax()].median(),
            "one threshold for all",
            "the median of the test cases",
        ),
        mistake(
            lambda thresholds, validation, test: validation[:, test.mean(0).argmax()].mean(),
            "the two sets in their places",
        ),
        mistake(
            lambda thresholds, validation, test: thresholds[validation.mean(0).argmax()],
            "a Dice, no threshold",
            "the threshold itself",
        ),
    ],
    also_right=[
        lambda thresholds, validation, test: test.mean(0)[validation.mean(0).argmax()],
        lambda thresholds, validation, test: test[:, validation.sum(0).argmax()].mean().item(),
        lambda thresholds, validation, test: test.numpy().mean(0)[np.argmax(validation.numpy().mean(0))],
        lambda thresholds, validation, test: max(zip(validation.mean(0).tolist(), test.mean(0).tolist(), strict=True))[
            1
        ],
    ],
    hints=["`validation.mean(0)` is one number for each threshold.", "`argmax` gives the column; read `test` there."],
    explanation="""A threshold is a parameter like any other.
    Chosen on the test set it makes every method look better, and not all by as much: it can change their order.""",
)


# ---- q6: true or not ------------------------------------------------------------------------------------------------

q6 = choices(
    "Which of these statements are true?",
    {
        "a": r"""In $D_w = D_\text{none} + w (D_y - D_\text{none})$ with y = lesion, a positive w makes the lesion grow;
        to heal, y must be healthy.""",
        "b": "An AUROC over pixels of 0.95 shows that most of what is flagged is lesion.",
        "c": "With a prior that has seen healthy brains only, everything unusual is a lesion.",
        "d": "The larger t_0 is, the better the lesion goes, and the less of the person stays.",
        "e": "If a brightness threshold scores higher on bright lesions, the network has no place there.",
    },
    answers="ad",
    feedback={
        "a": "Guidance pulls towards the class it names. Look up the index by name, and test it as in notebook 05.",
        "b": "At 2 % prevalence three of four flagged pixels can be healthy at such an AUROC (exercise 3).",
        "c": "Another contrast, another level, an artefact are unusual too: see the T2 image.",
        "d": "The Gaussian case has both in closed form, and the images show the same.",
        "e": """Bright lesions are not all: of the patients of all five families, with 5 of 32 healthy flagged,
        brightness shows about half, the best network nine in ten (section 9). It is the method to beat on its own
        ground.""",
    },
    hints=["Two are true.", "For the others look at exercise 3, at the T2 image and at section 9."],
    explanation="""True: a, d. Unusual is not ill, an ROC curve divides by what is common, and a rule that is best at
    one kind of lesion need not be best at telling who is ill.""",
)

summary = Exercises(vars()).summary
