"""What can be told in noise at all: the observer against closed forms, and its record against a part made anew."""

import itertools
import math

import pytest
import torch
from scipy import stats

from course_lib import experiments, runtime, schedules
from course_lib.experiments import noise_limit as study


def noisy(pictures, repeats, alpha, sigma):
    """Noisy copies (repeats, H, W) of a picture."""
    return alpha * pictures + sigma * torch.randn(repeats, *pictures.shape, generator=runtime.seeded(0))


def test_of_two_pictures_it_is_right_as_often_as_the_error_function_says():
    healthy = torch.randn(6, 6, generator=runtime.seeded(1))
    ill, alpha, sigma = healthy + 0.3, 0.8, 0.6
    expected = stats.norm.cdf(alpha * 0.3 * 6 / (2 * sigma))  # half the distance, in standard deviations
    for kind, picture in enumerate((healthy, ill)):
        found = study.most_probable(noisy(picture, 20_000, alpha, sigma), healthy, ill[None, None], alpha, sigma)
        share = float((found == kind).double().mean())
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 20_000))


def test_it_obeys_bayes_rule():
    """Against the probabilities themselves, summed picture by picture, in few pixels and much noise."""
    generator = runtime.seeded(2)
    healthy, given = torch.randn(2, 2, generator=generator), torch.randn(3, 4, 2, 2, generator=generator)
    x, alpha, sigma = torch.randn(200, 2, 2, generator=generator), 0.7, 0.9
    density = stats.multivariate_normal(cov=sigma**2)
    families = [[healthy], *given]
    p = [
        [sum(math.prod(density.pdf((one - alpha * m).flatten())) for m in family) / len(family) for family in families]
        for one in x
    ]
    expected = torch.tensor(p).argmax(1)
    assert torch.equal(study.most_probable(x, healthy, given, alpha, sigma), expected)
    assert len(expected.unique()) == 4


@pytest.mark.parametrize("n", [1, 2, 8])
def test_the_slice_beneath_is_among_those_that_it_is_given(n):
    lesions = torch.arange(5 * 16.0).reshape(5, 16, 1, 1).expand(-1, -1, 3, 3)
    x_0 = torch.cat([torch.full((1, study.TRUTHS, 3, 3), -9.0), lesions[:, : study.TRUTHS]])
    found = study.observed(x_0, torch.full((3, 3), -9.0), lesions, 1.0, 0.01, n)
    assert torch.equal(found, torch.arange(6)[:, None].expand(6, study.TRUTHS))


def test_record():
    """Whoever knows more is right more often, in every noise, and in more noise everyone less often."""
    rows = experiments.load("11_noise_limit")["rows"]
    assert [row["t"] for row in rows] == list(study.TIMES)
    names = [*(f"given {n}" for n in study.GIVEN), "network"]
    means = torch.tensor([[sum(row[name]) / len(study.KINDS) for name in names] for row in rows])
    assert (means.diff(dim=1) < 0).all()
    assert (means.diff(dim=0) < 0.01).all()
    assert (means[:, -1] > 1 / 6).all()
    assert means[4, 2] < 0.7, "no training can name seven in ten at t = 0.5"


def test_a_part_of_the_record_made_anew(monkeypatch):
    """Three subjects: as in the record to four standard errors of so few, taken as independent pictures."""
    monkeypatch.setattr(study, "SUBJECTS", 3)
    monkeypatch.setattr(study, "GIVEN", (1, 8))
    found, _ = study.measure(0.5)
    row = next(row for row in experiments.load("11_noise_limit")["rows"] if row["t"] == 0.5)
    for name, kind in itertools.product(("given 1", "given 8", "network"), range(6)):
        p = min(max(row[name][kind], 0.05), 0.95)
        error = math.sqrt(p * (1 - p) / (3 * study.TRUTHS))
        assert found[name][kind] == pytest.approx(row[name][kind], abs=4 * error), (name, kind)
    assert isinstance(study.RECIPES[study.NETWORK].loss.schedule, schedules.Cosine)
