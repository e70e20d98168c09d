"""The record ``11_anomaly``: how well each method finds lesions of five families, and what it makes of healthy brains.

``python -m course_lib.experiments 11_anomaly`` remakes it. It may be interrupted: rows that are there, and were made
with the networks as they are now, are not computed anew. Settings and thresholds are chosen on validation subjects, all
families together; test subjects are looked at once. Figures are kept for each case, so that they can be paired.
"""

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from course_lib import pretrained, runtime
from course_lib.applications.anomaly import Healthy, brain, heal, noise_and_denoise, one_step, residual_score, smooth
from course_lib.arguments import one_of
from course_lib.datasets import BRAIN_TISSUES, synthetic_brains
from course_lib.denoisers import FunctionDenoiser
from course_lib.files import write_rows
from course_lib.guidance import ClassifierFree, ClassifierGuided, Clipped
from course_lib.metrics.detection import auroc, average_precision, counts, dice, false_alarms

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


def cases(split, family, strength=1.0):
    """Cases of a family, or healthy ones for None, at 96 x 96: a Cohort. No subject is in two of them."""
    one_of(CASES, split=split)
    if family is not None:
        one_of(FAMILIES, family=family)
    n = HEALTHY if family is None else CASES[split]
    seed = 40 + (len(FAMILIES) if family is None else FAMILIES.index(family))
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


def _by_twin(twin):
    """A method from a function (x (N, 1, H, W), generator, **setting) -> healthy twins of that shape."""

    def run(x, generator, **setting):
        with runtime.fast():
            found = twin(x[:, None].to(runtime.device()), generator, **setting).float().cpu()[:, 0].clamp(-1, 1)
        return residual_score(x, found), found

    return run


def _reconstructed(name):
    return _by_twin(lambda x, generator: pretrained.load(name).decode(pretrained.load(name).encode(x)))


def _lesion_probability(x, generator):
    with runtime.fast():
        logits = pretrained.load("brain_segmenter")(x[:, None].to(runtime.device())).float().cpu()
    return logits.softmax(1)[:, BRAIN_TISSUES.index("lesion")], None


def _projected(x, generator, K):
    found = healthy_atlas().project(x, K).clamp(-1, 1)
    return residual_score(x, found), found


@dataclass(frozen=True)
class Method:
    """What a study measures. settings: those to choose from on validation subjects; evaluations are of one image.

    Here run(x (N, H, W), generator, **setting) -> score (N, H, W) and twin (N, H, W) or None.
    """

    run: Callable
    settings: tuple = ({},)
    networks: tuple = ()
    evaluations: int = 0


GUIDED = "brain_two_classes", "brain_noisy_classifier"
METHODS = {
    "bright threshold": Method(lambda x, g: (smooth(x + 1) * brain(x), None)),
    "atlas z-score": Method(lambda x, g: (smooth(healthy_atlas().z(x)) * brain(x), None)),
    "PCA": Method(_projected, tuple({"K": K} for K in (8, 16, 32, 64, 128))),
    "autoencoder": Method(_reconstructed("brain_ae"), networks=("brain_ae",), evaluations=1),
    "VAE": Method(_reconstructed("brain_vae"), networks=("brain_vae",), evaluations=1),
    "noise and denoise": Method(
        _by_twin(lambda x, g, t_0: noise_and_denoise(_prior(), x, t_0, STEPS, g)),
        tuple({"t_0": t_0} for t_0 in NOISE_LEVELS),
        ("brain",),
        STEPS,
    ),
    "one step, ten draws": Method(
        _by_twin(lambda x, g, t_0: one_step(_prior(), x, t_0, STEPS, g)),
        tuple({"t_0": t_0} for t_0 in NOISE_LEVELS),
        ("brain",),
        STEPS,
    ),
    "inversion, classifier": Method(
        _by_twin(lambda x, g, t_0, w: heal(_two_classes(), guided_by_classifier(w), x, t_0, STEPS)),
        tuple({"t_0": t_0, "w": w} for t_0 in (0.3, 0.5) for w in (3, 10)),
        GUIDED,
        2 * STEPS,
    ),
    "inversion, classifier-free": Method(
        _by_twin(lambda x, g, t_0, w: heal(_two_classes(), classifier_free(w), x, t_0, STEPS)),
        tuple({"t_0": t_0, "w": w} for t_0 in (0.3, 0.5) for w in (2, 5)),
        GUIDED[:1],
        3 * STEPS,
    ),
    "supervised segmenter": Method(_lesion_probability, networks=("brain_segmenter",), evaluations=1),
}


def scores(name, x, setting, first=0):
    """Score and twin of images x (N, H, W), batch by batch, with the generators of the batches from ``first`` on."""
    parts = [
        METHODS[name].run(part, runtime.seeded(1000 + first + k), **setting)
        for k, part in enumerate(torch.as_tensor(x).float().split(BATCH))
    ]
    score = torch.cat([part[0] for part in parts])
    return score, (None if parts[0][1] is None else torch.cat([part[1] for part in parts]))


def needs(name):
    """sha256 of the networks of a method; None where one of them is not there."""
    return pretrained.sha256_of(METHODS[name].networks)


def _rounded(values, digits=4):
    return [round(float(v), digits) for v in values]


def _in_brain(statistic, score, truth, x):
    """statistic(scores, truth) over the brain's pixels of each image: a list."""
    return [statistic(s[inside], m[inside]) for s, m, inside in zip(score, truth, brain(x).numpy())]


def validate(name, setting):
    """A row: mean average precision of a setting on validation, and the threshold with the best mean Dice there."""
    cohorts = [cases("validation", family) for family in FAMILIES]
    x, truth = (np.concatenate([getattr(cohort, key) for cohort in cohorts]) for key in ("images", "masks"))
    score = scores(name, x, setting)[0].numpy()
    thresholds = np.quantile(score[brain(x).numpy()], 1 - np.geomspace(3e-4, 0.3, KEEP))
    true, positives = counts(score, truth, thresholds)
    mean_dice = dice(true, positives, truth.sum((1, 2))[:, None]).mean(0)
    return {
        "split": "validation",
        "method": name,
        "setting": setting,
        "average_precision": round(float(np.mean(_in_brain(average_precision, score, truth, x))), 4),
        "dice": round(float(mean_dice.max()), 4),
        "threshold": round(float(thresholds[mean_dice.argmax()]), 5),
        "thresholds": _rounded(thresholds, 5),
        "needs": needs(name),
    }


def chosen(rows, name):
    """The validation row of a method with the highest average precision. Raises ValueError where there is none."""
    found = [row for row in rows if row["split"] == "validation" and row["method"] == name]
    if not found:
        raise ValueError(f"no validation row of {name!r}; there are: {sorted({row['method'] for row in rows})}")
    return max(found, key=lambda row: row["average_precision"])


def measure(name, choice, cohort, family, strength=1.0):
    """A row of one family (None: healthy) for the cases of a cohort, with the setting and threshold of ``choice``."""
    start = time.process_time()
    score, twin = scores(name, cohort.images, choice["setting"])
    seconds = (time.process_time() - start) / len(cohort.images)
    found = score.numpy() >= choice["threshold"]
    row = {
        "split": "test",
        "method": name,
        "setting": choice["setting"],
        "family": family,
        "strength": strength,
        "flagged": [int(mask.sum()) for mask in found],
        "false_alarms": [false_alarms(mask & (truth == 0)) for mask, truth in zip(found, cohort.masks)],
        "highest": _rounded(score.flatten(1).max(1).values),
        "seconds": round(seconds, 4),
        "needs": needs(name),
    }
    inside = brain(cohort.images)
    if twin is not None:
        error = (twin - torch.as_tensor(cohort.healthy)).abs()
        away = inside & (torch.as_tensor(cohort.masks) == 0)
        row["error_elsewhere"] = _rounded((error * away).sum((1, 2)) / away.sum((1, 2)))
    return row if family is None else row | _of_lesions(score.numpy(), twin, choice, cohort)


def _of_lesions(score, twin, choice, cohort):
    """What can only be measured where there is a lesion: a list each, one entry a case."""
    truth, size = cohort.masks > 0, cohort.masks.sum((1, 2))
    true, positives = counts(score, truth, [choice["threshold"], *choice["thresholds"]])
    overlaps = dice(true, positives, size[:, None])  # (N, 1 + KEEP)
    row = {
        "average_precision": _rounded(_in_brain(average_precision, score, truth, cohort.images)),
        "auroc": _rounded(_in_brain(auroc, score, truth, cohort.images)),
        "prevalence": _rounded(_in_brain(lambda s, m: m.mean(), score, truth, cohort.images), 5),
        "dice": _rounded(overlaps[:, 0]),
        "dice_oracle": _rounded(overlaps[:, 1 + overlaps[:, 1:].mean(0).argmax()]),  # one threshold for the family
        "dice_oracle_of_each": _rounded(overlaps[:, 1:].max(1)),  # the best threshold of each image
    }
    if twin is not None:
        mask, healthy = torch.as_tensor(truth), torch.as_tensor(cohort.healthy)
        for key, image in (("error_in_lesion", twin), ("untouched_in_lesion", torch.as_tensor(cohort.images))):
            row[key] = _rounded(((image - healthy).abs() * mask).sum((1, 2)) / mask.sum((1, 2)))
    return row


def plan():
    """(family, strength) of the test rows, in the order of their weight."""
    return [(family, 1.0) for family in (*FAMILIES, None)] + [(f, s) for f in FADING for s in STRENGTHS]


def make(path):
    """Compute the rows that the record at ``path`` lacks, and write it after each of them."""
    if path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        record["rows"] = [row for row in record["rows"] if row["needs"] == needs(row["method"])]
    else:
        record = {
            "made_by": f"python -m course_lib.experiments {path.stem}",
            "sha256": {},
            "cases": CASES,
            "healthy": HEALTHY,
            "training": TRAINING,
            "steps": STEPS,
            "precision": runtime.precision_name(),
            "rows": [],
        }
    rows = record["rows"]

    def add(row):
        rows.append(row)
        write_rows(path, record)
        print(row["split"], row["method"], row["setting"], row.get("family"), row.get("strength"), flush=True)

    for name in METHODS:
        if needs(name) is None:
            continue
        done = [row["setting"] for row in rows if row["split"] == "validation" and row["method"] == name]
        for setting in METHODS[name].settings:
            if setting not in done:
                add(validate(name, setting))
        choice = chosen(rows, name)
        stale = [r for r in rows if r["method"] == name and r["split"] == "test" and r["setting"] != choice["setting"]]
        rows[:] = [row for row in rows if row not in stale]  # another setting may be chosen once there are more of them
        done = [(row["family"], row["strength"]) for row in rows if row["split"] == "test" and row["method"] == name]
        for family, strength in plan():
            if (family, strength) not in done:
                add(measure(name, choice, cases("test", family, strength), family, strength))
