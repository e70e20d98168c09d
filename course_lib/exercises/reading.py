"""What a learner may answer: numbers, functions and letters in any form. Else a `Refusal` says what is expected."""

import copy
import dis
import inspect
import re
import traceback
from fractions import Fraction

import numpy as np
import torch

from course_lib.exercises import limits
from course_lib.viz.arrays import as_array


class Refusal(Exception):
    """The answer cannot be judged (type, shape, not finite, an error inside it): says what was expected instead."""

    def __init__(self, test, message):
        super().__init__(message)
        self.test, self.message = test, message


class Unanswered(Exception):
    """There is no answer yet."""


def error_text(error):
    """The error's kind and words, 300 characters at most, for a message to the learner."""
    try:
        text = str(error).strip()
    except Exception:  # an error whose own text raises
        text = ""
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # NumPy's, Python's; PyTorch's
        text = f"an array is too large, a check allows {limits.BYTES >> 30} GB"
    return f"{type(error).__name__}: {text or 'no message'}"[:300]


def has_gap(answer):
    """None and `...` stand for "not yet", also inside a list, tuple, set or dict."""
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, (list, tuple, set)):
        return any(part is None or part is Ellipsis for part in answer)
    return answer is None or answer is Ellipsis


# -------------------------------------------------------------------------------------------------------------- numbers


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
    """ "0.8", "0,8", "80 %", "4/5", "= 0.8" -> float; a Refusal says how to write it."""
    plain = re.sub(r"^\s*[^\W\d]\w*\s*(?==)", "", text).strip().lstrip("=≈~ ").replace("−", "-")  # "K = 11"
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", plain):
        raise Refusal(
            "type", f'"{plain}" can be read in two ways: write no comma between thousands, and a decimal point.'
        )
    digits, percent = (plain[:-1].strip(), 100) if plain.endswith("%") else (plain, 1)
    if re.search(r"e[+-]?\d{4,}", digits, re.IGNORECASE):  # Fraction would write out all of its digits
        raise Refusal("type", f"{_ONE_NUMBER}; got one too large or too small to be meant.")
    try:
        return float(Fraction(digits.replace(",", ".").replace(" ", ""))) / percent
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        if unit := re.fullmatch(_WITH_A_UNIT, plain):
            raise Refusal("type", f'Write the number alone, without "{unit[2]}": {unit[1]}.') from error
        raise Refusal("type", f"{_ONE_NUMBER}; got text.") from error


_WITH_A_UNIT = r"([+-]?\d+(?:[.,]\d+)?)\s*([^\W\d_].*)"  # "29.03 dB", "347 steps"
_ONE_NUMBER = "Expected one real number, for example 0.25"


def number(answer):
    """A number in any form (Python, NumPy, torch, fraction, text, list of one) -> a Python number; else a Refusal."""
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
        comma = " A comma separates two answers: write a decimal point." if isinstance(answer, tuple) else ""
        raise Refusal("shape", f"{wanted}; got shape {array.shape}.{comma}")
    if not np.isfinite(array).all():
        raise Refusal("finite", f"{wanted}; got {array.item()}. Is there a division by zero or a log of zero?")
    return array.item()


def _kind(answer, array):
    names = {"b": "a truth value", "c": "a complex number", "U": "text", "S": "bytes"}
    return names.get(array.dtype.kind, f"{type(answer).__name__}")


# ------------------------------------------------------------------------------------------------------------ functions


def function(answer, expected):
    """A function that takes as many arguments as `expected` -> itself. Raises Unanswered for a stub, else Refusal."""
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
        "RESUME", "NOP", "LOAD_CONST", "POP_TOP", "RETURN_VALUE", "RETURN_CONST", "LOAD_COMMON_CONSTANT",
        "COPY_FREE_VARS",
    }  # fmt: skip
    steps = list(dis.get_instructions(code))
    constants = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return all(step.opname in idle for step in steps) and bool(constants) and constants[-1] in (None, Ellipsis)


def result_of(answer, args):
    """The learner's result, from a private copy of the arguments. Raises Unanswered or Refusal, never anything else."""
    try:
        result = _returned(answer, args)
    except limits.Stop:
        raise
    except BaseException as error:  # SystemExit is no Exception
        if _is_unfinished(error):
            raise Unanswered(_GAP_LEFT) from error
        words = f"Your function stopped with {error_text(error)}{_line_of(error, answer)}.{_advice(error)}"
        raise Refusal("error", words) from error
    parts = result if isinstance(result, (tuple, list)) else [result]
    if any(part is Ellipsis for part in parts):
        raise Unanswered(_GAP_LEFT)
    if result is None:
        raise Refusal("type", "Your function returned None. Is the `return` missing?")
    for number, part in enumerate(parts, 1):
        if part is None:
            message = f"Value {number} of {len(parts)} that your function returned is None. Is a `return` missing?"
            raise Refusal("type", message)
    return result


_GAP_LEFT = "Your function is not finished: a `...` or a `raise NotImplementedError` is still in it.\n\n"


def _returned(answer, args):
    """The learner's result for numbers as tensors; for floats if it stops then: `np.quantile(x, level)` wants one."""
    try:
        return answer(*_private(args, _scalar))
    except MemoryError:
        raise
    except Exception as error:
        try:
            return answer(*_private(args))
        except Exception:
            raise error from None


def _is_unfinished(error):
    """Whether an error comes from what a stub holds and not from a learner's code: from a `raise` of its own, or from
    its `...` that met arithmetic. PyTorch, too, raises NotImplementedError, and names the `...` of an index."""
    if isinstance(error, NotImplementedError):
        return _is_own_raise(error)
    text = error_text(error)
    return re.search(_GAP, text) is not None and "indices must be" not in text


# `...` as a type: "'ellipsis' and 'Tensor'", "must be Tensor, not ellipsis", "of type ellipsis", "got (int, ellipsis)"
_GAP = r"'ellipsis'|\b(?:not|of|type) ellipsis\b|[(\s]ellipsis[,)]"


def _is_own_raise(error):
    """Whether the last instruction before the error is a `raise` in the learner's notebook: not one in a library, and
    not an operation on tensors that PyTorch does not have."""
    below = error.__traceback__
    while below is not None and below.tb_frame.f_globals is globals():
        below = below.tb_next
    if below is None:  # a function of compiled code was the answer
        return False
    notebook = below.tb_frame.f_globals
    while below.tb_next is not None:
        below = below.tb_next
    steps = dis.get_instructions(below.tb_frame.f_code)
    name = next(step.opname for step in steps if step.offset == below.tb_lasti)
    return name == "RAISE_VARARGS" and below.tb_frame.f_globals is notebook


def _advice(error):
    """What is behind an error whose own words hide it: `^`, a power on paper; a module that was not imported."""
    if re.search(r"bitwise_xor|for \^=?:", error_text(error)):
        return " Is a power meant? It is `**` in Python; `^` compares bits."
    if isinstance(error, NameError) and getattr(error, "name", None) in ("math", "np", "numpy", "torch", "F"):
        return " Import it first, at the top of your cell."
    return ""


def _private(value, numbers=float):
    """Copies one by one: the same array given twice must not become one array that in-place work changes twice.

    Floats, also those in pairs, become `numbers`.
    """
    if type(value) in (tuple, list):
        return type(value)(_private(part, numbers) for part in value)
    return numbers(value) if type(value) is float else copy.deepcopy(value)


def _scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def wanted_of(expected, args):
    """The solution's result, from a private copy of the arguments, with numbers as tensors."""
    return expected(*_private(args, _scalar))


def _line_of(error, answer):
    """Where in the learner's own function an error came up, also from a function that it called."""
    code = getattr(answer, "__code__", None)
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code is code]
    return f" (line {lines[-1] - code.co_firstlineno + 1} of it)" if lines else ""


# ------------------------------------------------------------------------------------------------ what functions return


def difference(given, wanted, rtol, atol):
    """ "" if equal within tolerance, else what was seen. Raises Refusal if the two cannot be compared."""
    if isinstance(wanted, (tuple, list)):
        pairs = zip(_parts(given, wanted), wanted, strict=True)
        parts = (difference(g, w, rtol, atol) for g, w in pairs)
        return next((f"Value {i} of {len(wanted)}: {part}" for i, part in enumerate(parts, 1) if part), "")
    given, wanted = _comparable(given, _array(wanted)), _array(wanted)
    excess = np.abs(given - wanted) - (rtol * np.abs(wanted) + atol)
    if (excess <= 0).all():
        return ""
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    return f"Your value {given[worst]:.4g}, expected {wanted[worst]:.4g}{_place(worst)}."


def _place(index):
    return f" at index {tuple(int(i) for i in index)}" if index else ""


def in_form_of(wanted, given):
    """The learner's result as float64 (or complex) tensors, in the shape of what was wanted; else a Refusal."""
    if isinstance(wanted, (tuple, list)):
        return tuple(in_form_of(w, g) for g, w in zip(_parts(given, wanted), wanted, strict=True))
    return torch.as_tensor(_comparable(given, _array(wanted)))


def _parts(given, wanted):
    """The learner's tuple, list or stack of the results, as many as wanted; else a Refusal."""
    several = isinstance(given, (tuple, list)) or (getattr(given, "ndim", 0) and len(given) == len(wanted))
    count = len(given) if several else 1
    if count != len(wanted):
        raise Refusal("shape", f"Expected {len(wanted)} values to be returned, got {count}.")
    return given


def _comparable(given, wanted):
    """The learner's result as a numeric array of the wanted shape; Refusal says what was expected instead."""
    form = f"shape {wanted.shape}" if wanted.ndim else "one number"
    try:
        array = _array(given)
    except Exception as error:
        raise Refusal("type", f"Expected numbers ({form}), got {type(given).__name__}.") from error
    if array.dtype.kind not in ("iufcb" if wanted.dtype.kind in "cb" else "iuf"):
        kind = "real numbers" if wanted.dtype.kind in "iuf" else f"numbers of type {wanted.dtype}"
        got = f"{_kind(given, array)}, shape {array.shape}" if array.ndim else _kind(given, array)
        raise Refusal("type", f"Expected {kind} ({form}), got {got}.")
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


# -------------------------------------------------------------------------------------------------------------- letters


def letter(given, options):
    """One letter, in any form -> that letter; else a Refusal."""
    chosen = _keys(given, options)
    if len(chosen) != 1:
        raise Refusal("type", f"Answer with one letter in quotes: {_listed(options)}.")
    return next(iter(chosen))


def letters(given, options):
    """Letters, in any form -> their frozenset; else a Refusal."""
    chosen = _keys(given, options)
    if not chosen:
        raise Refusal("type", f'Answer with letters, for example "ab" or ["a", "b"]; there are {_listed(options)}.')
    return chosen


def _keys(given, options):
    """The letters in text, in an option's own words or in a list of both; none if anything else is in it."""
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, dict):  # {"a": True, "b": False}
        given = [key for key, chosen in given.items() if chosen]
    if isinstance(given, (list, tuple, set, frozenset)):
        parts = [_keys(part, options) if isinstance(part, str) else frozenset() for part in given]
        return frozenset().union(*parts) if parts and all(parts) else frozenset()
    if not isinstance(given, str):
        return frozenset()
    texts = {_plain(text): key for key, text in options.items()}
    texts |= {_plain(f"{key} {text}"): key for key, text in options.items()}
    if _plain(given) in texts:
        return frozenset(texts[_plain(given)])
    named = frozenset("".join(word for word in _plain(given).split() if word != "and"))
    return named if named <= set(options) else frozenset()


def _plain(text):
    """Lower case, words alone: "A, C and D." -> "a c and d"."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _listed(options):
    return ", ".join(f'"{key}"' for key in options)
