"""The exercise engine: right passes, likely bugs get their message, nonsense a polite one, idle checks are refused."""

import contextlib
import functools
import itertools
import math
import re
import sys
import threading
import time
import types
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from helpers.promises import promises

from course_lib.exercises import limits
from course_lib.exercises.engine import Exercises, case, choice, choices, function, mistake, number, prop

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
    for label, test in promises(module):
        try:
            test()
        except AssertionError as error:
            failed.append(f"{label}: {error}")
    return failed


def test_a_sound_module_keeps_every_promise(module):
    assert failures(module) == []
    assert len(list(promises(module))) > 60


def test_right_answers_of_many_kinds(module, capsys):
    for answer in (0.25, np.float32(0.25), torch.tensor([0.25]), np.array([[0.25]]), 0.2501, [0.25], Decimal("0.25")):
        assert module.q2.grade(answer).status == "right"
    for answer in (Fraction(1, 4), [Fraction(1, 4)], "1/4", " 0.25", "0,25", "25 %", "25%", "2.5e-1", "1 / 4"):
        assert module.q2.grade(answer).status == "right"
    for answer in ("b", " B. ", "GAN", ["b"], ("B",), {"b"}, "b)", "(b)", "'b'", "b: GAN", "b) gan", np.str_("b")):
        assert module.q3.grade(answer).status == "right"
    for answer in (
        "ac",
        "C, a",
        ["a", "c"],
        {"c", "a"},
        "a and c",
        "A, C.",
        "a/c",
        "a & c",
        "a+c",
        "a; c",
        ["flow", "c"],
    ):
        assert module.q4.grade(answer).status == "right"
    for answer in (("a", "c"), np.array(["a", "c"]), {"a": True, "c": True}, "{a, c}", "['a', 'c']"):
        assert module.q4.grade(answer).status == "right"
    module.q4.check("a", "c")
    assert module.q4.passed
    with_numpy = module.q1.grade(lambda x, e, a, s: noisy(x, e, a, s).numpy())
    assert with_numpy.status == "right"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("1,234", "no comma between thousands"),
        ("1/0", "one real number"),
        ("0.25 or so", 'without "or so": 0.25'),
        ("29.03 dB", 'Write the number alone, without "dB": 29.03.'),
        ("a quarter", "got text"),
        (range(10**9), "one real number"),
        ((0, 25), "got shape (2,). A comma separates two answers: write a decimal point."),
        (Fraction(1, 3), "nor one of the usual slips"),
    ],
)
def test_what_is_no_number_is_refused_in_a_sentence(module, answer, words):
    verdict = module.q2.grade(answer)
    assert verdict.status == "wrong"
    assert words in verdict.message


@pytest.mark.parametrize(
    "answer", ["bad", ["a", 1], [], "", "a or perhaps c", "a, x", ["a", ["c"]], b"ac", 1, {1: "a"}]
)
def test_what_are_no_letters_is_refused_with_an_example(module, answer):
    assert module.q4.grade(answer).test == "type"
    assert 'for example "ab"' in module.q4.grade(answer).message


def test_one_letter_is_asked_for_where_one_is_right(module):
    assert module.q3.grade("ab").message == 'Answer with one letter in quotes: "a", "b", "c", "d".'


def test_a_share_is_told_from_a_number_of_per_cent():
    item = make_number(share=True, mistakes=[(0.5, "That is the standard deviation."), mistake(-1, "positive")])
    assert item.q.endswith("Give a share between 0 and 1.")
    assert "As a share" in item.grade(25).message
    assert item.grade("25 %").status == "right"


@pytest.mark.parametrize(
    "sigma",
    [
        lambda alpha: (1 - alpha**2) ** 0.5,
        lambda alpha: torch.sqrt(1 - alpha**2),
        lambda alpha: (1 - alpha**2).sqrt(),
        lambda alpha: math.sqrt(1 - alpha**2),
        lambda alpha: np.sqrt(1 - float(alpha) ** 2),
        lambda alpha: max(0, 1 - alpha * alpha) ** 0.5,
        lambda alpha: {1.0: 0.0, 0.8: 0.6}[alpha],  # works with a Python number alone
    ],
)
def test_numbers_among_the_arguments_may_be_used_as_tensors_and_as_numbers(sigma):
    item = function(
        "Write `sigma(alpha)`.",
        solution=lambda alpha: (1 - alpha**2) ** 0.5,
        tests=[
            case("clean", (1.0,), "At alpha = 1 there is no noise."),
            prop("at 0.8", lambda f: abs(f(0.8) - 0.6) < 1e-6, "At alpha = 0.8 sigma is 0.6."),
        ],
        mistakes=[mistake(lambda alpha: alpha, "clean"), mistake(lambda alpha: 1 - alpha, "at 0.8")],
        hints=["Pythagoras."],
    )
    assert item.grade(sigma).status == "right"


def test_a_prop_meets_every_form_of_a_result_as_a_tensor():
    item = function(
        "Write `twice(x)`.",
        solution=lambda x: 2 * x,
        tests=[prop("mean", lambda f: f(ONES).mean() == 2, "The mean must double.")],
        mistakes=[mistake(lambda x: x, "mean")],
        hints=["Add x to x."],
    )
    for form in (lambda x: (2 * x).numpy(), lambda x: (2 * x).tolist(), lambda x: 2 * x.half(), lambda x: 2 * x.int()):
        assert item.grade(form).status == "right"
    assert item.grade(lambda x: 2 * x[0]).test == "shape"


def test_a_pair_may_be_a_tuple_a_list_or_a_stack():
    item = function(
        "Write `pair(x)`.",
        solution=lambda x: (x, 2 * x),
        tests=[case("both", (ONES[0],), "First x, then twice x.")],
        mistakes=[mistake(lambda x: (2 * x, x), "both"), mistake(lambda x: 2 * x, "shape")],
        hints=["A tuple."],
    )
    for form in (tuple, list, torch.stack, lambda pair: np.stack([part.numpy() for part in pair])):
        assert item.grade(lambda x, form=form: form([x, 2 * x])).status == "right"
    assert item.grade(lambda x: x).message == "Expected 2 values to be returned, got 1."


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


def stub_not_implemented_within(x_0, eps, alpha, sigma):
    with torch.no_grad():
        return stub_not_implemented(x_0, eps, alpha, sigma)


STUBS = [
    stub_pass, stub_ellipsis, stub_return, stub_variable, stub_gap, stub_not_implemented, stub_not_implemented_within,
    functools.partial(stub_not_implemented),
]  # fmt: skip
GAPS = [
    lambda x_0, eps, alpha, sigma: (..., eps),
    lambda x_0, eps, alpha, sigma: (...).mean(),
    lambda x_0, eps, alpha, sigma: x_0 - ...,
    lambda x_0, eps, alpha, sigma: alpha ** ...,
    lambda x_0, eps, alpha, sigma: torch.sqrt(...),
    lambda x_0, eps, alpha, sigma: torch.add(x_0, ...),
    lambda x_0, eps, alpha, sigma: torch.where(x_0 > 0, ..., eps),
    lambda x_0, eps, alpha, sigma: torch.tensor(...),
    lambda x_0, eps, alpha, sigma: np.sqrt(...),
    lambda x_0, eps, alpha, sigma: math.sqrt(...),
    lambda x_0, eps, alpha, sigma: float(...),
    lambda x_0, eps, alpha, sigma: sum(...),
]


@pytest.mark.parametrize("stub", STUBS + GAPS)
def test_a_stub_is_unanswered(module, stub):
    assert module.q1.grade(stub).status == "unanswered"


def library_not_implemented(x_0, eps, alpha, sigma):
    return torch.nn.Module()(x_0)  # PyTorch's own Python raises it


# Errors of a learner's own code. Their kind or their words are also those of a stub.
STOPPED = {
    "a power as on paper": (lambda x_0, eps, alpha, sigma: x_0 + sigma ^ 2 * eps, "NotImplementedError|RuntimeError"),
    "that of a tensor": (lambda x_0, eps, alpha, sigma: x_0 ^ 2, "bitwise_xor"),
    "no such operation": (lambda x_0, eps, alpha, sigma: torch.bitwise_and(x_0, eps), "NotImplementedError"),
    "in the library": (library_not_implemented, "NotImplementedError"),
    "in compiled code": (lambda *args: torch.bitwise_xor(*args[:2]), "bitwise_xor"),
    "a type": (lambda x_0, eps, alpha, sigma: x_0 + "eps", "TypeError"),
    "an argument too many": (lambda x_0, eps, alpha, sigma: noisy(x_0, eps, alpha, sigma, 1), "TypeError"),
    "None in a sum": (lambda x_0, eps, alpha, sigma: x_0 + forgets_return(x_0, eps, alpha, sigma), "NoneType"),
    "an index": (lambda x_0, eps, alpha, sigma: x_0[float(sigma)], "ellipsis"),
    "NumPy's index": (lambda x_0, eps, alpha, sigma: x_0.numpy()[1.5], "ellipsis"),
    "two dots in an index": (lambda x_0, eps, alpha, sigma: x_0.numpy()[..., ...], "ellipsis"),
    "`...` for a list": (lambda x_0, eps, alpha, sigma: x_0.tolist()[...], "not ellipsis"),
    "einsum": (lambda x_0, eps, alpha, sigma: torch.einsum("ij->i", x_0), "ellipsis"),
}


@pytest.mark.parametrize(("answer", "words"), STOPPED.values(), ids=STOPPED)
def test_an_error_of_the_learner_s_own_code_is_no_stub(module, answer, words):
    verdict = module.q1.grade(answer)
    assert (verdict.status, verdict.test) == ("wrong", "error")
    assert re.search(words, verdict.message), verdict.message
    assert "stopped with" in verdict.message


def test_a_power_written_as_on_paper_is_told_so(module):
    def squares(x_0, eps, alpha, sigma):
        variance = sigma ^ 2
        return alpha * x_0 + variance * eps

    verdict = module.q1.grade(squares)
    assert "(line 2 of it). Is a power meant? It is `**` in Python" in verdict.message
    assert "power" not in module.q1.grade(stops).message


def test_a_module_that_was_not_imported_is_told_so(module):
    def roots(x_0, eps, alpha, sigma):
        return numpy.sqrt(alpha) * x_0  # noqa: F821

    def misspelt(x_0, eps, alpha, sigma):
        return alpa * x_0  # noqa: F821

    assert "(line 2 of it). Import it first, at the top of your cell." in module.q1.grade(roots).message
    assert "Import" not in module.q1.grade(misspelt).message


def test_what_stops_with_tensors_and_not_with_floats_is_right_whatever_it_raised(module):
    def wants_floats(x_0, eps, alpha, sigma):
        if isinstance(alpha, torch.Tensor) and alpha.ndim == 0:
            torch.bitwise_xor(alpha, alpha)  # NotImplementedError
        return alpha * x_0 + sigma * eps

    assert module.q1.grade(wants_floats).status == "right"


def test_none_among_the_values_of_a_result_is_no_stub():
    item = function(
        "Write `pair(x)`.",
        solution=lambda x: (x, 2 * x),
        tests=[case("both", (ONES[0],), "First x, then twice x.")],
        mistakes=[mistake(lambda x: (2 * x, x), "both")],
        hints=["A tuple."],
    )
    verdict = item.grade(lambda x: (x, ...))
    assert verdict.status == "unanswered" and "a `...` or a `raise NotImplementedError` is still in it" in verdict.seen
    verdict = item.grade(lambda x: (x, None))
    assert (verdict.status, verdict.test) == ("wrong", "type")
    assert verdict.message == "Value 2 of 2 that your function returned is None. Is a `return` missing?"


def test_none_for_an_answer_is_unanswered_and_says_where_it_may_come_from(module, capsys):
    for answer, told in (((None,), True), ((...,), False), ((), False)):
        module.q2.check(*answer)
        shown = capsys.readouterr().out
        assert "q2: not answered yet" in shown
        assert ("its `return` is missing" in shown) == told


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
    assert "stopped with" in verdict.stopped


def test_an_error_in_a_later_case_is_told_before_that_case_s_message(module, capsys):
    module.q1.check(lambda x_0, eps, alpha, sigma: float(alpha) * x_0 + float(sigma) * eps)
    shown = capsys.readouterr().out
    assert -1 < shown.find("stopped with") < shown.find("keep it a tensor")


def test_nan_in_the_first_case_gets_that_case_s_message_as_well(module):
    message = module.q1.grade(lambda x_0, eps, alpha, sigma: x_0 / 0 * 0).message
    assert message.endswith(module.q1._steps[0].message)


def root_of(x):
    return x.no_such_root


def calls_another(x_0, eps, alpha, sigma):
    mean = alpha * x_0
    return mean + root_of(sigma) * eps


def test_the_line_of_an_error_is_counted_in_the_learner_s_function_also_where_it_called_another(module):
    assert "(line 3 of it)" in module.q1.grade(calls_another).message


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


def forever(*args):
    while True:
        pass


def catches_all(*args):
    until = time.monotonic() + 4  # for ever, but for the sake of the tests that follow
    while time.monotonic() < until:
        with contextlib.suppress(BaseException):
            time.sleep(0.001)


def sleeps(*args):
    time.sleep(3.5)


def prints(*args):
    while True:
        print("x" * 100)


def grows(*args):
    seen = []
    while True:
        seen.append(np.empty(10**8))


def yields(*args):
    while True:
        yield 1


def recurses(*args):
    return recurses(*args)


def leaves(*args):
    raise SystemExit


def interrupts(*args):
    raise KeyboardInterrupt


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


def raises_mute(*args):
    raise Mute


class Endless:
    def __array__(self, *args, **kwargs):
        forever()


def in_time(item, answer):
    start = time.monotonic()
    verdict = item.grade(answer)
    assert time.monotonic() - start < 3.5, "3 seconds are promised; half of one is left for a busy machine"
    assert verdict.status == "wrong"
    assert "Traceback" not in verdict.message
    return verdict


@pytest.mark.parametrize("absurd", [forever, prints, lambda *args: Endless()])
def test_what_never_ends_is_stopped(module, absurd, capsys):
    before = threading.active_count()
    verdict = in_time(module.q1, absurd)
    assert verdict.test == "time"
    assert "was stopped. Does a loop never end" in verdict.message
    assert threading.active_count() == before
    shown = capsys.readouterr().out
    assert len(shown) < 6000
    assert ("is left out" in shown) == (absurd is prints)
    assert module.q1.grade(noisy).status == "right"


def test_the_time_of_the_check_itself_does_not_count(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.6)
    item = function(
        "Write `twice(x)`.",
        solution=lambda x: time.sleep(0.4) or 2 * x,
        tests=[
            case("ones", (ONES,), "Ones must become twos."),
            prop("twos", lambda f: time.sleep(0.7) or f(2 * ONES).mean() == 4, "Twos must become fours."),
        ],
        mistakes=[mistake(lambda x: x, "ones"), mistake(lambda x: x + 1, "twos")],
        hints=["Add x to x."],
    )
    assert item.grade(lambda x: x + x).status == "right"
    assert item.grade(lambda x: x + 1).test == "twos"
    assert item.grade(lambda x: time.sleep(0.4) or 2 * x).test == "time"


@pytest.mark.parametrize("absurd", [sleeps, catches_all])
def test_what_cannot_be_stopped_is_said_to_go_on(module, absurd):
    verdict = in_time(module.q1, absurd)
    assert verdict.test == "time"
    assert "cannot be stopped: it goes on in the background" in verdict.message
    assert "restart the kernel" in verdict.message


@pytest.mark.parametrize("answer", [Endless(), itertools.count(), itertools.repeat("a"), yields()])
def test_an_answer_that_is_itself_without_end_is_refused(module, answer):
    for item in (module.q1, module.q2, module.q3, module.q4):
        in_time(item, answer)


@pytest.mark.parametrize(
    ("absurd", "words"),
    [
        (yields, "got generator"),
        (recurses, "RecursionError"),
        (leaves, "stopped with SystemExit"),
        (interrupts, "stopped with KeyboardInterrupt"),
        (raises_mute, "stopped with Mute: no message"),
    ],
)
def test_absurd_functions_get_a_sentence(module, absurd, words):
    assert words in in_time(module.q1, absurd).message


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system's own limit holds")
@pytest.mark.parametrize("absurd", [grows, lambda *args: np.ones(10**10), lambda *args: torch.ones(10**10)])
def test_memory_without_end_is_refused(module, absurd):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    verdict = in_time(module.q1, absurd)
    assert "an array is too large, a check allows 2 GB" in verdict.message
    assert resource.getrlimit(resource.RLIMIT_AS) == before


KERNEL = """
import time
import numpy as np
from course_lib.exercises import nb00
def greets(x_0, eps, alpha):
    print("hello")
    return alpha * x_0 + (1 - alpha**2).sqrt() * eps
def forever(x_0, eps, alpha):
    while True: print("x" * 999)
for answer in (greets, forever, lambda x_0, eps, alpha: np.ones(10**10)):
    start = time.monotonic()
    nb00.q1.check(answer)
    print("in time:", time.monotonic() - start < 3.5)
"""


def test_the_limits_hold_in_a_jupyter_kernel():
    manager = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    shown = []

    def keep(message):
        content = message["content"]
        shown.append(content.get("text") or content.get("data", {}).get("text/plain") or content.get("evalue", ""))

    try:
        client.execute_interactive(KERNEL, output_hook=keep, timeout=120)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    text = "".join(shown)
    assert text.count("in time: True") == 3
    assert text.count("hello") >= 4, "what an honest answer prints is seen"
    assert "q1: right" in text
    assert "was stopped. Does a loop never end" in text
    assert ("a check allows 2 GB" in text) == (sys.platform == "linux")
    assert len(text) < 8000


def test_the_learner_may_interrupt_a_check(module, monkeypatch):
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout=None: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        module.q1.grade(forever)


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
        "ex.q1.hint()",
        "ex.q1.check(...)",
        "ex.q1.solution()",
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


def test_the_lines_of_a_paragraph_are_joined_and_code_keeps_its_lines():
    text = """Put w into
        the exponent.

        ```python
        def variance(w):
            return 2 ** (1 - w)
        ```"""
    shown = "Put w into the exponent.\n\n```python\ndef variance(w):\n    return 2 ** (1 - w)\n```"
    assert make_number(hints=[text]).hints == [shown]
    assert make_number(explanation=text).explanation == shown
    assert number(text, solution="1", mistakes=[(2, text)], hints=["One."]).q == shown
    assert number(text, solution="1", mistakes=[(2, text)], hints=["One."]).grade(2).message == shown


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
def test_a_check_of_promises_finds_broken_promises(changes, complaint):
    made = types.ModuleType("broken")
    made.q1 = make_function(**changes)
    made.summary = Exercises(vars(made)).summary
    assert any(complaint in failure for failure in failures(made))


def test_a_check_of_promises_finds_a_solution_that_fails_its_own_tests():
    made = types.ModuleType("broken")
    made.q1 = make_number(
        mistakes=[(0.25, "In truth this is the right value."), (0.5, "That is wrong indeed."), mistake(-1, "positive")]
    )
    made.summary = Exercises(vars(made)).summary
    assert any("the solution fails" in failure for failure in failures(made))


def test_a_check_of_promises_finds_a_module_without_summary_or_exercises():
    assert any("defines no exercise" in failure for failure in failures(types.ModuleType("empty")))
    made = types.ModuleType("unfinished")
    made.q1 = make_number()
    assert any("summary" in failure for failure in failures(made))


def test_a_solution_given_as_text_is_the_code_that_runs():
    text = "def noisy(x_0, eps, alpha, sigma):\n    return alpha * x_0 + sigma * eps"
    item = make_function(solution=text)
    assert item.code == text
    assert item.grade(noisy).status == "right"
