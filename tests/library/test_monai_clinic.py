"""What notebook 04 says of MONAI's schedulers, with a denoiser that is exact: each fault is there, and each mend mends.

When a new MONAI has mended a fault itself, the test of the fault fails: then the notebook wants a new sentence.
"""

import itertools

import pytest
import torch

from course_lib.denoisers import GaussianDenoiser
from course_lib.exercises import nb04
from course_lib.samplers import ddim_step, ddpm_step, sample
from course_lib.schedules import Discrete, uniform_times

T = 1000
TABLE = Discrete.linear(T)
LINEAR = {"num_train_timesteps": T, "schedule": "linear_beta", "beta_start": 1e-4, "beta_end": 0.02}


def gaussian(std):
    return GaussianDenoiser(torch.zeros(1), torch.tensor([[std**2]]), TABLE)


def noise_prediction(std, index=lambda k: k):
    """The exact noise prediction for data N(0, std^2), called as MONAI calls a network with its index k."""

    def net(x, timesteps, context=None):
        t = (index(timesteps[0].double()) + 1) / T
        x_0 = gaussian(std)(x.flatten(1), t).reshape(x.shape)
        return ((x - TABLE.alpha(t) * x_0) / TABLE.sigma(t)).float()

    return net


@pytest.fixture
def start():
    x = torch.randn(10_000, 1, 1, generator=torch.Generator().manual_seed(0))
    return (x - x.mean()) / x.std()


def drawn(scheduler, net, x):
    from monai.inferers import DiffusionInferer

    torch.manual_seed(0)
    with torch.no_grad():
        return DiffusionInferer(scheduler).sample(x, net, scheduler, verbose=False)


def ddim(n=None, **kwargs):
    from monai.networks.schedulers import DDIMScheduler

    scheduler = DDIMScheduler(**LINEAR, **{"clip_sample": False, **kwargs})
    scheduler.set_timesteps(n or T)
    return scheduler


def test_ddpm_walks_only_a_part_of_its_table(start):
    """50 of 1000 neighbour steps leave most of the noise; with a table respaced to 50 it is our ddpm_step."""
    from monai.networks.schedulers import DDPMScheduler

    n = 50
    sick = DDPMScheduler(**LINEAR, clip_sample=False)
    sick.set_timesteps(n)
    assert float(drawn(sick, noise_prediction(0.3), start).std()) > 0.85

    mended = DDPMScheduler(num_train_timesteps=n, clip_sample=False)
    abar = sick.alphas_cumprod[T // n - 1 :: T // n]
    mended.alphas_cumprod, mended.alphas = abar, abar / torch.cat([torch.ones(1), abar[:-1]])
    mended.betas = 1 - mended.alphas
    mended.set_timesteps(n)
    theirs = drawn(mended, noise_prediction(0.3, lambda k: (k + 1) * (T // n) - 1), start)
    torch.manual_seed(0)
    ours = sample(gaussian(0.3), start[:, 0], uniform_times(n), ddpm_step)
    torch.testing.assert_close(theirs[:, 0], ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize("n", [50, 10, 5])
def test_ddim_grid_and_stride(start, n):
    """Its grid does not fit its stride, which leaves grain; the trailing grid makes it our ddim_step (float32)."""
    scheduler = ddim(n)
    sick = drawn(scheduler, noise_prediction(0.02), start)
    scheduler.timesteps = T - 1 - (T // n) * torch.arange(n)
    theirs = drawn(scheduler, noise_prediction(0.02), start)
    ours = sample(gaussian(0.02), start[:, 0], uniform_times(n), ddim_step)
    torch.testing.assert_close(theirs[:, 0], ours, rtol=0, atol=1e-5)
    assert float(sick.std()) > 2 * float(theirs.std())
    if n == 5:
        assert float(sick.std()) > 5 * 0.02


def test_ddim_fault_hides_in_data_of_std_0_3(start):
    """Five steps: the grain that is left makes up for the spread that DDIM lacks, so that one number shows nothing."""
    sick = float(drawn(ddim(5), noise_prediction(0.3), start).std())
    correct = float(sample(gaussian(0.3), start[:, 0], uniform_times(5), ddim_step).std())
    assert abs(sick - 0.3) < 0.03 < abs(correct - 0.3)


@pytest.mark.parametrize("n", [1000, 50])
def test_pndm_counts_its_warm_up(start, n):
    from monai.networks.schedulers import PNDMScheduler

    sick = PNDMScheduler(**LINEAR)
    sick.set_timesteps(n)
    assert sick.num_inference_steps == n + 9
    assert abs(float(drawn(sick, noise_prediction(0.3), start).std()) - 0.3) > 0.05
    skipping = PNDMScheduler(**LINEAR, skip_prk_steps=True)
    skipping.set_timesteps(n)
    assert abs(float(drawn(skipping, noise_prediction(0.3), start).std()) - 0.3) < 0.005
    if n == 50:
        sick.set_timesteps(n)
        sick.num_inference_steps = n
        assert abs(float(drawn(sick, noise_prediction(0.3), start).std()) - 0.3) < 0.005


def test_clip_sample_is_the_default_and_cuts_unit_variance(start):
    assert ddim(clip_sample=False).clip_sample is False
    from monai.networks.schedulers import DDIMScheduler

    assert DDIMScheduler(**LINEAR).clip_sample is True
    clamped, free = (float(drawn(ddim(clip_sample=clip), noise_prediction(1.0), start).std()) for clip in (True, False))
    assert abs(clamped - 0.72) < 0.02
    assert abs(free - 1) < 0.01


# ---- exercise 6: the network predicts v of standardised images, by MONAI's cosine table ------------------------------

RIGHT = {"schedule": "cosine", "prediction_type": "v_prediction", "clip_sample": False}
SETTINGS = {"the schedule": "schedule", "the prediction type": "prediction_type", "the clamp": "clip_sample"}


def call(net, noise, **settings):
    """Images by the call of exercise 6, mended but for these settings."""
    from monai.inferers import DiffusionInferer
    from monai.networks.schedulers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=T, **RIGHT | settings)
    scheduler.set_timesteps(250)
    return DiffusionInferer(scheduler).sample(noise, net, scheduler, verbose=False)


def abar(schedule):
    from monai.networks.schedulers import DDIMScheduler

    return DDIMScheduler(num_train_timesteps=T, schedule=schedule).alphas_cumprod.double()


@pytest.fixture
def images(start):
    return start[:4096].reshape(64, 1, 8, 8) / start[:4096].std()


def spread(images, std, **settings):
    return float(call(nb04.exact_network(std), images, **settings).std())


@pytest.mark.parametrize("std", [1.0, 0.3])
def test_exact_network_of_exercise_6_is_the_denoiser_s_v(images, std):
    """Against `GaussianDenoiser`, on MONAI's table: D = alpha x - sigma v, to float32's rounding."""
    for k in (0, 400, 900):
        schedule = Discrete(1 - abar("cosine") / torch.cat([torch.ones(1), abar("cosine")[:-1]]))
        t = torch.tensor((k + 1) / T, dtype=torch.float64)
        v = nb04.exact_network(std)(images, torch.tensor([k]))
        pixels = GaussianDenoiser(torch.zeros(1), torch.tensor([[std**2]]), schedule)(images.reshape(-1, 1), t)
        D = schedule.alpha(t) * images - schedule.sigma(t) * v
        torch.testing.assert_close(D.reshape(-1, 1).double(), pixels.double(), rtol=1e-4, atol=1e-5)


def test_mended_call_of_exercise_6_draws_the_data(images):
    assert abs(spread(images, 1.0) - 1) < 0.01
    assert abs(spread(images, 0.3) - 0.3) < 0.003


def test_the_clamp_alone_clamps_a_normal_distribution(images):
    """std of min(max(z, -1), 1), z ~ N(0, 1): the root of P(|z| > 1) + E[z^2; |z| < 1] = 0.718."""
    normal = torch.distributions.Normal(0.0, 1.0)
    inside = float(normal.cdf(torch.tensor(1.0)) - normal.cdf(torch.tensor(-1.0)))
    density = float(normal.log_prob(torch.tensor(1.0)).exp())
    wanted = ((1 - inside) + (inside - 2 * density)) ** 0.5
    drawn = call(nb04.exact_network(1.0), images, clip_sample=True)
    assert drawn.abs().max() <= 1
    assert abs(float(drawn.std()) / wanted - 1) < 0.02
    assert "standard deviation 1 into 0.71" in nb04.q6.explanation and abs(float(drawn.std()) - 0.71) < 0.01


def test_the_prediction_type_alone_divides_by_all_of_alpha(images):
    """The exact v of N(0, 1) is 0; taken for the noise it makes D = x / alpha, at the end noise / alpha_T."""
    drawn = spread(images, 1.0, prediction_type="epsilon")
    assert abs(drawn * float(abar("cosine")[-1].sqrt()) - 1) < 0.02
    assert "into 20,000" in nb04.q6.explanation and abs(drawn / 20_000 - 1) < 0.02
    assert spread(images, 1.0, prediction_type="sample") < 1e-6


def test_the_schedule_alone_makes_images_too_smooth(images):
    """The path is dx = v d(angle) on the scheduler's angles, v = gain x at the network's: exp of the integral."""
    cosine, linear = abar("cosine"), abar("linear_beta")
    gain = (cosine * (1 - cosine)).sqrt() * (1 - 0.3**2) / (cosine * 0.3**2 + 1 - cosine)
    angle = torch.cat([torch.zeros(1, dtype=torch.float64), linear.sqrt().acos()])
    wanted = float((-(gain * angle.diff()).sum()).exp())
    drawn = spread(images, 0.3, schedule="linear_beta")
    assert abs(drawn / wanted - 1) < 0.05
    assert "make 0.3 into 0.19" in nb04.q6.explanation and abs(drawn - 0.19) < 0.005
    assert abs(spread(images, 1.0, schedule="linear_beta") - 1) < 0.01, "the other network shows nothing of it"


SCHEDULES = ("cosine", "linear_beta", "scaled_linear_beta", "sigmoid_beta")
PREDICTIONS = ("v_prediction", "epsilon", "sample")


@pytest.mark.parametrize("values", list(itertools.product(SCHEDULES, PREDICTIONS, (False, True))), ids=str)
def test_exercise_6_names_a_setting_that_is_wrong(values):
    settings = dict(zip(SETTINGS.values(), values, strict=True))
    wrong = [name for name, key in SETTINGS.items() if settings[key] != RIGHT[key]]
    verdict = nb04.q6.grade(lambda net, noise: call(net, noise, **settings))
    assert verdict.test in wrong if wrong else verdict.status == "right"
