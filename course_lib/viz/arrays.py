"""numpy, torch and lists alike, without importing torch."""

import numpy as np

__all__ = ["all_shown", "as_array", "as_images"]


def as_array(values):
    """numpy, torch (any device, bfloat16 too), list or number -> numpy array; lists of tensors are stacked."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()
    if isinstance(values, (list, tuple)) and any(hasattr(value, "detach") for value in values):
        return np.stack([as_array(value) for value in values])
    return np.asarray(values)


def as_images(images):
    """(H, W), (N, H, W), (N, 1, H, W) or colour (N, H, W, 3) -> (N, H, W) or (N, H, W, 3).

    Raises ValueError for any other shape, so that a forgotten axis shows here and not as an odd picture.
    """
    array = as_array(images)
    if array.ndim == 2:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1 and array.shape[-1] != 3:
        array = array[:, 0]
    if array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 3):
        return array
    raise ValueError(f"expected images as (N, H, W) or (N, 1, H, W), got shape {array.shape}")


def all_shown(array):
    """The array of a picture as it is, or ValueError where a value is NaN or infinite: a grey scale has no colour for
    it, and each program shows another (black, white, the background)."""
    bad = 0 if array.dtype.kind in "bui" else int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{bad} of the {array.size} values of a picture are NaN or infinite: find where they come from, or say how "
            "they are to be seen, as in np.nan_to_num(x, nan=-1)"
        )
    return array
