"""The record ``10_lidc``: masks that networks draw for lung nodules on CT, against what four readers drew.

Of made raters all can be known; of these there are four draws a case, an unordered set. So every measure is one that
four draws estimate without bias (:mod:`course_lib.metrics.segmentation`), and beside it stands what a perfect model, or
one of the readers, would score. The unit is the person: each number is the mean over the slices of one test person, one
slice a nodule. Two things no estimate mends:

- A nodule is among the data because at least one reader outlined it. So the four are no independent draws, and differ
  more often than such would: a perfect model scores an energy distance a little below 0.
- The readers saw the whole scan and, in a second round, the marks of the others (Armato et al., 2011); a network sees
  one slice of 64 x 64 pixels. Given that slice alone the four agree more than independent draws would: the best that a
  network can reach lies above 0, nobody knows how far.

It needs LIDC in the cache and takes about twenty minutes of one core, nearly all of them for the mask diffusion; rows
whose networks do not ship are left out. No image and no outline is stored.
"""

import functools
import time

import torch
from torch.nn import functional as F

from course_lib import datasets, pretrained, runtime
from course_lib.applications.segmentation import (
    NFE,
    SAMPLES,
    draw_masks,
    draw_normal,
    independent,
    random_threshold,
)
from course_lib.experiments.record import rounded
from course_lib.experiments.segmentation import CUTS, first_answer, probabilities
from course_lib.experiments.study import Study
from course_lib.images import to_tensor
from course_lib.metrics.intervals import jackknife, means_of
from course_lib.metrics.segmentation import (
    brier_score,
    calibration_error,
    consensus,
    dice,
    disagreement,
    each_against_others,
    energy_terms,
    is_empty,
    reliability,
)

UNETS = tuple(f"lidc_unet_{k}" for k in range(5))
NORMAL, MASKS = "lidc_ssn", "lidc_masks"
MIDDLE = slice(16, 48)  # of rows and columns: pixels that count for calibration, where the nodule is
NEAR = 6  # rows and columns around what a reader drew: the closer ring, for comparison
IF_RIGHT = 8  # sets of four made readings, for what a map would score if it were right

#: way to draw masks, or map of probabilities -> networks, and evaluations of them a case.
BLIND = "other persons' readings"
DRAWS = {
    BLIND: ((), 0),
    "consensus of these four": ((), 0),
    "U-Net, one mask": (UNETS[:1], 1),
    "U-Net, pixel by pixel": (UNETS[:1], 1),
    "U-Net, random threshold": (UNETS[:1], 1),
    "ensemble, five masks": (UNETS, 5),
    "ensemble, random threshold": (UNETS, 5),
    "SSN": ((NORMAL,), 1),
    "diffusion, t = 1, random threshold": ((MASKS,), 1),
    "mask diffusion": ((MASKS,), SAMPLES * NFE),
}
MAPS = {
    "nothing": ((), 0),
    BLIND: ((), 0),
    "U-Net": (UNETS[:1], 1),
    "ensemble": (UNETS, 5),
    "SSN": ((NORMAL,), 1),
    "diffusion, t = 1": ((MASKS,), 1),
    "mask diffusion": ((MASKS,), SAMPLES * NFE),
}


# ---- What is drawn ---------------------------------------------------------------------------------------------------


@functools.cache
def cases(split):
    """Images (N, 1, 64, 64) in [-1, 1], readings bool (4, N, 64, 64) and persons (N,), a slice for each nodule."""
    images, readings, persons = datasets.lidc_cases(split)
    return to_tensor(images), torch.as_tensor(readings), torch.as_tensor(persons)


def clocked(function, y, *arguments):
    """function(y, ...), and the processor seconds that it took for each of the images y."""
    start = time.process_time()
    found = function(y, *arguments)
    return found, (time.process_time() - start) / len(y)


@functools.cache
def sampled(network, split):
    """Masks, bool (SAMPLES, N, 64, 64), and the map (N, 64, 64) of a network that draws; and seconds a case."""

    def draw(y):
        if network == NORMAL:
            logits, p = draw_normal(pretrained.load(NORMAL), y, SAMPLES)
            return logits > 0, p
        masks = draw_masks(pretrained.load_denoiser(MASKS), y, SAMPLES)[:, :, 0] > 0
        return masks, masks.float().mean(0)

    (masks, p), seconds = clocked(draw, cases(split)[0])
    return masks, p, seconds


@functools.cache
def of_unets(number, split):
    """What each of so many U-Nets gives each pixel, (number, N, 64, 64), and seconds a case."""
    return clocked(probabilities, cases(split)[0], UNETS[:number])


@functools.cache
def training_readings():
    """The readings of the training persons, bool (M, 64, 64)."""
    return torch.as_tensor(datasets.lidc("train").masks).flatten(0, 1).bool()


@functools.cache
def map_of(name, split):
    """The map of probabilities (N, 64, 64) of one of MAPS, and seconds a case."""
    y = cases(split)[0]
    if name == "nothing":
        return torch.zeros_like(y[:, 0]), 0.0
    if name == BLIND:
        return training_readings().float().mean(0).expand(len(y), -1, -1), 0.0
    if name == "diffusion, t = 1":
        return clocked(first_answer, y, pretrained.load_denoiser(MASKS))
    networks, _ = MAPS[name]
    if networks[0] in (NORMAL, MASKS):
        return sampled(networks[0], split)[1:]
    nets, seconds = of_unets(len(networks), split)
    return nets.mean(0), seconds


def best_cut(p):
    """The one of CUTS at which a map p (N, H, W) of validation persons, thresholded, has the best Dice with their
    consensus."""
    truth = consensus(cases("validation")[1])
    return max(CUTS, key=lambda cut: float(dice(p > cut, truth).mean()))


@functools.cache
def cut_of(name):
    """The :func:`best_cut` of one of MAPS."""
    return best_cut(map_of(name, "validation")[0])


def drawn(name):
    """Masks, bool (K, N, 64, 64), of one of DRAWS for the test persons, and seconds a case."""
    y, readings, _ = cases("test")
    if name == BLIND:
        found = training_readings()
        return found[torch.randint(len(found), (SAMPLES, len(y)), generator=runtime.seeded(0))], 0.0
    if name == "consensus of these four":
        return consensus(readings).expand(2, -1, -1, -1), 0.0
    networks, _ = DRAWS[name]
    if name in MAPS:
        masks, _, seconds = sampled(networks[0], "test")
        return masks, seconds
    if name == "ensemble, five masks":
        nets, seconds = of_unets(len(networks), "test")
        return nets > cut_of("U-Net"), seconds
    model, way = name.rsplit(", ", 1)
    p, seconds = map_of(model, "test")
    if way == "one mask":
        return (p > cut_of(model)).expand(2, -1, -1, -1), seconds
    return (independent if way == "pixel by pixel" else random_threshold)(p), seconds


# ---- What is measured ------------------------------------------------------------------------------------------------


def by_person(values, persons):
    """Values {name: (N,)} of slices as means of their persons, rounded: {name: [P]}."""
    return {name: rounded(means_of(value, persons)) for name, value in values.items()}


def of_draws(masks, readings, persons):
    """Measures of masks (K, N, H, W) against readings (4, N, H, W), by person.

    ``energy_distance``, unbiased, and the two terms of it that the masks are in: ``between`` a mask and a reading,
    ``within`` the masks (their variety). ``empty``: share of masks without a pixel; ``brier_of_empty``: Brier score of
    this share for whether a reader drew nothing.
    """
    between, within, among = energy_terms(masks, readings)
    share = is_empty(masks).mean(0)
    found = {"energy_distance": 2 * between - within - among, "between": between, "within": within}
    return by_person(found | {"empty": share, "brier_of_empty": brier_score(share, is_empty(readings))}, persons)


def middle(values):
    """Values (..., H, W) of the pixels that count for calibration."""
    return values[..., MIDDLE, MIDDLE].float()


def dice_with_others(masks, readings):
    """Dice (N,) of masks (R, N, H, W), one for each reading, with the consensus, 2 of 3, of the other readings: no
    ties."""
    pairs = zip(masks, each_against_others(readings))
    return torch.stack([dice(mask, consensus(others)) for mask, (_, others) in pairs]).mean(0)


def of_map(p, cut, readings, persons):
    """Measures of a map p (N, H, W) and of the mask above ``cut``, by person.

    Dice of the mask with the ``consensus`` of the four (at least 2; two empty masks score 1, one empty mask 0), with
    that of three of them (``others``), and with a single ``reading``, the mean over all. ``brier`` score of p. And of
    all persons together: ``calibration_error`` against the share of readers, with its standard error over persons;
    ``if_right``, what p would score if it were right and four readers drew its level sets; and ``reliability``.
    """
    mask, inner, share = p > cut, middle(p), middle(readings.float().mean(0))
    dices = {
        "consensus_dice": dice(mask, consensus(readings)),
        "others_dice": dice_with_others(mask.expand(len(readings), -1, -1, -1), readings),
        "reading_dice": dice(mask, readings).mean(0),
    }

    def error(chosen):
        kept = torch.isin(persons, chosen)
        return calibration_error(inner[kept], share[kept])

    made = [random_threshold(inner, len(readings), seed).float().mean(0) for seed in range(IF_RIGHT)]
    together = {
        "threshold": cut,
        "calibration_error": rounded(jackknife(error, persons.unique())),
        "if_right": rounded(sum(calibration_error(inner, k) for k in made) / len(made)),
        "reliability": rounded(reliability(inner, share).nan_to_num()),
    }
    brier = brier_score(inner, middle(readings)).mean((1, 2))
    return by_person(dices | {"brier": brier}, persons) | together


def near(readings):
    """Pixels at most NEAR rows and columns away from what any of readings (R, N, H, W) has: bool (N, H, W)."""
    return F.max_pool2d(readings.any(0).float(), 2 * NEAR + 1, stride=1, padding=NEAR) > 0


def of_unet(name, readings, persons):
    """Measures of one of UNETS alone: by person those of its random threshold and of its mask that :func:`of_draws` and
    :func:`of_map` have, the latter at its own best cut; and of all persons together the ``calibration_error`` of its
    map over all pixels, those of the MIDDLE, and those that are :func:`near` the nodule."""
    p, unseen = (probabilities(cases(split)[0], (name,))[0] for split in ("test", "validation"))
    cut, share, ring = best_cut(unseen), readings.float().mean(0), near(readings)
    dices = dice_with_others((p > cut).expand(len(readings), -1, -1, -1), readings)
    far = of_draws(random_threshold(p), readings, persons)["energy_distance"]
    counted = {"all": (p, share), "middle": (middle(p), middle(share)), "near": (p[ring], share[ring])}
    errors = {pixels: rounded(calibration_error(*maps)) for pixels, maps in counted.items()}
    found = {"energy_distance": far} | by_person({"others_dice": dices}, persons)
    return found | {"threshold": cut, "calibration_error": errors}


def of_readers(readings, persons):
    """The readers against one another, by person, each left out in turn: what a model that is one more reader scores.

    ``distance`` of two readings; Dice of a reading with the consensus of the ``others``, and with one ``reading``;
    ``brier`` score of the share of three for the fourth, and ``brier_of_empty`` of whether they drew; ``empty``. And
    what a model that knows the probabilities exactly would score: ``least_brier``, ``least_brier_of_empty``. ``drew``:
    slices in which 0 to 4 readers drew.
    """
    empty = is_empty(readings)
    pairs = each_against_others(readings)
    found = {
        "distance": energy_terms(readings, readings)[1],
        "others_dice": dice_with_others(readings, readings),
        "reading_dice": torch.stack([dice(one, others).mean(0) for one, others in pairs]).mean(0),
        "brier": sum(brier_score(middle(others).mean(0), middle(one)[None]) for one, others in pairs).mean((1, 2)) / 4,
        "least_brier": disagreement(middle(readings)).mean((1, 2)),
        "empty": empty.mean(0),
        "brier_of_empty": sum(brier_score(o.mean(0), one[None]) for one, o in each_against_others(empty)) / 4,
        "least_brier_of_empty": disagreement(empty),
    }
    drew = torch.bincount((len(readings) - empty.sum(0)).long(), minlength=5).tolist()
    about = {"drew": drew, "slices": readings.shape[1], "persons": len(persons.unique())}
    return about | by_person(found, persons)


# ---- The record ------------------------------------------------------------------------------------------------------


def plan():
    """The rows: the readers, ways to draw masks, maps of probabilities, each U-Net alone."""
    listed = {"readers": ["readers"], "draws": DRAWS, "map": MAPS, "alone": UNETS}
    return [{"kind": kind, "name": name} for kind, names in listed.items() for name in names]


def plan_of_this_machine(record):
    """The rows; none where the data set is not here."""
    return plan() if datasets.is_here("lidc") else []


def networks(key):
    """The networks of a row."""
    if key["kind"] == "alone":
        return (key["name"],)
    return {"readers": {}, "draws": DRAWS, "map": MAPS}[key["kind"]].get(key["name"], ((), 0))[0]


def measure(kind, name):
    """A row."""
    _, readings, persons = cases("test")
    if kind == "readers":
        return of_readers(readings, persons), {}
    if kind == "alone":
        return of_unet(name, readings, persons), {}
    if kind == "draws":
        (masks, seconds), (_, evaluations) = drawn(name), DRAWS[name]
        found = {"samples": len(masks)} | of_draws(masks, readings, persons)
    else:
        (p, seconds), (_, evaluations) = map_of(name, "test"), MAPS[name]
        found = of_map(p, cut_of(name), readings, persons)
    return found | {"evaluations": evaluations, "seconds": rounded(seconds)}, {}


def begin():
    """What stands above the rows."""
    return {"precision": runtime.precision_name()}, {}


STUDY = Study("10_lidc", plan_of_this_machine, measure, begin, networks=networks)
