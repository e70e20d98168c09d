"""Simulated scans of images: MRI with a part of the lines of k-space, CT from few views, each with its noise."""

import functools

import torch

from course_lib.operators import KSpace, Radon, sampled_lines

ACCELERATIONS = (4, 8)
MRI_NOISE = 0.03  # standard deviation in an image that is fully sampled, where white matter is at about 0.54
CT_VIEWS = 24
CT_NOISE = 0.4  # standard deviation of a ray, in pixels; the longest rays through a head sum up to about 100


def scan_mri(x_0, accelerations, generator):
    """A noisy scan of images (B, 1, H, W) with random lines, each at its own of the accelerations (B,): (A, y)."""
    if not isinstance(accelerations, (list, tuple)) or len(accelerations) != len(x_0):
        raise ValueError(f"accelerations must be a list of {len(x_0)}, one for each image, got {accelerations!r}")
    lines = torch.stack([sampled_lines(x_0.shape[-1], R, generator) for R in accelerations])
    A, shape = KSpace(lines[:, None, None].to(x_0.device)), (2, *x_0.shape)
    return A, A(x_0) + A.lines * torch.complex(*MRI_NOISE * torch.randn(shape, generator=generator).to(x_0.device))


@functools.cache
def _radon(size):
    return Radon(size, CT_VIEWS)


def scan_ct(x_0, generator):
    """A noisy scan of images (B, 1, H, W) from few views: (A, y)."""
    A = _radon(x_0.shape[-1])
    y = A(x_0)
    return A, y + CT_NOISE * torch.randn(y.shape, generator=generator).to(y.device)


def back_projected(A, y):
    """Filtered back-projection of a scan of pictures in [-1, 1], whose empty background is -1 and not 0."""
    return A.fbp(y + A(torch.ones_like(y[:1, :, :1, :1]).expand(1, -1, A.size, A.size))) - 1


def zero_filled_scan(x_0, generator):
    """What the network of MRI sees of x_0 (B, 1, H, W): a scan at 4 or 8, by chance, with zeros for missing lines."""
    chosen = torch.randint(len(ACCELERATIONS), (len(x_0),), generator=generator)
    A, y = scan_mri(x_0, [ACCELERATIONS[k] for k in chosen], generator)
    return A.adjoint(y)


def back_projected_scan(x_0, generator):
    """What the network of CT sees of x_0 (B, 1, H, W): the filtered back-projection of a scan."""
    return back_projected(*scan_ct(x_0, generator))
