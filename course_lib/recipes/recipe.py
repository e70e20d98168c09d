"""What a recipe is: how a network is made, and how it is judged; and what the measures of several recipes share."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from course_lib import generate, pretrained, runtime
from course_lib.denoisers import NetworkDenoiser
from course_lib.images import in_batches
from course_lib.losses import (
    AutoencoderLoss,
    ClassificationLoss,
    NoisyClassificationLoss,
    RegressionLoss,
    SegmentationLoss,
)
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.metrics.images import psnr
from course_lib.metrics.segmentation import dice
from course_lib.schedules import Cosine

FULL = {"steps": 60_000, "batch_size": 128}
FD_NFE = 25


@dataclass(frozen=True)
class Recipe:
    """How a network is made, and how it is judged.

    ``load_data()`` gives images (N, H, W) or (N, C, ...), and labels (N, ...) or None. ``measure(recipe, net)`` gives
    what the card says of the quality, and tensors to ship beside the weights. ``full`` is what COURSE_PROFILE=full
    changes: a training of GPU size. ``base`` names the shipped network that this one steers, and ``start`` the one
    whose weights are its first.
    """

    name: str
    network: str
    network_args: dict
    loss: object
    load_data: Callable
    measure: Callable
    data: str
    licence: str
    steps: int
    classes: tuple = ()
    image_size: int = 64
    batch_size: int = 64
    peak_rate: float = 5e-4
    seed: int = 0
    full: dict = field(default_factory=dict)
    base: str | None = None
    start: str | None = None

    def fresh(self):
        """The network with freshly drawn weights."""
        return pretrained.fresh(self.network, self.network_args, self.base)

    def denoiser(self, net, clip=True):
        """The denoiser that a network of this recipe stands for, in the faster precision of this machine. clip: for
        images in [-1, 1]; not for latents."""
        return NetworkDenoiser(net, self.loss.schedule, self.loss.kind, clip, runtime.precision())

    def describe(self):
        """What the card says of how the network was made: a dict for JSON."""
        keys = ("name", "network", "network_args", "base", "start", "data", "licence", "classes", "image_size")
        about = {key: getattr(self, key) for key in (*keys, "batch_size") if getattr(self, key) is not None}
        about |= {"peak_rate": self.peak_rate, "seed": self.seed, "loss": type(self.loss).__name__}
        if hasattr(self.loss, "schedule"):
            about["schedule"] = type(self.loss.schedule).__name__
            if arguments := vars(self.loss.schedule):
                about["schedule_args"] = dict(arguments)
        if hasattr(self.loss, "kind"):
            about["kind"] = self.loss.kind
        if getattr(self.loss, "time_shift", 1.0) != 1.0:
            about["time_shift"] = self.loss.time_shift
        return about


def entry(name, network, network_args, loss, data, measure, **settings):
    """A :class:`Recipe` by its field's names. data : a dict of more of its fields, which several entries share; what
    ``settings`` say goes before. The full profile trains it for longer, unless they say otherwise, and as those below
    do."""
    about = {"name": name, "network": network, "network_args": network_args, "loss": loss, "measure": measure}
    return Recipe(**about, **({"full": FULL} | data | settings))


def unet(name, network_args, loss, data, measure, **settings):
    """:func:`entry` of a ``DiffusionUNet``."""
    return entry(name, "DiffusionUNet", network_args, loss, data, measure, **settings)


def classifier(name, network_args, data, measure, **settings):
    """:func:`entry` of a ``Classifier`` of clean images."""
    about = {"peak_rate": 2e-3, "full": {}} | settings
    return entry(name, "Classifier", network_args, ClassificationLoss(), data, measure, **about)


def guide(name, network, network_args, latest, data, measure, **settings):
    """:func:`entry` of a classifier of images with noise up to the time ``latest``."""
    about = {"peak_rate": 1e-3, "full": {}} | settings
    return entry(name, network, network_args, NoisyClassificationLoss(Cosine(), latest), data, measure, **about)


def segmenter(name, num_labels, shift, data, measure, **settings):
    """:func:`entry` of a ``Segmenter``, trained on images shifted by up to ``shift`` pixels."""
    about = {"peak_rate": 2e-3, "full": {}} | settings
    return entry(name, "Segmenter", {"num_labels": num_labels}, SegmentationLoss(shift), data, measure, **about)


def vector_autoencoder(name, kl_weight, data, measure, **settings):
    """:func:`entry` of a ``VectorAutoencoder``, a variational one unless kl_weight is 0."""
    network_args = {"image_size": data["image_size"], "latent_size": 128, "variational": kl_weight > 0}
    about = {"peak_rate": 1e-3, "full": {}} | settings
    return entry(name, "VectorAutoencoder", network_args, AutoencoderLoss(kl_weight), data, measure, **about)


# ---- What the measures of several recipes share ----------------------------------------------------------------------


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
    for t in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9):
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
