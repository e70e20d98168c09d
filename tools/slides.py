"""Slide tags of the notebooks, for the deck of JupyterLab (jupyterlab-slideshow): sections go right, details go down.

    python tools/slides.py            tag every notebook in notebooks/
    python tools/slides.py PATH ...   tag these

The rule, cell by cell, so that an edited notebook is tagged anew by one command and a test can say that it was:

- the title, every `##` heading, and any other heading that its author tagged, starts a `slide`;
- any other `###` heading starts a `subslide`, reached by the arrow down;
- so does what follows a picture or a widget, and a cell whose code or words no longer fit under what is there;
- set-up, exercises and their answers are `skip`: they are for self-study, and stay in the notebook.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CODE_LINES = 26  # of large type on a projector's 1080 rows; no cell of the course is longer than 25
WORDS = 160
EXERCISE = r"^ex\.|^\w+ = ex\.|\bex\.q\d+\.check|^(?:from|import) .*exercises"


def heading(cell):
    """The level of the heading with which a markdown cell begins, or 0."""
    found = re.match(r"(#+) ", cell.source.lstrip()) if cell.cell_type == "markdown" else None
    return len(found.group(1)) if found else 0


def shows_picture(cell):
    """True for a code cell with a figure, a widget or a card among its stored outputs."""
    outputs = cell.get("outputs", [])
    return any("<img" in _html(output) or "course-widget" in _html(output) for output in outputs)


def _html(output):
    markup = output.get("data", {}).get("text/html", "")
    return markup if isinstance(markup, str) else "".join(markup)


def lines_of(cell):
    """The lines of code that a cell puts on a slide."""
    return len(cell.source.strip().splitlines()) if cell.cell_type == "code" else 0


def words_of(cell):
    """The words of prose that a cell puts on a slide."""
    return len(cell.source.split()) if cell.cell_type == "markdown" else 0


def _overflows(there, more, limit):
    return there and more and there + more > limit


def tag(notebook):
    """Set `slideshow.slide_type` of every cell by the rule above; tagging twice changes nothing."""
    skipped = exercises(notebook.cells)
    started = pictured = False
    lines = words = 0
    for number, cell in enumerate(notebook.cells):
        level, code, prose, kind = heading(cell), lines_of(cell), words_of(cell), None
        full = _overflows(lines, code, CODE_LINES) or _overflows(words, prose, WORDS)
        if number in skipped or (code and not started):
            kind = "skip"
        elif number == 0 or level == 2 or (level and slide_type(cell) == "slide"):
            kind = "slide"
        elif level or pictured or full:
            kind = "subslide"
        started = started or level == 2
        if kind in ("slide", "subslide"):
            lines, words, pictured = 0, 0, False
        if kind != "skip":
            lines, words, pictured = lines + code, words + prose, pictured or shows_picture(cell)
        if kind:
            cell.metadata["slideshow"] = {"slide_type": kind}
        else:
            cell.metadata.pop("slideshow", None)
    return notebook


def exercises(cells):
    """Numbers of the cells that belong to exercises: those that show or check one, and from a heading "Exercise" below
    the sections' level to the last of these before the next heading."""
    found, begin = set(), None
    for number, cell in enumerate(cells):
        if heading(cell):
            begin = number if heading(cell) > 2 and "Exercise" in cell.source.splitlines()[0] else None
        if is_exercise(cell):
            found |= set(range(number if begin is None else begin, number + 1))
    return found


def is_exercise(cell):
    """True for a code cell that shows or checks an exercise."""
    return cell.cell_type == "code" and re.search(EXERCISE, cell.source, re.MULTILINE) is not None


def slide_type(cell):
    """The tag of a cell, or None."""
    return cell.metadata.get("slideshow", {}).get("slide_type")


def stacks(notebook):
    """What a press on an arrow shows: a list of cells for each slide and subslide, without the skipped ones."""
    found = []
    for cell in notebook.cells:
        if slide_type(cell) in ("slide", "subslide"):
            found.append([])
        if slide_type(cell) != "skip":
            found[-1].append(cell)
    return found


def main(arguments):
    """Entry point."""
    for path in map(Path, arguments or sorted(map(str, (ROOT / "notebooks").glob("*.ipynb")))):
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(tag(notebook), path)
        slides = [cell for cell in notebook.cells if slide_type(cell) == "slide"]
        print(f"{path.name}: {len(slides)} slides, {len(stacks(notebook))} screens")


if __name__ == "__main__":
    main(sys.argv[1:])
