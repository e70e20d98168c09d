"""Volumes in millimetres: NIfTI files, and boxes cut out of them with their affine.

An affine (4, 4) says where a voxel lies: (x, y, z, 1) in mm = affine @ (i, j, k, 1), with x to the right, y to the
front and z to the head of the patient (RAS+, as NIfTI counts).
"""

import gzip
from pathlib import Path

import numpy as np

from course_lib.arguments import one_of, shaped
from course_lib.files import write_atomically

# ---- Affines and boxes -----------------------------------------------------------------------------------------------


def _triple(name, values):
    """Three finite numbers as an array. Raises ValueError, naming ``name``."""
    found = np.asarray(values)
    if found.shape != (3,) or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise ValueError(f"{name} must be three numbers, one for each axis of the volume, got {values!r}")
    return found


def whole_triple(name, values):
    """Three whole numbers as an int array (3,), one for each axis. Raises ValueError, naming ``name``."""
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
    array, corner, shape = np.asarray(array), whole_triple("corner", corner), whole_triple("shape", shape)
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

    The bytes are in the order of this machine. The affine is the sform's, or the qform's where the sform is none, in mm
    whatever the file's unit. The checksum of a .nii.gz is checked. Raises ValueError, naming the file, for what is no
    NIfTI volume; FileNotFoundError where there is none.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        array = np.asarray(image.dataobj)
        if str(path).endswith(".gz"):
            _read_to_the_end(path)
        affine = _in_mm(image) @ _placement(image)
    except FileNotFoundError:
        raise
    except Exception as error:  # nibabel raises many kinds on damaged files
        raise ValueError(f"{path} is no readable NIfTI file ({str(error)[:100]}); export it again") from error
    if array.ndim != 3 or array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: expected a volume (X, Y, Z) of numbers; got {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "f":
        _check_float32(path, array)
        array = array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False), checked_affine(affine, str(path))


def _check_float32(path, array):
    if (np.isfinite(array) & (np.abs(array) > np.finfo(np.float32).max)).any():
        raise ValueError(f"{path}: some numbers are beyond float32 (3e38); divide them by a constant first")


def _read_to_the_end(path):
    """nibabel stops at the last voxel; the checksum, which tells a changed bit, stands after it."""
    with gzip.open(path) as stream:
        while stream.read(1 << 20):
            pass


def _in_mm(image):
    """Affine (4, 4) from the unit of the file's lengths to mm, which it is also where the format or the file names none
    that is known."""
    try:
        unit, _ = image.header.get_xyzt_units()
    except (AttributeError, KeyError):
        unit = "mm"
    return np.diag([*[{"micron": 1e-3, "meter": 1e3}.get(unit, 1.0)] * 3, 1.0])


def _placement(image):
    """nibabel takes the sform wherever its code is set, even one of zeros or NaN beside a good qform."""
    try:
        return checked_affine(image.affine)
    except ValueError:
        qform = image.get_qform(coded=True)[0]
        return image.affine if qform is None else qform
