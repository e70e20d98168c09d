"""The exercise engine: right passes, likely bugs get their message, nonsense a polite one, idle checks are refused."""

import types

import numpy as np
import pytest

from course_lib.exercises.engine import Exercises, case, choice, choices, function, mistake, number, prop, self_test

torch = pytest.importorskip("torch")
ONES = torch.ones(2, 1, 4, 4)


def noisy(x_0, eps, alpha, sigma):
    return alpha * x_0 + sigma * eps


TESTS = [
    case("signal", (ONES, 0 * ONES, 0.8, 0.6), "Without noise alpha x_0 must remain. Is alpha squared?"),
    case("noise", (0 * ONES, ONES, 0.8, 0.6), "Without signal sigma eps must remain. Is sigma squared?"),
    case(
        "one level an image",
        lambda: (
            ONES,
            ONES,
            torch.tensor([0.8, 0.6]).view(2, 1, 1, 1),
            torch.tensor([0.6, 0.8]).view(2, 1, 1, 1),
        ),
        "Each image of a batch may have its own alpha: keep it a tensor.",
    ),
]


def make_function(**changes):
    settings = {
        "solution": noisy,
        "tests": TESTS,
        "mistakes": [
            mistake(lambda x_0, eps, alpha, sigma: alpha**2 * x_0 + sigma * eps, "signal", "alpha squared"),
            mistake(lambda x_0, eps, alpha, sigma: alpha * x_0 + sigma**2 * eps, "noise", "sigma squared"),
            mistake(lambda x_0, eps, alpha, sigma: float(alpha) * x_0 + sigma * eps, "one level an image"),
        ],
        "hints": ["Two terms.", "Each is a coefficient times an image."],
        "explanation": "x_t has mean alpha x_0 and standard deviation sigma.",
    }
    return function("Write `noisy`.", **{**settings, **changes})


def make_number(**changes):
    settings = {
        "solution": "2 ** (1 - 3)",
        "mistakes": [
            (0.5, "That is the standard deviation, not the variance."),
            (2**-3, "Check the exponent: it is 1 - w, not -w."),
            mistake(-0.25, "positive"),
        ],
        "tests": [prop("positive", lambda v: v > 0, "A variance cannot be negative.")],
        "hints": ["Put w into the exponent."],
    }
    return number("What is the variance at w = 3?", **{**settings, **changes})


def make_choice():
    options = {"a": "flow", "b": "GAN", "c": "VAE", "d": "autoregressive"}
    feedback = {key: f"A {options[key]} does give a likelihood or a bound." for key in "acd"}
    return choice(
        "Which gives no likelihood?", options, answer="b", feedback=feedback, hints=["Who has only a critic?"],
        explanation="A GAN only samples.",
    )  # fmt: skip


def make_choices():
    options = {"a": "flow", "b": "GAN", "c": "autoregressive"}
    feedback = {
        "a": "A flow is exact by change of variables.",
        "b": "A GAN only samples.",
        "c": "A product of conditionals.",
    }
    return choices(
        "Which are exact?",
        options,
        answers="ac",
        feedback=feedback,
        hints=["Two."],
        explanation="Flow, autoregressive.",
    )


@pytest.fixture
def module():
    made = types.ModuleType("sample")
    made.q1, made.q2, made.q3, made.q4 = make_function(), make_number(), make_choice(), make_choices()
    made.summary = Exercises(vars(made)).summary
    return made


def failures(module):
    failed = []
    for label, test in self_test(module):
        try:
            test()
        except AssertionError as error:
            failed.append(f"{label}: {error}")
    return failed


def test_a_sound_module_keeps_every_promise(module):
    assert failures(module) == []
    assert len(list(self_test(module))) > 60


def test_right_answers_of_many_kinds(module, capsys):
    for answer in (0.25, np.float32(0.25), torch.tensor([0.25]), np.array([[0.25]]), 0.2501):
        assert module.q2.grade(answer).status == "right"
    for answer in ("b", " B. ", "GAN"):
        assert module.q3.grade(answer).status == "right"
    for answer in ("ac", "C, a", ["a", "c"], {"c", "a"}):
        assert module.q4.grade(answer).status == "right"
    with_numpy = module.q1.grade(lambda x, e, a, s: noisy(x, e, a, s).numpy())
    assert with_numpy.status == "right"


def test_the_message_names_the_bug_and_what_was_seen(module):
    verdict = module.q1.grade(lambda x_0, eps, alpha, sigma: alpha * x_0 + sigma**2 * eps)
    assert (verdict.test, verdict.message) == ("noise", "Without signal sigma eps must remain. Is sigma squared?")
    assert "0.36, expected 0.6" in verdict.seen


def stub_pass(x_0, eps, alpha, sigma):
    pass


def stub_ellipsis(x_0, eps, alpha, sigma):
    """Has a docstring, too."""
    ...


def stub_return(x_0, eps, alpha, sigma):
    return ...


def stub_variable(x_0, eps, alpha, sigma):
    x_t = ...
    return x_t


def stub_gap(x_0, eps, alpha, sigma):
    return ... * x_0 + sigma * eps


def stub_not_implemented(x_0, eps, alpha, sigma):
    raise NotImplementedError


@pytest.mark.parametrize("stub", [stub_pass, stub_ellipsis, stub_return, stub_variable, stub_gap, stub_not_implemented])
def test_a_stub_is_unanswered(module, stub):
    assert module.q1.grade(stub).status == "unanswered"


def forgets_return(x_0, eps, alpha, sigma):
    x_0 = alpha * x_0 + sigma * eps


def stops(x_0, eps, alpha, sigma):
    alpha = alpha + 1
    return x_0.no_such_thing


@pytest.mark.parametrize(
    ("answer", "test", "words"),
    [
        (forgets_return, "type", "`return` missing"),
        (stops, "error", "AttributeError"),
        (stops, "error", "(line 3 of it)"),
        (lambda x: x, "type", "4 arguments"),
        (noisy(ONES, ONES, 1, 1), "type", "without calling it"),
        (lambda x_0, eps, alpha, sigma: x_0.mean(), "shape", "Expected shape (2, 1, 4, 4)"),
        (lambda x_0, eps, alpha, sigma: x_0 / 0 * 0, "finite", "32 of 32 values are NaN or infinite"),
        (lambda x_0, eps, alpha, sigma: x_0 > 0, "type", "a truth value"),
        ("noisy", "type", "Expected a function"),
    ],
)
def test_nonsense_functions_are_refused_with_what_was_expected(module, answer, test, words):
    verdict = module.q1.grade(answer)
    assert (verdict.status, verdict.test) == ("wrong", test)
    assert words in verdict.message


def test_an_error_in_a_later_case_gets_that_case_s_message(module):
    verdict = module.q1.grade(lambda x_0, eps, alpha, sigma: float(alpha) * x_0 + float(sigma) * eps)
    assert verdict.test == "one level an image"
    assert "keep it a tensor" in verdict.message
    assert "stopped with" in verdict.seen


def test_the_learner_s_function_cannot_change_the_test_s_arguments(module):
    def in_place(x_0, eps, alpha, sigma):
        return x_0.mul_(alpha).add_(eps.mul_(sigma))

    assert module.q1.grade(in_place).status == "right"
    assert module.q1.grade(in_place).status == "right"


def test_an_object_that_cannot_even_be_looked_at_is_refused(module):
    class Thorny:
        def __getattr__(self, name):
            raise RuntimeError("no")

    for item in (module.q1, module.q2, module.q3, module.q4):
        assert item.grade(Thorny()).status == "wrong"


def test_check_hint_solution_and_summary_show_words_and_raise_nothing(module, capsys):
    for item in (module.q1, module.q2, module.q3, module.q4):
        assert item.check() is None
        assert item.passed is None
        item.check("nonsense")
        item.check(item.answer)
        assert (item.passed, item.attempts) == (True, 2)
        item.hint()
        item.hint()
        item.solution()
    module.summary()
    shown = capsys.readouterr().out
    for words in (
        "q1: not answered yet",
        "q1: not yet",
        "q1: right",
        "Hint 2 of 2",
        "return alpha * x_0",
        "4 of 4 exercises",
    ):
        assert words in shown


def test_output_is_html_with_a_text_twin_and_the_question_shows_its_options(module):
    bundle = module.q3._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    for content in bundle.values():
        assert "d) autoregressive" in content
    page = module.q1._verdict_page(module.q1.grade("<script>"))
    assert "<script>" not in page.markup


def test_a_check_that_cannot_fail_is_refused():
    sound = make_function()
    idle = case("idle", (ONES, ONES, 1, 1), "Nobody ever gets this one.")
    with pytest.raises(ValueError, match=r"nothing shows that they can fail: \['idle'\]"):
        make_function(tests=[*TESTS, idle])
    with pytest.raises(ValueError, match="do not exist"):
        make_function(mistakes=[*sound.mistakes, mistake(noisy, "no such test")])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mistakes": make_function().mistakes[:2], "tests": TESTS[:2]}, "at least three mistakes"),
        ({"mistakes": [*make_function().mistakes, mistake(noisy, "noise")]}, "this wrong answer passes"),
        ({"hints": []}, "no hint"),
        ({"explanation": ""}, "explains nothing"),
    ],
)
def test_self_test_finds_broken_promises(changes, complaint):
    made = types.ModuleType("broken")
    made.q1 = make_function(**changes)
    made.summary = Exercises(vars(made)).summary
    assert any(complaint in failure for failure in failures(made))


def test_self_test_finds_a_solution_that_fails_its_own_tests():
    made = types.ModuleType("broken")
    made.q1 = make_number(
        mistakes=[(0.25, "In truth this is the right value."), (0.5, "That is wrong indeed."), mistake(-1, "positive")]
    )
    made.summary = Exercises(vars(made)).summary
    assert any("the solution fails" in failure for failure in failures(made))


def test_self_test_finds_a_module_without_summary_or_exercises():
    assert any("defines no exercise" in failure for failure in failures(types.ModuleType("empty")))
    made = types.ModuleType("unfinished")
    made.q1 = make_number()
    assert any("summary" in failure for failure in failures(made))


def test_a_solution_given_as_text_is_the_code_that_runs():
    text = "def noisy(x_0, eps, alpha, sigma):\n    return alpha * x_0 + sigma * eps"
    item = make_function(solution=text)
    assert item.code == text
    assert item.grade(noisy).status == "right"
