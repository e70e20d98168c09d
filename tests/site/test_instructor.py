"""docs/instructor.md: the plan adds up and names what the notebooks have; the questions are those of the cards."""

import ast
import json
import re
from pathlib import Path

import cell_times
import live
import nbformat
import pytest

from course_lib.viz.html import prose

ROOT = Path(__file__).resolve().parents[2]

TEXT = (ROOT / "docs" / "instructor.md").read_text(encoding="utf-8")
NOTEBOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
PARTS = re.findall(r"^### Part (\d) · .+?\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL)
QUESTIONS = re.findall(
    r"^\*\*(\d\d), section ([^.*]+)\.\*\* (.+?)\n\n((?:\|.*\n)+)", TEXT, re.MULTILINE
)  # notebook, section, question, table


def plan(part):
    """Rows of a part's table: (clock, minutes, notebook, section)."""
    rows = re.findall(cell_times.ROW, dict(PARTS)[part], re.MULTILINE)
    return [(clock, int(minutes), number, section.strip()) for clock, minutes, number, section, _, _ in rows]


def read(number):
    return nbformat.read(NOTEBOOKS[number], as_version=4)


def place(number):
    """What a notebook's first cell says of its place in the course."""
    found = re.search(r"\*\*Place in the course:\*\*(.+?)(?:\n\n|$)", read(number).cells[0].source, re.DOTALL)
    assert found, "the first cell needs: **Place in the course:** Part N, live M minutes"
    return found.group(1)


ROWS = [row for part, _ in PARTS for row in plan(part)]


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


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_plan_gives_each_notebook_the_minutes_and_sections_of_its_first_cell(number):
    rows = [row for row in ROWS if row[2] == number]
    stated = re.search(r"live (\d+) minutes", place(number))
    assert sum(row[1] for row in rows) == int(stated.group(1)), "give it as many minutes in docs/instructor.md's plan"
    named = re.search(r"live \d+ minutes \(sections ([\d, and]+)\)", place(number))
    if named:
        assert [row[3] for row in rows] == re.findall(r"\d+", named.group(1))


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_sections_of_the_plan_exist(number):
    there = cell_times.sections(read(number))
    assert [row[3] for row in ROWS if row[2] == number and row[3] not in there] == []


def test_measured_seconds_are_those_of_the_measurement():
    times = json.loads(cell_times.TIMES.read_text(encoding="utf-8"))
    assert cell_times.filled(TEXT, times) == TEXT, "run `python tools/cell_times.py`"


def cards(number):
    """Prediction cards of a notebook: question -> (options, answer, section)."""
    found, notebook = {}, read(number)
    where = {cell: section for section, cells in cell_times.sections(notebook).items() for cell in cells}
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or "widgets.predict" not in cell.source:
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "predict":
                question = prose(ast.literal_eval(node.args[0]))
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                answer = node.args[2] if len(node.args) > 2 else named["answer"]
                options = node.args[1]
                if isinstance(options, ast.Dict):
                    texts = [prose(ast.literal_eval(key)) for key in options.keys]
                elif isinstance(options, ast.List):
                    texts = [prose(text) for text in ast.literal_eval(options)]
                else:
                    continue  # made by the notebook's own measurement
                if isinstance(answer, ast.Constant):
                    found[question] = (texts, prose(answer.value), where[index])
    return found


def test_every_part_has_three_or_four_questions():
    for numbers in live.PARTS.values():
        assert 3 <= sum(number in numbers for number, *_ in QUESTIONS) <= 4
    assert len(QUESTIONS) == TEXT.count("| Answer | |")


@pytest.mark.parametrize(
    ("number", "section", "question", "table"), QUESTIONS, ids=[f"{q[0]}-{q[1]}" for q in QUESTIONS]
)
def test_a_question_is_a_card_of_its_section_with_the_same_answers(number, section, question, table):
    if number not in NOTEBOOKS:
        pytest.skip(f"notebook {number} is not there yet")
    assert section in [row[3] for row in ROWS if row[2] == number], "shown in an hour's plan"
    options, answer, where = cards(number)[question]
    assert where == section
    rows = re.findall(r"^\| (.+?) \| (right|wrong) \| (.+?) \|$", table, re.MULTILINE)
    assert {text for text, *_ in rows} == set(options)
    assert [text for text, verdict, _ in rows if verdict == "right"] == [answer]
    assert all(len(say.split()) >= 5 for *_, say in rows)


def test_every_notebook_with_a_live_widget_has_a_fallback():
    import cells

    fallbacks = TEXT[TEXT.index("The demos and their stored twins") :]
    for number in NOTEBOOKS:
        if cells.live_cells(read(number)):
            assert re.search(rf"^\| {number}, ", fallbacks, re.MULTILINE), number
