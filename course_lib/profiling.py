"""What a network costs: bytes of its activations, and seconds of a call. The same on every device."""

import time

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.arguments import whole


class _Alive(TorchDispatchMode):
    """Counts the bytes of all tensors made inside it that are alive at once."""

    def __init__(self):
        super().__init__()
        self.known, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {_storage(t)._cdata for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)}
        for tensor in tree_leaves(result):
            if torch.is_tensor(tensor) and (key := _storage(tensor)._cdata) not in given:
                self.known[key] = StorageWeakRef(_storage(tensor)), _storage(tensor).nbytes()
        self.known = {key: entry for key, entry in self.known.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.known.values()))
        return result


def _storage(tensor):
    return tensor.untyped_storage()


def _check_callable(function):
    if not callable(function):
        raise ValueError(f"function must be a network or function, its arguments behind it; got {function!r:.80}")


def peak_bytes(function, *args):
    """The largest sum of bytes of tensors made by ``function(*args)`` that are alive at once, without gradients.

    Weights and inputs were there before and do not count; scratch memory inside one operation is not seen.
    """
    _check_callable(function)
    with torch.no_grad(), _Alive() as alive:
        function(*args)
    return alive.peak


def saved_bytes(function, *args):
    """Bytes of all tensors that ``function(*args)`` keeps for the backward pass: what a training step needs beside
    weights, gradients and the optimiser's moments.

    A storage that is kept twice counts once. The weights of ``function``, if it is a module, do not count.
    """
    _check_callable(function)
    kept = {}
    weights = function.parameters() if isinstance(function, torch.nn.Module) else ()
    ours = {_storage(weight)._cdata for weight in weights}

    def keep(tensor):
        if _storage(tensor)._cdata not in ours:
            kept[_storage(tensor)._cdata] = _storage(tensor).nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function(*args)  # while it lives, so does what it keeps: no storage is counted in another's place
    del result
    return sum(kept.values())


def seconds(function, *args, repeats=3):
    """The shortest of ``repeats`` calls of ``function(*args)`` in seconds, after one to warm up; of a device that
    computes on its own, until it is done. Raises ValueError for repeats below 1."""
    whole(repeats=repeats)
    _check_callable(function)
    found = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        function(*args)
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def evaluation_cost(net, *shape):
    """What one evaluation net(x, t) of one image (1, *shape) costs: seconds (:func:`seconds`), bytes at once
    (:func:`peak_bytes`), and bytes kept to train (:func:`saved_bytes`).

    The weights ask for gradients while the last is counted, and for none afterwards.
    """
    where = next(net.parameters()).device
    x, t = torch.randn(1, *shape, device=where), torch.tensor(0.5, device=where)
    net.requires_grad_(False)
    with torch.no_grad():
        cost = seconds(net, x, t), peak_bytes(net, x, t)
    kept = saved_bytes(net.requires_grad_(True), x, t)
    net.requires_grad_(False)
    return *cost, kept
