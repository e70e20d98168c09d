"""Inverse problems: every method on a Gaussian, where the truth, and what each method draws, are known exactly."""

import math

import pytest
import torch

from course_lib import inverse
from course_lib.denoisers import Counted, Denoiser, FunctionDenoiser, GaussianDenoiser
from course_lib.inverse import (
    ddnm,
    diffpir,
    diffpir_step,
    dps,
    dps_step,
    pigdm,
    renoise,
    repaint_times,
    replacement,
    tv,
)
from course_lib.operators import Downsample, KSpace, Mask, sampled_lines
from course_lib.samplers import ddim_step, ddpm_step, heun_step, reverse_moments, sample
from course_lib.schedules import Cosine, Discrete, Linear, RectifiedFlow, log_snr_times, uniform_times

RHO, KNOWN = 0.9, 1.5
COV = torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64)
MASK = Mask(torch.tensor([1, 0]))
N = 10_000


def noise(n=N, d=2, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(schedule, times, step, seed=1):
    """Samples (N,) of the unknown x_2, given x_1 = 1.5."""
    y = torch.tensor([KNOWN, 0.0], dtype=torch.float64)
    x = sample(
        GaussianDenoiser(torch.zeros(2, dtype=torch.float64), COV, schedule),
        noise(),
        times,
        replacement(MASK, y, step),
        torch.Generator().manual_seed(seed),
    )
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
    sample(counted, noise(4), repaint_times(times, 10), replacement(MASK, torch.zeros(2)))
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
        known = sample(denoiser, x, times, replacement(Mask(torch.ones(2)), y, step))
        torch.testing.assert_close(known, y, rtol=0, atol=0)
    free = sample(denoiser, x, times, replacement(Mask(torch.zeros(2)), y, ddim_step))
    torch.testing.assert_close(free, sample(denoiser, x, times, ddim_step), rtol=0, atol=0)


def test_what_stands_in_the_hole_of_y_is_ignored():
    schedule, x = Cosine(), noise(16)
    denoiser = GaussianDenoiser(torch.zeros(2).double(), COV, schedule)
    results = []
    for filling in (0.0, 99.0):
        step = replacement(MASK, torch.tensor([KNOWN, filling]).double())
        results.append(sample(denoiser, x, uniform_times(8), step, torch.Generator().manual_seed(2)))
    torch.testing.assert_close(*results, rtol=0, atol=1e-9)


@pytest.mark.parametrize("A", [Mask(torch.arange(64).reshape(8, 8) % 3 > 0), Downsample(2), Downsample(4)])
def test_ddnm_fits_the_measurement_and_takes_the_rest_from_the_denoiser(A):
    denoiser = FunctionDenoiser(lambda x_t, t: torch.sin(3 * x_t) * t, Cosine())
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
    x = sample(ddnm(denoiser, MASK, y), noise(), times, ddpm_step, torch.Generator().manual_seed(3))
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


# ---- noisy measurements of a Gaussian: the posterior is known --------------------------------------------------------

SIGMA_Y = 0.5
ALL = Mask(torch.ones(1))
Y = torch.full((1, 1), 1.5, dtype=torch.float64)  # posterior of x_0 ~ N(0, 1): mean 1.5 / 1.25, variance 0.25 / 1.25


def standard(schedule):
    return GaussianDenoiser(torch.zeros(1).double(), torch.eye(1).double(), schedule)


def moments_of(guided, schedule, times, step):
    """Exact mean and standard deviation of what a linear sampler draws: each step is x_s = p x_t + q + r z.

    r from two points at one place, p and q with a third at another.
    """
    mean, var = torch.zeros(1).double(), torch.ones(1).double()
    points = torch.tensor([[0.0], [0.0], [1.0]]).double()
    for t, s in zip(times[:-1], times[1:]):
        x_s, _ = step(guided, points, t, s, generator=torch.Generator().manual_seed(0))
        z = torch.randn(3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        r = (x_s[1] - x_s[0]) / (z[1] - z[0])
        q = x_s[0] - r * z[0]
        p = x_s[2] - r * z[2] - q
        mean, var = p * mean + q, p**2 * var + r**2
    return float(mean), float(var.sqrt())


@pytest.mark.parametrize("schedule", [Cosine(), Linear()], ids=["cosine", "linear"])
def test_dps_is_biased_and_pigdm_is_not(schedule):
    """Exact limits, no sampling noise: DPS by the SDE 1.473/0.350, PiGDM the posterior 1.200/0.447."""
    D, times = standard(schedule), log_snr_times(schedule, 1500, max(-14.0, schedule.log_snr_range()[0]), 14.0)
    mean, std = moments_of(dps(D, ALL, Y, SIGMA_Y), schedule, times, ddpm_step)
    assert (mean, std) == (pytest.approx(1.473, abs=0.002), pytest.approx(0.350, abs=0.002))
    mean, std = moments_of(pigdm(D, ALL, Y, SIGMA_Y), schedule, times, ddpm_step)
    assert (mean, std) == (pytest.approx(1.2, abs=0.002), pytest.approx(0.2**0.5, abs=0.003))


@pytest.mark.parametrize("spread", [1.0, 0.4])
@pytest.mark.parametrize("A", [Mask(torch.tensor([1, 0, 1, 1])), None], ids=["mask", "matrix"])
def test_pigdm_is_the_exact_posterior_mean_for_isotropic_data(A, spread):
    """E[x_0 | x_t, y] by conditioning the joint Gaussian, for any time; its own r_t needs the true spread."""
    if A is None:
        M = noise(4, 3, seed=5)  # y = M^T x

        class A:
            adjoint = staticmethod(lambda y: y @ M.T)

            def __new__(cls, x):
                return x @ M

    schedule, y = Cosine(), A(noise(1, 4, seed=2)) + 0.1
    D = GaussianDenoiser(torch.zeros(4).double(), spread**2 * torch.eye(4).double(), schedule)
    x_t = noise(5, 4, seed=3)
    matrix = A(torch.eye(4).double()).T  # (m, 4)
    for t in (0.2, 0.6, 0.9):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        precision = torch.eye(4) * (spread**-2 + alpha**2 / sigma**2) + matrix.T @ matrix / SIGMA_Y**2
        expected = torch.linalg.solve(precision, (alpha / sigma**2 * x_t + y @ matrix / SIGMA_Y**2).T).T
        found = pigdm(D, A, y, SIGMA_Y, spread)(x_t, torch.tensor(t, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_dps_is_the_gradient_of_its_likelihood():
    """Against automatic differentiation of -||y - A D(x_t)||^2 / (2 sigma_y^2), complex measurement included."""
    schedule, t = Cosine(), torch.tensor(0.4, dtype=torch.float64)

    class Curved(Denoiser):
        def __init__(self):
            self.schedule = schedule

        def __call__(self, x_t, t):
            return torch.tanh(x_t) + 0.1 * x_t.roll(1, -1)

    A, D = KSpace(sampled_lines(12, 3, torch.Generator().manual_seed(0))), Curved()
    x_t, x_0 = noise(4, 144, seed=0).reshape(4, 1, 12, 12), noise(4, 144, seed=1).reshape(4, 1, 12, 12)
    y, x = A(x_0), x_t.clone().requires_grad_()
    distance = (y - A(D(x, t))).abs().square().sum((1, 2, 3))
    gradient = torch.autograd.grad(-(distance / (2 * SIGMA_Y**2)).sum(), x, retain_graph=True)[0]
    expected = (D(x_t, t) + schedule.sigma(t) ** 2 / schedule.alpha(t) * gradient).detach()
    torch.testing.assert_close(dps(D, A, y, SIGMA_Y)(x_t, t), expected, rtol=0, atol=1e-10)
    uphill = torch.autograd.grad(distance.sqrt().sum(), x)[0]
    steps = [dps_step(A, y, scale, ddim_step)(D, x_t, t, t / 2)[0] for scale in (0.0, 0.7)]
    torch.testing.assert_close(steps[0], ddim_step(D, x_t, t, t / 2)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(steps[1], steps[0] - 0.7 * uphill, rtol=0, atol=1e-10)


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_diffpir_solves_its_problem_and_is_exact_with_the_right_weight(weight):
    schedule, t = Cosine(), torch.tensor(0.5, dtype=torch.float64)
    A = KSpace(sampled_lines(12, 3, torch.Generator().manual_seed(0)))
    x_t, y = noise(2, 144, seed=0).reshape(2, 1, 12, 12), A(noise(2, 144, seed=1).reshape(2, 1, 12, 12))

    def D(x, t):
        return x.sin()

    D.schedule = schedule
    rho = weight * SIGMA_Y**2 * schedule.alpha(t) ** 2 / schedule.sigma(t) ** 2
    x = D(x_t, t).requires_grad_()
    x_star = diffpir(D, A, y, SIGMA_Y, weight)(x_t, t).requires_grad_()
    objective = (y - A(x_star)).abs().square().sum() + rho * (x_star - x.detach()).square().sum()
    assert torch.autograd.grad(objective, x_star)[0].abs().max() < 1e-5
    # data N(0, 1): the variance given x_t is sigma^2 / (alpha^2 + sigma^2); solve for the weight
    exact = standard(schedule)
    right = float((schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) / schedule.alpha(t) ** 2)
    a, b = diffpir(exact, ALL, Y, SIGMA_Y, right), pigdm(exact, ALL, Y, SIGMA_Y)
    torch.testing.assert_close(a(Y, t), b(Y, t), rtol=0, atol=1e-6)


def test_diffpir_step_mixes_old_and_new_noise():
    schedule, D = Cosine(), standard(Cosine())
    t, s = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    x_t = noise(3, 1)
    torch.testing.assert_close(diffpir_step(D, x_t, t, s, zeta=0.0)[0], ddim_step(D, x_t, t, s)[0], rtol=0, atol=1e-12)
    x_t = torch.full((50_000, 1), 0.7, dtype=torch.float64)
    x_s, x_0 = diffpir_step(D, x_t, t, s, generator=torch.Generator().manual_seed(0), zeta=1.0)
    assert float(x_s.mean() - schedule.alpha(s) * x_0.mean()) == pytest.approx(0, abs=0.01)
    assert float(x_s.std()) == pytest.approx(float(schedule.sigma(s)), rel=0.02)


@pytest.mark.parametrize("method", [dps, pigdm, diffpir])
def test_noise_must_be_positive(method):
    with pytest.raises(ValueError, match="noise must be positive"):
        method(standard(Cosine()), ALL, Y, 0.0)


def test_tv_cannot_be_improved():
    """No small change lowers the objective; and a flat image stays flat."""
    A = KSpace(sampled_lines(24, 3, torch.Generator().manual_seed(0)))
    truth = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    truth[..., 6:18, 8:14] = 1
    y, weight = A(truth), 0.05

    def objective(x):
        down, right = torch.diff(x, dim=2, append=x[:, :, -1:]), torch.diff(x, dim=3, append=x[..., -1:])
        return 0.5 * (y - A(x)).abs().square().sum() + weight * (down**2 + right**2).sqrt().sum()

    x = tv(A, y, weight, iterations=200)
    best = objective(x)
    assert best < objective(A.adjoint(y)) and best < objective(truth)
    for seed in range(20):
        change = noise(24, 24, seed).reshape(1, 1, 24, 24)
        assert objective(x + 1e-3 * change) > best - 1e-4
    assert (x - truth).square().mean() < 0.2 * (A.adjoint(y) - truth).square().mean()


def test_tv_takes_the_momentum_of_fista():
    """x_0 to x_3 by hand from single steps (Beck & Teboulle 2009, (4.1) to (4.3)): no momentum before the second."""
    A, weight = KSpace(sampled_lines(24, 3, torch.Generator().manual_seed(0))), 0.05
    y = A(pictures(1, 1, 24, 24))
    start = z = x = A.adjoint(y)
    momentum = 1.0
    for k in range(1, 4):
        new, after = tv(A, y, weight, 1, start=z), (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        z, x, momentum = new + (momentum - 1) / after * (new - x), new, after
        torch.testing.assert_close(tv(A, y, weight, k, start=start), x, rtol=0, atol=1e-9)


# ---- the ends of the schedule, and measurements that are met ---------------------------------------------------------


class Smooth(Denoiser):
    """A denoiser that is no line, with its schedule."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, x_t, t):
        return 0.5 * torch.tanh(x_t) + 0.1 * x_t.roll(1, -1)


def pictures(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


OPERATORS = {
    "k-space": KSpace(sampled_lines(12, 3, torch.Generator().manual_seed(0))),
    "k-space, odd sides": KSpace(sampled_lines(15, 3, torch.Generator().manual_seed(0))),
    "mask": Mask(torch.arange(12) % 3 > 0),
    "mean over 2 x 2": Downsample(2),
}


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow()], ids=["cosine", "flow"])
@pytest.mark.parametrize("A", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_diffpir_without_signal_is_its_limit(schedule, A, kind):
    """Of all images that fit y, the nearest to D; and what a vanishing rho gives, in double precision."""
    side = 15 if A is OPERATORS["k-space, odd sides"] else 12
    D, x_t, y = Smooth(schedule), pictures(2, 1, side, side), A(pictures(2, 1, side, side, seed=1))
    found = diffpir(D, A, y, SIGMA_Y)(x_t, torch.tensor(1.0, dtype=kind))
    torch.testing.assert_close(A(found), y, rtol=0, atol=1e-12)
    change = found - D(x_t, 1.0)
    torch.testing.assert_close(A.pinv(A(change)), change, rtol=0, atol=1e-12)
    near = diffpir(D, A, y, SIGMA_Y)(x_t, schedule.time(-14.0))
    torch.testing.assert_close(found, near, rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow()], ids=["cosine", "flow"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1.0, 0.4])
def test_pigdm_without_signal_is_the_posterior_mean_of_its_own_data(schedule, kind, spread):
    """Without a look at x_0, N(0, c^2 I) given y has the mean c^2 A^T (c^2 A A^T + sigma_y^2 I)^-1 y."""
    D = GaussianDenoiser(torch.zeros(4).double(), spread**2 * torch.eye(4).double(), schedule)
    A, y = Mask(torch.tensor([1, 0, 1, 1])), pictures(5, 4, seed=2) * torch.tensor([1, 0, 1, 1])
    found = pigdm(D, A, y, SIGMA_Y, spread)(pictures(5, 4), torch.tensor(1.0, dtype=kind))
    torch.testing.assert_close(found, spread**2 / (spread**2 + SIGMA_Y**2) * y, rtol=0, atol=1e-6)
    near = pigdm(D, A, y, SIGMA_Y, spread)(pictures(5, 4), schedule.time(-16.0))
    torch.testing.assert_close(found, near, rtol=0, atol=1e-2)


def test_dps_has_no_limit_without_signal_and_says_so():
    with pytest.raises(ValueError, match="no signal at t = 1: DPS starts a little later"):
        dps(standard(Cosine()), ALL, Y, SIGMA_Y)(Y, 1.0)


@pytest.mark.parametrize("A", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_dps_leaves_a_met_measurement_alone(A, kind):
    """The norm of y - A D has no slope at zero but 0: the step is plain DDPM there, image by image."""
    side = 15 if A is OPERATORS["k-space, odd sides"] else 12
    D, schedule, x_t = Smooth(Cosine()), Cosine(), pictures(3, 1, side, side).to(kind)
    y = A(D(x_t, 0.5)).clone()
    y[2] += A(pictures(1, 1, side, side, seed=4).to(kind))[0]
    g = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    found, _ = dps_step(A, y, 0.5)(D, x_t, 0.5, 0.4, schedule, generator=g())
    plain, _ = ddpm_step(D, x_t, 0.5, 0.4, generator=g())
    torch.testing.assert_close(found[:2], plain[:2], rtol=0, atol=0)
    assert found.isfinite().all() and float((found[2] - plain[2]).norm()) > 0.05


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_dps_does_not_take_rounding_for_a_residual(kind):
    """One part in the last digit of y: scaled to a norm of 1 it would be a step as long as any other."""
    A = KSpace(sampled_lines(12, 2, torch.Generator().manual_seed(0)))
    D, x_t = Smooth(Cosine()), pictures(2, 1, 12, 12).to(kind)
    y = A(D(x_t, 0.5)) * (1 + 2 * torch.finfo(kind).eps)
    found, _ = dps_step(A, y, 0.5, ddim_step)(D, x_t, 0.5, 0.4)
    torch.testing.assert_close(found, ddim_step(D, x_t, 0.5, 0.4)[0], rtol=0, atol=0)


def test_dps_with_nothing_known_is_the_prior():
    D, x = standard(Cosine()), noise(8, 1)
    nothing, g = Mask(torch.zeros(1)), lambda: torch.Generator().manual_seed(1)
    found, plain = (
        sample(D, x, uniform_times(10), step, g()) for step in (dps_step(nothing, torch.zeros(1, 1), 0.5), ddpm_step)
    )
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


LINES = [line.strip() for line in inverse.__doc__.splitlines() if line.startswith("    ")]
SETTINGS = [line for line in LINES if not line.startswith("x = ")]


@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), Discrete.linear()], ids=["cosine", "flow", "table"])
@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("x = ")], ids=lambda line: line.split()[-1])
def test_the_lines_of_the_modules_docstring_work_as_they_stand(schedule, line):
    """Pixels N(0, 1/4), three in four known: all lines fill the rest with what the prior has."""
    assert len(LINES) == 8
    x_true = 0.5 * pictures(2, 1, 24, 24, seed=7)
    known, sigma_y, eps = torch.arange(24) % 4 > 0, 0.05, pictures(2, 1, 24, 24, seed=8)
    flat = GaussianDenoiser(torch.zeros(1).double(), 0.25 * torch.eye(1).double(), schedule)

    denoiser = FunctionDenoiser(lambda x_t, t: flat(x_t.reshape(-1, 1), t).reshape(x_t.shape), schedule)
    names = {**vars(inverse), "Mask": Mask, "sample": sample, "uniform_times": uniform_times}
    names |= {"log_snr_times": log_snr_times, "denoiser": denoiser, "schedule": schedule, "eps": eps, "known": known}
    names |= {"x_true": x_true, "sigma_y": sigma_y, "y": Mask(known)(x_true)}
    torch.manual_seed(0)
    for code in [*SETTINGS, line]:
        exec(code, names)
    x = names["x"]
    apart = float((x - x_true)[..., known].std())  # 0.7 without a measurement; PiGDM takes the data for N(0, 1)
    assert apart < {"DPS": 0.6, "PiGDM": 0.1}.get(line.split()[-1], 0.06)
    assert 0.2 < float(x[..., ~known].std()) < 0.7


def test_arguments_of_inverse_problems_beyond_their_range():
    D = standard(Cosine())
    for sentence, make in {
        "spread must be positive": lambda: pigdm(D, ALL, Y, SIGMA_Y, spread=0.0),
        "weight must be positive": lambda: diffpir(D, ALL, Y, SIGMA_Y, weight=-1.0),
        "scale must be 0 or more": lambda: dps_step(ALL, Y, -0.5),
        "noise must be positive, got nan": lambda: diffpir(D, ALL, Y, math.nan),
        "times must fall": lambda: repaint_times(uniform_times(5).flip(0)),
        "rounds must be a whole number from 1 on, got 2.5": lambda: repaint_times(uniform_times(5), 2.5),
        "let the times fall": lambda: renoise(Y, 0.5, 0.4, Cosine()),
        "iterations must be a whole number": lambda: tv(ALL, Y, 0.1, iterations=0),
    }.items():
        with pytest.raises(ValueError, match=sentence):
            make()
    with pytest.raises(ValueError, match="weight must be positive"):
        tv(ALL, Y, -0.1)
    with pytest.raises(ValueError, match="let the times fall"):
        sample(D, noise(4, 1), repaint_times(uniform_times(5)), ddpm_step)


@pytest.mark.parametrize("log_snr", [-20.0, -8.0, -4.0, 0.0, 8.0])
def test_diffpir_is_right_in_single_precision_however_little_the_denoiser_counts(log_snr):
    """Against double precision: rho goes down to 1e-12, and nothing that rounding left is divided by it."""
    A, D = KSpace(sampled_lines(96, 4, torch.Generator().manual_seed(0))), Smooth(Cosine())
    x_t, y = pictures(1, 1, 96, 96), A(pictures(1, 1, 96, 96, seed=1))
    t = Cosine().time(log_snr)
    single = diffpir(D, A, y.to(torch.complex64), 0.02, 0.3)(x_t.float(), t)
    torch.testing.assert_close(single.double(), diffpir(D, A, y, 0.02, 0.3)(x_t, t), rtol=0, atol=1e-4)


def test_what_an_operator_lacks_is_named_by_the_method_that_needs_it():
    """``pinv`` for DDNM at once, for DiffPIR at t = 1 alone; ``adjoint`` for all others at once."""

    class Seen:
        def __call__(self, x):
            return x[:, :1]

    class Both(Seen):
        def adjoint(self, y):
            return torch.cat([y, torch.zeros_like(y)], 1)

    D, y = GaussianDenoiser(torch.zeros(2).double(), COV, Cosine()), torch.tensor([[KNOWN]]).double()
    for make in (ddnm, lambda D, A, y: diffpir(D, A, y, 0.1)(noise(3), torch.tensor(1.0))):
        with pytest.raises(ValueError, match="(ddnm|diffpir at t = 1) needs operator.pinv, A.. y, .*; Both has none"):
            make(D, Both(), y)
    assert diffpir(D, Both(), y, 0.1)(noise(3), torch.tensor(0.9).double()).shape == (3, 2)
    for name, make in {
        "dps": lambda A: dps(D, A, y, 0.1),
        "dps_step": lambda A: dps_step(A, y, 0.5),
        "pigdm": lambda A: pigdm(D, A, y, 0.1),
        "diffpir": lambda A: diffpir(D, A, y, 0.1),
        "tv": lambda A: tv(A, y, 0.1),
    }.items():
        with pytest.raises(ValueError, match=f"{name} needs operator.adjoint, A.T y; Seen has none: write it"):
            make(Seen())


# ---- at the edges ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [dps, pigdm, diffpir])
def test_guidance_by_a_measurement_wants_one_time_for_the_batch(method):
    D, x_t = method(Smooth(Cosine()), Mask(torch.ones(4)), noise(4, 4, 1), SIGMA_Y), noise(4, 4)
    with pytest.raises(ValueError, match=r"t must be one time for the whole batch, got \(4,\)"):
        D(x_t, torch.full((4,), 0.5))
    torch.testing.assert_close(D(x_t, 0.5), D(x_t, torch.tensor([0.5], dtype=torch.float64)))


@pytest.mark.parametrize("method", [dps, pigdm, diffpir])
@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow(), Linear()], ids=["cosine", "flow", "linear"])
def test_without_noise_the_denoiser_is_right_and_stays(method, schedule):
    D, A, x = standard(schedule), Mask(torch.ones(1)), noise(5, 1)
    torch.testing.assert_close(method(D, A, Y, SIGMA_Y)(x, 0.0), x, rtol=0, atol=1e-12)
    almost = method(D, A, Y, SIGMA_Y)(x, 1e-6)  # the limit
    torch.testing.assert_close(almost, x, rtol=0, atol=1e-3)


def test_dps_lets_a_step_of_second_order_ask_again():
    """With scale 0 it is Heun's step itself; with another, that less the gradient by automatic differentiation."""
    D, A, x_t = Counted(Smooth(Cosine())), Mask(torch.arange(4) % 2), noise(3, 4)
    y, plain = noise(3, 4, 1), heun_step(D, x_t, 0.6, 0.4)[0]
    D.evaluations = 0
    torch.testing.assert_close(dps_step(A, y, 0.0, heun_step)(D, x_t, 0.6, 0.4)[0], plain, rtol=0, atol=1e-12)
    assert D.evaluations == 2
    found = dps_step(A, A(y), 0.3, heun_step)(D, x_t, 0.6, 0.4)[0]
    x = x_t.clone().requires_grad_()
    uphill = torch.autograd.grad((A(y) - A(D(x, 0.6))).norm(dim=1).sum(), x)[0]
    torch.testing.assert_close(found, plain - 0.3 * uphill, rtol=0, atol=1e-10)


def test_what_stands_in_the_hole_of_a_measurement_may_be_nan():
    D, x, g = Smooth(Cosine()), noise(3, 2), lambda: torch.Generator().manual_seed(1)
    for fill in (0.0, float("nan")):
        y = torch.tensor([[KNOWN, fill]]).double()
        found = sample(D, x, uniform_times(5), replacement(MASK, y), g())
        consistent = ddnm(D, MASK, y)(x, 0.5)
        assert found.isfinite().all() and (consistent[:, 0] == KNOWN).all() and consistent.isfinite().all()
        if fill == 0:
            plain = found, consistent
    assert torch.equal(found, plain[0]) and torch.equal(consistent, plain[1])


def test_a_grid_that_turns_back_is_made_of_one():
    for times in ([1.0, 0.5, 0.0], uniform_times(3)[None]):
        with pytest.raises(ValueError, match="times must be"):
            repaint_times(times)
