"""What makes a run of training this run and no other, and the checkpoints from which it goes on."""

import hashlib
import json
import logging
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from types import FunctionType, MethodType

import numpy as np
import torch

from course_lib.files import digest, read_metadata, read_tensors, write_tensors


def _described(value, within=()):
    """A setting as JSON holds it: objects by class and fields, functions of a module by name, others by what they hold
    as well, arrays and weights by a checksum. within : ids of what it is a part of; what holds itself is named once."""
    if id(value) in within:
        return type(value).__name__
    described = partial(_described, within=(*within, id(value)))
    if is_dataclass(value):
        return {"class": type(value).__name__} | {f.name: described(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, partial):
        return {"function": described(value.func), "given": described([value.args, value.keywords])}
    if isinstance(value, dict):
        return {str(key): described(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [described(part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, MethodType):
        return {"function": value.__qualname__, "of": described(value.__self__)}
    if callable(value) and hasattr(value, "__qualname__"):
        made_in_place = isinstance(value, FunctionType) and "<" in value.__qualname__  # <lambda>, <locals>
        return _function(value, described) if made_in_place else value.__qualname__
    if torch.is_tensor(value) or isinstance(value, np.ndarray):
        return digest({"": torch.as_tensor(value)}, {})[:16]
    if isinstance(value, (set, frozenset)):
        return {"class": type(value).__name__, "holds": sorted(map(repr, value))}
    if isinstance(value, (range, slice, bytes, complex, Path, torch.dtype, torch.device)):
        return {"class": type(value).__name__, "is": str(value)}
    about = {key: part for key, part in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
    if isinstance(value, torch.nn.Module) and value.state_dict():
        about["weights"] = digest(value.state_dict(), {})[:16]
    return {"class": type(value).__name__} | {key: described(about[key]) for key in sorted(about)}


def _function(function, described):
    """A function whose name is no address: by its name, a checksum of its code, and the values that it holds."""
    code, closure = function.__code__, function.__closure__ or ()
    held = [cell.cell_contents for cell in closure] + [function.__defaults__, function.__kwdefaults__]
    said = json.dumps([code.co_names, described(code.co_consts)]).encode()
    checksum = hashlib.sha256(code.co_code + said).hexdigest()[:16]
    return {"function": function.__qualname__, "code": checksum, "holds": described(held)}


def _flat(settings, prefix=""):
    """Nested settings as one level: {"loss": {"kind": "v"}} -> {"loss.kind": "v"}."""
    found = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _version():
    try:
        return metadata.version("diffusion-medical-imaging")
    except metadata.PackageNotFoundError:  # a clone that was never installed
        return "not installed"


MADE_WITH = ("course", "torch", "device")  # a change of these is told, and no reason to refuse


def identity(net, batches, loss, *, steps, peak_rate, seed, precision, world=1, about=None):
    """What makes a run this run and no other, {setting: value}, as its checkpoints keep it.

    about : further settings, such as the name of a recipe.
    """
    settings = dict(about or {}) | {"network": type(net).__name__, "loss": _described(loss)}
    settings |= getattr(batches, "settings", {})
    settings |= {"seed": seed, "peak_rate": peak_rate, "steps": steps, "processes": world}
    settings |= {"precision": str(precision).removeprefix("torch.")}
    device = next(net.parameters()).device.type
    settings |= {"course": _version(), "torch": torch.__version__, "device": device}
    return json.loads(json.dumps(_flat(_described(settings))))


def _compare(path, now, then, done, rate):
    """Raises ValueError, naming every setting that differs, unless the run ``now`` may go on from step ``done`` of the
    run ``then``; says what differs and does not matter."""
    if then is None:
        logging.getLogger(__name__).warning("%s does not say by which settings it was made: it goes on by these", path)
        return
    differ = {key for key in now.keys() | then.keys() if now.get(key) != then.get(key)}
    old_steps, new_steps = then["steps"], now["steps"]
    if "steps" in differ and done and rate(done - 1, old_steps, 1.0) == rate(done - 1, new_steps, 1.0):
        differ.remove("steps")  # the learning rate had not begun to fall: all steps so far are those of this run too
    told = [f"{key} was {then.get(key)!r} and is {now.get(key)!r}" for key in sorted(differ)]
    if differ - set(MADE_WITH):
        told = [text for key, text in zip(sorted(differ), told) if key not in MADE_WITH]
        raise ValueError(
            f"{path} is of a run with other settings ({'; '.join(told)}): go back to those, or move or delete the "
            "file to start anew"
        )
    if told:
        logging.getLogger(__name__).warning("%s goes on, though %s", path, "; ".join(told))


def save_checkpoint(path, state):
    """Write all that a resumed run needs to ``path`` (safetensors), at once or not at all: weights, moments, the step,
    the settings of the run, and a checksum over all of it."""
    tensors = {f"net.{name}": value for name, value in state.net.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in state.ema.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    said = {"step": json.dumps(state.step), "identity": json.dumps(state.identity)}
    said["core_seconds"] = json.dumps(state.core_seconds)
    write_tensors(path, tensors, said | {"sha256": digest(tensors, said)})


def read_checkpoint(path):
    """Weights, averages and moments by name, three dicts, the step, and the settings of the run, None in a checkpoint
    of before they were kept. Raises ValueError, naming the file, where it is missing, damaged or no checkpoint."""
    remedy = "move or delete it, then train again"
    if not Path(path).exists():
        raise ValueError(f"there is no checkpoint {path}: train first")
    tensors, said = read_tensors(path)
    checksum = said.pop("sha256", None)
    if checksum is not None and digest(tensors, said) != checksum:
        raise ValueError(f"{path} is damaged or was edited (its checksum differs): {remedy}")
    part = {"net": {}, "ema": {}, "optimizer": {}}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        part.setdefault(owner, {})[rest] = value
    if "step" not in said or len(part) > 3 or not all(part.values()):
        raise ValueError(f"{path} is no whole checkpoint (it wants weights, averages, moments and a step): {remedy}")
    run = json.loads(said["identity"]) if "identity" in said else None
    return part["net"], part["ema"], part["optimizer"], json.loads(said["step"]), run


def core_seconds(path):
    """The processor time in seconds that the run of a checkpoint has taken; 0 for one of before it was kept."""
    return json.loads(read_metadata(path).get("core_seconds", "0"))


def load_checkpoint(path, net, ema, optimizer=None, run=None, rate=None):
    """Put a checkpoint's weights, and the moments of an optimizer, in place; returns the number of steps that it had
    done.

    run : the settings to go on by, as :func:`identity` gives them, and rate(step, steps, peak), the learning rate: a
    run of another length goes on where the rate had not begun to fall. Raises ValueError, naming the file, where the
    checkpoint is that of another network or of other settings, is damaged or is missing.
    """
    weights, averages, flat, step, then = read_checkpoint(path)
    if run is not None:
        _compare(path, run, then or None, step, rate)
    try:
        net.load_state_dict(weights)
        ema.load_state_dict(averages)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} was made by another network: move or delete it, then train again ({why})") from error
    if optimizer is None:
        return step
    moments = {}
    for name, value in flat.items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return step
