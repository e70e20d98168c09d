"""Exercises that teach: `check` names the likely bug, `hint` gives one hint at a time, `solution` shows tested code.

An exercise is a right answer, tests that run from simple to subtle, and mistakes, each tied to the test that must catch
it. The same definitions serve the learner, the teacher and the test suite (tests/helpers/promises.py). A module of them
reads so:

    def noisy(x_0, eps, alpha, sigma):
        return alpha * x_0 + sigma * eps

    q1 = function(
        "Write `noisy(x_0, eps, alpha, sigma)`, the forward process.",
        solution=noisy,
        tests=[
            case("signal", (ones, 0 * ones, 0.8, 0.6), "Without noise alpha x_0 must remain. Is alpha squared?"),
            case("noise", (0 * ones, ones, 0.8, 0.6), "Without signal sigma eps must remain: sigma is no variance."),
        ],
        mistakes=[
            mistake(lambda x_0, eps, alpha, sigma: alpha**2 * x_0 + sigma * eps, "signal"),
            mistake(lambda x_0, eps, alpha, sigma: x_0 + sigma * eps, "signal"),
            mistake(lambda x_0, eps, alpha, sigma: alpha * x_0 + sigma**2 * eps, "noise"),
        ],
        also_right=[lambda x_0, eps, alpha, sigma: torch.lerp(eps, x_0, alpha) + (alpha + sigma - 1) * eps],
        hints=["Two terms.", "Each is a coefficient times an image."],
        explanation="x_t is Gaussian with mean alpha x_0 and standard deviation sigma.",
    )

    q2 = number(
        "The ODE variance is $2^{1-w}$. What is it at w = 3?",
        solution="2 ** (1 - 3)",
        mistakes=[
            (2 / (3 + 1), "That is the tilted density's variance; guidance does not sample from it."),
            (2**-3, "Check the exponent: 1 - w, not -w."),
            (0.5, "That is the standard deviation."),
        ],
        also_right=[Fraction(1, 4)],
        hints=["Put w into the exponent."],
    )

    summary = Exercises(vars()).summary

`choice` and `choices` ask for one or for several lettered options. In the notebook: `ex.q1` shows the question,
`ex.q1.check(noisy)`, `ex.q1.hint()`, `ex.q1.solution()`, `ex.summary()`. Unanswered (None, `...`, a function that is
still a stub: an empty body, a `...` left in it, its own `raise NotImplementedError`) is no error: running all cells of
a fresh notebook stays green. A learner's code that stops is an error, also where PyTorch raises NotImplementedError.

A right answer passes in any form: numbers as Python, NumPy or torch values, fractions or text ("80 %", "0,8"); results
as tensors, arrays or lists in either precision; letters as "ac", "a, c", "A and C" or a list. Numbers among the
arguments of a function come as tensors of no dimensions, so that `alpha.sqrt()` and `math.sqrt(alpha)` both work.
`also_right` lists right answers in other forms than the solution's, for the test suite. No answer runs for longer than
`limits.SECONDS`.

A text of several lines stands between triple quotes: `prose` joins the lines of each of its paragraphs.
"""

import inspect
import math
import textwrap
from dataclasses import dataclass, field

import numpy as np

from course_lib.exercises import limits, reading
from course_lib.exercises.exercise import Exercise, Mistake, Step
from course_lib.viz import tables
from course_lib.viz.arrays import as_array
from course_lib.viz.html import prose

__all__ = ["Exercises", "case", "choice", "choices", "function", "mistake", "number", "prop"]


@dataclass(frozen=True)
class Case:
    """Arguments on which the learner's function must agree with the solution. Made by `case`."""

    name: str
    args: object
    message: str


@dataclass(frozen=True)
class Property:
    """A condition on the answer itself. Made by `prop`."""

    name: str
    holds: object
    message: str


def case(name, args, message):
    """Test of a function: on `args` (tuple, or a function that makes one) it must return what the solution returns."""
    return Case(name, args, message)


def prop(name, holds, message):
    """Test of any answer: `holds(answer)` must be true; for a number it gets a float, for a function the function."""
    return Property(name, holds, message)


def mistake(answer, fails, why=""):
    """A plausible wrong answer, the name of the test that must catch it, and, for readers, the error in words."""
    return Mistake(answer, fails, why)


@dataclass
class Exercises:
    """All exercises of a module: gives each its name, in order of definition. `Exercises(vars())` ends the module.

    `groups`: {name of an exercise: its group}, for a summary that counts the right answers of each group, too.
    `headings`: {name of an exercise: a paragraph that its question begins with}. `module`: what the notebook imports
    this module as, for the commands that messages name.
    """

    namespace: dict
    groups: dict = field(default_factory=dict)
    headings: dict = field(default_factory=dict)
    module: str = "ex"
    items: list = field(init=False)

    def __post_init__(self):
        named = {name: value for name, value in self.namespace.items() if isinstance(value, Exercise)}
        self.items = list(named.values())
        for name, item in named.items():
            item.name, item.module = name, self.module
            if name in self.headings:
                item.q = f"{self.headings[name]}\n\n{item.q}"

    def summary(self):
        """Show how far the learner is: a line for each exercise, with checks made, hints taken and solution seen."""
        rows = {
            item.name: {
                "state": _state(item), "checks": item.attempts, "hints": item.hints_used,
                "solution seen": item.solution_seen,
            }
            for item in self.items
        }  # fmt: skip
        done = sum(item.passed is True for item in self.items)
        title = "; ".join([f"{done} of {len(rows)} exercises right", *self._group_scores()])
        tables.show(rows, caption=title, corner="exercise")

    def _group_scores(self):
        right = {}
        for item in self.items:
            if item.name in self.groups:
                right.setdefault(self.groups[item.name], []).append(item.passed is True)
        return [f"{group}: {sum(passed)} of {len(passed)}" for group, passed in right.items()]


def _state(item):
    if item.passed is None:
        return "○ not answered yet"
    return "✓ right" if item.passed else "✗ not yet"


# --------------------------------------------------------------------------------------------------------------- number


def number(
    question, *, solution, mistakes, hints, explanation="", tests=(), also_right=(), share=False, rtol=0.01, atol=1e-9
):
    """A question whose answer is one number (Python, numpy or torch), right within rtol * |value| + atol.

    `solution`: an expression as text (with `math` and `np`), or a function without arguments: its code is shown.
    `mistakes`: pairs (value, message), or `mistake(value, fails="name of a prop")`. `tests`: `prop`s that come before.
    `share`: the answer is asked for as a share between 0 and 1, and a number of per cent is told so.
    """
    code, make = _source(solution)
    value = float(as_array(make()))
    if share:
        question = f"{prose(question)} Give a share between 0 and 1."
        mistakes = [*mistakes, (100 * value, "As a share between 0 and 1: divide your number of per cent by 100.")]
    pairs = [(f"mistake {i}", *pair) for i, pair in enumerate(mistakes, 1) if not isinstance(pair, Mistake)]
    steps = [_property_step(test) for test in tests]
    steps += [Step(name, _not_near(wrong, rtol, atol), message) for name, wrong, message in pairs]
    missed = f"That is not the value (right within {100 * rtol:g} %), nor one of the usual slips."
    steps.append(Step("value", _near(value, rtol, atol), missed))
    tied = [Mistake(wrong, name) for name, wrong, _ in pairs] + [m for m in mistakes if isinstance(m, Mistake)]
    guesses = (value + factor * (abs(value) + 1) for factor in (0.37, 0.73, 1.39, 2.41, 5.3))
    off = next(guess for guess in guesses if not any(step.run(guess, False) for step in steps[:-1]))
    return Exercise(
        question, answer=value, read=reading.number, steps=steps, mistakes=tied, generated=[Mistake(off, "value")],
        code=code, hints=hints, explanation=explanation or f"The value is {value:.4g}.", also_right=also_right,
    )  # fmt: skip


def _you_gave(given):
    """The learner's number, as people write it."""
    return f"You gave {given:,.0f}." if 1e4 <= abs(given) < 1e9 else f"You gave {given:.4g}."


def _near(value, rtol, atol):
    def run(given, first):
        return "" if abs(given - value) <= rtol * abs(value) + atol else _you_gave(given)

    return run


def _not_near(wrong, rtol, atol):
    near = _near(float(wrong), rtol, atol)
    return lambda given, first: "" if near(given, first) else _you_gave(given)


def _property_step(test):
    return Step(test.name, lambda given, first: not test.holds(given), test.message)


# ------------------------------------------------------------------------------------------------------------- function


def function(question, *, solution, tests, mistakes, hints, explanation="", also_right=(), rtol=1e-4, atol=1e-6):
    """A question whose answer is a function: it must agree with `solution` on every `case` and have every `prop`.

    `solution`: a function, or its source as text. Results may be numbers, arrays, tensors or tuples of them; they are
    compared element by element within rtol * |expected| + atol. Floats among the arguments reach the learner's function
    as tensors of no dimensions, and as floats if it stops with an error then. A `prop` gets the function with its
    results as float64 tensors in the solution's shape, whatever form the learner gave them. An error or a wrong shape
    in the first test gets a general message alone; NaN there, and all of them in a later test, that test's own message
    as well, for then they may be what the test is about.
    """
    code, expected = _source(solution, run=False)
    rtol = max(rtol, 1e-6)  # float32 is precise enough
    seen = [_unlike(t, expected, rtol, atol) if isinstance(t, Case) else _lacks(t, expected) for t in tests]
    steps = [_function_step(test, finds) for test, finds in zip(tests, seen)]
    return Exercise(
        question, answer=expected, read=lambda given: reading.function(given, expected), steps=steps, mistakes=mistakes,
        code=code, hints=hints, explanation=explanation, also_right=also_right,
    )  # fmt: skip


def _function_step(test, seen):
    """`seen(answer)` is false if the test holds. What refuses an answer later than in the first test is its topic."""

    def run(answer, first):
        try:
            return seen(answer)
        except reading.Refusal as refusal:
            if not first:
                return refusal
            if refusal.test == "finite":
                raise reading.Refusal("finite", f"{refusal.message}\n\n{prose(test.message)}") from refusal
            raise

    return Step(test.name, run, test.message)


def _unlike(test, expected, rtol, atol):
    """What of a learner's function differs from the solution in a `case`."""

    def seen(answer):
        args = test.args() if callable(test.args) else test.args
        given = reading.result_of(answer, args)
        with limits.counted(False):
            wanted = reading.wanted_of(expected, args)
        return reading.difference(given, wanted, rtol, atol)

    return seen


def _lacks(test, expected):
    """Whether a learner's function lacks the property of a `prop`; the author's own work does not count as time."""

    def seen(answer):
        def guarded(*args):
            with limits.counted(True):
                given = reading.result_of(answer, args)
            wanted = reading.wanted_of(expected, args)
            with limits.counted(True):
                return reading.in_form_of(wanted, given)

        with limits.counted(False):
            return not test.holds(guarded)

    return seen


# --------------------------------------------------------------------------------------------------------------- choice


def choice(question, options, *, answer, feedback, hints, explanation):
    """One of several: `options` {"a": text, ...}, `answer` "b", `feedback` {wrong letter: why it tempts and fails}."""
    options = {key: prose(text) for key, text in options.items()}
    if answer not in options or set(feedback) != set(options) - {answer}:
        raise ValueError("the answer must be an option, and each wrong option needs its feedback")
    steps = [Step(f"not {key}", _is_not(key), message) for key, message in feedback.items()]
    return Exercise(
        question, answer=answer, read=lambda given: reading.letter(given, options), steps=steps, options=options,
        mistakes=[Mistake(key, f"not {key}") for key in feedback], code=f"{answer}: {options[answer]}", hints=hints,
        explanation=explanation,
    )  # fmt: skip


def _is_not(key):
    return lambda given, first: given == key


def choices(question, options, *, answers, feedback, hints, explanation):
    """Several of many: `options` {"a": text, ...}, `answers` "ac", `feedback` {every letter: why it belongs or not}.

    The learner may write "ac", "a, c", "A and C", ["a", "c"] or {"a", "c"}. The first letter that is wrong gets its
    feedback.
    """
    right, options = frozenset(answers), {key: prose(text) for key, text in options.items()}
    if not right <= set(options) or set(feedback) != set(options):
        raise ValueError("the answers must be options, and every option needs its feedback")
    steps = [Step(f"letter {key}", _member(key, key in right), feedback[key]) for key in options]
    return Exercise(
        question, answer=right, read=lambda given: reading.letters(given, options), steps=steps, options=options,
        mistakes=[Mistake(right ^ {key}, f"letter {key}") for key in options],
        code="\n".join(f"{key}: {options[key]}" for key in sorted(right)), hints=hints, explanation=explanation,
    )  # fmt: skip


def _member(key, belongs):
    seen = f"Look at {key} again: is it {'left out' if belongs else 'too much'}?"
    return lambda given, first: "" if (key in given) == belongs else seen


# ------------------------------------------------------------------------------------------------------------- solution


def _source(solution, run=True):
    """A function or its source text -> (code to show, function). `run`: text may be an expression for a value."""
    if callable(solution):
        return textwrap.dedent(inspect.getsource(solution)).strip(), solution
    text = textwrap.dedent(solution).strip()
    space = {"math": math, "np": np}
    if run:
        return text, lambda: eval(text, space)  # the author's own text
    exec(text, space)
    functions = [value for value in space.values() if inspect.isfunction(value)]
    if not functions:
        raise ValueError("the solution's source defines no function")
    return text, functions[-1]
