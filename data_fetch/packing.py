"""One file of a data set in the cache, small enough to carry to a machine without a network; and back into its cache.

MedNIST becomes a subset, spread evenly over each class by number, as JPEG of quality 90: grey levels differ by 0.2 to 3
of 255 (root mean square, by class). Other sets are packed whole and without loss.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

from data_fetch import cache, mednist
from data_fetch.errors import DataError, first_line, reading
from data_fetch.registry import find

IMAGES = 35_000  # of MedNIST: 36 MB
_STRIP = 1000  # images one below the other in a JPEG, which has one header for all of them
_QUALITY = 90


def pack(name, path, images=IMAGES):
    """Pack data set ``name`` of the cache into the file ``path``; returns its size in bytes.

    images : so many of MedNIST. Raises DataError when the set is not in the cache, or the file cannot be written.
    """
    manifest = cache.require(name)
    if not Path(path).name or Path(path).is_dir():
        raise DataError(f"{path!s} is no name of a file; give one to write the packed data set to.")
    arrays = dict(zip(manifest["files"], cache.load(name, *manifest["files"])[1]))
    about = {key: value for key, value in manifest.items() if key != "files"}
    if name == mednist.NAME:
        arrays, about = _strips(arrays, images), about | {"subset": images, "public_checksum": False}
    with cache.replacing(path) as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
        return file.tell()


def unpack(path):
    """Put a packed data set into the cache; returns its name. Raises DataError when the file is none, and when the
    cache has that data set, which a part of it must not replace."""
    with reading(path, "check the path of the packed data set"), open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as packed:
                arrays = dict(packed)
            about = json.loads(str(arrays.pop("about")))
            name = find(about.pop("name")).name
            if clash := {"arrays", "files"} & about.keys():
                raise ValueError(f"it says {clash.pop()!r} of itself")
            if name == mednist.NAME:
                arrays = _images(arrays)
        except (
            *(ValueError, KeyError, TypeError, EOFError, AttributeError),
            *(zipfile.BadZipFile, zipfile.LargeZipFile),
        ) as error:
            raise DataError(f"{path} is no packed data set ({first_line(error)}); pack it anew.") from error
    with cache.locked(name):  # what another process completes meanwhile is seen
        if cache.is_ready(name):
            raise DataError(f"{find(name).title} is in the cache {cache.root()} already; it stays as it is.")
        cache.save(name, arrays, **about)
    return name


def _strips(arrays, n):
    """n images of MedNIST's arrays as strips of JPEG, and their labels."""
    from PIL import Image

    if not 1 <= n <= len(arrays["labels"]):
        raise DataError(f"MedNIST has {len(arrays['labels'])} images, not {n}; pack 1 or more of them.")
    chosen = np.linspace(0, len(arrays["labels"]) - 1, n).round().astype(int)
    packed = {"labels": np.asarray(arrays["labels"][chosen])}
    for k, part in enumerate(range(0, n, _STRIP)):
        jpeg, images = io.BytesIO(), np.asarray(arrays["images"][chosen[part : part + _STRIP]])
        Image.fromarray(images.reshape(-1, images.shape[-1])).save(jpeg, "JPEG", quality=_QUALITY, optimize=True)
        packed[f"strip_{k:03}"] = np.frombuffer(jpeg.getvalue(), np.uint8)
    return packed


def _images(packed):
    """The arrays of MedNIST from what :func:`_strips` gives."""
    from PIL import Image

    strips = [np.asarray(Image.open(io.BytesIO(packed[key].tobytes()), formats=["JPEG"])) for key in sorted(packed)[1:]]
    images = np.concatenate(strips).reshape(-1, mednist.SIZE, mednist.SIZE)
    if len(images) != len(packed["labels"]):
        raise ValueError("its images and labels do not belong together")
    return {"images": images, "labels": packed["labels"]}
