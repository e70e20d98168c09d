"""Large weights in eight bits: half the bytes of float16, for an error below that of computing in bfloat16.

Measured on ``mednist``: the outputs differ from those in float32 by 0.3 %, and by 0.3 to 0.5 % where the network runs
in bfloat16.
"""

import torch

LEAST = 4096  # numbers from which on a weight is stored so; biases, norms and embeddings are few, and stay
SCALE = ".scale"


def is_large(value):
    """Whether a tensor is a weight of many numbers, (outputs, ...), other than that of a convolution of one pixel.

    These lead past the blocks of a U-Net, with no normalisation behind them: in eight bits those of ``brain_latent``,
    4 % of its weights, cost all of the distance that eight bits cost it (docs/performance.md).
    """
    of_one_pixel = value.ndim > 2 and value.shape[2:].numel() == 1
    return value.is_floating_point() and value.ndim > 1 and value.numel() >= LEAST and not of_one_pixel


def quantised(weight):
    """A weight (outputs, ...) as whole numbers -127..127, int8, and one scale an output (float32): weight is about
    scale times number, and off by half a scale at most. Symmetric, as in Jacob et al. (CVPR 2018), sec. 2.1, with zero
    at zero."""
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(1) / 127
    whole = (rows / scale.where(scale > 0, torch.ones(()))[:, None]).round()
    return whole.to(torch.int8).view(weight.shape), scale


def packed(tensors):
    """Named tensors with each large weight as two: its int8 numbers, and "NAME.scale"."""
    found = {}
    for name, value in tensors.items():
        if is_large(value):
            found[name], found[name + SCALE] = quantised(value)
        else:
            found[name] = value
    return found


def unpacked(tensors):
    """What :func:`packed` was given, rounded: float32 weights; tensors that were not packed as they are."""
    scales = {name[: -len(SCALE)]: value for name, value in tensors.items() if name.endswith(SCALE)}
    scales = {name: scale for name, scale in scales.items() if name in tensors and tensors[name].dtype == torch.int8}
    found = {name: value for name, value in tensors.items() if name.removesuffix(SCALE) not in scales}
    for name, scale in scales.items():
        whole = tensors[name].float()
        found[name] = whole * scale.view(-1, *[1] * (whole.ndim - 1))
    return found


def rounded(net):
    """net with its large weights as they are after storing, changed in place; returns it. To measure what ships."""
    net.load_state_dict(unpacked(packed(net.state_dict())))
    return net
