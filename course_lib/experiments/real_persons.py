"""The record ``12_real_persons``: T1 to T2 and lesions removed, the methods of ``12_image_to_image`` on three real
persons with multiple sclerosis.

T1 to T2 has a truth, since their T2 was measured. A lesion removed has none: nobody has seen these persons without. So
the same holes are moved to places of the same slices without a lesion, where the tissue is known, and into slices of
made heads, at the same places. Nothing is tuned here. Three persons illustrate, and rank no methods; no picture is
stored. Needs the data set ``ms_lesions``, and takes some five minutes of one core.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from course_lib import pretrained, runtime
from course_lib.applications.anomaly import BACKGROUND, smooth
from course_lib.applications.classical import mirrored
from course_lib.datasets import ms_persons, ms_slices, synthetic_levels
from course_lib.experiments import image_to_image as lab
from course_lib.experiments.persons import LEVELS
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Method, Study
from course_lib.images import to_tensor
from course_lib.tumours import healthy_tissue

REAL, MADE = "real persons", "made persons"
T2_MEDIAN = 0.25  # where the median of a real T2 is put: fluid is four times as bright, and is not to be clipped
HEADS = 32  # training subjects of the atlas, at each level
SEED = 10
DEGREE = 5  # of a person's own curve, as of the one curve of all
LEAST = 3  # pixels of a lesion that is judged
RIM = 2  # pixels around a lesion that are filled with it: a hole of ``image_to_image``
RING = 3  # pixels around that hole: what a lesion is compared with, where they are white matter
LEAST_RING = 10  # pixels
REACH = 20  # pixels that a hole is moved from where the mirror puts it, at most
LEAST_WHITE = 0.8  # of the pixels that stand for a lesion's
SEGMENTER = "brain_segmenter"
LESION = 4  # its label


@dataclass(frozen=True)
class Slices:
    """Slices of a person: t1 float32 (S, H, W) in [-1, 1]; t2 float32 >= 0, 0 in the background, on a scale of its own;
    lesions bool."""

    t1: np.ndarray
    t2: np.ndarray
    lesions: np.ndarray

    @functools.cached_property
    def brain(self):
        """Where T1 shows something."""
        return self.t1 > BACKGROUND

    @functools.cached_property
    def healthy(self):
        """Brain, but not within 6 mm of a lesion."""
        return self.brain & (healthy_tissue(self.lesions) > 0)

    @functools.cached_property
    def holes(self):
        """The lesions and ``RIM`` pixels around them."""
        return widened(self.lesions, RIM)

    @functools.cached_property
    def white(self):
        """White matter outside the holes: the brightest of three classes of T1, parted by the thresholds of Otsu (1979)
        on the healthy tissue of this person. No network has a say in it."""
        from skimage.filters import threshold_multiotsu

        return self.brain & ~self.holes & (self.t1 > threshold_multiotsu(self.t1[self.healthy], 3)[-1])


@functools.cache
def persons(whose):
    """The real persons, or as many made and healthy ones, test subjects, at the same levels: a list of
    :class:`Slices`."""
    if whose == REAL:
        return [_real(person) for person in ms_persons()]
    count = len(ms_persons())
    t1, t2 = (
        np.stack([synthetic_levels("test", count, z, contrast=c) for z in LEVELS], 1).astype(np.float32)
        for c in ("T1", "T2")
    )
    return [Slices(*of, np.zeros(of[0].shape, bool)) for of in zip(t1, (t2 + 1) / 2)]


def _real(person):
    t1, lesions = ms_slices(person, "T1", LEVELS)
    return Slices(t1, (ms_slices(person, "T2", LEVELS, T2_MEDIAN)[0] + 1) / 2, lesions)


def widened(masks, pixels):
    """Masks (S, H, W) with so many pixels more on each side, in each slice: bool."""
    from scipy import ndimage

    return ndimage.binary_dilation(masks, np.ones((1, 2 * pixels + 1, 2 * pixels + 1), bool))


def pieces(masks):
    """The connected pieces of masks (S, H, W), slice by slice, corners counted: a list of (slice, bool (H, W))."""
    from scipy import ndimage

    found = []
    for k, mask in enumerate(masks):
        parts, count = ndimage.label(mask, np.ones((3, 3)))
        found += [(k, parts == n) for n in range(1, count + 1)]
    return found


def ring_around(piece, pixels, among):
    """Pixels of ``among`` (H, W) that are at most so many away from a piece; None where they are too few."""
    ring = widened(piece[None], pixels)[0] & among
    return ring if ring.sum() >= LEAST_RING else None


def judged(lesions, white):
    """The pieces of lesions (S, H, W) of at least ``LEAST`` pixels with white matter (S, H, W) around them, which they
    are compared with: yields (slice, piece, ring), the last two bool (H, W)."""
    for k, piece in pieces(lesions):
        ring = ring_around(piece, RIM + RING, white[k])
        if piece.sum() >= LEAST and ring is not None:
            yield k, piece, ring


def contrast(image, inside, ring):
    """The mean of an image inside a piece minus that of its ring, and the standard deviation in the ring."""
    around = image[ring]
    return image[inside].mean() - around.mean(), around.std()


# ---- T1 to T2 --------------------------------------------------------------------------------------------------------


@functools.cache
def atlas():
    """The mean T2 of made healthy training subjects at each level, (S, H, W) in [-1, 1]."""
    return np.stack([synthetic_levels("train", HEADS, z, contrast="T2").mean(0) for z in LEVELS])


def own_curve(slices):
    """The best polynomial from this person's T1 to this person's T2, fitted in healthy tissue: it knows the answer, and
    says about how much a curve can do."""
    x, y = slices.t1[slices.healthy], slices.t2[slices.healthy]
    curve = np.polynomial.Polynomial.fit(x, 2 * y - 1, DEGREE)
    return np.where(slices.brain, curve(slices.t1.clip(*curve.domain)), -1)


def _network(function):
    """function(T1 (S, 1, H, W)) of slices."""
    return lambda slices: function(to_tensor(slices.t1))[:, 0].numpy()


def _mean_of_samples(t1):
    return torch.stack([lab.by_diffusion(t1, SEED + 10 * k) for k in range(lab.SAMPLES)]).mean(0)


MEAN = f"diffusion, mean of {lab.SAMPLES}"
TRUTH, ORACLE = "the real T2", "the person's own curve"
SIMPLE = "T1 turned over", "atlas of made T2"
TRANSLATIONS = {
    TRUTH: Method(lambda slices: 2 * slices.t2 - 1),
    SIMPLE[0]: Method(lambda slices: np.where(slices.brain, -slices.t1, -1)),
    SIMPLE[1]: Method(lambda slices: atlas()),
    "one curve": Method(_network(lab.by_curve)),
    "regression": Method(_network(lab.by_regression), networks=("brain_t2_l2",), evaluations=1),
    "diffusion": Method(
        _network(lambda t1: lab.by_diffusion(t1, SEED)), networks=("brain_t2",), evaluations=lab.T2_NFE
    ),
    MEAN: Method(_network(_mean_of_samples), networks=("brain_t2",), evaluations=lab.SAMPLES * lab.T2_NFE),
    ORACLE: Method(own_curve),
}


def factor(x, slices):
    """The one number that brings the brightness of a translation x (S, H, W), 0 in the background, nearest to this
    person's T2 in healthy tissue, in squared error."""
    x, y = x[slices.healthy].astype(np.float64), slices.t2[slices.healthy].astype(np.float64)
    return float(x @ y / (x @ x))


def translated(found, slices):
    """What a translation (S, H, W) in [-1, 1] scores: how near it is to the T2 in healthy tissue, and what becomes of
    the lesions.

    rms: root mean square error after :func:`factor`, as a share of the standard deviation of the T2. correlation: of
    brightness, which allows an offset as well. contrast: of a lesion against the white matter around it, in standard
    deviations of that, of the picture itself, mean over the pixels of lesions; bright: share of the lesions that are
    brighter than their surroundings; kept: share of the contrast of the T2 that is there, after ``factor``, by least
    squares over the lesions; faint: the contrast of those that T1 hardly shows, less than one standard deviation.
    """
    x = (found.astype(np.float64) + 1) / 2
    a, y, inside = factor(x, slices), slices.t2.astype(np.float64), slices.healthy
    scores = {
        "factor": a,
        "rms": np.sqrt(np.mean((a * x - y)[inside] ** 2)) / y[inside].std(),
        "correlation": np.corrcoef(x[inside], y[inside])[0, 1],
    }
    if not slices.lesions.any():
        return scores
    rows = [
        [piece.sum(), *(contrast(z[k], piece, ring) for z in (a * x, y, slices.t1))]
        for k, piece, ring in judged(slices.lesions, slices.white)
    ]
    area, ours, true, given = (np.array(column) for column in zip(*rows))
    steps, faint = ours[:, 0] / ours[:, 1], np.abs(given[:, 0]) < given[:, 1]
    scores |= {"lesions": len(area), "contrast": np.average(steps, weights=area), "bright": np.mean(steps > 0)}
    scores["kept"] = np.sum(area * ours[:, 0] * true[:, 0]) / np.sum(area * true[:, 0] ** 2)
    few = np.average(steps[faint], weights=area[faint]) if faint.any() else np.nan
    return scores | {"lesions_faint": int(faint.sum()), "faint": few}


# ---- A lesion removed ------------------------------------------------------------------------------------------------


def _mean_of_fillings(cases, seed):
    fillings = [ONE_FILL.run(cases, seed + 10 * k)["x"] for k in range(lab.SAMPLES)]
    return {"x": torch.stack(fillings).mean(0)}


LESIONS, HEALTHY, HEADS_MADE = "lesions", "healthy tissue", "made heads"
WHERE = LESIONS, HEALTHY, HEADS_MADE
MEAN_FILL = f"RePaint, mean of {lab.SAMPLES}"  # where there is a truth: what a sample pays for being one
FILLS = dict(lab.TASKS["removed, hyper"].methods)
ONE_FILL = FILLS["RePaint"]
FILLS[MEAN_FILL] = Method(_mean_of_fillings, networks=ONE_FILL.networks, evaluations=lab.SAMPLES * ONE_FILL.evaluations)


def moved(slices):
    """Each lesion mirrored to the other hemisphere and moved on, as few pixels as it takes, to a place in white matter
    that is healthy, as is its own mirror image, hole and all: masks, bool (S, H, W). A lesion for which there is none
    within ``REACH`` pixels is left out."""
    like = to_tensor(slices.t1)
    turned = _mirrored(slices.lesions, like)
    free = slices.healthy & (_mirrored(slices.healthy, like))
    found = np.zeros_like(slices.lesions)
    steps = np.stack(np.meshgrid(*[np.arange(-REACH, REACH + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    steps = steps[np.argsort((steps**2).sum(1), kind="stable")]
    for k, piece in sorted(pieces(turned), key=lambda one: -one[1].sum()):  # the largest first
        inner, outer = (
            np.argwhere(mask)[None] + steps[:, None] for mask in (piece, widened(piece[None], RIM)[0])
        )  # (steps, pixels, 2)
        fits = _at(free[k] & ~widened(found[k : k + 1], 2 * RIM)[0], outer).all(1)
        fits &= _at(slices.white[k], inner).mean(1) >= LEAST_WHITE
        if fits.any():
            found[k][tuple(inner[fits.argmax()].T)] = True
    return found


def _mirrored(masks, like):
    """Masks (S, H, W) reflected as the slices ``like`` (S, 1, H, W) fit themselves best."""
    return mirrored(torch.as_tensor(masks)[:, None], like=like)[:, 0].numpy()


def _at(mask, places):
    """The values of a mask (H, W) at places (..., 2); False beyond it."""
    inside = ((places >= 0) & (places < mask.shape)).all(-1)
    return inside & mask[tuple(np.where(inside[..., None], places, 0).T)].T


@dataclass(frozen=True)
class Removal:
    """Slices x, and masks of what is taken for a lesion there, the hole around it, white matter outside of all holes
    and lesions; all (S, H, W)."""

    x: np.ndarray
    mask: np.ndarray
    hole: np.ndarray
    white: np.ndarray


@functools.cache
def removals(where):
    """One :class:`Removal` for each person, of the slices that have a hole. where: of ``WHERE``; the masks in made
    heads are those in healthy tissue of the real ones, as far as they lie in the brain."""
    found = []
    for real, made in zip(persons(REAL), persons(MADE)):
        slices = made if where == HEADS_MADE else real
        mask = real.lesions if where == LESIONS else moved(real)
        if where == HEADS_MADE:
            mask = mask & slices.brain
        hole = widened(mask, RIM)
        some = mask.any((1, 2))
        found.append(Removal(*(part[some] for part in (slices.t1, mask, hole, slices.white & ~hole))))
    return found


def fill(method, removal):
    """The holes filled by one of ``FILLS``: (S, H, W)."""
    cases = {"x": to_tensor(removal.x), "hole": torch.as_tensor(removal.hole)[:, None]}
    return FILLS[method].run(cases, SEED)["x"][:, 0].numpy()


def _steps(x, hole):
    """The mean absolute step between neighbours of x (S, H, W) one of which is in the hole."""
    pairs = [np.abs(np.diff(x, axis=axis))[np.diff(hole.astype(np.int8), axis=axis) != 0] for axis in (1, 2)]
    return np.concatenate(pairs).mean()


def _grain(x, where):
    """Root mean square of the fine texture of x (S, H, W) at some pixels."""
    fine = x - smooth(torch.as_tensor(x)).numpy()
    return np.sqrt(np.mean(fine[where] ** 2))


def filled(found, removal):
    """What slices with filled holes (S, H, W) score.

    outside: the largest change of a pixel outside the holes. brightness: where the lesion was, the mean minus that of
    the white matter around the hole, in standard deviations of that, mean over the pixels of lesions; grain: fine
    texture there, as a multiple of that of the white matter around all holes; seam: the mean step across the border of
    a hole, as a multiple of that in the slices as they are; called: share of the pixels where the lesion was that the
    segmenter calls lesion; error: mean absolute error in the holes, where what was there is the truth; holes,
    pixels, outlined: how many holes, pixels in them, and pixels that are or stand for a lesion.
    """
    rows, around = [], np.zeros_like(removal.mask)
    for k, hole in pieces(removal.hole):
        inside, ring = removal.mask[k] & hole, ring_around(hole, RING, removal.white[k])
        if ring is not None:
            around[k] |= ring
            step, spread = contrast(found[k], inside, ring)
            rows.append([inside.sum(), step / spread])
    area, steps = np.array(rows).T
    with runtime.fast():
        labels = pretrained.load(SEGMENTER).labels(to_tensor(found).to(runtime.device())).cpu().numpy()
    return {
        "holes": len(pieces(removal.hole)),
        "pixels": int(removal.hole.sum()),
        "outlined": int(removal.mask.sum()),
        "outside": np.abs(found - removal.x)[~removal.hole].max(),
        "brightness": np.average(steps, weights=area),
        "grain": _grain(found, removal.mask) / _grain(removal.x, around),
        "seam": _steps(found, removal.hole) / _steps(removal.x, removal.hole),
        "called": np.mean(labels[removal.mask] == LESION),
        "error": np.abs(found - removal.x)[removal.hole].mean(),
    }


# ---- The record ------------------------------------------------------------------------------------------------------


def plan(record):
    """The rows: each translation of the real and of the made persons, then each filling in each place; the mean of
    several only where it can be wrong."""
    for method in TRANSLATIONS:
        yield from ({"kind": "T1 to T2", "method": method, "of": whose} for whose in (REAL, MADE))
    for method in FILLS:
        places = WHERE[1:] if method == MEAN_FILL else WHERE
        yield from ({"kind": "removed", "method": method, "of": where} for where in places)


def measure(kind, method, of):
    """A row: a list a measure, one entry a person."""
    if kind == "T1 to T2":
        scores = [translated(TRANSLATIONS[method].run(slices), slices) for slices in persons(of)]
    else:
        scores = [filled(fill(method, removal), removal) for removal in removals(of)]
        if of == LESIONS:
            scores = [{key: value for key, value in score.items() if key != "error"} for score in scores]
    evaluations = (TRANSLATIONS if kind == "T1 to T2" else FILLS)[method].evaluations
    return {"evaluations": evaluations} | {key: _listed([score[key] for score in scores]) for key in scores[0]}, {}


def _listed(values):
    """Counts as they are, other numbers rounded, None for one that is not defined."""
    return [v if isinstance(v, int) else None if np.isnan(v) else rounded(v) for v in values]


def networks(key):
    """Names of the networks of a row."""
    if key["kind"] == "T1 to T2":
        return TRANSLATIONS[key["method"]].networks
    return (*FILLS[key["method"]].networks, SEGMENTER)


def begin():
    """What stands above the rows."""
    numbers = [person.number for person in ms_persons()]
    lesions = [len(pieces(slices.lesions)) for slices in persons(REAL)]
    about = {"persons": numbers, "levels": list(LEVELS), "pieces": lesions, "precision": runtime.precision_name()}
    return about, {}


STUDY = Study("12_real_persons", plan, measure, begin, networks=networks)
