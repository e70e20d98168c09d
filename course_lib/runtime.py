"""Device, precision and seeds."""

import contextlib
import functools
import os
import sys
import time

import torch
from torch import distributed

from course_lib.arguments import whole


def full_profile():
    """True under COURSE_PROFILE=full: training of the size that wants a GPU."""
    return os.environ.get("COURSE_PROFILE", "") == "full"


def device():
    """The device to compute on: "cuda", "mps" or "cpu"; of several GPUs the one that :func:`join_processes` took."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def join_processes():
    """Under ``torchrun``: take the GPU of this process, number LOCAL_RANK on its machine, so that "cuda" means it from
    here on, and join the other processes. On its own, a process does nothing.

    Raises ValueError where RANK is set and LOCAL_RANK is not, and on a machine with fewer GPUs than processes.
    """
    if "RANK" not in os.environ:
        return
    if not {"LOCAL_RANK", "LOCAL_WORLD_SIZE"} <= os.environ.keys():
        raise ValueError("RANK is set, but LOCAL_RANK or LOCAL_WORLD_SIZE is not: start several processes by torchrun")
    if device() == "cuda":
        processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if processes > gpus:
            raise ValueError(f"{processes} processes on a machine of {gpus} GPUs: give --nproc-per-node {gpus} at most")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group()


def placed(net):
    """net on this machine's device, its weights in channels-last order, in which convolutions run faster."""
    in_3d = any(weight.ndim == 5 for weight in net.parameters())
    return net.to(device(), memory_format=torch.channels_last_3d if in_3d else torch.channels_last)


def autocast(where, precision):
    """A context in which networks on a device of the kind `where`, such as "cpu", compute in `precision`, a dtype; with
    torch.float32 in the one of their weights."""
    return torch.autocast(where, dtype=precision, enabled=precision != torch.float32)


@functools.cache
def precision():
    """torch.bfloat16 where a convolution is clearly faster with it, else torch.float32; measured once, in about 0.1 s.

    Recent server CPUs and GPUs compute in bfloat16 several times faster; older laptops only emulate it.
    """
    where = device()
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(where, memory_format=torch.channels_last)
    x = torch.randn(16, 64, 32, 32, device=where).to(memory_format=torch.channels_last)

    def seconds(dtype):
        with torch.no_grad(), autocast(where, dtype):
            times = []
            for _ in range(8):  # the fastest of several: the machine may be busy
                start = time.perf_counter()
                layer(x).sum().item()
                times.append(time.perf_counter() - start)
        return min(times)

    return torch.bfloat16 if seconds(torch.bfloat16) < 0.8 * seconds(torch.float32) else torch.float32


@contextlib.contextmanager
def fast():
    """Run networks without gradients in the faster precision: ``with fast(): x = net(y)``."""
    with torch.no_grad(), autocast(device(), precision()):
        yield


def precision_name():
    """The name of :func:`precision`, such as "bfloat16"."""
    return str(precision()).removeprefix("torch.")


def where():
    """One sentence for the top of a notebook: the device and the precision, and on Colab's CPU how to get a GPU."""
    gpu = f"the GPU ({torch.cuda.get_device_name()})" if device() == "cuda" else "the Apple GPU"
    text = f"Networks run on {'the CPU' if device() == 'cpu' else gpu} in {precision_name()}."
    if device() == "cpu" and "google.colab" in sys.modules:
        text += " That is enough. For a GPU: Runtime > Change runtime type, choose one, and run from the top again."
    return text


def seeded(seed):
    """A torch.Generator on the CPU with that seed, so that noise is the same on every device. Raises
    ValueError unless the seed is a whole number from 0 on."""
    whole(0, seed=seed)
    return torch.Generator().manual_seed(seed)
