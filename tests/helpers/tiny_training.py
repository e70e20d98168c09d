"""Trainings small enough for a test, and what other processes than the test's do with them.

python tiny_training.py CHECKPOINT                           for each line of input a fork that may be killed
python -m torch.distributed.run ... tiny_training.py FOLDER  every part of `PARTS` in two processes
"""

import os
import sys
import traceback
from pathlib import Path

import numpy as np
import torch

from course_lib import schedules
from course_lib.checkpoints import save_checkpoint
from course_lib.files import read_tensors
from course_lib.losses import DiffusionLoss, RegressionLoss
from course_lib.training import Batches, train


class Tiny(torch.nn.Module):
    """A network small enough to train in a test: a per-pixel function of x_t, t and the class."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(5, 8, 1), torch.nn.SiLU(), torch.nn.Conv2d(8, 1, 1))

    def forward(self, x_t, t, y=None):
        cond = torch.nn.functional.one_hot(y, 3).float()
        maps = torch.cat([t[:, None], cond], 1)[:, :, None, None].expand(-1, -1, *x_t.shape[2:])
        return self.layers(torch.cat([x_t, maps], 1))


def tiny_run(steps, resume=None, seed=0, **options):
    """The states of its training on 40 images of 4 x 4 pixels in two classes."""
    torch.manual_seed(1)
    labels = np.arange(40) % 2
    images = np.uint8(40 + 150 * labels)[:, None, None] + np.arange(16, dtype=np.uint8).reshape(4, 4)
    batches = Batches(images, labels, batch_size=8, seed=seed)
    return train(Tiny(), batches, DiffusionLoss(schedules.Cosine()), steps=steps, seed=seed, resume=resume, **options)


def plain_run(batch_size, steps=2, bad=None):
    """A regression without random draws, whose gradient is that of the batch alone; ``bad``: an image made NaN."""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 1, 1))
    images = torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(2)).numpy().clip(-1, 1)

    class Still(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.unused = net, torch.nn.Linear(2, 2)

        def forward(self, y, t):
            return self.net(y)

    batches = Batches(images, batch_size=batch_size)

    def given(k):
        x, y = batches(k)
        if bad is not None and k == 1:
            x[bad] = float("nan")
        return x, y

    return train(Still(), given, RegressionLoss(condition=lambda x: 0.5 * x), steps=steps)


def forks(path):
    """For each line of standard input a fork that trains with a checkpoint after every step, and then prints its
    process number; "gone" is printed once it was killed. All that is slow to import is there before the first."""
    torch.optim.AdamW(Tiny().parameters())
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            for state in tiny_run(60, resume=path):
                save_checkpoint(path, state)
                print(os.getpid(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print("gone", flush=True)


# ---- what both of two processes run; `folder` has the moments of one process ----------------------------------------


def averaged(folder):
    """Two processes, each with half of every batch, end with the same weights."""
    states = list(tiny_run(5))
    assert all(len(s.loss) == 4 for s in states)
    mine = torch.cat([p.detach().flatten() for p in states[-1].net.parameters()])
    both = [torch.empty_like(mine) for _ in range(2)]
    torch.distributed.all_gather(both, mine)
    assert torch.equal(both[0], both[1]) and mine.isfinite().all()
    losses = [torch.empty(4) for _ in range(2)]
    torch.distributed.all_gather(losses, states[-1].loss)
    assert not torch.equal(losses[0], losses[1])


def unequal(folder, batch_size):
    """The moments are those of one process, which `folder` holds."""
    *_, state = plain_run(batch_size)
    wanted, found = read_tensors(folder / f"{batch_size}.safetensors")[0], state.optimizer.state_dict()["state"]
    assert len(wanted) == 8 and len(found) == 4
    for name, value in wanted.items():
        k, key = name.split(".")
        torch.testing.assert_close(found[int(k)][key], value, rtol=1e-5, atol=1e-9)
    assert len(state.loss) == (batch_size + 1 - torch.distributed.get_rank()) // 2


def not_finite(folder):
    """The image at place 1, which is the second process's, becomes NaN: both stop, one of them with a count."""
    states, message = plain_run(6, steps=4, bad=1), "no error"
    assert next(states).step == 1
    try:
        next(states)
    except ValueError as error:
        message = str(error)
    assert "step 2 of 4: the loss is nan" in message, message
    assert ("1 of 3 images" in message) == (torch.distributed.get_rank() == 1), message


PARTS = {
    "averaged": averaged,
    "unequal 5": lambda folder: unequal(folder, 5),
    "unequal 1": lambda folder: unequal(folder, 1),
    "not finite": not_finite,
}


def run_parts(folder):
    """Run every part; what a process says of each goes to a file, "passed" or a traceback, after which it ends: the
    other process may wait for it in vain."""
    torch.distributed.init_process_group("gloo")
    for name, part in PARTS.items():
        report = folder / f"{name}, process {torch.distributed.get_rank()}.txt"
        try:
            part(folder)
        except Exception:
            report.write_text(traceback.format_exc(), encoding="utf-8")
            raise
        report.write_text("passed", encoding="utf-8")


if __name__ == "__main__":
    work = run_parts if "LOCAL_RANK" in os.environ else forks
    work(Path(sys.argv[1]))
