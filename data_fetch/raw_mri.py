"""Raw k-space of a real head: one slice, eight coils, undersampled (tutorial of SigPy, BSD 3-Clause:
github.com/mikgroup/sigpy-mri-tutorial; Ong and Lustig, ISMRM 27, 2019, 4819).

230 x 180 positions, of which a Poisson-disk pattern sampled 5,148 (12.4 %; nominal acceleration 8), among them a full
centre of 24 x 24; the rest is 0 in the file. The frequency 0 is in the middle, at index (115, 90): images are centred
Fourier transforms.

What these data are not: the file has neither an image of the full scan nor coil sensitivities. The centre gives the
sensitivities (ESPIRiT, or ratios of low-resolution images). A method is judged without a reference: keep a part of the
samples away from it, and compare its k-space with these. One slice of one head illustrates; it ranks nothing. Units are
the scanner's own; the size of a pixel is not known.
"""

import io

import numpy as np

from data_fetch import cache
from data_fetch.errors import DataError, first_line

NAME = "raw_mri"
CENTRE = 24  # samples a side of the full centre


def is_available():
    """True when the ready array is in the cache (cheap)."""
    return cache.is_ready(NAME)


def load():
    """K-space, complex64 (coils, rows, columns) = (8, 230, 180), 0 where it was not sampled.

    Raises DataError when the data set is not in the cache, or damaged.
    """
    kspace = cache.load_array(NAME, "kspace")
    if kspace.ndim != 3 or kspace.dtype != np.complex64:
        raise cache.damaged(NAME, "its k-space is not what it is called")
    return np.array(kspace)


def sampled(kspace):
    """Where k-space (coils, rows, columns) was sampled, bool (rows, columns): at least one coil is not 0."""
    return np.asarray(kspace).any(0)


def pack(members, dataset):
    """Arrays {"kspace"} and the number of samples from (name, bytes) pairs, the first of which is a .npy file.

    Raises DataError unless it has the shape, type and number of samples of the public one, the same for all coils, with
    a full centre, and is finite.
    """
    name, content = next(iter(members))
    shape = dataset.counts["shape"]
    try:
        stream = io.BytesIO(content)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        found = read[np.lib.format.read_magic(stream)](stream)  # before room is made for what the header announces
        if found[0] != shape or found[2] != np.complex64:
            raise ValueError(f"it has {found[2]} of shape {found[0]}, complex64 of shape {shape} expected")
        kspace = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds on damaged headers
        raise DataError(f"{name} is not the raw MRI of the course ({first_line(error)}); get it anew.") from error
    if not np.isfinite(kspace).all():
        raise DataError(f"{name} has samples that are NaN or infinite; get the raw MRI anew.")
    where = sampled(kspace)
    rows, columns = (slice(n // 2 - CENTRE // 2, n // 2 + CENTRE // 2) for n in shape[1:])
    if where.sum() != dataset.counts["samples"] or (kspace != 0).any(0).sum() != (kspace != 0).all(0).sum():
        raise DataError(
            f"{name} is not the raw MRI of the course: {where.sum()} positions are sampled by one coil or more, "
            f"{(kspace != 0).all(0).sum()} by all, {dataset.counts['samples']} expected; get it anew."
        )
    if not where[rows, columns].all():
        raise DataError(f"{name} is not the raw MRI of the course: its centre has gaps; get it anew.")
    return {"kspace": kspace}, {"samples": int(where.sum())}
