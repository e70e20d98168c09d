"""Muon against PyTorch's own, which takes matrices alone, and against AdamW."""

import pytest
import torch
from torch import nn

from course_lib.networks import DiffusionUNet
from course_lib.optimizers import MATRIX, Muon, make, orthogonalised


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (32, 32), (64, 17)])
def test_orthogonalised_is_near_the_polar_factor(shape):
    """Its singular values lie in 0.6 to 1.3, and its singular vectors are those of the matrix."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = u.T @ orthogonalised(matrix) @ vt.T
    assert found.diagonal().min() > 0.6
    assert found.diagonal().max() < 1.3
    assert (found - found.diagonal().diag()).abs().max() < 0.06


def test_of_no_gradient_it_is_no_step():
    assert torch.equal(orthogonalised(torch.zeros(16, 20)), torch.zeros(16, 20))


def walk(weights, optimizer, gradients):
    for step in gradients:
        for weight, gradient in zip(weights, step):
            weight.grad = gradient.clone()
        optimizer.step()
    return [weight.detach() for weight in weights]


def gradients(shapes, steps=5):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(steps)]


def test_matrices_move_as_by_the_muon_of_pytorch():
    """Element by element, to a hundredth of a step's length: both compute in bfloat16."""
    shapes = [(16, 24), (48, 20)]
    ours = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    theirs = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    reference = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    found = walk(ours, Muon(ours, lr=0.01), gradients(shapes))
    for a, b in zip(found, walk(theirs, reference, gradients(shapes))):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_convolution_is_a_matrix_of_outputs_and_the_rest(channels_last):
    steps = gradients([(32, 16, 3, 3)])
    form = torch.channels_last if channels_last else torch.contiguous_format
    kernel = nn.Parameter(torch.zeros(32, 16, 3, 3).to(memory_format=form))
    flat = nn.Parameter(torch.zeros(32, 144))
    (found,) = walk([kernel], Muon([kernel], lr=0.01), steps)
    (wanted,) = walk([flat], Muon([flat], lr=0.01), [[step[0].flatten(1)] for step in steps])
    torch.testing.assert_close(found.flatten(1), wanted, rtol=0, atol=1e-6)


def test_the_rest_moves_as_by_adamw():
    shapes = [(7,), (MATRIX - 1, 64), (64, 4, 3, 3)]
    ours = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    theirs = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    found = walk(ours, Muon(ours, lr=0.01), gradients(shapes))
    for a, b in zip(found, walk(theirs, make("AdamW", theirs, lr=0.002), gradients(shapes))):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_which_weights_of_a_network_are_matrices():
    """All that a U-Net has between its first and its last layer, and no embedding of classes."""
    net = DiffusionUNet(channels=(32, 64), num_classes=3)
    names = {name for name, weight in net.named_parameters() if weight.ndim > 1 and min(weight.shape[:2]) < MATRIX}
    assert names == {"unet.conv_in.conv.weight", "unet.class_embedding.weight", "unet.out.2.conv.weight"}


def test_a_parameter_without_a_gradient_stays():
    kept, moved = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    moved.grad = torch.ones(3)
    Muon([kept, moved], lr=0.1).step()
    assert torch.equal(kept, torch.ones(3))
    assert not torch.equal(moved, torch.ones(3))


def test_an_unknown_optimizer_and_a_rate_of_zero_are_named():
    with pytest.raises(ValueError, match="optimizer must be one of 'AdamW', 'Muon', got 'SGD'"):
        make("SGD", [nn.Parameter(torch.ones(1))], 0.1)
    with pytest.raises(ValueError, match="lr must be"):
        make("Muon", [nn.Parameter(torch.ones(1))], 0.0)
