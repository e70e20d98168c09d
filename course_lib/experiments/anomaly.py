"""The record ``11_anomaly``: how well each method finds lesions of five families, and what it makes of healthy brains.

Settings and thresholds are chosen on validation subjects, all families together, none on test subjects.
Figures are kept for each case, so that they can be paired.
"""

import functools
import time

import numpy as np
import torch

from course_lib import pretrained, runtime
from course_lib.applications.anomaly import Healthy, brain, heal, noise_and_denoise, one_step, residual_score, smooth
from course_lib.arguments import one_of
from course_lib.datasets import BRAIN_TISSUES, REAL_FAMILY, is_here, lenders, synthetic_brains
from course_lib.denoisers import FunctionDenoiser
from course_lib.experiments.record import load, rounded
from course_lib.experiments.study import Method, Study, chosen, grid, tuned
from course_lib.guidance import ClassifierFree, ClassifierGuided, Clipped
from course_lib.metrics.detection import auroc, average_precision, counts, dice, false_alarms, in_region
from course_lib.metrics.images import mean_inside

FAMILIES = ("hyper", "hypo", "texture", "mass", "tiny")
CASES = {"test": 16, "validation": 8}  # of each family
HEALTHY = 32
BATCH = 8  # cases that share a generator, so that the first batch of a row can be remade alone
TRAINING = 256  # healthy images for atlas and PCA
STEPS = 10  # each way
NOISE_LEVELS = (0.02, 0.05, 0.1, 0.15, 0.25, 0.5)  # t_0 to choose from, without guidance
STRENGTHS = (0.25, 0.5, 0.75)  # of the families in FADING; at 1 they are among the other rows
FADING = ("hyper", "hypo")
KEEP = 60  # thresholds that the oracle may choose from
SHARES = np.geomspace(3e-4, 0.3, KEEP)  # of the brain's scores on validation that lie above each


def cases(split, family, strength=1.0):
    """Cases of a family, or healthy ones for None, at 96 x 96: a Cohort. No subject is in two of them. Those of "ms",
    real shapes and places of lesions, raise DataError where that data set is not here."""
    one_of(CASES, split=split)
    if family is not None:
        one_of((*FAMILIES, REAL_FAMILY), family=family)
    n = HEALTHY if family is None else CASES[split]
    seed = 40 + (*FAMILIES, None, REAL_FAMILY).index(family)
    return synthetic_brains(split, n, lesion=family, strength=strength, seed=seed)


@functools.cache
def healthy_atlas():
    """Mean, spread and principal directions of healthy training subjects."""
    return Healthy(synthetic_brains("train", TRAINING, seed=40).images, K=TRAINING // 2)


def _prior():
    return pretrained.load_denoiser("brain")


def _two_classes():
    """The network that is told healthy (0), lesion (1) or nothing (2); not clipped, since guidance goes before."""
    return pretrained.load_denoiser("brain_two_classes", clip=False)


def guided_by_classifier(w, y=0):
    """D_w towards class y (0 healthy) by the gradient of the noise-aware classifier, clipped."""
    return _towards(y, ClassifierGuided(_two_classes(), pretrained.load_classifier("brain_noisy_classifier"), w))


def classifier_free(w, y=0):
    """D_w towards class y (0 healthy) without a classifier, clipped."""
    return _towards(y, ClassifierFree(_two_classes(), none=2, w=w))


def _towards(y, guided):
    """The guided denoiser, clipped, with class y for every image."""
    clipped = Clipped(guided)
    return FunctionDenoiser(lambda x_t, t: clipped(x_t, t, y=torch.full((len(x_t),), y)), clipped.schedule)


def by_twin(twin, score=residual_score):
    """What a Method runs, from a function (x (N, 1, H, W), generator, **setting) -> healthy twins of that shape. score:
    of x and its twins, both (N, H, W)."""

    def run(x, generator, **setting):
        found = twin(x[:, None], generator, **setting)[:, 0].float().clamp(-1, 1)
        return score(x, found), found

    return run


def _reconstructed(name):
    def decoded(x):
        net = pretrained.load(name)
        return net.decode(net.encode(x))

    return by_twin(lambda x, generator: _answer(decoded, x))


def _denoised(x, generator):
    """What the denoising autoencoder makes of images to which no noise was added: a lesion it takes for noise."""
    net = pretrained.load("brain_dae")
    return _answer(lambda x: net(x, 0.0), x)


def _answer(network, x):
    """A network's answer to images (N, 1, H, W), in the faster precision."""
    with runtime.fast():
        return network(x.to(runtime.device())).float().cpu()


def _lesion_probability(x, generator):
    logits = _answer(pretrained.load("brain_segmenter"), x[:, None])
    return logits.softmax(1)[:, BRAIN_TISSUES.index("lesion")], None


GUIDED = "brain_two_classes", "brain_noisy_classifier"
#: name -> Method with run(x (N, H, W), generator, **setting) -> score (N, H, W) and twin (N, H, W) or None.
METHODS = {
    "bright threshold": Method(lambda x, g: (smooth(x + 1) * brain(x), None)),
    "atlas z-score": Method(lambda x, g: (smooth(healthy_atlas().z(x)) * brain(x), None)),
    "PCA": Method(by_twin(lambda x, g, K: healthy_atlas().project(x, K)), grid(K=(8, 16, 32, 64, 128))),
    "autoencoder": Method(_reconstructed("brain_ae"), networks=("brain_ae",), evaluations=1),
    "VAE": Method(_reconstructed("brain_vae"), networks=("brain_vae",), evaluations=1),
    "denoising autoencoder": Method(by_twin(_denoised), networks=("brain_dae",), evaluations=1),
    "noise and denoise": Method(
        by_twin(lambda x, g, t_0: noise_and_denoise(_prior(), x, t_0, STEPS, g)),
        grid(t_0=NOISE_LEVELS),
        ("brain",),
        STEPS,
    ),
    "one step, ten draws": Method(
        by_twin(lambda x, g, t_0: one_step(_prior(), x, t_0, STEPS, g)),
        grid(t_0=NOISE_LEVELS),
        ("brain",),
        STEPS,
    ),
    "inversion, classifier": Method(
        by_twin(lambda x, g, t_0, w: heal(_two_classes(), guided_by_classifier(w), x, t_0, STEPS)),
        grid(t_0=(0.3, 0.5, 0.7), w=(3, 10, 30)),
        GUIDED,
        2 * STEPS,
    ),
    "inversion, classifier-free": Method(
        by_twin(lambda x, g, t_0, w: heal(_two_classes(), classifier_free(w), x, t_0, STEPS)),
        grid(t_0=(0.3, 0.5, 0.7), w=(2, 5, 10)),
        GUIDED[:1],
        3 * STEPS,
    ),
    "supervised segmenter": Method(_lesion_probability, networks=("brain_segmenter",), evaluations=1),
}


def run_batches(method, x, setting, seed):
    """Score (N, H, W) and twin, or None, that a Method gives for images x (N, H, W), BATCH at a time; the generators of
    the batches are those of ``seed``, seed + 1, ..."""
    parts = [
        method.run(part, runtime.seeded(seed + k), **setting)
        for k, part in enumerate(torch.as_tensor(x).float().split(BATCH))
    ]
    score, twin = zip(*parts)
    return torch.cat(score), (None if twin[0] is None else torch.cat(twin))


def scores(name, x, setting, first=0):
    """Score and twin of images x (N, H, W), with the generators of the batches from ``first`` on."""
    return run_batches(METHODS[name], x, setting, 1000 + first)


def validation_row(score, truth, inside, shares):
    """Mean average precision of scores in a region, the thresholds that such shares of the scores in it lie above, and
    the one of them with the best mean Dice. Scores, truth and inside (bool) are (N, H, W)."""
    thresholds = np.quantile(score[inside], 1 - shares)
    true, positives = counts(score, truth, thresholds)
    mean_dice = dice(true, positives, truth.sum((1, 2))[:, None]).mean(0)
    return {
        "average_precision": rounded(np.mean(in_region(average_precision, score, truth, inside))),
        "dice": rounded(mean_dice.max()),
        "threshold": rounded(thresholds[mean_dice.argmax()], 5),
        "thresholds": rounded(thresholds, 5),
    }


def lesion_row(score, truth, inside, choice):
    """Average precision and prevalence in a region, and Dice at the threshold of the validation row ``choice``, at the
    one of its thresholds that is best for all images together, and at the best for each: a list each, one entry an
    image. Scores, truth and inside (bool) are (N, H, W)."""
    true, positives = counts(score, truth, [choice["threshold"], *choice["thresholds"]])
    overlaps = dice(true, positives, truth.sum((1, 2))[:, None])  # (N, 1 + KEEP)
    return {
        "average_precision": rounded(in_region(average_precision, score, truth, inside)),
        "prevalence": rounded(in_region(lambda s, m: m.mean(), score, truth, inside), 5),
        "dice": rounded(overlaps[:, 0]),
        "dice_oracle": rounded(overlaps[:, 1 + overlaps[:, 1:].mean(0).argmax()]),
        "dice_oracle_of_each": rounded(overlaps[:, 1:].max(1)),
    }


def validated(name, setting):
    """A validation row: the mean average precision of a setting, and the threshold with the best mean Dice."""
    cohorts = [cases("validation", family) for family in FAMILIES]
    x, truth = (np.concatenate([getattr(cohort, key) for cohort in cohorts]) for key in ("images", "masks"))
    return validation_row(scores(name, x, setting)[0].numpy(), truth, brain(x).numpy(), SHARES)


def tested(name, choice, cohort, family):
    """A test row of a family (None: healthy), with the setting and threshold of the validation row ``choice``."""
    start = time.process_time()
    score, twin = scores(name, cohort.images, choice["setting"])
    seconds = (time.process_time() - start) / len(cohort.images)
    found = score.numpy() >= choice["threshold"]
    row = {
        "flagged": [int(mask.sum()) for mask in found],
        "false_alarms": [false_alarms(mask & (truth == 0)) for mask, truth in zip(found, cohort.masks)],
        "highest": rounded(score.flatten(1).max(1).values),
        "seconds": rounded(seconds),
    }
    if twin is not None:
        away = brain(cohort.images) & (torch.as_tensor(cohort.masks) == 0)
        row["error_elsewhere"] = rounded(mean_inside((twin - torch.as_tensor(cohort.healthy)).abs(), away))
    if family == REAL_FAMILY:
        row["persons"] = lenders(cohort.numbers)  # subjects with lesions of the same person are no independent cases
    return row if family is None else row | _of_lesions(score.numpy(), twin, choice, cohort)


def _of_lesions(score, twin, choice, cohort):
    """What can only be measured where there is a lesion: a list each, one entry a case."""
    truth, inside = cohort.masks > 0, brain(cohort.images).numpy()
    row = lesion_row(score, truth, inside, choice) | {"auroc": rounded(in_region(auroc, score, truth, inside))}
    if twin is not None:
        mask, healthy = torch.as_tensor(truth), torch.as_tensor(cohort.healthy)
        for key, image in (("error_in_lesion", twin), ("untouched_in_lesion", torch.as_tensor(cohort.images))):
            row[key] = rounded(mean_inside((image - healthy).abs(), mask))
    return row


#: (family, strength) of the test rows of a method, in the order of their weight.
TESTED = [(family, 1.0) for family in (*FAMILIES, None)] + [(f, s) for f in FADING for s in STRENGTHS]


def plan(record):
    """The rows: of each method all settings on validation, then the best of them on test."""
    keys = TESTED + [(REAL_FAMILY, 1.0)] * is_here("ms_lesions")  # settings and thresholds are those of the others
    return tuned(record, METHODS, STUDY, [{"family": family, "strength": strength} for family, strength in keys])


def measure(split, method, setting, family=None, strength=1.0):
    """A row; one of the test split takes its threshold from the validation row in the record."""
    if split == "validation":
        return validated(method, setting), {}
    choice = chosen(load(STUDY.name)["rows"], method)
    return tested(method, choice, cases("test", family, strength), family), {}


def begin():
    """What stands above the rows."""
    sizes = {"cases": CASES, "healthy": HEALTHY, "training": TRAINING, "steps": STEPS}
    return sizes | {"precision": runtime.precision_name()}, {}


STUDY = Study("11_anomaly", plan, measure, begin, networks=lambda key: METHODS[key["method"]].networks)
