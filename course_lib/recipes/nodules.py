"""Networks that outline a lung nodule as its readers did: one that draws masks by diffusion, one that draws them from a
normal over logits, and five that answer without chance. All see each slice once for each of its four readings, the
empty ones too, and nothing moved or turned."""

import numpy as np
import torch

from course_lib import datasets
from course_lib.applications.segmentation import draw_masks, draw_normal, random_threshold
from course_lib.images import in_batches, to_tensor
from course_lib.losses import DiffusionLoss, StochasticSegmentationLoss
from course_lib.metrics.intervals import means_of
from course_lib.metrics.segmentation import energy_terms, is_empty
from course_lib.recipes.lesions import masks_beside

SAMPLES = 8  # a case, for a card

READINGS = {
    "load_data": datasets.lidc_readings,
    "data": (
        "Lung nodules (LIDC-IDRI), training split by person: 7,837 CT slices of 1,851 nodules of 619 persons, 64 x 64, "
        "each with four readings, of which four in ten are empty"
    ),
    "licence": (
        "CC BY 3.0. Trained on LIDC-IDRI (Armato et al., Medical Physics 38, 2011, 915-931; TCIA, doi "
        "10.7937/K9/TCIA.2015.LO9QL9SX; CC BY 3.0), cut to crops of nodules in github.com/periclesanfe/Pulmoseg."
    ),
}
MASKS_BESIDE = READINGS | {
    "load_data": lambda: masks_beside(datasets.lidc_readings),
    "batch_size": 16,
}


def drawn(recipe, net, y, samples):
    """So many masks, bool (samples, N, 64, 64), of a recipe's network for images y (N, 1, 64, 64); of one without
    chance the level sets of its probabilities, at random thresholds."""
    if isinstance(recipe.loss, DiffusionLoss):
        return draw_masks(recipe.denoiser(net), y, samples)[:, :, 0] > 0
    if isinstance(recipe.loss, StochasticSegmentationLoss):
        return draw_normal(net, y, samples)[0] > 0
    return random_threshold(in_batches(lambda x: net(x).softmax(1)[:, 1], y[:, 0].numpy()), samples)


def measure_lidc(recipe, net):
    """On the middle slice of each nodule of the test persons, means over persons: the generalised energy distance of
    SAMPLES masks from the four readings, unbiased; the distance of one mask to a reading, of two masks, and of two
    readings, of which it is made; and the share of masks and of readings that are empty."""
    images, readings, persons = datasets.lidc_cases("test")
    masks, readings = drawn(recipe, net, to_tensor(images), SAMPLES), torch.as_tensor(readings)
    terms = energy_terms(masks, readings)
    found = dict(zip(("mask_to_reading", "between_masks", "between_readings"), terms))
    found |= {"energy_distance": 2 * terms[0] - terms[1] - terms[2]}
    found |= {"empty": is_empty(masks).mean(0), "not_outlined": is_empty(readings).mean(0)}
    quality = {name: round(float(means_of(values, persons).mean()), 4) for name, values in found.items()}
    return quality | {"samples": SAMPLES, "test_slices": len(images), "test_persons": len(np.unique(persons))}, {}
