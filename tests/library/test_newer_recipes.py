"""MeanFlow, a small transformer, bridges and masked diffusion: against closed forms of a Gaussian, finite differences,
PyTorch's own attention, and enumeration of all maps of a few places."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from course_lib import checkpoints, experiments, pretrained
from course_lib.denoisers import FunctionDenoiser, MaskedDenoiser, NetworkDenoiser
from course_lib.experiments import bridge, labels, seeds, trends
from course_lib.losses import BridgeLoss, MaskingLoss, MeanFlowLoss, masked
from course_lib.networks import build
from course_lib.samplers import bridge_step, ddpm_step, meanflow_step, sample, unmask_step
from course_lib.schedules import BrownianBridge, RectifiedFlow, uniform_times

DOUBLE = torch.float64
MEAN, STD = -0.3, 0.55
TINY = {"channels": (32, 32), "num_res_blocks": 1, "patch": 4, "num_classes": 6, "norm_groups": 8}


def noise(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def of_random_weights(net):
    """A fresh network whose answer is not zero."""
    generator = torch.Generator().manual_seed(1)
    for weight in net.parameters():
        weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    return net.eval()


# ---- MeanFlow --------------------------------------------------------------------------------------------------------


def spread(t):
    """Standard deviation of x_t = (1 - t) x_0 + t eps for x_0 ~ N(MEAN, STD^2)."""
    return ((1 - t) ** 2 * STD**2 + t**2) ** 0.5


def at(x_t, t, s):
    """Where the path through x_t at t is at s: the same quantile."""
    return (1 - s) * MEAN + spread(s) / spread(t) * (x_t - (1 - t) * MEAN)


def mean_velocity(x_t, t, y, s):
    """The exact u(x_t, s, t) of pixels N(MEAN, STD^2), for times (B,) with s < t."""
    t, s = (time.reshape(-1, 1, 1, 1) for time in (t, s))
    return (x_t - at(x_t, t, s)) / (t - s)


def velocity(x_t, t):
    """E[eps - x_0 | x_t] of the same pixels."""
    t = t.reshape(-1, 1, 1, 1)
    x_0 = MEAN + (1 - t) * STD**2 / spread(t) ** 2 * (x_t - (1 - t) * MEAN)
    return (x_t - x_0) / t


def test_the_exact_mean_velocity_is_its_own_target():
    """MeanFlow's identity, u = velocity - (t - s) du/dt along the marginal velocity, on a Gaussian."""
    t = torch.tensor([0.3, 0.5, 0.8, 1.0], dtype=DOUBLE)
    s, x_t = t * torch.tensor([0.0, 0.5, 0.9, 0.2], dtype=DOUBLE), noise(4, 1, 3, 3)
    found = MeanFlowLoss.target(mean_velocity, x_t, t, s, None, velocity(x_t, t))
    torch.testing.assert_close(found, mean_velocity(x_t, t, None, s), rtol=0, atol=1e-12)


def test_the_exact_mean_velocity_leaves_what_no_network_can_know():
    """Of the target only the velocity of each example's own line is left, Var(eps - x_0 | x_t) times its factor
    (1 - (t - s) du/dx)^2; any other u leaves more."""
    t, s = 0.7, 0.3
    x_0, eps = MEAN + STD * noise(200_000), noise(200_000, seed=1)
    x_t = ((1 - t) * x_0 + t * eps).view(-1, 1, 1, 1)
    times = [torch.full((200_000,), time, dtype=DOUBLE) for time in (t, s)]
    target = MeanFlowLoss.target(mean_velocity, x_t, *times, None, (eps - x_0).view(-1, 1, 1, 1))
    u = mean_velocity(x_t, times[0], None, times[1])
    assert float((target - u).mean().abs()) < 0.005
    slope = (1 - spread(s) / spread(t)) / (t - s)
    expected = STD**2 / spread(t) ** 2 * (1 - (t - s) * slope) ** 2
    assert float((target - u).square().mean()) == pytest.approx(expected, rel=0.02)
    assert float((target - 1.05 * u).square().mean()) > expected


def test_the_derivative_of_the_network_is_that_of_finite_differences():
    net = of_random_weights(build("MeanFlowUNet", **TINY)).double()
    x_t, direction, y = noise(3, 1, 32, 32), noise(3, 1, 32, 32, seed=1), torch.tensor([0, 3, 6])
    t, s = torch.tensor([0.5, 0.9, 0.3], dtype=DOUBLE), torch.tensor([0.2, 0.0, 0.29], dtype=DOUBLE)
    found = MeanFlowLoss.target(net, x_t, t, s, y, direction)
    step = 1e-3  # in the embedding, which is float32, 0.02
    with torch.no_grad():
        after, before = (net(x_t + h * direction, t + h, y, s) for h in (step, -step))
    expected = direction - (t - s).view(-1, 1, 1, 1) * (after - before) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2 * float(expected.std()))


@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_meanflow_ends_at_the_same_quantile_in_any_number_of_steps(nfe):
    def told(x_t, t, s=0.0):
        t, s = torch.as_tensor(t, dtype=DOUBLE), torch.as_tensor(s, dtype=DOUBLE)
        return x_t - t * mean_velocity(x_t, t, None, s)

    eps = noise(4, 1, 3, 3)
    x_0 = sample(FunctionDenoiser(told, RectifiedFlow()), eps, uniform_times(nfe), meanflow_step)
    torch.testing.assert_close(x_0, MEAN + STD * eps, rtol=0, atol=1e-12)


def test_the_way_of_meanflow_is_down():
    with pytest.raises(ValueError, match="from a time t to an earlier s"):
        meanflow_step(FunctionDenoiser(lambda x, t, s: x, RectifiedFlow()), torch.zeros(2), 0.3, 0.5)


def test_times_of_meanflow():
    t, s = MeanFlowLoss(apart=0.25).times(100_000, torch.Generator().manual_seed(0))
    assert bool((s <= t).all()) and float((s < t).double().mean()) == pytest.approx(0.25, abs=0.01)
    larger, smaller = t[s < t].logit(), s[s < t].logit()
    # of two independent normals the larger is 1/sqrt(pi) standard deviations above their mean
    assert float(larger.mean()) == pytest.approx(-0.4 + math.pi**-0.5, abs=0.03)
    assert float(smaller.mean()) == pytest.approx(-0.4 - math.pi**-0.5, abs=0.03)
    assert torch.equal(*MeanFlowLoss(apart=0.0).times(10, torch.Generator()))


def test_the_loss_of_meanflow_with_equal_times_is_that_of_flow_matching():
    """apart = 0: every example's error over its own size, and the gradient that of the logarithm."""
    net, loss = of_random_weights(build("MeanFlowUNet", **TINY)), MeanFlowLoss(apart=0.0)
    batch = (noise(4, 1, 32, 32, dtype=torch.float32), torch.arange(4))
    value, t = loss(net, batch, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    loss.times(4, generator)
    eps = torch.randn(4, 1, 32, 32, generator=generator)
    x_t = RectifiedFlow().noisy(batch[0], eps, t)
    error = (net(x_t, t, batch[1], t) - (eps - batch[0])).square().mean((1, 2, 3))
    torch.testing.assert_close(value, error / (error + 1e-3), rtol=1e-5, atol=0)


@pytest.mark.parametrize("apart", [0.0, 0.5, 1.0])
def test_the_loss_of_meanflow_and_its_gradient_are_their_definition(apart):
    """The network answers at (t, s), the target is that of (t, s), and an example's gradient is over its own error:
    its value is nearly 1 whatever the error, and says little."""
    net, loss = of_random_weights(build("MeanFlowUNet", **TINY)), MeanFlowLoss(apart=apart)
    x_0, y = noise(4, 1, 32, 32, dtype=torch.float32), torch.arange(4)
    value, t = loss(net, (x_0, y), torch.Generator().manual_seed(0))
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    found = torch.autograd.grad(value.sum(), weights)
    generator = torch.Generator().manual_seed(0)
    t_again, s = loss.times(4, generator)
    assert torch.equal(t, t_again)
    eps = torch.randn(4, 1, 32, 32, generator=generator)
    x_t = RectifiedFlow().noisy(x_0, eps, t)
    target = MeanFlowLoss.target(net, x_t, t, s, y, eps - x_0)  # where s = t the velocity
    error = (net(x_t, t, y, s) - target).square().mean((1, 2, 3))
    expected = torch.autograd.grad((error / (error.detach() + 1e-3)).sum(), weights)
    largest = max(float(b.abs().max()) for b in expected)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * largest)


def test_meanflow_network_is_told_both_times_and_the_class():
    net = of_random_weights(build("MeanFlowUNet", **TINY))
    x_t, y = noise(2, 1, 32, 32, dtype=torch.float32), torch.tensor([0, 1])
    with torch.no_grad():
        first = net(x_t, 0.8, y, 0.2)
        for other in (net(x_t, 0.8, y, 0.5), net(x_t, 0.7, y, 0.2), net(x_t, 0.8, y + 1, 0.2)):
            assert float((other - first).std()) > 1e-3 * float(first.std())
        torch.testing.assert_close(net(x_t, 0.8, y), net(x_t, 0.8, y, 0.0))
        told = []  # beside t the length of the way, by a clock of 20 a unit: one of 10 and of 20 mean 0.5 and 1
        net.span[0].register_forward_pre_hook(lambda module, inputs: told.append(inputs[0]))
        for t, s in ((0.8, 0.3), (0.5, 0.0), (0.3, 0.3)):
            net(x_t, t, y, s)
        torch.testing.assert_close(told[0], told[1], rtol=0, atol=1e-4)
        torch.testing.assert_close(told[2][0], torch.tensor([1.0] * 16 + [0.0] * 16), rtol=0, atol=1e-4)
    denoiser = NetworkDenoiser(net, RectifiedFlow(), "flow").given(y)
    torch.testing.assert_close(denoiser(x_t, 0.8, s=0.2), x_t - 0.8 * first, rtol=0, atol=1e-5)


def test_a_copy_of_a_meanflow_network_answers_by_its_own_weights():
    """As an average of weights does, which begins as a copy."""
    net = of_random_weights(build("MeanFlowUNet", **TINY))
    twin, x_t, y = copy.deepcopy(net), noise(2, 1, 32, 32, dtype=torch.float32), torch.tensor([0, 1])
    with torch.no_grad():
        first = net(x_t, 0.8, y, 0.2)
        torch.testing.assert_close(twin(x_t, 0.8, y, 0.2), first, rtol=0, atol=0)
        for weight in net.span.parameters():
            weight.zero_()
        torch.testing.assert_close(twin(x_t, 0.8, y, 0.2), first, rtol=0, atol=0)
        assert float((net(x_t, 0.8, y, 0.2) - first).std()) > 1e-3 * float(first.std())


# ---- The transformer -------------------------------------------------------------------------------------------------

SMALL = {"width": 24, "depth": 2, "num_heads": 3, "patch": 4, "num_classes": 6, "image_size": 16}


def test_attention_is_pytorchs():
    block = of_random_weights(build("DiT", **SMALL)).blocks[0]
    theirs = torch.nn.MultiheadAttention(24, 3, batch_first=True).eval()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = block.to_qkv.weight.data, block.to_qkv.bias.data
    theirs.out_proj.weight.data, theirs.out_proj.bias.data = block.to_out.weight.data, block.to_out.bias.data
    tokens = noise(2, 16, 24, dtype=torch.float32)
    expected = theirs(tokens, tokens, tokens, need_weights=False)[0]
    torch.testing.assert_close(block.attention(tokens), expected, rtol=0, atol=1e-5)


def test_a_block_of_the_transformer_is_its_formula():
    """adaLN-Zero, each half with its own shift, scale and weight; the normalisation by hand."""
    block = of_random_weights(build("DiT", **SMALL)).blocks[0]
    tokens, condition = noise(2, 16, 24, dtype=torch.float32), noise(2, 24, seed=1, dtype=torch.float32)

    def normalised(z):
        return (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (
        block.modulation(condition * condition.sigmoid()).view(2, 6, 1, 24).unbind(1)
    )
    middle = tokens + gate_1 * block.attention(shift_1 + (1 + scale_1) * normalised(tokens))
    expected = middle + gate_2 * block.mlp(shift_2 + (1 + scale_2) * normalised(middle))
    torch.testing.assert_close(block(tokens, condition), expected, rtol=0, atol=1e-5)


def test_a_fresh_transformer_says_nothing_and_its_blocks_pass_all_on():
    net = build("DiT", **SMALL)
    tokens, x_t = noise(2, 16, 24, dtype=torch.float32), noise(2, 1, 16, 16, dtype=torch.float32)
    torch.testing.assert_close(net.blocks[0](tokens, tokens[:, 0]), tokens, rtol=0, atol=0)
    assert float(net(x_t, 0.5, torch.tensor([0, 6])).abs().max()) == 0


def test_the_transformer_knows_time_class_and_place():
    net = of_random_weights(build("DiT", **SMALL))
    x_t, y = noise(2, 1, 16, 16, dtype=torch.float32), torch.tensor([0, 1])
    with torch.no_grad():
        first, none = net(x_t, 0.5, y), net(x_t, 0.5)
        torch.testing.assert_close(none, net(x_t, torch.tensor([0.5, 0.5]), torch.tensor([6])))
        moved = net(x_t.roll(4, 3), 0.5, y).roll(-4, 3)
        for other in (net(x_t, 0.6, y), net(x_t, 0.5, y + 1), none, moved):
            assert float((other - first).std()) > 1e-3 * float(first.std())
    # one pixel reaches all others
    x = x_t[:1].clone().requires_grad_()
    net(x, 0.5, y[:1])[0, 0, 0, 0].backward()
    assert int((x.grad != 0).sum()) == 256


def test_the_transformer_takes_no_other_images():
    with pytest.raises(ValueError, match="image_size by patch; got 24 by 5"):
        build("DiT", **(SMALL | {"num_heads": 5}))
    net = build("DiT", **SMALL)
    with pytest.raises(ValueError, match=r"x_t must be .* \(1, 16, 16\); got shape \(2, 1, 32, 32\)"):
        net(torch.zeros(2, 1, 32, 32), 0.5)
    with pytest.raises(ValueError, match="0..5 or 6 for none; got \\[7, 0\\]"):
        net(torch.zeros(2, 1, 16, 16), 0.5, torch.tensor([7, 0]))


def test_u_net_and_transformer_compute_about_as_much():
    from torch.utils.flop_counter import FlopCounterMode

    from course_lib.recipes.trends import SMALL_DIT, TREND

    counts = {}
    for name, arguments in (("DiffusionUNet", TREND), ("DiT", SMALL_DIT)):
        with FlopCounterMode(display=False) as counter:
            build(name, **arguments)(torch.zeros(1, 1, 32, 32), 0.5, torch.tensor([1]))
        counts[name] = counter.get_total_flops()
    # the counter passes over PyTorch's fused attention: two products of all pairs of tokens a block, 2 flops each
    tokens = (SMALL_DIT["image_size"] // SMALL_DIT["patch"]) ** 2
    counts["DiT"] += SMALL_DIT["depth"] * 2 * 2 * tokens**2 * SMALL_DIT["width"]
    assert [round(count / 1e6) for count in counts.values()] == [66, 64], "as notebook 13 states"


# ---- Bridges ---------------------------------------------------------------------------------------------------------


def test_a_step_of_a_bridge_is_ddpms_for_what_is_left_of_the_end():
    """x_t - t y has the schedule's alpha and sigma; the same noise gives the same step."""
    schedule = BrownianBridge(0.7)
    x_t, y, x_0 = noise(3, 1, 4, 4), noise(3, 1, 4, 4, seed=1), noise(3, 1, 4, 4, seed=2)
    known = FunctionDenoiser(lambda x, t: x_0, schedule)
    for t, s in ((0.9, 0.4), (0.5, 0.49), (0.2, 0.0)):
        ours, _ = bridge_step(known, x_t, t, s, generator=torch.Generator().manual_seed(4))
        theirs, _ = ddpm_step(known, x_t - t * y, t, s, generator=torch.Generator().manual_seed(4))
        torch.testing.assert_close(ours, theirs + s * y, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 7])
def test_marginals_of_a_bridge_with_known_ends(n):
    """However many steps lead there: x_t ~ N((1 - t) x_0 + t y, std^2 t (1 - t))."""
    schedule, t = BrownianBridge(0.7), 0.3
    times = 1 - (1 - t) * torch.arange(n + 1, dtype=DOUBLE) / n
    x_0, y = 0.5, torch.full((200_000,), -0.8, dtype=DOUBLE)
    known = FunctionDenoiser(lambda x, time: torch.full_like(x, x_0), schedule)
    x_t = sample(known, y, times, bridge_step, torch.Generator().manual_seed(0))
    assert float(x_t.mean()) == pytest.approx((1 - t) * x_0 + t * -0.8, abs=0.004)
    assert float(x_t.std()) == pytest.approx(float(schedule.sigma(t)), rel=0.01)
    expected = schedule.noisy(torch.full_like(y, x_0), noise(200_000), t) + t * y
    assert float(expected.std()) == pytest.approx(float(x_t.std()), rel=0.01)


def test_a_bridge_with_the_exact_denoiser_draws_the_law_of_the_image_behind_y():
    """x_0 ~ N(0, 1), y = x_0 + 0.5 n: from one y, many steps draw N(0.8 y, 0.2), and one step its mean."""
    schedule, y, c = BrownianBridge(0.7), 1.5, 0.2

    def exact(x_t, t):
        """x_0 given y has mean 0.8 y and variance c; x_t adds an observation of (1 - t) x_0."""
        alpha, sigma = 1 - float(t), float(schedule.sigma(t))
        if sigma == 0:
            return torch.full_like(x_t, 0.8 * y)
        gain = alpha * c / (alpha**2 * c + sigma**2)
        return 0.8 * y + gain * (x_t - float(t) * y - alpha * 0.8 * y)

    denoiser, start = FunctionDenoiser(exact, schedule), torch.full((50_000,), y, dtype=DOUBLE)
    x_0 = sample(denoiser, start, uniform_times(800), bridge_step, torch.Generator().manual_seed(0))
    assert float(x_0.mean()) == pytest.approx(0.8 * y, abs=0.01) and float(x_0.var()) == pytest.approx(c, rel=0.03)
    once = sample(denoiser, start, uniform_times(1), bridge_step, torch.Generator())
    torch.testing.assert_close(once, torch.full_like(once, 0.8 * y))


def test_the_loss_of_a_bridge_shows_x_t_and_y():
    seen, loss = {}, BridgeLoss(BrownianBridge(0.5))
    x_0, y = noise(4000, 1, 1, 1), noise(4000, 1, 1, 1, seed=1)

    def net(x_t, t, beside):
        seen.update(x_t=x_t, t=t, y=beside)
        return torch.zeros_like(x_t)

    value, t = loss(net, (torch.cat([x_0, y], 1), None), torch.Generator().manual_seed(0))
    torch.testing.assert_close(value, x_0.square()[:, 0, 0, 0])
    assert torch.equal(seen["y"], y) and torch.equal(seen["t"], t)
    t = t.view(-1, 1, 1, 1)
    left = (seen["x_t"] - (1 - t) * x_0 - t * y) / (0.5 * (t * (1 - t)).sqrt())
    assert float(left.mean()) == pytest.approx(0, abs=0.05) and float(left.std()) == pytest.approx(1, abs=0.03)


def test_bridges_without_noise_or_forth_are_refused():
    with pytest.raises(ValueError, match="std must be positive"):
        BrownianBridge(0.0)
    with pytest.raises(ValueError, match="from a time t to an earlier s"):
        bridge_step(FunctionDenoiser(lambda x, t: x, BrownianBridge()), torch.zeros(2), 0.3, 0.5)


# ---- Masked diffusion ------------------------------------------------------------------------------------------------

ALL = torch.tensor(list(itertools.product(range(3), repeat=3)))  # all maps of three places and three labels
LAW = torch.tensor(np.random.default_rng(0).dirichlet(np.full(27, 0.3)))


def exact_probabilities(x_t):
    """p(label of each place | the places that are shown), (B, 3, 3), from the law of all 27 maps."""
    shown = x_t[:, -1] == 0
    labels_shown = x_t[:, :-1].argmax(1)
    fits = ((ALL[None] == labels_shown[:, None]) | ~shown[:, None]).all(2)  # (B, 27)
    weights = fits * LAW
    weights = weights / weights.sum(1, keepdim=True)
    return torch.einsum("bm,mpk->bkp", weights, F.one_hot(ALL, 3).double())


def exact_net(x_t, t, y=None):
    p = exact_probabilities(x_t)
    return torch.cat([p.clamp(min=1e-300).log(), torch.zeros_like(p[:, :1])], 1)


def drawn_law(nfe, n=60_000):
    """How often each of the 27 maps is drawn with the exact denoiser."""
    hidden = torch.zeros(n, 4, 3, dtype=DOUBLE)
    hidden[:, -1] = 1
    generator = torch.Generator().manual_seed(0)
    x_0 = sample(MaskedDenoiser(exact_net), hidden, uniform_times(nfe), unmask_step, generator)
    assert float(x_0[:, -1].sum()) == 0 and bool((x_0.sum(1) == 1).all()), "each place has one label"
    places = x_0.argmax(1) @ torch.tensor([9, 3, 1])
    return torch.bincount(places, minlength=27) / n


def test_unmasking_slowly_draws_the_law_and_at_once_its_marginals():
    """By enumeration. One evaluation draws the places independently; many show one after the other."""
    marginals = torch.einsum("m,mpk->pk", LAW, F.one_hot(ALL, 3).double())
    independent = torch.stack([marginals[range(3), one].prod() for one in ALL])
    far = 0.5 * float((independent - LAW).abs().sum())
    assert far > 0.2, "the places of this law depend on each other"
    assert 0.5 * float((drawn_law(1) - independent).abs().sum()) < 0.01
    assert 0.5 * float((drawn_law(200) - LAW).abs().sum()) < 0.02
    assert 0.02 < 0.5 * float((drawn_law(4) - LAW).abs().sum()) < far


def test_of_what_is_hidden_at_t_the_share_that_is_left_at_s_is_s_over_t():
    """Within five standard errors of 60,000 places, whatever the steps from 1 on."""
    hidden = torch.zeros(20_000, 4, 3, dtype=DOUBLE)
    hidden[:, -1] = 1
    x_t, generator = hidden, torch.Generator().manual_seed(0)
    for t, s in ((1.0, 0.7), (0.7, 0.4), (0.4, 0.05)):
        x_t, _ = unmask_step(MaskedDenoiser(exact_net), x_t, t, s, generator=generator)
        assert float(x_t[:, -1].mean()) == pytest.approx(s, abs=5 * (s * (1 - s) / 60_000) ** 0.5)


def test_the_masking_loss_of_the_exact_network_is_the_entropy():
    which = torch.multinomial(LAW, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    x_0 = 2 * F.one_hot(ALL[which], 3).movedim(-1, 1).double() - 1
    value, t = MaskingLoss()(exact_net, (x_0, None), torch.Generator().manual_seed(1))
    entropy = -float((LAW * LAW.log()).sum())
    assert 3 * float(value.mean()) == pytest.approx(entropy, rel=0.02)
    assert float(t.min()) >= 1e-3 and value.shape == t.shape == (40_000,)
    worse, _ = MaskingLoss()(lambda x, t: 0.8 * exact_net(x, t), (x_0, None), torch.Generator().manual_seed(1))
    assert float(worse.mean()) > float(value.mean())


def test_what_is_shown_keeps_its_label():
    x_t, hidden = masked(ALL, torch.full((27,), 0.5), 3, torch.Generator().manual_seed(0))
    assert x_t.shape == (27, 4, 3) and torch.equal(x_t[:, -1] == 1, hidden) and bool((x_t.sum(1) == 1).all())
    assert torch.equal(x_t.argmax(1)[~hidden], ALL[~hidden])
    D = MaskedDenoiser(exact_net)(x_t.double(), 0.5)
    shown = (~hidden)[:, None].expand_as(x_t)
    torch.testing.assert_close(D[shown], x_t.double()[shown], rtol=0, atol=0)
    torch.testing.assert_close(D.sum(1), torch.ones(27, 3, dtype=DOUBLE))
    x_s, _ = unmask_step(MaskedDenoiser(exact_net), x_t.double(), 0.5, 0.25, generator=torch.Generator().manual_seed(1))
    assert torch.equal(x_s[shown], x_t.double()[shown])
    none, everything = (masked(ALL, torch.full((27,), t), 3, torch.Generator())[1] for t in (0.0, 1.0))
    assert not bool(none.any()) and bool(everything.all())


# ---- The studies -----------------------------------------------------------------------------------------------------


def test_noise_of_a_low_dose_has_the_power_of_filtered_back_projection():
    x = torch.zeros(400, 1, 64, 64)
    n = bridge.low_dose(x, torch.Generator().manual_seed(0))
    assert float(n.std()) == pytest.approx(bridge.NOISE, rel=1e-4)
    power = torch.fft.fft2(n[:, 0]).abs().square().mean(0)
    f = torch.fft.fftfreq(64)
    along = power[0, 1:32] / power[0, 1:32].sum()
    expected = f[1:32] * (1 + torch.cos(2 * torch.pi * f[1:32])) / 2
    torch.testing.assert_close(along, expected / expected.sum(), rtol=0.35, atol=1e-3)
    assert float(power[0, 0]) < 1e-6 * float(power.max()), "the mean is kept"


def test_pieces_and_shares_of_maps():
    one, two = torch.zeros(48, 32, dtype=torch.long), torch.zeros(48, 32, dtype=torch.long)
    one[4:10, 4:10], one[12:20, 4:10] = 1, 2
    two[4:6, 4:6], two[10:12, 10:12] = 1, 1
    assert labels.in_one_piece(torch.stack([one, two])) == 0.5
    assert labels.shares(torch.stack([one, two])).shape == (2, 72)
    torch.testing.assert_close(labels.shares(one[None]).sum(), torch.tensor(24.0))


def test_a_student_learns_from_the_flow_of_its_own_seed(monkeypatch):
    asked = []
    net = build("DiffusionUNet", **TINY)
    monkeypatch.setattr(seeds, "shipped_or_trained", lambda *which: asked.append(which) or net)
    recipe, start = seeds.recipe_of("student", 2, "somewhere")
    assert asked == [("flow", 2, "somewhere")] and start is net and recipe.seed == 2
    assert recipe.loss.teacher().net is net and recipe.name == "trend_student_2"
    assert seeds.recipe_of("DiT", 1)[1] is None


def test_a_half_trained_student_does_not_go_on_with_another_teacher(monkeypatch):
    nets = [build("DiffusionUNet", **TINY) for _ in range(2)]
    nets.append(copy.deepcopy(nets[0]))
    losses = []
    for net in nets:
        monkeypatch.setattr(seeds, "shipped_or_trained", lambda *which, net=net: net)
        losses.append(seeds.recipe_of("student", 2)[0].loss)
    one, other, same = (identity_of(loss) for loss in losses)
    assert one == same != other


def identity_of(loss):
    return checkpoints.identity(
        torch.nn.Linear(1, 1), None, loss, steps=1, peak_rate=1.0, seed=0, precision=torch.float32
    )


@pytest.mark.parametrize("study", [seeds.STUDY, bridge.STUDY, labels.STUDY], ids=lambda study: study.name)
def test_records_are_whole(study):
    record = experiments.load(study.name)
    keys = [{key: row[key] for key in ("method", "seed")} for row in record["rows"]]
    assert sorted(map(str, keys)) == sorted(map(str, study.plan()))
    for row in record["rows"]:
        assert len(row["nfe"]) == len(row["frechet_distance"]) and all(map(math.isfinite, row["frechet_distance"]))
        assert study.is_fresh(row)


def test_the_first_seed_is_that_of_the_networks_that_ship():
    """Its distances are those of the other record."""
    rows = {(row["method"], row["sampler"], row["nfe"]): row for row in experiments.load("13_trends")["rows"]}
    for row in experiments.load("13_seeds")["rows"]:
        if row["seed"] == 0:
            for nfe, distance in zip(row["nfe"], row["frechet_distance"]):
                there = rows[row["method"], seeds.SAMPLERS[row["method"]], nfe]
                assert distance == pytest.approx(there["frechet_distance"], rel=0.02)
    assert set(trends.NETWORKS.values()) <= set(pretrained.names())
