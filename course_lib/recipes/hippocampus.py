"""Networks of the hippocampus: whole volumes, and the parts of its sagittal slices."""

import time

import numpy as np
import torch

from course_lib import datasets, pretrained, runtime
from course_lib.generate import draw_latents, draw_volumes
from course_lib.hippocampus import (
    HIPPOCAMPUS_LABELS,
    HIPPOCAMPUS_SHAPE,
    label_volumes,
    labels_of,
    largest_shares,
    slice_labels,
)
from course_lib.images import in_batches, to_tensor, to_uint8
from course_lib.losses import local_contrasts
from course_lib.metrics.memorisation import nearest_rms
from course_lib.recipes.quality import FD_NFE, dice_of_each, mean_and_std, mean_psnr, samples, sampling

TASK = "Hippocampus (Medical Segmentation Decathlon, task 4), training split by person:"


def _shifts(largest, n):
    """No shift, and n random ones of up to ``largest`` voxels along each axis."""
    return [(0, 0, 0), *np.random.default_rng(0).integers(-largest, largest + 1, (n, 3))]


def _volumes():
    return to_uint8(datasets.hippocampi("train", _shifts(2, 4))), None


def _latents():
    """Latents of the training boxes, float32 (N, 8, 8, 12, 8), of about unit variance."""
    return in_batches(pretrained.load("hippocampus_autoencoder").encode, _volumes()[0], 50).numpy(), None


def _slices():
    return to_uint8(datasets.hippocampus_slices("train", _shifts(4, 2))), None


def _maps():
    slices = _slices()[0]
    return slices[:, 2], slice_labels(to_tensor(slices[:, :2])).numpy().astype(np.uint8)


VOLUMES = {
    "load_data": _volumes,
    "data": (
        f"{TASK} those volumes whose label fits into 32 x 48 x 32 mm, each cut out five times with shifts of up to 2 mm"
    ),
    "licence": (
        "CC BY-SA 4.0. Trained on task 4 of the Medical Segmentation Decathlon (Antonelli et al., Nature "
        "Communications 2022), Vanderbilt University Medical Center (CC BY-SA 4.0)."
    ),
    "image_size": 32,
    "batch_size": 16,
}
VOLUME_LATENTS = VOLUMES | {"load_data": _latents, "autoencoder": "hippocampus_autoencoder"}
SLICES = VOLUMES | {
    "load_data": _slices,
    "data": (
        f"{TASK} sagittal slices of 48 x 32 mm with a label, of those volumes whose label fits into 32 x 48 x 32 mm, "
        "each cut out three times with shifts of up to 4 mm"
    ),
    "image_size": 48,
}
MAPS = SLICES | {"load_data": _maps, "batch_size": 64}


def seen_by_judge(images, labels):
    """Dice of each part: what ``hippocampus_unet`` finds in images (N, 32, 48, 32) against labels of that shape, in the
    sagittal slices that have a label. Of what was drawn it says whether image and label belong together."""
    slices, truth = images.flatten(0, 1), labels.flatten(0, 1)
    kept = (truth > 0).flatten(1).any(1)
    found = in_batches(pretrained.load("hippocampus_unet").labels, slices[kept])
    return dice_of_each(found, truth[kept], ("background", *HIPPOCAMPUS_LABELS))


def fine_detail(images):
    """Mean local contrast of the finest band of images (N, 32, 48, 32) in [-1, 1], in their sagittal slices."""
    return float(local_contrasts(images.flatten(0, 1)[:, None])[0].mean())


def among_voxels(recipe, net, seed=0):
    """100 volumes (100, 3, 32, 48, 32) of a recipe's network of voxels, from the noise of ``seed``."""
    return draw_volumes(recipe.denoiser(net), 100, FD_NFE, seed)


def among_latents(recipe, net, seed=0):
    """100 volumes (100, 3, 32, 48, 32) of a recipe's network of latents, from the noise of ``seed``."""
    denoiser, autoencoder = recipe.denoiser(net, clip=False), pretrained.load("hippocampus_autoencoder")
    return draw_latents(denoiser, autoencoder, 100, FD_NFE, seed, HIPPOCAMPUS_SHAPE)[1]


def measure_hippocampus(recipe, net, drawn=among_voxels):
    """What 100 samples are like, beside real cases: volumes of the labels, whether they hang together, and how close
    they come to what the network was trained on.

    drawn(recipe, net) : draws them. The distance is the root mean square over the image to the nearest of all training
    boxes, shifted ones too; real cases held out (validation and test) are its null. The measures of every case ship as
    tensors.
    """
    start = time.perf_counter()
    x = drawn(recipe, net)
    seconds = (time.perf_counter() - start) / len(x)
    cases = {split: torch.as_tensor(datasets.hippocampi(split)) for split in ("train", "validation", "test")}
    cases["sample"] = x
    labels = {key: labels_of(channels) for key, channels in cases.items()}
    volumes = {key: label_volumes(found) for key, found in labels.items()}
    shares = {key: largest_shares(found) for key, found in labels.items()}
    seen = to_tensor(_volumes()[0])[:, 0]
    held_out = torch.cat([cases["validation"], cases["test"]])
    nearest = {key: nearest_rms(c[:, 0], seen)[0] for key, c in (("sample", x), ("held_out", held_out))}
    quality = {
        "volume_mm3_mean_and_std": _sizes(volumes),
        "largest_share": {key: round(float(share.mean()), 4) for key, share in shares.items()},
        "rms_to_nearest_training_image": {key: round(float(d.median()), 4) for key, d in nearest.items()},
        "training_volumes": len(cases["train"]),
        "images": len(x),
        "seconds_an_image": round(seconds, 2),
    }
    tensors = {f"reference.{key}_volumes": v for key, v in volumes.items()}
    tensors |= {f"reference.{key}_largest_shares": share for key, share in shares.items()}
    return quality | sampling(), tensors | {f"reference.{key}_nearest": d for key, d in nearest.items()}


def _sizes(volumes):
    """Mean and standard deviation of the volumes (N, 2) of the parts of several sets of cases, for a card."""
    return {
        key: {name: mean_and_std(v[:, k]) for k, name in enumerate(HIPPOCAMPUS_LABELS)} for key, v in volumes.items()
    }


@torch.no_grad()
def measure_volume_autoencoder(recipe, net):
    """What comes back of the test persons' volumes: PSNR of the image, Dice of the labels, their volumes, the share of
    the fine detail, and what the U-Net finds in the decoded image (``judge``), beside what it finds in the real one."""
    latents = in_batches(net.encode, datasets.hippocampi("train"), 50)
    net.scale.copy_(net.scale / latents.std().item())
    x = torch.as_tensor(datasets.hippocampi("test"))
    again = in_batches(lambda x: net.decode(net.encode(x)), x, 50).clamp(-1, 1)
    truth, found = labels_of(x), labels_of(again)
    return {
        "psnr": mean_psnr(again[:, 0], x[:, 0]),
        "test_dice": dice_of_each(found.flatten(1, 2), truth.flatten(1, 2), ("background", *HIPPOCAMPUS_LABELS)),
        "volume_mm3_mean_and_std": _sizes({"real": label_volumes(truth), "decoded": label_volumes(found)}),
        "judge": {"real": seen_by_judge(x[:, 0], truth), "decoded": seen_by_judge(again[:, 0], truth)},
        "detail": round(fine_detail(again[:, 0]) / fine_detail(x[:, 0]), 3),
        "images": len(x),
        "scale": round(float(net.scale), 5),
    }, {"scale": net.scale.cpu()}


def measure_slices(recipe, net):
    """Dice of each part on the slices of the test persons: of one sample, or of the U-Net."""
    slices = to_tensor(datasets.hippocampus_slices("test"))
    truth, y = slice_labels(slices[:, :2]), slices[:, 2:]
    if recipe.network == "Segmenter":
        found = in_batches(net.labels, y.numpy())
    else:
        noise = torch.randn(len(y), 2, 48, 32, generator=runtime.seeded(0))
        found = slice_labels(samples(recipe, net, noise, y))
    names = ("background", *HIPPOCAMPUS_LABELS)
    return {"test_dice": dice_of_each(found, truth, names), "test_slices": len(y)}, {}
