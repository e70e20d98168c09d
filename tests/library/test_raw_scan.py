"""A scan by several coils, judged at points that no method saw: a made head whose picture and noise are known."""

import dataclasses
import functools

import pytest
import torch

from course_lib.applications.raw_scan import (
    RealAndImaginary,
    as_prior,
    as_scan,
    outermost,
    raw_scan,
    seen_by_prior,
)
from course_lib.denoisers import GaussianDenoiser
from course_lib.experiments import raw_scan as study
from course_lib.operators import to_kspace
from course_lib.schedules import Cosine

NOISE = 0.02  # root mean square of |n| at a point of a coil


@pytest.fixture(scope="module")
def made():
    """K-space (4, 64, 48) of a made head of four coils, its picture (64, 48) times the coils' root sum of squares, and
    the points that were measured: all of the middle, a third of the others."""
    row, column = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 48), indexing="ij")
    inside = row**2 + column**2 < 0.7
    angles = torch.arange(4) * torch.pi / 2
    maps = torch.stack(
        [torch.exp(-((row - a.sin()) ** 2 + (column - a.cos()) ** 2) / 3 + 0.5j * row * a) for a in angles]
    )
    picture = inside * (1 + 0.3 * torch.cos(9 * row) * torch.cos(7 * column))
    generator = torch.Generator().manual_seed(0)
    noise = torch.complex(*torch.randn(2, 4, 64, 48, generator=generator)) * NOISE / 2**0.5
    points = torch.rand(64, 48, generator=generator) < 1 / 3
    points[24:40, 16:32] = True
    return points * (to_kspace(maps * picture) + noise), picture * maps.abs().square().sum(0).sqrt(), points


def test_points_are_parted_and_the_middle_is_seen(made):
    kspace, _, points = made
    scan = raw_scan(kspace, (64, 48), 16)
    seen = scan.A.points[0, 0] if scan.A.points.ndim == 4 else scan.A.points
    parts = torch.stack([seen.bool(), scan.validation, scan.test])
    assert torch.equal(parts.sum(0), points.long()) and seen[24:40, 16:32].all()
    share = scan.test.sum() / (points.sum() - 16**2)
    assert abs(float(share) - 0.1) < 0.03 and 0.5 < float(scan.validation.sum() / scan.test.sum()) < 2
    assert torch.equal(scan.test, raw_scan(kspace, (64, 48), 16).test)
    assert not torch.equal(scan.test, raw_scan(kspace, (64, 48), 16, seed=1).test)
    assert not (scan.y * scan.test).any() and torch.equal(scan.y, scan.kspace * seen)


def test_error_of_zeros_of_the_truth_and_of_what_fits(made):
    """Zeros: 1. The true picture: the noise, up to what the maps miss. CG-SENSE lies between."""
    kspace, picture, _ = made
    scan = raw_scan(kspace, (64, 48), 16, relative=0.02)
    zeros = torch.zeros(1, 2, 64, 48)
    assert scan.error(zeros, scan.test) == pytest.approx(1)
    by_hand = scan.test * (scan.whole(zeros + 0.1) - scan.kspace)
    expected = by_hand.norm() / (scan.test * scan.kspace).norm()
    assert scan.error(zeros + 0.1, scan.test) == pytest.approx(float(expected), rel=1e-5)
    truth = torch.stack([picture, torch.zeros_like(picture)])[None] / scan.unit
    floor = scan.noise_floor(NOISE / scan.unit)
    size = (scan.test * kspace).abs().square().sum() / (scan.test.sum() * 4)
    assert floor == pytest.approx(NOISE / float(size.sqrt()), rel=1e-5)
    sense = scan.A.solve(scan.A.adjoint(scan.y), 0.01)
    assert floor < scan.error(sense, scan.test) < 0.8 * scan.error(scan.A.adjoint(scan.y), scan.test)
    assert scan.error(truth, scan.test) < 1.2 * scan.error(sense, scan.test)


def test_noise_is_read_where_no_signal_is_left():
    generator = torch.Generator().manual_seed(1)
    noise = torch.complex(*torch.randn(2, 3, 64, 64, generator=generator)) / 2**0.5
    signal = torch.zeros(64, 64)
    signal[16:48, 16:48] = 100
    assert outermost(noise + signal) == pytest.approx(1, rel=0.03)


def test_a_coarser_picture_is_made_of_the_middle_of_k_space(made):
    kspace, _, _ = made
    scan = raw_scan(kspace, (32, 24), 16)
    assert scan.kspace.shape == (1, 4, 32, 24)
    torch.testing.assert_close(scan.kspace[0] * scan.unit, kspace[:, 16:48, 12:36])
    bright = scan.A.solve(scan.A.adjoint(scan.y), 0.01).square().sum(1).sqrt().quantile(0.98)
    assert float(bright) == pytest.approx(1, rel=1e-4)


def test_scans_that_do_not_fit_are_named(made):
    for wrong, message in (
        (
            lambda: raw_scan(made[0], (80, 48), 16),
            "sides must lie between the centre, 16, and those of kspace, 64",
        ),
        (lambda: raw_scan(made[0], (8, 8), 16), "sides must lie between"),
        (lambda: raw_scan(made[0], (64, 48), 16, away=0.6), "away"),
        (lambda: raw_scan(made[0], (64, 48), 24), "some are missing"),
        (lambda: RealAndImaginary(GaussianDenoiser(torch.zeros(1), torch.eye(1), Cosine()), 0.0), "spread"),
        (lambda: as_prior(torch.zeros(1, 2, 4, 4), 0.0), "level"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


def test_the_prior_of_a_complex_picture_is_exact_for_gaussians():
    """Real part N(mean, 0.3^2), imaginary N(0, 0.1^2): as the denoiser of both together."""
    mean = torch.tensor([0.5, -0.2], dtype=torch.float64)
    real = GaussianDenoiser(mean, 0.3**2 * torch.eye(2, dtype=torch.float64), Cosine())

    class Picture:
        schedule = real.schedule

        def __call__(self, x_t, t):
            return real(x_t.reshape(-1, 2), t).reshape(x_t.shape)

    both = GaussianDenoiser(
        torch.cat([mean, torch.zeros(2)]), torch.diag(torch.tensor([0.09, 0.09, 0.01, 0.01])).double(), Cosine()
    )
    x_t = torch.randn(5, 2, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for t in (0.0, 0.3, 0.9, 1.0):
        found = RealAndImaginary(Picture(), 0.1)(x_t, t)
        torch.testing.assert_close(found.flatten(1), both(x_t.flatten(1), t), rtol=1e-6, atol=1e-8)


def test_grey_values_of_a_prior_and_back(made):
    scan = raw_scan(made[0], (64, 48), 16)
    z = torch.randn(1, 2, 64, 48, generator=torch.Generator().manual_seed(0))
    x = as_prior(z, 1.5)
    torch.testing.assert_close(as_scan(x, 1.5), z)
    torch.testing.assert_close(x[:, 0], 1.5 * z[:, 0] - 1)
    torch.testing.assert_close(x[:, 1], 1.5 * z[:, 1])
    measured = dataclasses.replace(scan, y=scan.A(z))
    torch.testing.assert_close(seen_by_prior(measured, 1.5), scan.A(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["zeros, coils combined", "CG-SENSE", "DiffPIR, brains without skull"])
def test_a_row_has_the_best_setting_and_the_errors(made, method, monkeypatch):
    monkeypatch.setattr(study, "SIDES", (64, 48))
    monkeypatch.setattr(study, "STEPS", {"DiffPIR": 2, "DPS": 2})
    monkeypatch.setattr(study, "SAMPLES", 2)
    monkeypatch.setattr(study, "scan", functools.cache(lambda: raw_scan(made[0], (64, 48), 16)))
    about = study.METHODS[method]
    monkeypatch.setitem(study.METHODS, method, dataclasses.replace(about, settings=about.settings[:2]))
    row, kept = study.measure(method)
    tried = [entry["validation"] for entry in row["tried"]]
    assert not kept and len(tried) == min(2, len(about.settings))
    assert {**row["settings"], "validation": min(tried)} in row["tried"]
    assert len(row["test"]) == (2 if about.evaluations else 1) and all(0 < error < 3 for error in row["test"])
    assert ("test_of_mean" in row) == bool(about.evaluations)


def test_without_the_data_set_there_are_no_rows(monkeypatch):
    monkeypatch.setattr(study.datasets, "is_here", lambda name: False)
    assert study.plan({}) == [] and "floor" not in study.begin()[0]
