"""Every exercise of every notebook keeps its promises: they stand in helpers/promises.py."""

import importlib
import pkgutil

import pytest
from helpers.promises import promises

import course_lib.exercises
from course_lib.exercises.exercise import Exercise

MODULES = sorted(m.name for m in pkgutil.iter_modules(course_lib.exercises.__path__) if m.name.startswith("nb"))


def all_promises():
    for name in MODULES:
        for label, test in promises(importlib.import_module(f"course_lib.exercises.{name}")):
            yield pytest.param(test, id=f"{name} {label}")


@pytest.mark.parametrize("promise", list(all_promises()))
def test_exercise(promise):
    promise()


def exercises():
    for name in MODULES:
        for value in vars(importlib.import_module(f"course_lib.exercises.{name}")).values():
            if isinstance(value, Exercise):
                yield pytest.param(value, id=f"{name} {value.name}")


@pytest.mark.parametrize("exercise", list(exercises()))
def test_right_answers_in_other_forms_are_listed(exercise):
    if not exercise.options:
        assert exercise.also_right, "list right answers in another form than the solution's: also_right=[...]"
