"""Schedules against their differential equations and inverses, predictions against their definitions."""

import math

import pytest
import torch

from course_lib import schedules
from course_lib.predictions import KINDS, convert, from_x0, target, to_x0

CONTINUOUS = [
    schedules.Linear(),
    schedules.ScaledLinear(),
    schedules.Cosine(),
    schedules.RectifiedFlow(),
    schedules.VarianceExploding(),
]
ALL = [*CONTINUOUS, schedules.Discrete.linear()]
INNER = torch.linspace(0.01, 0.99, 41, dtype=torch.float64)


def ids(schedule):
    return type(schedule).__name__


@pytest.mark.parametrize("schedule", ALL, ids=ids)
def test_log_snr_falls_and_time_inverts_it(schedule):
    log_snr = schedule.log_snr(INNER)
    assert (log_snr.diff() < 0).all()
    torch.testing.assert_close(schedule.time(log_snr), INNER, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "schedule", [s for s in ALL if not isinstance(s, (schedules.RectifiedFlow, schedules.VarianceExploding))], ids=ids
)
def test_variance_is_preserved(schedule):
    torch.testing.assert_close(
        schedule.alpha(INNER) ** 2 + schedule.sigma(INNER) ** 2, torch.ones_like(INNER), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("schedule", "beta"),
    [
        (schedules.Linear(0.1, 20.0), lambda t: 0.1 + 19.9 * t),
        (
            schedules.ScaledLinear(0.85, 12.0),
            lambda t: (math.sqrt(0.85) + t * (math.sqrt(12.0) - math.sqrt(0.85))) ** 2,
        ),
    ],
    ids=["Linear", "ScaledLinear"],
)
def test_beta_is_the_decay_rate_of_alpha(schedule, beta):
    """d log alpha / dt = -beta / 2, by a central difference (error about 1e-9)."""
    h = 1e-5
    slope = (schedule.alpha(INNER + h).log() - schedule.alpha(INNER - h).log()) / (2 * h)
    torch.testing.assert_close(slope, -beta(INNER) / 2, rtol=1e-6, atol=1e-8)


def test_discrete_table_is_the_running_product():
    betas = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    schedule = schedules.Discrete(betas)
    t = torch.tensor([0, 1 / 3, 2 / 3, 1], dtype=torch.float64)
    expected = torch.tensor([1, 0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.6], dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(t) ** 2, expected, rtol=0, atol=1e-12)


def test_discrete_linear_tends_to_its_continuous_limit():
    """The table of T = 1000 with betas 1e-4..0.02 approximates Linear(0.1, 20) to a part in a hundred."""
    table, limit = schedules.Discrete.linear(), schedules.Linear()
    torch.testing.assert_close(table.alpha(INNER), limit.alpha(INNER), rtol=0.06, atol=2e-3)


@pytest.mark.parametrize("betas", [[0.0, 0.1], [0.5, 1.0], [[0.1]]])
def test_discrete_refuses_impossible_betas(betas):
    with pytest.raises(ValueError, match="betas must be"):
        schedules.Discrete(betas)


def test_small_noise_levels_keep_their_digits():
    """sigma^2 = 1 - exp(-B) with B = 1e-9 in double precision: the naive difference would keep 7 digits, expm1 keeps
    15."""
    t = torch.tensor(1e-8, dtype=torch.float64)
    B = 0.1 * t + 19.9 * t**2 / 2
    assert abs(float(schedules.Linear().sigma(t) ** 2 / B) - 1) < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("schedule", ALL, ids=ids)
def test_shape_and_dtype_follow_t(schedule, dtype):
    t = torch.rand(2, 3, dtype=dtype)
    assert schedule.alpha(t).shape == schedule.sigma(t).shape == (2, 3)
    assert schedule.alpha(t).dtype == schedule.sigma(t).dtype == dtype
    assert schedule.alpha(0.5).ndim == 0


def test_noisy_uses_each_examples_own_time():
    x_0, eps, t = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4), torch.tensor([0.1, 0.5, 0.9])
    x_t = schedules.Cosine().noisy(x_0, eps, t)
    for k in range(3):
        expected = math.cos(math.pi / 2 * t[k]) * x_0[k] + math.sin(math.pi / 2 * t[k]) * eps[k]
        torch.testing.assert_close(x_t[k], expected)


def test_grids_fall_from_noise_to_zero():
    schedule = schedules.Cosine()
    for times in (
        schedules.uniform_times(10),
        schedules.log_snr_times(schedule, 10),
        schedules.karras_times(schedule, 10),
    ):
        assert len(times) == 11 and times[-1] == 0 and (times.diff() < 0).all()
    sigmas = schedule.sigma(schedules.karras_times(schedule, 18)) / schedule.alpha(schedules.karras_times(schedule, 18))
    assert abs(float(sigmas[0]) - 80) < 1e-6 and abs(float(sigmas[17]) - 0.002) < 1e-6
    assert abs(float(sigmas[1]) - (80 ** (1 / 7) + (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17) ** 7) < 1e-6


@pytest.mark.parametrize("schedule", ALL, ids=ids)
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("to", KINDS)
def test_conversions_agree_with_the_definitions(schedule, source, to):
    """Converting the true target of one kind gives the true target of the other, for known x_0 and eps."""
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randn(64, dtype=torch.float64, generator=generator)
    eps = torch.randn(64, dtype=torch.float64, generator=generator)
    for t in (0.05, 0.5, 0.95):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x_t = alpha * x_0 + sigma * eps
        given, wanted = (target(kind, x_0, eps, alpha, sigma) for kind in (source, to))
        scale = float(wanted.abs().max())
        torch.testing.assert_close(convert(given, source, to, x_t, alpha, sigma), wanted, rtol=0, atol=1e-9 * scale)


def test_unknown_kind_is_named():
    for function in (to_x0, from_x0):
        with pytest.raises(ValueError, match="kind must be one of 'x0', 'eps', 'v', 'score', 'flow', got 'mu'"):
            function("mu", torch.ones(1), torch.ones(1), 0.5, 0.5)


# ---- at the edges ----------------------------------------------------------------------------------------------------


def test_noisy_images_are_floats_with_one_time_or_one_each():
    schedule, x_0 = schedules.Cosine(), torch.ones(3, 1, 2, 2)
    with pytest.raises(ValueError, match="x_0 must be a tensor of floats, got int64"):
        schedule.noisy(x_0.long(), torch.zeros(3, 1, 2, 2), torch.tensor([0.1, 0.2, 0.3]))
    for t in (torch.tensor([0.1, 0.2]), torch.full((3, 1), 0.1)):
        with pytest.raises(ValueError, match="t must be one time, or one for each of the 3"):
            schedule.noisy(x_0, x_0, t)
    for t in (0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.full((3,), 0.5)):
        torch.testing.assert_close(schedule.noisy(x_0, 0 * x_0, t), 0.5**0.5 * x_0)


@pytest.mark.parametrize("schedule", ALL, ids=ids)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_times_beyond_the_ends_by_rounding_are_the_ends(schedule, kind):
    """What a sum of steps misses 0 or 1 by: the levels are those of 0 and 1, and numbers."""
    beyond = torch.tensor([-5e-7, 1 + 5e-7], dtype=kind)
    for level in (schedule.alpha, schedule.sigma):
        torch.testing.assert_close(level(beyond), level(torch.tensor([0.0, 1.0], dtype=kind)), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_end_without_signal_is_seen_in_every_precision(kind):
    end = torch.tensor(1.0, dtype=kind)
    for schedule in (schedules.Cosine(), schedules.RectifiedFlow()):
        assert schedule.alpha(end).dtype == kind and schedules.has_no_signal(schedule, end)
        with pytest.raises(ValueError, match="no signal where alpha = 0"):
            to_x0("eps", torch.ones(2, dtype=kind), torch.ones(2, dtype=kind), schedule.alpha(end), schedule.sigma(end))
    half = schedules.Cosine().alpha(torch.tensor(0.5, dtype=kind))
    assert float(half) == pytest.approx(0.5**0.5, rel=2 * torch.finfo(kind).eps)
