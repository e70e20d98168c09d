"""Networks of MedNIST: the diffusion models, the judge of their samples, and the guide."""

import torch

from course_lib import datasets, pretrained, runtime
from course_lib.images import in_batches
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.recipes.quality import accuracy_in_noise, distance_to, floor, images, sampling, shipped

MEDNIST_LICENCE = (
    "CC BY-SA 4.0. Trained on MedNIST, gathered from TCIA, the RSNA bone age challenge and the NIH chest X-ray "
    "data set by B. Erickson, Department of Radiology, Mayo Clinic (CC BY-SA 4.0)."
)
MEDNIST = {
    "load_data": lambda: datasets.mednist_images("train"),
    "data": "MedNIST, training split: 95 % of the 58,954 images, all but the last 5 % of each class by number",
    "licence": MEDNIST_LICENCE,
    "classes": datasets.MEDNIST_CLASSES,
}
FD_IMAGES = 600  # images on either side of a Fréchet distance: 100 of each class


def real_draws(labels, known):
    """Indices of five random draws of :data:`FD_IMAGES`, 100 of each class, of the images that are not ``known``."""
    left, generator = (~known).nonzero()[:, 0], runtime.seeded(0)
    return [left[datasets.random_of_each_class(labels[left], FD_IMAGES // 6, generator)] for _ in range(5)]


def measure_classifier(recipe, net):
    """Accuracy on the test split; moments of the features of 30,000 training images, the reference of Fréchet
    distances.

    The floor is what 600 real images score against the reference: 100 of each class, drawn at random from the training
    images that are not in the reference, the mean of five draws. Many are slices of the same scans as the
    reference. The test split is the end of each class by number, in part other scans, and scores worse: its figure
    stands beside the floor, as ``test_split``.
    """
    test_images, test_labels = datasets.mednist_images("test")
    right = in_batches(net, test_images).argmax(1) == torch.as_tensor(test_labels)
    train_images, labels = recipe.load_data()
    labels = torch.as_tensor(labels)
    features, known = in_batches(net.features, train_images), datasets.in_reference(labels)
    scale = features[known].std(0)
    net.scale.copy_(net.scale * scale)
    reference = moments(features[known] / scale)
    floors = [frechet_distance(moments(features[draw] / scale), reference) for draw in real_draws(labels, known)]
    unseen = test_images[datasets.spread_of_each_class(test_labels, FD_IMAGES // 6).numpy()]
    quality = {
        "test_accuracy": round(float(right.float().mean()), 5),
        "test_images": len(right),
        "reference_images": reference.n,
        "floor": floor(floors, FD_IMAGES)
        | {"test_split": frechet_distance(moments(in_batches(net.features, unseen)), reference)},
    }
    return quality, shipped(reference, net)


def measure_diffusion(recipe, net):
    """Fréchet distance of 600 samples at 25 evaluations, beside the floor, and the share of each class recognised."""
    y = torch.arange(6).repeat_interleave(FD_IMAGES // 6)
    drawn, judge = images(recipe, net, y), pretrained.load("mednist_features")
    right = (in_batches(judge, drawn).argmax(1) == y).float().reshape(6, -1).mean(1)
    return distance_to("mednist_features", in_batches(judge.features, drawn)) | sampling() | {
        "recognised_as_its_class": {name: round(float(share), 3) for name, share in zip(recipe.classes, right)}
    }, {}


def measure_noisy_classifier(recipe, net):
    """Accuracy on the test split at several noise levels."""
    return accuracy_in_noise(recipe, net, *datasets.mednist_images("test")), {}
