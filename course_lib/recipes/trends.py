"""Networks of one size, or of one amount of computation, that see as many of the same images: MedNIST at 32 x 32."""

import functools

import torch
from torch.nn import functional as F

from course_lib import datasets, generate, pretrained, runtime, schedules
from course_lib.images import in_batches, to_tensor
from course_lib.losses import DistillationLoss, MeanFlowLoss
from course_lib.metrics.distribution import frechet_distance, moments
from course_lib.recipes import mednist, quality
from course_lib.samplers import consistency_step, dpmpp_2m_step, meanflow_step

TREND = {"channels": (32, 32), "num_res_blocks": 1, "patch": 2, "num_classes": 6, "norm_groups": 8}
#: About as many multiplications an image as the U-Net.
SMALL_DIT = {"width": 96, "depth": 4, "num_heads": 3, "patch": 4, "num_classes": 6, "image_size": 32}
SIGMA_DATA = 0.55  # standard deviation of all pixels of the training images
EDM = TREND | {"sigma_data": SIGMA_DATA}
#: Losses of networks for few steps: name and step of their own sampler, at FEW evaluations.
OF_FEW_STEPS = {DistillationLoss: ("consistency", consistency_step), MeanFlowLoss: ("meanflow", meanflow_step)}
FEW = 4
TREND_SIZE = 32
SMALL_MEDNIST = mednist.MEDNIST | {
    "load_data": lambda: datasets.mednist_small("train"),
    "data": f"{mednist.MEDNIST['data']}; averaged over squares of 2 x 2 to 32 x 32",
    "image_size": TREND_SIZE,
    "batch_size": 16,  # at so few images seen, many small steps get further than few large ones
    "peak_rate": 1e-3,
}


def flow_teacher():
    """The denoiser of ``trend_flow``, in the precision that its student is just trained in."""
    where = torch.device(runtime.device()).type
    faster = torch.is_autocast_enabled(where)
    precision = torch.get_autocast_dtype(where) if faster else torch.float32
    return pretrained.load_denoiser("trend_flow", precision=precision)


def small_judged(images):
    """Features and logits of ``mednist_features`` for images (N, 32, 32), brought to the 64 x 64 that it knows by
    bilinear interpolation: real and drawn images alike."""
    judge = pretrained.load("mednist_features")

    def judged(x):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.cat([judge.features(x), judge(x)], 1)

    both, classes = in_batches(judged, images), len(datasets.MEDNIST_CLASSES)
    return both[:, :-classes], both[:, -classes:]


@functools.cache
def small_reference():
    """Moments of the features of 30,000 real images of 32 x 32, and the floor of 600: those that
    :func:`~course_lib.recipes.mednist.measure_classifier` takes."""
    images, labels = datasets.mednist_small("train")
    labels = torch.as_tensor(labels)
    known = datasets.in_reference(labels)
    reference = moments(small_judged(images[known.numpy()])[0])
    draws = [small_judged(images[draw.numpy()])[0] for draw in mednist.real_draws(labels, known)]
    floors = [frechet_distance(moments(features), reference) for features in draws]
    return reference, quality.floor(floors, mednist.FD_IMAGES)


def measure_trend(recipe, net):
    """Fréchet distance of 600 samples beside the floor: at 25 evaluations of 2M at noise levels after Karras et al., or
    at 4 of its own for a network of few steps; and the share of samples recognised as their class."""
    y, sampling = torch.arange(mednist.FD_IMAGES) % len(recipe.classes), quality.sampling()
    times, step = schedules.karras_levels(recipe.loss.schedule, quality.FD_NFE), dpmpp_2m_step
    if own := OF_FEW_STEPS.get(type(recipe.loss)):
        name, step = own
        times, sampling = schedules.uniform_times(FEW)[:-1], sampling | {"network_evaluations": FEW, "sampler": name}
    drawn = generate.draw_along(recipe.denoiser(net), y, times, step, size=recipe.image_size)
    features, logits = small_judged(drawn)
    reference, floor = small_reference()
    return quality.distance(features, reference, floor) | sampling | {
        "reference_images": reference.n,
        "floor_of_real_images": floor,
        "recognised_as_its_class": round(float((logits.argmax(1) == y).float().mean()), 4),
        "standard_deviation_of_the_data": round(float(to_tensor(recipe.load_data()[0][::10]).std()), 4),
    }, {}
