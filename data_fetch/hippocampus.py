"""Hippocampus: real T1 MRI cut out around one hippocampus each, with labels (Medical Segmentation Decathlon, task 4).

Antonelli et al., Nature Communications 13, 2022; Vanderbilt University Medical Center; CC BY-SA 4.0. About 35x51x36
voxels of 1 mm; labels 0 background, 1 anterior, 2 posterior. Intensities are in arbitrary units that differ by four
orders of magnitude between volumes (maximum 112 in one, 1.7 million in another), hence `Volume.scaled`.

The study scanned 90 healthy adults and 105 with a psychotic disorder (Simpson et al., arXiv:1902.09063, 2019); which
volumes are whose, the archive does not say.

Volumes 2k-1 and 2k belong to one person. The archive does not say so, but of its 90 such pairs all agree in data type
and position and nearly in brightness (median difference 3 %), while of the neighbours 2k and 2k+1 a quarter differ in
type and the brightness by 30 %. So the split is by pair. The headers do not tell left from right: positions were reset.
"""

import math
import re
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from data_fetch import cache
from data_fetch.archives import nifti, refused
from data_fetch.errors import DataError, first_line, shown

NAME = "hippocampus"
LABELS = ("background", "anterior", "posterior")
SPLITS = ("train", "validation", "test")
_VOXELS = 1 << 19  # the most of one volume; real ones have under 100,000
_LIMIT = 9 << 20  # bytes of one volume unpacked


@dataclass(frozen=True)
class Volume:
    """One hippocampus. image: float32 (X, Y, Z), intensities as in the file; label: uint8 (X, Y, Z), 0..2; affine:
    float64 (4, 4), voxel index to mm (RAS+); id: such as "hippocampus_001"; subject: the person's number."""

    id: str
    subject: int
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self):
        """Voxel size in mm, float64 (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def split(self):
        """The one of SPLITS that the person is in: about 80, 10 and 10 % of the subjects."""
        return {8: "validation", 9: "test"}.get(self.subject % 10, "train")

    def scaled(self):
        """The image as float32 in [-1, 1]: the 0.5th percentile becomes -1, the 99.5th 1, clipped beyond."""
        low, high = np.percentile(self.image, [0.5, 99.5])
        return (2 * np.clip((self.image - low) / max(high - low, 1e-6), 0, 1) - 1).astype(np.float32)


def is_available():
    """True when the ready arrays are in the cache (cheap)."""
    return cache.is_ready(NAME)


def load(split="train"):
    """A list of `Volume`, by number: of "train", "validation" or "test" (no person is in two of them), or "all".

    Raises DataError when the data set is not in the cache, or damaged.
    """
    if not isinstance(split, str) or split not in (*SPLITS, "all"):
        raise DataError(f"The hippocampus data have no split {split!r}; choose one of: {', '.join(SPLITS)}, all.")
    found, (images, labels) = cache.load(NAME, "images", "labels")
    volumes, start = [], 0
    try:
        if [(a.ndim, a.dtype) for a in (images, labels)] != [(1, np.float32), (1, np.uint8)]:
            raise ValueError("images and labels are not what they are called")
        for entry in found["volumes"]:
            shape, affine = _placed(entry)
            end = start + math.prod(shape)
            image, label = (np.array(flat[start:end]).reshape(shape) for flat in (images, labels))
            volumes.append(Volume(entry["id"], _subject(entry["id"]), image, label, affine))
            start = end
        if not start == len(images) == len(labels):
            raise ValueError("they are not as long as the arrays")
    except (KeyError, TypeError, ValueError) as error:
        raise cache.damaged(NAME, f"its volumes make no sense: {first_line(error)}") from error
    return [volume for volume in volumes if split in ("all", volume.split)]


def _placed(entry):
    """Shape and affine of a volume in the manifest; KeyError, TypeError or ValueError where it describes none."""
    shape, affine = entry["shape"], np.array(entry["affine"], float)
    if not re.fullmatch("hippocampus_[0-9]{1,6}", entry["id"]):
        raise ValueError(f"{shown(entry['id'])} is no id")
    if not (len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
        raise ValueError(f"{shown(shape)} is no shape")
    if not (affine.shape == (4, 4) and _places(affine)):
        raise ValueError(f"the affine of {entry['id']} is none")
    return shape, affine


def _places(affine):
    """Whether an affine (4, 4), voxel index to mm, gives voxels a volume; 1 mm3 in the real data."""
    return bool(np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-6)


def _subject(identity):
    return (int(identity.rsplit("_", 1)[1]) + 1) // 2


def pack(members, dataset):
    """Flat arrays {"images", "labels"} and the list of volumes from an archive's (name, bytes) pairs.

    Raises DataError when images and labels do not belong together or are not as many as they should be.
    """
    found = {"imagesTr": {}, "labelsTr": {}}
    fewest, most = dataset.counts["volumes"]
    for name, content in members:
        parts = PurePosixPath(name).parts
        if len(parts) != 3 or parts[1] not in found or not parts[2].startswith("hippocampus_"):
            continue  # the list of the files, a README, or what a file manager left behind
        volumes, number = found[parts[1]], parts[2].removeprefix("hippocampus_").removesuffix(".nii.gz")
        if not re.fullmatch("[0-9]{1,6}", number) or int(number) in volumes:
            raise DataError(f"The archive holds {shown(name)} twice or under an odd number; get the archive anew.")
        if len(volumes) == most:
            raise DataError(
                f"The archive is not the whole hippocampus data set: it holds more than {most} volumes; get it anew."
            )
        volumes[int(number)] = nifti(name, content, _LIMIT, partial(_check, name), np.float32)
    images, labels = found["imagesTr"], found["labelsTr"]
    if images.keys() != labels.keys() or not fewest <= len(images) <= most:
        raise DataError(
            f"The archive is not the whole hippocampus data set: it holds {len(images)} images and {len(labels)} "
            f"labels, {fewest} to {most} pairs are expected; get it anew."
        )
    volumes = []
    for number in sorted(images):
        identity, (image, affine), (label, _) = f"hippocampus_{number:03d}", images[number], labels[number]
        if image.shape != label.shape or not np.isin(label, (0, 1, 2)).all():
            raise DataError(f"{identity}: the label map does not belong to the image; get the hippocampus data anew.")
        volumes.append({"id": identity, "shape": image.shape, "affine": affine.tolist()})
    arrays = {
        "images": np.concatenate([images[number][0].ravel() for number in sorted(images)]),
        "labels": np.concatenate([labels[number][0].ravel() for number in sorted(images)]).astype(np.uint8),
    }
    return arrays, {"volumes": volumes}


def _check(name, image):
    """DataError unless the header of a NIfTI image describes a small real volume that lies somewhere."""
    if len(image.shape) != 3:
        raise refused(name, f"has {len(image.shape)} dimensions instead of 3")
    if not 0 < math.prod(image.shape) <= _VOXELS:
        raise refused(name, f"has {math.prod(image.shape)} voxels instead of 1 to {_VOXELS}")
    if image.get_data_dtype().kind not in "iuf":
        raise refused(name, "has complex or colour voxels instead of plain numbers")
    if not _places(image.affine):
        raise refused(name, "lies nowhere: its affine is zero, flat, NaN or infinite")
