"""One entry for each network that ships: its data, network, schedule, length of training, licence, and how it is
measured.

``python -m course_lib.train NAME`` trains an entry. This is the only module of the library that knows the data sets.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from course_lib import pretrained, runtime, schedules
from course_lib.denoisers import NetworkDenoiser
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.sample import draw
from course_lib.training import ClassificationLoss, DiffusionLoss, to_tensor


@dataclass(frozen=True)
class Recipe:
    """How a network is made, and how it is judged.

    ``load_data()`` gives images (N, H, W) and labels (N,) or None; ``measure(recipe, net)`` gives what the card says
    of the
    quality, and tensors to ship beside the weights; ``full`` is what COURSE_PROFILE=full changes: a training of GPU
    size.
    """

    name: str
    network: str
    network_args: dict
    loss: DiffusionLoss | ClassificationLoss
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

    def describe(self):
        """What the card says of how the network was made: a dict for JSON."""
        about = {
            key: getattr(self, key)
            for key in ("name", "network", "network_args", "data", "licence", "classes", "image_size", "batch_size")
        }
        about |= {"peak_rate": self.peak_rate, "seed": self.seed, "loss": type(self.loss).__name__}
        if isinstance(self.loss, DiffusionLoss):
            about |= {"schedule": type(self.loss.schedule).__name__, "kind": self.loss.kind}
        return about


MEDNIST_CLASSES = ("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT")
MEDNIST_DATA = "MedNIST, training split: 95 % of the 58,954 images, all but the last 5 % of each class by number"
MEDNIST_LICENCE = (
    "CC BY-SA 4.0. Trained on MedNIST, gathered from TCIA, the RSNA bone age challenge and the NIH chest X-ray "
    "data set by B. Erickson, Department of Radiology, Mayo Clinic (CC BY-SA 4.0)."
)
FD_IMAGES = 600  # images on either side of a Fréchet distance: 100 of each class
FD_NFE = 25
REFERENCE_IMAGES = 30_000


def _mednist(split):
    from data_fetch import mednist

    return mednist.load(split)


def _mednist_train():
    return _mednist("train")


@torch.no_grad()
def in_parts(function, images, batch_size=500):
    """function over images (N, H, W), uint8 or float in [-1, 1], in parts of a batch; single precision, on the CPU
    again."""
    where = runtime.device()
    parts = [to_tensor(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    return torch.cat([function(part.to(where)).cpu() for part in parts])


def spread_of_each_class(labels, n):
    """Indices of n items of each class, evenly spread over its items, since neighbours are near-duplicates."""
    labels = torch.as_tensor(labels)
    chosen = []
    for label in labels.unique():
        where = (labels == label).nonzero()[:, 0]
        chosen.append(where[torch.linspace(0, len(where) - 1, n).round().long()])
    return torch.cat(chosen)


def random_of_each_class(labels, n, generator):
    """Indices of n random items of each class."""
    found = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    return torch.cat([where[torch.randperm(len(where), generator=generator)[:n]] for where in found])


def measure_classifier(recipe, net):
    """Accuracy on the test split; moments of the features of 30,000 training images, the reference of Fréchet
    distances.

    The floor is what 600 real images score against the reference: 100 of each class, drawn at random from the training
    images that are not in the reference, the mean of five draws. The test split is the end of each class by number, in
    part other patients and scanners, and scores worse: its figure is given beside the floor.
    """
    images, labels = _mednist("test")
    accuracy = float((in_parts(net, images).argmax(1) == torch.as_tensor(labels)).float().mean())
    train_images, train_labels = recipe.load_data()
    train_labels = torch.as_tensor(train_labels)
    features = in_parts(net.features, train_images)
    in_reference = torch.zeros(len(features), dtype=torch.bool)
    in_reference[spread_of_each_class(train_labels, REFERENCE_IMAGES // 6)] = True
    scale = features[in_reference].std(0)
    net.scale.copy_(net.scale * scale)
    reference = moments(features[in_reference] / scale)
    others, other_labels = features[~in_reference] / scale, train_labels[~in_reference]
    generator = runtime.seeded(0)
    draws = [random_of_each_class(other_labels, FD_IMAGES // 6, generator) for _ in range(5)]
    floors = [frechet_distance(moments(others[chosen]), reference) for chosen in draws]
    chosen = spread_of_each_class(labels, FD_IMAGES // 6)
    quality = {
        "test_accuracy": round(accuracy, 5),
        "test_images": len(labels),
        "reference_images": reference.n,
        "floor": {
            "images": FD_IMAGES,
            "frechet_distance": sum(floors) / len(floors),
            "of_each_draw": [round(value, 4) for value in floors],
            "test_split": frechet_distance(moments(in_parts(net.features, images[chosen.numpy()])), reference),
        },
    }
    return quality, {"reference.mean": reference.mean, "reference.cov": reference.cov, "scale": net.scale.cpu()}


def measure_diffusion(recipe, net):
    """Fréchet distance of 600 samples at 25 evaluations, beside the floor, and the share of each class recognised."""
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    y = torch.arange(6).repeat_interleave(FD_IMAGES // 6)
    images = draw(denoiser, y, nfe=FD_NFE, seed=0, size=recipe.image_size)
    judge = pretrained.load("mednist_features")
    reference = pretrained.reference("mednist_features")
    distance = frechet_distance(moments(in_parts(judge.features, images)), reference)
    floor = pretrained.card("mednist_features")["floor"]["frechet_distance"]
    right = (in_parts(judge, images).argmax(1) == y).float().reshape(6, -1).mean(1)
    return {
        "frechet_distance": distance,
        "floor": floor,
        "ratio_to_floor": distance / floor,
        "images": FD_IMAGES,
        "network_evaluations": FD_NFE,
        "sampler": "dpmpp_2m",
        "precision": str(runtime.precision()).removeprefix("torch."),
        "recognised_as_its_class": {name: round(float(share), 3) for name, share in zip(recipe.classes, right)},
    }, {}


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mednist",
            network="DiffusionUNet",
            network_args={"channels": (64, 128, 192), "num_res_blocks": 1, "patch": 2, "num_classes": 6},
            loss=DiffusionLoss(schedules.Cosine(), kind="v", drop_class=0.1),
            load_data=_mednist_train,
            measure=measure_diffusion,
            data=MEDNIST_DATA,
            licence=MEDNIST_LICENCE,
            classes=MEDNIST_CLASSES,
            steps=2750,
            full={"steps": 60_000, "batch_size": 128},
        ),
        Recipe(
            name="mednist_features",
            network="Classifier",
            network_args={"num_classes": 6},
            loss=ClassificationLoss(),
            load_data=_mednist_train,
            measure=measure_classifier,
            data=MEDNIST_DATA,
            licence=MEDNIST_LICENCE,
            classes=MEDNIST_CLASSES,
            steps=1500,
            peak_rate=2e-3,
        ),
    )
}
