"""Stress tests with real lesions and real readers: the measures on cases whose answers are known."""

import numpy as np
import pytest
import torch

from course_lib import datasets, experiments
from course_lib.experiments import real_challenges as study
from course_lib.experiments.real_persons import Slices

SIZE = len(study.SLICES)
SMALL, LARGE = (slice(40, 42), slice(30, 33)), (slice(52, 57), slice(55, 60))  # 6 and 25 pixels


@pytest.fixture
def two_persons(monkeypatch):
    """Two discs of white matter with fluid in the middle and a rim of grey, one with a small and a large bright lesion
    in two slices, the other with a large one alone, in another slice. Returns the pictures (32, 1, 96, 96) and the
    lesions."""
    y, x = np.mgrid[:96, :96] - 47.5
    far = np.hypot(x, y)
    t1 = np.select([far < 4, far < 34, far < 40], [-0.7, 0.6, 0.1], -1.0).astype(np.float32)
    lesions = np.zeros((2, SIZE, 96, 96), bool)
    lesions[0, 1][SMALL] = lesions[0, 2][LARGE] = lesions[1, 5][LARGE] = True
    flair = np.where(lesions, 0.9, np.where(far < 40, 0.0, -1.0)).reshape(-1, 1, 96, 96)
    people = [Slices(np.repeat(t1[None], SIZE, 0), np.zeros((SIZE, 96, 96)), masks) for masks in lesions]
    masks, inside = (
        torch.as_tensor(lesions).reshape(-1, 1, 96, 96),
        torch.as_tensor(far < 40).expand(2 * SIZE, 1, 96, 96),
    )
    pictures = torch.as_tensor(flair, dtype=torch.float32)
    whose = torch.arange(2).repeat_interleave(SIZE)
    monkeypatch.setattr(study, "slices", lambda contrast: (pictures, masks, inside, whose))
    monkeypatch.setattr(study.real_persons, "persons", lambda whose: people)
    return pictures, masks


# ---- Real lesions ----------------------------------------------------------------------------------------------------


def test_contrast_kept_is_the_factor_on_the_lesion(two_persons):
    pictures, masks = two_persons
    factors = torch.where(torch.arange(2 * SIZE) == 1, 0.2, 0.5).view(-1, 1, 1, 1)  # the small one keeps less
    found = torch.where(masks, 0.9 * factors, pictures) + 0.05  # an offset changes no contrast
    kept = study.kept(found, "FLAIR")
    assert kept["kept_small"] == [pytest.approx(0.2, abs=1e-3), None], "the second person has no small one"
    assert kept["kept_large"] == pytest.approx([0.5, 0.5], abs=1e-3)
    assert kept["kept"][0] == pytest.approx((6 * 0.2 + 25 * 0.5) / 31, abs=1e-3), "by least squares, weighted by area"
    assert study.kept(pictures, "FLAIR")["kept"] == [1, 1]


def test_a_bright_lesion_is_called_until_the_cut_is_too_high(two_persons):
    pictures, _ = two_persons
    planted = pictures.clone()
    planted[3, 0, 44:50, 44:50] = 0.9
    called = study.called(planted)
    assert called["lesions"] == [2, 1]
    found, false = np.array(called["found"]), np.array(called["false"])
    assert found[:, 0].tolist() == [2, 1] and found[:, -1].tolist() == [0, 0], "from all to none"
    assert (np.diff(found) <= 0).all()
    assert false[0, 0] == pytest.approx(1 / SIZE, abs=1e-3) and false[1].max() == 0, "planted in one slice of the first"


def test_lesions_are_counted_at_the_lowest_cut_that_is_quiet_from_above():
    """At the lowest cut all is one piece, which touches a lesion: no false finding there, and no finding either."""
    row = {"found": [[9, 7, 5, 2]], "false": [[0, 3, 1, 0]]}
    assert [study.found_at(row, 0, allowed) for allowed in (0, 1, 2, 3)] == [2, 5, 5, 9]
    assert study.found_at({"found": [[4, 4]], "false": [[5, 5]]}, 0, 1) == 0


def test_intervals_are_those_of_the_slices_with_a_lesion(two_persons):
    """Samples that are right everywhere but in the lesions, where they all say the same wrong thing."""
    pictures, masks = two_persons
    samples = torch.where(masks, 0.2, pictures).repeat(4, 1, 1, 1, 1)
    samples += torch.tensor([-0.3, -0.1, 0.1, 0.3]).view(4, 1, 1, 1, 1) * ~masks
    found = study.intervals(samples, "FLAIR")
    assert found["coverage_in_lesion"] == [0, 0] and found["coverage_elsewhere"] == [1, 1]
    assert found["width_in_lesion"] == [0, 0] and min(found["width_elsewhere"]) > 0.6


# ---- Real readers ----------------------------------------------------------------------------------------------------


def test_a_range_covers_a_new_draw_as_often_as_its_order_statistics_say():
    """(K - 1) / (K + 1), and 1 / (K + 1) above: 4,000 cases, 4 new draws each, so 0.02 is more than six standard
    errors."""
    generator = torch.Generator().manual_seed(0)
    for K in (3, 19):
        drawn, new = (torch.randn(n, 4000, generator=generator).double().exp() for n in (K, 4))
        found = study.ranges(drawn, new, 0.9)
        assert float(found["covered"].mean()) == pytest.approx((K - 1) / (K + 1), abs=0.02)
        assert float(found["larger"].mean()) == pytest.approx(1 / (K + 1), abs=0.02)


def test_the_interval_score_by_hand():
    drawn, outlined = torch.tensor([[2.0], [5.0], [4.0]]), torch.tensor([[1.0], [3.0], [9.0], [5.0]])
    found = study.ranges(drawn.double(), outlined.double(), 0.9)
    assert found["width"].tolist() == [3] and found["covered"].tolist() == [0.5] and found["larger"].tolist() == [0.25]
    assert found["score"].tolist() == pytest.approx([3 + 20 * (1 + 4) / 4])


def test_the_central_interval_of_the_truth_has_the_best_interval_score():
    """Of the exponential distribution, whose 90 % interval is known: narrower and wider ones score worse."""
    new = -torch.log1p(-torch.linspace(0, 1, 20002, dtype=torch.float64)[1:-1])[:, None]
    quantiles = -torch.log1p(-torch.tensor([[0.05], [0.95]], dtype=torch.float64))
    scores = [float(study.ranges(quantiles * q, new, 0.9)["score"]) for q in (0.7, 1.0, 1.3)]
    assert scores[1] < min(scores[0], scores[2])


def test_degraded_slices_stay_slices():
    x = torch.full((2, 1, 64, 64), -1.0)
    x[:, :, 20:40, 20:40] = 0.5
    found = {name: change(x) for name, change in study.DEGRADED.items()}
    for name, y in found.items():
        assert y.shape == x.shape and y.abs().max() <= 1, name
    assert torch.equal(found["as trained"], x)
    assert found["dim"][0, 0, 0, 0] == -1 and float(found["dim"][0, 0, 30, 30]) == pytest.approx(1.5 * study.DIM - 1)
    torch.testing.assert_close(found["blur"].mean(), x.mean(), atol=1e-4, rtol=0)
    spread = (found["noise"] - x)[:, :, 22:38, 22:38].clamp(max=0.5).square().mean().sqrt()
    assert float(spread) == pytest.approx(study.NOISE, rel=0.15), "clipped at white"


# ---- The record ------------------------------------------------------------------------------------------------------


def test_rows_without_their_data_are_left_out(monkeypatch):
    monkeypatch.setattr(datasets, "is_here", lambda name: name == "lidc")
    assert {row["kind"] for row in study.plan_of_this_machine({"rows": []})} == {"nodules"}


def test_the_record_is_complete_and_of_three_persons():
    rows = experiments.load(study.STUDY.name)["rows"]
    for key in study.plan():
        (row,) = [row for row in rows if key.items() <= row.items()]
        if row["kind"] == "lesion" and row["method"] != study.TRUTH:
            assert len(row["psnr"]) == 3 and np.shape(row["ring_error"]) == (3, 4)
            assert ("coverage_in_lesion" in row) == (row["method"] == "DiffPIR")
        if row["kind"] == "nodules":
            assert len(row["covered"]) == len(row["width"]) == 81
