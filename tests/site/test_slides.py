"""Slides: every notebook is tagged by the rule, each slide begins with a heading, and no screen has more than fits."""

import copy
from pathlib import Path

import nbformat
import pytest
import slides
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]

PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FEWEST, MOST = 8, 16  # sections a notebook, the title and the key points among them
PICTURES = 12  # in a figure, at most
MORE = {  # cell: why it has more
    "c52-dc73e2": "01: what a set lacks shows in many of its pictures, and each has 16 x 16 pixels",
    "c04-fddf4a": "11: a column for each of the five families of lesions",
}
LONGEST = 24  # slides on the way of the arrow to the right, with those that the plan adds


def read(path):
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_is_tagged_by_the_rule(path):
    before = [slides.slide_type(cell) for cell in read(path).cells]
    after = [slides.slide_type(cell) for cell in slides.tag(read(path)).cells]
    assert before == after, "run `python tools/slides.py`"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_slides_begin_with_a_heading_and_hold_what_fits(path):
    notebook = read(path)
    main_line = slides.main_line(notebook)
    of_plan = [any(map(slides.is_planned, screen)) and slides.heading(screen[0]) not in (1, 2) for screen in main_line]
    begins = [screen[0] for screen, added in zip(main_line, of_plan, strict=True) if not added]
    assert FEWEST <= len(begins) <= MOST, f"{len(begins)} slides: the title and each ## heading; {FEWEST} to {MOST} fit"
    assert all(slides.heading(cell) for cell in begins)
    assert len(main_line) <= LONGEST
    for stack in slides.stacks(notebook):
        assert len(stack) == 1 or sum(map(slides.height, stack)) <= slides.SCREEN, stack[0].source[:80]
        assert sum(map(slides.shows_picture, stack)) <= 1, stack[0].source[:80]
        assert sum(str(cell.get("outputs")).count("<table") for cell in stack) <= 2, stack[0].source[:80]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_widget_and_card_is_on_a_slide(path):
    widgets = [cell for cell in read(path).cells if "course-widget" in str(cell.get("outputs"))]
    assert widgets, "a lesson has at least one widget or card"
    assert [cell.source[:80] for cell in widgets if slides.slide_type(cell) == "skip"] == []


def test_figures_have_few_pictures():
    """Each stored figure says how many it has, as measured when it was drawn; one from before it did is passed over."""
    found = {}
    for path in PATHS:
        for cell in read(path).cells:
            for output in cell.get("outputs", []):
                if number := output.get("metadata", {}).get("pictures"):
                    found[path.stem, cell.id] = max(number, found.get((path.stem, cell.id), 0))
    assert len(found) >= 50, "re-execute the notebooks: their figures do not say how many pictures they have"
    assert {place: n for place, n in found.items() if n > PICTURES and place[1] not in MORE} == {}


def picture(source):
    output = nbformat.v4.new_output("display_data", {"text/html": '<img alt="x">'})
    return new_code_cell(source, outputs=[output])


def kinds(*cells):
    notebook = new_notebook(cells=[copy.deepcopy(cell) for cell in cells])
    for number, cell in enumerate(notebook.cells):
        cell.id = f"c{number}"
    return [slides.slide_type(cell) for cell in slides.tag(notebook).cells]


def test_rule():
    title, heading = new_markdown_cell("# Title"), new_markdown_cell("## 1 · First")
    set_up, text = new_code_cell("import torch"), new_markdown_cell("Words.")
    assert kinds(title, set_up, text, heading, picture("draw()"), text) == [
        "slide", "skip", None, "slide", None, "subslide",
    ]  # fmt: skip
    exercise = new_markdown_cell("### Exercise 1")
    assert kinds(title, heading, exercise, text, new_code_cell("ex.q1"), heading) == [
        "slide", "slide", "skip", "skip", "skip", "slide",
    ]  # fmt: skip
    silent, read = new_code_cell("x = 1"), new_code_cell("x = 1\n" * 20, metadata={"tags": ["slide-code"]})
    assert kinds(title, heading, silent, read, read) == ["slide", "slide", "skip", None, "subslide"]
    talk = new_code_cell("x", outputs=[nbformat.v4.new_output("stream", name="stdout", text="line\n" * 20)])
    assert kinds(title, heading, talk, talk) == ["slide", "slide", None, "subslide"]
    prose = new_markdown_cell("word " * 250)
    assert kinds(title, heading, prose, prose) == ["slide", "slide", None, "subslide"]
    quiz = new_code_cell("quiz.q1.check(...)")
    assert kinds(title, heading, new_markdown_cell("### LO1"), quiz, heading) == [
        "slide", "slide", "skip", "skip", "slide",
    ]  # fmt: skip
    planned = new_code_cell("y", outputs=talk.outputs, metadata={"tags": ["plan"]})
    small = new_markdown_cell("### Details")
    assert kinds(title, heading, talk, planned, talk) == ["slide", "slide", None, "slide", "subslide"]
    assert kinds(title, heading, small, text, planned, small) == ["slide", "slide", "slide", None, None, "subslide"]
    table = new_code_cell("t", outputs=[nbformat.v4.new_output("display_data", {"text/html": "<table></table>"})])
    assert kinds(title, heading, table, table, table) == ["slide", "slide", None, None, "subslide"]
    chosen = new_markdown_cell("### Its author wants a slide", metadata={"slideshow": {"slide_type": "slide"}})
    assert kinds(title, heading, chosen, new_markdown_cell("### Not this one")) == [
        "slide", "slide", "slide", "subslide",
    ]  # fmt: skip
