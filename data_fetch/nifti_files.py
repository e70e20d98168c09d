"""NIfTI files (.nii, .nii.gz) as scans."""

import gzip
import math
from io import BytesIO

import numpy as np

from data_fetch.errors import DataError
from data_fetch.scans import LIMIT, check_size, is_placement, reading, volume

_CHUNK = 1 << 20
_HEADER = 1 << 24  # bytes for a header with its extensions


def read(file):
    """The volume of a NIfTI file as a `Scan`; of a series over time the first, of complex numbers the magnitude.

    The position is the sform's, or the qform's where the sform is not usable. The checksum of a .nii.gz is checked.
    Raises DataError, naming the file.
    """
    with reading(file, "is no readable NIfTI file"):
        packed = file.name.lower().endswith(".gz")
        image = _header(file, packed)
        proxy = image.dataobj
        if len(proxy.shape) < 3 or 0 in proxy.shape:
            raise DataError(f"{file} has shape {proxy.shape}; a volume of three dimensions is needed.")
        if proxy.dtype.names:
            raise DataError(f"{file} is a colour NIfTI file; convert it to grey values first.")
        check_size(file, math.prod(proxy.shape[:3]), proxy.dtype.itemsize)
        stored = _unpacked(file, proxy) if packed else _mapped(file, proxy)
        source = f"{file} (magnitude)" if proxy.dtype.kind == "c" else str(file)
        return volume(source, stored, _affine(image), float(proxy.slope), float(proxy.inter))


def _header(file, packed):
    """nibabel's image of the file, whose voxels nobody has read.

    nibabel gets the first part of the file alone, since it reads as much for an extension of the header as that says.
    """
    import nibabel

    with gzip.open(file) if packed else open(file, "rb") as stream:
        start = stream.read(_HEADER)
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        if kind.header_class.may_contain_header(start):
            return kind.from_stream(BytesIO(start))
    raise DataError(f"{file} is no readable NIfTI file (it has no header of one); export it again.")


def _affine(image):
    """nibabel takes the sform wherever its code is set, even one of zeros or NaN beside a good qform."""
    qform = None if is_placement(image.affine) else image.get_qform(coded=True)[0]
    return image.affine if qform is None else qform


def _mapped(file, proxy):
    """The first volume of an uncompressed file, as it lies on the disk."""
    needed = proxy.offset + math.prod(proxy.shape) * proxy.dtype.itemsize
    if file.stat().st_size < needed:
        raise DataError(f"{file} is cut short ({file.stat().st_size} of {needed} bytes); copy or export it again.")
    stored = np.memmap(file, proxy.dtype, "r", proxy.offset, proxy.shape, order="F")
    return stored[(..., *[0] * (stored.ndim - 3))]


def _unpacked(file, proxy):
    """The first volume of a compressed file. Reads on to the end, where the checksum stands."""
    shape = proxy.shape[:3]
    stored = np.empty(math.prod(shape) * proxy.dtype.itemsize, np.uint8)
    room, filled = memoryview(stored), 0
    with gzip.open(file) as stream:
        stream.seek(proxy.offset)
        while filled < len(room):
            count = stream.readinto(room[filled : filled + _CHUNK])
            if count == 0:
                raise DataError(f"{file} is cut short; copy or export it again.")
            filled += count
        rest = math.prod(proxy.shape) * proxy.dtype.itemsize - filled + LIMIT
        while chunk := stream.read(_CHUNK):
            rest -= len(chunk)
            if rest < 0:
                raise DataError(f"{file} unpacks to far more than its header says; export it again.")
    return stored.view(proxy.dtype).reshape(shape, order="F")
