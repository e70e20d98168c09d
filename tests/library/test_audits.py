"""The audits of notebook 14: made scanners, widened error bars and denoising errors against numbers by hand, and the
record."""

import math

import numpy as np
import pytest
import torch

from course_lib import experiments, runtime
from course_lib.denoisers import EmpiricalDenoiser, FunctionDenoiser
from course_lib.experiments import audits, challenges
from course_lib.metrics.images import coverage
from course_lib.metrics.intervals import bootstrap_auroc
from course_lib.schedules import Cosine

# ---- scanners --------------------------------------------------------------------------------------------------------


def disc(grey):
    """A disc of one grey level on black: (1, 1, 96, 96)."""
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    return torch.where((y - 48).hypot(x - 48) < 30, grey, -1.0)[None, None]


@pytest.mark.parametrize("scanner", audits.SCANNERS)
def test_the_background_stays_black_and_grey_levels_in_range(scanner):
    x = disc(0.9)
    seen = audits.seen_by(scanner, x)
    assert seen.shape == x.shape and (seen[x == -1] == -1).all()
    assert seen.min() >= -1 and seen.max() <= 1 and not torch.equal(seen, x)


def test_what_the_scanners_do_to_a_flat_disc():
    middle = (slice(None), slice(None), slice(38, 58), slice(38, 58))
    for grey in (-0.5, 0.0, 0.6):
        assert audits.seen_by("softer", disc(grey))[middle].numpy() == pytest.approx(grey, abs=1e-5)
    noise = audits.seen_by("noisier", disc(0.0))[disc(0.0) > -1]
    assert noise.mean() == pytest.approx(0, abs=4 * audits.NOISE / math.sqrt(len(noise)))
    assert noise.std() == pytest.approx(audits.NOISE, rel=0.06)
    assert torch.equal(audits.seen_by("noisier", disc(0.0)), audits.seen_by("noisier", disc(0.0))), "the same each time"


def test_an_unknown_scanner_is_refused():
    with pytest.raises(ValueError, match="no scanner 'louder'; there are: softer, noisier"):
        audits.seen_by("louder", disc(0.0))


# ---- error bars ------------------------------------------------------------------------------------------------------


def test_widened_intervals_by_brute_force():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(4, 3, 1, 8, 8, generator=generator)
    truth = 1.5 * torch.randn(3, 1, 8, 8, generator=generator)
    where = torch.rand(3, 1, 8, 8, generator=generator) < 0.6
    found = challenges.covered_if_wider(samples, truth, where)
    student = 2.3533634348018264  # the 95 % quantile of Student's distribution with three degrees of freedom
    for n in range(3):
        for k, factor in enumerate(challenges.WIDER):
            inside = []
            for row, column in where[n, 0].nonzero().tolist():
                values = samples[:, n, 0, row, column].double().numpy()
                half = factor * student * values.std(ddof=1) * math.sqrt(5 / 4)
                inside.append(abs(float(truth[n, 0, row, column]) - values.mean()) <= half)
            assert float(found[n, k]) == pytest.approx(np.mean(inside), abs=1e-6)
    as_they_are = challenges.WIDER.index(1.0)
    torch.testing.assert_close(found[:, as_they_are], coverage(samples, truth, where))


# ---- membership ------------------------------------------------------------------------------------------------------


def test_denoising_errors_of_denoisers_that_are_known():
    x = torch.rand(5, 1, 6, 6, generator=runtime.seeded(0)) * 2 - 1
    schedule = Cosine()
    black = FunctionDenoiser(lambda x_t, t: 0 * x_t, schedule)
    torch.testing.assert_close(audits.denoising_errors(black, x, 0.0), x.square().flatten(1).mean(1))
    scaled = FunctionDenoiser(lambda x_t, t: x_t / schedule.alpha(t), schedule)
    errors = audits.denoising_errors(scaled, x, 1.0, noises=200)
    assert errors.numpy() == pytest.approx(math.exp(-1), rel=0.06), "sigma^2 / alpha^2 of unit noise"
    assert errors.std() < 1e-5, "the same noises for every image"


def test_the_exact_denoiser_of_a_finite_set_knows_its_members():
    generator = runtime.seeded(0)
    members, others = (torch.randn(12, 1, 8, 8, generator=generator) for _ in range(2))
    exact = EmpiricalDenoiser(members, Cosine())
    known, unknown = (audits.denoising_errors(exact, x, 4.0) for x in (members, others))
    assert known.max() < 1e-6, "at little noise a member is found again"
    gaps = (others[:, None] - members[None]).square().flatten(2).mean(2).min(1).values
    assert (unknown >= gaps - 1e-5).all(), "another person gets a member for an answer, the nearest at best"
    assert bootstrap_auroc(-known, -unknown)[0] == 1
    nobody = [audits.denoising_errors(exact, x, -14.0) for x in (members, others)]
    mean = members.mean(0)
    for error, x in zip(nobody, (members, others)):
        torch.testing.assert_close(error, (x - mean).square().flatten(1).mean(1), rtol=0.02, atol=0.02)


# ---- the record ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    return experiments.load("14_audits")


def test_the_record_has_the_rows_that_are_planned_and_is_fresh(record):
    rows = {tuple(row[key] for key in ("kind", "name", "method")): row for row in record["rows"]}
    assert list(rows) == [tuple(key.values()) for key in audits.plan()]
    assert audits.STUDY.fresh(record) == record["rows"]
    for (kind, name, method), row in rows.items():
        if kind == "scanner":
            assert len(row["psnr"]) == audits.SUBJECTS
            assert ("coverage_if_wider" in row) == (method == "DiffPIR")
        elif kind == "lesion":
            assert [np.shape(row[place]) for place in ("in_lesion", "elsewhere")] == [(16, 6)] * 2
        else:
            assert np.shape(row["members"]) == (3, audits.MEMBERS[name]) and np.shape(row["others"]) == (3, 100)


def test_wider_intervals_cover_no_less(record):
    for row in record["rows"]:
        for key in ("coverage_if_wider", "in_lesion", "elsewhere"):
            assert (np.diff(row.get(key, [[0, 1]]), axis=1) >= 0).all()
