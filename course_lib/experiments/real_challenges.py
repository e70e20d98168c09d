"""The record ``14_real_challenges``: three of the stress tests of ``14_challenges`` on what nobody made.

- "lesion": slices of three real persons with multiple sclerosis, and a scan of them simulated as in notebook 09: what
  arrives of the lesions, what is called one elsewhere, what is invented on lines that were not measured, and what the
  intervals of a sampler cover. There is no twin without the lesion, so contrast is that of a lesion and the white
  matter around it. Three persons illustrate, and rank no methods.
- "nodules": intervals for the area that a radiologist outlines, against four real readers, on CT slices as they are and
  degraded. The outlines stay those of the clean slices, on which the readers drew.

Nothing is tuned here. It needs the data sets ``ms_lesions`` and ``lidc``, and takes about half an hour of one core;
rows whose data are missing are left out. No picture is stored.
"""

import functools

import numpy as np
import torch

from course_lib import datasets, pretrained, runtime
from course_lib.applications.anomaly import brain, smooth
from course_lib.applications.segmentation import draw_masks, draw_normal, random_threshold
from course_lib.datasets import ms_persons, ms_slices
from course_lib.experiments import challenges, lidc, real_persons
from course_lib.experiments import reconstruction as lab
from course_lib.experiments.audits import blurred, noisier
from course_lib.experiments.record import rounded
from course_lib.experiments.segmentation import probabilities
from course_lib.experiments.study import Study
from course_lib.images import to_tensor
from course_lib.metrics.detection import findings
from course_lib.metrics.images import coverage, mean_inside, prediction_interval, psnr

CONTRASTS = ("FLAIR", "T1")
SLICES = real_persons.LEVELS[:16]  # mm; a whole number of the groups that are scanned together
METHODS, TRUTH = challenges.METHODS, challenges.TRUTH
ACCELERATIONS = (4, 8)
SAMPLES = 4
SMALL = 9  # pixels (36 mm^2): a piece of fewer is a small one
CUTS = tuple(round(1.2 + 0.03 * k, 2) for k in range(27))  # grey levels above black, of the brightness reader, to 1.98

MASKS = 19  # from the least to the largest of so many draws: (19 - 1) / (19 + 1) = 90 %
NOISE, BLUR, DIM = 0.4, 2.5, 0.4  # standard deviation; pixels; factor on the distance from black


# ---- Real lesions, scanned -------------------------------------------------------------------------------------------


@functools.cache
def slices(contrast):
    """All slices of the three persons (N, 1, 96, 96) in [-1, 1], their lesions and their brain, bool of that shape, and
    the place of the person of each (N,)."""
    parts = [ms_slices(person, contrast, SLICES) for person in ms_persons()]
    x, masks = (np.concatenate(stack) for stack in zip(*parts))
    whose = torch.arange(len(parts)).repeat_interleave(len(SLICES))
    return to_tensor(x), torch.as_tensor(masks)[:, None], brain(to_tensor(x)), whose


def kept(found, contrast):
    """Share of the lesions' contrast that is left in reconstructions (N, 1, 96, 96), for each person: by least squares
    over the lesions, of all of them, of small and of large ones; None where a person has none.

    The contrast of a lesion is its mean minus that of the white matter around it. Lesions of less than
    ``real_persons.LEAST`` pixels, or with too little white matter around them, are left out.
    """
    truth, _, _, whose = slices(contrast)
    rows = []
    for k, person in enumerate(real_persons.persons(real_persons.REAL)):
        x, y = (images[whose == k][:, 0].double().numpy() for images in (found, truth))
        there = real_persons.judged(person.lesions[: len(SLICES)], person.white)
        steps = [(lesion.sum(), *_steps(lesion, ring, x[n], y[n])) for n, lesion, ring in there]
        rows.append(np.array(steps))
    parts = {"kept": lambda size: size > 0, "kept_small": lambda size: size < SMALL, "kept_large": lambda s: s >= SMALL}
    return {name: [_slope(row[chosen(row[:, 0])]) for row in rows] for name, chosen in parts.items()}


def _steps(piece, ring, *images):
    """The contrast of a piece in each of the images (H, W)."""
    return [real_persons.contrast(image, piece, ring)[0] for image in images]


def _slope(rows):
    """The factor that brings true contrasts, third column, nearest to those found, second; None without rows."""
    if not len(rows):
        return None
    area, found, true = rows.T
    return rounded((area * found * true).sum() / (area * true**2).sum(), 3)


def called(found):
    """What a reader by brightness calls in FLAIR pictures (N, 1, 96, 96), at each of CUTS: of each person the lesions
    found [P][K], the number of lesions, and findings elsewhere a slice [P][K]. A finding is a connected piece of at
    least 3 pixels of the smoothed picture, inside the brain."""
    _, masks, inside, whose = slices("FLAIR")
    score = (smooth(found[:, 0] + 1) * inside[:, 0]).numpy()
    hit, lesions, false = (torch.as_tensor(of) for of in findings(score, masks[:, 0].numpy(), CUTS))
    of_each = [whose == k for k in whose.unique()]
    return {
        "found": [hit[one].sum(0).tolist() for one in of_each],
        "lesions": [int(lesions[one].sum()) for one in of_each],
        "false": [rounded(false[one].double().mean(0), 3) for one in of_each],
    }


def found_at(row, person, allowed):
    """How many lesions of a person (its place) are found in the pictures of a row at the lowest cut down to which there
    are never more than ``allowed`` false findings a slice; 0 where the highest has more."""
    too_many = np.flatnonzero(np.array(row["false"][person]) > allowed)
    first = too_many[-1] + 1 if too_many.size else 0
    return [*row["found"][person], 0][first]


def intervals(samples, contrast):
    """Share of pixels that the 90 % intervals of samples (K, N, 1, 96, 96) cover, and the intervals' width, in the
    lesions and elsewhere in the brain: of each person, over the slices with a lesion."""
    truth, masks, inside, whose = slices(contrast)
    low, high = prediction_interval(samples)
    some, places = masks.flatten(1).any(1), {"in_lesion": masks, "elsewhere": inside & ~masks}
    found = {}
    for name, where in places.items():
        found[f"coverage_{name}"] = coverage(samples[:, some], truth[some], where[some])
        found[f"width_{name}"] = mean_inside((high - low)[some], where[some])
    return by_person(found, whose[some])


def by_person(values, whose):
    """Values {name: (N, ...)} of slices as means of their persons, rounded."""
    return {
        name: rounded(torch.stack([value[whose == k].mean(0) for k in whose.unique()]), 3)
        for name, value in values.items()
    }


def lesion_row(contrast, R, method):
    """A row "lesion"; of the slices themselves, method TRUTH, only what is called in them."""
    truth, _, _, whose = slices(contrast)
    if method == TRUTH:
        return {"slices": len(truth)} | called(truth)
    count = SAMPLES if method == "DiffPIR" else 1
    samples, scans = lab.drawn_of_all(challenges.problem_of(R), method, truth, count)
    pairs = zip(samples[0].split(lab.GROUP), truth.split(lab.GROUP), scans)
    error, energy = (torch.cat(part) for part in zip(*(challenges.ring_shares(x, y, A) for x, y, (A, _) in pairs)))
    found = by_person({"psnr": psnr(samples[0], truth), "ring_error": error, "ring_energy": energy}, whose)
    found |= kept(samples[0], contrast) | (called(samples[0]) if contrast == "FLAIR" else {})
    return found | (intervals(samples, contrast) if count > 1 else {})


# ---- Real readers, and degraded scans --------------------------------------------------------------------------------


#: How slices (N, 1, 64, 64) in [-1, 1] are degraded.
DEGRADED = {
    "as trained": lambda x: x,
    "noise": lambda x: noisier(x, NOISE).clamp(-1, 1),
    "blur": lambda x: blurred(x, BLUR),
    "dim": lambda x: DIM * (x + 1) - 1,
}
READERS, BLIND = "the three other readers", lidc.BLIND
DRAWING = {"U-Net, random threshold": lidc.UNETS[:1], "ensemble, random threshold": lidc.UNETS}
DRAWING |= {"SSN": (lidc.NORMAL,), "mask diffusion": (lidc.MASKS,)}


@functools.cache
def nodules():
    """One nodule, the first, of each test person: images (P, 1, 64, 64) and readings, bool (4, P, 64, 64)."""
    images, readings, whose = lidc.cases("test")
    first = torch.stack([(whose == person).nonzero()[0, 0] for person in whose.unique()])
    return images[first], readings[:, first]


def masks_of(way, y):
    """MASKS masks, bool (MASKS, N, 64, 64), that one of DRAWING, or BLIND, draws for images y (N, 1, 64, 64)."""
    if way == BLIND:
        known = lidc.training_readings()
        return known[torch.randint(len(known), (MASKS, len(y)), generator=runtime.seeded(0))]
    if way == "SSN":
        return draw_normal(pretrained.load(lidc.NORMAL), y, MASKS)[0] > 0
    if way == "mask diffusion":
        return draw_masks(pretrained.load_denoiser(lidc.MASKS), y, MASKS)[:, :, 0] > 0
    return random_threshold(probabilities(y, DRAWING[way]).mean(0), MASKS)


def areas(masks):
    """Pixels of masks (K, N, H, W): (K, N)."""
    return masks.flatten(2).sum(2).double()


def ranges(drawn, outlined, level):
    """Of the range of drawn areas (K, N): the share of outlined areas (R, N) that it covers, the share that are larger,
    its width and its interval score, width + 2 / (1 - level) times what an area lies beyond it, mean over the R
    (Gneiting & Raftery 2007, eq. 43); tensors (N,). A new draw from the same distribution is covered by the range of K
    with a chance of (K - 1) / (K + 1) and larger with one of 1 / (K + 1), where no two are equal; else it is covered
    more often."""
    low, high = drawn.min(0).values, drawn.max(0).values
    beyond = (low - outlined).clamp(min=0) + (outlined - high).clamp(min=0)
    score = high - low + 2 / (1 - level) * beyond.mean(0)
    larger = (outlined > high).double().mean(0)
    return {"covered": (beyond == 0).double().mean(0), "larger": larger, "width": high - low, "score": score}


def nodule_row(degraded, method):
    """A row "nodules": one entry a person, in pixels."""
    y, readings = nodules()
    outlined = areas(readings)
    if method == READERS:  # each left out in turn; a range of three
        others = [[k for k in range(len(outlined)) if k != r] for r in range(len(outlined))]
        turns = [ranges(outlined[rest], outlined[r : r + 1], 0.5) for r, rest in enumerate(others)]
        found = {key: torch.stack([turn[key] for turn in turns]).mean(0) for key in ("covered", "larger", "width")}
    else:
        found = ranges(areas(masks_of(method, DEGRADED[degraded](y))), outlined, (MASKS - 1) / (MASKS + 1))
    return {key: rounded(value, 3) for key, value in found.items()}


# ---- The record ------------------------------------------------------------------------------------------------------


def plan(record=None):
    """The rows."""
    rows = [("lesion", "FLAIR", 1, TRUTH)]
    rows += [
        ("lesion", contrast, R, method) for contrast in CONTRASTS for R in ACCELERATIONS[::-1] for method in METHODS
    ]
    rows += [("nodules", "as trained", None, method) for method in (READERS, BLIND)]
    rows += [("nodules", degraded, None, method) for degraded in DEGRADED for method in DRAWING]
    return [dict(zip(("kind", "name", "R", "method"), row)) for row in rows]


def plan_of_this_machine(record):
    """The rows whose data are here."""
    here = {"lesion": datasets.is_here("ms_lesions"), "nodules": datasets.is_here("lidc")}
    return [row for row in plan() if here[row["kind"]]]


def measure(kind, name, R, method):
    """A row."""
    return (lesion_row(name, R, method) if kind == "lesion" else nodule_row(name, method)), {}


def networks(key):
    """The networks of a row."""
    if key["kind"] == "nodules":
        return DRAWING.get(key["method"], ())
    return {"DiffPIR": ("brain",), "U-Net": ("brain_mri_unet",)}.get(key["method"], ())


def begin():
    """What stands above the rows."""
    persons_there = [person.number for person in ms_persons()]
    about = {"persons": persons_there, "levels": list(SLICES), "masks": MASKS, "cuts": list(CUTS)}
    return about | {"precision": runtime.precision_name()}, {}


STUDY = Study("14_real_challenges", plan_of_this_machine, measure, begin, networks=networks)
