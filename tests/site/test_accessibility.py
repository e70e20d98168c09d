"""For everyone: words for every picture, headings in order, colours for any eyes, contrast, and the keyboard alone.

The first half reads the stored notebooks and the library; the second walks the web site in a browser by keyboard.
"""

import ast
import functools
import itertools
import re
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from course_lib.viz import figures, planes

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@functools.cache
def cells(path, kind):
    """The notebook's cells of one kind, in order."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def shown(path):
    """(source of the cell, HTML that it shows) for every stored output that is HTML."""
    pairs = [
        (cell.source, output.get("data", {}).get("text/html"))
        for cell in cells(path, "code")
        for output in cell.outputs
    ]
    return [(source, "".join(markup)) for source, markup in pairs if markup]


def images(markup):
    """[(address, alt text or None)] of every <img> in HTML."""
    tags = re.findall(r"<img\b[^>]*>", markup)
    return [tuple(_attribute(tag, name) for name in ("src", "alt")) for tag in tags]


def _attribute(tag, name):
    match = re.search(rf"""\b{name}=(?:"([^"]*)"|'([^']*)')""", tag)
    return None if match is None else (match.group(1) or match.group(2) or "").strip()


def plain(text):
    """Text without what a copy may change: case, spaces, a full stop."""
    return " ".join(text.lower().split()).rstrip(".")


# ---------------------------------------------------------------------------------------------------------- alt texts


@every_notebook
def test_every_picture_has_an_alt_text(path):
    for source, markup in shown(path):
        for _, alt in images(markup):
            assert alt, f"an <img> without alt text is shown by:\n{source}"
    for cell in cells(path, "code"):
        for output in cell.outputs:
            bare = [kind for kind in output.get("data", {}) if kind.startswith("image/")]
            assert not bare, f"JupyterLab shows {bare} without alt text; use figures.show in:\n{cell.source}"
    for cell in cells(path, "markdown"):
        assert not re.search(r"!\[\s*\]\(", cell.source), cell.source
        assert all(alt for _, alt in images(cell.source)), cell.source


@every_notebook
def test_every_table_has_headers(path):
    for source, markup in shown(path):
        for table in re.findall(r"<table\b.*?</table>", markup, re.DOTALL):
            assert 'scope="col"' in table and 'scope="row"' in table, f"use tables.show in:\n{source}"


@every_notebook
def test_alt_texts_say_more_than_the_title_and_differ(path):
    seen = {}
    for source, markup in shown(path):
        titles = {plain(title) for title in re.findall(r'title=f?"([^"]*)"', source)}
        for address, alt in images(markup):
            assert len(alt.split()) >= 5, f"too short an alt text: {alt}"
            assert plain(alt) not in titles, f"the alt text is only the title again: {alt}"
            assert seen.setdefault(plain(alt), address) == address, f"two pictures share the alt text: {alt}"


# ------------------------------------------------------------------------------------------------------------ headings


def headings(markdown):
    """[(level, text)] of the headings in Markdown, in order."""
    text = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    return [(len(marks), words.strip()) for marks, words in re.findall(r"^(#{1,6})\s+(.+)$", text, re.MULTILINE)]


def misplaced(levels):
    """What is wrong with the order of headings: not one title, not the title first, or a level skipped."""
    if levels.count(1) != 1 or levels[0] != 1:
        return "there must be one heading of level 1, and it comes first"
    skipped = [pair for pair in itertools.pairwise(levels) if pair[1] > pair[0] + 1]
    return f"a level is skipped: {skipped}" if skipped else ""


@every_notebook
def test_headings_of_notebooks_are_in_order(path):
    levels = [level for level, _ in headings("\n\n".join(cell.source for cell in cells(path, "markdown")))]
    assert misplaced(levels) == ""
    assert [source for source, markup in shown(path) if re.search(r"<h[1-6]\b", markup)] == [], "a heading in an output"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_headings_of_documents_are_in_order(path):
    assert misplaced([level for level, _ in headings(path.read_text(encoding="utf-8"))]) == ""


def test_headings_out_of_order_are_noticed():
    assert misplaced([1, 2, 3, 2]) == ""
    assert "skipped" in misplaced([1, 3])
    assert "level 1" in misplaced([2, 1]) and "level 1" in misplaced([1, 2, 1])


# ------------------------------------------------------------------------------------------------------------- colours

# Machado, Oliveira & Fernandes (IEEE TVCG 2009), table 1, severity 1: matrices for linear RGB.
EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
APART = 10  # CIEDE2000; 1 is just seen side by side, 10 is told apart at a glance


def linear(rgb):
    """sRGB in [0, 1] -> linear light (IEC 61966-2-1)."""
    rgb = np.asarray(rgb, dtype=float)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen_by(colours, eyes):
    """Colours (N, 3) in sRGB -> CIELAB (N, 3) of what such eyes see."""
    light = np.clip(linear(colours) @ np.transpose(EYES[eyes]), 0, 1)
    return rgb2lab(np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def nearest_pair(colours, eyes):
    """(CIEDE2000 distance, colour, colour) of the two that such eyes confuse most."""
    lab = seen_by([to_rgb(colour) for colour in colours], eyes)
    pairs = itertools.combinations(range(len(colours)), 2)
    return min((float(deltaE_ciede2000(lab[i], lab[j])), colours[i], colours[j]) for i, j in pairs)


USED_TOGETHER = {
    "lines, and the grey of reference lines": (*figures.PALETTE, "#555555"),
    "labels of a volume and the cross": (*planes.COLOURS, planes.CROSS),
}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("name", USED_TOGETHER)
def test_colours_used_together_are_told_apart(name, eyes):
    distance, *pair = nearest_pair(USED_TOGETHER[name], eyes)
    assert distance >= APART, f"{pair} are {distance:.1f} apart"


def test_the_simulation_keeps_greys_and_confuses_what_it_should():
    for eyes, matrix in EYES.items():
        np.testing.assert_allclose(np.sum(matrix, axis=1), 1, atol=2e-6)  # so white and greys stay
        assert nearest_pair(("#777777", "#777777"), eyes)[0] == 0
    red_and_green = "tab:red", "tab:green"
    assert nearest_pair(red_and_green, "deuteranopia")[0] < APART < nearest_pair(red_and_green, "all cones")[0]
    blue_and_green = "#3C78C8", "#3C8C8C"
    assert nearest_pair(blue_and_green, "tritanopia")[0] < APART < nearest_pair(blue_and_green, "protanopia")[0]


def sources():
    """{name: syntax tree} of every code cell and of every module of the library."""
    found = {}
    for path in PATHS:
        for number, cell in enumerate(cells(path, "code")):
            if not cell.source.startswith("%"):
                lines = ["pass" if line.startswith(("%", "!")) else line for line in cell.source.splitlines()]
                found[f"{path.stem} cell {number}"] = ast.parse("\n".join(lines))
    for path in (ROOT / "course_lib").rglob("*.py"):
        found[path.name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def arguments(names):
    """[(place, text)] of every text given in a call or a dictionary under one of these names, alone or in a list."""
    found = []
    for place, tree in sources().items():
        for node in ast.walk(tree):
            pairs = [(node.arg, node.value)] if isinstance(node, ast.keyword) else []
            if isinstance(node, ast.Dict):
                pairs = [(getattr(key, "value", None), value) for key, value in zip(node.keys, node.values)]
                pairs = [(name, value) for name, value in pairs if name != "c"]  # an option of an exercise
            if isinstance(node, ast.FunctionDef):
                spec = node.args
                pairs = [(a.arg, d) for a, d in zip(spec.kwonlyargs, spec.kw_defaults) if d is not None]
            for value in (value for name, value in pairs if name in names):
                texts = (part.value for part in ast.walk(value) if isinstance(part, ast.Constant))
                found += [(place, text) for text in texts if isinstance(text, str)]
    return found


def test_drawings_take_their_colours_from_the_palette_or_grey():
    given = arguments({"color", "colors", "c", "facecolor", "edgecolor", "ecolor"})
    assert given
    allowed = {to_rgb(colour) for colour in (*figures.PALETTE, planes.CROSS)}
    foreign = [(place, text) for place, text in given if to_rgb(text) not in allowed and len(set(to_rgb(text))) > 1]
    assert foreign == []


def test_colour_maps_rise_in_lightness_for_all_eyes():
    names = {text for _, text in arguments({"cmap"})}
    assert {"gray", "magma"} <= names
    for name, eyes in itertools.product(names, EYES):
        lightness = seen_by(matplotlib.colormaps[name](np.linspace(0, 1, 64))[:, :3], eyes)[:, 0]
        assert (np.diff(lightness) > 0).all(), f"{name} is not monotone for {eyes}"
    rainbow = seen_by(matplotlib.colormaps["jet"](np.linspace(0, 1, 64))[:, :3], "all cones")[:, 0]
    assert (np.diff(rainbow) < 0).any()


@figures.house_style
def test_a_drawing_without_a_colour_takes_the_next_of_the_palette():
    assert tuple(matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]) == figures.PALETTE


# ------------------------------------------------------------------------------------------------------------ contrast

TEXT_CONTRAST, LARGE_CONTRAST, EDGE_CONTRAST = 4.5, 3.0, 3.0  # WCAG 2.1, success criteria 1.4.3 and 1.4.11


def contrast(one, other):
    """WCAG 2.1 contrast ratio of two colours: 1 for the same, 21 for black on white."""
    luminances = sorted(float(linear(to_rgb(colour)) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (luminances[1] + 0.05) / (luminances[0] + 0.05)


def test_contrast_is_the_ratio_of_wcag():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)  # the known grey that just fails


def test_colours_in_the_markup_of_widgets_and_exercises_stand_out_from_white():
    text, edge = set(), set()
    for path in (ROOT / "course_lib").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        text |= set(re.findall(r"(?<![\w-])color:\s*(#\w+)", source))
        edge |= set(re.findall(r"border[\w-]*:[^;\"]*(#\w+)", source))
    from course_lib.exercises import exercise

    edge |= {colour for _, colour in exercise._LOOKS.values()}
    assert edge
    assert {colour for colour in text if contrast(colour, "white") < TEXT_CONTRAST} == set()
    assert {colour for colour in edge if contrast(colour, "white") < EDGE_CONTRAST} == set()


# Every visible text with too little contrast to the background that lies behind it. Controls that are switched off are
# exempt (WCAG 1.4.3), and so is MathJax, which takes the colour of its surroundings.
FAINT = """([small, large]) => {
    const parse = colour => {
        const numbers = colour.match(/[\\d.]+/g).map(Number);
        return numbers.length < 4 ? [...numbers, 1] : numbers;
    };
    const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
    const luminance = rgb => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const faint = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode, parent = text.parentElement;
        if (!text.data.trim() || !parent.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
        if (parent.closest('script, style, mjx-container, :disabled')) continue;
        const style = getComputedStyle(parent), below = ground(parent);
        const lights = [luminance(over(parse(style.color), below)), luminance(below)].sort((a, b) => a - b);
        const ratio = (lights[1] + 0.05) / (lights[0] + 0.05), size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || size >= 18.66 && +style.fontWeight >= 700;
        if (ratio < (isLarge ? large : small) - 0.005)
            faint.push(ratio.toFixed(2) + ' ' + style.color + ': ' + text.data.trim().slice(0, 40));
    }
    return faint;
}"""


@pytest.mark.parametrize("name", ["index", "docs/results", "notebooks/00_start_here", "notebooks/03_ddpm"])
def test_text_of_the_site_stands_out_from_its_background(tab, site, name):
    tab.goto(f"{site.address}{name}.html")
    assert set(tab.evaluate(FAINT, [TEXT_CONTRAST, LARGE_CONTRAST])) == set()


def test_faint_text_is_noticed(tab):
    tab.set_content('<body style="background:#fff"><p style="color:#777">grey</p><p>black</p></body>')
    assert len(tab.evaluate(FAINT, [TEXT_CONTRAST, LARGE_CONTRAST])) == 1


# ------------------------------------------------------------------------------------------------------------ keyboard

# What a key would act on now: what it is, whether one sees that it has the focus, and the picture that belongs to it.
FOCUSED = """() => {
    const element = document.activeElement, style = getComputedStyle(element);
    const widget = element.closest('.course-widget'), image = widget && widget.querySelector('img.course-frame');
    return {
        tag: element.tagName, css: element.className, kind: element.type || '',
        number: [...document.querySelectorAll('.course-widget')].indexOf(widget),
        visible: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== 'none',
        picture: image ? image.src : null,
        revealed: widget ? [...widget.querySelectorAll('.course-reveal[open]')].length > 0 : false,
    };
}"""
MOST_STOPS = 400


@pytest.fixture(scope="module")
def walk(chromium, site):
    """By Tab alone from the top of a notebook's page to its end, using each widget on the way.

    The kinds of its widgets, {number of the widget: what was done by it}, and the stops where no focus is seen.
    """
    tab = chromium.new_page(viewport={"width": 1280, "height": 1000})
    tab.goto(site.address + "notebooks/03_ddpm.html")
    tab.evaluate("() => document.activeElement.blur()")
    done, unseen = {}, []

    def focused(key):
        tab.keyboard.press(key)
        return tab.evaluate(FOCUSED)

    for _ in range(MOST_STOPS):
        stop = focused("Tab")
        if stop["tag"] == "BODY":
            break
        if stop["number"] < 0:
            continue
        deeds = done.setdefault(stop["number"], set())
        if not stop["visible"]:
            unseen.append(stop)
        if stop["kind"] == "range":
            right, left = focused("ArrowRight"), focused("ArrowLeft")
            if right["picture"] != stop["picture"] == left["picture"]:
                deeds.add("moved")
        elif "course-play" in stop["css"]:
            if focused("Enter")["picture"] == stop["picture"]:
                tab.wait_for_timeout(600)
            if tab.evaluate(FOCUSED)["picture"] != stop["picture"]:
                deeds.add("played")
            tab.keyboard.press("Enter")
        elif stop["kind"] == "radio":
            focused("Space")
            focused("ArrowDown")
            deeds.add("chosen")
        elif "course-commit" in stop["css"] and focused("Enter")["revealed"]:
            deeds.add("committed")
    else:
        pytest.fail(f"no end of the page after {MOST_STOPS} stops: is there a keyboard trap?")
    kinds = tab.evaluate(
        """() => [...document.querySelectorAll('.course-widget')].map(widget =>
            widget.querySelector('input.course-stepper') ? 'stepper' :
            widget.querySelector('input[type=radio]') ? 'predict' : 'still')"""
    )
    tab.close()
    return kinds, done, unseen


def test_every_stepper_is_reached_moved_and_played_by_keyboard(walk):
    kinds, done, _ = walk
    steppers = [number for number, kind in enumerate(kinds) if kind == "stepper"]
    assert steppers
    assert [done.get(number) for number in steppers] == [{"moved", "played"}] * len(steppers)


def test_every_prediction_is_made_by_keyboard(walk):
    kinds, done, _ = walk
    predictions = [number for number, kind in enumerate(kinds) if kind == "predict"]
    assert predictions
    assert [done.get(number) for number in predictions] == [{"chosen", "committed"}] * len(predictions)


def test_one_sees_where_the_keyboard_is(walk):
    assert walk[2] == []
