"""Hippocampus: real T1 MRI cut out around one hippocampus each, with labels (Medical Segmentation Decathlon, task 4).

Antonelli et al., Nature Communications 13, 2022; Vanderbilt University Medical Center; CC BY-SA 4.0. About 35x51x36
voxels of 1 mm; labels 0 background, 1 anterior, 2 posterior. Intensities are in arbitrary units that differ by four
orders of magnitude between volumes (maximum 112 in one, 1.7 million in another), hence `Volume.scaled`.

Volumes 2k-1 and 2k belong to one person. The archive does not say so, but of its 90 such pairs all agree in data type
and position and nearly in brightness (median difference 3 %), while of the neighbours 2k and 2k+1 a quarter differ in
type and the brightness by 30 %. So the split is by pair. The headers do not tell left from right: positions were reset.
"""

import gzip
import io
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from data_fetch import store
from data_fetch.errors import DataError, first_line

NAME = "hippocampus"
LABELS = ("background", "anterior", "posterior")
SPLITS = ("train", "validation", "test")
_LIMIT = 64 << 20  # bytes of one volume unpacked; real ones have under 1 MB


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
    return store.is_ready(NAME)


def load(split="train"):
    """A list of `Volume`, by number: of "train", "validation" or "test" (no person is in two of them), or "all".

    Raises DataError when the data set is not in the cache.
    """
    if split not in (*SPLITS, "all"):
        raise DataError(f"The hippocampus data have no split {split!r}; choose one of: {', '.join(SPLITS)}, all.")
    images, labels = store.load_array(NAME, "images"), store.load_array(NAME, "labels")
    volumes, start = [], 0
    for entry in store.require(NAME)["volumes"]:
        end = start + int(np.prod(entry["shape"]))
        image, label = (np.array(flat[start:end]).reshape(entry["shape"]) for flat in (images, labels))
        volumes.append(Volume(entry["id"], _subject(entry["id"]), image, label, np.array(entry["affine"])))
        start = end
    return [volume for volume in volumes if split in ("all", volume.split)]


def _subject(identity):
    return (int(identity.rsplit("_", 1)[1]) + 1) // 2


def pack(members, dataset):
    """Flat arrays {"images", "labels"} and the list of volumes from an archive's (name, bytes) pairs.

    Raises DataError when images and labels do not belong together or are not as many as they should be.
    """
    found = {"imagesTr": {}, "labelsTr": {}}
    for name, content in members:
        parts = PurePosixPath(name).parts
        if len(parts) == 3 and parts[1] in found and parts[2].startswith("hippocampus_") and name.endswith(".nii.gz"):
            identity = parts[2].removesuffix(".nii.gz")
            if identity in found[parts[1]] or not identity.rsplit("_", 1)[1].isdigit():
                raise DataError(f"The archive holds {name} twice or under an odd number; get the archive anew.")
            found[parts[1]][identity] = _decode(name, content)
    images, labels = found["imagesTr"], found["labelsTr"]
    fewest, most = dataset.counts["volumes"]
    if images.keys() != labels.keys() or not fewest <= len(images) <= most:
        raise DataError(
            f"The archive is not the whole hippocampus data set: it holds {len(images)} images and {len(labels)} "
            f"labels, {fewest} to {most} pairs are expected; get it anew."
        )
    volumes = []
    for identity in sorted(images):
        (image, affine), (label, _) = images[identity], labels[identity]
        if image.shape != label.shape or not np.isin(label, (0, 1, 2)).all():
            raise DataError(f"{identity}: the label map does not belong to the image; get the hippocampus data anew.")
        volumes.append({"id": identity, "shape": image.shape, "affine": affine.tolist()})
    arrays = {
        "images": np.concatenate([images[volume["id"]][0].ravel() for volume in volumes]),
        "labels": np.concatenate([labels[volume["id"]][0].ravel() for volume in volumes]).astype(np.uint8),
    }
    return arrays, {"volumes": volumes}


def _decode(name, content):
    """float32 (X, Y, Z) and affine of one compressed NIfTI file."""
    import nibabel

    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(_LIMIT)
        image = nibabel.Nifti1Image.from_bytes(unpacked)
        voxels = image.get_fdata(dtype=np.float32)
    except Exception as error:  # nibabel raises many kinds on damaged headers
        raise DataError(
            f"{name} in the archive is no readable NIfTI file ({first_line(error)}); get the archive anew."
        ) from error
    if voxels.ndim != 3:
        raise DataError(f"{name} in the archive has {voxels.ndim} dimensions instead of 3; get the archive anew.")
    return voxels, image.affine
