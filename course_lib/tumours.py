"""Slices of heads with a tumour: where one is looked for, one scale of grey levels, and which pixels count as healthy.

Pixels are 2 mm. Images are uint8 (N, H, W), skull on, each stretched to 0..255 by its own minimum and maximum.
"""

import numpy as np

from course_lib.arguments import shaped, whole

HEAD = 20  # grey level: what is brighter is head
DEPTH = 6  # pixels below the head's outline: skin and skull are brighter than most tumours; 0.2 % of these lie above
MARGIN = 3  # pixels around an outline that do not count as healthy
MEDIAN = 1 / 3  # of the range from black to white: where the median of what lies inside is put


def search_region(images, depth=DEPTH):
    """Where tumours are looked for: the largest part of the head, holes filled, more than ``depth`` pixels below its
    outline. bool, the shape of images (N, H, W); the same for every method. It is no brain mask: eyes, nose and skull
    base are in it. Raises ValueError for other shapes, and for an image that shows no head of that depth."""
    from scipy import ndimage

    shaped("N, H, W", images=images)
    whole(0, depth=depth)
    found = np.zeros(np.shape(images), bool)
    for k, image in enumerate(np.pad(images, ((0, 0), (8, 8), (8, 8)))):  # room for closing at the border
        closed = ndimage.binary_fill_holes(ndimage.binary_closing(image > HEAD, iterations=6))
        parts, count = ndimage.label(closed)
        sizes = ndimage.sum_labels(closed, parts, np.arange(1, count + 1))
        head = parts == 1 + np.argmax(sizes) if count else closed
        found[k] = (ndimage.distance_transform_edt(head) > depth)[8:-8, 8:-8]
    if (empty := np.flatnonzero(~found.any((1, 2)))).size:
        raise ValueError(f"images must show heads brighter than {HEAD} of 255; image {empty[0]} shows none")
    return found


def scaled(images, inside):
    """Images uint8 with one scale: the median inside the region is put at a third of the range, and what is then
    brighter than white is white. The published levels are each slice's own: a bright spot of fat darkens all else."""
    medians = np.array([max(np.median(image[where]), 1) for image, where in zip(images, inside)])
    return (images * (255 * MEDIAN / medians[:, None, None])).round().clip(0, 255).astype(np.uint8)


def _distance(mask):
    """Pixels to the mask; infinite where it is empty, of which SciPy would give those to a place beyond the edge."""
    from scipy import ndimage

    return ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)


def healthy_tissue(masks, margin=MARGIN):
    """Which pixels count as healthy: all but the masks (N, H, W) widened by ``margin`` pixels. uint8 of 0 and 1."""
    shaped("N, H, W", masks=masks)
    whole(0, margin=margin)
    distance = [_distance(mask != 0) for mask in np.asarray(masks)]
    return (np.stack(distance) > margin).astype(np.uint8)


def filled(images, counted):
    """Images float (N, H, W) with the mean over those that count, pixel by pixel, wherever one does not count; where
    none counts, the mean over all of that pixel."""
    x, counted = np.asarray(images, np.float64), np.asarray(counted, bool)
    often = counted.sum(0)
    mean = np.where(often, (x * counted).sum(0) / np.maximum(often, 1), x.mean(0))
    return np.where(counted, x, mean)
