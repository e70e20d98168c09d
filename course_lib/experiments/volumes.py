"""The record ``07_volumes``: hippocampi drawn among voxels and among latents, the network of latents trained three
times with other seeds, and twice more with every channel of its first level normalised by itself.

A training takes minutes on one core, with the hippocampus data in the cache. Checkpoints go to ``runs/seeds``, and a
study that was interrupted goes on from them.
"""

import dataclasses
import time

import torch

from course_lib import datasets, pretrained, runtime
from course_lib.experiments.record import rounded
from course_lib.experiments.seeds import FOLDER
from course_lib.experiments.study import Study
from course_lib.hippocampus import label_volumes, labels_of, largest_shares
from course_lib.images import in_batches, to_tensor
from course_lib.metrics.memorisation import nearest_rms
from course_lib.recipes import RECIPES
from course_lib.recipes.hippocampus import among_latents, among_voxels, fine_detail, seen_by_judge
from course_lib.recipes.runs import finished, of_seed, precision_of
from course_lib.training import Batches, train

#: Networks, what is other in them than in their recipe, how they draw, and the seeds of their trainings; 0 is that of
#: the networks that ship.
METHODS = {
    "voxels": ("hippocampus", {}, among_voxels, (0,)),
    "latents": ("hippocampus_latent", {}, among_latents, (0, 1, 2)),
    "latents, 16 groups": ("hippocampus_latent", {"norm_groups": 16}, among_latents, (1, 2)),
}


def described(x):
    """What volumes x (N, 3, 32, 48, 32) are like: size of the parts in mm^3 and their spread, share of a part's largest
    piece, the share of volumes with both parts in one, the Dice of the U-Net's labels and their own, and how strong
    their finest detail is."""
    labels = labels_of(x)
    volumes, shares, judge = label_volumes(labels), largest_shares(labels), seen_by_judge(x[:, 0], labels)
    return {
        "mean": rounded(volumes.mean(0), 1),
        "spread": rounded(volumes.std(0), 1),
        "largest_share": rounded(shares.mean()),
        "in_one_piece": rounded((shares > 0.99).all(1).float().mean()),
        "judge": [judge["anterior"], judge["posterior"]],
        "detail": rounded(fine_detail(x[:, 0])),
        "volumes": len(x),
    }


def begin():
    """The same of real volumes, and of those held out after a pass through the autoencoder: the ceiling. Of the held
    out also how near they come to a training box."""
    cases = {split: torch.as_tensor(datasets.hippocampi(split)) for split in ("train", "validation", "test")}
    held_out = torch.cat([cases["validation"], cases["test"]])
    net = pretrained.load("hippocampus_autoencoder")
    decoded = in_batches(lambda x: net.decode(net.encode(x)), held_out, 20).clamp(-1, 1)
    real = {"training cases": described(cases["train"])}
    real |= {name: described(x) | nearest(x) for name, x in (("held out", held_out), ("held out, decoded", decoded))}
    above = {"precision": runtime.precision_name(), "real": real}
    return above | {"autoencoder": training_minutes("hippocampus_autoencoder")}, {}


def training_minutes(name, steps=3):
    """What the training of a network that ships costs on this machine: {"images_seen", "training_minutes"}, processor
    minutes, from the time of so many of its steps."""
    recipe, seen = RECIPES[name], pretrained.card(name)["images_seen"]
    batches = Batches(*recipe.load_data(), batch_size=recipe.batch_size)
    about = {"precision": precision_of(recipe), "optimizer": recipe.optimizer, "peak_rate": recipe.peak_rate}
    net = recipe.fresh().to(runtime.device())
    first, *_, last = [state.core_seconds for state in train(net, batches, recipe.loss, steps=steps + 1, **about)]
    minutes = (last - first) / steps / recipe.batch_size * seen / 60
    return {"images_seen": seen, "training_minutes": rounded(minutes, 1)}


def nearest(x):
    """The least and the median distance (RMS) of the images of volumes x to the nearest box of the training."""
    found = nearest_rms(x[:, 0], to_tensor(RECIPES["hippocampus"].load_data()[0])[:, 0])[0]
    return {"nearest": rounded([found.min(), found.median()])}


def measure(method, seed):
    """A row: what 100 volumes of a network are like, and the processor seconds that each took."""
    name, changes, drawn, _ = METHODS[method]
    recipe = of_seed(RECIPES[name], seed)
    args = recipe.network_args | changes
    recipe = dataclasses.replace(recipe, name="_".join([recipe.name, *changes]), network_args=args)
    net = runtime.placed(finished(recipe, FOLDER)[0]) if seed else pretrained.load(name)
    start = time.process_time()
    x = drawn(recipe, net)
    seconds = (time.process_time() - start) / len(x)
    cost = {"seconds": rounded(seconds, 3)} | ({} if seed else training_minutes(name))
    return described(x) | nearest(x) | cost, {}


STUDY = Study(
    "07_volumes",
    lambda record=None: [{"method": method, "seed": seed} for method in METHODS for seed in METHODS[method][-1]],
    measure,
    begin,
    ("hippocampus_autoencoder", "hippocampus_unet"),
    networks=lambda key: [METHODS[key["method"]][0]],  # of other seeds too: they stand beside the one that ships
)
