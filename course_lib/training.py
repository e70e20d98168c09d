"""The training loop. It yields its state after every step, so that a plot, a widget or a test needs no callback.

Everything random in step k is drawn from a generator seeded by (seed, k). So a run that was killed and resumed from its
checkpoint ends with the same weights, bit for bit, as one that was not, and a checkpoint needs no random state.
"""

import copy
import itertools
import json
import logging
import time
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from course_lib.arguments import positive, whole
from course_lib.files import digest, read_tensors, write_tensors
from course_lib.images import to_tensor


def step_generator(seed, step, stream=0):
    """A torch.Generator that depends on (seed, step, stream) alone."""
    whole(0, seed=seed, step=step, stream=stream)
    words = np.random.SeedSequence([seed, step, stream]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


class Batches:
    """batches(k) gives batch k: random order without replacement, epoch after epoch, a function of (seed, k) alone.

    images : (N, H, W), or (N, C, ...) with channels; uint8 in 0..255, or floats, taken as they are.
    labels : (N,) or maps (N, H, W) of integers, or None.
    A batch is x_0 (B, C, ...) float32, in [-1, 1] if the images are, and y int64 or None.
    Raises ValueError for images or labels of another kind, and for labels that do not belong to the images.
    """

    def __init__(self, images, labels=None, batch_size=64, seed=0):
        whole(batch_size=batch_size)
        if len(images) < batch_size:
            raise ValueError(
                f"{len(images)} images are fewer than one batch of {batch_size}: give more images, or a smaller "
                "batch_size"
            )
        to_tensor(images[:1])  # whether they are images at all
        if labels is not None:
            _check_labels(images, labels)
        self.images, self.labels, self.batch_size, self.seed = images, labels, batch_size, seed
        self._epoch = None

    def __call__(self, step):
        epoch, position = divmod(step, len(self.images) // self.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
        chosen = np.sort(self._order[position * self.batch_size : (position + 1) * self.batch_size])
        y = None if self.labels is None else torch.as_tensor(self.labels[chosen], dtype=torch.int64)
        return to_tensor(self.images[chosen]), y


def _check_labels(images, labels):
    """Raises ValueError unless labels are whole numbers of at least 0: one, or one map, for each of the images."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "biu" or (labels.size and labels.min() < 0):
        raise ValueError(f"labels must be whole numbers of at least 0, one class or map an image; got {labels.dtype}")
    if labels.ndim < 1 or len(labels) != len(images):
        raise ValueError(
            f"labels must be as many as there are images, {len(images)}, (N,) or maps (N, H, W); got shape "
            f"{labels.shape}"
        )


def learning_rate(step, steps, peak, warmup=200, decay=0.3):
    """Rises linearly for ``warmup`` steps, stays at ``peak``, and falls linearly to zero over the last ``decay`` of
    all steps.

    The fall to zero is where most of the visible quality comes from (Hägele et al., NeurIPS 2024, on this shape).
    """
    warm = min(1.0, (step + 1) / warmup)
    cool = min(1.0, (steps - step) / (decay * steps))
    return peak * warm * cool


def ema_decay(step, longest=0.998):
    """Decay of the running average of the weights: (1 + step) / (10 + step), so that it forgets the start, up to
    ``longest``."""
    return min(longest, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(ema, net, decay):
    """ema <- decay ema + (1 - decay) net, in place, for every parameter and buffer, once where two names share one;
    counters are copied."""
    pairs = zip(itertools.chain(ema.parameters(), ema.buffers()), itertools.chain(net.parameters(), net.buffers()))
    for average, current in pairs:
        if average.is_floating_point():
            average.lerp_(current, 1 - decay)
        else:
            average.copy_(current)


def average_gradients(net, share, loss):
    """Replace each gradient by its sum over all processes, weighted with each one's ``share`` of the batch: the
    gradient of the mean over the whole batch. One exchange a step, for all of them together.

    share : of the batch, 0 to 1; loss : the mean over that share, a scalar tensor. Returns the mean over the batch,
    the same on every process, which therefore all stop where it is NaN.
    """
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    used = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=loss.device)
    parts = [torch.zeros_like(p).flatten() if p.grad is None else share * p.grad.flatten() for p in parameters]
    flat = torch.cat([*parts, used, share * loss.detach()[None]])
    distributed.all_reduce(flat)
    *sums, used, total = flat.split([*(parameter.numel() for parameter in parameters), len(parameters), 1])
    for parameter, summed, count in zip(parameters, sums, used.tolist()):
        if count:  # by some process; a parameter without a gradient everywhere keeps none
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad.copy_(summed.view_as(parameter))
    return total[0]


# ---- What a run is ---------------------------------------------------------------------------------------------------


def _described(value):
    """A setting as JSON holds it: objects by class and fields, functions by name, arrays by a checksum."""
    if is_dataclass(value):
        return {"class": type(value).__name__} | {f.name: _described(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, partial):
        return {"function": _described(value.func), "given": _described([value.args, value.keywords])}
    if isinstance(value, dict):
        return {str(key): _described(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_described(part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    if torch.is_tensor(value) or isinstance(value, np.ndarray):
        return digest({"": torch.as_tensor(value)}, {})[:16]
    attributes = sorted(getattr(value, "__dict__", {}).items())
    return {"class": type(value).__name__} | {k: _described(part) for k, part in attributes if not k.startswith("_")}


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
    if isinstance(batches, Batches):
        settings |= {
            "images": len(batches.images),
            "batch_size": batches.batch_size,
            "order of the images": batches.seed,
        }
    settings |= {"seed": seed, "peak_rate": peak_rate, "steps": steps, "processes": world}
    settings |= {"precision": str(precision).removeprefix("torch.")}
    device = next(net.parameters()).device.type
    settings |= {"course": _version(), "torch": torch.__version__, "device": device}
    return json.loads(json.dumps(_flat(_described(settings))))


def _compare(path, now, then, done):
    """Raises ValueError, naming every setting that differs, unless the run ``now`` may go on from step ``done`` of the
    run ``then``; says what differs and does not matter."""
    if then is None:
        logging.getLogger(__name__).warning("%s does not say by which settings it was made: it goes on by these", path)
        return
    differ = {key for key in now.keys() | then.keys() if now.get(key) != then.get(key)}
    old_steps, new_steps = then["steps"], now["steps"]
    if "steps" in differ and done and _plain_rate(done, old_steps) == _plain_rate(done, new_steps):
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


def _plain_rate(done, steps):
    """The learning rate of the last of ``done`` steps, in units of the peak."""
    return learning_rate(done - 1, steps, 1.0)


# ---- The loop --------------------------------------------------------------------------------------------------------


@dataclass
class State:
    """Where training stands after ``step`` of ``steps`` steps: loss (B,), time (B,) or None, the two networks,
    seconds so far, and the settings of the run."""

    step: int
    steps: int
    loss: torch.Tensor
    t: torch.Tensor
    net: torch.nn.Module
    ema: torch.nn.Module
    optimizer: torch.optim.Optimizer
    seconds: float
    identity: dict = field(default_factory=dict)


def train(net, batches, loss, *, steps, peak_rate=5e-4, seed=0, precision=torch.float32, resume=None, about=None):
    """Train net for ``steps`` steps of AdamW; yields a :class:`State` after each.

    Under ``torchrun`` every process takes its share of each batch, and the gradient is that of the whole batch.

    Parameters
    ----------
    net : network to train, changed in place; state.ema is the average of its weights, which is what one keeps.
    batches : batches(k) gives batch k.
    loss : loss(net, batch, generator) gives the loss of each example (B,) and their times.
    precision : torch.bfloat16 runs the network under autocast, which pays on a GPU and on recent server CPUs.
    resume : path of a checkpoint written by :func:`save_checkpoint`; without that file training starts anew.
    about : further settings of the run, for its checkpoints, such as {"recipe": "mednist"}.

    Raises ValueError for a loss or gradient that is not finite, before that step is taken, on all processes; for
    labels that the network does not know; and for a checkpoint of other settings, of more steps, or damaged.
    """
    whole(steps=steps)
    positive(peak_rate=peak_rate)
    _check_classes(net, batches)
    device = next(net.parameters()).device
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    run = identity(
        net, batches, loss, steps=steps, peak_rate=peak_rate, seed=seed, precision=precision, world=world, about=about
    )
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters(), lr=peak_rate, betas=(0.9, 0.99), weight_decay=0.0)
    first = load_checkpoint(resume, net, ema, optimizer, run) if resume and Path(resume).exists() else 0
    if first > steps:
        raise ValueError(f"{resume} has {first} steps already, more than steps = {steps}: give {first} or more")
    start = time.perf_counter()
    net.train()
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_rate)
        everyone = batches(step)
        batch = [None if part is None else part[rank::world].to(device) for part in everyone]
        share = len(batch[0]) / len(everyone[0])
        if share:
            with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
                per_example, t = loss(net, batch, step_generator(seed, step, rank))
            mean = per_example.mean()
            mean.backward()
        else:  # more processes than images: this one has nothing to add
            per_example, t, mean = torch.zeros(0, device=device), None, torch.zeros((), device=device)
        total = average_gradients(net, share, mean) if world > 1 else mean.detach()
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        if not torch.isfinite(total + norm):  # one look at both; the sums are the same on every process
            raise ValueError(_not_finite(step + 1, steps, per_example, total))
        optimizer.step()
        optimizer.zero_grad()
        update_ema(ema, net, ema_decay(step))
        yield State(step + 1, steps, per_example.detach(), t, net, ema, optimizer, time.perf_counter() - start, run)


def _check_classes(net, batches):
    """Raises ValueError where a label is none of the network's."""
    known = getattr(net, "num_classes", 0) or getattr(net, "num_labels", 0)
    labels = getattr(batches, "labels", None)
    if known and labels is not None and len(labels) and (largest := int(np.asarray(labels).max())) >= known:
        raise ValueError(
            f"labels must lie in 0..{known - 1}, since the network knows {known}; the largest is {largest}: give the "
            "network more classes, or leave those images out"
        )


def _not_finite(step, steps, per_example, total):
    """One sentence on a step that was not taken."""
    bad = len(per_example) - int(per_example.isfinite().sum())
    what = "the gradient is not finite" if total.isfinite() else f"the loss is {float(total)}"
    where = f", at {bad} of {len(per_example)} images of this process" if bad else ""
    return (
        f"step {step} of {steps}: {what}{where}; the step was not taken, and weights, averages and the last checkpoint "
        "are as before it: look for NaN in the data of that batch, or lower peak_rate"
    )


def save_checkpoint(path, state):
    """Write all that a resumed run needs to ``path`` (safetensors), at once or not at all: weights, moments, the step,
    the settings of the run, and a checksum over all of it."""
    tensors = {f"net.{name}": value for name, value in state.net.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in state.ema.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
    said = {"step": json.dumps(state.step), "identity": json.dumps(state.identity)}
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


def load_checkpoint(path, net, ema, optimizer, run=None):
    """Put a checkpoint's weights and moments in place; returns the number of steps that it had done.

    run : the settings to go on by, as :func:`identity` gives them. Raises ValueError, naming the file, where the
    checkpoint is that of another network or of other settings, is damaged or is missing.
    """
    weights, averages, flat, step, then = read_checkpoint(path)
    if run is not None:
        _compare(path, run, then or None, step)
    try:
        net.load_state_dict(weights)
        ema.load_state_dict(averages)
    except RuntimeError as error:
        why = str(error).splitlines()[-1].strip()
        raise ValueError(f"{path} was made by another network: move or delete it, then train again ({why})") from error
    moments = {}
    for name, value in flat.items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return step


def progress(states, **kwargs):
    """Pass states through a progress bar that shows the loss (averaged over about 50 steps) and the time left."""
    from tqdm import tqdm

    bar, average = None, None
    for state in states:
        if bar is None:
            bar = tqdm(total=state.steps, initial=state.step - 1, unit="step", mininterval=1.0, **kwargs)
        loss = float(state.loss.mean())
        average = loss if average is None else 0.98 * average + 0.02 * loss
        bar.set_postfix(loss=f"{average:.4f}", refresh=False)
        bar.update()
        yield state
    if bar is not None:
        bar.close()
