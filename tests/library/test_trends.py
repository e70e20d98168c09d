"""Trends: EDM, rectified flow and a few-step student against closed forms of a Gaussian; the four networks of the
comparison; and their record."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from course_lib import datasets, experiments, pretrained, sample, samplers, schedules
from course_lib.denoisers import Counted, Denoiser, NetworkDenoiser
from course_lib.experiments import trends
from course_lib.experiments.study import run
from course_lib.generate import draw_along
from course_lib.losses import DiffusionLoss, DistillationLoss, EDMLoss
from course_lib.networks import DiffusionUNet, PreconditionedUNet, build
from course_lib.predictions import preconditioning, to_x0
from course_lib.recipes import RECIPES, mednist, quality, runs
from course_lib.recipes import trends as entries
from course_lib.samplers import consistency_step, ddim_step, dpmpp_2m_step
from course_lib.schedules import Cosine, Linear, RectifiedFlow, VarianceExploding, karras_levels, uniform_times

DOUBLE = torch.float64
MEAN, STD = -0.3, 0.55
SIGMAS = torch.tensor([0.01, 0.2, 0.55, 3.0, 50.0], dtype=DOUBLE)
TINY = {"channels": (32, 32), "num_res_blocks": 1, "patch": 4, "num_classes": 6, "norm_groups": 8}


def noise(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Pixels(Denoiser):
    """The exact denoiser of images whose pixels are independent N(mean, std^2), with the signature of a network's."""

    def __init__(self, schedule, mean=MEAN, std=STD):
        self.schedule, self.mean, self.std = schedule, mean, std

    def levels(self, x_t, t):
        return (schedules.match_dims(c, x_t) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))

    def __call__(self, x_t, t, y=None, **told):
        alpha, sigma = self.levels(x_t, t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def end(self, x_t, t, y=None):
        """Where the probability-flow path through x_t ends: the same quantile of x_0."""
        alpha, sigma = self.levels(x_t, t)
        return self.mean + self.std * (x_t - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2) ** 0.5


class End(Pixels):
    """A perfect student."""

    def __call__(self, x_t, t, y=None):
        return self.end(x_t, t)


# ---- EDM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma_data", [0.55, 1.0, 2.0])
def test_what_the_network_sees_and_says_has_unit_variance(sigma_data):
    """Closed forms for x_0 ~ N(0, sigma_data^2); and another c_skip would leave more for the network to say."""
    c_skip, c_out, c_in = preconditioning(SIGMAS, sigma_data)
    one = torch.ones_like(SIGMAS)

    def left(c_skip):
        """Variance of x_0 - c_skip x_t."""
        return (1 - c_skip) ** 2 * sigma_data**2 + c_skip**2 * SIGMAS**2

    torch.testing.assert_close(c_in**2 * (sigma_data**2 + SIGMAS**2), one, rtol=0, atol=1e-12)
    torch.testing.assert_close(left(c_skip) / c_out**2, one, rtol=0, atol=1e-12)
    for other in (c_skip - 0.01, c_skip + 0.01):
        assert (left(other) > c_out**2).all()


def test_with_unit_variance_edm_is_v_prediction():
    """The same network output, F = -v: the same denoised image, in coordinates with alpha^2 + sigma^2 = 1."""
    x, F = noise(5, 7), noise(5, 7, seed=1)
    c_skip, c_out, c_in = (c[:, None] for c in preconditioning(SIGMAS, 1.0))
    schedule = Cosine()
    t = schedule.time(-2 * SIGMAS.log())
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    torch.testing.assert_close(c_in, alpha, rtol=0, atol=1e-12)  # F sees x_t of the cosine schedule
    expected = to_x0("v", -F, alpha * x, alpha, sigma)
    torch.testing.assert_close(c_skip * x + c_out * F, expected, rtol=0, atol=1e-10)


def test_preconditioned_network_that_says_nothing_is_the_gaussian_denoiser():
    """The optimal F for x_0 ~ N(0, sigma_data^2) is zero: D is exact at every noise."""
    net = PreconditionedUNet(sigma_data=STD, **TINY).eval()
    for parameter in net.unet.out[-1].parameters():
        torch.nn.init.zeros_(parameter)
    exact, t = Pixels(VarianceExploding(), 0.0, STD), torch.tensor([0.1, 0.4, 0.7, 1.0])
    x_t = schedules.match_dims(VarianceExploding().sigma(t), torch.empty(4, 1, 8, 8)) * noise(4, 1, 8, 8).float()
    torch.testing.assert_close(net(x_t, t), exact(x_t, t), rtol=1e-5, atol=1e-6)


def test_preconditioned_network_is_its_formula():
    net = PreconditionedUNet(sigma_data=STD, **TINY).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    F = DiffusionUNet(**TINY).eval()
    F.load_state_dict(net.state_dict())
    x_t, t, y = noise(3, 1, 16, 16).float(), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0, 5, 6])
    for k in range(3):
        sigma = 0.002 * 40_000 ** float(t[k])
        root = math.sqrt(sigma**2 + STD**2)
        one = slice(k, k + 1)
        expected = STD**2 / root**2 * x_t[one] + sigma * STD / root * F(x_t[one] / root, t[one], y[one])
        torch.testing.assert_close(net(x_t[one], t[one], y[one]), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(x_t, 0.5, y)[:1], net(x_t[:1], torch.tensor([0.5]), y[:1]), rtol=1e-4, atol=1e-4)


def test_edm_trains_at_log_normal_noise():
    loss = EDMLoss(STD)
    t = loss.times(10_000, torch.Generator().manual_seed(0))
    log_sigma = loss.schedule.sigma(t.double()).log()
    assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=0.01)
    assert float(log_sigma.std()) == pytest.approx(1.2, abs=0.01)
    share = ((log_sigma + 1.2) / 1.2 < 1).double().mean()
    assert float(share) == pytest.approx(0.8413, abs=0.001)  # of a normal law below one standard deviation


def test_edm_loss_is_the_error_of_the_inner_network():
    """Of D = c_skip x_t + c_out F with a known F it is (F - (x_0 - c_skip x_t) / c_out)^2; of the exact denoiser of a
    Gaussian 1 at every noise, since there the optimal F is zero and its target has unit variance."""
    x_0, F, loss = noise(6, 1, 4, 4), noise(6, 1, 4, 4, seed=1), EDMLoss(STD)
    seen = {}

    def net(x_t, t, y):
        sigma = schedules.match_dims(loss.schedule.sigma(t), x_t)
        s = sigma**2 + STD**2
        seen["error"] = F - (x_0 - STD**2 / s * x_t) * s**0.5 / (sigma * STD)
        return STD**2 / s * x_t + sigma * STD / s**0.5 * F

    value, t = loss(net, (x_0, None), torch.Generator().manual_seed(2))
    assert t.shape == (6,)
    torch.testing.assert_close(value, seen["error"].square().mean((1, 2, 3)), rtol=1e-4, atol=1e-6)
    data = STD * noise(200, 1, 64, 64, dtype=torch.float32)
    value, _ = loss(Pixels(loss.schedule, 0.0, STD), (data, None), torch.Generator().manual_seed(3))
    # 4096 pixels of variance 1 each: the standard error of each mean square is sqrt(2 / 4096) = 0.022
    assert float((value - 1).abs().max()) < 0.1 and float(value.mean()) == pytest.approx(1, abs=0.006)


# ---- Rectified flow --------------------------------------------------------------------------------------------------


def velocity(x_t, t):
    """E[eps - x_0 | x_t] on straight lines from N(MEAN, STD^2) to N(0, 1), from their joint Gaussian."""
    variance = (1 - t) ** 2 * STD**2 + t**2
    return -MEAN + (t - (1 - t) * STD**2) / variance * (x_t - (1 - t) * MEAN)


def test_velocity_of_a_gaussian():
    """The flow that the exact denoiser stands for, and its loss: what is left is Var(eps - x_0 | x_t)."""
    x_t = noise(50)
    for t in (0.05, 0.4, 0.9, 1.0):
        x_0 = to_x0("flow", velocity(x_t, t), x_t, 1 - t, t)
        torch.testing.assert_close(x_0, Pixels(RectifiedFlow())(x_t, t), rtol=0, atol=1e-12)
    data = MEAN + STD * noise(200, 1, 64, 64, dtype=torch.float32)
    loss = DiffusionLoss(RectifiedFlow(), "flow")
    value, t = loss(
        lambda x_t, t, y: velocity(x_t, t.view(-1, 1, 1, 1)), (data, None), torch.Generator().manual_seed(1)
    )
    expected = STD**2 / ((1 - t) ** 2 * STD**2 + t**2)
    assert float((value / expected - 1).abs().max()) < 0.1


def test_ddim_on_straight_lines_is_eulers_step_along_the_velocity():
    x_t, denoiser = noise(50), Pixels(RectifiedFlow())
    for t, s in ((1.0, 0.75), (0.6, 0.1), (0.3, 0.0)):
        x_s, _ = ddim_step(denoiser, x_t, t, s)
        torch.testing.assert_close(x_s, x_t + (s - t) * velocity(x_t, t), rtol=0, atol=1e-12)
    x_0, _ = ddim_step(denoiser, x_t, 1.0, 0.0)  # straight lines to train on are no straight paths:
    torch.testing.assert_close(x_0, torch.full_like(x_t, MEAN), rtol=0, atol=1e-12)  # one step ends at the mean


@pytest.mark.parametrize("n", [1, 4, 8, 50])
def test_rectified_flow_is_monais(n):
    """``RFlowScheduler``: noise added, each step and the whole loop, per element. Its velocity is image minus noise."""
    from monai.networks.schedulers import RFlowScheduler

    theirs, denoiser = RFlowScheduler(num_train_timesteps=1000), Pixels(RectifiedFlow())
    theirs.set_timesteps(n)
    x_0, eps = noise(4, 1, 8, 8).float(), noise(4, 1, 8, 8, seed=1).float()
    indices = torch.tensor([0, 250, 900, 1000])
    added = theirs.add_noise(x_0, eps, indices)
    torch.testing.assert_close(denoiser.schedule.noisy(x_0, eps, indices / 1000), added, rtol=0, atol=1e-6)
    times = uniform_times(n)
    assert theirs.timesteps.tolist() == (1000 * times[:-1]).round().long().tolist()
    ours = x = eps
    for index, (t, s) in zip(theirs.timesteps, zip(times[:-1], times[1:])):
        x, x_0_theirs = theirs.step(-velocity(x, float(t)), index, x)
        ours, x_0_ours = ddim_step(denoiser, ours, t, s)
        torch.testing.assert_close(ours, x, rtol=0, atol=1e-6)
        torch.testing.assert_close(x_0_ours, x_0_theirs, rtol=0, atol=1e-6)


# ---- The student -----------------------------------------------------------------------------------------------------


def distillation(steps, schedule=None):
    schedule = schedule or RectifiedFlow()
    return DistillationLoss(lambda: Pixels(schedule), schedule, "flow", steps)


def test_two_exact_steps_of_the_teacher():
    """On straight lines from t = 1 over 1/2 to 0: x_1/2 = MEAN / 2 + eps / 2, and the end is the mean given it."""
    eps = noise(3, 1, 4, 4)
    x_t, t, end = distillation(2).paths(eps)
    assert t.tolist() == [1.0] * 3 + [0.5] * 3
    torch.testing.assert_close(x_t, torch.cat([eps, (MEAN + eps) / 2]), rtol=0, atol=1e-12)
    gain = 0.5 * STD**2 / (0.25 * STD**2 + 0.25)
    expected = MEAN + gain * ((MEAN + eps) / 2 - MEAN / 2)
    torch.testing.assert_close(end, torch.cat([expected, expected]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", [RectifiedFlow(), Linear()], ids=lambda s: type(s).__name__)
def test_many_steps_end_where_the_exact_path_ends(schedule):
    """For a Gaussian it is the same quantile of the data; the error falls with the number of steps."""
    eps, exact = noise(5, 1, 4, 4), Pixels(schedule)
    errors = []
    for steps in (8, 32, 128):
        x_t, t, end = distillation(steps, schedule).paths(eps)
        errors.append(float((end - exact.end(x_t, t)).abs().max()))
    assert errors[2] < 0.02 and errors[2] < errors[1] / 3 < errors[0] / 9


def test_distillation_loss_is_zero_for_a_perfect_student_alone():
    """A student that answers with the teacher's own ends; one that answers with the mean D leaves what D lacks."""
    loss, batch = distillation(4), (noise(12, 1, 4, 4), torch.arange(12))
    seen = {}

    def perfect(x_t, t, y):
        _, _, end = loss.paths(x_t[:3])
        seen["y"] = y
        return (x_t - end) / schedules.match_dims(t, x_t)  # the constant velocity from x_t to the end

    value, t = loss(perfect, batch, torch.Generator().manual_seed(0))
    assert value.shape == (12,) and float(value.max()) < 1e-12
    assert t.tolist() == [1.0] * 3 + [0.75] * 3 + [0.5] * 3 + [0.25] * 3
    assert seen["y"].tolist() == [0, 4, 8] * 4  # classes from all over the batch, each with its own paths
    generator = torch.Generator().manual_seed(0)
    value, _ = loss(lambda x_t, t, y: velocity(x_t, t.view(-1, 1, 1, 1)), batch, generator)
    x_t, t, end = loss.paths(noise(3, 1, 4, 4))  # drawn as images are: in their dtype
    expected = (Pixels(RectifiedFlow())(x_t, t) - end).square().mean((1, 2, 3))
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert float(value[:3].min()) > 0.05 and float(value[9:].max()) < 1e-10  # the last step is the mean already
    with pytest.raises(ValueError, match="divide by the 4 steps"):
        loss(perfect, (noise(10, 1, 4, 4), None), torch.Generator())


@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_a_perfect_student_draws_the_data_at_any_number_of_evaluations(nfe):
    """One evaluation of the denoiser D would give the mean alone; the student's law is right, and stays so when it
    begins anew from its own picture."""
    times = uniform_times(nfe)[:-1]
    images = draw_along(End(RectifiedFlow()), torch.zeros(40), times, consistency_step, size=64, batch_size=20)
    # clipped at 1, which is 2.4 standard deviations: compare with draws that are clipped too
    law = (MEAN + STD * noise(400_000)).clamp(-1, 1)
    assert float(images.mean()) == pytest.approx(float(law.mean()), abs=0.005)
    assert float(images.std()) == pytest.approx(float(law.std()), abs=0.005)
    if nfe == 1:
        mean = draw_along(Pixels(RectifiedFlow()), torch.zeros(2), times, ddim_step, size=8)
        torch.testing.assert_close(mean, torch.full_like(mean, MEAN))


def test_consistency_step_is_its_formula():
    x_t, student = noise(4, 1, 2, 2), End(RectifiedFlow())
    x_s, end = consistency_step(student, x_t, 0.75, 0.5, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(end, student.end(x_t, 0.75))
    torch.testing.assert_close(x_s, 0.5 * end + 0.5 * noise(4, 1, 2, 2, seed=5), rtol=0, atol=1e-12)


# ---- Drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule", [Linear(), Cosine(), RectifiedFlow(), VarianceExploding()], ids=lambda s: type(s).__name__
)
def test_levels_of_karras_are_the_same_noise_in_each_schedule(schedule):
    times = karras_levels(schedule, 7)
    ratio = schedule.sigma(times) / schedule.alpha(times)
    i = torch.arange(7) / 7
    expected = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(ratio, expected.double(), rtol=1e-4, atol=0)


def test_one_sampler_for_all_draws_the_same_images_in_each_schedule():
    """2M depends on D and on log-SNR alone: for one exact denoiser the schedule must not show."""
    drawn = []
    for schedule in (VarianceExploding(), RectifiedFlow(), Linear()):
        times = karras_levels(schedule, 6)
        # mean 0: at the first level x_t = sigma_t eps lacks alpha_t MEAN, which is not the same in each schedule
        drawn.append(draw_along(Pixels(schedule, 0.0), torch.zeros(3), times, dpmpp_2m_step, size=8))
    for other in drawn[1:]:
        torch.testing.assert_close(other, drawn[0], rtol=0, atol=1e-4)


def test_ending_with_the_denoised_image_is_stepping_to_zero():
    schedule, y = Cosine(), torch.zeros(3)
    times = uniform_times(5)[:-1] * 0.98
    start = schedule.sigma(times[0]) * noise(3, 1, 8, 8, dtype=torch.float32)
    whole = samplers.sample(Pixels(schedule), start, [*times, torch.zeros(())], ddim_step)
    torch.testing.assert_close(draw_along(Pixels(schedule), y, times, ddim_step, size=8), whole[:, 0].clamp(-1, 1))


@pytest.mark.parametrize("way", trends.WAYS)
def test_evaluations_are_counted_as_they_are(way):
    about = trends.WAYS[way]
    schedule = RECIPES[about.network].loss.schedule
    for nfe in about.evaluations:
        counted = Counted(Pixels(schedule))
        draw_along(counted, torch.zeros(2), about.times(schedule, nfe), about.step, size=8)
        assert counted.evaluations == nfe


@pytest.mark.parametrize("clean", [Linear(), RectifiedFlow(), VarianceExploding()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("noisy", [Cosine(), RectifiedFlow(), VarianceExploding()], ids=lambda s: type(s).__name__)
def test_two_exact_denoisers_mended_are_exact(clean, noisy):
    """Whatever their schedules; and the log-SNR alone says who is asked."""
    first, second = Counted(Pixels(clean)), Counted(Pixels(noisy))
    mended, x_t = trends.Mended(first, second, cut=-2.0), noise(5, 1, 4, 4)
    for level in (-7.0, -2.1, -1.9, 3.0):
        t = clean.time(torch.tensor(level, dtype=DOUBLE))
        first.evaluations = second.evaluations = 0
        torch.testing.assert_close(mended(x_t, t), first.denoiser(x_t, t), rtol=0, atol=1e-9)
        assert (first.evaluations, second.evaluations) == ((1, 0) if level > -2 else (0, 1))
    assert mended.schedule is clean


@pytest.mark.parametrize("sampler", ["2M", "DDIM", "ancestral"])
def test_the_flow_answers_for_ddpm_below_the_cut(sampler, monkeypatch):
    """The rows of the record are of these two networks, in this order."""
    asked = {name: Counted(Pixels(RECIPES[name].loss.schedule)) for name in ("trend_ddpm", "trend_flow")}
    monkeypatch.setattr(pretrained, "load_denoiser", asked.get)
    way = trends.WAYS[trends.MENDED, sampler]
    times = way.times(RECIPES["trend_ddpm"].loss.schedule, 15)
    draw_along(way.denoiser(), torch.zeros(2), times, way.step, size=8)
    below = int((RECIPES["trend_ddpm"].loss.schedule.log_snr(times) < trends.CUT).sum())
    assert 2 < below < 12
    assert {name: denoiser.evaluations for name, denoiser in asked.items()} == {
        "trend_ddpm": 15 - below,
        "trend_flow": below,
    }


def test_even_numbers_are_not_for_heun():
    with pytest.raises(ValueError, match="odd number of evaluations"):
        trends.WAYS["EDM", "Heun"].times(VarianceExploding(), 4)
    with pytest.raises(ValueError, match="no 'EDM' with 'magic': choose one of DDPM with ancestral"):
        trends.draw_set("EDM", "magic", 4)


# ---- The four networks -----------------------------------------------------------------------------------------------


@pytest.fixture
def few_images(monkeypatch, tmp_path):
    """A few random images in place of MedNIST, and a folder for weights that has an untrained judge."""
    images = np.random.default_rng(0).integers(0, 255, (96, 64, 64), dtype=np.uint8)
    monkeypatch.setattr(datasets, "mednist_images", lambda split: (images, np.arange(96) % 6))
    monkeypatch.setattr(mednist, "FD_IMAGES", 12)
    monkeypatch.setattr(quality, "FD_NFE", 2)
    monkeypatch.setattr(datasets, "REFERENCE_IMAGES", 48)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    torch.manual_seed(0)
    pretrained.save("mednist_features", build("Classifier"), {"network": "Classifier", "network_args": {}})
    for cached in (datasets.mednist_small, entries.small_reference):
        cached.cache_clear()
    yield tmp_path
    for cached in (datasets.mednist_small, entries.small_reference):
        cached.cache_clear()


def test_each_recipe_trains_ships_and_is_measured(few_images, monkeypatch):
    """One after the other, as the student needs its teacher."""
    for name in trends.NETWORKS.values():
        recipe = RECIPES[name]
        args = recipe.network_args | ({"width": 12, "depth": 1} if name == "trend_dit" else TINY)
        assert name == "trend_dit" or {k: recipe.network_args[k] for k in entries.TREND} == entries.TREND
        recipe = dataclasses.replace(recipe, network_args=args, batch_size=16, steps=2)
        for _ in runs.run(recipe, few_images, torch.float32):
            pass
        runs.ship(recipe, few_images)
        card = json.loads((few_images / f"{name}.json").read_text())
        assert math.isfinite(card["frechet_distance"]) and card["images"] == 12 and card["floor"] > 0
        assert 0 <= card["recognised_as_its_class"] <= 1
        assert card["standard_deviation_of_the_data"] == pytest.approx(0.289, abs=0.01)  # of means of 4 uniform bytes
        x_0 = pretrained.load_denoiser(name)(noise(2, 1, 32, 32).float(), 0.5, y=torch.tensor([0, 5]))
        assert x_0.shape == (2, 1, 32, 32) and x_0.abs().max() <= 1
        few = {"trend_student": "consistency", "trend_meanflow": "meanflow"}.get(name)
        assert not few or (card["network_evaluations"] == entries.FEW and card["sampler"] == few)
    edm = pretrained.card("trend_edm")
    assert edm["schedule"] == "VarianceExploding" and edm["kind"] == "x0"
    with pytest.raises(ValueError, match="sampler of its own"):
        sample._card_to_sample("trend_edm")
    rows = resumed_record(few_images, monkeypatch)
    assert all(math.isfinite(row["frechet_distance"]) and row["error"] >= 0 for row in rows)


def resumed_record(folder, monkeypatch):
    """The rows of a record of these networks, stopped after the first and made again after the second has changed."""
    monkeypatch.setattr(experiments.record, "RECORDS", folder / "records")
    monkeypatch.setattr(trends, "FD_IMAGES", 60)
    monkeypatch.setattr(trends.draw_set, "__defaults__", (60, 0))
    wanted = [("DDPM", "DDIM", 1), ("EDM", "Heun", 3), ("flow", "Euler", 2), ("student", "consistency", 2)]
    wanted = [dict(zip(("method", "sampler", "nfe"), row)) for row in wanted]
    few = dataclasses.replace(trends.STUDY, plan=lambda record: wanted)
    run(dataclasses.replace(few, plan=lambda record: wanted[:1]))
    run(few)
    record = experiments.load("13_trends")
    assert [{key: row[key] for key in wanted[0]} for row in record["rows"]] == wanted
    assert experiments.tensors("13_trends")["EDM, Heun, 3"].shape == (6, 32, 32)
    assert len(record["test_split"]) == 5 and all(math.isfinite(value) for value in record["test_split"])
    record["rows"][1]["needs"] = {"trend_edm": "another"}
    experiments.record.path("13_trends").write_text(json.dumps(record))
    asked = []
    run(dataclasses.replace(few, measure=lambda **key: asked.append(key) or trends.measure(**key)))
    assert asked == [wanted[1]]
    return experiments.load("13_trends")["rows"]


def test_student_starts_as_its_teacher(few_images):
    torch.manual_seed(1)
    pretrained.save("someone", DiffusionUNet(**TINY), {"network": "DiffusionUNet", "network_args": TINY})
    student = dataclasses.replace(RECIPES["trend_student"], network_args=TINY)
    net, teacher = runs._start(student, "someone", torch.float32, False), pretrained.load("someone")
    for name, value in teacher.state_dict().items():
        assert torch.equal(net.state_dict()[name].cpu(), value.cpu()), name
    name = next(iter(net.state_dict()))
    assert not torch.equal(runs._start(student, None, torch.float32, False).state_dict()[name], net.state_dict()[name])
    assert student.start == "trend_flow"


def test_small_images_are_means_of_squares(few_images):
    images, labels = datasets.mednist_small("train")
    assert images.shape == (96, 32, 32) and images.dtype == np.uint8 and len(labels) == 96
    whole = datasets.mednist_images("train")[0].astype(float)
    means = whole.reshape(96, 32, 2, 32, 2).mean((2, 4))
    assert np.abs(images - means).max() <= 0.51


def test_network_denoisers_of_the_recipes_are_right_on_a_gaussian():
    """Each recipe's kind in its own schedule: the exact answer of a network gives the exact denoised image."""
    x_t = noise(6, 1, 4, 4)
    for name in trends.NETWORKS.values():
        loss = RECIPES[name].loss
        exact = Pixels(loss.schedule)
        alpha, sigma = loss.schedule.alpha(0.5), loss.schedule.sigma(0.5)
        x_0 = exact(x_t, 0.5)
        eps = (x_t - alpha * x_0) / sigma
        answer = {"eps": eps, "x0": x_0, "flow": eps - x_0}[loss.kind]
        denoiser = NetworkDenoiser(lambda x, t, y, a=answer: a, loss.schedule, loss.kind)
        torch.testing.assert_close(denoiser.given(None)(x_t, 0.5), x_0, rtol=0, atol=1e-10)


@pytest.mark.skipif("trend_edm" not in pretrained.names(), reason="measured once it ships")
def test_sigma_data_is_that_of_the_data():
    card = pretrained.card("trend_edm")
    assert card["network_args"]["sigma_data"] == entries.SIGMA_DATA == RECIPES["trend_edm"].loss.sigma_data
    assert card["standard_deviation_of_the_data"] == pytest.approx(entries.SIGMA_DATA, abs=0.01)


# ---- The record ------------------------------------------------------------------------------------------------------


def test_record_is_whole_and_of_the_networks_that_are_here():
    rows = experiments.load("13_trends")["rows"]
    found = [tuple(row[key] for key in ("method", "sampler", "nfe")) for row in rows]
    assert sorted(found) == sorted(tuple(key.values()) for key in trends.plan())
    for row in rows:
        assert row["needs"] == pretrained.sha256_of(trends.WAYS[row["method"], row["sampler"]].networks)


@pytest.mark.parametrize(
    "which",
    [
        ("flow", "Euler", 4),
        ("student", "consistency", 1),
        ("EDM", "2M", 4),
        ("DiT", "2M", 2),
        ("MeanFlow", "MeanFlow", 2),
    ],
)
def test_images_of_a_row_can_be_drawn_again(which):
    """The first six of its six hundred, but for the precision of this machine."""
    images, _ = trends.draw_set(*which, n=trends.SHOWN)
    stored = experiments.tensors("13_trends")["{}, {}, {}".format(*which)].float() / 127.5 - 1
    assert float((images - stored).abs().mean()) < 0.03
