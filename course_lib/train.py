"""``python -m course_lib.train NAME``: train one of the networks that the course ships.

Training may be killed and called again: it goes on from its last checkpoint. It runs on one process or, under
``torchrun --nproc-per-node K -m course_lib.train NAME``, on K. ``--ship`` measures the result and writes weights and
card.
"""

import argparse
import dataclasses
import os
import platform
from pathlib import Path

import torch
from torch import distributed

from course_lib import pretrained, runtime
from course_lib.networks import build
from course_lib.recipes import RECIPES
from course_lib.training import Batches, load_checkpoint, progress, save_checkpoint, train

CHECKPOINT_SECONDS = 120


def checkpoint_path(recipe, folder):
    """Where the checkpoint of a recipe lies in a folder."""
    return Path(folder) / f"{recipe.name}.checkpoint.safetensors"


def run(recipe, folder, precision):
    """Train a recipe to its end, with a checkpoint in ``folder`` every two minutes; yields each state."""
    torch.manual_seed(recipe.seed)
    net = runtime.placed(build(recipe.network, **recipe.network_args))
    batches = Batches(*recipe.load_data(), batch_size=recipe.batch_size, seed=recipe.seed)
    checkpoint = checkpoint_path(recipe, folder)
    states = train(
        net,
        batches,
        recipe.loss,
        steps=recipe.steps,
        peak_rate=recipe.peak_rate,
        seed=recipe.seed,
        precision=precision,
        resume=checkpoint,
    )
    main = int(os.environ.get("RANK", 0)) == 0
    saved = 0.0
    for state in progress(states, desc=recipe.name, disable=not main):
        if main and (state.seconds - saved > CHECKPOINT_SECONDS or state.step == state.steps):
            save_checkpoint(checkpoint, state)
            saved = state.seconds
        yield state


def trained(recipe, folder):
    """The averaged network of a recipe's checkpoint and the number of steps that it was trained for."""
    net = build(recipe.network, **recipe.network_args)
    ema = build(recipe.network, **recipe.network_args).eval().requires_grad_(False)
    step = load_checkpoint(checkpoint_path(recipe, folder), net, ema, torch.optim.AdamW(net.parameters()))
    return ema, step


def ship(recipe, folder):
    """Measure a trained recipe and write ``weights/NAME.safetensors`` and its card."""
    net, step = trained(recipe, folder)
    net = runtime.placed(net)
    quality, extra = recipe.measure(recipe, net)
    about = recipe.describe() | {"steps": step, "trained_on": platform.processor() or platform.machine()} | quality
    pretrained.save(recipe.name, net, about, extra)
    return about


def main():
    parser = argparse.ArgumentParser(prog="python -m course_lib.train", description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(RECIPES), help="the network to train")
    parser.add_argument("--folder", default="runs", help="where checkpoints go (default: runs)")
    parser.add_argument("--steps", type=int, help="train for so many steps instead of the recipe's")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--ship", action="store_true", help="afterwards measure it, and write weights and card")
    args = parser.parse_args()
    recipe = RECIPES[args.name]
    if runtime.full_profile():
        recipe = dataclasses.replace(recipe, **recipe.full)
    if args.steps:
        recipe = dataclasses.replace(recipe, steps=args.steps)
    precision = runtime.precision() if args.precision == "auto" else getattr(torch, args.precision)
    if "RANK" in os.environ:
        distributed.init_process_group()
    for _ in run(recipe, args.folder, precision):
        pass
    if args.ship and int(os.environ.get("RANK", 0)) == 0:
        print(ship(recipe, args.folder))


if __name__ == "__main__":
    main()
