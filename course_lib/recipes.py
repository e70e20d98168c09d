"""One entry for each network that ships: its data, network, schedule, length of training, licence, and how it is
measured.

``python -m course_lib.train NAME`` trains an entry.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from course_lib import datasets, pretrained, runtime, schedules
from course_lib.denoisers import NetworkDenoiser
from course_lib.generate import draw, draw_along, draw_latents, draw_volumes, generate
from course_lib.hippocampus import (
    HIPPOCAMPUS_LABELS,
    label_volumes,
    labels_of,
    largest_shares,
)
from course_lib.images import in_batches, to_tensor, to_uint8
from course_lib.losses import (
    AutoencoderLoss,
    ClassificationLoss,
    DiffusionLoss,
    DistillationLoss,
    EDMLoss,
    NoisyClassificationLoss,
    RegressionLoss,
    SegmentationLoss,
)
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.metrics.memorisation import nearest_and_crowd, nearest_rms, threshold
from course_lib.metrics.segmentation import generalised_energy_distance
from course_lib.operators import Downsample
from course_lib.samplers import consistency_step, dpmpp_2m_step
from course_lib.scans import (
    ACCELERATIONS,
    CT_NOISE,
    CT_VIEWS,
    MRI_NOISE,
    back_projected,
    back_projected_scan,
    scan_ct,
    scan_mri,
    zero_filled_scan,
)


@dataclass(frozen=True)
class Recipe:
    """How a network is made, and how it is judged.

    ``load_data()`` gives images (N, H, W) or (N, C, ...), and labels (N, ...) or None. ``measure(recipe, net)`` gives
    what the card says of the quality, and tensors to ship beside the weights. ``full`` is what COURSE_PROFILE=full
    changes: a training of GPU size. ``base`` names the shipped network that this one steers, and ``start``
    the one whose weights are its first.
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


FULL = {"steps": 60_000, "batch_size": 128}
FD_NFE = 25


def _floor(distances, images):
    """The entry of a card for the distances of several draws of real images."""
    return {
        "images": images,
        "frechet_distance": sum(distances) / len(distances),
        "of_each_draw": [round(value, 4) for value in distances],
    }


def _distance(features, name):
    """Fréchet distance of features to the reference of the feature network ``name``, and beside it the floor."""
    return _against(features, pretrained.reference(name), pretrained.card(name)["floor"])


def _against(features, reference, floor):
    """Fréchet distance of features to a reference, and beside it the floor, an entry of a card."""
    distance = frechet_distance(moments(features), reference)
    return {
        "frechet_distance": distance,
        "floor": floor["frechet_distance"],
        "ratio_to_floor": distance / floor["frechet_distance"],
        "images": len(features),
    }


def _sampling():
    """How the samples of a card were drawn."""
    return {
        "network_evaluations": FD_NFE,
        "sampler": "dpmpp_2m",
        "precision": runtime.precision_name(),
    }


# ---- MedNIST ---------------------------------------------------------------------------------------------------------

MEDNIST_DATA = "MedNIST, training split: 95 % of the 58,954 images, all but the last 5 % of each class by number"
MEDNIST_LICENCE = (
    "CC BY-SA 4.0. Trained on MedNIST, gathered from TCIA, the RSNA bone age challenge and the NIH chest X-ray "
    "data set by B. Erickson, Department of Radiology, Mayo Clinic (CC BY-SA 4.0)."
)
FD_IMAGES = 600  # images on either side of a Fréchet distance: 100 of each class


def _mednist_train():
    return datasets.mednist_images("train")


def measure_classifier(recipe, net):
    """Accuracy on the test split; moments of the features of 30,000 training images, the reference of Fréchet
    distances.

    The floor is what 600 real images score against the reference: 100 of each class, drawn at random from the training
    images that are not in the reference, the mean of five draws. Many are slices of the same scans as the
    reference. The test split is the end of each class by number, in part other scans, and scores worse: its figure
    stands beside the floor, as ``test_split``.
    """
    images, labels = datasets.mednist_images("test")
    accuracy = float((in_batches(net, images).argmax(1) == torch.as_tensor(labels)).float().mean())
    train_images, train_labels = recipe.load_data()
    train_labels = torch.as_tensor(train_labels)
    features = in_batches(net.features, train_images)
    known = datasets.in_reference(train_labels)
    scale = features[known].std(0)
    net.scale.copy_(net.scale * scale)
    reference = moments(features[known] / scale)
    others, other_labels = features[~known] / scale, train_labels[~known]
    generator = runtime.seeded(0)
    draws = [datasets.random_of_each_class(other_labels, FD_IMAGES // 6, generator) for _ in range(5)]
    floors = [frechet_distance(moments(others[chosen]), reference) for chosen in draws]
    chosen = datasets.spread_of_each_class(labels, FD_IMAGES // 6)
    quality = {
        "test_accuracy": round(accuracy, 5),
        "test_images": len(labels),
        "reference_images": reference.n,
        "floor": _floor(floors, FD_IMAGES)
        | {"test_split": frechet_distance(moments(in_batches(net.features, images[chosen.numpy()])), reference)},
    }
    return quality, {"reference.mean": reference.mean, "reference.cov": reference.cov, "scale": net.scale.cpu()}


def measure_diffusion(recipe, net):
    """Fréchet distance of 600 samples at 25 evaluations, beside the floor, and the share of each class recognised."""
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    y = torch.arange(6).repeat_interleave(FD_IMAGES // 6)
    images = draw(denoiser, y, nfe=FD_NFE, seed=0, size=recipe.image_size)
    judge = pretrained.load("mednist_features")
    right = (in_batches(judge, images).argmax(1) == y).float().reshape(6, -1).mean(1)
    quality = _distance(in_batches(judge.features, images), "mednist_features") | _sampling()
    return quality | {
        "recognised_as_its_class": {name: round(float(share), 3) for name, share in zip(recipe.classes, right)}
    }, {}


@torch.no_grad()
def measure_noisy_classifier(recipe, net, load_test=lambda: datasets.mednist_images("test")):
    """Accuracy on the test split at several noise levels. load_test() gives its images and labels."""
    images, labels = load_test()
    labels, schedule, accuracy = torch.as_tensor(labels), recipe.loss.schedule, {}
    for t in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9):
        generator = runtime.seeded(0)

        def noisy_logits(x, t=t, generator=generator):
            return net(schedule.noisy(x, torch.randn(x.shape, generator=generator).to(x.device), t), t)

        right = in_batches(noisy_logits, images).argmax(1) == labels
        accuracy[f"t = {t}"] = round(float(right.float().mean()), 4)
    return {"test_accuracy": accuracy, "test_images": len(labels)}, {}


# ---- MedNIST at 32 x 32, for the trends ------------------------------------------------------------------------------

TREND_SIZE = 32
SIGMA_DATA = 0.55  # standard deviation of all pixels of the training images
STUDENT_NFE = 4


def small_judged(images):
    """Features and logits of ``mednist_features`` for images (N, 32, 32), brought to the 64 x 64 that it knows by
    bilinear interpolation: real and drawn images alike."""
    judge = pretrained.load("mednist_features")

    def judged(x):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.cat([judge.features(x), judge(x)], 1)

    both = in_batches(judged, images)
    return both[:, : -len(datasets.MEDNIST_CLASSES)], both[:, -len(datasets.MEDNIST_CLASSES) :]


@functools.cache
def small_reference():
    """Moments of the features of 30,000 real images of 32 x 32, and the floor of 600: those that
    :func:`measure_classifier` takes."""
    images, labels = datasets.mednist_small("train")
    labels = torch.as_tensor(labels)
    known = datasets.in_reference(labels)
    reference = moments(small_judged(images[known.numpy()])[0])
    left, generator = (~known).nonzero()[:, 0], runtime.seeded(0)
    draws = [left[datasets.random_of_each_class(labels[left], FD_IMAGES // 6, generator)] for _ in range(5)]
    floors = [frechet_distance(moments(small_judged(images[chosen.numpy()])[0]), reference) for chosen in draws]
    return reference, _floor(floors, FD_IMAGES)


def measure_trend(recipe, net):
    """Fréchet distance of 600 samples beside the floor: at 25 evaluations of 2M at noise levels after Karras et al., or
    for a student at 4 of its own; and the share of samples recognised as their class."""
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    y, sampling = torch.arange(FD_IMAGES) % len(recipe.classes), _sampling()
    times, step = schedules.karras_levels(denoiser.schedule, FD_NFE), dpmpp_2m_step
    if isinstance(recipe.loss, DistillationLoss):
        times, step = schedules.uniform_times(STUDENT_NFE)[:-1], consistency_step
        sampling |= {"network_evaluations": STUDENT_NFE, "sampler": "consistency"}
    features, logits = small_judged(draw_along(denoiser, y, times, step, size=recipe.image_size))
    reference, floor = small_reference()
    images = recipe.load_data()[0]
    return _against(features, reference, floor) | sampling | {
        "reference_images": reference.n,
        "floor_of_real_images": floor,
        "recognised_as_its_class": round(float((logits.argmax(1) == y).float().mean()), 4),
        "standard_deviation_of_the_data": round(float(to_tensor(images[::10]).std()), 4),
    }, {}


# ---- The brain cohort ------------------------------------------------------------------------------------------------

BRAIN_SUBJECTS = 10_000
BRAIN_FD_IMAGES = 300
BRAIN_DATA = "Brain cohort, training split: one T1 slice of each of {:,} made subjects, {}"
BRAIN_LICENCE = (
    "CC BY 4.0. Trained on slices made from the ICBM 152 template, nonlinear 2009a (Fonov et al., NeuroImage 2011); "
    "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, McGill University."
)


def _brain_train():
    return datasets.healthy_brains("train", BRAIN_SUBJECTS), None


def _brain_with_lesions(split="train", n=8000, size=128):
    return datasets.brain_maps(split, n, size)[0], None


def _brain_large():
    return datasets.healthy_brains("train", BRAIN_SUBJECTS, size=128), None


def _brain_latents():
    """Latents of the images of :func:`_brain_large`, float32 (N, C, 16, 16), of about unit variance."""
    return in_batches(pretrained.load("brain_autoencoder").encode, _brain_large()[0], 100).numpy(), None


def low_resolution(x, factor=4):
    """x (B, C, H, W) averaged over squares of side ``factor`` and blown up again, each mean repeated: (B, C, H, W)."""
    A = Downsample(factor)
    return A.pinv(A(x))


def _psnr(x, reference):
    """Peak signal-to-noise ratio in dB of images (B, C, H, W), clipped to [-1, 1]; the mean over the batch."""
    from monai.metrics import PSNRMetric

    return round(float(PSNRMetric(max_val=2.0)(x.clamp(-1, 1), reference).mean()), 3)


def _dice(found, truth, names):
    """Dice overlap of each label in two stacks of maps (B, H, W), over the whole stack."""
    from monai.metrics import compute_dice

    def one_hot(maps):
        return F.one_hot(maps.reshape(1, -1), len(names)).movedim(-1, 1)  # the stack as one picture

    scores = compute_dice(one_hot(found), one_hot(truth))[0]
    return {name: round(float(score), 4) for name, score in zip(names, scores)}


def measure_brain_features(recipe, net):
    """Accuracy over the families on test subjects, and the reference of Fréchet distances, from healthy subjects.

    The floor is what 300 made healthy test subjects score, the mean of five disjoint sets.
    """
    images, labels = datasets.brain_families("test", 200)
    right = (
        (in_batches(net, images).argmax(1) == torch.as_tensor(labels)).float().reshape(len(recipe.classes), -1).mean(1)
    )
    features = in_batches(net.features, datasets.healthy_brains("train", BRAIN_SUBJECTS))
    scale = features.std(0)
    net.scale.copy_(net.scale * scale)
    reference = moments(features / scale)
    sets = in_batches(net.features, datasets.healthy_brains("test", 5 * BRAIN_FD_IMAGES, seed=9)).split(BRAIN_FD_IMAGES)
    quality = {
        "test_accuracy": round(float(right.mean()), 4),
        "test_accuracy_of_each": {name: round(float(share), 3) for name, share in zip(recipe.classes, right)},
        "test_images": len(labels),
        "reference_images": reference.n,
        "floor": _floor([frechet_distance(moments(part), reference) for part in sets], BRAIN_FD_IMAGES),
    }
    return quality, {"reference.mean": reference.mean, "reference.cov": reference.cov, "scale": net.scale.cpu()}


def measure_segmenter(recipe, net):
    """Dice of each label on test subjects, half of them with a lesion."""
    images, truth = datasets.brain_maps("test", 400)
    found, truth = in_batches(net.labels, images), torch.as_tensor(truth)
    return {"test_dice": _dice(found, truth.long(), recipe.classes), "test_images": len(images)}, {}


def _areas(labels):
    """Area in mm^2 of CSF, grey and white matter in maps (B, H, W): (B, 3)."""
    pixel = (192.0 / labels.shape[-1]) ** 2
    return torch.stack([(labels == k).flatten(1).sum(1) * pixel for k in (1, 2, 3)], 1).float()


def measure_brain(recipe, net):
    """Fréchet distance of 300 samples at 25 evaluations beside the floor, and areas of tissue beside the real ones."""
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    images = draw(denoiser, BRAIN_FD_IMAGES, nfe=FD_NFE, seed=0, size=recipe.image_size)
    judge, segmenter = pretrained.load("brain_features"), pretrained.load("brain_segmenter")
    quality = _distance(in_batches(judge.features, images), "brain_features") | _sampling()
    drawn = _areas(in_batches(segmenter.labels, images))
    real = _areas(in_batches(segmenter.labels, datasets.healthy_brains("test", BRAIN_FD_IMAGES)))
    quality["area_mm2_mean_and_std"] = {
        name: {"samples": _mean_and_std(drawn[:, k]), "real": _mean_and_std(real[:, k])}
        for k, name in enumerate(datasets.BRAIN_TISSUES[1:4])
    }
    return quality, {}


#: (images, steps) of the networks copies_10_3000 and so on; each set of images holds the smaller ones.
COPIES = ((10, 3000), (100, 3000), (1000, 3000), (10_000, 3000), (10, 480), (100, 9000), (10_000, 9000))
COPIES_SIZE = 32
COPIES_LEVEL = 0.01  # of the test for copies


def _coarse(split, n):
    """Made healthy slices at 32 x 32, uint8 (n, 32, 32)."""
    return datasets.healthy_brains(split, n, size=COPIES_SIZE)


def _coarse_train(n):
    return _coarse("train", n), None


def coarse_features(images):
    """Features (N, d) of images (N, 32, 32), uint8 or in [-1, 1], blown up to the size that the judge of brains
    knows."""
    judge = pretrained.load("brain_features")
    side = (datasets.BRAIN_SIZE,) * 2
    return in_batches(lambda x: judge.features(F.interpolate(x, size=side, mode="bilinear")), images, 100)


def measure_copies(recipe, net):
    """How many of 300 samples are copies of training images, and whether the Fréchet distance notices.

    The test is that of :mod:`course_lib.metrics.memorisation`: distance to the nearest training image over the mean
    distance to the k nearest, k = min(50, N / 2); its threshold is set on 500 subjects that nobody was trained on, and
    checked on 500 others. Beside the samples' Fréchet distance: the floor, five sets of 300 real images, and a copier,
    which hands out training images.
    """
    known, n = to_tensor(recipe.load_data()[0])[:, 0], BRAIN_FD_IMAGES
    k = min(50, len(known) // 2)

    def relative(images):
        nearest, crowd = nearest_and_crowd(images, known, k)
        return nearest / crowd

    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    images = draw(denoiser, n, nfe=FD_NFE, seed=0, size=COPIES_SIZE)
    null, check = (relative(part) for part in to_tensor(_coarse("test", 1000))[:, 0].split(500))
    values, limit = relative(images), threshold(null, COPIES_LEVEL)
    reference = moments(coarse_features(_coarse("validation", 2000)))

    def distance(pictures):
        return round(frechet_distance(moments(coarse_features(pictures)), reference), 4)

    copied = known[torch.randint(len(known), (n,), generator=runtime.seeded(1))]
    _, which = nearest_rms(images, known)
    real = torch.as_tensor(datasets.healthy_brains("test", 5 * n, size=COPIES_SIZE, seed=9))
    quality = {
        "training_images": len(known),
        "share_of_copies": round(float((values < limit).float().mean()), 4),
        "share_of_held_out": round(float((check < limit).float().mean()), 4),
        "test": {"level": COPIES_LEVEL, "threshold": round(limit, 4), "neighbours": k, "held_out": len(check)},
        "frechet_distance": distance(images),
        "frechet_distance_of_a_copier": distance(copied),
        "floor": _floor([distance(part) for part in real.split(n)], n),
        "reference_images": reference.n,
        "images": n,
    }
    shown = {"samples": images[:12], "nearest": known[which[:12]]}
    return quality | _sampling(), {f"reference.{key}": torch.as_tensor(to_uint8(x)) for key, x in shown.items()}


def _mean_and_std(values):
    return [round(float(values.mean()), 1), round(float(values.std()), 1)]


def measure_two_classes(recipe, net):
    """Fréchet distance of 300 healthy samples beside the floor, and how many samples of each class the classifier of
    families finds a lesion in, beside real test images."""
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    judge = pretrained.load("brain_features")
    drawn = [
        draw(denoiser, torch.full((n,), y), nfe=FD_NFE, seed=y, size=recipe.image_size)
        for y, n in enumerate((BRAIN_FD_IMAGES, 100))
    ]
    images, labels = datasets.healthy_or_not("test", 400)
    real = [images[labels == y] for y in (0, 1)]

    def found(pictures):
        return round(float((in_batches(judge, pictures).argmax(1) > 0).float().mean()), 3)

    quality = _distance(in_batches(judge.features, drawn[0]), "brain_features") | _sampling()
    return quality | {
        "share_with_a_lesion": {
            name: {"samples": found(drawn[y]), "real": found(real[y])} for y, name in enumerate(recipe.classes)
        }
    }, {}


def measure_neck(recipe, net):
    """PSNR on healthy test subjects, beside what the mean training image scores, and the contrast that lesions keep
    (see :func:`measure_autoencoder`): little is wanted, since anomalies are found by what is lost."""
    x, n = to_tensor(datasets.healthy_brains("test", BRAIN_FD_IMAGES)), BRAIN_FD_IMAGES
    mean = to_tensor(recipe.load_data()[0].mean(0, keepdims=True) / 127.5 - 1)

    def decoded(x):
        return net.decode(net.encode(x)).clamp(-1, 1)

    quality = {"psnr": _psnr(in_batches(decoded, x), x), "psnr_of_the_mean_image": _psnr(mean.expand_as(x), x)}
    return quality | {"images": n, "contrast_kept": _contrast_kept(decoded, recipe.image_size)}, {}


def measure_control(recipe, net):
    """Dice of the map that is asked for and the segmenter's map of what is drawn, for 64 test subjects.

    The ceiling is the segmenter on the real images of these maps, the floor a map and another subject's image.
    """
    images, maps = datasets.brain_maps("test", 64)
    maps, segmenter = torch.as_tensor(maps).long(), pretrained.load("brain_segmenter")
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    found = in_batches(segmenter.labels, draw(denoiser, maps, nfe=FD_NFE, seed=0, size=recipe.image_size))
    real = in_batches(segmenter.labels, images)
    scores = {
        "drawn": _dice(found, maps, recipe.classes),
        "ceiling": _dice(real, maps, recipe.classes),
        "floor": _dice(real.roll(1, 0), maps, recipe.classes),
    }
    return {"test_dice": scores, "test_images": len(maps)} | _sampling(), {}


def _answer(recipe, net, y):
    """What a network makes of images y (B, 1, H, W), on the CPU: its regression, or one sample given y beside it."""
    if isinstance(recipe.loss, RegressionLoss):
        with torch.no_grad():
            return net(y.to(runtime.device()), 0.0).cpu()
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    return generate(denoiser, torch.randn(y.shape, generator=runtime.seeded(0)), y, FD_NFE)


def measure_super_resolution(recipe, net):
    """PSNR on 64 test subjects: of one sample, or of the regression, and of bicubic interpolation."""
    x_0 = to_tensor(datasets.healthy_brains("test", 64))
    found = _answer(recipe, net, low_resolution(x_0))
    bicubic = F.interpolate(F.avg_pool2d(x_0, 4), scale_factor=4, mode="bicubic")
    quality = {"psnr": _psnr(found, x_0), "bicubic": _psnr(bicubic, x_0)}
    return quality | {"test_images": len(x_0)}, {}


def _psnr_of_scans(net, scan, picture):
    """PSNR on 128 test subjects: of the network's answer to the picture of a scan, and of that picture itself."""
    x_0 = to_tensor(datasets.healthy_brains("test", 128))
    seen = picture(*scan(x_0, runtime.seeded(0)))
    return _psnr(in_batches(lambda x: net(x, 0.0), seen[:, 0].numpy(), 32), x_0), _psnr(seen, x_0)


def measure_mri(recipe, net):
    """PSNR on 128 test subjects at each acceleration, beside the zero-filled picture."""
    quality = {"psnr": {}, "zero_filled": {}, "test_images": 128, "noise": MRI_NOISE}
    for R in ACCELERATIONS:
        scores = _psnr_of_scans(net, lambda x, g, R=R: scan_mri(x, [R] * len(x), g), lambda A, y: A.adjoint(y))
        quality["psnr"][f"R = {R}"], quality["zero_filled"][f"R = {R}"] = scores
    return quality, {}


def measure_ct(recipe, net):
    """PSNR on 128 test subjects, beside filtered back-projection."""
    psnr, fbp = _psnr_of_scans(net, scan_ct, back_projected)
    return {"psnr": psnr, "back_projected": fbp, "test_images": 128, "noise": CT_NOISE, "views": CT_VIEWS}, {}


def measure_autoencoder(recipe, net):
    """What the autoencoder keeps, on test subjects, and the reference of Fréchet distances at 128 x 128.

    ``contrast_kept``: inside the mask of a lesion, (decoded with - decoded without the lesion) / (with - without).
    """
    healthy = datasets.healthy_brains("train", 2000, size=128)
    latents = in_batches(lambda x: net.encode(x), healthy, 100)
    net.scale.copy_(net.scale / latents.std().item())
    judge = pretrained.load("brain_features")
    reference = moments(in_batches(judge.features, datasets.healthy_brains("train", BRAIN_SUBJECTS, size=128)))
    real = datasets.healthy_brains("test", 5 * BRAIN_FD_IMAGES, size=128, seed=9)
    sets = in_batches(judge.features, real).split(BRAIN_FD_IMAGES)

    def decoded(x):
        return net.decode(net.encode(x)).clamp(-1, 1)

    again = in_batches(decoded, real[:BRAIN_FD_IMAGES], 100)
    quality = {
        "psnr": _psnr(again, to_tensor(real[:BRAIN_FD_IMAGES])),
        "frechet_distance": frechet_distance(moments(in_batches(judge.features, again[:, 0])), reference),
        "images": BRAIN_FD_IMAGES,
        "reference_images": reference.n,
        "floor": _floor([frechet_distance(moments(part), reference) for part in sets], BRAIN_FD_IMAGES),
        "contrast_kept": _contrast_kept(decoded, size=128),
        "scale": round(float(net.scale), 5),
    }
    return quality, {"reference.mean": reference.mean, "reference.cov": reference.cov, "scale": net.scale.cpu()}


def _contrast_kept(decoded, size):
    """Inside the mask of a lesion: (decoded with - decoded without it) / (with - without), for each family."""
    kept = {}
    for family in datasets.LESION_FAMILIES:
        cases = datasets.synthetic_brains("test", 64, size, lesion=family)
        mask = torch.as_tensor(cases.masks).bool()
        change = torch.as_tensor(cases.images - cases.healthy)
        found = (in_batches(decoded, cases.images, 64) - in_batches(decoded, cases.healthy, 64))[:, 0]
        kept[family] = round(float((found * change)[mask].sum() / change[mask].square().sum()), 3)
    return kept


def measure_large(recipe, net):
    """Fréchet distance of 300 samples of 128 x 128 at 25 evaluations beside the floor, and the seconds for each."""
    latent = recipe.network_args.get("in_channels", 1) > 1
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=not latent)
    judge = pretrained.load("brain_features")
    start = time.perf_counter()
    if latent:
        _, images = draw_latents(denoiser, pretrained.load("brain_autoencoder"), BRAIN_FD_IMAGES, FD_NFE, size=128)
    else:
        images = draw(denoiser, BRAIN_FD_IMAGES, FD_NFE, size=128)
    seconds = (time.perf_counter() - start) / len(images)
    quality = _distance(in_batches(judge.features, images), "brain_autoencoder")  # its card has those of this size
    return quality | {"seconds_an_image": round(seconds, 3)} | _sampling(), {}


# ---- Contrasts: T1 to T2 ---------------------------------------------------------------------------------------------


def measure_translation(recipe, net):
    """PSNR of the T2-like slice of 64 test subjects: of one sample, or of the regression, and of the best single curve
    from T1 to T2 brightness (a polynomial of degree 5, fitted to training subjects)."""
    t2, t1 = to_tensor(datasets.brain_contrasts("test", 64)).split(1, 1)
    found = _answer(recipe, net, t1)
    y, x = (channel.flatten().numpy() for channel in to_tensor(datasets.brain_contrasts("train", 64)).split(1, 1))
    curve = torch.as_tensor(np.polynomial.Polynomial.fit(x, y, 5)(t1.numpy())).float()
    return {"psnr": _psnr(found, t2), "one_curve": _psnr(curve, t2), "test_images": len(t2)}, {}


# ---- Lesions with raters ---------------------------------------------------------------------------------------------

RATED_SUBJECTS = 4000


def _rated_pairs():
    """Masks, as -1 and 1, beside their images, uint8 (N, 2, 64, 64)."""
    images, masks = datasets.rated_draws(RATED_SUBJECTS)
    return np.stack([255 * masks, images], 1), None


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
        denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
        y = to_tensor(cases.images)
        noise = [torch.randn(y.shape, generator=runtime.seeded(k)) for k in range(8)]
        masks = torch.stack([generate(denoiser, eps, y, FD_NFE)[:, 0] > 0 for eps in noise])
        found = masks.float().mean(0)
    outline = ratings[2:3].expand(2, -1, -1, -1)
    quality = {
        "rms_of_probability": round(float((found - truth).square().mean().sqrt()), 4),
        "energy_distance": round(float(generalised_energy_distance(masks, ratings, chances).mean()), 4),
        "outline_alone": round(float(generalised_energy_distance(outline, ratings, chances).mean()), 4),
    }
    return quality | {"test_images": len(found)}, {}


# ---- Hippocampus volumes ---------------------------------------------------------------------------------------------

HIPPOCAMPUS_DATA = (
    "Hippocampus (Medical Segmentation Decathlon, task 4), training split by person: those volumes whose label fits "
    "into 32 x 48 x 32 mm, each cut out five times with shifts of up to 2 mm"
)
HIPPOCAMPUS_SLICES = (
    "Hippocampus (Medical Segmentation Decathlon, task 4), training split by person: sagittal slices of 48 x 32 mm "
    "with a label, of those volumes whose label fits into 32 x 48 x 32 mm, each cut out three times with shifts of up "
    "to 4 mm"
)
HIPPOCAMPUS_LICENCE = (
    "CC BY-SA 4.0. Trained on task 4 of the Medical Segmentation Decathlon (Antonelli et al., Nature Communications "
    "2022), Vanderbilt University Medical Center (CC BY-SA 4.0)."
)


def _hippocampus_train():
    shifts = [(0, 0, 0), *np.random.default_rng(0).integers(-2, 3, (4, 3))]
    return to_uint8(datasets.hippocampi("train", shifts)), None


def measure_hippocampus(recipe, net):
    """What 100 samples are like, beside real cases: volumes of the labels, whether they hang together, and how close
    they come to what the network was trained on.

    The distance is the root mean square over the image to the nearest of all training boxes, shifted ones too; real
    cases held out (validation and test) are its null. The measures of every case ship as tensors.
    """
    denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
    start = time.perf_counter()
    x = draw_volumes(denoiser, 100, FD_NFE)
    seconds = (time.perf_counter() - start) / len(x)
    cases = {split: torch.as_tensor(datasets.hippocampi(split)) for split in ("train", "validation", "test")}
    cases["sample"] = x
    labels = {key: labels_of(channels) for key, channels in cases.items()}
    volumes = {key: label_volumes(found) for key, found in labels.items()}
    shares = {key: largest_shares(found) for key, found in labels.items()}
    seen = to_tensor(recipe.load_data()[0])[:, 0]
    held_out = torch.cat([cases["validation"], cases["test"]])
    nearest = {key: nearest_rms(c[:, 0], seen)[0] for key, c in (("sample", x), ("held_out", held_out))}
    quality = {
        "volume_mm3_mean_and_std": {
            key: {name: _mean_and_std(v[:, k]) for k, name in enumerate(HIPPOCAMPUS_LABELS)}
            for key, v in volumes.items()
        },
        "largest_share": {key: round(float(share.mean()), 4) for key, share in shares.items()},
        "rms_to_nearest_training_image": {key: round(float(d.median()), 4) for key, d in nearest.items()},
        "training_volumes": len(cases["train"]),
        "images": len(x),
        "seconds_an_image": round(seconds, 2),
    }
    tensors = {f"reference.{key}_volumes": v for key, v in volumes.items()}
    tensors |= {f"reference.{key}_largest_shares": share for key, share in shares.items()}
    return quality | _sampling(), tensors | {f"reference.{key}_nearest": d for key, d in nearest.items()}


def _hippocampus_pairs():
    shifts = [(0, 0, 0), *np.random.default_rng(0).integers(-4, 5, (2, 3))]
    return to_uint8(datasets.hippocampus_slices("train", shifts)), None


def _hippocampus_maps():
    pairs = _hippocampus_pairs()[0]
    return pairs[:, 2], datasets.slice_labels(to_tensor(pairs[:, :2])).numpy().astype(np.uint8)


def measure_hippocampus_slices(recipe, net):
    """Dice of each part on the slices of the test persons: of one sample, or of the U-Net."""
    slices = to_tensor(datasets.hippocampus_slices("test"))
    truth, y = datasets.slice_labels(slices[:, :2]), slices[:, 2:]
    if isinstance(recipe.loss, SegmentationLoss):
        found = in_batches(net.labels, y.numpy())
    else:
        denoiser = NetworkDenoiser(net, recipe.loss.schedule, recipe.loss.kind, clip=True)
        noise = torch.randn(len(y), 2, 48, 32, generator=runtime.seeded(0))
        found = datasets.slice_labels(generate(denoiser, noise, y, FD_NFE))
    return {"test_dice": _dice(found, truth, ("background", *HIPPOCAMPUS_LABELS)), "test_slices": len(y)}, {}


# ---- The entries -----------------------------------------------------------------------------------------------------

COSINE_V = DiffusionLoss(schedules.Cosine(), kind="v")
BRAIN_PRIOR = {"channels": (64, 96, 128, 160), "num_res_blocks": 1, "patch": 2}
SMALL = {"channels": (32, 64, 64), "num_res_blocks": 1, "patch": 2}
SMALLER = {"channels": (32, 64), "num_res_blocks": 1, "patch": 2}


BRAIN_CLASSIFIER = {"num_classes": 6, "pool": "max"}
SIX_KINDS = {
    "n": 6000,
    "what": "a sixth of them healthy, a sixth of each family of lesions",
    "classes": ("healthy", "hyper", "hypo", "texture", "mass", "tiny"),
}
HEALTHY_OR_NOT = {"n": 8000, "what": "half of them with a lesion", "classes": ("healthy", "lesion")}


def _mednist_recipe(**settings):
    return Recipe(
        data=MEDNIST_DATA,
        licence=MEDNIST_LICENCE,
        classes=datasets.MEDNIST_CLASSES,
        load_data=_mednist_train,
        **settings,
    )


TREND = {"channels": (32, 32), "num_res_blocks": 1, "patch": 2, "num_classes": 6, "norm_groups": 8}


def _trend_recipe(**settings):
    """One of four networks of one size, trained for one length of time on the same images."""
    return Recipe(
        **{
            "data": f"{MEDNIST_DATA}; averaged over squares of 2 x 2 to 32 x 32",
            "licence": MEDNIST_LICENCE,
            "classes": datasets.MEDNIST_CLASSES,
            "load_data": lambda: datasets.mednist_small("train"),
            "measure": measure_trend,
            "image_size": TREND_SIZE,
            "network": "DiffusionUNet",
            "network_args": TREND,
            "batch_size": 16,  # at so few images seen, many small steps get further than few large ones
            "steps": 5000,
            "peak_rate": 1e-3,
            "full": FULL,
        }
        | settings
    )


def _brain_recipe(n=BRAIN_SUBJECTS, what="healthy", **settings):
    return Recipe(
        **{
            "data": BRAIN_DATA.format(n, what),
            "licence": BRAIN_LICENCE,
            "image_size": datasets.BRAIN_SIZE,
            "batch_size": 32,
        }
        | settings
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        _mednist_recipe(
            name="mednist",
            network="DiffusionUNet",
            network_args={"channels": (64, 128, 192), "num_res_blocks": 1, "patch": 2, "num_classes": 6},
            loss=COSINE_V,
            measure=measure_diffusion,
            steps=2750,
            full=FULL,
        ),
        _mednist_recipe(
            name="mednist_features",
            network="Classifier",
            network_args={"num_classes": 6},
            loss=ClassificationLoss(),
            measure=measure_classifier,
            steps=1500,
            peak_rate=2e-3,
        ),
        _mednist_recipe(
            name="mednist_noisy_classifier",
            network="NoisyClassifier",
            network_args={"num_classes": 6, "channels": (32, 64, 96), "patch": 4},
            loss=NoisyClassificationLoss(schedules.Cosine()),
            measure=measure_noisy_classifier,
            steps=1200,
            peak_rate=1e-3,
        ),
        _mednist_recipe(
            name="mednist_weak",
            network="DiffusionUNet",
            network_args={"channels": (32, 64), "num_res_blocks": 1, "patch": 4, "num_classes": 6},
            loss=COSINE_V,
            measure=measure_diffusion,
            steps=1200,
        ),
        _brain_recipe(
            name="brain_features",
            network="Classifier",
            network_args=BRAIN_CLASSIFIER,
            loss=ClassificationLoss(),
            load_data=lambda: datasets.brain_families("train", 1000),
            measure=measure_brain_features,
            steps=1200,
            batch_size=64,
            peak_rate=2e-3,
            **SIX_KINDS,
        ),
        _brain_recipe(
            name="brain_segmenter",
            network="Segmenter",
            network_args={"num_labels": 5},
            loss=SegmentationLoss(),
            load_data=lambda: datasets.brain_maps("train", 6000),
            measure=measure_segmenter,
            n=6000,
            what="half of them with a lesion, and their maps of tissue",
            classes=datasets.BRAIN_TISSUES,
            steps=900,
            peak_rate=2e-3,
        ),
        _brain_recipe(
            name="brain",
            network="DiffusionUNet",
            network_args=BRAIN_PRIOR,
            loss=COSINE_V,
            load_data=_brain_train,
            measure=measure_brain,
            steps=2800,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_noisy_classifier",
            network="NoisyFromClean",
            network_args=BRAIN_CLASSIFIER,
            start="brain_features",
            loss=NoisyClassificationLoss(schedules.Cosine(), latest=0.6),
            load_data=lambda: datasets.brain_families("train", 1000),
            measure=functools.partial(measure_noisy_classifier, load_test=lambda: datasets.brain_families("test", 200)),
            steps=2400,
            batch_size=64,
            peak_rate=1e-3,
            **SIX_KINDS,
        ),
        _brain_recipe(
            name="brain_two_classes",
            network="DiffusionUNet",
            network_args=SMALLER | {"num_classes": 2},
            loss=COSINE_V,
            load_data=lambda: datasets.healthy_or_not("train", 8000),
            measure=measure_two_classes,
            batch_size=16,
            steps=1000,
            full=FULL,
            **HEALTHY_OR_NOT,
        ),
        *(
            _brain_recipe(
                name=name,
                network="VectorAutoencoder",
                network_args={"image_size": datasets.BRAIN_SIZE, "latent_size": 128, "variational": kl_weight > 0},
                loss=AutoencoderLoss(kl_weight),
                load_data=_brain_train,
                measure=measure_neck,
                steps=1500,
                peak_rate=1e-3,
            )
            # 128 b / 96^2 makes the loss the evidence lower bound of Laplace noise of scale b; here b = 0.07
            for name, kl_weight in (("brain_ae", 0.0), ("brain_vae", 1e-3))
        ),
        _brain_recipe(
            name="brain_control",
            network="ControlledUNet",
            network_args={"num_labels": 5},
            base="brain",
            loss=COSINE_V,
            load_data=lambda: datasets.brain_maps("train", 8000),
            measure=measure_control,
            n=8000,
            what="half of them with a lesion, and their maps of tissue",
            classes=datasets.BRAIN_TISSUES,
            steps=700,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_superres",
            network="DiffusionUNet",
            network_args=SMALL | {"concat": 1},
            loss=dataclasses.replace(COSINE_V, condition=low_resolution),
            load_data=_brain_train,
            measure=measure_super_resolution,
            steps=2800,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_superres_l2",
            network="DiffusionUNet",
            network_args=SMALL,
            loss=RegressionLoss(low_resolution),
            load_data=_brain_train,
            measure=measure_super_resolution,
            steps=700,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_mri_unet",
            network="DiffusionUNet",
            network_args=SMALL,
            loss=RegressionLoss(zero_filled_scan, drawn=True),
            load_data=_brain_train,
            measure=measure_mri,
            batch_size=8,  # many small steps get further than few large ones
            steps=2400,
            peak_rate=1e-3,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_ct_unet",
            network="DiffusionUNet",
            network_args=SMALL,
            loss=RegressionLoss(back_projected_scan, drawn=True),
            load_data=_brain_train,
            measure=measure_ct,
            batch_size=8,  # many small steps get further than few large ones
            steps=2400,
            peak_rate=1e-3,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_autoencoder",
            network="Autoencoder",
            network_args={"channels": (32, 64, 64), "latent_channels": 8, "patch": 2},
            loss=AutoencoderLoss(),
            load_data=_brain_with_lesions,
            measure=measure_autoencoder,
            n=8000,
            what="half of them with a lesion",
            image_size=128,
            batch_size=8,  # at so few images seen, many small steps get further than few large ones
            steps=3700,
            peak_rate=1e-3,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_latent",
            network="DiffusionUNet",
            network_args={"channels": (64, 96, 128), "num_res_blocks": 1, "patch": 1, "in_channels": 8},
            loss=COSINE_V,
            load_data=_brain_latents,
            measure=measure_large,
            image_size=128,
            batch_size=64,
            steps=4500,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_pixels",
            network="DiffusionUNet",
            network_args=SMALL,
            loss=COSINE_V,
            load_data=_brain_large,
            measure=measure_large,
            image_size=128,
            steps=600,
            full=FULL,
        ),
        *(
            _brain_recipe(
                name=f"copies_{n}_{steps}",
                network="DiffusionUNet",
                network_args=SMALLER | {"norm_groups": 8},
                loss=COSINE_V,
                load_data=functools.partial(_coarse_train, n),
                measure=measure_copies,
                n=n,
                image_size=COPIES_SIZE,
                batch_size=min(n, 16),
                steps=steps,
                peak_rate=1e-3,
            )
            for n, steps in COPIES
        ),
        _brain_recipe(
            name="brain_t2",
            network="DiffusionUNet",
            network_args=SMALLER | {"concat": 1},
            loss=dataclasses.replace(COSINE_V, concat=1),
            load_data=lambda: (datasets.brain_contrasts("train", BRAIN_SUBJECTS), None),
            measure=measure_translation,
            what="healthy, with the T2-like slice of the same subject",
            batch_size=16,
            steps=1200,
            full=FULL,
        ),
        _brain_recipe(
            name="brain_t2_l2",
            network="DiffusionUNet",
            network_args=SMALLER,
            loss=RegressionLoss(concat=1),
            load_data=lambda: (datasets.brain_contrasts("train", BRAIN_SUBJECTS), None),
            measure=measure_translation,
            what="healthy, with the T2-like slice of the same subject",
            batch_size=8,
            steps=1300,
            peak_rate=1e-3,
            full=FULL,
        ),
        _brain_recipe(
            name="lesion_raters",
            network="DiffusionUNet",
            network_args=SMALL | {"concat": 1},
            loss=dataclasses.replace(COSINE_V, concat=1, time_shift=6.0),  # at much noise it must look at the image
            load_data=_rated_pairs,
            measure=measure_raters,
            n=RATED_SUBJECTS,
            what="each with a lesion and masks of four of its raters, cropped to 64 x 64",
            image_size=64,
            batch_size=16,
            steps=1000,
            peak_rate=2e-3,
            full=FULL,
        ),
        *(
            _brain_recipe(
                name=f"lesion_unet_{seed}",
                network="Segmenter",
                network_args={"num_labels": 2},
                loss=SegmentationLoss(shift=4),
                load_data=lambda: datasets.rated_draws(RATED_SUBJECTS),
                measure=measure_raters,
                n=RATED_SUBJECTS,
                what="each with a lesion and masks of four of its raters, cropped to 64 x 64",
                image_size=64,
                steps=700,
                peak_rate=2e-3,
                seed=seed,
            )
            for seed in range(5)
        ),
        _trend_recipe(name="trend_ddpm", loss=DiffusionLoss(schedules.Linear(), kind="eps", drop_class=0.0)),
        _trend_recipe(
            name="trend_edm",
            network="PreconditionedUNet",
            network_args=TREND | {"sigma_data": SIGMA_DATA},
            loss=EDMLoss(SIGMA_DATA),
        ),
        _trend_recipe(name="trend_flow", loss=DiffusionLoss(schedules.RectifiedFlow(), kind="flow", drop_class=0.0)),
        _trend_recipe(
            name="trend_student",
            start="trend_flow",
            loss=DistillationLoss(
                functools.partial(pretrained.load_denoiser, "trend_flow"), schedules.RectifiedFlow(), "flow"
            ),
            batch_size=32,  # four paths of eight states
            steps=1700,  # as long as the others, since the teacher works, too
        ),
        Recipe(
            name="hippocampus_masks",
            network="DiffusionUNet",
            network_args=SMALLER | {"in_channels": 2, "concat": 1},
            loss=dataclasses.replace(COSINE_V, concat=1),
            load_data=_hippocampus_pairs,
            measure=measure_hippocampus_slices,
            data=HIPPOCAMPUS_SLICES,
            licence=HIPPOCAMPUS_LICENCE,
            image_size=48,
            batch_size=16,
            steps=1500,
            full=FULL,
        ),
        Recipe(
            name="hippocampus_unet",
            network="Segmenter",
            network_args={"num_labels": 3},
            loss=SegmentationLoss(shift=0),
            load_data=_hippocampus_maps,
            measure=measure_hippocampus_slices,
            data=HIPPOCAMPUS_SLICES,
            licence=HIPPOCAMPUS_LICENCE,
            image_size=48,
            steps=900,
            peak_rate=2e-3,
        ),
        Recipe(
            name="hippocampus",
            network="DiffusionUNet",
            network_args={
                "channels": (32, 64, 64),
                "num_res_blocks": 1,
                "patch": 2,
                "in_channels": 3,
                "spatial_dims": 3,
            },
            loss=COSINE_V,
            load_data=_hippocampus_train,
            measure=measure_hippocampus,
            data=HIPPOCAMPUS_DATA,
            licence=HIPPOCAMPUS_LICENCE,
            image_size=32,
            batch_size=16,
            steps=1400,
            full=FULL,
        ),
    )
}
