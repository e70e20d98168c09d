"""The course quiz as a page that needs no kernel: the questions, verdicts and hints of course_lib.exercises.nb_quiz,
with docs/site/static/quiz.js to compare an answer. docs/quiz.md shows it.
"""

import html

from course_lib.exercises import nb_quiz
from course_lib.exercises.exercise import Exercise
from course_lib.viz.html import inline, rich

FORM = """<form class="course-widget course-quiz" data-kind="{kind}" data-answer="{answer}" data-within="{within}"
 aria-label="Question {number}"><h2>{number}</h2>
{question}
{inputs}
<p><button type="submit">Check</button></p>
<div class="course-verdict" role="status"></div>
{verdicts}
{hints}
<details class="course-reveal"><summary>Solution</summary><p><b>{solution}</b></p>{explanation}</details>
</form>"""


def questions():
    """The questions of the quiz, in order."""
    return [value for value in vars(nb_quiz).values() if isinstance(value, Exercise)]


def markup():
    """All questions as HTML, and the script that checks them."""
    forms = "\n".join(form(item, number) for number, item in enumerate(questions(), 1))
    score = '<p class="course-score" role="status"></p>'
    return f'<div class="text_html">{forms}\n{score}</div>\n<script src="../_static/quiz.js"></script>'


def form(item, number):
    """One question: a number to type, one letter to choose ("choice"), or several ("choices")."""
    kind = "number" if not item.options else "choice" if isinstance(item.answer, str) else "choices"
    hints = (f"<details><summary>Hint {k}</summary>{rich(hint)}</details>" for k, hint in enumerate(item.hints, 1))
    says = (f'<div hidden data-of="{html.escape(str(of))}">{rich(text)}</div>' for of, text in verdicts(item, kind))
    answer = f"{item.answer:.6g}" if kind == "number" else "".join(sorted(item.answer))
    return FORM.format(
        kind=kind, answer=answer, within=within(item) if kind == "number" else "", number=number,
        question=rich(item.q), inputs=inputs(item, kind, number), verdicts="".join(says), hints="".join(hints),
        solution=f"{item.answer:.4g}" if kind == "number" else ", ".join(answer), explanation=rich(item.explanation),
    )  # fmt: skip


def inputs(item, kind, number):
    """What the reader fills in."""
    if kind == "number":
        return '<label>Your number: <input type="text" inputmode="text" autocomplete="off" size="10"></label>'
    shape = "radio" if kind == "choice" else "checkbox"
    return "".join(
        f'<label><input type="{shape}" name="q{number}" value="{key}"> {key}) {inline(text)}</label>'
        for key, text in item.options.items()
    )


def verdicts(item, kind):
    """[(a wrong answer, what to say to it)]; for "choices", by the letter that is left out or too much."""
    if kind == "number":
        return [(float(wrong.answer), item.grade(wrong.answer).message) for wrong in item.mistakes]
    if kind == "choice":
        return [(key, item.grade(key).message) for key in item.options if key != item.answer]
    return [(key, item.grade(item.answer ^ {key}).message) for key in item.options]


def within(item):
    """The share by which a number may be off: a hundredth, or three thousandths where the exercise asks for more."""
    return 0.01 if item.grade(item.answer * 1.009).status == "right" else 0.003
