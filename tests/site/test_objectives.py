"""The map of objectives, notebooks, exercises and quiz questions says what the notebooks and exercises say."""

import importlib
import re
from pathlib import Path

import nbformat
import pytest

from course_lib.exercises import nb_quiz
from course_lib.exercises.exercise import Exercise
from course_lib.exercises.objectives import LESSONS, OBJECTIVES, QUIZ, notebooks, questions, table

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
MODULES = sorted(path.stem[2:] for path in (ROOT / "course_lib" / "exercises").glob("nb[0-9][0-9].py"))


def names(module):
    return [name for name, value in vars(module).items() if isinstance(value, Exercise)]


def markdown(number):
    """The markdown cells of a notebook, title cell first."""
    return [c.source for c in nbformat.read(NOTEBOOKS[number], 4).cells if c.cell_type == "markdown"]


def claimed(text):
    """Objectives in brackets: "(LO2, LO4)"."""
    return {name for group in re.findall(r"\((LO\d(?:, LO\d)*)\)", text) for name in group.split(", ")}


def rows(text):
    """{number: line} of a table of notebooks in Markdown."""
    return {row[0]: row[1] for row in re.findall(r"^\|\s*(\d\d)\s*(\|.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_has_three_questions_and_exercises_in_two_notebooks(objective):
    assert len(questions(objective)) >= 3
    assert sum(bool(found) for found in notebooks(objective).values()) >= 2


@pytest.mark.parametrize("number", MODULES)
def test_every_exercise_stands_once_in_the_map(number):
    listed = [name for found in LESSONS[number].exercises.values() for name in found.split()]
    assert sorted(listed) == sorted(names(importlib.import_module(f"course_lib.exercises.nb{number}"))), (
        "add each exercise of the module to its notebook in course_lib/exercises/objectives.py, under one objective"
    )


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_exercises_come_in_the_order_of_their_numbers(number):
    cells = [c.source.strip() for c in nbformat.read(NOTEBOOKS[number], 4).cells if c.cell_type == "code"]
    shown = [match[1] for cell in cells if (match := re.search(r"^(?:display\()?ex\.(q\d)\)?$", cell, re.M))]
    assert shown == names(importlib.import_module(f"course_lib.exercises.nb{number}"))


def test_lessons_without_a_module_list_no_exercises():
    without = [lesson.exercises for number, lesson in LESSONS.items() if number not in MODULES]
    assert not any(found for exercises in without for found in exercises.values())


def test_every_quiz_question_stands_once_in_the_map():
    assert list(QUIZ) == names(nb_quiz)
    assert 15 <= len(QUIZ) <= 18


@pytest.mark.parametrize("name", QUIZ)
def test_question_names_its_objective_and_a_section_that_exists(name):
    place = QUIZ[name]
    assert getattr(nb_quiz, name).q.startswith(f"{place.objective}. Answered in {place.where}.\n\n")
    assert place.objective in LESSONS[place.notebook].exercises, "a notebook answers for what it claims"
    if place.notebook in NOTEBOOKS:
        numbered = {int(n) for n in re.findall(r"^## (\d+) ·", "\n".join(markdown(place.notebook)), re.MULTILINE)}
        assert set(place.sections) <= numbered


def test_every_claim_of_a_notebook_is_tested_by_an_exercise_or_a_question():
    claims = {(number, objective) for number in MODULES for objective in LESSONS[number].exercises}
    by_exercise = {(number, objective) for number, objective in claims if LESSONS[number].exercises[objective]}
    by_question = {(place.notebook, place.objective) for place in QUIZ.values()}
    assert not claims - by_exercise - by_question


def test_lessons_are_those_of_the_readme():
    listed = rows((ROOT / "README.md").read_text(encoding="utf-8"))
    assert list(listed) == list(LESSONS)
    for number, lesson in LESSONS.items():
        assert lesson.title in listed[number]
    assert set(NOTEBOOKS) <= set(LESSONS)


@pytest.mark.parametrize("number", NOTEBOOKS)
def test_title_cell_claims_what_the_map_says(number):
    assert number in LESSONS, "add the notebook to LESSONS of course_lib/exercises/objectives.py"
    assert claimed(markdown(number)[0]) == set(LESSONS[number].exercises)


def test_notebook_00_agrees():
    text = "\n".join(markdown("00"))
    for name, words in OBJECTIVES.items():
        assert f"- **{name}** {words}\n" in text
    course = rows(text)
    assert list(course) == list(LESSONS)
    for number, line in course.items():
        mentioned = set(re.findall(r"LO\d", line))
        assert mentioned and mentioned <= set(LESSONS[number].exercises), "its table names the main ones of each"


def test_summary_counts_each_objective(capsys):
    nb_quiz.summary()
    shown = capsys.readouterr().out
    for objective in OBJECTIVES:
        assert f"{objective}: 0 of {len(questions(objective))}" in shown


def test_table_shows_all_in_markup_and_in_words():
    page = table()
    for text in (page.markup, page.text):
        assert all(name in text for name in (*OBJECTIVES, *QUIZ, *LESSONS))


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_messages_name_commands_that_run_in_the_notebook(notebook):
    """`ex.q1.hint()`, where the notebook says `from course_lib.exercises import nb03 as ex`."""
    source = "\n".join(cell.source for cell in nbformat.read(NOTEBOOKS[notebook], 4).cells if cell.cell_type == "code")
    imported = re.findall(r"from course_lib\.exercises import (nb_?\w+) as (\w+)", source)
    assert imported
    for module, name in imported:
        exercises = importlib.import_module(f"course_lib.exercises.{module}")
        assert {getattr(exercises, key).module for key in names(exercises)} == {name}
