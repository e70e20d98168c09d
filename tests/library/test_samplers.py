"""Denoisers and samplers against closed forms, and against MONAI's schedulers where these are right."""

import math
from functools import partial

import pytest
import torch

from course_lib import experiments, guidance, schedules
from course_lib.denoisers import (
    Counted,
    EmpiricalDenoiser,
    FunctionDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    NetworkDenoiser,
)
from course_lib.experiments import samplers, targets
from course_lib.samplers import STEPS, ddim_step, ddpm_step, dpmpp_2m_step, euler_step, heun_step, sample, trajectory
from course_lib.schedules import log_snr_times, uniform_times

DOUBLE = torch.float64


def gaussian_1d(schedule, mean=0.0, std=0.3):
    return GaussianDenoiser(torch.tensor([mean], dtype=DOUBLE), torch.tensor([[std**2]], dtype=DOUBLE), schedule)


def mixture(schedule):
    means = torch.tensor([[-1.0, 0.5], [0.8, 0.9], [0.3, -1.0]], dtype=DOUBLE)
    return MixtureDenoiser(
        torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE), means, torch.tensor([0.2, 0.3, 0.25]).double(), schedule
    )


# ---- denoisers ------------------------------------------------------------------------------------------------------


def test_gaussian_denoiser_is_the_conditional_mean():
    """Against the textbook formula with an explicit inverse, correlated case, one time per example."""
    schedule = schedules.Cosine()
    mean, factor = torch.tensor([0.5, -1.0, 2.0], dtype=DOUBLE), torch.randn(3, 3, dtype=DOUBLE)
    cov = factor @ factor.T
    x_t, t = torch.randn(5, 3, dtype=DOUBLE), torch.linspace(0.1, 0.9, 5, dtype=DOUBLE)
    answer = GaussianDenoiser(mean, cov, schedule)(x_t, t)
    for k in range(5):
        a, s = schedule.alpha(t[k]), schedule.sigma(t[k])
        gain = a * cov @ torch.linalg.inv(a**2 * cov + s**2 * torch.eye(3, dtype=DOUBLE))
        torch.testing.assert_close(answer[k], mean + gain @ (x_t[k] - a * mean), rtol=0, atol=1e-10)


def test_gaussian_denoiser_takes_pixels_that_never_change():
    """Images with a constant background have a singular covariance; there the answer is the mean."""
    images = torch.zeros(50, 300)
    images[:, :40] = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    answer = GaussianDenoiser(images.mean(0), torch.cov(images.T), schedules.Cosine())(torch.randn(4, 300), 0.5)
    assert answer.dtype == torch.float32 and answer.isfinite().all()
    torch.testing.assert_close(answer[:, 40:], torch.zeros(4, 260), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "schedule", [schedules.Cosine(), schedules.VarianceExploding(0.01, 5.0), schedules.RectifiedFlow()]
)
def test_mixture_denoiser_obeys_tweedie(schedule):
    """D = (x_t + sigma^2 grad log p_t) / alpha, the gradient by autograd (Efron, JASA 2011)."""
    denoiser = mixture(schedule)
    x_t = torch.randn(20, 2, dtype=DOUBLE, requires_grad=True)
    for t in (0.1, 0.5, 0.9):
        (score,) = torch.autograd.grad(denoiser.log_density(x_t, t).sum(), x_t)
        expected = (x_t + schedule.sigma(t) ** 2 * score) / schedule.alpha(t)
        torch.testing.assert_close(denoiser(x_t, t), expected, rtol=0, atol=1e-9)


def test_mixture_density_integrates_to_one():
    denoiser = mixture(schedules.Cosine())
    axis = torch.linspace(-5, 5, 401, dtype=DOUBLE)
    grid = torch.cartesian_prod(axis, axis)
    total = denoiser.log_density(grid, 0.4).exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(float(total) - 1) < 1e-9


@pytest.mark.parametrize("d", [1, 2, 5])
def test_mixture_of_unequal_spreads_in_any_dimension_is_torchs_and_obeys_tweedie(d):
    """log p_t against torch.distributions, to 1e-10; D = (x_t + sigma^2 grad log p_t) / alpha, to 1e-9."""
    schedule, generator = schedules.Cosine(), torch.Generator().manual_seed(d)
    weights, std = torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE), torch.tensor([0.1, 0.6, 1.5], dtype=DOUBLE)
    means, x_t = (torch.randn(n, d, dtype=DOUBLE, generator=generator) for n in (3, 9))
    denoiser = MixtureDenoiser(weights, means, std, schedule)
    alpha, sigma = schedule.alpha(0.4), schedule.sigma(0.4)
    spread = (alpha**2 * std**2 + sigma**2).sqrt()[:, None].expand(3, d)
    parts = torch.distributions.Independent(torch.distributions.Normal(alpha * means, spread), 1)
    theirs = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), parts)
    x_t.requires_grad_()
    expected = theirs.log_prob(x_t)
    torch.testing.assert_close(denoiser.log_density(x_t, 0.4), expected, rtol=0, atol=1e-10)
    (score,) = torch.autograd.grad(expected.sum(), x_t)
    torch.testing.assert_close(denoiser(x_t, 0.4), (x_t + sigma**2 * score) / alpha, rtol=0, atol=1e-9)


def test_mixture_of_one_is_the_gaussian():
    schedule = schedules.Cosine()
    mean = torch.tensor([[0.4, -0.3]], dtype=DOUBLE)
    x_t = torch.randn(7, 2, dtype=DOUBLE)
    one = MixtureDenoiser(torch.ones(1, dtype=DOUBLE), mean, 0.5, schedule)
    other = GaussianDenoiser(mean[0], 0.25 * torch.eye(2, dtype=DOUBLE), schedule)
    torch.testing.assert_close(one(x_t, 0.3), other(x_t, 0.3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("t", [0.3, torch.tensor([0.2, 0.4, 0.8])], ids=["one time", "own times"])
def test_empirical_denoiser_is_the_mixture_of_spikes(t):
    schedule = schedules.Cosine()
    data = torch.randn(6, 1, 2, 2, dtype=DOUBLE)
    x_t = torch.randn(3, 1, 2, 2, dtype=DOUBLE)
    spikes = MixtureDenoiser(torch.full((6,), 1 / 6, dtype=DOUBLE), data.flatten(1), 1e-9, schedule)
    expected = spikes(x_t.flatten(1), t).reshape(x_t.shape)
    torch.testing.assert_close(EmpiricalDenoiser(data, schedule)(x_t, t), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["x0", "eps", "v", "score", "flow"])
def test_network_denoiser_inverts_each_target(kind):
    """A "network" that returns the true target must denoise to the true image; classes are passed on."""
    schedule = schedules.Cosine()
    x_0, eps, t = torch.rand(4, 1, 8, 8) - 0.5, torch.randn(4, 1, 8, 8), torch.tensor([0.2, 0.4, 0.6, 0.8])
    alpha, sigma = schedule.alpha(t).view(-1, 1, 1, 1), schedule.sigma(t).view(-1, 1, 1, 1)
    seen = []

    def net(x_t, t, y):
        seen.append(y)
        return {"x0": x_0, "eps": eps, "v": alpha * eps - sigma * x_0, "score": -eps / sigma, "flow": eps - x_0}[kind]

    answer = NetworkDenoiser(net, schedule, kind)(alpha * x_0 + sigma * eps, t, y="the class")
    torch.testing.assert_close(answer, x_0, rtol=0, atol=1e-5)
    assert seen == ["the class"]


# ---- samplers: the variance of a Gaussian ---------------------------------------------------------------------------
# Every step is affine in x_t when the data are Gaussian, so the sampled variance obeys a scalar recursion, written out
# here from the definition q(x_s | x_t, x_0) and not from the code under test.


def ddpm_variance(schedule, times, std):
    var = 1.0
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        a_t, a_s = float(schedule.alpha(t)), float(schedule.alpha(s))
        b_t, b_s = float(schedule.sigma(t)) ** 2, float(schedule.sigma(s)) ** 2
        gain = a_t * std**2 / (a_t**2 * std**2 + b_t)  # D = gain x_t
        step = b_t - (a_t / a_s) ** 2 * b_s
        factor = (a_t / a_s) * b_s / b_t + a_s * step / b_t * gain
        var = factor**2 * var + step * b_s / b_t
    return var


def ddim_variance(schedule, times, std):
    factor = 1.0
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        a_t, a_s, s_t, s_s = (float(f(u)) for f in (schedule.alpha, schedule.sigma) for u in (t, s))
        gain = a_t * std**2 / (a_t**2 * std**2 + s_t**2)
        factor *= a_s * gain + s_s * (1 - a_t * gain) / s_t
    return factor**2


@pytest.mark.parametrize("n", [10, 50, 1000])
@pytest.mark.parametrize("table", [schedules.Discrete.linear(), schedules.Cosine()], ids=["table", "cosine"])
def test_sampled_variance_of_a_gaussian(n, table):
    """DDPM with 200,000 draws: standard error of the variance 0.3 %, tolerance 1 % of the closed form; DDIM, which
    draws nothing on the way, with 1,000, exactly. Respaced when n < 1000."""
    std, times = 0.3, uniform_times(n)
    generator = torch.Generator().manual_seed(n)
    noise = torch.randn(200_000 if n < 1000 else 100_000, 1, dtype=DOUBLE, generator=generator)
    denoiser = gaussian_1d(table, std=std)
    for step, closed_form, draws, within in (
        (ddpm_step, ddpm_variance, len(noise), 0.01),
        (ddim_step, ddim_variance, 1000, 1e-6),
    ):
        x_1 = (noise[:draws] - noise[:draws].mean()) / noise[:draws].std()
        result = sample(denoiser, x_1, times, step, generator)
        assert abs(float(result.var()) / closed_form(table, times, std) - 1) < within, step.__name__


def test_respaced_ddpm_tends_to_the_data():
    """The closed form itself goes to the true variance as n grows, and is off by a known amount at n = 10."""
    table = schedules.Discrete.linear()
    errors = [abs(ddpm_variance(table, uniform_times(n), 0.3) / 0.09 - 1) for n in (10, 50, 1000)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.03


def test_ddim_with_eta_one_is_ddpm():
    schedule, x_t = schedules.Cosine(), torch.randn(50, 2, dtype=DOUBLE)
    for t, s in ((0.9, 0.7), (0.5, 0.1)):
        one, _ = ddim_step(mixture(schedule), x_t, t, s, generator=torch.Generator().manual_seed(1), eta=1.0)
        other, _ = ddpm_step(mixture(schedule), x_t, t, s, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_large_variance_is_that_of_the_forward_step():
    schedule, x_t = schedules.Discrete.linear(), torch.zeros(200_000, 1, dtype=DOUBLE)
    step = partial(ddpm_step, generator=torch.Generator().manual_seed(0), variance="large")
    x_s, _ = step(gaussian_1d(schedule), x_t, 0.5, 0.499)
    assert abs(float(x_s.var()) / float(schedule.betas[499]) - 1) < 0.02


# ---- samplers: order -------------------------------------------------------------------------------------------------


SMOOTH = schedules.VarianceExploding(0.02, 10.0)


def from_noise(n, step):
    """64 points of the mixture from the same noise, in n steps of Karras' grid; it stops at 0.05, still smooth."""
    x_1 = 10.0 * torch.randn(64, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    return sample(mixture(SMOOTH), x_1, schedules.karras_times(SMOOTH, n + 1, 0.05, 10.0)[:-1], step)


@pytest.fixture(scope="module")
def truth():
    """Where Heun's method comes to in 5,000 steps."""
    return from_noise(5_000, heun_step)


def order_of(step, truth, steps=(80, 160, 320)):
    """Slope of the global error on an exact mixture."""
    errors = [float((from_noise(n, step) - truth).square().mean().sqrt()) for n in steps]
    return math.log(errors[0] / errors[-1]) / math.log(steps[-1] / steps[0])


@pytest.mark.parametrize(
    ("step", "order"),
    [(euler_step, 1), (ddim_step, 1), (heun_step, 2), (dpmpp_2m_step, 2)],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_global_order(step, order, truth):
    assert abs(order_of(step, truth) - order) < 0.25


@pytest.mark.parametrize("schedule", [schedules.Cosine(), schedules.Linear(), schedules.VarianceExploding()])
def test_ddim_is_euler_and_first_order_dpm(schedule):
    """Three derivations, one step: DDIM, Euler in sigma / alpha, and DPM-Solver++ without a past (to 1e-12)."""
    x_t = torch.randn(30, 2, dtype=DOUBLE)
    for t, s in ((0.9, 0.6), (0.6, 0.1), (0.3, 0.0)):
        results = [step(mixture(schedule), x_t, t, s)[0] for step in (ddim_step, euler_step, dpmpp_2m_step)]
        torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(results[2], results[0], rtol=0, atol=1e-12)


def test_all_samplers_reach_the_mixture():
    """Share of each component within 3 standard errors of its weight, from 4,000 samples at 60 steps."""
    schedule = schedules.Cosine()
    denoiser, n = mixture(schedule), 4000
    for name, step in STEPS.items():
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(n, 2, dtype=DOUBLE, generator=generator)
        result = sample(denoiser, x, log_snr_times(schedule, 60), step, generator)
        shares = torch.bincount(torch.cdist(result, denoiser.means).argmin(1), minlength=3) / n
        exact = denoiser.sample_data(200_000, torch.Generator().manual_seed(4))
        wanted = torch.bincount(torch.cdist(exact, denoiser.means).argmin(1), minlength=3) / 200_000
        assert ((shares - wanted).abs() < 3 * (wanted * (1 - wanted) / n).sqrt() + 0.01).all(), name


def test_states_and_evaluations():
    """n + 1 states from t = 1 to t = 0; one evaluation a step, Heun two but for the last."""
    schedule = schedules.Cosine()
    for step, evaluations in ((ddim_step, 10), (dpmpp_2m_step, 10), (heun_step, 19)):
        denoiser = Counted(mixture(schedule))
        states = list(trajectory(denoiser, torch.randn(3, 2, dtype=DOUBLE), log_snr_times(schedule, 10), step))
        assert len(states) == 11 and states[-1].t == 0 and states[0].x_0 is None
        assert denoiser.evaluations == evaluations
        torch.testing.assert_close(
            states[-1].x_t, states[-1].x_0, rtol=0, atol=1e-12
        )  # at t = 0 the sample is the denoised image


def test_the_step_before_brings_its_time_its_image_and_its_x_t():
    seen = []

    def step(denoiser, x_t, t, s, previous=None, generator=None):
        seen.append(previous)
        return ddim_step(denoiser, x_t, t, s)

    states = list(trajectory(mixture(schedules.Cosine()), torch.randn(3, 2, dtype=DOUBLE), uniform_times(3), step))
    assert seen[0] is None
    for previous, before, after in zip(seen[1:], states, states[1:]):
        assert previous.t == before.t and previous.x_t is before.x_t and previous.x_0 is after.x_0
        t, x_0 = previous  # the pair that 2M unpacks
        assert t == previous.t and x_0 is previous.x_0
        assert len(previous) == 2 and previous[0] == t and previous[1] is previous[-1] is x_0


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (lambda x: x, r"float64 \(2, 3\)"),  # a tensor of two images is no pair
        (lambda x: None, "None"),
        (lambda x: (x,), "a tuple of 1"),
        (lambda x: (x, x, x), "a tuple of 3"),
        (lambda x: (x[:, :1], x), r"\(float64 \(2, 1\), float64 \(2, 3\)\)"),
        (lambda x: (x, x[:1]), r"\(float64 \(2, 3\), float64 \(1, 3\)\)"),
        (lambda x: (x.long(), x), r"\(int64 \(2, 3\), "),
        (lambda x: (None, x), r"\(None, "),
        (lambda x: (x, 0.5), r"\(float64 \(2, 3\), 0.5\)"),
    ],
)
def test_a_step_that_returns_something_else_is_refused(returned, found):
    def mine(denoiser, x_t, t, s, previous=None, generator=None):
        return returned(x_t)

    denoiser = FunctionDenoiser(lambda x, t: 0 * x, schedules.Cosine())
    message = r"mine must return the pair \(x_s, x_0\), two tensors of floats of the shape of x_t, \(2, 3\): .*; got "
    for step in (mine, partial(mine)):
        with pytest.raises(ValueError, match=message + found):
            sample(denoiser, torch.zeros(2, 3, dtype=DOUBLE), uniform_times(2), step)


def test_a_step_that_asks_for_no_image_may_say_so():
    def renoised(denoiser, x_t, t, s, previous=None, generator=None):
        return 2 * x_t, None

    denoiser = FunctionDenoiser(lambda x, t: 0 * x, schedules.Cosine())
    assert sample(denoiser, torch.ones(2, 3), uniform_times(2), renoised).tolist() == [[4.0] * 3] * 2


def test_a_condition_that_is_bound_keeps_the_schedule():
    """Of every denoiser and every guidance, and as often as one is bound."""
    told = FunctionDenoiser(lambda x, t, y=None: x * 0 + (0.0 if y is None else y), schedules.Linear(0.2, 10.0))
    net = NetworkDenoiser(lambda x, t, y: 0 * x, told.schedule, "x0")
    guided = guidance.ClassifierFree(told, 0.0, 2.0), guidance.Autoguidance(told, told, 2.0), guidance.Clipped(told)
    for denoiser in (told, net, Counted(told), *guided, told.given(0.5)):
        assert denoiser.given(torch.tensor(0.5)).schedule is told.schedule
    x = sample(told.given(0.5), torch.ones(2, 1), uniform_times(2))
    torch.testing.assert_close(x, torch.full((2, 1), 0.5), rtol=0, atol=1e-6)


def test_empirical_denoiser_only_copies():
    schedule, data = schedules.Cosine(), torch.randn(5, 1, 3, 3, dtype=DOUBLE)
    x = torch.randn(20, 1, 3, 3, dtype=DOUBLE)
    result = sample(EmpiricalDenoiser(data, schedule), x, log_snr_times(schedule, 40))
    assert torch.cdist(result.flatten(1), data.flatten(1)).min(1).values.max() < 1e-3


# ---- MONAI -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def monai():
    from monai.networks import schedulers

    return schedulers


def test_table_is_monais(monai):
    for name, table in (
        ("linear_beta", schedules.Discrete.linear()),
        ("scaled_linear_beta", schedules.Discrete(torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=DOUBLE) ** 2)),
    ):
        ends = {"beta_start": float(table.betas[0]), "beta_end": float(table.betas[-1])}
        theirs = monai.DDPMScheduler(1000, schedule=name, **ends).alphas_cumprod.double()
        ours = table.alpha(torch.arange(1, 1001, dtype=DOUBLE) / 1000) ** 2
        torch.testing.assert_close(
            ours, theirs, rtol=2e-4, atol=2e-6
        )  # theirs is a product of 1000 single-precision factors


@pytest.mark.parametrize("index", [999, 500, 100, 1, 0])
def test_ddpm_step_is_monais_for_neighbours(monai, index):
    """MONAI's DDPMScheduler.step, right as long as it walks all T steps, element by element."""
    table = schedules.Discrete.linear()
    theirs = monai.DDPMScheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False)
    x_t, eps = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    t = torch.tensor((index + 1) / 1000, dtype=DOUBLE)
    denoiser = FunctionDenoiser(lambda x, u: (x - table.sigma(u) * eps) / table.alpha(u), table)
    ours, x_0 = ddpm_step(
        denoiser,
        x_t,
        t,
        t - 1 / 1000 if index else torch.zeros((), dtype=DOUBLE),
        generator=torch.Generator().manual_seed(5),
    )
    expected, expected_x_0 = theirs.step(eps, index, x_t, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(x_0, expected_x_0, rtol=2e-4, atol=2e-3 if index > 900 else 1e-4)
    rtol = 1e-5 if index > 1 else 5e-4  # MONAI's 1 - abar loses digits in single precision where abar is nearly 1
    torch.testing.assert_close(ours, expected, rtol=rtol, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_step_is_monais_on_a_matching_grid(monai, eta):
    """MONAI's DDIMScheduler.step at T / 50 apart, where its stride is right, element by element."""
    table = schedules.Discrete.linear()
    theirs = monai.DDIMScheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False)
    theirs.set_timesteps(50)
    x_t, eps = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    denoiser = FunctionDenoiser(lambda x, u: (x - table.sigma(u) * eps) / table.alpha(u), table)
    for index in (980, 500, 20):
        t = torch.tensor((index + 1) / 1000, dtype=DOUBLE)
        step = partial(ddim_step, eta=eta, generator=torch.Generator().manual_seed(5))
        ours, _ = step(denoiser, x_t, t, t - 20 / 1000)
        expected, _ = theirs.step(eps, index, x_t, eta=eta, generator=torch.Generator().manual_seed(5))
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-4)


# ---- samplers backwards ----------------------------------------------------------------------------------------------


def test_ddim_inversion_is_first_order():
    """There and back again on an exact mixture: ten times more steps, a tenth of the round trip's median error."""
    schedule = schedules.Cosine()
    denoiser = mixture(schedule)
    x_0 = denoiser.sample_data(200, torch.Generator().manual_seed(1))

    def round_trip(n):
        times = schedules.karras_times(schedule, n + 1)[:-1]
        encoded = sample(denoiser, x_0, times.flip(0), ddim_step)
        return float((sample(denoiser, encoded, times, ddim_step) - x_0).norm(dim=1).median())

    assert abs(math.log10(round_trip(50) / round_trip(500)) - 1) < 0.15


# ---- the record of notebook 04 ---------------------------------------------------------------------------------------


def test_a_row_of_the_record_can_be_remade():
    """One set of 60 images at 5 evaluations, anew: the same distance but for the precision of this machine."""
    rows = experiments.load("04_samplers")["rows"]
    row = next(row for row in rows if (row["sampler"], row["nfe"], row["seed"]) == ("2M, even log-SNR", 5, 0))
    remade, _ = samplers.measure(row["sampler"], row["nfe"], row["seed"])
    assert abs(remade["frechet_distance"] / row["frechet_distance"] - 1) < 0.1


def test_the_study_of_samplers_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="choose one of"):
        samplers.draw_set("PNDM", 5, 0)
    with pytest.raises(ValueError, match="odd number"):
        samplers.draw_set("Heun, even log-SNR", 10, 0)


@pytest.mark.parametrize("name", list(samplers.SAMPLERS))
def test_samplers_of_the_record_spend_what_they_say(name):
    schedule = schedules.Cosine()
    step, times = samplers.SAMPLERS[name]
    counted = Counted(mixture(schedule))
    sample(counted, torch.randn(3, 2, dtype=DOUBLE), times(schedule, 9), step)
    assert counted.evaluations == 9


def test_record_names_both_kinds_of_real_images():
    """As on the card of the features: unseen images lie farther from the reference than other training images."""
    record = experiments.load("04_samplers")
    assert len(record["floor"]) == len(record["unseen"]) == samplers.FLOOR_DRAWS
    assert sum(record["unseen"]) > sum(record["floor"])


# ---- the record of notebook 03 ---------------------------------------------------------------------------------------


def test_best_linear_denoiser_errs_as_its_closed_form():
    """Independent pixels of variance c: E (x_0 - D)^2 = c sigma^2 / (alpha^2 c + sigma^2), the mean over the pixels."""
    variances = torch.tensor([0.01, 0.09, 0.25, 1.0]).reshape(1, 1, 2, 2)
    noise = torch.randn(2, 20_000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    seen, held_out = variances.sqrt() * noise
    found = targets.errors(targets.best_linear(seen), held_out)
    for level, rms in zip(targets.LEVELS, found):
        t = level / targets.T
        alpha, sigma = targets.TABLE.alpha(t), targets.TABLE.sigma(t)
        wanted = (variances * sigma**2 / (alpha**2 * variances + sigma**2)).mean().sqrt()
        assert abs(rms / wanted - 1) < 0.02


def test_record_of_targets_says_what_notebook_03_says():
    record = experiments.load("03_targets")
    for row in record["rows"]:
        assert len(row["per_cent_of_linear"]) == len(record["levels"]) == len(targets.LEVELS)
    keys = {(row["data"], row["seed"], row["kind"]): row["per_cent_of_linear"] for row in record["rows"]}
    assert {data for data, _, _ in keys} == {"brain", "mednist"}
    at_100, at_900 = (targets.LEVELS.index(level) for level in (100, 900))
    for data, seed, kind in keys:
        eps, v = keys[data, seed, "eps"], keys[data, seed, "v"]
        assert eps[at_900] > 2 * v[at_900]
        assert eps[at_100] < v[at_100]


def test_a_row_of_targets_is_in_per_cent_of_the_linear_denoiser(monkeypatch):
    pictures = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(targets, "images", lambda: {"brain": (pictures, pictures)})
    monkeypatch.setattr(targets, "trained", lambda kind, seen, seed: targets.best_linear(seen))
    assert targets.plan() == [{"data": "brain", "kind": kind, "seed": 0} for kind in ("eps", "v")]
    assert targets.measure("brain", "v", 0) == ({"per_cent_of_linear": [100.0] * 12}, {})


@pytest.mark.parametrize("kind", targets.KINDS)
def test_a_network_of_the_record_of_targets_trains(kind):
    pictures = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    denoiser = targets.trained(kind, pictures, seed=0, steps=2)
    assert denoiser(pictures, 0.5).shape == pictures.shape


def test_a_denoiser_binds_its_condition_and_keeps_its_schedule():
    schedule = schedules.Cosine()
    told = FunctionDenoiser(lambda x_t, t, y: x_t * y[:, None], schedule)
    x_t, y = torch.ones(2, 3), torch.tensor([2.0, 5.0])
    assert told.given(y).schedule is schedule
    torch.testing.assert_close(told.given(y)(x_t, 0.5), torch.tensor([[2.0] * 3, [5.0] * 3]), rtol=0, atol=0)
    counted = Counted(told)
    counted.given(y)(x_t, 0.5)
    assert (counted.evaluations, counted.images) == (1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_networks_denoiser_answers_in_the_type_of_x_t(dtype, precision):
    """The network computes in its own type and precision; the sampler's arithmetic keeps that of x_t."""
    net = torch.nn.Conv2d(1, 1, 3, padding=1)
    seen = []

    class Asked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net

        def forward(self, x_t, t, y):
            seen.append((x_t.dtype, self.inner(x_t).dtype))
            return self.inner(x_t)

    x_t = torch.randn(2, 1, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0))
    D = NetworkDenoiser(Asked(), schedules.Cosine(), "x0", precision=precision)(x_t, 0.5)
    assert D.dtype == dtype and seen == [(torch.float32, precision)]
    torch.testing.assert_close(
        D.float(), net(x_t.float()).detach(), rtol=0, atol=1e-6 if precision == torch.float32 else 0.02
    )
