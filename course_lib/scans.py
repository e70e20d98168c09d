"""Simulated scans of images: MRI with a part of the lines of k-space, CT from few views, each with its noise."""

import functools
import re

import torch

from course_lib import runtime
from course_lib.operators import KSpace, Radon, sampled_lines, to_kspace

ACCELERATIONS = (4, 8)
MRI_NOISE = 0.03  # standard deviation in an image that is fully sampled, where white matter is at about 0.54
CT_VIEWS = 24
CT_NOISE = 0.4  # standard deviation of a ray, in pixels; the longest rays through a head sum up to about 100
CT_UNIT = 45.36538  # pixels, in which rays are measured: their norm at 96 x 96, so that A has norm 1, as in MRI
PROBLEMS = ("MRI, R = 4", "MRI, R = 8", "CT, 24 views")
_NAME = re.compile(f"CT(, {CT_VIEWS} views)?|MRI, R = [0-9]+(, finer data)?")
FINE = "MRI, R = 4, finer data"  # the scan of an image of 192 x 192, reconstructed on 96 x 96


def scan_mri(x_0, accelerations, generator):
    """A noisy scan of images (B, 1, H, W) with random lines, each at its own of the accelerations (B,): (A, y)."""
    if not isinstance(accelerations, (list, tuple)) or len(accelerations) != len(x_0):
        raise ValueError(f"accelerations must be a list of {len(x_0)}, one for each image, got {accelerations!r}")
    lines = torch.stack([sampled_lines(x_0.shape[-1], R, generator) for R in accelerations])
    A, shape = KSpace(lines[:, None, None].to(x_0.device)), (2, *x_0.shape)
    return A, A(x_0) + A.lines * torch.complex(*MRI_NOISE * torch.randn(shape, generator=generator).to(x_0.device))


@functools.cache
def _radon(size):
    return Radon(size, CT_VIEWS, CT_UNIT)


def scan_ct(x_0, generator):
    """A noisy scan of images (B, 1, H, W) from few views, rays in units of ``CT_UNIT``: (A, y)."""
    A = _radon(x_0.shape[-1])
    y = A(x_0)
    return A, y + noise_of("CT") * torch.randn(y.shape, generator=generator).to(y.device)


def back_projected(A, y):
    """Filtered back-projection of a scan of pictures in [-1, 1], whose empty background is -1 and not 0."""
    return A.fbp(y + A(torch.ones_like(y[:1, :, :1, :1]).expand(1, -1, A.size, A.size))) - 1


def scan_mri_by_chance(x_0, generator):
    """A noisy scan of images (B, 1, H, W), each at an acceleration of 4 or 8, by chance: (A, y)."""
    chosen = torch.randint(len(ACCELERATIONS), (len(x_0),), generator=generator)
    return scan_mri(x_0, [ACCELERATIONS[k] for k in chosen], generator)


def zero_filled_scan(x_0, generator):
    """What the U-Net of MRI sees of x_0 (B, 1, H, W): a scan at 4 or 8, by chance, with zeros for missing lines."""
    A, y = scan_mri_by_chance(x_0, generator)
    return A.adjoint(y)


def back_projected_scan(x_0, generator):
    """What the U-Net of CT sees of x_0 (B, 1, H, W): the filtered back-projection of a scan."""
    return back_projected(*scan_ct(x_0, generator))


# ---- Scans by their name ---------------------------------------------------------------------------------------------


def check_problem(problem):
    """Raises ValueError unless problem names a scan."""
    if not isinstance(problem, str) or not _NAME.fullmatch(problem):
        raise ValueError(f"problem must be one of {', '.join(map(repr, PROBLEMS))}, got {problem!r}")


def noise_of(problem):
    """sigma_y of a problem, or of "MRI" or "CT", since all R have one, in the units of its scans. Raises ValueError for
    an unknown one."""
    if problem != "MRI":
        check_problem(problem)
    return CT_NOISE / CT_UNIT if problem.startswith("CT") else MRI_NOISE


def acceleration(problem):
    """R of an MRI problem, an int. Raises ValueError for another problem."""
    check_problem(problem)
    if problem.startswith("CT"):
        raise ValueError(f"problem {problem!r} is a CT scan: only an MRI scan has an acceleration R")
    return int(problem.split("R = ")[1].split(",")[0])


def scan(problem, x_0, seed):
    """(A, y) of images x_0 (B, 1, 96, 96): the same lines and noise for the same seed and B, whatever the images."""
    check_problem(problem)
    generator = runtime.seeded(seed)
    if problem.startswith("CT"):
        return scan_ct(x_0, generator)
    return scan_mri(x_0, [acceleration(problem)] * len(x_0), generator)


def finer_scan(problem, x_fine, seed):
    """(A, y) of images on twice as fine a grid (B, 1, 192, 192): what a scanner does, who knows no pixels of ours.

    The middle of the fine k-space, on the lines and with the noise of :func:`scan`. A mean over pixels becomes a sum
    over four times as many, and the two grids lie a quarter of a coarse pixel apart.
    """
    acceleration(problem)  # of an MRI scan alone
    n = x_fine.shape[-1] // 2
    if x_fine.shape[1:] != (1, 2 * n, 2 * n):
        raise ValueError(f"x_fine must be (B, 1, 2 n, 2 n), twice as fine, got shape {tuple(x_fine.shape)}")
    empty = x_fine.new_zeros(len(x_fine), 1, n, n)
    A, noise = scan(problem, empty, seed)
    middle = to_kspace(x_fine)[..., n - n // 2 : 2 * n - n // 2, n - n // 2 : 2 * n - n // 2] / 2
    turn = torch.exp(2j * torch.pi * (torch.arange(n) - n // 2) * (n // 2 - n / 2 + 0.25) / n)
    turn = turn.to(x_fine.device)
    return A, A.lines * (middle * turn * turn[:, None]) + noise


def shown_at_once(problem, A, y):
    """The picture that a scanner shows at once: zeros on missing lines, or filtered back-projection."""
    return back_projected(A, y) if problem.startswith("CT") else A.adjoint(y)
