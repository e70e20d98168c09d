"""``python -m course_lib.sample NAME``: draw images from a shipped network, as PNGs and one NPZ."""

import argparse
import io
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from course_lib import pretrained, runtime
from course_lib.samplers import dpmpp_2m_step, last, sample
from course_lib.schedules import log_snr_times
from course_lib.store import write_atomically


def generate(denoiser, noise, y=None, nfe=25, batch_size=100):
    """Samples of the shape of ``noise`` (N, C, ...), by DPM-Solver++(2M), ``nfe`` evaluations evenly spaced in log-SNR.

    denoiser : a :class:`~course_lib.denoisers.NetworkDenoiser`; y : its condition, (N, ...) or None.
    Returns float32 on the CPU.
    """
    times = log_snr_times(denoiser.schedule, nfe)
    where = runtime.device()
    parts = []
    for start in range(0, len(noise), batch_size):
        part = slice(start, start + batch_size)
        bound = denoiser if y is None else partial(denoiser, y=y[part].to(where))
        with runtime.fast():
            parts.append(
                last(sample(bound, denoiser.schedule, noise[part].to(where), times, dpmpp_2m_step)).float().cpu()
            )
    return torch.cat(parts)


def draw(denoiser, y, nfe=25, seed=0, size=64, batch_size=100):
    """Images (N, size, size), float32 in [-1, 1], by :func:`generate` from the noise of ``seed``.

    y : classes (N,), or, for a network without classes, the number N.
    """
    n, y = (y, None) if isinstance(y, int) else (len(y), y)
    noise = torch.randn(n, 1, size, size, generator=runtime.seeded(seed))
    return generate(denoiser, noise, y, nfe, batch_size)[:, 0].clamp(-1, 1)


def save_images(images, labels, classes, folder):
    """Write images (N, H, W) in [-1, 1] as 8-bit PNGs and ``samples.npz`` (``images`` float32, ``labels`` int64)."""
    from PIL import Image

    folder = Path(folder)
    for k, (image, label) in enumerate(zip(images, labels)):
        png = io.BytesIO()
        Image.fromarray(((image + 1) * 127.5).round().astype(np.uint8)).save(png, "PNG")
        write_atomically(folder / f"{k:03d}_{classes[label]}.png", png.getvalue())
    npz = io.BytesIO()
    np.savez_compressed(npz, images=images, labels=labels)
    write_atomically(folder / "samples.npz", npz.getvalue())


def _class_index(name, classes):
    wanted = {c.lower(): k for k, c in enumerate(classes)}
    if name.lower() not in wanted:
        raise ValueError(f"no class {name!r}; choose one of {', '.join(classes)}, or leave --class out for all of them")
    return wanted[name.lower()]


def main(argv=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m course_lib.sample", description=__doc__.split("\n")[0])
    parser.add_argument("name", help="one of the shipped diffusion networks, such as mednist")
    parser.add_argument("--class", dest="wanted", help="class to draw; left out, the classes take turns")
    parser.add_argument("--n", type=int, default=16, help="number of images (default: 16)")
    parser.add_argument("--nfe", type=int, default=15, help="network evaluations for each image (default: 15)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="folder for the PNGs and samples.npz; made if missing")
    args = parser.parse_args(argv)
    try:
        if args.n < 1 or args.nfe < 2:
            raise ValueError("--n must be at least 1 and --nfe at least 2")
        about = pretrained.card(args.name)
        if about["loss"] != "DiffusionLoss":
            raise ValueError(f"{args.name} is not a diffusion network: it cannot be sampled from")
        classes = about["classes"]
        if args.wanted:
            y = torch.full((args.n,), _class_index(args.wanted, classes))
        else:
            y = torch.arange(args.n) % len(classes)
        images = draw(pretrained.load_denoiser(args.name), y, args.nfe, args.seed, about["image_size"]).numpy()
        save_images(images, y.numpy(), classes, args.out)
    except (ValueError, OSError) as error:
        print(f"course_lib.sample: {error}", file=sys.stderr)
        return 1
    print(f"{args.n} images at {args.nfe} evaluations each: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
