"""Pictures that answer a hand: `stepper` (needs no kernel), `live` (the kernel computes), `predict` (commit, then see).

Each makes an object that displays itself as the last line of a cell, and each has a still twin with the same message
for places where scripts do not run: a freshly cloned notebook, GitHub, print.

    widgets.stepper(frames, labels=[f"t = {t:.2f}" for t in times], title="From noise to hand", alt="A hand appears.")
    widgets.live(draw, {"t": (0.0, 1.0, 0.05), "solver": ["DDIM", "Heun"]}, alt="Noisy image and its posterior mean.")
    widgets.predict("What does w = 3 do?", {"widens": "...", "narrows": "..."}, answer="narrows", reveal="It ...")
"""

import html
import io
import json
import math
import re
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, features

from course_lib.arguments import whole
from course_lib.viz.arrays import all_shown, as_array, as_images
from course_lib.viz.figures import figure_pixels, small_png
from course_lib.viz.html import Page, data_uri, image_tag, inline, prose, rich, unique_id

__all__ = ["Live", "live", "predict", "stepper", "tile"]

SUPPRESS = 'data-lm-suppress-shortcuts="true"'  # else JupyterLab takes the arrow and space keys for itself
AVIF = features.check("avif")
AVIF_QUALITIES = (60, 45, 34, 26, 21, 18)
HIDDEN = 'hidden="hidden"'  # JupyterLab's sanitiser drops the attribute when it has no value
WEBP_QUALITIES = (90, 70, 50, 30, 15, 5)
PICTURE_RATE, DRAWING_RATE = 0.12, 0.03  # bytes a pixel of a frame, what noise and what a plot need to look right
SMALLEST = 60  # kilobytes for all frames of a slider with pictures, where the rates give fewer
FRAME_DPI = 100


def tile(images, columns=None, gap=2, fill=None):
    """Images (N, H, W), (N, 1, H, W) or colour (N, H, W, 3) -> one mosaic array of their type, `gap` pixels of `fill`
    between; left out, white: 255 for uint8, else 1."""
    images = as_images(images)
    if fill is None:
        fill = 255 if images.dtype == np.uint8 else 1
    columns = int(np.ceil(np.sqrt(len(images)))) if columns is None else columns
    whole(columns=columns)
    whole(0, gap=gap)
    rows = -(-len(images) // columns)
    height, width = images.shape[1:3]
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, *images.shape[3:])
    mosaic = np.full(shape, fill, dtype=images.dtype)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        mosaic[top : top + height, left : left + width] = image
    return mosaic


# ------------------------------------------------------------------------------------------------------------- frames


def pixels(frame, vmin=-1, vmax=1):
    """Figure, (H, W) or (H, W, 3) array in [vmin, vmax], or uint8 array -> uint8 pixels (H, W) or (H, W, 3).

    Values beyond the range are shown at its end. Raises ValueError for another shape, and for NaN.
    """
    if isinstance(frame, Figure):
        return figure_pixels(frame, dpi=FRAME_DPI)
    array = as_array(frame)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] == 3):
        raise ValueError(
            f"a frame is (H, W) or (H, W, 3), or a Figure; got shape {array.shape}. For a batch, use tile()"
        )
    if array.dtype == np.uint8:
        return array
    unit = (all_shown(array).astype(np.float32) - vmin) / (vmax - vmin)
    return np.round(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def _save(image, codec, **options):
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    return buffer.getvalue()


def _encode(image, is_drawing, limit):
    """The best picture of at most `limit` bytes, or the smallest there is -> (bytes, MIME type).

    Drawings stay lossless while they fit. Noise takes AVIF a third of WebP's bytes at the same look, so AVIF (which
    browsers read since 2023 at the latest) it is where this Pillow can write it. Below its lowest quality noise would
    turn into smooth patches and teach something false: rather a few kilobytes more.
    """
    if is_drawing:
        colours = image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).convert("RGB")
        content = _save(colours, "WEBP", lossless=True)
        if len(content) <= limit:
            return content, "image/webp"
    for quality in AVIF_QUALITIES if AVIF else WEBP_QUALITIES:
        options = {"speed": 9, "max_threads": 1} if AVIF else {"method": 4}
        content = _save(image, "AVIF" if AVIF else "WEBP", quality=quality, **options)
        if len(content) <= limit:
            break
    return content, "image/avif" if AVIF else "image/webp"


def encode_frames(frames, vmin=-1, vmax=1, kilobytes=None, keep=()):
    """Frames -> (list of (bytes, MIME type), (width, height)) with about `kilobytes` in all; left out, as many as the
    number and the size of the frames ask for.

    Noise hardly compresses and clean images do: what these leave over goes to the noisy ones, one common limit a frame.
    The frames numbered in `keep` stay at the best quality.
    Raises ValueError without frames, or if they differ in size.
    """
    arrays = [pixels(frame, vmin, vmax) for frame in frames]
    sizes = {array.shape[:2] for array in arrays}
    if len(sizes) != 1:
        raise ValueError(f"a stepper needs at least one frame and all of one size, got sizes {sorted(sizes)}")
    drawing = [isinstance(frame, Figure) for frame in frames]
    images = [Image.fromarray(array).convert("RGB") for array in arrays]
    best = [_encode(image, kind, float("inf")) for image, kind in zip(images, drawing, strict=True)]
    kilobytes = _enough(images, drawing) if kilobytes is None else kilobytes
    limit = _common_limit([len(content) for content, _ in best], 1000 * kilobytes)
    fitted = [
        frame if len(frame[0]) <= limit or index in keep else _encode(image, kind, limit)
        for index, (frame, image, kind) in enumerate(zip(best, images, drawing, strict=True))
    ]
    return fitted, images[0].size


def _enough(images, drawing):
    """Kilobytes in which frames keep their look: by their pixels, more for pictures than for drawings."""
    rates = (DRAWING_RATE if is_drawing else PICTURE_RATE for is_drawing in drawing)
    needed = sum(rate * image.width * image.height for rate, image in zip(rates, images, strict=True))
    return needed / 1000 if all(drawing) else max(SMALLEST, needed / 1000)


def _common_limit(sizes, budget):
    """The limit L with sum(min(size, L)) = budget, found by giving the small ones what they need first."""
    left, ascending = budget, sorted(sizes)
    for index, size in enumerate(ascending):
        share = left / (len(ascending) - index)
        if size > share:
            return share
        left -= size
    return ascending[-1]


# ------------------------------------------------------------------------------------------------------------ stepper


def stepper(
    frames, labels=None, *, title, alt, start=0, scale=2, vmin=-1, vmax=1, kilobytes=None, interval=160, note=""
):
    """A slider with a play button over frames that were computed before: alive without a kernel, quick as the browser.

    `frames`: list of (H, W) or (H, W, 3) arrays in [vmin, vmax], uint8 arrays, mosaics by `tile`, or Figures; all of
    one size. `labels`: a text a frame. `title` and `alt` are needed. `start`: the frame of the still twin, negative
    from the end. `scale`: CSS pixels an array pixel (Figures: 1). `kilobytes`: aim for all frames, before base64 adds
    a third; left out, what their number and size ask for. `interval`: milliseconds a frame when it plays. `note`: a
    line under the picture. Returns a Page.
    """
    frames = list(frames)
    labels = (
        [f"step {i} of {len(frames) - 1}" for i in range(len(frames))] if labels is None else list(map(str, labels))
    )
    if len(labels) != len(frames):
        raise ValueError(f"{len(labels)} labels for {len(frames)} frames")
    if not title or not alt:
        raise ValueError("a stepper needs a title and an alt text")
    if not frames or not -len(frames) <= start < len(frames):
        raise ValueError(f"start must be the number of one of the {len(frames)} frames, got {start!r}")
    start = range(len(frames))[start]
    contents, (width, height) = encode_frames(frames, vmin, vmax, kilobytes, keep={start, len(frames) - 1})
    scale = 1 if isinstance(frames[0], Figure) else scale
    root, alt = unique_id("course"), prose(alt).rstrip(".") + "."
    embedded = {
        "ROOT": root,
        "FRAMES": json.dumps([data_uri(*content) for content in contents]),
        "LABELS": _script_json(labels),
        "ALT": _script_json(alt),
        "INTERVAL": str(int(interval)),
    }
    still_alt = f"{alt} Now at {labels[start]}."
    picture = image_tag(*contents[start], still_alt, width * scale, height * scale, "course-frame")
    markup = f"""<div class="course-widget" id="{root}" role="group" aria-label="{html.escape(title)}"
 style="max-width:{max(width * scale, 380)}px;font-size:15px">
{_heading(title)}
{picture}
<div class="course-controls" {HIDDEN} style="margin:6px 0">
<input type="range" class="course-stepper" min="0" max="{len(frames) - 1}" step="1" value="{start}"
 aria-label="{html.escape(title)}" aria-valuetext="{html.escape(labels[start])}" {SUPPRESS}
 style="width:100%;margin:6px 0">
<button type="button" class="course-play" {SUPPRESS}
 style="font-size:15px;min-width:6.5em;padding:3px 8px">▶ Play</button>
<span class="course-label" style="margin-left:10px">{html.escape(labels[start])}</span>
</div>
<div class="course-still" style="margin:6px 0">{html.escape(labels[start])}. Run the cell to move through all
{len(frames)} frames.</div>
{rich(note) if note else ""}
<script>
{_script("stepper.js", embedded)}</script>
</div>"""
    text = (
        f"[slider: {title}. {alt} {len(frames)} frames, from {labels[0]} to {labels[-1]}; shown here: {labels[start]}]"
    )
    return Page(markup, text)


def _heading(title):
    return f'<div class="course-title" style="font-weight:bold;margin:4px 0">{html.escape(title)}</div>'


def _script_json(value):
    """JSON that may stand inside <script>: no sequence in it can close the element."""
    return json.dumps(value).replace("<", "\\u003c")


def _script(name, values):
    """A script of this folder with values in place of its capital words, in one pass: what is put in is not searched.

    It finds its own figure from the place where it stands, so that two views of one output each stay alive; the id is
    for front ends that run scripts elsewhere on the page.
    """
    script = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return re.sub(r"\b(" + "|".join(values) + r")\b", lambda match: values[match.group()], script)


# --------------------------------------------------------------------------------------------------------------- live


def live(fn, controls, *, alt, title="", start=None, scale=2, continuous=None):
    """Controls over a function that the kernel computes: `fn(**values)` -> Figure, or array as `pixels` takes it.
    Returns a `Live`, whose picture where no kernel runs is the first one, with the settings that it was drawn at.

    `controls` {name: (low, high) or (low, high, step), list of choices, dict {text: value}, bool, or an ipywidget}.
    A slider goes from low to high, both included, in whole steps. `start` {name: value} sets first values. `continuous`
    says whether to follow the hand while it drags; left out, only a function that answers within 0.2 s does. The first
    call happens here, so that an error in `fn` is the cell's error. Raises ValueError for a range that its steps do not
    fill, and for a `start` that names no control or a value that it does not have.
    """
    return Live(fn, controls, alt, title, start or {}, scale, continuous)


# Appears only when an answer takes longer than a third of a second, so that quick ones do not flicker.
_BUSY = (
    "<style>@keyframes course-busy {to {visibility: visible}}</style>"
    '<span role="status" style="visibility:hidden;animation:course-busy 0s 0.33s forwards">computing …</span>'
)

# ipywidgets takes the browser's ring off its controls; without it, a hand on the keyboard does not know where it is.
_RING = (
    "<style>.widget-vbox:has(img.course-live) :is(select, input, .noUi-handle, .ui-slider-handle, .widget-readout)"
    ":focus-visible {outline: 3px solid #0072B2 !important; outline-offset: 1px}</style>"
)


class Live:
    """What `live` returns: shows itself as the last line of a cell; `sweep()` tries every control."""

    def __init__(self, fn, controls, alt, title, start, scale, continuous):
        import ipywidgets as W

        if not alt:
            raise ValueError("live needs an alt text: say what the picture shows and what the controls change in it")
        if unknown := sorted(set(start) - set(controls)):
            raise ValueError(f"start: {', '.join(unknown)} is no control; there are: {', '.join(controls)}")
        self.fn, self.alt, self.title, self.scale = fn, prose(alt), title, scale
        self.controls = {name: _control(name, kind, start.get(name)) for name, kind in controls.items()}
        # HTML and not W.Image: that one has no alt text and, given a tooltip instead, breaks in the browser.
        self.picture, self.status = W.HTML(), W.HTML()
        self.seconds = 0.0
        self._update()
        content, size = self.frame  # the still picture is stored: it may take its time to become small
        self.still = small_png(np.asarray(Image.open(io.BytesIO(content)))), size
        self.drawn_at = self._settings()
        follow = self.seconds < 0.2 if continuous is None else continuous
        for control in self.controls.values():
            if hasattr(control, "continuous_update"):
                control.continuous_update = follow
            control.observe(self._update, names="value")
        heading = W.HTML(_RING + f"<b>{html.escape(title)}</b>")
        self.box = W.VBox([heading, *self.controls.values(), self.picture, self.status])

    @property
    def values(self):
        """Current value of each control, by name."""
        return {name: _exact(control, control.value) for name, control in self.controls.items()}

    def sweep(self):
        """Call `fn` at the lowest, middle and highest value of each control, the others as they stand.

        Returns {(name, value): what fn returned}; an error in `fn` comes out as it is, so a cell or a test that sweeps
        fails where a hand on the slider would have met it.
        """
        results = {}
        for name, control in self.controls.items():
            for value in _sweep_values(control):
                results[name, value] = self.fn(**{**self.values, name: value})
                self._png(results[name, value])
        return results

    def _settings(self):
        """The controls as they stand, in words; of a choice what its menu shows."""
        shown = {name: getattr(control, "label", self.values[name]) for name, control in self.controls.items()}
        return "; ".join(f"{name}: {value}" for name, value in shown.items())

    def _update(self, change=None):
        self.status.value = _BUSY
        begin = time.perf_counter()
        try:
            self.frame = self._png(self.fn(**self.values))
        except Exception as error:
            self.status.value = f"<b>{html.escape(type(error).__name__)}</b>: {html.escape(str(error))}"
            raise
        self.picture.value = self._tag(self.frame, "course-live")
        self.seconds = time.perf_counter() - begin
        self.status.value = ""

    def _png(self, frame):
        """Figure or array -> (PNG bytes, size in CSS pixels); light compression, because the hand is waiting."""
        array = pixels(frame)
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG", compress_level=1)
        scale = 1 if isinstance(frame, Figure) else self.scale
        return buffer.getvalue(), (array.shape[1] * scale, array.shape[0] * scale)

    def _tag(self, frame, css_class):
        content, size = frame
        return image_tag(content, "image/png", self.alt, *size, css_class)

    def bundle(self):
        """The MIME bundle: live view, still picture with its alt text, words; each front end takes the first it can.

        Picture and words say the title and at which settings the still picture was drawn, which the view shows."""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        still = self._tag(self.still, "course-frame")
        heading = _heading(self.title) if self.title else ""
        words = f"""Shown here: {html.escape(self.drawn_at)}. Run the cell in Jupyter to move the controls: a kernel
computes each picture."""
        note = f'<div class="course-still" style="margin:6px 0">{words}</div>'
        named = f"{self.title}. " if self.title else ""
        return {
            "application/vnd.jupyter.widget-view+json": view,
            "text/html": f'<div class="course-widget">{heading}{still}{note}</div>',
            "text/plain": f"[live figure: {named}{self.alt.rstrip('.')}. Shown here: {self.drawn_at}]",
        }

    def _ipython_display_(self):
        from IPython.display import display

        display(self.bundle(), raw=True)


def _control(name, kind, value):
    """A description of a control -> an ipywidget, with what ipywidgets 7 and 8 share."""
    import ipywidgets as W

    layout = W.Layout(width="34em", max_width="100%")
    look = {"description": name, "style": {"description_width": "8em"}, "layout": layout}
    if isinstance(kind, W.Widget):
        control = kind
    elif isinstance(kind, bool):
        control = W.Checkbox(value=kind, **look)
    elif isinstance(kind, dict):
        control = W.Dropdown(options=list(kind.items()), **look)
    elif isinstance(kind, list):
        if not kind:
            raise ValueError(f"{name}: a list of choices needs at least one")
        control = W.Dropdown(options=kind, **look)
    else:
        control = _slider(name, kind, look)
    if value is not None:
        _set(name, control, value)
    return control


def _slider(name, kind, look):
    """A slider over (low, high) or (low, high, step) that reaches both ends in every front end."""
    import ipywidgets as W

    whole = all(isinstance(number, int) for number in kind)
    low, high, step = (*kind, 1 if whole else (kind[1] - kind[0]) / 20)[:3]
    if not (low < high and step >= 1e-6):
        raise ValueError(f"{name}: a slider needs low < high and a step from 1e-6 on; got {low!r}, {high!r}, {step!r}")
    top = max(high, _steps(low, high, step) * step + low)  # where rounding puts the last step
    if jquery_end(low, top, step) != high:
        raise ValueError(f"{name}: steps of {step:g} from {low:g} do not meet {high:g}; choose a step that divides")
    if whole:
        return W.IntSlider(min=low, max=high, step=step, value=low, **look)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return W.FloatSlider(min=low, max=top, step=step, value=low, readout_format=f".{decimals}f", **look)


def jquery_end(low, high, step):
    """The last value of a slider of ipywidgets 7 (Colab), which is jQuery UI's (1.12, ``_calculateNewMax``): the last
    whole step that does not pass ``high`` in floating point. Of (0.05, 0.95, 0.05) it is 0.9, by rounding."""
    end = _steps(low, high, step) * step + low
    if end > high:
        end -= step
    return float(f"{end:.{max(_decimals(step), _decimals(low))}f}")


def _steps(low, high, step):
    """The whole number of steps from low that ends nearest to high."""
    return math.floor((high - low) / step + 0.5)


def _decimals(number):
    """Digits after the point of a number as it is written."""
    return max(0, -Decimal(repr(number)).normalize().as_tuple().exponent)


def _exact(control, value):
    """The value of a slider without the rounding of its steps and of its end; of others as it is."""
    if not isinstance(value, float) or not hasattr(control, "step") or hasattr(control, "base"):
        return value
    return round(value, max(_decimals(control.step), _decimals(control.min)))


def _set(name, control, value):
    """Give a control its first value; ValueError where it would take another instead, or none."""
    from traitlets import TraitError

    remedy = f"from {control.min:g} to {control.max:g}" if hasattr(control, "min") else "one of its choices"
    try:
        control.value = value
    except TraitError as error:
        raise ValueError(f"start: {name} cannot be {value!r}; it is {remedy}") from error
    if control.value != value:
        raise ValueError(f"start: {name} cannot be {value!r}; it is {remedy}")


def _sweep_values(control):
    """Lowest, middle and highest value of a control; of a choice the first, middle and last; both of a checkbox."""
    if hasattr(control, "options"):
        choices = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return list(dict.fromkeys([choices[0], choices[len(choices) // 2], choices[-1]]))
    if isinstance(control.value, bool):
        return [False, True]
    if not hasattr(control, "min"):
        return [control.value]
    low, high = control.min, control.max
    middle = low + round((high - low) / 2 / control.step) * control.step
    if hasattr(control, "base"):  # a logarithmic slider counts in exponents
        return [control.base**exponent for exponent in (low, middle, high)]
    return [_exact(control, value) for value in (low, middle, high)]


# ------------------------------------------------------------------------------------------------------------ predict


def predict(question, options, answer, reveal):
    """Predict, then run: the learner commits to an option, and only then sees what happens. Returns a Page.

    `options`: list of texts, or dict {text: what to say to who chose it}; `answer`: the right text; `reveal`: the
    explanation, with `code` and $math$. It needs no kernel and never blocks a run. Where scripts do not run, the
    options stand as a list and the reveal is folded. Raises ValueError if `answer` is not among two or more options.
    """
    comments = options if isinstance(options, dict) else dict.fromkeys(options, "")
    comments = {prose(text): prose(comment) for text, comment in comments.items()}
    question, answer, reveal = prose(question), prose(answer), prose(reveal)
    texts = list(comments)
    if answer not in texts or len(texts) < 2:
        raise ValueError(f"answer {answer!r} must be one of at least two options, got {texts}")
    root = unique_id("predict")
    values = {"ROOT": root, "ANSWER": str(texts.index(answer))}
    said = "".join(f'<div class="course-comment" {HIDDEN}>{rich(comment)}</div>' for comment in comments.values())
    listed = "".join(f"<li>{inline(text)}</li>" for text in texts)
    radios = "".join(
        f'<label style="display:block;margin:4px 0"><input type="radio" name="{root}" value="{index}" {SUPPRESS}> '
        f"{inline(text)}</label>"
        for index, text in enumerate(texts)
    )
    markup = f"""<div class="course-widget course-predict" id="{root}" role="group" aria-label="Prediction"
 style="border-left:4px solid #0072B2;padding:4px 14px;max-width:760px;font-size:15px">
<div style="font-weight:bold">Predict, then run</div>
{rich(question)}
<ul class="course-still">{listed}</ul>
<div class="course-controls" {HIDDEN}>{radios}
<button type="button" class="course-commit" disabled {SUPPRESS} style="font-size:15px;padding:3px 10px;margin:6px 0">
I commit to this</button></div>
<div class="course-verdict" role="status" tabindex="-1" style="margin:6px 0;font-weight:bold"></div>
{said}
<details class="course-reveal"><summary {SUPPRESS}>What happens</summary>
<p style="margin:0.3em 0"><b>{inline(answer)}</b></p>{rich(reveal)}</details>
<script>
{_script("predict.js", values)}</script>
</div>"""
    choices = "\n".join(f"  ( ) {text}" for text in texts)
    return Page(markup, f"Predict, then run. {question}\n{choices}\nThen read on: the reveal follows the choice.")
