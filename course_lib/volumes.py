"""Volumes in millimetres: NIfTI files, boxes cut out of them with their affine, and hippocampi as channels.

An affine (4, 4) says where a voxel lies: (x, y, z, 1) in mm = affine @ (i, j, k, 1), with x to the right, y to the
front and z to the head of the patient (RAS+, as NIfTI counts).
"""

import gzip
from pathlib import Path

import numpy as np
import torch

from course_lib.arguments import alike, one_of, shaped
from course_lib.files import write_atomically

HIPPOCAMPUS_SHAPE = (32, 48, 32)  # voxels of 1 mm
HIPPOCAMPUS_LABELS = ("anterior", "posterior")

#: Of a box of HIPPOCAMPUS_SHAPE that comes from no scan: voxels of 1 mm, the middle of the box at 0 mm.
HIPPOCAMPUS_AFFINE = np.eye(4)
HIPPOCAMPUS_AFFINE[:3, 3] = [-(side - 1) / 2 for side in HIPPOCAMPUS_SHAPE]


# ---- Affines and boxes -----------------------------------------------------------------------------------------------


def voxel_volume(affine):
    """Volume of a voxel in mm^3: |det| of the upper left 3 x 3 part. Raises ValueError as :func:`checked_affine`."""
    return float(abs(np.linalg.det(checked_affine(affine)[:3, :3])))


def _triple(name, values):
    """Three finite numbers as an array. Raises ValueError, naming ``name``."""
    found = np.asarray(values)
    if found.shape != (3,) or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise ValueError(f"{name} must be three numbers, one for each axis of the volume, got {values!r}")
    return found


def _whole_triple(name, values):
    found = _triple(name, values)
    if (found != found.astype(int)).any():
        raise ValueError(f"{name} must be three whole numbers of voxels, got {values!r}")
    return found.astype(int)


def box_affine(affine, corner):
    """Affine of a box whose first voxel is voxel ``corner`` (3,) of the volume with ``affine``.

    Voxel (i, j, k) of the box is voxel corner + (i, j, k) of the volume and must lie at the same millimetres, so the
    axes stay and the origin moves to affine @ corner. Raises ValueError for a bad affine.
    """
    moved = checked_affine(affine).copy()
    moved[:3, 3] += moved[:3, :3] @ _triple("corner", corner)
    return moved


def cut_out(array, corner, shape, mode="constant"):
    """The box of ``shape`` whose first voxel is ``corner`` in an array (X, Y, Z); its affine: :func:`box_affine`.

    Beyond the array: zeros, or with mode "edge" the nearest voxel. Raises ValueError if the box misses the array.
    """
    array, corner, shape = np.asarray(array), _whole_triple("corner", corner), _whole_triple("shape", shape)
    one_of(("constant", "edge"), mode=mode)
    shaped("X, Y, Z", array=array)
    if (shape < 1).any():
        raise ValueError(f"shape must be one voxel or more along each axis, got {shape}")
    if (corner >= array.shape).any() or (corner + shape <= 0).any():
        raise ValueError(f"the box of {shape} voxels at {corner} lies outside the volume of {array.shape} voxels")
    before, after = np.maximum(-corner, 0), np.maximum(corner + shape - array.shape, 0)
    padded = np.pad(array, list(zip(before, after)), mode=mode)
    return padded[tuple(slice(first, first + side) for first, side in zip(corner + before, shape))]


def checked_affine(affine, name="affine"):
    """The affine as float64 (4, 4). Raises ValueError, naming ``name``, unless it maps a grid to millimetres."""
    matrix = np.asarray(affine, float)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"{name}: an affine is a finite 4 x 4 matrix from voxel to mm; got shape {matrix.shape}")
    if not np.allclose(matrix[3], (0, 0, 0, 1)) or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise ValueError(f"{name}: an affine's last row is 0 0 0 1 and its determinant not zero; got\n{matrix}")
    return matrix


# ---- NIfTI files -----------------------------------------------------------------------------------------------------


def save_nifti(path, array, affine):
    """Write an array (X, Y, Z) and its affine as NIfTI-1 (``.nii`` or ``.nii.gz``), at once or not at all.

    Truth values and whole numbers are stored as the smallest of uint8, int16 and int32 that holds them, others as
    float32. NIfTI-1 keeps an affine in single precision: entries with few digits exactly, others within 6e-8 of them.
    Raises ValueError, naming the file, for another ending, array or affine.
    """
    import nibabel

    path, array = Path(path), np.asarray(array)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: a NIfTI file ends in .nii or .nii.gz; rename it")
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(
            f"{path}: expected finite numbers in an array (X, Y, Z); got {array.dtype} of shape {array.shape}, save "
            "one volume a file and no NaN"
        )
    affine = checked_affine(affine, str(path))
    image = nibabel.Nifti1Image(array.astype(_stored_type(path, array)), affine)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _stored_type(path, array):
    """The type that NIfTI stores the array in. Raises ValueError for numbers beyond int32 or float32."""
    if array.dtype.kind == "f":
        _check_float32(path, array)
        return np.float32
    low, high = int(array.min()), int(array.max())
    for kind in (np.uint8, np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    raise ValueError(f"{path}: whole numbers up to {max(high, -low)} do not fit into 32 bits; save floats")


def load_nifti(path):
    """Array (X, Y, Z), of the file's whole-number type or float32, and affine float64 (4, 4) of a NIfTI file.

    The affine is the sform's, or the qform's where the sform is none. The checksum of a .nii.gz is checked. Raises
    ValueError, naming the file, for what is no NIfTI volume; FileNotFoundError where there is none.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        array = np.asarray(image.dataobj)
        if str(path).endswith(".gz"):
            _read_to_the_end(path)
        affine = _placement(image)
    except FileNotFoundError:
        raise
    except Exception as error:  # nibabel raises many kinds on damaged files
        raise ValueError(f"{path} is no readable NIfTI file ({str(error)[:100]}); export it again") from error
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: expected a volume (X, Y, Z) of numbers; got {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "f":
        _check_float32(path, array)
        array = array.astype(np.float32)
    return array, checked_affine(affine, str(path))


def _check_float32(path, array):
    if (np.isfinite(array) & (np.abs(array) > np.finfo(np.float32).max)).any():
        raise ValueError(f"{path}: some numbers are beyond float32 (3e38); divide them by a constant first")


def _read_to_the_end(path):
    """nibabel stops at the last voxel; the checksum, which tells a changed bit, stands after it."""
    with gzip.open(path) as stream:
        while stream.read(1 << 20):
            pass


def _placement(image):
    """nibabel takes the sform wherever its code is set, even one of zeros or NaN beside a good qform."""
    try:
        return checked_affine(image.affine)
    except ValueError:
        qform = image.get_qform(coded=True)[0]
        return image.affine if qform is None else qform


# ---- Hippocampi as channels ------------------------------------------------------------------------------------------


def hippocampus_box(label, shift=(0, 0, 0)):
    """First corner of a box of HIPPOCAMPUS_SHAPE around the label (X, Y, Z), int (3,); None if the label is larger."""
    shaped("X, Y, Z", label=label)
    found = np.argwhere(label > 0)
    if not len(found):
        raise ValueError("label has no voxel above 0: there is nothing to put a box around")
    shift = _whole_triple("shift", shift)
    low, high = found.min(0), found.max(0) + 1
    room = np.array(HIPPOCAMPUS_SHAPE) - (high - low)
    if (room < 0).any():
        return None
    return low - np.clip(room // 2 + shift, 0, room)


def hippocampus_channels(image, label, corner):
    """Image, anterior and posterior label as channels in [-1, 1], float32 (3, 32, 48, 32), cut out at ``corner``.

    image : (X, Y, Z) in [-1, 1]; label : (X, Y, Z) with 0 background, 1 anterior, 2 posterior.
    Where the box reaches beyond the volume the image's edge is repeated and the label is background.
    """
    shaped("X, Y, Z", image=image, label=label)
    alike(image=image, label=label)
    if not np.isin(label, (0, 1, 2)).all():
        raise ValueError("label must hold 0 background, 1 anterior and 2 posterior, and nothing else")
    image = cut_out(image, corner, HIPPOCAMPUS_SHAPE, mode="edge")
    label = cut_out(label, corner, HIPPOCAMPUS_SHAPE)
    return np.stack([image, *(np.where(label == k, 1.0, -1.0) for k in (1, 2))]).astype(np.float32)


def labels_of(x):
    """Labels of channels x (N, 3, X, Y, Z), uint8 (N, X, Y, Z): the larger label channel where it is above 0, else
    background."""
    x = torch.as_tensor(x)
    if x.ndim != 5 or x.shape[1] != 3:
        raise ValueError(f"x must be (N, 3, X, Y, Z), image and two labels, got shape {tuple(x.shape)}")
    value, which = x[:, 1:].max(1)
    return torch.where(value > 0, which + 1, 0).to(torch.uint8)


def _check_labels(labels):
    shaped("N, X, Y, Z", labels=labels)
    if labels.is_floating_point():
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}: labels_of makes them of channels")


def label_volumes(labels):
    """Volumes in mm^3 of the anterior and posterior part in labels (N, X, Y, Z) with voxels of 1 mm^3: (N, 2)."""
    labels = torch.as_tensor(labels)
    _check_labels(labels)
    return torch.stack([(labels == k).flatten(1).sum(1) for k in (1, 2)], 1).float()


def largest_shares(labels):
    """Share of each part's voxels that hang together in its largest piece (faces touch), (N, 2); 0 where it is empty.

    1 for a part in one piece, as every real one should be.
    """
    from scipy import ndimage

    def share(part):
        pieces, _ = ndimage.label(part)
        sizes = np.bincount(pieces.ravel())[1:]
        return sizes.max() / sizes.sum() if len(sizes) else 0.0

    labels = torch.as_tensor(labels)
    _check_labels(labels)
    return torch.tensor([[share(np.asarray(one) == k) for k in (1, 2)] for one in labels], dtype=torch.float32)
