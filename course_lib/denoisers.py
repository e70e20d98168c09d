"""Denoisers: D(x_t, t) = E[x_0 | x_t], the one thing that every sampler needs.

The exact ones know their data distribution and are the course's oracles; :class:`NetworkDenoiser` wraps a trained
network, :class:`FunctionDenoiser` a function of x_t and t.
All work with any schedule: a denoiser is built for one, and its noise levels are those of that schedule. So samplers,
guidance and inverse problems take a denoiser alone.
"""

import torch

from course_lib import runtime
from course_lib.arguments import alike, floating, one_of, whole
from course_lib.predictions import KINDS, to_x0
from course_lib.schedules import RectifiedFlow, match_dims, schedule_of


class Denoiser:
    """D(x_t, t), and the ``schedule`` that says how much noise there is at t.

    A class of denoisers sets ``schedule`` and answers ``denoiser(x_t, t)``, or ``denoiser(x_t, t, y=y)`` if it takes a
    condition; the answer has the shape of x_t (B, ...).
    """

    schedule = None

    def given(self, y):
        """This denoiser with its condition bound: ``denoiser.given(y)(x_t, t)`` is ``denoiser(x_t, t, y=y)``; what else
        it may be told, it may still be told."""
        return FunctionDenoiser(lambda x_t, t, **told: self(x_t, t, y=y, **told), self.schedule)


class FunctionDenoiser(Denoiser):
    """A denoiser made of a function: ``function(x_t, t, **cond)`` -> D, the shape of x_t, for the noise levels of the
    schedule; a condition is its argument y. Raises ValueError for what cannot be called."""

    def __init__(self, function, schedule):
        if not callable(function):
            raise ValueError(f"function must be one of (x_t, t), as lambda x_t, t: 0 * x_t is; got {function!r:.80}")
        self.function, self.schedule = function, schedule

    def __call__(self, x_t, t, **cond):
        return self.function(x_t, t, **cond)


def _dimension(x_t, mean):
    """Raises ValueError unless x_t are points of the dimension of the mean (d,)."""
    if x_t.shape[-1:] != mean.shape:
        raise ValueError(f"x_t must be points (B, {len(mean)}) like the data, got shape {tuple(x_t.shape)}")


class GaussianDenoiser(Denoiser):
    """Exact denoiser of x_0 ~ N(mean, cov), by conditioning a joint Gaussian (Bishop, PRML 2006, eq. 2.81 and 2.116).

    D(x_t, t) = mean + alpha cov (alpha^2 cov + sigma^2 I)^-1 (x_t - alpha mean)

    mean (d,) and cov (d, d), symmetric and positive semi-definite, up to rounding; x_t is (B, d). Raises ValueError
    otherwise. In the axes of cov the inverse is diagonal; a direction without variance keeps its mean.
    """

    def __init__(self, mean, cov, schedule):
        floating(mean=mean, cov=cov)
        self.mean, self.schedule = mean, schedule
        if cov.shape != (len(mean), len(mean)) or not torch.allclose(cov, cov.T, 1e-4, 1e-5 * float(cov.abs().max())):
            raise ValueError(
                f"cov must be symmetric, one row for each of the {len(mean)} means; got {tuple(cov.shape)}"
            )
        variances, axes = torch.linalg.eigh(cov.double())  # in single precision it fails on pixels that never change
        if variances[0] < -1e-3 * variances[-1].abs():
            raise ValueError(f"cov must not have negative variances; the least eigenvalue is {float(variances[0]):.3g}")
        self.variances, self.axes = variances.clamp(min=0).to(cov.dtype), axes.to(cov.dtype)  # (d,), (d, d)

    def __call__(self, x_t, t):
        alpha, sigma = (match_dims(c, x_t) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        _dimension(x_t, self.mean)
        total = alpha**2 * self.variances + sigma**2  # (d,) or (B, d); zero where neither data nor noise vary
        gain = torch.where(total > 0, alpha * self.variances / total, 0.0)
        axes = self.axes.to(torch.promote_types(x_t.dtype, self.mean.dtype))
        return self.mean + ((x_t - alpha * self.mean) @ axes * gain.to(axes)) @ axes.T


class MixtureDenoiser(Denoiser):
    """Exact denoiser of a mixture of isotropic Gaussians: x_0 ~ sum_k weights_k N(means_k, std_k^2 I).

    Given component k, E[x_0 | x_t, k] is the Gaussian answer; D averages it over p(k | x_t).

    weights (K,), none negative, summing to 1; means (K, d); std a number or (K,), not negative; x_t is (B, d). Raises
    ValueError otherwise. D has the widest of the types of x_t, the means and a single t: double if t is a number.
    """

    def __init__(self, weights, means, std, schedule):
        floating(weights=weights, means=means)
        self.weights, self.means, self.schedule = weights, means, schedule
        if not (weights >= 0).all() or not abs(float(weights.sum()) - 1) < 1e-4:
            raise ValueError(f"weights must not be negative and must sum to 1; their sum is {float(weights.sum()):.4g}")
        if means.shape[:1] != weights.shape or not (torch.as_tensor(std) >= 0).all():
            raise ValueError("means must have a row for each weight, and no std may be negative")
        if torch.as_tensor(std).shape not in ((), (1,), weights.shape):
            raise ValueError(f"std must be a number, or one for each of the {len(weights)} weights, got {std!r:.80}")
        self.variances = torch.as_tensor(std).to(means).expand(len(weights)) ** 2  # (K,)

    def _noisy(self, x_t, t):
        """alpha, and the log of weights_k N(x_t; alpha means_k, s_k I) with s_k = alpha^2 variances_k + sigma^2."""
        alpha, sigma = (match_dims(c, x_t) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        _dimension(x_t, self.means[0])
        s = (alpha**2 * self.variances + sigma**2).clamp(min=1e-30)  # (K,) or (B, K); a point without noise is no 0/0
        offset = x_t[:, None] - alpha.reshape(-1, 1, 1).to(x_t.device) * self.means  # (B, K, d)
        d = x_t.shape[1]
        log_joint = self.weights.log() - offset.square().sum(-1) / (2 * s) - d / 2 * torch.log(2 * torch.pi * s)
        return alpha, s, offset, log_joint

    def __call__(self, x_t, t):
        alpha, s, offset, log_joint = self._noisy(x_t, t)
        gain = (alpha * self.variances / s).expand(log_joint.shape)  # (B, K)
        posterior_means = self.means + gain[..., None] * offset  # (B, K, d)
        return (log_joint.softmax(1)[..., None] * posterior_means).sum(1)

    def log_density(self, x_t, t):
        """log p_t(x_t), exact, (B,)."""
        return self._noisy(x_t, t)[-1].logsumexp(1)

    def sample_data(self, n, generator=None):
        """n exact draws of x_0, (n, d)."""
        whole(n=n)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.means.shape[1], dtype=self.means.dtype, generator=generator)
        return self.means[k] + self.variances[k, None].sqrt() * eps


class EmpiricalDenoiser(Denoiser):
    """Exact denoiser of a finite data set: x_0 is one of ``data``, each with probability 1/N.

    D(x_t, t) = sum_i softmax_i(-||x_t - alpha data_i||^2 / (2 sigma^2)) data_i

    A sampler with this denoiser can only copy: it is what a network that fits its training set perfectly would be.
    data (N, ...); x_t is (B, ...), of that shape. Raises ValueError for another, and for no data.
    """

    def __init__(self, data, schedule):
        floating(data=data)
        if not len(data):
            raise ValueError("data must be one example or more, got none")
        self.data, self.schedule = data, schedule

    def __call__(self, x_t, t):
        if x_t.shape[1:] != self.data.shape[1:]:
            sides = ", ".join(map(str, self.data.shape[1:]))
            raise ValueError(f"x_t must be (B, {sides}) like the data, got shape {tuple(x_t.shape)}")
        x, data = (part.flatten(1).double() for part in (x_t, self.data))  # (B, D), (N, D); it divides by sigma^2
        alpha, sigma = (match_dims(c, x) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        sigma = sigma.clamp(min=1e-15)  # without noise: the nearest of the data
        # -||x - alpha data_i||^2 / 2 without ||x||^2, which is the same for every i
        logits = (alpha * (x @ data.T) - alpha**2 * data.square().sum(1) / 2) / sigma**2  # (B, N)
        return (logits.softmax(1) @ data).reshape(x_t.shape).to(x_t.dtype)


class NetworkDenoiser(Denoiser):
    """The denoiser that a network stands for: D = to_x0(kind, net(x_t, t, y), x_t, alpha_t, sigma_t).

    Parameters
    ----------
    net : net(x_t, t, y) -> prediction of the given kind (see :mod:`course_lib.predictions`), the shape of x_t.
    schedule : the schedule that the network was trained with.
    kind : one of :data:`~course_lib.predictions.KINDS`. "eps" and "score" give no x_0 where alpha_t = 0: a call there
        raises ValueError, clipped or not, since what is clipped is enlarged rounding.
    clip : clamp D to [-1, 1], the range of images; leave it off for latents and label maps, whose range is another.
    precision : in which the network computes: torch.float32, or torch.bfloat16 where that is faster
        (:func:`course_lib.runtime.precision`).

    x_t and y may lie on any device, and x_t may have any floating type: the network runs where its weights are and in
    their type, and D has the device and type of x_t. Gradients are kept only where x_t asks for them
    (``x_t.requires_grad``). What ``told`` holds goes on to the network: s, to a ``MeanFlowUNet``. Raises ValueError
    where the network's answer has another shape than x_t.
    """

    def __init__(self, net, schedule, kind="v", clip=False, precision=torch.float32):
        one_of(KINDS, kind=kind)
        self.net, self.schedule, self.kind, self.clip, self.precision = net, schedule, kind, clip, precision

    def __call__(self, x_t, t, y=None, **told):
        floating(x_t=x_t)
        x = x_t.to(_weight(self.net, x_t))
        if torch.is_tensor(y):
            y = y.to(x.device, x.dtype) if y.is_floating_point() else y.to(x.device)
        alpha, sigma = (match_dims(c, x) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        wanted = torch.is_grad_enabled() and x_t.requires_grad
        with torch.set_grad_enabled(wanted), runtime.autocast(x.device.type, self.precision):
            answer = self.net(x, t, y, **told)
            alike(**{"the answer of net": answer, "x_t": x})
            x_0 = to_x0(self.kind, answer, x, alpha, sigma)
        return (x_0.clamp(-1, 1) if self.clip else x_0).to(x_t)


def _weight(net, x_t):
    """One of a network's weights, of its type and device; of a function, which has none, x_t."""
    weights = net.parameters() if isinstance(net, torch.nn.Module) else ()
    return next(iter(weights), x_t)


class MaskedDenoiser(Denoiser):
    """Masked diffusion of labels: D = E[x_0 | x_t], the probabilities of the K labels at each place.

    net : net(x_t, t) -> logits (B, K + 1, ...), of which the last, of "hidden", is left out. x_t (B, K + 1, ...) is as
    :func:`~course_lib.samplers.unmask_step` has it; a place that is shown keeps its label. The schedule is
    ``RectifiedFlow``, where the share that is shown is alpha_t = 1 - t. precision : as for :class:`NetworkDenoiser`,
    and so are devices and types; no gradients are kept.
    """

    schedule = RectifiedFlow()

    def __init__(self, net, precision=torch.float32):
        self.net, self.precision = net, precision

    def __call__(self, x_t, t):
        floating(x_t=x_t)
        x = x_t.to(_weight(self.net, x_t))
        with torch.no_grad(), runtime.autocast(x.device.type, self.precision):
            p = self.net(x, t)[:, :-1].to(x_t).softmax(1)
        hidden = x_t[:, -1:]
        return torch.cat([hidden * p + x_t[:, :-1], torch.zeros_like(hidden)], 1)


class Counted(Denoiser):
    """A denoiser that counts its evaluations (NFE): ``Counted(denoiser).evaluations``; and, in ``images``, how many
    images it was given in all: a batch of twice the size is one evaluation, but twice the work."""

    def __init__(self, denoiser):
        self.denoiser, self.evaluations, self.images = denoiser, 0, 0
        self.schedule = schedule_of(denoiser)

    def __call__(self, x_t, t, **cond):
        self.evaluations += 1
        self.images += len(x_t)
        return self.denoiser(x_t, t, **cond)
