"""From data to pictures: train a diffusion model on MedNIST, draw from it, look.

python -m data_fetch get mednist      once: 58,954 images, 59 MB
python examples/mednist.py            about four minutes on one core; --steps 500 for a first look

Notebooks 02 to 04 explain each step; the network that ships (``python -m course_lib.sample mednist``) is a larger one.
"""

import argparse
import sys

import torch
from torch.nn import functional as F

from course_lib.denoisers import NetworkDenoiser
from course_lib.images import in_batches
from course_lib.losses import DiffusionLoss
from course_lib.networks import DiffusionUNet
from course_lib.runtime import placed, seeded
from course_lib.samplers import dpmpp_2m_step, sample
from course_lib.schedules import Cosine, log_snr_times
from course_lib.training import Batches, progress, train
from course_lib.viz import figures
from data_fetch import DataError, mednist


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=4000, help="training steps, of 16 images each")
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels, a multiple of 4")
    parser.add_argument("--nfe", type=int, default=25, help="evaluations of the network a picture")
    parser.add_argument("--out", default="mednist.png", help="where the picture goes")
    args = parser.parse_args(argv)

    # Data: images x_0 in [-1, 1], averaged down from 64 x 64, and the class y of each.
    try:
        images, y = mednist.load("train")
    except DataError as error:
        sys.exit(f"examples/mednist.py: {error}")
    x_0 = in_batches(lambda batch: F.adaptive_avg_pool2d(batch, args.size), images)  # (N, 1, size, size)

    # Train: the network learns v = alpha_t eps - sigma_t x_0 from x_t = alpha_t x_0 + sigma_t eps, for all t at once.
    torch.manual_seed(0)
    net = placed(DiffusionUNet(channels=(32, 32), norm_groups=8, num_classes=len(mednist.CLASSES)))
    loss = DiffusionLoss(Cosine(), kind="v")
    for state in progress(train(net, Batches(x_0, y, batch_size=16), loss, steps=args.steps, peak_rate=1e-3)):
        net = state.ema  # the average of the weights so far draws better than the weights

    # Sample: D(x_t, t, y) says what the clean image was; the sampler walks from noise at t = 1 to an image at t = 0.
    denoiser = NetworkDenoiser(net, loss.schedule, loss.kind, clip=True)
    y = torch.arange(len(mednist.CLASSES)).repeat_interleave(8)  # eight of each class
    noise = torch.randn(len(y), 1, args.size, args.size, generator=seeded(1))
    x_0 = sample(denoiser.given(y), noise, log_snr_times(denoiser.schedule, args.nfe), dpmpp_2m_step)

    # Look: a row for each class.
    rows = dict(zip(mednist.CLASSES, x_0[:, 0].split(8)))
    figures.image_rows(rows, title=f"MedNIST after {args.steps} steps of training").savefig(args.out)
    print(f"{args.out}: {len(y)} pictures, {args.nfe} evaluations each")


if __name__ == "__main__":
    main()
