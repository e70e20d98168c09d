"""Slide tags of the notebooks, for the deck of JupyterLab (jupyterlab-slideshow): sections go right, details go down.

    python tools/slides.py            tag every notebook in notebooks/, and fold its predictions
    python tools/slides.py PATH ...   these

The rule, cell by cell, so that an edited notebook is tagged anew by one command and a test can say that it was:

- the title, every `##` heading, and any other heading that its author tagged, starts a `slide`;
- any other `###` heading starts a `subslide`, reached by the arrow down;
- so does what follows a picture or a widget, a cell that no longer fits below the rest, and a third table;
- a screen with a cell that has the tag `plan` is a `slide`, whatever begins it: the plan of docs/instructor.md shows
  this cell, so the arrow to the right has to meet it;
- set-up, exercises, their answers and the quiz are `skip`: they are for self-study, and stay in the notebook. So is
  code that shows nothing, unless its author gave it the tag `slide-code`: it is a sampler that the room should read.

On a slide, a cell that shows something hides its code (tools/live.py): its lines are those of what it prints.

The code of a card that asks for a prediction holds the answer, so the same command folds its cell: in JupyterLab, in
its deck and on the site by `jupyter.source_hidden`, on Colab by a form with a title.
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
SCREEN = 1040  # pixels of height, on a projector with 1080, in the type of tools/live.py
LINE, TEXT_LINE, CHARACTERS = 42, 31, 115  # of prose; of code and of what it prints; characters in a line of prose
HEADING, FORMULA, ROW, MARGIN = 85, 120, 52, 22
FIGURE, SHARED, WIDGET, CARD, CHOICE = 700, 480, 760, 265, 50  # SHARED: one of several figures of a cell
TABLES = 2  # on one screen, at most
SHOW_CODE, PLAN = "slide-code", "plan"
PREDICTION, TITLE = r"\bwidgets\.predict\(", "# @title "
EXERCISE = r"^(?:ex|quiz)\.|^\w+ = ex\.|\b(?:ex|quiz)\.q\d+\.check|^(?:from|import) .*exercises"


def heading(cell):
    """The level of the heading with which a markdown cell begins, or 0."""
    found = re.match(r"(#+) ", cell.source.lstrip()) if cell.cell_type == "markdown" else None
    return len(found.group(1)) if found else 0


def shows_picture(cell):
    """True for a code cell with a figure, a widget or a card among its stored outputs."""
    outputs = cell.get("outputs", [])
    return any("<img" in markup_of(output) or "course-widget" in markup_of(output) for output in outputs)


def markup_of(output):
    """The HTML of an output, "" if it has none."""
    markup = output.get("data", {}).get("text/html", "")
    return markup if isinstance(markup, str) else "".join(markup)


def tables(cell):
    """The number of tables among a code cell's stored outputs."""
    return sum(markup_of(output).count("<table") for output in cell.get("outputs", []))


def shows_code(cell):
    """True for a code cell whose code is on its slide: one that its author tagged."""
    return cell.cell_type == "code" and SHOW_CODE in cell.metadata.get("tags", [])


def is_planned(cell):
    """True for a cell that the plan of docs/instructor.md shows."""
    return PLAN in cell.metadata.get("tags", [])


def printed(cell):
    """What a cell printed."""
    return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")


def height(cell):
    """The height in pixels of a cell on its slide, by rule of thumb."""
    return prose_height(cell.source) if cell.cell_type == "markdown" else output_height(cell)


def prose_height(source):
    """The height of Markdown: headings, formulas, tables, lists and paragraphs; what is folded away is one line."""
    source = re.sub(r"<details>.*?</details>", "(folded)", source, flags=re.DOTALL)
    total = 0
    for block in re.split(r"\n\s*\n", source.strip()):
        lines = block.splitlines()
        if lines and lines[0].startswith("#"):
            total += HEADING
            lines = lines[1:]
        if lines and lines[0].startswith("|"):
            total += ROW * len(lines)
        elif lines and lines[0].startswith("$$"):
            total += FORMULA
        elif lines:
            total += MARGIN + LINE * sum(1 + len(line) // CHARACTERS for line in lines)
    return total


def output_height(cell):
    """The height of what a code cell shows: its code if tagged, what it printed, figures, widgets, cards."""
    lines = len(printed(cell).splitlines()) + (len(cell.source.splitlines()) if shows_code(cell) else 0)
    shown = "".join(map(markup_of, cell.get("outputs", [])))
    figures, choices = shown.count('<img class="course-figure"'), shown.count('type="radio"')
    total = MARGIN + TEXT_LINE * (lines + shown.count("<tr")) + (FIGURE if figures == 1 else SHARED * figures)
    return total + (CARD + CHOICE * choices if choices else WIDGET * ("course-frame" in shown))


def tag(notebook):
    """Set `slideshow.slide_type` of every cell by the rule above; tagging twice changes nothing."""
    skipped = exercises(notebook.cells)
    started = pictured = False
    there = tabled = 0
    for number, cell in enumerate(notebook.cells):
        level, kind = heading(cell), None
        if number in skipped or is_plumbing(cell) or (cell.cell_type == "code" and not started):
            kind = "skip"
        elif number == 0 or level == 2 or (level and slide_type(cell) == "slide"):
            kind = "slide"
        elif level or pictured or there + height(cell) > SCREEN or tabled + tables(cell) > TABLES:
            kind = "subslide"
        started = started or level == 2
        if kind in ("slide", "subslide"):
            there, tabled, pictured = 0, 0, False
        if kind != "skip":
            there, tabled = there + height(cell), tabled + tables(cell)
            pictured = pictured or shows_picture(cell)
        if kind:
            cell.metadata["slideshow"] = {"slide_type": kind}
        else:
            cell.metadata.pop("slideshow", None)
    for screen in stacks(notebook):
        if any(map(is_planned, screen)):
            screen[0].metadata["slideshow"]["slide_type"] = "slide"
    return notebook


def fold_predictions(notebook):
    """Fold the cells that ask for a prediction, and give them a title where they have none; twice changes nothing.

    Execution counts and outputs stay: the title is a comment.
    """
    for cell in filter(is_prediction, notebook.cells):
        cell.metadata["cellView"] = "form"
        cell.metadata["jupyter"] = {**cell.metadata.get("jupyter", {}), "source_hidden": True}
        if not cell.source.startswith(TITLE):
            cell.source = f"{TITLE}Predict, then run\n{cell.source}"
    return notebook


def is_prediction(cell):
    """True for a code cell whose lines hold the answer of a card that asks for a prediction."""
    return cell.cell_type == "code" and re.search(PREDICTION, cell.source) is not None


def exercises(cells):
    """Numbers of the cells that belong to exercises: those that show or check one, and from a heading "Exercise" below
    the sections' level, or one that an exercise follows at once, to the last of these before the next heading."""
    found, begin = set(), None
    for number, cell in enumerate(cells):
        if heading(cell):
            follows = cells[number + 1 : number + 2]
            of_exercise = "Exercise" in cell.source.splitlines()[0] or any(map(is_exercise, follows))
            begin = number if heading(cell) > 2 and of_exercise else None
        if is_exercise(cell):
            found |= set(range(number if begin is None else begin, number + 1))
    return found


def is_exercise(cell):
    """True for a code cell that shows or checks an exercise."""
    return cell.cell_type == "code" and re.search(EXERCISE, cell.source, re.MULTILINE) is not None


def is_plumbing(cell):
    """True for code that shows nothing and is not tagged to be read."""
    return cell.cell_type == "code" and not cell.get("outputs") and not shows_code(cell)


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


def main_line(notebook):
    """The screens that the arrow to the right shows, without those that only the arrow down reaches."""
    return [screen for screen in stacks(notebook) if slide_type(screen[0]) == "slide"]


def main(arguments):
    """Entry point."""
    for path in map(Path, arguments or sorted(map(str, (ROOT / "notebooks").glob("*.ipynb")))):
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(tag(fold_predictions(notebook)), path)
        print(f"{path.name}: {len(main_line(notebook))} slides, {len(stacks(notebook))} screens")


if __name__ == "__main__":
    main(sys.argv[1:])
