"""Three planes: the right voxels at the right side and in the right proportions, whatever the order of the axes."""

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform

from course_lib.viz import figures, planes, widgets

SHAPE = (6, 10, 8)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def shown(fig):
    """The three grey pictures of a figure: (array with rows upwards, width, height in mm)."""
    images = [image for image in fig.axes[0].get_images() if image.get_array().ndim == 2]
    return [(np.asarray(i.get_array()), i.get_extent()[1] - i.get_extent()[0], i.get_extent()[3]) for i in images]


def marked(*voxel):
    """A volume of zeros but for one voxel."""
    image = np.zeros(SHAPE, np.float32)
    image[voxel] = 1
    return image


def test_right_is_on_the_left_front_is_up_and_nothing_is_stretched():
    """The rightmost, foremost, topmost voxel."""
    axial, coronal, sagittal = shown(planes.three_planes(marked(5, 9, 7), AFFINE, at=(5, 9, 7), title="corner"))
    assert axial[0].shape == (10, 6) and axial[0][-1, 0] == 1 == axial[0].sum()  # front: top row; right: left
    assert coronal[0].shape == (8, 6) and coronal[0][-1, 0] == 1 == coronal[0].sum()
    assert sagittal[0].shape == (8, 10) and sagittal[0][-1, 0] == 1 == sagittal[0].sum()  # front: on the left
    assert axial[1:] == pytest.approx((6, 20)) and coronal[1:] == pytest.approx((6, 24))
    assert sagittal[1:] == pytest.approx((20, 24))


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_the_order_of_the_axes_changes_nothing(codes):
    rng = np.random.default_rng(0)
    image, labels, at = rng.random(SHAPE, np.float32), rng.integers(0, 3, SHAPE), np.array([1, 7, 2])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    turned = nibabel.Nifti1Image(image, AFFINE).as_reoriented(turn)
    turned_labels = nibabel.orientations.apply_orientation(labels, turn)
    voxel = np.rint(np.linalg.inv(turned.affine) @ AFFINE @ [*at, 1])[:3].astype(int)
    one = planes.three_planes(image, AFFINE, labels, at, title="one", names=("a", "b"))
    other = planes.three_planes(
        np.asarray(turned.dataobj), turned.affine, turned_labels, voxel, title="one", names=("a", "b")
    )
    for a, b in zip(shown(one), shown(other), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert a[1:] == pytest.approx(b[1:])
    np.testing.assert_array_equal(figures.figure_pixels(one), figures.figure_pixels(other))


def test_the_cross_goes_through_the_voxel():
    fig = planes.three_planes(marked(1, 2, 3), AFFINE, at=(1, 2, 3), title="cross")
    lines = fig.axes[0].get_lines()
    assert lines[1].get_xdata()[0] == pytest.approx(6 - 1.5)  # axial: x runs to the left
    assert lines[0].get_ydata()[0] == pytest.approx(2.5 * 2)
    assert "x = 1.0 mm" in [t.get_text().split(", ")[-1] for t in fig.axes[0].texts]


def test_neighbouring_planes_bear_millimetres_of_their_own():
    """With origins on half a millimetre, whole ones would name two planes alike."""
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = -15.5, -23.5, -15.5
    headings = []
    for k in range(16):
        texts = planes.three_planes(np.zeros((4, 20, 4), np.float32), affine, at=(1, k, 1), title="one").axes[0].texts
        headings += [text.get_text() for text in texts if text.get_text().startswith("coronal")]
    assert headings[:2] == ["coronal, y = -23.5 mm", "coronal, y = -22.5 mm"] and len(set(headings)) == 16


def test_labels_are_named_with_their_dash():
    labels = np.zeros(SHAPE, int)
    labels[:3, :5], labels[3:, :5] = 1, 2
    fig = planes.three_planes(marked(0, 0, 0), AFFINE, labels, (1, 2, 3), title="labels", names=("front", "back"))
    legend = fig.axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["front", "back"]
    assert len({line.get_linestyle() for line in legend.get_lines()}) == 2
    assert figures.picture(fig, "Three planes of a volume of two labels.").markup


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((4, 4))}, "expected a volume"),
        ({"labels": np.zeros((2, 2, 2))}, "do not belong"),
        ({"at": (6, 0, 0)}, "no voxel"),
        ({"at": (1, 2)}, "no voxel"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        planes.three_planes(**{"image": marked(0, 0, 0), "title": "wrong"} | arguments)


def test_through_moves_the_cross_along_an_axis():
    labels = marked(1, 2, 3) > 0
    frames, texts = planes.through(marked(1, 2, 3), AFFINE, labels, n=4, title="through")
    assert len(frames) == len(texts) == 4 and texts[0] == "voxel 2 of 10 along axis 1"
    at = [frame.axes[0].get_lines()[0].get_ydata()[0] for frame in frames]
    assert at == sorted(at) and at[0] == pytest.approx(2.5 * 2)
    assert "course-stepper" in widgets.stepper(frames, texts, title="Through", alt="A volume, plane by plane").markup


def test_viewer_has_a_slider_for_each_axis_and_a_still_twin():
    labels = (marked(1, 2, 3) > 0).astype(int)
    found = planes.viewer(
        {"first": (marked(1, 2, 3), labels), "second": (marked(0, 0, 0), None)},
        AFFINE,
        title="Look",
        alt="Three planes",
    )
    assert found.values == {"volume": "first", "right-left": 1, "back-front": 2, "feet-head": 3}
    assert len(found.sweep()) == 2 + 3 * 3
    assert "<img" in found.bundle()["text/html"]
    turned = np.array([[0, 0, 3.0, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1]])
    names = list(planes.viewer({"a": (marked(0, 0, 0), None)}, turned, title="T", alt="Three planes").values)
    assert names == ["volume", "back-front", "feet-head", "right-left"]
    two = {"a": (np.zeros((2, 2, 2)), None), "b": (np.zeros((3, 2, 2)), None)}
    with pytest.raises(ValueError, match="all of one shape"):
        planes.viewer(two, title="T", alt="Three planes")
