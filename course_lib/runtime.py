"""Device, precision and seeds, and the check of the learner's environment that notebook 00 shows."""

import contextlib
import functools
import os
import time

import torch


def full_profile():
    """True under COURSE_PROFILE=full: training of the size that wants a GPU."""
    return os.environ.get("COURSE_PROFILE", "") == "full"


def device():
    """The device to compute on: "cuda", "mps" or "cpu"."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def precision():
    """torch.bfloat16 where a convolution is clearly faster with it, else torch.float32; measured once, in about 0.1 s.

    Recent server CPUs and GPUs compute in bfloat16 several times faster; older laptops only emulate it.
    """
    where = device()
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(where, memory_format=torch.channels_last)
    x = torch.randn(16, 64, 32, 32, device=where).to(memory_format=torch.channels_last)

    def seconds(dtype):
        with torch.no_grad(), torch.autocast(where, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            times = []
            for _ in range(4):
                start = time.perf_counter()
                layer(x).sum().item()
                times.append(time.perf_counter() - start)
        return min(times)

    return torch.bfloat16 if seconds(torch.bfloat16) < 0.8 * seconds(torch.float32) else torch.float32


@contextlib.contextmanager
def fast():
    """Run networks without gradients in the faster precision: ``with fast(): x = last(sample(...))``."""
    with torch.no_grad(), torch.autocast(device(), dtype=torch.bfloat16, enabled=precision() == torch.bfloat16):
        yield


def seeded(seed):
    """A torch.Generator on the CPU with that seed, so that noise is the same on every device."""
    return torch.Generator().manual_seed(seed)
