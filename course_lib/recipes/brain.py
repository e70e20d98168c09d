"""Networks of the brain cohort: what draws slices, what judges them, and what restores, translates or compresses."""

import time

import numpy as np
import torch
from torch.nn import functional as F

from course_lib import datasets, pretrained, runtime, scans
from course_lib.applications.anomaly import with_coarse_noise
from course_lib.applications.counterfactual import pixel
from course_lib.generate import draw_latents
from course_lib.images import in_batches, to_tensor
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.networks import Unrolled
from course_lib.operators import Downsample
from course_lib.recipes.quality import (
    FD_NFE,
    accuracy_in_noise,
    answer,
    dice_of_each,
    distance_to,
    floor,
    images,
    mean_and_std,
    mean_psnr,
    samples,
    sampling,
    shipped,
)

SUBJECTS = 10_000
FD_IMAGES = 300
BRAIN_LICENCE = (
    "CC BY 4.0. Trained on slices made from the ICBM 152 template, nonlinear 2009a (Fonov et al., NeuroImage 2011); "
    "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, McGill University."
)


def brain_data(load_data, n=SUBJECTS, what="healthy", **settings):
    """The data of a recipe: load_data(), slices of n subjects, and what they are, in words."""
    text = f"Brain cohort, training split: one T1 slice of each of {n:,} made subjects, {what}"
    about = {"load_data": load_data, "data": text, "licence": BRAIN_LICENCE}
    return about | {"image_size": datasets.BRAIN_SIZE, "batch_size": 32} | settings


def _healthy(size):
    return datasets.healthy_brains("train", SUBJECTS, size=size)


def _latents():
    """Latents of healthy slices of 128 x 128, float32 (N, C, 16, 16), of about unit variance."""
    return in_batches(pretrained.load("brain_autoencoder").encode, _healthy(128), 100).numpy(), None


def _maps(n):
    what = "half of them with a lesion, and their maps of tissue"
    return brain_data(lambda: datasets.brain_maps("train", n), n, what, classes=datasets.BRAIN_TISSUES)


def _kinds(n):
    what = "a sixth of them healthy, a sixth of each family of lesions"
    kinds = ("healthy", *datasets.LESION_FAMILIES)
    return brain_data(lambda: datasets.brain_families("train", n), 6 * n, what, classes=kinds, batch_size=64)


HEALTHY = brain_data(lambda: (datasets.healthy_brains("train", SUBJECTS), None))
LATENTS = brain_data(_latents, image_size=128, batch_size=64, autoencoder="brain_autoencoder")
SIX_KINDS, MANY_OF_SIX_KINDS = _kinds(1000), _kinds(4000)
MAPS_6000, MAPS_8000 = _maps(6000), _maps(8000)
TWO_CLASSES = brain_data(
    lambda: datasets.healthy_or_not("train", 8000),
    8000,
    "half of them with a lesion",
    classes=("healthy", "lesion"),
    batch_size=16,
)
LARGE_WITH_LESIONS = brain_data(
    lambda: (datasets.brain_maps("train", 8000, 128)[0], None), 8000, "half of them with a lesion", image_size=128
)
CONTRASTS = brain_data(
    lambda: (datasets.brain_contrasts("train", SUBJECTS), None),
    what="healthy, with the T2-like slice of the same subject",
)


def low_resolution(x, factor=4):
    """x (B, C, H, W) averaged over squares of side ``factor`` and blown up again, each mean repeated: (B, C, H, W)."""
    A = Downsample(factor)
    return A.pinv(A(x))


# ---- Judges ----------------------------------------------------------------------------------------------------------


def _floor(features, reference):
    """The floor of a card: five sets of real images, the features of all of them in one."""
    sets = features.split(FD_IMAGES)
    return floor([frechet_distance(moments(part), reference) for part in sets], FD_IMAGES)


def measure_brain_features(recipe, net):
    """Accuracy over the families on test subjects, and the reference of Fréchet distances, from healthy subjects.

    The floor is what 300 made healthy test subjects score, the mean of five disjoint sets.
    """
    pictures, labels = datasets.brain_families("test", 200)
    right = (in_batches(net, pictures).argmax(1) == torch.as_tensor(labels)).float()
    right = right.reshape(len(recipe.classes), -1).mean(1)
    features = in_batches(net.features, datasets.healthy_brains("train", SUBJECTS))
    scale = features.std(0)
    net.scale.copy_(net.scale * scale)
    reference = moments(features / scale)
    real = in_batches(net.features, datasets.healthy_brains("test", 5 * FD_IMAGES, seed=9))
    return {
        "test_accuracy": round(float(right.mean()), 4),
        "test_accuracy_of_each": {name: round(float(share), 3) for name, share in zip(recipe.classes, right)},
        "test_images": len(labels),
        "reference_images": reference.n,
        "floor": _floor(real, reference),
    }, shipped(reference, net)


def measure_noisy_features(recipe, net):
    """Accuracy over the families on test subjects at several noise levels."""
    return accuracy_in_noise(recipe, net, *datasets.brain_families("test", 200)), {}


def measure_segmenter(recipe, net):
    """Dice of each label on test subjects, half of them with a lesion."""
    pictures, truth = datasets.brain_maps("test", 400)
    found = in_batches(net.labels, pictures)
    return {"test_dice": dice_of_each(found, torch.as_tensor(truth), recipe.classes), "test_images": len(found)}, {}


# ---- Samples ---------------------------------------------------------------------------------------------------------


def _areas(labels):
    """Area in mm^2 of CSF, grey and white matter in maps (B, H, W): (B, 3)."""
    return torch.stack([(labels == k).flatten(1).sum(1) * pixel(labels) ** 2 for k in (1, 2, 3)], 1).float()


def measure_brain(recipe, net):
    """Fréchet distance of 300 samples at 25 evaluations beside the floor, and areas of tissue beside the real ones."""
    pictures = {"samples": images(recipe, net, FD_IMAGES), "real": datasets.healthy_brains("test", FD_IMAGES)}
    judge, segmenter = pretrained.load("brain_features"), pretrained.load("brain_segmenter")
    areas = {key: _areas(in_batches(segmenter.labels, x)) for key, x in pictures.items()}
    quality = distance_to("brain_features", in_batches(judge.features, pictures["samples"])) | sampling()
    quality["area_mm2_mean_and_std"] = {
        name: {key: mean_and_std(area[:, k]) for key, area in areas.items()}
        for k, name in enumerate(datasets.BRAIN_TISSUES[1:4])
    }
    return quality, {}


def measure_two_classes(recipe, net):
    """Fréchet distance of 300 healthy samples beside the floor, and how many samples of each class the classifier of
    families finds a lesion in, beside real test images."""
    judge = pretrained.load("brain_features")
    drawn = [images(recipe, net, torch.full((n,), y), seed=y) for y, n in enumerate((FD_IMAGES, 100))]
    pictures, labels = datasets.healthy_or_not("test", 400)

    def found(x):
        return round(float((in_batches(judge, x).argmax(1) > 0).float().mean()), 3)

    return distance_to("brain_features", in_batches(judge.features, drawn[0])) | sampling() | {
        "share_with_a_lesion": {
            name: {"samples": found(drawn[y]), "real": found(pictures[labels == y])}
            for y, name in enumerate(recipe.classes)
        }
    }, {}


def measure_control(recipe, net):
    """Dice of the map that is asked for and the segmenter's map of what is drawn, for 64 test subjects.

    The ceiling is the segmenter on the real images of these maps, the floor a map and another subject's image.
    """
    pictures, maps = datasets.brain_maps("test", 64)
    maps, segmenter = torch.as_tensor(maps).long(), pretrained.load("brain_segmenter")
    noise = torch.randn(len(maps), 1, *maps.shape[1:], generator=runtime.seeded(0))
    found = in_batches(segmenter.labels, samples(recipe, net, noise, maps)[:, 0].clamp(-1, 1))
    real = in_batches(segmenter.labels, pictures)
    scored = {"drawn": found, "ceiling": real, "floor": real.roll(1, 0)}
    scores = {key: dice_of_each(labels, maps, recipe.classes) for key, labels in scored.items()}
    return {"test_dice": scores, "test_images": len(maps)} | sampling(), {}


def measure_latent(recipe, net):
    """Fréchet distance of 300 samples of 128 x 128 at 25 evaluations beside the floor, and the seconds for each."""
    judge, start = pretrained.load("brain_features"), time.perf_counter()
    denoiser, autoencoder = recipe.denoiser(net, clip=False), pretrained.load("brain_autoencoder")
    _, drawn = draw_latents(denoiser, autoencoder, FD_IMAGES, FD_NFE, size=recipe.image_size)
    seconds = (time.perf_counter() - start) / len(drawn)
    quality = distance_to("brain_autoencoder", in_batches(judge.features, drawn))  # its card has those of this size
    return quality | {"seconds_an_image": round(seconds, 3)} | sampling(), {}


# ---- Autoencoders ----------------------------------------------------------------------------------------------------


def _through(net):
    return lambda x: net.decode(net.encode(x)).clamp(-1, 1)


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


def measure_neck(recipe, net):
    """PSNR on healthy test subjects, beside what the mean training image scores, and the contrast that lesions keep
    (see :func:`measure_autoencoder`): little is wanted, since anomalies are found by what is lost."""
    x = to_tensor(datasets.healthy_brains("test", FD_IMAGES))
    mean = to_tensor(recipe.load_data()[0].mean(0, keepdims=True) / 127.5 - 1)
    return {
        "psnr": mean_psnr(in_batches(_through(net), x), x),
        "psnr_of_the_mean_image": mean_psnr(mean.expand_as(x), x),
        "images": FD_IMAGES,
        "contrast_kept": _contrast_kept(_through(net), recipe.image_size),
    }, {}


def measure_coarse(recipe, net):
    """PSNR on healthy test subjects: of what is made of the slices themselves, as when lesions are searched for, and of
    what is made of them with coarse noise, beside these noisy slices; and the contrast that lesions keep, of which
    little is wanted (see :func:`measure_neck`)."""
    x = to_tensor(datasets.healthy_brains("test", FD_IMAGES))
    noisy = with_coarse_noise(x, runtime.seeded(0))

    def cleaned(x):
        return net(x, 0.0).clamp(-1, 1)

    return {
        "psnr": mean_psnr(in_batches(cleaned, x, 100), x),
        "psnr_of_noisy": {"denoised": mean_psnr(in_batches(cleaned, noisy, 100), x), "untouched": mean_psnr(noisy, x)},
        "images": FD_IMAGES,
        "contrast_kept": _contrast_kept(cleaned, recipe.image_size),
    }, {}


def measure_autoencoder(recipe, net):
    """What the autoencoder keeps, on test subjects, and the reference of Fréchet distances at 128 x 128.

    ``contrast_kept``: inside the mask of a lesion, (decoded with - decoded without the lesion) / (with - without).
    """
    latents = in_batches(net.encode, datasets.healthy_brains("train", 2000, size=128), 100)
    net.scale.copy_(net.scale / latents.std().item())
    judge = pretrained.load("brain_features")
    reference = moments(in_batches(judge.features, _healthy(128)))
    real = datasets.healthy_brains("test", 5 * FD_IMAGES, size=128, seed=9)
    again = in_batches(_through(net), real[:FD_IMAGES], 100)
    return {
        "psnr": mean_psnr(again, to_tensor(real[:FD_IMAGES])),
        "frechet_distance": frechet_distance(moments(in_batches(judge.features, again[:, 0])), reference),
        "images": FD_IMAGES,
        "reference_images": reference.n,
        "floor": _floor(in_batches(judge.features, real), reference),
        "contrast_kept": _contrast_kept(_through(net), 128),
        "scale": round(float(net.scale), 5),
    }, shipped(reference, net)


# ---- Restoration and translation -------------------------------------------------------------------------------------


def measure_super_resolution(recipe, net):
    """PSNR on 64 test subjects: of one sample, or of the regression, and of bicubic interpolation."""
    x_0 = to_tensor(datasets.healthy_brains("test", 64))
    found = answer(recipe, net, low_resolution(x_0))
    bicubic = F.interpolate(F.avg_pool2d(x_0, 4), scale_factor=4, mode="bicubic")
    return {"psnr": mean_psnr(found, x_0), "bicubic": mean_psnr(bicubic, x_0), "test_images": len(x_0)}, {}


@torch.no_grad()
def _psnr_of_scans(net, scan, picture):
    """PSNR on 128 test subjects: of the network's answer to a scan, or to the picture of it unless it is unrolled, and
    of that picture."""
    x_0 = to_tensor(datasets.healthy_brains("test", 128))
    A, y = scan(x_0, runtime.seeded(0))
    seen = picture(A, y)
    unrolled = isinstance(net, Unrolled)
    found = net((A, y)) if unrolled else in_batches(lambda x: net(x, 0.0), seen[:, 0].numpy(), 32)
    return mean_psnr(found, x_0), mean_psnr(seen, x_0)


def measure_mri(recipe, net):
    """PSNR on 128 test subjects at each acceleration, beside the zero-filled picture."""
    quality = {"psnr": {}, "zero_filled": {}, "test_images": 128, "noise": scans.MRI_NOISE}
    for R in scans.ACCELERATIONS:
        scores = _psnr_of_scans(net, lambda x, g, R=R: scans.scan_mri(x, [R] * len(x), g), lambda A, y: A.adjoint(y))
        quality["psnr"][f"R = {R}"], quality["zero_filled"][f"R = {R}"] = scores
    return quality, {}


def measure_ct(recipe, net):
    """PSNR on 128 test subjects, beside filtered back-projection."""
    found, fbp = _psnr_of_scans(net, scans.scan_ct, scans.back_projected)
    about = {"test_images": 128, "noise": scans.CT_NOISE, "views": scans.CT_VIEWS}
    return {"psnr": found, "back_projected": fbp} | about, {}


def measure_translation(recipe, net):
    """PSNR of the T2-like slice of 64 test subjects: of one sample, or of the regression, and of the best single curve
    from T1 to T2 brightness (a polynomial of degree 5, fitted to training subjects)."""
    t2, t1 = to_tensor(datasets.brain_contrasts("test", 64)).split(1, 1)
    y, x = (channel.flatten().numpy() for channel in to_tensor(datasets.brain_contrasts("train", 64)).split(1, 1))
    curve = torch.as_tensor(np.polynomial.Polynomial.fit(x, y, 5)(t1.numpy())).float()
    found = answer(recipe, net, t1)
    return {"psnr": mean_psnr(found, t2), "one_curve": mean_psnr(curve, t2), "test_images": len(t2)}, {}
