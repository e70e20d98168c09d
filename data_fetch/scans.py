"""What the readers of NIfTI, DICOM and pictures share: the scan that they give, its limit of size, and one sentence
with the file's name for whatever goes wrong.

A scan keeps its numbers as the file stores them; they become float64 box by box, so that a volume needs little more
memory than its file unpacked.
"""

import itertools
import math
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from data_fetch.errors import DataError, first_line

#: Bytes of one volume or picture as stored. The course promises to stay within 2 GB of memory, its libraries included.
LIMIT = 1 << 30
_BOX = 1 << 21  # numbers that are converted at a time: 16 MB as float64


@dataclass(frozen=True)
class Scan:
    """A volume or picture.

    source: the file or folder; stored: numbers (X, Y, Z) RAS+ of a volume or (rows, columns) of a picture, complex ones
    stand for their magnitude; spacing: mm, one an axis; real value = slope * stored + intercept; angles: in degrees
    between the axes (Y, Z), (X, Z) and (X, Y) of a volume, 90 but in a sheared one.
    """

    source: str
    stored: np.ndarray
    spacing: tuple
    slope: float = 1.0
    intercept: float = 0.0
    angles: tuple = (90.0, 90.0, 90.0)

    def real(self, stored):
        """Real values, float64, of a part of ``self.stored``."""
        with np.errstate(over="ignore", invalid="ignore"):  # what float64 cannot hold becomes infinite
            values = stored.astype(np.complex128 if stored.dtype.kind == "c" else np.float64)
            if (self.slope, self.intercept) != (1, 0):
                values = values * self.slope + self.intercept
            return np.abs(values) if values.dtype.kind == "c" else values

    def boxes(self):
        """Slices, one an axis, that cut the scan into boxes of at most _BOX numbers, along its slowest axis first."""
        sides = list(self.stored.shape)
        for axis in np.argsort([-abs(stride) for stride in self.stored.strides], kind="stable"):
            others = math.prod(sides) // sides[axis]
            sides[axis] = min(sides[axis], max(1, _BOX // others))
        starts = (range(0, length, side) for length, side in zip(self.stored.shape, sides))
        return (tuple(slice(n, n + side) for n, side in zip(corner, sides)) for corner in itertools.product(*starts))


def volume(source, stored, affine, slope=1.0, intercept=0.0):
    """A `Scan` on the nearest RAS+ axes (a view, nothing is copied) of voxels (X, Y, Z) and their affine (4, 4).

    Raises DataError for an affine that does not place the voxels in space.
    """
    from nibabel import affines, orientations

    if not is_placement(affine):
        raise DataError(
            f"{source}: its affine does not say where the voxels lie (it is singular or not finite); export it again, "
            "or set the affine."
        )
    turns = orientations.io_orientation(affine)
    affine = affine @ orientations.inv_ornt_aff(turns, stored.shape)
    x, y, z = (affine[:3, :3] / affines.voxel_sizes(affine)).T
    angles = tuple(math.degrees(math.acos(np.clip(a @ b, -1, 1))) for a, b in ((y, z), (x, z), (x, y)))
    spacing = tuple(map(float, affines.voxel_sizes(affine)))
    return Scan(source, orientations.apply_orientation(stored, turns), spacing, slope, intercept, angles)


def is_placement(affine):
    """True when an affine (4, 4) gives each voxel a place of its own: finite, and no axis lies in the others' plane."""
    steps = affine[:3, :3]
    lengths = np.linalg.norm(steps, axis=0)
    return bool(np.isfinite(affine).all() and lengths.min() > 0 and abs(np.linalg.det(steps / lengths)) > 1e-3)


def check_size(source, count, bytes_each=1):
    """Raises DataError when `count` numbers are more than a scan may have."""
    if count * bytes_each > LIMIT:
        raise DataError(
            f"{source} is too large ({count * bytes_each / 1e9:.1f} GB unpacked, at most {LIMIT / 1e9:.1f} GB); cut "
            "out a part of it or lower its resolution."
        )


@contextmanager
def reading(file, what, remedy="export it again"):
    """Turn every error on the way from a file to a `Scan` into one `DataError` that names it: "FILE WHAT (..)"."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{file} needs more memory than is free; close other notebooks and programs, or cut out a part of it."
        ) from error
    except PermissionError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); check its permissions.") from error
    except Exception as error:  # the libraries raise many kinds on damaged files
        raise DataError(f"{file} {what} ({first_line(error)}); {remedy}.") from error
