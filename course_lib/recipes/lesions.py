"""Networks that outline a lesion as its four raters would: one that draws outlines, and five that answer without
chance."""

from functools import partial

import numpy as np
import torch

from course_lib import datasets, runtime
from course_lib.images import in_batches, to_tensor
from course_lib.losses import SegmentationLoss
from course_lib.metrics.segmentation import generalised_energy_distance
from course_lib.recipes.brain import brain_data
from course_lib.recipes.quality import samples

SUBJECTS = 4000
WHAT = "each with a lesion and masks of four of its raters, cropped to 64 x 64"


def _rated():
    return datasets.rated_draws(SUBJECTS)


def masks_beside(load):
    """Masks, as -1 and 1, beside their images, uint8 (N, 2, H, W), and None: data of a diffusion of masks. load() gives
    images (N, H, W) and masks of 0 and 1."""
    images, masks = load()
    return np.stack([255 * masks, images], 1), None


PAIRS = brain_data(partial(masks_beside, _rated), SUBJECTS, WHAT, image_size=64, batch_size=16)
RATED = brain_data(_rated, SUBJECTS, WHAT, image_size=64)


def measure_raters(recipe, net):
    """On 64 test cases: how far the probability of each pixel is from the true one (RMS over the crop), and the squared
    generalised energy distance of 8 samples; for one network without chance, of its thresholded mask.

    ``outline_alone`` : the distance of a model that always draws the true outline.
    """
    cases, chances = datasets.rated("test", 64), datasets.rater_chances()
    ratings = torch.as_tensor(cases.ratings).movedim(1, 0)  # (4, 64, 64, 64)
    truth = torch.tensordot(chances, ratings.float(), 1)
    if isinstance(recipe.loss, SegmentationLoss):
        found = in_batches(lambda x: net(x).softmax(1)[:, 1], cases.images)
        masks = (found > 0.5)[None].expand(2, -1, -1, -1)
    else:
        y = to_tensor(cases.images)
        noise = [torch.randn(y.shape, generator=runtime.seeded(k)) for k in range(8)]
        masks = torch.stack([samples(recipe, net, eps, y)[:, 0] > 0 for eps in noise])
        found = masks.float().mean(0)
    outline = ratings[2:3].expand(2, -1, -1, -1)
    return {
        "rms_of_probability": round(float((found - truth).square().mean().sqrt()), 4),
        "energy_distance": round(float(generalised_energy_distance(masks, ratings, chances).mean()), 4),
        "outline_alone": round(float(generalised_energy_distance(outline, ratings, chances).mean()), 4),
        "test_images": len(found),
    }, {}
