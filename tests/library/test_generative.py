"""The four families in miniature: densities against integrals and closed forms, training loops, measures."""

import copy
import math

import numpy as np
import pytest
import torch

from course_lib.generative import models, scoreboard, training
from course_lib.generative.models import VAE, Diffusion, Flow, Gaussian, KernelDensity


@pytest.fixture(scope="module")
def data():
    return models.ring()


@pytest.fixture(scope="module")
def points(data):
    return data.sample_data(2000, torch.Generator().manual_seed(0))


def moved(model, seed=0, size=0.3):
    """The model with random weights: some layers start at zero, where much would hold that should not."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter += size * torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
    return model


def plane(reach, points):
    axis = torch.linspace(-reach, reach, points)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


def test_ring_is_a_distribution_with_one_rare_mode(data, points):
    assert data.weights.sum() == pytest.approx(1.0)
    assert data.weights[models.RARE] == pytest.approx(0.02)
    grid, cell = plane(2.5, 601)
    assert float(data.log_density(grid, 0.0).exp().sum()) * cell == pytest.approx(1.0, abs=1e-3)
    shares = scoreboard.mode_shares(points, data)
    assert torch.allclose(shares, data.weights * (1 - math.exp(-4.5)), atol=0.03)


@pytest.mark.parametrize("make", [Gaussian, KernelDensity])
def test_baselines_integrate_to_one_and_sample_their_density(make, points):
    model = make(points[:500])
    grid, cell = plane(6, 401)
    density = model.log_prob(grid).exp() * cell
    assert float(density.sum()) == pytest.approx(1.0, abs=2e-3)
    drawn = model.sample(20_000, torch.Generator().manual_seed(1))
    assert torch.allclose(drawn.mean(0), (density[:, None] * grid).sum(0), atol=0.03)
    assert torch.allclose(drawn.var(0), points[:500].var(0, unbiased=False), atol=0.05)


def test_the_gaussian_is_the_fit_of_maximum_likelihood(points):
    """Divided by N: of seven points that is a seventh from the unbiased covariance."""
    few = points[:7].double()
    np.testing.assert_allclose(Gaussian(few).law.covariance_matrix, np.cov(few.T, bias=True), rtol=1e-9)


def test_kernel_density_chooses_the_width_that_explains_unseen_points(points):
    model = KernelDensity(points)
    assert 0.03 <= model.h <= 0.08
    assert len(model.points) == len(points)


def vae_of_spread(s, width=32, **shape):
    """A VAE with random weights whose p(x | z) has the standard deviation s; a fresh one has 1, which hides powers."""
    vae = moved(VAE(width=width, **shape))
    vae.log_s.data.fill_(math.log(s))
    return vae


def test_vae_bounds_are_ordered_and_below_the_exact_likelihood(points):
    vae, x = vae_of_spread(1.3), points[:100]
    with torch.no_grad():
        elbo = torch.stack([vae.elbo(x, torch.Generator().manual_seed(k)) for k in range(200)]).mean(0)
        one = torch.stack([vae.iw_bound(x, 1, torch.Generator().manual_seed(k)) for k in range(200)]).mean(0)
        many = vae.iw_bound(x, 5000, torch.Generator().manual_seed(0))
        exact = vae.log_prob_on_grid(x)
    assert torch.allclose(elbo.mean(), one.mean(), atol=0.05)  # K = 1 is the ELBO
    assert elbo.mean() < many.mean()
    assert torch.allclose(many, exact, atol=0.05)


def test_vae_exact_likelihood_integrates_to_one():
    grid, cell = plane(6, 61)
    total = vae_of_spread(0.8).log_prob_on_grid(grid, points=150).exp().sum() * cell
    assert float(total) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_density_on_a_grid_is_the_sum_over_it(dim):
    vae = vae_of_spread(1.3, width=8, dim=dim)
    x, axis = torch.randn(3, dim, generator=torch.Generator().manual_seed(0)), torch.linspace(-4, 4, 40)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        given = torch.distributions.Normal(vae.decoder(z), 1.3).log_prob(x[:, None]).sum(-1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    expected = (given + prior).logsumexp(1) + 2 * math.log(8 / 39)
    torch.testing.assert_close(vae.log_prob_on_grid(x, reach=4.0, points=40), expected, rtol=1e-4, atol=1e-4)


def test_vae_draws_with_the_spread_that_it_has_learnt():
    """Around the decoder's answer to the same z: s, within four standard errors of 40,000 numbers."""
    vae = vae_of_spread(0.2)
    with_noise, without = (vae.sample(20_000, torch.Generator().manual_seed(0), noise=on) for on in (True, False))
    assert float((with_noise - without).std()) == pytest.approx(0.2, rel=4 / 80_000**0.5)
    decoded = vae.log_likelihood(without, torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(decoded, torch.full_like(decoded, -math.log(2 * math.pi * 0.2**2)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dim", [2, 5, 24])
def test_flow_is_inverted_and_its_determinant_is_autograds(dim):
    flow = moved(Flow(dim, layers=5, width=16))
    noise = torch.randn(6, dim, generator=torch.Generator().manual_seed(2))
    x = flow.sample(6, torch.Generator().manual_seed(2))
    u, log_det = flow(x)
    assert torch.allclose(u, noise, atol=1e-4)
    for one, value in zip(x, log_det):
        jacobian = torch.autograd.functional.jacobian(lambda y: flow(y[None])[0][0], one)
        assert value.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-4)


def test_flow_density_integrates_to_one():
    grid, cell = plane(10, 401)
    with torch.no_grad():
        assert float(moved(Flow(layers=4, width=16)).log_prob(grid).exp().sum()) * cell == pytest.approx(1.0, abs=0.01)


class ExactVelocity(Diffusion):
    """The diffusion model that a perfect network would be: v from the mixture's exact denoiser."""

    def __init__(self, data):
        super().__init__()
        self.exact = data

    def forward(self, x_t, t, y=None):
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t).clamp(min=1e-4)
        x_0 = self.exact(x_t, t)
        return alpha * (x_t - alpha * x_0) / sigma - sigma * x_0


def test_diffusion_with_the_exact_velocity_has_the_exact_likelihood(data, points):
    x = points[:200].double()
    exact = models.ring()
    exact.weights, exact.means, exact.variances = (
        part.double() for part in (exact.weights, exact.means, exact.variances)
    )
    log_p = ExactVelocity(exact).double().log_prob(x, steps=100)
    assert torch.allclose(log_p, exact.log_density(x, 0.0), atol=5e-3)


def test_diffusion_likelihood_integrates_to_one():
    grid, cell = plane(8, 121)
    total = moved(Diffusion(width=16)).log_prob(grid, steps=20).exp().sum() * cell
    assert float(total) == pytest.approx(1.0, abs=0.02)


def exact_ring():
    """The data in double precision."""
    exact = models.ring()
    exact.weights, exact.means, exact.variances = (
        part.double() for part in (exact.weights, exact.means, exact.variances)
    )
    return exact


def test_diffusion_is_trained_to_say_what_its_sampler_takes():
    """Of all multiples of the exact v, itself leaves the least: the slope of the loss is 0 there, within five standard
    errors of 20,000 draws. And from it DDIM draws the data."""
    model, data = ExactVelocity(exact_ring()).double(), exact_ring()
    x = data.sample_data(20_000, torch.Generator().manual_seed(0))
    answer = model.forward
    losses = []
    for factor in (0.99, 1.01):
        model.forward = lambda x_t, t, y=None, a=factor: a * answer(x_t, torch.as_tensor(t).reshape(-1, 1))
        losses.append(model.loss(x, torch.Generator().manual_seed(1)))
    slope = (losses[1] - losses[0]) / 0.02
    assert abs(float(slope.mean())) < 5 * float(slope.std()) / 20_000**0.5
    model.forward = answer
    drawn = ExactVelocity(models.ring()).sample(4000, torch.Generator().manual_seed(2))
    shares = scoreboard.mode_shares(drawn, models.ring())
    assert torch.allclose(shares, models.ring().weights * (1 - math.exp(-4.5)), atol=0.03)


@pytest.mark.parametrize("make", [VAE, Flow, Diffusion])
def test_training_lowers_the_loss_and_repeats_itself(make, points):
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        losses.append([state.loss for state in training.fit(make(), points, 60)])
    assert losses[0] == losses[1]
    assert sum(losses[0][-10:]) < sum(losses[0][:10])


class Slope(torch.nn.Module):
    """Its loss has the gradient 1 everywhere, so that a step of Adam is as long as the rate."""

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def loss(self, x, generator=None):
        return self.w + 0 * x[:, 0]


def test_the_rate_falls_along_half_a_cosine(points):
    at = [0.0, *(state.model.w.item() for state in training.fit(Slope(), points, 8, rate=0.1))]
    expected = [-0.1 * (1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)]
    np.testing.assert_allclose(np.diff(at), expected, rtol=0, atol=1e-7)


def test_each_player_of_a_gan_pulls_its_own_way(points):
    """After one turn C tells real from made better, and holds what G makes now for real more than what it made."""
    torch.manual_seed(0)
    gan = models.GAN(width=16)
    before, z = copy.deepcopy(gan), torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    next(training.fit_gan(gan, points, 1))
    with torch.no_grad():
        made = before.G(z)
        told = [float(one.C(points).mean() - one.C(made).mean()) for one in (before, gan)]
        assert told[1] > told[0] and float(gan.C(gan.G(z)).mean()) > float(gan.C(made).mean())


def test_gan_trains_both_players_and_follow_collects_samples(points):
    torch.manual_seed(0)
    gan = models.GAN(width=16)
    before = [parameter.clone() for parameter in gan.parameters()]
    taken, state = training.follow(training.fit_gan(gan, points, 12), [1, 5], n=7)
    assert list(taken) == [1, 5] and taken[5].shape == (7, 2) and not taken[5].requires_grad
    assert state.step == state.steps == 12 and state.seconds > 0
    assert all((a != b).any() for a, b in zip(before, gan.parameters()))


@pytest.mark.parametrize("make", [VAE, models.GAN, Flow, Diffusion])
def test_samples_depend_on_the_generator_alone(make):
    model = make()
    one, two = (model.sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.shape == (5, 2) and torch.equal(one, two)


def test_spread_in_a_mode_has_a_direction(data):
    """A filament along the ring is long and thin there; real points have one width, that of a Gaussian cut at 3 std."""
    generator, mean = torch.Generator().manual_seed(0), data.means[models.RARE]
    outward = mean / mean.norm()
    along = torch.stack([-outward[1], outward[0]])
    a, b = torch.randn(2, 20_000, 1, generator=generator)
    assert scoreboard.spread_in_mode(mean + 0.06 * a * along + 0.02 * b * outward, data) == pytest.approx(
        (0.06, 0.02), rel=0.03
    )
    width = 0.12 * math.sqrt(1 - 4.5 * math.exp(-4.5) / (1 - math.exp(-4.5)))
    real = data.sample_data(400_000, generator)
    assert scoreboard.spread_in_mode(real, data) == pytest.approx((width, width), rel=0.05)


def test_mode_shares_and_hits(data):
    shares = scoreboard.mode_shares(data.means[:2].repeat_interleave(torch.tensor([3, 1]), 0), data)
    assert shares.tolist() == [0.75, 0.25, 0, 0, 0, 0, 0, 0]
    assert scoreboard.modes_hit(shares, data.weights) == 2
    assert scoreboard.modes_hit(data.weights / 4, data.weights) == 8


def test_energy_distance_is_zero_for_equals_and_known_for_points(data):
    a, b = torch.zeros(2, 1), torch.ones(3, 1)
    assert scoreboard.energy_distance(a, b) == pytest.approx(2.0)
    one, two = (data.sample_data(2000, torch.Generator().manual_seed(k)) for k in (1, 2))
    assert abs(scoreboard.energy_distance(one, two)) < 5e-3
    assert scoreboard.energy_distance(one, two + 1) > 0.1


def test_energy_distance_is_the_double_sum():
    """Pairs of a point with itself left out: of few points they would count."""
    a, b = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = b[:4] + 0.5

    def mean_of_pairs(points):
        pairs = [math.dist(p, q) for i, p in enumerate(points) for j, q in enumerate(points) if i != j]
        return sum(pairs) / len(pairs)

    across = sum(math.dist(p, q) for p in a.tolist() for q in b.tolist()) / 20
    expected = 2 * across - mean_of_pairs(a.tolist()) - mean_of_pairs(b.tolist())
    assert scoreboard.energy_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_evenly_takes_the_asked_shares():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    chosen = models.evenly(labels, [0.5, 0.4, 0.1], 20)
    assert torch.bincount(labels[chosen]).tolist() == [10, 8, 2]
    assert chosen[0] == 0 and chosen[9] == 49


def test_pca_returns_what_its_components_hold():
    images = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, part = models.PCA(images, 16), models.PCA(images, 5)
    assert torch.allclose(whole.decode(whole.encode(images)), images, atol=1e-4)
    assert whole.explained == pytest.approx(1.0) and part.explained < 1
    codes = part.encode(images)
    assert float(codes.square().mean()) == pytest.approx(1.0, abs=1e-4)
    assert torch.allclose(part.encode(part.decode(codes)), codes, atol=1e-4)


def test_sharpness_falls_with_blur():
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert scoreboard.sharpness(torch.nn.functional.avg_pool2d(images, 3, 1, 1)) < 0.6 * scoreboard.sharpness(images)
    assert scoreboard.sharpness(torch.ones(1, 1, 4, 4)) == 0.0
    ramp = torch.linspace(-1, 1, 5).expand(1, 1, 5, 5)  # 0.5 a pixel along one axis, 0 along the other
    assert scoreboard.sharpness(ramp) == scoreboard.sharpness(ramp.mT) == pytest.approx(0.25)


def test_scoreboard_knows_the_truth_from_a_blur(data):
    test = data.sample_data(2000, torch.Generator().manual_seed(1))
    board = scoreboard.Scoreboard(data, test, data.log_density(test, 0.0).quantile(0.01))
    assert "8 of 8" in board.mark("truth", data.sample_data, nll=0.5, kind="exact")
    board.mark("blur", Gaussian(test).sample, evaluations=3)
    truth, blur = board.rows["truth"], board.rows["blur"]
    assert abs(truth["off"] - 0.01) < 0.01 and blur["off"] > 0.5
    assert truth["energy"] < 0.005 < blur["energy"] and truth["rare"] == pytest.approx(0.02, abs=0.01)
    truth, blur = board.table().values()
    assert (truth["NLL"], truth["likelihood"]) == (0.5, "exact") and (blur["NLL"], blur["NFE"]) == (None, 3)
    assert board.samples["blur"].shape == (2000, 2)
