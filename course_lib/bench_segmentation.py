"""The bank ``10_segmentation``: masks that mask diffusion draws for lesions with known raters, what they score at other
settings, and how well the hippocampus is found.

``python -m course_lib.bench 10_segmentation`` remakes it, in about ten minutes of one core (the row of the hippocampus
needs that data set in the cache, and is left out without). It may be interrupted: rows that are there, and were made
with the networks as they are now, are not computed anew. ``10_segmentation.safetensors`` beside it holds the masks of
the rows "test" and "validation", packed, and the counts of pixels of the hippocampus; no image is stored.
"""

import json
import math
import time
import zlib
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from course_lib import pretrained, recipes, runtime
from course_lib.metrics.segmentation import generalised_energy_distance, nearest_rating
from course_lib.recipes import in_parts, rated, rater_chances, slice_labels
from course_lib.samplers import dpmpp_2m_step, last, sample
from course_lib.schedules import log_snr_times
from course_lib.store import read_tensors, write_rows, write_tensors
from course_lib.training import to_tensor

CASES = {"test": 64, "validation": 48}
SAMPLES, NFE, START = 16, 25, -10.0  # START: log-SNR of the first evaluation
LESIONS, HIPPOCAMPUS = "lesion_raters", ("hippocampus_masks", "hippocampus_unet")
BASE = {"split": "test", "samples": 8, "nfe": NFE, "start": START, "clip": True}

#: name of a row -> how it is drawn; what the notebook needs most comes first.
PLAN = {
    "test": BASE | {"samples": SAMPLES},
    "validation": BASE | {"samples": SAMPLES, "split": "validation"},
    **{f"{nfe} evaluations": BASE | {"nfe": nfe} for nfe in (5, 2, 3, 9, 15, 50)},
    "not clipped": BASE | {"clip": False},
    **{f"start at {start}": BASE | {"start": float(start)} for start in (-4, -2)},
}
STORED = ("test", "validation")  # rows whose masks are kept

# ---- Lesions ---------------------------------------------------------------------------------------------------------


def ratings_of(cases):
    """The raters' masks of ``RatedLesions``, bool (4, N, H, W), as the measures of masks take them."""
    return torch.as_tensor(cases.ratings).movedim(1, 0).bool()


def draw_masks(denoiser, y, samples, nfe=NFE, start=START, channels=1, seed=0):
    """Masks, not yet thresholded, float32 (samples, N, channels, H, W), by DPM-Solver++(2M) with ``nfe`` evaluations
    each, evenly spaced in log-SNR from ``start`` on.

    y : images (N, 1, H, W). Sample k comes from the noise of seed + k, which for fewer images begins alike.
    """
    times, where, found = log_snr_times(denoiser.schedule, nfe, start), runtime.device(), []
    bound = partial(denoiser, y=y.to(where))
    for k in range(samples):
        noise = torch.randn(len(y), channels, *y.shape[2:], generator=runtime.seeded(seed + k))
        with runtime.fast():
            states = sample(bound, denoiser.schedule, noise.to(where), times, dpmpp_2m_step)
            found.append(last(states).float().cpu())
    return torch.stack(found)


def row(name, n=None, samples=None):
    """One row of the bank, and its masks, bool (samples, n, 64, 64). n, samples: of the first cases and draws only.

    For each case: ``energy_distance`` from the raters, and ``area``, the mean number of pixels of its masks. ``shares``
    of the masks that are most like none, core, outline, generous, or like no rater. ``undecided``: share of pixels that
    end more than 0.1 away from -1 and 1. ``seconds``: of one processor, for one mask. Raises ValueError for an
    unknown row.
    """
    if name not in PLAN:
        raise ValueError(f"no row {name!r}; there are: {', '.join(PLAN)}")
    setting = PLAN[name] | ({"samples": samples} if samples else {})
    cases = rated(setting["split"], CASES[setting["split"]])
    ratings, y = ratings_of(cases)[:, :n], to_tensor(cases.images[:n])
    denoiser = pretrained.load_denoiser(LESIONS, clip=setting["clip"])
    runtime.precision()  # measured once, before the clock starts
    begin = time.process_time()
    x = draw_masks(denoiser, y, setting["samples"], setting["nfe"], setting["start"])[:, :, 0]
    seconds = (time.process_time() - begin) / len(y) / len(x)
    masks = x > 0
    nearest = torch.bincount(nearest_rating(masks, ratings).flatten() % 5, minlength=5)  # -1 becomes the last, 4
    found = {
        "energy_distance": _rounded(generalised_energy_distance(masks, ratings, rater_chances())),
        "area": _rounded(masks.flatten(2).sum(2).float().mean(0)),
        "shares": _rounded(nearest / nearest.sum()),
        "undecided": round(float((x.abs() - 1).abs().gt(0.1).float().mean()), 6),
        "seconds": round(seconds, 4),
    }
    return {"name": name} | setting | found | {"needs": needs(name)}, masks


def _rounded(values):
    return [round(float(value), 4) for value in values]


def pack(masks):
    """Masks, bool, as a short tensor of bytes (uint8); :func:`unpack` is the inverse."""
    bits = np.packbits(np.asarray(masks, bool))
    return torch.tensor(list(zlib.compress(bits.tobytes(), 9)), dtype=torch.uint8)


def unpack(packed, shape):
    """The masks, bool, of that shape that :func:`pack` made ``packed`` of."""
    bits = np.frombuffer(zlib.decompress(packed.numpy().tobytes()), np.uint8)
    return torch.from_numpy(np.unpackbits(bits)[: math.prod(shape)].reshape(shape)).bool()


def stored_masks(path, name):
    """The masks of a row of the bank at ``path``, bool (samples, N, 64, 64)."""
    setting = PLAN[name]
    return unpack(read_tensors(_beside(path))[0][name], (setting["samples"], CASES[setting["split"]], 64, 64))


def _beside(path):
    return path.with_suffix(".safetensors")


# ---- Hippocampus -----------------------------------------------------------------------------------------------------

METHODS = ("U-Net", "mask diffusion, t = 1", "mask diffusion, 1 sample", "mask diffusion, mean of 8")
COST = (1, 1, NFE, 8 * NFE)  # evaluations a slice
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def label_probabilities(y, samples=8):
    """What each of METHODS says of the labels of slices y (N, 1, 48, 32): float32 (4, N, 3, 48, 32), and the processor
    seconds a slice of each."""
    unet, denoiser = pretrained.load(HIPPOCAMPUS[1]), pretrained.load_denoiser(HIPPOCAMPUS[0])
    where, clock = runtime.device(), [time.process_time()]
    found = [in_parts(lambda x: unet(x).softmax(1), y[:, 0].numpy())]
    clock.append(time.process_time())
    noise = torch.randn(len(y), 2, *y.shape[2:], generator=runtime.seeded(0))
    with runtime.fast():
        first = denoiser(noise.to(where), 1.0, y=y.to(where)).float().cpu()  # E[x_0 | y]: the noise says nothing
    found.append(from_channels(first))
    clock.append(time.process_time())
    drawn = draw_masks(denoiser, y, samples, channels=2)
    votes = F.one_hot(slice_labels(drawn.flatten(0, 1)).long(), 3).movedim(-1, 1).float()
    votes = votes.unflatten(0, drawn.shape[:2])
    clock.append(time.process_time())
    spent = np.diff(clock) / len(y)
    return torch.stack([*found, votes[0], votes.mean(0)]), [*spent[:2], spent[2] / samples, spent[2]]


def from_channels(x):
    """Probabilities of background, anterior and posterior (N, 3, H, W) that label channels x (N, 2, H, W) in [-1, 1]
    stand for."""
    p = (x + 1) / 2
    return torch.cat([(1 - p.sum(1, keepdim=True)).clamp(0, 1), p], 1)


def labels_at(probabilities, threshold):
    """Labels (N, H, W) of probabilities (N, 3, H, W): hippocampus where its two parts together exceed the threshold,
    and there the likelier part."""
    parts = probabilities[:, 1:]
    return torch.where(parts.sum(1) > threshold, parts.argmax(1) + 1, 0)


def counts(found, truth):
    """Pixels of anterior and posterior that are in both maps (N, H, W), in the found, in the true: int (N, 2, 3)."""
    pairs = [(found == k, truth == k) for k in (1, 2)]
    return torch.stack([torch.stack([(a & b), a, b], 1).flatten(2).sum(2) for a, b in pairs], 1)


def volume_dice(counted, volume):
    """Dice of anterior and posterior in each volume, (V, 2), from the counts (N, 2, 3) of its slices; volume (N,)."""
    total = torch.zeros(int(volume.max()) + 1, 2, 3).index_add_(0, volume.long(), counted.float())
    return 2 * total[..., 0] / (total[..., 1] + total[..., 2])


def chosen_threshold(probabilities, truth, volume):
    """The one of THRESHOLDS with the best mean Dice on these slices."""
    scores = [volume_dice(counts(labels_at(probabilities, t), truth), volume).mean() for t in THRESHOLDS]
    return THRESHOLDS[int(torch.stack(scores).argmax())]


def hippocampus_row():
    """The row of the hippocampus, and its tensors: the counts (4, N, 2, 3) of each method at the threshold that is best
    on the validation persons, the volume and the person of each slice. Needs the data set."""
    thresholds = []
    for split in ("validation", "test"):
        slices, volume, person = recipes.hippocampus_cases(split)
        truth, volume = slice_labels(slices[:, :2]), torch.as_tensor(volume)
        probabilities, seconds = label_probabilities(torch.as_tensor(slices[:, 2:]))
        if split == "validation":
            thresholds = [chosen_threshold(p, truth, volume) for p in probabilities]
    found = torch.stack([counts(labels_at(p, t), truth) for p, t in zip(probabilities, thresholds)])
    about = {
        "methods": METHODS,
        "evaluations": COST,
        "thresholds": thresholds,
        "seconds": _rounded(seconds),
        "slices": len(truth),
        "volumes": len(volume.unique()),
        "persons": len(np.unique(person)),
    }
    tensors = {"counts": found.short(), "volume": volume.short(), "person": torch.as_tensor(person).short()}
    return {"name": "hippocampus"} | about | {"needs": needs("hippocampus")}, {
        f"hippocampus.{key}": value for key, value in tensors.items()
    }


def stored_counts(path):
    """Counts (4, N, 2, 3), volume (N,) and person (N,) of the hippocampus in the bank at ``path``, int64."""
    tensors = read_tensors(_beside(path))[0]
    return tuple(tensors[f"hippocampus.{key}"].long() for key in ("counts", "volume", "person"))


# ---- The bank --------------------------------------------------------------------------------------------------------


def needs(name):
    """sha256 of the networks of a row; {} where one of them is not there."""
    names = HIPPOCAMPUS if name == "hippocampus" else (LESIONS,)
    return {net: pretrained.card(net)["sha256"] for net in names} if set(names) <= set(pretrained.names()) else {}


def make(path):
    """Compute the rows that the bank at ``path`` lacks, and write it after each of them."""
    if path.exists():
        bank = json.loads(path.read_text(encoding="utf-8"))
        bank["rows"] = [entry for entry in bank["rows"] if entry["needs"] == needs(entry["name"])]
        tensors = read_tensors(_beside(path))[0]
    else:
        bank = {
            "made_by": f"python -m course_lib.bench {path.stem}",
            "sha256": needs("test"),
            "precision": runtime.precision_name(),
            "rows": [],
        }
        tensors = {}
    done = {entry["name"] for entry in bank["rows"]}
    for name in [*STORED, "hippocampus", *list(PLAN)[len(STORED) :]]:
        if name in done or (name == "hippocampus" and not (needs(name) and recipes.hippocampus_is_here())):
            continue
        if name == "hippocampus":
            found, more = hippocampus_row()
        else:
            found, masks = row(name)
            more = {name: pack(masks)} if name in STORED else {}
        tensors |= more
        write_tensors(_beside(path), tensors)
        bank["rows"].append(found)
        write_rows(path, bank)
        print({key: value for key, value in found.items() if key not in ("energy_distance", "area")}, flush=True)
