"""The networks' own parts: folding, ControlNet that starts as nothing, autoencoder; and the losses that train them."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from course_lib import pretrained, schedules
from course_lib.images import to_tensor, to_uint8
from course_lib.losses import (
    AugmentedLoss,
    AutoencoderLoss,
    DiffusionLoss,
    NoisyClassificationLoss,
    RegressionLoss,
    SegmentationLoss,
    StochasticSegmentationLoss,
    local_contrasts,
    random_views,
)
from course_lib.networks import (
    Autoencoder,
    Classifier,
    ControlledUNet,
    DiffusionUNet,
    NoisyClassifier,
    NoisyFromClean,
    PreconditionedUNet,
    Segmenter,
    StochasticSegmenter,
    Unrolled,
    level_maps,
    normal_logits,
    pixel_shuffle,
    pixel_unshuffle,
)
from course_lib.operators import KSpace, Radon, sampled_lines
from course_lib.recipes.brain import low_resolution
from course_lib.recipes.quality import dice_of_each, mean_psnr
from course_lib.training import Batches

SMALL = {"channels": (32, 64), "num_res_blocks": 1, "patch": 2}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_fold_is_the_pixel_unshuffle():
    x = noise(2, 3, 8, 12)
    assert torch.equal(pixel_unshuffle(x, 2), F.pixel_unshuffle(x, 2))
    assert torch.equal(pixel_shuffle(pixel_unshuffle(x, 4), 4), x)


def test_fold_of_a_volume_loses_nothing_and_keeps_each_cube_together():
    x = noise(1, 2, 4, 6, 8)
    folded = pixel_unshuffle(x, 2)
    assert folded.shape == (1, 16, 2, 3, 4)
    assert torch.equal(pixel_shuffle(folded, 2), x)
    torch.testing.assert_close(folded[0, 8:, 1, 2, 3], x[0, 1, 2:4, 4:6, 6:8].flatten(), rtol=0, atol=0)


def randomised(net):
    """The network with every weight drawn anew: MONAI's start at zero in places, which would hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def test_concatenated_condition_reaches_the_output():
    net = randomised(DiffusionUNet(**SMALL, concat=1))
    x, y = noise(2, 1, 16, 16), noise(2, 1, 16, 16, seed=1)
    out = net(x, 0.5, y)
    assert out.shape == x.shape
    assert (out - net(x, 0.5, y + 1)).abs().max() > 1e-3


def test_volumes_pass_through():
    net = DiffusionUNet(**SMALL, in_channels=3, spatial_dims=3)
    assert net(noise(1, 3, 8, 12, 8), torch.tensor([0.3])).shape == (1, 3, 8, 12, 8)


@pytest.fixture
def controlled():
    base = randomised(DiffusionUNet(**SMALL)).eval().requires_grad_(False)
    return ControlledUNet(base, num_labels=3).eval()


def test_an_untrained_controlnet_changes_nothing(controlled):
    x, y = noise(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
    torch.testing.assert_close(controlled(x, 0.5, y), controlled.base(x, 0.5), rtol=0, atol=0)


def test_a_trained_controlnet_steers_and_leaves_the_base_alone(controlled):
    before = {key: value.clone() for key, value in controlled.base.state_dict().items()}
    assert not any(key.startswith("_base") or "base" in key for key in controlled.state_dict())
    optimizer = torch.optim.SGD(controlled.parameters(), lr=0.1)
    x, y = noise(2, 1, 16, 16), torch.randint(0, 3, (2, 16, 16))
    for _ in range(2):
        optimizer.zero_grad()
        controlled(x, 0.5, y).square().mean().backward()
        optimizer.step()
    assert (controlled(x, 0.5, y) - controlled.base(x, 0.5)).abs().max() > 1e-4
    assert torch.equal(controlled(x, 0.5, y, scale=0.0), controlled.base(x, 0.5))
    assert all(torch.equal(before[key], value) for key, value in controlled.base.state_dict().items())


def test_one_hot_puts_each_label_into_its_channel(controlled):
    y = torch.randint(0, 3, (2, 16, 16))
    torch.testing.assert_close(pixel_shuffle(controlled.one_hot(y), 2).argmax(1), y)


def test_autoencoder_scales_latents_there_and_back():
    net = Autoencoder(channels=(32, 32), latent_channels=4, patch=2).eval()
    x = noise(2, 1, 32, 32)
    plain, picture = net.encode(x), net.decode(net.encode(x))
    assert plain.shape == (2, 4, 8, 8) and picture.shape == x.shape and net.factor == 4
    net.scale.fill_(2.5)
    torch.testing.assert_close(net.encode(x), 2.5 * plain)
    torch.testing.assert_close(net.decode(net.encode(x)), picture, rtol=1e-4, atol=1e-5)
    assert "scale" in net.state_dict()
    out, mu, sigma = net(x, torch.Generator().manual_seed(1))  # of a draw of the latents
    z = mu + sigma * torch.randn(mu.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(out, net.decode(net.scale * z), rtol=1e-4, atol=1e-5)


def test_autoencoder_of_volumes_keeps_the_sides_and_takes_no_slices():
    net = Autoencoder((16, 32), latent_channels=8, in_channels=3, spatial_dims=3, norm_groups=8).eval()
    x = noise(2, 3, 8, 12, 16)
    z = net.encode(x)
    assert z.shape == (2, 8, 2, 3, 4) and net.decode(z).shape == x.shape and net.factor == 4
    torch.testing.assert_close(z[1:], net.encode(x[1:]), rtol=1e-4, atol=1e-5)  # each volume alone
    net.scale.fill_(2.5)
    torch.testing.assert_close(net.encode(x), 2.5 * z)
    with pytest.raises(ValueError, match="x must have 5 axes"):
        net.encode(x[..., 0])
    with pytest.raises(ValueError, match="must divide by 4"):
        net.encode(x[..., :10])


def test_loss_of_the_autoencoder_against_torch_distributions():
    net = Autoencoder(channels=(32, 32), latent_channels=4, patch=2).eval()
    x = noise(3, 1, 16, 16)
    loss, _ = AutoencoderLoss(kl_weight=0.5)(net, (x, None), torch.Generator().manual_seed(2))
    out, mu, sigma = net(x, torch.Generator().manual_seed(2))
    normal = torch.distributions.Normal(mu, sigma)
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(loss, F.l1_loss(out, x, reduction="none").flatten(1).mean(1) + 0.5 * kl)


def pyramid_of_contrasts(x):
    """Local contrasts by SciPy, of one image (H, W)."""
    found = []
    for _ in range(3):
        smooth = ndimage.gaussian_filter(x, 0.8, mode="wrap", truncate=9)
        found.append(np.sqrt(ndimage.gaussian_filter((x - smooth) ** 2, 2.0, mode="wrap", truncate=9) + 1e-4))
        x = smooth[::2, ::2]
    return found


def test_contrasts_and_the_texture_term_against_scipy():
    x, out = noise(2, 1, 32, 24).double(), 0.5 * noise(2, 1, 32, 24, seed=1).double()
    both = [[pyramid_of_contrasts(image[0].numpy()) for image in images] for images in (x, out)]
    for k, found in enumerate(local_contrasts(x)):
        for image, expected in zip(found[:, 0], both[0]):
            np.testing.assert_allclose(image, expected[k], rtol=1e-6, atol=1e-7)
    still = lambda x_0, generator: (out, torch.zeros(2, 1), torch.ones(2, 1))  # noqa: E731
    loss, _ = AutoencoderLoss(0.0, texture_weight=2.0)(still, (x, None), torch.Generator())
    for b in range(2):
        texture = np.mean([np.abs(a - c).mean() for a, c in zip(both[0][b], both[1][b])])
        expected = float((out[b] - x[b]).abs().mean()) + 2 * texture
        assert float(loss[b]) == pytest.approx(expected, rel=1e-5)


def test_contrasts_tell_how_strong_a_texture_is_and_not_where():
    """Of two draws of white noise far nearer than the draws; of a flat image the floor, with a finite gradient."""
    a, b = noise(1, 1, 96, 96), noise(1, 1, 96, 96, seed=1)
    difference = (local_contrasts(a)[0] - local_contrasts(b)[0]).abs().mean()
    assert difference < 0.1 * (a - b).abs().mean()
    assert (local_contrasts(a / 2)[0] - local_contrasts(b)[0]).abs().mean() > 3 * difference
    flat = torch.full((1, 1, 16, 16), -1.0, requires_grad=True)
    contrasts = local_contrasts(flat)
    assert all((s - 0.01).abs().max() < 1e-4 for s in contrasts)
    sum(s.sum() for s in contrasts).backward()
    assert flat.grad.isfinite().all()


def test_a_classifier_that_knows_nothing_loses_log_of_the_classes():
    net = NoisyClassifier(num_classes=5, channels=(32, 32), patch=4, image_size=16)
    torch.nn.init.zeros_(net.encoder.out[-1].weight)
    torch.nn.init.zeros_(net.encoder.out[-1].bias)
    batch = noise(4, 1, 16, 16), torch.tensor([0, 1, 2, 4])
    loss, t = NoisyClassificationLoss(schedules.Cosine())(net, batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, torch.full((4,), math.log(5)))
    assert t.shape == (4,) and (t > 0).all() and (t < 1).all()
    _, t = NoisyClassificationLoss(schedules.Cosine(), latest=0.25)(net, batch, torch.Generator().manual_seed(0))
    assert (t > 0).all() and (t < 0.25).all() and t.max() > 3 / 16  # stratified: the last quarter holds one


def test_a_classifier_taught_noise_starts_as_the_clean_one():
    about, x = pretrained.card("brain_features"), noise(3, 1, 96, 96)
    clean = pretrained.load("brain_features")
    net = NoisyFromClean(**about["network_args"])
    net.start_from(clean.state_dict())
    for t in (0.0, 0.7, torch.tensor([0.1, 0.5, 0.9])):
        torch.testing.assert_close(net(x, t), clean(x))
    first = net.classifier.layers[0][0].weight
    assert all(parameter.requires_grad for parameter in net.parameters())
    net(x, 0.7).square().sum().backward()
    assert first.grad[:, 1].abs().max() > 0, "the time is not ignored for ever"


def test_a_classifier_of_noise_goes_on_from_another_one_and_refuses_what_is_none():
    args = {"num_classes": 2, "pool": "max"}
    first, second = NoisyFromClean(**args), NoisyFromClean(**args)
    second.start_from(first.state_dict())
    x, t = noise(2, 1, 96, 96), torch.tensor([0.2, 0.9])
    assert torch.equal(second(x, t), first(x, t))
    with pytest.raises(RuntimeError):
        second.start_from({"other.weight": torch.zeros(2)})


def test_segmentation_loss_shifts_image_and_map_together():
    class Threshold(torch.nn.Module):  # the right answer whatever the shift
        def forward(self, x):
            return 50 * torch.cat([-x, x], 1)

    x = torch.where(noise(3, 1, 32, 32) > 0, 1.0, -1.0)
    for seed in range(4):
        loss, _ = SegmentationLoss()(Threshold(), (x, (x[:, 0] > 0).long()), torch.Generator().manual_seed(seed))
        assert loss.shape == (3,) and loss.max() < 1e-6


def seen_coordinates(**ranges):
    """Coordinates (2, B, H, W) in pixels, from the middle, that 64 views of 48 x 32 pixels show; and the labels."""
    h, w = 48, 32
    rows, columns = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    shown = []
    for coordinate in (rows, columns):
        x = (coordinate / h)[None, None].repeat(64, 2, 1, 1)  # the mask's channel takes the nearest pixel
        y = (coordinate - 0.5).long()[None].repeat(64, 1, 1) + 64
        shown.append((x, *random_views(x, y, torch.Generator().manual_seed(3), grey=0.0, **ranges)))
    return torch.stack([h * x[:, 1] for _, x, _ in shown]), shown


def test_views_are_turned_scaled_and_moved_and_no_more():
    """Finite differences of the coordinates that are seen: a rotation by at most 15 degrees times 0.85 to 1.15, no
    shear and no mirror, about a middle that moves by at most 3 pixels."""
    seen, _ = seen_coordinates()
    middle = seen[:, :, 20:28, 13:19]  # away from the edges, which repeat
    down, across = middle.diff(dim=2).mean((2, 3)), middle.diff(dim=3).mean((2, 3))  # (2, B): of row and column
    stretch = (down.square().sum(0)).sqrt()
    torch.testing.assert_close(across.square().sum(0).sqrt(), stretch, rtol=1e-4, atol=0)
    torch.testing.assert_close((down * across).sum(0), torch.zeros(64), rtol=0, atol=1e-4)
    assert (down[0] * across[1] - down[1] * across[0] > 0).all()
    angle = torch.rad2deg(torch.atan2(down[1], down[0])).abs()
    assert 12 < angle.max() <= 15.01 and 0.849 < stretch.min() < 0.9 < 1.1 < stretch.max() < 1.151
    moved = middle[:, :, 3:5, 2:4].mean((2, 3)).abs()
    assert 2.5 < moved.max() <= 3.01 and (moved[0] - moved[1]).abs().max() > 1


def test_views_take_masks_and_labels_along():
    """In the middle, whatever the view, mask and label are those of the nearest pixel: at most half a pixel away along
    each axis from where the image is looked at."""
    seen, shown = seen_coordinates()
    for coordinate, (_, x, y) in zip(seen, shown):
        inside = (slice(None), slice(16, 32), slice(10, 22))
        nearest = 48 * x[:, 0]
        assert (nearest - coordinate)[inside].abs().max() <= 0.501
        assert torch.equal((nearest - 0.5).round().long()[inside] + 64, y[inside]) and y.dtype == torch.int64


def test_greys_of_views_are_those_of_the_formula():
    """Black, middle grey and white of 256 views: g becomes a g^gamma + b, with the ranges that are stated. Means over
    1,024 pixels, of which the noise leaves 0.0016 at most, which log(gamma) feels seven times as much."""
    x = torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(32).expand(256, 1, 32, 96)
    seen, _ = random_views(x, None, torch.Generator().manual_seed(0), angle=0.0, size=0.0, move=0.0)
    parts = seen[:, 0].unflatten(2, (3, 32))
    black, middle, white = ((parts.mean((1, 3)) + 1) / 2).T
    gamma = ((middle - black) / (white - black)).log() / math.log(0.5)
    for found, largest in ((black, 0.075), (white - black - 1, 0.15), (gamma.log(), 0.3)):
        assert 0.95 * largest < found.abs().max() < largest + 0.02
    spread = parts[:, :, 0].flatten(1).std(1)
    assert 0.9 * 0.05 < spread.max() < 1.1 * 0.05 and spread.min() < 0.1 * 0.05


def test_views_of_no_range_are_what_was_given_and_greys_change_the_image_alone():
    x = 1.8 * torch.rand(4, 3, 8, 6, generator=torch.Generator().manual_seed(0)) - 0.9
    same, none = random_views(x, None, torch.Generator(), angle=0.0, size=0.0, move=0.0, grey=0.0)
    torch.testing.assert_close(same, x, rtol=0, atol=1e-5)
    assert none is None
    other, _ = random_views(x, None, torch.Generator().manual_seed(1), angle=0.0, size=0.0, move=0.0)
    assert torch.equal(other[:, :2], x[:, :2]) and (other[:, 2] - x[:, 2]).abs().max() > 0.05
    assert (other[:, 2] - x[:, 2]).abs().max() < 0.9


def test_augmented_loss_is_the_loss_of_the_views():
    x, y = torch.randn(5, 1, 16, 16), torch.randint(0, 2, (5, 16, 16))
    loss, net = AugmentedLoss(SegmentationLoss(0)), torch.nn.Conv2d(1, 2, 3, padding=1)
    found, _ = loss(net, (x, y), torch.Generator().manual_seed(2))
    views, labels = random_views(x, y, torch.Generator().manual_seed(2))
    by_hand = -net(views).log_softmax(1).gather(1, labels[:, None])[:, 0].mean((1, 2))
    torch.testing.assert_close(found, by_hand)
    assert AugmentedLoss(DiffusionLoss(schedules.Cosine(), "v")).kind == "v"


def test_regression_and_conditional_diffusion_see_the_condition():
    x_0, seen = noise(2, 1, 16, 16), []

    def net(x, t, y=None):
        seen.append(x if y is None else y)
        return torch.zeros_like(x)

    loss, _ = RegressionLoss(low_resolution)(net, (x_0, None), torch.Generator())
    torch.testing.assert_close(loss, x_0.square().flatten(1).mean(1))
    DiffusionLoss(schedules.Cosine(), condition=low_resolution)(net, (x_0, None), torch.Generator())
    for y in seen:
        torch.testing.assert_close(y, low_resolution(x_0))


def test_low_resolution_keeps_the_mean_of_each_square():
    x = noise(1, 1, 8, 8)
    y = low_resolution(x)
    expected = x.reshape(1, 1, 2, 4, 2, 4).mean((3, 5))
    torch.testing.assert_close(y[:, :, ::4, ::4], expected)
    torch.testing.assert_close(y[:, :, 3::4, 3::4], expected)


def test_maps_of_labels_are_not_dropped_as_classes_are():
    labels = torch.randint(0, 3, (4, 16, 16))

    def net(x, t, y):
        assert torch.equal(y, labels)
        return torch.zeros_like(x)

    DiffusionLoss(schedules.Cosine(), drop_class=1.0)(net, (noise(4, 1, 16, 16), labels), torch.Generator())


def test_batches_of_channels_and_of_maps():
    images, maps = np.zeros((6, 3, 4, 4, 4), np.uint8), np.ones((6, 8, 8), np.uint8)
    x, y = Batches(images, maps, batch_size=2)(0)
    assert x.shape == (2, 3, 4, 4, 4) and float(x.max()) == -1 and y.shape == (2, 8, 8) and y.dtype == torch.int64


def test_uint8_and_back():
    images = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    assert (to_uint8(images).ravel() == np.arange(256)).all()
    torch.testing.assert_close(to_tensor(to_uint8(images))[0, 0], torch.as_tensor(images[0]), rtol=0, atol=1e-6)


def test_segmenter_gives_a_label_for_each_pixel():
    labels = Segmenter(5).labels(noise(2, 1, 32, 32))
    assert labels.shape == (2, 32, 32) and labels.dtype == torch.int64 and int(labels.max()) < 5


# ---- the stochastic segmentation network -----------------------------------------------------------------------------


def normal(rank=1, shape=(2, 3, 4), seed=0):
    """Mean, variance and factors of a normal over the logits of masks."""
    mean, variance = noise(*shape, seed=seed), noise(*shape, seed=seed + 1).square() + 0.1
    return mean, variance, noise(shape[0], rank, *shape[1:], seed=seed + 2)


@pytest.mark.parametrize("rank", [1, 3])
def test_drawn_logits_have_the_mean_and_the_covariance_of_the_normal(rank):
    """Against the matrix: diag(v) + F^T F; four standard errors of 40,000 draws."""
    mean, variance, factors = normal(rank)
    n = 40_000
    eta = normal_logits((mean, variance, factors), n, torch.Generator().manual_seed(5)).flatten(2)
    for b in range(2):
        F_b = factors[b].flatten(1)
        matrix = torch.diag(variance[b].flatten()) + F_b.T @ F_b
        spread = (matrix.diagonal()[:, None] * matrix.diagonal() + matrix**2).sqrt() / n**0.5
        assert ((eta[:, b].T.cov() - matrix).abs() < 4.5 * spread).all()
        assert ((eta[:, b].mean(0) - mean[b].flatten()).abs() < 4 * (matrix.diagonal() / n).sqrt()).all()
    independent = torch.corrcoef(torch.stack([eta[:, 0, 0], eta[:, 1, 0]]))[0, 1]
    assert abs(independent) < 4 / n**0.5, "two images are drawn apart"


def loss_of(normal, y, samples, seed=0):
    """The stochastic segmentation loss of a network that always gives this normal."""
    x = torch.zeros(len(y), 1, *y.shape[1:])
    found, t = StochasticSegmentationLoss(samples)(lambda x: normal, (x, y), torch.Generator().manual_seed(seed))
    assert t is None
    return found


def test_loss_of_one_pixel_is_the_integral_over_its_logit():
    """p(y = 1) = E sigmoid(eta), by quadrature; four standard errors of 200,000 draws."""
    mean, variance, factors = (torch.tensor([value]).reshape(1, 1, 1) for value in (0.7, 0.5, 1.2))
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    p = float((weights / (1 + np.exp(-(0.7 + (0.5 + 1.2**2) ** 0.5 * z)))).sum() / weights.sum())
    for y, chance in ((1, p), (0, 1 - p)):
        found = loss_of((mean, variance, factors[:, None]), torch.full((1, 1, 1), y), 200_000)
        assert float(found) == pytest.approx(-math.log(chance), abs=0.004)


def test_loss_without_factors_is_that_of_pixels_one_by_one():
    """With a diagonal covariance the expectation of a product is the product of expectations."""
    mean, variance, factors = normal(shape=(1, 1, 3))
    y = torch.tensor([[[1, 0, 1]]])
    z, weights = np.polynomial.hermite_e.hermegauss(60)
    eta = mean.flatten().numpy()[:, None] + variance.flatten().sqrt().numpy()[:, None] * z
    p = (weights / (1 + np.exp(-eta))).sum(1) / weights.sum()
    wanted = -np.log(np.where(y.flatten().numpy() > 0, p, 1 - p)).mean()
    assert float(loss_of((mean, variance, 0 * factors), y, 200_000)) == pytest.approx(wanted, abs=0.004)


def test_without_variance_the_loss_is_the_cross_entropy():
    mean, variance, factors = normal()
    y = (noise(2, 3, 4, seed=9) > 0).long()
    wanted = F.binary_cross_entropy_with_logits(mean, y.float(), reduction="none").mean((1, 2))
    torch.testing.assert_close(loss_of((mean, 0 * variance, 0 * factors), y, 3), wanted)


def test_pixels_that_go_together_are_worth_a_common_factor():
    """All or nothing, each in half of the cases: a common factor puts log 2 / pixels within reach, no other can."""
    y = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)]).long()
    flat = torch.zeros(2, 4, 4)
    together = loss_of((flat, flat + 1e-5, 20 * torch.ones(2, 1, 4, 4)), y, 500)
    assert float(together.mean()) == pytest.approx(math.log(2) / 16, abs=0.02)
    alone = loss_of((flat, flat + 1e-5, 0 * torch.ones(2, 1, 4, 4)), y, 500)
    assert float(alone.mean()) == pytest.approx(math.log(2), abs=1e-3)


def test_a_stochastic_segmenter_gives_a_normal_and_learns():
    net = StochasticSegmenter(rank=3, channels=(8, 8))
    mean, variance, factors = net(noise(2, 1, 16, 16))
    assert mean.shape == variance.shape == (2, 16, 16) and factors.shape == (2, 3, 16, 16) and (variance > 0).all()
    maps = net.body(noise(2, 1, 16, 16))
    torch.testing.assert_close(torch.cat([mean[:, None], variance[:, None], factors], 1)[:, [0, 2]], maps[:, [0, 2]])
    torch.testing.assert_close(variance, maps[:, 1].exp().log1p() + 1e-5)
    loss, _ = StochasticSegmentationLoss()(
        net, (noise(2, 1, 16, 16), torch.ones(2, 16, 16).long()), torch.Generator().manual_seed(0)
    )
    loss.mean().backward()
    last = [weight.grad for weight in net.parameters()][-1]
    assert loss.shape == (2,) and last.shape == (5,) and (last != 0).all(), "mean, variance and factors all learn"
    with pytest.raises(ValueError, match="rank must be a whole number from 1 on"):
        StochasticSegmenter(rank=0)


# ---- what the cards are measured with --------------------------------------------------------------------------------


def test_dice_of_maps_by_hand():
    found, truth = torch.tensor([[[0, 1], [1, 1]]]), torch.tensor([[[0, 1], [0, 1]]])
    assert dice_of_each(found, truth, ("a", "b")) == {"a": round(2 / 3, 4), "b": 0.8}


def test_psnr_by_hand():
    x = torch.zeros(2, 1, 8, 8)
    assert mean_psnr(x + 0.2, x) == pytest.approx(20.0, abs=1e-3)  # 20 log10(2 / 0.2)


# ---- Shapes and classes that a network does not take -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net(noise(1, 1, 10, 8), 0.5), "each side .* must divide by 4 .*; got 10: pad or crop it to 12"),
        (lambda net: net(noise(1, 8, 8), 0.5), r"x must have 4 axes.*got shape \(1, 8, 8\)"),
        (lambda net: net(noise(1, 2, 8, 8), 0.5), "x_t must have 1 channels"),
        (lambda net: net(noise(2, 1, 8, 8), 0.5, torch.tensor([0, 3])), r"in 0..1 or 2 for none; got \[0, 3\]"),
        (lambda net: net(noise(2, 1, 8, 8), 0.5, torch.tensor([0, -1])), r"got \[0, -1\]"),
        (lambda net: net(noise(2, 1, 8, 8), 0.5, torch.tensor([0, 1, 0])), "y must be 2 whole numbers"),
        (lambda net: net(noise(2, 1, 8, 8), 0.5, torch.tensor([0.0, 1.0])), "y must be 2 whole numbers"),
    ],
)
def test_a_network_names_what_it_does_not_take(call, message):
    with pytest.raises(ValueError, match=message):
        call(DiffusionUNet(**SMALL, num_classes=2))


@pytest.mark.parametrize("shape", [(1, 16, 16), (2, 1, 16, 16), (2, 8, 16), (2,)])
def test_a_map_that_steers_must_fit(controlled, shape):
    with pytest.raises(ValueError, match=r"y must be maps of labels 0 to 2 of shape \(2, 16, 16\); got"):
        controlled(noise(2, 1, 16, 16), 0.5, torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("y", [None, torch.zeros(1, 1, 8, 8), torch.zeros(2, 2, 8, 8), torch.zeros(2, 1, 4, 8)])
def test_an_image_to_be_seen_beside_must_fit(y):
    with pytest.raises(
        ValueError, match="this network needs y, images of 1 channels and the sides of x_t, as many; got"
    ):
        DiffusionUNet(**SMALL, concat=1)(noise(2, 1, 8, 8), 0.5, y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffusionUNet(channels=(48, 64)), "channels must be multiples of norm_groups = 32.*got 48"),
        (lambda: DiffusionUNet(channels=(16, 40), norm_groups=8), "the last, with attention, of 32; got 40"),
        (lambda: PreconditionedUNet(sigma_data=0.0, **SMALL), "sigma_data must be positive"),
        (lambda: Classifier(pool="median"), 'pool must be "mean" or "max"'),
        (lambda: Segmenter(2)(noise(1, 1, 12, 16)), "must divide by 8 .*; got 12"),
        (lambda: Autoencoder(channels=(32, 32)).encode(noise(1, 1, 10, 8)), "must divide by 4"),
        (lambda: NoisyClassifier()(noise(1, 1, 32, 32), 0.5), r"x_t must be \(B, 1, 64, 64\)"),
        (lambda: pixel_unshuffle(noise(1, 1, 5, 4), 2), "must divide by 2 .*; got 5"),
    ],
)
def test_sides_and_widths_that_do_not_divide_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_side_that_divides_is_taken():
    """Sides need not be equal, nor powers of two."""
    net = DiffusionUNet(**SMALL, num_classes=2)
    assert net(noise(2, 1, 12, 20), 0.5, torch.tensor([1, 2])).shape == (2, 1, 12, 20)


def test_one_class_may_stand_for_all():
    net, x = randomised(DiffusionUNet(**SMALL, num_classes=2)), noise(2, 1, 8, 8)
    for y in (torch.tensor([1]), torch.tensor(1), 1):
        torch.testing.assert_close(net(x, 0.5, y), net(x, 0.5, torch.tensor([1, 1])))


# ---- Unrolled reconstruction -----------------------------------------------------------------------------------------

TINY_SCANS = {
    "k-space": KSpace(sampled_lines(8, 2, torch.Generator().manual_seed(0))),
    "a mask an image": KSpace(torch.stack([torch.ones(8), torch.tensor([1, 0, 0, 1, 1, 1, 0, 0])])[:, None, None]),
    "rays": Radon(8, 6, unit=8.0),  # of norm 0.9
}
tiny_scans = pytest.mark.parametrize("A", TINY_SCANS.values(), ids=TINY_SCANS.keys())


def tiny_unrolled(iterations=2):
    """A randomised network of double precision whose lambda is 0.3."""
    net = randomised(Unrolled(iterations, channels=(32,), num_res_blocks=1, patch=2)).double()
    net.log_weight.data = torch.tensor(math.log(0.3), dtype=torch.float64)
    return net


@tiny_scans
def test_an_unrolled_network_without_its_unet_is_iterated_regularisation_by_the_matrix(A):
    """A new network's D is the identity. Then each frequency or singular vector comes nearer to the data by the same
    factor in each round; by NumPy from the matrix of A."""
    net = Unrolled(3, channels=(32,), num_res_blocks=1, patch=2).double()
    x_0 = noise(2, 1, 8, 8).double()
    found = net((A, A(x_0)))
    basis = torch.eye(64, dtype=torch.float64).reshape(-1, 1, 8, 8)
    lam = math.exp(float(net.log_weight))
    for k, image in enumerate(x_0.flatten(1).numpy()):
        one = KSpace(A.lines[k]) if getattr(A, "lines", torch.zeros(1)).ndim == 4 else A
        columns = one(basis).flatten(1)
        M = torch.view_as_real(columns).flatten(1).numpy().T if columns.is_complex() else columns.numpy().T
        x = -np.ones(64)
        for _ in range(4):
            x = np.linalg.solve(M.T @ M + lam * np.eye(64), M.T @ (M @ image) + lam * x)
        np.testing.assert_allclose(found[k].detach().flatten().numpy(), x, rtol=0, atol=1e-5)


@tiny_scans
def test_gradients_of_an_unrolled_network_are_finite_differences(A):
    """Along a random direction of all weights, and in lambda alone."""
    net, x_0 = tiny_unrolled(), noise(2, 1, 8, 8).double()
    y = A(x_0 + noise(2, 1, 8, 8, seed=2).double())

    def loss():
        return (net((A, y)) - x_0).square().mean()

    loss().backward()
    weights = [parameter for name, parameter in net.named_parameters() if name != "log_weight"]
    generator = torch.Generator().manual_seed(3)
    for group in (weights, [net.log_weight]):
        directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in group]
        expected = sum(float((p.grad * d).sum()) for p, d in zip(group, directions) if p.grad is not None)
        values = []
        for h in (1e-5, -1e-5):
            for p, d in zip(group, directions):
                p.data += h * d
            with torch.no_grad():
                values.append(float(loss()))
            for p, d in zip(group, directions):
                p.data -= h * d
        assert expected == pytest.approx((values[0] - values[1]) / 2e-5, rel=2e-3)


@tiny_scans
def test_an_unrolled_network_is_told_its_round_and_keeps_to_the_scan(A):
    net, x_0 = tiny_unrolled(), noise(2, 1, 8, 8).double()
    told = []
    net.unet.register_forward_pre_hook(lambda module, inputs: told.append(inputs[1]))
    found = net((A, A(x_0)), 0.7)  # whatever time the loss hands over
    assert told == [0.0, 0.5]
    net.log_weight.data = torch.tensor(math.log(1e-3), dtype=torch.float64)
    near = net((A, A(x_0)))
    assert (A(near) - A(x_0)).abs().max() < 0.05 * (A(found) - A(x_0)).abs().max()


def test_an_unrolled_network_has_at_least_one_round():
    with pytest.raises(ValueError, match="iterations must be a whole number from 1 on"):
        Unrolled(0)


def test_the_maps_of_the_levels_are_what_the_blocks_give_and_change_nothing():
    """Sides halve from level to level, both ways; the coarsest map is worked out by hand, block by block."""
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet, get_timestep_embedding

    torch.manual_seed(0)
    unet = DiffusionModelUNet(
        2, 1, 1, channels=(8, 16), attention_levels=(False, False), num_res_blocks=1, norm_num_groups=4
    ).eval()
    for weight in unet.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    x, k = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    down, up, output = level_maps(unet, x, k)
    assert [tuple(a.shape) for a in down] == [(2, 8, 8, 8), (2, 16, 4, 4)]
    assert [tuple(a.shape) for a in up] == [(2, 8, 8, 8), (2, 16, 4, 4)]
    with torch.no_grad():
        torch.testing.assert_close(output, unet(x, timesteps=k), rtol=0, atol=0)
        told = unet.time_embed(get_timestep_embedding(k, 8))
        fine = unet.down_blocks[0].resnets[0](unet.conv_in(x), told)
        coarse = unet.down_blocks[1].resnets[0](unet.down_blocks[0].downsampler(fine, told), told)
        torch.testing.assert_close(down, [fine, coarse], rtol=0, atol=1e-6)
        torch.testing.assert_close(unet.out(up[0]), output, rtol=0, atol=1e-6)
    assert not any(block.resnets[-1]._forward_hooks for block in [*unet.down_blocks, *unet.up_blocks])
