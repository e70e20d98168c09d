"""What training makes small: loss(net, batch, generator) gives the loss of each example (B,), and its time (B,) or
None."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from course_lib import runtime
from course_lib.arguments import alike, not_negative, one_of, positive, whole, within
from course_lib.images import to_tensor
from course_lib.networks import normal_logits
from course_lib.operators import Blur
from course_lib.predictions import KINDS, preconditioning, target, to_x0
from course_lib.samplers import dpmpp_2m_step, noise_like, trajectory
from course_lib.schedules import BrownianBridge, RectifiedFlow, VarianceExploding, match_dims, uniform_times


def stratified_times(n, generator):
    """n times in [0, 1], one in each of n equal strata, in random order: less noise in the loss than n independent
    draws.

    Kingma et al., Variational diffusion models (NeurIPS 2021), app. I.1.
    """
    strata = torch.randperm(n, generator=generator)
    return (strata + torch.rand(n, generator=generator)) / n


def shifted_times(t, s):
    """t -> s t / (1 + (s - 1) t), 0 at 0 and 1 at 1: times nearer to 1, more noise, for s > 1.

    Esser et al., Scaling rectified flow transformers (ICML 2024), eq. 23.
    """
    return s * t / (1 + (s - 1) * t)


def _apart(batch, concat):
    """x_0 and y of a batch, where the last ``concat`` channels of its images are the image y."""
    x, y = batch
    if concat >= x.shape[1]:
        raise ValueError(
            f"concat must be below the number of channels, of which something is x_0; got {concat} of {x.shape[1]}"
        )
    return (x[:, :-concat], x[:, -concat:]) if concat else (x, y)


def _answer(answer, wanted):
    """What a network answered. Raises ValueError unless it has the shape that is wanted: what broadcasts would compare
    each image with the others."""
    alike(**{"the answer of net": answer, "what it is compared with": wanted})
    return answer


@dataclass(frozen=True)
class DiffusionLoss:
    """L = E || net(x_t, t, y) - target ||^2, the mean over pixels, with x_t = alpha_t x_0 + sigma_t eps.

    Ho et al. (NeurIPS 2020), eq. 14, for kind "eps"; Salimans & Ho (ICLR 2022) for "v". With probability drop_class the
    class y is replaced by the network's "none", so that the same network also serves classifier-free guidance (Ho &
    Salimans, 2022). time_shift s > 1 trains more where there is much noise: see :func:`shifted_times`.
    """

    schedule: object
    kind: str = "v"
    drop_class: float = 0.1
    condition: Callable | None = None  # makes the image y that the network sees beside x_t out of x_0
    concat: int = 0  # or: the last so many channels of the images are y, and the others x_0
    time_shift: float = 1.0

    def __post_init__(self):
        one_of(KINDS, kind=self.kind)
        within(0, 1, drop_class=self.drop_class)
        whole(0, concat=self.concat)
        positive(time_shift=self.time_shift)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and its time (B,).

        batch: x_0 (B, C, H, W), and y: classes (B,), a map of labels (B, H, W), or None.
        """
        error, t = self.error(net, batch, generator)
        return error.flatten(1).mean(1), t

    def error(self, net, batch, generator):
        """The squared error of each pixel (B, C, H, W), and the time (B,)."""
        x_0, y = _apart(batch, self.concat)
        t = shifted_times(stratified_times(len(x_0), generator), self.time_shift)
        eps = noise_like(x_0, generator)
        if self.condition is not None:
            y = self.condition(x_0)
        elif y is not None and y.ndim == 1:
            dropped = torch.rand(len(y), generator=generator) < self.drop_class
            y = torch.where(dropped.to(y.device), net.num_classes, y)
        x_t = self.schedule.noisy(x_0, eps, t)
        alpha, sigma = match_dims(self.schedule.alpha(t), x_0), match_dims(self.schedule.sigma(t), x_0)
        x_0, eps = self._origin(x_0, eps, x_t, t, y)
        return (_answer(net(x_t, t, y), x_0) - target(self.kind, x_0, eps, alpha, sigma)).square(), t

    def _origin(self, x_0, eps, x_t, t, y):
        """Image and noise that the network is held against at x_t: those that x_t was made of."""
        return x_0, eps


@dataclass(frozen=True, kw_only=True)
class StableTargetLoss(DiffusionLoss):
    """:class:`DiffusionLoss` with less chance in it where there is much noise and, if wished, each time counted alike.

    From the time ``since`` on, many training images x_i may have become the same x_t. There the network is held against
    their mean, and not against the one that x_t was made of:

        x_0 -> sum_i w_i x_i,    w_i = softmax_i(-||x_t - alpha_t x_i||^2 / (2 sigma_t^2)),

    over the x_i of the class that the network is told, or over all. That is E[x_0 | x_t] over the training set, what
    the squared error asks for: the gradient has the same mean and less variance. Xu et al., Stable target field (ICLR
    2023), take a part of the training set, and so a small bias; here it is the whole.

    It is told the training set by :meth:`of`, which :func:`~course_lib.recipes.runs.run` does for a recipe's.

    usual : pairs (time, loss), times rising from 0 to 1, with straight lines between them. Each loss is divided by the
    usual one at its time, so that no time outweighs the others, and multiplied by one number for all times that makes
    the mean of these weights 1. Karras et al. (CVPR 2024) learn such weights while they train.
    """

    since: float = 0.8
    usual: tuple | None = None
    training_set: tuple | None = None  # rows (N, D), half their squares (N,), classes (N,) or None

    def __post_init__(self):
        super().__post_init__()
        within(0, 1, since=self.since)
        if self.condition is not None or self.concat:
            raise ValueError("condition and concat must be left out: training images are told apart by class alone")
        if self.usual is not None:
            times = [t for t, _ in self.usual]
            if times[:1] != [0] or times[-1] != 1 or times != sorted(set(times)):
                raise ValueError(f"the times of usual must rise from 0 to 1, got {times}")
            positive(**{f"usual at {t}": loss for t, loss in self.usual})

    def error(self, net, batch, generator):
        """The squared error of each pixel (B, C, H, W), weighted by its time, and the time (B,)."""
        error, t = super().error(net, batch, generator)
        if self.usual is None:
            return error, t
        weight = self._inverse(t) / self._inverse(torch.linspace(0, 1, 1001)).mean()
        return error * match_dims(weight, error), t

    def _inverse(self, t):
        """1 / usual loss at times t (B,)."""
        return torch.as_tensor(1 / np.interp(t.cpu(), *zip(*self.usual))).to(t)

    def of(self, images, labels=None):
        """The same loss, of these training images and their classes (N,) or None, as
        :class:`~course_lib.training.Batches` takes them."""
        x = to_tensor(images).flatten(1).to(runtime.device())
        labels = None if labels is None else torch.as_tensor(labels).to(x.device)
        return replace(self, training_set=(x, x.square().sum(1) / 2, labels))

    def _origin(self, x_0, eps, x_t, t, y):
        late = t >= self.since
        if not late.any():
            return x_0, eps
        alpha, sigma = (match_dims(part(t[late]), x_0) for part in (self.schedule.alpha, self.schedule.sigma))
        mean = self._mean_origin(x_t[late], alpha, sigma, None if y is None else y[late])
        x_0, eps = x_0.clone(), eps.clone()
        x_0[late], eps[late] = mean, (x_t[late] - alpha * mean) / sigma
        return x_0, eps

    def _mean_origin(self, x_t, alpha, sigma, y):
        """The mean of the training images that may have become x_t (B, C, H, W), of class y (B,) where one has it."""
        if self.training_set is None:
            raise ValueError("StableTargetLoss does not know its training images: loss.of(images, labels) tells it")
        images, half_squares, labels = self.training_set
        x, alpha, sigma = (part.flatten(1) for part in (x_t, alpha, sigma))
        with torch.autocast(x.device.type, enabled=False):  # differences of large sums
            logits = (alpha * x @ images.T - alpha**2 * half_squares) / sigma**2  # less ||x||^2, the same for all
            if y is not None:
                of_class = y[:, None] == labels
                of_class |= ~of_class.any(1, keepdim=True)  # no image is of class "none": all of them count
                logits = logits.where(of_class, -torch.inf)
            return (logits.softmax(1) @ images).view_as(x_t)


@dataclass(frozen=True)
class EDMLoss:
    """L = E [ || net(x_t, t, y) - x_0 ||^2 / c_out^2 ], the mean over pixels, with x_t = x_0 + sigma_t eps and
    ln sigma_t ~ N(mean, std^2); net is the denoised image itself, a ``PreconditionedUNet``.

    The weight lambda(sigma_t) = 1 / c_out^2 lets the errors of F count alike at each noise, and the distribution of the
    noise sets where training spends its time. Karras et al. (NeurIPS 2022), table 1 and eq. 8.
    """

    sigma_data: float
    mean: float = -1.2
    std: float = 1.2
    schedule: object = VarianceExploding()
    kind = "x0"

    def __post_init__(self):
        positive(sigma_data=self.sigma_data, std=self.std)

    def times(self, n, generator):
        """n times, their ln sigma_t in n strata of equal probability, in random order."""
        log_sigma = self.mean + self.std * torch.special.ndtri(stratified_times(n, generator).double())
        return self.schedule.time((-2 * log_sigma).clamp(*self.schedule.log_snr_range())).float()

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and its time (B,). batch: x_0 (B, C, H, W), and classes y (B,) or None."""
        x_0, y = batch
        t = self.times(len(x_0), generator)
        x_t = self.schedule.noisy(x_0, noise_like(x_0, generator), t)
        _, c_out, _ = preconditioning(match_dims(self.schedule.sigma(t), x_0), self.sigma_data)
        return ((_answer(net(x_t, t, y), x_0) - x_0) / c_out).square().flatten(1).mean(1), t


@dataclass(frozen=True)
class MeanFlowLoss:
    """L = E [ || u(x_t, s, t) - target ||^2 ], the mean over pixels, in the schedule ``RectifiedFlow``, with

        target = velocity - (t - s) du/dt,    velocity = eps - x_0,

    where du/dt = velocity . grad_x u + d u / d t follows the line through x_t, and no gradient flows through the target
    (Geng et al., NeurIPS 2025). u is net(x_t, t, y, s), a ``MeanFlowUNet``. Where s = t the target is
    the velocity, and u that of flow matching; where s < t, for a share ``apart`` of the examples, it takes one
    derivative along a direction besides (forward mode).

    t and s are the larger and the smaller of two logistic normal times, ln(t / (1 - t)) ~ N(mean, std^2); the paper's
    share of s < t is a quarter on ImageNet, three quarters on CIFAR-10. Each example's loss is divided by its own value
    + 1e-3, as constants (their adaptive weight with p = 1), so that none outweighs the others.
    """

    apart: float = 0.75
    mean: float = -0.4
    std: float = 1.0
    schedule: object = RectifiedFlow()
    kind = "flow"

    def __post_init__(self):
        within(0, 1, apart=self.apart)
        positive(std=self.std)

    def times(self, n, generator):
        """n pairs t, s with s <= t, two tensors (n,)."""
        strata = (stratified_times(n, generator) for _ in range(2))
        first, second = ((self.mean + self.std * torch.special.ndtri(part)).sigmoid() for part in strata)
        t = torch.maximum(first, second)
        return t, torch.where(torch.rand(n, generator=generator) < self.apart, torch.minimum(first, second), t)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and its time (B,). batch: x_0 (B, C, H, W), and classes y (B,) or None."""
        x_0, y = batch
        t, s = (time.to(x_0.device) for time in self.times(len(x_0), generator))
        eps = noise_like(x_0, generator)
        x_t, target = self.schedule.noisy(x_0, eps, t), eps - x_0
        apart = s < t
        if apart.any():
            its_y = None if y is None else y[apart]
            target[apart] = self.target(net, x_t[apart], t[apart], s[apart], its_y, target[apart])
        error = (_answer(net(x_t, t, y, s), x_0) - target).square().flatten(1).mean(1)
        return error / (error.detach() + 1e-3), t

    @staticmethod
    @torch.no_grad()
    def target(net, x_t, t, s, y, velocity):
        """velocity - (t - s) du/dt (B, C, ...), for t and s (B,), along the velocity (B, C, ...); in float32."""
        with torch.autocast(x_t.device.type, enabled=False):
            _, change = torch.func.jvp(lambda x, time: net(x, time, y, s), (x_t, t), (velocity, torch.ones_like(t)))
        return velocity - match_dims(t - s, x_t) * change.to(velocity)


@dataclass(frozen=True)
class BridgeLoss:
    """L = E || net(x_t, t, y) - x_0 ||^2, the mean over pixels, with x_t = (1 - t) x_0 + t y + sigma_t eps on a bridge
    between x_0 and the image y; t uniform in [0, 1].

    concat : the last so many channels of the images are y, and the others x_0, as many. Liu et al., I2SB (ICML 2023).
    """

    schedule: BrownianBridge
    concat: int = 1
    kind = "x0"

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and its time (B,). batch: images (B, C, H, W) and anything."""
        x_0, y = _apart(batch, self.concat)
        alike(x_0=x_0, y=y)
        t = stratified_times(len(x_0), generator)
        x_t = self.schedule.noisy(x_0, noise_like(x_0, generator), t) + match_dims(t, x_0) * y
        return (_answer(net(x_t, t, y), x_0) - x_0).square().flatten(1).mean(1), t


@dataclass(frozen=True)
class MaskingLoss:
    """L = E [ 1/t sum over hidden places of -log p(x_0 | x_t) ] / places, each place hidden with probability t:
    an upper bound of -log p(x_0) in nats a place, tight for the exact p. Sahoo et al. (NeurIPS 2024), with the
    share that is shown alpha_t = 1 - t.

    net is as a ``MaskedDenoiser`` takes it.
    """

    schedule: object = RectifiedFlow()

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and its time (B,). batch: labels, 1 in their channel and -1 elsewhere, (B, K, H,
        W), and anything."""
        labels = batch[0].argmax(1)
        t = stratified_times(len(labels), generator).clamp(min=1e-3)
        x_t, hidden = masked(labels, t, batch[0].shape[1], generator)
        wrong = torch.nn.functional.cross_entropy(net(x_t, t)[:, :-1].float(), labels, reduction="none")
        return ((wrong * hidden).flatten(1).mean(1) / t.to(wrong)), t


def masked(labels, t, known, generator):
    """Labels (B, ...) in 0..known - 1, each place hidden with probability t (B,): x_t (B, known + 1, ...) as
    :func:`~course_lib.samplers.unmask_step` has it, and what is hidden, bool (B, ...)."""
    uniform = torch.rand(labels.shape, generator=generator)
    hidden = (uniform < match_dims(t, uniform)).to(labels.device)
    x_t = torch.nn.functional.one_hot(torch.where(hidden, known, labels), known + 1)
    return x_t.movedim(-1, 1).float(), hidden


@dataclass(frozen=True)
class DistillationLoss:
    """L = E || f(x_t, t, y) - x_end ||^2, the mean over pixels: a student learns, from any point of its teacher's
    paths, where they end.

    The teacher walks from noise to images x_end in ``steps`` even steps of DPM-Solver++(2M), at one evaluation each.
    Each state x_t that it passes is an example: for every example one evaluation of the teacher, a target that never
    moves, and no image of the data. f = to_x0(kind, net(x_t, t, y), ...) is what a consistency model learns (Song et
    al., ICML 2023, sec. 3), which takes its own answer a step further on for target; of the starts alone, it is what
    Luhman & Luhman (2021) learn, and with two steps the last round of Salimans & Ho (ICLR 2022).

    teacher : teacher() gives its :class:`~course_lib.denoisers.NetworkDenoiser`, of this schedule.
    """

    teacher: Callable
    schedule: object
    kind: str = "flow"
    steps: int = 8

    def __post_init__(self):
        one_of(KINDS, kind=self.kind)
        whole(steps=self.steps)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and its time (B,). batch: of the images (B, C, H, W) only the shape is used, and of
        the classes y (B,) or None every steps-th. Raises ValueError where B does not divide by ``steps``."""
        x_0, y = batch
        if len(x_0) % self.steps:
            raise ValueError(f"a batch must divide by the {self.steps} steps of the teacher; got {len(x_0)} images")
        x_0, y = x_0[:: self.steps], None if y is None else y[:: self.steps]
        x_t, t, end = self.paths(noise_like(x_0, generator), y)
        y = None if y is None else y.repeat(self.steps)
        alpha, sigma = match_dims(self.schedule.alpha(t), x_t), match_dims(self.schedule.sigma(t), x_t)
        error = to_x0(self.kind, _answer(net(x_t, t, y), x_t), x_t, alpha, sigma) - end
        return error.square().flatten(1).mean(1), t

    @torch.no_grad()
    def paths(self, eps, y=None):
        """The teacher's walk from noise eps (n, C, ...): all states (steps n, C, ...), their times, and their ends."""
        teacher = self.teacher() if y is None else self.teacher().given(y)
        times = uniform_times(self.steps)
        start = self.schedule.sigma(times[0]) * eps
        *passed, end = trajectory(teacher, start, times, dpmpp_2m_step)
        x_t = torch.cat([state.x_t for state in passed])
        t = times[:-1].repeat_interleave(len(eps)).to(eps)
        return x_t, t, end.x_t.repeat(self.steps, *[1] * (eps.ndim - 1))


@dataclass(frozen=True)
class ClassificationLoss:
    """Cross-entropy of each example, with images shifted by up to ``shift`` pixels."""

    shift: int = 4

    def __post_init__(self):
        whole(0, shift=self.shift)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and no times. batch: x (B, C, H, W) and y (B,)."""
        x, y = batch
        dx, dy = torch.randint(-self.shift, self.shift + 1, (2,), generator=generator).tolist()
        return torch.nn.functional.cross_entropy(net(x.roll((dy, dx), (2, 3))), y, reduction="none"), None


@dataclass(frozen=True)
class RegressionLoss:
    """L = || net(y, 0) - x_0 ||^2, the mean over pixels: its minimum is the mean E[x_0 | y].

    condition : makes y out of x_0, whatever the network takes: an image, or for an ``Unrolled`` network a scan (A, y);
    or concat : the last so many channels of the images are y, and the others x_0.
    """

    condition: Callable | None = None
    concat: int = 0
    drawn: bool = False  # whether condition is random, condition(x_0, generator), as a noisy measurement is

    def __post_init__(self):
        whole(0, concat=self.concat)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and no times. batch: images (B, C, H, W) and anything."""
        error, _ = self.error(net, batch, generator)
        return error.flatten(1).mean(1), None

    def error(self, net, batch, generator):
        """The squared error of each pixel (B, C, H, W), and no times."""
        x_0, y = _apart(batch, self.concat)
        if self.condition is not None:
            y = self.condition(x_0, generator) if self.drawn else self.condition(x_0)
        return (_answer(net(y, 0.0), x_0) - x_0).square(), None


@dataclass(frozen=True)
class NoisyClassificationLoss:
    """Cross-entropy of each example at a random noise level: -log p(y | x_t, t) (Dhariwal & Nichol, 2021, sec. 4).

    Times are uniform in [0, latest]: noise in which no class can be told teaches nothing.
    """

    schedule: object
    latest: float = 1.0

    def __post_init__(self):
        positive(latest=self.latest)
        within(0, 1, latest=self.latest)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and its time (B,). batch: x_0 (B, C, H, W) and y (B,)."""
        x_0, y = batch
        t = self.latest * stratified_times(len(x_0), generator)
        x_t = self.schedule.noisy(x_0, noise_like(x_0, generator), t)
        return torch.nn.functional.cross_entropy(net(x_t, t), y, reduction="none"), t


@dataclass(frozen=True)
class SegmentationLoss:
    """Cross-entropy, the mean over pixels, with image and labels shifted together by up to ``shift`` pixels."""

    shift: int = 6

    def __post_init__(self):
        whole(0, shift=self.shift)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and no times. batch: x (B, 1, H, W) and labels y (B, H, W)."""
        x, y = batch
        dx, dy = torch.randint(-self.shift, self.shift + 1, (2,), generator=generator).tolist()
        x, y = x.roll((dy, dx), (2, 3)), y.roll((dy, dx), (1, 2))
        return torch.nn.functional.cross_entropy(net(x), y, reduction="none").mean((1, 2)), None


@dataclass(frozen=True)
class StochasticSegmentationLoss:
    """-log p(y | x) / pixels of a ``StochasticSegmenter``, with p(y | x) = E_eta prod_i p(y_i | eta_i) over all pixels
    i taken as the mean over ``samples`` draws of the logits eta.

    Monteiro et al. (NeurIPS 2020), sec. 3, who take 20 draws. The logarithm of a mean of draws is too small on average,
    so this is an upper bound of -log p, the tighter the more draws.
    """

    samples: int = 20

    def __post_init__(self):
        whole(samples=self.samples)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and no times. batch: x (B, 1, H, W) and masks y (B, H, W) of 0 and 1."""
        x, y = batch
        eta = normal_logits(net(x), self.samples, generator)
        y = y.to(eta).expand_as(eta)
        likelihood = -torch.nn.functional.binary_cross_entropy_with_logits(eta, y, reduction="none").flatten(2).sum(2)
        return (math.log(self.samples) - likelihood.logsumexp(0)) / y[0, 0].numel(), None


def local_contrasts(x, octaves=3):
    """How strong the texture of images x (B, C, H, W) is at each place: for each octave of a Laplacian pyramid (Burt &
    Adelson, IEEE Trans. Communications 1983) the root of the local mean square of that band, (B, C, H / 2^k, W / 2^k).

    Not where each grain lies: two draws of one texture have about equal contrasts and large differences. Borders are
    joined, which is right where the background is flat. 1e-4 under the root keeps its gradient finite, a contrast of
    0.01.
    """
    near, around, contrasts = Blur(0.8), Blur(2.0), []
    for _ in range(octaves):
        smooth = near(x)
        contrasts.append((around((x - smooth).square()).clamp_min(0) + 1e-4).sqrt())
        x = smooth[..., ::2, ::2]
    return contrasts


@dataclass(frozen=True)
class AutoencoderLoss:
    """L = |decode(z) - x_0| + kl_weight KL(N(mu, sigma^2) || N(0, 1)) + texture_weight |s(decode(z)) - s(x_0)|,
    z ~ N(mu, sigma^2), s the three :func:`local_contrasts`; means over all.

    Rombach et al. (CVPR 2022), eq. 25, without their adversarial term, and with contrasts of fixed bands in place of
    the features of a trained network for their perceptual one, as in texture synthesis (Portilla & Simoncelli, IJCV
    2000): the absolute difference alone makes smooth pictures, since grain in the wrong place costs it sqrt(2) times as
    much as no grain (where both are Gaussian).
    """

    kl_weight: float = 1e-4
    texture_weight: float = 0.0

    def __post_init__(self):
        not_negative(kl_weight=self.kl_weight, texture_weight=self.texture_weight)

    def __call__(self, net, batch, generator):
        """Loss of each example (B,) and no times. batch: x_0 (B, C, H, W) and anything."""
        error, _ = self.error(net, batch, generator)
        return error.flatten(1).mean(1), None

    def error(self, net, batch, generator):
        """The absolute error of each pixel (B, C, H, W), with its image's other terms added to it, and no times."""
        x_0 = batch[0]
        reconstruction, mu, sigma = net(x_0, generator)
        _answer(reconstruction, x_0)
        others = self.kl_weight * 0.5 * (mu.square() + sigma.square() - 1 - 2 * sigma.log()).flatten(1).mean(1)
        if self.texture_weight:
            pairs = zip(local_contrasts(reconstruction.float()), local_contrasts(x_0))
            others = others + self.texture_weight * sum((a - b).abs().flatten(1).mean(1) for a, b in pairs) / 3
        return (reconstruction - x_0).abs() + match_dims(others, x_0), None


class _OfAnother:
    """A loss made of another one, ``loss``."""

    @property
    def schedule(self):
        """Of the loss, where it has one."""
        return self.loss.schedule

    @property
    def kind(self):
        """Of the loss, where it has one."""
        return self.loss.kind


@dataclass(frozen=True)
class MaskedLoss(_OfAnother):
    """Another loss, as the mean over those pixels of each image that count; 0 for an image of which none does.

    What does not count is still in the images that the network sees: its answer there is asked for nothing, and no
    gradient comes from it. So a prior of healthy tissue learns from images that all hold a lesion, with the widened
    outline left out. It is not told that lesions are to be taken away; it has not learnt to draw them.

    loss : a :class:`DiffusionLoss`, :class:`RegressionLoss` or :class:`AutoencoderLoss` of images without a y.
    """

    loss: object

    def __post_init__(self):
        if not hasattr(self.loss, "error"):
            raise ValueError(
                f"loss must give the error of each pixel, as DiffusionLoss, RegressionLoss and AutoencoderLoss do; got "
                f"{type(self.loss).__name__}"
            )

    def __call__(self, net, batch, generator):
        """Loss of each example (B,), and its time (B,) or None. batch: images (B, C, H, W), finite in what does not
        count too, since the network sees it; and which of their pixels count, bool or 0 and 1 (B, H, W)."""
        x_0, counted = batch
        error, t = self.loss.error(net, (x_0, None), generator)
        counted = (counted != 0)[:, None].expand_as(error)
        kept = error.where(counted, 0).flatten(1).sum(1)  # no product: an error that does not count may be infinite
        return kept / counted.flatten(1).sum(1).clamp_min(1), t


def random_views(x, y, generator, angle=15.0, size=0.15, move=3.0, grey=0.15):
    """Images x (B, C, H, W) in [-1, 1] and their labels y (B, H, W), or None, seen in another way: each pair turned by
    up to ``angle`` degrees, magnified by 1 / (1 +- ``size``), moved by up to ``move`` pixels, of before that, along
    each axis; and the last channel of x alone, which is the image where the others are masks, with other greys.

    Greys g in [0, 1] become a g^gamma + b with a in 1 +- ``grey``, b in +- grey / 2 and log(gamma) in +- 2 grey, and
    white noise of up to grey / 3 in [-1, 1] comes upon them. Masks and labels take the nearest pixel, the image is
    interpolated between pixels; beyond the edge stands what is at the edge.
    """
    b, c, h, w = x.shape

    def drawn(largest):
        return largest * (2 * torch.rand(b, generator=generator) - 1)

    turn, stretch = torch.deg2rad(drawn(angle)), 1 + drawn(size)
    cos, sin = stretch * turn.cos(), stretch * turn.sin()
    across, down = 2 * drawn(move) / w, 2 * drawn(move) / h  # affine_grid counts in half sides
    rows = [torch.stack([cos, -sin * h / w, across], 1), torch.stack([sin * w / h, cos, down], 1)]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1), [b, c, h, w], align_corners=False).to(x)
    at = partial(torch.nn.functional.grid_sample, grid=grid, padding_mode="border", align_corners=False)
    image = at(x[:, -1:], mode="bilinear")
    gamma, a, shift, noise = (
        part[:, None, None, None].to(x)
        for part in (drawn(2 * grey).exp(), 1 + drawn(grey), drawn(grey), drawn(grey / 3))
    )
    image = a * (2 * ((image.clamp(-1, 1) + 1) / 2) ** gamma - 1) + a - 1 + shift
    image = image + noise * torch.randn(image.shape, generator=generator).to(x)
    x = torch.cat([at(x[:, :-1], mode="nearest"), image], 1) if c > 1 else image
    return x, y if y is None else at(y[:, None].to(x), mode="nearest")[:, 0].to(y)


@dataclass(frozen=True)
class AugmentedLoss(_OfAnother):
    """Another loss of :func:`random_views`, so that a network of few persons does not learn them by heart.

    loss : of images (B, C, H, W), the last channel an image, and labels (B, H, W) or None.
    """

    loss: object

    def __call__(self, net, batch, generator):
        """Loss of each example (B,), and its time (B,) or None, as the loss gives them. batch: (x, y) as for it."""
        return self.loss(net, random_views(*batch, generator), generator)
