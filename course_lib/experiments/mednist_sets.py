"""What the studies of MedNIST share: images as tensors, sets in which the six classes take turns, and their judge."""

import functools

import torch

from course_lib import pretrained
from course_lib.datasets import in_reference, mednist_images
from course_lib.experiments.record import rounded
from course_lib.images import in_batches
from course_lib.metrics.distribution import frechet_distance, moments

JUDGE = "mednist_features"


@functools.cache
def mednist(split):
    """Images, uint8 (N, 64, 64), and labels (N,) of a split."""
    images, labels = mednist_images(split)
    return torch.as_tensor(images), torch.as_tensor(labels)


def beside_reference(split):
    """Indices of the images of a split that the reference of Fréchet distances does not hold: of the training split the
    rest, many of them slices of scans that it holds; of the test split all, in part other scans."""
    labels = mednist(split)[1]
    return (~in_reference(labels)).nonzero()[:, 0] if split == "train" else torch.arange(len(labels))


def classes_in_turn(n):
    """Classes 0..5 in turn, (n,)."""
    return torch.arange(n) % 6


def features_of(images):
    """Features (N, 320) of images (N, 64, 64), uint8 or float in [-1, 1]."""
    return in_batches(pretrained.load(JUDGE).features, images)


def classes_of(images):
    """The classes (N,) that the judge takes images for."""
    return in_batches(pretrained.load(JUDGE), images).argmax(1)


def distance(features):
    """Fréchet distance of features (N, 320) from those of 30,000 training images."""
    return frechet_distance(moments(features), pretrained.reference(JUDGE))


def first_six(images):
    """Mean and spread of each of the first six images, by which a set that is drawn again is known."""
    return rounded([(image.mean(), image.std()) for image in images[:6]], 3)
