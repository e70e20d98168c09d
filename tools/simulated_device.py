"""A second device made of the CPU: its tensors compute on the CPU, and mix with the CPU's no more than a GPU's would.

    with simulated_device():
        torch.ones(3, device="meta") + torch.ones(3)    # RuntimeError, as with a GPU
    with simulated_device(float64=False):
        torch.ones(3).double().to("meta")               # TypeError, as with an Apple GPU

It goes by the name of PyTorch's device "meta", which every build has. It finds tensors made on the wrong device,
`.numpy()` without `.cpu()`, noise asked of the other device's generator, and double precision where there is none. It
says nothing of speed or rounding.
"""

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"
DOUBLE = (torch.float64, torch.complex128)
aten = torch.ops.aten
#: What moves data between devices, or takes its indices from the CPU, on a GPU too.
MAY_MIX = (
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
)


class Elsewhere(torch.Tensor):
    """A tensor on the simulated device; ``inner`` has its values, on the CPU."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(DEVICE),
        )

    def __init__(self, inner):
        self.inner = inner

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})

    def __deepcopy__(self, memo):
        copied = Elsewhere(self.inner.detach().clone())
        return torch.nn.Parameter(copied, self.requires_grad) if getattr(self, "_is_param", False) else copied

    def __repr__(self):
        return f"Elsewhere({self.inner!r})"


class _Mode(TorchDispatchMode):
    """Catches the operations on tensors of the CPU alone: making one there, and moving one there. Those on the device
    pass it as well, so it is where its double precision is refused."""

    def __init__(self, float64):
        super().__init__()
        self.float64 = float64

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = _compute(func, args, kwargs or {})
        if not self.float64 and any(isinstance(x, Elsewhere) and x.dtype in DOUBLE for x in tree_leaves(out)):
            raise TypeError(f"Cannot convert a '{DEVICE}' tensor to float64, which the device does not have, in {func}")
        return out


def _compute(func, args, kwargs):
    """One operation, on the CPU; its results are on the simulated device if its tensors are, or if it was told so."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(tensor, Elsewhere) for tensor in tensors)
    if there and func not in MAY_MIX and any(type(tensor) is not Elsewhere and tensor.ndim for tensor in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cpu and {DEVICE}, in {func}")
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{DEVICE}' device type for generator but found 'cpu', in {func}")
    own_args, own_kwargs = tree_map(lambda x: x.inner if isinstance(x, Elsewhere) else x, (args, kwargs))
    if there and func is aten._conj.default:  # a mark on a view, which what reads the view in here does not see
        return Elsewhere(aten._conj_physical(*own_args))
    out = func(*own_args, **own_kwargs)
    if not there or (func is aten.copy_.default and not isinstance(args[0], Elsewhere)):
        return out  # the second: a copy into a tensor of the CPU
    out = tree_map(lambda x: Elsewhere(x) if isinstance(x, torch.Tensor) else x, out)
    return return_and_correct_aliasing(func, args, kwargs, out)


def _then_moved(make):
    """torch.tensor or torch.as_tensor: both forget the values of what they make on "meta", so it is moved there."""

    def made(*arguments, device=None, **options):
        x = make(*arguments, **options)
        return x if device is None else x.to(device)

    return made


@contextlib.contextmanager
def simulated_device(float64=True):
    """Within it, the device "meta" computes; with ``float64=False`` its tensors have no double precision."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # net.to(device) makes its parameters anew
    autocast = torch.autocast
    try:
        with contextlib.ExitStack() as stack:
            for name in ("tensor", "as_tensor"):
                stack.enter_context(mock.patch.object(torch, name, _then_moved(getattr(torch, name))))
            stack.enter_context(
                mock.patch.object(torch, "autocast", lambda kind, **options: autocast("cpu", **options))
            )
            stack.enter_context(_Mode(float64))
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
