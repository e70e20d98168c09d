"""Exercises of notebook 08: distances, their floor, coverage, copies, and what a classifier's score proves."""

import math

import numpy as np
import torch

from course_lib.exercises.engine import Exercises, case, choices, function, mistake, number, prop


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


ZERO, ONE = vector(0.0, 0.0), vector(1.0, 1.0)


# ---- q1: the Fréchet distance of two diagonal Gaussians --------------------------------------------------------------


def frechet(m1, s1, m2, s2):
    return ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()


q1 = function(
    r"""Write `frechet(m1, s1, m2, s2)`, the FD of the formula above (a squared distance), of
    $\mathcal N(m_1, \mathrm{diag}\,s_1^2)$ and $\mathcal N(m_2, \mathrm{diag}\,s_2^2)$. All are vectors; `s1` and
    `s2` are **standard deviations**.
    What is $(C_1^{1/2} C_2\, C_1^{1/2})^{1/2}$ when both matrices are diagonal?""",
    solution=frechet,
    tests=[
        case("equal", (ONE, ONE, ONE, ONE), "Two equal Gaussians have distance zero."),
        case(
            "means",
            (vector(3.0, 0.0), ONE, vector(0.0, 4.0), ONE),
            "Equal spreads: 3^2 + 4^2 = 25. Squared and summed over the features: no mean, and no root.",
        ),
        case(
            "spreads",
            (ZERO, vector(2.0, 3.0), ZERO, vector(1.0, 5.0)),
            "Equal means: the trace is the sum of s1^2 + s2^2 - 2 s1 s2. Which square is that?",
        ),
        case("both", (vector(1.0, 2.0), vector(2.0, 1.0), ZERO, vector(1.0, 4.0)), "Means and spreads add up."),
    ],
    mistakes=[
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2).sum(), "spreads", "the means alone"),
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2).sum() + ((s1**2 - s2**2) ** 2).sum(), "spreads", "variances"),
        mistake(lambda m1, s1, m2, s2: (((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()).sqrt(), "means", "a root"),
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2).sum() + (s1 - s2).abs().sum(), "spreads", "not squared"),
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2).sum() + (s1**2 + s2**2).sum(), "equal", "no cross term"),
        mistake(lambda m1, s1, m2, s2: max(((m1 - m2) ** 2).sum(), ((s1 - s2) ** 2).sum()), "both", "the larger part"),
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2).mean() + ((s1 - s2) ** 2).mean(), "means", "means, not sums"),
        mistake(lambda m1, s1, m2, s2: (m1 - m2).norm() + (s1 - s2).norm(), "means", "not squared"),
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2).sum() + ((s1 + s2) ** 2).sum(), "equal", "a plus"),
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2).sum() + (s1.sum() - s2.sum()) ** 2, "spreads", "sums first"),
        mistake(lambda m1, s1, m2, s2: ((m1 - m2) ** 2 / (s1 * s2) + (s1 - s2) ** 2).sum(), "both", "in units of s"),
        mistake(
            lambda m1, s1, m2, s2: ((m1 - m2) ** 2 + s1 + s2 - 2 * (s1 * s2).sqrt()).sum(),
            "spreads",
            "s is no variance",
        ),
    ],
    also_right=[
        lambda m1, s1, m2, s2: ((m1 - m2) ** 2 + s1**2 + s2**2 - 2 * s1 * s2).sum(),
        lambda m1, s1, m2, s2: torch.dist(m1, m2) ** 2 + torch.dist(s1, s2) ** 2,
        lambda m1, s1, m2, s2: np.sum((m1 - m2).numpy() ** 2) + np.sum((s1 - s2).numpy() ** 2),
        lambda m1, s1, m2, s2: (m1 - m2) @ (m1 - m2) + (s1 - s2) @ (s1 - s2),
    ],
    hints=[
        "The square root of a diagonal matrix is the diagonal matrix of the roots: C^(1/2) = diag s.",
        "So the cross term is diag(s1 s2), and the trace of s1^2 + s2^2 - 2 s1 s2 is a sum of squares.",
    ],
    explanation="Where the covariances commute, the distance is Euclid's: in the means and in the standard deviations.",
)


# ---- q2: the floor ---------------------------------------------------------------------------------------------------

q2 = number(
    """A paper compares 500 generated with 500 real images in 64 features that are nearly independent, each with
    variance one. Which **Fréchet distance would a perfect generator score**, on average?""",
    solution="64 * (64 + 5) / (2 * 500)",
    rtol=0.005,
    mistakes=[
        (0, "Zero needs infinitely many images. Two finite samples of one distribution differ."),
        (64 * 67 / 1000, "That is d (d + 3) / (2 N). Both means are off, by d/N each: their part is 2 d/N, not d/N."),
        (64 * 69 / 2000, "That is one sample against the known truth. Here both sides are samples: twice as much."),
        (64 * 69 / 500, "That is d (d + 5) / N: the 2 of 2 N is missing."),
        (2 * 64 / 500, "That is the part of the means. The 64 x 64 covariances differ as well, and more."),
        (64 * 65 / 1000, "That is the part of the covariances, d (d + 1) / (2 N). The means add 2 d/N."),
    ],
    also_right=["4.416", 4416 / 1000, 4.42],
    hints=["It is the formula of section 3.", "d = 64 and N = 500 in d (d + 5) / (2 N)."],
    explanation="""4.4, without anything being wrong. At N = 5,000 it is 0.44.
    A Fréchet distance without N and without the floor says little, and two of different N must not be compared.""",
)


# ---- q3: the kernel distance -----------------------------------------------------------------------------------------


def my_kernel_distance(K_xx, K_yy, K_xy):
    m, n = K_xy.shape
    xx = (K_xx.sum() - K_xx.trace()) / (m * (m - 1))
    yy = (K_yy.sum() - K_yy.trace()) / (n * (n - 1))
    return xx + yy - 2 * K_xy.mean()


def kernels(seed, m, n):
    """Kernel matrices of m and n points in four dimensions."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(m, 4, generator=g, dtype=torch.float64)
    y = torch.randn(n, 4, generator=g, dtype=torch.float64)

    def k(a, b):
        return (a @ b.T / 4 + 1) ** 3

    return k(x, x), k(y, y), k(x, y)


def zeros(*size):
    return torch.zeros(*size, dtype=torch.float64)


def ones(*size):
    return torch.ones(*size, dtype=torch.float64)


def diagonal(value, n):
    return value * torch.eye(n, dtype=torch.float64)


def _off_diagonal(K):
    return K.sum() - K.trace()


def _ordered_pairs(m):
    return m * (m - 1)


def _kernel_distance(pairs=_ordered_pairs, cross=lambda K_xy: 2 * K_xy.mean()):
    """`my_kernel_distance` with another number of pairs, or another cross term."""

    def wrong(K_xx, K_yy, K_xy):
        return _off_diagonal(K_xx) / pairs(len(K_xx)) + _off_diagonal(K_yy) / pairs(len(K_yy)) - cross(K_xy)

    return wrong


q3 = function(
    """Write `my_kernel_distance(K_xx, K_yy, K_xy)` from the kernel matrices (m, m), (n, n) and (m, n):
    the **unbiased** estimate of section 4, in which no image is compared with itself.""",
    solution=my_kernel_distance,
    tests=[
        case(
            "the cross term",
            (zeros(2, 2), zeros(3, 3), ones(2, 3)),
            "Only K_xy is not zero here: minus twice its mean, and a result below zero stays.",
        ),
        case(
            "the diagonal",
            (diagonal(5.0, 3), diagonal(7.0, 2), zeros(3, 2)),
            "Only the diagonals are not zero here, where an image meets itself: they do not count, whatever they hold.",
        ),
        case(
            "the pairs",
            (ones(3, 3) - diagonal(1.0, 3), ones(4, 4) - diagonal(1.0, 4), zeros(3, 4)),
            """Every image is as like every other here, so each of the two means is 1. K_xx has m (m - 1) ordered
            pairs and K_yy n (n - 1); with i < j alone, half as many.""",
        ),
        case(
            "other sizes",
            (kernels(1, 5, 9)),
            "With 5 and 9 images: the mean of K_xy is over all of its 45 pairs, each sum over those of its own set.",
        ),
    ],
    mistakes=[
        mistake(lambda K_xx, K_yy, K_xy: K_xx.mean() + K_yy.mean() - 2 * K_xy.mean(), "the diagonal", "counted"),
        mistake(_kernel_distance(pairs=lambda m: m * m), "the pairs", "divides by all pairs"),
        mistake(_kernel_distance(cross=torch.mean), "the cross term", "once"),
        mistake(
            lambda K_xx, K_yy, K_xy: (
                (_off_diagonal(K_xx) + _off_diagonal(K_yy)) / _ordered_pairs(len(K_xx)) - 2 * K_xy.mean()
            ),
            "the pairs",
            "one size for both",
        ),
        mistake(lambda K_xx, K_yy, K_xy: torch.zeros(()), "the cross term", "right for equal distributions only"),
        mistake(lambda *K: my_kernel_distance(*K).clamp(min=0), "the cross term", "cut at zero"),
        mistake(lambda *K: my_kernel_distance(*K).abs(), "the cross term", "no sign"),
        mistake(lambda *K: -my_kernel_distance(*K), "the cross term", "the wrong way round"),
        mistake(
            _kernel_distance(cross=lambda K: 2 * (K.sum() - K.diag().sum()) / (K.numel() - min(K.shape))),
            "other sizes",
            "the pairs of equal number left out",
        ),
    ],
    also_right=[
        lambda K_xx, K_yy, K_xy: (
            K_xx[~torch.eye(len(K_xx), dtype=torch.bool)].mean()
            + K_yy[~torch.eye(len(K_yy), dtype=torch.bool)].mean()
            - 2 * K_xy.mean()
        ),
        lambda K_xx, K_yy, K_xy: my_kernel_distance(K_xx, K_yy, K_xy).item(),
        lambda K_xx, K_yy, K_xy: (
            2 * K_xx.numpy()[np.triu_indices(len(K_xx), 1)].sum() / len(K_xx) / (len(K_xx) - 1)
            + 2 * K_yy.numpy()[np.triu_indices(len(K_yy), 1)].sum() / len(K_yy) / (len(K_yy) - 1)
            - 2 * K_xy.numpy().mean()
        ),
    ],
    hints=[
        "`K.sum() - K.trace()` is the sum off the diagonal. How many entries are that?",
        "m (m - 1) of them in K_xx, n (n - 1) in K_yy, m n in K_xy.",
    ],
    explanation="""An estimate that is right on average, where the truth is zero, must be below zero about half of the
    time. A negative kernel distance is no error; clipping it at zero would bring the bias back.""",
)


# ---- q4: coverage from distances -------------------------------------------------------------------------------------


def coverage(distance, reach):
    return (distance <= reach[:, None]).any(1).double().mean()


def _held(share):
    """Another summary of the table that says which ball holds which image."""
    return lambda distance, reach: share(distance <= reach[:, None])


def _of_radius(radius):
    """`coverage` with other radii: one for all, or in another order."""
    return lambda distance, reach: coverage(distance, radius(reach).expand(len(reach)))


DISTANCE = torch.tensor([[0.5, 3.0, 4.0], [0.9, 2.0, 5.0], [6.0, 7.0, 0.1], [8.0, 9.0, 9.5]], dtype=torch.float64)
REACH = vector(1.0, 1.0, 0.2, 2.0)

q4 = function(
    """Write `coverage(distance, reach)`: `distance` (M, N) from each real to each generated image, `reach` (M,) the
    radius of each real image's ball, whose surface counts as inside. The share, from 0 to 1, of **balls** that hold at
    least one generated image.""",
    solution=coverage,
    tests=[
        case(
            "by hand",
            (DISTANCE, REACH),
            """4 real images, 3 generated. Balls 1 and 2 hold the first, ball 3 the last, ball 4 none: 3/4.
            Do you count balls, and each once? (Counting generated images gives precision, 2/3.)""",
        ),
        case(
            "once each",
            (torch.tensor([[0.1, 0.2], [3.0, 3.0]], dtype=torch.float64), ONE),
            "Ball 1 holds both images and still counts once, ball 2 holds none: 1/2. Is it a sum, or any?",
        ),
        case(
            "on the edge",
            (torch.ones(2, 2, dtype=torch.float64), ONE),
            "At a distance of exactly the radius it is inside.",
        ),
        case(
            "each its own ball",
            (torch.tensor([[0.5, 0.5], [2.0, 2.0]], dtype=torch.float64), vector(0.1, 1.0)),
            "Each real image has its own radius: that of row i belongs to row i.",
        ),
        case(
            "three radii",
            (torch.tensor([[1.5, 3.0], [0.5, 0.6], [0.5, 0.9]], dtype=torch.float64), vector(2.0, 0.1, 0.2)),
            """Radii of 2, 0.1 and 0.2: ball 1 alone holds an image, so 1/3.
            Each row is compared with its own radius, with no mean or median of them.""",
        ),
    ],
    mistakes=[
        mistake(_held(lambda inside: inside.any(0).double().mean()), "by hand", "precision"),
        mistake(_held(lambda inside: inside.double().mean()), "by hand", "share of pairs"),
        mistake(lambda distance, reach: (distance < reach[:, None]).any(1).double().mean(), "on the edge"),
        mistake(_of_radius(torch.mean), "each its own ball", "one radius"),
        mistake(_of_radius(torch.median), "three radii", "the median radius"),
        mistake(_of_radius(torch.max), "each its own ball", "the largest radius"),
        mistake(_of_radius(torch.min), "by hand", "the smallest radius"),
        mistake(_of_radius(lambda reach: reach.sort().values), "by hand", "the radii sorted"),
        mistake(_held(lambda inside: inside.all(1).double().mean()), "by hand", "all images"),
        mistake(_held(lambda inside: inside.any(1).sum()), "by hand", "a count"),
        mistake(_held(lambda inside: inside.sum(1).double().mean()), "once each", "images in a ball"),
        mistake(_held(lambda inside: inside[:, 0].double().mean()), "by hand", "the first image alone"),
    ],
    also_right=[
        lambda distance, reach: (distance.min(1).values <= reach).double().mean(),
        lambda distance, reach: (distance <= reach.reshape(-1, 1)).any(dim=1).float().mean(),
        lambda distance, reach: sum(bool((row <= r).any()) for row, r in zip(distance, reach)) / len(reach),
        lambda distance, reach: np.mean(distance.numpy().min(axis=1) - reach.numpy() <= 0),
    ],
    hints=[
        "`distance <= reach[:, None]` is a table: does ball i hold image j?",
        "`any` over which axis, then the mean.",
    ],
    explanation="""Coverage asks the real images whether somebody came near them; precision asks the generated ones.
    A generator that draws one perfect image for ever has precision 1 and a coverage near 0.""",
)


# ---- q5: a threshold from a null -------------------------------------------------------------------------------------


def my_threshold(null, level):
    return null.sort().values[int(level * (len(null) + 1) + 1e-9) - 1]


def _at(index):
    """The sorted value at another index(level, n)."""
    return lambda null, level: null.sort().values[index(level, len(null))]


EVEN = torch.arange(1, 100, dtype=torch.float64)  # 99 values: 1 ... 99

q5 = function(
    r"""Held-out images that the generator has never seen have distances `null` (n,) to their nearest training image.
    Write `my_threshold(null, level)`: samples **below** it will be called copies. Of held-out images at most a share
    `level` may be called so. Take the value of rank $\lfloor \text{level}\,(n + 1)\rfloor$, counted from the smallest
    as 1 (in the checks it is 1 or more); `null` is a tensor and need not be sorted.""",
    solution=my_threshold,
    tests=[
        prop(
            "which end",
            lambda f: f(EVEN, 0.05) < 50,
            "Copies are near: the threshold is at the small end of the distances.",
        ),
        case("five in a hundred", (EVEN, 0.05), "99 values 1 ... 99 and a level of 0.05: rank 5, so 5."),
        case("ten in a hundred", (EVEN, 0.1), "A level of 0.1 gives rank 10. Does your threshold follow the level?"),
        case("unsorted", (EVEN.flip(0), 0.05), "The values may come in any order: sort them."),
        case(
            "forty-nine",
            (torch.arange(49, dtype=torch.float64), 0.05),
            """n = 49: 0.05 * 50 is 2.5, so the rank is 2, which has index 1 (here the value 1). Is yours rounded up, n
            for n + 1, an index for a rank, or the rank in place of the value?""",
        ),
        case(
            "fifty-eight",
            (torch.arange(58, dtype=torch.float64), 0.05),
            "n = 58: 0.05 * 59 is 2.95, and the rank 2. Round down, not to the nearest.",
        ),
    ],
    mistakes=[
        mistake(lambda null, level: null.quantile(1 - level), "which end", "the far end"),
        mistake(lambda null, level: null.min(), "five in a hundred", "flags nobody"),
        mistake(lambda null, level: null.mean() - 1.645 * null.std(), "five in a hundred", "as if it were Gaussian"),
        mistake(lambda null, level: null.sort().values[4], "ten in a hundred", "one level only"),
        mistake(_at(lambda level, n: math.ceil(level * n) - 1), "forty-nine", "rounded up"),
        mistake(lambda null, level: null[int(level * (len(null) + 1) + 1e-9) - 1], "unsorted", "not sorted"),
        mistake(_at(lambda level, n: int(level * (n + 1) + 1e-9)), "five in a hundred", "a rank off"),
        mistake(_at(lambda level, n: round(float(level) * (n + 1)) - 1), "fifty-eight", "rounded"),
        mistake(_at(lambda level, n: math.ceil(level * (n + 1) - 1e-9) - 1), "forty-nine", "rounded up"),
        mistake(_at(lambda level, n: int(level * n)), "forty-nine", "n, counted from 0"),
        mistake(_at(lambda level, n: int(level * n) - 1), "five in a hundred", "n, not n + 1"),
        mistake(
            lambda null, level: null.quantile(float(level), interpolation="lower"), "forty-nine", "a lower quantile"
        ),
        mistake(lambda null, level: null.quantile(float(level)), "five in a hundred", "a quantile between two values"),
        mistake(_at(lambda level, n: int(level * (n + 2)) - 1), "fifty-eight", "n + 2"),
    ],
    also_right=[
        lambda null, level: null.kthvalue(int(level * (len(null) + 1) + 1e-9)).values,
        lambda null, level: np.sort(null.numpy())[math.floor(level * (len(null) + 1) + 1e-9) - 1],
        lambda null, level: sorted(null.tolist())[int(float(level) * (len(null) + 1) + 1e-9) - 1],
        lambda null, level: null.topk(int(level * (len(null) + 1) + 1e-9), largest=False).values.max(),
        lambda null, level: torch.sort(null)[0][torch.floor(level * (len(null) + 1) + 1e-9).long() - 1],
    ],
    hints=["`null.sort().values[r - 1]` is the value of rank r.", "r = int(level * (n + 1)); here rank 1 is index 0."],
    explanation="""The rank of a new held-out value among n + 1 is uniform, so it lies below the value of rank r with
    probability at most r / (n + 1). No Gaussian, no constant taken from elsewhere.
    It needs held-out images that are as far from the training set as a new patient is.""",
)


# ---- q6: what a classifier's score proves ----------------------------------------------------------------------------

q6 = choices(
    """A classifier trained on synthetic images alone is as accurate on real test images as one trained on as many real
    ones. Which of these follow, or were measured in this notebook? Give all letters that are true.""",
    {
        "a": "The synthetic images carry the labels that they were asked for, at least where this classifier looks.",
        "b": "No synthetic image is a copy of a training image.",
        "c": "The synthetic images would deceive a radiologist.",
        "d": "A generator that only copies its training images would pass this test.",
        "e": "For every other task, such as finding lesions, they are as good as real ones too.",
        "f": "The generator may owe its images to many more real ones than the classifier was allowed to see.",
    },
    answers="adf",
    feedback={
        "a": "Wrong or unrecognisable labels would have cost accuracy.",
        "b": "Look at the row of the copies: they score nearly as other real images do, because they are real images.",
        "c": """A classifier looks at what separates the classes.
        Of texture, of noise and of anatomy that all classes share it says nothing.""",
        "d": """Copies are real images. How far their score lies from that of the generator's 600 says which 600 were
        drawn, no more: nothing in this test looks for copies.""",
        "e": "A blurred image can still show which organ it is. A lesion of three pixels is another matter.",
        "f": "Ours saw 56,007. As many synthetic as real images is no equal start.",
    },
    hints=["Put a copier in the generator's place, and ask again.", "Three of the six."],
    explanation="""True: a, d, f. The score is a statement about one task, and about labels.
    It is blind to copies, and it hides how many real images the generator had.""",
)

summary = Exercises(vars()).summary
