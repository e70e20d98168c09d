"""The Fréchet distance against closed forms and against MONAI's; ball counts against brute force."""

import math

import pytest
import torch

from course_lib.metrics.distribution import Moments, density_coverage, frechet_distance, moments, precision_recall


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
