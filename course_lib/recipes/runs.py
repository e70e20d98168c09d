"""Runs of recipes: training with checkpoints, and what is shipped of it."""

import dataclasses
import os
import platform
import tempfile
from pathlib import Path

import torch

from course_lib import pretrained, runtime
from course_lib.checkpoints import core_seconds, load_checkpoint, read_checkpoint, save_checkpoint
from course_lib.eight_bits import rounded
from course_lib.files import digest
from course_lib.losses import StableTargetLoss
from course_lib.networks import MeanFlowUNet
from course_lib.training import Batches, progress, train

CHECKPOINT_SECONDS = 120


def checkpoint_path(recipe, folder):
    """Where the checkpoint of a recipe lies in a folder."""
    return Path(folder) / f"{recipe.name}.checkpoint.safetensors"


def is_main_process():
    """Whether this is the only process, or the first of several under ``torchrun``: the one that writes and speaks."""
    return int(os.environ.get("RANK", 0)) == 0


def _placed(net, precision, compiled):
    """net on this machine's device, its weights in the order in which it trains fastest: on a CPU in bfloat16 the plain
    one, since PyTorch's group normalisation goes backward twenty times slower in channels-last order; and so for a
    MeanFlow, as derivatives in forward mode do not know that order."""
    net = runtime.placed(net)
    slow = runtime.device() == "cpu" and precision == torch.bfloat16 and not compiled
    return net.to(memory_format=torch.contiguous_format) if slow or isinstance(net, MeanFlowUNet) else net


def _start(recipe, start, precision, compiled):
    """The recipe's network with freshly drawn weights, or with those of ``start``, a network or the name of one that
    ships."""
    torch.manual_seed(recipe.seed)
    net = _placed(recipe.fresh(), precision, compiled)
    if start:
        first = pretrained.load(start) if isinstance(start, str) else start
        try:
            getattr(net, "start_from", net.load_state_dict)(first.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{_name(start)} has another architecture than {recipe.name}: start from one of the same"
            ) from error
    return net


def _name(start):
    """The name of a network that one starts from, or its class where it has none."""
    return start if isinstance(start, str) else type(start).__name__


def _checksum(start):
    """A checksum of the weights of a network that one starts from."""
    return pretrained.card(start)["sha256"] if isinstance(start, str) else digest(start.state_dict(), {})


def precision_of(recipe):
    """The precision in which a recipe is trained here: its own, or the faster one of this machine."""
    return getattr(torch, recipe.precision) if recipe.precision else runtime.precision()


def run(recipe, folder, precision, start=None, compiled=False):
    """Train a recipe to its end, with a checkpoint in ``folder`` every two minutes; yields each state.

    start : the network whose weights are the first, or the name of one that ships; compiled : as for
    :func:`~course_lib.training.train`. Raises ValueError and OSError, in one sentence, for
    a folder that cannot be written, and as :func:`~course_lib.training.train`.
    """
    _check_folder(folder)
    net = _start(recipe, start or recipe.start, precision, compiled)
    about = {"recipe": recipe.name, "network_args": recipe.network_args}
    if recipe.base:
        about["base"] = recipe.base
    if start:
        about["from"] = f"{_name(start)} {_checksum(start)[:16]}"
    data = recipe.load_data()
    batches = Batches(*data, batch_size=recipe.batch_size, seed=recipe.seed)
    checkpoint = checkpoint_path(recipe, folder)
    states = train(
        net,
        batches,
        recipe.loss.of(*data) if isinstance(recipe.loss, StableTargetLoss) else recipe.loss,
        steps=recipe.steps,
        peak_rate=recipe.peak_rate,
        seed=recipe.seed,
        precision=precision,
        resume=checkpoint,
        about=about,
        compiled=compiled,
        optimizer=recipe.optimizer,
    )
    main = is_main_process()
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


def finished(recipe, folder, start=None):
    """What :func:`trained` gives, after the run of a recipe, or the rest of it, has been made here. start : as for
    :func:`run`."""
    for _ in run(recipe, folder, precision_of(recipe), start):
        pass
    return trained(recipe, folder)


def of_seed(recipe, seed):
    """The recipe for a training of its own, from freshly drawn weights, with another seed: its name ends in it."""
    return dataclasses.replace(recipe, name=f"{recipe.name}_{seed}", seed=seed, start=None)


def trained(recipe, folder):
    """The averaged network of a recipe's checkpoint and the number of steps that it was trained for."""
    net, ema = recipe.fresh(), recipe.fresh().eval().requires_grad_(False)
    return ema, load_checkpoint(checkpoint_path(recipe, folder), net, ema)


def settings(recipe, folder):
    """The settings of the run of a recipe's checkpoint; {} without one, or where it is of before they were kept."""
    path = checkpoint_path(recipe, folder)
    return (read_checkpoint(path)[-1] or {}) if path.exists() else {}


def _seen_before(start):
    """Images that the network of that name, "NAME" or "NAME SHA256...", has seen; None where none of that name ships,
    its card does not say, or is by now that of another."""
    if not start:
        return 0
    name, *begun = start.split()
    if name not in pretrained.names():
        return None
    is_that = all(pretrained.card(name)["sha256"].startswith(sha256) for sha256 in begun)
    return pretrained.budget(name)["images seen"] if is_that else None


def _cost(recipe, folder, step):
    """What a card says of what the training cost: images seen, those of the network that it started from too, and the
    core-hours of the last training where it ran on a CPU; each where it is known."""
    found, path = settings(recipe, folder), checkpoint_path(recipe, folder)
    about = {"from": found["from"]} if "from" in found else {}
    if (before := _seen_before(found.get("from", recipe.start))) is not None:
        about["images_seen"] = before + step * recipe.batch_size
    if found.get("device", "cpu") == "cpu" and (seconds := core_seconds(path)):
        about["core_hours"] = round(seconds / 3600, 2)
    return about


def measured(recipe, folder):
    """The network of a recipe's checkpoint, as it ships, its card, and the tensors to ship beside its weights."""
    net, step = trained(recipe, folder)
    net = runtime.placed(rounded(net))
    quality, extra = recipe.measure(recipe, net)
    about = recipe.describe() | {"steps": step, "trained_on": platform.processor() or platform.machine()}
    return net, about | _cost(recipe, folder, step) | quality, extra


def ship(recipe, folder, into=None):
    """Measure a trained recipe and write NAME.safetensors and its card ``into`` a folder, or beside those that ship."""
    net, about, extra = measured(recipe, folder)
    pretrained.save(recipe.name, net, about, extra, into, stored="int8")
    return about
