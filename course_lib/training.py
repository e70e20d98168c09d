"""The training loop. It yields its state after every step, so that a plot, a widget or a test needs no callback.

Everything random in step k is drawn from a generator seeded by (seed, k). So a run that was killed and resumed from its
checkpoint ends with the same weights, bit for bit, as one that was not, and a checkpoint needs no random state.
"""

import copy
import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from course_lib import compiling, optimizers, runtime
from course_lib.arguments import positive, whole
from course_lib.checkpoints import core_seconds, identity, load_checkpoint
from course_lib.images import to_tensor


def step_generator(seed, step, stream=0):
    """A torch.Generator that depends on (seed, step, stream) alone."""
    whole(0, seed=seed, step=step, stream=stream)
    words = np.random.SeedSequence([seed, step, stream]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


class Batches:
    """batches(k) gives batch k: random order without replacement, epoch after epoch, a function of (seed, k) alone.

    images : (N, H, W), or (N, C, ...) with channels; uint8 in 0..255, or floats in [-1, 1] or a little beyond, such as
        latents, as :func:`~course_lib.images.to_tensor` has them.
    labels : (N,) or maps (N, H, W) of integers, or None. Both are arrays or tensors.
    A batch is x_0 (B, C, ...) float32, in [-1, 1] if the images are, and y int64 or None.
    Raises ValueError for images or labels of another kind, and for labels that do not belong to the images.
    """

    def __init__(self, images, labels=None, batch_size=64, seed=0):
        whole(batch_size=batch_size)
        for name, values in (("images", images), ("labels", labels)):
            if isinstance(values, (list, tuple)):
                raise ValueError(
                    f"{name} must be an array or tensor, got a {type(values).__name__}: np.stack makes one"
                )
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

    @property
    def settings(self):
        """What a run is told apart by, for its checkpoints."""
        return {"images": len(self.images), "batch_size": self.batch_size, "order of the images": self.seed}

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
    all steps. With ``warmup`` or ``decay`` 0 it does not rise or does not fall.

    The fall to zero is where most of the visible quality comes from (Hägele et al., NeurIPS 2024, on this shape).
    """
    warm = min(1.0, (step + 1) / max(1, warmup))
    cool = min(1.0, (steps - step) / (decay * steps)) if decay else 1.0
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


@dataclass
class State:
    """Where training stands after ``step`` of ``steps`` steps: loss (B,), time (B,) or None, the two networks,
    seconds so far, the processor time of all processes from the run's first step on, and the settings of the run."""

    step: int
    steps: int
    loss: torch.Tensor
    t: torch.Tensor
    net: torch.nn.Module
    ema: torch.nn.Module
    optimizer: torch.optim.Optimizer
    seconds: float
    core_seconds: float = 0.0
    identity: dict = field(default_factory=dict)


def train(
    net,
    batches,
    loss,
    *,
    steps,
    peak_rate=5e-4,
    seed=0,
    precision=torch.float32,
    resume=None,
    about=None,
    compiled=False,
    optimizer="AdamW",
):
    """Train net for ``steps`` steps; yields a :class:`State` after each.

    Under ``torchrun`` every process takes its share of each batch, and the gradient is that of the whole batch.

    Parameters
    ----------
    net : network to train, changed in place; state.ema is the average of its weights, which is what one keeps.
    batches : batches(k) gives batch k.
    loss : loss(net, batch, generator) gives the loss of each example (B,) and their times.
    precision : torch.bfloat16 runs the network under autocast, which pays on a GPU and on recent server CPUs.
    resume : path of a checkpoint written by :func:`~course_lib.checkpoints.save_checkpoint`; without that file training
        starts anew.
    about : further settings of the run, for its checkpoints, such as {"recipe": "mednist"}.
    compiled : whether the network runs under ``torch.compile``, faster after minutes of compiling. Weights, averages
        and checkpoints are as without.
    optimizer : "AdamW", or "Muon" (:class:`~course_lib.optimizers.Muon`) with a ``peak_rate`` about ten times as large.

    Raises ValueError for a loss or gradient that is not finite, before that step is taken, on all processes; for
    labels that the network does not know; and for a checkpoint of other settings, of more steps, or damaged.
    """
    whole(steps=steps)
    positive(peak_rate=peak_rate)
    _check_classes(net, batches)
    if optimizer != "AdamW":
        about = dict(about or {}) | {"optimizer": optimizer}
    device = next(net.parameters()).device
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    run = identity(
        net, batches, loss, steps=steps, peak_rate=peak_rate, seed=seed, precision=precision, world=world, about=about
    )
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = optimizers.make(optimizer, net.parameters(), peak_rate)
    there = resume and Path(resume).exists()
    first = load_checkpoint(resume, net, ema, optimizer, run, learning_rate) if there else 0
    if first > steps:
        raise ValueError(f"{resume} has {first} steps already, more than steps = {steps}: give {first} or more")
    start, cpu = time.perf_counter(), time.process_time()
    before = core_seconds(resume) if there else 0.0
    net.train()
    called = compiling.compiled(net) if compiled else net
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_rate)
        everyone = batches(step)
        batch = [None if part is None else part[rank::world].to(device) for part in everyone]
        share = len(batch[0]) / len(everyone[0])
        if share:
            with runtime.autocast(device.type, precision):
                per_example, t = loss(called, batch, step_generator(seed, step, rank))
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
        seconds, spent = time.perf_counter() - start, before + world * (time.process_time() - cpu)
        yield State(step + 1, steps, per_example.detach(), t, net, ema, optimizer, seconds, spent, run)


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
