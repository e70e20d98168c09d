"""The record ``14_challenges``: what the course's methods do where they were not meant to work.

``python -m course_lib.experiments 14_challenges`` remakes it (about an hour and a half on one free core, most of it
training). It may be interrupted: rows that are there, and were made with the networks as they are now, are not computed
anew. Seven kinds of rows:

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
import json
import time

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from course_lib import pretrained, runtime, train
from course_lib.applications.anomaly import brain
from course_lib.datasets import BRAIN_TISSUES, mednist_images, synthetic_brains, synthetic_levels, synthetic_ventricles
from course_lib.experiments import guidance
from course_lib.experiments import reconstruction as lab
from course_lib.files import read_tensors, write_rows, write_tensors
from course_lib.images import in_batches, to_tensor
from course_lib.metrics.detection import false_alarms
from course_lib.metrics.images import contrast_kept, coverage, prediction_interval, psnr
from course_lib.operators import to_kspace
from course_lib.recipes import BRAIN_LICENCE, COPIES, MEDNIST_LICENCE, RECIPES
from course_lib.scans import noise_of, scan

CASES, GROUP = lab.CASES, lab.GROUP
METHODS = ("zeros or FBP", "TV", "U-Net", "DiffPIR")
TRUTH = "truth"  # the image itself, as if it were a reconstruction: what the judges make of it
ACCELERATIONS = (1, 2, 4, 8, 12)
TRAINED = (4, 8)  # accelerations that the U-Net knows
WORST = 8  # the acceleration at which several samples are drawn
SAMPLES = 4
SHIFTS = ("as trained", "skull base", "vertex", "T2-like", "hands")
SHIFT_R = 4
LEVEL = {"skull base": -30.0, "vertex": 58.0}  # mm; training slices lie between 0 and 32
HAND = 4  # class of MedNIST
RINGS = 4  # of k-space, of equal width
LEVELS = (
    0.001,
    0.003,
    0.01,
    0.03,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.97,
    0.99,
    0.997,
    0.999,
)  # of the reader
SMALLEST = 3  # pixels (12 mm^2) that make a finding
HALF_WIDTHS = (0.03, 0.06, 0.09, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)  # of bands around a picture
BANDS = ("TV", "DiffPIR")
GUIDED = (
    ("classifier-free", 1),
    ("classifier-free", 3),
    ("classifier-free", 8),
    ("classifier-free", 12),
    ("interval", 8),
)
GUIDED_IMAGES = 48
WIDER = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0)  # factors on the width of intervals
RARE = {"healthy": 600, "mass": 100, "wide ventricles": 100}  # number of images whose features are kept
WALLS = 5.0  # mm, of wide ventricles; the subjects' own lie between -0.8 and 3.2
SHOWN = 4


# ---- Lesions against acceleration ------------------------------------------------------------------------------------


def problem_of(R):
    """The name of an MRI problem in the record of notebook 09."""
    return f"MRI, R = {R}"


def _part(group):
    return slice(group * GROUP, (group + 1) * GROUP)


def reconstructions(R, method, group, sick=False, samples=1):
    """Samples (K, 4, 1, 96, 96) of one group from a scan at R, and the scan's operator."""
    x, problem = lab.subjects()[int(sick)][_part(group)], problem_of(R)
    A, y = scan(problem, x, lab.seed_of(group))
    if method == TRUTH:
        return x[None], A
    drawn = [lab.reconstruct(problem, method, A, y, lab.seed_of(group, k + 1)) for k in range(samples)]
    return torch.stack(drawn), A


def ring_shares(found, truth, A):
    """Error and energy of reconstructions (N, 1, n, n) on the lines that were not measured, in RINGS rings of k-space:
    sum |c - c*|^2 / sum |c*|^2 and sum |c|^2 / sum |c*|^2, with c* the truth's. Two tensors (N, RINGS), the coarsest
    structure first; nan in a ring without missing lines.

    Leaving these lines at zero has error 1 and energy 0. A draw that is independent of the truth has error 2 and energy
    1: to invent costs more than to leave out.
    """
    n = truth.shape[-1]
    offset = torch.arange(n) - n // 2
    radius = (offset[:, None].square() + offset.square()).sqrt() / (n // 2)
    missing = (A.lines == 0).expand(truth.shape)
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


def touched(above, mask):
    """Whether a finding in ``above`` (H, W), a connected piece of at least SMALLEST pixels, touches a mask (H, W)."""
    numbered, _ = ndimage.label(above, np.ones((3, 3)))
    sizes = np.bincount(numbered.ravel())
    return bool((sizes[np.unique(numbered[above & mask])] >= SMALLEST).any())


def reader_row(R, method):
    """A row "reader": for each subject and each of LEVELS, whether the segmenter finds the lesion, and how many
    findings it has without one. A finding is a connected piece of at least SMALLEST pixels at or above the level; a
    lesion is found if one of them touches it. Sensitivity against findings an image is the FROC curve."""
    masks = lab.subjects()[2][:, 0].numpy()
    maps = [
        torch.cat([lesion_probability(reconstructions(R, method, g, sick)[0][0]) for g in range(CASES // GROUP)])
        for sick in (False, True)
    ]
    healthy, sick = ([(p >= level).numpy() for level in LEVELS] for p in maps)
    return {
        "found": [[int(touched(above[n], masks[n])) for above in sick] for n in range(CASES)],
        "false_findings": [[false_alarms(above[n], SMALLEST) for above in healthy] for n in range(CASES)],
    }, {}


def _rounded(values, digits=3):
    return [round(float(value), digits) for value in values]


def lesion_row(R, method):
    """A row "lesion": contrast kept, what the segmenter sees with a lesion and without, and what was invented."""
    healthy, sick, masks, inside = lab.subjects()
    K = SAMPLES if (R, method) == (WORST, "DiffPIR") else 1
    parts = {"without": [], "with": [], "error": [], "energy": []}
    for group in range(CASES // GROUP):
        without, A = reconstructions(R, method, group)
        parts["without"].append(without[0])
        parts["with"].append(reconstructions(R, method, group, sick=True, samples=K)[0])
        for key, shares in zip(("error", "energy"), ring_shares(without[0], healthy[_part(group)], A)):
            parts[key].append(shares)
    without, drawn = torch.cat(parts["without"]), torch.cat(parts["with"], 1)
    seen, planted = lesion_pixels(drawn[0]), lesion_pixels(without)
    found = {
        "contrast_kept": _rounded(contrast_kept(drawn[0], without, sick - healthy, masks)),
        "lesion_seen": _rounded((seen & masks).flatten(1).sum(1) / masks.flatten(1).sum(1)),
        "lesion_planted_mm2": _rounded(planted.flatten(1).sum(1) * (192 / 96) ** 2, 1),
    }
    if R > 1:  # at R = 1 nothing is missing but one line at the edge
        found |= {f"ring_{key}": [_rounded(row) for row in torch.cat(parts[key])] for key in ("error", "energy")}
    if K > 1:
        found["coverage_in_lesion"] = _rounded(coverage(drawn, sick, masks))
        found["coverage_elsewhere"] = _rounded(coverage(drawn, sick, inside & ~masks))
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
        images, labels = mednist_images("test")
        hands = images[labels == HAND]
        hands = hands[:: len(hands) // CASES][:CASES]  # spread over the split
        return F.interpolate(to_tensor(hands), (96, 96), mode="bilinear")
    raise ValueError(f"no shift {shift!r}; there are: {', '.join(SHIFTS)}")


def shifted(shift, method, group, samples=1):
    """Samples (K, 4, 1, 96, 96) of a group of a shift at R = SHIFT_R, the scan's operator and the scan."""
    problem = problem_of(SHIFT_R)
    A, y = scan(problem, images_of(shift)[_part(group)], lab.seed_of(group))
    drawn = [lab.reconstruct(problem, method, A, y, lab.seed_of(group, k + 1)) for k in range(samples)]
    return torch.stack(drawn), A, y


def misfit(A, y, x):
    """Distance of images x (N, 1, H, W) to the measured lines, in units of the noise: (N,); a right answer has 1."""
    rest = (y - A(x)).abs().square().flatten(1).sum(1) / (2 * A.lines.flatten(1).sum(1) * x.shape[-1])
    return rest.sqrt() / noise_of(problem_of(SHIFT_R))


def shift_row(shift, method):
    """A row "shift": PSNR, misfit and, of a method that draws, its error bars."""
    truth = images_of(shift)
    K, parts, misfits = (SAMPLES if method == "DiffPIR" else 1), [], []
    for group in range(CASES // GROUP):
        drawn, A, y = shifted(shift, method, group, K)
        parts.append(drawn)
        misfits.append(misfit(A, y, drawn[0]))
    samples = torch.cat(parts, 1)
    found = {"psnr": _rounded(psnr(samples[0], truth)), "misfit": _rounded(torch.cat(misfits))}
    if K > 1:
        inside = brain(truth)
        low, high = prediction_interval(samples)
        width = ((high - low) * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
        middle, half = (low + high) / 2, (high - low) / 2
        wider = [((truth - middle).abs() <= f * half) & inside for f in WIDER]
        shares = torch.stack([hit.flatten(1).sum(1) / inside.flatten(1).sum(1) for hit in wider], 1)
        found |= {
            "psnr_of_mean": _rounded(psnr(samples.mean(0), truth)),
            "coverage": _rounded(coverage(samples, truth, inside)),
            "width": _rounded(width, 4),
            "coverage_if_wider": [_rounded(case) for case in shares],
            "sharpness": _rounded(sharpness(samples[0], truth)),
            "sharpness_of_mean": _rounded(sharpness(samples.mean(0), truth)),
        }
    kept = {"truth": truth[:SHOWN]} if method == METHODS[0] else {}
    return found, kept | {"sample": samples[0, :SHOWN]}


def band_row(name, method):
    """A row "band": the share of each case's pixels whose true value lies within each of HALF_WIDTHS of one
    reconstruction at R = SHIFT_R, in the brain of the images of a shift, or in the lesions if ``name`` is "lesion"."""
    groups = range(CASES // GROUP)
    if name == "lesion":
        _, truth, inside, _ = lab.subjects()
        found = torch.cat([reconstructions(SHIFT_R, method, g, sick=True)[0][0] for g in groups])
    else:
        truth = images_of(name)
        inside, found = brain(truth), torch.cat([shifted(name, method, g)[0][0] for g in groups])
    error = (found - truth).abs()
    hits = [((error <= half) & inside).flatten(1).sum(1) / inside.flatten(1).sum(1) for half in HALF_WIDTHS]
    return {"share_within": [_rounded(case) for case in torch.stack(hits, 1)]}, {}


def sharpness(x, truth):
    """Energy of images (N, 1, n, n) in the outer half of k-space over the truth's, (N,): 1 is as sharp as the truth."""
    n = truth.shape[-1]
    offset = torch.arange(n) - n // 2
    outer = (offset[:, None].square() + offset.square()).sqrt() > n / 4
    energy = [(to_kspace(image).abs().square() * outer).flatten(1).sum(1) for image in (x, truth)]
    return energy[0] / energy[1]


# ---- Copies ----------------------------------------------------------------------------------------------------------


def copies_row(n, steps, folder="runs"):
    """A row "copies": a network trained on n brains for so many steps, measured by
    :func:`~course_lib.recipes.measure_copies`."""
    recipe = RECIPES[f"copies_{n}_{steps}"]
    for _ in train.run(recipe, folder, runtime.precision()):
        pass
    net, steps = train.trained(recipe, folder)
    quality, tensors = recipe.measure(recipe, runtime.placed(net))
    weights = sum(parameter.numel() for parameter in net.parameters())
    shown = {key: tensors[f"reference.{key}"] for key in ("samples", "nearest")}
    return {"steps": steps, "weights": weights} | quality, shown


# ---- Guidance, and a class that is missing ---------------------------------------------------------------------------


def guidance_row(method, w, n=GUIDED_IMAGES):
    """A row "guidance": of each sample the share of white pixels, and its spread; the same noise for each row."""
    images, y = guidance.draw_set(method, w, n, seed=14)
    judged = in_batches(pretrained.load("mednist_features"), images).argmax(1)
    return {
        "white": _rounded((images > guidance.SATURATED).flatten(1).float().mean(1), 5),
        "black": _rounded((images < -guidance.SATURATED).flatten(1).float().mean(1), 5),
        "spread": _rounded(images.flatten(1).std(1), 4),
        "recognised": [int(hit) for hit in judged == y],
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

NETWORKS = ("brain", "brain_segmenter", "brain_features", "mednist", "mednist_features")
SCANNED = {"lesion": lesion_row, "reader": reader_row, "shift": shift_row, "band": band_row}  # rows of reconstructions


def plan():
    """(kind, name, method) of every row, what the notebook needs most first."""
    rows = [("lesion", 1, TRUTH)]
    for R in (WORST, *(R for R in ACCELERATIONS if R != WORST)):
        rows += [("lesion", R, method) for method in METHODS if method != "U-Net" or R in TRAINED]
    rows += [("rare", name, "") for name in RARE]
    rows += [("shift", shift, method) for shift in SHIFTS for method in METHODS]
    rows += [("copies", n, steps) for n, steps in COPIES] + [("guidance", w, method) for method, w in GUIDED]
    rows += [("reader", 1, TRUTH)] + [("reader", R, method) for R in TRAINED for method in METHODS]
    return rows + [("band", name, method) for name in (*SHIFTS, "lesion") for method in BANDS]


def needs(kind, method):
    """sha256 of the network that a row uses besides the record's own; None where that network is not there."""
    return lab.STUDY.needs({"problem": problem_of(WORST), "method": method}) if kind in SCANNED else {}


def row(kind, name, method):
    """One row of the record, computed, and its tensors."""
    if kind in SCANNED:
        return SCANNED[kind](name, method)
    if kind == "copies":
        return copies_row(name, method)
    return guidance_row(method, name) if kind == "guidance" else rare_row(name)


def _stored(key, value):
    """Pictures as uint8 without their channel, features as halves."""
    if key == "features":
        return value.half()
    if value.dtype == torch.uint8:
        return value
    images = value[:, 0] if value.ndim == 4 else value
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def make(path):
    """Compute the rows that the record at ``path`` lacks, and write it and its tensors after each of them."""
    tensors_path = path.with_suffix(".tensors.safetensors")
    kept = read_tensors(tensors_path)[0] if tensors_path.exists() else {}
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        record["rows"] = [entry for entry in record["rows"] if entry["needs"] == needs(entry["kind"], entry["method"])]
    else:
        record = {
            "made_by": f"python -m course_lib.experiments {path.stem}",
            "sha256": {name: pretrained.card(name)["sha256"] for name in NETWORKS},
            "cases": CASES,
            "samples": SAMPLES,
            "licence_of_pictures": f"brains: {BRAIN_LICENCE} hands and samples of MedNIST's classes: {MEDNIST_LICENCE}",
            "precision": runtime.precision_name(),
            "rows": [],
        }
    done = {(entry["kind"], entry["name"], entry["method"]) for entry in record["rows"]}
    for kind, name, method in plan():
        if (kind, name, method) in done or needs(kind, method) is None:
            continue
        start = time.process_time()
        found, pictures = row(kind, name, method)
        about = {"kind": kind, "name": name, "method": method, "needs": needs(kind, method)}
        record["rows"].append(about | found | {"cpu_seconds": round(time.process_time() - start, 1)})
        kept |= {f"{kind}/{name}/{method}/{key}": _stored(key, value) for key, value in pictures.items()}
        write_tensors(tensors_path, kept)
        write_rows(path, record)
        print(kind, name, method, record["rows"][-1]["cpu_seconds"], flush=True)


def tensors(path):
    """The record's tensors, {"kind/name/method/what": float32}: pictures (N, H, W) in [-1, 1], features (N, d)."""
    found = read_tensors(path.with_suffix(".tensors.safetensors"))[0]
    return {
        key: value.float() / 127.5 - 1 if value.dtype == torch.uint8 else value.float() for key, value in found.items()
    }
