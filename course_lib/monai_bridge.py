"""MONAI's diffusion networks as denoisers of ours, and denoisers of ours as networks for MONAI's inferers.

===============  =============================  ===================================================================
                 MONAI                          here
===============  =============================  ===================================================================
time             index k = 0 .. T - 1           t = (k + 1) / T; t = 0 is the clean image, which has no index there
what a net sees  the index k, as a float        t; the course's networks embed 1000 t, whatever T is
table            ``alphas_cumprod[k]``          alpha_t^2 of :class:`~course_lib.schedules.Discrete`
prediction_type  epsilon, sample, v_prediction  the kinds eps, x0, v
RFlowScheduler   index T t, image minus noise   :class:`~course_lib.schedules.RectifiedFlow`, kind flow, noise
                                                minus image
===============  =============================  ===================================================================

``DDPMScheduler`` and ``ddpm_step`` take the same steps, clipped or not, as long as MONAI's walks all T.
``DDIMScheduler`` and ``ddim_step`` do where nothing is clipped; where it is, MONAI keeps the eps of the network, and
``ddim_step`` takes the one that belongs to the clipped image, (x_t - alpha_t D) / sigma_t.
"""

import torch
from torch import nn

from course_lib.arguments import one_of
from course_lib.denoisers import NetworkDenoiser
from course_lib.guidance import Clipped
from course_lib.predictions import from_x0
from course_lib.schedules import Discrete, RectifiedFlow, has_no_signal, match_dims, schedule_of

KINDS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}  # MONAI's prediction_type: the kind


class _AtIndex(nn.Module):
    """A network of MONAI's, called as ours are: net(x_t, t, y) = sign unet(x_t, timesteps = T t - offset)."""

    def __init__(self, unet, T, offset, sign):
        super().__init__()
        self.unet, self.T, self.offset, self.sign = unet, T, offset, sign
        self.told = "class_labels" if getattr(unet, "num_class_embeds", None) else "context"

    def forward(self, x_t, t, y=None):
        index = self.T * torch.as_tensor(t, dtype=torch.float32, device=x_t.device) - self.offset
        index = index.clamp(min=0).expand(len(x_t))  # below the first, which no training shows, it stays the first
        return self.sign * self.unet(x_t, timesteps=index, **({} if y is None else {self.told: y}))


def from_monai(unet, scheduler):
    """The denoiser D(x_t, t) that a network of MONAI's is, with the scheduler that it was trained by.

    unet : ``DiffusionModelUNet``, or another that is called as unet(x, timesteps=..., context=...). A condition,
    ``denoiser.given(y)``, goes to ``class_labels`` where the network has classes, (B,), and else to ``context``,
    (B, 1, C). Of another call make a :class:`~course_lib.denoisers.NetworkDenoiser` by hand.
    scheduler : ``DDPMScheduler``, ``DDIMScheduler`` or ``PNDMScheduler``, of which table, prediction type and clipping
    are taken (:class:`~course_lib.guidance.Clipped`), or ``RFlowScheduler``. Times between two indices are right, too.

    Raises ValueError for another scheduler, and for a table that add_noise has made coarse, that does not fall, or that
    leaves no signal at its last index.
    """
    if not hasattr(scheduler, "num_train_timesteps"):
        raise ValueError(f"scheduler must be one of MONAI's, as DDPMScheduler(1000) is; got {scheduler!r:.80}")
    T = scheduler.num_train_timesteps
    if not hasattr(scheduler, "alphas_cumprod"):  # RFlowScheduler, which has no table
        return NetworkDenoiser(_AtIndex(unet, T, 0, -1), RectifiedFlow(), "flow")
    one_of(KINDS, prediction_type=scheduler.prediction_type)
    abar = scheduler.alphas_cumprod
    if abar.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"alphas_cumprod of the scheduler is {abar.dtype}, as MONAI's add_noise leaves it after images of that "
            "type, too coarse for small noise: make the scheduler anew"
        )
    abar = abar.double().cpu()
    betas = 1 - abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    if not ((betas > 0) & (betas < 1)).all():
        raise ValueError("alphas_cumprod of the scheduler must fall from 1, and stay above 0 at the last index")
    denoiser = NetworkDenoiser(_AtIndex(unet, T, 1, 1), Discrete(betas), KINDS[scheduler.prediction_type])
    return Clipped(denoiser, *scheduler.clip_sample_values) if getattr(scheduler, "clip_sample", False) else denoiser


def to_monai(denoiser, scheduler):
    """A denoiser as a network that MONAI's inferers call, net(x, timesteps, context=None); the scheduler gets the table
    of the denoiser's schedule, in place, so that index k means the same noise to both.

    scheduler : ``DDPMScheduler``, ``DDIMScheduler`` or ``PNDMScheduler``; what its ``prediction_type`` asks for is what
    the network answers, in the shape and type of x. Or ``RFlowScheduler``, which has no table, for a denoiser of
    :class:`~course_lib.schedules.RectifiedFlow`: the answer is image minus noise. timesteps : indices (1,) or (B,).
    context : told the denoiser as y.

    Raises ValueError for a schedule that does not preserve variance, which MONAI's tables do; and for "epsilon" where
    no signal is left at t = 1, since MONAI divides by it.
    """
    schedule = schedule_of(denoiser)
    if isinstance(schedule, RectifiedFlow) and not hasattr(scheduler, "alphas_cumprod"):
        return _asked(denoiser, "flow", scheduler.num_train_timesteps, 0, -1)
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(f"scheduler must have a table, as DDIMScheduler(1000) has; got a {type(scheduler).__name__}")
    T = scheduler.num_train_timesteps
    one_of(KINDS, prediction_type=getattr(scheduler, "prediction_type", None))
    kind = KINDS[scheduler.prediction_type]
    times = torch.arange(1, T + 1, dtype=torch.float64) / T
    abar = schedule.alpha(times) ** 2
    if not torch.allclose(abar + schedule.sigma(times) ** 2, torch.ones_like(abar)):
        raise ValueError(
            f"denoiser must have a schedule that preserves variance, as Cosine() does; got {type(schedule).__name__}"
        )
    if kind == "eps" and has_no_signal(schedule, 1.0):
        raise ValueError(
            f"prediction_type must be 'v_prediction' or 'sample' for {type(schedule).__name__}, which has no signal at "
            "t = 1: of 'epsilon' MONAI would divide by it"
        )
    steps = abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    scheduler.alphas_cumprod, scheduler.alphas, scheduler.betas = abar.float(), steps.float(), (1 - steps).float()
    if getattr(scheduler, "final_alpha_cumprod", 1.0) != 1:  # made with set_alpha_to_one=False
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]

    return _asked(denoiser, kind, T, 1, 1)


def _asked(denoiser, kind, T, offset, sign):
    """A denoiser, called as MONAI calls a network: index k is t = (k + offset) / T, the answer sign times the kind."""
    schedule = denoiser.schedule

    def net(x, timesteps, context=None):
        t = (torch.as_tensor(timesteps).cpu().double().reshape(-1) + offset) / T
        t = t[0] if len(t) == 1 else t
        x_0 = denoiser(x, t, **({} if context is None else {"y": context}))
        alpha, sigma = (match_dims(c, x) for c in (schedule.alpha(t), schedule.sigma(t)))
        return sign * from_x0(kind, x_0, x, alpha, sigma).to(x)

    return net
