"""MedNIST: 58,954 real 64x64 grey images in six classes (B. Erickson, Mayo Clinic; CC BY-SA 4.0).

Made from TCIA, the RSNA bone age challenge and the NIH chest X-ray data set. The images carry no patient ids, and
neighbouring numbers of a class are often neighbouring slices of one scan, so a random split would put near-copies of
training images into the test set. The split is therefore by block: the last 5 % of each class by number are the test
set. That leaves few scans on both sides of the cut, not none: notebook 08 looks for them.
"""

import io
import re
from pathlib import PurePosixPath

import numpy as np

from data_fetch import cache
from data_fetch.errors import DataError, first_line, shown

NAME = "mednist"
CLASSES = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
SIZE = 64
TEST_FRACTION = 0.05


def is_available():
    """True when the ready arrays are in the cache (cheap)."""
    return cache.is_ready(NAME)


def load(split="train"):
    """Images uint8 (N, 64, 64) in 0..255 and labels int64 (N,), the index into CLASSES.

    split: "train", "test" (the last 5 % of each class by number, at least one) or "all".
    Order: by class as in CLASSES, then by file number. Raises DataError when MedNIST is not in the cache.
    """
    if not isinstance(split, str) or split not in ("train", "test", "all"):
        raise DataError(f"MedNIST has no split {split!r}; choose 'train', 'test' or 'all'.")
    images, labels = cache.load(NAME, "images", "labels")[1]
    if images.shape != (*labels.shape, SIZE, SIZE) or (images.dtype, labels.dtype) != (np.uint8, np.int64):
        raise cache.damaged(NAME, "its images and labels do not belong together")
    chosen = slice(None) if split == "all" else _in_test(labels) == (split == "test")
    return np.array(images[chosen]), np.array(labels[chosen])


def _in_test(labels):
    """Boolean (N,): the last max(1, floor(0.05 n)) of each class's n images."""
    in_test = np.zeros(len(labels), bool)
    for label in range(len(CLASSES)):
        where = np.flatnonzero(labels == label)
        in_test[where[len(where) - max(1, int(TEST_FRACTION * len(where))) :]] = True
    return in_test


def pack(members, dataset):
    """Arrays {"images", "labels"} from an archive's (name, bytes) pairs; DataError unless each class has its count."""
    found = {name: {} for name in CLASSES}
    for name, content in members:
        parts = PurePosixPath(name).parts
        if len(parts) != 3 or parts[1] not in found or not parts[2].endswith(".jpeg") or parts[2].startswith("."):
            continue  # a README, or what a file manager left behind
        images, number = found[parts[1]], parts[2].removesuffix(".jpeg")
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) in images:
            raise DataError(f"The archive holds {shown(name)} twice or under an odd number; get MedNIST anew.")
        if len(images) == dataset.counts[parts[1]]:
            raise DataError(
                f"The archive is not the whole MedNIST: it holds more than {len(images)} images of {parts[1]}; get it "
                "anew."
            )
        images[int(number)] = _decode(name, content)
    counts = {name: len(images) for name, images in found.items()}
    if counts != dataset.counts:
        raise DataError(
            f"The archive is not the whole MedNIST: it holds {counts} images, {dataset.counts} expected; get it anew."
        )
    images = np.stack([found[name][number] for name in CLASSES for number in sorted(found[name])])
    labels = np.repeat(np.arange(len(CLASSES)), [counts[name] for name in CLASSES]).astype(np.int64)
    return {"images": images, "labels": labels}, {"counts": counts}


def _decode(name, content):
    """uint8 (64, 64) of one JPEG."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.size != (SIZE, SIZE):
                raise DataError(
                    f"{shown(name)} has {image.size[0]}x{image.size[1]} pixels, not 64x64; get MedNIST anew."
                )
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"{shown(name)} in the archive is no readable JPEG ({first_line(error)}); get MedNIST anew."
        ) from error
