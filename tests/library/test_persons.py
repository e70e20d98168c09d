"""Three real persons on the prior's grid: their slices, and the study of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from course_lib import datasets, pretrained
from course_lib.denoisers import FunctionDenoiser
from course_lib.experiments import persons as study
from course_lib.schedules import Cosine
from data_fetch import brain_cohort


def test_the_template_looks_like_the_undeformed_subject():
    """A T1 volume, pushed onto the grid and the scale of the prior, against the cohort's own slice without deformation,
    bias and noise: the same anatomy (correlation above 0.98), and on average within 0.08 of a range of 2, since the
    cohort sharpens the average of 152 heads."""
    from nilearn import datasets as nilearn_datasets

    image = nilearn_datasets.load_mni152_template(resolution=1)
    none = (np.zeros((3, 6, 6, 6)), (np.zeros((3, 10, 10, 10)), np.zeros((3, 16, 16, 16))))
    anatomy = brain_cohort._Anatomy(0, 16.0, np.eye(3) / np.exp(-0.06), np.zeros(3), *none, 0.0, 0.0, 0.0)
    axes = [brain_cohort._axis(96, 0)[::-1], brain_cohort._axis(96, 1)[::-1], np.array([16.0])]
    scanner = SimpleNamespace(means=np.array(brain_cohort._TISSUE["T1"]), contrast="T1")
    plain, tissue = (part[..., 0] for part in brain_cohort._anatomical(anatomy, axes, 96, scanner, 0.0))
    expected, inside = (2 * plain / 1.3 - 1).T, tissue.sum(0).T > 0.99
    data = image.get_fdata(dtype=np.float32)
    found = datasets.mni_slices(data, image.affine, [16.0])[0]
    assert found.shape == (96, 96) and found.dtype == np.float32 and found.min() == -1 and found.max() <= 1
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.98
    assert np.abs(found - expected)[inside].mean() < 0.08
    again = datasets.mni_slices(7 * data, image.affine, [16.0])[0]
    np.testing.assert_allclose(again, found, rtol=0, atol=1e-5)  # units do not matter


def test_the_median_of_brains_is_where_it_is_said_to_be():
    images = datasets.synthetic_brains("train", 32, seed=3).images
    assert np.median((images[images > -1] + 1) / 2) == pytest.approx(datasets.BRAIN_MEDIAN, abs=0.02)


def test_a_volume_without_a_brain_is_refused():
    with pytest.raises(ValueError, match="must show a brain at the levels"):
        datasets.mni_slices(np.zeros((10, 10, 10)), np.eye(4), [4.0])


@pytest.fixture
def two_persons(monkeypatch):
    """Two persons of three slices, a disc of brain with a brighter square; the second has a square that is missed."""
    y, x = np.mgrid[:96, :96] - 47.5
    brain = np.hypot(x, y) < 30
    truth = np.zeros((2, 3, 96, 96), bool)
    truth[:, 0, 40:46, 40:46] = truth[1, 2, 60:63, 60:63] = True
    images = np.where(brain, 0.1, -1.0) + np.zeros((2, 3, 1, 1))
    images[:, 0, 40:46, 40:46] = 0.9
    people = [SimpleNamespace(number=k) for k in (7, 9)]
    cut = {person.number: (images[k].astype(np.float32), truth[k]) for k, person in enumerate(people)}
    monkeypatch.setattr(study, "ms_persons", lambda: people)
    monkeypatch.setattr(study, "ms_slices", lambda person, contrast, levels: cut[person.number])
    monkeypatch.setattr(study, "LEVELS", (0, 2, 4))
    return images, truth, brain


def test_what_is_found_in_each_person(two_persons):
    choice = {"setting": {}, "threshold": 1.5, "thresholds": [1.2, 1.6]}
    row = study.found_in("bright threshold", choice, "FLAIR")
    assert row["person"] == [7, 9] and row["found"] == [1, 1] and row["lesions"] == [1, 2] and row["false"] == [0, 0]
    area = 3 * two_persons[2].sum()
    np.testing.assert_allclose(row["prevalence"], [36 / area, 45 / area], atol=1e-5)
    assert row["average_precision"][0] > 0.99 > row["average_precision"][1] > 0.8 - 0.05
    assert row["dice"][0] > row["dice"][1] > 0.5 and all(a >= b for a, b in zip(row["dice_oracle"], row["dice"]))


def test_the_shift_is_that_of_healthy_tissue(two_persons, monkeypatch):
    """A prior that answers 0 errs by the image itself; within 6 mm of a lesion nothing counts."""
    judge = SimpleNamespace(features=lambda x: torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1))
    moments = study.moments(torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    monkeypatch.setattr(pretrained, "load", lambda name: judge)
    monkeypatch.setattr(pretrained, "reference", lambda name: moments)
    zero = FunctionDenoiser(lambda x_t, t: torch.zeros_like(x_t), Cosine())
    monkeypatch.setattr(pretrained, "load_denoiser", lambda name: zero)
    row = study.shift("T1")
    assert row["slices"] == 6 and row["frechet_distance"] > 0
    assert [row[f"rms at t = {t}"] for t in study.NOISE_LEVELS] == pytest.approx([0.1] * 3, abs=1e-3)
    cohort = study.shift(study.COHORT)
    assert cohort["slices"] == 6 and cohort["rms at t = 0.1"] > 0.2


def test_rows_of_another_threshold_are_dropped(monkeypatch):
    tuned = {"split": "validation", "method": "bright threshold", "setting": {}, "average_precision": 0.5, "needs": {}}
    monkeypatch.setattr(study, "load", lambda name: {"rows": [tuned | {"threshold": 1.0, "thresholds": [1.0]}]})
    old = {"kind": "method", "method": "bright threshold", "setting": {}, "threshold": 0.9, "contrast": "T1"}
    record = {"rows": [{"kind": "shift", "images": "cohort"}, old, old | {"threshold": 1.0}]}
    keys = list(study.plan(record))
    assert [key["kind"] for key in keys] == ["shift"] * 3 + ["method"] * 2
    assert record["rows"] == [{"kind": "shift", "images": "cohort"}, old | {"threshold": 1.0}]
    assert {key["threshold"] for key in keys[3:]} == {1.0}
