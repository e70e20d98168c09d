"""House style and figures: pure functions from data to a matplotlib Figure, and `show`, which needs an alt text.

Arrays may be numpy, torch (any device, any float type) or nested lists. Grey images are in [-1, 1] unless said
otherwise. Colours are those of Okabe and Ito (told apart with any colour vision); lines differ in dash and bars carry
their number, so that nothing is said by colour alone.

    fig = figures.curves(t, {"signal": alpha, "noise": sigma}, xlabel="t", ylabel="coefficient", title="Cosine")
    figures.show(fig, "Two curves against time: the signal falls from 1 to 0 while the noise rises from 0 to 1.")
"""

import io
from functools import wraps

import numpy as np
from matplotlib import cycler, rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from course_lib.arguments import one_of, positive, whole
from course_lib.viz.arrays import all_shown, as_array, as_images
from course_lib.viz.html import Page, image_tag, prose

__all__ = [
    "PALETTE", "bars", "check_labelled", "close_ups", "curves", "figure_pixels", "histogram", "house_style",
    "image_and_points", "image_grid", "image_rows", "lesion_rows", "loss_curve", "magnified", "picture", "picture_axes",
    "png_bytes", "scatter", "show", "small_png",
]  # fmt: skip

#: Okabe-Ito without its yellow, which vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))
LEVEL_DASHES = (":", "-.", (0, (1, 4)))  # of reference lines
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 110

STYLE = {
    "font.size": 13, "axes.titlesize": 15, "axes.labelsize": 14, "figure.titlesize": 16, "legend.fontsize": 12,
    "xtick.labelsize": 12, "ytick.labelsize": 12, "lines.linewidth": 2.2, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "legend.frameon": False,
    "figure.facecolor": "white", "axes.facecolor": "white", "figure.constrained_layout.use": True,
    "axes.prop_cycle": cycler(color=PALETTE),
}  # fmt: skip


def house_style(draw):
    """Decorator: run `draw` in the course's style and leave the learner's own matplotlib settings alone."""

    @wraps(draw)
    def styled(*args, **kwargs):
        with rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


# --------------------------------------------------------------------------------------------- pictures of images


@house_style
def image_grid(images, titles=None, *, columns=None, title=None, vmin=-1, vmax=1, size=1.3):
    """Images (N, H, W) in a grid, read row by row; `titles` above each.

    `size` is the side of one image in inches. Raises ValueError unless there are as many titles as images.
    """
    images = as_images(images)
    if not len(images):
        raise ValueError("images must be one picture or more, got none")
    columns = min(len(images), 8) if columns is None else columns
    whole(columns=columns)
    positive(size=size)
    rows = -(-len(images) // columns)
    _same_length(titles, len(images), "titles")
    height, width = images.shape[1:3]
    pitch = height * (1.06 if titles is None else 1.06 + 0.26 / size)
    fig, ax = picture_axes(columns * size, rows * size * pitch / height, title)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left, top = column * width * 1.06, row * pitch
        _place(ax, image, left, top, vmin, vmax, "gray")
        if titles is not None:
            ax.text(left + width / 2, top - 0.03 * height, titles[index], ha="center", va="bottom", fontsize=12)
    _frame(ax, columns * width * 1.06, (rows - 1) * pitch + height, top=0 if titles is None else 0.26 / size * height)
    return fig


def close_ups(images, masks, side):
    """Images (..., N, H, W) cut to (..., N, side, side) around the middle of masks (N, H, W), inside the picture.

    Raises ValueError for a mask that is empty, and where ``side`` is larger than the picture.
    """
    images, masks = as_array(images), as_array(masks) > 0
    if masks.ndim != 3 or images.shape[-3:] != masks.shape:
        raise ValueError(f"images (..., N, H, W) and masks (N, H, W) must match, got {images.shape} and {masks.shape}")
    height, width = masks.shape[-2:]
    whole(0, side=side)
    if not 0 < side <= min(height, width):
        raise ValueError(f"side must be 1 to {min(height, width)}, the side of the pictures; got {side}")
    if not masks.any((1, 2)).all():
        raise ValueError(f"masks: the mask of picture {int(np.argmin(masks.any((1, 2))))} is empty, it has no middle")
    cut = []
    for n, mask in enumerate(masks):
        middle = [int(np.round(at.mean())) - side // 2 for at in np.nonzero(mask)]
        top, left = np.clip(middle, 0, (height - side, width - side))
        cut.append(images[..., n, top : top + side, left : left + side])
    return np.stack(cut, -3)


@house_style
def image_rows(
    rows, row_labels=None, column_labels=None, *, title=None, vmin=-1, vmax=1, cmap="gray", size=1.3, outlines=None
):
    """Rows of images: `rows` is a list of (N, H, W) or a dict {label: (N, H, W)}; a row is a thing, a column a time.

    `vmin`, `vmax`, `cmap` may be lists, one entry a row (an error map among pictures); a row in other colours than
    grey has its colour bar at the right. `outlines`: masks (N, H, W)
    whose edge is drawn in each image of their column. Raises ValueError if ragged.
    """
    if isinstance(rows, dict):
        row_labels, rows = list(rows), list(rows.values())
    rows = [as_images(row) for row in rows]
    if not len(rows) or not len(rows[0]):
        raise ValueError("rows must be one row of pictures or more, got none")
    positive(size=size)
    count, (height, width) = len(rows[0]), rows[0].shape[1:3]
    if any(row.shape[:3] != (count, height, width) for row in rows):
        raise ValueError(f"every row needs the same number and size of images, got {[row.shape for row in rows]}")
    _same_length(row_labels, len(rows), "row_labels")
    _same_length(column_labels, count, "column_labels")
    for name, setting in (("vmin", vmin), ("vmax", vmax), ("cmap", cmap)):
        _same_length(setting if isinstance(setting, (list, tuple)) else None, len(rows), name)
    if outlines is not None and as_array(outlines).shape != (count, height, width):
        raise ValueError(f"outlines must be masks {(count, height, width)}, got shape {as_array(outlines).shape}")
    colours_of, margin = _per_row(cmap, rows), 0.4 * any(colours != "gray" for colours in _per_row(cmap, rows))
    fig, ax = picture_axes((count + margin) * size, len(rows) * size, title)
    limits = zip(_per_row(vmin, rows), _per_row(vmax, rows), colours_of, strict=True)
    for index, (row, (low, high, colours)) in enumerate(zip(rows, limits, strict=True)):
        for column, image in enumerate(row):
            _place(ax, image, column * width * 1.06, index * height * 1.06, low, high, colours)
            if outlines is not None:
                _outline(ax, outlines[column], column * width * 1.06, index * height * 1.06)
        if colours != "gray":
            top = (index * 1.06 + 0.08) * height  # shorter than the row, so that the numbers of two bars do not meet
            _colour_bar(ax, (count * width * 1.06, top, 0.08 * width, 0.84 * height))
    _frame(ax, (count * 1.06 + margin) * width, (len(rows) * 1.06 - 0.06) * height)
    _row_labels(ax, row_labels, [(index * 1.06 + 0.5) * height for index in range(len(rows))])
    if column_labels is not None:
        ax.set_xticks([(column * 1.06 + 0.5) * width for column in range(count)], [str(text) for text in column_labels])
    return fig


def lesion_rows(pictures, errors, masks, *, side=48, **options):
    """Close-ups of pictures {label: (N, H, W)} around masks (N, H, W), outlined two pixels away so that the line covers
    nothing of a tiny one; below, maps of errors {label: (N, H, W)} from 0 (black) to 0.8. ``options`` are those
    of :func:`image_rows`."""
    from scipy.ndimage import binary_dilation

    around = np.stack([binary_dilation(mask, iterations=2) for mask in as_array(masks) > 0])
    rows = {label: close_ups(row, masks, side) for label, row in (pictures | errors).items()}
    grey, hot = len(pictures), len(errors)
    return image_rows(
        rows,
        vmin=[-1] * grey + [0] * hot,
        vmax=[1] * grey + [0.8] * hot,
        cmap=["gray"] * grey + ["magma"] * hot,
        outlines=close_ups(around, masks, side),
        **options,
    )


@house_style
def magnified(pictures, mask, *, side=24, title=None, size=1.8):
    """Pictures {label: (H, W)} of one lesion, of one size, with a frame of ``side`` pixels around it; below each what
    is in the frame, enlarged to the picture's size, the lesion's ``mask`` (H, W) outlined two pixels away.

    Raises ValueError unless the side of the pictures is a multiple of ``side``, and as :func:`close_ups`.
    """
    from scipy.ndimage import binary_dilation

    whole_ones, mask = np.stack([as_array(picture) for picture in pictures.values()]), as_array(mask) > 0
    height, width = mask.shape
    if height % side or width % side or height != width:
        raise ValueError(f"pictures must be square, and their sides a multiple of side = {side}; got {mask.shape}")
    places = np.arange(height * width).reshape(1, height, width)
    inside = np.isin(places, close_ups(places, mask[None], side))[0]  # the frame that close_ups cuts out
    cut = close_ups(np.stack([*whole_ones, binary_dilation(mask, iterations=2)])[:, None], mask[None], side)[:, 0]
    *details, ring = cut.repeat(height // side, -2).repeat(width // side, -1)
    fig = image_rows([whole_ones, details], ["slice", "lesion"], list(pictures), title=title, size=size)
    for column in range(len(pictures)):
        _outline(fig.axes[0], inside, column * width * 1.06, 0)
        _outline(fig.axes[0], ring, column * width * 1.06, height * 1.06)
    return fig


def picture_axes(width, height, title):
    """One bare Axes for all images: a grid of sixty-four Axes would take seconds to lay out."""
    fig = Figure(figsize=(max(width, 3.2) + 0.3, height + (0.9 if title else 0.4)))  # room; the margin is cut off later
    ax = fig.add_subplot()
    ax.set_aspect("equal")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    if title:
        ax.set_title(title, pad=10)
    return fig, ax


def _place(ax, image, left, top, vmin, vmax, cmap):
    height, width = image.shape[:2]
    image = all_shown(image)
    if image.dtype.kind in "iu" and image.size and image.max() > 1 >= vmax:
        raise ValueError(
            f"images must lie in [{vmin:g}, {vmax:g}]; whole numbers up to {image.max()} want to_tensor first, or vmax"
        )
    shown = image if image.ndim == 2 else np.clip((image - vmin) / (vmax - vmin), 0, 1)
    extent = (left, left + width, top + height, top)
    ax.imshow(shown, cmap=cmap, vmin=vmin, vmax=vmax, extent=extent, interpolation="nearest", aspect="equal")


def _outline(ax, mask, left, top):
    mask = as_array(mask).astype(float)
    if mask.min() < mask.max():
        rows, columns = (np.arange(n) + 0.5 for n in mask.shape)
        ax.contour(left + columns, top + rows, mask, levels=[0.5], colors=PALETTE[4], linewidths=1.0)


def _colour_bar(ax, place):
    """The colours of the last image of an axes, with their numbers, at a place (left, top, width, height) beside it."""
    beside = ax.inset_axes(place, transform=ax.transData)
    ax.figure.colorbar(ax.images[-1], cax=beside)
    beside.grid(False)


def _frame(ax, width, height, top=0):
    ax.set(xlim=(0, width), ylim=(height, -top))


def _row_labels(ax, labels, positions):
    if labels is not None:
        ax.set_yticks(positions, [str(label) for label in labels])


def _same_length(texts, count, name):
    if texts is not None and len(texts) != count:
        raise ValueError(f"{name}: {len(texts)} texts for {count} places")


def _named_values(**values):
    """Raises ValueError unless each is a dict {label: values} with at least one entry."""
    for name, value in values.items():
        if not isinstance(value, dict) or not value:
            raise ValueError(
                f"{name} must be a dict {{label: values}} of one entry or more, got a {type(value).__name__}"
            )


def _known(what, those, **labels):
    """Raises ValueError where labels (None for none) name what is not there."""
    for name, given in labels.items():
        if unknown := set(given or ()) - set(those):
            raise ValueError(f"{name}: {sorted(unknown)} are not among the {what} {list(those)}")


def _drawable(scale, **values):
    """Raises ValueError where an array has no value that can be drawn on this scale."""
    for name, value in values.items():
        value = as_array(value)
        if value.dtype.kind not in "biuf" or not np.isfinite(value).any():
            raise ValueError(f"{name} must hold numbers, some of them finite; got {value.dtype} of shape {value.shape}")
        if scale == "log" and (value < 0).any() and not (value > 0).any():
            raise ValueError(f"{name} is negative, and a logarithmic scale shows numbers above 0 only: take 'linear'")


def _per_row(setting, rows):
    return list(setting) if isinstance(setting, (list, tuple)) else [setting] * len(rows)


# ------------------------------------------------------------------------------------------------------------- curves


def _plot_axes(xlabel, ylabel, title, size=(7.2, 4.2)):
    fig = Figure(figsize=size)
    ax = fig.add_subplot()
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return fig, ax


@house_style
def curves(
    x, lines, *, xlabel, ylabel, title, xscale="linear", yscale="linear", bands=None, levels=None, marks=None,
    markers=False, points=(), legend="inside", ylimits=None,
):  # fmt: skip
    """Lines {label: y (N,)} against x (N,), or against {label: x} where they differ.

    `bands` {label: (low, high)} shades around a line of that label; `levels` {label: y} and `marks` {label: x} draw
    horizontal and vertical reference lines; `markers=True` shows the points; the labels in `points` are drawn as points
    alone, in front of the lines; the names stand "inside" where they cover no line there, else, and with
    `legend="below"`, under the axes; `ylimits` (low, high) is the part of the second axis that is shown. Raises
    ValueError if one of the points is not a label of `lines`, and for another `legend`.
    """
    one_of(("inside", "below"), legend=legend)
    _named_values(lines=lines)
    _known("lines", lines, points=points, bands=bands, x=x if isinstance(x, dict) else ())
    _named_values(**{name: at for name, at in (("levels", levels), ("marks", marks)) if at})
    one_of(("linear", "log", "symlog", "logit"), xscale=xscale, yscale=yscale)
    _spans(ylimits=ylimits)
    fig, ax = _plot_axes(xlabel, ylabel, title)
    for index, (label, y) in enumerate(lines.items()):
        colour = PALETTE[index % len(PALETTE)]
        at = as_array(x[label] if isinstance(x, dict) else x)
        if at.shape != as_array(y).shape or at.ndim != 1:
            raise ValueError(f"the line {label!r} needs a y for each x; got {as_array(y).shape} and {at.shape}")
        _drawable(xscale, x=at)
        _drawable(yscale, **{f"the line {label!r}": y})
        marker = MARKERS[index % len(MARKERS)] if markers or label in points else None
        style = {"linestyle": "", "zorder": 3} if label in points else {"linestyle": DASHES[index % len(DASHES)]}
        ax.plot(at, as_array(y), color=colour, marker=marker, label=label, **style)
        if bands and label in bands:
            low, high = bands[label]
            ax.fill_between(at, as_array(low), as_array(high), color=colour, alpha=0.18, linewidth=0)
    for index, (label, level) in enumerate((levels or {}).items()):
        ax.axhline(float(level), color="#555555", linewidth=1.4, linestyle=LEVEL_DASHES[index % 3], label=label)
    for label, mark in (marks or {}).items():
        ax.axvline(float(mark), color="#555555", linewidth=1.4, linestyle="--", label=label)
    ax.set(xscale=xscale, yscale=yscale, **({"ylim": ylimits} if ylimits else {}))
    for axis in (ax.xaxis, ax.yaxis):
        _plain_log_ticks(axis)
    if len(ax.get_lines()) > 1:
        _name_lines(fig, ax, legend)
    return fig


def _name_lines(fig, ax, legend):
    """The names of the lines: "inside" the axes, if there they cover none of them, or else below."""
    if legend == "inside":
        names = ax.legend()
        fig.draw_without_rendering()
        if not _covers(names.get_window_extent().padded(-4), ax):
            return
        names.remove()
    count, (width, height) = len(ax.get_lines()), fig.get_size_inches()
    for ncols in (2, 1):
        fig.set_size_inches(width, height + 0.27 * -(-count // ncols))
        names = fig.legend(loc="outside lower center", ncols=ncols)
        fig.draw_without_rendering()
        if names.get_window_extent().width <= fig.bbox.width or ncols == 1:
            return
        names.remove()


def _covers(box, ax):
    """Whether a line passes through a box, or a point where points alone are drawn, or the shade of a band."""
    for line in ax.get_lines():
        path = line.get_transform().transform_path(line.get_path())
        joined = line.get_linestyle() not in ("None", "", " ")
        if path.intersects_bbox(box, filled=False) if joined else box.count_contains(path.vertices):
            return True
    shades = (path.transformed(shade.get_transform()) for shade in ax.collections for path in shade.get_paths())
    return any(path.intersects_bbox(box) for path in shades)


def _plain_log_ticks(axis):
    """On a logarithmic axis of under three decades: 1, 2, 5, 10, 20, ... in place of powers of ten that overlap; of
    under a decade and a half 3 and 7 as well, so that there is a number near either end."""
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log" and high < 1000 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 30 * low else (1, 2, 3, 5, 7)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


@house_style
def loss_curve(losses, *, title="Training loss", ylabel="loss"):
    """Losses (N,) of each training step, on a logarithmic scale: the noisy values in pale, their running mean over
    about N / 20 steps in front."""
    losses = as_array(losses).astype(float)
    _drawable("log", losses=losses)
    if losses.ndim != 1:
        raise ValueError(f"losses must be (N,), one for each step; got shape {losses.shape}")
    steps = np.arange(1, len(losses) + 1)
    fig, ax = _plot_axes("training step", ylabel, title)
    ax.plot(steps, losses, color=PALETTE[5], alpha=0.45, linewidth=0.8, label="each step")
    ax.plot(steps, _running_mean(losses, max(1, round(0.05 * len(losses)))), color=PALETTE[0], label="running mean")
    ax.set_yscale("log")
    ax.legend()
    return fig


def _running_mean(values, window):
    """Mean over the finite ones of the last `window` values, over fewer at the start, so that the curve begins at the
    first step; NaN where there is none."""
    finite = np.isfinite(values)
    total, count = (np.cumsum(np.insert(part, 0, 0.0)) for part in (np.where(finite, values, 0.0), finite))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    many = count[end] - count[start]
    return np.where(many > 0, (total[end] - total[start]) / np.maximum(many, 1), np.nan)


@house_style
def bars(values, *, xlabel, title, ylabel="method", errors=None, marks=None, form="{:.3g}", xscale="linear"):
    """Horizontal bars {label: number}, each with its number written out: behind its bar, or where `marks` or `errors`
    would cross it, in a column on the right.

    `marks` {label: x} draws vertical reference lines, such as a floor or a level that is aimed at, `errors` {label:
    half width} adds error bars, `ylabel` names what the bars compare. `xscale="log"` is for numbers above 0 that differ
    by factors of ten.
    """
    _named_values(values=values, **{name: at for name, at in (("errors", errors), ("marks", marks)) if at})
    _known("bars", values, errors=errors)
    for label, value in values.items():
        _drawable(xscale, **{f"the bar {label!r}": value})
        if as_array(value).size != 1:
            raise ValueError(f"the bar {label!r} must be one number, got shape {as_array(value).shape}")
    fig, ax = _plot_axes(xlabel, ylabel, title, size=(7.2, 1.5 + 0.46 * len(values)))
    numbers = [float(value) for value in values.values()]
    half = [float((errors or {}).get(label, 0)) for label in values]
    ax.barh(list(values), numbers, xerr=half if errors else None, color=PALETTE[0], height=0.62, capsize=4)
    ax.set_xscale(xscale)
    column = errors or marks
    for row, number in enumerate(numbers):
        at, coords = ((1.0, row), ax.get_yaxis_transform()) if column else ((number, row), "data")
        ax.annotate(form.format(number), at, xycoords=coords, xytext=(5, 0), textcoords="offset points", va="center")
    for index, (label, mark) in enumerate((marks or {}).items(), 1):
        text = f"{label} ({form.format(float(mark))})"
        ax.axvline(float(mark), color=PALETTE[1], linestyle=DASHES[index % len(DASHES)], label=text)
    if marks:
        fig.legend(loc="outside lower right")
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.margins(x=0.05 if column else 0.14)
    ax.set_title("")
    fig.suptitle(title)  # over the whole figure: long labels leave the axes too narrow for it
    return fig


@house_style
def histogram(
    samples, density=None, *, xlabel, title, ylabel="density", bins=60, span=None, density_label="exact density",
    marks=None,
):  # fmt: skip
    """Histogram of samples (N,) or {label: (N,)}, area 1, against `density`: a function of x or a pair (x, p(x)).

    `marks` {label: x} draws vertical reference lines.
    """
    groups = samples if isinstance(samples, dict) else {"samples": samples}
    _named_values(samples=groups)
    groups = {label: as_array(values).ravel() for label, values in groups.items()}
    for label, values in groups.items():
        _drawable("linear", **{label: values})
        if not np.isfinite(values).all():
            raise ValueError(f"{int((~np.isfinite(values)).sum())} of {label!r} are NaN or infinite: leave them out")
    whole(bins=bins)
    if span is not None and not span[0] < span[1]:
        raise ValueError(f"span must be (low, high) with low < high, got {span!r}")
    span = span or (min(v.min() for v in groups.values()), max(v.max() for v in groups.values()))
    edges = np.linspace(*span, bins + 1)
    fig, ax = _plot_axes(xlabel, ylabel, title)
    for index, (label, values) in enumerate(groups.items()):
        style = {"histtype": "stepfilled", "alpha": 0.35} if len(groups) == 1 else {"histtype": "step", "linewidth": 2}
        line = {"color": PALETTE[index % len(PALETTE)], "linestyle": DASHES[index % len(DASHES)]}
        ax.hist(values, edges, density=True, label=label, **line, **style)
    if density is not None:
        at = np.linspace(*span, 400) if callable(density) else as_array(density[0])
        ax.plot(at, as_array(density(at) if callable(density) else density[1]), color="#000000", label=density_label)
    for index, (label, mark) in enumerate((marks or {}).items()):
        ax.axvline(float(mark), color="#555555", linewidth=1.4, linestyle=LEVEL_DASHES[index % 3], label=label)
    ax.legend()
    return fig


@house_style
def scatter(
    panels, *, xlabel, ylabel, title, limits=None, ylimits=None, paths=None, ends=False, size=3.0, columns=None,
    contours=None, levels=None, arrows=None,
):  # fmt: skip
    """Points {panel title: (N, 2)} side by side on the same axes.

    `paths` {panel title: (T, K, 2)} draws K trajectories, `ends=True` a black dot at the end of each; `limits` (low,
    high) is for both axes and covers all points when left out; `ylimits` (low, high) is for the second axis where it
    differs. `contours`, a function of points (N, 2) such as a log-density, is drawn at `levels` (rising) below, and so
    are `arrows`, a pair (places (M, 2), directions (M, 2)), all of one length, in every panel.
    """
    _named_values(panels=panels)
    points = {name: as_array(values) for name, values in panels.items()}
    for name, values in points.items():
        if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all():
            raise ValueError(f"the panel {name!r} must be finite points (N, 2), got shape {values.shape}")
    _known("panels", panels, paths=paths)
    _spans(limits=limits, ylimits=ylimits)
    low, high = limits or _limits(list(points.values()))
    bottom, top = ylimits or (low, high)
    columns = min(len(points), 4) if columns is None else columns
    whole(columns=columns)
    rows = -(-len(points) // columns)
    fig = Figure(figsize=(columns * size + 0.6, rows * size * (top - bottom) / (high - low) + 1.1))
    fig.suptitle(title)
    across, up = (np.linspace(*span, 120, dtype=np.float32) for span in ((low, high), (bottom, top)))
    if contours:
        field = as_array(contours(np.stack(np.meshgrid(across, up), -1).reshape(-1, 2))).reshape(120, 120)
    for index, (name, values) in enumerate(points.items()):
        ax = fig.add_subplot(rows, columns, index + 1)
        if contours:
            ax.contour(across, up, field, levels=levels, colors="#555555", linewidths=0.8)
        if arrows:
            places, directions = (as_array(pairs) for pairs in arrows)
            directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
            ax.quiver(*places.T, *directions.T, color="#999999", width=0.004, scale=24, zorder=0)
        for path in np.swapaxes(as_array(paths[name]), 0, 1) if paths and name in paths else ():
            ax.plot(*path.T, color=PALETTE[1], linewidth=0.9, alpha=0.7)
            if ends:
                ax.scatter(*path[-1], s=22, color="#000000", linewidths=0, zorder=3)
        ax.scatter(*values.T, s=5, alpha=0.5, color=PALETTE[0], linewidths=0)
        ax.set(title=name, xlabel=xlabel, ylabel=ylabel, xlim=(low, high), ylim=(bottom, top), aspect="equal")
        ax.label_outer()
        if not ax.get_subplotspec().is_last_row():
            ax.tick_params(axis="x", length=0)  # the marks would run into the title below
    return fig


@house_style
def image_and_points(image, groups, *, titles, xlabel, ylabel, limits, vmin=-1, vmax=1):
    """An image (H, W) on the left, groups of points {label: (N, 2)} on the right, told apart by colour and marker.

    `titles`: one above each; `limits` (low, high) is for both axes of the points.
    """
    _named_values(groups=groups)
    _same_length(titles, 2, "titles")
    _spans(limits=limits)
    fig = Figure(figsize=(7.4, 3.6))
    left, right = fig.subplots(1, 2)
    left.imshow(all_shown(as_array(image)), cmap="gray", vmin=vmin, vmax=vmax)
    left.set(title=titles[0], xticks=[], yticks=[])
    for index, (label, points) in enumerate(groups.items()):
        style = {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}
        right.plot(*as_array(points).T, linestyle="", ms=4, alpha=0.8, label=label, **style)
    right.set(title=titles[1], xlabel=xlabel, ylabel=ylabel, xlim=limits, ylim=limits)
    right.legend(fontsize=9, loc="upper right", markerscale=1.5, frameon=True, framealpha=1)
    return fig


def _spans(**values):
    """Raises ValueError where a span that is given is not (low, high) with low < high."""
    for name, span in values.items():
        if span is not None and not (np.shape(span) == (2,) and span[0] < span[1]):
            raise ValueError(f"{name} must be (low, high) with low < high, got {span!r}")


def _limits(arrays):
    low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


# --------------------------------------------------------------------------------------------------------------- show


def show(fig, alt, *, dpi=DPI):
    """Display `fig` with its alt text. Raises ValueError without an alt text, a title, or labels on axes with a scale.

    The picture goes out as HTML, `<img alt="...">` over an embedded PNG, because JupyterLab (4.6) and nbconvert (7.17,
    template lab) drop the alt text of an image/png output whatever its metadata says. HTML with a data: address keeps
    it in JupyterLab (in untrusted notebooks too: the sanitiser lets img, src and alt pass), Colab, nbconvert, myst-nb.
    """
    from IPython.display import display

    display(picture(fig, alt, dpi=dpi))


def picture(fig, alt, *, dpi=DPI):
    """What `show` displays, as an object: Figure and alt text -> Page. The lines of an alt text are joined. The
    stored output says how many images are in the figure, {"pictures": number}."""
    if not isinstance(alt, str) or len(alt.strip()) < 10:
        raise ValueError("alt: say in a sentence what the figure shows, for those who cannot see it")
    if not isinstance(fig, Figure):
        raise ValueError(f"fig must be a figure, such as figures.image_grid gives, got a {type(fig).__name__}")
    check_labelled(fig)
    alt = prose(alt)
    content = png_bytes(fig, dpi=dpi)
    width, height = Image.open(io.BytesIO(content)).size
    counted = {"pictures": sum(len(ax.images) for ax in fig.axes)}
    return Page(image_tag(content, "image/png", alt, width, height), f"[figure: {alt}]", counted)


def check_labelled(fig):
    """Raise ValueError unless the figure has a title and every axes with a scale names its axes."""
    axes = [ax for ax in fig.axes if not hasattr(ax, "_colorbar")]
    if not fig.get_suptitle() and not any(ax.get_title() for ax in axes):
        raise ValueError("the figure has no title: pass title=..., or fig.suptitle(...)")
    for ax in axes:
        if not ax.axison or ax.images:
            continue
        missing = [name for name, axis in (("x", ax.xaxis), ("y", ax.yaxis)) if not _named(axis)]
        if missing:
            raise ValueError(f"axes {ax.get_title()!r} have no {' and '.join(missing)} label")


def _named(axis):
    """An inner panel that hides its numbers (`label_outer`) leaves the name to the outer one."""
    shown = axis.get_tick_params()
    return bool(axis.get_label_text()) or not (shown.get("labelleft", True) and shown.get("labelbottom", True))


def figure_pixels(fig, *, dpi=DPI):
    """Figure -> its drawing as (H, W, 3) uint8."""
    with rc_context(STYLE):
        canvas = FigureCanvasAgg(fig)
        fig.set_dpi(dpi)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png_bytes(fig, *, dpi=DPI):
    """Figure -> PNG as of :func:`small_png`, cut to what is drawn."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        fig.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.06)  # titles may pass the sheet
    return small_png(np.asarray(Image.open(buffer).convert("RGB")))


def small_png(pixels):
    """Pixels (H, W) or (H, W, 3), uint8 -> small PNG: grey ones as 8-bit grey (lossless), others on 256 colours."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    image = Image.fromarray(pixels) if pixels.ndim == 2 else _with_palette(Image.fromarray(pixels))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _with_palette(image):
    return image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
