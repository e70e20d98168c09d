"""Arrays of images to tensors in [-1, 1] and back, through a network a batch at a time, and into files."""

import io
from pathlib import Path

import numpy as np
import torch

from course_lib import arguments, runtime
from course_lib.files import write_atomically


def to_tensor(images):
    """(N, H, W) or (N, C, ...), uint8 in 0..255 or float in [-1, 1] -> float32 (N, 1 or C, ...) in [-1, 1].

    Floats a little beyond, such as latents of unit variance, are taken as they are. Raises ValueError for other whole
    numbers, for a single image, for NaN, and for floats that are not scaled.
    """
    x = images if torch.is_tensor(images) else torch.as_tensor(np.ascontiguousarray(images))  # torch takes no flips
    if x.ndim < 3:
        raise ValueError(
            f"images must be (N, H, W) or (N, C, ...); got shape {tuple(x.shape)}: one alone is image[None]"
        )
    if x.dtype == torch.uint8:
        x = x.float() / 127.5 - 1
    elif x.is_floating_point():
        x = x.float()
        arguments.images(images=x)
    else:
        raise ValueError(
            f"images must be uint8 in 0..255 or floats in [-1, 1]; got {str(x.dtype).removeprefix('torch.')}: scale "
            "them to one of the two"
        )
    return x[:, None] if x.ndim == 3 else x


def to_uint8(images):
    """Float images in [-1, 1] -> uint8 in 0..255, a quarter of the memory; to_tensor is its inverse.

    What lies a little beyond [-1, 1] is clipped. Raises ValueError for whole numbers, NaN, and floats of 0..255.
    """
    x = np.asarray(images)
    if x.dtype.kind != "f":
        raise ValueError(f"images must be floats in [-1, 1]; got {x.dtype}")
    arguments.images(images=torch.as_tensor(x))
    return ((x + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


@torch.no_grad()
def in_batches(function, images, batch_size=500):
    """function over images (N, H, W), uint8 or float in [-1, 1], a batch at a time; single precision, on the CPU
    again."""
    arguments.whole(batch_size=batch_size)
    if not len(images):
        raise ValueError("images must be one or more, got none")
    where = runtime.device()
    parts = [to_tensor(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return torch.cat([function(part.to(where)).cpu() for part in parts])


def finite(x):
    """Raises ValueError unless all values of x are finite: NaN would pass for black."""
    bad = x.size - int(np.isfinite(x).sum())
    if bad:
        raise ValueError(
            f"{bad} of {x.size} values drawn are NaN or infinite, and nothing was written: try other times or another "
            "number of evaluations"
        )


def without_pictures(folder):
    """Raises ValueError where the folder is none, or holds pictures or volumes, which new ones would mix with."""
    if not str(folder):
        raise ValueError("the folder has no name: give one, such as samples, which is made if missing")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder, which is made if missing")
    found = [p.name for p in folder.glob("*") if p.name.endswith((".png", ".npz", ".nii.gz"))]
    if found:
        raise ValueError(
            f"{folder} holds {len(found)} files of pictures already ({min(found)}, ...): name another folder, or move "
            "them away"
        )


def _are_classes(labels, known):
    """Whether labels are whole numbers in 0..known - 1."""
    labels = np.asarray(labels)
    return labels.dtype.kind in "iu" and bool(((labels >= 0) & (labels < known)).all())


def save_images(images, folder, labels=None, classes=()):
    """Write images (N, H, W) in [-1, 1] as 8-bit PNGs and ``samples.npz`` (``images`` float32, ``labels`` int64).

    Raises ValueError, before anything is written, for NaN, for images of another shape or range, for labels that do
    not fit, for names of classes that are none of files, and for a folder that holds pictures.
    """
    from PIL import Image

    images = np.asarray(images)
    images = images.astype(np.float32) if images.dtype.kind == "f" else images
    finite(images)
    without_pictures(folder)
    if images.ndim != 3:
        raise ValueError(f"images must be (N, H, W); got shape {images.shape}")
    if labels is not None and (len(labels) != len(images) or not _are_classes(labels, len(classes))):
        raise ValueError(f"labels must be {len(images)} numbers in 0..{len(classes) - 1}, one an image")
    unfit = [name for name in classes if labels is not None and set(str(name)) & set("/\\")]
    if unfit:
        raise ValueError(f"classes name the files, so they must hold neither / nor \\; got {unfit[0]!r}")
    folder, arrays = Path(folder), {"images": images}
    if labels is not None:
        arrays["labels"] = np.asarray(labels, np.int64)
    for k, image in enumerate(to_uint8(images)):
        ending = "" if labels is None else f"_{classes[labels[k]]}"
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        write_atomically(folder / f"{k:03d}{ending}.png", png.getvalue())
    npz = io.BytesIO()
    np.savez_compressed(npz, **arrays)
    write_atomically(folder / "samples.npz", npz.getvalue())
