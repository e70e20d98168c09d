"""The record ``11_noise_limit``: how well the kind of a lesion can be told in noise at all, beside how well the network
that guides does it.

The observer is given more than any network: the subject's own healthy slice, and for each family a handful of slices of
which, if the family is right, one is exactly the slice beneath the noise. Its answer is the most probable kind, by
Bayes' rule. What it knows besides cannot harm it, so no classifier of these noisy slices is right more often on
average; the fewer slices it is given, the looser the bound. Kinds are equally frequent, places and shapes are drawn as
the generator draws them.
"""

import math

import torch

from course_lib import datasets, pretrained, runtime
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Study
from course_lib.images import to_tensor
from course_lib.recipes import RECIPES

NETWORK = "brain_noisy_classifier"
SUBJECTS, TRUTHS = 48, 8  # test subjects, and pictures of each kind a subject
GIVEN = (1, 8, 64)  # slices of each family that the observer is given
TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
KINDS = ("healthy", *datasets.LESION_FAMILIES)


def most_probable(x_t, healthy, given, alpha, sigma):
    """The most probable kind (B,) of x_t (B, ...) = alpha x_0 + sigma eps: 0 where x_0 is ``healthy`` (...), else 1 +
    the family of ``given`` (families, K, ...), where x_0 is each of its K pictures with equal probability; all kinds
    equally probable beforehand."""
    pictures = torch.cat([healthy[None], given.flatten(0, 1)]).flatten(1).double()
    distances = torch.cdist(x_t.flatten(1).double(), alpha * pictures)
    log_p = -distances.square() / (2 * sigma**2)
    families = log_p[:, 1:].unflatten(1, given.shape[:2]).logsumexp(2) - math.log(given.shape[1])
    return torch.cat([log_p[:, :1], families], 1).argmax(1)


def observed(x_t, healthy, lesions, alpha, sigma, n):
    """The observer's kinds (kinds, TRUTHS) of noisy pictures x_t (kinds, TRUTHS, H, W) of a subject: for the k-th
    picture of each kind it is given those n of ``lesions`` (families, draws, H, W) among which the k-th is."""
    groups = [lesions[:, k // n * n : k // n * n + n] for k in range(TRUTHS)]
    found = [most_probable(x_t[:, k], healthy, group, alpha, sigma) for k, group in enumerate(groups)]
    return torch.stack(found, 1)


def shares_right(found):
    """The share of each kind that was found right: found (subjects, kinds, TRUTHS)."""
    truth = torch.arange(len(KINDS))[:, None]
    return rounded((found == truth).double().mean((0, 2)))


def measure(t):
    """A row: the shares of each kind that the observer tells right, by the slices it is given, and the network."""
    schedule, generator = RECIPES[NETWORK].loss.schedule, runtime.seeded(0)
    alpha, sigma = (float(of(torch.tensor(t))) for of in (schedule.alpha, schedule.sigma))
    classify, right = pretrained.load_classifier(NETWORK), {}
    slices, drawn = datasets.lesion_draws("test", SUBJECTS, max(GIVEN))
    for healthy, lesions in zip(to_tensor(slices)[:, 0], map(to_tensor, drawn)):
        x_0 = torch.cat([healthy.expand(1, TRUTHS, -1, -1), lesions[:, :TRUTHS]])
        x_t = schedule.noisy(x_0, torch.randn(x_0.shape, generator=generator), t)
        for n in GIVEN:
            right.setdefault(f"given {n}", []).append(observed(x_t, healthy, lesions, alpha, sigma, n))
        with torch.no_grad():
            logits = classify(x_t.flatten(0, 1)[:, None], t)
        right.setdefault("network", []).append(logits.argmax(1).unflatten(0, x_t.shape[:2]))
    return {name: shares_right(torch.stack(found)) for name, found in right.items()}, {}


def plan(record=None):
    """The rows."""
    return [{"t": t} for t in TIMES]


def begin():
    """What stands above the rows."""
    about = {"subjects": SUBJECTS, "pictures": SUBJECTS * len(KINDS) * TRUTHS, "kinds": list(KINDS)}
    return about | {"precision": runtime.precision_name()}, {}


STUDY = Study("11_noise_limit", plan, measure, begin, (NETWORK,))
