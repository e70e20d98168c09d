"""Multiple sclerosis: the lesions of 30 persons in MNI space, and the brains of three of them (Lesjak et al.,
Neuroinformatics 16, 2018, 51-63, doi 10.1007/s12021-017-9348-7; CC BY).

University of Ljubljana; brought into MNI space in github.com/muschellij2/open_ms_data. A mask is the consensus of three
raters, on the grid of the 1 mm MNI152 template, 182 x 218 x 182 voxels. FLAIR, T1, T1 after contrast and T2 of persons
07 (few and small lesions), 19 (many) and 26 are on the same grid, skull-stripped and N4-corrected, rounded to 8 bits.

What these data are not: 30 masks are shapes and places of lesions, no test set of images. Three persons illustrate;
they rank no methods. Intensities are in arbitrary units, of one scanner (3 T). Heads were fitted to a template: the
size of a lesion is that in its space, not in the person. **A position in mm is not that of ICBM or MNI152**: the brains
of these files are about 120 x 152 mm, a seventh smaller than the template of the brain cohort, and flatter. TO_TEMPLATE
leads from one to the other.
"""

import csv
import io
import re
from dataclasses import dataclass
from functools import partial

import numpy as np

from data_fetch import cache
from data_fetch.archives import nifti, refused
from data_fetch.errors import DataError, first_line, shown

NAME = "ms_lesions"
CONTRASTS = ("FLAIR", "T1", "T1POST", "T2")
COURSES = ("CIS", "RR", "SP", "PR")  # clinically isolated syndrome, relapsing-remitting, secondary, primary progressive
#: Voxel index to mm, RAS+: x to the right, y to the front, z up
AFFINE = np.array([[1.0, 0, 0, -91], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
#: mm of these files to mm of the ICBM 2009a template. Three scales and a shift, fitted to the T1 of persons 7 and 26
#: (correlation with the smoothed template 0.97 and 0.96, without it 0.73) and rounded; person 19, whose brain has
#: shrunk, 0.83 (0.68). Of the 30 masks, which had no part in it, 2.8 % then lie in fluid or outside instead of 6.6 %,
#: and the share of white matter at their voxels is 0.74 instead of 0.65.
TO_TEMPLATE = np.array(
    [[1 / 0.85, 0, 0, 0], [0, 1 / 0.86, 0, 17 / 0.86 - 17], [0, 0, 1 / 0.77, 10 - 13 / 0.77], [0, 0, 0, 1]]
)
_STORED = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])  # of the files: x to the left
_MEMBER = r"(?:[^/]+/)?cross_sectional/MNI/patient([0-9]{2})/([A-Z0-9]+|GOLD_STANDARD)_N4_noneck_\w+\.nii\.gz"
_INFO = r"(?:[^/]+/)?cross_sectional/patient_info\.csv"
_COLUMNS = ["patient_id", "age", "sex", "ms_type", "edss", "criteria"]
_LIMIT = 40 << 20  # bytes of one volume unpacked: 29 MB as float32


@dataclass(frozen=True)
class Person:
    """One person.

    number: 1 to 30; age: years; sex: "F" or "M"; course: one of COURSES, None where not known; edss: expanded
    disability status, 0 to 10, None where not known. packed: the mask with eight voxels a byte, as ``lesions`` unpacks
    it; shape: of mask and volumes, axes RAS+, voxel index to mm by AFFINE; stored: {contrast: uint8 volume}, empty but
    for three persons, and slopes: {contrast: float}, with real value = slope * stored, as ``volume`` gives it.
    """

    number: int
    age: int
    sex: str
    course: str | None
    edss: float | None
    packed: np.ndarray
    shape: tuple
    stored: dict
    slopes: dict

    @property
    def lesions(self):
        """The consensus mask, bool (182, 218, 182)."""
        count = int(np.prod(self.shape))
        return np.unpackbits(self.packed, count=count).view(bool).reshape(self.shape)

    def volume(self, contrast):
        """Intensities float32 (182, 218, 182) of one of CONTRASTS, 0 outside the brain. Raises DataError where the data
        set has none of this person."""
        if contrast not in self.stored:
            there = ", ".join(self.stored) or "no volumes, just the mask"
            raise DataError(f"Person {self.number} has no {contrast!r}; there are: {there}.")
        return self.stored[contrast].astype(np.float32) * np.float32(self.slopes[contrast])


def is_available():
    """True when the ready arrays are in the cache (cheap)."""
    return cache.is_ready(NAME)


def load(numbers=None):
    """A list of `Person`, by number: all 30, or those of these numbers.

    Raises DataError when the data set is not in the cache, or damaged, or has no person of such a number.
    """
    found, (masks, volumes) = cache.load(NAME, "masks", "volumes")
    try:
        persons = {entry["number"]: _person(entry, k, masks, volumes) for k, entry in enumerate(found["persons"])}
        if not len(persons) == len(masks) or sum(len(person.stored) for person in persons.values()) != len(volumes):
            raise ValueError("they are not as many as the arrays")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise cache.damaged(NAME, f"its persons make no sense: {first_line(error)}") from error
    wanted = list(persons) if numbers is None else list(numbers)
    if unknown := [number for number in wanted if number not in persons]:
        raise DataError(f"There is no person {unknown[0]!r} in the MS data; choose from 1 to {len(persons)}.")
    return [persons[number] for number in wanted]


def _person(entry, k, masks, volumes):
    """The `Person` of an entry of the manifest; ValueError and the like where it describes none."""
    shape = volumes.shape[1:]
    if masks.dtype != np.uint8 or volumes.dtype != np.uint8 or masks.shape[1] != -(-np.prod(shape) // 8):
        raise ValueError("masks and volumes are not what they are called")
    facts = [entry[key] for key in ("number", "age", "sex", "course", "edss")]
    places = {contrast: int(place) for contrast, (place, _) in entry["volumes"].items()}
    slopes = {contrast: float(slope) for contrast, (_, slope) in entry["volumes"].items()}
    if set(places) - set(CONTRASTS) or not all(0 < slope < np.inf for slope in slopes.values()):
        raise ValueError(f"the volumes of person {facts[0]} are none")
    stored = {contrast: volumes[place] for contrast, place in places.items()}
    return Person(*facts, masks[k], shape, stored, slopes)


def pack(members, dataset):
    """Arrays {"masks", "volumes"} and the list of persons from an archive's (name, bytes) pairs.

    masks: one row a person, eight voxels a byte; volumes: uint8 (N, X, Y, Z), negative intensities as 0, the largest as
    255. Both have their first axis turned, so that it is RAS+. Raises DataError when a file is missing or not what it
    should be; volumes of persons other than ``dataset.counts["scanned"]`` are left aside.
    """
    counts, found, info = dataset.counts, {}, None
    for name, content in members:
        if re.fullmatch(_INFO, name):
            info = _read_info(content, counts["persons"])
        if not (matched := re.fullmatch(_MEMBER, name)):
            continue  # the licence, the scans before registration, what a file manager left behind
        number, kind = int(matched[1]), matched[2]
        if kind != "GOLD_STANDARD" and number not in counts["scanned"]:
            continue
        if not 1 <= number <= counts["persons"] or (number, kind) in found:
            raise DataError(f"The archive holds {shown(name)} twice or under an odd number; get the MS data anew.")
        decode = _mask if kind == "GOLD_STANDARD" else _volume
        found[number, kind] = decode(name, content, counts["grid"])
    persons = range(1, counts["persons"] + 1)
    wanted = [(number, "GOLD_STANDARD") for number in persons]
    scans = [(number, contrast) for number in counts["scanned"] for contrast in CONTRASTS]
    if info is None or found.keys() != {*wanted, *scans}:
        raise DataError(
            f"The archive is not the whole MS data set: it holds {sum(key in found for key in wanted)} masks, "
            f"{sum(key in found for key in scans)} volumes and {'a' if info else 'no'} patient_info.csv, {len(wanted)} "
            f"masks, {len(scans)} volumes and the list are expected; get it anew."
        )
    for place, (number, contrast) in enumerate(scans):
        info[number]["volumes"][contrast] = place, found[number, contrast][1]
    arrays = {
        "masks": np.stack([found[key] for key in wanted]),
        "volumes": np.stack([found[key][0] for key in scans]),
    }
    return arrays, {"persons": [info[number] for number in persons]}


def _read_info(content, count):
    """{number: facts} of patient_info.csv; DataError unless it describes persons 1 to count."""
    try:
        rows = csv.reader(io.StringIO(content.decode("ascii")))
        if next(rows) != _COLUMNS:
            raise ValueError("other columns")
        persons = {}
        for number, age, sex, course, edss, _ in filter(None, rows):
            known = None if edss == "N/A" else float(edss)
            fine = sex in ("F", "M") and course in (*COURSES, "N/A") and (known is None or 0 <= known <= 10)
            if not fine or not 0 < int(age) < 120:
                raise ValueError(f"person {number} is odd")
            facts = {"age": int(age), "sex": sex, "course": None if course == "N/A" else course, "edss": known}
            persons[int(number)] = {"number": int(number), **facts, "volumes": {}}
        if sorted(persons) != list(range(1, count + 1)):
            raise ValueError(f"{len(persons)} persons instead of {count}")
    except (ValueError, StopIteration, csv.Error) as error:
        raise DataError(
            f"patient_info.csv in the archive is not the list of the MS data ({first_line(error)}); get it anew."
        ) from error
    return persons


def _mask(name, content, grid):
    """The mask of one file with eight voxels a byte, in RAS+."""
    voxels = _decode(name, content, grid)
    if not np.isin(voxels, (0, 1)).all():
        raise refused(name, "is no mask of 0 and 1")
    return np.packbits(voxels.astype(bool))


def _volume(name, content, grid):
    """uint8 (X, Y, Z) in RAS+ and the slope of one file."""
    voxels = _decode(name, content, grid)
    largest = voxels.max()
    if not largest > 0:
        raise refused(name, "is empty: no voxel is above 0")
    return np.clip(voxels * 255 / largest, 0, 255).round().astype(np.uint8), float(largest / 255)


def _decode(name, content, grid):
    """float64 voxels (X, Y, Z), RAS+, of one compressed NIfTI file; DataError unless it is finite and on the grid."""
    return nifti(name, content, _LIMIT, partial(_check, name, grid), np.float64)[0][::-1]


def _check(name, grid, image):
    """DataError unless the header of a NIfTI image is that of numbers on the grid of MNI152."""
    if image.shape != tuple(grid) or image.get_data_dtype().kind not in "iuf":
        wanted = " x ".join(map(str, grid))
        raise refused(name, f"has {image.shape} voxels of {image.get_data_dtype()} instead of {wanted} numbers")
    if not np.allclose(image.affine, _STORED, atol=1e-3):
        raise refused(name, "is not on the grid of MNI152 at 1 mm")
