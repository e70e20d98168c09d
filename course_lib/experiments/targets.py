"""The record ``03_targets``: one small network, trained twice, to predict the noise and to predict v.

It takes some ten minutes (with MedNIST in the cache, on its head CT too). Network, schedule, batch and steps are those
of the training in notebook 03; only the target differs.
"""

import copy
import functools

import torch

from course_lib import predictions
from course_lib.datasets import MEDNIST_CLASSES, mednist_images, mednist_is_here, synthetic_brains
from course_lib.denoisers import GaussianDenoiser, NetworkDenoiser
from course_lib.experiments.record import rounded
from course_lib.experiments.study import Study
from course_lib.images import to_tensor
from course_lib.samplers import noise_like
from course_lib.schedules import Discrete
from course_lib.training import ema_decay, update_ema

T, STEPS, BATCH = 1000, 300, 32
LEVELS = (10, 25, 50, 100, 150, 200, 300, 400, 500, 600, 750, 900)  # steps at which the error is measured
KINDS = ("eps", "v")
SEEDS = 1
TABLE = Discrete.linear(T)


@functools.cache
def images():
    """{data set: training images (N, 1, 32, 32), 200 held-out ones}: brains of the course, head CT if it is there."""
    sets = {"brain": [synthetic_brains(split, n, size=64).images for split, n in (("train", 1500), ("test", 400))]}
    if mednist_is_here():
        head = MEDNIST_CLASSES.index("HeadCT")
        sets["mednist"] = [pictures[labels == head] for pictures, labels in map(mednist_images, ("train", "test"))]
    return {name: (_small(seen), _small(unseen[:: len(unseen) // 200][:200])) for name, (seen, unseen) in sets.items()}


def _small(pictures):
    return torch.nn.functional.avg_pool2d(to_tensor(pictures), 2)


def trained(kind, pictures, seed, steps=STEPS):
    """The running average of a network after ``steps`` steps on pictures (N, 1, 32, 32), as a denoiser of such."""
    from monai.networks.nets import DiffusionModelUNet

    pixel_unshuffle, pixel_shuffle = torch.nn.PixelUnshuffle(2), torch.nn.PixelShuffle(2)
    torch.manual_seed(seed)
    net = DiffusionModelUNet(
        spatial_dims=2, in_channels=4, out_channels=4, channels=(32, 64, 64), num_res_blocks=1,
        attention_levels=(False, False, True), num_head_channels=32, norm_num_groups=32,
    )  # fmt: skip
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(net.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for step in range(1, steps + 1):
        x_0 = pixel_unshuffle(pictures[torch.randint(len(pictures), (BATCH,))])
        k = torch.randint(T, (BATCH,))  # index k is time t = (k + 1) / T
        eps = torch.randn_like(x_0)
        alpha, sigma = (c((k + 1) / T).float().reshape(-1, 1, 1, 1) for c in (TABLE.alpha, TABLE.sigma))
        target = predictions.target(kind, x_0, eps, alpha, sigma)
        loss = (net(alpha * x_0 + sigma * eps, timesteps=k) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        update_ema(ema, net, ema_decay(step, longest=0.99))

    def predicted(x_t, t, y):
        return pixel_shuffle(ema(pixel_unshuffle(x_t), timesteps=(t * T - 1) * torch.ones(len(x_t))))

    return NetworkDenoiser(predicted, TABLE, kind, clip=True)


def best_linear(pictures):
    """The denoiser that is exact for Gaussian data with the pictures' mean and covariance, for (B, 1, H, W)."""
    flat = pictures.flatten(1)
    exact = GaussianDenoiser(flat.mean(0), torch.cov(flat.T), TABLE)
    return lambda x_t, t: exact(x_t.flatten(1), t).reshape(x_t.shape)


def errors(denoiser, pictures):
    """Root mean squared error of the denoised pictures (N, 1, H, W) at each of ``LEVELS``; one seed, one noise."""
    generator, found = torch.Generator().manual_seed(2), []
    for t in (level / T for level in LEVELS):
        x_t = TABLE.noisy(pictures, noise_like(pictures, generator), t)
        found.append(float((denoiser(x_t, t) - pictures).square().mean().sqrt()))
    return found


def measure(data, kind, seed):
    """A row: the network's error at each of ``LEVELS``, in per cent of the linear denoiser's."""
    seen, held_out = images()[data]
    network, linear = (errors(denoiser, held_out) for denoiser in (trained(kind, seen, seed), best_linear(seen)))
    return {"per_cent_of_linear": rounded([100 * ours / best for ours, best in zip(network, linear)], 1)}, {}


def plan(record=None):
    """The rows: each data set that is here, with each target."""
    return [{"data": data, "kind": kind, "seed": seed} for seed in range(SEEDS) for data in images() for kind in KINDS]


STUDY = Study("03_targets", plan, measure, lambda: ({"steps": STEPS, "levels": LEVELS}, {}))
