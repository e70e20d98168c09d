"""The record ``11_persons``: what the methods of ``11_anomaly``, with their settings and thresholds, make of three real
persons with multiple sclerosis, and how far these are from what the networks know.

Slice by slice in the prior's own grid, T1 and FLAIR; scores are those of a person. Three persons illustrate, and rank
no methods.
"""

import numpy as np
import torch

from course_lib import pretrained, runtime
from course_lib.applications.anomaly import brain, one_step
from course_lib.datasets import ms_persons, ms_slices, synthetic_brains
from course_lib.experiments import anomaly
from course_lib.experiments.record import load, rounded
from course_lib.experiments.study import Study, chosen
from course_lib.images import in_batches, to_tensor
from course_lib.metrics.detection import average_precision, counts, dice, findings
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.tumours import healthy_tissue

CONTRASTS = ("FLAIR", "T1")
LEVELS = tuple(range(0, 33, 2))  # mm, as the prior knows them
COHORT = "cohort"  # as many healthy test subjects, one slice each: what a shift is compared with
DRAWS = 5  # of them, for the floor
NOISE_LEVELS = (0.1, 0.25, 0.5)
JUDGE = "brain_features"


def found_in(method, choice, contrast):
    """What a method finds in each person, with the setting and threshold of ``choice``: a list each, one entry a
    person. Pixels of all slices of a person count together, findings are counted slice by slice."""
    rows = []
    for person in ms_persons():
        x, truth = ms_slices(person, contrast, LEVELS)
        score, inside = anomaly.scores(method, x, choice["setting"])[0].numpy(), brain(x).numpy()
        s, m = score[inside], (truth & inside)[inside]
        true, positives = counts(s[None], m[None], [choice["threshold"], *choice["thresholds"]])
        overlaps = dice(true[0], positives[0], truth.sum())
        found, lesions, false = findings(score, truth, [choice["threshold"]])
        rows.append(
            {
                "person": person.number,
                "average_precision": rounded(average_precision(s, m)),
                "prevalence": rounded(m.mean(), 5),
                "dice": rounded(overlaps[0]),
                "dice_oracle": rounded(overlaps[1:].max()),
                "found": int(found.sum()),
                "lesions": int(lesions.sum()),
                "false": rounded(false.mean()),
            }
        )
    return {key: [row[key] for row in rows] for key in rows[0]}


def _of_persons(contrast):
    """Slices of all persons (N, 96, 96), and their healthy tissue: brain, but not within 6 mm of a lesion."""
    parts = [ms_slices(person, contrast, LEVELS) for person in ms_persons()]
    x, truth = (np.concatenate(stack) for stack in zip(*parts))
    return x, brain(x) & torch.as_tensor(healthy_tissue(truth) > 0)


def shift(images):
    """How far slices are from those that the networks know: the Fréchet distance of their features, and the error of
    the prior on healthy tissue (RMS, images lie in -1 to 1) at several noise levels. images: a contrast, or COHORT."""
    n, judge = len(ms_persons()) * len(LEVELS), pretrained.load(JUDGE)
    reference = pretrained.reference(JUDGE)

    def distance(x):
        return rounded(frechet_distance(moments(in_batches(judge.features, x)), reference), 2)

    if images == COHORT:
        draws = synthetic_brains("test", DRAWS * n, seed=47).images.reshape(DRAWS, n, 96, 96)
        x, healthy = draws[0], brain(draws[0])
        found = {"frechet_distance": rounded(np.mean([distance(draw) for draw in draws]), 2)}
    else:
        x, healthy = _of_persons(images)
        found = {"frechet_distance": distance(x)}
    prior, noisy = pretrained.load_denoiser("brain"), to_tensor(x)
    for t in NOISE_LEVELS:
        error = one_step(prior, noisy, t, 1, runtime.seeded(3000)).float() - noisy
        found[f"rms at t = {t}"] = rounded(error[:, 0][healthy].square().mean().sqrt())
    return found | {"slices": n}


def plan(record):
    """The rows: the shift of each set of images, then each method on each contrast, as ``11_anomaly`` has tuned it;
    rows of other settings are taken out of the record."""
    yield from ({"kind": "shift", "images": images} for images in (COHORT, *CONTRASTS))
    measured = load(anomaly.STUDY.name)
    there = {row["method"] for row in anomaly.STUDY.fresh(measured) if row["split"] == "validation"}
    for method in filter(there.__contains__, anomaly.METHODS):
        choice = chosen(measured["rows"], method)
        now = {"kind": "method", "method": method} | {key: choice[key] for key in ("setting", "threshold")}
        record["rows"][:] = [row for row in record["rows"] if row.get("method") != method or now.items() <= row.items()]
        yield from (now | {"contrast": contrast} for contrast in CONTRASTS)


def measure(kind, images=None, method=None, setting=None, threshold=None, contrast=None):
    """A row."""
    if kind == "shift":
        return shift(images), {}
    return found_in(method, chosen(load(anomaly.STUDY.name)["rows"], method), contrast), {}


def networks(key):
    """Names of the networks of a row."""
    return ("brain", JUDGE) if key["kind"] == "shift" else anomaly.METHODS[key["method"]].networks


def begin():
    """What stands above the rows."""
    persons = [person.number for person in ms_persons()]
    return {"persons": persons, "levels": list(LEVELS), "precision": runtime.precision_name()}, {}


STUDY = Study("11_persons", plan, measure, begin, networks=networks)
