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
still a stub) is no error: running all cells of a fresh notebook stays green.

A right answer passes in any form: numbers as Python, NumPy or torch values, fractions or text ("80 %", "0,8"); results
as tensors, arrays or lists in either precision; letters as "ac", "a, c", "A and C" or a list. Numbers among the
arguments of a function come as tensors of no dimensions, so that `alpha.sqrt()` and `math.sqrt(alpha)` both work.
`also_right` lists right answers in other forms than the solution's, for the test suite. No answer runs for longer than
`limits.SECONDS`.

A text of several lines stands between triple quotes: `prose` joins the lines of each of its paragraphs.
"""

import copy
import dis
import html
import inspect
import math
import re
import textwrap
import traceback
import warnings
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch

from course_lib.exercises import limits
from course_lib.viz import tables
from course_lib.viz.arrays import as_array
from course_lib.viz.html import Page, rich

__all__ = ["Exercise", "Exercises", "case", "choice", "choices", "function", "mistake", "number", "prop", "prose"]

#: Names of the tests that every exercise has without being told; a mistake may be tied to one of them too.
CONTRACT = ("type", "shape", "finite", "error", "time")


# ------------------------------------------------------------------------------------------------- parts of an exercise


@dataclass(frozen=True)
class Step:
    """A named test: `run(answer, first)` is false if it holds, else what was seen; `message` names the likely bug."""

    name: str
    run: object
    message: str


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


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer and the name of the test that must catch it. Made by `mistake`."""

    answer: object
    fails: str
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """What `grade` found: status "right", "wrong" or "unanswered", the test that failed, its message, what was seen."""

    status: str
    test: str = ""
    message: str = ""
    seen: str = ""


class Refusal(Exception):
    """The answer cannot be judged (type, shape, not finite, an error inside it): says what was expected instead."""

    def __init__(self, test, message):
        super().__init__(message)
        self.test, self.message = test, message


class Unanswered(Exception):
    """There is no answer yet."""


def prose(text):
    """Text as a module has it -> text as it is shown: the lines of a paragraph are joined, blank lines and ``` stay."""
    parts = re.split(r"(```.*?```)", inspect.cleandoc(text), flags=re.DOTALL)
    return "".join(part if part.startswith("```") else re.sub(r"(?<!\n)\n(?!\n)", " ", part) for part in parts)


def case(name, args, message):
    """Test of a function: on `args` (tuple, or a function that makes one) it must return what the solution returns."""
    return Case(name, args, message)


def prop(name, holds, message):
    """Test of any answer: `holds(answer)` must be true; for a number it gets a float, for a function the function."""
    return Property(name, holds, message)


def mistake(answer, fails, why=""):
    """A plausible wrong answer, the name of the test that must catch it, and, for readers, the error in words."""
    return Mistake(answer, fails, why)


# ------------------------------------------------------------------------------------------------------------ exercise


class Exercise:
    """One question. Made by `number`, `function`, `choice` or `choices`; `passed` is None until checked."""

    def __init__(
        self, question, *, answer, read, steps, mistakes, code, hints, explanation, options=None, generated=(),
        also_right=(),
    ):  # fmt: skip
        """`read(answer)` brings what the learner gave into the form that the steps judge, or raises Refusal.

        `mistakes` are the author's, `generated` those made to show that each remaining step can fail. `also_right` are
        the author's right answers in another form than the solution's. Raises ValueError if a mistake names no step, or
        if a step has no mistake: a check that cannot fail teaches nothing.
        """
        self.q, self.options = prose(question), options or {}
        self.answer, self.code, self.explanation = answer, code, prose(explanation)
        self.hints, self.mistakes, self.generated = [prose(hint) for hint in hints], list(mistakes), list(generated)
        self.also_right, self.name, self._read = list(also_right), "exercise", read
        self._steps = [replace(step, message=prose(step.message)) for step in steps]
        self.passed, self.attempts, self.hints_used, self.solution_seen = None, 0, 0, False
        self._refuse_idle_steps()

    def _refuse_idle_steps(self):
        names = [step.name for step in self._steps]
        caught = {wrong.fails for wrong in [*self.mistakes, *self.generated]}
        if len(set(names)) != len(names):
            raise ValueError(f"two tests share a name: {names}")
        if unknown := caught - set(names) - set(CONTRACT):
            raise ValueError(f"mistakes are tied to tests that do not exist: {sorted(unknown)}; there are {names}")
        if idle := [name for name in names if name not in caught]:
            raise ValueError(f"no mistake fails these tests, so nothing shows that they can fail: {idle}")

    def grade(self, answer):
        """Judge `answer` without showing or recording anything -> Verdict. Never raises; ends within 3 seconds."""
        try:
            return limits.limited(lambda: self._judge(answer))
        except limits.TooLong as error:
            return Verdict("wrong", "time", _TOO_LONG if error.stopped else _TOO_LONG_AND_RUNNING)

    def _judge(self, answer):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if _has_gap(answer):
                    return Verdict("unanswered")
                given = self._read(answer)
                for index, step in enumerate(self._steps):
                    if seen := step.run(given, index == 0):
                        return Verdict("wrong", step.name, step.message, seen if isinstance(seen, str) else "")
        except Unanswered:
            return Verdict("unanswered")
        except Refusal as refusal:
            return Verdict("wrong", refusal.test, refusal.message)
        except limits.Stop:
            raise
        except BaseException as error:  # e.g. an object whose own comparison raises, or ends Python
            return Verdict(
                "wrong", "type", f"This answer cannot be judged: {_error_text(error)}. Is it the right thing?"
            )
        return Verdict("right")

    def check(self, *answer):
        """Say whether the answer is right and, if not, what the likely bug is. Shows its result; returns nothing.

        Several arguments count as one answer: `check("a", "c")` is `check(["a", "c"])`.
        """
        verdict = self.grade(answer[0] if len(answer) == 1 else answer or None)
        if verdict.status != "unanswered":
            self.attempts += 1
            self.passed = verdict.status == "right"
        _display(self._verdict_page(verdict))

    def hint(self):
        """Show the next hint; after the last one, the last again."""
        self.hints_used = min(self.hints_used + 1, len(self.hints))
        heading = f"Hint {self.hints_used} of {len(self.hints)}"
        more = (
            ""
            if self.hints_used < len(self.hints)
            else f"\n\nThat was the last hint; `{self.name}.solution()` shows all."
        )
        _display(_note("hint", f"{self.name}: {heading}", self.hints[self.hints_used - 1] + more))

    def solution(self):
        """Show the solution, as code that the test suite runs, and why it is right."""
        self.solution_seen = True
        _display(_note("solution", f"{self.name}: solution", self.explanation, code=self.code))

    def _verdict_page(self, verdict):
        if verdict.status == "unanswered":
            text = f"`{self.name}.hint()` helps, `{self.name}.check(...)` looks at your answer."
            return _note("unanswered", f"{self.name}: not answered yet", text)
        if verdict.status == "right":
            return _note("right", f"{self.name}: right", self.explanation)
        body = f"{verdict.message}\n\n{verdict.seen}" if verdict.seen else verdict.message
        return _note("wrong", f"{self.name}: not yet", body)

    def _repr_mimebundle_(self, include=None, exclude=None):
        options = "\n\n".join(f"{key}) {text}" for key, text in self.options.items())
        page = _note("question", self.name, f"{self.q}\n\n{options}" if options else self.q)
        return page._repr_mimebundle_()

    def __repr__(self):
        return self._repr_mimebundle_()["text/plain"]


def _has_gap(answer):
    """None and `...` stand for "not yet", also inside a list, tuple, set or dict."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, (list, tuple, set)):
        return any(part is None or part is Ellipsis for part in answer)
    return answer is None or answer is Ellipsis


_TOO_LONG = (
    f"Your answer ran for more than {limits.SECONDS} seconds and was stopped. Does a loop never end, or is an array "
    "far too large?"
)
_TOO_LONG_AND_RUNNING = (
    f"Your answer has run for more than {limits.SECONDS} seconds and cannot be stopped: it goes on in the background. "
    "Make it smaller, and restart the kernel if the notebook has become slow."
)


def _error_text(error):
    try:
        text = str(error).strip()
    except Exception:  # an error whose own text raises
        text = ""
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # NumPy's, Python's; PyTorch's
        text = f"an array is too large, a check allows {limits.BYTES >> 30} GB"
    return f"{type(error).__name__}: {text or 'no message'}"[:300]


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
    steps.append(Step("value", _near(value, rtol, atol), "That is not the value, nor one of the usual slips."))
    tied = [Mistake(wrong, name) for name, wrong, _ in pairs] + [m for m in mistakes if isinstance(m, Mistake)]
    guesses = (value + factor * (abs(value) + 1) for factor in (0.37, 0.73, 1.39, 2.41, 5.3))
    off = next(guess for guess in guesses if not any(step.run(guess, False) for step in steps[:-1]))
    return Exercise(
        question, answer=value, read=_read_number, steps=steps, mistakes=tied, generated=[Mistake(off, "value")],
        code=code, hints=hints, explanation=explanation or f"The value is {value:.4g}.", also_right=also_right,
    )  # fmt: skip


def _array(values):
    """What `as_array` makes of it; fractions and decimals become floats. Raises TypeError for what holds no numbers."""
    if not hasattr(values, "dtype") and hasattr(values, "__len__") and len(values) > _MOST:
        raise TypeError(f"{type(values).__name__} of {len(values)} entries")
    if isinstance(values, torch.Tensor):
        values = values.resolve_conj().resolve_neg()
    array = as_array(values)
    return array.astype(float) if array.dtype.kind == "O" else array


_MOST = 100_000  # entries of a list or range that are looked at


def _number_in(text):
    """ "0.8", "0,8", "80 %", "4/5" -> float; a Refusal says how to write it."""
    plain = text.strip().replace("−", "-")
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", plain):
        raise Refusal(
            "type", f'"{plain}" can be read in two ways: write no comma between thousands, and a decimal point.'
        )
    number, percent = (plain[:-1].strip(), 100) if plain.endswith("%") else (plain, 1)
    try:
        return float(Fraction(number.replace(",", ".").replace(" ", ""))) / percent
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise Refusal("type", f"{_ONE_NUMBER}; got text.") from error


_ONE_NUMBER = "Expected one real number, for example 0.25"


def _read_number(answer):
    wanted = _ONE_NUMBER
    if isinstance(answer, str) and len(answer) < 40:
        answer = _number_in(answer)
    if callable(answer):
        raise Refusal("type", f"{wanted}; got a function. Call it and pass what it returns.")
    try:
        array = _array(answer)
    except Exception as error:
        raise Refusal("type", f"{wanted}; got {type(answer).__name__}.") from error
    if array.dtype.kind not in "iuf":
        raise Refusal("type", f"{wanted}; got {_kind(answer, array)}.")
    if array.size != 1:
        raise Refusal("shape", f"{wanted}; got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise Refusal("finite", f"{wanted}; got {array.item()}. Is there a division by zero or a log of zero?")
    return array.item()


def _kind(answer, array):
    names = {"b": "a truth value", "c": "a complex number", "U": "text", "S": "bytes"}
    return names.get(array.dtype.kind, f"{type(answer).__name__}")


def _near(value, rtol, atol):
    def run(given, first):
        return "" if abs(given - value) <= rtol * abs(value) + atol else f"You gave {given:.4g}."

    return run


def _not_near(wrong, rtol, atol):
    near = _near(float(wrong), rtol, atol)
    return lambda given, first: "" if near(given, first) else f"You gave {given:.4g}."


def _property_step(test):
    return Step(test.name, lambda given, first: not test.holds(given), test.message)


# ------------------------------------------------------------------------------------------------------------- function


def function(question, *, solution, tests, mistakes, hints, explanation="", also_right=(), rtol=1e-4, atol=1e-6):
    """A question whose answer is a function: it must agree with `solution` on every `case` and have every `prop`.

    `solution`: a function, or its source as text. Results may be numbers, arrays, tensors or tuples of them; they are
    compared element by element within rtol * |expected| + atol. Floats among the arguments reach the learner's function
    as tensors of no dimensions, and as floats if it stops with an error then. A `prop` gets the function with its
    results as float64 tensors in the solution's shape, whatever form the learner gave them. An error, a wrong shape or
    NaN in the first test gets a general message, in a later one that test's own message, for then it is what the test
    is about.
    """
    code, expected = _source(solution, run=False)
    rtol = max(rtol, 1e-6)  # float32 is precise enough
    steps = [
        _case_step(t, expected, rtol, atol) if isinstance(t, Case) else _function_property(t, expected) for t in tests
    ]
    return Exercise(
        question, answer=expected, read=lambda answer: _read_function(answer, expected), steps=steps, mistakes=mistakes,
        code=code, hints=hints, explanation=explanation, also_right=also_right,
    )  # fmt: skip


def _read_function(answer, expected):
    name, wanted = expected.__name__, list(inspect.signature(expected).parameters)
    usage = f"`{name}({', '.join(wanted)})`"
    if not callable(answer):
        raise Refusal("type", f"Expected a function {usage}; got {type(answer).__name__}. Pass it without calling it.")
    if _is_stub(answer):
        raise Unanswered
    try:
        inspect.signature(answer).bind(*wanted)
    except TypeError as error:
        raise Refusal(
            "type", f"Expected a function {usage} with {len(wanted)} arguments; yours takes others."
        ) from error
    except ValueError:
        pass  # a builtin hides its signature: the cases will show whether it fits
    return answer


def _is_stub(answer):
    """A body that does nothing but return a constant None or `...`: still the text that the notebook came with."""
    code = getattr(answer, "__code__", None)
    if code is None:
        return False
    idle = {
        "RESUME",
        "NOP",
        "LOAD_CONST",
        "POP_TOP",
        "RETURN_VALUE",
        "RETURN_CONST",
        "LOAD_COMMON_CONSTANT",
        "COPY_FREE_VARS",
    }
    steps = list(dis.get_instructions(code))
    constants = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return all(step.opname in idle for step in steps) and bool(constants) and constants[-1] in (None, Ellipsis)


def _private(value, numbers=float):
    """Copies one by one: the same array given twice must not become one array that in-place work changes twice.

    Floats, also those in pairs, become `numbers`.
    """
    if type(value) in (tuple, list):
        return type(value)(_private(part, numbers) for part in value)
    return numbers(value) if type(value) is float else copy.deepcopy(value)


def _level(value):
    return torch.tensor(value, dtype=torch.float64)


def _returned(answer, args):
    """The learner's result for numbers as tensors; for floats if it stops then: `np.quantile(x, level)` wants one."""
    try:
        return answer(*_private(args, _level))
    except (NotImplementedError, MemoryError):
        raise
    except Exception as error:
        try:
            return answer(*_private(args))
        except Exception:
            raise error from None


def _call(answer, args):
    """The learner's result, from a private copy of the arguments. Raises Unanswered or Refusal, never anything else."""
    try:
        result = _returned(answer, args)
    except NotImplementedError as error:
        raise Unanswered from error
    except limits.Stop:
        raise
    except BaseException as error:  # SystemExit is no Exception
        text = _error_text(error)
        if isinstance(error, TypeError) and "ellipsis" in text.lower():  # a stub's `...` met arithmetic
            raise Unanswered from error
        raise Refusal("error", f"Your function stopped with {text}{_line_of(error, answer)}.") from error
    if _has_gap(result) and result is not None:
        raise Unanswered
    if result is None:
        raise Refusal("type", "Your function returned None. Is the `return` missing?")
    return result


def _line_of(error, answer):
    code = getattr(answer, "__code__", None)
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if code and frame.filename == code.co_filename
    ]
    return f" (line {lines[-1] - code.co_firstlineno + 1} of it)" if lines else ""


def _case_step(test, expected, rtol, atol):
    def run(answer, first):
        args = test.args() if callable(test.args) else test.args
        try:
            given = _call(answer, args)
            with limits.counted(False):
                wanted = expected(*_private(args, _level))
            return _difference(given, wanted, rtol, atol)
        except Refusal as refusal:
            if first:
                raise
            return refusal.message

    return Step(test.name, run, test.message)


def _function_property(test, expected):
    def run(answer, first):
        def guarded(*args):
            with limits.counted(True):
                given = _call(answer, args)
            wanted = expected(*_private(args, _level))
            with limits.counted(True):
                return _in_form_of(wanted, given)

        try:
            with limits.counted(False):
                return not test.holds(guarded)
        except Refusal as refusal:
            if first:
                raise
            return refusal.message

    return Step(test.name, run, test.message)


def _parts(given, wanted):
    """The learner's tuple, list or stack of the results, as many as wanted; else a Refusal."""
    several = isinstance(given, (tuple, list)) or (getattr(given, "ndim", 0) and len(given) == len(wanted))
    count = len(given) if several else 1
    if count != len(wanted):
        raise Refusal("shape", f"Expected {len(wanted)} values to be returned, got {count}.")
    return given


def _in_form_of(wanted, given):
    """The learner's result as float64 (or complex) tensors, in the shape of what was wanted; else a Refusal."""
    if isinstance(wanted, (tuple, list)):
        return tuple(_in_form_of(w, g) for g, w in zip(_parts(given, wanted), wanted, strict=True))
    return torch.as_tensor(_comparable(given, _array(wanted)))


def _difference(given, wanted, rtol, atol):
    """ "" if equal within tolerance, else what was seen. Raises Refusal if the two cannot be compared."""
    if isinstance(wanted, (tuple, list)):
        pairs = zip(_parts(given, wanted), wanted, strict=True)
        parts = (_difference(g, w, rtol, atol) for g, w in pairs)
        return next((f"Value {i} of {len(wanted)}: {part}" for i, part in enumerate(parts, 1) if part), "")
    given, wanted = _comparable(given, _array(wanted)), _array(wanted)
    excess = np.abs(given - wanted) - (rtol * np.abs(wanted) + atol)
    if (excess <= 0).all():
        return ""
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    return f"Your value {given[worst]:.4g}, expected {wanted[worst]:.4g}{_place(worst)}."


def _place(index):
    return f" at index {tuple(int(i) for i in index)}" if index else ""


def _comparable(given, wanted):
    """The learner's result as a numeric array of the wanted shape; Refusal says what was expected instead."""
    form = f"shape {wanted.shape}" if wanted.ndim else "one number"
    try:
        array = _array(given)
    except Exception as error:
        raise Refusal("type", f"Expected numbers ({form}), got {type(given).__name__}.") from error
    if array.dtype.kind not in ("iufcb" if wanted.dtype.kind in "cb" else "iuf"):
        raise Refusal("type", f"Expected numbers of type {wanted.dtype} ({form}), got {_kind(given, array)}.")
    if wanted.ndim == 0 and array.size == 1:
        array = array.reshape(())
    if array.shape != wanted.shape:
        raise Refusal("shape", f"Expected {form}, got shape {array.shape}.")
    if not np.isfinite(array).all() and np.isfinite(wanted).all():
        low, high = wanted.min(), wanted.max()
        count = int((~np.isfinite(array)).sum())
        raise Refusal(
            "finite", f"{count} of {array.size} values are NaN or infinite; expected {low:.3g} to {high:.3g}."
        )
    return array.astype(complex if array.dtype.kind == "c" else float)


# --------------------------------------------------------------------------------------------------------------- choice


def choice(question, options, *, answer, feedback, hints, explanation):
    """One of several: `options` {"a": text, ...}, `answer` "b", `feedback` {wrong letter: why it tempts and fails}."""
    options = {key: prose(text) for key, text in options.items()}
    if answer not in options or set(feedback) != set(options) - {answer}:
        raise ValueError("the answer must be an option, and each wrong option needs its feedback")
    steps = [Step(f"not {key}", _is_not(key), message) for key, message in feedback.items()]
    return Exercise(
        question, answer=answer, read=lambda given: _read_key(given, options), steps=steps, options=options,
        mistakes=[Mistake(key, f"not {key}") for key in feedback], code=f"{answer}: {options[answer]}", hints=hints,
        explanation=explanation,
    )  # fmt: skip


def _is_not(key):
    return lambda given, first: given == key


def _read_key(given, options):
    chosen = _keys(given, options)
    if len(chosen) != 1:
        raise Refusal("type", f"Answer with one letter in quotes: {_letters(options)}.")
    return next(iter(chosen))


def _keys(given, options):
    """The letters in text, in an option's own words or in a list of both; none if anything else is in it."""
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, (list, tuple, set, frozenset, dict)):
        parts = [_keys(part, options) if isinstance(part, str) else frozenset() for part in given]
        return frozenset().union(*parts) if parts and all(parts) else frozenset()
    if not isinstance(given, str):
        return frozenset()
    texts = {_plain(text): key for key, text in options.items()}
    texts |= {_plain(f"{key} {text}"): key for key, text in options.items()}
    if _plain(given) in texts:
        return frozenset(texts[_plain(given)])
    letters = frozenset("".join(word for word in _plain(given).split() if word != "and"))
    return letters if letters <= set(options) else frozenset()


def _plain(text):
    """Lower case, words alone: "A, C and D." -> "a c and d"."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _letters(options):
    return ", ".join(f'"{key}"' for key in options)


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
        question, answer=right, read=lambda given: _read_keys(given, options), steps=steps, options=options,
        mistakes=[Mistake(right ^ {key}, f"letter {key}") for key in options],
        code="\n".join(f"{key}: {options[key]}" for key in sorted(right)), hints=hints, explanation=explanation,
    )  # fmt: skip


def _member(key, belongs):
    def run(given, first):
        return (
            "" if (key in given) == belongs else f"Look at {key} again: is it {'left out' if belongs else 'too much'}?"
        )

    return run


def _read_keys(given, options):
    chosen = _keys(given, options)
    if not chosen:
        raise Refusal("type", f'Answer with letters, for example "ab" or ["a", "b"]; there are {_letters(options)}.')
    return chosen


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


# --------------------------------------------------------------------------------------------------------------- output

# Colours of Okabe and Ito, always with a sign and a word beside them.
_LOOKS = {
    "right": ("✓", "#009E73"), "wrong": ("✗", "#D55E00"), "hint": ("➜", "#0072B2"), "solution": ("✎", "#0072B2"),
    "unanswered": ("○", "#777777"), "question": ("?", "#0072B2"),
}  # fmt: skip


def _note(kind, heading, body, code=""):
    sign, colour = _LOOKS[kind]
    block = f'<pre style="margin:6px 0;padding:6px 10px;white-space:pre-wrap">{html.escape(code)}</pre>' if code else ""
    markup = (
        f'<div class="course-exercise course-{kind}" role="status" style="border-left:4px solid {colour};'
        f'padding:2px 14px;margin:4px 0;max-width:800px;font-size:15px">'
        f'<div style="font-weight:bold">{sign} {html.escape(heading)}</div>{block}{rich(body)}</div>'
    )
    text = "\n".join(part for part in (f"{sign} {heading}", code, body) if part)
    return Page(markup, text)


def _display(page):
    from IPython.display import display

    display(page)


@dataclass
class Exercises:
    """All exercises of a module: gives each its name, in order of definition. `Exercises(vars())` ends the module.

    `groups`: {name of each exercise: its group}, for a summary that counts the right answers of each group, too.
    """

    namespace: dict
    groups: dict = field(default_factory=dict)
    items: list = field(init=False)

    def __post_init__(self):
        self.items = [value for value in self.namespace.values() if isinstance(value, Exercise)]
        for name, value in self.namespace.items():
            if isinstance(value, Exercise):
                value.name = name

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
