"""``python -m course_lib.train NAME``: train one of the networks that the course ships, or, by ``my_recipe.py``, one's
own: a file that sets ``recipe``, a :class:`~course_lib.recipes.recipe.Recipe`.

Training may be killed and called again: it goes on from its last checkpoint. It runs on one process or, under
``torchrun --nproc-per-node K -m course_lib.train NAME``, on K, each with a GPU of its own where there are some, and its
share of each batch. ``--ship`` measures the result and writes weights and card, those of one's own into ``--folder``.
``--from OTHER`` starts from the weights of a shipped network of the same architecture. ``--compile`` runs the
network under ``torch.compile``, which pays in trainings of an hour or more: with ``--next`` it is on where a compiler
works, and off elsewhere unless asked for.

In place of a name, ``--next`` takes the next entry of the queue, ``course_lib/recipes/queue.py``, and with ``--ship``
ships it if it meets its bar; ``--gpu-day MINUTES`` trains the whole queue on one large GPU within that time, or of it
``--only NAME,NAME``.
"""

import argparse
import dataclasses
import json
import math
import runpy
import sys
from pathlib import Path

import torch
from torch import distributed

from course_lib import compiling, pretrained, runtime
from course_lib.checkpoints import read_checkpoint
from course_lib.datasets import DataError
from course_lib.files import write_atomically
from course_lib.recipes import RECIPES
from course_lib.recipes.gpu_day import gpu_day
from course_lib.recipes.queue import measured_path, next_entry
from course_lib.recipes.recipe import Recipe
from course_lib.recipes.runs import checkpoint_path, is_main_process, measured, precision_of, run, settings, ship


def _is_file(name):
    return name.endswith(".py")


def _own(path):
    """The ``recipe`` that a file sets. Raises ValueError where it is missing or sets none."""
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: give that of your recipe, or the name of one of the course's")
    recipe = runpy.run_path(path).get("recipe")
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{path} must set `recipe`, as unet(...) of course_lib/recipes/recipe.py makes one")
    return recipe


def _recipe(name, steps):
    """The entry of that name, or that of a file, with so many steps, or its own for None."""
    if not _is_file(name) and name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; there are: {', '.join(sorted(RECIPES))}; or a file of your own, NAME.py")
    recipe = _own(name) if _is_file(name) else RECIPES[name]
    if runtime.full_profile():
        recipe = dataclasses.replace(recipe, **recipe.full)
    if steps is not None:
        if steps < 1:
            raise ValueError(f"--steps must be at least 1, of one batch each; got {steps}")
        recipe = dataclasses.replace(recipe, steps=steps)
    return recipe


def _precision(asked, recipe, folder):
    """torch.float32 or torch.bfloat16; for "auto" that of the checkpoint, or the recipe's. One for all processes, since
    each would measure for itself which is faster."""
    if asked == "auto":
        asked = settings(recipe, folder).get("precision")
    found = [getattr(torch, asked) if asked else precision_of(recipe)]
    if distributed.is_initialized():
        distributed.broadcast_object_list(found)
    return found[0]


def _compiled(args):
    """Whether the network is compiled: as asked for, or for the queue where a compiler works."""
    return args.next and not compiling.trouble(runtime.device()) if args.compile is None else args.compile


def _train(recipe, start, args):
    """Train a recipe to its end; says where it goes on if it is stopped."""
    path, done = checkpoint_path(recipe, args.folder), 0
    try:
        precision = _precision(args.precision, recipe, args.folder)
        for state in run(recipe, args.folder, precision, start, _compiled(args)):
            done = state.step
    except KeyboardInterrupt:
        there = f"step {read_checkpoint(path)[3]}" if path.exists() else "the start, since there is no checkpoint yet"
        after = f" after step {done}" if done else ""
        raise KeyboardInterrupt(f"stopped{after}; the same command goes on from {there} ({path})") from None
    if is_main_process() and not done:
        print(f"{path} has all of its {recipe.steps} steps already: nothing to train")


def _train_named(args):
    """Train the recipe of that name, and ship it where asked to; prints its card."""
    recipe = _recipe(args.name, args.steps)
    if args.ship:  # what would be refused after hours is refused before
        pretrained.checked_name(recipe.name)
        if not callable(recipe.measure):
            raise ValueError(f"{recipe.name} has no `measure`, a function of the network that gives what its card says")
    _train(recipe, args.start, args)
    if args.ship and is_main_process():
        print(ship(recipe, args.folder, args.folder if _is_file(args.name) else None))


def _train_next(args):
    """Train the next entry of the queue, and ship it where asked to and its bar is met; prints what it came to."""
    entry = next_entry(args.folder, args.ship)
    if entry is None:
        print("all of the queue is trained: nothing to do")
        return
    recipe = entry.recipe()
    if is_main_process():
        print(f"{entry.name}, of the queue: {recipe.steps} steps of {recipe.batch_size} images", flush=True)
    _train(recipe, entry.start, args)
    if not (args.ship and is_main_process()):
        return
    net, about, extra = measured(recipe, args.folder)
    missed = entry.misses(about)
    if not missed:
        pretrained.save(entry.name, net, about, extra, stored="int8")
    write_atomically(measured_path(entry.name, args.folder), json.dumps(about, indent=2).encode())
    print(f"{entry.name} is {'shipped' if not missed else 'not shipped: ' + '; '.join(missed)}")


def _train_all(args):
    """Train the whole queue within a time; prints what became of each network."""
    if not 0 < args.gpu_day < math.inf or args.slots < 1:
        raise ValueError(f"--gpu-day wants minutes above 0 and --slots at least 1; got {args.gpu_day} and {args.slots}")
    precision = None if args.precision == "auto" else getattr(torch, args.precision)
    only = args.only.split(",") if args.only else ()
    for name, said in gpu_day(args.gpu_day, args.folder, args.slots, bool(args.compile), precision, only).items():
        print(f"{name}: {said['result']}")


def main(argv=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m course_lib.train", description="Train a network that the course ships, or one of your own."
    )
    parser.add_argument("name", nargs="?", help="an entry of course_lib/recipes, or a file of your own, NAME.py")
    parser.add_argument("--next", action="store_true", help="train the next entry of the queue instead")
    parser.add_argument(
        "--gpu-day", type=float, metavar="MINUTES", help="train the whole queue instead, on a large GPU"
    )
    parser.add_argument("--slots", type=int, default=6, help="networks side by side on a GPU day (default: 6)")
    parser.add_argument("--only", metavar="NAMES", help="on a GPU day: these entries alone, with commas between them")
    parser.add_argument("--folder", default="runs", help="where checkpoints go (default: runs)")
    parser.add_argument("--steps", type=int, help="train for so many steps, of one batch each, instead of the recipe's")
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of the network; auto: that of the checkpoint, or the faster one here (default: auto)",
    )
    parser.add_argument("--from", dest="start", metavar="OTHER", help="start from the weights of a shipped network")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the network first: minutes, then faster steps (default: with --next, where a compiler works)",
    )
    parser.add_argument("--ship", action="store_true", help="afterwards measure it, and write weights and card")
    args = parser.parse_args(argv)
    many = args.gpu_day is not None
    if bool(args.name) + args.next + many != 1:
        parser.error("give the name of a network, or --next for the next one of the queue, or --gpu-day for all of it")
    if args.only and not many:
        parser.error("--only chooses entries of a GPU day: give --gpu-day with it")
    if many and args.ship:
        parser.error("--ship is for one network: a GPU day writes results, and you choose among them")
    if not args.name and (args.steps is not None or args.start):
        parser.error("--steps and --from are those of the queue's entries: leave them out")
    try:
        runtime.join_processes()
        (_train_all if many else _train_next if args.next else _train_named)(args)
    except (ValueError, OSError, DataError) as error:
        status, said = 1, error
    except KeyboardInterrupt as stop:
        status, said = 130, stop
    else:
        return 0
    if is_main_process() or not distributed.is_initialized():  # a process that could not join speaks for itself
        print(f"course_lib.train: {said}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
