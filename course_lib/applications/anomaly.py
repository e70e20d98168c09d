"""Anomaly detection by healthy twins: each method takes an image and gives the healthy image it might have been.

The score of a pixel is how far the two differ. Noise-and-denoise and inversion know no network: they take a denoiser.

=======================  ==============================================  ==================================
method                   the healthy twin                                source
=======================  ==============================================  ==================================
Healthy.z                (no twin) |x - mean| / std, pixel by pixel      the atlas as a baseline
Healthy.project          the nearest image in the span of K directions   PCA; residual of Mahalanobis
with_coarse_noise        a network that has learnt to take it away       Kascenas et al. (MIDL 2022)
noise_and_denoise        noise to t_0, then sample back                  AnoDDPM: Wyatt et al. (CVPRW 2022)
one_step                 noise to t_0, then D alone, mean of draws       as that, with a diffusion model's noise
invert and guided back   DDIM to t_0, back with guidance to "healthy"    Wolleb et al. (MICCAI 2022);
                                                                         Sanchez et al. (DGM4MICCAI 2022)
=======================  ==============================================  ==================================
"""

import torch
from torch.nn import functional as F

from course_lib.arguments import alike, floating, images, positive, shaped, whole, within
from course_lib.metrics.linear import principal_directions
from course_lib.samplers import ddim_step, ddpm_step, noise_like, sample
from course_lib.schedules import one_schedule, schedule_of

BACKGROUND = -0.95  # below this a pixel of a skull-stripped image is background
COARSE = 8  # pixels a side to one number of the coarse noise: 12 x 12 for 96 x 96
COARSE_STD = 0.33  # of these numbers: 0.2 of the range from background to the 99th percentile of the brain, about 0.63


def brain(x):
    """Where images x (..., H, W) in [-1, 1] show something: bool, the same shape."""
    x = torch.as_tensor(x)
    images(x=x)
    return x > BACKGROUND


def smooth(score, sigma=1.0):
    """Scores (N, H, W) blurred by a Gaussian of ``sigma`` pixels; single noisy pixels are no lesions."""
    shaped("N, H, W", score=score)
    floating(score=score)
    positive(sigma=sigma)
    reach = max(1, round(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=score.dtype, device=score.device)
    kernel = torch.exp(-at.square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(score[:, None], (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


def residual_score(x, twin, sigma=1.0):
    """|x - twin|, blurred, and 0 outside the brain. x, twin (N, H, W)."""
    images(x=x)
    floating(twin=twin)
    alike(x=x, twin=twin)
    return smooth((x - twin).abs(), sigma) * brain(x)


class Healthy:
    """What healthy training images x (N, H, W) in [-1, 1] are like: mean, spread of each pixel, and the first K
    :func:`~course_lib.metrics.linear.principal_directions`, 1 <= K < N. Raises ValueError for others."""

    def __init__(self, x, K=64):
        x = torch.as_tensor(x).double()
        found = principal_directions(x, K)
        self.mean, self.std, self.directions = found.mean, x.flatten(1).std(0), found.vectors.T  # (K, pixels)

    def _flat(self, x):
        """Images (N, ..., H, W) as rows of pixels, float64. Raises ValueError for images of another size."""
        x = torch.as_tensor(x)
        images(x=x)
        flat = x.flatten(1).double()
        if flat.shape[1] != len(self.mean):
            raise ValueError(
                f"x must be images of {len(self.mean)} pixels, like those of training, got {tuple(x.shape)}"
            )
        return flat

    def z(self, x, least=0.05):
        """|x - mean| / (std + least), the shape of x (N, ..., H, W); ``least`` is for pixels that never vary."""
        flat = self._flat(x)
        return ((flat - self.mean).abs() / (self.std + least)).reshape(x.shape).float()

    def project(self, x, K=None):
        """The nearest image to each of x (N, ..., H, W) in mean + span of the K strongest directions (all if None)."""
        K = len(self.directions) if K is None else K
        whole(K=K)
        if len(self.directions) < K:
            raise ValueError(f"K must be at most {len(self.directions)}, the directions that were kept, got {K}")
        kept = self.directions[:K]
        offset = self._flat(x) - self.mean
        return (self.mean + offset @ kept.T @ kept).reshape(x.shape).float()


def _rising(t_0, n):
    """n + 1 times from 0 to t_0, evenly spaced (float64). Raises ValueError unless 0 < t_0 <= 1 and n >= 1."""
    positive(t_0=t_0)
    whole(n=n)
    if t_0 > 1:
        raise ValueError(f"t_0 must lie in (0, 1], where 1 is noise, got {t_0!r}")
    return torch.linspace(0, t_0, n + 1, dtype=torch.float64)


def with_coarse_noise(x, generator):
    """x (N, C, H, W) in [-1, 1] with coarse Gaussian noise inside the brain, nothing outside; gives its shape.

    What a denoising autoencoder learns to take away. Noise of H/8 x W/8 numbers is blown up bilinearly, corner on
    corner, and rolled by a random number of pixels a side, so that its grid lies nowhere in particular. Noise that is
    drawn pixel by pixel would be taken away without knowing anatomy; patches of the size of a lesion are not. Of an
    image to be searched no noise is added: its score is |x - net(x)|.

    Kascenas, Pugeault & O'Neil, Denoising autoencoders for unsupervised anomaly detection in brain MRI (MIDL 2022),
    with the settings of their code (github.com/AntanasKascenas/DenoisingAE, src/denoising.py): 16 x 16 numbers for 128
    x 128 pixels, standard deviation 0.2 where the 99th percentile of the brain is 1 and the background 0, one roll for
    a batch. Raises ValueError unless x are images and generator a ``torch.Generator`` or None.
    """
    inside = brain(x)
    shaped("N, C, H, W", x=x)
    numbers = COARSE_STD * noise_like(x[..., ::COARSE, ::COARSE], generator)
    noise = F.interpolate(numbers, x.shape[2:], mode="bilinear", align_corners=True)
    shift = [int(torch.randint(side, (), generator=generator)) for side in x.shape[2:]]
    return x + noise.roll(shift, (2, 3)) * inside


def noise_and_denoise(denoiser, x, t_0, n, generator, step=ddpm_step):
    """AnoDDPM: x_t0 = alpha x + sigma eps, then n steps of sampling back to t = 0. x (N, C, H, W); gives its shape.

    Wyatt et al., AnoDDPM (CVPR workshops 2022), Algorithm 1, here with Gaussian noise.
    """
    schedule, times = schedule_of(denoiser), _rising(t_0, n).flip(0)
    images(x=x)
    x_t0 = schedule.noisy(x, noise_like(x, generator), t_0)
    return sample(denoiser, x_t0, times, step, generator)


def one_step(denoiser, x, t_0, draws, generator):
    """The mean of D(x_t0, t_0) over several draws of the noise: no sampling, one evaluation a draw. x (N, C, H, W).

    As a score of anomaly it is near to the denoising autoencoder of Kascenas et al. (MIDL 2022), at one noise level;
    the noise is that of a diffusion model, pixel by pixel, and is also added to the image that is searched.
    """
    images(x=x)
    whole(draws=draws)
    schedule, total = schedule_of(denoiser), 0.0
    for _ in range(draws):
        total = total + denoiser(schedule.noisy(x, noise_like(x, generator), t_0), t_0)
    return total / draws


def invert(denoiser, x, t_0, n):
    """Deterministic DDIM in reverse, from x at t = 0 to x_t0, in n steps: the noise that belongs to this image.

    The first time is 1e-3 t_0: at t = 0 itself there is no noise to speak of. Song et al. (ICLR 2021), sec. 4.3.
    """
    images(x=x)
    times = _rising(t_0, n)
    times[0] = 1e-3 * t_0
    for s, t in zip(times[:-1], times[1:]):
        x, _ = ddim_step(denoiser, x, s, t)
    return x


def heal(denoiser, guided, x, t_0, n):
    """Invert x with ``denoiser`` to t_0, then come back with ``guided``, n steps each way. Both are D(x_t, t).

    With classifier guidance: Wolleb et al. (MICCAI 2022), Algorithm 1; with classifier-free guidance: Sanchez et al.
    (DGM4MICCAI 2022).
    """
    one_schedule(denoiser=denoiser, guided=guided)
    x_t0 = invert(denoiser, x, t_0, n)
    return sample(guided, x_t0, _rising(t_0, n).flip(0), ddim_step)


# ---- The Gaussian case: everything in closed form --------------------------------------------------------------------


def gain(cov, schedule, t):
    """G = alpha^2 C (alpha^2 C + sigma^2 I)^-1: the share of x that comes through noise and denoising. (d, d)."""
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1]:
        raise ValueError(f"cov must be a square matrix (d, d), got shape {tuple(cov.shape)}")
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    noisy = alpha**2 * cov + sigma**2 * torch.eye(len(cov)).to(cov)
    return torch.linalg.solve(noisy, alpha**2 * cov).T


def detectability(cov, schedule, t, a, draws=1, sampled=True):
    """d' of the sum a . r over the residual r = x - mean of ``draws`` exact restorations: its shift by the anomaly a
    (d,), over its standard deviation in healthy people.

    With G = :func:`gain`, x = mean + h + a, h ~ N(0, C), and restorations drawn from p(x_0 | x_t):

        shift = a^T (I - G) a,    variance = a^T [(I - G) C (I - G) + (I + G) C (I - G) / draws] a

    With one draw the bracket is 2 C (I - G): x and its restoration are two draws of the same posterior. With the
    posterior mean D in place of a draw (``sampled`` False) I + G becomes G, and one draw leaves C (I - G), half of it.
    As draws -> inf and t -> 0 the residual becomes C^-1 (x - mean) times a number, and d' reaches the ceiling of every
    detector, the matched filter's sqrt(a^T C^-1 a).
    """
    within(1, float("inf"), draws=draws)
    G = gain(cov, schedule, t)
    if a.shape != cov.shape[:1] or not a.any():
        raise ValueError(f"a must be an anomaly ({len(cov)},) that is not 0 everywhere, got shape {tuple(a.shape)}")
    one = torch.eye(len(cov)).to(cov)
    spread = (one + G if sampled else G) @ cov @ (one - G)  # these commute: all are functions of C
    variance = a @ ((one - G) @ cov @ (one - G) + spread / draws) @ a
    if not variance > 0:
        raise ValueError(
            f"no residual varies at t = {float(t):g}: take a t with some noise, and a cov that varies along a"
        )
    return float(a @ (one - G) @ a / variance.sqrt())
