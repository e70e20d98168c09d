"""Figures: labelled, light, and never shown without words for those who cannot see them."""

import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import rcParams
from PIL import Image

from course_lib.viz import figures
from course_lib.viz.arrays import as_array, as_images
from course_lib.viz.html import Page, rich

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(-1, 1, (6, 1, 16, 16))
X = np.linspace(0, 1, 50)
ALT = "A sentence for those who cannot see it."

DRAWN = {
    "image_grid": lambda: figures.image_grid(IMAGES, list("abcdef"), columns=3, title="Six"),
    "image_rows": lambda: figures.image_rows({"x": IMAGES, "error": IMAGES}, title="Rows", cmap=["gray", "magma"]),
    "curves": lambda: figures.curves(
        X, {"a": X, "b": X**2}, xlabel="t", ylabel="y", title="Two", bands={"a": (X, X + 1)}
    ),
    "loss_curve": lambda: figures.loss_curve(np.exp(-X)),
    "bars": lambda: figures.bars(
        {"a": 1, "b": 2.5}, xlabel="distance", title="Quality", marks={"floor": 0.5}, errors={"a": 0.1}
    ),
    "histogram": lambda: figures.histogram(RANDOM.normal(size=999), np.exp, xlabel="x", title="Samples"),
    "scatter": lambda: figures.scatter(
        {"a": X.reshape(-1, 2), "b": X.reshape(-1, 2)}, xlabel="x", ylabel="y", title="Points"
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_each_figure_is_labelled_small_and_shown_with_its_alt_text(name):
    page = figures.picture(DRAWN[name](), ALT)
    assert f'alt="{ALT}"' in page.markup
    assert page.text == f"[figure: {ALT}]"
    assert len(page.markup) < 80_000


def test_the_stored_output_says_how_many_pictures_it_has():
    rows = figures.image_rows({"seen": IMAGES[:3], "error": IMAGES[3:]}, cmap=["gray", "magma"], title="Two")
    for fig, number in ((rows, 6), (figures.image_grid(IMAGES[:5], title="Five"), 5), (DRAWN["curves"](), 0)):
        assert figures.picture(fig, ALT)._repr_mimebundle_()[1] == {"pictures": number}


def test_a_histogram_marks_values():
    fig = figures.histogram(RANDOM.normal(size=99), xlabel="x", title="Samples", marks={"mean": 0, "three sigma": 3})
    assert [(line.get_label(), line.get_xdata()[0]) for line in fig.axes[0].get_lines()] == [
        ("mean", 0),
        ("three sigma", 3),
    ]


def test_an_alt_text_may_stand_on_several_lines():
    page = figures.picture(
        DRAWN["curves"](),
        """Two lines rise
        from 0 to 1.""",
    )
    assert page.text == "[figure: Two lines rise from 0 to 1.]" and 'alt="Two lines rise from 0 to 1."' in page.markup


def test_a_figure_needs_alt_text_title_and_labels():
    fig = DRAWN["curves"]()
    for alt in ("", "short", None):
        with pytest.raises(ValueError, match="alt"):
            figures.picture(fig, alt)
    fig.axes[0].set_xlabel("")
    with pytest.raises(ValueError, match="no x label"):
        figures.picture(fig, ALT)
    with pytest.raises(ValueError, match="no title"):
        figures.picture(figures.image_grid(IMAGES), ALT)


def test_curves_draw_the_lines_named_in_points_as_points_alone():
    labels = {"xlabel": "x", "ylabel": "y", "title": "t"}
    line, dots = figures.curves([0, 1], {"a": [0, 1], "b": [1, 0]}, points=["b"], **labels).axes[0].get_lines()
    assert (line.get_linestyle(), dots.get_linestyle()) == ("-", "None")
    assert line.get_marker() == "None" and dots.get_marker() in figures.MARKERS
    with pytest.raises(ValueError, match="not among the lines"):
        figures.curves([0, 1], {"a": [0, 1]}, points=["c"], **labels)


def test_scatter_takes_limits_of_its_own_for_the_second_axis():
    spans = {"limits": (0, 4), "ylimits": (1, 2), "xlabel": "x", "ylabel": "y", "title": "t"}
    fig = figures.scatter({"a": [[1, 1.5]]}, contours=lambda p: p[:, 1], levels=[1.25, 1.75], **spans)
    assert fig.axes[0].get_xlim() == (0, 4) and fig.axes[0].get_ylim() == (1, 2)
    heights = [path.vertices[:, 1] for path in fig.axes[0].collections[0].get_paths()]
    np.testing.assert_allclose([h.mean() for h in heights], [1.25, 1.75], atol=1e-6)
    assert (
        fig.get_size_inches()[1] < figures.scatter({"a": [[1, 1.5]]}, **spans | {"ylimits": None}).get_size_inches()[1]
    )


def test_scatter_has_no_tick_marks_between_its_rows():
    """They would run into the titles of the row below, like accents on its letters."""
    labels = {"xlabel": "x", "ylabel": "y", "title": "t"}
    fig = figures.scatter({name: [[0, 0], [1, 1]] for name in "abcdef"}, columns=3, **labels)
    figures.png_bytes(fig)
    lengths = [ax.xaxis.get_major_ticks()[0].tick1line.get_markersize() for ax in fig.axes]
    assert lengths[:3] == [0, 0, 0] and min(lengths[3:]) > 0


def test_scatter_marks_the_ends_of_paths():
    labels = {"xlabel": "x", "ylabel": "y", "title": "t", "paths": {"a": [[[0, 0], [1, 1]], [[2, 0], [3, 1]]]}}
    marked = figures.scatter({"a": [[2, 0]]}, ends=True, **labels).axes[0].collections
    dots = sorted(tuple(dot.get_offsets()[0]) for dot in marked if dot.get_sizes()[0] > 10)
    assert dots == [(2, 0), (3, 1)]
    assert len(figures.scatter({"a": [[2, 0]]}, **labels).axes[0].collections) == 1


def test_scatter_draws_arrows_of_one_length():
    arrows = ([[0, 0], [1, 1]], [[3, 4], [0, 0.1]])
    (drawn,) = (
        part
        for part in figures.scatter({"a": [[2, 0]]}, xlabel="x", ylabel="y", title="t", arrows=arrows)
        .axes[0]
        .collections
        if hasattr(part, "U")
    )
    np.testing.assert_allclose([drawn.U, drawn.V], [[0.6, 0], [0.8, 1]])


def test_curves_show_the_part_of_the_axis_that_is_asked_for():
    labels = {"xlabel": "x", "ylabel": "y", "title": "t"}
    assert figures.curves([0, 1], {"a": [0, 9]}, ylimits=(-1, 2), **labels).axes[0].get_ylim() == (-1, 2)
    with pytest.raises(ValueError, match="low < high"):
        figures.curves([0, 1], {"a": [0, 9]}, ylimits=(2, -1), **labels)


def test_an_image_stands_beside_points_of_several_groups():
    groups = {"a": [[0, 1], [2, 3]], "b": [[1, 1]]}
    fig = figures.image_and_points(
        [[0, 1], [1, 0]], groups, titles=("left", "right"), xlabel="x", ylabel="y", limits=(-4, 4)
    )
    left, right = fig.axes
    assert left.get_title() == "left" and len(left.images) == 1
    assert [line.get_label() for line in right.get_lines()] == ["a", "b"] and right.get_xlim() == (-4, 4)
    assert len({line.get_marker() for line in right.get_lines()}) == 2


def test_alt_text_cannot_break_out_of_its_attribute():
    page = figures.picture(DRAWN["bars"](), 'The "best" <b>bar</b> is short.')
    assert 'alt="The &quot;best&quot; &lt;b&gt;bar&lt;/b&gt; is short."' in page.markup


def test_the_learner_s_own_style_is_left_alone():
    before = dict(rcParams)
    figures.png_bytes(DRAWN["curves"]())
    assert dict(rcParams) == before


def test_grey_figures_are_stored_without_loss():
    ramp = np.linspace(-1, 1, 256).reshape(1, 16, 16)
    fig = figures.image_grid(ramp, size=3)
    png = Image.open(io.BytesIO(figures.png_bytes(fig)))
    assert png.mode == "L"
    kept, sheet = np.asarray(png), figures.figure_pixels(fig)[..., 0]
    assert (np.unique(kept) == np.unique(sheet)).all() and len(np.unique(kept)) > 200
    assert abs((kept < 255).sum() / (sheet < 255).sum() - 1) < 0.01  # only white was cut off


def test_a_title_wider_than_the_picture_is_kept_whole():
    fig = figures.image_rows([IMAGES[:2]], title="A title that is a good deal wider than two small pictures", size=0.5)
    pixels = np.asarray(Image.open(io.BytesIO(figures.png_bytes(fig))).convert("L"))
    border = np.concatenate([pixels[[0, -1]].ravel(), pixels[:, [0, -1]].ravel()])
    assert border.min() == 255 and (pixels[:40] < 128).any(0).sum() > 200


def test_short_logarithmic_axes_count_1_2_5():
    fig = figures.curves([5, 10, 80], {"a": [1, 2, 3]}, xlabel="steps", ylabel="y", title="t", xscale="log")
    figures.png_bytes(fig)
    shown = [text.get_text() for text in fig.axes[0].get_xticklabels()]
    assert {"5", "10", "20", "50"} <= set(shown)
    assert not any(text.get_text() for text in fig.axes[0].get_xticklabels(minor=True))


def test_arrays_of_every_kind():
    torch = pytest.importorskip("torch")
    tensor = torch.ones(2, 1, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    assert as_images(tensor).shape == (2, 4, 4)
    assert as_array([torch.ones(3), torch.ones(3)]).shape == (2, 3)
    with pytest.raises(ValueError, match="got shape"):
        as_images(np.ones((2, 3, 4, 5)))


def test_texts_must_fit_their_places():
    with pytest.raises(ValueError, match="titles: 2 texts for 6 places"):
        figures.image_grid(IMAGES, ["a", "b"])
    with pytest.raises(ValueError, match="same number and size"):
        figures.image_rows([IMAGES, IMAGES[:2]])


def test_a_page_needs_words_and_escapes_them():
    with pytest.raises(ValueError, match="plain-text twin"):
        Page("<p>", " ")
    assert rich("a < b and `c < d`") == '<p style="margin:0.3em 0">a &lt; b and <code>c &lt; d</code></p>'
    assert rich("a **bold word** of `x**2 + y**2`, 2 ** 3").endswith(
        "a <b>bold word</b> of <code>x**2 + y**2</code>, 2 ** 3</p>"
    )
    italic = rich("a copier *is* right, 2 * 3 * 4, $A^*y$ and $B^* y$, `f(*a, *b)`")
    assert "a copier <i>is</i> right, 2 * 3 * 4, $A^*y$ and $B^* y$, <code>f(*a, *b)</code>" in italic
    fenced = rich("Mend it:\n\n```python\ndef f(x):\n    return x < 1\n```")
    assert "<p" in fenced and ">def f(x):\n    return x &lt; 1</pre>" in fenced and "`" not in fenced


def test_drawing_imports_no_torch():
    code = "import sys; from course_lib.viz import figures, widgets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_close_up_holds_the_mask_and_stays_inside_the_picture():
    images, masks = np.arange(3 * 20 * 30).reshape(3, 20, 30), np.zeros((3, 20, 30))
    masks[0, 0, 0] = masks[1, 10:12, 14:16] = masks[2, 19, 29] = 1
    cut = figures.close_ups(images, masks, 8)
    for found, image, (top, left) in zip(cut, images, ((0, 0), (6, 10), (12, 22))):
        np.testing.assert_array_equal(found, image[top : top + 8, left : left + 8])
    assert figures.close_ups(images[None].repeat(2, 0), masks, 8).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="picture 1 is empty"):
        figures.close_ups(images, masks * [[[1]], [[0]], [[1]]], 8)
    with pytest.raises(ValueError, match="side must be 1 to 20"):
        figures.close_ups(images, masks, 21)


def test_an_outline_runs_around_the_mask_of_its_column():
    masks = np.zeros((4, 8, 8))
    masks[1, 2:5, 3:6] = 1
    fig = figures.image_rows({"a": IMAGES[:4, 0, :8, :8], "b": IMAGES[:4, 0, :8, :8]}, outlines=masks, title="Outlined")
    for index, path in enumerate(contour.get_paths()[0] for contour in fig.axes[0].collections):
        left, top = 8 * 1.06, index * 8 * 1.06
        (x0, y0), (x1, y1) = path.vertices.min(0), path.vertices.max(0)
        np.testing.assert_allclose([x0, y0, x1, y1], [left + 3, top + 2, left + 6, top + 5], atol=1e-6)
    assert len(fig.axes[0].collections) == 2


def test_rows_around_lesions_are_close_ups_outlined_with_errors_below():
    images, masks = RANDOM.uniform(-1, 1, (2, 3, 20, 20)), np.zeros((3, 20, 20))
    masks[:, 4:7, 9:12] = 1
    fig = figures.lesion_rows({"a": images[0]}, {"error": images[1] ** 2}, masks, side=8, title="Close", size=1.0)
    ax = fig.axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), images[0, 0, 1:9, 6:14])
    assert [(im.cmap.name, im.norm.vmin, im.norm.vmax) for im in ax.images[::3]] == [("gray", -1, 1), ("magma", 0, 0.8)]
    assert len(ax.collections) == 6 and [t.get_text() for t in ax.get_yticklabels()] == ["a", "error"]


def test_a_row_in_colour_has_its_bar_beside_it():
    fig = figures.image_rows(
        {"x": IMAGES[:2], "error": IMAGES[:2]}, title="Rows", cmap=["gray", "magma"], vmin=[-1, 0], vmax=[1, 0.8]
    )
    fig.draw_without_rendering()
    (beside,) = fig.axes[0].child_axes
    row, bar = fig.axes[0].images[-1].get_window_extent(), beside.get_window_extent()
    assert beside.get_ylim() == (0, 0.8)
    assert bar.x0 >= row.x1
    np.testing.assert_allclose(bar.y0 + bar.y1, row.y0 + row.y1, atol=1)  # as high as the row, but for a margin
    np.testing.assert_allclose(bar.height, 0.84 * row.height, atol=1)
    grey = figures.image_rows({"x": IMAGES[:2]}, title="Rows")
    assert not grey.axes[0].child_axes


def test_numbers_of_two_bars_do_not_meet():
    rows = {"one": IMAGES[:2], "two": IMAGES[:2]}
    fig = figures.image_rows(rows, title="Rows", cmap=["magma", "magma"], vmin=0, vmax=0.6)
    fig.draw_without_rendering()
    upper, lower = ([text.get_window_extent() for text in ax.get_yticklabels()] for ax in fig.axes[0].child_axes)
    assert min(box.y0 for box in upper) > max(box.y1 for box in lower)


def test_a_lesion_is_magnified_below_its_slice():
    truth, scan = RANDOM.uniform(-1, 1, (2, 24, 24))
    mask = np.zeros((24, 24))
    mask[10:12, 15:17] = 1
    fig = figures.magnified({"truth": truth, "scan": scan}, mask, side=6, title="Close", size=1.0)
    ax = fig.axes[0]
    shown = [image.get_array() for image in ax.images]
    for whole, detail, picture in ((shown[0], shown[2], truth), (shown[1], shown[3], scan)):
        np.testing.assert_allclose(whole, picture)
        np.testing.assert_allclose(detail[::4, ::4], picture[7:13, 13:19])  # four times as large, about the middle
        np.testing.assert_allclose(detail[3::4, 3::4], picture[7:13, 13:19])
    frame = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([frame.min(0), frame.max(0)], [[13, 7], [19, 13]], atol=1e-6)
    with pytest.raises(ValueError, match="multiple of side = 7"):
        figures.magnified({"truth": truth}, mask, side=7)


def test_a_legend_that_would_cover_a_line_goes_below():
    """Matplotlib takes the best place there is, and where lines are everywhere that one covers some."""
    free = figures.curves(X, {"a": X, "b": X / 2}, xlabel="x", ylabel="y", title="Room for names")
    assert free.axes[0].get_legend() and not free.legends
    everywhere = {f"a long name of line {k}": np.sin(20 * X + k) for k in range(5)}
    full = figures.curves(X, everywhere, xlabel="x", ylabel="y", title="No room")
    full.draw_without_rendering()
    names = full.legends[0].get_window_extent()
    assert not full.axes[0].get_legend() and names.y1 <= full.axes[0].get_window_extent().y0
    assert full.get_figheight() > free.get_figheight()
    level = figures.curves(
        X,
        {"a": X, "b": 1 - X},
        xlabel="x",
        ylabel="y",
        title="Levels",
        levels={f"at {v}": v for v in np.linspace(0, 1, 9)},
    )
    assert level.legends and not level.axes[0].get_legend()


def test_points_without_a_line_and_shades_count_as_covered():
    cross = {"a": X, "b": 1 - X}
    cloud = figures.curves(X, cross, xlabel="x", ylabel="y", title="Points", points=("a", "b"))
    assert cloud.axes[0].get_legend()  # between the points there is room
    shade = figures.curves(X, cross, xlabel="x", ylabel="y", title="Shade", bands={"a": (0 * X, 0 * X + 1)})
    assert shade.legends


def test_long_names_below_stand_in_one_column():
    lines = {f"{'a very long name of a line ' * 2}{k}": np.sin(20 * X + k) for k in range(3)}
    fig = figures.curves(X, lines, xlabel="x", ylabel="y", title="Long names", legend="below")
    fig.draw_without_rendering()
    assert fig.legends[0]._ncols == 1 and fig.legends[0].get_window_extent().x0 >= 0


def test_a_legend_below_covers_no_line():
    fig = figures.curves(X, {"a": X, "b": 1 - X}, xlabel="x", ylabel="y", title="Lines", legend="below")
    figures.figure_pixels(fig)
    assert fig.legends[0].get_window_extent().y1 <= fig.axes[0].get_window_extent().y0 and not fig.axes[0].get_legend()
    with pytest.raises(ValueError, match="legend must be one of 'inside', 'below', got 'left'"):
        figures.curves(X, {"a": X}, xlabel="x", ylabel="y", title="Lines", legend="left")


def test_numbers_of_bars_lie_on_no_error_bar_and_no_mark():
    about = {"marks": {"floor": 2.4, "aim": 1.5}, "errors": {"a": 0.5, "b": 0.1}}
    fig = figures.bars({"a": 1, "b": 2.5}, xlabel="d", title="Bars", **about)
    figures.figure_pixels(fig)
    ax = fig.axes[0]
    assert all(text.get_window_extent().x0 >= ax.get_window_extent().x1 for text in ax.texts)
    (floor, aim), names = ax.get_legend_handles_labels()
    assert (floor.get_xdata()[0], aim.get_xdata()[0]) == (2.4, 1.5) and floor.get_linestyle() != aim.get_linestyle()
    assert names == ["floor (2.4)", "aim (1.5)"] and len(fig.legends) == 1
    logarithmic = figures.bars({"a": 0.001, "b": 1000}, xlabel="d", title="Bars", xscale="log").axes[0]
    assert logarithmic.get_xscale() == "log" and logarithmic.get_xlim()[0] < 0.001 < 1000 < logarithmic.get_xlim()[1]
