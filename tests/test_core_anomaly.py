"""Anomaly detection: its networks, scores of methods against closed forms, and its bank against a part made anew."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from course_lib import pretrained, recipes, train
from course_lib.networks import VectorAutoencoder
from course_lib.recipes import RECIPES
from course_lib.training import AutoencoderLoss

# ---- the networks ----------------------------------------------------------------------------------------------------

TINY_NECK = {"image_size": 32, "channels": (8, 16), "latent_size": 4}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variational", [False, True])
def test_everything_passes_through_the_vector(variational):
    net, x = VectorAutoencoder(**TINY_NECK, variational=variational).eval(), noise(3, 1, 32, 32)
    z = net.encode(x)
    assert z.shape == (3, 4) and net.decode(z).shape == x.shape
    out, mu, sigma = net(x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(mu, z)
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(1)) if variational else 0.0
    torch.testing.assert_close(out, net.decode(mu + sigma * eps))
    assert variational or torch.equal(sigma, torch.ones_like(mu))


def test_loss_of_a_plain_autoencoder_is_its_error_alone():
    net, x = VectorAutoencoder(**TINY_NECK, variational=False).eval(), noise(3, 1, 32, 32)
    loss, _ = AutoencoderLoss(0.0)(net, (x, None), torch.Generator())
    expected = F.l1_loss(net.decode(net.encode(x)), x, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(loss, expected)


def test_the_neck_tells_brightness():
    """Instance normalisation, MONAI's default, would make x and a brighter x nearly the same."""
    torch.manual_seed(0)
    net, x = VectorAutoencoder(**TINY_NECK).eval(), noise(1, 1, 32, 32)
    assert (net.encode(x + 1) - net.encode(x)).abs().max() > 0.01


SMALLER = {
    "brain_noisy_classifier": {"num_classes": 2, "channels": (32, 32), "patch": 4, "image_size": 32},
    "brain_two_classes": {"channels": (32, 32), "num_res_blocks": 1, "patch": 4, "num_classes": 2},
    "brain_ae": TINY_NECK | {"variational": False},
    "brain_vae": TINY_NECK | {"variational": True},
}


@pytest.mark.parametrize("name", SMALLER)
def test_each_recipe_trains_ships_and_is_measured(name, monkeypatch, tmp_path):
    """Its own data, loss and measure, with few and small images and a small network."""
    from data_fetch import brain_cohort

    cohort, few = brain_cohort.cohort, 4
    monkeypatch.setattr(brain_cohort, "cohort", lambda split, n, size, **options: cohort(split, few, 32, **options))
    monkeypatch.setattr(recipes, "BRAIN_FD_IMAGES", few)
    monkeypatch.setattr(recipes, "FD_NFE", 2)
    recipes._healthy.cache_clear()
    recipe = dataclasses.replace(RECIPES[name], network_args=SMALLER[name], image_size=32, batch_size=4, steps=2)
    for _ in train.run(recipe, tmp_path, torch.float32):
        pass
    monkeypatch.setattr(pretrained.save, "__defaults__", (None, tmp_path))
    train.ship(recipe, tmp_path)
    recipes._healthy.cache_clear()
    card = json.loads((tmp_path / f"{name}.json").read_text())
    measured = {
        "brain_noisy_classifier": ("test_accuracy", "test_images"),
        "brain_two_classes": ("frechet_distance", "share_with_a_lesion"),
    }
    for key in measured.get(name, ("psnr", "psnr_of_the_mean_image", "contrast_kept")):
        assert card[key] is not None
    assert set(card.get("share_with_a_lesion", {})) in (set(), {"healthy", "lesion"})


def test_shipped_size_of_the_recipes_stays_small():
    """In float16, 2.5 MB at most each."""
    from course_lib.networks import build

    for name in SMALLER:
        net = build(RECIPES[name].network, **RECIPES[name].network_args)
        assert 2 * sum(parameter.numel() for parameter in net.parameters()) < 2.5e6, name


def test_half_of_the_classes_images_have_a_lesion(monkeypatch):
    monkeypatch.setattr(recipes, "_brain_maps", lambda split, n: (None, np.array([[[0, 3]], [[4, 3]], [[1, 2]]])))
    assert recipes._brain_healthy_or_not("train", 3)[1].tolist() == [0, 1, 0]
