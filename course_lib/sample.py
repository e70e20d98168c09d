"""``python -m course_lib.sample NAME``: draw from a shipped network: images as PNGs and one NPZ, volumes as NIfTI
pairs of image and label."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from course_lib import pretrained
from course_lib.generate import draw, draw_latents, draw_volumes
from course_lib.hippocampus import HIPPOCAMPUS_AFFINE, HIPPOCAMPUS_SHAPE, labels_of
from course_lib.images import finite, save_images, without_pictures
from course_lib.nifti import save_nifti

CHANNELS = {2: 1, 3: 3}  # of images and of volumes, by their sides; a network of more draws latents
AUTOENCODERS = {2: "brain_autoencoder", 3: "hippocampus_autoencoder"}  # of the networks that do


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
    if loss not in ("DiffusionLoss", "StableTargetLoss"):
        raise ValueError(f"{name} is not a diffusion network: it cannot be sampled from")
    needs = "a map of labels" if about["network"] == "ControlledUNet" else "an image to start from"
    if about["network"] == "ControlledUNet" or about["network_args"].get("concat"):
        raise ValueError(f"{name} needs {needs}: notebook 06_conditioning shows how to give it one")
    return about


def _drawn(args, about):
    """What a network without classes draws: images (N, H, W), or channels of volumes (N, 3, X, Y, Z)."""
    arguments, size = about["network_args"], about.get("image_size", 64)
    dims, channels = arguments.get("spatial_dims", 2), arguments.get("in_channels", 1)
    how = {"n": args.n, "nfe": args.nfe, "seed": args.seed}
    if channels > CHANNELS[dims]:
        denoiser, autoencoder = pretrained.load_denoiser(args.name, clip=False), pretrained.load(AUTOENCODERS[dims])
        return draw_latents(denoiser, autoencoder, **how, size=HIPPOCAMPUS_SHAPE if dims == 3 else size)[1]
    denoiser = pretrained.load_denoiser(args.name)
    return draw_volumes(denoiser, **how) if dims == 3 else draw(denoiser, args.n, args.nfe, args.seed, size)


def _draw_and_save(args, about):
    """Draw what the card says and write it; returns the word for what was drawn."""
    classes = about.get("classes")
    if args.wanted is not None and not classes:
        raise ValueError(f"{args.name} knows no classes; leave --class out")
    if classes:
        wanted = None if args.wanted is None else _class_index(args.wanted, classes)
        y = torch.arange(args.n) % len(classes) if wanted is None else torch.full((args.n,), wanted)
        images = draw(pretrained.load_denoiser(args.name), y, args.nfe, args.seed, about.get("image_size", 64))
        save_images(images.numpy(), args.out, y.numpy(), classes)
        return "images"
    x = _drawn(args, about)
    if x.ndim == 5:
        save_volumes(x, args.out)
        return "volumes"
    save_images(x.numpy(), args.out)
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
    except KeyboardInterrupt:
        print(f"course_lib.sample: stopped; {args.out} holds none of the images, or not all", file=sys.stderr)
        return 130
    print(f"{args.n} {what} at {args.nfe} evaluations each: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
