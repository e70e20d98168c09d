"""The Fréchet distance against closed forms and against MONAI's; ball counts against brute force."""

import math

import pytest
import torch

from course_lib.metrics.detection import auroc
from course_lib.metrics.distribution import Moments, density_coverage, frechet_distance, moments, precision_recall
from course_lib.metrics.intervals import bootstrap_auroc, conformal_quantile


def test_moments_are_the_textbooks():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 4.0]])
    m = moments(x)
    torch.testing.assert_close(m.mean, torch.tensor([3.0, 4.0]).double())
    torch.testing.assert_close(m.cov, torch.tensor([[4.0, 2.0], [2.0, 4.0]]).double())
    assert m.n == 3
    with pytest.raises(ValueError, match="N >= 2"):
        moments(torch.ones(1, 3))


def test_closed_form_for_commuting_covariances():
    """Diagonal case: |m1 - m2|^2 + sum (s1 - s2)^2."""
    a = Moments(torch.tensor([1.0, 0.0]).double(), torch.diag(torch.tensor([4.0, 9.0]).double()), 10)
    b = Moments(torch.tensor([0.0, 2.0]).double(), torch.diag(torch.tensor([1.0, 16.0]).double()), 10)
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 4) ** 2, abs=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_symmetric_and_rotation_invariant():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 5, generator=generator), 2 * torch.randn(300, 5, generator=generator) + 1
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    d = frechet_distance(moments(x), moments(y))
    assert frechet_distance(moments(y), moments(x)) == pytest.approx(d, rel=1e-9)
    assert frechet_distance(moments(x @ turn), moments(y @ turn)) == pytest.approx(d, rel=1e-4)


def test_agrees_with_monai():
    from monai.metrics import FIDMetric

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    y = torch.randn(500, 8, generator=generator) + 0.3
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(float(FIDMetric()(x, y)), rel=1e-4)


def test_floor_of_two_samples_of_one_distribution():
    """Two N-samples of N(0, I_d) score d (d + 5) / (2 N) to first order in 1 / N; 5 repetitions, within 5 %.

    The means give 2 d / N; the covariances ||C_1 - C_2||^2 / 4, whose expectation is d (d + 1) / (2 N).
    """
    d, n = 16, 4000
    generator = torch.Generator().manual_seed(2)
    scores = [frechet_distance(*(moments(torch.randn(n, d, generator=generator)) for _ in range(2))) for _ in range(5)]
    assert sum(scores) / 5 == pytest.approx(d * (d + 5) / (2 * n), rel=0.05)


def by_brute_force(real, fake, k):
    """Density, coverage, precision and recall, point by point as the papers define them."""

    def balls(points):
        return [sorted(math.dist(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]

    def holds(centre, radius, point):
        return math.dist(centre, point) <= radius

    radii, fake_radii = balls(real), balls(fake)
    density = sum(holds(c, r, p) for p in fake for c, r in zip(real, radii)) / (k * len(fake))
    coverage = sum(any(holds(c, r, p) for p in fake) for c, r in zip(real, radii)) / len(real)
    precision = sum(any(holds(c, r, p) for c, r in zip(real, radii)) for p in fake) / len(fake)
    recall = sum(any(holds(c, r, p) for c, r in zip(fake, fake_radii)) for p in real) / len(real)
    return density, coverage, precision, recall


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("sizes", [(40, 40), (30, 55)])
def test_density_coverage_precision_recall_by_brute_force(k, sizes):
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(sizes[0], 3, generator=generator, dtype=torch.float64)
    fake = 0.7 * torch.randn(sizes[1], 3, generator=generator, dtype=torch.float64) + 1
    expected = by_brute_force(real.tolist(), fake.tolist(), k)
    assert (*density_coverage(real, fake, k), *precision_recall(real, fake, k)) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected[1] < 1 and 0 < expected[3] < 1, "where all is covered, or nothing, little is tested"


def test_coverage_of_one_distribution_is_that_of_the_paper():
    """Two samples of one distribution: coverage 1 - 2^-k, density 1 (Naeem et al., Lemma 2), here within 0.02."""
    generator = torch.Generator().manual_seed(4)
    pairs = [torch.randn(2, 800, 4, generator=generator) for _ in range(4)]
    density, coverage = torch.tensor([density_coverage(*pair, k=3) for pair in pairs]).mean(0).tolist()
    assert coverage == pytest.approx(1 - 2**-3, abs=0.02)
    assert density == pytest.approx(1, abs=0.05)


def test_a_copied_mode_has_density_without_coverage():
    """Two far clusters, of which only one is drawn: density stays, half of the balls are empty."""
    generator = torch.Generator().manual_seed(5)
    near, far = torch.randn(2, 100, 2, generator=generator)
    real = torch.cat([near, far + 100])
    density, coverage = density_coverage(real, torch.randn(200, 2, generator=generator))
    assert coverage <= 0.5 < 0.8 < density
    assert precision_recall(real, near)[1] <= 0.5


def test_ball_counts_refuse_what_they_cannot_count():
    with pytest.raises(ValueError, match="M > k = 5"):
        density_coverage(torch.randn(5, 3), torch.randn(9, 3))
    with pytest.raises(ValueError, match="got"):
        precision_recall(torch.randn(9, 3), torch.randn(9, 4))


# ---- intervals -------------------------------------------------------------------------------------------------------


def hanley_mcneil(area, positives, negatives):
    """Standard error of an AUROC by the closed form of Hanley & McNeil (Radiology 1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    return math.sqrt(variance / (positives * negatives))


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_interval_of_an_auroc_is_as_wide_as_the_closed_form_says(shift):
    generator = torch.Generator().manual_seed(1)
    positives, negatives = torch.randn(120, generator=generator) + shift, torch.randn(200, generator=generator)
    area, low, high = bootstrap_auroc(positives, negatives)
    truth = torch.cat([torch.ones(120), torch.zeros(200)]).bool()
    assert area == pytest.approx(auroc(torch.cat([positives, negatives]).numpy(), truth.numpy()), abs=1e-12)
    assert (high - low) / (2 * 1.96) == pytest.approx(hanley_mcneil(area, 120, 200), rel=0.15)
    assert low < area < high


def test_interval_of_an_auroc_does_not_know_the_order_of_the_cases():
    """As many of either kind, both sorted: were case k of one kind drawn as often as case k of the other, what they add
    would cancel, and the interval have almost no width."""
    generator = torch.Generator().manual_seed(2)
    kinds = (torch.randn(2, 150, generator=generator) + torch.tensor([[0.5], [0.0]])).sort(1).values
    area, low, high = bootstrap_auroc(*kinds)
    assert (high - low) / (2 * 1.96) == pytest.approx(hanley_mcneil(area, 150, 150), rel=0.15)


def test_an_auroc_of_ties_and_of_kinds_that_never_mix():
    assert bootstrap_auroc([1.0, 1.0], [1.0, 1.0, 1.0]) == pytest.approx((0.5, 0.5, 0.5), abs=1e-6)
    assert bootstrap_auroc([2.0, 3.0], [0.0, 1.0]) == pytest.approx((1, 1, 1), abs=1e-6)
    assert bootstrap_auroc([1.0], [0.0, 1.0])[0] == 0.75
    for positives, negatives, said in (([], [1.0], "positives are empty"), ([math.nan], [1.0], "NaN")):
        with pytest.raises(ValueError, match=said):
            bootstrap_auroc(positives, negatives)


@pytest.mark.parametrize("n", [*range(1, 25), 39, 99])
@pytest.mark.parametrize("tenths", range(1, 10))
def test_conformal_bound_is_the_least_that_keeps_the_promise(n, tenths):
    """By brute force: each of n + 1 cases is the new one in turn. Its rank among the others says whether a bound at the
    k-th smallest of them covers it, so k of the n + 1 are covered; the bound must be the least k that is enough."""
    scores = torch.randperm(n + 1, generator=torch.Generator().manual_seed(n)).double()
    others = [torch.cat([scores[:new], scores[new + 1 :]]) for new in range(n + 1)]
    covered = sum(float(scores[new]) <= conformal_quantile(rest, tenths / 10) for new, rest in enumerate(others))
    assert 10 * covered >= tenths * (n + 1), "whole numbers: no rounding"
    if any(math.isinf(conformal_quantile(rest, tenths / 10)) for rest in others):
        assert 10 * n < tenths * (n + 1), "infinite only where the largest score is not enough"
    else:
        assert 10 * (covered - 1) < tenths * (n + 1), "one rank less is not enough"


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    [
        *((9, 0.9, 9), (8, 0.9, None), (19, 0.9, 18), (29, 0.9, 27), (1, 0.5, 1), (1, 0.51, None)),
        *((99, 0.99, 99), (98, 0.99, None), (5, 1e-6, 1), (1000, 1 - 1e-9, None)),
        *((99, 0.55, 55), (99, 0.07, 7)),  # 100 * 0.55 is 55.00000000000001 in floating point
    ],
)
def test_conformal_bound_at_the_ends_of_its_range(n, level, rank):
    scores = torch.arange(n, 0, -1).double()
    assert conformal_quantile(scores, level) == (math.inf if rank is None else rank)


def test_conformal_bound_of_ties_of_none_and_of_what_is_no_level():
    assert conformal_quantile([3.0] * 12) == 3
    assert conformal_quantile([]) == math.inf
    for level in (0, 1, -0.1, 90, math.nan):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            conformal_quantile([1.0, 2.0], level)
    with pytest.raises(ValueError, match="NaN"):
        conformal_quantile([1.0, math.nan])


def test_conformal_promise_holds_over_calibration_sets_and_not_for_a_shifted_group():
    """Scores |x| of a normal: 39 calibrate, one is new. Coverage over many repeats is 36 / 40; with twice the spread
    it is P(|2 z| <= bound), far less."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4000, 40, generator=generator).double().abs()
    bounds = torch.tensor([conformal_quantile(row[:39], 0.9) for row in scores])
    assert float((scores[:, 39] <= bounds).double().mean()) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 4000))
    assert float((2 * scores[:, 39] <= bounds).double().mean()) < 0.7
