"""Operators: adjoints against the definition and automatic differentiation, values against SciPy and scikit-image."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import downscale_local_mean

from course_lib.operators import Blur, Downsample, Mask, ellipse, rectangle

SHAPE = (3, 2, 16, 24)
CASES = {
    "mask": Mask(torch.rand(16, 24, generator=torch.Generator().manual_seed(0)) > 0.4),
    "mask of a rectangle": Mask(rectangle(16, 5, 8, 6, 4).repeat(1, 2)[:, :24]),
    "mean over 2 x 2": Downsample(2),
    "mean over 4 x 4": Downsample(4),
    "blur, std 0.7": Blur(0.7),
    "blur, std 2": Blur(2.0),
}
operators = pytest.mark.parametrize("A", CASES.values(), ids=CASES.keys())


def random(shape, seed):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@operators
@pytest.mark.parametrize("seed", range(3))
def test_the_adjoint_keeps_the_inner_product(A, seed):
    x = random(SHAPE, seed)
    y = random(A(x).shape, seed + 100)
    left, right = (A(x) * y).sum(), (x * A.adjoint(y)).sum()
    assert abs(left - right) <= 1e-12 * (A(x).norm() * y.norm())


@operators
def test_the_adjoint_is_the_gradient(A):
    x = random(SHAPE, 1)
    y = random(A(x).shape, 2)
    _, gradient = torch.autograd.functional.vjp(A, x, y)
    torch.testing.assert_close(A.adjoint(y), gradient, rtol=0, atol=1e-12)


@operators
def test_the_operator_is_linear_and_keeps_the_type(A):
    a, b = random(SHAPE, 3), random(SHAPE, 4)
    torch.testing.assert_close(A(2 * a - 3 * b), 2 * A(a) - 3 * A(b), rtol=0, atol=1e-12)
    assert A(a.float()).dtype == A.adjoint(A(a.float())).dtype == A.pinv(A(a.float())).dtype == torch.float32


def matrix(function, shape):
    """The matrix of a linear function of arrays of that shape."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64).reshape(-1, 1, *shape)
    return function(basis).flatten(1).T


@pytest.mark.parametrize(
    "A",
    [Mask(torch.arange(64).reshape(8, 8) % 3 > 0), Downsample(2), Downsample(4), Blur(0.6), Blur(1.5, least=0.05)],
    ids=["mask", "mean over 2 x 2", "mean over 4 x 4", "blur", "blur with frequencies given up"],
)
def test_the_pseudo_inverse_is_that_of_the_matrix(A):
    whole = matrix(A, (8, 8))
    side = int(whole.shape[0] ** 0.5)
    cut_off = getattr(A, "least", 1e-10) / torch.linalg.matrix_norm(whole, 2)
    expected = torch.linalg.pinv(whole, rtol=cut_off)
    torch.testing.assert_close(matrix(A.pinv, (side, side)), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_downsampling_is_that_of_scikit_image(factor):
    x = random((16, 24), 5)
    expected = downscale_local_mean(x.numpy(), (factor, factor))
    np.testing.assert_allclose(Downsample(factor)(x[None, None])[0, 0], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("std", [0.7, 2.0, 5.0])
def test_blurring_is_that_of_scipy(std):
    x = random((16, 24), 6)
    expected = ndimage.gaussian_filter(x.numpy(), std, mode="wrap", truncate=8)
    np.testing.assert_allclose(Blur(std)(x[None, None])[0, 0], expected, rtol=0, atol=1e-12)


def test_a_mask_holds_for_vectors_too_and_forgets_the_hole():
    A = Mask(torch.tensor([1, 0]))
    torch.testing.assert_close(A(torch.tensor([[1.5, 7.0]])), torch.tensor([[1.5, 0.0]]))


def test_the_shapes_are_where_they_are_said_to_be():
    hole = rectangle(20, 7, 11, 5, 3) == 0
    assert hole.sum() == 15
    assert hole[5:10, 10:13].all()
    disc = ellipse(100, 50, 40, 40, 20) == 0
    assert abs(int(disc.sum()) / (np.pi * 20 * 10) - 1) < 0.02
    rows, columns = disc.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (31, 69, 31, 49)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="threshold it first"):
        Mask(torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="crop or pad"):
        Downsample(4)(torch.zeros(1, 1, 6, 8))
    with pytest.raises(ValueError, match="whole number"):
        Downsample(1.5)
    with pytest.raises(ValueError, match="positive"):
        Blur(0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Blur(1.0, least=0)
