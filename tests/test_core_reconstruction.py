"""Reconstruction: the scans that the supervised networks are trained on, and the bank of notebook 09."""

import dataclasses

import numpy as np
import pytest
import torch

from course_lib import recipes, runtime
from course_lib.networks import build
from course_lib.recipes import RECIPES
from course_lib.training import Batches, train


def blobs(n=8, size=32):
    """n smooth random images (n, 1, size, size) in [-1, 1] that are -1 outside a circle."""
    axis = torch.arange(size) - size / 2
    inside = (axis[:, None] ** 2 + axis**2 < (0.4 * size) ** 2).float()
    coarse = torch.rand(n, 1, size // 8, size // 8, generator=runtime.seeded(0))
    return 2 * inside * torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) - 1


@pytest.mark.parametrize("name", ["brain_mri_unet", "brain_ct_unet"])
def test_a_tiny_supervised_network_trains(name, monkeypatch):
    """It sees other scans at every step, the same in every run, and its loss falls."""
    monkeypatch.setattr(recipes, "_healthy", lambda split, n: np.uint8((blobs(n)[:, 0] + 1) * 127.5))
    recipe = dataclasses.replace(RECIPES[name], network_args={"channels": (32, 32), "num_res_blocks": 1, "patch": 2})

    def run(steps):
        torch.manual_seed(0)
        batches = Batches(recipes._healthy("train", 16), batch_size=4)
        return list(
            train(build(recipe.network, **recipe.network_args), batches, recipe.loss, steps=steps, peak_rate=2e-3)
        )

    states = run(40)
    first, end = (
        float(torch.stack([state.loss.mean() for state in part]).mean()) for part in (states[:5], states[-5:])
    )
    assert end < 0.5 * first
    torch.testing.assert_close(run(2)[1].loss, states[1].loss, rtol=0, atol=0)
    quality, extra = recipe.measure(recipe, states[-1].ema)
    assert quality["test_images"] == 128 and not extra


def test_scans_hold_what_they_say():
    """Noise of the stated strength where something was measured, and nothing else; other lines for each image."""
    x = blobs(64)
    A, y = recipes.scan_mri(x, [4, 8] * 32, runtime.seeded(0))
    assert (y[(A.lines == 0).expand(y.shape)] == 0).all()
    rest = (y - A(x))[(A.lines == 1).expand(y.shape)]
    for part in (rest.real, rest.imag):
        assert float(part.std()) == pytest.approx(recipes.MRI_NOISE, rel=0.02)
    counts = A.lines.sum(-1).flatten()
    assert counts[0] == 7 and counts[1] == 3 and len(A.lines.flatten(1).unique(dim=0)) > 20
    A, y = recipes.scan_ct(x, runtime.seeded(0))
    assert float((y - A(x)).std()) == pytest.approx(recipes.CT_NOISE, rel=0.02)
    clean = recipes.back_projected(A, A(x))
    assert (clean - x).square().mean() < 0.2 * (x + 1).square().mean()


def test_training_sees_both_accelerations():
    x = blobs(64)
    seen = recipes.zero_filled_scan(x, runtime.seeded(0))
    missing = [(torch.fft.fft2(image)[0].abs().amax(0) < 1e-3).sum().item() for image in seen]
    assert set(missing) == {32 - 7, 32 - 3}
