"""Inverse problems: every method on a Gaussian, where the truth, and what each method draws, are known exactly."""

import math

import pytest
import torch

from course_lib.denoisers import Counted, GaussianDenoiser
from course_lib.inverse import ddnm, renoise, repaint_times, replacement
from course_lib.operators import Downsample, Mask
from course_lib.samplers import ddim_step, ddpm_step, last, reverse_moments, sample
from course_lib.schedules import Cosine, Discrete, Linear, uniform_times

RHO, KNOWN = 0.9, 1.5
COV = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)
MASK = Mask(torch.tensor([1, 0]))
N = 10_000


def noise(n=N, d=2, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(schedule, times, step, seed=1):
    """Samples (N,) of the unknown x_2, given x_1 = 1.5."""
    y = torch.tensor([KNOWN, 0.0], dtype=torch.float64)
    states = sample(
        GaussianDenoiser(torch.zeros(2, dtype=torch.float64), COV, schedule),
        schedule,
        noise(),
        times,
        replacement(MASK, y, step),
        torch.Generator().manual_seed(seed),
    )
    x = last(states)
    assert (x[:, 0] == KNOWN).all()
    return x[:, 1]


def exact_moments(schedule, times):
    """Mean and standard deviation of x_2 that replacement with DDPM steps draws, up to rounding: every step is affine.

    A step down maps x_t to a x_t + b K x_t + noise with the matrix K of the denoiser, then overwrites x_1; a step up
    scales and adds noise. Mean and covariance follow.
    """
    mean, cov, identity = torch.zeros(2).double(), torch.eye(2).double(), torch.eye(2).double()
    for t, s in zip(times[:-1], times[1:]):
        alpha_t, alpha_s, var_t, var_s = (
            schedule.alpha(t),
            schedule.alpha(s),
            schedule.sigma(t) ** 2,
            schedule.sigma(s) ** 2,
        )
        if s > t:
            factor = alpha_s / alpha_t
            mean, cov = factor * mean, factor**2 * cov + (var_s - factor**2 * var_t) * identity
            continue
        a, b, small, _ = reverse_moments(schedule, t, s)
        gain = alpha_t * COV @ torch.linalg.inv(alpha_t**2 * COV + var_t * identity)
        M = a * identity + b * gain
        mean, cov = M @ mean, M @ cov @ M.T + small * identity
        mean, cov = torch.stack([alpha_s * KNOWN, mean[1]]), torch.diag(torch.stack([var_s, cov[1, 1]]))
    return float(mean[1]), float(cov[1, 1].sqrt())


SCHEDULES = {"cosine": Cosine(), "linear": Linear(), "table of 1000": Discrete.linear(1000)}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(("steps", "rounds", "jump"), [(50, 1, 1), (250, 1, 1), (50, 10, 1), (48, 5, 6), (7, 3, 3)])
def test_replacement_and_repaint_draw_what_their_formulas_say(schedule, steps, rounds, jump):
    times = repaint_times(uniform_times(steps), rounds, jump)
    x = drawn(schedule, times, ddpm_step)
    mean, std = exact_moments(schedule, times)
    assert abs(x.mean() - mean) < 4.5 * std / math.sqrt(N)
    assert abs(x.std() - std) < 4.5 * std / math.sqrt(2 * N)


def test_replacement_is_biased_to_the_prior_however_many_steps_and_repaint_closes_the_gap():
    exact, exact_std = RHO * KNOWN, math.sqrt(1 - RHO**2)
    plain = [exact_moments(Cosine(), uniform_times(n)) for n in (50, 250, 1000)]
    for mean, std in plain:
        assert 0 < mean < exact - 0.3
        assert std > exact_std + 0.1
    means = [exact_moments(Cosine(), repaint_times(uniform_times(250), rounds))[0] for rounds in (1, 2, 5, 10, 40)]
    assert means == sorted(means)
    assert abs(means[-1] - exact) < 0.03


def test_a_grid_that_turns_back():
    a, b, c, d, e = times = uniform_times(4)
    assert repaint_times(times, rounds=1).tolist() == times.tolist()
    assert repaint_times(times[2:], rounds=2).tolist() == [c, d, c, d, e, d, e]
    assert repaint_times(times, rounds=2, jump=2).tolist() == [a, b, c, a, b, c, d, e, c, d, e]
    assert repaint_times(times, rounds=2, jump=3).tolist() == [a, b, c, d, a, b, c, d, e, d, e]
    counted = Counted(GaussianDenoiser(torch.zeros(2).double(), COV, Cosine()))
    last(sample(counted, Cosine(), noise(4), repaint_times(times, 10), replacement(MASK, torch.zeros(2))))
    assert counted.evaluations == 4 * 10
    with pytest.raises(ValueError, match="from 1 on"):
        repaint_times(times, rounds=0)
    with pytest.raises(ValueError, match="from 1 on"):
        repaint_times(times, jump=0)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_noise_added_on_the_way_up_gives_the_marginal_of_the_later_time(schedule):
    s, t = 0.3, 0.55
    x_0 = torch.full((N, 1), 0.7, dtype=torch.float64)
    x_t = renoise(schedule.noisy(x_0, noise(d=1), s), s, t, schedule, torch.Generator().manual_seed(1))
    mean, std = 0.7 * schedule.alpha(t), schedule.sigma(t)
    assert abs(x_t.mean() - mean) < 4.5 * std / math.sqrt(N)
    assert abs(x_t.std() - std) < 4.5 * std / math.sqrt(2 * N)


def test_with_everything_known_the_known_comes_back_and_with_nothing_known_the_step_is_untouched():
    schedule, x = Cosine(), noise(16)
    denoiser = GaussianDenoiser(torch.zeros(2).double(), COV, schedule)
    y = noise(16, seed=5)
    times = uniform_times(8)
    for step in (ddpm_step, ddim_step):
        known = last(sample(denoiser, schedule, x, times, replacement(Mask(torch.ones(2)), y, step)))
        torch.testing.assert_close(known, y, rtol=0, atol=0)
    free = last(sample(denoiser, schedule, x, times, replacement(Mask(torch.zeros(2)), y, ddim_step)))
    torch.testing.assert_close(free, last(sample(denoiser, schedule, x, times, ddim_step)), rtol=0, atol=0)


def test_what_stands_in_the_hole_of_y_is_ignored():
    schedule, x = Cosine(), noise(16)
    denoiser = GaussianDenoiser(torch.zeros(2).double(), COV, schedule)
    results = []
    for filling in (0.0, 99.0):
        step = replacement(MASK, torch.tensor([KNOWN, filling]).double())
        results.append(last(sample(denoiser, schedule, x, uniform_times(8), step, torch.Generator().manual_seed(2))))
    torch.testing.assert_close(*results, rtol=0, atol=1e-9)


@pytest.mark.parametrize("A", [Mask(torch.arange(64).reshape(8, 8) % 3 > 0), Downsample(2), Downsample(4)])
def test_ddnm_fits_the_measurement_and_takes_the_rest_from_the_denoiser(A):
    def denoiser(x_t, t):
        return torch.sin(3 * x_t) * t

    x_t, truth = noise(3, 64).reshape(3, 1, 8, 8), noise(3, 64, seed=9).reshape(3, 1, 8, 8)
    fitted = ddnm(denoiser, A, A(truth))(x_t, 0.4)
    torch.testing.assert_close(A(fitted), A(truth), rtol=0, atol=1e-12)
    change = fitted - denoiser(x_t, 0.4)  # nothing is changed in the null space of A
    torch.testing.assert_close(A.pinv(A(change)), change, rtol=0, atol=1e-12)


def test_ddnm_on_the_gaussian_draws_what_its_formula_says_and_fits_the_measurement_exactly():
    """D' of x_2 is K_21 x_1 + K_22 x_2, as before; but x_1 is pulled to y by the step, not overwritten."""
    schedule, times = Cosine(), uniform_times(50)
    denoiser = GaussianDenoiser(torch.zeros(2).double(), COV, schedule)
    y = torch.tensor([KNOWN, 0.0]).double()
    states = sample(ddnm(denoiser, MASK, y), schedule, noise(), times, ddpm_step, torch.Generator().manual_seed(3))
    x = last(states)
    mean, cov, identity = torch.zeros(2).double(), torch.eye(2).double(), torch.eye(2).double()
    hole = torch.diag(torch.tensor([0.0, 1.0]).double())
    for t, s in zip(times[:-1], times[1:]):
        a, b, small, _ = reverse_moments(schedule, t, s)
        alpha, var = schedule.alpha(t), schedule.sigma(t) ** 2
        M = a * identity + b * hole @ (alpha * COV @ torch.linalg.inv(alpha**2 * COV + var * identity))
        mean, cov = M @ mean + b * y, M @ cov @ M.T + small * identity
    assert (x[:, 0] == KNOWN).all()
    assert abs(x[:, 1].mean() - mean[1]) < 4.5 * cov[1, 1].sqrt() / math.sqrt(N)
    assert abs(x[:, 1].std() - cov[1, 1].sqrt()) < 4.5 * cov[1, 1].sqrt() / math.sqrt(2 * N)
