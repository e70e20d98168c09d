"""Denoisers: D(x_t, t) = E[x_0 | x_t], the one thing that every sampler needs.

The exact ones know their data distribution and are the course's oracles; :class:`NetworkDenoiser` wraps a trained
network.
All work with any schedule: a denoiser is built for one, and its noise levels are those of that schedule.
"""

import torch

from course_lib.predictions import to_x0
from course_lib.schedules import match_dims


class GaussianDenoiser:
    """Exact denoiser of x_0 ~ N(mean, cov), by conditioning a joint Gaussian (Bishop, PRML 2006, eq. 2.81 and 2.116).

    D(x_t, t) = mean + alpha cov (alpha^2 cov + sigma^2 I)^-1 (x_t - alpha mean)

    mean (d,) and cov (d, d), symmetric and positive semi-definite; x_t is (B, d).
    In the axes of cov the inverse is diagonal.
    """

    def __init__(self, mean, cov, schedule):
        self.mean, self.schedule = mean, schedule
        variances, axes = torch.linalg.eigh(cov.double())  # in single precision it fails on pixels that never change
        self.variances, self.axes = variances.clamp(min=0).to(cov.dtype), axes.to(cov.dtype)  # (d,), (d, d)

    def __call__(self, x_t, t):
        alpha, sigma = (match_dims(c, x_t) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        gain = alpha * self.variances / (alpha**2 * self.variances + sigma**2)  # (d,) or (B, d)
        return self.mean + ((x_t - alpha * self.mean) @ self.axes * gain) @ self.axes.T


class MixtureDenoiser:
    """Exact denoiser of a mixture of isotropic Gaussians: x_0 ~ sum_k weights_k N(means_k, std_k^2 I).

    Given component k, E[x_0 | x_t, k] is the Gaussian answer; D averages it over p(k | x_t).

    weights (K,) summing to 1, means (K, d), std a number or (K,); x_t is (B, d).
    """

    def __init__(self, weights, means, std, schedule):
        self.weights, self.means, self.schedule = weights, means, schedule
        self.variances = torch.as_tensor(std, dtype=means.dtype).expand(len(weights)) ** 2  # (K,)

    def _noisy(self, x_t, t):
        """alpha, and the log of weights_k N(x_t; alpha means_k, s_k I) with s_k = alpha^2 variances_k + sigma^2."""
        alpha, sigma = (match_dims(c, x_t) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        s = alpha**2 * self.variances + sigma**2  # (K,) or (B, K)
        offset = x_t[:, None] - alpha.reshape(-1, 1, 1) * self.means  # (B, K, d)
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
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.means.shape[1], dtype=self.means.dtype, generator=generator)
        return self.means[k] + self.variances[k, None].sqrt() * eps


class EmpiricalDenoiser:
    """Exact denoiser of a finite data set: x_0 is one of ``data``, each with probability 1/N.

    D(x_t, t) = sum_i softmax_i(-||x_t - alpha data_i||^2 / (2 sigma^2)) data_i

    A sampler with this denoiser can only copy: it is what a network that fits its training set perfectly would be.
    data (N, ...); x_t is (B, ...).
    """

    def __init__(self, data, schedule):
        self.data, self.schedule = data, schedule

    def __call__(self, x_t, t):
        x, data = (
            x_t.flatten(1).double(),
            self.data.flatten(1).double(),
        )  # (B, D), (N, D); double: it divides by sigma^2
        alpha, sigma = (match_dims(c, x) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        # -||x - alpha data_i||^2 / 2 without ||x||^2, which is the same for every i
        logits = (alpha * (x @ data.T) - alpha**2 * data.square().sum(1) / 2) / sigma**2  # (B, N)
        return (logits.softmax(1) @ data).reshape(x_t.shape).to(x_t.dtype)


class NetworkDenoiser:
    """The denoiser that a network stands for: D = to_x0(kind, net(x_t, t, y), x_t, alpha_t, sigma_t).

    Parameters
    ----------
    net : net(x_t, t, y) -> prediction of the given kind (see :mod:`course_lib.predictions`), the shape of x_t.
    schedule : the schedule that the network was trained with.
    clip : clamp D to [-1, 1], the range of images; leave it off for latents and label maps, whose range is another.

    Gradients are kept only where x_t asks for them (``x_t.requires_grad``).
    """

    def __init__(self, net, schedule, kind="v", clip=False):
        self.net, self.schedule, self.kind, self.clip = net, schedule, kind, clip

    def __call__(self, x_t, t, y=None):
        alpha, sigma = (match_dims(c, x_t) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        with torch.set_grad_enabled(torch.is_grad_enabled() and x_t.requires_grad):
            x_0 = to_x0(self.kind, self.net(x_t, t, y), x_t, alpha, sigma)
        return x_0.clamp(-1, 1) if self.clip else x_0


class Counted:
    """A denoiser that counts its evaluations (NFE): ``Counted(denoiser).evaluations``; and, in ``images``, how many
    images it was given in all: a batch of twice the size is one evaluation, but twice the work."""

    def __init__(self, denoiser):
        self.denoiser, self.evaluations, self.images = denoiser, 0, 0

    @property
    def schedule(self):
        """The schedule of the denoiser."""
        return self.denoiser.schedule

    def __call__(self, x_t, t, **cond):
        self.evaluations += 1
        self.images += len(x_t)
        return self.denoiser(x_t, t, **cond)
