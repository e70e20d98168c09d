"""A real scan by several coils: what methods see of it, what is kept away to judge them, and a prior of magnitudes in a
complex picture.

There is no picture of the full scan to compare with. But a picture says what every coil would measure at every point of
k-space, so points that a method did not see judge it: which share of their energy does it not predict? For a picture of
zeros that is 1, and the noise of these points is the floor.
"""

import dataclasses

import numpy as np
import torch

from course_lib.arguments import positive, whole, within
from course_lib.denoisers import Denoiser
from course_lib.operators import MultiCoil, sensitivities
from course_lib.schedules import match_dims, schedule_of


@dataclasses.dataclass(frozen=True)
class RawScan:
    """A scan in units of its own picture. A: what methods see, y (1, K, H, W) the measurement of that. whole: the
    operator of all measured points, kspace (1, K, H, W) theirs. validation, test: bool (H, W), points outside the
    centre that methods do not see: the first choose settings, the second judge. unit: of the scan, in the scanner's."""

    A: MultiCoil
    y: torch.Tensor
    whole: MultiCoil
    kspace: torch.Tensor
    validation: torch.Tensor
    test: torch.Tensor
    unit: float

    def unpredicted(self, z, points):
        """Squared error of what the picture z (1, 2, H, W) predicts at each of the points, bool (H, W), summed over the
        coils, as a share of the mean energy of these points: (P,), with a mean of 1 for a picture of zeros."""
        error, energy = ((y[0, :, points]).abs().square().sum(0) for y in (self.whole(z) - self.kspace, self.kspace))
        return error / energy.mean()

    def noise_floor(self, noise):
        """The mean of that at the test points for the true picture, where noise is the root mean square of |n| at a
        point of a coil, in the unit of the scan."""
        return float(noise**2 / self.kspace[0, :, self.test].abs().square().mean())

    def without(self, z):
        """The scan with the picture z (1, 2, H, W) taken off what methods see: what is left for them to explain."""
        return dataclasses.replace(self, y=self.y - self.A(z))


def outermost(kspace, share=0.9):
    """Root mean square of |y| at the measured points of kspace (K, H, W) beyond ``share`` of the way to the edge: the
    noise, or a little more, since hardly any signal is left there. Raises ValueError where none was measured there."""
    within(0, 1, share=share)
    row, column = (2 * (torch.arange(n, device=kspace.device) - n // 2) / n for n in kspace.shape[-2:])
    far = (row[:, None].square() + column.square() > share**2) & (kspace.abs().sum(0) > 0)
    if not far.any():
        raise ValueError(f"no point beyond a share of {share} was measured: take a smaller share")
    return float(kspace[:, far].abs().square().mean().sqrt())


def raw_scan(kspace, sides, centre, away=0.1, relative=0.1, seed=0):
    """A :class:`RawScan` of complex kspace (K, H, W), zero where nothing was measured.

    sides : height and width of the picture, made of so much of the middle of k-space: larger pixels, the same field of
    view. centre : side of the fully sampled middle, which gives the sensitivities and which all methods see. away :
    share of the other points for each of validation and test. The unit is the 98th percentile of the brightness of the
    picture by CG-SENSE. Raises ValueError for sides beyond those of kspace, and as
    :func:`~course_lib.operators.sensitivities`.
    """
    within(0, 0.5, away=away)
    whole(2, centre=centre)
    H, W = kspace.shape[-2:]
    if not (centre <= min(sides) and sides[0] <= H and sides[1] <= W):
        raise ValueError(f"sides must lie between the centre, {centre}, and those of kspace, {H} and {W}; got {sides}")
    top, left = H // 2 - sides[0] // 2, W // 2 - sides[1] // 2
    kspace = kspace[:, top : top + sides[0], left : left + sides[1]]
    measured = kspace.abs().sum(0) > 0
    outside = measured.clone()
    top, left = sides[0] // 2 - centre // 2, sides[1] // 2 - centre // 2
    outside[top : top + centre, left : left + centre] = False
    chance = torch.rand(sides, generator=torch.Generator().manual_seed(seed)).to(kspace.device)
    test, validation = outside & (chance < away), outside & (chance >= away) & (chance < 2 * away)
    seen, maps = measured & ~test & ~validation, sensitivities(kspace, centre, relative)
    A = MultiCoil(seen, maps)
    unit = A.solve(A.adjoint(kspace[None]), 0.01).square().sum(1).sqrt().flatten().quantile(0.98)
    kspace = kspace[None] / unit
    return RawScan(A, seen * kspace, MultiCoil(measured, maps), kspace, validation, test, float(unit))


class RealAndImaginary(Denoiser):
    """The denoiser of complex images (B, 2, H, W) whose real part is a picture of ``prior`` and whose imaginary part is
    small, N(0, spread^2) at each pixel and independent of it: the sensitivities carry the smooth part of the phase.

    prior : D(x_t, t) of images (B, 1, H, W). spread : positive.
    """

    def __init__(self, prior, spread):
        positive(spread=spread)
        self.prior, self.spread, self.schedule = prior, spread, schedule_of(prior)

    def __call__(self, x_t, t):
        """x_t (B, 2, H, W), t a number or (B,) -> E[x_0 | x_t], of the same shape."""
        t = torch.as_tensor(t)
        alpha, sigma = (match_dims(f(t), x_t).to(x_t) for f in (self.schedule.alpha, self.schedule.sigma))
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)  # Bishop, PRML 2006, eq. 2.116
        return torch.cat([self.prior(x_t[:, :1], t), gain * x_t[:, 1:]], 1)


def as_prior(z, level):
    """A picture z (B, 2, H, W) of a scan, background 0, in the grey values of a prior, background -1: the real part
    becomes level z - 1, the imaginary part level z. level : positive; 1 shows the unit of the scan as 0."""
    positive(level=level)
    return level * z - _background(z)


def as_scan(x, level):
    """The inverse of :func:`as_prior`."""
    positive(level=level)
    return (x + _background(x)) / level


def _background(x):
    one = torch.zeros_like(x)
    one[:, 0] = 1
    return one


def seen_by_prior(scan, level):
    """The measurement of a scan's picture in a prior's grey values: A as_prior(z, level) for y = A z."""
    return level * scan.y - scan.A(_background(torch.zeros_like(scan.A.adjoint(scan.y))))


def brain_mask(z, level=0.3):
    """Where the brain is in a picture z (1, 2, H, W) of a head, T1 and from above, with skull: bool (H, W).

    The largest piece brighter than ``level`` of the scan's unit that holds together without bridges of one pixel, which
    dark bone parts from the scalp; widened by two pixels, with folds of up to 12 pixels closed and holes filled. Raises
    ValueError where nothing is as bright.
    """
    from scipy import ndimage

    positive(level=level)
    bright = ndimage.binary_erosion(z.square().sum(1).sqrt()[0].cpu().numpy() > level)
    pieces, count = ndimage.label(bright)
    if not count:
        raise ValueError(f"z must show a head brighter than {level} of the unit of its scan; it shows none")
    brain = pieces == 1 + np.argmax(ndimage.sum_labels(bright, pieces, np.arange(1, count + 1)))
    wide = ndimage.binary_dilation(np.pad(brain, 8), iterations=8)  # room for closing at the border
    filled = ndimage.binary_fill_holes(ndimage.binary_erosion(wide, iterations=6))[8:-8, 8:-8]
    return torch.as_tensor(filled.copy()).to(z.device)
