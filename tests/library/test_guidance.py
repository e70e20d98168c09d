"""Guidance against closed forms on Gaussians and mixtures, finite differences, and the network's own answers."""

import pytest
import torch

from course_lib import experiments, guidance, pretrained
from course_lib.denoisers import Counted, Denoiser, GaussianDenoiser, MixtureDenoiser, NetworkDenoiser
from course_lib.experiments import guidance as study
from course_lib.samplers import ddim_step, heun_step, sample
from course_lib.schedules import Cosine, Linear, RectifiedFlow, VarianceExploding, uniform_times

F64 = torch.float64
WEIGHTS = torch.tensor([0.2, 0.3, 0.1, 0.4], dtype=F64)
MEANS = torch.tensor([[0.0, 1.0], [1.5, 0.0], [-1.0, -1.0], [0.5, 2.0]], dtype=F64)
STDS = torch.tensor([0.3, 0.5, 0.2, 0.4], dtype=F64)
of_class = torch.tensor([0, 1, 0, 1])  # components 0 and 2 are class 0


def mixture(schedule):
    """The whole mixture, and the two class-conditional ones."""
    parts = []
    for k in (0, 1):
        chosen = of_class == k
        share = WEIGHTS[chosen] / WEIGHTS[chosen].sum()
        parts.append(MixtureDenoiser(share, MEANS[chosen], STDS[chosen], schedule))
    return MixtureDenoiser(WEIGHTS, MEANS, STDS, schedule), parts


def exact_log_prob(parts):
    """log p(class | x_t) (B, 2) up to a constant, from the exact densities and the shares of the classes."""
    shares = torch.stack([WEIGHTS[of_class == k].sum() for k in (0, 1)]).log()
    return lambda x_t, t: torch.stack([part.log_density(x_t, t) for part in parts], 1) + shares


def points(n=50, seed=0):
    return torch.randn(n, 2, dtype=F64, generator=torch.Generator().manual_seed(seed))


class Told(Denoiser):
    """Two exact denoisers behind one that is told which to use, example by example: y = 0 conditional, 1 "none"."""

    def __init__(self, conditional, unconditional, schedule):
        self.parts, self.schedule = (conditional, unconditional), schedule

    def __call__(self, x_t, t, y):
        answers = torch.stack([part(x_t, t) for part in self.parts], 1)
        return answers[torch.arange(len(x_t)), y]


@pytest.mark.parametrize(
    "schedule", [Cosine(), Linear(), RectifiedFlow(), VarianceExploding()], ids=lambda schedule: type(schedule).__name__
)
@pytest.mark.parametrize("t", [0.05, 0.4, 0.9])
def test_exact_classifier_at_scale_one_gives_the_exact_conditional_denoiser(schedule, t):
    whole, parts = mixture(schedule)
    x_t = points() * float(schedule.sigma(t) + schedule.alpha(t))
    for k in (0, 1):
        guided = guidance.ClassifierGuided(whole, exact_log_prob(parts), w=1)
        difference = guided(x_t, t, y=torch.full((50,), k)) - parts[k](x_t, t)
        assert difference.abs().max() < 1e-10


@pytest.mark.parametrize("w", [0.5, 3.0])
def test_exact_classifier_guidance_is_classifier_free_guidance(w):
    """Dhariwal & Nichol's and Ho & Salimans' formulas are one where the classifier and both denoisers are exact."""
    schedule, y = Cosine(), torch.zeros(50, dtype=torch.long)
    whole, parts = mixture(schedule)
    by_classifier = guidance.ClassifierGuided(whole, exact_log_prob(parts), w)(points(), 0.3, y=y)
    torch.testing.assert_close(
        by_classifier, guidance.Autoguidance(whole, parts[0], w)(points(), 0.3), rtol=0, atol=1e-10
    )
    told = guidance.ClassifierFree(Told(parts[0], whole, schedule), none=1, w=w)
    torch.testing.assert_close(told(points(), 0.3, y=y), by_classifier, rtol=0, atol=1e-10)
    # a time for each example goes the same way, and one in a vector
    for times in (torch.linspace(0.1, 0.9, 50, dtype=F64), torch.tensor([0.3], dtype=F64)):
        torch.testing.assert_close(
            told(points(), times, y=y), guidance.Autoguidance(whole, parts[0], w)(points(), times), rtol=0, atol=1e-12
        )


def test_gradient_of_the_classifier_by_finite_differences():
    _, parts = mixture(Cosine())
    logits, x, y, h = exact_log_prob(parts), points(8), torch.arange(8) % 2, 1e-6
    gradient = guidance.log_prob_gradient(logits, x, 0.3, y)
    for axis in (0, 1):
        step = torch.zeros(2, dtype=F64)
        step[axis] = h
        up, down = (logits(x + s, 0.3).log_softmax(1)[torch.arange(8), y] for s in (step, -step))
        torch.testing.assert_close(gradient[:, axis], (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


def test_what_guidance_cannot_be_told():
    whole, parts = mixture(Cosine())
    guided = guidance.ClassifierGuided(whole, exact_log_prob(parts), w=1)
    for y in ([0, 1, 2, 0], [0, -1, 1, 0], [0, 1]):
        with pytest.raises(ValueError, match="y must hold a class from 0 to 1 for each of 4 images"):
            guided(points(4), 0.3, y=torch.tensor(y))
    for y in ([0.0, 1.0, 1.0, 0.0], [False, True, True, False]):
        with pytest.raises(ValueError, match="y must hold a class from 0 to 1 for each of 4 images, as whole numbers"):
            guided(points(4), 0.3, y=torch.tensor(y))
    small, classes = torch.tensor([0, 1, 1, 0], dtype=torch.uint8), torch.tensor([0, 1, 1, 0])
    assert torch.equal(guided(points(4), 0.3, y=small), guided(points(4), 0.3, y=classes))
    for w in (float("nan"), float("inf"), lambda t: float("nan")):
        with pytest.raises(ValueError, match="scale w must be a finite number"):
            guidance.Autoguidance(whole, parts[0], w)(points(4), 0.3)
    with pytest.raises(ValueError, match="low must lie below high"):
        guidance.Clipped(whole, 1.0, -1.0)


def test_a_scale_below_zero_pulls_away():
    whole, parts = mixture(Cosine())
    away = guidance.Autoguidance(whole, parts[0], -1.0)(points(), 0.3) - whole(points(), 0.3)
    torch.testing.assert_close(away, whole(points(), 0.3) - parts[0](points(), 0.3))


def test_gradient_is_found_where_gradients_are_off_and_leaves_its_input_alone():
    _, parts = mixture(Cosine())
    x = points(4)
    with torch.no_grad():
        gradient = guidance.log_prob_gradient(exact_log_prob(parts), x, 0.3, torch.zeros(4, dtype=torch.long))
    assert gradient.abs().max() > 0
    assert not x.requires_grad
    assert not gradient.requires_grad


# ---- guidance is not the tilted density: p(x | c) = N(0, 1), p(x) = N(0, 2), variance exploding ----------------


def gaussian(variance, schedule):
    return GaussianDenoiser(torch.zeros(1, dtype=F64), torch.tensor([[variance]], dtype=F64), schedule)


@pytest.mark.parametrize("w", [0, 0.5, 1, 2, 3, 5])
def test_variance_of_guided_gaussians_is_not_that_of_the_tilted_density(w):
    """ODE: 2^(1 - w). Tilted density p(x | c)^w p(x)^(1 - w): 2 / (w + 1). They agree at w = 0 and w = 1 only."""
    schedule = VarianceExploding(1e-3, 1e4)
    guided = guidance.Autoguidance(gaussian(2.0, schedule), gaussian(1.0, schedule), w)
    start = torch.tensor([[1e4]], dtype=F64)  # the ODE is linear: where one standard deviation goes, the others go too
    end = sample(guided, start, uniform_times(1000), heun_step)
    assert float(end**2) == pytest.approx(2.0 ** (1 - w), rel=3e-4)
    x = torch.linspace(-12, 12, 4001, dtype=F64)
    tilted = torch.exp(-w * x**2 / 2 - (1 - w) * x**2 / 4)
    variance = torch.trapezoid(x**2 * tilted, x) / torch.trapezoid(tilted, x)
    assert float(variance) == pytest.approx(2 / (w + 1), rel=1e-6)
    assert (abs(2 ** (1 - w) - 2 / (w + 1)) < 1e-12) == (w in (0, 1))


# ---- scales, intervals, and what they cost ---------------------------------------------------------------------------


def test_interval_switches_at_its_ends():
    w = guidance.interval(5, 0.2, 0.6)
    assert [w(t) for t in (0.0, 0.2, 0.21, 0.6, 0.61, 1.0)] == [1, 1, 5, 5, 1, 1]
    with pytest.raises(ValueError, match="0 <= low <= high <= 1"):
        guidance.interval(5, 0.6, 0.2)
    with pytest.raises(ValueError, match="one t"):
        guidance.scale_at(w, torch.tensor([0.1, 0.2]))


@pytest.mark.parametrize(("w", "cost"), [(0, 1), (1, 1), (3, 2), (guidance.interval(3, 0.2, 0.6), None)])
def test_cost_is_counted_in_images(w, cost):
    """A doubled batch is one call and twice the work; outside the interval one evaluation is enough."""
    schedule, n, steps = Cosine(), 5, 10
    whole, parts = mixture(schedule)
    counted = Counted(Told(parts[0], whole, schedule))
    guided = guidance.ClassifierFree(counted, none=1, w=w).given(torch.zeros(n, dtype=torch.long))
    sample(guided, points(n), uniform_times(steps), ddim_step)
    inside = 4  # of the times 1.0, 0.9 ... 0.1, those in (0.2, 0.6]: 0.6, 0.5, 0.4, 0.3
    assert counted.evaluations == steps
    assert counted.images == n * (cost * steps if cost else steps + inside)


def test_scales_zero_and_one_are_the_denoisers_themselves():
    whole, parts = mixture(Cosine())
    told, y = Told(parts[0], whole, Cosine()), torch.zeros(50, dtype=torch.long)
    for w, expected in ((0, whole), (1, parts[0])):
        assert torch.equal(guidance.ClassifierFree(told, none=1, w=w)(points(), 0.4, y=y), expected(points(), 0.4))
        assert torch.equal(guidance.Autoguidance(whole, parts[0], w)(points(), 0.4), expected(points(), 0.4))
    unasked = guidance.ClassifierGuided(whole, None, w=0)
    assert torch.equal(unasked(points(), 0.4, y=y), whole(points(), 0.4))


def test_clipped_comes_last():
    whole, parts = mixture(Cosine())
    guided = guidance.Autoguidance(whole, parts[0], 4)
    raw = guided(points(), 0.4)
    assert raw.abs().max() > 1
    assert torch.equal(guidance.Clipped(guided)(points(), 0.4), raw.clamp(-1, 1))


# ---- the shipped network and the record ------------------------------------------------------------------------------


def test_one_doubled_batch_is_two_evaluations_of_the_network():
    denoiser = pretrained.load_denoiser("mednist", clip=False)
    x, y = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 4, 5])
    guided = guidance.ClassifierFree(denoiser, none=denoiser.net.num_classes, w=3)(x, 0.5, y=y)
    D_none, D_y = denoiser(x, 0.5), denoiser(x, 0.5, y=y)
    torch.testing.assert_close(guided, D_none + 3 * (D_y - D_none), rtol=0, atol=1e-4)
    assert isinstance(denoiser, NetworkDenoiser)
    assert guidance.ClassifierFree(denoiser, 6, 3).schedule is denoiser.schedule


def test_a_part_of_the_record_is_remade():
    """The first six images of a stored row, drawn anew: mean and spread of each image within a grey level in fifty."""
    record = experiments.load("05_guidance")
    stored = next(row for row in record["rows"] if (row["method"], row["w"]) == ("classifier-free", 3))
    images, _ = study.draw_set("classifier-free", 3, n=6)
    drawn = torch.stack([images.mean((1, 2)), images.std((1, 2))], 1)
    torch.testing.assert_close(drawn, torch.tensor(stored["first_six"]), rtol=0, atol=0.04)
    for row in record["rows"]:
        assert row["needs"] == {name: pretrained.card(name)["sha256"] for name in row["needs"]}, (
            "made with other weights"
        )
    assert len({(row["method"], row["w"]) for row in record["rows"]}) == len(record["rows"]) == len(study.PLAN)
    floor, held_out = (
        sum(record[split]["coverage"]) / len(record[split]["coverage"]) for split in ("floor", "held_out")
    )
    assert record["floor"].keys() == record["held_out"].keys() and held_out < floor  # unseen images are farther away


def test_guided_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="no guidance 'magic'; there are: classifier-free"):
        study.guided("magic", 3)
