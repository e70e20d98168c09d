"""Lesions with several raters whose distribution is known: crops of brain cohort slices, made, 64 x 64 pixels of 2 mm.

Real data sets have a few opinions on each image, never all of them. Here every case has the same four raters, and the
chance of each is known, so that a model's distribution of masks can be compared with the true one:

========  ======  ======================================================
rater     chance  what it draws
========  ======  ======================================================
none      0.20    nothing: it takes the lesion for healthy tissue
core      0.20    pixels deeper than 1 pixel inside the true mask
outline   0.35    the true mask
generous  0.25    the true mask and all pixels up to 2 pixels around it
========  ======  ======================================================

The chances are the same for every lesion, faint or plain. Families: those whose masks have a core at this pixel size.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from data_fetch import brain_cohort
from data_fetch.errors import DataError

RATERS = ("none", "core", "outline", "generous")
CHANCES = (0.2, 0.2, 0.35, 0.25)
FAMILIES = ("hyper", "hypo", "mass")
SIZE, FULL_SIZE = 64, 96  # pixels of a crop and of the slice that it is cut from
MARGIN = 4  # pixels that stay free around the mask


@dataclass(frozen=True)
class RatedLesions:
    """images float32 (N, 64, 64) in [-1, 1]; ratings uint8 (N, 4, 64, 64), one mask for each of RATERS; numbers int64
    (N,): the subjects; families: the family of each lesion, a tuple of N names."""

    images: np.ndarray
    ratings: np.ndarray
    numbers: np.ndarray
    families: tuple


def load(split, n, seed=0, strength=1.0, processes=1):
    """n cases of a split, families in turn. seed chooses the subjects, each of which has its own place of the crop;
    strength as in ``brain_cohort.slice_2d``; so many processes share the work, for the same cases. Raises DataError for
    other values, and unless n is 1 or more."""
    numbers = brain_cohort.numbers(split, n, seed)
    if not n:
        raise DataError("There is no case among 0 rated lesions; ask for 1 or more.")
    families = tuple(FAMILIES[k % len(FAMILIES)] for k in range(n))
    make = partial(_case, strength=strength)
    cases = brain_cohort.in_processes(make, list(zip(numbers.tolist(), families)), processes)
    images, masks = (np.stack(part) for part in zip(*cases))
    return RatedLesions(images, ratings(masks), numbers, families)


def _case(subject, strength):
    """Image float32 and mask bool (SIZE, SIZE) of one (number, family)."""
    number, family = subject
    case = brain_cohort.slice_2d(number, FULL_SIZE, lesion=family, strength=strength)
    rows, columns = crop(case.mask, number)
    return case.image[rows, columns].astype(np.float32), case.mask[rows, columns] > 0


def crop(mask, number):
    """Where a subject's crop lies, slices of rows and columns: the mask (H, W) is inside with MARGIN pixels to spare,
    at a place that the number draws. Raises DataError for a mask that is empty, or does not fit into a crop."""
    mask = np.asarray(mask)
    if mask.ndim != 2 or min(mask.shape) < SIZE or not mask.any():
        raise DataError(f"A mask to crop is (H, W), {SIZE} or more a side and not empty; this one is {mask.shape}.")
    if max(np.ptp(np.flatnonzero(mask.any(1 - axis))) for axis in (0, 1)) + 1 > SIZE - 2 * MARGIN:
        raise DataError(f"The mask is too large: a crop of {SIZE} pixels holds {SIZE - 2 * MARGIN} of them a side.")
    if not isinstance(number, (int, np.integer)) or number < 0:
        raise DataError(f"A subject's number is a whole number from 0 on, not {number!r}.")
    rng = np.random.default_rng(number)
    found = []
    for axis, side in enumerate(mask.shape):
        where = np.flatnonzero(mask.any(1 - axis))
        first = max(where[-1] + 1 + MARGIN - SIZE, 0)
        last = min(where[0] - MARGIN, side - SIZE)
        start = int(rng.integers(first, max(first, last) + 1))
        found.append(slice(start, start + SIZE))
    return tuple(found)


def ratings(masks):
    """The four raters' masks of true masks (N, H, W) of 0 and 1: uint8 (N, 4, H, W). Raises DataError for others."""
    masks = np.asarray(masks)
    if masks.ndim != 3 or not len(masks) or not np.isin(masks, (0, 1)).all():
        raise DataError(f"The raters take masks (N, H, W) of 0 and 1; these are {masks.dtype} of shape {masks.shape}.")
    masks = masks.astype(bool)
    none = np.zeros_like(masks)
    core = np.stack(
        [mask.all() | (ndimage.distance_transform_edt(mask) > 1) for mask in masks]
    )  # depth of a border pixel is 1
    generous = np.stack([mask.any() & (ndimage.distance_transform_edt(~mask) <= 2) for mask in masks])
    return np.stack([none, core, masks, generous], 1).astype(np.uint8)


def draw(rated, rng):
    """The mask of one rater for each case, drawn by CHANCES: uint8 (N, 64, 64). rated: RatedLesions."""
    chosen = rng.choice(len(RATERS), len(rated.ratings), p=CHANCES)
    return rated.ratings[np.arange(len(chosen)), chosen]
