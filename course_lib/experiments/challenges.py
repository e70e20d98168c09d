"""The record ``14_challenges``: what the course's methods do where they were not meant to work.

It takes about an hour and a half on one free core, most of it training. Seven kinds of rows:

- "lesion": the 32 subjects of notebook 09 from MRI scans at several accelerations, with their lesion and without;
- "reader": the same pictures before a segmenter at rising thresholds: lesions found, and findings in the healthy;
- "shift": 32 images each of anatomy and contrast that the prior never saw, at R = 4;
- "band": of these images, and of lesions, the share of pixels that lie within so much of a reconstruction;
- "copies": networks trained on 10 to 10,000 brains, here and now, or before by ``python -m course_lib.train
  copies_10_3000`` and so on, whose checkpoints in ``runs`` serve: they are good for nothing else, and do not ship;
- "guidance": pixels of MedNIST samples over the guidance scale;
- "rare": features of healthy brains and of two rare kinds, for sets in which one of them is missing.

Subjects come in groups of four with random numbers of their own, as in :mod:`course_lib.experiments.reconstruction`.
"""

import functools

import torch
from torch.nn import functional as F

from course_lib import pretrained, runtime
from course_lib.applications.anomaly import brain
from course_lib.applications.counterfactual import pixel
from course_lib.datasets import BRAIN_TISSUES, synthetic_brains, synthetic_levels, synthetic_ventricles
from course_lib.experiments import guidance
from course_lib.experiments import reconstruction as lab
from course_lib.experiments.mednist_sets import classes_of, mednist
from course_lib.experiments.record import as_bytes, rounded
from course_lib.experiments.study import Study, timed
from course_lib.images import in_batches, to_tensor
from course_lib.metrics.detection import false_alarms, touched
from course_lib.metrics.images import contrast_kept, coverage, mean_inside, prediction_interval, psnr
from course_lib.operators import to_kspace
from course_lib.recipes import RECIPES, runs
from course_lib.recipes.brain import BRAIN_LICENCE
from course_lib.recipes.copies import COPIES
from course_lib.recipes.mednist import MEDNIST_LICENCE
from course_lib.scans import noise_of

CASES, GROUP = lab.CASES, lab.GROUP
METHODS = ("zeros or FBP", "TV", "U-Net", "DiffPIR")
TRUTH = "truth"  # the image itself, as if it were a reconstruction: what the judges make of it
ACCELERATIONS = (1, 2, 4, 8, 12)
TRAINED = (4, 8)  # accelerations that the U-Net knows
WORST = 8  # the acceleration at which several samples are drawn
SAMPLES = 4
SHIFTS = ("as trained", "posterior fossa", "vertex", "T2-like", "hands")
SHIFT_R = 4
LEVEL = {"posterior fossa": -30.0, "vertex": 58.0}  # mm; training slices lie between 0 and 32
HAND = 4  # class of MedNIST
RINGS = 4  # of k-space, of equal width
LEVELS = (
    *(0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
    *(0.7, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999),
)  # of the reader
SMALLEST = 3  # pixels (12 mm^2) that make a finding
HALF_WIDTHS = (0.03, 0.06, 0.09, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)  # of bands around a picture
BANDS = ("TV", "DiffPIR")
GUIDED = (*(("classifier-free", w) for w in (1, 3, 8, 12)), ("interval", 8))
GUIDED_IMAGES = 48
WIDER = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # factors on the width of intervals
RARE = {"healthy": 600, "mass": 100, "wide ventricles": 100}  # number of images whose features are kept
WALLS = 5.0  # mm, of wide ventricles; the subjects' own lie between -0.8 and 3.2
SHOWN = 4


# ---- Lesions against acceleration ------------------------------------------------------------------------------------


def problem_of(R):
    """The name of an MRI problem in the record of notebook 09."""
    return f"MRI, R = {R}"


def reconstructions(R, method, sick=False, samples=1):
    """Samples (K, 32, 1, 96, 96) of the subjects from scans at R, and each group's operator and scan."""
    x = lab.subjects()[int(sick)]
    return (x[None], []) if method == TRUTH else lab.drawn_of_all(problem_of(R), method, x, samples)


def _radius(n):
    """Distance of each of n x n frequencies from the middle of k-space, in units of its half-width."""
    offset = torch.arange(n) - n // 2
    return (offset[:, None].square() + offset.square()).sqrt() / (n // 2)


def ring_shares(found, truth, A):
    """Error and energy of reconstructions (N, 1, n, n) on the lines that were not measured, in RINGS rings of k-space:
    sum |c - c*|^2 / sum |c*|^2 and sum |c|^2 / sum |c*|^2, with c* the truth's. Two tensors (N, RINGS), the coarsest
    structure first; nan in a ring without missing lines.

    Leaving these lines at zero has error 1 and energy 0. A draw that is independent of the truth has error 2 and energy
    1: to invent costs more than to leave out.
    """
    radius, missing = _radius(truth.shape[-1]), (A.lines == 0).expand(truth.shape)
    c, c_true = to_kspace(found), to_kspace(truth)

    def share(values, ring):
        inside = missing & (radius >= ring / RINGS) & (radius < (ring + 1) / RINGS)
        return (values.abs().square() * inside).sum((1, 2, 3)) / (c_true.abs().square() * inside).sum((1, 2, 3))

    return tuple(torch.stack([share(values, ring) for ring in range(RINGS)], 1) for values in (c - c_true, c))


def lesion_pixels(images):
    """Where the segmenter sees a lesion in images (N, 1, 96, 96): bool (N, 1, 96, 96)."""
    labels = in_batches(pretrained.load("brain_segmenter").labels, images[:, 0].numpy())
    return (labels == BRAIN_TISSUES.index("lesion"))[:, None]


def lesion_probability(images):
    """The probability that the segmenter gives the lesion in images (N, 1, 96, 96): (N, 96, 96)."""

    def softmax(x):
        return pretrained.load("brain_segmenter")(x).softmax(1)[:, BRAIN_TISSUES.index("lesion")]

    return in_batches(softmax, images[:, 0].numpy())


def reader_row(R, method):
    """A row "reader": for each subject and each of LEVELS, whether the segmenter finds the lesion, and how many
    findings it has without one. A finding is a connected piece of at least SMALLEST pixels at or above the level; a
    lesion is found if one of them touches it. Sensitivity against findings an image is the FROC curve."""
    masks = lab.subjects()[2][:, 0].numpy()
    drawn = (reconstructions(R, method, sick)[0][0] for sick in (False, True))
    maps = [torch.cat([lesion_probability(part) for part in x.split(GROUP)]) for x in drawn]
    healthy, sick = ([(p >= level).numpy() for level in LEVELS] for p in maps)
    return {
        "found": [[int(touched(above[n], masks[n], SMALLEST)) for above in sick] for n in range(CASES)],
        "false_findings": [[false_alarms(above[n], SMALLEST) for above in healthy] for n in range(CASES)],
    }, {}


def lesion_row(R, method):
    """A row "lesion": contrast kept, what the segmenter sees with a lesion and without, and what was invented."""
    healthy, sick, masks, inside = lab.subjects()
    (without,), scans = reconstructions(R, method)
    drawn, _ = reconstructions(R, method, sick=True, samples=SAMPLES if (R, method) == (WORST, "DiffPIR") else 1)
    seen, planted = lesion_pixels(drawn[0]), lesion_pixels(without)
    found = {
        "contrast_kept": rounded(contrast_kept(drawn[0], without, sick - healthy, masks), 3),
        "lesion_seen": rounded(mean_inside(seen, masks), 3),
        "lesion_planted_mm2": rounded(planted.flatten(1).sum(1) * pixel(planted) ** 2, 1),
    }
    if R > 1:  # at R = 1 nothing is missing but one line at the edge
        groups = zip(without.split(GROUP), healthy.split(GROUP), scans)
        shares = zip(*(ring_shares(x, truth, A) for x, truth, (A, _) in groups))
        found |= {f"ring_{key}": rounded(torch.cat(share), 3) for key, share in zip(("error", "energy"), shares)}
    if len(drawn) > 1:
        found["coverage_in_lesion"] = rounded(coverage(drawn, sick, masks), 3)
        found["coverage_elsewhere"] = rounded(coverage(drawn, sick, inside & ~masks), 3)
    return found, {"with": drawn[0, :SHOWN], "without": without[:SHOWN]}


# ---- Anatomy and contrast that the prior never saw -------------------------------------------------------------------


@functools.cache
def images_of(shift):
    """32 images (32, 1, 96, 96) of a shift. Raises ValueError for an unknown one; "hands" need MedNIST in the cache."""
    if shift == "as trained":
        return lab.subjects()[0]
    if shift == "T2-like":
        return to_tensor(synthetic_brains("test", CASES, contrast="T2").images)
    if shift in LEVEL:
        return to_tensor(synthetic_levels("test", CASES, LEVEL[shift]))
    if shift == "hands":
        images, labels = mednist("test")
        hands = images[labels == HAND]
        hands = hands[:: len(hands) // CASES][:CASES]  # spread over the split
        return F.interpolate(to_tensor(hands), (96, 96), mode="bilinear")
    raise ValueError(f"no shift {shift!r}; there are: {', '.join(SHIFTS)}")


def misfit(A, y, x):
    """Distance of images x (N, 1, H, W) to the measured lines, in units of the noise: (N,); a right answer has 1."""
    rest = (y - A(x)).abs().square().flatten(1).sum(1) / (2 * A.lines.flatten(1).sum(1) * x.shape[-1])
    return rest.sqrt() / noise_of(problem_of(SHIFT_R))


def shift_row(shift, method):
    """A row "shift"."""
    return reconstructed(images_of(shift), method)


def reconstructed(truth, method):
    """PSNR, misfit and, of a method that draws, its error bars, for images (N, 1, 96, 96) from scans at R = 4."""
    samples, scans = lab.drawn_of_all(problem_of(SHIFT_R), method, truth, SAMPLES if method == "DiffPIR" else 1)
    misfits = [misfit(A, y, x) for (A, y), x in zip(scans, samples[0].split(GROUP))]
    found = {"psnr": rounded(psnr(samples[0], truth), 3), "misfit": rounded(torch.cat(misfits), 3)}
    if len(samples) > 1:
        inside, mean = brain(truth), samples.mean(0)
        low, high = prediction_interval(samples)
        found |= {
            "psnr_of_mean": rounded(psnr(mean, truth), 3),
            "coverage": rounded(coverage(samples, truth, inside), 3),
            "width": rounded(mean_inside(high - low, inside)),
            "coverage_if_wider": rounded(covered_if_wider(samples, truth, inside), 3),
            "sharpness": rounded(sharpness(samples[0], truth), 3),
            "sharpness_of_mean": rounded(sharpness(mean, truth), 3),
        }
    kept = {"truth": truth[:SHOWN]} if method == METHODS[0] else {}
    return found, kept | {"sample": samples[0, :SHOWN]}


def covered_if_wider(samples, truth, where):
    """Share of the pixels ``where`` (N, 1, H, W) that the 90 % intervals of samples (K, N, 1, H, W) cover, widened by
    each of the factors WIDER: (N, factors)."""
    low, high = prediction_interval(samples)
    middle, half = (low + high) / 2, (high - low) / 2
    shares = [mean_inside((truth - middle).abs() <= factor * half, where) for factor in WIDER]
    return torch.stack(shares, 1)


def band_row(name, method):
    """A row "band": the share of each case's pixels whose true value lies within each of HALF_WIDTHS of one
    reconstruction at R = SHIFT_R, in the brain of the images of a shift, or in the lesions if ``name`` is "lesion"."""
    if name == "lesion":
        _, truth, inside, _ = lab.subjects()
    else:
        truth, inside = images_of(name), brain(images_of(name))
    error = (lab.drawn_of_all(problem_of(SHIFT_R), method, truth)[0][0] - truth).abs()
    return {
        "share_within": rounded(torch.stack([mean_inside(error <= half, inside) for half in HALF_WIDTHS], 1), 3)
    }, {}


def sharpness(x, truth):
    """Energy of images (N, 1, n, n) in the outer half of k-space over the truth's, (N,): 1 is as sharp as the truth."""
    outer = _radius(truth.shape[-1]) > 0.5
    energy = [(to_kspace(image).abs().square() * outer).flatten(1).sum(1) for image in (x, truth)]
    return energy[0] / energy[1]


# ---- Copies ----------------------------------------------------------------------------------------------------------


def copies_row(n, steps, folder="runs"):
    """A row "copies": a network trained on n brains for so many steps, measured by
    :func:`~course_lib.recipes.copies.measure_copies`."""
    recipe = RECIPES[f"copies_{n}_{steps}"]
    net, steps = runs.finished(recipe, folder)
    quality, tensors = recipe.measure(recipe, runtime.placed(net))
    weights = sum(parameter.numel() for parameter in net.parameters())
    shown = {key: tensors[f"reference.{key}"] for key in ("samples", "nearest")}
    return {"steps": steps, "weights": weights} | quality, shown


# ---- Guidance, and a class that is missing ---------------------------------------------------------------------------


def guidance_row(method, w):
    """A row "guidance": of each sample the share of white pixels, and its spread; the same noise for each row."""
    images, y = guidance.draw_set(method, w, GUIDED_IMAGES, seed=14)
    return {
        **guidance.saturated(images, (1, 2)),
        "spread": rounded(images.flatten(1).std(1)),
        "recognised": [int(hit) for hit in classes_of(images) == y],
    }, {"images": images[:12]}


def rare_row(name):
    """A row "rare": features of made brains, and how many of them the classifier of families calls abnormal."""
    n = RARE[name]
    if name == "wide ventricles":
        images, _ = synthetic_ventricles("test", n, WALLS, seed=14)
    else:
        images = synthetic_brains("test", n, lesion=None if name == "healthy" else name, seed=14).images
    judge = pretrained.load("brain_features")
    called = in_batches(judge, images).argmax(1)
    mass = pretrained.card("brain_features")["classes"].index("mass")
    return {"images": n, "called_mass": int((called == mass).sum())}, {"features": in_batches(judge.features, images)}


# ---- The record ------------------------------------------------------------------------------------------------------

NETWORKS = ("brain", "brain_segmenter", "brain_features", "mednist_features")
SCANNED = {"lesion": lesion_row, "reader": reader_row, "shift": shift_row, "band": band_row}  # rows of reconstructions


def plan(record=None):
    """The rows, what the notebook needs most first."""
    rows = [("lesion", 1, TRUTH)]
    for R in (WORST, *(R for R in ACCELERATIONS if R != WORST)):
        rows += [("lesion", R, method) for method in METHODS if method != "U-Net" or R in TRAINED]
    rows += [("rare", name, "") for name in RARE]
    rows += [("shift", shift, method) for shift in SHIFTS for method in METHODS]
    rows += [("copies", n, steps) for n, steps in COPIES] + [("guidance", w, method) for method, w in GUIDED]
    rows += [("reader", 1, TRUTH)] + [("reader", R, method) for R in TRAINED for method in METHODS]
    rows += [("band", name, method) for name in (*SHIFTS, "lesion") for method in BANDS]
    return [dict(zip(("kind", "name", "method"), row)) for row in rows]


def networks(key):
    """The network that a row uses besides the record's own, if any."""
    if key["kind"] == "guidance":
        return ("mednist",)
    return lab.networks({"problem": problem_of(WORST), "method": key["method"]}) if key["kind"] in SCANNED else ()


@timed
def measure(kind, name, method):
    """A row and its tensors: pictures as bytes without their channel, features as halves."""
    if kind in SCANNED:
        found, kept = SCANNED[kind](name, method)
    elif kind == "copies":
        found, kept = copies_row(name, method)
    else:
        found, kept = guidance_row(method, name) if kind == "guidance" else rare_row(name)
    return found, {f"{kind}/{name}/{method}/{key}": _stored(key, value) for key, value in kept.items()}


def _stored(key, value):
    if key == "features":
        return value.half()
    if value.dtype == torch.uint8:
        return value
    return as_bytes(value[:, 0] if value.ndim == 4 else value)


def begin():
    """What stands above the rows."""
    licence = f"brains: {BRAIN_LICENCE} hands and samples of MedNIST's classes: {MEDNIST_LICENCE}"
    about = {"cases": CASES, "samples": SAMPLES, "licence_of_pictures": licence}
    return about | {"precision": runtime.precision_name()}, {}


STUDY = Study("14_challenges", plan, measure, begin, NETWORKS, networks)
