"""Likelihoods against closed forms: the bound of Gaussian data, its loss weights, and the probability-flow ODE."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from course_lib import schedules
from course_lib.denoisers import FunctionDenoiser, GaussianDenoiser, MixtureDenoiser
from course_lib.likelihood import (
    bits_per_dim,
    elbo_terms,
    gaussian_elbo_gap,
    gaussian_kl,
    ode_log_likelihood,
    optimal_variance,
    reverse_moments,
    standard_normal,
)
from course_lib.samplers import ddpm_step
from course_lib.schedules import uniform_times

DOUBLE = torch.float64
VARIANCE = 0.09
EXPLODING = schedules.VarianceExploding()


def gaussian(schedule):
    return GaussianDenoiser(torch.zeros(1, dtype=DOUBLE), torch.tensor([[VARIANCE]], dtype=DOUBLE), schedule)


def mixture(schedule):
    weights, std = torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE), torch.tensor([0.2, 0.3, 0.25], dtype=DOUBLE)
    means = torch.tensor([[-1.0, 0.5], [0.8, 0.9], [0.3, -1.0]], dtype=DOUBLE)
    return MixtureDenoiser(weights, means, std, schedule)


def quadrature(n=3):
    """(z1, z2, weights): the mean over two independent standard normals, exact for polynomials of degree 2 n - 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    nodes, weights = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    z = torch.cartesian_prod(nodes, nodes)
    return z[:, :1], z[:, 1:], torch.outer(weights, weights).flatten()


# ---- the bound -------------------------------------------------------------------------------------------------------


def test_reverse_moments_are_those_of_the_sampler():
    schedule, t, s = schedules.Cosine(), torch.tensor(0.7, dtype=DOUBLE), torch.tensor(0.4, dtype=DOUBLE)
    x_0, x_t = torch.randn(4, 2, dtype=DOUBLE), torch.randn(4, 2, dtype=DOUBLE)
    a, b, small, large = reverse_moments(schedule, t, s)
    known, seeded = FunctionDenoiser(lambda x, u: x_0, schedule), torch.Generator().manual_seed
    draw = lambda variance: ddpm_step(known, x_t, t, s, generator=seeded(0), variance=variance)[0]  # noqa: E731
    z = torch.randn(4, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(draw("small"), a * x_t + b * x_0 + small.sqrt() * z)
    torch.testing.assert_close(draw("large"), a * x_t + b * x_0 + large.sqrt() * z)


def test_gaussian_kl_is_torchs():
    mean_q, mean_p = torch.randn(5, 3, dtype=DOUBLE), torch.randn(5, 3, dtype=DOUBLE)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean_q, 0.4**0.5), normal(mean_p, 0.9**0.5)).sum(1)
    torch.testing.assert_close(gaussian_kl(mean_q, 0.4, mean_p, 0.9), expected)


@pytest.mark.parametrize("T", [10, 200, 1000])
@pytest.mark.parametrize("variance", ["small", "large", "optimal"])
@pytest.mark.parametrize("schedule", [schedules.Linear(), schedules.ScaledLinear(), schedules.Discrete.linear()])
def test_elbo_gap_is_its_closed_form(schedule, variance, T):
    """The mean of the terms over x_0 and eps, by quadrature that is exact for quadratics, minus the entropy: 1e-9."""
    if variance == "optimal":
        variance = partial(optimal_variance, schedule, data_variance=VARIANCE)
    z_0, eps, weights = quadrature()
    terms = elbo_terms(gaussian(schedule), VARIANCE**0.5 * z_0, uniform_times(T), variance, eps)
    assert terms.shape == (T + 1, 9)
    entropy = 0.5 * math.log(2 * math.pi * math.e * VARIANCE)
    gap = gaussian_elbo_gap(schedule, uniform_times(T), VARIANCE, variance)
    assert abs(float((terms @ weights).sum() - entropy - gap.sum())) < 1e-9


def test_gap_is_zero_with_the_optimal_variance_and_no_other():
    schedule, times = schedules.Linear(), uniform_times(50)
    optimal = gaussian_elbo_gap(schedule, times, VARIANCE, partial(optimal_variance, schedule, data_variance=VARIANCE))
    assert float(optimal[1:].abs().max()) < 1e-13
    assert float(optimal.sum()) < 1e-8  # the prior mismatch at abar_1 = 4e-5
    assert all(float(gaussian_elbo_gap(schedule, times, VARIANCE, v).sum()) > 0.01 for v in ("small", "large"))


def test_optimal_variance_lies_between_small_and_large():
    """Small is the optimum of data that are a point, large of data that are N(0, I) (Ho et al., 2020, sec. 3.2)."""
    schedule, t, s = schedules.Cosine(), torch.tensor(0.6, dtype=DOUBLE), torch.tensor(0.5, dtype=DOUBLE)
    _, _, small, large = reverse_moments(schedule, t, s)
    torch.testing.assert_close(optimal_variance(schedule, t, s, 0.0), small)
    torch.testing.assert_close(optimal_variance(schedule, t, s, 1.0), large)
    assert small < optimal_variance(schedule, t, s, 0.3) < large


def test_a_term_is_the_weighted_error_of_the_denoiser():
    """With the small variance a step costs (SNR(s) - SNR(t)) / 2 ||x_0 - D||^2 (Kingma et al., 2021, eq. 14)."""
    schedule, times = schedules.Cosine(), torch.linspace(0.98, 0, 21, dtype=DOUBLE)
    x_0, eps = torch.randn(6, 2, dtype=DOUBLE), torch.randn(6, 2, dtype=DOUBLE)
    terms = elbo_terms(mixture(schedule), x_0, times, "small", eps)
    for row, (t, s) in enumerate(zip(times[:-2], times[1:-1]), start=1):
        error = (x_0 - mixture(schedule)(schedule.noisy(x_0, eps, t), t)).square().sum(1)
        weight = (schedule.log_snr(s).exp() - schedule.log_snr(t).exp()) / 2
        torch.testing.assert_close(terms[row], weight * error, rtol=1e-9, atol=1e-12)


def test_the_bound_is_a_bound():
    """Mixture, exact D, 400 draws a point: mean of the terms above -log p by no less than -3 standard errors."""
    schedule = schedules.Linear()
    generator = torch.Generator().manual_seed(0)
    x_0 = mixture(schedule).sample_data(400, generator)
    for variance in ("small", "large"):
        bound = elbo_terms(mixture(schedule), x_0, uniform_times(100), variance, generator=generator).sum(0)
        slack = bound + mixture(schedule).log_density(x_0, 0.0)
        assert slack.mean() > -3 * slack.std() / 20


def test_wrong_variance_name_is_refused():
    with pytest.raises(ValueError, match="small"):
        elbo_terms(gaussian(schedules.Cosine()), torch.zeros(1, 1).double(), uniform_times(3), "tiny")


def test_bits_per_dim():
    assert abs(bits_per_dim(8 * math.log(2) * 10, 10) - 8) < 1e-12
    uniform = 10 * math.log(2)  # density 1/2 on [-1, 1], ten pixels
    assert abs(bits_per_dim(uniform, 10, levels=256) - 8) < 1e-12  # a uniform 8-bit pixel costs eight bits


# ---- the ODE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "t_max"),
    [
        (schedules.Linear(), 1.0),
        (schedules.Cosine(), 0.9),
        (schedules.RectifiedFlow(), 0.9),
        (schedules.VarianceExploding(), 0.8),
    ],
    ids=lambda v: type(v).__name__,
)
def test_ode_likelihood_is_the_density_when_the_end_is_exact(schedule, t_max):
    denoiser, t_min = mixture(schedule), float(schedule.time(min(18.0, schedule.log_snr_range()[1])))
    x = mixture(schedule).sample_data(8, torch.Generator().manual_seed(1))
    result = ode_log_likelihood(
        denoiser, x, 300, t_min, t_max, log_prior=lambda x_end: denoiser.log_density(x_end, t_max)
    )
    torch.testing.assert_close(result.log_p, denoiser.log_density(x, t_min), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "t_max"), [(EXPLODING, 1.0), (schedules.Linear(), 1.0), (schedules.RectifiedFlow(), 0.999)]
)
def test_the_prior_of_every_schedule_is_what_a_sampler_starts_from(schedule, t_max):
    """Pixels N(0, 0.09): N(0, (alpha^2 + sigma^2) I) is right for pixels N(0, 1), which hardly matters there."""
    x = torch.tensor([[-0.6], [0.0], [0.2], [0.9]], dtype=DOUBLE)
    t_min = 1e-3
    result = ode_log_likelihood(gaussian(schedule), x, 400, t_min, t_max)
    spread = schedule.alpha(t_min) ** 2 * VARIANCE + schedule.sigma(t_min) ** 2
    expected = torch.distributions.Normal(0.0, spread.sqrt()).log_prob(x)[:, 0]
    torch.testing.assert_close(result.log_p, expected, rtol=0, atol=2e-3)


def test_a_variance_of_the_model_may_be_a_plain_number():
    schedule, times, x = schedules.Cosine(), uniform_times(4), torch.zeros(2, 1, dtype=DOUBLE)
    tensor = lambda t, s: torch.full_like(torch.as_tensor(t), 0.01)  # noqa: E731
    eps = torch.ones(2, 1, dtype=DOUBLE)
    found, expected = (elbo_terms(gaussian(schedule), x, times, v, eps) for v in (lambda t, s: 0.01, tensor))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found, expected = (gaussian_elbo_gap(schedule, times, VARIANCE, v) for v in (lambda t, s: 0.01, tensor))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_prior_mismatch_is_the_rest():
    """From N(0, I) the answer is off by log N(x_end) - log p_t(x_end), to the solver's digits."""
    schedule = schedules.ScaledLinear()
    denoiser, x = mixture(schedule), mixture(schedule).sample_data(8, torch.Generator().manual_seed(1))
    result = ode_log_likelihood(denoiser, x, 300, t_min=1e-4)
    mismatch = standard_normal(result.x_end) - denoiser.log_density(result.x_end, 1.0)
    error = result.log_p - denoiser.log_density(x, 1e-4)
    torch.testing.assert_close(error, mismatch, rtol=0, atol=1e-6)
    assert float(mismatch.abs().max()) > 1e-3


def test_ode_solver_is_of_fourth_order():
    schedule = schedules.Linear()
    denoiser, x = mixture(schedule), mixture(schedule).sample_data(8, torch.Generator().manual_seed(1))
    ending = lambda x_end: denoiser.log_density(x_end, 1.0)  # noqa: E731
    errors = [
        (ode_log_likelihood(denoiser, x, n, log_prior=ending).log_p - denoiser.log_density(x, 1e-4)).abs().max()
        for n in (60, 240)
    ]
    assert 3.3 < math.log(float(errors[0] / errors[1])) / math.log(4) < 4.7


def test_gaussian_stretches_by_its_own_standard_deviation():
    """On N(0, c) the flow is linear, x_end = x * sqrt(c_end / c_start), so all of the divergence is a logarithm."""
    schedule, ends = schedules.Linear(), torch.tensor([1e-4, 1.0], dtype=DOUBLE)
    c = schedule.alpha(ends) ** 2 * VARIANCE + schedule.sigma(ends) ** 2
    x = torch.tensor([[0.1], [-0.4]], dtype=DOUBLE)
    result = ode_log_likelihood(gaussian(schedule), x, 300)
    torch.testing.assert_close(result.x_end, x * (c[1] / c[0]).sqrt(), rtol=1e-7, atol=0)
    log_p = -(x[:, 0] ** 2 / c[0] + math.log(2 * math.pi) + c[0].log()) / 2
    torch.testing.assert_close(result.log_p, log_p, rtol=0, atol=1e-4)


def test_hutchinson_is_right_within_its_standard_error():
    schedule = schedules.Linear()
    denoiser, x = mixture(schedule), mixture(schedule).sample_data(40, torch.Generator().manual_seed(1))
    exact = ode_log_likelihood(denoiser, x, 60)
    random = ode_log_likelihood(denoiser, x, 60, probes=16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(random.x_end, exact.x_end)
    assert exact.standard_error is None and random.standard_error.shape == (40,)
    z = (random.log_p - exact.log_p) / random.standard_error
    assert 0.5 < float(z.square().mean().sqrt()) < 1.6
    one = ode_log_likelihood(denoiser, x[:2], 10, probes=1, generator=torch.Generator().manual_seed(2))
    assert one.standard_error is None  # one probe cannot tell its own error


def test_images_keep_their_shape():
    schedule = schedules.Linear()
    flat = GaussianDenoiser(torch.zeros(4, dtype=DOUBLE), 0.09 * torch.eye(4, dtype=DOUBLE), schedule)
    denoiser = FunctionDenoiser(lambda x, t: flat(x.flatten(1), t).reshape(x.shape), schedule)
    x = 0.3 * torch.randn(3, 1, 2, 2, dtype=DOUBLE)
    result = ode_log_likelihood(denoiser, x, 100)
    assert result.x_end.shape == x.shape and result.log_p.shape == (3,)
    torch.testing.assert_close(result.log_p, ode_log_likelihood(flat, x.flatten(1), 100).log_p)
    random = ode_log_likelihood(denoiser, x, 100, probes=2)  # an isotropic Gaussian: every probe is exact
    torch.testing.assert_close(random.log_p, result.log_p, rtol=0, atol=1e-9)


def test_likelihood_names_what_does_not_fit():
    schedule, x = schedules.Cosine(), torch.zeros(2, 1).double()
    D = gaussian(schedule)
    for sentence, make in {
        "steps must be a whole number from 1 on": lambda: ode_log_likelihood(D, x, 0, 1e-4, 0.9),
        "probes must be a whole number from 1 on": lambda: ode_log_likelihood(D, x, 5, 1e-4, 0.9, probes=0),
        "signal at t_max; got 0.0001 and 1.0": lambda: ode_log_likelihood(D, x, 5),
        "noise at t_min": lambda: ode_log_likelihood(D, x, 5, 0.0, 0.9),
        "t_min < t_max": lambda: ode_log_likelihood(D, x, 5, 0.9, 0.1),
        "the last of the times must be 0": lambda: elbo_terms(D, x, uniform_times(5)[:-1]),
        "let the times fall": lambda: elbo_terms(D, x, torch.tensor([0.5, 0.7, 0.0])),
        "VarianceExploding keeps noise of 0.002 at t = 0": lambda: elbo_terms(gaussian(EXPLODING), x, uniform_times(5)),
        "needs a schedule without": lambda: gaussian_elbo_gap(EXPLODING, uniform_times(5), VARIANCE),
        "dims must be a whole number from 1 on": lambda: bits_per_dim(1.0, 0),
        "levels must be a whole number from 1 on": lambda: bits_per_dim(1.0, 4, levels=0),
    }.items():
        with pytest.raises(ValueError, match=sentence):
            make()
