"""MONAI's networks as denoisers and denoisers as MONAI's networks: both loops, step by step, on random weights."""

import pytest
import torch

from course_lib.denoisers import FunctionDenoiser, GaussianDenoiser, NetworkDenoiser
from course_lib.monai_bridge import from_monai, to_monai
from course_lib.samplers import ddim_step, ddpm_step, sample, trajectory
from course_lib.schedules import Cosine, Linear, RectifiedFlow, VarianceExploding, uniform_times

T = 12  # not 1000: a time times 1000 would be another index
TABLE = {"schedule": "linear_beta", "beta_start": 1e-3, "beta_end": 0.5}


@pytest.fixture(scope="module")
def schedulers():
    from monai.networks import schedulers

    return schedulers


def network(**options):
    """A small U-Net of MONAI's, all weights drawn anew: its last layers start at zero, which would hide mistakes."""
    from monai.networks.nets import DiffusionModelUNet

    torch.manual_seed(0)
    small = {"channels": (8, 8), "attention_levels": (False, False), "num_res_blocks": 1, "norm_num_groups": 4}
    net = DiffusionModelUNet(spatial_dims=2, in_channels=1, out_channels=1, **small, **options).eval()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return net.requires_grad_(False)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def their_states(unet, scheduler, x, **step):
    """MONAI's loop by hand: x after each step, and the x_0 of that step."""
    for k in scheduler.timesteps:
        x, x_0 = scheduler.step(unet(x, timesteps=torch.Tensor((k,))), k, x, **step)
        yield x, x_0


def test_the_network_is_asked_at_the_index_and_in_its_own_time(schedulers):
    """Index k = i - 1 at t = i / T, and nothing times 1000."""
    asked = []

    def unet(x, timesteps, context=None):
        asked.append(timesteps)
        return 0 * x

    denoiser = from_monai(unet, schedulers.DDPMScheduler(T, **TABLE))
    for i in (1, 5, T):
        denoiser(noise(3, 1, 4, 4), i / T)
        torch.testing.assert_close(asked[-1], torch.full((3,), i - 1.0), rtol=0, atol=1e-5)
    denoiser(noise(1, 1, 4, 4), 0.25 / T)  # before the first index, which no training shows, it stays the first
    assert asked[-1].tolist() == [0]
    denoiser(noise(2, 1, 4, 4), torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(asked[-1], torch.tensor([T - 1.0, T / 2 - 1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("clip", [False, True])
def test_ddpm_takes_the_same_steps_clipped_or_not(schedulers, kind, clip):
    unet, x = network(), noise(2, 1, 8, 8)
    scheduler = schedulers.DDPMScheduler(T, prediction_type=kind, clip_sample=clip, **TABLE)
    ours = trajectory(from_monai(unet, scheduler), x, uniform_times(T), ddpm_step, torch.Generator().manual_seed(5))
    next(ours)
    theirs = list(their_states(unet, scheduler, x, generator=torch.Generator().manual_seed(5)))
    assert len(theirs) == T
    for state, (x_s, x_0) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(state.x_0, x_0, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(state.x_t, x_s, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_ddim_takes_the_same_steps_where_nothing_is_clipped(schedulers, kind):
    unet, x = network(), noise(2, 1, 8, 8)
    scheduler = schedulers.DDIMScheduler(T, prediction_type=kind, clip_sample=False, **TABLE)
    ours = trajectory(from_monai(unet, scheduler), x, uniform_times(T), ddim_step)
    next(ours)
    for state, (x_s, x_0) in zip(ours, their_states(unet, scheduler, x), strict=True):
        torch.testing.assert_close(state.x_0, x_0, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(state.x_t, x_s, rtol=1e-4, atol=1e-4)


def test_ddim_differs_under_clipping_by_the_eps_that_was_not_asked_again(schedulers):
    """x_s of MONAI's and ours are apart by sigma_s times the raw eps minus that of the clipped image, here by hand."""
    unet, x, k = network(), 3 * noise(2, 1, 8, 8), 7
    scheduler = schedulers.DDIMScheduler(T, clip_sample=True, **TABLE)
    eps = unet(x, timesteps=torch.Tensor((k,)))
    theirs, x_0 = scheduler.step(eps, k, x)
    ours, D = ddim_step(from_monai(unet, scheduler), x, (k + 1) / T, k / T)
    torch.testing.assert_close(D, x_0, rtol=0, atol=1e-5)
    abar_t, abar_s = scheduler.alphas_cumprod[k], scheduler.alphas_cumprod[k - 1]
    implied = (x - abar_t.sqrt() * x_0) / (1 - abar_t).sqrt()
    torch.testing.assert_close(theirs - ours, (1 - abar_s).sqrt() * (eps - implied), rtol=0, atol=1e-4)
    assert (theirs - ours).abs().max() > 0.1


def test_rectified_flow_takes_the_same_steps(schedulers):
    unet, x, scheduler = network(), noise(2, 1, 8, 8), schedulers.RFlowScheduler(T)
    scheduler.set_timesteps(4)
    denoiser = from_monai(unet, scheduler)
    assert isinstance(denoiser.schedule, RectifiedFlow)
    ours = trajectory(denoiser, x, uniform_times(4), ddim_step)
    next(ours)
    ahead = [*scheduler.timesteps[1:], torch.tensor(0)]
    for state, k, after in zip(ours, scheduler.timesteps, ahead, strict=True):
        x, _ = scheduler.step(unet(x, timesteps=torch.Tensor((k,))), k, x, after)
        torch.testing.assert_close(state.x_t, x, rtol=1e-4, atol=1e-4)


def test_conditions_reach_class_labels_and_context(schedulers):
    from monai.networks.nets import DiffusionModelUNet

    scheduler, x, t = schedulers.DDPMScheduler(T, clip_sample=False, **TABLE), noise(2, 1, 8, 8), 0.5
    k, abar = torch.Tensor((T / 2 - 1,)), scheduler.alphas_cumprod[T // 2 - 1]
    alpha, sigma = abar.sqrt(), (1 - abar).sqrt()
    told, y = network(num_class_embeds=3), torch.tensor([0, 2])
    expected = (x - sigma * told(x, timesteps=k, class_labels=y)) / alpha
    torch.testing.assert_close(from_monai(told, scheduler).given(y)(x, t), expected, rtol=1e-4, atol=1e-4)
    options = {"with_conditioning": True, "cross_attention_dim": 4, "num_head_channels": 4}
    torch.manual_seed(0)
    small = {"channels": (8, 8), "attention_levels": (False, True), "num_res_blocks": 1, "norm_num_groups": 4}
    crossed, context = DiffusionModelUNet(2, 1, 1, **small, **options).eval(), noise(2, 1, 4)
    for weight in crossed.requires_grad_(False).parameters():
        torch.nn.init.normal_(weight, std=0.1)
    expected = (x - sigma * crossed(x, timesteps=k, context=context)) / alpha
    denoiser = from_monai(crossed, scheduler).given(context)
    torch.testing.assert_close(denoiser(x, t), expected, rtol=1e-4, atol=1e-4)
    assert denoiser.schedule.T == T


def gaussian(schedule, std=0.5):
    exact = GaussianDenoiser(torch.zeros(16).double(), std**2 * torch.eye(16).double(), schedule)
    return FunctionDenoiser(lambda x, t: exact(x.flatten(1).double(), t).view_as(x).to(x), schedule)


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [(Linear(), "epsilon"), (Linear(), "sample"), (Cosine(), "v_prediction"), (Cosine(), "sample")],
)
def test_monais_inferer_draws_with_our_denoiser_what_our_loop_draws(schedulers, schedule, kind):
    from monai.inferers import DiffusionInferer

    denoiser, x = gaussian(schedule), noise(3, 1, 4, 4)
    scheduler = schedulers.DDIMScheduler(T, prediction_type=kind, clip_sample=False)
    net = to_monai(denoiser, scheduler)
    theirs = DiffusionInferer(scheduler).sample(x, net, scheduler, verbose=False)
    torch.testing.assert_close(theirs, sample(denoiser, x, uniform_times(T), ddim_step), rtol=0, atol=1e-4)
    k = torch.tensor([0, 5, T - 1])  # one index an image, as in MONAI's training
    x_0, eps = noise(3, 1, 4, 4, seed=1), noise(3, 1, 4, 4, seed=2)
    x_t = scheduler.add_noise(x_0, eps, k)
    torch.testing.assert_close(x_t, schedule.noisy(x_0, eps, (k.double() + 1) / T).float(), rtol=0, atol=1e-3)
    if isinstance(schedule, Linear):
        back = from_monai(net, scheduler)
        for t in (1 / T, 0.5, 11 / T):
            torch.testing.assert_close(back(x_t, t), denoiser(x_t, torch.tensor(t).double()), rtol=0, atol=2e-3)


@pytest.mark.parametrize("to_one", [True, False])
def test_the_last_level_of_ddim_is_that_of_the_new_table(schedulers, to_one):
    """MONAI's DDIM made with set_alpha_to_one=False ends at index 0, whose noise is no longer that of its old table."""
    scheduler = schedulers.DDIMScheduler(T, set_alpha_to_one=to_one, clip_sample=False, beta_start=0.01)
    to_monai(gaussian(Linear()), scheduler)
    expected = 1.0 if to_one else float(Linear().alpha(1 / T) ** 2)
    assert float(scheduler.final_alpha_cumprod) == pytest.approx(expected, abs=1e-6)


def test_ddpm_of_monai_with_our_denoiser(schedulers):
    denoiser, x = gaussian(Linear()), noise(3, 1, 4, 4)
    scheduler = schedulers.DDPMScheduler(T, clip_sample=False)
    net = to_monai(denoiser, scheduler)
    ours = trajectory(denoiser, x, uniform_times(T), ddpm_step, torch.Generator().manual_seed(3))
    next(ours)
    for state, (x_s, _) in zip(ours, their_states(net, scheduler, x, generator=torch.Generator().manual_seed(3))):
        torch.testing.assert_close(state.x_t, x_s, rtol=0, atol=1e-3)


def test_a_condition_of_the_inferer_is_y(schedulers):
    from monai.inferers import DiffusionInferer

    denoiser = NetworkDenoiser(lambda x, t, y: 0 * x + y[:, None, None, None], Linear(), "x0")
    scheduler = schedulers.DDIMScheduler(T, prediction_type="sample", clip_sample=False)
    net, y = to_monai(denoiser, scheduler), torch.tensor([0.25, -0.5])
    drawn = DiffusionInferer(scheduler).sample(noise(2, 1, 4, 4), net, scheduler, conditioning=y, verbose=False)
    torch.testing.assert_close(drawn, y[:, None, None, None].expand(2, 1, 4, 4), rtol=0, atol=1e-5)


def test_what_does_not_fit_is_named(schedulers):
    with pytest.raises(ValueError, match="scheduler must be one of MONAI's"):
        from_monai(network(), Cosine())
    halved = schedulers.DDPMScheduler(T)
    halved.add_noise(noise(1, 1, 4, 4).half(), noise(1, 1, 4, 4).half(), torch.tensor([3]))
    with pytest.raises(ValueError, match="alphas_cumprod of the scheduler is torch.float16.*make the scheduler anew"):
        from_monai(network(), halved)
    blind = schedulers.DDIMScheduler(T, prediction_type="v_prediction")
    with pytest.raises(ValueError, match="must fall from 1, and stay above 0 at the last index"):
        from_monai(to_monai(gaussian(Cosine()), blind), blind)
    with pytest.raises(ValueError, match="a schedule that preserves variance.*got VarianceExploding"):
        to_monai(gaussian(VarianceExploding()), schedulers.DDIMScheduler(T))
    with pytest.raises(ValueError, match="'v_prediction' or 'sample' for Cosine"):
        to_monai(gaussian(Cosine()), schedulers.DDIMScheduler(T))
    with pytest.raises(ValueError, match="scheduler must have a table.*got a RFlowScheduler"):
        to_monai(gaussian(Linear()), schedulers.RFlowScheduler(T))
