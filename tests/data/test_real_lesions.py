"""Real lesions on made subjects, and real persons on the grid of made ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from data_fetch import DataError, ms_lesions
from data_fetch import brain_cohort as brain

GRID = (182, 218, 182)
COLUMN = np.array([25.0, -20.0])  # mm in the template, in white matter beside the ventricle
RADIUS = 9.0


@pytest.fixture
def persons(monkeypatch):
    """Ten persons with one lesion each, a column through all levels on the right, in place of the data set."""
    to_template = ms_lesions.TO_TEMPLATE @ ms_lesions.AFFINE
    x, y = (to_template[k, k] * np.arange(n) + to_template[k, 3] for k, n in enumerate(GRID[:2]))
    column = np.hypot(x[:, None] - COLUMN[0], y - COLUMN[1]) < RADIUS
    person = SimpleNamespace(lesions=np.repeat(column[:, :, None], GRID[2], 2))
    monkeypatch.setattr(ms_lesions, "load", lambda numbers=None: [person] * (10 if numbers is None else len(numbers)))
    caches = brain._lesion, brain._lesions_of, brain._lesion_areas
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_without_the_data_set_it_is_a_sentence_and_the_five_families_are_as_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    for cached in (brain._lesion, brain._lesions_of, brain._lesion_areas):
        cached.cache_clear()
    with pytest.raises(DataError, match="ms_lesions"):
        brain.slice_2d(3, lesion="ms")
    assert brain.FAMILIES == ("hyper", "hypo", "texture", "mass", "tiny")
    assert {brain._lesion(number, "hyper").family for number in range(3)} == {"hyper"}
    brain.cohort("train", 12, size=16, lesion="mixed")  # none of them asks for it


def test_lesions_lie_where_they_lie_in_the_template(persons):
    """Carried back by the subject's own deformation, each pixel is in the column, to half a pixel of 1.5 mm; and the
    column is all there but for its fluid."""
    for number in range(200, 206):
        case = brain.slice_2d(number, 128, lesion="ms")
        anatomy = brain._anatomy(number)
        axes = [brain._axis(128, 0)[::-1], brain._axis(128, 1)[::-1], np.array([anatomy.level])]
        place = brain._to_template(anatomy, axes, anatomy.ventricles)[:2, :, :, 0]
        distance = np.hypot(*(place - COLUMN[:, None, None])).T
        assert distance[case.mask > 0].max() < RADIUS + 1
        solid = (case.labels == 2) | (case.labels == 3)
        assert (case.mask[solid & (distance < RADIUS - 2)] > 0).mean() > 0.8
        assert np.array_equal(case.image[distance > RADIUS + 3], case.healthy[distance > RADIUS + 3])
        inside = case.mask > 0
        assert (case.image - case.healthy)[inside].mean() > 0.1 and case.image[inside].min() > 0


def test_the_way_to_the_template_is_near_what_brains_say():
    """The persons' brains reach from -60 to 60 mm, from -93 to 60 and up to 66; the template's from -69 to 69, from
    -103 to 69 and up to 77. To 4 mm."""
    ends = np.array([[-60, 60, 0, 0, 0], [0, 0, -93, 60, 0], [0, 0, 0, 0, 66], [1, 1, 1, 1, 1]])
    place = ms_lesions.TO_TEMPLATE @ ends
    found = [place[0, 0], place[0, 1], place[1, 2], place[1, 3], place[2, 4]]
    np.testing.assert_allclose(found, [-69, 69, -103, 69, 77], atol=4)
    found = ms_lesions.TO_TEMPLATE @ [0, -17, 13, 1]  # stretched about a point, which is moved by 3 mm down
    np.testing.assert_allclose(found, [0, -17, 10, 1], atol=1e-9)


def test_ventricles_that_move_take_the_lesions_along(persons):
    wide = brain.slice_2d(200, 64, lesion="ms", ventricles=8.0)
    axes = [brain._axis(64, 0)[::-1], brain._axis(64, 1)[::-1], np.array([brain._anatomy(200).level])]
    place = brain._to_template(brain._anatomy(200), axes, 8.0)[:2, :, :, 0]
    distance = np.hypot(*(place - COLUMN[:, None, None])).T
    assert wide.mask.any() and distance[wide.mask > 0].max() < RADIUS + 2
    assert brain._lesion(200, "ms").ventricles == brain._anatomy(200).ventricles  # the kept one is as it was


def test_no_split_shows_the_shapes_of_another(persons):
    """And a subject gets a person who has lesions at its level, where there is one."""
    shown = {}
    for split, (first, _) in brain.SPLITS.items():
        shown[split] = {brain.lender(number) for number in range(first, first + 40)}
    assert shown == {"train": {1, 2, 3, 6, 7, 8}, "validation": {4, 9}, "test": {5, 10}}


def test_a_person_without_lesions_at_the_level_is_left_out(persons, monkeypatch):
    areas = brain._lesion_areas().copy()
    areas[4] = 0
    monkeypatch.setattr(brain, "_lesion_areas", lambda: areas)
    assert {brain.lender(number) for number in range(110_000, 110_030)} == {10}


# ---- Persons on the grid of the cohort -------------------------------------------------------------------------------


def undeformed(level):
    """The subject that is the template itself, but for the mean size of subjects."""
    none = (np.zeros((3, 6, 6, 6)), (np.zeros((3, 10, 10, 10)), np.zeros((3, 16, 16, 16))))
    return brain._Anatomy(0, level, np.eye(3) / np.exp(-0.06), np.zeros(3), *none, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [64, 96])
def test_the_templates_white_matter_is_that_of_the_undeformed_subject(size):
    """Both are trilinear in the same map; one reads it by its own code, the other by scipy: 1e-4."""
    from nilearn import datasets

    white = datasets.load_mni152_wm_template(resolution=1)
    axes = [brain._axis(size, 0)[::-1], brain._axis(size, 1)[::-1], np.array([16.0])]
    expected = brain._fine_mean(
        lambda grid: brain._template().sample("tissue", brain._to_template(undeformed(16.0), grid, 0.0))[1], axes, size
    )
    brain_only = brain._fine_mean(
        lambda grid: brain._template().sample("tissue", brain._to_template(undeformed(16.0), grid, 0.0))[2], axes, size
    )
    found = brain.slices_in_mni(white.get_fdata(dtype=np.float32), white.affine, [16.0], size)
    inside = brain_only[:, :, 0].T > 0.999  # the cohort cuts the maps to the brain
    assert inside.sum() > 0.2 * size**2
    np.testing.assert_allclose(found[0][inside], expected[:, :, 0].T[inside], rtol=0, atol=1e-4)


def test_a_place_in_mm_is_where_the_slice_shows_it():
    """A ball at a place in mm, under an affine with turned axes and voxels of 2 mm."""
    affine = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    voxels = np.stack(np.meshgrid(*map(np.arange, (91, 109, 91)), indexing="ij"))
    mm = np.einsum("ij,j...->i...", affine[:3, :3], voxels) + affine[:3, 3, None, None, None]
    ball = (np.sqrt(((mm - np.array([30.0, 20.0, 10.0])[:, None, None, None]) ** 2).sum(0)) < 8).astype(np.float32)
    shrunk = np.exp(-0.06) * (np.array([30.0, 20.0, 10.0]) - brain.CENTRE) + brain.CENTRE
    found = brain.slices_in_mni(ball, affine, [shrunk[2], 60.0], 96)
    assert found.shape == (2, 96, 96) and not found[1].any()
    rows, columns = np.indices((96, 96))
    x = brain._axis(96, 0)[::-1][columns]
    y = brain._axis(96, 1)[::-1][rows]
    centre = [(found[0] * axis).sum() / found[0].sum() for axis in (x, y)]
    np.testing.assert_allclose(centre, shrunk[:2], atol=0.2)
    assert brain.slices_in_mni(ball, affine, [], 64).shape == (0, 64, 64)
