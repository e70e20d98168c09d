"""One exercise: it grades an answer, and shows question, verdict, hints and solution."""

import html
import warnings
from dataclasses import dataclass, replace

from course_lib.exercises import limits
from course_lib.exercises.reading import Refusal, Unanswered, error_text, has_gap
from course_lib.viz.html import Page, prose, rich

#: Names of the tests that every exercise has without being told; a mistake may be tied to one of them too.
CONTRACT = ("type", "shape", "finite", "error", "time")


@dataclass(frozen=True)
class Step:
    """A named test: `run(answer, first)` is false if it holds, else what was seen or the Refusal that stopped it;
    `message` names the likely bug."""

    name: str
    run: object
    message: str


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer and the name of the test that must catch it. Made by `mistake`."""

    answer: object
    fails: str
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """What `grade` found: status "right", "wrong" or "unanswered", the test that failed, its message, what was seen,
    and, where the answer stopped with an error of its own in that test, that error, which is told first."""

    status: str
    test: str = ""
    message: str = ""
    seen: str = ""
    stopped: str = ""


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
        self.also_right, self._read = list(also_right), read
        self.name, self.module = "exercise", "ex"  # what the notebook calls them; `Exercises` gives both
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
                if has_gap(answer):
                    return Verdict("unanswered", seen=_NONE if answer is None else "")
                given = self._read(answer)
                for index, step in enumerate(self._steps):
                    if seen := step.run(given, index == 0):
                        return _failed(step, seen)
        except Unanswered as gap:
            return Verdict("unanswered", seen=str(gap))
        except Refusal as refusal:
            return Verdict("wrong", refusal.test, refusal.message)
        except limits.Stop:
            raise
        except BaseException as error:  # e.g. an object whose own comparison raises, or ends Python
            return Verdict(
                "wrong", "type", f"This answer cannot be judged: {error_text(error)}. Is it the right thing?"
            )
        return Verdict("right")

    def check(self, *answer):
        """Say whether the answer is right and, if not, what the likely bug is. Shows its result; returns nothing.

        Several arguments count as one answer: `check("a", "c")` is `check(["a", "c"])`.
        """
        verdict = self.grade(answer[0] if len(answer) == 1 else answer or ...)
        if verdict.status != "unanswered":
            self.attempts += 1
            self.passed = verdict.status == "right"
        _display(self._verdict_page(verdict))

    def hint(self):
        """Show the next hint; after the last one, the last again."""
        self.hints_used = min(self.hints_used + 1, len(self.hints))
        heading = f"Hint {self.hints_used} of {len(self.hints)}"
        text = self.hints[self.hints_used - 1]
        if self.hints_used == len(self.hints):
            text += f"\n\nThat was the last hint; `{self._called}.solution()` shows all."
        _display(_note("hint", f"{self.name}: {heading}", text))

    @property
    def _called(self):
        return f"{self.module}.{self.name}"

    def solution(self):
        """Show the solution, as code that the test suite runs, and why it is right."""
        self.solution_seen = True
        _display(_note("solution", f"{self.name}: solution", self.explanation, code=self.code))

    def _verdict_page(self, verdict):
        if verdict.status == "unanswered":
            text = f"{verdict.seen}`{self._called}.hint()` helps, `{self._called}.check(...)` looks at your answer."
            return _note("unanswered", f"{self.name}: not answered yet", text)
        if verdict.status == "right":
            return _note("right", f"{self.name}: right", self.explanation)
        body = "\n\n".join(part for part in (verdict.stopped, verdict.message, verdict.seen) if part)
        return _note("wrong", f"{self.name}: not yet", body)

    def _repr_mimebundle_(self, include=None, exclude=None):
        options = "\n\n".join(f"{key}) {text}" for key, text in self.options.items())
        page = _note("question", self.name, f"{self.q}\n\n{options}" if options else self.q)
        return page._repr_mimebundle_()

    def __repr__(self):
        return self._repr_mimebundle_()["text/plain"]


def _failed(step, seen):
    """The verdict on an answer that fails a step, from what its `run` gave."""
    if isinstance(seen, Refusal) and seen.test == "error":
        return Verdict("wrong", step.name, step.message, stopped=seen.message)
    return Verdict("wrong", step.name, step.message, "" if seen is True else str(seen))


_NONE = "`None` counts as no answer. If it came from a function of yours, its `return` is missing.\n\n"
_TOO_LONG = (
    f"Your answer ran for more than {limits.SECONDS} seconds and was stopped. Does a loop never end, or is an array "
    "far too large?"
)
_TOO_LONG_AND_RUNNING = (
    f"Your answer has run for more than {limits.SECONDS} seconds and cannot be stopped: it goes on in the background. "
    "Make it smaller, and restart the kernel if the notebook has become slow."
)


# -------------------------------------------------------------------------------------------------------- what is shown

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
