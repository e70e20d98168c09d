"""Images of the learner's own (NIfTI, DICOM, PNG, JPEG) as 2-D slices that the course's networks can take.

Orientation: volumes are turned to the nearest RAS+ axes (by 90 degree turns and flips; oblique scans stay oblique) and
shown as radiologists do: axial with the front up and the patient's right on the left of the image, coronal with the
head up and the patient's right on the left, sagittal with the head up and the front on the left. Single pictures
(X-rays, photographs) stay as they are stored. Pixels are made square and the picture is padded, never stretched.

What is unpacked of one file, and what all pictures take, is limited, so that reading stays within 2 GB of memory.
"""

import math
import os
import warnings
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np

from data_fetch import dicom_files, nifti_files, picture_files
from data_fetch.errors import DataError
from data_fetch.scans import LIMIT

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_NIFTI = (".nii", ".nii.gz")
_PICTURES = (".png", ".jpg", ".jpeg")
_ACCEPTED = "NIfTI (.nii, .nii.gz), DICOM, PNG or JPEG"
_LARGEST = 4096  # pixels of a side
_WHOLE = 1 << 23  # numbers of a picture that is converted as a whole; a larger one goes by bands
_BAND = 1 << 21  # numbers of a band


@dataclass(frozen=True)
class OwnImages:
    """images: float32 (N, size, size) in [-1, 1]; sources: N strings, the file and slice that each came from;
    notes: a sentence for each file that was left out and each series whose missing slices were filled in."""

    images: np.ndarray
    sources: tuple
    notes: tuple = ()


def load(path, size=64, plane="axial", per_volume=8):
    """Slices of a file, or of every image file under a folder, as `OwnImages`. Hidden files and folders are no data.

    size: pixels of a side, 1 to 4096. plane: "axial", "coronal" or "sagittal", of volumes. per_volume: so many slices,
    1 or more, evenly spaced over the middle 60 % of a volume's filled part; None for all slices. Intensities: the 0.5th
    percentile of the finite values of each volume or picture becomes -1, the 99.5th 1, what lies beyond is clipped, NaN
    becomes -1; DICOM rescaling is applied before, MONOCHROME1 is inverted. Of a series over time the first volume is
    taken, of complex numbers the magnitude.
    A file of a folder that cannot be read is left out, with a warning. Raises DataError, naming the file, when nothing
    can be read, and for other arguments than these.
    """
    _check(size, plane, per_volume)
    path = _existing(path)
    images, sources, notes = [], [], []
    for scan in _scans(path, plane, notes):
        try:
            found = list(_slices(scan, plane, per_volume))
        except DataError as error:
            notes.append(str(error))
            continue
        _check_room(path, len(images) + len(found), size)
        sources += [label for label, _, _, _ in found]
        images += [_fit(*rest, size) for _, *rest in found]
    if not images:
        raise _nothing(path, notes)
    if notes:
        _warn(path, notes)
    return OwnImages(np.stack(images), tuple(sources), tuple(notes))


# ---- Arguments and what is told --------------------------------------------------------------------------------------


def _check(size, plane, per_volume):
    def whole(number, most):
        return isinstance(number, Integral) and not isinstance(number, bool) and 1 <= number <= most

    if not isinstance(plane, str) or plane not in PLANES:
        raise DataError(f"There is no plane {plane!r}; choose one of: {', '.join(PLANES)}.")
    if not whole(size, _LARGEST):
        raise DataError(f"size is {size!r}; it is the pixels of a side, a whole number from 1 to {_LARGEST}.")
    if per_volume is not None and not whole(per_volume, np.inf):
        raise DataError(f"per_volume is {per_volume!r}; it is a number of slices, 1 or more, or None for all.")


def _existing(path):
    """The path of what is there to be read."""
    if not isinstance(path, (str, os.PathLike)) or (isinstance(path, str) and not path.strip()):
        raise DataError(f"path is {path!r}; give the name of a file or folder as text (the folder you are in is '.').")
    try:
        path = Path(path).expanduser()
        found = path.exists()
    except PermissionError as error:
        raise DataError(f"{path} cannot be opened ({error.strerror}); check its permissions.") from error
    except (OSError, RuntimeError, TypeError, ValueError):  # too long, no such user, bytes, a null character
        found = False
    if not found:
        raise DataError(f"There is no file or folder {str(path)[:200]}; check the path.")
    return path


def _check_room(path, count, size):
    if count * size**2 * 4 > LIMIT // 2:
        raise DataError(
            f"{path} gives so many pictures of size {size} ({count} or more) that they would fill the memory; choose a "
            "smaller size or per_volume, or fewer files."
        )


def _nothing(path, notes):
    """The error when there is no picture."""
    if not notes:
        return DataError(f"{path} holds no image that can be read; give {_ACCEPTED} files, or a folder of them.")
    if len(notes) == 1:
        return DataError(notes[0])
    return DataError(f"{path} holds no image that can be read; the first of {len(notes)} reasons: {notes[0]}")


def _warn(path, notes):
    others = f" And {len(notes) - 3} more, see .notes." if len(notes) > 3 else ""
    warnings.warn(f"Not everything in {path} is shown as it is: {' '.join(notes[:3])}{others}", stacklevel=3)


# ---- Files -----------------------------------------------------------------------------------------------------------


def _scans(path, plane, notes):
    """Every volume and picture of a file or folder, one at a time; DICOM frames are gathered by series and come last.

    What cannot be read is left out, and told in `notes`.
    """
    frames = []
    for file in [path] if path.is_file() else _files(path, notes):
        name = file.name.lower()
        try:
            if name.endswith(_NIFTI):
                yield nifti_files.read(file)
            elif name.endswith(_PICTURES):
                yield picture_files.read(file)
            elif name != "dicomdir" and (name.endswith(".dcm") or dicom_files.has_mark(file)):
                frames += dicom_files.frames(file)
        except DataError as error:
            notes.append(str(error))
    for source, members in _series(frames):
        try:
            yield from dicom_files.scans(members, source, PLANES[plane], notes)
        except DataError as error:
            notes.append(str(error))


def _files(folder, notes):
    """The files under a folder that are not hidden, in order."""
    found = []

    def unreadable(error):
        notes.append(f"{error.filename} cannot be opened ({error.strerror}); check its permissions.")

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(file for file in found if file.is_file())


def _series(frames):
    """(source, frames) of each DICOM series. The source is the folder; the file, of a file of many frames."""
    series = {}
    for frame in frames:
        series.setdefault(frame.series, []).append(frame)
    sources = [str(f[0].file if f[0].many else f[0].file.parent) for f in series.values()]
    for number, (source, members) in enumerate(zip(sources, series.values())):
        same = sources.count(source)
        yield source if same == 1 else f"{source}, series {sources[: number + 1].count(source)} of {same}", members


# ---- Intensities and slices ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Window:
    """The real values that become -1 and 1."""

    low: float
    high: float

    def scaled(self, values):
        """float32 in [-1, 1]; infinite values at the ends, NaN at -1. The halves keep 1e308 from overflowing."""
        filled = np.where(np.isnan(values), self.low, values)
        share = (filled / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return (2 * np.clip(share, 0, 1) - 1).astype(np.float32)


def _window(scan):
    """The 0.5th and 99.5th percentile of the finite values, as np.percentile gives them. Raises DataError if blank.

    Only the least and the largest numbers are kept, so that the volume need not be sorted, or copied, as a whole.
    """
    kept = int(0.005 * (scan.stored.size - 1)) + 2
    least, largest, count = np.empty(0), np.empty(0), 0
    for box in scan.boxes():
        values = scan.real(scan.stored[box])
        values = values[np.isfinite(values)]
        count += values.size
        least = _smallest(least, values, kept)
        largest = _smallest(largest, -values, kept)
    if count == 0 or least.min() == -largest.min():
        raise DataError(f"{scan.source} is blank (one value everywhere); leave it out.")
    low = _ranked(np.sort(least), 0, 0.005 * (count - 1))
    high = _ranked(np.sort(-largest), count - largest.size, 0.995 * (count - 1))
    if low == high:  # nearly everything has one value, as in a label map
        low, high = least.min(), -largest.min()
    return _Window(low, high)


def _smallest(kept, values, count):
    """The `count` smallest of `kept` (those so far) and `values`, in no order."""
    if len(kept) == count:
        values = values[values < kept.max()]
    both = np.concatenate([kept, values])
    return both if len(both) <= count else np.partition(both, count - 1)[:count]


def _ranked(ordered, first, rank):
    """The value at a rank between two neighbours, by linear interpolation; ordered[0] has the rank `first`."""
    lower = math.floor(rank)
    share = rank - lower
    one, two = (float(ordered[min(place - first, len(ordered) - 1)]) for place in (lower, lower + 1))
    way = two / 2 - one / 2
    return one + 2 * (way * share) if share < 0.5 else two - 2 * (way * (1 - share))


def _slices(scan, plane, per_volume):
    """(source, picture, spacing of rows and columns, function to [-1, 1]) of each slice that is wanted.

    picture: numbers (rows, columns) as stored.
    """
    window = _window(scan)

    def scaled(stored):
        return window.scaled(scan.real(stored))

    if scan.stored.ndim == 2:
        yield scan.source, scan.stored, scan.spacing, scaled
        return
    axis = PLANES[plane]
    if abs(scan.angles[axis] - 90) > 2:
        raise DataError(
            f"{scan.source}: the rows and columns of its {plane} pictures lie at {scan.angles[axis]:.0f} degrees, as "
            "after a scan with a tilted gantry; choose another plane, or correct the tilt first (dcm2niix does)."
        )
    rows, columns = (1, 0) if plane == "axial" else (2, 0) if plane == "coronal" else (2, 1)
    stack = np.flip(scan.stored.transpose(axis, rows, columns), (1, 2))  # rows and columns fall in RAS+
    for index in _choose(scan, scaled, axis, per_volume):
        label = f"{scan.source}, {plane} slice {index}"
        yield label, stack[index], (scan.spacing[rows], scan.spacing[columns]), scaled


def _choose(scan, scaled, axis, count):
    """Indices of `count` slices, even over the middle 60 % of those that show something; all when count is None."""
    length = scan.stored.shape[axis]
    if count is None:
        return range(length)
    filled = np.zeros(length, int)
    others = tuple(other for other in range(3) if other != axis)
    for box in scan.boxes():
        filled[box[axis]] += (scaled(scan.stored[box]) > -0.8).sum(others)
    shown = np.flatnonzero(filled / (scan.stored.size // length) > 0.02)
    if len(shown) == 0:
        shown = np.arange(length)
    first, last = np.percentile(shown, [20, 80])
    count = min(count, 2 * length)  # more find no other slices
    return np.unique(np.linspace(first, last, count).round().astype(int))


def _fit(picture, spacing, scaled, size):
    """float32 (size, size): square pixels, the longer side fills the frame, the rest is padded with -1."""
    extent = np.array(picture.shape) * np.array(spacing)
    rows, columns = (max(1, round(side)) for side in size * extent / extent.max())
    if picture.size <= _WHOLE:
        resized = _resized(scaled(picture), rows, columns)
    else:  # the rows are shortened band by band, then the columns as a whole
        height = max(1, _BAND // picture.shape[1])
        bands = [picture[top : top + height] for top in range(0, len(picture), height)]
        resized = _resized(
            np.concatenate([_resized(scaled(band), len(band), columns) for band in bands]), rows, columns
        )
    framed = np.full((size, size), -1.0, np.float32)
    top, left = (size - rows) // 2, (size - columns) // 2
    framed[top : top + rows, left : left + columns] = resized
    return framed


def _resized(picture, rows, columns):
    """A float32 picture with so many rows and columns.

    PIL widens the triangle filter when it shrinks, so nothing aliases; it never overshoots, so nothing rings.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR))
