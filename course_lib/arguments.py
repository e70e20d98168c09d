"""Arguments that do not fit are refused in one sentence: it names the argument, what it may be, and what it was."""

import math
from numbers import Integral

LARGEST = 20.0  # of floats taken for images in [-1, 1] or for latents of unit variance; those of 0..255 lie beyond


def whole(least=1, **values):
    """Raises ValueError unless each value is a whole number from ``least`` on: ``whole(n=n)``."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} on, got {value!r}")


def positive(**values):
    """Raises ValueError unless each value is a number greater than 0: ``positive(std=std)``."""
    for name, value in values.items():
        if not (_number(value) and 0 < value < math.inf):
            raise ValueError(f"{name} must be positive and finite, got {value!r}")


def not_negative(**values):
    """Raises ValueError unless each value is a finite number, 0 or more: ``not_negative(kl_weight=kl_weight)``."""
    for name, value in values.items():
        if not (_number(value) and 0 <= value < math.inf):
            raise ValueError(f"{name} must be 0 or more, and finite, got {value!r}")


def rising(**values):
    """Raises ValueError unless the values are positive, each greater than the one before: ``rising(low=1, high=2)``."""
    positive(**values)
    numbers = list(values.values())
    if any(a >= b for a, b in zip(numbers, numbers[1:])):
        raise ValueError(f"{' must lie below '.join(values)}, got {' and '.join(map(repr, numbers))}")


def within(low, high, **values):
    """Raises ValueError unless each value is a number, low <= value <= high: ``within(0, 1, eta=eta)``."""
    for name, value in values.items():
        if not (_number(value) and low <= value <= high):
            raise ValueError(f"{name} must lie from {low} to {high}, got {value!r}")


def inside(low, high, **values):
    """Raises ValueError unless each value is a number, low < value < high: ``inside(0, 1, level=level)``."""
    for name, value in values.items():
        if not (_number(value) and low < value < high):
            raise ValueError(f"{name} must lie between {low} and {high}, got {value!r}")


def one_of(choices, **values):
    """Raises ValueError unless each value is one of the names ``choices``: ``one_of(KINDS, kind=kind)``."""
    for name, value in values.items():
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def shaped(axes, **values):
    """Raises ValueError unless each array has the axes: ``shaped("N, H, W", score=score)``."""
    for name, value in values.items():
        shape = getattr(value, "shape", None)
        if shape is None or len(shape) != len(axes.split(", ")):
            found = f"a {type(value).__name__}" if shape is None else f"shape {tuple(shape)}"
            raise ValueError(f"{name} must be an array or tensor ({axes}), got {found}")


def alike(**values):
    """Raises ValueError unless all arrays have one shape; those that merely broadcast would be mixed up."""
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(map(str, shapes.values()))
        raise ValueError(f"{' and '.join(shapes)} must have one shape, got {found}")


def floating(**values):
    """Raises ValueError unless each value is a tensor of floats: ``floating(x=x)``."""
    for name, value in values.items():
        if not hasattr(value, "is_floating_point") or not value.is_floating_point():
            kind = value.dtype if hasattr(value, "is_floating_point") else f"a {type(value).__name__}"
            raise ValueError(
                f"{name} must be a tensor of floats, got {str(kind).removeprefix('torch.')}: to_tensor makes one of "
                "images, torch.as_tensor of an array of floats"
            )


def images(**values):
    """Raises ValueError unless each value is a tensor of floats that could lie in [-1, 1] or a little beyond."""
    floating(**values)
    for name, value in values.items():
        largest = float(value.detach().abs().max()) if value.numel() else 0.0
        if not largest <= LARGEST:
            found = f"reach {largest:g}" if math.isfinite(largest) else "are NaN or infinite"
            remedy = "of 0..255 make x / 127.5 - 1"
            raise ValueError(f"{name} must lie in [-1, 1], as images do; some values {found}: {remedy}")


def differentiable(x_0):
    """Raises ValueError unless x_0, a denoiser's answer to an x_t that wants a gradient, depends on it."""
    if not x_0.requires_grad:
        raise ValueError("denoiser must be differentiable in x_t: wrap no no_grad around it, nor detach its answer")


def _number(value):
    return hasattr(value, "__float__") and math.prod(getattr(value, "shape", ())) == 1
