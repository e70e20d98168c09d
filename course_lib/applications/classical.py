"""What must be beaten without a prior: classical denoisers, and classical ways to fill a hole.

==================  =============================  ==========================================
name                gives                          source
==================  =============================  ==========================================
DENOISERS           blur, non-local means, TV      scikit-image, SciPy
biharmonic          a filled hole                  scikit-image
mirror_fill         a filled hole                  the mirror image of the other hemisphere
==================  =============================  ==========================================

Images are (B, 1, H, W) in [-1, 1], background -1.
"""

import numpy as np
import torch

from course_lib.arguments import alike, images, positive, shaped, whole


def _each(function, y):
    """function over the pictures (H, W) of y (B, 1, H, W), as float32. Raises ValueError for another shape."""
    shaped("B, 1, H, W", y=y)
    images(y=y)
    found = [function(image) for image in y[:, 0].cpu().double().numpy()]
    return torch.as_tensor(np.stack(found))[:, None].float().to(y.device)


def blurred(y, noise, width):
    """A Gaussian blur of ``width`` pixels."""
    from scipy.ndimage import gaussian_filter

    positive(width=width)
    return _each(lambda image: gaussian_filter(image, width, mode="nearest"), y)


def nonlocal_means(y, noise, h):
    """Non-local means (Buades et al., CVPR 2005), patches of 5 x 5 within 13 x 13, filter strength h noise."""
    from skimage.restoration import denoise_nl_means

    positive(noise=noise, h=h)
    options = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "sigma": noise}
    return _each(lambda image: denoise_nl_means(image, h=h * noise, **options), y)


def total_variation(y, noise, weight):
    """Total variation (Rudin et al., 1992; Chambolle, 2004) of strength weight noise."""
    from skimage.restoration import denoise_tv_chambolle

    positive(noise=noise, weight=weight)
    return _each(lambda image: denoise_tv_chambolle(image, weight=weight * noise, max_num_iter=100), y)


#: name -> ``function(y, noise, **setting)`` and the settings to choose from on validation subjects.
DENOISERS = {
    "Gaussian blur": (blurred, tuple({"width": w} for w in (0.5, 0.7, 0.9, 1.2, 1.6))),
    "non-local means": (nonlocal_means, tuple({"h": h} for h in (0.4, 0.6, 0.8, 1.0, 1.3))),
    "TV": (total_variation, tuple({"weight": w} for w in (0.5, 0.8, 1.1, 1.5, 2.0))),
}


def _check_hole(x, hole):
    """Raises ValueError unless the hole is bool, of the shape of x, and leaves some pixels of each image."""
    shaped("B, 1, H, W", x=x)
    alike(x=x, hole=hole)
    if hole.dtype != torch.bool or hole.flatten(1).all(1).any():
        raise ValueError("hole must be bool, True where pixels are to be filled, with a border around: as in mask > 0")


def biharmonic(x, hole):
    """The smoothest continuation of the border into the hole: x, hole (bool) (B, 1, H, W); Damelin & Hoang (2018)."""
    from skimage.restoration import inpaint_biharmonic

    _check_hole(x, hole)
    pairs = zip(x[:, 0].cpu().double().numpy(), hole[:, 0].cpu().numpy())
    found = np.stack([inpaint_biharmonic(image, mask) for image, mask in pairs])
    return torch.as_tensor(found)[:, None].float().to(x.device)


def mirrored(x, reach=6, like=None):
    """Each image (B, 1, H, W) reflected left to right, moved by the whole pixels (up to ``reach`` either way) that make
    it fit itself best: heads do not stand exactly in the middle. like: images of that shape whose fit decides, those
    that a mask x belongs to; x itself if None."""
    like = x if like is None else like
    whole(0, reach=reach)
    shaped("B, 1, H, W", x=x)
    alike(x=x, like=like)
    if reach >= x.shape[-1]:
        raise ValueError(f"reach must be below {x.shape[-1]}, the width of the images, got {reach}")
    fits, moved = (
        torch.stack([images.flip(-1).roll(k, -1) for k in range(-reach, reach + 1)]) for images in (like, x)
    )  # (2 reach + 1, B, 1, H, W)
    best = (fits - like).square().flatten(2).mean(2).argmin(0)
    return moved[best, torch.arange(len(x))]


def mirror_fill(x, hole):
    """The hole filled with what the mirror image shows there. x, hole (bool) (B, 1, H, W).

    How far the mirror image is moved is fitted to the whole image, with what stands in the hole; where the hole meets
    its own mirror image, that is also what fills it. Raises ValueError for NaN, in the hole too.
    """
    _check_hole(x, hole)
    images(x=x)
    return torch.where(hole, mirrored(x), x)
