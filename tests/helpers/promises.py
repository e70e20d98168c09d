"""What every exercise promises, each promise as a test: the loop over right answers, mistakes and nonsense.

The tests run it over the modules of `course_lib.exercises` and over the example of docs/adding.md.
"""

import functools
import itertools
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch

from course_lib.exercises.exercise import Exercise
from course_lib.viz.arrays import as_array


def promises(module):
    """Yield (label, test) for every promise of a module's exercises; a test raises AssertionError if it is broken.

    Promises: the solution passes, and so do right answers in other forms; at least three plausible mistakes; each
    mistake is caught by the test meant for it, with that test's message; nonsense is refused politely; unanswered is no
    failure; hints, question and solution have words.
    """
    items = {name: value for name, value in vars(module).items() if isinstance(value, Exercise)}
    yield "the module has exercises and a summary", lambda: _check_module(module, items)
    for name, item in items.items():
        yield f"{name}: the solution passes", _bind(_check_solution, item)
        for index, answer in enumerate([*item.also_right, *other_forms(item)], 1):
            yield f"{name}: right answer {index} in another form", _bind(_check_right, item, answer)
        yield f"{name}: at least three mistakes", _bind(_check_count, item)
        yield f"{name}: words", _bind(_check_words, item)
        yield f"{name}: unanswered", _bind(_check_unanswered, item)
        for index, wrong in enumerate([*item.mistakes, *item.generated], 1):
            yield (
                f"{name}: mistake {index} fails {wrong.fails!r} {wrong.why}".strip(),
                _bind(_check_mistake, item, wrong),
            )
        for label, answer in _nonsense(item):
            yield f"{name}: nonsense, {label}", _bind(_check_nonsense, item, answer)


def other_forms(item):
    """The solution of an exercise as learners may write it: other types of numbers, arrays, letters and lists."""
    if callable(item.answer):
        return _forms_of_function(item.answer)
    if isinstance(item.answer, float):
        return _forms_of_number(item.answer)
    if isinstance(item.answer, str):
        return _forms_of_choice(item.answer, item.options[item.answer])
    return _forms_of_choices(sorted(item.answer), item.options)


def _forms_of_number(value):
    text = f"{value:.6f}"
    return [
        np.float32(value), np.array([[value]]), torch.tensor(value), torch.tensor([value]), [value], (value,),
        Fraction(value), Decimal(text), text, text.replace(".", ","), f"{100 * value:.6f} %",
        f"= {text}", f"≈{text}",
    ]  # fmt: skip


def _forms_of_function(right):
    def returning(form):
        def answer(*args):
            result = right(*args)
            return [form(part) for part in result] if isinstance(result, (tuple, list)) else form(result)

        return answer

    return [
        functools.partial(right),
        returning(as_array),
        returning(lambda result: as_array(result).astype(np.float32)),
        returning(lambda result: as_array(result).tolist()),
        returning(lambda result: torch.as_tensor(result).to(torch.float64)),
        returning(lambda result: torch.as_tensor(result).to(torch.float32)),
        returning(lambda result: result[None] if np.ndim(result) == 0 else result),
    ]


def _forms_of_choice(key, text):
    return [
        key.upper(), f" {key}. ", f"({key})", f"'{key}'", [key], (key,), {key}, np.array([key]), text, f"{key}) {text}",
        f"{key}: {text}",
    ]  # fmt: skip


def _forms_of_choices(keys, options):
    *first, last = keys
    return [
        "".join(keys), "".join(keys).upper(), "/".join(keys), ", ".join(keys), " ".join(reversed(keys)),
        f"{', '.join(first)} and {last}", f"{', '.join(first)} & {last}.", keys, tuple(keys), set(keys), np.array(keys),
        [key.upper() for key in keys], [f"{key})" for key in keys], [options[key] for key in keys],
        dict.fromkeys(keys, True),
    ]  # fmt: skip


def _bind(check, *args):
    return lambda: check(*args)


def _check_module(module, items):
    assert items, f"{module.__name__} defines no exercise"
    assert callable(getattr(module, "summary", None)), "end the module with: summary = Exercises(vars()).summary"
    assert all(item.name == name for name, item in items.items()), "an exercise was defined after Exercises(vars())"


def _check_solution(item):
    verdict = item.grade(item.answer)
    assert verdict.status == "right", f"the solution fails {verdict.test!r}: {verdict.message} {verdict.seen}"


def _check_right(item, answer):
    verdict = item.grade(answer)
    assert verdict.status == "right", (
        f"this right answer is refused by {verdict.test!r}: {verdict.message} {verdict.seen}: {answer!r}"
    )


def _check_count(item):
    assert len(item.mistakes) >= 3, f"{len(item.mistakes)} mistakes: give at least three plausible wrong answers"


def _check_words(item):
    assert item.q, "no question"
    assert item.hints, "no hint"
    assert all(hint.strip() for hint in item.hints), "an empty hint"
    assert item.code, "the solution shows nothing"
    assert item.explanation, "the solution explains nothing"
    assert all(len(step.message.split()) >= 4 for step in item._steps), "a message must say what is likely wrong"


def _check_unanswered(item):
    for answer in (None, ..., [...]):
        assert item.grade(answer).status == "unanswered", f"{answer!r} counts as an answer"


def _check_mistake(item, wrong):
    verdict = item.grade(wrong.answer)
    assert verdict.status == "wrong", f"this wrong answer passes: {wrong}"
    assert verdict.test == wrong.fails, (
        f"caught by {verdict.test!r} ({verdict.message} {verdict.seen}), not {wrong.fails!r}"
    )
    own = {step.name: step.message for step in item._steps}
    assert verdict.message == own.get(wrong.fails, verdict.message)


def _check_nonsense(item, answer):
    verdict = item.grade(answer)
    assert verdict.status in ("wrong", "unanswered"), "nonsense passes"
    page = item._verdict_page(verdict)
    assert "Traceback" not in page.text
    assert len(page.text.split()) > 4, "a refusal must say what was expected"


def _nonsense(item):
    yield "text", "I do not know"
    yield "not a number", float("nan")
    yield "infinite", float("inf")
    yield "an object", object()
    yield "an empty list", []
    yield "a wrong shape", np.zeros((3, 5, 7))
    yield "an array of NaN", np.full(4, np.nan)
    yield "a type", int
    yield "a complex number", 1j
    yield "a dictionary", {"answer": 1}
    yield "a generator that never ends", itertools.count()
    yield "an object that raises whatever one does with it", _Thorny()
    if callable(item.answer):
        yield from _nonsense_functions(item.answer)


class _Thorny:
    """Raises when looked at, compared, counted or written out."""

    def __getattr__(self, name):
        raise RuntimeError("no")

    __eq__ = __len__ = __iter__ = __float__ = __array__ = __repr__ = __bool__ = __getattr__
    __hash__ = None


def _nonsense_functions(right):
    def altered(change):
        def answer(*args):
            return change(right(*args))

        return answer

    def stops(*args):
        raise RuntimeError("on purpose")

    yield "a function that stops", stops
    yield "a function that returns None", altered(lambda result: None)
    yield "a function that returns text", altered(lambda result: "text")
    yield "a function that returns NaN", altered(lambda result: np.full(np.shape(as_array(result)), np.nan))
    yield "a function that returns infinity", altered(lambda result: np.full(np.shape(as_array(result)), np.inf))
    yield "a function that returns a wrong shape", altered(lambda result: np.zeros((2, 3, 5, 7)))
    yield "a function without arguments", lambda: 0
