"""What the measures take, in one place: each check gives back its argument as a tensor, or says in one sentence what is
wrong with it and what to do."""

import numpy as np
import torch

from course_lib.arguments import alike, shaped


def masks(values, name):
    """Masks of 0 and 1, or bool, as a bool tensor. Label maps, probabilities, logits and masks in [-1, 1] are not
    masks: "not zero" would take each of them for something else. Raises ValueError."""
    values = torch.as_tensor(values)
    if values.dtype == torch.bool:
        return values
    if not ((values == 0) | (values == 1)).all():
        low, high = float(values.min()), float(values.max())
        raise ValueError(
            f"{name} must hold 0 and 1 only, not values from {low:g} to {high:g}: of a label map take one label, as in "
            f"labels == k; of probabilities, logits or images the pixels above a threshold, as in x > threshold"
        )
    return values.bool()


def finite(values, name):
    """Numbers without NaN or infinity, as a tensor; Python's own, as all of a list, keep float64. Raises ValueError."""
    values = values if torch.is_tensor(values) else torch.as_tensor(np.asarray(values))
    missing = int((~values.isfinite()).sum())
    if missing:
        raise ValueError(
            f"{missing} of the {values.numel()} {name} are NaN or infinite: find where they come from, or leave their "
            "cases out and say so"
        )
    return values


def probabilities(values, name):
    """Numbers in [0, 1] as a float64 tensor. Raises ValueError."""
    values = finite(values, name).double()
    slack = 1e-5  # sums of float32 miss 1 by a little
    if values.numel() and not (values.min() >= -slack and values.max() <= 1 + slack):
        raise ValueError(
            f"{name} must lie in [0, 1], and reach from {float(values.min()):g} to {float(values.max()):g}: of logits "
            "take the sigmoid or the softmax"
        )
    return values


def chances(values, n, name="chances"):
    """The chances of n things, float32 (n,): none below 0, and 1 in all. Raises ValueError."""
    values = torch.as_tensor(values, dtype=torch.float32)
    if values.shape != (n,) or not (values >= 0).all() or not abs(float(values.sum()) - 1) < 1e-4:
        raise ValueError(f"{name} must be {n} numbers from 0 on that sum to 1; got {values.tolist()}")
    return values


def images(x, reference):
    """Images x and reference (N, C, H, W) in [-1, 1], in single precision at least; x may leave the range, since a
    reconstruction overshoots. Raises ValueError for other shapes, integers, and a reference of another range such as 0
    to 255."""
    x, reference = torch.as_tensor(x), torch.as_tensor(reference)
    alike(x=x, reference=reference)
    shaped("N, C, H, W", x=x)
    if not (x.is_floating_point() and reference.is_floating_point()):
        raise ValueError(
            f"images must be floats in [-1, 1], not {x.dtype} and {reference.dtype}; to_tensor makes them of 0 to 255"
        )
    if reference.numel() and not reference.abs().max() <= 1 + 1e-3:
        low, high = float(reference.min()), float(reference.max())
        raise ValueError(
            f"the reference must lie in [-1, 1], and reaches from {low:g} to {high:g}: of 0 to 255 make x / 127.5 - 1"
        )
    return tuple(image.to(torch.promote_types(image.dtype, torch.float32)) for image in (x, reference))
