"""``python -m course_lib.sample NAME``: draw from a shipped network: images as PNGs and one NPZ, volumes as NIfTI
pairs of image and label."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from course_lib import pretrained
from course_lib.generate import draw, draw_latents, draw_volumes
from course_lib.hippocampus import HIPPOCAMPUS_AFFINE, labels_of
from course_lib.images import finite, save_images, without_pictures
from course_lib.nifti import save_nifti

AUTOENCODER = "brain_autoencoder"  # of the networks that draw latents


def save_volumes(x, folder):
    """Write channels x (N, 3, X, Y, Z) as pairs ``000_image.nii.gz`` (float32) and ``000_label.nii.gz`` (uint8).
    Raises ValueError as :func:`~course_lib.images.save_images`."""
    finite(np.asarray(x))
    without_pictures(folder)
    for k, (image, label) in enumerate(zip(x[:, 0], labels_of(x))):
        save_nifti(Path(folder) / f"{k:03d}_image.nii.gz", image.numpy(), HIPPOCAMPUS_AFFINE)
        save_nifti(Path(folder) / f"{k:03d}_label.nii.gz", label.numpy(), HIPPOCAMPUS_AFFINE)


def _class_index(name, classes):
    wanted = {c.lower(): k for k, c in enumerate(classes)}
    if name.lower() not in wanted:
        raise ValueError(f"no class {name!r}; choose one of {', '.join(classes)}, or leave --class out for all of them")
    return wanted[name.lower()]


def _card_to_sample(name):
    """The card of a network that can draw from noise alone. Raises ValueError for any other."""
    about = pretrained.card(name)
    loss = about.get("loss")
    if loss in ("EDMLoss", "DistillationLoss", "MeanFlowLoss"):
        raise ValueError(f"{name} has a sampler of its own: notebook 13_trends shows it")
    if loss != "DiffusionLoss":
        raise ValueError(f"{name} is not a diffusion network: it cannot be sampled from")
    needs = "a map of labels" if about["network"] == "ControlledUNet" else "an image to start from"
    if about["network"] == "ControlledUNet" or about["network_args"].get("concat"):
        raise ValueError(f"{name} needs {needs}: notebook 06_conditioning shows how to give it one")
    return about


def _draw_and_save(args, about):
    """Draw what the card says and write it; returns the word for what was drawn."""
    arguments, classes, size = about["network_args"], about.get("classes"), about.get("image_size", 64)
    if args.wanted and not classes:
        raise ValueError(f"{args.name} knows no classes; leave --class out")
    if arguments.get("spatial_dims") == 3:
        save_volumes(draw_volumes(pretrained.load_denoiser(args.name), args.n, args.nfe, args.seed), args.out)
        return "volumes"
    if arguments.get("in_channels", 1) > 1:
        denoiser, autoencoder = pretrained.load_denoiser(args.name, clip=False), pretrained.load(AUTOENCODER)
        _, images = draw_latents(denoiser, autoencoder, args.n, args.nfe, args.seed, size)
        save_images(images.numpy(), args.out)
        return "images"
    if args.wanted:
        y = torch.full((args.n,), _class_index(args.wanted, classes))
    else:
        y = torch.arange(args.n) % len(classes) if classes else args.n
    images = draw(pretrained.load_denoiser(args.name), y, args.nfe, args.seed, size)
    save_images(images.numpy(), args.out, y.numpy() if classes else None, classes)
    return "images"


def main(argv=None):
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m course_lib.sample", description="Draw images or volumes from a shipped network."
    )
    parser.add_argument("name", help="one of the shipped diffusion networks, such as mednist, brain or hippocampus")
    parser.add_argument("--class", dest="wanted", help="class to draw; left out, the classes take turns")
    parser.add_argument("--n", type=int, default=16, help="number of images or volumes (default: 16)")
    parser.add_argument("--nfe", type=int, default=15, help="network evaluations for each (default: 15)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--out", required=True, help="folder for PNGs and samples.npz, or NIfTI files; made if missing")
    args = parser.parse_args(argv)
    try:
        if args.n < 1 or args.nfe < 2 or not 0 <= args.seed < 2**63:
            raise ValueError("--n must be at least 1, --nfe at least 2, and --seed at least 0 and below 2^63")
        without_pictures(args.out)
        what = _draw_and_save(args, _card_to_sample(args.name))
    except (ValueError, OSError) as error:
        print(f"course_lib.sample: {error}", file=sys.stderr)
        return 1
    print(f"{args.n} {what} at {args.nfe} evaluations each: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
