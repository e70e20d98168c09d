"""The record ``10_trainings``: the mask diffusions of ``10_segmentation`` and ``10_lidc``, the U-Net of the hippocampus
and the stochastic segmentation network trained anew with other seeds, so that one can see whether an order hangs on one
training.

A row of the lesions takes 45 minutes of one core, most of it training, one of the hippocampus half an hour, one of the
nodules an hour and a half, the last two with their data sets in the cache. Checkpoints go to ``runs/seeds``, and a
study that was interrupted goes on from them.
"""

import numpy as np

from course_lib import datasets, pretrained, runtime
from course_lib.applications.segmentation import NFE, SAMPLES, START, draw_masks, random_threshold
from course_lib.eight_bits import rounded as in_eight_bits
from course_lib.experiments import lidc
from course_lib.experiments.record import rounded
from course_lib.experiments.seeds import FOLDER, SEEDS
from course_lib.experiments.segmentation import (
    CASES,
    HIPPOCAMPUS,
    LESIONS,
    dice_by_person,
    first_answer,
    hippocampus_row,
    measured,
    ratings_of,
)
from course_lib.experiments.study import Study
from course_lib.images import to_tensor
from course_lib.recipes import RECIPES
from course_lib.recipes.nodules import drawn
from course_lib.recipes.runs import finished, of_seed

NODULES = (lidc.MASKS, lidc.NORMAL)


def network(name, seed, folder=FOLDER):
    """The network of that name and seed as it ships, 0, or would ship."""
    if not seed:
        return pretrained.load(name)
    return runtime.placed(in_eight_bits(finished(of_seed(RECIPES[name], seed), folder)[0]))


def of_lesions(seed):
    """Of two ways to draw masks with the mask diffusion of a seed: distance from the raters for each test case, mean
    areas, and shares of masks like each rater."""
    cases = datasets.rated("test", CASES["test"])
    ratings, y = ratings_of(cases), to_tensor(cases.images)
    denoiser = RECIPES[LESIONS].denoiser(network(LESIONS, seed))
    ways = {
        "16 samples": draw_masks(denoiser, y, SAMPLES, NFE, START)[:, :, 0] > 0,
        "t = 1, random threshold": random_threshold(first_answer(y, denoiser)),
    }
    return {name: measured(masks, ratings) for name, masks in ways.items()}


def of_hippocampi(seed):
    """Of each method the Dice of each test person, the mean of both parts and of the person's volumes."""
    diffusion, unet = (network(name, seed) for name in HIPPOCAMPUS)
    row, kept = hippocampus_row((RECIPES[HIPPOCAMPUS[0]].denoiser(diffusion), unet))
    counts, volume, person = (kept[f"hippocampus.{key}"].long() for key in ("counts", "volume", "person"))
    people = dice_by_person(row["methods"], counts, volume, person)
    return {method: rounded(dice) for method, dice in people.items()}


def of_nodules(seed):
    """Of three ways to draw masks with two networks what :func:`~course_lib.experiments.lidc.of_draws` measures: the
    energy distance of each test person, and means of the rest."""
    y, readings, persons = lidc.cases("test")
    nets = {name: network(name, seed) for name in NODULES}
    first = first_answer(y, RECIPES[lidc.MASKS].denoiser(nets[lidc.MASKS]))
    ways = {"diffusion, t = 1, random threshold": random_threshold(first)}
    named = {"mask diffusion": lidc.MASKS, "SSN": lidc.NORMAL}
    ways |= {way: drawn(RECIPES[name], nets[name], y, SAMPLES) for way, name in named.items()}
    found = {way: lidc.of_draws(masks, readings, persons) for way, masks in ways.items()}
    means = {way: {key: rounded(np.mean(values)) for key, values in row.items()} for way, row in found.items()}
    return {way: means[way] | {"energy_distance": row["energy_distance"]} for way, row in found.items()}


#: data -> row of a seed, its networks, and whether its data set is here
ROWS = {
    "lesions": (of_lesions, (LESIONS,), lambda: True),
    "hippocampi": (of_hippocampi, HIPPOCAMPUS, lambda: datasets.hippocampus_is_here()),
    "nodules": (of_nodules, NODULES, lambda: datasets.is_here("lidc")),
}


def plan(record=None):
    """The rows of the data sets that are here."""
    names = [name for name, (_, _, is_here) in ROWS.items() if is_here()]
    return [{"data": name, "seed": seed} for name in names for seed in SEEDS]


STUDY = Study(
    "10_trainings",
    plan,
    lambda data, seed: ({"found": ROWS[data][0](seed)}, {}),
    lambda: ({"precision": runtime.precision_name()}, {}),
    networks=lambda key: ROWS[key["data"]][1],  # of other seeds too: they stand beside those that ship
)
