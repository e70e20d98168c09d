"""Does a scheduler draw what it should? Any scheduler, and no network: the denoiser is exact.

Data of one pixel, x_0 ~ N(0, std^2), whose denoiser has a closed form. Two questions: has what comes out the standard
deviation std (:func:`spreads`), and did each step go from the time at which the denoiser was asked to the next such
time, as the formula says (:func:`off_its_formula`)? The first can be met by luck, where two errors cancel, so there are
two spreads and several numbers of steps; the second cannot, and does not ask how good the formula is.
"""

import torch

from course_lib.arguments import positive, whole
from course_lib.denoisers import FunctionDenoiser, GaussianDenoiser
from course_lib.monai_bridge import to_monai
from course_lib.predictions import from_x0
from course_lib.samplers import sample
from course_lib.schedules import uniform_times

STDS, STEPS = (0.3, 0.05), (50, 30, 10)


def spreads(draw, schedule, stds=STDS, steps=STEPS, n=10_000):
    """{(std, steps): standard deviation of n samples over std}: 1 is right, 1 / std is noise that was left as it is.

    draw : draws by the scheduler that is tested, draw(denoiser, x, steps) -> images of the shape of x (n, 1, 1), the
    noise at t = 1; made by :func:`by_step`, :func:`by_monai` or :func:`by_diffusers`.
    schedule : that of the exact denoiser, as ``Discrete.linear(1000)``; its noise at t = 1 should be about 1.

    The noise has mean 0 and standard deviation 1 exactly, so that the answer of a sampler without chance, which is a
    multiple of x, has no error of sampling; that of one with chance has 1 / sqrt(2 n). Seeded.
    """
    whole(2, n=n)
    return {(std, k): float(_drawn(draw, _exact(std, schedule), k, n).std()) / std for std in stds for k in steps}


def off_its_formula(draw, schedule, step, stds=STDS, steps=STEPS, n=10_000):
    """Largest difference between the spreads that ``draw`` and ``step`` draw, as a share of the latter, over all stds
    and steps; 0 is right, up to chance where the step draws noise.

    step : the formula, a step of :mod:`course_lib.samplers` with one evaluation, as ``ddim_step``; it goes from each
    time at which ``draw`` asks the denoiser to the next, and from the last to 0. The other arguments: :func:`spreads`.
    """
    worst = 0.0
    for std in stds:
        for count in steps:
            exact, asked = _exact(std, schedule), []
            theirs = _drawn(draw, _listening(exact, asked), count, n).std()
            ours = _drawn(by_step(step, lambda _, at=asked: torch.tensor([*at, 0.0])), exact, count, n).std()
            worst = max(worst, abs(float(theirs / ours) - 1))
    return worst


def _exact(std, schedule):
    positive(std=std)
    return GaussianDenoiser(torch.zeros(1), torch.tensor([[std**2]]), schedule)


def _listening(denoiser, asked):
    """The denoiser, which adds each time that it is asked at to a list."""

    def listen(x_t, t):
        asked.append(float(t))
        return denoiser(x_t, t)

    return FunctionDenoiser(listen, denoiser.schedule)


def _drawn(draw, denoiser, steps, n):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(n, 1, 1)
        return draw(denoiser, (x - x.mean()) / x.std(), steps)


def by_step(step, times=uniform_times):
    """``draw`` of a step of :mod:`course_lib.samplers`; times(steps) is the grid, falling from about 1 to 0."""
    return lambda denoiser, x, steps: sample(denoiser, x, times(steps), step, torch.Generator().manual_seed(1))


def by_monai(make):
    """``draw`` of MONAI's inferer; make(steps) is a new scheduler of MONAI's, with ``set_timesteps`` called.

    The scheduler gets the table of the denoiser's schedule (:func:`~course_lib.monai_bridge.to_monai`).
    """

    def draw(denoiser, x, steps):
        from monai.inferers import DiffusionInferer

        scheduler = make(steps)
        return DiffusionInferer(scheduler).sample(x, to_monai(denoiser, scheduler), scheduler, verbose=False)

    return draw


def by_diffusers(make):
    """``draw`` of the loop of diffusers; make(steps) is a new scheduler of theirs that expects the noise, epsilon, with
    ``set_timesteps`` called and the table of the denoiser's schedule. Their index k is t = (k + 1) / T."""

    def draw(denoiser, x, steps):
        scheduler, schedule = make(steps), denoiser.schedule
        x = x * scheduler.init_noise_sigma
        for k in scheduler.timesteps:
            t = (k.double() + 1) / scheduler.config.num_train_timesteps
            seen = scheduler.scale_model_input(x, k)
            eps = from_x0("eps", denoiser(seen, t), seen, schedule.alpha(t), schedule.sigma(t)).to(x)
            x = scheduler.step(eps, k, x).prev_sample
        return x

    return draw
