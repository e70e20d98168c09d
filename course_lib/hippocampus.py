"""Hippocampi: boxes around them, image and labels as channels, and measures of the labels."""

import numpy as np
import torch

from course_lib.arguments import alike, shaped
from course_lib.nifti import cut_out, whole_triple

HIPPOCAMPUS_SHAPE = (32, 48, 32)  # voxels of 1 mm
HIPPOCAMPUS_LABELS = ("anterior", "posterior")

#: Of a box of HIPPOCAMPUS_SHAPE that comes from no scan: voxels of 1 mm, the middle of the box at 0 mm.
HIPPOCAMPUS_AFFINE = np.eye(4)
HIPPOCAMPUS_AFFINE[:3, 3] = [-(side - 1) / 2 for side in HIPPOCAMPUS_SHAPE]


def hippocampus_box(label, shift=(0, 0, 0)):
    """First corner of a box of HIPPOCAMPUS_SHAPE around the label (X, Y, Z), int (3,); None if the label is larger.

    shift : whole voxels by which the label moves in its box, as far as there is room. Raises ValueError for a label
    without a voxel."""
    shaped("X, Y, Z", label=label)
    label = np.asarray(label)
    found = np.argwhere(label > 0)
    if not len(found):
        raise ValueError("label has no voxel above 0: there is nothing to put a box around")
    shift = whole_triple("shift", shift)
    low, high = found.min(0), found.max(0) + 1
    room = np.array(HIPPOCAMPUS_SHAPE) - (high - low)
    if (room < 0).any():
        return None
    return low - np.clip(room // 2 + shift, 0, room)


def hippocampus_channels(image, label, corner):
    """Image, anterior and posterior label as channels in [-1, 1], float32 (3, 32, 48, 32), cut out at ``corner``.

    image : (X, Y, Z) in [-1, 1]; label : (X, Y, Z) with 0 background, 1 anterior, 2 posterior.
    Where the box reaches beyond the volume the image's edge is repeated and the label is background.
    """
    shaped("X, Y, Z", image=image, label=label)
    alike(image=image, label=label)
    if not np.abs(image).max() <= 1 + 1e-3:
        raise ValueError("image must lie in [-1, 1], as Volume.scaled() gives it; of other intensities make such first")
    if not np.isin(label, (0, 1, 2)).all():
        raise ValueError("label must hold 0 background, 1 anterior and 2 posterior, and nothing else")
    image = cut_out(image, corner, HIPPOCAMPUS_SHAPE, mode="edge")
    label = cut_out(label, corner, HIPPOCAMPUS_SHAPE)
    return np.stack([image, *(np.where(label == k, 1.0, -1.0) for k in (1, 2))]).astype(np.float32)


def labels_of(x):
    """Labels of channels x (N, 3, X, Y, Z), uint8 (N, X, Y, Z): the larger label channel where it is above 0, else
    background."""
    x = torch.as_tensor(x)
    if x.ndim != 5 or x.shape[1] != 3:
        raise ValueError(f"x must be (N, 3, X, Y, Z), image and two labels, got shape {tuple(x.shape)}")
    value, which = x[:, 1:].max(1)
    return torch.where(value > 0, which + 1, 0).to(torch.uint8)


def slice_labels(masks):
    """Label channels (N, 2, H, W) in [-1, 1] -> labels (N, H, W): 0, 1 anterior, 2 posterior."""
    masks = torch.as_tensor(masks)
    if masks.ndim != 4 or masks.shape[1] != 2:
        raise ValueError(f"masks must be (N, 2, H, W), anterior and posterior, got shape {tuple(masks.shape)}")
    value, which = masks.max(1)
    return torch.where(value > 0, which + 1, 0)


def _check_labels(labels):
    shaped("N, X, Y, Z", labels=labels)
    if labels.is_floating_point():
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}: labels_of makes them of channels")


def label_volumes(labels):
    """Volumes in mm^3 of the anterior and posterior part in labels (N, X, Y, Z) with voxels of 1 mm^3: (N, 2)."""
    labels = torch.as_tensor(labels)
    _check_labels(labels)
    return torch.stack([(labels == k).flatten(1).sum(1) for k in (1, 2)], 1).float()


def largest_shares(labels):
    """Share of each part's voxels that hang together in its largest piece (faces touch), (N, 2); 0 where it is empty.

    1 for a part in one piece, as every real one should be.
    """
    from scipy import ndimage

    def share(part):
        pieces, _ = ndimage.label(part)
        sizes = np.bincount(pieces.ravel())[1:]
        return sizes.max() / sizes.sum() if len(sizes) else 0.0

    labels = torch.as_tensor(labels)
    _check_labels(labels)
    found = [[share(one == k) for k in (1, 2)] for one in labels.cpu().numpy()]
    return torch.tensor(found, dtype=torch.float32).to(labels.device)
