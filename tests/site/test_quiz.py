"""The quiz without a kernel says in a browser what the library says in a notebook."""

import html
import re

import pytest
import quiz

ITEMS = quiz.questions()


@pytest.fixture(scope="module")
def page(chromium, site):
    page = chromium.new_page(viewport={"width": 390, "height": 844})
    page.goto(site.address + "docs/quiz.html")
    yield page
    page.close()


def answered(page, number, answer):
    """What the page says to an answer: a number as text, or letters. (Verdict, what is shown beside it.)"""
    form = page.locator(".course-quiz").nth(number)
    if form.get_attribute("data-kind") == "number":
        form.locator("input").fill(answer)
    else:
        for box in form.locator("input").all():
            box.set_checked(box.input_value() in answer) if form.get_attribute("data-kind") == "choices" else None
        if form.get_attribute("data-kind") == "choice":
            form.locator(f"input[value={answer}]").check()
    form.get_by_role("button", name="Check").click()
    beside = [said for said in form.locator("[data-of]").all() if said.is_visible()]
    return form.locator(".course-verdict").text_content(), "".join(said.text_content() for said in beside)


def plain(text):
    return html.unescape(re.sub(r"<[^>]+>", "", quiz.rich(text)))


def written(item, answer):
    return f"{answer}" if not item.options else "".join(sorted(answer))


def test_all_questions_are_there(page):
    assert len(ITEMS) == page.locator(".course-quiz").count() == 18


@pytest.mark.parametrize("number", range(len(ITEMS)))
def test_verdicts_are_those_of_the_library(page, number):
    item = ITEMS[number]
    for wrong in item.mistakes:
        verdict, said = answered(page, number, written(item, wrong.answer))
        grade = item.grade(wrong.answer)
        assert (verdict, grade.status) == ("✗ Not yet.", "wrong")
        assert said and said.split()[:3] == plain(grade.message).split()[:3]  # further on there may be formulas
    assert answered(page, number, written(item, item.answer))[0] == "✓ Right."
    assert page.locator(".course-quiz").nth(number).locator(".course-reveal").evaluate("reveal => reveal.open")


@pytest.mark.parametrize("text", ["0,1", "10 %", "1/10", ".1", " 0.1 ", "= 0.1"])
def test_a_number_may_be_written_in_several_ways(page, text):
    (number,) = [k for k, item in enumerate(ITEMS) if not item.options and abs(item.answer - 0.1) < 1e-9]
    assert answered(page, number, text)[0] == "✓ Right."


@pytest.mark.parametrize("text", ["", "many", "1/", "1/2/3", "%"])
def test_what_is_no_number_is_no_answer(page, text):
    (number,) = [k for k, item in enumerate(ITEMS) if not item.options and abs(item.answer - 0.1) < 1e-9]
    assert answered(page, number, text)[0] == "Not answered yet."


@pytest.mark.parametrize("text", ["0.1 dB", "0,1 nats", "2,048"])
def test_a_unit_and_a_comma_between_thousands_are_refused_with_the_reason(page, text):
    (number,) = [k for k, item in enumerate(ITEMS) if not item.options and abs(item.answer - 0.1) < 1e-9]
    assert answered(page, number, text)[0].startswith("Write the number alone")


def test_a_blank_between_thousands_is_read(page):
    (number,) = [k for k, item in enumerate(ITEMS) if not item.options and abs(item.answer - 2048) < 1]
    assert answered(page, number, "2 048")[0] == "✓ Right."


def test_a_number_far_from_every_slip_is_wrong(page):
    assert answered(page, 0, "123456")[0] == "✗ Not yet."
