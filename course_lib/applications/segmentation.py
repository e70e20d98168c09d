"""Segmentation by drawing masks: from a diffusion network that is told the image, or from a map of probabilities.

==================  ==============================================================================================
name                gives
==================  ==============================================================================================
draw_masks          samples of p(mask | image) of a diffusion network
draw_normal         logits of masks of a stochastic segmentation network, and the map of their probabilities
independent         masks whose pixels are drawn one by one from a map of probabilities
random_threshold    level sets of such a map, at one random threshold a mask
from_channels       probabilities of labels that channels in [-1, 1] stand for
labels_at           labels where such probabilities exceed a threshold
==================  ==============================================================================================
"""

import torch
from numpy.polynomial.hermite_e import hermegauss

from course_lib import runtime
from course_lib.arguments import shaped, whole
from course_lib.metrics import checks
from course_lib.networks import normal_logits
from course_lib.samplers import dpmpp_2m_step, sample
from course_lib.schedules import log_snr_times, schedule_of

SAMPLES, NFE, START = 16, 25, -10.0  # START: log-SNR of the first evaluation


def draw_masks(denoiser, y, samples, nfe=NFE, start=START, channels=1, seed=0):
    """Masks, not yet thresholded, float32 (samples, N, channels, H, W), by DPM-Solver++(2M) with ``nfe`` evaluations
    each, evenly spaced in log-SNR from ``start`` on.

    y : images (N, 1, H, W). Sample k comes from the noise of seed + k, which for fewer images begins alike.
    """
    whole(samples=samples)
    times, bound, found = log_snr_times(schedule_of(denoiser), nfe, start), denoiser.given(y), []
    for k in range(samples):
        noise = torch.randn(len(y), channels, *y.shape[2:], generator=runtime.seeded(seed + k))
        found.append(sample(bound, noise, times, dpmpp_2m_step))
    return torch.stack(found)


@torch.no_grad()
def draw_normal(net, y, samples, seed=0):
    """Logits (samples, N, H, W) of a ``StochasticSegmenter``, masks where they exceed 0, and the probability of each
    pixel (N, H, W), E sigmoid(eta) by Gauss-Hermite quadrature; float32, one evaluation in all.

    y : images (N, 1, H, W).
    """
    whole(samples=samples)
    normal = [part.cpu() for part in net(y.to(next(net.parameters())))]
    mean, variance, factors = normal
    spread = (variance + factors.square().sum(1)).sqrt()
    points, weights = hermegauss(32)
    p = sum(w * torch.sigmoid(mean + z * spread) for z, w in zip(points, weights / weights.sum()))
    return normal_logits(normal, samples, runtime.seeded(seed)), p


def independent(p, draws=SAMPLES, seed=0):
    """Masks, bool (draws, N, H, W), from probabilities p (N, H, W): u < p with u uniform in [0, 1], anew for each pixel
    of each draw."""
    whole(draws=draws)
    p = checks.probabilities(p, "p")
    return torch.rand(draws, *p.shape, generator=runtime.seeded(seed)).to(p.device) < p


def random_threshold(p, draws=SAMPLES, seed=0):
    """Masks, bool (draws, N, H, W), from probabilities p (N, H, W): u < p with one u, uniform in [0, 1], for all pixels
    of a mask."""
    whole(draws=draws)
    shaped("N, H, W", p=p)
    p = checks.probabilities(p, "p")
    return torch.rand(draws, len(p), 1, 1, generator=runtime.seeded(seed)).to(p.device) < p


def from_channels(x):
    """Probabilities of background, anterior and posterior (N, 3, H, W) that label channels x (N, 2, H, W) in [-1, 1]
    stand for."""
    p = (x + 1) / 2
    return torch.cat([(1 - p.sum(1, keepdim=True)).clamp(0, 1), p], 1)


def labels_at(probabilities, threshold):
    """Labels (N, H, W) of probabilities (N, 3, H, W): hippocampus where its two parts together exceed the threshold,
    and there the likelier part."""
    parts = probabilities[:, 1:]
    return torch.where(parts.sum(1) > threshold, parts.argmax(1) + 1, 0)
