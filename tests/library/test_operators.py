"""Operators: adjoints against the definition and automatic differentiation, values against SciPy and scikit-image."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import downscale_local_mean

from course_lib.operators import (
    Blur,
    ByConjugateGradients,
    Downsample,
    KSpace,
    Mask,
    MultiCoil,
    Radon,
    check_adjoint,
    conjugate_gradients,
    ellipse,
    fitted,
    from_kspace,
    operator_norm,
    rectangle,
    sampled_lines,
    sensitivities,
    to_kspace,
)

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
    even = rectangle(20, 7, 11, 6, 4) == 0  # one less
    assert even.sum() == 15 and even[5:10, 10:13].all()
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
    for known in (torch.ones(8, 9), torch.ones(4, 1, 8, 8), torch.ones(1, 2, 1, 8, 8)):
        with pytest.raises(ValueError, match="known pixels of shape .* do not fit images of shape"):
            Mask(known)(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="lines of shape .* do not fit images of shape"):
        KSpace(torch.ones(8))(torch.zeros(2, 1, 8, 9))
    for shape in (rectangle, ellipse):
        with pytest.raises(ValueError, match="height must be positive"):
            shape(16, 8, 8, 0, 4)


@pytest.mark.parametrize("size", [25, 97, 24])
def test_lines_of_every_width_come_in_pairs(size):
    """Column j of frequency k = j - size // 2: k and -k are measured together."""
    lines = sampled_lines(size, 4, torch.Generator().manual_seed(0))
    k = torch.arange(size) - size // 2
    measured = set(k[lines > 0].tolist())
    assert measured == {-j for j in measured} and 0 in measured and len(measured) <= size / 4


# ---- k-space and rays ------------------------------------------------------------------------------------------------

LINES = (torch.rand(24, generator=torch.Generator().manual_seed(5)) > 0.6).float()  # not its own mirror image
POINTS = (torch.rand(8, 10, generator=torch.Generator().manual_seed(6)) > 0.6).float()
SCANS = {
    "k-space": (KSpace(LINES), (3, 2, 16, 24)),
    "k-space, a mask an image": (KSpace(torch.stack([LINES, 1 - LINES, LINES.flip(0)])[:, None, None]), (3, 2, 16, 24)),
    "k-space, mirrored lines": (KSpace(sampled_lines(24, 3, torch.Generator().manual_seed(0))), (3, 2, 16, 24)),
    "k-space, odd width": (KSpace(LINES[:23]), (3, 2, 16, 23)),
    "k-space, odd width and height": (KSpace(LINES[:9]), (3, 2, 7, 9)),
    "k-space, mirrored lines of an odd width": (
        KSpace(sampled_lines(25, 3, torch.Generator().manual_seed(0))),
        (3, 2, 8, 25),
    ),
    "k-space, single points": (KSpace(POINTS), (3, 2, 8, 10)),
    "k-space, single points, odd sides": (KSpace(POINTS[:7, :9]), (3, 2, 7, 9)),
    "rays": (Radon(16, 5), (3, 2, 16, 16)),
    "rays, odd side": (Radon(15, 5), (3, 2, 15, 15)),
}
scans = pytest.mark.parametrize(("A", "shape"), SCANS.values(), ids=SCANS.keys())


def measurement(A, x, seed):
    """Random y of the kind that A gives, complex where that is."""
    y = A(x)
    real = random(y.shape, seed)
    return torch.complex(real, random(y.shape, seed + 50)) if y.is_complex() else real


@scans
@pytest.mark.parametrize("seed", range(3))
def test_scans_and_their_adjoints_keep_the_inner_product(A, shape, seed):
    x = random(shape, seed)
    y = measurement(A, x, seed + 100)
    left, right = (A(x) * y.conj()).sum().real, (x * A.adjoint(y)).sum()
    assert abs(left - right) <= 1e-12 * (A(x).abs().square().sum() * y.abs().square().sum()).sqrt()
    assert not A.adjoint(y).is_complex()


@scans
def test_solving_undoes_the_gram_matrix_with_a_weight(A, shape):
    x, weight = random(shape, 1), 0.3
    b = A.adjoint(A(x)) + weight * x
    found = A.solve(b, weight, steps=300) if isinstance(A, Radon) else A.solve(b, weight)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-4)


@scans
def test_pseudo_inverses_of_scans_are_those_of_their_matrices(A, shape):
    """Against NumPy: the real matrix of A, real and imaginary parts one below the other."""
    if getattr(A, "lines", torch.zeros(1)).ndim == 4:
        A = KSpace(A.lines[1, 0, 0])
    side = shape[2:]
    basis = torch.eye(int(np.prod(side)), dtype=torch.float64).reshape(-1, 1, *side)
    columns = A(basis).flatten(1)
    M = torch.cat([columns.real, columns.imag], 1).T if columns.is_complex() else columns.T
    x = random((1, 1, *side), 3)
    expected = torch.linalg.pinv(M, rtol=1e-9) @ M @ x.flatten()
    found = A.pinv(A(x), steps=2000) if isinstance(A, Radon) else A.pinv(A(x))
    torch.testing.assert_close(found.flatten(), expected, rtol=0, atol=1e-5)


def test_kspace_is_numpys_transform_and_keeps_the_norm():
    x = random((2, 1, 16, 24), 0)
    found = to_kspace(x)
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x.numpy(), (-2, -1)), norm="ortho"), (-2, -1))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(from_kspace(found).real, x, rtol=0, atol=1e-12)
    constant = to_kspace(torch.ones(1, 1, 16, 24))
    assert constant[0, 0, 8, 12].real == pytest.approx(384**0.5) and constant.abs().sum() == pytest.approx(
        384**0.5, 1e-5
    )


@pytest.mark.parametrize(("acceleration", "count", "low"), [(4, 23, 9), (8, 11, 5), (2, 47, 17)])
def test_sampled_lines_are_pairs_around_a_full_middle(acceleration, count, low):
    lines = sampled_lines(96, acceleration, torch.Generator().manual_seed(0))
    assert lines.sum() == count and 96 / count >= acceleration
    assert torch.equal(lines, lines.flip(0).roll(1)) and set(lines.tolist()) == {0.0, 1.0}
    assert lines[48 - low // 2 : 48 + low // 2 + 1].all()
    assert not torch.equal(lines, sampled_lines(96, acceleration, torch.Generator().manual_seed(1)))
    A = KSpace(lines)
    assert torch.equal(A.gram, lines)  # a projection: no frequency is known by halves
    # the middle is no wider than that: of the others each is measured as often, within five standard errors
    many = torch.stack([sampled_lines(96, acceleration, torch.Generator().manual_seed(k)) for k in range(400)])
    share, others = ((count - 1) // 2 - low // 2) / (47 - low // 2), many[:, 48 + low // 2 + 1 :].mean(0)
    assert (others - share).abs().max() < 5 * (share * (1 - share) / 400) ** 0.5 and not many[:, 0].any()
    for acceleration in (40, 0.5, -2, float("nan")):
        with pytest.raises(ValueError, match="acceleration must be at least 1, and size at least 3 acceleration"):
            sampled_lines(96, acceleration)
    with pytest.raises(ValueError, match="centre must lie from 0 to 1"):
        sampled_lines(96, 4, centre=2)
    with pytest.raises(ValueError, match="size must be a whole number"):
        sampled_lines(96.5, 4)
    with pytest.raises(ValueError, match="0 .not measured. and 1"):
        KSpace(torch.tensor([0.5, 1.0]))


def test_a_picture_without_phase_gives_the_mirror_line_for_nothing():
    """One half of k-space is enough for a real image: what the pairs of lines are for."""
    half = KSpace((torch.arange(24) >= 12).float() + (torch.arange(24) == 0))
    x = random((2, 1, 16, 24), 0)
    torch.testing.assert_close(half.pinv(half(x)), x, rtol=0, atol=1e-5)


def phantom(size):
    """Bright ellipses in a circle, zero at its edge."""
    axis = np.arange(size) - size // 2
    y, x = np.meshgrid(axis / (0.45 * size), axis / (0.45 * size), indexing="ij")
    image = 1.0 * ((x / 0.7) ** 2 + (y / 0.9) ** 2 < 1) - 0.6 * (((x - 0.2) / 0.2) ** 2 + (y / 0.4) ** 2 < 1)
    return ndimage.gaussian_filter(image, 0.7) * (x**2 + y**2 < 1)


@pytest.mark.parametrize(("size", "angles"), [(64, 24), (65, 10)])
def test_rays_and_back_projection_are_those_of_scikit_image(size, angles):
    from skimage.transform import iradon, radon

    A, image = Radon(size, angles), phantom(size)
    degrees = np.degrees(A.theta)
    expected = radon(image, degrees, circle=True)  # (detectors, angles)
    y = A(torch.as_tensor(image)[None, None])
    np.testing.assert_allclose(y[0, 0].numpy().T, expected, rtol=0, atol=1e-9 * expected.max())
    found = A.fbp(y)[0, 0].numpy()
    axis = np.arange(size) - size // 2
    inside = axis[:, None] ** 2 + axis**2 < (size // 2 - 2) ** 2  # at the very rim the two extrapolate differently
    np.testing.assert_allclose(found[inside], iradon(expected, degrees, circle=True)[inside], rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [16, 17])
def test_back_projection_fills_the_inscribed_circle_and_nothing_else(size):
    from skimage.transform import iradon

    y = 1 + torch.rand(1, 1, 7, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    A = Radon(size, 7)
    theirs = iradon(y[0, 0].numpy().T, np.degrees(A.theta), circle=True)
    assert np.array_equal(A.fbp(y)[0, 0].numpy() != 0, theirs != 0)


def test_back_projection_finds_the_picture_with_many_views():
    image = torch.as_tensor(phantom(64))[None, None]
    errors = [float((A.fbp(A(image)) - image).square().mean().sqrt()) for A in (Radon(64, 12), Radon(64, 120))]
    assert errors[1] < 0.035 < 0.06 < errors[0]


def test_rays_keep_the_precision_and_name_bad_sizes():
    A = Radon(16, 4)
    assert A(torch.zeros(1, 1, 16, 16)).dtype == A.fbp(torch.zeros(1, 1, 4, 16)).dtype == torch.float32
    with pytest.raises(ValueError, match="angles must be a whole number from 1 on"):
        Radon(16, 0)
    with pytest.raises(ValueError, match="size must be a whole number from 2 on"):
        Radon(1, 4)
    for apply, shape in ((A, (1, 1, 16, 15)), (A, (16, 16)), (A.adjoint, (1, 1, 16, 4)), (A.fbp, (1, 1, 3, 16))):
        with pytest.raises(ValueError, match=r"takes \(B, C, (4|16), 16\), got"):
            apply(torch.zeros(shape))


def test_conjugate_gradients_solve_each_image_on_its_own():
    M = random((6, 6), 0)
    M = M @ M.T + torch.eye(6)
    b = random((4, 6), 1)
    b[2] = 0  # solved at once
    x = conjugate_gradients(lambda v: v @ M, b, 50)
    torch.testing.assert_close(x, torch.linalg.solve(M, b.T).T, rtol=0, atol=1e-4)
    torch.testing.assert_close(conjugate_gradients(lambda v: v @ M, b[:1], 50), x[:1], rtol=0, atol=1e-5)


# ---- the norm, and images that fit a scan ----------------------------------------------------------------------------


@scans
def test_the_norm_is_the_largest_singular_value(A, shape):
    if getattr(A, "lines", torch.zeros(1)).ndim == 4:
        A = KSpace(A.lines[1, 0, 0])
    side = shape[2:]
    columns = A(torch.eye(int(np.prod(side)), dtype=torch.float64).reshape(-1, 1, *side)).flatten(1)
    parts = [columns.real, columns.imag] if columns.is_complex() else [columns]
    expected = float(torch.linalg.matrix_norm(torch.cat(parts, 1), 2))
    assert operator_norm(A, random(shape, 0), 200) == pytest.approx(expected, rel=1e-4)


def test_the_norm_is_that_of_the_image_that_is_stretched_most():
    lines = torch.zeros(2, 1, 1, 8)
    lines[1, ..., 3] = 1  # without its mirror line: half of each
    assert operator_norm(KSpace(lines), random((2, 1, 6, 8), 0), 50) == pytest.approx(0.5**0.5, rel=1e-6)


@pytest.mark.parametrize("unit", [0.5, 45.0])
def test_a_unit_of_length_changes_no_answer(unit):
    pixels, A, x = Radon(16, 5), Radon(16, 5, unit), random((2, 1, 16, 16), 0)
    y, z = pixels(x), A(x)
    torch.testing.assert_close(unit * z, y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A.fbp(z), pixels.fbp(y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A.pinv(z), pixels.pinv(y), rtol=0, atol=1e-6)
    torch.testing.assert_close(A.solve(x, 3.0), pixels.solve(x, 3.0 * unit**2) * unit**2, rtol=1e-8, atol=1e-8)
    with pytest.raises(ValueError, match="unit must be positive"):
        Radon(16, 5, 0.0)


@scans
@pytest.mark.parametrize("relative", [0.03, 1.0, 100.0])
def test_a_fitted_image_is_the_least_of_what_it_says(A, shape, relative):
    """The gradient of |y - A u|^2 + weight |x - u|^2 is zero there, for weights relative to the norm of A^T A."""
    x = random(shape, 0)
    weight = relative * operator_norm(A, x) ** 2
    y = measurement(A, x, 1)
    u = fitted(A, y, x, weight)
    gradient = A.adjoint(A(u) - y) + weight * (u - x)
    assert gradient.norm() < 1e-5 * A.adjoint(A(x) - y).norm()


@scans
def test_gradients_of_a_fitted_image_are_finite_differences(A, shape):
    x, direction, towards = (random((3, 1, *shape[2:]), seed) for seed in range(3))
    y = measurement(A, x, 3)
    weight = torch.tensor(0.3 * operator_norm(A, x) ** 2, dtype=torch.float64)

    def value(x, weight):
        return (fitted(A, y, x, weight) * towards).sum()

    h, step = 1e-3, 1e-3 * weight
    in_x = (value(x + h * direction, weight) - value(x - h * direction, weight)) / (2 * h)
    in_weight = (value(x, weight + step) - value(x, weight - step)) / (2 * step)
    x.requires_grad_()
    weight.requires_grad_()
    value(x, weight).backward()
    assert float((x.grad * direction).sum()) == pytest.approx(float(in_x), rel=1e-4)
    assert float(weight.grad) == pytest.approx(float(in_weight), rel=1e-4)


# ---- Several coils ---------------------------------------------------------------------------------------------------


def coils(parts, n=6, K=3, seed=0):
    """A scanner of K coils of random maps, on about half of the points of n x (n + 1)."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.complex(*torch.randn(2, K, n, n + 1, dtype=torch.float64, generator=generator))
    return MultiCoil(torch.rand(n, n + 1, generator=generator) > 0.5, maps, parts)


def as_real(y):
    return torch.view_as_real(y).flatten(1)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_adjoint_of_coils_is_the_transposed_matrix(parts):
    """Both as matrices between real numbers, real and imaginary part of y apart."""
    A = coils(parts)
    x = torch.eye(parts * 42, dtype=torch.float64).reshape(-1, parts, 6, 7)
    forward = as_real(A(x)).T  # (2 K H W, parts H W)
    y = torch.view_as_complex(torch.eye(len(forward), dtype=torch.float64).reshape(-1, 3, 6, 7, 2))
    torch.testing.assert_close(A.adjoint(y).flatten(1), forward, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 2])
def test_what_coils_see_is_numpys_transform_of_each_product(parts):
    A, x = coils(parts), random((2, parts, 6, 7), 1)
    z = x[:, :1].numpy() + (1j * x[:, 1:].numpy() if parts == 2 else 0)
    centred = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(A.maps.numpy() * z, (-2, -1)), norm="ortho"), (-2, -1))
    np.testing.assert_allclose(A(x).numpy(), centred * A.points.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 2])
def test_solve_and_pinv_of_coils_are_those_of_the_matrix(parts):
    A, b = coils(parts), random((2, parts, 6, 7), 2)
    forward = as_real(A(torch.eye(parts * 42, dtype=torch.float64).reshape(-1, parts, 6, 7))).T
    gram = forward.T @ forward + 0.1 * torch.eye(parts * 42, dtype=torch.float64)
    found = A.solve(b, 0.1, steps=200).flatten(1)
    torch.testing.assert_close(found, torch.linalg.solve(gram, b.flatten(1).T).T, rtol=1e-5, atol=3e-5)
    y = A(b)
    expected = (torch.linalg.pinv(forward, rtol=1e-10) @ as_real(y).T).T
    torch.testing.assert_close(A.pinv(y, steps=500).flatten(1), expected, rtol=1e-4, atol=1e-4)


def test_one_coil_that_sees_all_alike_is_the_single_coil():
    lines = sampled_lines(12, 3, torch.Generator().manual_seed(0))
    A, single = MultiCoil(lines, torch.ones(1, 10, 12, dtype=torch.complex64), 1), KSpace(lines)
    x = random((2, 1, 10, 12), 3).float()
    torch.testing.assert_close(A(x), single(x))
    torch.testing.assert_close(A.adjoint(single(x)), single.adjoint(single(x)))


def smooth_coils(n=48, K=4):
    """Sensitivities (K, n, n) whose squares sum to 1 inside a head, smooth in size and phase, and the head's image."""
    row, column = torch.meshgrid(*[torch.linspace(-1, 1, n, dtype=torch.float64)] * 2, indexing="ij")
    inside = row**2 + column**2 < 0.8
    angles = torch.arange(K) * 2 * torch.pi / K
    maps = torch.stack(
        [torch.exp(-0.5 * ((row - a.sin()) ** 2 + (column - a.cos()) ** 2) + 1j * row * a) for a in angles]
    )
    maps = maps / maps.abs().square().sum(0).sqrt()
    return torch.where(inside, maps, 0), inside * (1 + 0.2 * torch.cos(4 * row) * torch.cos(3 * column)), inside


def test_sensitivities_are_found_from_the_middle_of_k_space():
    """Up to a phase that all coils share, in the head away from its edge; of the outer points two thirds are gone."""
    maps, image, inside = smooth_coils()
    y = to_kspace(maps * image)
    points = torch.rand(48, 48, generator=torch.Generator().manual_seed(0)) < 1 / 3
    points[12:36, 12:36] = True
    found = sensitivities(points * y, 24)
    core = torch.nn.functional.avg_pool2d(inside[None, None].double(), 9, 1, 4)[0, 0] > 0.999
    overlap = (found.conj() * maps).sum(0).abs()  # 1 where the two agree
    assert overlap[core].min() > 0.999
    sums = found.abs().square().sum(0)
    assert ((sums - 1).abs() < 1e-9).logical_or(sums == 0).all() and (sums[0] == 0).all()
    A = MultiCoil(points, found)
    assert 0.9 < operator_norm(A, random((1, 2, 48, 48), 0)) < 1 + 1e-9


def test_coils_and_calibration_that_do_not_fit_are_named():
    maps = torch.ones(2, 4, 4, dtype=torch.complex64)
    for wrong, message in (
        (lambda: MultiCoil(torch.full((4, 4), 0.5), maps), "0 .not measured. and 1"),
        (lambda: MultiCoil(torch.ones(5, 4), maps), "points of shape"),
        (lambda: MultiCoil(torch.ones(4, 4), maps.real), "maps must be complex"),
        (lambda: MultiCoil(torch.ones(4, 4), maps, 3), "parts must be 1"),
        (lambda: MultiCoil(torch.ones(4, 4), maps)(torch.zeros(1, 1, 4, 4)), r"takes images \(B, 2, 4, 4\)"),
        (lambda: sensitivities(maps, 5), "centre must be at most"),
        (lambda: sensitivities(maps, 1), "centre"),
        (lambda: sensitivities(maps * (torch.arange(4) != 2), 2), "some are missing"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


# ---- Operators of one's own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("A", "shape"),
    [*((A, SHAPE) for A in CASES.values()), *SCANS.values(), (coils(1), (2, 1, 6, 7)), (coils(2), (2, 2, 6, 7))],
    ids=[*CASES, *SCANS, "coils, real", "coils, complex"],
)
def test_the_adjoints_here_pass_their_own_check(A, shape):
    assert check_adjoint(A, shape) < 1e-14
    assert check_adjoint(A, random(shape, 0).float(), seed=1) < 1e-5


class Matrix(ByConjugateGradients):
    """y = M x, and ``change`` of the right adjoint."""

    def __init__(self, M, change=lambda x: x):
        self.M, self.change = M, change

    def __call__(self, x):
        return x @ self.M.T

    def adjoint(self, y):
        return self.change(y @ self.M)


WIDE = random((4, 6), 7)


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (Matrix(WIDE, lambda x: 1.001 * x), "A.adjoint is not the adjoint of A: <A x, y> = .* and <x, A.T y> = .*vjp"),
        (Matrix(WIDE, lambda x: x.roll(1, 1)), "A.adjoint is not the adjoint"),
        (Matrix(WIDE, lambda x: x + 0.1), "A.adjoint is not the adjoint"),
        (
            Matrix(WIDE, lambda x: x[:, :3]),
            r"must be as x is, real \(5, 6\), for y as A\(x\), \(5, 4\); got real \(5, 3\)",
        ),
        (Matrix(WIDE, lambda x: x + 0j), r"real \(5, 6\), .* got complex \(5, 6\)"),
    ],
    ids=["a factor", "other pixels", "an offset", "another shape", "complex"],
)
def test_a_wrong_adjoint_is_refused(A, message):
    assert check_adjoint(Matrix(WIDE), (5, 6)) < 1e-14
    with pytest.raises(ValueError, match=message):
        check_adjoint(A, (5, 6))


def test_what_is_not_linear_or_not_there_is_refused():
    class Magnitude(Matrix):
        def __call__(self, x):
            return super().__call__(x).abs()

    class Offset(Matrix):
        def __call__(self, x):
            return super().__call__(x + 1)

    class Forward:
        def __call__(self, x):
            return x

    for bent in (Magnitude, Offset):
        with pytest.raises(ValueError, match="A is not linear"):
            check_adjoint(bent(WIDE), (5, 6))
    with pytest.raises(ValueError, match="check_adjoint needs operator.adjoint, A.T y; Forward has none: write it"):
        check_adjoint(Forward(), (5, 6))
    with pytest.raises(ValueError, match="fitted needs operator.solve.*inherit it from operators.ByConjugateGradients"):
        fitted(Mask(torch.ones(6)), random((5, 6), 0), random((5, 6), 1), 0.1)


def test_the_base_class_gives_solve_and_pinv_of_the_matrix():
    A, b, weight = Matrix(WIDE), random((5, 6), 8), 0.3
    gram = WIDE.T @ WIDE + weight * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(A.solve(b, weight), torch.linalg.solve(gram, b.T).T, rtol=0, atol=1e-5)
    y = A(b)
    torch.testing.assert_close(A.pinv(y), y @ torch.linalg.pinv(WIDE).T, rtol=0, atol=1e-5)


# ---- at the edges ----------------------------------------------------------------------------------------------------


def test_what_stands_in_a_hole_is_ignored_even_if_it_is_no_number():
    x = random((2, 1, 3, 4), 0)
    x[..., 1:] = float("nan")
    x[0, 0, 0, 1] = float("inf")
    x.requires_grad_()
    y = Mask(torch.tensor([1, 0, 0, 0]))(x)
    assert torch.equal(y[..., :1], x[..., :1]) and not y[..., 1:].any()
    y.sum().backward()
    assert torch.equal(x.grad, torch.tensor([1.0, 0, 0, 0]).double().expand_as(x))


@pytest.mark.parametrize("A", [Blur(1.0), Downsample(2), Radon(8, 5)], ids=["blur", "mean", "rays"])
def test_images_of_whole_numbers_are_refused(A):
    with pytest.raises(ValueError, match="x must be a tensor of floats, got int64"):
        A(torch.arange(64).reshape(1, 1, 8, 8))


def test_rays_of_half_precision_are_those_of_single():
    A, x = Radon(8, 5), random((2, 1, 8, 8), 0).half()
    assert A(x).dtype == torch.float16
    torch.testing.assert_close(A(x).float(), A(x.float()), rtol=1e-3, atol=1e-3)


def test_each_image_may_have_its_own_points_of_k_space():
    several = random((2, 1, 6, 7), 3) > 0
    whole, x = coils(2), random((2, 2, 6, 7), 4)
    A = MultiCoil(several, whole.maps)
    each = [MultiCoil(points, whole.maps) for points in several]
    torch.testing.assert_close(A(x), torch.cat([one(x[k : k + 1]) for k, one in enumerate(each)]))
    torch.testing.assert_close(A.adjoint(A(x)), torch.cat([e.adjoint(e(x[k : k + 1])) for k, e in enumerate(each)]))
    with pytest.raises(ValueError, match=r"points of shape \(2, 1, 6, 7\) do not fit"):
        A(random((3, 2, 6, 7), 5))


def test_the_norm_of_nothing_and_after_one_iteration():
    x = 100 * random((2, 1, 4, 4), 0)
    assert operator_norm(Mask(torch.zeros(4, 4)), x) == 0
    assert operator_norm(Mask(torch.ones(4, 4)), x, iterations=1) == pytest.approx(1, rel=1e-12)
    with pytest.raises(ValueError, match="iterations must be a whole number from 1 on"):
        operator_norm(Mask(torch.ones(4, 4)), x, iterations=0)


def test_the_weight_of_a_fitted_image_is_one_positive_number():
    A, x = Matrix(WIDE), random((5, 6), 1)
    y, weight = A(random((5, 6), 0)), torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    found = fitted(A, y, x, weight)
    gram = WIDE.T @ WIDE + 0.3 * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(found, torch.linalg.solve(gram, (y @ WIDE + 0.3 * x).T).T, rtol=0, atol=1e-5)
    found.sum().backward()
    assert weight.grad.shape == (1,) and weight.grad.isfinite().all()
    for wrong in (0.0, -0.1, float("nan"), torch.ones(2)):
        with pytest.raises(ValueError, match="weight must be positive"):
            fitted(A, y, x, wrong)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e200])
def test_conjugate_gradients_refuse_what_has_no_norm(value):
    b = random((3, 4), 0)
    b[1, 2] = value
    with pytest.raises(ValueError, match="b must be finite"):
        conjugate_gradients(lambda x: 2 * x, b, 10)
