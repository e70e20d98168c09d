"""Widgets: the still twin says the same, pictures are light, errors surface; in a browser they move by hand and key."""

import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from course_lib.viz import figures, planes, widgets

FRAMES = [np.full((16, 24), value) for value in np.linspace(-1, 1, 5)]


def make_stepper(**changes):
    settings = {"title": "Dark to light", "alt": "A field turns from black to white.", "labels": list("abcde")}
    return widgets.stepper(FRAMES, **{**settings, **changes})


def make_prediction():
    options = {"It widens": "No: samples gather.", "It narrows": "Yes, they gather.", "Nothing": "Only at w = 1."}
    return widgets.predict("What does guidance do?", options, "It narrows", "The variance is `2**(1-w)`.")


# -------------------------------------------------------------------------------------------------------------- frames


def test_tile_puts_images_in_reading_order_with_a_gap():
    mosaic = widgets.tile(np.arange(3).reshape(3, 1, 1) * np.ones((3, 2, 2)), columns=2, gap=1, fill=9)
    assert mosaic.shape == (5, 5)
    assert mosaic[0, 0] == 0
    assert mosaic[0, 3] == 1
    assert mosaic[3, 0] == 2
    assert mosaic[2, 2] == mosaic[3, 3] == 9


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_the_gaps_of_a_mosaic_are_white_for_either_type_of_image(kind):
    shown = widgets.pixels(widgets.tile(np.zeros((2, 4, 4), kind), columns=2))
    assert (shown[:, 4:6] == 255).all()


@pytest.mark.parametrize("avif", [True, False])
def test_frames_come_back_as_the_images_that_went_in(monkeypatch, avif):
    if avif and not widgets.AVIF:
        pytest.skip("this Pillow writes no AVIF")
    monkeypatch.setattr(widgets, "AVIF", avif)
    encoded, size = widgets.encode_frames(FRAMES)
    assert size == (24, 16)
    for frame, (content, mime) in zip(FRAMES, encoded, strict=True):
        assert mime == ("image/avif" if avif else "image/webp")
        decoded = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(float)
        assert np.abs(decoded - widgets.pixels(frame)).max() <= 3


def test_noise_is_kept_within_bounds_and_the_frames_to_keep_stay_sharp():
    noise = list(np.random.default_rng(0).normal(size=(26, 128, 128)))
    small, _ = widgets.encode_frames(noise, kilobytes=40, keep={0})
    best, _ = widgets.encode_frames(noise, kilobytes=10_000)
    assert sum(len(content) for content, _ in small) < 0.7 * sum(len(content) for content, _ in best)
    assert small[0] == best[0]


def test_without_a_number_of_kilobytes_the_frames_get_what_their_pixels_ask_for():
    """0.12 bytes a pixel of a picture, with 60 kilobytes for all of them at least; 0.03 of a drawing."""
    noise = list(np.random.default_rng(0).normal(size=(40, 128, 128)))
    wanted = 40 * 128 * 128 * 0.12 / 1000
    assert wanted > 60
    assert widgets.encode_frames(noise) == widgets.encode_frames(noise, kilobytes=wanted)
    assert widgets.encode_frames(noise[:24]) == widgets.encode_frames(noise[:24], kilobytes=60)
    look = {"xlabel": "x", "ylabel": "y", "title": "Points", "size": 4.0}
    points = np.random.default_rng(0).normal(size=(8, 4000, 2))

    def plots():  # anew each time: a figure that is drawn again is laid out a little differently
        return [figures.scatter({"x": x}, **look) for x in points]

    wanted = 8 * np.prod(widgets.pixels(plots()[0]).shape[:2]) * 0.03 / 1000
    assert widgets.encode_frames(plots()) == widgets.encode_frames(plots(), kilobytes=wanted)


def test_frames_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="all of one size"):
        widgets.encode_frames([np.zeros((4, 4)), np.zeros((5, 4))])
    with pytest.raises(ValueError, match="use tile"):
        widgets.pixels(np.zeros((2, 1, 4, 4)))
    with pytest.raises(ValueError, match="3 labels for 5 frames"):
        make_stepper(labels=list("abc"))


# ----------------------------------------------------------------------------------------------------------- still twin


def test_the_stepper_reads_well_where_scripts_are_stripped():
    page = make_stepper(start=-1)
    still = re.sub(r"<script>.*?</script>", "", page.markup, flags=re.S)
    assert re.search(
        r'<img class="course-frame" src="data:image/\w+;base64,[^"]+" alt="A field [^"]+ Now at e\."', still
    )
    assert 'class="course-controls" hidden="hidden"' in still
    assert "Run the cell" in still
    assert page.text.startswith("[slider: Dark to light.")


def test_labels_cannot_close_the_script_and_are_not_mistaken_for_its_words():
    page = make_stepper(labels=["</script><b>", "ALT", "FRAMES", "ROOT", "LABELS"])
    assert page.markup.count("</script>") == 1
    assert '["\\u003c/script>\\u003cb>", "ALT", "FRAMES", "ROOT", "LABELS"]' in page.markup


def test_predict_wants_its_answer_among_the_options():
    with pytest.raises(ValueError, match="must be one of"):
        widgets.predict("What?", ["a", "b"], "c", "Because.")


# ---------------------------------------------------------------------------------------------------------------- live


def draw(t, solver="DDIM", flip=False):
    if solver == "broken":
        raise RuntimeError("broken solver")
    return np.full((4, 4), t)


def make_live(**controls):
    return widgets.live(draw, {"t": (0.0, 1.0, 0.1), **controls}, alt="A grey square of brightness t.")


def test_a_control_moves_the_picture():
    live = make_live()
    before = live.picture.value
    live.controls["t"].value = 1.0
    assert live.picture.value != before
    assert 'alt="A grey square of brightness t."' in live.picture.value
    assert live.values == {"t": 1.0}


def test_sweep_tries_low_middle_and_high_of_every_control():
    results = make_live(solver=["DDIM", "Heun"], flip=False).sweep()
    assert list(results) == [
        ("t", 0.0), ("t", 0.5), ("t", 1.0), ("solver", "DDIM"), ("solver", "Heun"), ("flip", False), ("flip", True),
    ]  # fmt: skip


def test_errors_of_the_function_surface_at_once_in_a_callback_and_in_a_sweep():
    with pytest.raises(RuntimeError, match="broken solver"):
        make_live(solver=["broken"])
    live = make_live(solver=["DDIM", "broken"])
    with pytest.raises(RuntimeError, match="broken solver"):
        live.sweep()
    with pytest.raises(RuntimeError, match="broken solver"):
        live.controls["solver"].value = "broken"
    assert "broken solver" in live.status.value


def test_the_bundle_holds_view_still_picture_and_words():
    live = widgets.live(draw, {"t": (0.0, 1.0)}, alt="A grey square.")
    bundle = live.bundle()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == live.box.model_id
    assert 'alt="A grey square."' in bundle["text/html"] and "course-title" not in bundle["text/html"]
    assert bundle["text/plain"] == "[live figure: A grey square. Shown here: t: 0.0]"


def test_the_still_picture_is_stored_with_its_title_and_the_settings_that_it_was_drawn_at():
    controls = {"t": (0.0, 1.0, 0.1), "solver": {"2M & 3": "DDIM"}, "flip": False}
    live = widgets.live(draw, controls, start={"t": 0.3}, title="Grey < white", alt="A grey square.")
    live.controls["t"].value = 1.0  # the still picture stays the first one, and so do its settings
    bundle = live.bundle()
    title, still = re.findall(r'<div class="course-(?:title|still)"[^>]*>([^<]*)</div>', bundle["text/html"])
    assert html.unescape(title) == "Grey < white"
    assert html.unescape(still).startswith("Shown here: t: 0.3; solver: 2M & 3; flip: False. Run the cell in Jupyter")
    said = "Grey < white. A grey square. Shown here: t: 0.3; solver: 2M & 3; flip: False"
    assert bundle["text/plain"] == f"[live figure: {said}]"


def test_the_still_picture_takes_less_than_the_live_one_and_keeps_every_pixel_of_a_grey_array():
    ramp = np.linspace(-1, 1, 4096).reshape(64, 64)
    x = np.linspace(0, 6, 200)
    waves = {"sine": np.sin(x), "cosine": np.cos(x)}
    for frame in (lambda t: ramp, lambda t: figures.curves(x, waves, xlabel="x", ylabel="y", title="Waves")):
        live = widgets.live(frame, {"t": (0.0, 1.0)}, alt="A ramp of grey, or two waves.", scale=3)
        (drawn, size), (still, still_size) = live.frame, live.still
        assert len(still) < len(drawn) and still_size == size
    grey = widgets.live(lambda t: ramp, {"t": (0.0, 1.0)}, alt="A ramp of grey.").still[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(grey))), widgets.pixels(ramp))


def test_controls_follow_the_hand_only_when_the_function_keeps_up():
    assert make_live().controls["t"].continuous_update
    slow = widgets.live(draw, {"t": (0, 3)}, alt="A grey square.", continuous=False, start={"t": 2})
    assert not slow.controls["t"].continuous_update
    assert slow.values == {"t": 2}


@pytest.mark.parametrize("frame", [np.full((4, 4), np.nan), [[0.0, np.inf]], np.array([[0.0, -np.inf]], np.float32)])
def test_what_is_no_number_is_never_shown_as_black(frame):
    match = "values of a picture are NaN or infinite"
    with pytest.raises(ValueError, match=match):
        widgets.pixels(frame)
    with pytest.raises(ValueError, match=match):
        widgets.stepper([np.zeros(np.shape(frame)), frame], title="T", alt="A square.")
    for picture in (figures.image_grid, lambda x: figures.image_rows({"row": x})):
        with pytest.raises(ValueError, match=match):
            picture(np.asarray(frame)[None])
    with pytest.raises(ValueError, match=match):
        planes.three_planes(np.asarray(frame)[None], title="T")
    live = make_live()
    live.fn = lambda **values: frame
    with pytest.raises(ValueError, match=match):
        live.controls["t"].value = 1.0
    assert "NaN or infinite" in live.status.value


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ({"tt": 0.5}, "tt is no control; there are: t, solver, flip"),
        ({"t": 2.0}, "t cannot be 2.0; it is from 0 to 1"),
        ({"t": float("nan")}, "t cannot be nan"),
        ({"solver": "Huen"}, "solver cannot be 'Huen'; it is one of its choices"),
    ],
)
def test_a_start_that_the_controls_do_not_have_is_told(start, said):
    controls = {"t": (0.0, 1.0, 0.1), "solver": ["DDIM", "Heun"], "flip": False}
    with pytest.raises(ValueError, match=re.escape(said)):
        widgets.live(draw, controls, alt="A grey square.", start=start)


@pytest.mark.parametrize("kind", [(1.0, 0.0), (0.0, 1.0, 0), (0.0, 1.0, -0.1), (0.0, 1.0, 0.3), (0, 10, 4), (2, 2), []])
def test_a_range_that_its_steps_do_not_fill_is_refused(kind):
    with pytest.raises(ValueError, match="^t: "):
        widgets.live(draw, {"t": kind}, alt="A grey square.")


RANGES = [
    (round(low, 3), round(low + steps * step, 3), step)
    for step in (0.005, 0.01, 0.02, 0.05, 0.1, 0.125, 0.2, 0.25, 0.5, 1.0, 2.5)
    for low in (-1.5, -1.0, -0.3, 0.0, 0.05, 0.1, 0.3, 0.7, 1.0, 10.0)
    for steps in range(1, 61)
]


def test_sliders_reach_their_last_value_by_the_rules_of_both_widget_libraries():
    """ipywidgets 7 lets jQuery UI find the last whole step, which rounding can take away; 8 lets noUiSlider go to
    max."""
    lost = 0
    for low, high, step in RANGES:
        slider = widgets._slider("t", (low, high, step), {})
        assert widgets.jquery_end(low, slider.max, step) == high <= slider.max <= high + 1e-13
        lost += widgets.jquery_end(low, high, step) != high
        slider.value = slider.max
        assert widgets._exact(slider, slider.value) == high
    assert lost > 100  # so many would end one step early


def test_a_slider_gives_whole_steps_to_its_function():
    live = widgets.live(draw, {"t": (0.05, 0.95, 0.05)}, alt="A grey square.")
    live.controls["t"].value = 0.05 + 2 * 0.05
    assert live.values == {"t": 0.15} and [value for _, value in live.sweep()] == [0.05, 0.5, 0.95]


# ------------------------------------------------------------------------------------------------------------- browser


def test_the_rule_of_jquery_ui_is_as_javascript_computes_it(tab):
    """The source of jQuery UI 1.12's slider, ``_calculateNewMax`` and ``_precision``, retold in the page."""
    ends = tab.evaluate(
        """ranges => {
            const digits = n => { const s = String(n), i = s.indexOf('.'); return i < 0 ? 0 : s.length - i - 1; };
            return ranges.map(([low, high, step]) => {
                let end = Math.round((high - low) / step) * step + low;
                if (end > high) end -= step;
                return parseFloat(end.toFixed(Math.max(digits(step), digits(low))));
            });
        }""",
        RANGES,
    )
    assert ends == [widgets.jquery_end(*limits) for limits in RANGES]


@pytest.fixture(scope="module")
def tab(chromium, tmp_path_factory):
    """Two steppers and a prediction in one page, in Chromium."""
    page = tmp_path_factory.mktemp("page") / "widgets.html"
    parts = [make_stepper(), make_stepper(start=2, interval=400), make_prediction()]
    page.write_text("<!DOCTYPE html><meta charset=utf-8>" + "".join(part.markup for part in parts), encoding="utf-8")
    tab = chromium.new_page()
    tab.set_default_timeout(5000)
    tab.goto(page.as_uri())
    yield tab
    tab.close()


def brightness(tab, number):
    """Mean grey of what a stepper shows now, read from the pixels that the browser decoded."""
    return tab.evaluate(
        """async number => {
            const image = document.querySelectorAll('img.course-frame')[number];
            await image.decode();
            const canvas = document.createElement('canvas');
            canvas.width = canvas.height = 1;
            canvas.getContext('2d').drawImage(image, 0, 0, 1, 1);
            return canvas.getContext('2d').getImageData(0, 0, 1, 1).data[0];
        }""",
        number,
    )


def test_arrow_keys_move_the_picture_its_label_and_its_alt_text(tab):
    assert brightness(tab, 0) < 5
    tab.locator("input.course-stepper").first.focus()
    tab.keyboard.press("ArrowRight")
    assert abs(brightness(tab, 0) - 64) < 6
    tab.keyboard.press("End")
    assert brightness(tab, 0) > 250
    assert tab.locator(".course-label").first.text_content() == "e"
    assert tab.locator("input.course-stepper").first.get_attribute("aria-valuetext") == "e"
    assert tab.locator("img.course-frame").first.get_attribute("alt").endswith("Now at e.")
    assert abs(brightness(tab, 1) - 128) < 6  # the other stepper stays where it was


def test_play_runs_to_the_end_and_starts_again(tab):
    button = tab.locator("button.course-play").nth(1)
    button.focus()
    tab.keyboard.press("Enter")
    assert "Pause" in button.text_content()
    tab.wait_for_function("document.querySelectorAll('.course-label')[1].textContent === 'e'")
    tab.wait_for_function("document.querySelectorAll('button.course-play')[1].textContent.includes('Play')")
    tab.keyboard.press("Enter")
    tab.wait_for_function("document.querySelectorAll('.course-label')[1].textContent === 'b'")


def test_a_prediction_is_committed_by_keyboard_before_the_reveal_shows(tab):
    assert not tab.locator(".course-reveal").is_visible()
    assert tab.locator(".course-commit").is_disabled()
    tab.locator(".course-predict input").first.focus()
    tab.keyboard.press("Space")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.locator(".course-reveal").get_attribute("open") is not None
    assert tab.locator(".course-verdict").text_content() == "✓ As you predicted."
    assert tab.locator(".course-comment:visible").all_text_contents() == ["Yes, they gather."]
