"""The Fréchet distance against closed forms and against MONAI's."""

import pytest
import torch

from course_lib.metrics.distribution import Moments, frechet_distance, moments


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
