"""Guidance: each takes a denoiser and gives a denoiser, D_w, that pulls harder towards a condition y.

One scale throughout: w = 0 unconditional, w = 1 conditional, w > 1 sharpened. Ho & Salimans (2022) write 1 + w for our
w; MONAI's ``cfg`` is our w.

=======================  ============================================  ===================  ==========================
class                    D_w(x_t, t)                                   evaluations of D     source
=======================  ============================================  ===================  ==========================
ClassifierGuided         D + w sigma^2/alpha grad_x log p(y | x_t)     1, and a gradient    Dhariwal & Nichol (2021)
ClassifierFree           D_none + w (D_y - D_none)                     2; 1 at w = 0 and 1  Ho & Salimans (2022)
Autoguidance             D_weak + w (D_good - D_weak)                  1 each; at 1 or 0    Karras et al. (2024)
                                                                       only the one needed
=======================  ============================================  ===================  ==========================

The scale w is a number, or a function of t such as :func:`interval`; below 0 it pulls away from y. Guidance leaves the
range of images: a clamp that belongs to the sampler's D comes last, as :class:`Clipped` around the guided denoiser.
"""

import math

import torch

from course_lib.denoisers import Denoiser
from course_lib.schedules import has_no_signal, match_dims, one_schedule, schedule_of


def scale_at(w, t):
    """The scale at time t: w itself, or w(t) if it is a function. Raises ValueError where that is not one finite
    number."""
    if callable(w) and torch.as_tensor(t).numel() != 1:
        raise ValueError("a scale that depends on t needs one t for the whole batch; pass t as a number")
    scale = float(w(float(t)) if callable(w) else w)
    if not math.isfinite(scale):
        raise ValueError(f"the scale w must be a finite number, got {scale}")
    return scale


def interval(w, low, high, outside=1.0):
    """A scale that is w for low < t <= high and ``outside`` elsewhere: w(t), for any guidance of this module.

    Kynkäänniemi et al., Applying guidance in a limited interval (NeurIPS 2024), eq. 6. Theirs is given in sigma_t /
    alpha_t; ``schedule.time(-2 * log(ratio))`` is our t. Raises ValueError unless 0 <= low <= high <= 1.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"the interval needs 0 <= low <= high <= 1 in time t (1 is noise); got {low} to {high}")
    return lambda t: float(w) if low < t <= high else outside


class Autoguidance(Denoiser):
    """D_w = D_weak + w (D_good - D_weak): beyond the good denoiser, away from the weak one.

    ``weak`` is a smaller or less trained version of ``good``, told the same (Karras et al., Guiding a diffusion model
    with a bad version of itself, NeurIPS 2024, eq. 4). The same formula is classifier-free guidance where ``weak`` is
    not told the class. At w = 1 only ``good`` is asked, at w = 0 only ``weak``.

    weak, good : denoisers D(x_t, t, ...); w : number or function of t.
    """

    def __init__(self, weak, good, w):
        self.weak, self.good, self.w = weak, good, w
        self.schedule = one_schedule(weak=weak, good=good)

    def __call__(self, x_t, t, **cond):
        w = scale_at(self.w, t)
        if w == 1:
            return self.good(x_t, t, **cond)
        weak = self.weak(x_t, t, **cond)
        return weak if w == 0 else weak + w * (self.good(x_t, t, **cond) - weak)


def _told(y, n):
    """The condition y of n images. Raises ValueError for what cannot hold the class "none" beside its own."""
    if not torch.is_tensor(y) or y.dtype == torch.bool or y.shape[:1] != (n,):
        got = f"{y.dtype} of shape {tuple(y.shape)}" if torch.is_tensor(y) else f"a {type(y).__name__}"
        raise ValueError(f"y must be a tensor of {n} classes, whole numbers, one an image; got {got}: bool is y.long()")
    return y.long() if y.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32) else y


class ClassifierFree(Denoiser):
    """D_w = D_none + w (D_y - D_none), from one denoiser that knows both.

    Ho & Salimans (2022), eq. 6, in the denoised image; their 1 + w is our w.
    Both answers come from one batch of twice the size, which costs two evaluations. At w = 1 or 0 one is enough.

    denoiser : D(x_t, t, y) with classes y (B,); none : the class that stands for "no class"; w : number or function
    of t.
    """

    def __init__(self, denoiser, none, w):
        self.denoiser, self.none, self.w = denoiser, none, w
        self.schedule = schedule_of(denoiser)

    def __call__(self, x_t, t, y):
        w = scale_at(self.w, t)
        y = _told(y, len(x_t))
        none = torch.full_like(y, self.none)
        if w in (0, 1):
            return self.denoiser(x_t, t, y=y if w == 1 else none)
        times = t if torch.as_tensor(t).ndim == 0 else torch.as_tensor(t).expand(len(x_t)).repeat(2)
        D_none, D_y = self.denoiser(torch.cat([x_t, x_t]), times, y=torch.cat([none, y])).chunk(2)
        return D_none + w * (D_y - D_none)


class ClassifierGuided(Denoiser):
    """D_w = D + w (sigma_t^2 / alpha_t) grad_x log p(y | x_t).

    Dhariwal & Nichol (NeurIPS 2021), sec. 4, in the denoised image.
    By Bayes the scores add, grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t), and by Tweedie a score s is
    worth sigma_t^2 s / alpha_t in the denoised image. The classifier must know noisy images: it is asked at x_t.

    denoiser : D(x_t, t); logits : function (x_t, t) -> (B, classes), logits or log-probabilities, differentiable;
    w : number or function of t. At w = 0 the classifier is not asked. Raises
    ValueError where alpha_t = 0, since no classifier's gradient is exactly zero there.
    """

    def __init__(self, denoiser, logits, w):
        self.denoiser, self.logits, self.w = denoiser, logits, w
        self.schedule = schedule_of(denoiser)

    def __call__(self, x_t, t, y):
        w = scale_at(self.w, t)
        D = self.denoiser(x_t, t)
        if w == 0:
            return D
        if has_no_signal(self.schedule, t):
            raise ValueError("no signal at t = 1: classifier guidance starts a little later, as log_snr_times does")
        alpha, sigma = (match_dims(c, x_t) for c in (self.schedule.alpha(t), self.schedule.sigma(t)))
        return D + w * sigma**2 / alpha * log_prob_gradient(self.logits, x_t, t, y)


def log_prob_gradient(logits, x_t, t, y):
    """grad_x log p(y | x_t), the shape of x_t. Each example must be judged by itself (no batch normalisation).

    y (B,), whole numbers from 0 to classes - 1. Raises ValueError for others.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        log_p = logits(x, t).log_softmax(1)  # leaves log-probabilities as they are
        whole = not y.is_floating_point() and y.dtype != torch.bool
        if not whole or y.shape != log_p.shape[:1] or not ((y >= 0) & (y < log_p.shape[1])).all():
            raise ValueError(
                f"y must hold a class from 0 to {log_p.shape[1] - 1} for each of {len(log_p)} images, as whole numbers;"
                f" got {y.tolist()}"
            )
        return torch.autograd.grad(log_p.gather(1, y.long()[:, None]).sum(), x)[0]


class Clipped(Denoiser):
    """clamp(D, low, high): the clamp after guidance, for images whose range is known (Saharia et al., 2022, sec. 2.3).

    Clamping the parts instead does not bound D_w: extrapolation leaves the range again. Raises ValueError unless
    low < high.
    """

    def __init__(self, denoiser, low=-1.0, high=1.0):
        if not low < high:
            raise ValueError(f"low must lie below high, got {low!r} and {high!r}")
        self.denoiser, self.low, self.high = denoiser, low, high
        self.schedule = schedule_of(denoiser)

    def __call__(self, x_t, t, **cond):
        return self.denoiser(x_t, t, **cond).clamp(self.low, self.high)
