"""The record ``11_tumour_trainings``: the autoencoders of ``11_tumours`` trained anew with other seeds, so that one can
see whether their order, and their lead over brightness, hangs on one training.

A row takes a quarter of an hour of one core for the autoencoder and an hour for the denoising one, nearly all of it
training. Needs the data set ``brain_tumours``. Checkpoints go to ``runs/seeds``, and a study that was interrupted goes
on from them.
"""

import numpy as np

from course_lib import datasets, runtime
from course_lib.experiments import tumours
from course_lib.experiments.seeds import SEEDS
from course_lib.experiments.study import Study
from course_lib.experiments.trainings import network
from course_lib.metrics.detection import froc_point

NETWORKS = {"autoencoder": "tumour_ae", "denoising autoencoder": "tumour_dae"}
ALLOWED = 1  # false findings a slice


def measure(method, seed):
    """A row: average precision and Dice of each test slice, and the share of the tumours that are found with ALLOWED
    false findings a slice; the threshold of Dice is from validation."""
    answers = tumours.answers(NETWORKS[method], network(NETWORKS[method], seed))
    row = tumours.tested(answers, tumours.validated(answers, {}) | {"setting": {}})
    found, _ = froc_point(row["found"], row["lesions"], row["false"], ALLOWED)
    return {key: row[key] for key in ("average_precision", "dice")} | {"found": round(found, 4)}, {}


def by_training(rows, key):
    """{method: values under ``key`` of each training, (trainings, slices), or (trainings,) of a share}, in the order of
    their seeds."""
    rows = sorted(rows, key=lambda row: row["seed"])
    return {method: np.array([row[key] for row in rows if row["method"] == method]) for method in NETWORKS}


def plan(record=None):
    """The rows, the first seed of both first; none where the data set is not here."""
    here = datasets.is_here("brain_tumours")
    return [{"method": method, "seed": seed} for seed in SEEDS for method in NETWORKS] if here else []


STUDY = Study(
    "11_tumour_trainings",
    plan,
    measure,
    lambda: ({"allowed": ALLOWED, "precision": runtime.precision_name()}, {}),
    networks=lambda key: [NETWORKS[key["method"]]],  # of other seeds too: they stand beside the one that ships
)
