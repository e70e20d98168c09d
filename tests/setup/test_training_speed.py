"""The tool that times training loops beside MONAI's."""

import dataclasses
import math

import numpy as np
import torch
import training_speed

from course_lib.recipes import RECIPES

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 16, 16), dtype=np.uint8)


def tiny():
    return dataclasses.replace(
        RECIPES["brain"],
        network_args={"channels": (32,), "num_res_blocks": 1, "patch": 2},
        load_data=lambda: (IMAGES, None),
        image_size=16,
        batch_size=2,
    )


def test_each_loop_is_timed():
    speeds = training_speed.images_a_second(tiny(), rounds=1, steps=1, compiled=False)
    assert [name.split(",")[0] for name in speeds] == ["MONAI", "MONAI", "the course"]
    assert all(speed > 0 for speed in speeds.values())


def test_monais_loop_trains():
    """Its loss starts near 1, that of an answer of zero to noise of variance 1, and falls."""
    losses = [loss for loss, _ in zip(training_speed.monai_loop(tiny(), IMAGES, torch.float32), range(60))]
    assert 0.7 < np.mean(losses[:10]) < 1.6
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
