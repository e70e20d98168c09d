"""``python -m course_lib.sample NAME``: draw from a shipped network: images as PNGs and one NPZ, volumes as NIfTI
pairs of image and label."""

import argparse
import io
import sys
from functools import partial
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from course_lib import pretrained, runtime
from course_lib.arguments import shaped, whole
from course_lib.files import write_atomically
from course_lib.hippocampus import HIPPOCAMPUS_AFFINE, HIPPOCAMPUS_SHAPE, labels_of
from course_lib.nifti import save_nifti
from course_lib.samplers import dpmpp_2m_step, last, sample
from course_lib.schedules import log_snr_times
from course_lib.training import to_uint8

AUTOENCODER = "brain_autoencoder"  # of the networks that draw latents


def generate(denoiser, noise, y=None, nfe=25, batch_size=100):
    """Samples of the shape of ``noise`` (N, C, ...), by DPM-Solver++(2M), ``nfe`` evaluations evenly spaced in log-SNR.

    denoiser : a :class:`~course_lib.denoisers.NetworkDenoiser`; y : its condition, (N, ...) or None. noise : standard
    normal; the start is noise sqrt(alpha_t^2 + sigma_t^2), which has the variance that data of variance 1 has there.
    Returns float32 on the CPU. Raises ValueError where y is not of as many as noise, or batch_size is below 1.
    """
    if not hasattr(denoiser, "schedule"):
        raise ValueError("denoiser must be one, as pretrained.load_denoiser('mednist') gives, not a name or a network")
    if y is not None and not isinstance(y, torch.Tensor):
        raise ValueError(f"y must be a tensor, such as torch.tensor([0, 1]) of classes, got {y!r:.80}")
    if not len(noise):
        raise ValueError("ask for one sample or more, got none")
    if batch_size < 1 or (y is not None and len(y) != len(noise)):
        raise ValueError(
            f"batch_size must be at least 1, and y of as many as there is noise, {len(noise)}; got batch_size "
            f"{batch_size}" + (f" and {len(y)} of y" if y is not None else "")
        )
    times = log_snr_times(denoiser.schedule, nfe)
    scale = (denoiser.schedule.alpha(times[0]) ** 2 + denoiser.schedule.sigma(times[0]) ** 2).sqrt()
    where = runtime.device()
    parts = []
    for start in range(0, len(noise), batch_size):
        part = slice(start, start + batch_size)
        bound = denoiser if y is None else partial(denoiser, y=y[part].to(where))
        with runtime.fast():
            x_t = scale * noise[part].to(where)
            parts.append(last(sample(bound, denoiser.schedule, x_t, times, dpmpp_2m_step)).float().cpu())
    return torch.cat(parts)


def draw(denoiser, y, nfe=25, seed=0, size=64, batch_size=100):
    """Images (N, size, size), float32 in [-1, 1], by :func:`generate` from the noise of ``seed``.

    y : classes (N,), or, for a network without classes, the number N.
    """
    if isinstance(y, Integral):
        n, y = y, None
        whole(y=n)
    else:
        shaped("N", y=y)
        n = len(y)
    whole(size=size)
    noise = torch.randn(n, 1, size, size, generator=runtime.seeded(seed))
    return generate(denoiser, noise, y, nfe, batch_size)[:, 0].clamp(-1, 1)


def draw_along(denoiser, y, times, step, seed=0, size=64, batch_size=100):
    """Images (N, size, size), float32 in [-1, 1], of classes y (N,): steps between the ``times``, and the denoised
    image at the last of them, which is not 0. So len(times) evaluations, if a step takes one.

    Starts from sigma_t eps at times[0]: one seed gives all schedules the same noise eps.
    """
    schedule, where, generator = denoiser.schedule, runtime.device(), runtime.seeded(seed + 1_000_000)
    noise = schedule.sigma(times[0]) * torch.randn(len(y), 1, size, size, generator=runtime.seeded(seed))
    parts = []
    for start in range(0, len(y), batch_size):
        part = slice(start, start + batch_size)
        bound = partial(denoiser, y=y[part].to(where))
        with runtime.fast():
            x_t = last(sample(bound, schedule, noise[part].to(where), times, step, generator))
            parts.append(bound(x_t, times[-1]).float().cpu())
    return torch.cat(parts)[:, 0].clamp(-1, 1)


def draw_latents(denoiser, autoencoder, n, nfe=25, seed=0, size=128, batch_size=100):
    """n scaled latents (n, C, size / f, size / f), by :func:`generate` from the noise of ``seed``, and the images (n,
    size, size) in [-1, 1] that the autoencoder decodes them to. denoiser : of latents, without clipping."""
    side = size // autoencoder.factor
    noise = torch.randn(n, autoencoder.latent_channels, side, side, generator=runtime.seeded(seed))
    z = generate(denoiser, noise, nfe=nfe, batch_size=batch_size)
    with runtime.fast():
        parts = [autoencoder.decode(part.to(runtime.device())).float().cpu() for part in z.split(50)]
    return z, torch.cat(parts)[:, 0].clamp(-1, 1)


def draw_volumes(denoiser, n, nfe=25, seed=0, shape=HIPPOCAMPUS_SHAPE, batch_size=10):
    """n volumes of channels (n, 3, *shape) in [-1, 1], image and two labels, by :func:`generate` from the noise of
    ``seed``."""
    whole(n=n)
    noise = torch.randn(n, 3, *shape, generator=runtime.seeded(seed))
    return generate(denoiser, noise, nfe=nfe, batch_size=batch_size).clamp(-1, 1)


def _finite(x):
    """Raises ValueError unless all values of x are finite: NaN would pass for black."""
    bad = x.size - int(np.isfinite(x).sum())
    if bad:
        raise ValueError(
            f"{bad} of {x.size} values drawn are NaN or infinite, and nothing was written: try other times or another "
            "number of evaluations"
        )


def _without_pictures(folder):
    """Raises ValueError where the folder is none, or holds pictures or volumes, which new ones would mix with."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder, which is made if missing")
    found = [p.name for p in folder.glob("*") if p.name.endswith((".png", ".npz", ".nii.gz"))]
    if found:
        raise ValueError(
            f"{folder} holds {len(found)} files of pictures already ({min(found)}, ...): name another folder, or move "
            "them away"
        )


def save_images(images, folder, labels=None, classes=()):
    """Write images (N, H, W) in [-1, 1] as 8-bit PNGs and ``samples.npz`` (``images`` float32, ``labels`` int64).

    Raises ValueError, before anything is written, for NaN, for images of another shape or range, for labels that do
    not fit, and for a folder that holds pictures.
    """
    from PIL import Image

    images = np.asarray(images)
    _finite(images)
    _without_pictures(folder)
    if images.ndim != 3:
        raise ValueError(f"images must be (N, H, W); got shape {images.shape}")
    if labels is not None and (len(labels) != len(images) or not all(0 <= label < len(classes) for label in labels)):
        raise ValueError(f"labels must be {len(images)} numbers in 0..{len(classes) - 1}, one an image")
    folder, arrays = Path(folder), {"images": images} if labels is None else {"images": images, "labels": labels}
    for k, image in enumerate(to_uint8(images)):
        ending = "" if labels is None else f"_{classes[labels[k]]}"
        png = io.BytesIO()
        Image.fromarray(image).save(png, "PNG")
        write_atomically(folder / f"{k:03d}{ending}.png", png.getvalue())
    npz = io.BytesIO()
    np.savez_compressed(npz, **arrays)
    write_atomically(folder / "samples.npz", npz.getvalue())


def save_volumes(x, folder, affine=HIPPOCAMPUS_AFFINE):
    """Write channels x (N, 3, X, Y, Z) as pairs ``000_image.nii.gz`` (float32) and ``000_label.nii.gz`` (uint8).
    Raises ValueError as :func:`save_images`."""
    _finite(np.asarray(x))
    _without_pictures(folder)
    for k, (image, label) in enumerate(zip(x[:, 0], labels_of(x))):
        save_nifti(Path(folder) / f"{k:03d}_image.nii.gz", image.numpy(), affine)
        save_nifti(Path(folder) / f"{k:03d}_label.nii.gz", label.numpy(), affine)


def _class_index(name, classes):
    wanted = {c.lower(): k for k, c in enumerate(classes)}
    if name.lower() not in wanted:
        raise ValueError(f"no class {name!r}; choose one of {', '.join(classes)}, or leave --class out for all of them")
    return wanted[name.lower()]


def _card_to_sample(name):
    """The card of a network that can draw from noise alone. Raises ValueError for any other."""
    about = pretrained.card(name)
    loss = about.get("loss")
    if loss in ("EDMLoss", "DistillationLoss"):
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="folder for PNGs and samples.npz, or NIfTI files; made if missing")
    args = parser.parse_args(argv)
    try:
        if args.n < 1 or args.nfe < 2 or not 0 <= args.seed < 2**63:
            raise ValueError("--n must be at least 1, --nfe at least 2, and --seed at least 0 and below 2^63")
        _without_pictures(args.out)
        what = _draw_and_save(args, _card_to_sample(args.name))
    except (ValueError, OSError) as error:
        print(f"course_lib.sample: {error}", file=sys.stderr)
        return 1
    print(f"{args.n} {what} at {args.nfe} evaluations each: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
