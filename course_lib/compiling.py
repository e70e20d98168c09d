"""Networks under ``torch.compile``, with normalisations that a CPU computes several times faster that way."""

import copy

import torch
from torch import nn


class ChannelwiseGroupNorm(nn.Module):
    """Group normalisation (Wu & He, ECCV 2018) as sums over each channel, one small matrix product, and one scale and
    shift a channel: the function of ``nn.GroupNorm``, whose weight and bias it shares.

    PyTorch's own takes most of its time on a CPU in the backward pass, in bfloat16 a third of a training step, and its
    compiled form walks through the groups, a few channels wide, one number at a time. Whole channels fill the
    processor's vectors, and the product keeps the compiler from computing the group of each pixel anew. Uncompiled
    it is slower than the original. The variance is E[v^2] - E[v]^2 in float32, so the mean of a group should not be a
    thousand times its spread.
    """

    def __init__(self, norm):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        size = norm.num_channels // norm.num_groups
        group = torch.arange(norm.num_channels, device=norm.weight.device) // size
        self.register_buffer("mean_of_group", (group[:, None] == group) / size, persistent=False)  # (C, C)

    def forward(self, x):
        """x (B, C, ...) -> the same shape and type."""
        space = tuple(range(2, x.ndim))
        with torch.autocast(x.device.type, enabled=False):
            v = x.float()
            mean, second = v.mean(space) @ self.mean_of_group, v.square().mean(space) @ self.mean_of_group  # (B, C)
            scale = torch.rsqrt((second - mean.square()).clamp_min(0) + self.eps) * self.weight
            shift = self.bias - mean * scale
            scale, shift = (part.reshape(*part.shape, *[1] * len(space)) for part in (scale, shift))
            return (v * scale + shift).to(x.dtype)


def with_channelwise_norms(net):
    """A copy of net that shares its weights and buffers, and has a :class:`ChannelwiseGroupNorm` for each
    ``nn.GroupNorm`` with weights."""
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    twin = copy.deepcopy(net, shared)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm) and child.affine:
                setattr(module, name, ChannelwiseGroupNorm(child))
    return twin


def trouble(device):
    """Why nothing can be compiled for that device on this machine, in a few words, seen by a small function; None where
    it can."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:  # each backend has errors of its own
        return (str(error).strip().splitlines() or [type(error).__name__])[0]


def compiled(net):
    """``torch.compile`` of net, on a CPU with channelwise norms: the same function of the same weights, compiled at its
    first call, which takes minutes. Raises ValueError where this machine has no compiler that works."""
    device = next(net.parameters()).device
    if why := trouble(device):
        raise ValueError(
            f"no compiler works on this machine ({why}): install one, such as g++, or train with --no-compile"
        )
    return torch.compile(with_channelwise_norms(net) if device.type == "cpu" else net)
