"""How much signal, how much noise: x_t = alpha(t) x_0 + sigma(t) eps, with t = 0 clean and t = 1 noise.

A schedule is a pair of functions of continuous time. ``log_snr(t)`` is lambda_t = log(alpha_t^2 / sigma_t^2); it falls
monotonically, so that time can be recovered from it (:meth:`Schedule.time`).
"""

import math

import torch

from course_lib.arguments import alike, floating, positive, rising, whole

NO_SIGNAL = 1e-8  # an alpha_t up to it is rounding: nothing may be divided by it
_SLACK = 1e-5  # in log-SNR: what the rounding of single precision may add to the ends of a schedule


def match_dims(a, x):
    """Reshape a per-example coefficient a (B,) to (B, 1, ..., 1), with the type and device of x (B, ...), so that it
    multiplies x. Scalars pass through in their own type; one on the CPU stays there, where it multiplies any x."""
    a = torch.as_tensor(a)
    if a.ndim == 0:
        return a if a.device.type == "cpu" else a.to(x.device)
    # first the type: a device may lack double precision, as Apple's do
    return a.reshape(a.shape + (1,) * (x.ndim - a.ndim)).to(x.dtype).to(x.device)


class Schedule:
    """Base class: a subclass gives alpha(t) and sigma(t); t is a float or a tensor of any shape, in [0, 1].

    Times outside [0, 1] raise ValueError, unless they are a tensor on an accelerator, which a look at it would stop.
    """

    def alpha(self, t):
        """Signal level alpha_t, the shape of t."""
        raise NotImplementedError

    def sigma(self, t):
        """Noise level sigma_t, the shape of t."""
        raise NotImplementedError

    def log_snr(self, t):
        """lambda_t = log(alpha_t^2 / sigma_t^2), the shape of t; +inf where there is no noise, -inf where there is no
        signal."""
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def log_snr_range(self):
        """(lambda_1, lambda_0): the least and the greatest log-SNR of the schedule, floats; -inf where no signal is
        left at t = 1, +inf where no noise is left at t = 0."""
        least, most = self.log_snr(torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
        return (-math.inf if has_no_signal(self, 1.0) else least), most

    def time(self, log_snr):
        """The t in [0, 1] at which lambda_t equals log_snr (float64, the shape of log_snr), by bisection to 1e-15.

        Raises ValueError for a log-SNR that the schedule does not reach; ``log_snr.clamp(*schedule.log_snr_range())``
        asks for the nearest one that it does.
        """
        target = torch.as_tensor(log_snr, dtype=torch.float64)
        least, most = self.log_snr_range()
        if not ((target >= least - _SLACK) & (target <= most + _SLACK)).all():
            low, high = (f"{float(end):.4g}" for end in target.aminmax())
            raise ValueError(
                f"log-SNR {low if low == high else f'from {low} to {high}'} is out of reach: this schedule goes from "
                f"{least:.4g} at t = 1 to {most:.4g} at t = 0"
            )
        low, high = torch.zeros_like(target), torch.ones_like(target)
        for _ in range(50):
            middle = (low + high) / 2
            too_clean = self.log_snr(middle) > target
            low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
        return (low + high) / 2

    def noisy(self, x_0, eps, t):
        """The forward process x_t = alpha_t x_0 + sigma_t eps; x_0 and eps (B, ...), t scalar or (B,). Raises
        ValueError for another t, for an eps of another shape, and for whole numbers x_0."""
        floating(x_0=x_0)
        alike(x_0=x_0, eps=eps)
        shape = tuple(getattr(t, "shape", ()))
        if shape not in ((), (1,), tuple(x_0.shape[:1])):
            raise ValueError(f"t must be one time, or one for each of the {len(x_0)} of x_0, got shape {shape}")
        return match_dims(self.alpha(t), x_0) * x_0 + match_dims(self.sigma(t), x_0) * eps


def has_no_signal(schedule, t):
    """Whether alpha_t is zero, up to rounding, for any t: formulas that divide by alpha_t have no value there."""
    return bool((schedule.alpha(t) <= NO_SIGNAL).any())  # in half precision, NO_SIGNAL itself is 0


def _time(t):
    """t as a tensor in [0, 1]: float64 unless it is one of floats. Raises ValueError outside, beyond rounding."""
    if t is None or isinstance(t, str):
        raise ValueError(f"t must be a number or tensor in [0, 1], where 1 is noise, got {t!r}")
    t = t if torch.is_tensor(t) else torch.as_tensor(t, dtype=torch.float64)
    t = t if t.is_floating_point() else t.double()
    if t.device.type == "cpu" and not ((t >= -1e-6) & (t <= 1 + 1e-6)).all():
        wrong = t[~((t >= -1e-6) & (t <= 1 + 1e-6))]
        raise ValueError(
            f"t must lie in [0, 1], where 1 is noise, got {float(wrong.flatten()[0]):g}: index k of a table of T "
            "steps, as MONAI and diffusers count, is t = (k + 1) / T"
        )
    return t.clamp(0, 1)  # rounding beyond the ends would be the root or the log of a number below 0


class VariancePreserving(Schedule):
    """alpha_t^2 + sigma_t^2 = 1, given by B(t) = integral of beta from 0 to t: alpha_t = exp(-B(t) / 2), sigma_t^2 =
    1 - exp(-B(t)).

    Song et al., Score-based generative modeling through SDEs (ICLR 2021), eq. 29.
    """

    def integral_of_beta(self, t):
        """B(t), the shape of t."""
        raise NotImplementedError

    def alpha(self, t):
        return torch.exp(-self.integral_of_beta(_time(t)) / 2)

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(-self.integral_of_beta(_time(t))))  # expm1 keeps small noise levels exact


class Linear(VariancePreserving):
    """beta(t) linear from beta_min to beta_max: DDPM's schedule (Ho et al., NeurIPS 2020) as T grows, with beta_i =
    beta(t) / T."""

    def __init__(self, beta_min=0.1, beta_max=20.0):
        rising(beta_min=beta_min, beta_max=beta_max)
        self.beta_min, self.beta_max = beta_min, beta_max

    def integral_of_beta(self, t):
        return self.beta_min * t + (self.beta_max - self.beta_min) * t**2 / 2


class ScaledLinear(VariancePreserving):
    """sqrt(beta(t)) linear, the schedule of latent diffusion (Rombach et al., CVPR 2022).

    The defaults are Stable Diffusion's betas, 0.00085 to 0.012, times T = 1000. The first latent diffusion models and
    several of MONAI's tutorials have 0.0015 to 0.0195; MONAI's own default is 0.0001 to 0.02.
    """

    def __init__(self, beta_min=0.85, beta_max=12.0):
        rising(beta_min=beta_min, beta_max=beta_max)
        self.beta_min, self.beta_max = beta_min, beta_max

    def integral_of_beta(self, t):
        a, b = math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)
        return a**2 * t + a * b * t**2 + b**2 * t**3 / 3


class Cosine(Schedule):
    """alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2).

    Nichol & Dhariwal (ICML 2021) without their small offset, as in Salimans & Ho (ICLR 2022).
    """

    def alpha(self, t):
        t = _time(t)
        wide = t.to(torch.promote_types(t.dtype, torch.float32))  # in half precision cos(pi / 2) is 5e-4
        return torch.cos(wide * (math.pi / 2)).clamp(min=0).to(t.dtype)  # rounding makes cos(pi / 2) negative

    def sigma(self, t):
        return torch.sin(_time(t) * (math.pi / 2))


class RectifiedFlow(Schedule):
    """Straight lines from image to noise: alpha_t = 1 - t, sigma_t = t (Liu et al., ICLR 2023; Lipman et al., ICLR
    2023)."""

    def alpha(self, t):
        return 1 - _time(t)

    def sigma(self, t):
        return _time(t)


class BrownianBridge(Schedule):
    """alpha = 1 - t, sigma = std sqrt(t (1 - t)): of x_t - t y, for bridges from an image x_0 at t = 0 to another, y,
    at t = 1, where x_t = (1 - t) x_0 + t y + sigma_t eps.

    It has noise at neither end. Li et al., BBDM (CVPR 2023); Liu et al., I2SB (ICML 2023).
    """

    def __init__(self, std=0.5):
        positive(std=std)
        self.std = std

    def alpha(self, t):
        return 1 - _time(t)

    def sigma(self, t):
        t = _time(t)
        return self.std * (t * (1 - t)).sqrt()


class VarianceExploding(Schedule):
    """alpha_t = 1, sigma_t = sigma_min^(1 - t) sigma_max^t (Song et al., ICLR 2021, sec. 3.4; range of Karras et al.,
    2022)."""

    def __init__(self, sigma_min=0.002, sigma_max=80.0):
        rising(sigma_min=sigma_min, sigma_max=sigma_max)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def alpha(self, t):
        return torch.ones_like(_time(t))

    def sigma(self, t):
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** _time(t)


class Discrete(Schedule):
    """DDPM's table of T steps: abar_i = prod of (1 - beta_j) over j <= i, alpha = sqrt(abar_i) at t = i / T, i =
    1..T; t = 0 is clean.

    Between two entries log(abar) is interpolated linearly. Index k of MONAI's or diffusers' ``alphas_cumprod`` is i =
    k + 1.
    Ho et al. (NeurIPS 2020), eq. 4.

    Parameters: betas (T,), each in (0, 1). Raises ValueError otherwise.
    """

    def __init__(self, betas):
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas < 1)).all():
            raise ValueError(f"betas must be a vector with every entry in (0, 1); got shape {tuple(betas.shape)}")
        self.betas = betas
        self.log_abar = torch.cat([torch.zeros(1, dtype=torch.float64), torch.log1p(-betas).cumsum(0)])  # (T + 1,)

    @classmethod
    def linear(cls, T=1000, beta_start=1e-4, beta_end=0.02):
        """beta_i linear in i, the defaults of Ho et al. (2020)."""
        return cls(torch.linspace(beta_start, beta_end, T, dtype=torch.float64))

    @property
    def T(self):
        """Number of steps in the table."""
        return len(self.betas)

    def _log_abar(self, t):
        position = _time(t).cpu().double() * self.T  # where the table is: a device may lack double precision
        left = position.floor().clamp(0, self.T - 1).long()
        return torch.lerp(self.log_abar[left], self.log_abar[left + 1], position - left)

    def alpha(self, t):
        return torch.exp(self._log_abar(t) / 2).to(_time(t))

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(self._log_abar(t))).to(_time(t))


def uniform_times(n):
    """n + 1 times from 1 to 0, evenly spaced (float64). Raises ValueError unless n is a whole number from 1 on."""
    whole(n=n)
    return torch.linspace(1, 0, n + 1, dtype=torch.float64)


def log_snr_times(schedule, n, log_snr_min=None, log_snr_max=None):
    """n times evenly spaced in lambda_t from log_snr_min (noise) to log_snr_max, then 0: n + 1 in all (float64).

    The grid of DPM-Solver (Lu et al., NeurIPS 2022, sec. 3.3). Left out, the range is -10 to 10, or what the schedule
    reaches of it. Where it ends with the schedule itself, which keeps some noise at t = 0, that 0 is its last time.
    Raises ValueError for a range that the schedule does not reach, or that does not rise.
    """
    whole(n=n)
    least, most = schedule.log_snr_range()
    low = max(-10.0, least) if log_snr_min is None else float(log_snr_min)
    high = min(10.0, most) if log_snr_max is None else float(log_snr_max)
    if not low < high:
        raise ValueError(f"log_snr_min must lie below log_snr_max, got {low:.4g} and {high:.4g}")
    points = n + 1 if high > most - _SLACK else n
    times = schedule.time(torch.linspace(low, high, points, dtype=torch.float64))[:n]
    return torch.cat([times, torch.zeros(1, dtype=torch.float64)])


def karras_levels(schedule, n):
    """n times for n evaluations: :func:`karras_times` without its last noisy one, at which there is nothing left to
    denoise, and without its 0: (n,) float64. The answer is the denoised image at the last of them."""
    whole(n=n)
    sigma_min, sigma_max = _karras_range(schedule, None, None)
    return schedule.time(-2 * torch.log(_karras_ramp(n + 1, sigma_min, sigma_max, 7.0)[:n]))


def karras_times(schedule, n, sigma_min=None, sigma_max=None, rho=7.0):
    """n times at which sigma_t / alpha_t follows eq. 5 of Karras et al. (NeurIPS 2022), then 0: n + 1 in all (float64).

    sigma_i = (sigma_max^(1/rho) + i / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,  i = 0 .. n - 1.

    Left out, the range is 0.002 to 80, or what the schedule reaches of it. Where sigma_min is the noise that the
    schedule keeps at t = 0, that 0 is sigma_n, the last of n + 1 levels. Raises ValueError for a range that the
    schedule does not reach, or that does not rise from above 0.
    """
    whole(n=n)
    sigma_min, sigma_max = _karras_range(schedule, sigma_min, sigma_max)
    positive(sigma_min=sigma_min, rho=rho)
    if not sigma_min < sigma_max:
        raise ValueError(f"sigma_min must lie below sigma_max, got {sigma_min:.4g} and {sigma_max:.4g}")
    ends = -2 * math.log(sigma_min) > schedule.log_snr_range()[1] - _SLACK
    sigmas = _karras_ramp(n + 1 if ends else n, sigma_min, sigma_max, rho)
    return torch.cat([schedule.time(-2 * torch.log(sigmas))[:n], torch.zeros(1, dtype=torch.float64)])


def _karras_range(schedule, sigma_min, sigma_max):
    """The two, or what the schedule reaches of 0.002 to 80 where they are left out."""
    least, most = schedule.log_snr_range()
    if sigma_min is None:
        sigma_min = 0.002 if -2 * math.log(0.002) < most + _SLACK else math.exp(-most / 2)
    if sigma_max is None:
        sigma_max = 80.0 if -2 * math.log(80.0) > least - _SLACK else math.exp(-least / 2)
    return sigma_min, sigma_max


def _karras_ramp(n, sigma_min, sigma_max, rho):
    ramp = torch.linspace(0, 1, n, dtype=torch.float64)
    return (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


def schedule_of(denoiser):
    """The schedule of a denoiser. Raises ValueError, with the remedy, for what has none: a plain function, a network, a
    name."""
    schedule = getattr(denoiser, "schedule", None)
    if not isinstance(schedule, Schedule):
        has = "" if schedule is None else f", whose schedule is {schedule!r:.80}"
        raise ValueError(
            "denoiser must have a schedule, such as Cosine(): of a function f make FunctionDenoiser(f, schedule), of a "
            f"network NetworkDenoiser(net, schedule, kind); got a {type(denoiser).__name__}{has}"
        )
    return schedule


def one_schedule(**denoisers):
    """The schedule of several denoisers, named. Raises ValueError where they differ: the same t would mean another
    noise to each; and as :func:`schedule_of`."""
    first, *others = schedules = [schedule_of(denoiser) for denoiser in denoisers.values()]
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    if not all(torch.allclose(first.log_snr(t), other.log_snr(t), rtol=0, atol=0.05) for other in others):
        kinds = ", ".join(type(schedule).__name__ for schedule in schedules)
        raise ValueError(
            f"{' and '.join(denoisers)} must have one schedule, since t means its noise to both; got {kinds}"
        )
    return first
