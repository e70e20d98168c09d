"""``python -m course_lib.train NAME``: train one of the networks that the course ships.

Training may be killed and called again: it goes on from its last checkpoint. It runs on one process or, under
``torchrun --nproc-per-node K -m course_lib.train NAME``, on K. ``--ship`` measures the result and writes weights and
card. ``--from OTHER`` starts from the weights of a shipped network of the same architecture.
"""

import argparse
import dataclasses
import os
import platform
import sys
import tempfile
from pathlib import Path

import torch
from torch import distributed

from course_lib import pretrained, runtime
from course_lib.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint
from course_lib.datasets import DataError
from course_lib.recipes import RECIPES
from course_lib.training import Batches, progress, train

CHECKPOINT_SECONDS = 120


def checkpoint_path(recipe, folder):
    """Where the checkpoint of a recipe lies in a folder."""
    return Path(folder) / f"{recipe.name}.checkpoint.safetensors"


def _main_process():
    return int(os.environ.get("RANK", 0)) == 0


def _start(recipe, start):
    """The recipe's network with freshly drawn weights, or with those of the shipped network ``start``."""
    torch.manual_seed(recipe.seed)
    net = runtime.placed(recipe.fresh())
    if start:
        try:
            getattr(net, "start_from", net.load_state_dict)(pretrained.load(start).state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{start} has another architecture than {recipe.name}: start from one of the same"
            ) from error
    return net


def run(recipe, folder, precision, start=None):
    """Train a recipe to its end, with a checkpoint in ``folder`` every two minutes; yields each state.

    start : name of a shipped network whose weights are the first. Raises ValueError and OSError, in one sentence, for
    a folder that cannot be written, and as :func:`~course_lib.training.train`.
    """
    _check_folder(folder)
    net = _start(recipe, start or recipe.start)
    about = {"recipe": recipe.name, "network_args": recipe.network_args}
    if recipe.base:
        about["base"] = recipe.base
    if start:
        about["from"] = f"{start} {pretrained.card(start)['sha256'][:16]}"
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
        about=about,
    )
    main = _main_process()
    saved = 0.0
    for state in progress(states, desc=recipe.name, disable=not main):
        if main and (state.seconds - saved > CHECKPOINT_SECONDS or state.step == state.steps):
            save_checkpoint(checkpoint, state)
            saved = state.seconds
        yield state


def _check_folder(folder):
    """Raises OSError, naming the folder, unless it is there, or can be made, and files can be written into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = "is no folder" if isinstance(error, (FileExistsError, NotADirectoryError)) else f"({error.strerror})"
        raise OSError(f"checkpoints cannot be written to {folder} {why}: give another with --folder") from error


def trained(recipe, folder):
    """The averaged network of a recipe's checkpoint and the number of steps that it was trained for."""
    net, ema = recipe.fresh(), recipe.fresh().eval().requires_grad_(False)
    step = load_checkpoint(checkpoint_path(recipe, folder), net, ema, torch.optim.AdamW(net.parameters()))
    return ema, step


def _settings(recipe, folder):
    """The settings of the run of a recipe's checkpoint; {} without one, or where it is of before they were kept."""
    path = checkpoint_path(recipe, folder)
    return (read_checkpoint(path)[-1] or {}) if path.exists() else {}


def ship(recipe, folder):
    """Measure a trained recipe and write ``weights/NAME.safetensors`` and its card."""
    net, step = trained(recipe, folder)
    net = runtime.placed(net)
    quality, extra = recipe.measure(recipe, net)
    about = recipe.describe() | {"steps": step, "trained_on": platform.processor() or platform.machine()} | quality
    if start := _settings(recipe, folder).get("from"):
        about["from"] = start
    pretrained.save(recipe.name, net, about, extra)
    return about


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
        asked = _settings(recipe, folder).get("precision")
    return getattr(torch, asked) if asked else runtime.precision()


def _train(args):
    """Train, and ship where asked to; prints what was done."""
    recipe, done = _recipe(args.name, args.steps), 0
    path = checkpoint_path(recipe, args.folder)
    try:
        for state in run(recipe, args.folder, _precision(args.precision, recipe, args.folder), args.start):
            done = state.step
    except KeyboardInterrupt:
        there = f"step {read_checkpoint(path)[3]}" if path.exists() else "the start, since there is no checkpoint yet"
        after = f" after step {done}" if done else ""
        raise KeyboardInterrupt(f"stopped{after}; the same command goes on from {there} ({path})") from None
    if not _main_process():
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
    if _main_process():
        print(f"course_lib.train: {said}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
