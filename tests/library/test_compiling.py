"""The normalisation that compiles well, against PyTorch's own."""

import pytest
import torch
from torch import nn

from course_lib.compiling import ChannelwiseGroupNorm, trouble, with_channelwise_norms
from course_lib.networks import DiffusionUNet


def outputs_and_gradients(norm, x, upstream):
    x = x.clone().requires_grad_()
    y = norm(x)
    return (y, *torch.autograd.grad(y, (x, norm.weight, norm.bias), upstream))


@pytest.mark.parametrize("shape", [(3, 12, 7, 5), (2, 12, 4, 3, 6), (1, 12, 3, 2), (2, 12, 40)])
@pytest.mark.parametrize("groups", [1, 4, 12])
def test_it_is_group_normalisation(shape, groups):
    """Output and all three gradients are those of nn.GroupNorm, for a mean far from zero as well, to 1e-4."""
    generator = torch.Generator().manual_seed(0)
    norm = nn.GroupNorm(groups, 12, eps=1e-5)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
    x = 2 * torch.randn(shape, generator=generator) + 3
    upstream = torch.randn(shape, generator=generator)
    wanted = outputs_and_gradients(norm, x, upstream)
    found = outputs_and_gradients(ChannelwiseGroupNorm(norm), x, upstream)
    for a, b in zip(found, wanted):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("error", "why"), [(AssertionError(), "AssertionError"), (RuntimeError("no g++\nsince ..."), "no g++")]
)
def test_what_keeps_a_compiler_from_working_is_said_in_a_line(error, why, monkeypatch):
    def fails(function):
        raise error

    monkeypatch.setattr(torch, "compile", fails)
    assert trouble("cpu") == why


def test_of_a_constant_image_it_is_the_bias():
    norm = nn.GroupNorm(2, 4)
    with torch.no_grad():
        norm.bias.copy_(torch.arange(4.0))
    y = ChannelwiseGroupNorm(norm)(torch.full((1, 4, 3, 3), 7.0))
    torch.testing.assert_close(y, norm.bias[None, :, None, None].expand_as(y), atol=1e-3, rtol=0)


def test_under_autocast_it_keeps_the_type_and_sums_in_float32():
    norm = nn.GroupNorm(4, 8)
    x = (torch.randn(2, 8, 32, 32, generator=torch.Generator().manual_seed(0)) + 3).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ChannelwiseGroupNorm(norm)(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), norm(x.float()), atol=0.02, rtol=0.01)  # one rounding to bfloat16


def test_the_twin_shares_all_weights_and_has_no_norm_of_the_old_kind():
    net = DiffusionUNet(channels=(32, 64), num_classes=3)
    twin = with_channelwise_norms(net)
    norms = sum(isinstance(module, nn.GroupNorm) for module in net.modules())
    assert norms > 4
    assert sum(isinstance(module, ChannelwiseGroupNorm) for module in twin.modules()) == norms
    assert not any(isinstance(module, nn.GroupNorm) for module in twin.modules())
    assert twin.state_dict().keys() == net.state_dict().keys()
    assert all(a is b for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    x, t = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([0.2, 0.7])
    y = torch.tensor([0, 3])
    torch.testing.assert_close(twin(x, t, y), net(x, t, y), atol=1e-4, rtol=1e-4)
