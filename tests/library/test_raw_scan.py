"""A scan by several coils, judged at points that no method saw: a made head whose picture and noise are known."""

import dataclasses

import pytest
import torch

from course_lib.applications.raw_scan import (
    RealAndImaginary,
    as_prior,
    as_scan,
    brain_mask,
    outermost,
    raw_scan,
    seen_by_prior,
)
from course_lib.denoisers import GaussianDenoiser
from course_lib.experiments import raw_scan as study
from course_lib.experiments.record import load
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


def test_what_zeros_the_truth_and_what_fits_do_not_predict(made):
    """Zeros: all. The true picture: the noise, up to what the maps miss. CG-SENSE lies between."""
    kspace, picture, _ = made
    scan = raw_scan(kspace, (64, 48), 16, relative=0.02)

    def share(z):
        return float(scan.unpredicted(z, scan.test).mean())

    zeros = torch.zeros(1, 2, 64, 48)
    assert share(zeros) == pytest.approx(1)
    found = scan.unpredicted(zeros + 0.1, scan.test)
    by_hand = (scan.test * (scan.whole(zeros + 0.1) - scan.kspace)).norm() / (scan.test * scan.kspace).norm()
    assert found.shape == (int(scan.test.sum()),) and float(found.mean()) == pytest.approx(
        float(by_hand) ** 2, rel=1e-5
    )
    truth = torch.stack([picture, torch.zeros_like(picture)])[None] / scan.unit
    floor = scan.noise_floor(NOISE / scan.unit)
    size = (scan.test * kspace).abs().square().sum() / (scan.test.sum() * 4)
    assert floor == pytest.approx(NOISE**2 / float(size), rel=1e-5)
    sense = scan.A.solve(scan.A.adjoint(scan.y), 0.01)
    assert floor < share(sense) < 0.64 * share(scan.A.adjoint(scan.y))
    assert share(truth) < 1.44 * share(sense)


def test_what_is_taken_off_is_no_longer_measured(made):
    """The measurement is linear: what a picture adds to it, taking it off removes."""
    scan = raw_scan(made[0], (64, 48), 16)
    a, b = torch.randn(2, 1, 2, 64, 48, generator=torch.Generator().manual_seed(0))
    both = dataclasses.replace(scan, y=scan.A(a + b))
    torch.testing.assert_close(both.without(a).y, scan.A(b), rtol=1e-4, atol=1e-5)
    assert both.without(a).kspace is scan.kspace, "what judges stays as it is"


def head():
    """A head (1, 2, 64, 48) from above, and its brain (64, 48): a disc with a fold, dark bone, a bright scalp."""
    row, column = torch.meshgrid(torch.arange(64.0) - 32, torch.arange(48.0) - 24, indexing="ij")
    far = ((row / 1.3) ** 2 + column**2).sqrt()
    brain = far < 14
    fold = (column.abs() < 1.5) & (row < -8)
    picture = 0.6 * (brain & ~fold) + 1.2 * ((far > 18) & (far < 21))
    return torch.stack([picture, 0.05 * torch.ones_like(picture)])[None], brain


def test_the_brain_is_what_the_dark_bone_encloses():
    z, brain = head()
    found = brain_mask(z)
    assert found.dtype == torch.bool and found[brain].float().mean() > 0.98 and found[20:23, 24].all(), "the fold too"
    assert not found[z[0, 0] > 1].any() and float((found & ~brain).sum() / brain.sum()) < 0.2
    bridged = z.clone()
    bridged[0, 0, 32, :] = 0.6  # a bridge of one pixel between brain and scalp
    assert (brain_mask(bridged) == found).float().mean() > 0.99
    with pytest.raises(ValueError, match="z must show a head brighter than 0.3"):
        brain_mask(0 * z)


def test_a_prior_without_skull_is_asked_about_the_brain_alone(made, monkeypatch):
    """It sees what is left of the measurement: of a head without noise the brain, where TV shows all the rest."""
    scan, (z, _) = raw_scan(made[0], (64, 48), 16), head()
    monkeypatch.setattr(study, "total_variation", lambda *_: z)
    left = dataclasses.replace(scan, y=scan.A(z))
    seen = []

    def method(scan, seed, weight):
        seen.append((scan.y, seed, weight))
        return torch.full_like(z, 0.25)

    found = study.skull_first(method, left, 3, weight=0.5)
    inside = brain_mask(z)
    torch.testing.assert_close(seen[0][0], scan.A(inside * z), rtol=1e-4, atol=1e-5)
    assert seen[0][1:] == (3, 0.5)
    torch.testing.assert_close(found, 0.25 + ~inside * z)


def test_noise_is_read_where_no_signal_is_left():
    generator = torch.Generator().manual_seed(1)
    noise = torch.complex(*torch.randn(2, 3, 64, 64, generator=generator)) / 2**0.5
    signal = torch.zeros(64, 64)
    signal[16:48, 16:48] = 100
    assert outermost(noise + signal) == pytest.approx(1, rel=0.03)
    with pytest.raises(ValueError, match="no point beyond a share of 0.9 was measured"):
        outermost(signal * noise)
    at_the_share = torch.zeros(1, 64, 64)
    at_the_share[0, 32, 60] = 1  # 28 of the 32 steps to the edge
    assert outermost(at_the_share, 0.87) == 1
    with pytest.raises(ValueError, match="no point beyond a share of 0.875"):
        outermost(at_the_share, 0.875)


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


@pytest.mark.parametrize("method", ["zeros, coils combined", "CG-SENSE", "DiffPIR", "DPS, skull taken off first"])
def test_a_row_has_the_best_setting_and_what_it_does_not_predict(made, method, monkeypatch):
    monkeypatch.setattr(study, "SIDES", (64, 48))
    monkeypatch.setattr(study, "STEPS", {"DiffPIR": 2, "DPS": 2})
    monkeypatch.setattr(study, "SAMPLES", 2)
    scan = raw_scan(made[0], (64, 48), 16)
    monkeypatch.setattr(study, "scan", lambda: scan)
    about = study.METHODS[method]
    monkeypatch.setitem(study.METHODS, method, dataclasses.replace(about, settings=about.settings[:2]))
    row, kept = study.measure(method)
    tried = [entry["validation"] for entry in row["tried"]]
    assert not kept and len(tried) == min(2, len(about.settings))
    assert {**row["setting"], "validation": min(tried)} in row["tried"]
    assert len(row["test"]) == int(scan.test.sum()) and len(row["samples"]) == (2 if about.evaluations else 1)
    assert sum(row["samples"]) / len(row["samples"]) == pytest.approx(sum(row["test"]) / len(row["test"]), abs=1e-3)
    assert {"test_of_mean", "swapped"} <= row.keys() if about.evaluations else "swapped" not in row


def test_a_part_is_swapped_with_that_of_tv(made, monkeypatch):
    """Of the picture by TV itself nothing changes; of zeros, the brain is gone, or all else."""
    scan, (z, _) = raw_scan(made[0], (64, 48), 16), head()
    monkeypatch.setattr(study, "total_variation", lambda *_: z)
    own = float(scan.unpredicted(z, scan.test).mean())
    assert study.swapped(scan, z) == pytest.approx({"brain": own, "outside": own}, abs=1e-4)
    inside = brain_mask(z)
    alone = [float(scan.unpredicted(part * z, scan.test).mean()) for part in (~inside, inside)]
    assert list(study.swapped(scan, 0 * z).values()) == pytest.approx(alone, abs=1e-4)


def test_the_skull_is_that_of_the_best_tv():
    """In the stored record."""
    rows = {row["method"]: row for row in load("09_raw_scan")["rows"]}
    assert rows["TV"]["setting"] == {"weight": study.TV_WEIGHT}


def test_without_the_data_set_there_are_no_rows(monkeypatch):
    monkeypatch.setattr(study.datasets, "is_here", lambda name: False)
    assert study.plan({}) == [] and "floor" not in study.begin()[0]
