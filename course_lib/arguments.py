"""Arguments that do not fit are refused in one sentence: it names the argument, what it may be, and what it was."""

from numbers import Integral


def whole(least=1, **values):
    """Raises ValueError unless each value is a whole number from ``least`` on: ``whole(n=n)``."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")


def positive(**values):
    """Raises ValueError unless each value is a number greater than 0: ``positive(std=std)``."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")


def within(low, high, **values):
    """Raises ValueError unless low <= value <= high for each value: ``within(0, 1, eta=eta)``."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must lie from {low} to {high}, got {value!r}")


def one_of(choices, **values):
    """Raises ValueError unless each value is one of the names ``choices``: ``one_of(KINDS, kind=kind)``."""
    for name, value in values.items():
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
