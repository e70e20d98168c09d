"""How near a reconstruction is to the truth, whether its error bars hold, and whether a lesion is still there.

Images are (N, 1, H, W) in [-1, 1], so the peak of the PSNR and the range of the SSIM is 2; all measures are one number
an image, (N,). Images that are NaN score NaN. Where shapes or ranges do not fit, each raises ValueError.
"""

import torch

from course_lib.arguments import alike, inside
from course_lib.metrics import checks


def psnr(x, reference):
    """Peak signal-to-noise ratio in dB of each image, 10 log10(4 / mean squared error), after clipping x to [-1, 1]."""
    x, reference = checks.images(x, reference)
    return 10 * torch.log10(4 / (x.clamp(-1, 1) - reference).square().flatten(1).mean(1))


def ssim(x, reference):
    """Structural similarity of each image (Wang et al., 2004), windows of 7 x 7 pixels, by scikit-image."""
    from skimage.metrics import structural_similarity

    x, reference = checks.images(x, reference)
    if x.shape[1] != 1:
        raise ValueError(
            f"x must be images of one channel, (N, 1, H, W), got shape {tuple(x.shape)}: take one at a time"
        )
    pairs = zip(x.clamp(-1, 1)[:, 0].cpu().double().numpy(), reference[:, 0].cpu().double().numpy())
    return torch.tensor([structural_similarity(a, b, data_range=2.0) for a, b in pairs]).to(x)


def prediction_interval(samples, level=0.9):
    """Lower and upper end (...) of an interval that holds one more draw with that probability, from K samples (K, ...).

    mean -+ t s sqrt(1 + 1/K), with s the samples' standard deviation and t the quantile of Student's distribution with
    K - 1 degrees of freedom: exact for Gaussian samples, however few. Raises ValueError for a single sample, and for a
    level that is not between 0 and 1.
    """
    from scipy.stats import t

    inside(0, 1, level=level)
    samples = torch.as_tensor(samples)
    K = len(samples)
    if K < 2:
        raise ValueError("an interval needs at least 2 samples: one sample says nothing of the spread")
    half = float(t.ppf((1 + level) / 2, K - 1)) * samples.std(0) * (1 + 1 / K) ** 0.5
    return samples.mean(0) - half, samples.mean(0) + half


def coverage(samples, truth, inside, level=0.9):
    """Share of the pixels ``inside`` (N, 1, H, W) whose true value lies in the prediction interval of samples (K, N, 1,
    H, W), for each image. Right error bars: ``level``. Raises ValueError for an image without such a pixel."""
    inside = _not_empty(inside, "inside")
    alike(sample=samples[0], truth=truth)
    low, high = prediction_interval(samples, level)
    hit = ((truth >= low) & (truth <= high)).float()
    return mean_inside(hit.masked_fill((low + truth).isnan(), torch.nan), inside)


def mean_inside(values, mask):
    """Mean of values over the pixels of a mask of each image; bool values give a share. Both (N, 1, H, W). Raises
    ValueError for a mask without a pixel."""
    mask = _like(values, _not_empty(mask, "mask"), "mask")
    return torch.where(mask, values, 0).flatten(1).sum(1) / mask.flatten(1).sum(1)


def energy_score(squared_error, variance):
    """Energy score of samples of each image, the smaller the better, in units of one pixel: E|x - x_0| - E|x - x'| / 2.

    squared_error : of one sample, mean over the pixels. variance : of the samples, mean over the pixels; 0 for a method
    with one answer. |.| is the norm of an image over the root of its number of pixels. For thousands of pixels it
    hardly varies from sample to sample, so the root of its mean square, which these two give, stands for its mean:
    E|x - x'|^2 = 2 variance. Least, on average, for the true posterior: Gneiting & Raftery (J. Am. Stat. Assoc. 2007),
    eq. 22.
    """
    return squared_error.sqrt() - (variance / 2).sqrt()


def contrast_kept(with_lesion, without, change, mask):
    """How much of a lesion's contrast is left, for each image: <with - without, change> / <change, change> in the mask.

    with_lesion and without : reconstructions of the subject with and without the lesion, from the same lines, noise and
    seeds. change : true image with the lesion minus the one without. mask : bool. 1: all of it; 0: none. Raises
    ValueError for a mask without a pixel, and for a change of 0 all over it.
    """
    mask = _not_empty(mask, "mask")
    alike(with_lesion=with_lesion, without=without, change=change)
    mask = _like(change, mask, "mask")
    found, change = ((with_lesion - without) * mask).flatten(1), (change * mask).flatten(1)
    size = change.square().sum(1)
    if (size == 0).any():
        raise ValueError(
            "change is 0 all over the mask of an image: it has no contrast that could be kept; leave it out"
        )
    return (found * change).sum(1) / size


def _like(values, mask, name):
    """The mask in the shape of values. Raises ValueError where it has other axes: (N, H, W) would pair all images."""
    if mask.ndim != values.ndim or any(m not in (1, side) for m, side in zip(mask.shape, values.shape)):
        raise ValueError(f"{name} must have the shape {tuple(values.shape)} of the values, got {tuple(mask.shape)}")
    return mask.expand_as(values)


def _not_empty(mask, name):
    """A bool mask (N, 1, H, W), some pixel of each image in it."""
    mask = checks.masks(mask, name)
    empty = (~mask.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"{name} is empty in image {empty[0]}: leave out images without such a pixel")
    return mask
