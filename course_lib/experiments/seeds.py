"""The record ``13_seeds``: the recipes of ``13_trends`` trained anew with other seeds, so that one can see how far two
trainings of one recipe lie apart.

Each row is a training of minutes on one core: about an hour in all, with MedNIST in the cache. Checkpoints go to
``runs/seeds``, and a study that was interrupted goes on from them.
"""

import dataclasses
from functools import partial

from course_lib import pretrained, runtime
from course_lib.experiments.mednist_sets import JUDGE
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Study
from course_lib.experiments.trends import NETWORKS, WAYS, recognised, reference
from course_lib.losses import DistillationLoss
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.recipes import RECIPES
from course_lib.recipes.mednist import FD_IMAGES
from course_lib.recipes.runs import finished, of_seed
from course_lib.recipes.trends import small_judged

SEEDS = (0, 1, 2)  # 0 is that of the networks that ship
FOLDER = "runs/seeds"
#: The methods and their samplers: one for all denoisers, and for few steps its own.
SAMPLERS = {"DDPM": "2M", "EDM": "2M", "flow": "2M", "DiT": "2M", "student": "consistency", "MeanFlow": "MeanFlow"}


def recipe_of(method, seed, folder=FOLDER):
    """The recipe of a method with another seed, and the network whose weights are its first, or None. A student learns
    from the flow network of its own seed, and begins with its weights."""
    recipe, teacher = of_seed(RECIPES[NETWORKS[method]], seed), None
    if isinstance(recipe.loss, DistillationLoss):
        teacher = shipped_or_trained("flow", seed, folder)
        loss = dataclasses.replace(recipe.loss, teacher=partial(_teaching, teacher))
        recipe = dataclasses.replace(recipe, loss=loss)
    return recipe, teacher


def _teaching(net):
    """The denoiser of a flow network."""
    return RECIPES["trend_flow"].denoiser(net)


def shipped_or_trained(method, seed, folder=FOLDER):
    """The network of a method and a seed."""
    if not seed:
        return pretrained.load(NETWORKS[method])
    recipe, start = recipe_of(method, seed, folder)
    return finished(recipe, folder, start)[0]


def measure(method, seed):
    """A row: Fréchet distances of 600 images by number of evaluations, and the share recognised as their class."""
    way, real = WAYS[method, SAMPLERS[method]], reference()
    denoiser = RECIPES[NETWORKS[method]].denoiser(runtime.placed(shipped_or_trained(method, seed)))
    row = {"nfe": [], "frechet_distance": [], "recognised": []}
    for nfe in way.evaluations:
        features, logits = small_judged(way.drawn(denoiser, nfe, seed=seed))
        row["nfe"].append(nfe)
        row["frechet_distance"].append(rounded(frechet_distance(moments(features), real), 3))
        row["recognised"].append(recognised(logits))
    return row, {}


def plan(record=None):
    """The rows, the first seed of all methods first."""
    return [{"method": method, "seed": seed} for seed in SEEDS for method in SAMPLERS]


STUDY = Study(
    "13_seeds",
    plan,
    measure,
    lambda: ({"images": FD_IMAGES, "precision": runtime.precision_name()}, {}),
    (JUDGE,),
    networks=lambda key: [NETWORKS[key["method"]]],  # of other seeds too: they stand beside the one that ships
)
