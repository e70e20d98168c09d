"""The record ``10_segmentation``: masks that mask diffusion draws for lesions with known raters, what they score at
other settings, what U-Nets score beside them, and how well the hippocampus is found.

It takes about ten minutes of one core; the row of the hippocampus needs that data set in the cache, and is left out
without. The tensors beside the record are the masks of the rows "test" and "validation", packed, and the counts of
pixels of the hippocampus; no image is stored.
"""

import functools
import math
import time
import zlib

import numpy as np
import torch
from torch.nn import functional as F

from course_lib import datasets, pretrained, runtime
from course_lib.applications.segmentation import (
    NFE,
    SAMPLES,
    START,
    draw_masks,
    from_channels,
    independent,
    labels_at,
    random_threshold,
)
from course_lib.datasets import rated, rater_chances
from course_lib.experiments.record import rounded, tensors
from course_lib.experiments.study import Study
from course_lib.hippocampus import slice_labels
from course_lib.images import in_batches, to_tensor
from course_lib.metrics.intervals import means_of
from course_lib.metrics.segmentation import (
    expected_dice,
    generalised_energy_distance,
    label_counts,
    nearest_rating,
    volume_dice,
)

CASES = {"test": 64, "validation": 32}
LESIONS, HIPPOCAMPUS = "lesion_raters", ("hippocampus_masks", "hippocampus_unet")
UNETS = tuple(f"lesion_unet_{k}" for k in range(5))
BASE = {"split": "test", "samples": 4, "nfe": NFE, "start": START, "clip": True}

#: name of a row -> how it is drawn; what the notebook needs most comes first.
PLAN = {
    "test": BASE | {"samples": SAMPLES},
    "validation": BASE | {"samples": SAMPLES, "split": "validation"},
    **{f"{nfe} evaluations": BASE | {"nfe": nfe} for nfe in (2, 3, 5, 9, 15)},
}
STORED = ("test", "validation")  # rows whose masks are kept

#: row of another way to draw masks -> networks, and evaluations of them a case.
BASELINES = {
    "U-Net, one mask": (UNETS[:1], 1),
    "U-Net, pixel by pixel": (UNETS[:1], 1),
    "U-Net, random threshold": (UNETS[:1], 1),
    "ensemble, five masks": (UNETS, 5),
    "ensemble, random threshold": (UNETS, 5),
    "diffusion, t = 1, random threshold": ((LESIONS,), 1),
    "always the true outline": ((), 0),
}
SINGLE = "one mask"  # the row of single masks: their expected Dice, and the thresholds they are made with
CUTS = tuple(k / 20 for k in range(2, 19))

# ---- Lesions ---------------------------------------------------------------------------------------------------------


def ratings_of(cases):
    """The raters' masks of ``RatedLesions``, bool (4, N, H, W), as the measures of masks take them."""
    return torch.as_tensor(cases.ratings).movedim(1, 0).bool()


def drawn_row(name, n=None, samples=None):
    """A row of PLAN, and its masks, bool (samples, n, 64, 64). n, samples: of the first cases and draws only.

    For each case: ``energy_distance`` from the raters, and ``area``, the mean number of pixels of its masks. ``shares``
    of the masks that are most like none, core, outline, generous, or like no rater. ``undecided``: share of pixels that
    end more than 0.1 away from -1 and 1. ``evaluations`` and ``seconds`` of one processor: for all masks of a case.
    Raises ValueError for an unknown row.
    """
    if name not in PLAN:
        raise ValueError(f"no row {name!r}; there are: {', '.join(PLAN)}")
    setting = PLAN[name] | ({"samples": samples} if samples else {})
    cases = rated(setting["split"], CASES[setting["split"]])
    ratings, y = ratings_of(cases)[:, :n], to_tensor(cases.images[:n])
    denoiser, start = pretrained.load_denoiser(LESIONS, clip=setting["clip"]), time.process_time()
    x = draw_masks(denoiser, y, setting["samples"], setting["nfe"], setting["start"])[:, :, 0]
    seconds = (time.process_time() - start) / len(y)
    cost = {"evaluations": len(x) * setting["nfe"], "seconds": rounded(seconds)}
    undecided = (x.abs() - 1).abs().gt(0.1).float().mean()
    return setting | measured(x > 0, ratings) | {"undecided": rounded(undecided, 6)} | cost, x > 0


def measured(masks, ratings):
    """Measures of masks (K, N, H, W), K >= 2, of cases with ratings (4, N, H, W): see :func:`drawn_row`."""
    nearest = torch.bincount(nearest_rating(masks, ratings).flatten() % 5, minlength=5)  # -1 becomes the last, 4
    return {
        "energy_distance": rounded(generalised_energy_distance(masks, ratings, rater_chances())),
        "area": rounded(masks.flatten(2).sum(2).float().mean(0)),
        "shares": rounded(nearest / nearest.sum()),
    }


# ---- Probabilities of lesions, and masks from them -------------------------------------------------------------------


def probabilities(y, unets=UNETS):
    """What each of the U-Nets gives each pixel of images y (N, 1, H, W): float32 (U-Nets, N, H, W)."""
    nets = [pretrained.load(name) for name in unets]
    return torch.stack([in_batches(lambda x, net=net: net(x).softmax(1)[:, 1], y[:, 0].numpy()) for net in nets])


def first_answer(y, denoiser):
    """(D + 1)/2 of a mask diffusion at t = 1, where the noise says nothing, for images y: float32 (N, H, W)."""
    noise = torch.randn(y.shape, generator=runtime.seeded(3))
    return (denoiser(noise, 1.0, y=y)[:, 0] + 1) / 2


def mean_maps(y, nets, masks):
    """Each model's probabilities (N, H, W) by name: of images y, given those of the U-Nets and the masks (K, N, H, W)
    that mask diffusion drew."""
    return {
        "U-Net": nets[0],
        "ensemble": nets.mean(0),
        "diffusion": masks.float().mean(0),
        "diffusion, t = 1": first_answer(y, pretrained.load_denoiser(LESIONS)),
    }


def best_cut(p, ratings):
    """The one of CUTS at which p (N, H, W), thresholded, has the best expected Dice with ratings (4, N, H, W)."""
    scores = [expected_dice(p > cut, ratings, rater_chances()).mean() for cut in CUTS]
    return CUTS[int(torch.stack(scores).argmax())]


def masks_of(maps, nets, cut, ratings):
    """The masks (K, N, H, W) of BASELINES. maps: of :func:`mean_maps`; cut: the U-Net's threshold."""
    return {
        "U-Net, one mask": (maps["U-Net"] > cut).expand(SAMPLES, -1, -1, -1),
        "U-Net, pixel by pixel": independent(maps["U-Net"]),
        "U-Net, random threshold": random_threshold(maps["U-Net"]),
        "ensemble, five masks": nets > cut,
        "ensemble, random threshold": random_threshold(maps["ensemble"]),
        "diffusion, t = 1, random threshold": random_threshold(maps["diffusion, t = 1"]),
        "always the true outline": ratings[2].expand(SAMPLES, -1, -1, -1),
    }


def baseline_rows(stored):
    """The rows of BASELINES and of SINGLE by name. stored: the masks of "test" and "validation".

    SINGLE has for each map the threshold that is best on the validation cases, and for each test case the expected Dice
    of the mask above it; of one sample of the diffusion; and of the rater who is best for the case, the ceiling.
    """
    cases = {split: rated(split, CASES[split]) for split in STORED}
    ratings = {split: ratings_of(found) for split, found in cases.items()}
    nets, maps = {}, {}
    for split, found in cases.items():
        y = to_tensor(found.images)
        clock = [time.process_time()]
        nets[split] = probabilities(y)
        clock.append(time.process_time())
        maps[split] = mean_maps(y, nets[split], stored[split])
        clock.append(time.process_time())
    of_unet, of_first = np.diff(clock) / len(y) / (5, 1)
    cuts = {name: best_cut(p, ratings["validation"]) for name, p in maps["validation"].items()}
    truth, rows = ratings["test"], {}
    for name, masks in masks_of(maps["test"], nets["test"], cuts["U-Net"], truth).items():
        names, evaluations = BASELINES[name]
        seconds = evaluations * (of_first if LESIONS in names else of_unet)
        cost = {"samples": len(masks), "evaluations": evaluations, "seconds": rounded(seconds)}
        rows[name] = {"split": "test"} | measured(masks, truth) | cost
    single = {name: p > cuts[name] for name, p in maps["test"].items()}
    single["diffusion, one sample"] = stored["test"][0]
    scores = {name: expected_dice(mask, truth, rater_chances()) for name, mask in single.items()}
    of_raters = torch.stack([expected_dice(mask, truth, rater_chances()) for mask in truth])
    scores["the best rater of each case"] = of_raters.max(0).values
    dice = {name: rounded(values) for name, values in scores.items()}
    return rows | {SINGLE: {"thresholds": cuts, "expected_dice": dice}}


@functools.cache
def _baselines():
    """:func:`baseline_rows` of the masks in the record."""
    return baseline_rows({split: stored_masks(split) for split in STORED})


# ---- What a row stores -----------------------------------------------------------------------------------------------


def pack(masks):
    """Masks, bool, as a short tensor of bytes (uint8); :func:`unpack` is the inverse."""
    bits = np.packbits(np.asarray(masks, bool))
    return torch.tensor(list(zlib.compress(bits.tobytes(), 9)), dtype=torch.uint8)


def unpack(packed, shape):
    """The masks, bool, of that shape that :func:`pack` made ``packed`` of."""
    bits = np.frombuffer(zlib.decompress(packed.numpy().tobytes()), np.uint8)
    return torch.from_numpy(np.unpackbits(bits)[: math.prod(shape)].reshape(shape)).bool()


def stored_masks(name):
    """The masks of a row out of the record, bool (samples, N, 64, 64)."""
    setting = PLAN[name]
    return unpack(tensors(STUDY.name)[name], (setting["samples"], CASES[setting["split"]], 64, 64))


# ---- Hippocampus -----------------------------------------------------------------------------------------------------

METHODS = ("U-Net", "mask diffusion, t = 1", "mask diffusion, 1 sample", "mask diffusion, mean of 4")
COST = (1, 1, NFE, 4 * NFE)  # evaluations a slice
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def hippocampus_networks():
    """The denoiser and the U-Net of the hippocampus that ship."""
    return pretrained.load_denoiser(HIPPOCAMPUS[0]), pretrained.load(HIPPOCAMPUS[1])


def label_probabilities(y, samples=4, networks=None):
    """What each of METHODS says of the labels of slices y (N, 1, 48, 32): float32 (4, N, 3, 48, 32), and the processor
    seconds a slice of each. networks: a denoiser and a U-Net; left out, those that ship."""
    denoiser, unet = networks or hippocampus_networks()
    clock = [time.process_time()]
    found = [in_batches(lambda x: unet(x).softmax(1), y[:, 0].numpy())]
    clock.append(time.process_time())
    noise = torch.randn(len(y), 2, *y.shape[2:], generator=runtime.seeded(0))
    first = denoiser(noise, 1.0, y=y)  # E[x_0 | y]: the noise says nothing
    found.append(from_channels(first))
    clock.append(time.process_time())
    drawn = draw_masks(denoiser, y, samples, channels=2)
    votes = F.one_hot(slice_labels(drawn.flatten(0, 1)).long(), 3).movedim(-1, 1).float()
    votes = votes.unflatten(0, drawn.shape[:2])
    clock.append(time.process_time())
    spent = np.diff(clock) / len(y)
    return torch.stack([*found, votes[0], votes.mean(0)]), [*spent[:2], spent[2] / samples, spent[2]]


def chosen_threshold(probabilities, truth, volume):
    """The one of THRESHOLDS with the best mean Dice on these slices, where a part neither there nor found counts 1."""
    dices = (volume_dice(label_counts(labels_at(probabilities, t), truth), volume) for t in THRESHOLDS)
    scores = [dice.nan_to_num(1.0).mean() for dice in dices]
    return THRESHOLDS[int(torch.stack(scores).argmax())]


def hippocampus_row(networks=None):
    """The row of the hippocampus, and its tensors: the counts (4, N, 2, 3) of each method at the threshold that is best
    on the validation persons, the volume and the person of each slice. Needs the data set. networks: as for
    :func:`label_probabilities`."""
    thresholds = []
    for split in ("validation", "test"):
        step = 3 if split == "validation" else 1  # every third slice is enough to choose a threshold
        slices, volume, person = (part[::step] for part in datasets.hippocampus_cases(split))
        truth, volume = slice_labels(slices[:, :2]), torch.as_tensor(volume)
        probabilities, seconds = label_probabilities(torch.as_tensor(slices[:, 2:]), networks=networks)
        if split == "validation":
            thresholds = [chosen_threshold(p, truth, volume) for p in probabilities]
    found = torch.stack([label_counts(labels_at(p, t), truth) for p, t in zip(probabilities, thresholds)])
    about = {
        "methods": METHODS,
        "evaluations": COST,
        "thresholds": thresholds,
        "seconds": rounded(seconds),
        "slices": len(truth),
        "volumes": len(volume.unique()),
        "persons": len(np.unique(person)),
    }
    kept = {"counts": found, "volume": volume, "person": torch.as_tensor(person)}
    return about, {f"hippocampus.{key}": value.short() for key, value in kept.items()}


def dice_by_person(methods, counts, volume, person):
    """{method: mean Dice of both parts of each person's volumes, float64 (persons,)}, from what :func:`hippocampus_row`
    keeps."""
    owner = torch.stack([person[volume == v][0] for v in volume.unique()])
    return {m: means_of(volume_dice(c, volume).mean(1), owner) for m, c in zip(methods, counts)}


def stored_counts():
    """Counts (4, N, 2, 3), volume (N,) and person (N,) of the hippocampus out of the record, int64."""
    kept = tensors(STUDY.name)
    return tuple(kept[f"hippocampus.{key}"].long() for key in ("counts", "volume", "person"))


# ---- The record ------------------------------------------------------------------------------------------------------


def plan():
    """The rows; a baseline is made of the masks in the rows before it."""
    names = [*STORED, *BASELINES, SINGLE, "hippocampus", *list(PLAN)[len(STORED) :]]
    return [{"name": name} for name in names]


def plan_of_this_machine(record):
    """The rows, without that of the hippocampus where the data set is not here."""
    return [key for key in plan() if key["name"] != "hippocampus" or datasets.hippocampus_is_here()]


def networks(key):
    """The networks of a row."""
    others = {"hippocampus": HIPPOCAMPUS, SINGLE: (LESIONS, *UNETS)}
    others |= {baseline: names for baseline, (names, _) in BASELINES.items()}
    return others.get(key["name"], (LESIONS,))


def measure(name):
    """A row, and its tensors."""
    if name == "hippocampus":
        return hippocampus_row()
    if name not in PLAN:
        return _baselines()[name], {}
    found, masks = drawn_row(name)
    return found, {name: pack(masks)} if name in STORED else {}


def begin():
    """What stands above the rows."""
    return {"precision": runtime.precision_name()}, {}


STUDY = Study("10_segmentation", plan_of_this_machine, measure, begin, (LESIONS,), networks)
