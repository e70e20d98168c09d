"""``python -m course_lib.train NAME``: train one of the networks that the course ships.

Training may be killed and called again: it goes on from its last checkpoint. It runs on one process or, under
``torchrun --nproc-per-node K -m course_lib.train NAME``, on K. ``--ship`` measures the result and writes weights and
card. ``--from OTHER`` starts from the weights of a shipped network of the same architecture. ``--compile`` runs the
network under ``torch.compile``, which pays in trainings of an hour or more.
"""

import argparse
import dataclasses
import os
import sys

import torch
from torch import distributed

from course_lib import runtime
from course_lib.checkpoints import read_checkpoint
from course_lib.datasets import DataError
from course_lib.recipes import RECIPES
from course_lib.recipes.runs import checkpoint_path, is_main_process, run, settings, ship


def _recipe(name, steps):
    """The entry of that name, with so many steps, or its own for None."""
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(sorted(RECIPES))}")
    recipe = RECIPES[name]
    if runtime.full_profile():
        recipe = dataclasses.replace(recipe, **recipe.full)
    if steps is not None:
        if steps < 1:
            raise ValueError(f"--steps must be at least 1, of one batch each; got {steps}")
        recipe = dataclasses.replace(recipe, steps=steps)
    return recipe


def _precision(asked, recipe, folder):
    """torch.float32 or torch.bfloat16; for "auto" that of the checkpoint, or the one that is faster here."""
    if asked == "auto":
        asked = settings(recipe, folder).get("precision")
    return getattr(torch, asked) if asked else runtime.precision()


def _train(args):
    """Train, and ship where asked to; prints what was done."""
    recipe, done = _recipe(args.name, args.steps), 0
    path = checkpoint_path(recipe, args.folder)
    try:
        precision = _precision(args.precision, recipe, args.folder)
        for state in run(recipe, args.folder, precision, args.start, args.compile):
            done = state.step
    except KeyboardInterrupt:
        there = f"step {read_checkpoint(path)[3]}" if path.exists() else "the start, since there is no checkpoint yet"
        after = f" after step {done}" if done else ""
        raise KeyboardInterrupt(f"stopped{after}; the same command goes on from {there} ({path})") from None
    if not is_main_process():
        return
    if not done:
        print(f"{path} has all of its {recipe.steps} steps already: nothing to train")
    if args.ship:
        print(ship(recipe, args.folder))


def main(argv=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.train", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="the network to train, an entry of course_lib/recipes")
    parser.add_argument("--folder", default="runs", help="where checkpoints go (default: runs)")
    parser.add_argument("--steps", type=int, help="train for so many steps, of one batch each, instead of the recipe's")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--from", dest="start", metavar="OTHER", help="start from the weights of a shipped network")
    parser.add_argument("--compile", action="store_true", help="compile the network first: minutes, then faster steps")
    parser.add_argument("--ship", action="store_true", help="afterwards measure it, and write weights and card")
    args = parser.parse_args(argv)
    if "RANK" in os.environ:
        distributed.init_process_group()
    try:
        _train(args)
    except (ValueError, OSError, DataError) as error:
        status, said = 1, error
    except KeyboardInterrupt as stop:
        status, said = 130, stop
    else:
        return 0
    if is_main_process():
        print(f"course_lib.train: {said}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
