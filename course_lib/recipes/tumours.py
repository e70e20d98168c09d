"""Networks of heads with a brain tumour, which learn from what lies outside the widened outline."""

import numpy as np
import torch

from course_lib import datasets, runtime
from course_lib.applications.anomaly import one_step, smooth
from course_lib.images import in_batches, to_tensor
from course_lib.losses import AutoencoderLoss
from course_lib.metrics.detection import average_precision, in_region
from course_lib.tumours import MARGIN, healthy_tissue

SHIFT = 4  # pixels
LEVELS = (0.1, 0.25, 0.5)  # noise levels of the card
SEARCHED_AT = 0.25  # the noise level at which the card's prior looks for tumours


def _moved(array, mirror, shift):
    """An array (N, H, W) left and right exchanged or not, and moved by whole pixels; 0 comes in."""
    dy, dx = shift
    padded = np.pad(array[:, :, ::-1] if mirror else array, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    height, width = array.shape[1:]
    return padded[:, SHIFT - dy : SHIFT - dy + height, SHIFT - dx : SHIFT - dx + width]


def _tissue():
    """Slices uint8 (4 N, 128, 128), and which of their pixels count, 0 or 1: as they are and mirrored, and moved."""
    found, _ = datasets.tumour_slices("train")
    tumour = 1 - healthy_tissue(found.masks)
    shifts = [(0, 0), *np.random.default_rng(0).integers(-SHIFT, SHIFT + 1, (3, 2)).tolist()]
    moves = list(zip((False, True, False, True), shifts))
    images, outside = (np.concatenate([_moved(array, *move) for move in moves]) for array in (found.images, tumour))
    return images, 1 - outside


TUMOURS = {
    "load_data": _tissue,
    "data": (
        "Brain tumours, training block of each class: axial T1 slices after contrast, skull on, 2 mm, as they are, "
        f"mirrored and moved by up to {SHIFT} pixels; the loss leaves out the outline widened by {MARGIN} pixels"
    ),
    "licence": (
        "CC BY 4.0. Trained on the brain tumor dataset by J. Cheng, figshare 1512427, version 5 (CC BY 4.0); Cheng et "
        "al., PLoS ONE 10(10), 2015, e0140381."
    ),
    "image_size": 128,
    "batch_size": 16,
}


def twins(recipe, net, x):
    """What a network of this module makes of slices x (N, 1, 128, 128): a prior by :func:`one_step`, four draws."""
    if hasattr(recipe.loss, "schedule"):
        return one_step(recipe.denoiser(net), x, SEARCHED_AT, 4, runtime.seeded(0))
    if isinstance(recipe.loss.loss, AutoencoderLoss):
        return in_batches(lambda x: net.decode(net.encode(x)), x, 50).clamp(-1, 1)
    return in_batches(lambda x: net(x, 0.0), x, 50).clamp(-1, 1)


def _root_mean_square(error, where):
    """Over the pixels of a stack that are in a mask, to four digits."""
    return round(float(error[where].square().mean().sqrt()), 4)


def measure_tissue(recipe, net):
    """On validation slices: the error on healthy tissue, little of which is wanted, and the average precision of |slice
    - twin|, beside that of plain brightness and the prevalence. Of a prior the error of D(x_t, t) at several t."""
    found, inside = datasets.tumour_slices("validation")
    x, masks = to_tensor(found.images), found.masks > 0
    healthy = torch.as_tensor(inside & (healthy_tissue(found.masks) > 0))

    def precision(score):
        return round(float(np.mean(in_region(average_precision, smooth(score).numpy(), masks, inside))), 4)

    twin = twins(recipe, net, x).float()
    quality = {
        "rms_of_healthy": _root_mean_square((twin - x)[:, 0], healthy),
        "average_precision": precision((twin - x)[:, 0].abs()),
        "average_precision_of_brightness": precision(x[:, 0] + 1),
        "prevalence": round(float(np.mean([m[i].mean() for m, i in zip(masks, inside)])), 4),
        "validation_images": len(x),
    }
    if hasattr(recipe.loss, "schedule"):
        denoiser = recipe.denoiser(net)
        answers = {t: one_step(denoiser, x, t, 1, runtime.seeded(1)) for t in LEVELS}
        quality["rms_in_noise"] = {
            f"t = {t}": _root_mean_square((answer.float() - x)[:, 0], healthy) for t, answer in answers.items()
        }
    return quality, {}
