"""The ends of every schedule: grids that start and stop with it, steps and denoisers where no signal or noise is left.

The data are one pixel, N(0, 1/4), with its exact denoiser. The ODE then scales every point by the standard deviation of
the marginal, so a start of that of t = 1 ends at 0.5, and one of pure noise, sigma_1, at the share of it that is noise.
"""

import math
from functools import partial

import pytest
import torch

from course_lib import schedules
from course_lib.denoisers import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser, NetworkDenoiser
from course_lib.generate import generate
from course_lib.guidance import ClassifierGuided, Clipped
from course_lib.inverse import diffpir_step
from course_lib.losses import EDMLoss
from course_lib.predictions import convert, target, to_x0
from course_lib.samplers import (
    STEPS,
    consistency_step,
    ddim_step,
    ddpm_step,
    dpmpp_2m_step,
    euler_step,
    heun_step,
    reverse_moments,
    sample,
)

DOUBLE = torch.float64
STD = 0.5
ALL = {
    "cosine": schedules.Cosine(),
    "linear": schedules.Linear(),
    "flow": schedules.RectifiedFlow(),
    "scaled linear": schedules.ScaledLinear(),
    "exploding": schedules.VarianceExploding(),
    "exploding, small range": schedules.VarianceExploding(0.02, 10.0),
    "table of 1000": schedules.Discrete.linear(),
    "table of 50": schedules.Discrete.linear(50),
    "table of 4000": schedules.Discrete.linear(4000, 2.5e-5, 0.005),
}
GRIDS = {
    "uniform": lambda schedule, n: schedules.uniform_times(n),
    "log-SNR": schedules.log_snr_times,
    "Karras": schedules.karras_times,
    "Karras levels": lambda schedule, n: torch.cat([schedules.karras_levels(schedule, n), torch.zeros(1).double()]),
}
each_schedule = pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)
NO_SIGNAL = [schedules.Cosine(), schedules.RectifiedFlow()]


def exact(schedule):
    return GaussianDenoiser(torch.zeros(1).double(), STD**2 * torch.eye(1).double(), schedule)


def marginal(schedule, t):
    """The standard deviation of x_t."""
    return math.sqrt(float(schedule.alpha(t)) ** 2 * STD**2 + float(schedule.sigma(t)) ** 2)


def unit_noise(n=4000):
    z = torch.randn(n, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    return (z - z.mean()) / z.std()


# ---- grids -----------------------------------------------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_every_grid_falls_through_what_the_schedule_has(schedule, grid, n):
    times = grid(schedule, n)
    assert len(times) == n + 1 and times[-1] == 0 and float(times[0]) <= 1
    assert (times.diff() < -1e-12).all()


@each_schedule
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_step_on_every_grid_draws_the_data_or_says_why_not(schedule, grid, step):
    """100 steps: 0.5 up to the error of the step and of 4,000 draws."""
    times = grid(schedule, 100)
    start = marginal(schedule, times[0]) * unit_noise()
    ask = (exact(schedule), start, times, step, torch.Generator().manual_seed(1))
    if schedules.has_no_signal(schedule, times[0]) and step in (euler_step, heun_step):
        with pytest.raises(ValueError, match="no signal at t = 1"):
            sample(*ask)
        return
    second_order = step in (heun_step, dpmpp_2m_step) and grid is not GRIDS["uniform"]
    assert float(sample(*ask).std()) == pytest.approx(STD, rel=0.015 if second_order else 0.12)


@pytest.mark.parametrize("name", ["scaled linear", "table of 50"])
@pytest.mark.parametrize(("n", "error"), [(10, 0.035), (20, 0.012), (50, 0.0025)])
def test_second_order_from_the_first_time_of_a_schedule_that_keeps_signal(name, n, error):
    """Pure noise at t = 1 ends at 0.5 sigma_1 / std(x_1) with exact steps; 2M comes near with the square of n."""
    schedule = ALL[name]
    times = schedules.log_snr_times(schedule, n)
    found = float(sample(exact(schedule), unit_noise(), times, dpmpp_2m_step).std())
    assert found == pytest.approx(STD / marginal(schedule, 1.0), rel=error)
    for grid in (times, schedules.uniform_times(n), schedules.karras_times(schedule, n)):  # steps of other lengths, too
        found = float(sample(exact(schedule), unit_noise(), grid, dpmpp_2m_step).std())
        assert found == pytest.approx(two_m_by_hand(schedule, grid.tolist()), rel=1e-9)


def two_m_by_hand(schedule, times):
    """The factor that 2M puts on x, from Algorithm 2 of DPM-Solver++ with plain numbers."""
    alpha, sigma = ([float(f(t)) for t in times] for f in (schedule.alpha, schedule.sigma))
    half_snr = [math.log(a / s) if s else math.inf for a, s in zip(alpha, sigma)]
    x, before, width = 1.0, None, None
    for i in range(len(times) - 1):
        D = alpha[i] * STD**2 / (alpha[i] ** 2 * STD**2 + sigma[i] ** 2) * x
        h = half_snr[i + 1] - half_snr[i]
        guess = D if before is None or math.isinf(h) else (1 + h / (2 * width)) * D - h / (2 * width) * before
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * math.expm1(-h) * guess
        before, width = D, h
    return x


def test_default_ranges_are_the_usual_ones_where_a_schedule_has_them():
    for name in ("cosine", "linear", "flow"):
        schedule = ALL[name]
        assert torch.equal(schedules.log_snr_times(schedule, 9), schedules.log_snr_times(schedule, 9, -10.0, 10.0))
        assert torch.equal(schedules.karras_times(schedule, 9), schedules.karras_times(schedule, 9, 0.002, 80.0))
    exploding, ratio = ALL["exploding"], 80 ** (1 / 7) + (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 9
    levels = exploding.sigma(schedules.karras_levels(exploding, 9))
    torch.testing.assert_close(levels[:2], torch.tensor([80.0, ratio**7], dtype=DOUBLE), rtol=1e-9, atol=0)


@each_schedule
def test_a_level_out_of_reach_is_refused_with_the_range_that_there_is(schedule):
    least, most = schedule.log_snr_range()
    at_ends = schedule.log_snr(torch.tensor([1.0, 0.0], dtype=DOUBLE))
    assert least in (float(at_ends[0]), -math.inf) and most == float(at_ends[1])
    if math.isfinite(least):
        assert float(schedule.time(least)) == pytest.approx(1, abs=1e-12)
        with pytest.raises(ValueError, match="out of reach.*at t = 1"):
            schedule.time(least - 0.1)
        with pytest.raises(ValueError, match="out of reach.*at t = 1"):
            schedules.log_snr_times(schedule, 10, least - 1)
        with pytest.raises(ValueError, match="out of reach.*at t = 1"):
            schedules.karras_times(schedule, 10, sigma_max=math.exp(-least / 2) * 1.1)
    if math.isfinite(most):
        with pytest.raises(ValueError, match="out of reach.*at t = 0"):
            schedule.time([0.0, most + 0.1])
        with pytest.raises(ValueError, match="out of reach.*at t = 0"):
            schedules.karras_times(schedule, 10, sigma_min=math.exp(-most / 2) / 2)
    with pytest.raises(ValueError, match="out of reach"):
        schedule.time(math.nan)


def test_single_precision_may_ask_for_the_end():
    level = -2 * torch.tensor(80.0).log()
    assert float(ALL["exploding"].time(level)) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_a_grid_needs_a_whole_number_of_steps(n):
    for grid in GRIDS.values():
        with pytest.raises(ValueError, match="n must be a whole number from 1 on"):
            grid(ALL["cosine"], n)
    with pytest.raises(ValueError, match="log_snr_min must lie below log_snr_max"):
        schedules.log_snr_times(ALL["cosine"], 5, 2.0, -2.0)
    with pytest.raises(ValueError, match="sigma_min must lie below sigma_max"):
        schedules.karras_times(ALL["cosine"], 5, 3.0, 2.0)
    with pytest.raises(ValueError, match="sigma_min must be positive"):
        schedules.karras_times(ALL["cosine"], 5, -1.0, 2.0)


@each_schedule
@pytest.mark.parametrize("t", [500, 500.0, -0.1, math.nan, torch.tensor([0.5, 1.5]), torch.tensor(999)])
def test_a_time_outside_0_to_1_is_refused(schedule, t):
    for level in (schedule.alpha, schedule.sigma, schedule.log_snr):
        with pytest.raises(ValueError, match=r"t must lie in \[0, 1\].*\(k \+ 1\) / T"):
            level(t)


@each_schedule
def test_whole_numbers_are_times_too(schedule):
    for t in (0, 1):
        for level in (schedule.alpha, schedule.sigma):
            torch.testing.assert_close(level(torch.tensor(t)), level(float(t)), rtol=0, atol=0)


def test_noise_of_training_beyond_the_schedule_is_its_end():
    loss = EDMLoss(0.5, mean=4.0, std=3.0)
    times = loss.times(200, torch.Generator().manual_seed(0))
    assert float(times.max()) == 1 and float(times.min()) >= 0


def test_a_finished_picture_for_a_schedule_that_keeps_signal():
    net = lambda x, t, y: torch.zeros_like(x)  # noqa: E731
    for schedule in (ALL["scaled linear"], ALL["table of 50"]):
        x = generate(NetworkDenoiser(net, schedule, "eps", clip=True), torch.randn(2, 1, 8, 8))
        assert x.isfinite().all()


# ---- without signal, without noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", NO_SIGNAL, ids=["cosine", "flow"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("t", [1.0, torch.tensor(1.0), torch.tensor(1.0).double(), torch.tensor([0.5, 1.0])])
def test_eps_and_score_say_nothing_of_the_image_where_there_is_no_signal(schedule, clip, t):
    net = lambda x, t, y: x  # noqa: E731
    for kind in ("eps", "score"):
        with pytest.raises(ValueError, match=f"no signal.*{kind} gives no x_0.*as log_snr_times does"):
            NetworkDenoiser(net, schedule, kind, clip)(torch.randn(2, 1), t)
    for kind in ("x0", "v", "flow"):
        assert NetworkDenoiser(net, schedule, kind, clip)(torch.randn(2, 1), t).isfinite().all()
    with pytest.raises(ValueError, match="kind must be one of 'x0'"):
        NetworkDenoiser(net, schedule, "noise")


@pytest.mark.parametrize("schedule", NO_SIGNAL, ids=["cosine", "flow"])
def test_a_network_of_eps_that_starts_a_little_later_is_right(schedule):
    def eps(x, t, y):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return sigma * x / (alpha**2 * STD**2 + sigma**2)

    times = schedules.log_snr_times(schedule, 100)
    x = sample(NetworkDenoiser(eps, schedule, "eps"), unit_noise(), times, dpmpp_2m_step)
    assert float(x.std()) == pytest.approx(STD, rel=0.01)


def test_score_and_eps_need_noise():
    x_0 = torch.ones(2)
    with pytest.raises(ValueError, match="no noise where sigma = 0"):
        target("score", x_0, x_0, torch.ones(1), torch.zeros(1))
    with pytest.raises(ValueError, match="no noise where sigma = 0"):
        convert(x_0, "x0", "eps", x_0, 1.0, 0.0)
    torch.testing.assert_close(convert(0 * x_0, "v", "x0", x_0, 1.0, 0.0), x_0)  # v at t = 0 is eps, and x_0 is x_t
    with pytest.raises(ValueError, match="no signal where alpha = 0"):
        to_x0("eps", x_0, x_0, 0.0, 1.0)


@pytest.mark.parametrize("schedule", NO_SIGNAL, ids=["cosine", "flow"])
def test_a_classifier_has_no_say_where_there_is_no_signal(schedule):
    logits = lambda x, t: torch.cat([x, -x], 1)  # noqa: E731  has not learnt that pure noise is of no class
    y, x = torch.zeros(3, dtype=torch.long), unit_noise(3)
    for guided in (
        ClassifierGuided(exact(schedule), logits, 0.1),
        Clipped(ClassifierGuided(exact(schedule), logits, 0.1)),
    ):
        with pytest.raises(ValueError, match="classifier guidance starts a little later"):
            sample(guided.given(y), x, schedules.uniform_times(5))
    unasked = ClassifierGuided(exact(schedule), logits, 0)
    torch.testing.assert_close(unasked(x, 1.0, y=y), exact(schedule)(x, 1.0))


@each_schedule
def test_exact_denoisers_without_noise_give_back_the_image(schedule):
    if float(schedule.sigma(0.0)) > 0:
        pytest.skip("this schedule keeps some noise at t = 0")
    points = torch.tensor([[-1.0, 0.5], [0.8, 0.9], [0.3, -1.0]], dtype=DOUBLE)
    flat = GaussianDenoiser(torch.zeros(2).double(), torch.diag(torch.tensor([1.0, 0.0]).double()), schedule)
    on_axis = points * torch.tensor([1.0, 0.0])  # the second coordinate never varies
    torch.testing.assert_close(flat(on_axis, 0.0), on_axis, rtol=0, atol=1e-12)
    for denoiser in (
        EmpiricalDenoiser(points, schedule),
        MixtureDenoiser(torch.ones(3).double() / 3, points, 0.0, schedule),
        MixtureDenoiser(torch.ones(3).double() / 3, points, 0.2, schedule),
    ):
        torch.testing.assert_close(denoiser(points, 0.0), points, rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [partial(ddpm_step, variance="small"), partial(ddim_step, eta=1.0)])
def test_noise_that_a_schedule_keeps_at_the_end_is_drawn(make):
    """Variance exploding from 0.2: x at t = 0 is the image with noise of 0.2, from the last step too."""
    schedule = schedules.VarianceExploding(0.2, 5.0)
    start, generator = marginal(schedule, 1.0) * unit_noise(20_000), torch.Generator().manual_seed(1)
    x = sample(exact(schedule), start, schedules.uniform_times(200), make, generator)
    assert float(x.std()) == pytest.approx(marginal(schedule, 0.0), rel=0.02)


# ---- directions and options of the steps -----------------------------------------------------------------------------

RANDOM = {
    "ddpm": ddpm_step,
    "ddim, eta 0.5": partial(ddim_step, eta=0.5),
    "consistency": consistency_step,
    "DiffPIR": diffpir_step,
}


@pytest.mark.parametrize("step", RANDOM.values(), ids=RANDOM)
@pytest.mark.parametrize(("t", "s"), [(0.4, 0.6), (0.4, 0.4), (torch.tensor(0.4), torch.tensor(0.6))])
def test_random_steps_go_down(step, t, s):
    with pytest.raises(ValueError, match="let the times fall"):
        step(exact(ALL["cosine"]), unit_noise(4), t, s)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_times_that_rise_by_mistake_are_refused(step):
    times = schedules.uniform_times(20).flip(0)
    with pytest.raises(ValueError, match="let the times fall|no noise at t = 0|no noise where sigma = 0"):
        sample(exact(ALL["cosine"]), unit_noise(4), times, step)


@pytest.mark.parametrize("step", [ddim_step, euler_step, heun_step, dpmpp_2m_step])
def test_deterministic_steps_go_up_as_well(step):
    """An image is encoded in noise: its standard deviation becomes that of the marginal."""
    schedule = ALL["cosine"]
    times = schedules.log_snr_times(schedule, 400, -8.0, 8.0)[:-1].flip(0)
    x = sample(exact(schedule), marginal(schedule, times[0]) * unit_noise(), times, step)
    assert float(x.std()) == pytest.approx(marginal(schedule, times[-1]), rel=0.02)


@pytest.mark.parametrize("step", [euler_step, heun_step, dpmpp_2m_step])
def test_coordinates_that_divide_by_the_signal_end_a_little_below_it(step):
    with pytest.raises(ValueError, match="no signal at t = 1"):
        step(exact(ALL["flow"]), unit_noise(4), 0.9, 1.0)


@pytest.mark.parametrize("times", [torch.tensor([1.0, 0.5, 0.5, 0.0]), torch.zeros(2, 2), torch.zeros(0), 0.5])
def test_times_stand_in_a_line_and_do_not_stand_still(times):
    with pytest.raises(ValueError, match="times must be a vector"):
        sample(exact(ALL["cosine"]), unit_noise(4), times)


def test_options_of_steps_beyond_their_range():
    bad = {
        "eta must lie from 0 to 1": partial(ddim_step, eta=1.2),
        "eta must lie from 0": partial(ddim_step, eta=-0.1),
        "variance must be one of 'small', 'large', got 'Small'": partial(ddpm_step, variance="Small"),
        "zeta must lie from 0 to 1": partial(diffpir_step, zeta=2),
    }
    for sentence, step in bad.items():
        with pytest.raises(ValueError, match=sentence):
            step(exact(ALL["cosine"]), unit_noise(4), 0.6, 0.5)
    with pytest.raises(ValueError, match="let the times fall"):
        reverse_moments(ALL["cosine"], torch.tensor([0.5, 0.2]), torch.tensor([0.4, 0.3]))


@pytest.mark.parametrize("step", [*STEPS.values(), consistency_step, diffpir_step])
@pytest.mark.parametrize("kind", [float, torch.tensor, lambda t: torch.tensor(t, dtype=torch.float32)])
def test_a_step_takes_numbers_and_tensors(step, kind):
    x = unit_noise(8).float()
    out = [
        step(exact(ALL["cosine"]), x.double(), make(0.7), make(0.4), generator=seeded())[0] for make in (float, kind)
    ]
    torch.testing.assert_close(out[0], out[1], rtol=0, atol=1e-5)


def seeded():
    return torch.Generator().manual_seed(3)


# ---- what an exact denoiser may be told ------------------------------------------------------------------------------


def test_distributions_that_are_none_are_refused():
    schedule, eye = ALL["cosine"], torch.eye(2)
    for cov, sentence in {
        (1.0, 0.5, 0.0, 1.0): "symmetric",
        (1.0, 0.0, 0.0, -1.0): "negative variances",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            GaussianDenoiser(torch.zeros(2), torch.tensor(cov).reshape(2, 2), schedule)
    with pytest.raises(ValueError, match="one row for each of the 3 means"):
        GaussianDenoiser(torch.zeros(3), eye, schedule)
    for weights, std, sentence in (
        ([0.5, 0.6], 0.1, "sum to 1"),
        ([1.5, -0.5], 0.1, "must not be negative"),
        ([0.5, 0.5], -0.1, "no std may be negative"),
        ([0.2, 0.3, 0.5], 0.1, "a row for each weight"),
    ):
        with pytest.raises(ValueError, match=sentence):
            MixtureDenoiser(torch.tensor(weights), eye, std, schedule)


@pytest.mark.parametrize("of", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("t", [0.5, torch.tensor([0.5, 0.5, 0.5])])
def test_the_exact_denoiser_of_a_gaussian_takes_points_of_either_precision(of, kind, t):
    """Against alpha cov (alpha^2 cov + sigma^2 I)^-1 (x_t - alpha mean)."""
    mean, cov = torch.tensor([0.3, -0.2], dtype=of), torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=of)
    x_t = unit_noise(6).reshape(3, 2).to(kind)
    level = 0.5**0.5
    gain = level * cov.double() @ torch.linalg.inv(0.5 * cov.double() + 0.5 * torch.eye(2).double())
    expected = mean.double() + (x_t.double() - level * mean.double()) @ gain.T
    found = GaussianDenoiser(mean, cov, ALL["cosine"])(x_t, t)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
