"""Volumes as radiologists see them: three orthogonal planes through a point, and a viewer that moves the point.

The patient's right is on the left of axial and coronal planes, the front on the left of sagittal ones; the head is up.
The affine says which axis of the array is which, and how long a voxel is: nothing is stretched.

    figures.show(planes.three_planes(image, affine, label, title="A hippocampus"), "...")
    planes.viewer({"first": (image, label)}, affine, title="Move the cross", alt="...")
"""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from course_lib.arguments import positive, whole
from course_lib.viz.arrays import all_shown, as_array
from course_lib.viz.figures import PALETTE, house_style, picture_axes
from course_lib.viz.widgets import live

__all__ = ["three_planes", "through", "viewer"]

COLOURS = (PALETTE[4], PALETTE[5], PALETTE[3], PALETTE[2])
LINES = ("-", "--", ":", "-.")
CROSS = "#F0E442"  # yellow is seen on every grey
AXES = ("right-left", "back-front", "feet-head")
#: name, axis of the array across and up, axis looked along, letters left, right, below, above
PLANES = (("axial", 0, 1, 2, "RLPA"), ("coronal", 0, 2, 1, "RLIS"), ("sagittal", 1, 2, 0, "APIS"))


@house_style
def three_planes(image, affine=None, labels=None, at=None, *, title, names=(), vmin=-1, vmax=1, height=2.4):
    """Axial, coronal and sagittal plane of `image` (X, Y, Z) through voxel `at` (3,), left out: the middle.

    affine : (4, 4), voxel to mm in RAS+; left out, voxels of 1 mm in that order. labels : whole numbers (X, Y, Z),
    0 for none; each label is tinted and outlined, with the dash that the legend shows beside its entry in `names`.
    height : of the tallest plane in inches. Raises ValueError if shapes do not match, `at` lies
    outside, or a voxel is NaN.
    """
    image, at, labels = _checked(image, at, labels)
    positive(height=height)
    image, labels, at, affine = _canonical(image, labels, at, _checked_affine(affine))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    sides = spacing * image.shape
    millimetres = (affine @ [*at, 1])[:3]
    gap, tallest = 0.06 * sides.max(), max(sides[1], sides[2])
    width = 2 * sides[0] + sides[1] + 2 * gap
    fig, ax = picture_axes(width / tallest * height, height + 0.3, title)
    left = 0.0
    for name, across, up, along, letters in PLANES:
        plane = _plane(image, along, at)
        extent = (left, left + sides[across], 0, sides[up])
        ax.imshow(plane, "gray", vmin=vmin, vmax=vmax, extent=extent, origin="lower", interpolation="nearest")
        if labels is not None:
            _overlay(ax, _plane(labels, along, at), extent)
        cross = left + sides[across] - (at[across] + 0.5) * spacing[across], (at[up] + 0.5) * spacing[up]
        ax.plot([left, extent[1]], [cross[1]] * 2, color=CROSS, linewidth=0.8, alpha=0.8)
        ax.plot([cross[0]] * 2, [0, sides[up]], color=CROSS, linewidth=0.8, alpha=0.8)
        _letters(ax, extent, letters)
        ax.text(left + sides[across] / 2, sides[up] + 0.02 * tallest, f"{name}, {'xyz'[along]} = "
                f"{millimetres[along]:.1f} mm", ha="center", va="bottom", fontsize=12)  # fmt: skip
        left += sides[across] + gap
    _scale_bar(ax, sides[0], tallest)
    ax.set(xlim=(0, width), ylim=(-0.2 * tallest, 1.12 * tallest), aspect="equal")
    _legend(ax, labels, names)
    return fig


def _checked(image, at, labels):
    image = all_shown(as_array(image))
    if image.ndim != 3:
        raise ValueError(f"expected a volume (X, Y, Z), got shape {image.shape}")
    labels = None if labels is None else as_array(labels)
    if labels is not None and labels.shape != image.shape:
        raise ValueError(f"labels of shape {labels.shape} do not belong to an image of shape {image.shape}")
    if labels is not None and (labels.dtype.kind not in "biuf" or (labels < 0).any() or (labels % 1 != 0).any()):
        raise ValueError("labels must be whole numbers from 0 on, 0 for none")
    at = np.array(image.shape) // 2 if at is None else np.array(as_array(at))
    if at.shape != (3,) or at.dtype.kind not in "iuf" or not ((at >= 0) & (at < image.shape) & (at % 1 == 0)).all():
        raise ValueError(f"at = {at} is no voxel of a volume of shape {image.shape}")
    return image, at, labels


def _checked_affine(affine):
    """The affine as an array (4, 4); voxels of 1 mm where it is None. Raises ValueError for what is none."""
    if affine is None:
        return np.eye(4)
    affine = as_array(affine)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError(f"affine must be a finite (4, 4) matrix from voxel to mm, not flat; got shape {affine.shape}")
    return affine


def _canonical(image, labels, at, affine):
    """The same on the nearest RAS+ axes, by flips and 90 degree turns."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    turn = io_orientation(affine)
    back = inv_ornt_aff(turn, image.shape)
    at = np.rint(np.linalg.inv(back) @ [*at, 1])[:3].astype(int)
    labels = None if labels is None else apply_orientation(labels, turn)
    return apply_orientation(image, turn), labels, at, affine @ back


def _plane(array, along, at):
    """One plane, rows upwards; the axis across runs to the left, since right and front are shown on the left."""
    plane = np.take(array, at[along], axis=along)  # (across, up): what is left, in this order in all of PLANES
    return plane.T[:, ::-1]


def _overlay(ax, plane, extent):
    """Tint and outline of every label in a plane."""
    for k in np.unique(plane[plane > 0]).astype(int):
        part = plane == k
        colour = COLOURS[(k - 1) % len(COLOURS)]
        tint = np.zeros((*part.shape, 4))
        tint[part] = (*to_rgb(colour), 0.35)
        ax.imshow(tint, extent=extent, origin="lower", interpolation="nearest")
        framed = np.pad(part.astype(float), 1)  # so that a label at the edge is outlined too
        wide, high = (extent[1] - extent[0]) / part.shape[1], (extent[3] - extent[2]) / part.shape[0]
        x = extent[0] + (np.arange(framed.shape[1]) - 0.5) * wide
        y = extent[2] + (np.arange(framed.shape[0]) - 0.5) * high
        ax.contour(x, y, framed, [0.5], colors=colour, linewidths=1.4, linestyles=LINES[(k - 1) % len(LINES)])


def _letters(ax, extent, letters):
    """Which way is which: right R, left L, front A, back P, head S, feet I."""
    left, right, bottom, top = extent
    inset = 0.02 * (right - left)
    places = (
        (left + inset, (bottom + top) / 2, "left", "center"),
        (right - inset, (bottom + top) / 2, "right", "center"),
        ((left + right) / 2, bottom + inset, "center", "bottom"),
        ((left + right) / 2, top - inset, "center", "top"),
    )
    for letter, (x, y, ha, va) in zip(letters, places, strict=True):
        around = [withStroke(linewidth=2.5, foreground="black")]
        ax.text(x, y, letter, ha=ha, va=va, color="white", fontsize=10, path_effects=around)


def _scale_bar(ax, width, tallest):
    """A bar of 10 mm, or 50 where the volume is large, under the axial plane."""
    length = 50 if width > 100 else 10
    ax.plot([0, length], [-0.05 * tallest] * 2, color="black", linewidth=3, solid_capstyle="butt")
    ax.text(length / 2, -0.08 * tallest, f"{length} mm", ha="center", va="top", fontsize=11)


def _legend(ax, labels, names):
    if labels is None or not len(names):
        return
    handles = [
        Line2D([], [], color=COLOURS[k % len(COLOURS)], linestyle=LINES[k % len(LINES)], label=name)
        for k, name in enumerate(names)
    ]
    ax.legend(handles=handles, loc="lower right", ncols=len(handles), borderaxespad=0)


def through(image, affine=None, labels=None, *, axis=1, n=12, at=None, **looks):
    """Frames for a `stepper`: n pictures by :func:`three_planes` as the cross moves along `axis` of the array, and a
    text for each.

    at : the other two coordinates, left out the middle of the labels or of the volume; looks : as of three_planes.
    Raises ValueError for another axis than 0, 1 or 2, for n below 1, and as three_planes.
    """
    whole(n=n)
    whole(0, axis=axis)
    if axis > 2:
        raise ValueError(f"axis must be 0, 1 or 2, got {axis!r}")
    image, at, labels = _checked(image, at if at is not None or labels is None else middle(labels), labels)
    positions = np.unique(np.linspace(0, image.shape[axis] - 1, n + 2).round().astype(int)[1:-1])
    frames, texts = [], []
    for position in positions:
        at[axis] = position
        frames.append(three_planes(image, affine, labels, at, **looks))
        texts.append(f"voxel {position} of {image.shape[axis]} along axis {axis}")
    return frames, texts


def middle(labels):
    """The voxel in the middle of all labels (3,); of the array where there are none."""
    labels = as_array(labels)
    if labels.ndim != 3 or labels.dtype.kind not in "biuf":
        raise ValueError(f"labels must be numbers (X, Y, Z), got {labels.dtype} of shape {labels.shape}")
    found = np.argwhere(labels > 0)
    return np.rint(found.mean(0)).astype(int) if len(found) else np.array(labels.shape) // 2


def viewer(volumes, affine=None, *, title, alt, **looks):
    """A `live` viewer of `volumes` {text: (image, labels or None)} of one shape, with a slider for each axis.

    looks : as of :func:`three_planes`. Raises ValueError if shapes differ.
    """
    if not isinstance(volumes, dict) or not all(isinstance(one, tuple) and len(one) == 2 for one in volumes.values()):
        raise ValueError("volumes must be a dict {text: (image, labels)}, with None for labels where there are none")
    shapes = {as_array(image).shape for image, _ in volumes.values()}
    if len(shapes) != 1:
        raise ValueError(f"a viewer needs at least one volume and all of one shape, got {sorted(shapes)}")
    shape, labels = shapes.pop(), next(iter(volumes.values()))[1]

    def draw(volume, **at):
        image, labels = volumes[volume]
        return three_planes(image, affine, labels, [at[name] for name in names], title=volume, **looks)

    names = [f"axis {k}" for k in range(3)] if affine is None else _axis_names(affine)
    centre = np.array(shape) // 2 if labels is None else middle(labels)
    controls = {"volume": list(volumes)} | {name: (0, side - 1) for name, side in zip(names, shape)}
    start = {name: int(k) for name, k in zip(names, centre)}
    return live(draw, controls, start=start, title=title, alt=alt)


def _axis_names(affine):
    """What each axis of the array runs along, such as "right-left"."""
    from nibabel.orientations import io_orientation

    return [AXES[int(axis)] for axis, _ in io_orientation(as_array(affine))]
