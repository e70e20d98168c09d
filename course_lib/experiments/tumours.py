"""The record ``11_tumours``: how well each method finds real brain tumours on slices with a skull.

Settings and thresholds are chosen on validation slices, none on test slices. Every method sees the same
slices on one scale of grey levels, and is asked about the same region. Of each slice there is one number, so that
methods can be paired. There is no slice without a tumour: false findings are counted beside them.
"""

import functools
import time

import numpy as np
import torch

from course_lib import pretrained, runtime
from course_lib.applications.anomaly import Healthy, noise_and_denoise, one_step, smooth
from course_lib.datasets import TUMOUR_CLASSES, tumour_slices
from course_lib.experiments.anomaly import by_twin, lesion_row, run_batches, validation_row
from course_lib.experiments.record import load, rounded
from course_lib.experiments.study import Method, Study, chosen, grid, tuned
from course_lib.images import to_tensor
from course_lib.metrics.detection import findings
from course_lib.recipes import RECIPES
from course_lib.recipes.tumours import twins
from course_lib.tumours import MEDIAN, filled, healthy_tissue

STEPS = 10
NOISE_LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85)  # t_0 to choose from
DIRECTIONS = (8, 16, 32, 64, 128)  # of PCA, to choose from
KEEP = 40  # thresholds, from the highest 0.1 % of the region's validation scores to the highest 30 %


@functools.cache
def healthy_directions():
    """Mean and principal directions of the training slices, widened outlines filled with the mean of the others."""
    found, _ = tumour_slices("train")
    x = filled(to_tensor(found.images)[:, 0], healthy_tissue(found.masks))
    return Healthy(x, K=max(DIRECTIONS))


def _prior():
    return pretrained.load_denoiser("tumour_tissue")


_by_twin = functools.partial(by_twin, score=lambda x, twin: smooth((x - twin).abs()))  # the region is cut out later


def answers(name, net=None):
    """The Method that compares a slice with what an autoencoder makes of it: the one of that name that ships, or a net
    of that architecture."""
    twin = _by_twin(lambda x, g: twins(RECIPES[name], pretrained.load(name) if net is None else net, x))
    return Method(twin, networks=(name,), evaluations=1)


MIDDLE = 2 * MEDIAN - 1  # where the median of the region stands in [-1, 1]
PRIOR = {"settings": grid(t_0=NOISE_LEVELS), "networks": ("tumour_tissue",), "evaluations": STEPS}
#: name -> Method with run(x (N, H, W), generator, **setting) -> score (N, H, W) and twin (N, H, W) or None.
METHODS = {
    "bright threshold": Method(lambda x, g: (smooth(x + 1), None)),
    "bright or dark": Method(lambda x, g: (smooth((x - MIDDLE).abs()), None)),
    "PCA": Method(_by_twin(lambda x, g, K: healthy_directions().project(x, K)), grid(K=DIRECTIONS)),
    "autoencoder": answers("tumour_ae"),
    "denoising autoencoder": answers("tumour_dae"),
    "noise and denoise": Method(_by_twin(lambda x, g, t_0: noise_and_denoise(_prior(), x, t_0, STEPS, g)), **PRIOR),
    "one step, ten draws": Method(_by_twin(lambda x, g, t_0: one_step(_prior(), x, t_0, STEPS, g)), **PRIOR),
}
SIMPLE = ("bright threshold", "bright or dark", "PCA")


def slices(split):
    """Slices float32 (N, 128, 128), true masks and the region that is searched, bool of that shape."""
    found, inside = tumour_slices(split)
    return to_tensor(found.images)[:, 0], found.masks > 0, inside


def scores(method, x, inside, setting):
    """Score (N, H, W) of a Method, 0 outside the region, and twin or None."""
    score, twin = run_batches(method, x, setting, 2000)
    return score * torch.as_tensor(inside), twin


def validated(method, setting):
    """The validation row of a Method: the mean average precision of a setting, and the threshold with the best mean
    Dice."""
    x, truth, inside = slices("validation")
    return validation_row(scores(method, x, inside, setting)[0].numpy(), truth, inside, np.geomspace(1e-3, 0.3, KEEP))


def tested(method, choice):
    """The test row of a Method with the setting and threshold of the validation row ``choice``: a list each, one entry
    a slice; of ``found`` and ``false`` one entry a threshold in it."""
    x, truth, inside = slices("test")
    start = time.process_time()
    score = scores(method, x, inside, choice["setting"])[0].numpy()
    seconds = (time.process_time() - start) / len(x)
    found, lesions, false = findings(score, truth, choice["thresholds"])
    return lesion_row(score, truth, inside, choice) | {
        "found": found.tolist(),
        "lesions": lesions.tolist(),
        "false": false.tolist(),
        "seconds": rounded(seconds),
    }


def plan(record):
    """The rows: of each method all settings on validation, then the best of them on test."""
    return tuned(record, METHODS, STUDY)


def measure(split, method, setting):
    """A row; one of the test split takes its threshold from the validation row in the record."""
    if split == "validation":
        return validated(METHODS[method], setting), {}
    return tested(METHODS[method], chosen(load(STUDY.name)["rows"], method)), {}


def begin():
    """What stands above the rows."""
    (found, _), (validation, _) = tumour_slices("test"), tumour_slices("validation")
    classes = {"classes": list(TUMOUR_CLASSES), "labels": found.labels.tolist()}
    by_patient = bool((found.patients >= 0).all())
    sizes = {"validation": len(validation.labels), "by_patient": by_patient, "steps": STEPS}
    return classes | sizes | {"precision": runtime.precision_name()}, {}


STUDY = Study("11_tumours", plan, measure, begin, networks=lambda key: METHODS[key["method"]].networks)
