"""How near a reconstruction is to the truth, whether its error bars hold, and whether a lesion is still there.

Images are (N, 1, H, W) in [-1, 1], so the peak of the PSNR and the range of the SSIM is 2; all measures are one number
an image, (N,). Images that are NaN score NaN. Where shapes or ranges do not fit, each raises ValueError.
"""

import torch

from course_lib.metrics import checks


def psnr(x, reference):
    """Peak signal-to-noise ratio in dB of each image, 10 log10(4 / mean squared error), after clipping x to [-1, 1]."""
    x, reference = checks.images(x, reference)
    return 10 * torch.log10(4 / (x.clamp(-1, 1) - reference).square().flatten(1).mean(1))


def ssim(x, reference):
    """Structural similarity of each image (Wang et al., 2004), windows of 7 x 7 pixels, by scikit-image."""
    from skimage.metrics import structural_similarity

    x, reference = checks.images(x, reference)
    pairs = zip(x.clamp(-1, 1)[:, 0].cpu().double().numpy(), reference[:, 0].cpu().double().numpy())
    return torch.tensor([structural_similarity(a, b, data_range=2.0) for a, b in pairs]).to(x.device)


def prediction_interval(samples, level=0.9):
    """Lower and upper end (...) of an interval that holds one more draw with that probability, from K samples (K, ...).

    mean -+ t s sqrt(1 + 1/K), with s the samples' standard deviation and t the quantile of Student's distribution with
    K - 1 degrees of freedom: exact for Gaussian samples, however few. Raises ValueError for a single sample, and for a
    level that is not between 0 and 1.
    """
    from scipy.stats import t

    checks.between(level, 0, 1, "level")

    K = len(samples)
    if K < 2:
        raise ValueError("an interval needs at least 2 samples: one sample says nothing of the spread")
    half = float(t.ppf((1 + level) / 2, K - 1)) * samples.std(0) * (1 + 1 / K) ** 0.5
    return samples.mean(0) - half, samples.mean(0) + half


def coverage(samples, truth, inside, level=0.9):
    """Share of the pixels ``inside`` (N, 1, H, W) whose true value lies in the prediction interval of samples (K, N, 1,
    H, W), for each image. Right error bars: ``level``. Raises ValueError for an image without such a pixel."""
    inside = _not_empty(inside, "inside")
    checks.same_shape(samples[0], truth, "a sample and truth")
    low, high = prediction_interval(samples, level)
    hit = ((truth >= low) & (truth <= high) & inside).flatten(1).sum(1)
    return hit / inside.flatten(1).sum(1)


def crps(samples, truth, inside):
    """Continuous ranked probability score of samples (K, N, 1, H, W), mean over the pixels ``inside``, for each image.

    E|x - x_0| - E|x - x'| / 2 for two independent samples x and x' of one pixel, estimated without bias from K of them:
    the smaller the better, in the units of the image, and least for samples of the true posterior. A single sample, or
    a method with one answer, scores its mean absolute error. Gneiting & Raftery (J. Am. Stat. Assoc. 2007), eq. 21;
    Ferro (Q. J. R. Meteorol. Soc. 2014) on few samples.
    """
    K = len(samples)
    score = (samples - truth).abs().mean(0)
    if K > 1:
        apart = (samples[:, None] - samples[None]).abs().sum((0, 1)) / (K * (K - 1))
        score = score - apart / 2
    return (score * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)


def gaussian_crps(mean, std, truth, inside):
    """The same of the Gaussian N(mean, std^2) in every pixel, in closed form: Gneiting & Raftery (2007), sec. 4.2."""
    z = (truth - mean) / std
    density = (-z.square() / 2).exp() / (2 * torch.pi) ** 0.5
    score = std * (z * torch.erf(z / 2**0.5) + 2 * density - torch.pi**-0.5)
    return (score * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)


def local_cnr(x, mask, surround):
    """Contrast-to-noise ratio of each image: |mean in the mask - mean in the surround| / std in the surround.

    mask and surround : bool (N, 1, H, W).
    """
    inside, around = (mask * x).flatten(1).sum(1) / mask.flatten(1).sum(1), surround.flatten(1).sum(1)
    mean = (surround * x).flatten(1).sum(1) / around
    spread = ((x - mean.view(-1, 1, 1, 1)).square() * surround).flatten(1).sum(1) / around
    return (inside - mean).abs() / spread.sqrt()


def contrast_kept(with_lesion, without, change, mask):
    """How much of a lesion's contrast is left, for each image: <with - without, change> / <change, change> in the mask.

    with_lesion and without : reconstructions of the subject with and without the lesion, from the same lines, noise and
    seeds. change : true image with the lesion minus the one without. mask : bool. 1: all of it; 0: none. Raises
    ValueError for a mask without a pixel.
    """
    mask = _not_empty(mask, "mask")
    checks.same_shape(with_lesion, without, "with_lesion and without")
    found, change = ((with_lesion - without) * mask).flatten(1), (change * mask).flatten(1)
    return (found * change).sum(1) / change.square().sum(1)


def _not_empty(mask, name):
    """A bool mask (N, 1, H, W), some pixel of each image in it."""
    mask = checks.masks(mask, name)
    empty = (~mask.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"{name} is empty in image {empty[0]}: leave out images without such a pixel")
    return mask
