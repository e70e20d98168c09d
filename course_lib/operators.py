"""Linear operators of measurements, y = A x, with their adjoints and pseudo-inverses.

Every operator is used in the same three ways, on batches of images x (B, C, H, W) or of vectors x (B, d):

    A(x)             what the measurement sees of x
    A.adjoint(y)     A^T y, defined by <A x, y> = <x, A^T y> for all x and y
    A.pinv(y)        A^+ y, the shortest x among those that fit y best; A^+ A is a projection

==========  ===================================  ===========================  =============================
operator    A x                                  A^T y                        A^+ y
==========  ===================================  ===========================  =============================
Mask        m x, zero where m is 0               m y                          m y
Blur        x convolved with k, periodic         correlation with k           division in Fourier space
Downsample  mean over squares of f x f pixels    each y / f^2 on its square   each y on its square
KSpace      Fourier transform on measured lines  real part of the inverse     the same, lines without their
                                                 transform, zeros elsewhere   mirror line counted twice
MultiCoil   KSpace points of x times each        sum over coils of the        conjugate gradients
            coil's sensitivity                   inverse, times conj(s_k)
Radon       sums along rays at n angles          smears each y along its ray  conjugate gradients
==========  ===================================  ===========================  =============================

The adjoint is the gradient of <A x, y> with respect to x. Where y is complex (KSpace, MultiCoil), <a, b> is the real
part of sum a conj(b). These two and Radon also have A.solve(b, w), which is (A^T A + w I)^-1 b, KSpace A.fit(y, w),
which is that of b = A^T y. :func:`fitted` draws an image to a measurement by it. Nothing here knows a network.

An operator of one's own is a class with ``__call__`` and ``adjoint``; from :class:`ByConjugateGradients` it has
``solve`` and ``pinv``. :func:`check_adjoint` says whether A and its adjoint belong together.
"""

import numpy as np
import torch
from torch.nn import functional as F

from course_lib.arguments import alike, floating, inside, not_negative, positive, whole, within


def _fits(mask, x, name):
    """The mask. Raises ValueError where it does not broadcast against x, or would make x larger."""
    sides = zip(reversed(mask.shape), reversed(x.shape))
    if mask.ndim > x.ndim or any(m not in (1, side) for m, side in sides):
        raise ValueError(f"{name} of shape {tuple(mask.shape)} do not fit images of shape {tuple(x.shape)}")
    return mask


def _wide(x):
    """x in single precision at least: neither Fourier transforms nor sparse matrices know half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Mask:
    """Inpainting: A x = m x. The measurement has the shape of x, and is zero where nothing is known.

    known : tensor of 0 and 1 (or bool) that broadcasts against x, 1 where a pixel is known; (H, W) for images, (d,) for
        vectors. Raises ValueError for any other value: a soft edge is no projection, and the sampler of the hole
        would no longer leave the known pixels as they are.
    """

    def __init__(self, known):
        known = torch.as_tensor(known)
        if not ((known == 0) | (known == 1)).all():
            raise ValueError("a mask holds 0 (unknown) and 1 (known) alone: threshold it first, as in known > 0.5")
        self.known = known.float()

    def __call__(self, x):
        """x (B, ...) -> (B, ...)."""
        known = _fits(self.known, x, "known pixels").to(x.device) > 0
        return torch.where(known, x, 0)  # no product: NaN may stand in the hole

    adjoint = pinv = __call__


class Downsample:
    """Coarser pixels: the mean over squares of ``factor`` x ``factor`` pixels. Rows of A do not overlap, so A A^T =
    I / factor^2.

    factor : whole number from 1 on. Calls raise ValueError when it does not divide the sides of x.
    """

    def __init__(self, factor):
        if int(factor) != factor or factor < 1:
            raise ValueError(f"factor must be a whole number from 1 on, such as 2 or 4; got {factor!r}")
        self.factor = int(factor)

    def __call__(self, x):
        """x (B, C, H, W) -> (B, C, H / factor, W / factor)."""
        floating(x=x)
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise ValueError(f"sides {tuple(x.shape[-2:])} do not divide by {self.factor}: crop or pad the image first")
        return F.avg_pool2d(x, self.factor)

    def pinv(self, y):
        """y (B, C, h, w) -> (B, C, h factor, w factor): each value on all pixels of its square."""
        return y.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)

    def adjoint(self, y):
        """y (B, C, h, w) -> (B, C, h factor, w factor): each value, divided by factor^2, on its square."""
        return self.pinv(y) / self.factor**2


class Blur:
    """Convolution with a Gaussian of standard deviation ``std`` pixels, periodic at the border.

    In Fourier space A multiplies by the real, symmetric k_hat, the product of the transforms of the Gaussian, sampled
    and wrapped, along both axes. So A is its own adjoint, and A^+ divides by k_hat; frequencies with k_hat below
    ``least`` are given up (set to zero), since noise there would be enlarged beyond 1 / ``least``.

    std : positive. least : in (0, 1). Raises ValueError otherwise.
    """

    def __init__(self, std, least=0.02):
        positive(std=std)
        inside(0, 1, least=least)
        self.std, self.least = float(std), float(least)

    def _transform(self, n):
        """Transform (n,) of the Gaussian, sampled at whole pixels, wrapped to n of them, of sum one."""
        reach = int(8 * self.std) + 1
        offsets = torch.arange(-reach, reach + 1)
        weights = torch.exp(-(offsets.double() ** 2) / (2 * self.std**2))
        kernel = torch.zeros(n, dtype=torch.float64).index_add(0, offsets % n, weights / weights.sum())
        return torch.fft.fft(kernel).real

    def _filter(self, x, gain):
        floating(x=x)
        k_hat = torch.outer(self._transform(x.shape[-2]), self._transform(x.shape[-1]))  # (H, W)
        wide = _wide(x)
        return torch.fft.ifft2(torch.fft.fft2(wide) * gain(k_hat).to(wide)).real.to(x)

    def __call__(self, x):
        """x (B, C, H, W) -> (B, C, H, W)."""
        return self._filter(x, lambda k_hat: k_hat)

    adjoint = __call__

    def pinv(self, y):
        """y (B, C, H, W) -> (B, C, H, W). A^+ of the operator that has the given-up frequencies cut off."""
        return self._filter(y, lambda k_hat: torch.where(k_hat > self.least, 1 / k_hat, 0.0))


def _sampled(mask):
    """A sampling mask, float. Raises ValueError unless it holds 0 and 1 alone."""
    mask = torch.as_tensor(mask)
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("a sampling mask holds 0 (not measured) and 1 (measured) alone")
    return mask.float()


class ByConjugateGradients:
    """What an operator whose A^T A has no simple inverse can do by conjugate gradients, from its ``__call__`` and its
    ``adjoint`` alone: the base class for one of one's own."""

    def solve(self, b, weight, steps=30):
        """(A^T A + weight I)^-1 b for b of the shape of an image, weight > 0, by ``steps`` of conjugate gradients.
        Raises ValueError for another weight."""
        positive(weight=weight)
        return conjugate_gradients(lambda x: self.adjoint(self(x)) + weight * x, b, steps)

    def pinv(self, y, steps=200):
        """A^+ y by ``steps`` conjugate gradients on A^T A x = A^T y from zero. Stopped early it is close, not exact."""
        return conjugate_gradients(lambda x: self.adjoint(self(x)), self.adjoint(y), steps)


class KSpace:
    """Single-coil Cartesian MRI: A x = the centred, orthonormal Fourier transform of x, on the measured lines.

    A line is a column of k-space (one phase-encoding step); zero frequency is column W // 2. The measurement is
    complex (of x in half precision, in single), of the shape of x, and zero on the lines that were not measured. x is
    real: a picture without phase. Then y
    at -k is the complex conjugate of y at k, and a line gives its mirror line for nothing. A^T A multiplies frequency k
    by (m(k) + m(-k)) / 2, a projection only where the mask is its own mirror image, as those of :func:`sampled_lines`
    are.

    lines : tensor of 0 and 1 that broadcasts against x: (W,), (B, 1, 1, W) for a mask an image, or (H, W) for single
        points of k-space. Raises ValueError for other values, and where they do not fit x.
    """

    def __init__(self, lines):
        self.lines = _sampled(lines)
        self.gram = (self.lines + _mirrored(self.lines)) / 2  # of A^T A

    def __call__(self, x):
        """x (B, C, H, W) real -> (B, C, H, W) complex."""
        if x.is_complex():
            raise ValueError("x must be real, a picture without phase: of complex images take MultiCoil, with one coil")
        x = _wide(x)
        return _fits(self.lines, x, "lines").to(x) * to_kspace(x)

    def adjoint(self, y):
        """y (B, C, H, W) complex -> (B, C, H, W) real: the zero-filled picture."""
        return from_kspace(_fits(self.lines, y, "lines").to(y.real) * y).real

    def _filter(self, x, gain):
        wide = _wide(x)
        return from_kspace(_fits(gain, x, "lines").to(wide) * to_kspace(wide)).real.to(x)

    def pinv(self, y):
        """y (B, C, H, W) complex -> (B, C, H, W) real; equal to the adjoint for a mask that is its own mirror image."""
        return self.fit(y, 0.0)

    def fit(self, y, weight):
        """(A^T A + weight I)^-1 A^T y, weight >= 0: :meth:`solve` with b = A^T y, but right for any small weight, since
        what rounding leaves of A^T y on lines that were not measured is not divided by it. Raises ValueError for a
        weight below 0."""
        not_negative(weight=weight)
        gram = self.gram.to(y.real)
        return self._filter(self.adjoint(y), torch.where(gram > 0, 1 / (gram + weight), 0.0))

    def solve(self, b, weight):
        """(A^T A + weight I)^-1 b for real b (B, C, H, W), weight > 0: a division at each frequency. Raises ValueError
        for another weight."""
        positive(weight=weight)
        return self._filter(b, 1 / (self.gram.to(b) + weight))


def _mirrored(lines):
    """What stands at -k, for each k: in column W - j for column j if W is even, and in W - 1 - j if it is odd."""
    for axis in range(-min(2, lines.ndim), 0):
        lines = lines.flip(axis).roll(1 - lines.shape[axis] % 2, axis)
    return lines


def to_kspace(x):
    """Centred orthonormal Fourier transform over the last two axes: zero frequency in the middle, the norm is kept."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, (-2, -1)), norm="ortho"), (-2, -1))


def from_kspace(y):
    """The inverse of :func:`to_kspace`, complex."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(y, (-2, -1)), norm="ortho"), (-2, -1))


def sampled_lines(size, acceleration, generator=None, centre=0.32):
    """Measured lines (size,), float of 0 and 1: at most one in ``acceleration``, the middle ones and random others.

    The middle: about centre / acceleration of all lines, 8 % at 4 and 4 % at 8, as in the fastMRI challenge (Zbontar
    et al., 2018). Lines come in pairs k and -k: a picture without phase would else give one for the other, and the
    acceleration would be about half of what it says. So their number is odd: 23 of 96 at 4 and 11 of 96 at 8.

    size : even or odd. acceleration : from 1 on. Raises ValueError below, and where fewer than 3 lines would be left.
    """
    whole(size=size)
    within(0, 1, centre=centre)
    if not 1 <= acceleration <= size / 3:
        raise ValueError(
            f"acceleration must be at least 1, and size at least 3 acceleration; got {acceleration!r} and size {size!r}"
        )
    pairs = int((size / acceleration - 1) / 2)
    low = min(max(1, round(centre * size / acceleration / 2)), pairs)
    others = low + 1 + torch.randperm((size - 1) // 2 - low, generator=generator)[: pairs - low]
    offsets = torch.cat([torch.arange(low + 1), others])
    lines = torch.zeros(size)
    lines[size // 2 + offsets] = lines[size // 2 - offsets] = 1
    return lines


class MultiCoil(ByConjugateGradients):
    """Cartesian MRI with K coils (SENSE; Pruessmann et al., MRM 1999): y_k = m F(s_k x), F the centred orthonormal
    Fourier transform, m the measured points of k-space, s_k the sensitivity of coil k.

    An image is complex: x (B, 2, H, W) holds its real and its imaginary part; with ``parts`` 1 it is real, x
    (B, 1, H, W). Where the squares of the sensitivities sum to 1 or less, the norm of A is at most 1.

    points : 0 and 1, (H, W) or what broadcasts against (B, K, H, W). maps : complex (K, H, W). Raises ValueError for
    other values and shapes.
    """

    def __init__(self, points, maps, parts=2):
        points = _sampled(points)
        if maps.ndim != 3 or not maps.is_complex():
            raise ValueError(f"maps must be complex (K, H, W), got {maps.dtype} of shape {tuple(maps.shape)}")
        if parts not in (1, 2):
            raise ValueError(f"parts must be 1, a real image, or 2, real and imaginary part; got {parts!r}")
        _fits(points[:1] if points.ndim == 4 else points, maps[None], "points")  # one image, or as many as x holds
        self.points, self.maps, self.parts = points, maps, parts

    def _on(self, x):
        """The points and maps on the device and in the precision of x."""
        real = x.real
        return self.points.to(real), self.maps.to(real.device, torch.complex(real[:0], real[:0]).dtype)

    def __call__(self, x):
        """x (B, parts, H, W) real -> (B, K, H, W) complex."""
        if x.ndim != 4 or x.shape[1:] != (self.parts, *self.maps.shape[1:]):
            sides = f"{self.maps.shape[1]}, {self.maps.shape[2]}"
            raise ValueError(f"this scanner takes images (B, {self.parts}, {sides}), got {tuple(x.shape)}")
        x = _wide(x)
        points, maps = self._on(x)
        y = to_kspace(maps * (torch.complex(x[:, :1], x[:, 1:]) if self.parts == 2 else x))
        return _fits(points, y, "points") * y

    def adjoint(self, y):
        """y (B, K, H, W) complex -> (B, parts, H, W) real: the coils' zero-filled pictures, combined."""
        if y.ndim != 4 or y.shape[1:] != self.maps.shape:
            raise ValueError(f"this scanner gives y (B, {', '.join(map(str, self.maps.shape))}), got {tuple(y.shape)}")
        points, maps = self._on(y)
        points = _fits(points, y, "points")
        z = (maps.conj() * from_kspace(points * y)).sum(1, keepdim=True)
        return torch.cat([z.real, z.imag], 1)[:, : self.parts]

    def solve(self, b, weight, steps=50):
        """As of Radon, with more steps: CG-SENSE (Pruessmann et al., MRM 2001)."""
        return super().solve(b, weight, steps)


def sensitivities(y, centre, relative=0.05):
    """Sensitivities of coils from the fully sampled middle of k-space, complex (K, H, W): the smooth picture of each
    coil over the root of the sum of their squares, zero where that is below ``relative`` of its largest.

    Their squares sum to 1 where they are not zero. Numerator and denominator see the same patient, so what is smooth in
    the phase of the image goes into the maps. A Hann window over the middle keeps its edge from ringing (McKenzie et
    al., MRM 2002).

    y : complex (K, H, W). centre : its side in points, from 2 on. Raises ValueError where points in it are missing.
    """
    whole(2, centre=centre)
    H, W = y.shape[-2:]
    if not centre <= min(H, W):
        raise ValueError(f"centre must be at most the sides {H} and {W} of k-space, got {centre}")
    window = torch.zeros(H, W)
    hann = torch.hann_window(centre + 2, periodic=False)[1:-1]
    top, left = H // 2 - centre // 2, W // 2 - centre // 2
    window[top : top + centre, left : left + centre] = torch.outer(hann, hann)
    if not (y.abs().sum(0)[window > 0] > 0).all():
        raise ValueError(f"of the middle {centre} x {centre} points of k-space some are missing: give a smaller centre")
    smooth = from_kspace(window.to(y.real) * y)
    size = smooth.abs().square().sum(0).sqrt()
    return torch.where(size > relative * size.max(), smooth / size, 0.0)


class Radon(ByConjugateGradients):
    """Parallel-beam CT: A x = sums along rays of the square picture turned by each angle.

    The picture is turned about pixel (size // 2, size // 2) by bilinear interpolation and its columns are added up, as
    ``skimage.transform.radon(circle=True)`` does. All of it is one sparse matrix, so the adjoint is exact.

    size : pixels a side, from 2 on. angles : number of views, from 1 on, evenly over 180 degrees. unit : length in
        pixels, positive, in which rays are measured; with its :func:`operator_norm` in pixels A has norm 1. Raises
        ValueError otherwise, and for pictures and sinograms of another size.
    """

    def __init__(self, size, angles, unit=1.0):
        whole(2, size=size)
        whole(angles=angles)
        positive(unit=unit)
        self.size, self.angles, self.unit = int(size), int(angles), float(unit)
        self.theta = np.arange(angles) * np.pi / angles  # radians
        forward, self._ramp = self._matrix(), _ramp(size)
        matrices = {"forward": forward, "backward": forward.T.tocsr(), "fbp": self._interpolation()}
        self._matrices = {
            (name, kind): matrix.astype(kind) for name, matrix in matrices.items() for kind in ("float32", "float64")
        }

    def _matrix(self):
        """A, sparse, (angles size, size^2): four pixels for each sample on a ray."""
        n, middle = self.size, self.size // 2
        depth, detector = np.meshgrid(np.arange(n) - middle, np.arange(n) - middle, indexing="ij")
        parts = []
        for k, theta in enumerate(self.theta):
            x = np.cos(theta) * detector + np.sin(theta) * depth + middle  # column of the picture
            y = -np.sin(theta) * detector + np.cos(theta) * depth + middle  # row
            for row, weight_row in _neighbours(y, n):
                for column, weight_column in _neighbours(x, n):
                    parts.append((weight_row * weight_column, k * n + detector + middle, row * n + column))
        return _sparse(parts, (self.angles * n, n * n)) / self.unit

    def _interpolation(self):
        """Linear interpolation of a filtered sinogram at each pixel, summed over the angles, (size^2, angles size)."""
        n, middle = self.size, self.size // 2
        y, x = np.meshgrid(np.arange(n) - middle, np.arange(n) - middle, indexing="ij")
        inside = x**2 + y**2 <= middle**2
        parts = []
        for k, theta in enumerate(self.theta):
            for detector, weight in _neighbours(np.cos(theta) * x - np.sin(theta) * y + middle, n):
                parts.append((weight * inside, (y + middle) * n + x + middle, k * n + detector))
        return _sparse(parts, (n * n, self.angles * n))

    def _apply(self, name, x, shape):
        """A sparse matrix times each image of x (B, C, ...); in the precision of x, on the CPU."""
        sides = (self.size if name == "forward" else self.angles, self.size)
        if x.ndim != 4 or x.shape[2:] != sides:
            raise ValueError(f"this scanner takes (B, C, {sides[0]}, {sides[1]}), got {tuple(x.shape)}")
        floating(x=x)
        flat = _wide(x.detach().cpu()).flatten(2).flatten(0, 1).numpy()
        found = (self._matrices[name, str(flat.dtype)] @ flat.T).T
        return torch.as_tensor(np.ascontiguousarray(found)).reshape(*x.shape[:2], *shape).to(x)

    def __call__(self, x):
        """x (B, C, size, size) -> sinogram (B, C, angles, size). No gradients: A.adjoint is the gradient."""
        return self._apply("forward", x, (self.angles, self.size))

    def adjoint(self, y):
        """y (B, C, angles, size) -> (B, C, size, size): back-projection without a filter."""
        return self._apply("backward", y, (self.size, self.size))

    def fbp(self, y):
        """Filtered back-projection of y (B, C, angles, size) -> (B, C, size, size), zero outside the inscribed circle.

        The ramp filter in its band-limited form (Kak & Slaney, 1988, ch. 3) on zero-padded projections, then linear
        interpolation along the detectors: the same as ``skimage.transform.iradon``.
        """
        floating(y=y)
        padded, wide = 2 * (len(self._ramp) - 1), _wide(y)
        filtered = torch.fft.irfft(torch.fft.rfft(wide, padded) * self._ramp.to(wide), padded)[..., : self.size]
        x = self._apply("fbp", filtered, (self.size, self.size)) * (self.unit * torch.pi / (2 * self.angles))
        return x.to(y)


def _neighbours(position, n):
    """The two whole positions around each, with their weights of linear interpolation, 0 outside 0 to n - 1."""
    low = np.floor(position + 1e-9).astype(int)
    for index in (low, low + 1):
        weight = (1 - np.abs(position - index)) * ((index >= 0) & (index < n))
        yield index.clip(0, n - 1), weight.clip(0)


def _sparse(parts, shape):
    """The sparse matrix with the sum of the parts (weights, rows, columns)."""
    from scipy.sparse import coo_array

    weights, rows, columns = (np.concatenate([part[k].ravel() for part in parts]) for k in range(3))
    kept = weights > 1e-9
    return coo_array((weights[kept], (rows[kept], columns[kept])), shape).tocsr()


def _ramp(n):
    """Transform, real half, of the band-limited ramp (unit pixels), times 2, on at least 2 n samples."""
    padded = max(64, 2 ** int(np.ceil(np.log2(2 * n))))
    k = torch.fft.fftfreq(padded, 1 / padded, dtype=torch.float64).round()
    kernel = torch.where(k % 2 == 1, -1 / (torch.pi * k) ** 2, 0.0)
    kernel[0] = 0.25
    return 2 * torch.fft.rfft(kernel).real


def conjugate_gradients(apply, b, steps, tolerance=1e-6):
    """x with apply(x) = b for a symmetric, positive apply, each image of b (B, ...) on its own, from x = 0.

    Stops before ``steps`` once all residuals are below ``tolerance`` of ||b||. Hestenes & Stiefel (1952). Raises
    ValueError for a b that is NaN, or too large for its ||b||^2 to be finite.
    """
    axes = tuple(range(1, b.ndim))

    def dot(u, v):
        return (u * v).sum(axes, keepdim=True)

    x, r = torch.zeros_like(b), b.clone()
    p, old = r, dot(r, r)
    if not old.isfinite().all():
        raise ValueError("b must be finite, and so must ||b||^2: some values are NaN, infinite or too large")
    enough = tolerance**2 * old
    for _ in range(steps):
        if (old <= enough).all():
            break
        Ap = apply(p)
        step = torch.where(old > enough, old / dot(p, Ap), 0.0)  # a finished image stays as it is
        x, r = x + step * p, r - step * Ap
        new = dot(r, r)
        p, old = r + torch.where(old > enough, new / old, 0.0) * p, new
    return x


class _Fitted(torch.autograd.Function):
    """:func:`fitted`, with S = (A^T A + weight I)^-1, which is symmetric: du/dx = weight S, du/dweight = S (x - u)."""

    @staticmethod
    def forward(ctx, x, weight, operator, y):
        # written as a change of x: what solve leaves undone, and rounding, then scale with what changes
        u = x + operator.solve(operator.adjoint(y - operator(x)), weight)
        ctx.operator = operator
        ctx.save_for_backward(x, weight, u)
        return u

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        x, weight, u = ctx.saved_tensors
        v = ctx.operator.solve(gradient, weight)
        return weight * v, (v * (x - u)).sum(), None, None


@torch.compiler.disable
def fitted(operator, y, x, weight):
    """The image that fits a measurement y and an image x (B, C, H, W) best, of the shape of x:

        argmin_u |y - A u|^2 + weight |x - u|^2 = (A^T A + weight I)^-1 (A^T y + weight x)

    operator : one that can ``solve``. weight : > 0, a number or a tensor of one. Gradients reach x and weight, by one
    more solve, as exact as ``solve`` is (Aggarwal et al., MoDL, IEEE TMI 2019); for Radon, too, though its calls give
    none. Raises ValueError for an operator that cannot solve, for another weight, and where A^T y has not the shape of
    x.
    """
    require(operator, "fitted", "adjoint", "solve")
    positive(weight=weight)
    alike(x=x, **{"A^T y": operator.adjoint(y)})
    return _Fitted.apply(x, torch.as_tensor(weight, dtype=x.dtype, device=x.device).reshape(()), operator, y)


def check_adjoint(operator, x, seed=0):
    """How far an operator and its adjoint are from <A x, y> = <x, A^T y>: the difference of the two for random y,
    relative to |A x| |y|, a float; rounding alone leaves about 1e-16 in double precision, 1e-7 in single.

    operator : with ``__call__`` and ``adjoint``. x : images of the kind that it takes, or their shape, (B, C, H, W) or
    (B, d), for random ones in double precision. Raises ValueError where A is not linear, A^T y has not the shape of x,
    or the difference is no rounding: then methods that use both draw wrong images without another sign.
    """
    require(operator, "check_adjoint", "adjoint")
    generator = torch.Generator().manual_seed(seed)

    def random(like):
        if like.is_complex():
            return torch.complex(random(like.real), random(like.real))
        return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)

    if not torch.is_tensor(x):
        x = torch.randn(tuple(x), dtype=torch.float64, generator=generator)
    z, rounding = random(x), 1000 * torch.finfo(x.dtype).eps
    Ax, Az = operator(x), operator(z)
    if not (Ax.any() or Az.any()):
        raise ValueError("A sees nothing: A x is 0 for random x, and so is any adjoint's answer to it")
    bent = float((operator(2 * x + z) - (2 * Ax + Az)).abs().max() / torch.maximum(Ax.abs().max(), Az.abs().max()))
    if not bent <= rounding:
        raise ValueError(f"A is not linear: A(2 x + z) and 2 A(x) + A(z) differ by {bent:.1e} of the largest value")
    y = random(Ax)
    back = operator.adjoint(y)
    if back.shape != x.shape or back.is_complex() != x.is_complex():
        kinds = ["complex" if part.is_complex() else "real" for part in (x, back)]
        raise ValueError(
            f"A.adjoint(y) must be as x is, {kinds[0]} {tuple(x.shape)}, for y as A(x), {tuple(y.shape)}; got "
            f"{kinds[1]} {tuple(back.shape)}"
        )
    left, right = (float((a * b.conj()).sum().real) for a, b in ((Ax, y), (x, back)))
    gap = abs(left - right) / float(Ax.abs().square().sum().sqrt() * y.abs().square().sum().sqrt())
    if not gap <= rounding:
        raise ValueError(
            f"A.adjoint is not the adjoint of A: <A x, y> = {left:.6g} and <x, A^T y> = {right:.6g} for random x and y "
            f"(relative gap {gap:.1e}); torch.autograd.functional.vjp(A, x, y)[1] is what A.adjoint(y) must be"
        )
    return gap


def require(operator, method, *names):
    """Raises ValueError, with the remedy, where an operator lacks one of the names that a method calls: "adjoint",
    "solve" or "pinv"."""
    for name in names:
        if not callable(getattr(operator, name, None)):
            what, remedy = {
                "adjoint": ("A^T y", "write it, and test it by operators.check_adjoint"),
                "solve": ("(A^T A + w I)^-1 b", "inherit it from operators.ByConjugateGradients"),
                "pinv": ("A^+ y, the shortest x that fits y best", "inherit it from operators.ByConjugateGradients"),
            }[name]
            raise ValueError(f"{method} needs operator.{name}, {what}; {type(operator).__name__} has none: {remedy}")


def operator_norm(operator, x, iterations=15):
    """The largest singular value of an operator, the root of the largest eigenvalue of A^T A: power iteration from
    random images x (B, C, H, W). Where A differs from image to image, the largest of all. It comes from below; of an A
    that sees nothing it is 0. Raises ValueError for images of 0 alone, and unless iterations is a whole number from 1
    on."""
    whole(iterations=iterations)
    if not x.any():
        raise ValueError("x must be random images, and is 0 everywhere")
    x = x / x.flatten(1).norm(dim=1).max()
    for _ in range(iterations):
        x = operator.adjoint(operator(x))
        length = x.flatten(1).norm(dim=1).max()
        if length == 0:
            break
        x = x / length
    return float(length.sqrt())


def rectangle(size, row, column, height, width):
    """Known pixels (size, size), float: 0 in the rectangle of that centre and those sides in pixels (one less if
    even), 1 elsewhere. Raises ValueError unless the sides are positive."""
    positive(height=height, width=width)
    down, right = _offsets(size, row, column)
    return 1 - ((2 * down.abs() < height) & (2 * right.abs() < width)).float()


def ellipse(size, row, column, height, width):
    """Known pixels (size, size), float: 0 in the ellipse of that centre and those diameters in pixels (one less if
    even), 1 elsewhere. Raises ValueError unless the diameters are positive."""
    positive(height=height, width=width)
    down, right = _offsets(size, row, column)
    return 1 - ((2 * down / height) ** 2 + (2 * right / width) ** 2 < 1).float()


def _offsets(size, row, column):
    pixel = torch.arange(size)
    return pixel[:, None] - row, pixel[None, :] - column
