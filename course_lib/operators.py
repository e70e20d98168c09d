"""Linear operators of measurements, y = A x, with their adjoints and pseudo-inverses.

Every operator is used in the same three ways, on batches of images x (B, C, H, W) or of vectors x (B, d):

    A(x)             what the measurement sees of x
    A.adjoint(y)     A^T y, defined by <A x, y> = <x, A^T y> for all x and y
    A.pinv(y)        A^+ y, the shortest x among those that fit y best; A^+ A is a projection

=============  ==================================  =========================  ==========================
operator       A x                                 A^T y                      A^+ y
=============  ==================================  =========================  ==========================
Mask           m x, zero where m is 0              m y                        m y
Blur           x convolved with k, periodic        correlation with k         division in Fourier space
Downsample     mean over squares of f x f pixels   each y / f^2 on its square each y on its square
=============  ==================================  =========================  ==========================

The adjoint is the gradient of <A x, y> with respect to x. Nothing here knows a network.
"""

import torch
from torch.nn import functional as F


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
        return self.known.to(x) * x

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
        if not std > 0:
            raise ValueError(f"std must be a positive number of pixels, got {std!r}")
        if not 0 < least < 1:
            raise ValueError(f"least must lie between 0 and 1, got {least!r}")
        self.std, self.least = float(std), float(least)

    def _transform(self, n):
        """Transform (n,) of the Gaussian, sampled at whole pixels, wrapped to n of them, of sum one."""
        reach = int(8 * self.std) + 1
        offsets = torch.arange(-reach, reach + 1)
        weights = torch.exp(-(offsets.double() ** 2) / (2 * self.std**2))
        kernel = torch.zeros(n, dtype=torch.float64).index_add(0, offsets % n, weights / weights.sum())
        return torch.fft.fft(kernel).real

    def _filter(self, x, gain):
        k_hat = torch.outer(self._transform(x.shape[-2]), self._transform(x.shape[-1]))  # (H, W)
        return torch.fft.ifft2(torch.fft.fft2(x) * gain(k_hat).to(x)).real

    def __call__(self, x):
        """x (B, C, H, W) -> (B, C, H, W)."""
        return self._filter(x, lambda k_hat: k_hat)

    adjoint = __call__

    def pinv(self, y):
        """y (B, C, H, W) -> (B, C, H, W). A^+ of the operator that has the given-up frequencies cut off."""
        return self._filter(y, lambda k_hat: torch.where(k_hat > self.least, 1 / k_hat, 0.0))


def rectangle(size, row, column, height, width):
    """Known pixels (size, size), float: 0 in the rectangle of that centre and those sides in pixels, 1 elsewhere."""
    down, right = _offsets(size, row, column)
    return 1 - ((2 * down.abs() < height) & (2 * right.abs() < width)).float()


def ellipse(size, row, column, height, width):
    """Known pixels (size, size), float: 0 in the ellipse of that centre and those diameters in pixels, 1 elsewhere."""
    down, right = _offsets(size, row, column)
    return 1 - ((2 * down / height) ** 2 + (2 * right / width) ** 2 < 1).float()


def _offsets(size, row, column):
    pixel = torch.arange(size)
    return pixel[:, None] - row, pixel[None, :] - column
