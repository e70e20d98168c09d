"""What a recipe is: how a network is made, and how it is judged."""

from collections.abc import Callable
from dataclasses import dataclass, field

from course_lib import pretrained, runtime
from course_lib.denoisers import NetworkDenoiser
from course_lib.losses import (
    AutoencoderLoss,
    ClassificationLoss,
    NoisyClassificationLoss,
    RegressionLoss,
    SegmentationLoss,
)
from course_lib.schedules import Cosine

FULL = {"steps": 60_000, "batch_size": 128}
#: ``brain`` from the start, its loss after 100 steps: 0.109, by AdamW 0.138 at the best rate of two.
MUON = {"optimizer": "Muon", "peak_rate": 5e-3}


@dataclass(frozen=True)
class Recipe:
    """How a network is made, and how it is judged.

    ``load_data()`` gives images (N, H, W) or (N, C, ...), and labels (N, ...) or None. ``measure(recipe, net)`` gives
    what the card says of the quality, and tensors to ship beside the weights. ``full`` is what COURSE_PROFILE=full
    changes: a training of GPU size. ``precision`` is "float32" where training must not take the faster one. ``base``
    names the shipped network that this one steers, ``autoencoder`` that whose latents it draws, and ``start`` that
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
    optimizer: str = "AdamW"
    precision: str | None = None
    seed: int = 0
    full: dict = field(default_factory=dict)
    base: str | None = None
    autoencoder: str | None = None
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
        if self.optimizer != "AdamW":
            about["optimizer"] = self.optimizer
        loss = getattr(self.loss, "loss", self.loss)
        about |= {"peak_rate": self.peak_rate, "seed": self.seed} | pretrained.loss_entries(self.loss)
        if getattr(loss, "time_shift", 1.0) != 1.0:
            about["time_shift"] = loss.time_shift
        others = [name for name in (self.base, self.autoencoder) if name]
        return about | ({"beside": {name: pretrained.card(name)["sha256"] for name in others}} if others else {})


def entry(name, network, network_args, loss, data, measure, **settings):
    """A :class:`Recipe` by its field's names. data : a dict of more of its fields, which several entries share; what
    ``settings`` say goes before. The full profile trains it for longer, unless they say otherwise, and as those below
    do."""
    about = {"name": name, "network": network, "network_args": network_args, "loss": loss, "measure": measure}
    return Recipe(**about, **({"full": FULL} | data | settings))


def unet(name, network_args, loss, data, measure, **settings):
    """:func:`entry` of a ``DiffusionUNet``."""
    return entry(name, "DiffusionUNet", network_args, loss, data, measure, **settings)


def unrolled(name, network_args, scan, data, measure, **settings):
    """:func:`entry` of an ``Unrolled`` network, which sees scan(x_0, generator) -> (A, y)."""
    return entry(name, "Unrolled", network_args, RegressionLoss(scan, drawn=True), data, measure, **settings)


def classifier(name, network_args, data, measure, **settings):
    """:func:`entry` of a ``Classifier`` of clean images."""
    about = {"peak_rate": 2e-3, "full": {}} | settings
    return entry(name, "Classifier", network_args, ClassificationLoss(), data, measure, **about)


def guide(name, network, network_args, latest, data, measure, **settings):
    """:func:`entry` of a classifier of images with noise up to the time ``latest``."""
    about = {"peak_rate": 1e-3, "full": {}} | settings
    return entry(name, network, network_args, NoisyClassificationLoss(Cosine(), latest), data, measure, **about)


def segmenter(name, num_labels, shift, data, measure, channels=None, **settings):
    """:func:`entry` of a ``Segmenter``, trained on images shifted by up to ``shift`` pixels."""
    network_args = {"num_labels": num_labels} | ({"channels": channels} if channels else {})
    about = {"loss": SegmentationLoss(shift), "peak_rate": 2e-3, "full": {}} | settings
    return entry(name, "Segmenter", network_args, data=data, measure=measure, **about)


def vector_autoencoder(name, kl_weight, data, measure, **settings):
    """:func:`entry` of a ``VectorAutoencoder``, a variational one unless kl_weight is 0."""
    network_args = {"image_size": data["image_size"], "latent_size": 128, "variational": kl_weight > 0}
    about = {"loss": AutoencoderLoss(kl_weight), "peak_rate": 1e-3, "full": {}} | settings
    return entry(name, "VectorAutoencoder", network_args, data=data, measure=measure, **about)
