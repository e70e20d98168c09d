"""Translations and fillings of three real persons: the measures on made slices whose answers are known."""

import dataclasses

import numpy as np
import pytest
import torch

from course_lib import datasets, experiments
from course_lib.experiments import real_persons as study
from course_lib.experiments.__main__ import main
from course_lib.experiments.record import RECORDS
from course_lib.experiments.study import Method
from data_fetch import brain_cohort

FLUID, GREY, WHITE, LESION = 0.1, 0.6, 0.9, 0.65  # of T1, as shares of the range
OF_T2 = {FLUID: 0.9, GREY: 0.4, WHITE: 0.3, LESION: 0.6}
SQUARES = {0: [(40, 28, 6), (60, 34, 4)], 2: [(52, 60, 5)]}  # slice: first row, first column, side


@pytest.fixture
def slices():
    """Three slices, symmetric about the middle: a disc of white matter with a rim of grey and ventricles, noise of
    0.01, dark squares on T1 that are bright on T2."""
    y, x = np.mgrid[:96, :96] - 47.5
    far = np.hypot(x, y)
    t1 = np.select([np.hypot(x / 3, y / 8) < 1, far < 34, far < 40], [FLUID, WHITE, GREY]) + np.zeros((3, 1, 1))
    lesions = np.zeros(t1.shape, bool)
    for k, squares in SQUARES.items():
        for row, column, side in squares:
            lesions[k, row : row + side, column : column + side] = True
    t1[lesions] = LESION
    t2 = np.select([np.isclose(t1, level) for level in OF_T2], list(OF_T2.values()))
    noise = np.random.default_rng(0).normal(0, 0.01, (2, *t1.shape)) * (t1 > 0)
    return study.Slices((2 * (t1 + noise[0]) - 1).astype(np.float32), (t2 + noise[1]).astype(np.float32), lesions)


# ---- Slices ----------------------------------------------------------------------------------------------------------


def test_white_matter_is_the_brightest_class(slices):
    y, x = np.mgrid[:96, :96] - 47.5
    disc = (np.hypot(x, y) < 34) & (np.hypot(x / 3, y / 8) >= 1)
    assert (slices.white != (disc & ~slices.holes)).sum() <= 3, "a grey pixel of much noise"
    assert slices.holes[0, 38:48, 26:36].all() and slices.holes[0].sum() == 10 * 10 + 8 * 8
    assert not slices.healthy[0, 40, 25] and slices.healthy[0, 40, 24], "more than 6 mm, three pixels, from a lesion"
    np.testing.assert_array_equal(slices.brain[1], np.hypot(x, y) < 40)


def test_corners_join_a_piece():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 1, 1] = masks[0, 2, 2] = masks[0, 5, 5] = masks[1, 3, 3] = True
    found = study.pieces(masks)
    assert [(k, int(piece.sum())) for k, piece in found] == [(0, 2), (0, 1), (1, 1)]


def test_a_real_t2_is_not_clipped_where_its_median_is_put_lower():
    """Fluid at 3.5 times the median: at 0.25 all of it is there, at 0.6 it ends at the top of the range."""
    volume = np.full((60, 60, 60), 100.0)
    volume[:20] = 350
    found = {m: (datasets.mni_slices(volume, np.diag([2, 2, 2, 1.0]), [20.0], m) + 1) / 2 for m in (0.25, 0.6)}
    assert found[0.6].max() == 1 and found[0.25].max() == pytest.approx(0.875, abs=1e-6)
    both = (found[0.25] > 0) & (found[0.6] < 1)
    np.testing.assert_allclose(found[0.25][both] / found[0.6][both], 0.25 / 0.6, rtol=1e-5)


def test_levels_come_in_both_contrasts():
    number = int(brain_cohort.numbers("test", 1)[0])
    for contrast in ("T1", "T2"):
        expected = brain_cohort.slice_2d(number, 32, contrast, level=8.0).image
        np.testing.assert_array_equal(datasets.synthetic_levels("test", 1, 8, 32, contrast)[0], expected)


# ---- T1 to T2 --------------------------------------------------------------------------------------------------------


def test_the_truth_and_what_differs_by_a_factor_score_the_same(slices):
    truth = 2 * slices.t2 - 1
    for a in (1.0, 0.5):
        scores = study.translated(a * (truth + 1) - 1, slices)
        assert scores["factor"] == pytest.approx(1 / a) and scores["rms"] == pytest.approx(0, abs=1e-6)
        assert [scores[key] for key in ("correlation", "kept", "bright")] == pytest.approx([1, 1, 1])
        assert scores["lesions"] == 3 and scores["lesions_faint"] == 0 and np.isnan(scores["faint"])


def test_the_contrast_of_a_lesion_is_counted_in_standard_deviations_around_it(slices):
    """Made: 0.3 above white matter with a noise of 0.01."""
    scores = study.translated(2 * slices.t2 - 1, slices)
    assert scores["contrast"] == pytest.approx(0.3 / 0.01, rel=0.08)
    ours = {"lesion": slices.lesions[0], "ring": study.ring_around(slices.lesions[0], 5, slices.white[0])}
    step, spread = study.contrast(slices.t2[0], ours["lesion"], ours["ring"])
    assert step == pytest.approx(0.3, abs=0.01) and spread == pytest.approx(0.01, rel=0.15)
    assert study.ring_around(slices.lesions[0], 5, np.zeros((96, 96), bool)) is None


def test_a_lesion_of_the_wrong_sign_is_told(slices):
    wrong = np.where(slices.lesions, OF_T2[WHITE] - 0.15, slices.t2)  # half the contrast, darker
    scores = study.translated(2 * wrong - 1, slices)
    assert scores["rms"] == pytest.approx(0, abs=1e-6), "lesions have no part in the fit"
    assert scores["bright"] == 0 and scores["contrast"] < -10 and scores["kept"] == pytest.approx(-0.5, abs=0.02)


def test_an_offset_costs_error_and_no_correlation(slices):
    """y + c by the factor a = <y + c, y> / |y + c|^2: the error in closed form."""
    y, c = slices.t2[slices.healthy].astype(np.float64), 0.2
    a = (y + c) @ y / ((y + c) @ (y + c))
    scores = study.translated(2 * (slices.t2 + c) - 1, slices)
    assert scores["correlation"] == pytest.approx(1, abs=1e-6)
    assert scores["rms"] == pytest.approx(np.sqrt(np.mean((a * (y + c) - y) ** 2)) / y.std(), rel=1e-5)


def test_lesions_that_t1_hardly_shows_are_looked_at_alone(slices):
    """The large square of the first slice is white matter on T1, and half as bright as in truth in the translation."""
    t1 = slices.t1.copy()
    t1[0, 40:46, 28:34] = t1[0, 40:46, 62:68]
    found = slices.t2.copy()
    found[0, 40:46, 28:34] -= 0.15
    scores = study.translated(2 * found - 1, dataclasses.replace(slices, t1=t1))
    assert scores["lesions_faint"] == 1 and scores["faint"] == pytest.approx(0.15 / 0.01, rel=0.15)
    areas, kept = np.array([36, 16, 25]), np.array([0.5, 1, 1])
    assert scores["kept"] == pytest.approx(np.average(kept, weights=areas), abs=0.02)


def test_a_healthy_person_has_no_lesions_to_score(slices):
    found = study.translated(2 * slices.t2 - 1, dataclasses.replace(slices, lesions=slices.lesions & False))
    assert list(found) == ["factor", "rms", "correlation"]


def test_a_persons_own_curve_is_the_best_one(slices):
    """Where T2 is a polynomial of T1 it is found; the background stays."""
    law = dataclasses.replace(slices, t2=np.where(slices.brain, 0.4 - 0.3 * slices.t1 + 0.1 * slices.t1**3, 0))
    found = study.own_curve(law)
    np.testing.assert_allclose((found[law.healthy] + 1) / 2, law.t2[law.healthy], atol=1e-5)
    assert (found[~law.brain] == -1).all()
    turned = study.TRANSLATIONS["T1 turned over"].run(law)
    np.testing.assert_array_equal(turned[law.brain], -law.t1[law.brain])
    assert (turned[~law.brain] == -1).all()


# ---- A lesion removed ------------------------------------------------------------------------------------------------


def test_holes_move_to_healthy_white_matter_whose_mirror_image_is_healthy(slices):
    found = study.moved(slices)
    holes = study.widened(found, study.RIM)
    assert found.sum((1, 2)).tolist() == slices.lesions.sum((1, 2)).tolist() == [52, 0, 25]
    assert (holes <= slices.healthy).all() and (holes[:, :, ::-1] <= slices.healthy).all()
    assert slices.white[found].mean() >= study.LEAST_WHITE
    assert sorted(int(piece.sum()) for _, piece in study.pieces(found)) == [16, 25, 36]
    rows, columns = np.nonzero(found[2])  # rows 52 to 56, columns 60 to 64: the mirror puts it at 31 to 35
    assert np.hypot(rows.mean() - 54, columns.mean() - 33) == 10, "two rims, 3 of margin, and 5: off the lesion's image"


def test_a_lesion_without_room_is_left_out(slices):
    everywhere = slices.lesions.copy()
    everywhere[2, 10:86:3, 10:86:3] = True
    found = study.moved(dataclasses.replace(slices, lesions=everywhere))
    assert found[0].sum() == 52 and not found[2].any()


@pytest.fixture
def removal(slices):
    """The slices with a lesion."""
    some = [0, 2]
    return study.Removal(*(part[some] for part in (slices.t1, slices.lesions, slices.holes, slices.white)))


@pytest.fixture
def blind(monkeypatch):
    """A segmenter that calls lesion what is brighter than 0.95."""

    class Segmenter:
        def labels(self, x):
            return torch.where(x[:, 0] > 0.95, study.LESION, 3)

    monkeypatch.setattr(study.pretrained, "load", lambda name: Segmenter())


def test_nothing_done_changes_nothing(removal, blind):
    scores = study.filled(removal.x, removal)
    assert scores["outside"] == scores["error"] == scores["called"] == 0 and scores["seam"] == 1
    assert (scores["holes"], scores["outlined"], scores["pixels"]) == (3, 36 + 16 + 25, 100 + 64 + 81)
    expected = (LESION - WHITE) / 0.01
    assert scores["brightness"] == pytest.approx(expected, rel=0.1)
    assert scores["grain"] > 3, "the lesion's border is texture, too"


def test_a_perfect_filling_cannot_be_told_from_what_is_around(removal, blind):
    noise = np.random.default_rng(1).normal(0, 0.02, removal.x.shape)
    x = np.where(removal.hole, 2 * WHITE - 1 + noise, removal.x).astype(np.float32)
    scores = study.filled(x, removal)
    assert abs(scores["brightness"]) < 0.3 and scores["grain"] == pytest.approx(1, abs=0.12)
    assert scores["seam"] == pytest.approx(1, abs=0.12) and scores["outside"] == 0
    truth = dataclasses.replace(removal, x=x)
    error = study.filled(np.where(removal.hole, x + 0.1, x).astype(np.float32), truth)
    assert error["error"] == pytest.approx(0.1, abs=1e-6) and error["outside"] == 0
    assert error["seam"] > 3 and error["brightness"] == pytest.approx(5, abs=1)
    assert error["called"] == pytest.approx(np.mean(x[removal.mask] + 0.1 > 0.95), abs=1e-3)
    flat = study.filled(np.where(removal.hole, np.float32(2 * WHITE - 1), x), truth)
    assert flat["grain"] < 0.2
    elsewhere = x.copy()
    elsewhere[0, 0, 0] += 0.5
    assert study.filled(elsewhere, truth)["outside"] == pytest.approx(0.5)


# ---- The record ------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_persons(slices, monkeypatch, blind):
    """The study on two persons, one of them without a lesion that T1 hardly shows, and their made twins."""
    healthy = dataclasses.replace(slices, lesions=slices.lesions & False)
    monkeypatch.setattr(study, "persons", lambda whose: [slices if whose == study.REAL else healthy] * 2)
    study.removals.cache_clear()
    yield
    study.removals.cache_clear()


def test_rows_have_an_entry_a_person(two_persons, monkeypatch):
    monkeypatch.setattr(study, "TRANSLATIONS", {study.TRUTH: study.TRANSLATIONS[study.TRUTH]})
    keys = list(study.plan({}))
    assert [key["of"] for key in keys[:2]] == [study.REAL, study.MADE]
    rows = {key["of"]: study.measure(**key) for key in keys[:2] + keys[2 : 2 + len(study.WHERE)]}
    assert not any(kept for _, kept in rows.values()), "no picture is stored"
    real, made = rows[study.REAL][0], rows[study.MADE][0]
    assert real["rms"] == [0, 0] and real["lesions"] == [3, 3] and real["faint"] == [None, None]
    assert "lesions" not in made and made["correlation"] == [1, 1] and made["evaluations"] == 0
    assert "error" not in rows[study.LESIONS][0], "there is no truth"
    for where in (study.HEALTHY, study.HEADS_MADE):
        assert rows[where][0]["error"] == [0, 0] and rows[where][0]["outside"] == [0, 0]
    assert rows[study.HEALTHY][0]["holes"] == rows[study.HEADS_MADE][0]["holes"] == [3, 3]


def test_fillings_are_those_of_the_made_lesions(two_persons, monkeypatch):
    """They get the slices, the holes and the seed as ``image_to_image`` gives them, and outside nothing changes."""
    seen = []

    def run(cases, seed):
        seen.append((cases["x"].shape, cases["hole"].dtype, seed))
        return {"x": torch.where(cases["hole"], 0.5, cases["x"])}

    monkeypatch.setitem(study.FILLS, "RePaint", Method(run, networks=("brain",), evaluations=24))
    row, _ = study.measure("removed", "RePaint", study.HEALTHY)
    assert seen == [((2, 1, 96, 96), torch.bool, study.SEED)] * 2 and row["outside"] == [0, 0]
    assert row["evaluations"] == 24 and row["error"][0] == pytest.approx(0.3, abs=0.01)
    assert study.networks({"kind": "removed", "method": study.MEAN_FILL}) == ("brain", study.SEGMENTER)
    assert study.networks({"kind": "T1 to T2", "method": "regression"}) == ("brain_t2_l2",)


def test_the_mean_of_fillings_is_of_draws_of_their_own(monkeypatch):
    seeds = []

    def run(cases, seed):
        seeds.append(seed)
        return {"x": cases["x"] + seed}

    monkeypatch.setattr(study, "ONE_FILL", Method(run))
    x = torch.zeros(1, 1, 4, 4)
    found = study.FILLS[study.MEAN_FILL].run({"x": x, "hole": x > 0}, 10)["x"]
    assert (
        seeds == [10, 20, 30, 40] and study.FILLS[study.MEAN_FILL].evaluations == 4 * study.FILLS["RePaint"].evaluations
    )
    torch.testing.assert_close(found, x + 25)


def test_without_the_data_set_the_command_says_so_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(experiments.record, "RECORDS", tmp_path)
    study.persons.cache_clear()
    assert main(["12_real_persons"]) == 1
    assert "ms_lesions" in capsys.readouterr().err and not list(tmp_path.glob("*.json"))


def stored():
    """{(kind, method, of): row} of the record."""
    rows = experiments.load("12_real_persons")["rows"]
    return {(row["kind"], row["method"], row["of"]): row for row in rows}


def test_no_filling_touches_what_lies_outside_its_hole():
    """In the stored record: exactly nothing. No picture is stored."""
    rows = stored()
    outside = [row["outside"] for (kind, *_), row in rows.items() if kind == "removed"]
    assert len(outside) == len(study.FILLS) * len(study.WHERE) - 1 and not np.any(outside)
    assert len(rows) == len(list(study.plan({}))) and not list(RECORDS.glob("12_real_persons.tensors*"))


def test_stored_rows_are_what_the_study_measures_now():
    """Those that cost little, to 0.002, where the data set is."""
    if not datasets.is_here("ms_lesions"):
        pytest.skip("set COURSE_DATA to a cache that holds ms_lesions to test it")
    study.persons.cache_clear()
    study.removals.cache_clear()
    rows = stored()
    cheap = [("T1 to T2", method, study.REAL) for method in (study.TRUTH, study.SIMPLE[0], study.ORACLE)]
    for key in [*cheap, ("removed", "other side", study.HEALTHY)]:
        row, _ = study.measure(*key)
        for name, values in row.items():
            if name != "evaluations":
                for now, then in zip(values, rows[key][name]):
                    assert now == then or now == pytest.approx(then, rel=2e-3, abs=2e-3), (key, name)
