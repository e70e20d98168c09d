"""What the measures of several recipes share: samples of a network, and the entries of its card that tell its quality.

``recipe`` is a :class:`~course_lib.recipes.recipe.Recipe`, ``net`` its network.
"""

import torch

from course_lib import generate, pretrained, runtime
from course_lib.images import in_batches
from course_lib.losses import RegressionLoss
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.metrics.images import psnr
from course_lib.metrics.segmentation import dice

FD_NFE = 25


def samples(recipe, net, noise, y=None):
    """Samples of the shape of ``noise`` (N, C, ...), by :data:`FD_NFE` evaluations each."""
    return generate.generate(recipe.denoiser(net), noise, y, FD_NFE)


def images(recipe, net, y, seed=0):
    """Samples (N, size, size) of a recipe's network: of classes y (N,), or y of them."""
    return generate.draw(recipe.denoiser(net), y, FD_NFE, seed, recipe.image_size)


def answer(recipe, net, y):
    """What a network makes of images y (N, 1, H, W), on the CPU: its regression, or one sample given y beside it."""
    if isinstance(recipe.loss, RegressionLoss):
        with torch.no_grad():
            return net(y.to(runtime.device()), 0.0).cpu()
    return samples(recipe, net, torch.randn(y.shape, generator=runtime.seeded(0)), y)


@torch.no_grad()
def accuracy_in_noise(recipe, net, images, labels):
    """Accuracy of a classifier of noisy images at several noise levels, for a card."""
    labels, schedule, accuracy = torch.as_tensor(labels), recipe.loss.schedule, {}
    for t in (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9):
        generator = runtime.seeded(0)

        def noisy_logits(x, t=t, generator=generator):
            return net(schedule.noisy(x, torch.randn(x.shape, generator=generator).to(x.device), t), t)

        right = in_batches(noisy_logits, images).argmax(1) == labels
        accuracy[f"t = {t}"] = round(float(right.float().mean()), 4)
    return {"test_accuracy": accuracy, "test_images": len(labels)}


def sampling():
    """How the samples of a card were drawn."""
    return {"network_evaluations": FD_NFE, "sampler": "dpmpp_2m", "precision": runtime.precision_name()}


def floor(distances, n):
    """The entry of a card for the distances of several draws of n real images each."""
    mean = sum(distances) / len(distances)
    return {"images": n, "frechet_distance": mean, "of_each_draw": [round(value, 4) for value in distances]}


def distance(features, reference, floor):
    """Fréchet distance of features to a reference, and beside it the floor, an entry of a card."""
    found = frechet_distance(moments(features), reference)
    least = floor["frechet_distance"]
    return {"frechet_distance": found, "floor": least, "ratio_to_floor": found / least, "images": len(features)}


def distance_to(name, features):
    """:func:`distance` to the reference and the floor of the feature network ``name``."""
    return distance(features, pretrained.reference(name), pretrained.card(name)["floor"])


def shipped(reference, net):
    """The tensors that a feature network ships: moments of real images, and the scale of the features."""
    return {"reference.mean": reference.mean, "reference.cov": reference.cov, "scale": net.scale.cpu()}


def mean_psnr(x, reference):
    """PSNR in dB of images (N, C, H, W), the mean over them, for a card."""
    return round(float(psnr(x, reference).mean()), 3)


def dice_of_each(found, truth, names):
    """Dice overlap of each label in two stacks of maps (N, H, W), over the whole stack."""
    overlaps = [dice((found == k).flatten(0, 1), (truth == k).flatten(0, 1)) for k in range(len(names))]
    return {name: round(float(overlap), 4) for name, overlap in zip(names, overlaps)}


def mean_and_std(values):
    """Mean and standard deviation of values (N,), to a decimal."""
    return [round(float(values.mean()), 1), round(float(values.std()), 1)]
