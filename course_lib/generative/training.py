"""Training loops of the four families, `fit` and `fit_gan`: they yield their state after every step, and `follow`
collects samples on the way."""

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from course_lib.arguments import positive, whole
from course_lib.generative.models import GAN, check_points
from course_lib.training import step_generator


@dataclass
class State:
    """Training after `step` of `steps` steps: the mean loss of the batch, the model, seconds so far."""

    step: int
    steps: int
    loss: float
    model: object
    seconds: float


def _batch(x, size, generator):
    return x[torch.randint(len(x), (size,), generator=generator)]


def _check_training(x, steps, rate, batch):
    check_points(x, least=1)
    whole(steps=steps, batch=batch)
    positive(rate=rate)


def _check_loss(loss, step):
    if not loss.isfinite():
        raise ValueError(f"the loss is NaN or infinite at step {step + 1}: try a smaller rate")


def fit(model, x, steps, *, rate=2e-3, batch=256, seed=0):
    """Minimise model.loss on the training points x (N, d) by Adam; yields a :class:`State` after every step.

    The learning rate falls to zero along a half cosine (Loshchilov & Hutter, ICLR 2017). Raises ValueError for a model
    without a loss (a GAN: :func:`fit_gan`), other points or numbers, and where the loss is NaN.
    """
    if not hasattr(model, "loss"):
        raise ValueError(f"model must have a loss, and {type(model).__name__} has none: a GAN is trained by fit_gan")
    _check_training(x, steps, rate, batch)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    start = time.perf_counter()
    for step in range(steps):
        generator = step_generator(seed, step)
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        loss = model.loss(_batch(x, batch, generator), generator).mean()
        _check_loss(loss, step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        yield State(step + 1, steps, loss.item(), model, time.perf_counter() - start)


def fit_gan(gan, x, steps, *, rate=1e-3, batch=256, seed=0):
    """The two players take turns; yields a :class:`State` after every turn, loss being C's.

    C minimises -log c(real) - log(1 - c(made)); G minimises -log c(made), the non-saturating loss (Goodfellow et al.,
    NeurIPS 2014, sec. 3); c is the sigmoid of C's output. softplus(-a) = -log sigmoid(a).
    Raises ValueError as :func:`fit`.
    """
    if not isinstance(gan, GAN):
        raise ValueError(f"gan must be a GAN, with its two players, got {type(gan).__name__}: others train by fit")
    _check_training(x, steps, rate, batch)
    softplus = nn.functional.softplus
    players = [torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.99), fused=True) for net in (gan.C, gan.G)]
    start = time.perf_counter()
    for step in range(steps):
        generator = step_generator(seed, step)
        real = _batch(x, batch, generator)
        made = gan.sample(batch, generator)
        loss_c = (softplus(-gan.C(real)) + softplus(gan.C(made.detach()))).mean()
        _check_loss(loss_c, step)
        players[0].zero_grad()
        loss_c.backward()
        players[0].step()
        loss_g = softplus(-gan.C(made)).mean()
        players[1].zero_grad()
        loss_g.backward()
        players[1].step()
        yield State(step + 1, steps, loss_c.item(), gan, time.perf_counter() - start)


def follow(states, at, n=1000, seed=0):
    """Run a training loop to its end -> ({step: samples (n, d)} for the steps in `at`, the last state).

    The noise behind the samples is the same each time, so that a picture moves only because the model does.
    """
    if isinstance(at, int):
        raise ValueError(f"at must be a list of steps, such as [{at}], got {at!r}")
    taken, state = {}, None
    for state in states:
        if state.step in at:
            with torch.no_grad():
                taken[state.step] = state.model.sample(n, torch.Generator().manual_seed(seed))
    if state is None:
        raise ValueError("states must be those of fit or fit_gan, got none: a loop has used them up already")
    return taken, state
