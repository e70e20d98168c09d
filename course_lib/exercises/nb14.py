"""Exercises of notebook 14: invention in a band, copies, what epsilon bounds, a missing class, error bars under shift,
the bound of conformal prediction, energy, a report."""

import math
from fractions import Fraction

import numpy as np
import torch

from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop

# ---- q1: what invention costs ----------------------------------------------------------------------------------------

q1 = number(
    """A ring of k-space was not measured, and the measured lines say **nothing** about it.
    A perfect posterior sampler fills it with a draw as strong as the truth and independent of it. Its mean squared
    error in this ring, divided by the error of leaving the ring at zero, is ...? (All have mean zero.)""",
    solution="1 + 1",
    mistakes=[
        (1, "That is the error of zeros, the truth's own energy. The draw adds its energy to it."),
        (0, "Perfect means a draw of the posterior, not a guess of the truth."),
        (0.5, "Upside down: is the invented ring nearer to the truth than an empty one?"),
        (2**0.5, "That is the ratio of standard deviations; squared errors are asked for."),
        (1.25, "That is for the mean of four draws; here it is a single one."),
        (4, "The variance of a difference of two independent things is the sum of their variances."),
    ],
    also_right=[2.0, "2", [2]],
    hints=[
        "The error is the difference of two independent numbers of equal variance.",
        "Var(a - b) = Var(a) + Var(b); zeros have the error Var(b).",
    ],
    explanation="""The sampler does exactly what was asked, and is wrong by twice the energy: (1 + 1/K) of notebook 09
    with K = 1. At 2 nothing was known; between 1 and 2 something was. A perfect sampler has just twice the error of the
    best regression; one that comes below draws too little.""",
)


# ---- q2: the share of copies -----------------------------------------------------------------------------------------


def flagged_share(relative, null, level):
    rank = int(level * (len(null) + 1) + 1e-9)
    if rank == 0:  # too few held-out images for this level; index -1 would be the largest
        return torch.tensor(0.0)
    limit = null.sort().values[rank - 1]
    return (relative < limit).float().mean()


def _flags(rank_of, below=True, values=lambda relative, null: relative):
    """A wrong answer: the threshold is the value at rank_of(level, n), counted from 0."""

    def wrong(relative, null, level):
        limit = null.sort().values[rank_of(level, len(null))]
        hit = values(relative, null) < limit if below else values(relative, null) > limit
        return hit.float().mean()

    return wrong


def _rank(level, n):
    return int(level * (n + 1) + 1e-9) - 1


def _below(threshold):
    """The share of samples below another threshold(relative, null, level)."""
    return lambda relative, null, level: (relative < threshold(relative, null, level)).float().mean()


NULL = torch.linspace(0.5, 1.0, 99)[torch.randperm(99, generator=torch.Generator().manual_seed(0))]
EIGHTHS = torch.arange(57, -1, -1) / 8
MIXED = torch.cat([torch.linspace(0.1, 0.3, 30), torch.linspace(0.6, 0.95, 70)])

q2 = function(
    r"""Write `flagged_share(relative, null, level)`: the share of samples called copies. `relative` (N,) are their
    distances to the nearest training image over those to the surroundings, `null` (n,) the same of held-out images.
    The threshold is the value of `null` of rank $\lfloor \text{level}\,(n + 1)\rfloor$, counted from the smallest as 1;
    what lies **below** it is called a copy. Where the rank is 0, nobody is.""",
    solution=flagged_share,
    tests=[
        case(
            "copies",
            (MIXED, NULL, 0.05),
            """30 of 100 samples lie far below every held-out image: 0.30. Is
            `null` sorted, smallest first, and is it a share of `relative`?""",
        ),
        case(
            "held out",
            (NULL, NULL, 0.05),
            """Of these 99 held-out images 4 lie below the fifth smallest.
            Is the rank right, and is the image at the threshold left out?""",
        ),
        case(
            "another level",
            (NULL, NULL, 0.2),
            "A level of 0.2 of 99 held-out images is rank 20: 19 of them lie below. Is `level` used?",
        ),
        case(
            "a rank rounded down",
            (torch.cat([EIGHTHS, EIGHTHS]), EIGHTHS, 0.05),
            """n = 58: 0.05 * 59 is 2.95, so the rank is 2, and 2 of the 116 samples lie below that value.
            Round down, and take n + 1 of the held-out images, not of the samples.""",
        ),
        case(
            "too few",
            (MIXED, NULL[:10], 0.05),
            "Ten held-out images, level 0.05: the rank is 0, and nobody is called. (In Python index -1 is the last.)",
        ),
    ],
    mistakes=[
        mistake(_flags(_rank, below=False), "copies", "far is not a copy"),
        mistake(_flags(lambda level, n: n - 1), "copies", "below the largest"),
        mistake(lambda relative, null, level: relative.quantile(level), "copies", "a quantile, no share"),
        mistake(_below(lambda relative, null, level: relative.quantile(level)), "copies", "own"),
        mistake(_below(lambda relative, null, level: level), "copies", "level as threshold"),
        mistake(_flags(_rank, values=lambda r, null: null), "copies", "flags the null"),
        mistake(_flags(lambda level, n: _rank(level, n) + 1), "held out", "one rank too far"),
        mistake(
            lambda relative, null, level: (relative <= null.sort().values[_rank(level, len(null))]).float().mean(),
            "held out",
            "at or below",
        ),
        mistake(_flags(lambda level, n: math.ceil(level * n) - 1), "a rank rounded down", "level * n rounded up"),
        mistake(_flags(lambda level, n: int(level * n)), "a rank rounded down", "level * n, counted from 0"),
        mistake(_flags(lambda level, n: round(float(level) * (n + 1)) - 1), "a rank rounded down", "rounded"),
        mistake(_flags(lambda level, n: math.ceil(level * (n + 1) - 1e-9) - 1), "a rank rounded down", "rounded up"),
        mistake(_flags(lambda level, n: int(level * n) - 1), "held out", "n, not n + 1"),
        mistake(
            _below(lambda relative, null, level: null.quantile(float(level), interpolation="lower")),
            "a rank rounded down",
            "a lower quantile",
        ),
        mistake(_below(lambda relative, null, level: null.quantile(float(level))), "held out", "quantile"),
        mistake(lambda *args: 100 * flagged_share(*args), "copies", "a number of per cent"),
        mistake(lambda relative, null, level: flagged_share(relative, null, 0.05), "another level", "level ignored"),
        mistake(
            lambda relative, null, level: (relative < null.sort().values[_rank(level, len(null))]).float().mean(),
            "too few",
            "rank 0 read as the last",
        ),
        mistake(lambda relative, null, level: len(relative) * flagged_share(relative, null, level), "copies", "count"),
        mistake(_below(lambda relative, null, level: null[_rank(level, len(null))]), "copies", "not sorted"),
        mistake(
            _below(lambda relative, null, level: null.sort().values[_rank(level, len(relative))]),
            "a rank rounded down",
            "the samples counted, not the null",
        ),
        mistake(_flags(lambda level, n: int(level * (n + 2)) - 1), "a rank rounded down", "n + 2"),
    ],
    also_right=[
        lambda relative, null, level: (
            (relative < null.kthvalue(rank).values).double().mean()
            if (rank := math.floor(level * (len(null) + 1) + 1e-9))
            else 0
        ),
        lambda relative, null, level: np.mean(
            relative.numpy() < np.append(-np.inf, np.sort(null.numpy()))[int(float(level) * (len(null) + 1) + 1e-9)]
        ),
        lambda relative, null, level: (
            sum(
                value < [-math.inf, *sorted(null.tolist())][int(level * (len(null) + 1) + 1e-9)]
                for value in relative.tolist()
            )
            / len(relative)
        ),
    ],
    hints=[
        "Sort the null and take the value at the rank; Python counts from 0.",
        "The rank is int(level * (n + 1)), the index one less. Then (relative < value).float().mean(), or 0 at rank 0.",
    ],
    explanation="""A new held-out image lies strictly below this value with probability at most `level`, for any
    distribution. Say the level beside every share of copies: at 5 %, a share of 5 % is no copy at all.""",
)


# ---- q3: what epsilon bounds -----------------------------------------------------------------------------------------

q3 = number(
    r"""A network was trained with differential privacy, $\varepsilon = 1$ and $\delta = 0$: with any one patient or
    without, no outcome of the training becomes more than $e^{\varepsilon}$ times as likely. An attack calls 1 % of the
    patients who were **not** in the training "members". Of what share of the members can it say so, at most?""",
    solution="math.exp(1) * 0.01",
    rtol=0.01,
    share=True,
    mistakes=[
        (0.01, "That is epsilon = 0: the network would not depend on any patient, and the attack would be guessing."),
        (1, "Nothing is bounded then. The definition bounds the ratio of two probabilities by e^epsilon."),
        (0.01 / math.e, "Turn the exponent round: the members may be called more often, by the factor e^epsilon."),
        (0.02, "The bound is a factor e^epsilon, not 1 + epsilon."),
        (0.1, "e^epsilon is 2.72 at epsilon = 1; 10 would be epsilon = 2.3."),
        (0.0739, "That is epsilon = 2."),
    ],
    also_right=["2.72 %", "0,0272", math.e / 100],
    hints=[
        "'Called a member' is one of the outcomes that the definition bounds.",
        "The members' share is at most e^1 times the others'.",
    ],
    explanation="""0.027: of a hundred members not three, whatever the attack knows besides. At epsilon = 8 the same
    bound is above 1 and excludes nothing. It holds for each patient, not on average, which no AUROC does.
    No network of this course was trained so.""",
)


# ---- q4: a class that is missing -------------------------------------------------------------------------------------

q4 = number(
    """A finding is in 3 % of the patients. A generator never draws it. **How many samples without the finding** must
    you see, at least, before you may say, with an error of at most 5 %, that it draws less than 3 %?""",
    solution="math.ceil(math.log(0.05) / math.log(1 - 0.03))",
    rtol=0.001,
    mistakes=[
        (33, "1 / p is how many it takes to expect one. A fair generator shows none in 33 with probability 37 %."),
        (1 / 0.03, "1 / p is how many it takes to expect one. A fair one shows none in so many with probability 36 %."),
        (100, "The rule of three, 3 / p: quick and nearly right. Here the exact whole number is asked for."),
        (98, "Round up: with 98 the probability of seeing none is still above 5 %."),
        (98.35, "Round up: samples are whole, and with 98 the probability is still above 5 %."),
        (20, "That is 1 / 0.05, without the share of 3 %."),
        (149, "That is for a share of 2 %, as in the table above."),
        (299, "That is for a share of 1 %."),
        (2.996, "ln 20. Divide by -ln(1 - p)."),
    ],
    also_right=["99", 99.0],
    hints=["A fair generator shows none in n samples with probability (1 - p)^n.", "Solve (1 - p)^n <= 0.05 for n."],
    explanation="""0.97^n <= 0.05 from n = 99 on. That presumes that someone, or a classifier without errors, looks at
    each sample for this finding. No distance between sets of this size will tell you.""",
)


# ---- q5: error bars under shift --------------------------------------------------------------------------------------

q5 = number(
    r"""A sampler's spread is right (standard deviation 1), but under a shift its mean is off by **2** of these standard
    deviations. The truth is distributed as $\mathcal N(2, 1)$, the 90 % interval is $0 \mp 1.645$.
    What share of the truths does it cover?""",
    solution="0.5 * (math.erf((1.645 - 2) / math.sqrt(2)) - math.erf((-1.645 - 2) / math.sqrt(2)))",
    rtol=0.01,
    share=True,
    mistakes=[
        (0.9, "That is without the shift."),
        (0.355, "That is how many standard deviations the upper end lies below the truths' mean: take Phi of it."),
        (0.1387, "That is the share between the upper end and the truths' mean: take it from one half."),
        (0.0228, "That is one tail beyond 2 standard deviations; where does the interval end?"),
        (0.6387, "That is the share outside."),
        (0.0455, "That is the chance to be 2 standard deviations from the mean on either side."),
        (0.05, "That is the chance to be 2 standard deviations from the mean on either side."),
        (0.7227, "That doubles the right value: only one end of the interval is near the truths."),
        (0.45, "Half of 90 %? The interval's upper end lies 0.355 below the truths' mean."),
        (0.5, "The upper end, 1.645, would have to be at the truths' mean, 2."),
    ],
    also_right=["36 %", "0,361", 0.36],
    hints=[
        "The share of N(2, 1) between -1.645 and 1.645.",
        "Phi(1.645 - 2) - Phi(-1.645 - 2), with Phi the distribution function of the standard normal.",
    ],
    explanation="""0.361: an interval that says 90 % and covers 36 %.
    The samples agree with each other as before; nothing in them says that their mean has moved.""",
)


# ---- q6: the bound of conformal prediction ---------------------------------------------------------------------------


def conformal_bound(scores, level):
    rank = math.ceil(level * (len(scores) + 1) - 1e-9)  # 0.55 * 100 is 55.00000000000001, and its rank 55
    ends_in_infinity = torch.cat([scores, torch.tensor([math.inf])]).sort().values
    return ends_in_infinity[rank - 1]


def _bound(rank_of, otherwise=math.inf):
    """A wrong answer: the value at rank_of(n, level), counted from 1; ``otherwise`` where there are not so many."""

    def wrong(scores, level):
        rank = int(rank_of(len(scores), float(level)))
        return scores.sort().values[max(rank, 1) - 1] if rank <= len(scores) else otherwise

    return wrong


def _right_rank(n, level):
    return math.ceil(level * (n + 1) - 1e-9)


def _mixed(n):
    """0.1, 0.2, ... n / 10, in no order."""
    return (1.0 + torch.randperm(n, generator=torch.Generator().manual_seed(n))) / 10


q6 = function(
    r"""Write `conformal_bound(scores, level)`: `scores` (n,) of the calibration cases; the bound is the score of rank
    $\lceil \text{level}\,(n + 1)\rceil$, counted from the smallest as 1. Where n is too small for such a rank, no
    finite bound keeps the promise: return `math.inf`.""",
    solution=conformal_bound,
    tests=[
        case(
            "nineteen",
            (_mixed(19), 0.9),
            """Of 0.1, 0.2, ... 1.9, in no order, the rank is 0.9 * 20 = 18, and the bound the score that has it, 1.8.
            Is it sorted? Python counts from 0, so rank 18 has the index 17. (NumPy's quantile at 18/19 with
            method="higher" lies a rank too high; "inverted_cdf" has it.)""",
        ),
        case(
            "rounded up",
            (_mixed(25), 0.9),
            "n = 25: 0.9 * 26 is 23.4, and the rank 24. Round up, not to the nearest, and count the new case: n + 1.",
        ),
        case("the largest", (_mixed(9), 0.9), "n = 9: the rank is 9, the largest of them. It is there."),
        case("half", (_mixed(5), 0.5), "n = 5 at a level of one half: the rank is 3, the score 0.3."),
        prop(
            "too few",
            lambda f: f(_mixed(8), 0.9) == math.inf and f(_mixed(98), 0.99) == math.inf,
            """Eight cases cannot promise 90 %: the rank would be 9. What bound holds then, whatever the new case?""",
        ),
    ],
    mistakes=[
        mistake(_bound(lambda n, level: math.ceil(level * n - 1e-9)), "rounded up", "n, not n + 1"),
        mistake(_bound(lambda n, level: level * (n + 1)), "rounded up", "rounded down"),
        mistake(lambda scores, level: scores.quantile(float(level)), "nineteen", "a quantile between two scores"),
        mistake(_bound(lambda n, level: _right_rank(n, level) + 1), "nineteen", "one rank too far"),
        mistake(lambda scores, level: scores.max(), "nineteen", "the largest"),
        mistake(lambda scores, level: scores[_right_rank(len(scores), level) - 1], "nineteen", "not sorted"),
        mistake(_bound(lambda n, level: _right_rank(n, 1 - level)), "nineteen", "the other tail"),
        mistake(
            _bound(lambda n, level: n if level > 0.6 and n < 10 else _right_rank(n, level) - (level < 0.6)), "half"
        ),
        mistake(
            lambda scores, level: math.inf if len(scores) < 10 and level > 0.5 else conformal_bound(scores, level),
            "the largest",
            "infinite one case too early",
        ),
        mistake(
            lambda scores, level: scores.sort().values[min(_right_rank(len(scores), level), len(scores)) - 1],
            "too few",
            "the largest, where that promises less",
        ),
        mistake(_bound(_right_rank, otherwise=0.0), "too few", "nothing"),
        mistake(_bound(lambda n, level: round(level * (n + 1))), "rounded up", "rounded to the nearest"),
        mistake(
            lambda scores, level: math.inf if (rank := _right_rank(len(scores), level)) > len(scores) else float(rank),
            "nineteen",
            "the rank, not the score",
        ),
    ],
    also_right=[
        lambda scores, level: np.append(np.sort(scores.numpy()), np.inf)[_right_rank(len(scores), float(level)) - 1],
        lambda scores, level: sorted([*scores.tolist(), math.inf])[_right_rank(len(scores), level) - 1],
        lambda scores, level: next(
            (s for k, s in enumerate(sorted(scores.tolist()), 1) if k >= float(level) * (len(scores) + 1) - 1e-9),
            math.inf,
        ),
    ],
    hints=[
        "Sort; Python counts from 0.",
        "rank = math.ceil(level * (n + 1)); append infinity to the scores, sort them, and take the value at rank - 1.",
    ],
    explanation="""Put the new case among the n: if they are exchangeable, its rank is any of 1 to n + 1 with the same
    probability, so it lies at or below this score with probability rank / (n + 1), at least the level. Nothing was said
    of the network, of the distribution, or of what the score is. Nothing is said of a lesion, either.""",
)


# ---- q7: energy ------------------------------------------------------------------------------------------------------


def kilowatt_hours(seconds, watts, images):
    return seconds * watts * images / 3.6e6


q7 = function(
    """Write `kilowatt_hours(seconds, watts, images)`: the energy of `images` images that take `seconds` of a processor
    each, which draws `watts`. One kilowatt-hour is 1000 watts for an hour.""",
    solution=kilowatt_hours,
    tests=[
        case(
            "an hour",
            (7200.0, 500.0, 1),
            "7200 s at 500 W: seconds times watts are 3.6 million joules, and those are one kilowatt-hour.",
        ),
        case("many images", (1.2, 15.0, 50_000), "50,000 images cost 50,000 times as much as one."),
        prop("none", lambda f: abs(f(1.2, 15.0, 0)) < 1e-12, "No image, no energy: is something added?"),
    ],
    mistakes=[
        mistake(lambda seconds, watts, images: seconds * watts * images, "an hour", "joules"),
        mistake(lambda seconds, watts, images: seconds * watts * images / 3600, "an hour", "watt-hours"),
        mistake(lambda seconds, watts, images: seconds * watts / 3.6e6, "many images", "of one image"),
        mistake(lambda seconds, watts, images: watts * images / seconds / 1000, "an hour", "power over time"),
        mistake(lambda seconds, watts, images: seconds * watts * max(images, 1) / 3.6e6, "none", "at least one"),
        mistake(lambda seconds, watts, images: seconds * watts * images / 3.6e3 / 3600, "an hour", "3600 twice"),
        mistake(lambda seconds, watts, images: seconds / 3600 * watts * images, "an hour", "watt-hours"),
        mistake(
            lambda seconds, watts, images: seconds * watts / images / 3.6e6, "many images", "divided by the images"
        ),
        mistake(lambda seconds, watts, images: seconds * images / 3600, "an hour", "no watts"),
        mistake(lambda seconds, watts, images: seconds * watts * (images + 1) / 7.2e6, "many images", "one image more"),
    ],
    also_right=[
        lambda seconds, watts, images: seconds / 3600 * watts / 1000 * images,
        lambda seconds, watts, images: Fraction(float(seconds) * float(watts) * images) / 3_600_000,
        lambda seconds, watts, images: torch.as_tensor(images) * torch.mul(seconds, watts) / (1000 * 60 * 60),
    ],
    hints=["Joules are watts times seconds.", "1 kWh = 3.6 million joules."],
    explanation="""Seconds are measured, watts are assumed: report both, so that a reader can put in another processor.
    What was spent on training comes on top, divided by the images that will ever be made.""",
)


# ---- q8: what was shown ----------------------------------------------------------------------------------------------

q8 = choices(
    """An abstract: "Our diffusion model reconstructs at R = 8 with 2 dB more PSNR than TV (p < 0.001, 200 patients).
    FID is at the real-vs-real floor, so no anatomy is missing and no patient is reproduced. Its 90 % intervals cover
    90 % of the test set's pixels." Which sentences follow from what it reports? Give all letters that are true.""",
    {
        "a": "On patients like these it has the higher PSNR, on average.",
        "b": "A finding in 1 % of the patients is reconstructed as well as the rest.",
        "c": "No sample copies a training image.",
        "d": "On another scanner the intervals cover 90 %.",
        "e": "On this test set, over all pixels together, the stated coverage holds.",
        "f": "A lesion under 4 mm across is kept.",
    },
    answers="ae",
    feedback={
        "a": "This is what a paired comparison on 200 patients measures. The average is all that it speaks of.",
        "b": "How many of 200 patients have a finding of 1 %? Two: a mean PSNR hardly knows that they are there.",
        "c": "What does an exact copier of many images score as a Fréchet distance?",
        "d": "Coverage was measured on the test set. What did it do in this notebook under a shift?",
        "e": "That is the measurement itself; whether it holds in each region is another question.",
        "f": "Did anything in the abstract look at lesions? PSNR is over all pixels.",
    },
    hints=["Strike out each sentence that names something which nobody measured.", "Two letters remain."],
    explanation="""Only (a) and (e) were measured. Each of the others has a test in this notebook: rare findings,
    copies, shift, and contrast of small lesions.""",
)

summary = Exercises(vars()).summary
