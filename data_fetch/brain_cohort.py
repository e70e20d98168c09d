"""Brain cohort: made subjects, drawn from one real template. Offline, without a download, and with the truth known.

Everything here is made. The starting point is the ICBM152 2009a T1 template (an average of 152 real, healthy, young
adult heads) with its grey- and white-matter maps, as the nilearn wheel carries them at 1 mm (Fonov et al., NeuroImage
54(1), 2011). The template is brain-only: no skull, no scalp, so these are skull-stripped images, as most brain studies
use them. A subject is the template seen through a random affine map and a random smooth deformation, with its own
ventricle size, sulcal width, tissue intensities, bias field and Rician noise. A lesion is painted or pushed in.
What such a cohort lacks: skull, vessels, pathology of real patients, folding patterns other than the template's.

The subject's number fixes the person: the same number gives the same arrays, in every process and in any order.

Letters: positions are millimetres in RAS+ (x to the right, y to the front, z up), as in MNI space. A 2-D slice is
axial and shown as radiologists do: row 0 is the front, column 0 is the patient's right.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from data_fetch import ms_lesions
from data_fetch.errors import DataError

FIELD_OF_VIEW = 192.0  # mm, of every slice and volume: 64 pixels are 3 mm each, 128 are 1.5 mm
CENTRE = np.array([0.0, -18.0, 4.0])  # mm, the middle of the field of view, in MNI space
LEVELS = (0.0, 32.0)  # mm, range of z of the subjects' own slices: basal ganglia to the roof of the lateral ventricles
LABELS = ("background", "CSF", "grey matter", "white matter")
CONTRASTS = ("T1", "T2")
FAMILIES = ("hyper", "hypo", "texture", "mass", "tiny")
REAL_FAMILY = "ms"  # lesions of real persons, where that data set is in the cache; never among the "mixed"
SPLITS = {"train": (0, 100_000), "validation": (100_000, 110_000), "test": (110_000, 120_000)}

# Mean intensity of (CSF, grey, white), and what a lesion of each family tends to; white matter in T1 is 1
_TISSUE = {"T1": (0.22, 0.70, 1.0), "T2": (1.0, 0.62, 0.44)}
_TARGET = {
    "T1": {"hyper": 1.25, "hypo": 0.42, "mass": 0.50, "tiny": 1.25, REAL_FAMILY: 1.25},
    "T2": {"hyper": 1.05, "hypo": 0.20, "mass": 0.85, "tiny": 1.05, REAL_FAMILY: 1.05},
}
_HEIGHTS = CENTRE[2] - FIELD_OF_VIEW / 2, CENTRE[2] + FIELD_OF_VIEW / 2  # mm, z of the field of view
_FULL_SCALE = {"T1": 1.3, "T2": 1.2}  # the intensity shown as +1; zero is shown as -1
_DETAIL = {"T1": 0.8, "T2": -0.5}  # share of the template's detail beyond its tissue maps (nuclei, brain stem)
_TO_MASK = np.linalg.inv(ms_lesions.TO_TEMPLATE @ ms_lesions.AFFINE)  # mm of the template to voxels of the masks
_REAL_AREA = 60  # voxels of real lesions at a subject's level, at least, where a person of the split has as many
_SPLIT_OF_PERSON = {3: "validation", 4: "test"}  # of five persons in turn; the others are for training
_RADIUS = {"hyper": (6, 13), "hypo": (6, 13), "texture": (9, 15), "mass": (11, 17), "tiny": (2.6, 3.8)}  # mm

# Smooth deformation: (spans of the cubic B-spline a side, standard deviation in mm). All of it acts inside; at the
# outline the coarse part moves the surface and the finer parts only slide along it, so that heads keep smooth outlines.
_COARSE = (3, 1.7)
_FINE = ((7, 2.4), (13, 1.3))
_LOG_SIZE = -0.06  # of subjects against the template, the mean
_SYMMETRY = 0.85, 0.53  # shares of a deformation and its mirror image: correlation 0.9 between left and right
_SKIN = 16.0  # mm below the outline at which the finer parts act in full
_EXPANSION = 10.0  # mm, range of the tissue's motion around ventricles that grow or shrink
_STRONGEST = 1.5  # beyond what any network was trained on, to see what it makes of it
_WALLS = -_EXPANSION, _EXPANSION  # mm, how far the walls may move: from -_EXPANSION on the tissue would fold
_MAP_SPACING = 3.0  # mm, grid on which deformations are computed at every size, so that sizes show the same person


@dataclass(frozen=True)
class Case:
    """One image of one made subject, and its truth.

    image, healthy: float32 in [-1, 1], background exactly -1; `healthy` is the same subject with the same noise without
    the lesion (the same array when there is none). labels: uint8 (0 background, 1 CSF, 2 grey, 3 white) of
    `image`. mask: uint8, 1 on the lesion. Shape (size, size) for slices; (size, size, size), axes RAS+, for volumes.
    affine: 4x4, voxel index to mm (volumes; None for slices).
    """

    number: int
    image: np.ndarray
    healthy: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    affine: np.ndarray | None = None


@dataclass(frozen=True)
class Cohort:
    """A stack of slices: images and healthy float32 (N, size, size) in [-1, 1], labels and masks uint8 (N, size, size),
    numbers int64 (N,): the subjects."""

    images: np.ndarray
    healthy: np.ndarray
    labels: np.ndarray
    masks: np.ndarray
    numbers: np.ndarray


def numbers(split, n, seed=0):
    """Numbers of n subjects of a split, int64 (n,), without repetition; a longer draw begins with the shorter.

    The splits are disjoint ranges: train 0..99,999, validation 100,000..109,999, test 110,000..119,999.
    """
    _check(split, SPLITS, "split")
    first, end = SPLITS[split]
    if not _whole(n) or not 0 <= n <= end - first:
        raise DataError(
            f"The brain cohort's {split} split has {end - first} subjects, not {n!r}; ask for a whole number of them."
        )
    return first + _stream(seed, "draw").permutation(end - first)[:n].astype(np.int64)


def in_processes(function, items, processes):
    """[function(item) for item in items], by so many processes side by side."""
    if processes == 1:
        return [function(item) for item in items]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(function, items, chunksize=8))


def cohort(split, n, size=64, contrast="T1", lesion=None, strength=1.0, seed=0, processes=1):
    """A stack of n made slices, one a subject, of "train", "validation" or "test".

    lesion: None, a family of FAMILIES, "mixed" (the subject's number chooses the family), or REAL_FAMILY.
    seed chooses which subjects of the split; it changes no subject. So many processes share the work, for the same
    stack. Other arguments as in `slice_2d`.
    """
    chosen = numbers(split, n, seed)
    make = partial(slice_2d, size=size, contrast=contrast, lesion=lesion, strength=strength)
    cases = in_processes(make, chosen.tolist(), processes)
    fields = {key: [getattr(case, key) for case in cases] for key in ("image", "healthy", "labels", "mask")}
    types = {"image": np.float32, "healthy": np.float32, "labels": np.uint8, "mask": np.uint8}
    images, healthy, labels, masks = (
        np.array(stack, types[key]).reshape(n, size, size) for key, stack in fields.items()
    )
    return Cohort(images, healthy, labels, masks, chosen)


def slice_2d(number, size=64, contrast="T1", lesion=None, strength=1.0, level=None, ventricles=None, draw=0):
    """One axial slice of made subject `number`: a `Case` with arrays (size, size).

    contrast: "T1" or "T2" (T1- and T2-like; the same anatomy, each with its own noise).
    lesion: None, "mixed" or a family: "hyper" and "hypo" (brighter or darker), "texture" (the mean stays, the pattern
        changes), "mass" (mildly abnormal and pushes the tissue around it away), "tiny" (bright, radius about 3 mm),
        "ms" (shapes and places of a real person with multiple sclerosis, bright as on FLAIR, of ``ms_lesions``).
    strength: 0 (invisible) over 1 to 1.5, how far the lesion's intensity goes from the healthy one to the family's,
        which it reaches at 1; the pushing of "mass" scales with it too.
    level: z in mm of the slice, -92 to 100; the subject's own (in LEVELS) when None. A lesion lies at the subject's own
        level.
    ventricles: mm by which the ventricle walls move outward, -10 to 10; the subject's own (-0.8 to 3.2) when None.
    draw: 0 for the lesion that the subject has in all cohorts; 1, 2, ... for others of the family that it could as well
        have had, each at a place, and of a size and shape, of its own. Not for "ms".

    Raises DataError for other values, and for "ms" where that data set is not in the cache.
    """
    _check_look(number, size, contrast, lesion, strength, level, ventricles)
    if not _whole(draw) or draw < 0 or (draw and lesion == REAL_FAMILY):
        raise DataError(f"A draw is a whole number from 0 on, and 0 for lesions of {REAL_FAMILY!r}, not {draw!r}.")
    anatomy = _anatomy(number)
    axes = [_axis(size, 0)[::-1], _axis(size, 1)[::-1], np.array([anatomy.level if level is None else float(level)])]
    arrays = _make(anatomy, axes, size, contrast, lesion, strength, ventricles, draw)
    return Case(number, *(array[:, :, 0].T for array in arrays))  # (x, y) -> rows from front, columns from the right


def volume(number, size=64, contrast="T1", lesion=None, strength=1.0, ventricles=None):
    """One made 3-D image: a `Case` with arrays (size, size, size), axes RAS+, voxels of 192/size mm, and its affine.
    Arguments as in `slice_2d`."""
    _check_look(number, size, contrast, lesion, strength, None, ventricles)
    axes = [_axis(size, axis) for axis in range(3)]
    arrays = _make(_anatomy(number), axes, size, contrast, lesion, strength, ventricles)
    spacing = FIELD_OF_VIEW / size
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [axis[0] for axis in axes]
    return Case(number, *arrays, affine)


def slices_in_mni(volume, affine, levels, size=64):
    """Axial slices of a volume on the grid of the cohort's own, float32 (len(levels), size, size), in the volume's
    units: trilinear, averaged over each pixel as the cohort is, 0 beyond the volume.

    volume: (X, Y, Z); affine: 4x4, voxel index to mm of the template; levels: z in mm as in `slice_2d`. The head is
    made smaller, as the cohort's subjects are on average (exp(-0.06) of the template), and not moved: networks know
    that size and place.
    """
    from scipy import ndimage

    inverse, size_mm, centre = np.linalg.inv(affine), np.exp(_LOG_SIZE), CENTRE[:, None, None, None]

    def render(grid):
        place = (np.stack(np.meshgrid(*grid, indexing="ij")) - centre) / size_mm + centre
        voxel = _turn(inverse[:3, :3], place) + inverse[:3, 3, None, None, None]
        return ndimage.map_coordinates(volume, voxel, output=np.float32, order=1)

    across, along = _axis(size, 0)[::-1], _axis(size, 1)[::-1]
    found = [_fine_mean(render, [across, along, np.array([float(level)])], size)[:, :, 0].T for level in levels]
    return np.array(found, np.float32).reshape(-1, size, size)


# --- one subject ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Anatomy:
    """What the number fixes about a person (mm, radians, log units)."""

    number: int
    level: float
    matrix: np.ndarray  # (3, 3): subject to template
    shift: np.ndarray  # (3,)
    coarse: np.ndarray  # (3, K, K, K) coefficients of the B-splines
    fine: tuple
    ventricles: float
    sulci: float  # log odds of CSF against tissue at the sulci
    cortex: float  # log odds of grey against white matter


@lru_cache(maxsize=64)
def _anatomy(number):
    rng = _stream(number, "anatomy")
    angles = rng.normal(0, np.radians([2.5, 1.5, 2.5])).clip(-0.12, 0.12)
    # the template is larger than life, and its length just fits into the field of view
    scales = np.exp(np.minimum(rng.normal(_LOG_SIZE, 0.022) + rng.normal(0, 0.015, 3), -0.03))
    return _Anatomy(
        number=int(number),
        level=rng.uniform(*LEVELS),
        matrix=_rotation(angles) / scales,
        shift=rng.normal(0, 1.3, 3),
        coarse=_coefficients(rng, *_COARSE),
        fine=tuple(_coefficients(rng, *part) for part in _FINE),
        ventricles=float(np.clip(rng.normal(1.0, 1.2), -0.8, 3.2)),
        sulci=float(rng.normal(0.2, 0.45)),
        cortex=float(rng.normal(0, 0.25)),
    )


def _stream(seed, purpose):
    """A stream of random numbers for one purpose. RandomState is frozen: the same numbers in every NumPy version."""
    if not _whole(seed) or seed < 0:
        raise DataError(f"A seed is a whole number from 0 on, not {seed!r}.")
    key = [int(seed), *purpose.encode()]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(key)))


def _rotation(angles):
    """(3, 3) rotation about x, then y, then z."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles).as_matrix()


# --- one image --------------------------------------------------------------------------------------------------------


def _axis(size, axis):
    """Positions in mm of `size` voxel centres along x (0), y (1) or z (2), rising."""
    spacing = FIELD_OF_VIEW / size
    return CENTRE[axis] + (np.arange(size) - (size - 1) / 2) * spacing


def _make(anatomy, axes, size, contrast, lesion, strength, ventricles, draw=0):
    """image, healthy, labels, mask over the grid of `axes` (x, y, z positions in mm)."""
    if lesion == "mixed":
        lesion = FAMILIES[_stream(anatomy.number, "family").randint(len(FAMILIES))]
    push = float(ventricles) if ventricles is not None else anatomy.ventricles
    spot = None if lesion is None else _lesion(anatomy.number, lesion, draw)
    if lesion == REAL_FAMILY:
        spot = replace(spot, ventricles=push)
    scanner = _Scanner(anatomy.number, contrast, axes)
    plain, tissue = _anatomical(anatomy, axes, size, scanner, push)
    healthy = scanner.acquire(plain, tissue)
    if spot is None:
        return healthy, healthy, _labels(tissue), np.zeros(plain.shape, np.uint8)
    if lesion == "mass":
        plain, tissue = _anatomical(anatomy, axes, size, scanner, push, (spot, strength))
    cover = _fine_mean(spot.cover, axes, size)
    cover = cover * (1 - tissue[0]) * (tissue.sum(0) > 0.5)  # neither in the ventricles nor outside the brain
    cover[cover < 0.002] = 0  # beyond its soft edge a lesion changes nothing at all
    image = scanner.acquire(spot.paint(plain, cover * strength, contrast, axes), tissue)
    return image, healthy, _labels(tissue), (cover > 0.5).astype(np.uint8)


def _labels(tissue):
    """uint8 labels of tissue fractions (3, ...)."""
    return np.where(tissue.sum(0) > 0.5, tissue.argmax(0) + 1, 0).astype(np.uint8)


class _Scanner:
    """Tissue intensities, bias field and noise of one acquisition of one subject."""

    def __init__(self, number, contrast, axes):
        rng = _stream(number, "scanner " + contrast)
        self.contrast = contrast
        self.means = np.array(_TISSUE[contrast]) * np.exp(rng.normal(0, [0.10, 0.025, 0.015]))
        self.bias = np.exp(_field(rng.standard_normal((5, 5, 5)) * 0.13, axes))
        shape = tuple(len(axis) for axis in axes)
        self.noise = rng.uniform(0.012, 0.03) * rng.standard_normal((2, *shape))

    def acquire(self, plain, tissue):
        """Bias, Rician noise (magnitude of a complex Gaussian), brain mask, and the scale [-1, 1]."""
        magnitude = np.hypot(plain * self.bias + self.noise[0], self.noise[1])
        magnitude *= np.minimum(1, 4 * tissue.sum(0))  # as after skull-stripping: no noise outside the brain
        return (2 * np.clip(magnitude / _FULL_SCALE[self.contrast], 0, 1) - 1).astype(np.float32)


def _anatomical(anatomy, axes, size, scanner, ventricles, mass=None):
    """Noise-free intensity (...) and tissue fractions (3, ...) over the grid, averaged over each voxel."""

    def render(grid):
        tissue, detail = _tissue(anatomy, _to_template(anatomy, grid, ventricles, mass))
        intensity = np.einsum("k,k...", scanner.means, tissue) + _DETAIL[scanner.contrast] * detail
        return np.concatenate([np.maximum(intensity, 0)[None], tissue])

    mean = _fine_mean(render, axes, size)
    return mean[0], mean[1:]


def _tissue(anatomy, position):
    """Fractions (3, X, Y, Z) of CSF, grey and white matter, and the detail beyond them, at template positions."""
    near = _template().near_brain(position)  # about half of a slice: the rest is background
    found = np.zeros((4, *position.shape[1:]))
    found[:, near] = _template().sample("tissue", position[:, near])
    grey, white, brain, detail = found
    # squares sharpen the average of 152 people to something like one person
    tissue = np.stack([np.maximum(brain - grey - white, 0), grey, white]) ** 2
    tissue *= np.exp([anatomy.sulci, anatomy.cortex, 0.0])[:, None, None, None]
    return tissue * (brain / np.maximum(tissue.sum(0), 1e-6)), detail


def _fine_mean(render, axes, size):
    """Mean of render over sub-voxels of at most 1.5 mm, plane by plane so that volumes need little memory."""
    factor = int(np.ceil(FIELD_OF_VIEW / size / 1.5 - 1e-9))
    factors = [factor if len(axis) > 1 else 1 for axis in axes]
    fine = [_refine(axis, many) for axis, many in zip(axes, factors, strict=True)]
    planes = []
    for index in range(len(axes[2])):
        values = render([fine[0], fine[1], fine[2][index * factors[2] : (index + 1) * factors[2]]])
        shape = values.shape[:-3]
        values = values.reshape(*shape, len(axes[0]), factors[0], len(axes[1]), factors[1], -1)
        planes.append(values.mean((-4, -2, -1)))
    return np.stack(planes, -1)


def _refine(axis, factor):
    """Positions of `factor` sub-voxels in each voxel of an evenly spaced axis."""
    if factor == 1:
        return axis
    offsets = ((np.arange(factor) + 0.5) / factor - 0.5) * (axis[1] - axis[0])
    return (axis[:, None] + offsets).ravel()


# --- deformation ------------------------------------------------------------------------------------------------------


def _to_template(anatomy, grid, ventricles, mass=None):
    """Where in the template, in mm (3, X, Y, Z), each position of the subject's grid comes from."""
    count = int(FIELD_OF_VIEW / _MAP_SPACING)
    knots = [_axis(count, 0), _axis(count, 1), grid[2]]
    position = _to_template_at_knots(anatomy, knots, ventricles, mass)
    return _between(knots[1], grid[1], _between(knots[0], grid[0], position, 1), 2)


def _between(knots, positions, values, axis):
    """Linear interpolation of `values` along `axis` from even `knots` to `positions`, going on linearly beyond them."""
    place = (positions - knots[0]) / (knots[1] - knots[0])
    left = np.clip(np.floor(place), 0, len(knots) - 2).astype(np.int64)
    share = (place - left).reshape([-1 if dimension == axis else 1 for dimension in range(values.ndim)])
    return (1 - share) * values.take(left, axis) + share * values.take(left + 1, axis)


def _to_template_at_knots(anatomy, grid, ventricles, mass):
    template, centre = _template(), CENTRE[:, None, None, None]
    start = np.stack(np.meshgrid(*grid, indexing="ij"))  # (3, X, Y, Z)
    position = _turn(anatomy.matrix, start - centre) + centre + anatomy.shift[:, None, None, None]
    inner = sum(_vector_field(part, grid) for part in anatomy.fine)
    if mass is not None:
        spot, strength = mass
        inner -= strength * _turn(anatomy.matrix, spot.push(start))
    depth, *normal = template.sample("outline", position)
    held = 1 - np.clip(depth / _SKIN, 0.0, 1.0)
    position += _vector_field(anatomy.coarse, grid) + inner - held * (inner * normal).sum(0) * normal
    return position - ventricles * template.sample("ventricles", position)


def _turn(matrix, vectors):
    """A (3, 3) matrix applied to vectors (3, ...); plain sums, as a BLAS call would start threads for nothing."""
    return np.einsum("ij,j...->i...", matrix, vectors)


def _coefficients(rng, spans, deviation):
    """(3, K, K, K) coefficients of a random, nearly symmetric B-spline deformation of this deviation in mm."""
    noise = rng.standard_normal((3, *[spans + 3] * 3)) * deviation / 0.33  # 0.33: gain of the basis for white noise
    mirrored = noise[:, ::-1] * np.array([-1, 1, 1])[:, None, None, None]
    return _SYMMETRY[0] * noise + _SYMMETRY[1] * mirrored


def _vector_field(coefficients, grid):
    """(3, X, Y, Z) values of three B-splines."""
    return np.stack([_field(part, grid) for part in coefficients])


def _field(coefficients, grid):
    """Values (X, Y, Z) of a separable cubic B-spline over the field of view, on the grid of three position arrays."""
    values = coefficients
    for axis in (2, 1, 0):  # z first: in a slice it has one position only
        basis = _basis(grid[axis] - CENTRE[axis], coefficients.shape[axis])  # (n, K)
        values = np.moveaxis(np.tensordot(values, basis, (axis, 1)), -1, axis)
    return values


def _basis(offsets, n):
    """(len(offsets), n) uniform cubic B-splines over the field of view (offsets in mm from its centre)."""
    spans = n - 3
    place = np.clip((offsets / FIELD_OF_VIEW + 0.5) * spans, 0, spans - 1e-9)
    distance = np.abs(place[:, None] - (np.arange(n) - 1))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far)


# --- lesions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lesion:
    """A lesion in the subject's space: a ball with an uneven outline."""

    family: str
    centre: np.ndarray  # mm
    radius: float  # mm
    outline: tuple  # plane waves that make the radius uneven
    pattern: tuple  # plane waves of the texture inside

    def cover(self, grid):
        """Share (X, Y, Z) of the lesion at each position, 0..1, with a soft edge of about 2 mm."""
        x, y, z = (positions - middle for positions, middle in zip(grid, self.centre, strict=True))
        distance = np.sqrt(x[:, None, None] ** 2 + y[:, None] ** 2 + z**2)
        radius = self.radius * (1 + 0.2 * _waves(self.outline, grid))
        return 1 / (1 + np.exp(np.clip((distance - radius) / 0.6, -40, 40)))

    def push(self, position):
        """Displacement (3, X, Y, Z) in mm, away from the centre, at positions (3, X, Y, Z)."""
        offset = position - self.centre[:, None, None, None]
        return 0.7 * np.exp(-(offset**2).sum(0) / (2.2 * self.radius) ** 2) * offset

    def paint(self, plain, weight, contrast, axes):
        """Intensities (X, Y, Z) with the lesion mixed in by `weight` (0..1)."""
        pattern = _waves(self.pattern, axes)
        total = weight.sum()
        if self.family != "texture":
            return plain + weight * (_TARGET[contrast][self.family] * (1 + 0.06 * pattern) - plain)
        if total == 0:
            return plain
        local = (weight * plain).sum() / total  # the mean stays as it was: only the pattern gives it away
        return plain + weight * (0.75 * (local - plain) + 0.11 * (pattern - (weight * pattern).sum() / total))


@dataclass(frozen=True)
class _RealLesions:
    """The lesions of a real person with multiple sclerosis, carried to a subject by the subject's own deformation.

    Places are those of the template to within some mm (``ms_lesions.TO_TEMPLATE``). On FLAIR the lesions of the persons
    whose images are there have 1.3 times the median of the brain, and more against white matter; here they are as
    bright as the scale holds, as the family "hyper".
    """

    anatomy: _Anatomy
    person: int
    ventricles: float

    def cover(self, grid):
        """Share (X, Y, Z) of lesion at each position, 0..1."""
        from scipy import ndimage

        position = _to_template(self.anatomy, grid, self.ventricles)
        voxel = _turn(_TO_MASK[:3, :3], position) + _TO_MASK[:3, 3, None, None, None]
        lesions = _lesions_of(self.person).view(np.uint8)
        return ndimage.map_coordinates(lesions, voxel, output=np.float32, order=1)

    def paint(self, plain, weight, contrast, axes):
        """Intensities (X, Y, Z) with the lesions mixed in by `weight` (0..1)."""
        return plain + weight * (_TARGET[contrast][REAL_FAMILY] - plain)


@lru_cache(maxsize=8)
def _lesions_of(person):
    return ms_lesions.load([person])[0].lesions


@lru_cache(maxsize=1)
def _lesion_areas():
    """Voxels (persons, Z) of the lesions of each person, by number, in each axial slice of their grid."""
    return np.stack([person.lesions.sum((0, 1)) for person in ms_lesions.load()])


def lender(number):
    """Number of the real person, from 1 on, whose lesions made subject `number` gets as "ms". Raises DataError where
    ``ms_lesions`` is not in the cache."""
    return _real_lesions(number).person


def _real_lesions(number):
    """The real lesions that a subject gets: of a person with enough of them at the level of the subject's slice.

    Persons are split like subjects, so that no split shows shapes of another.
    """
    anatomy, areas = _anatomy(number), _lesion_areas()
    split = next((name for name, (first, end) in SPLITS.items() if first <= number < end), "test")
    persons = np.flatnonzero([_SPLIT_OF_PERSON.get(k % 5, "train") == split for k in range(len(areas))])
    middle = np.array([CENTRE[0], CENTRE[1], anatomy.level])
    height = _TO_MASK[2, 2] * (anatomy.matrix @ (middle - CENTRE) + CENTRE + anatomy.shift)[2] + _TO_MASK[2, 3]
    near = areas[persons][:, int(height) - 2 : int(height) + 4].min(1)  # deformations move a level by some mm
    enough = persons[near >= min(_REAL_AREA, near.max())]
    chosen = enough[_stream(number, "lesion " + REAL_FAMILY).randint(len(enough))]
    return _RealLesions(anatomy, int(chosen) + 1, anatomy.ventricles)


def _plane_waves(rng, count, shortest, longest):
    """(count, 3) wave vectors (radians per mm) of random directions and wavelengths in mm, and (count,) phases."""
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions *= 2 * np.pi / rng.uniform(shortest, longest, (count, 1))
    return directions, rng.uniform(0, 2 * np.pi, count)


def _waves(waves, grid):
    """Sum (X, Y, Z) of plane waves on a grid, of variance 1 over space."""
    (kx, ky, kz), phases = waves[0].T, waves[1]
    x = np.exp(1j * (np.outer(grid[0], kx) + phases))
    y, z = np.exp(1j * np.outer(grid[1], ky)), np.exp(1j * np.outer(grid[2], kz))
    return np.einsum("xk,yk,zk->xyz", x, y, z, optimize=True).real * np.sqrt(2 / len(phases))


@lru_cache(maxsize=64)
def _lesion(number, family, draw=0):
    """The lesion of a family that this subject gets, or another draw of it: its place is drawn from the tissue of the
    subject's own slice."""
    if family == REAL_FAMILY:
        return _real_lesions(number)
    anatomy, rng = _anatomy(number), _stream(number, f"lesion {family}" + (f" {draw}" if draw else ""))
    radius = rng.uniform(*_RADIUS[family])
    grid = [_axis(48, 0), _axis(48, 1), np.array([anatomy.level])]
    places = np.argwhere(_candidates(anatomy, grid, radius, family))
    column, row = places[rng.randint(len(places))]
    height = anatomy.level + rng.uniform(-0.3, 0.3) * radius
    return _Lesion(
        family=family,
        centre=np.array([grid[0][column], grid[1][row], height]),
        radius=radius,
        outline=_plane_waves(rng, 6, 1.2 * radius, 3.0 * radius),
        pattern=_plane_waves(rng, 16, 7.0, 12.0),
    )


def _candidates(anatomy, grid, radius, family):
    """Boolean (X, Y): where a lesion of this radius may have its centre: in tissue, off the midline."""
    from scipy import ndimage

    position = _to_template(anatomy, grid, anatomy.ventricles)
    (csf, grey, white), _ = _tissue(anatomy, position)
    x = position[0, :, :, 0]
    tissue = (grey + white > 0.8)[:, :, 0]
    outside = ndimage.binary_opening(~ndimage.binary_closing(tissue, iterations=2), iterations=2)
    spacing = FIELD_OF_VIEW / len(grid[0])
    depth = spacing * ndimage.distance_transform_edt(~outside)
    inside = tissue & (csf < 0.2)[:, :, 0] & (np.abs(x) > 5 + 0.6 * radius)
    if family in ("hyper", "hypo", "tiny"):
        inside &= (white > 0.6)[:, :, 0]
    for share in (1.0, 0.6, 0.0):  # large lesions do not fit everywhere: come closer to the outline if need be
        places = inside & (depth > 3 + share * radius)
        if places.any():
            return places
    return tissue


# --- template ---------------------------------------------------------------------------------------------------------


class _Template:
    """Maps over the template, read once: tissue at 1 mm, smooth geometry at 2 mm."""

    def __init__(self):
        from nilearn import datasets
        from scipy import ndimage

        image = datasets.load_mni152_template(resolution=1)
        grey = datasets.load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
        white = datasets.load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)
        origin = image.affine[:3, 3]
        brain = ndimage.binary_fill_holes(image.get_fdata(dtype=np.float32) > 0)
        brain = _largest(ndimage.binary_opening(brain, iterations=2))
        t1 = image.get_fdata(dtype=np.float32) * brain
        grey, white = grey * brain, white * brain
        csf = np.maximum(brain - grey - white, 0)
        parts = np.stack([csf, grey, white])[:, brain]
        means = np.linalg.lstsq(parts.T, t1[brain], rcond=None)[0]
        detail = np.zeros_like(t1)
        detail[brain] = (t1[brain] - means @ parts) / means[2]
        detail[~ndimage.binary_erosion(brain, iterations=2)] = 0  # the rim holds what is left of the dura
        self._origin = origin
        tissue = np.stack([grey, white, brain, detail], -1).astype(np.float32)
        tissue[:, :, 0] = 0  # the spinal cord ends at the edge of the map: without this it would go on for ever
        self._maps = {"tissue": (1.0, tissue)}
        self._near = ndimage.binary_dilation(brain[::2, ::2, ::2], iterations=2)
        self._add_geometry(brain[::2, ::2, ::2], csf[::2, ::2, ::2])

    def _add_geometry(self, brain, csf):
        """Depth under the outline and its direction; direction and reach of the ventricle walls' motion."""
        from scipy import ndimage

        depth = 2.0 * _signed_distance(brain)
        normal = np.stack(np.gradient(-ndimage.gaussian_filter(depth, 5)))
        normal /= np.maximum(np.linalg.norm(normal, axis=0), 1e-6)
        along = [start + 2 * np.arange(n) for start, n in zip(self._origin, brain.shape, strict=True)]
        x, y, z = np.meshgrid(*along, indexing="ij")
        region = (np.abs(x) < 36) & (y > -56) & (y < 40) & (z > -14) & (z < 36) & (depth > 20)
        distance = 2.0 * _signed_distance(_largest((csf > 0.5) & region))  # positive inside
        outward = np.stack(np.gradient(-ndimage.gaussian_filter(distance, 1.5), 2.0))
        outward *= np.exp(np.minimum(distance, 0) / _EXPANSION)
        self._maps["outline"] = 2.0, np.stack([depth, *normal], -1).astype(np.float32)
        self._maps["ventricles"] = 2.0, np.stack(outward, -1).astype(np.float32)

    def sample(self, name, position):
        """Channels (C, ...) of map `name` at positions in mm (3, ...): trilinear, the edge value outside.

        Gathers all channels of a corner at once: several times faster than scipy's map_coordinates, one by one.
        """
        spacing, values = self._maps[name]
        shape = values.shape[:3]
        last = np.array(shape)[:, None] - 1.001
        index = np.clip((position.reshape(3, -1) - self._origin[:, None]) / spacing, 0, last)
        corner = index.astype(np.int64)
        after = (index - corner).astype(np.float32)
        before = 1 - after
        flat, total = values.reshape(-1, values.shape[3]), 0.0
        first = (corner[0] * shape[1] + corner[1]) * shape[2] + corner[2]
        for i, j, k in np.ndindex(2, 2, 2):
            weight = (before, after)[i][0] * (before, after)[j][1] * (before, after)[k][2]
            total = total + weight[:, None] * flat.take(first + (i * shape[1] + j) * shape[2] + k, axis=0)
        return total.T.reshape(values.shape[3], *position.shape[1:])

    def near_brain(self, position):
        """Boolean (...): positions that are in the brain or within a few mm of it."""
        voxel = np.rint((position - self._origin.reshape(3, *[1] * (position.ndim - 1))) / 2).astype(np.int64)
        near = self._near
        return near[tuple(np.clip(part, 0, n - 1) for part, n in zip(voxel, near.shape, strict=True))]


@lru_cache(maxsize=1)
def _template():
    return _Template()


def _largest(region):
    """The largest connected part of a boolean array."""
    from scipy import ndimage

    parts, count = ndimage.label(region)
    return parts == 1 + np.argmax(ndimage.sum_labels(region, parts, np.arange(1, count + 1)))


def _signed_distance(region):
    """Distance in voxels to the region's boundary, positive inside."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(region) - ndimage.distance_transform_edt(~region)


def _check_look(number, size, contrast, lesion, strength, level, ventricles):
    """DataError unless an image can be made of these; None stands for what the subject has."""
    if not _whole(number) or number < 0:
        raise DataError(f"A subject's number is a whole number from 0 on, not {number!r}.")
    if not _whole(size) or not 8 <= size <= 256:
        raise DataError(f"The brain cohort is made at 8 to 256 pixels a side, not {size!r}.")
    _check(contrast, CONTRASTS, "contrast")
    if lesion is not None:
        _check(lesion, (*FAMILIES, "mixed", REAL_FAMILY), "lesion")
    limits = {"strength": (strength, 0, _STRONGEST), "level": (level, *_HEIGHTS), "ventricles": (ventricles, *_WALLS)}
    for name, (value, low, high) in limits.items():
        if value is not None and not (np.ndim(value) == 0 and hasattr(value, "__float__") and low <= value <= high):
            raise DataError(f"The brain cohort takes a {name} from {low:g} to {high:g}, not {value!r}.")
    if strength is None:
        raise DataError(f"The brain cohort takes a strength from 0 to {_STRONGEST}, not None.")


def _whole(value):
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check(value, allowed, what):
    if not isinstance(value, str) or value not in allowed:
        raise DataError(f"The brain cohort has no {what} {value!r}; choose one of: {', '.join(allowed)}.")
    return value
