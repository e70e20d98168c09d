"""The judge of schedulers, judged: by recursions in plain numbers, and by schedulers that are wrong on purpose."""

import math
from types import SimpleNamespace

import pytest
import torch

from course_lib.conformance import by_diffusers, by_monai, by_step, off_its_formula, spreads
from course_lib.samplers import ddim_step, ddpm_step, euler_step
from course_lib.schedules import Cosine, Discrete, RectifiedFlow, log_snr_times

T = 1000
TABLE = Discrete.linear(T)


def abar(k):
    """The table of DDPM by its definition, after k of 1000 steps."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / (T - 1)) for i in range(k))


def ddim_by_hand(std, n):
    """Standard deviation of what n even steps of DDIM make of unit noise, data N(0, std^2): a product of factors."""
    spread = 1.0
    for j in range(n, 0, -1):
        now, then = abar(j * T // n), abar((j - 1) * T // n)
        total = now * std**2 + 1 - now  # variance of x_t; D = sqrt(now) std^2 / total x_t
        spread *= math.sqrt(then * now) * std**2 / total + math.sqrt((1 - then) * (1 - now)) / total
    return spread


def ddpm_by_hand(std, n):
    """The same of DDPM with the small variance: the variance follows a recursion."""
    variance = 1.0
    for j in range(n, 0, -1):
        now, then = abar(j * T // n), abar((j - 1) * T // n)
        alpha, beta = now / then, 1 - now / then
        gain = math.sqrt(now) * std**2 / (now * std**2 + 1 - now)
        mean = math.sqrt(then) * beta / (1 - now) * gain + math.sqrt(alpha) * (1 - then) / (1 - now)
        variance = mean**2 * variance + beta * (1 - then) / (1 - now)
    return math.sqrt(variance)


def test_ddim_is_the_product_of_its_factors():
    found = spreads(by_step(ddim_step), TABLE, stds=(0.3, 1.0), steps=(50, 10), n=100)
    for (std, n), ratio in found.items():
        assert abs(ratio * std - ddim_by_hand(std, n)) < 1e-5


def test_ddpm_follows_its_recursion_up_to_chance():
    found = spreads(by_step(ddpm_step), TABLE, stds=(0.3,), steps=(50, 10), n=40_000)
    for (std, n), ratio in found.items():
        assert abs(ratio * std / ddpm_by_hand(std, n) - 1) < 4 / math.sqrt(2 * 40_000)


def test_a_formula_agrees_with_itself_and_not_with_another():
    """Euler in sigma / alpha is DDIM; half a step is not, though it asks at the same times."""

    def lazy(denoiser, x_t, t, s, previous=None, generator=None):
        return ddim_step(denoiser, x_t, t, (t + s) / 2)

    options = {"steps": (30, 10), "n": 100}
    assert off_its_formula(by_step(euler_step), TABLE, ddim_step, **options) < 1e-5
    assert off_its_formula(by_step(ddim_step, lambda n: log_snr_times(TABLE, n)), TABLE, ddim_step, **options) < 1e-5
    assert off_its_formula(by_step(lazy), TABLE, ddim_step, **options) > 0.5


def test_monais_ddim_lands_beside_its_grid_and_a_table_of_n_mends_it():
    from monai.networks.schedulers import DDIMScheduler

    def theirs(n):
        scheduler = DDIMScheduler(T, clip_sample=False)
        scheduler.set_timesteps(n)
        return scheduler

    assert off_its_formula(by_monai(theirs), TABLE, ddim_step, n=100) > 1
    mended = by_monai(lambda n: DDIMScheduler(n, clip_sample=False))
    assert off_its_formula(mended, TABLE, ddim_step, n=100) < 1e-4
    for (std, n), ratio in spreads(mended, TABLE, stds=(0.3,), steps=(10,), n=100).items():
        assert abs(ratio * std - ddim_by_hand(std, n)) < 1e-4


def test_monais_rectified_flow_is_euler_by_hand():
    """x <- x + v / n with v = x_0 - eps, the exact means: in n steps spread shrinks by a product."""
    from monai.networks.schedulers import RFlowScheduler

    def theirs(n):
        scheduler = RFlowScheduler(T)
        scheduler.set_timesteps(n)
        return scheduler

    found = spreads(by_monai(theirs), RectifiedFlow(), stds=(0.3,), steps=(10,), n=100)
    spread = 1.0
    for j in range(10, 0, -1):
        t = j / 10
        total = (1 - t) ** 2 * 0.3**2 + t**2
        spread *= 1 + ((1 - t) * 0.3**2 - t) / total / 10
    assert abs(found[0.3, 10] * 0.3 - spread) < 1e-5


class Leading:
    """DDIM as diffusers has it: an index goes down by a stride, ``step`` answers with an object."""

    init_noise_sigma = 1.0

    def __init__(self, n, stride):
        self.timesteps, self.stride = torch.arange(T - 1, -1, -(T // n)), stride
        self.config = SimpleNamespace(num_train_timesteps=T)

    def scale_model_input(self, x, k):
        return x

    def step(self, eps, k, x):
        now, then = abar(int(k) + 1), abar(max(int(k) + 1 - self.stride, 0))
        x_0 = (x - math.sqrt(1 - now) * eps) / math.sqrt(now)
        return SimpleNamespace(prev_sample=math.sqrt(then) * x_0 + math.sqrt(1 - then) * eps)


def test_the_loop_of_diffusers():
    right, wrong = (by_diffusers(lambda n, less=less: Leading(n, T // n - less)) for less in (0, 20))
    assert off_its_formula(right, TABLE, ddim_step, steps=(10, 5), n=100) < 1e-4
    assert off_its_formula(wrong, TABLE, ddim_step, steps=(10, 5), n=100) > 0.1
    assert abs(spreads(right, TABLE, stds=(0.3,), steps=(10,), n=100)[0.3, 10] * 0.3 - ddim_by_hand(0.3, 10)) < 1e-4


def test_seeded_without_touching_the_state_of_the_caller():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first = spreads(by_step(ddpm_step), TABLE, steps=(5,), n=100)
    assert torch.rand(1) == expected
    assert spreads(by_step(ddpm_step), TABLE, steps=(5,), n=100) == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stds": (0.0,)}, "std must be positive"),
        ({"n": 1}, "n must be a whole number from 2 on"),
        ({"steps": (0,)}, "n must be a whole number from 1 on"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        spreads(by_step(ddim_step), Cosine(), **arguments)
