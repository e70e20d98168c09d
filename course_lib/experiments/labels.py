"""The record ``13_labels``: maps of labels, drawn by masked diffusion and by Gaussian diffusion of one channel a label;
one U-Net for both, three seeds each.

The maps are real: sagittal slices of the hippocampus, background, anterior and posterior part. Each row is a training
of minutes on one core; checkpoints go to ``runs/seeds``. Needs the hippocampus data in the cache.
"""

import functools
import math

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from course_lib import datasets, runtime
from course_lib.denoisers import MaskedDenoiser
from course_lib.experiments.record import rounded
from course_lib.experiments.seeds import FOLDER, SEEDS
from course_lib.experiments.study import Study
from course_lib.experiments.trends import EVALUATIONS
from course_lib.generate import generate
from course_lib.losses import DiffusionLoss, MaskingLoss
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.recipes import SMALLER
from course_lib.recipes.hippocampus import SLICES
from course_lib.recipes.recipe import MUON, unet
from course_lib.recipes.runs import finished
from course_lib.samplers import sample, unmask_step
from course_lib.schedules import Cosine, uniform_times

LABELS = ("background", "anterior", "posterior")
IMAGES, SHOWN = 525, 6  # as many as there are real maps for a test
LOSSES = {"masked": MaskingLoss(), "Gaussian": DiffusionLoss(Cosine(), "v")}


@functools.cache
def maps(split):
    """One channel a label, 1 there and -1 elsewhere, float32 (N, 3, 48, 32)."""
    parts = torch.as_tensor(datasets.hippocampus_slices(split)[:, :2])
    return torch.cat([-1 - parts.sum(1, keepdim=True), parts], 1)


def recipe_of(method, seed):
    """What is trained for a row: one U-Net for both, but for the channel of what is hidden, and 48,000 maps."""
    network = SMALLER | {"in_channels": 3 + (method == "masked")}
    data = SLICES | {"load_data": lambda: (maps("train").numpy(), None), "batch_size": 32}
    return unet(f"labels_{method}_{seed}", network, LOSSES[method], data, None, steps=1500, seed=seed, **MUON)


def drawn(method, net, n, nfe, seed=0):
    """n maps of labels, int64 (n, 48, 32), by nfe evaluations."""
    generator = runtime.seeded(seed)
    if method == "Gaussian":
        denoiser, noise = recipe_of(method, seed).denoiser(net), torch.randn(n, 3, 48, 32, generator=generator)
        return generate(denoiser, noise, nfe=nfe).argmax(1)
    hidden = torch.zeros(n, 4, 48, 32)
    hidden[:, -1] = 1
    denoiser = MaskedDenoiser(net, runtime.precision())
    return sample(denoiser, hidden, uniform_times(nfe), unmask_step, generator).argmax(1)


def shares(labels):
    """Of maps (N, 48, 32) the share of each label in squares of 8 x 8, (N, 72)."""
    return F.avg_pool2d(F.one_hot(labels, 3).movedim(-1, 1).float(), 8).flatten(1)


@functools.cache
def reference():
    """Moments of the shares of the training maps."""
    return moments(shares(maps("train").argmax(1)))


def in_one_piece(labels):
    """The share of maps (N, 48, 32) in which each part that is there is one connected piece."""
    return np.mean([all(ndimage.label(one == part)[1] <= 1 for part in (1, 2)) for one in labels.numpy()])


def judged(labels):
    """What is measured of maps (N, 48, 32): the Fréchet distance of their shares to those of the training maps, how
    many are in one piece, and mean and spread of the area of both parts, in pixels."""
    area = (labels > 0).sum((1, 2)).float()
    return {
        "frechet_distance": rounded(frechet_distance(moments(shares(labels)), reference()), 5),
        "in_one_piece": rounded(in_one_piece(labels)),
        "area": rounded(area.mean(), 1),
        "area_spread": rounded(area.std(), 1),
    }


def nats(net, repeats=4):
    """The bound of -log p of the test maps, in nats a map, by a masked network: mean over ``repeats`` times a map."""
    generator, x = runtime.seeded(0), maps("test").to(runtime.device())
    with torch.no_grad():
        found = [LOSSES["masked"](net, (part, None), generator)[0] for _ in range(repeats) for part in x.split(75)]
    return rounded(torch.cat(found).mean() * x[0, 0].numel(), 1)


def place_by_place():
    """-log p of the test maps, in nats a map, if each place drew its label for itself, as often as in training."""
    p = ((maps("train") > 0).float().sum(0) + 1) / (len(maps("train")) + 3)
    return rounded(-((maps("test") > 0) * p.log()).sum((1, 2, 3)).mean(), 1)


def measure(method, seed):
    """A row: what :func:`judged` says, by number of evaluations; nats; and the first maps of the first seed."""
    net = runtime.placed(finished(recipe_of(method, seed), FOLDER)[0])
    sets = {nfe: drawn(method, net, IMAGES, nfe, seed) for nfe in EVALUATIONS}
    found = {nfe: judged(labels) for nfe, labels in sets.items()}
    row = {"nfe": list(found)} | {key: [of[key] for of in found.values()] for key in found[1]}
    row |= {"nats": nats(net)} if method == "masked" else {}
    kept = {
        f"{method}, {nfe}": labels[:SHOWN].byte() for nfe, labels in sets.items() if seed == 0 and nfe in (1, 8, 50)
    }
    return row, kept


def begin():
    """What stands above the rows: what real maps score, and what nats to expect without and with knowledge."""
    test = maps("test").argmax(1)
    above = {"images": IMAGES, "real": judged(test), "nats": {"place by place": place_by_place()}}
    above["nats"]["uniform"] = rounded(test[0].numel() * math.log(len(LABELS)), 1)
    return above | {"precision": runtime.precision_name()}, {"real": test[:: len(test) // SHOWN][:SHOWN].byte()}


def plan(record=None):
    """The rows, the first seed of both methods first."""
    return [{"method": method, "seed": seed} for seed in SEEDS for method in LOSSES]


STUDY = Study("13_labels", plan, measure, begin)
