"""Tumours: the loss of healthy tissue, the region that is searched, the recipes, and the study."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from course_lib import datasets, experiments, pretrained, schedules, tumours
from course_lib.experiments import tumour_trainings as trainings
from course_lib.experiments import tumours as study
from course_lib.losses import AutoencoderLoss, ClassificationLoss, DiffusionLoss, MaskedLoss, RegressionLoss
from course_lib.metrics import detection
from course_lib.networks import VectorAutoencoder
from course_lib.recipes import RECIPES, runs
from course_lib.recipes import tumours as recipes


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- The loss of what counts -----------------------------------------------------------------------------------------


class Small(nn.Module):
    """A convolution that sees the time: net(x_t, t, y)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t, y=None):
        assert y is None, "a mask is for the loss, not for the network"
        self.out = self.layer(x) + (torch.as_tensor(t).reshape(-1, 1, 1, 1) if torch.as_tensor(t).ndim else t)
        if self.out.requires_grad:
            self.out.retain_grad()
        return self.out


LOSSES = {
    "diffusion": DiffusionLoss(schedules.Cosine(), "v"),
    "regression": RegressionLoss(lambda x, generator: x + 0.3 * torch.randn(x.shape, generator=generator), drawn=True),
}


def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_mean_over_what_counts_by_a_loop(name):
    loss, net, x, counted = LOSSES[name], Small(), noise(4, 1, 8, 6), noise(4, 8, 6, seed=1) > 0
    found, t = MaskedLoss(loss)(net, (x, counted.long()), generator())
    with torch.no_grad():
        pixels, times = loss.error(net, (x, None), generator())
    expected = [
        sum(float(pixels[n, 0, i, j]) for i in range(8) for j in range(6) if counted[n, i, j]) / int(counted[n].sum())
        for n in range(4)
    ]
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5)
    assert (t is None and times is None) or torch.equal(t, times)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_at_its_ends(name):
    """All counted: the plain loss. Nothing counted in an image: 0, no NaN, no gradient."""
    loss, net, x = LOSSES[name], Small(), noise(3, 1, 8, 6)
    counted = torch.ones(3, 8, 6, dtype=torch.bool)
    plain, _ = loss(net, (x, None), generator())
    torch.testing.assert_close(MaskedLoss(loss)(net, (x, counted), generator())[0], plain)
    counted[1] = False
    found, _ = MaskedLoss(loss)(net, (x, counted), generator())
    assert found[1] == 0 and found[0] > 0
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]])
    found.sum().backward()
    assert (net.out.grad[1] == 0).all() and all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_comes_from_what_does_not_count(name):
    """Exactly none, and the others' is that of the mean over them."""
    loss, net, x, counted = LOSSES[name], Small(), noise(2, 1, 8, 6), noise(2, 8, 6, seed=1) > 0
    MaskedLoss(loss)(net, (x, counted), generator())[0].sum().backward()
    assert (net.out.grad[~counted[:, None]] == 0).all() and (net.out.grad[counted[:, None]] != 0).all()


def test_the_loss_of_an_autoencoder():
    net, x, counted = (
        VectorAutoencoder(32, (8, 16), 4, variational=True).eval(),
        noise(3, 1, 32, 32),
        noise(3, 32, 32) > 0,
    )
    plain = AutoencoderLoss(0.5)
    loss, _ = MaskedLoss(plain)(net, (x, counted), generator())
    reconstruction, mu, sigma = net(x, generator())
    kl = 0.5 * (mu.square() + sigma.square() - 1 - 2 * sigma.log()).mean(1)
    error = torch.stack([(a - b)[0][c].abs().mean() for a, b, c in zip(reconstruction, x, counted)])
    torch.testing.assert_close(loss, error + 0.5 * kl)
    whole = MaskedLoss(plain)(net, (x, torch.ones_like(counted)), generator())[0]
    torch.testing.assert_close(whole, plain(net, (x, None), generator())[0])


def test_a_loss_without_pixels_is_refused():
    with pytest.raises(ValueError, match="the error of each pixel.*got ClassificationLoss"):
        MaskedLoss(ClassificationLoss())
    assert hasattr(MaskedLoss(LOSSES["diffusion"]), "schedule") and not hasattr(
        MaskedLoss(LOSSES["regression"]), "kind"
    )


# ---- Where a tumour is looked for ------------------------------------------------------------------------------------


def a_head(side=64, radius=26, level=60):
    """A disc of tissue with a brighter rim and a hole, on black."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    distance = np.hypot(x, y)
    image = np.where(distance < radius, level, 0).astype(np.uint8)
    image[(distance < radius) & (distance > radius - 3)] = 250
    image[np.hypot(x - 5, y) < 4] = 0  # fluid
    return image, distance


def test_the_region_is_the_head_without_its_rim_and_holes_are_in_it():
    image, distance = a_head()
    image[2:5, 2:5] = 200  # something beside the head
    inside = tumours.search_region(image[None], depth=6)[0]
    assert inside[distance < 26 - 8].all() and not inside[distance > 26 - 5].any()
    assert tumours.search_region(image[None], depth=0)[0][distance < 25].all()
    with pytest.raises(ValueError, match="image 1 shows none"):
        tumours.search_region(np.stack([image, 0 * image]))


def test_a_head_cut_off_by_the_picture_ends_at_its_border():
    """All of the picture is head: the pixels more than ``depth`` below the outermost ones' outer neighbours count."""
    inside = tumours.search_region(np.full((1, 40, 30), 100, np.uint8), depth=6)[0]
    expected = np.zeros((40, 30), bool)
    expected[6:-6, 6:-6] = True  # the seventh pixel is 7 from the first outside
    assert np.array_equal(inside, expected)


def test_one_scale_of_grey_levels():
    """Whatever the level of a slice was, its median inside stands at a third; what is too bright is white."""
    images = np.stack([a_head(level=level)[0] for level in (30, 60, 120)])
    inside = tumours.search_region(images)
    again = tumours.scaled(images, inside)
    assert all(np.median(image[where]) == 85 for image, where in zip(again, inside))
    assert again.dtype == np.uint8 and again.max() == 255 and again.min() == 0


def test_the_margin_is_the_distance_to_the_outline():
    mask = np.zeros((1, 15, 15), np.uint8)
    mask[0, 7, 7] = 1
    y, x = np.mgrid[:15, :15] - 7
    for margin in (0, 3):
        assert np.array_equal(tumours.healthy_tissue(mask, margin)[0], np.hypot(x, y) > margin)
    assert tumours.healthy_tissue(0 * mask + 1).sum() == 0


def test_outlines_are_filled_with_the_mean_of_the_others():
    x = np.array([[[1.0, 5.0]], [[3.0, 7.0]], [[9.0, 9.0]]])
    counted = np.array([[[1, 0]], [[1, 0]], [[0, 0]]])
    assert tumours.filled(x, counted).tolist() == [[[1, 7]], [[3, 7]], [[2, 7]]]


# ---- Lesion by lesion ------------------------------------------------------------------------------------------------


def test_findings_by_hand():
    truth, score = np.zeros((2, 8, 12)), np.zeros((2, 8, 12))
    truth[0, 0:2, 0:2] = truth[0, 5:7, 5:7] = 1  # two lesions, the second image has none
    score[0, 1:4, 1] = 0.9  # touches the first lesion
    score[0, 5, 5] = 0.8  # in the second, too small
    score[0, 0:3, 11] = 0.7  # beside both
    score[1, 4, 2:6] = 0.6
    found, lesions, false = detection.findings(score, truth, [0.95, 0.85, 0.65, 0.5], smallest=3)
    assert lesions.tolist() == [2, 0]
    assert found.tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]
    assert false.tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    assert detection.findings(score, truth, [0.75], smallest=1)[0].tolist() == [[2], [0]]
    assert detection.findings(score, truth, np.array([0.9]))[0].tolist() == [[1], [0]], "at the threshold is an alarm"
    everything, _, none = detection.findings(score, truth, [-1.0])  # one piece: all found, nothing false but in image 1
    assert everything.tolist() == [[2], [0]] and none.tolist() == [[0], [1]]


def test_a_point_of_the_froc_curve_by_hand():
    """False findings an image: 0, 0.5, 0.5, 2. The best of those allowed is the first of two that find as many."""
    found, lesions = np.array([[0, 1, 1, 2], [0, 1, 1, 2]]), np.array([2, 3])
    false = np.array([[0, 1, 0, 2], [0, 0, 1, 2]])
    assert detection.froc_point(found, lesions, false, 0.4) == (0.0, 0)
    assert detection.froc_point(found, lesions, false, 0.5) == (0.4, 1)
    assert detection.froc_point(found, lesions, false, 2) == (0.8, 3)
    assert detection.froc_point(found[:, 3:], lesions, false[:, 3:], 1) == (0.0, None)
    with pytest.raises(ValueError, match="at least one lesion"):
        detection.froc_point(found, 0 * lesions, false, 1)


# ---- The recipes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def few_slices(monkeypatch):
    """Six heads of 64 x 64 with a bright square in each, in place of the slices of every split."""
    from data_fetch.brain_tumours import Tumours

    rng = np.random.default_rng(0)
    image, _ = a_head()
    images = np.stack([image] * 6)
    masks = np.zeros_like(images)
    for k in range(6):
        masks[k, 28 + k : 34 + k, 20:26] = 1
    images = (np.where(masks, 180, images) + (images > 20) * rng.integers(0, 20, images.shape)).clip(0, 255)
    labels = np.repeat(np.arange(3), 2)
    found = Tumours(images.astype(np.uint8), masks, labels, np.arange(6), np.full(6, -1))
    inside = tumours.search_region(found.images)
    found = dataclasses.replace(found, images=tumours.scaled(found.images, inside))
    for module in (datasets, study):
        monkeypatch.setattr(module, "tumour_slices", lambda split: (found, inside))
    return found, inside


def test_moved_slices_and_their_masks_go_together(few_slices):
    images, counted = recipes._tissue()
    assert images.shape == counted.shape == (24, 64, 64) and set(np.unique(counted)) == {0, 1}
    tumour = recipes._moved(few_slices[0].masks, True, (2, -3))
    assert np.array_equal(tumour[0], np.roll(few_slices[0].masks[0][:, ::-1], (2, -3), (0, 1)))
    assert (images[counted == 0].mean() > images[(counted == 1) & (images > 0)].mean()) and counted[:, 0].all()


TINY = {
    "tumour_tissue": {"channels": (32, 32), "num_res_blocks": 1, "patch": 4},
    "tumour_dae": {"channels": (32, 32), "num_res_blocks": 1, "patch": 4},
    "tumour_ae": {"image_size": 64, "channels": (8, 16), "latent_size": 4, "variational": False},
}


@pytest.mark.parametrize("name", TINY)
def test_each_recipe_trains_ships_and_is_measured(name, few_slices, tmp_path):
    recipe = dataclasses.replace(RECIPES[name], network_args=TINY[name], image_size=64, batch_size=4, steps=2)
    for _ in runs.run(recipe, tmp_path, torch.float32):
        pass
    card = runs.ship(recipe, tmp_path, tmp_path)
    assert 0 < card["average_precision"] <= 1 and card["around"] == "MaskedLoss" != card["loss"]
    assert "J. Cheng" in card["licence"] and "CC BY 4.0" in card["licence"]
    assert card["average_precision_of_brightness"] > 0.9  # the squares are bright, and the rim is not searched
    if name == "tumour_tissue":
        assert set(card["rms_in_noise"]) == {"t = 0.1", "t = 0.25", "t = 0.5"} and card["schedule"] == "Cosine"


# ---- The study -------------------------------------------------------------------------------------------------------


def networks(monkeypatch):
    """Stand-ins: a prior that answers the mean grey, and two autoencoders that answer black."""
    from course_lib.denoisers import FunctionDenoiser

    class Black(nn.Module):
        def forward(self, x, t):
            return torch.full_like(x, -1.0)

        def encode(self, x):
            return x

        def decode(self, z):
            return torch.full_like(z, -1.0)

    grey = FunctionDenoiser(lambda x_t, t: torch.full_like(x_t, study.MIDDLE), schedules.Cosine())
    monkeypatch.setattr(pretrained, "load", lambda name: Black())
    monkeypatch.setattr(pretrained, "load_denoiser", lambda name: grey)


def test_twins_that_are_known_give_the_scores_of_thresholds(few_slices, monkeypatch):
    """A black twin scores as brightness does, a grey one as the distance from grey, all outside of the region 0."""
    networks(monkeypatch)
    x, _, inside = study.slices("test")
    known = {"autoencoder": "bright threshold", "denoising autoencoder": "bright threshold"}
    known |= {"one step, ten draws": "bright or dark"}
    for name, simple in known.items():
        setting = study.METHODS[name].settings[0]
        score, twin = study.scores(study.METHODS[name], x, inside, setting)
        plain, _ = study.scores(study.METHODS[simple], x, inside, {})
        torch.testing.assert_close(score, plain, rtol=0, atol=1e-5)
        assert twin.shape == x.shape and not score.numpy()[~inside].any()


def test_rows_of_the_study(few_slices, monkeypatch):
    """The squares are much brighter than all else that is searched: brightness finds them, on validation and test."""
    brightness = study.METHODS["bright threshold"]
    choice = study.validated(brightness, {})
    row = study.tested(brightness, choice | {"setting": {}})
    assert min(row["average_precision"]) > 0.9 and choice["dice"] > 0.8 and min(row["dice"]) > 0.7
    assert row["lesions"] == [1] * 6 and np.shape(row["found"]) == np.shape(row["false"]) == (6, study.KEEP)
    truth, inside = few_slices[0].masks > 0, few_slices[1]
    np.testing.assert_allclose(row["prevalence"], [m[i].mean() for m, i in zip(truth, inside)], atol=1e-5)
    assert all(a <= b + 1e-9 for a, b in zip([np.mean(row["dice"])], [np.mean(row["dice_oracle"])]))
    assert study.begin()[0]["labels"] == [0, 0, 1, 1, 2, 2] and not study.begin()[0]["by_patient"]


def test_a_row_of_another_training_is_that_of_its_network(few_slices, monkeypatch):
    """A network that answers black scores as brightness does; the first seed is the network that ships."""
    networks(monkeypatch)
    black, asked = pretrained.load("tumour_ae"), []
    monkeypatch.setattr(trainings, "network", lambda name, seed: asked.append((name, seed)) or black)
    row, pictures = trainings.measure("denoising autoencoder", 2)
    brightness = study.METHODS["bright threshold"]
    simple = study.tested(brightness, study.validated(brightness, {}) | {"setting": {}})
    assert asked == [("tumour_dae", 2)] and not pictures
    for key in ("average_precision", "dice"):
        np.testing.assert_allclose(row[key], simple[key], rtol=0, atol=1e-3)
    quiet = np.mean(simple["false"], 0) <= 1
    assert row["found"] == pytest.approx(max(np.sum(simple["found"], 0)[quiet]) / 6, abs=1e-4)


def test_the_first_training_is_that_of_the_networks_that_ship():
    stored = {row["method"]: row for row in experiments.load("11_tumours")["rows"] if row["split"] == "test"}
    rows = {(row["method"], row["seed"]): row for row in experiments.load("11_tumour_trainings")["rows"]}
    assert all(trainings.STUDY.is_fresh(row) for row in rows.values())
    assert {key for key in rows if key[1] == 0} == {(method, 0) for method in trainings.NETWORKS}
    for method in trainings.NETWORKS:
        for key in ("average_precision", "dice"):
            np.testing.assert_allclose(rows[method, 0][key], stored[method][key], rtol=0, atol=2e-3)


def test_values_by_training_stand_in_the_order_of_their_seeds():
    rows = [{"method": "autoencoder", "seed": seed, "found": seed / 4, "dice": [seed, 0]} for seed in (2, 0, 1)]
    assert trainings.by_training(rows, "found")["autoencoder"].tolist() == [0, 0.25, 0.5]
    assert trainings.by_training(rows, "dice")["autoencoder"].tolist() == [[0, 0], [1, 0], [2, 0]]
    assert trainings.by_training(rows, "dice")["denoising autoencoder"].size == 0


def test_rows_of_trainings_need_the_set(monkeypatch):
    monkeypatch.setattr(datasets, "is_here", lambda name: name != "brain_tumours")
    assert trainings.plan() == []
    monkeypatch.setattr(datasets, "is_here", lambda name: name == "brain_tumours")
    first, second, *others = trainings.plan()
    assert (first["seed"], second["seed"], len(others)) == (0, 0, 4)
    assert trainings.STUDY.needs(first).keys() == {"tumour_ae"}
    assert trainings.STUDY.needs(others[-1]).keys() == {"tumour_dae"}


def test_pca_never_sees_a_tumour(few_slices, monkeypatch):
    """Its mean image is that of the same slices with black squares, but where no slice counts."""
    found, inside = few_slices
    somewhere = torch.as_tensor(tumours.healthy_tissue(found.masks).any(0)).flatten()
    monkeypatch.setattr(study, "DIRECTIONS", (2,))
    study.healthy_directions.cache_clear()
    one = study.healthy_directions().mean
    black = dataclasses.replace(found, images=np.where(tumours.healthy_tissue(found.masks), found.images, 0))
    monkeypatch.setattr(study, "tumour_slices", lambda split: (black, inside))
    study.healthy_directions.cache_clear()
    torch.testing.assert_close(study.healthy_directions().mean[somewhere], one[somewhere])
    study.healthy_directions.cache_clear()
