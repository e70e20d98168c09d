"""Images a second of a training: the course's loop, the same compiled, and the loop of MONAI's DDPM tutorial.

    python tools/training_speed.py brain mednist         on this machine, for docs/performance.md

All three train the same network with AdamW or Adam on the same batches of images in memory, turn by turn, so that all
meet the same load of the machine. MONAI's is written anew from its description: CacheDataset, DataLoader, the
transforms of its 2-D tutorial, DDPMScheduler and DiffusionInferer, in the precision that is faster here, which the
tutorial on a CPU would not use.
"""

import argparse
import itertools
import os
import statistics
import time

import torch

from course_lib import runtime
from course_lib.recipes import RECIPES
from course_lib.training import Batches, train

ROUNDS, STEPS = 5, 3  # of each loop, in turn


def course_loop(recipe, batches, compiled):
    """The course's training of a recipe: an iterator that takes a step each time it is asked."""
    torch.manual_seed(0)
    net = runtime.placed(recipe.fresh())
    return train(net, batches, recipe.loss, steps=1000, precision=runtime.precision(), compiled=compiled)


class Timesteps(torch.nn.Module):
    """A network of the course as MONAI's inferer calls one: whole timesteps 0..999, and no context."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, timesteps, context=None):
        return self.net(x, timesteps / 1000)


def monai_loop(recipe, batches):
    """The tutorial's training of the same network: an iterator that takes a step each time it is asked."""
    from monai.data import CacheDataset, DataLoader
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDPMScheduler
    from monai.transforms import Compose, EnsureChannelFirstd, RandAffined, ScaleIntensityRanged

    images = batches.images if batches.images.ndim == 4 else batches.images[:, None]
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
    data = CacheDataset([{"image": image} for image in images], transforms, progress=False)
    loader = DataLoader(data, batch_size=recipe.batch_size, shuffle=True, drop_last=True, num_workers=0)
    torch.manual_seed(0)
    net = Timesteps(recipe.fresh()).to(runtime.device())
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    inferer, optimizer = DiffusionInferer(scheduler), torch.optim.Adam(net.parameters(), lr=2.5e-5)
    low = runtime.precision()
    net.train()
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        x = batch["image"].to(runtime.device())
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(runtime.device(), dtype=torch.bfloat16, enabled=low == torch.bfloat16):
            noise = torch.randn_like(x)
            timesteps = torch.randint(0, 1000, (len(x),), device=x.device).long()
            guessed = inferer(inputs=x, diffusion_model=net, noise=noise, timesteps=timesteps)
            loss = torch.nn.functional.mse_loss(guessed.float(), noise.float())
        loss.backward()
        optimizer.step()
        yield float(loss)


def images_a_second(recipe, rounds=ROUNDS, steps=STEPS, compiled=True):
    """Images a second of wall time of each loop, the median over ``rounds``: {"the course": ..., ...}.

    compiled : whether the compiled loop is among them, whose first step takes minutes, which do not count.
    """
    images = recipe.load_data()[0][: 8 * recipe.batch_size]
    batches = Batches(images, None, recipe.batch_size)
    loops = {"MONAI": monai_loop(recipe, batches), "the course": course_loop(recipe, batches, False)}
    if compiled:
        loops["the course, compiled"] = course_loop(recipe, batches, True)
    for loop in loops.values():
        next(loop), next(loop)
    found = {name: [] for name in loops}
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
