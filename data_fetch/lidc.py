"""Lung nodules on CT with the outlines of up to four readers (LIDC-IDRI; Armato et al., Medical Physics 38, 2011,
915-931; TCIA, doi 10.7937/K9/TCIA.2015.LO9QL9SX, CC BY 3.0).

Crops of 64 x 64 pixels with the nodule in the middle: 775 persons, 2,349 nodules, up to six slices each, 9,959 in all.
The public copy (github.com/periclesanfe/Pulmoseg) has 128 x 128 pixels and every slice; the import takes of it what the
course is trained on: the centre, the slices with an outline, and of more than six of a nodule six evenly spaced ones,
the nearest of them replaced by the one with the most outlined pixels.

What these data are not:

- The four masks of a slice are an **unordered set**: slots fill in order, and slot 2 is not one reader in two scans.
- An empty mask means that a reader did not outline this nodule here. Outlines were asked of nodules of 3 mm and more:
  it may say *smaller*, *no nodule*, *not seen* or, at the ends of a nodule, *not on this slice*. Four drew in a third
  of the nodules, three in a fifth, two in a fifth, one in a third. A few outlines leave the crop: 101 of the 39,836
  masks lose pixels, and 16 slices keep four empty masks.
- Each crop is stretched by its own minimum and maximum: grey levels are no Hounsfield units, and do not compare between
  crops. The size of a pixel is that of the scan, and not known.
- Of the 875 persons of the public copy 100 are left out: who wants to judge a network on persons whom nothing in the
  course has seen finds them there.
"""

import re
from dataclasses import dataclass

import numpy as np

from data_fetch import cache
from data_fetch.errors import DataError, shown
from data_fetch.picture_files import grey_png

NAME = "lidc"
SIZE = 64
READERS = 4
SPLITS = ("train", "validation", "test")
SLICES = 6  # of one nodule, at most
_PUBLIC = 128  # pixels a side of the public crops
_MEMBER = (
    r"(?:[^/]+/)?LIDC-IDRI-slices/LIDC-IDRI-([0-9]{4})/nodule-([0-9]{1,3})/(images|mask-[0-3])/slice-([0-9]{1,3})\.png"
)
_KINDS = ("images", *(f"mask-{k}" for k in range(READERS)))
_NUMBERS = """
        41 43 50 52 53 63 64 65 67 68 76 79 88 93 97 102 105 111 126 132 142 154 161 162 176 193 194 202 223 235 244
        246 266 269 274 320 323 338 339 348 355 367 388 390 412 416 427 453 456 480 481 484 487 490 497 517 523 538 567
        574 576 588 594 609 618 624 630 638 642 649 652 657 659 664 671 673 678 680 684 714 726 736 741 752 767 799 801
        820 834 852 890 915 958 959 973 974 981 994 1002 1007
"""
_LEFT_OUT = frozenset(map(int, _NUMBERS.split()))  # persons of the public copy


@dataclass(frozen=True)
class Nodules:
    """Slices of nodules. images: uint8 (N, 64, 64), each stretched to 0..255; masks: uint8 (N, 4, 64, 64) of 0 and 1,
    an unordered set, empty where a reader did not outline the nodule; persons, nodules, slices: int64 (N,), the number
    in LIDC-IDRI-0001, the nodule of that person, and the slice of that nodule from one end to the other."""

    images: np.ndarray
    masks: np.ndarray
    persons: np.ndarray
    nodules: np.ndarray
    slices: np.ndarray


def is_available():
    """True when the ready arrays are in the cache (cheap)."""
    return cache.is_ready(NAME)


def load(split="train"):
    """The `Nodules` of "train", "validation" or "test" (no person is in two of them), or "all".

    They come by person, nodule and slice. Raises DataError when the data set is not in the cache, or damaged.
    """
    if not isinstance(split, str) or split not in (*SPLITS, "all"):
        raise DataError(f"LIDC has no split {split!r}; choose one of: {', '.join(SPLITS)}, all.")
    images, masks, places = cache.load(NAME, "images", "masks", "places")[1]
    n = len(images)
    found = [(array.shape, array.dtype) for array in (images, masks, places)]
    shapes = (n, SIZE, SIZE), (n, READERS, SIZE, SIZE // 8), (n, 3)
    if found != list(zip(shapes, map(np.dtype, ("u1", "u1", "i8")))):
        raise cache.damaged(NAME, "its images, masks and persons do not belong together")
    chosen = slice(None) if split == "all" else part(places[:, 0]) == SPLITS.index(split)
    return Nodules(np.array(images[chosen]), np.unpackbits(masks[chosen], axis=-1), *np.array(places[chosen]).T)


def part(persons):
    """Index into SPLITS of persons' numbers (N,), by the last digit: about 80, 10 and 10 % of the persons."""
    return np.maximum(np.asarray(persons) % 10 - 7, 0)


def pack(members, dataset):
    """Arrays {"images", "masks", "places"} and facts from an archive's (name, bytes) pairs, crops of 64 or 128 pixels.

    masks hold eight pixels a byte; places are person, nodule and slice. Raises DataError when a picture is missing,
    twice there or none, and when persons, nodules or slices are not as many as they should be.
    """
    found, sides, most = {}, set(), 2 * dataset.counts["slices"]  # the public copy has 1.56 times as many
    for name, content in members:
        if "LIDC-IDRI-slices/" not in name or not name.endswith(".png") or "/." in name:
            continue  # what else is in the repository, or what a file manager left behind
        matched = re.fullmatch(_MEMBER, name)
        if not matched:
            raise DataError(f"The archive holds {shown(name)}, an odd name for a slice of LIDC; get the archive anew.")
        place, kind = (int(matched[1]), int(matched[2]), int(matched[4])), matched[3]
        if place[0] in _LEFT_OUT:
            continue
        pictures = found.setdefault(place, {})
        if kind in pictures:
            raise DataError(f"The archive holds {shown(name)} twice; get LIDC anew.")
        if len(found) > most:
            raise DataError(f"The archive is more than the whole LIDC: it holds above {most} slices; get it anew.")
        pictures[kind] = _decode(name, content, kind)
        sides.add(pictures[kind][2])
    for place, pictures in found.items():
        if len(pictures) < len(_KINDS):
            missing = ", ".join(sorted(set(_KINDS) - pictures.keys()))
            raise DataError(
                f"The archive is not the whole LIDC: slice {place[2]} of nodule {place[1]} of person {place[0]} has no "
                f"{missing}; get it anew."
            )
    if len(sides) > 1:
        raise DataError(f"The archive mixes pictures of {SIZE} and {_PUBLIC} pixels a side; get LIDC anew.")
    kept = sorted(found)
    if sides == {_PUBLIC}:
        kept = _chosen({place: sum(pictures[kind][1] for kind in _KINDS[1:]) for place, pictures in found.items()})
    persons, nodules = (len({place[:k] for place in kept}) for k in (1, 2))
    counts = {"persons": persons, "nodules": nodules, "slices": len(kept)}
    if counts != dataset.counts:
        raise DataError(
            f"The archive is not the whole LIDC: it holds {counts}, {dataset.counts} expected; get it anew."
        )
    images = np.stack([found[place]["images"][0] for place in kept])
    masks = np.stack([[found[place][kind][0] for kind in _KINDS[1:]] for place in kept])
    return {"images": images, "masks": masks, "places": np.array(kept, np.int64)}, {"counts": counts}


def _decode(name, content, kind):
    """The centre of a picture, uint8 (64, 64), or of a mask (64, 8) with eight pixels a byte; how many pixels a mask
    has, those outside the centre included; and the side of the picture."""
    picture = grey_png(name, content, (SIZE, _PUBLIC))
    edge = (len(picture) - SIZE) // 2
    centre = picture[edge : edge + SIZE, edge : edge + SIZE]
    if kind == "images":
        return centre.copy(), 0, len(picture)
    if not np.isin(picture, (0, 255)).all():
        raise DataError(f"{shown(name)} in the archive is no mask: it has shades of grey; get LIDC anew.")
    return np.packbits(centre > 0, axis=-1), np.count_nonzero(picture), len(picture)


def _chosen(pixels):
    """The places (person, nodule, slice) of the public copy that are kept, in order, of {place: outlined pixels}."""
    nodules = {}
    for place in sorted(place for place, count in pixels.items() if count):
        nodules.setdefault(place[:2], []).append(place)
    kept = []
    for places in nodules.values():
        if len(places) > SLICES:
            even = np.linspace(0, len(places) - 1, SLICES).round().astype(int)
            largest = int(np.argmax([pixels[place] for place in places]))
            if largest not in even:
                even[np.abs(even - largest).argmin()] = largest
            places = [places[k] for k in even]
        kept += places
    return kept
