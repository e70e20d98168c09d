"""What notebook 04 says of MONAI's schedulers, with a denoiser that is exact: each fault is there, and each mend mends.

When a new MONAI has mended a fault itself, the test of the fault fails: then the notebook wants a new sentence.
"""

import pytest
import torch

from course_lib.denoisers import GaussianDenoiser
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
