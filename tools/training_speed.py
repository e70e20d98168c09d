"""Images a second of a training: the course's loop, the same compiled, and the loop of MONAI's DDPM tutorial.

    python tools/training_speed.py brain mednist         on this machine, for docs/performance.md

All train the same network on batches of the same images in memory, turn by turn, so that all meet the same load of
the machine. MONAI's is written anew from its description: CacheDataset, DataLoader, the transforms of its 2-D tutorial,
DDPMScheduler, DiffusionInferer and Adam, once in float32, as the tutorial runs on a CPU, and once in the precision that
the course picks for this machine.
"""

import argparse
import contextlib
import dataclasses
import io
import itertools
import os
import statistics
import tempfile
import time

import torch

from course_lib import runtime
from course_lib.recipes import RECIPES
from course_lib.recipes.runs import run

ROUNDS, STEPS = 5, 3  # of each loop, in turn


def course_loop(recipe, compiled, folder):
    """The course's training of a recipe: an iterator that takes a step each time it is asked."""
    return run(recipe, folder, runtime.precision(), compiled=compiled)


class Timesteps(torch.nn.Module):
    """A network of the course as MONAI's inferer calls one: whole timesteps 0..999, and no context."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, timesteps, context=None):
        return self.net(x, timesteps / 1000)


def monai_loop(recipe, images, precision):
    """The tutorial's training of the same network: an iterator that takes a step each time it is asked."""
    from monai.data import CacheDataset, DataLoader
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDPMScheduler
    from monai.transforms import Compose, EnsureChannelFirstd, RandAffined, ScaleIntensityRanged

    transforms = Compose(
        [
            EnsureChannelFirstd(keys=["image"], channel_dim=0),
            ScaleIntensityRanged(keys=["image"], a_min=0.0, a_max=255.0, b_min=-1.0, b_max=1.0, clip=True),
            RandAffined(
                keys=["image"],
                rotate_range=[(-0.1, 0.1)],
                translate_range=[(-1, 1), (-1, 1)],
                scale_range=[(-0.05, 0.05), (-0.05, 0.05)],
                padding_mode="border",
                prob=0.5,
            ),
        ]
    )
    data = CacheDataset([{"image": image[None]} for image in images], transforms, progress=False)
    loader = DataLoader(data, batch_size=recipe.batch_size, shuffle=True, drop_last=True, num_workers=0)
    torch.manual_seed(0)
    net = Timesteps(recipe.fresh()).to(runtime.device())
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    inferer, optimizer = DiffusionInferer(scheduler), torch.optim.Adam(net.parameters(), lr=2.5e-5)
    net.train()
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        x = batch["image"].to(runtime.device())
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast(runtime.device(), precision):
            noise = torch.randn_like(x)
            timesteps = torch.randint(0, 1000, (len(x),), device=x.device).long()
            guessed = inferer(inputs=x, diffusion_model=net, noise=noise, timesteps=timesteps)
            loss = torch.nn.functional.mse_loss(guessed.float(), noise.float())
        loss.backward()
        optimizer.step()
        yield float(loss)


def images_a_second(recipe, rounds=ROUNDS, steps=STEPS, compiled=True):
    """Images a second of wall time of each loop, the median over ``rounds``: {"the course": ..., ...}. What a first
    step costs, such as minutes of compiling, does not count; compiled: whether that loop is among them."""
    images = recipe.load_data()[0][: 8 * recipe.batch_size]
    recipe = dataclasses.replace(recipe, load_data=lambda: (images, None), optimizer="AdamW", steps=1000)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # no progress bars
        loops = {
            "MONAI, float32": monai_loop(recipe, images, torch.float32),
            f"MONAI, {runtime.precision_name()}": monai_loop(recipe, images, runtime.precision()),
            "the course": course_loop(recipe, False, folder),
        }
        if compiled:
            loops["the course, compiled"] = course_loop(recipe, True, folder)
        found = {name: [] for name in loops}
        for loop in loops.values():
            next(loop), next(loop)
        for _ in range(rounds):
            for name, loop in loops.items():
                start = time.perf_counter()
                for _ in range(steps):
                    next(loop)
                found[name].append(steps * recipe.batch_size / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in found.items()}


def main():
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="recipes of diffusion models, without classes or concatenation")
    print(f"{torch.get_num_threads()} threads, {runtime.precision_name()}, load {os.getloadavg()[0]:.1f}")
    for name in parser.parse_args().names:
        speeds = images_a_second(RECIPES[name])
        first = next(iter(speeds.values()))
        for loop, speed in speeds.items():
            print(f"{name}, {loop}: {speed:.1f} images/s, {speed / first:.2f} times MONAI's loop", flush=True)


if __name__ == "__main__":
    main()
