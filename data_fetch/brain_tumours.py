"""Brain tumours on MRI: axial T1 slices after contrast, each with a tumour, its outline and its class (J. Cheng,
figshare 1512427, version 5, 2017; CC BY 4.0; Cheng et al., PLoS ONE 10(10), 2015, e0140381).

Of the 3,064 published slices (233 patients of two hospitals in China) the 989 axial ones, 128 x 128 pixels: 201 of
meningioma, 499 of glioma, 289 of pituitary tumours. The import takes them from pictures of that size, or from the
published MATLAB files, where it averages squares of pixels; both have the published numbers.

What these data are not:

- **There is no slice without a tumour**: a prior of healthy tissue must be trained with its loss masked on the widened
  outline. The skull is on.
- Which slices are axial is no published fact: it was estimated and checked by eye, and 2692 looks coronal. 15 slices
  whose outline disagrees with an independent box are left out as well.
- Grey levels are each slice's own, stretched by its minimum and maximum; they do not compare between slices. Pixels are
  2 mm (4 x 4 of 0.49 mm; slices are 6 mm thick and 1 mm apart).
- The pictures carry no patient's number. Their split is a **stand-in** for one by patient: contiguous blocks of numbers
  within a class, with a gap of GAP slices between two of them that is in none. Neighbours in number are often one
  patient's: the correlation of two slices' grey levels falls to that of strangers within six numbers. A patient who
  comes twice, far apart, may still be on both sides. The MATLAB files carry patients, and then the split is theirs:
  they go where the first of their slices is.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from data_fetch import cache
from data_fetch.errors import DataError, first_line, shown
from data_fetch.picture_files import grey_png

NAME = "brain_tumours"
CLASSES = ("meningioma", "glioma", "pituitary")  # labels 1, 2, 3 of the MATLAB files
SIZE = 128
SPLITS = ("train", "validation", "test")
GAP = 10  # slices in none of SPLITS, between two blocks without patients' numbers
FRACTION = 0.1  # of each class, of validation and of test
_LARGEST = 1024  # pixels a side of a MATLAB file's image; real ones have 512, a few 256
_AXIAL = (
    *((1, 58), (60, 79), (87, 210), (709, 709), (712, 746), (757, 760), (922, 1033), (1283, 1455), (1841, 2241)),
    *((2344, 2402), (2692, 2692), (3063, 3063)),
)  # numbers of the axial slices, first and last of each run


@dataclass(frozen=True)
class Tumours:
    """Slices with a tumour. images: uint8 (N, 128, 128), each stretched to 0..255; masks: uint8 (N, 128, 128) of 0 and
    1; labels: int64 (N,), index into CLASSES; numbers: int64 (N,), as published; patients: int64 (N,), counted by their
    first number, -1 where the archive knew none."""

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    numbers: np.ndarray
    patients: np.ndarray


def is_available():
    """True when the ready arrays are in the cache (cheap)."""
    return cache.is_ready(NAME)


def load(split="train"):
    """The `Tumours` of "train", "validation" or "test", or "all" (with what lies in the gaps); by class, then number.

    Raises DataError when the data set is not in the cache, or damaged.
    """
    if not isinstance(split, str) or split not in (*SPLITS, "all"):
        raise DataError(f"The tumours have no split {split!r}; choose one of: {', '.join(SPLITS)}, all.")
    images, masks, facts = cache.load(NAME, "images", "masks", "facts")[1]
    found = [(array.shape, array.dtype) for array in (images, masks, facts)]
    n = len(images)
    if found != list(zip(((n, SIZE, SIZE), (n, SIZE, SIZE), (n, 3)), map(np.dtype, ("u1", "u1", "i8")))):
        raise cache.damaged(NAME, "its images, masks and labels do not belong together")
    labels, _, patients = facts.T
    chosen = slice(None) if split == "all" else parts(labels, patients) == SPLITS.index(split)
    return Tumours(np.array(images[chosen]), np.array(masks[chosen]), *np.array(facts[chosen]).T)


def parts(labels, patients):
    """Index into SPLITS of slices (N,), sorted by class and number; -1 in a gap.

    labels: (N,); patients: (N,), -1 where not known. Of a class's n slices the last floor(0.1 n), at least one, are the
    test set, as many before them and before the gap the validation set. A known patient is where the first slice is,
    and one whose first slice is in a gap is in the block before it. Raises DataError for a class that has too few.
    """
    found = np.full(len(labels), -1)
    blocks = np.empty(len(labels), int)  # as found, with each gap in the block before it
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        size = max(1, int(FRACTION * len(where)))
        test = len(where) - size
        validation = test - GAP - size
        if validation - GAP < 1:
            raise DataError(
                f"{len(where)} slices of a class are too few to be split; {2 * (size + GAP) + 1} are enough."
            )
        for part, (start, stop, end) in enumerate(
            ((0, validation - GAP, validation), (validation, test - GAP, test), (test, len(where), len(where)))
        ):
            found[where[start:stop]] = part
            blocks[where[start:end]] = part
    for patient in np.unique(patients[patients >= 0]):
        where = np.flatnonzero(patients == patient)
        found[where] = blocks[where[0]]
    return found


def pack(members, dataset):
    """Arrays {"images", "masks", "facts"} and counts from an archive's (name, bytes) pairs: pictures with labels.csv,
    or MATLAB files. facts are label, number and patient.

    Raises DataError when a file is missing, twice there or none, and when slices are not as many as they should be.
    """
    found, labels = {"images": {}, "masks": {}}, {}
    patients, most = {}, sum(dataset.counts.values())
    for name, content in members:
        path = PurePosixPath(name)
        folder, number = path.parent.name, path.stem
        if path.name == "labels.csv":
            labels |= _read_labels(content)
            continue
        is_picture, is_matlab = path.suffix == ".png" and folder in found, path.suffix == ".mat" and number != "cvind"
        if name.startswith(".") or "/." in name or not (is_picture or is_matlab):
            continue  # a README, the published folds (cvind.mat), or what a file manager left behind
        images = found[folder] if is_picture else found["images"]
        if not re.fullmatch("[0-9]{1,4}", number) or int(number) in images:
            raise DataError(f"The archive holds {shown(name)} twice or under an odd number; get the archive anew.")
        number = int(number)
        if is_matlab and not any(first <= number <= last for first, last in _AXIAL):
            continue
        if len(images) == most:
            raise DataError(f"The archive is not the whole set of tumours: it holds more than {most}; get it anew.")
        if is_picture:
            images[number] = _picture(name, content, folder == "masks")
        else:
            images[number], found["masks"][number], labels[number], patients[number] = _matlab(name, content)
    images, masks = found["images"], found["masks"]
    counts = {kind: sum(labels[number] == k for number in labels) for k, kind in enumerate(CLASSES)}
    if not images.keys() == masks.keys() == labels.keys() or counts != dataset.counts:
        raise DataError(
            f"The archive is not the whole set of tumours: it holds {len(images)} images, {len(masks)} masks and "
            f"{counts} by their labels, {dataset.counts} expected; get it anew."
        )
    order = sorted(labels, key=lambda number: (labels[number], number))
    known = list(dict.fromkeys(patients[number] for number in sorted(patients)))
    facts = [(labels[k], k, known.index(patients[k]) if k in patients else -1) for k in order]
    arrays = {
        "images": np.stack([images[number] for number in order]),
        "masks": np.stack([masks[number] for number in order]),
        "facts": np.array(facts, np.int64),
    }
    return arrays, {"counts": counts, "patients": len(known)}


def _read_labels(content):
    """{number: label} of labels.csv; DataError where it is none."""
    try:
        rows = csv.reader(io.StringIO(content.decode("ascii")))
        if next(rows) != ["number", "tumour"]:
            raise ValueError("other columns")
        labels = {}
        for number, kind in filter(None, rows):
            if not re.fullmatch("[0-9]{1,4}", number) or int(number) in labels:
                raise ValueError(f"{shown(number)} is twice there or odd")
            labels[int(number)] = CLASSES.index(kind)
        return labels
    except (ValueError, StopIteration, csv.Error) as error:
        raise DataError(
            f"labels.csv in the archive is not the list of the tumours ({first_line(error)}); get the archive anew."
        ) from error


def _picture(name, content, is_mask):
    """uint8 (128, 128) of a PNG; of a mask 0 and 1."""
    picture = grey_png(name, content, (SIZE,))
    return _checked_mask(name, picture / 255) if is_mask else picture


def _checked_mask(name, mask):
    """uint8 (128, 128) of a mask of 0 and 1; DataError where it is another, or empty."""
    if not np.isin(mask, (0, 1)).all() or not mask.any():
        raise DataError(f"{shown(name)} in the archive is no mask of a tumour: it is grey or empty; get it anew.")
    return mask.astype(np.uint8)


def _matlab(name, content):
    """Image and mask, uint8 (128, 128), label and patient of a MATLAB file of version 7.3, which is HDF5.

    Its struct ``cjdata`` has label (1 to 3), PID (text), image, tumorBorder and tumorMask. MATLAB stores columns first.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            label = float(_field(file, "label", 1).item())
            patient = "".join(chr(code) for code in _field(file, "PID", 64).ravel())
            image, mask = (_field(file, key, _LARGEST**2).T.astype(np.float64) for key in ("image", "tumorMask"))
    except Exception as error:  # h5py raises many kinds on damaged files
        raise DataError(
            f"{shown(name)} in the archive is no MATLAB file of a tumour ({first_line(error)}); get the archive anew."
        ) from error
    side = len(image)
    if image.shape != (side, side) or mask.shape != image.shape or side % SIZE or not side:
        raise DataError(
            f"{shown(name)} in the archive has an image {image.shape} and a mask {mask.shape}, no squares alike of a "
            f"multiple of {SIZE} pixels; get the archive anew."
        )
    if label not in (1, 2, 3) or not patient.strip() or not np.isfinite(image).all() or not np.ptp(image):
        raise DataError(
            f"{shown(name)} in the archive has an odd label or patient, or an image that is flat, NaN or infinite; get "
            "the archive anew."
        )
    _checked_mask(name, mask)
    squares = (SIZE, side // SIZE, SIZE, side // SIZE)
    scaled = (image - image.min()) * (255 / np.ptp(image))
    small = scaled.reshape(squares).mean((1, 3)).round().astype(np.uint8)
    cover = (mask.reshape(squares).mean((1, 3)) >= 0.5).astype(np.float64)
    return small, _checked_mask(name, cover), int(label) - 1, patient


def _field(file, key, most):
    """An array of the struct, read where it lies in this file, has at most so many numbers, and is packed in pieces no
    larger; ValueError and the like for another."""
    import h5py

    for path in ("cjdata", f"cjdata/{key}"):
        if not isinstance(file.get(path, getlink=True), h5py.HardLink):
            raise ValueError(f"{path} lies in another file, or is missing")
    field = file[f"cjdata/{key}"]
    if field.is_virtual or field.external or field.dtype.kind not in "iuf" or not 0 < field.size <= most:
        raise ValueError(f"{key} is not what it should be")
    if field.chunks and np.prod(field.chunks) > 4 * _LARGEST**2:
        raise ValueError(f"{key} is packed in an odd way")
    return field[()]
