"""Weights in eight bits: how far they are off, and what comes back."""

import pytest
import torch

from course_lib.eight_bits import LEAST, packed, quantised, unpacked


def weight(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 64), (32, 16, 3, 3), (8, 8, 4, 4, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_each_number_is_off_by_half_a_step_at_most(shape, channels_last):
    """And each output has a step of its own: the largest number of a row, over 127, comes back exactly."""
    w = weight(*shape) * torch.logspace(-4, 4, shape[0]).view(-1, *[1] * (len(shape) - 1))
    if channels_last and len(shape) == 4:
        w = w.to(memory_format=torch.channels_last)
    whole, scale = quantised(w)
    assert whole.dtype == torch.int8
    assert whole.shape == w.shape
    back = unpacked({"w": whole, "w.scale": scale})["w"]
    largest = w.flatten(1).abs().amax(1)
    error = (back - w).abs().flatten(1).amax(1)
    assert (error <= 0.5001 * largest / 127).all()
    torch.testing.assert_close(back.flatten(1).abs().amax(1), largest)


def test_an_output_of_zeros_stays_zero():
    w = weight(64, 64)
    w[3] = 0
    back = unpacked(packed({"w": w}))["w"]
    assert torch.equal(back[3], torch.zeros(64))
    assert back.isfinite().all()


def test_small_tensors_and_counters_are_as_they_were():
    tensors = {
        "bias": weight(LEAST),
        "norm": weight(64),
        "small": weight(8, 8),
        "count": torch.arange(LEAST).view(64, 64),
        "gamma.scale": weight(4),
        "beta": weight(4),
        "beta.scale": weight(4, seed=1),
    }
    found = unpacked(packed(tensors))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_packing_what_was_unpacked_changes_nothing():
    once = unpacked(packed({"w": weight(64, 64)}))
    torch.testing.assert_close(unpacked(packed(once))["w"], once["w"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("sides", [(1, 1), (1, 1, 1)])
def test_convolutions_of_one_pixel_are_as_they_were(sides):
    """What leads past a block; and what looks around, or is a matrix, is packed."""
    assert packed({"w": weight(128, 96, *sides)}).keys() == {"w"}
    for shape in ((128, 96, *sides[:-1], 3), (128, 96)):
        assert packed({"w": weight(*shape)}).keys() == {"w", "w.scale"}


def test_a_weight_of_the_least_size_is_packed():
    assert packed({"w": weight(64, LEAST // 64)}).keys() == {"w", "w.scale"}
    assert packed({"w": weight(1, LEAST - 1)}).keys() == {"w"}


def test_half_the_bytes_of_float16():
    tensors = packed({"w": weight(160, 160, 3, 3)})
    assert sum(value.nbytes for value in tensors.values()) < 0.51 * 2 * 160 * 160 * 9
