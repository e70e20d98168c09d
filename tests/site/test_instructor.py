"""docs/instructor.md: the plan adds up and names what the notebooks have; the questions are those of the cards."""

import itertools
import json
import re
from pathlib import Path

import cell_times
import live
import nbformat
import pytest
import slides
import widget_driver
from nbformat.v4 import new_notebook

ROOT = Path(__file__).resolve().parents[2]

TEXT = (ROOT / "docs" / "instructor.md").read_text(encoding="utf-8")
AIR = "–"  # in the place of the section: welcome, questions, change of notebooks
NOTEBOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
PARTS = re.findall(r"^### Part (\d) · .+?\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
# A question stands alone, above the table of its answers, or in a row of a table, above the rows of its answers:
# (notebook, section, question, rows)
QUESTIONS = re.findall(
    r"^(?:\| )?\*\*(\d\d), section ([^.*]+)\.\*\* (.+?)(?: \| \| \|)?\n\n?((?:\|(?! \*\*\d\d, section).*\n)+)",
    TEXT,
    re.MULTILINE,
)


def plan(part):
    """Rows of a part's table: (clock, minutes, notebook, section, what is on the screen, one thing after the other)."""
    rows = re.findall(cell_times.ROW, dict(PARTS)[part], re.MULTILINE)
    return [
        (clock, int(minutes), number, section.strip(), [thing.strip() for thing in shown.split(";")])
        for clock, minutes, number, section, shown, _ in rows
    ]


def read(number):
    return nbformat.read(NOTEBOOKS[number], as_version=4)


def place(number):
    """What a notebook's first cell says of its place in the course."""
    found = re.search(r"\*\*Place in the course:\*\*(.+?)(?:\n\n|$)", read(number).cells[0].source, re.DOTALL)
    assert found, "the first cell needs: **Place in the course:** Part N, live M minutes"
    return found.group(1)


ROWS = [row for part, _ in PARTS for row in plan(part)]
SHOWN = [row for row in ROWS if row[3] != AIR]


def test_there_are_four_parts_with_the_notebooks_that_live_mode_prepares():
    assert [part for part, _ in PARTS] == ["1", "2", "3", "4"]
    for part, _ in PARTS:
        assert tuple(dict.fromkeys(row[2] for row in plan(part))) == live.PARTS[int(part)]


@pytest.mark.parametrize("part", ["1", "2", "3", "4"])
def test_an_hour_has_sixty_minutes_and_its_clock_is_right(part):
    total = 0
    for clock, minutes, *_ in plan(part):
        assert clock == f"{total // 60}:{total % 60:02d}"
        total += minutes
    assert total == 60


@pytest.mark.parametrize("part", ["1", "2", "3", "4"])
def test_an_hour_has_five_minutes_of_air_at_its_beginning_each_change_and_its_end(part):
    rows = plan(part)
    assert sum(minutes for _, minutes, _, section, _ in rows if section == AIR) >= 5
    changes = [row for row, after in itertools.pairwise(rows) if row[2] != after[2] and row[2] != "00"]
    assert [row for row in (rows[0], *changes, rows[-1]) if row[3] != AIR] == []


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_plan_gives_each_notebook_the_minutes_and_sections_of_its_first_cell(number):
    rows = [row for row in ROWS if row[2] == number]
    stated = re.search(r"live (\d+) minutes", place(number))
    assert sum(row[1] for row in rows) == int(stated.group(1)), "give it as many minutes in docs/instructor.md's plan"
    named = re.search(r"live \d+ minutes \(sections ([\d, and]+)\)", place(number))
    if named:
        assert [row[3] for row in rows if row[3] != AIR] == re.findall(r"\d+", named.group(1))


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_sections_of_the_plan_exist(number):
    there = cell_times.sections(read(number))
    assert [row[3] for row in SHOWN if row[2] == number and row[3] not in there] == []


def planned_cells(number, section):
    """Cells of a section that have the tag by which the plan calls them, in order."""
    notebook = read(number)
    return [cell for k in cell_times.sections(notebook)[section] if slides.is_planned(cell := notebook.cells[k])]


def kind(cell):
    """What a cell is in class: "stepper", "live" or "predict" (a card); "code" that the room reads, or ""."""
    widgets = widget_driver.stored(new_notebook(cells=[cell]))
    return widgets[0] if widgets else "code" if slides.shows_code(cell) else ""


@pytest.mark.parametrize(("number", "section", "things"), [row[2:] for row in SHOWN], ids=lambda value: str(value)[:12])
def test_each_thing_in_a_row_of_the_plan_has_its_cell(number, section, things):
    """As many cells as things, in their order; what the row calls a card is one, and all that moves is in bold."""
    found = planned_cells(number, section)
    assert len(things) == len(found), [cell.id for cell in found]
    for thing, cell in zip(things, found, strict=True):
        assert thing.lower().startswith("card:") == (kind(cell) == "predict"), (thing, cell.id)
        allowed = ("stepper", "live", "code") if "**" in thing else ("predict", "code", "")
        assert kind(cell) in allowed, (thing, cell.id)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_arrow_right_meets_the_rows_of_the_plan_in_order(number):
    """All screens of the main line, one after another, hold the planned cells, and no cell is planned without a row."""
    rows = [row for row in SHOWN if row[2] == number]
    wanted = [cell.id for row in rows for cell in planned_cells(number, row[3])]
    main_line = [cell.id for screen in slides.main_line(read(number)) for cell in screen if slides.is_planned(cell)]
    assert wanted == main_line
    assert wanted == [cell.id for cell in read(number).cells if slides.is_planned(cell)]


def test_measured_seconds_are_those_of_the_measurement():
    times = json.loads(cell_times.TIMES.read_text(encoding="utf-8"))
    assert cell_times.filled(TEXT, times) == TEXT, "run `python tools/cell_times.py`"


def cards(number):
    """Prediction cards of a notebook, as it shows them: section -> (question, options, right option) of each."""
    found, notebook = {}, read(number)
    where = {cell: section for section, cells in cell_times.sections(notebook).items() for cell in cells}
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "course-predict" in data.get("text/html", ""):
                shown = re.match(r"Predict, then run\. (.+)\n((?:  \( \) .+\n)+)", data["text/plain"])
                options = re.findall(r"\( \) (.+)", shown.group(2))
                answer = int(re.search(r"const answer = (\d+);", data["text/html"]).group(1))
                found.setdefault(where[index], []).append((shown.group(1), options, options[answer]))
    return found


def plain(text):
    """The text of a table's field, where | is written \\|."""
    return text.replace(r"\|", "|")


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_every_card_of_a_section_that_the_plan_shows_has_its_answers(number):
    """And no other card has: in class nobody sees it."""
    planned = [row[3] for row in ROWS if row[2] == number]
    shown = sorted((section, card[0]) for section, found in cards(number).items() for card in found)
    written = sorted((section, plain(question)) for other, section, question, _ in QUESTIONS if other == number)
    assert written == [(section, question) for section, question in shown if section in planned]


def test_the_plan_says_where_a_card_is():
    """A row says so where there is one; each test of the last notebook begins with one."""
    for part, text in PARTS:
        for _, _, number, section, shown, _ in re.findall(cell_times.ROW, text, re.MULTILINE):
            says = bool(re.search(r"\bcard\b", shown, re.IGNORECASE))
            has = section.strip() in cards(number)
            assert has if section.startswith("Test ") else says == has, f"Part {part}: {number}, {section}"


@pytest.mark.parametrize(
    ("number", "section", "question", "table"), QUESTIONS, ids=[f"{q[0]}-{q[1]}" for q in QUESTIONS]
)
def test_a_question_has_the_answers_of_its_card_in_their_order(number, section, question, table):
    """In their order, as votes are counted by number."""
    (found,) = [card for card in cards(number)[section] if card[0] == plain(question)]
    rows = re.findall(r"^\| (.+?) \| (right|wrong) \| (.+?) \|$", table, re.MULTILINE)
    assert [plain(text) for text, *_ in rows] == found[1]
    assert [plain(text) for text, verdict, _ in rows if verdict == "right"] == [found[2]]
    assert all(len(say.split()) >= 3 for *_, say in rows)


def test_every_notebook_with_a_live_widget_has_a_fallback():
    import cells

    fallbacks = TEXT[TEXT.index("The demos and their stored twins") :]
    for number in NOTEBOOKS:
        if cells.live_cells(read(number)):
            assert re.search(rf"^\| {number}, ", fallbacks, re.MULTILINE), number
