"""The made subjects: the same number is the same person, the truth is true, and the anatomy stays plausible."""

import hashlib
import inspect
import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from data_fetch import DataError, rated_lesions
from data_fetch import brain_cohort as brain

SUBJECTS = range(200, 208)


def test_shapes_types_and_ranges():
    cohort = brain.cohort("train", 3, size=64, lesion="hyper")
    for stack in (cohort.images, cohort.healthy):
        assert stack.shape == (3, 64, 64)
        assert stack.dtype == np.float32
        assert stack.min() == -1
        assert 0.2 < stack.max() <= 1
    for stack in (cohort.labels, cohort.masks):
        assert stack.shape == (3, 64, 64)
        assert stack.dtype == np.uint8
    assert set(np.unique(cohort.labels)) == {0, 1, 2, 3}
    assert set(np.unique(cohort.masks)) == {0, 1}
    assert brain.cohort("test", 0).images.shape == (0, 64, 64)


def test_background_is_exactly_minus_one_and_outside_the_brain_only():
    case = brain.slice_2d(5)
    assert (case.image[:, :3] == -1).all()
    assert (case.image[case.labels > 0] > -1).mean() > 0.99


def test_the_brain_fits_into_the_picture():
    for number in range(40):
        labels = brain.slice_2d(number).labels
        assert not np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).any()


def test_same_number_same_person_in_any_order_and_twice():
    first = {number: brain.slice_2d(number, lesion="mass") for number in (7, 8, 9)}
    brain._anatomy.cache_clear()
    brain._lesion.cache_clear()
    for number in (9, 7, 8):
        again = brain.slice_2d(number, lesion="mass")
        for field in ("image", "healthy", "labels", "mask"):
            assert np.array_equal(getattr(again, field), getattr(first[number], field))
    assert not np.array_equal(first[7].image, first[8].image)


def test_same_person_in_another_process():
    def digest():
        case = brain.slice_2d(7, 96, "T2", "texture")
        return hashlib.sha256(case.image.tobytes() + case.mask.tobytes() + case.labels.tobytes()).hexdigest()

    code = "import hashlib; from data_fetch import brain_cohort as brain\nbrain.slice_2d(1)\n"
    code += textwrap.dedent(inspect.getsource(digest)) + "print(digest())"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest()


def test_cohort_is_the_stack_of_its_slices():
    cohort = brain.cohort("validation", 4, size=32, contrast="T2", lesion="mixed", strength=0.7, seed=3)
    for index in (2, 0):
        case = brain.slice_2d(int(cohort.numbers[index]), 32, "T2", "mixed", 0.7)
        assert np.array_equal(case.image, cohort.images[index])
        assert np.array_equal(case.healthy, cohort.healthy[index])
        assert np.array_equal(case.labels, cohort.labels[index])
        assert np.array_equal(case.mask, cohort.masks[index])


def test_splits_are_disjoint_and_draws_are_prefixes():
    ranges = [set(range(*span)) for span in brain.SPLITS.values()]
    assert sum(map(len, ranges)) == len(set.union(*ranges))
    for split, (first, end) in brain.SPLITS.items():
        drawn = brain.numbers(split, 500, seed=1)
        assert len(set(drawn)) == 500
        assert drawn.min() >= first
        assert drawn.max() < end
        assert np.array_equal(drawn[:20], brain.numbers(split, 20, seed=1))
        assert not np.array_equal(drawn, brain.numbers(split, 500, seed=2))


@pytest.mark.parametrize("family", brain.FAMILIES)
def test_healthy_twin_is_the_same_person_with_the_same_noise(family):
    for number in SUBJECTS:
        plain, ill = brain.slice_2d(number), brain.slice_2d(number, lesion=family)
        assert np.array_equal(plain.image, plain.healthy)
        assert np.array_equal(plain.image, ill.healthy)
        assert plain.mask.sum() == 0
        assert ill.mask.sum() > 0
        if family != "mass":  # a mass moves tissue around it; the others change nothing outside their soft edge
            spot = brain._lesion(number, family)
            x, y = brain._axis(64, 0)[::-1], brain._axis(64, 1)[::-1, None]
            far = np.hypot(x - spot.centre[0], y - spot.centre[1]) > 1.75 * spot.radius + 5
            assert np.array_equal(ill.image[far], ill.healthy[far])
            assert np.array_equal(ill.labels, plain.labels)


@pytest.mark.parametrize("contrast", brain.CONTRASTS)
def test_families_look_as_their_names_say(contrast):
    change = {}
    for family in brain.FAMILIES:
        cases = [brain.slice_2d(number, 64, contrast, family) for number in SUBJECTS]
        inside = [(case.image - case.healthy)[case.mask > 0] for case in cases]
        change[family] = np.array([values.mean() for values in inside])
    assert (change["hyper"] > 0.15).all()
    assert (change["tiny"] > 0.05).all()
    assert (change["hypo"] < -0.15).all()
    assert np.abs(change["texture"]).max() < 0.06
    assert np.abs(change["texture"]).mean() < 0.02


def test_texture_lesion_changes_the_pattern_not_the_mean():
    for number in SUBJECTS:
        case = brain.slice_2d(number, 96, lesion="texture")
        difference = (case.image - case.healthy)[case.mask > 0]
        assert difference.std() > 0.1
        assert abs(difference.mean()) < 0.06


def test_tiny_lesions_are_tiny():
    pixels = [brain.slice_2d(number, lesion="tiny").mask.sum() for number in SUBJECTS]
    assert max(pixels) <= 8
    assert min(pixels) >= 1
    large = [brain.slice_2d(number, lesion="mass").mask.sum() for number in SUBJECTS]
    assert min(large) > max(pixels)


@pytest.mark.parametrize("family", brain.FAMILIES)
def test_a_subject_can_have_other_lesions_of_a_family(family):
    own, again, first, second = (
        brain.slice_2d(11, lesion=family, **look) for look in ({}, *({"draw": k} for k in range(3)))
    )
    assert np.array_equal(own.image, again.image) and np.array_equal(own.mask, again.mask)
    for one, two in ((own, first), (first, second)):
        assert np.array_equal(one.healthy, two.healthy)
        assert not np.array_equal(one.image, two.image)


@pytest.mark.parametrize(("lesion", "draw"), [("hyper", -1), ("hyper", 1.0), ("hyper", True), (brain.REAL_FAMILY, 1)])
def test_no_such_draw(lesion, draw):
    with pytest.raises(DataError, match="A draw is a whole number from 0 on"):
        brain.slice_2d(11, lesion=lesion, draw=draw)


def test_mass_displaces_tissue_but_keeps_the_outline():
    moved, outline = [], []
    for number in SUBJECTS:
        ill, plain = brain.slice_2d(number, 128, lesion="mass"), brain.slice_2d(number, 128)
        outside = ill.mask == 0
        moved.append((ill.labels != plain.labels)[outside].mean())
        inside, before = ill.labels > 0, plain.labels > 0
        outline.append(2 * (inside & before).sum() / (inside.sum() + before.sum()))
    assert np.mean(moved) > 0.01
    assert min(outline) > 0.985


def test_mass_pushes_tissue_away_from_its_centre():
    """What is seen beside a mass comes from nearer to its centre, along the line from there."""
    for number in SUBJECTS:
        anatomy, spot = brain._anatomy(number), brain._lesion(number, "mass")
        grid = [middle + 0.6 * spot.radius * np.linspace(-1, 1, 9) for middle in spot.centre[:2]] + [spot.centre[2:]]
        without, with_mass = (
            brain._to_template(anatomy, grid, anatomy.ventricles, mass) for mass in (None, (spot, 1.0))
        )
        offset = np.stack(np.meshgrid(*grid, indexing="ij")) - spot.centre[:, None, None, None]
        outward = np.einsum("ij,jxyz->ixyz", anatomy.matrix, offset)
        assert ((with_mass - without) * outward).sum(0).mean() < -1  # mm^2


def test_splines_are_those_of_scipy_and_sum_to_one():
    from scipy.interpolate import BSpline

    offsets = np.linspace(-96, 96, 50)[1:-1]
    basis = brain._basis(offsets, 9)
    np.testing.assert_allclose(basis.sum(1), 1, atol=1e-12)
    element = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    place = (offsets / 192 + 0.5) * 6
    expected = np.nan_to_num(element(place[:, None] - (np.arange(9) - 1)))
    np.testing.assert_allclose(basis, expected, atol=1e-12)


def test_parts_of_a_voxel_lie_evenly_around_its_centre():
    """Three parts of 1 mm in each voxel of 3 mm: their mean is the centre, and the next voxel goes on in step."""
    fine = brain._refine(np.array([10.0, 13.0, 16.0]), 3)
    np.testing.assert_allclose(fine, np.arange(9.0, 18.0))
    np.testing.assert_allclose(brain._refine(np.array([16.0, 13.0, 10.0]), 3), np.arange(17.0, 8.0, -1))


def test_noise_is_that_of_a_magnitude():
    """|A b + n_1 + i n_2|, of the scanner's own bias b and noise, in the scale of its contrast."""
    axes = [brain._axis(32, 0), brain._axis(32, 1), np.array([10.0])]
    scanner = brain._Scanner(5, "T1", axes)
    tissue = np.zeros((3, 32, 32, 1))
    tissue[2] = 1
    for level in (0.0, 0.3):
        expected = np.abs(level * scanner.bias + scanner.noise[0] + 1j * scanner.noise[1])
        found = scanner.acquire(np.full((32, 32, 1), level), tissue)
        np.testing.assert_allclose((found + 1) / 2 * brain._FULL_SCALE["T1"], expected, atol=1e-6)


def test_a_lesion_has_a_soft_edge():
    """Pixels of which a lesion has a fiftieth to an eighth are brighter by about that much."""
    gain = []
    for number in SUBJECTS:
        case, spot = brain.slice_2d(number, 128, lesion="hyper"), brain._lesion(number, "hyper")
        axes = [brain._axis(128, 0)[::-1], brain._axis(128, 1)[::-1], np.array([brain._anatomy(number).level])]
        cover = brain._fine_mean(spot.cover, axes, 128)[:, :, 0].T
        edge = (cover > 0.02) & (cover < 0.125) & (case.labels == 3)
        gain += list((case.image != case.healthy)[edge])
    assert len(gain) > 20 and np.mean(gain) > 0.95


@pytest.mark.parametrize("family", brain.FAMILIES)
def test_a_lesion_may_be_stronger_than_those_that_networks_learn(family):
    change = {
        strength: np.abs(case.image - case.healthy)[case.mask > 0].mean()
        for strength in (0.5, 1.0, 1.5)
        for case in [brain.slice_2d(11, lesion=family, strength=strength)]
    }
    assert change[0.5] < change[1.0] < change[1.5]


def test_strength_runs_from_invisible_to_full():
    for family in brain.FAMILIES:
        none = brain.slice_2d(11, lesion=family, strength=0.0)
        assert np.array_equal(none.image, none.healthy)
        changes = [
            np.abs(case.image - case.healthy).sum()
            for case in (brain.slice_2d(11, lesion=family, strength=strength) for strength in (0.2, 0.5, 1.0))
        ]
        assert changes == sorted(changes)


def test_lesions_lie_in_the_brain_and_not_in_the_ventricles():
    for family in brain.FAMILIES:
        for number in SUBJECTS:
            case = brain.slice_2d(number, 128, lesion=family)
            tissue = case.labels[case.mask > 0]
            assert (tissue > 0).all()
            assert (tissue == 1).mean() < 0.25


def test_contrasts_order_the_tissues_as_in_real_images():
    for contrast, order in (("T1", (1, 2, 3)), ("T2", (3, 2, 1))):
        cases = [brain.slice_2d(number, 96, contrast) for number in SUBJECTS]
        means = [np.mean([case.image[case.labels == label].mean() for case in cases]) for label in order]
        assert means[0] + 0.1 < means[1]
        assert means[1] + 0.1 < means[2]
    one, two = brain.slice_2d(3, contrast="T1"), brain.slice_2d(3, contrast="T2")
    assert np.array_equal(one.labels, two.labels)


def test_larger_ventricles_on_request_and_nothing_else():
    case = brain.slice_2d(41, 128, level=20.0, ventricles=0.0)
    large = brain.slice_2d(41, 128, level=20.0, ventricles=3.0)
    middle = np.s_[40:90, 40:88]
    assert (large.labels[middle] == 1).sum() > 1.3 * (case.labels[middle] == 1).sum()
    rim = np.ones((128, 128), bool)
    rim[middle] = False
    assert (large.labels != case.labels)[rim].mean() < 0.02


def test_sizes_show_the_same_person():
    small, large = brain.slice_2d(17, 64), brain.slice_2d(17, 128)
    shrunk = large.image.reshape(64, 2, 64, 2).mean((1, 3))
    assert np.corrcoef(shrunk.ravel(), small.image.ravel())[0, 1] > 0.98


def test_orientation_row_zero_is_front_and_column_zero_is_the_right():
    """The lesion's position in mm, computed from the picture by the stated convention, is where it was put."""
    for number in SUBJECTS:
        spot = brain._lesion(number, "hyper")
        rows, columns = np.nonzero(brain.slice_2d(number, 96, lesion="hyper", level=spot.centre[2]).mask)
        x = brain.CENTRE[0] + (47.5 - columns.mean()) * 2.0
        y = brain.CENTRE[1] + (47.5 - rows.mean()) * 2.0
        assert abs(x - spot.centre[0]) < 6
        assert abs(y - spot.centre[1]) < 6


def test_volume_agrees_with_its_slice():
    spot = brain._lesion(21, "mass")
    volume = brain.volume(21, 32, lesion="mass")
    assert volume.image.shape == volume.labels.shape == volume.mask.shape == (32, 32, 32)
    assert np.allclose(np.abs(np.diag(volume.affine)), [6, 6, 6, 1])
    middle = volume.affine @ [*(np.argwhere(volume.mask).mean(0)), 1]
    assert np.abs(middle[:3] - spot.centre).max() < 6
    plane = 13
    level = (volume.affine @ [0, 0, plane, 1])[2]
    case = brain.slice_2d(21, 32, lesion="mass", level=level)
    flipped = volume.image[::-1, ::-1, plane].T
    assert np.corrcoef(flipped.ravel(), case.image.ravel())[0, 1] > 0.95


def test_deformations_do_not_fold():
    """The determinant of the Jacobian is positive all over the levels that are used."""
    grid = [brain._axis(64, 0), brain._axis(64, 1), np.arange(-20.0, 56.0, 3.0)]
    for number in range(12):
        anatomy = brain._anatomy(number)
        position = brain._to_template(anatomy, grid, anatomy.ventricles)
        jacobian = np.stack([np.stack(np.gradient(part, 3.0)) for part in position])
        inside = brain._template().sample("tissue", position)[2] > 0.5
        assert (np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))[inside] > 0).mean() > 0.9999


def test_brain_sizes_are_plausible():
    """Litres of brain with its CSF; the template's own 1.9 litres are larger than life."""
    litres = [(brain.volume(number, 16).labels > 0).mean() * (brain.FIELD_OF_VIEW / 100) ** 3 for number in range(2)]
    assert min(litres) > 1.2
    assert max(litres) < 2.1


def test_subjects_differ():
    images = np.stack([brain.slice_2d(number, level=15.0).image for number in range(20)]).reshape(20, -1)
    correlations = np.corrcoef(images)[np.triu_indices(20, 1)]
    assert correlations.max() < 0.97


def test_fifty_slices_a_second():
    brain.slice_2d(0)
    best = float("inf")
    for start in (1000, 2000, 3000):  # processor time of this thread, the best of three: other programs may be busy
        begin = time.thread_time()
        for number in range(start, start + 10):
            brain.slice_2d(number)
        best = min(best, (time.thread_time() - begin) / 10)
    assert best < 1 / 50


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brain.cohort("dev", 1), "no split 'dev'"),
        (lambda: brain.numbers("test", 20_000), "10000 subjects"),
        (lambda: brain.slice_2d(1, contrast="CT"), "no contrast 'CT'"),
        (lambda: brain.slice_2d(1, lesion="big"), "no lesion 'big'"),
        (lambda: brain.slice_2d(-1), "whole number"),
        (lambda: brain.slice_2d(1.5), "whole number"),
        (lambda: brain.slice_2d(1, size=4), "8 to 256"),
        (lambda: brain.slice_2d(1, size=0), "8 to 256"),
        (lambda: brain.slice_2d(1, size=(64, 64)), "8 to 256"),
        (lambda: brain.slice_2d([1]), "whole number"),
        (lambda: brain.slice_2d(True), "whole number"),
        (lambda: brain.slice_2d(1, lesion=["hyper"]), "no lesion"),
        (lambda: brain.slice_2d(1, lesion="hyper", strength=-1), "strength from 0 to 1.5"),
        (lambda: brain.slice_2d(1, lesion="hyper", strength=7), "strength from 0 to 1.5"),
        (lambda: brain.slice_2d(1, lesion="hyper", strength=float("nan")), "strength from 0 to 1.5"),
        (lambda: brain.slice_2d(1, lesion="hyper", strength="1"), "strength from 0 to 1.5"),
        (lambda: brain.slice_2d(1, lesion="hyper", strength=None), "strength from 0 to 1.5"),
        (lambda: brain.slice_2d(1, level=500), "level from -92 to 100"),
        (lambda: brain.slice_2d(1, level=float("nan")), "level from -92 to 100"),
        (lambda: brain.slice_2d(1, level="middle"), "level from -92 to 100"),
        (lambda: brain.slice_2d(1, ventricles=100), "ventricles from -10 to 10"),
        (lambda: brain.volume(1, 8, ventricles=float("inf")), "ventricles from -10 to 10"),
        (lambda: brain.volume(1, 8, lesion="hyper", strength=-2), "strength from 0 to 1.5"),
        (lambda: brain.cohort(["train"], 1), "no split"),
        (lambda: brain.cohort("train", "2"), "subjects, not '2'"),
        (lambda: brain.numbers("test", 3.5), "subjects, not 3.5"),
        (lambda: brain.numbers("test", True), "subjects, not True"),
        (lambda: brain.numbers("test", 3, seed=-4), "seed is a whole number"),
        (lambda: brain.numbers("test", 3, seed=1.5), "seed is a whole number"),
        (lambda: rated_lesions.load("test", 0), "1 or more"),
        (lambda: rated_lesions.load("test", 1, strength=-3), "strength from 0 to 1.5"),
        (lambda: rated_lesions.crop(np.zeros((96, 96)), 3), "not empty"),
        (lambda: rated_lesions.crop(np.ones((96, 96)), 3), "too large"),
        (lambda: rated_lesions.crop(np.ones((1, 96, 96)), 3), "to crop is"),
        (lambda: rated_lesions.crop(np.eye(96)[:, :40], 3), "64 or more"),
        (lambda: rated_lesions.ratings(np.zeros((64, 64))), "masks .N, H, W."),
        (lambda: rated_lesions.ratings(np.full((1, 64, 64), 0.5)), "0 and 1"),
    ],
)
def test_wrong_arguments_get_a_clear_sentence(call, message):
    with pytest.raises(DataError, match=message):
        call()
