"""Four families of generative models, small enough to train in front of you: VAE, GAN, normalising flow, diffusion.

Each has `sample(n, generator)`. What each can say about log p(x), in nats:

===========  =================================================  =======================================
family       log p(x)                                           source
===========  =================================================  =======================================
VAE          a lower bound: `elbo`, tighter with `iw_bound`     Kingma & Welling (ICLR 2014); Burda et
                                                                al. (ICLR 2016)
GAN          nothing                                            Goodfellow et al. (NeurIPS 2014)
Flow         exact: `log_prob`                                  Dinh et al. (ICLR 2017)
Diffusion    exact for its ODE, to the accuracy of the solver:  Song et al. (ICLR 2021)
             `log_prob`
===========  =================================================  =======================================

`Gaussian` and `KernelDensity` are the baselines that cost next to nothing, `ring` is the data with a known density, and
`PCA` turns small images into few numbers.
"""

import math

import torch
from torch import nn

from course_lib.arguments import alike, floating, positive, shaped, whole
from course_lib.denoisers import MixtureDenoiser, NetworkDenoiser
from course_lib.likelihood import runge_kutta
from course_lib.losses import DiffusionLoss
from course_lib.samplers import ddim_step, sample
from course_lib.schedules import Cosine, uniform_times

LOG_2PI = math.log(2 * math.pi)


def log_normal(x, mean, log_var):
    """log N(x; mean, exp(log_var) I), summed over the last axis: -1/2 sum (x - mean)^2 / var + log var + log 2 pi."""
    return -0.5 * ((x - mean) ** 2 * torch.exp(-log_var) + log_var + LOG_2PI).sum(-1)


def mlp(inputs, outputs, width=128, hidden=2):
    """Fully connected network with `hidden` layers of `width` and SiLU between."""
    whole(inputs=inputs, outputs=outputs, width=width)
    sizes = [inputs] + [width] * hidden
    layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


# ---- the data: eight places on a ring, one of them rare --------------------------------------------------------------

WEIGHTS = (0.20, 0.10, 0.16, 0.02, 0.18, 0.12, 0.14, 0.08)
RARE = WEIGHTS.index(min(WEIGHTS))
STD = 0.12


def ring():
    """The course's 2-D mixture of eight Gaussians (std 0.12, radius 1.4, one of weight 2 %), with its exact density.

    A :class:`~course_lib.denoisers.MixtureDenoiser`: `sample_data(n, generator)`, and `log_density(x, 0.0)`.
    """
    angle = 2 * math.pi * torch.arange(len(WEIGHTS)) / len(WEIGHTS)
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
    return MixtureDenoiser(torch.tensor(WEIGHTS), means, STD, Cosine())


def check_points(x, name="x", least=2):
    """Raises ValueError unless x is a tensor of floats (N, d) without NaN, N >= ``least``."""
    shaped("N, d", **{name: x})
    floating(**{name: x})
    if len(x) < least or not x.isfinite().all():
        raise ValueError(f"{name} must be at least {least} points (N, d), none NaN or infinite; got {len(x)} points")


def _noise(n, d, generator):
    """n standard normal vectors (n, d). Raises ValueError unless n is a whole number from 0 on."""
    whole(0, n=n)
    return torch.randn(n, d, generator=generator)


# ---- baselines -------------------------------------------------------------------------------------------------------


class Gaussian:
    """One Gaussian with the data's mean and covariance: the maximum-likelihood fit (Bishop, PRML 2006, sec. 2.3.4)."""

    def __init__(self, x):
        check_points(x, least=x.shape[-1] + 1)  # fewer span no volume
        centred = x - x.mean(0)
        cov = centred.T @ centred / len(x)
        self.law = torch.distributions.MultivariateNormal(x.mean(0), cov)

    def log_prob(self, x):
        """log p(x), exact, (B,)."""
        return self.law.log_prob(x)

    def sample(self, n, generator=None):
        """n draws (n, d)."""
        eps = _noise(n, len(self.law.loc), generator)
        return self.law.loc + eps @ self.law.scale_tril.T


class KernelDensity:
    """A Gaussian of standard deviation h around every training point (Parzen, Ann. Math. Stat. 1962).

    p(x) = 1/N sum_i N(x; x_i, h^2 I);  h is chosen among `bandwidths` by the log-likelihood of every tenth point under
    the others.
    """

    def __init__(self, x, bandwidths=(0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15)):
        check_points(x)
        if not len(bandwidths):
            raise ValueError("bandwidths must be at least one number to choose from, got none")
        for h in bandwidths:
            positive(bandwidths=h)
        keep = torch.arange(len(x)) % 10 > 0
        self.points, unseen = x[keep], x[~keep]
        scores = []
        for self.h in bandwidths:
            scores.append(float(self.log_prob(unseen).mean()))
        self.points, self.h = x, bandwidths[scores.index(max(scores))]

    def log_prob(self, x):
        """log p(x), exact, (B,)."""
        squared = torch.cdist(x, self.points, compute_mode="donot_use_mm_for_euclid_dist").square()  # (B, N)
        d = x.shape[1]
        log_kernels = -squared / (2 * self.h**2) - d * math.log(self.h) - d / 2 * LOG_2PI
        return log_kernels.logsumexp(1) - math.log(len(self.points))

    def sample(self, n, generator=None):
        """n draws (n, d): a training point at random, plus noise of standard deviation h."""
        whole(0, n=n)
        i = torch.randint(len(self.points), (n,), generator=generator)
        return self.points[i] + self.h * torch.randn(n, self.points.shape[1], generator=generator)


# ---- the four families -----------------------------------------------------------------------------------------------


class VAE(nn.Module):
    """Variational autoencoder (Kingma & Welling, ICLR 2014).

    z ~ N(0, I),  p(x | z) = N(x; decode(z), s^2 I),  q(z | x) = N(z; mu(x), diag exp(log_var(x))); s is learned too.
    """

    def __init__(self, dim=2, latent=2, width=128):
        super().__init__()
        self.latent = latent
        self.encoder, self.decoder = mlp(dim, 2 * latent, width), mlp(latent, dim, width)
        self.log_s = nn.Parameter(torch.tensor(0.0))

    def encode(self, x):
        """mu and log_var of q(z | x), each (B, latent)."""
        return self.encoder(x).chunk(2, dim=1)

    def log_likelihood(self, x, z):
        """log p(x | z); x (..., dim), z (..., latent)."""
        return log_normal(x, self.decoder(z), 2 * self.log_s)

    def elbo(self, x, generator=None):
        """Lower bound of log p(x), (B,), from one z of q(z | x) (eq. 10 there):

        ELBO = log p(x | z) - KL(q(z | x) || p(z)),   KL = 1/2 sum mu^2 + exp(log_var) - 1 - log_var
        """
        mu, log_var = self.encode(x)
        z = mu + torch.exp(log_var / 2) * torch.randn(mu.shape, generator=generator)
        kl = 0.5 * (mu**2 + torch.exp(log_var) - 1 - log_var).sum(1)
        return self.log_likelihood(x, z) - kl

    def iw_bound(self, x, K, generator=None):
        """Importance-weighted lower bound of log p(x), (B,); tightens with K (Burda et al., ICLR 2016, eq. 8):

        log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x),   z_k ~ q(z | x)
        """
        whole(K=K)
        mu, log_var = self.encode(x)
        z = mu + torch.exp(log_var / 2) * torch.randn(K, *mu.shape, generator=generator)  # (K, B, latent)
        zero = torch.zeros(())
        log_w = self.log_likelihood(x, z) + log_normal(z, zero, zero) - log_normal(z, mu, log_var)
        return log_w.logsumexp(0) - math.log(K)

    @torch.no_grad()
    def log_prob_on_grid(self, x, reach=5.0, points=400):
        """log p(x) = log of the integral of p(x | z) p(z) over a grid in z, (B,). For latent = 2 only: a grid needs
        points^latent evaluations, so what is easy here is out of reach for images."""
        if self.latent != 2:
            raise ValueError(f"log_prob_on_grid is for latent = 2, got a model of latent = {self.latent}: use iw_bound")
        whole(2, points=points)
        axis = torch.linspace(-reach, reach, points)
        z = torch.cartesian_prod(axis, axis)  # (points^2, 2)
        decoded, zero = self.decoder(z), torch.zeros(())
        log_prior = log_normal(z, zero, zero) + 2 * math.log(2 * reach / (points - 1))
        s2 = float(torch.exp(2 * self.log_s))
        constant = x.shape[1] / 2 * (math.log(s2) + LOG_2PI)
        log_p = [(log_prior - (decoded - one).square().sum(1) / (2 * s2) - constant).logsumexp(0) for one in x]
        return torch.stack(log_p)

    def loss(self, x, generator=None):
        """-ELBO, (B,)."""
        return -self.elbo(x, generator)

    @torch.no_grad()
    def sample(self, n, generator=None, noise=True):
        """n draws (n, dim); noise=False leaves out the noise of p(x | z), as is usual for images."""
        mean = self.decoder(_noise(n, self.latent, generator))
        return mean + noise * torch.exp(self.log_s) * torch.randn(mean.shape, generator=generator)


class GAN(nn.Module):
    """Generative adversarial network (Goodfellow et al., NeurIPS 2014): G makes, C tells made from real.

    C is called D in the literature; D is the denoiser in this course.
    """

    def __init__(self, dim=2, latent=2, width=128):
        super().__init__()
        self.latent = latent
        self.G, self.C = mlp(latent, dim, width), mlp(dim, 1, width)

    def sample(self, n, generator=None):
        """n draws (n, dim); with gradients when they are switched on, for training goes through here."""
        return self.G(_noise(n, self.latent, generator))


class Coupling(nn.Module):
    """Affine coupling layer (Dinh et al., ICLR 2017, eq. 7 and 8), read from data to noise, after a permutation:

    u_a = x_a,   u_b = (x_b - shift(x_a)) exp(-scale(x_a)),   log |det du/dx| = -sum scale(x_a)
    """

    def __init__(self, dim, width, order):
        super().__init__()
        self.half = dim // 2
        self.net = mlp(self.half, 2 * (dim - self.half), width)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())

    def _scale_and_shift(self, x_a):
        scale, shift = self.net(x_a).chunk(2, dim=1)
        return 2 * torch.tanh(scale / 2), shift  # bounded, or a few large values blow the loss up

    def forward(self, x):
        """x -> u and log |det du/dx| (B,)."""
        x_a, x_b = x[:, self.order].split([self.half, x.shape[1] - self.half], dim=1)
        scale, shift = self._scale_and_shift(x_a)
        return torch.cat([x_a, (x_b - shift) * torch.exp(-scale)], 1), -scale.sum(1)

    def inverse(self, u):
        """u -> x."""
        x_a, u_b = u.split([self.half, u.shape[1] - self.half], dim=1)
        scale, shift = self._scale_and_shift(x_a)
        return torch.cat([x_a, u_b * torch.exp(scale) + shift], 1)[:, self.back]


class Flow(nn.Module):
    """Normalising flow of coupling layers, RealNVP (Dinh et al., ICLR 2017): u = f(x), u ~ N(0, I).

    log p(x) = log N(f(x); 0, I) + log |det df/dx|
    """

    def __init__(self, dim=2, layers=8, width=64, seed=0):
        super().__init__()
        whole(2, dim=dim)  # a layer changes one part by the other
        whole(layers=layers)
        self.dim, generator = dim, torch.Generator().manual_seed(seed)
        swap = torch.tensor([1, 0])
        orders = [swap if dim == 2 else torch.randperm(dim, generator=generator) for _ in range(layers)]
        self.layers = nn.ModuleList(Coupling(dim, width, order) for order in orders)

    def forward(self, x):
        """x -> u = f(x) and log |det df/dx| (B,)."""
        log_det = torch.zeros(len(x))
        for layer in self.layers:
            x, one = layer(x)
            log_det = log_det + one
        return x, log_det

    def log_prob(self, x):
        """log p(x), exact, (B,)."""
        u, log_det = self(x)
        zero = torch.zeros(())
        return log_normal(u, zero, zero) + log_det

    def loss(self, x, generator=None):
        """-log p(x), (B,)."""
        return -self.log_prob(x)

    @torch.no_grad()
    def sample(self, n, generator=None):
        """n draws (n, dim): noise through the inverse layers, last layer first."""
        x = _noise(n, self.dim, generator)
        for layer in reversed(self.layers):
            x = layer.inverse(x)
        return x


class Diffusion(nn.Module):
    """Diffusion model of points: an MLP that predicts v = alpha eps - sigma x_0 under the cosine schedule.

    With alpha = cos(pi t / 2), sigma = sin(pi t / 2) the path of a point obeys dx/dt = (pi/2) v(x, t): the
    probability-flow ODE (Song et al., ICLR 2021, eq. 13; Salimans & Ho, ICLR 2022, app. D, for the angle).
    """

    def __init__(self, dim=2, width=128, frequencies=4):
        super().__init__()
        self.dim, self.schedule = dim, Cosine()
        self.net = mlp(dim + 2 * frequencies + 1, dim, width, hidden=3)
        self.register_buffer("omega", math.pi / 2 * 2.0 ** torch.arange(frequencies))

    def forward(self, x_t, t, y=None):
        """The predicted v, (B, dim); t a number or (B,); y is not used."""
        t = torch.as_tensor(t, dtype=x_t.dtype).expand(len(x_t))[:, None]
        return self.net(torch.cat([x_t, t, torch.sin(self.omega * t), torch.cos(self.omega * t)], 1))

    def loss(self, x, generator=None):
        """|| v(x_t, t) - v ||^2, the mean over coordinates, (B,), at a random time a point."""
        return DiffusionLoss(self.schedule, "v")(self, (x, None), generator)[0]

    @torch.no_grad()
    def sample(self, n, generator=None, steps=100):
        """n draws (n, dim) by DDIM, one evaluation of the network a step."""
        x = _noise(n, self.dim, generator)
        return sample(NetworkDenoiser(self, self.schedule), x, uniform_times(steps), ddim_step)

    def velocity(self, x, t):
        """dx/dt = (pi/2) v(x, t) and its divergence sum_i d(dx_i/dt)/dx_i, exact by autograd: (B, dim) and (B,)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            v = math.pi / 2 * self(x, t)
            rows = [torch.autograd.grad(v[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(self.dim)]
        return v.detach(), torch.stack(rows).sum(0)

    def log_prob(self, x, steps=40):
        """log p(x), (B,), by the instantaneous change of variables (Chen et al., NeurIPS 2018, eq. 8; Song et al., ICLR
        2021, eq. 39), solved with `steps` steps of the classical Runge-Kutta method from t = 0 to 1:

        log p(x_0) = log N(x_1; 0, I) + integral over t of div(dx/dt)
        """
        whole(steps=steps)
        x, integral = runge_kutta(self.velocity, x, [k / (2 * steps) for k in range(2 * steps + 1)], 1 / steps)
        zero = torch.zeros(())
        return log_normal(x, zero, zero) + integral


# ---- small images ----------------------------------------------------------------------------------------------------


def evenly(labels, shares, n):
    """Indices of about n items of which the part shares[k] has label k, evenly spaced through each class; (n,) int64.

    labels (N,) integers. Neighbouring numbers are often neighbouring slices of one scan, so even spacing varies most.
    """
    labels = torch.as_tensor(labels)
    whole(n=n)
    places = [torch.nonzero(labels == k)[:, 0] for k in range(len(shares))]
    for k, (at, share) in enumerate(zip(places, shares)):
        if not 0 <= round(n * share) <= len(at):
            raise ValueError(
                f"shares[{k}] = {share!r} of n = {n} asks for more (or less than none) of the {len(at)} of label {k}"
            )
    return torch.cat([at[torch.linspace(0, len(at) - 1, round(n * s)).long()] for at, s in zip(places, shares)])


class PCA:
    """Images (N, 1, H, W) <-> k principal components, divided by one common scale so that their mean variance is 1."""

    def __init__(self, images, k):
        shaped("N, 1, H, W", images=images)
        floating(images=images)
        whole(k=k)
        flat = images.flatten(1)
        if k > min(flat.shape):
            raise ValueError(f"k must be at most {min(flat.shape)}, the components of {tuple(images.shape)}, got {k}")
        self.shape, self.mean = images.shape[1:], flat.mean(0)
        _, values, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.scale, self.axes = values[:k].square().mean().div(len(flat)).sqrt(), axes[:k]
        if not self.scale > 0:
            raise ValueError("images must differ: all of them are the same, or there is one")
        self.explained = float(values[:k].square().sum() / values.square().sum())

    def encode(self, images):
        """(N, 1, H, W) -> codes (N, k)."""
        alike(images=images[0], mean=self.mean.reshape(self.shape))
        return (images.flatten(1) - self.mean) @ self.axes.T / self.scale

    def decode(self, codes):
        """Codes (N, k) -> images (N, 1, H, W)."""
        return (codes * self.scale @ self.axes + self.mean).reshape(-1, *self.shape)
