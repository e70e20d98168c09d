"""What a network may predict, and how each target gives the others.

With x_t = alpha x_0 + sigma eps:

=====  =========================  ===========================================
kind   target                     clean image x_0
=====  =========================  ===========================================
x0     x_0                        x_0
eps    eps                        (x_t - sigma eps) / alpha
v      v = alpha eps - sigma x_0  (alpha x_t - sigma v) / (alpha^2 + sigma^2)
score  -eps / sigma               (x_t + sigma^2 score) / alpha
flow   u = eps - x_0              (x_t - sigma u) / (alpha + sigma)
=====  =========================  ===========================================

alpha^2 + sigma^2 is 1 when the schedule preserves variance. Where alpha = 0, eps and score say nothing of x_0; where
sigma = 0, x_0 says nothing of eps: functions that would divide by zero raise ValueError. Where both are 0, as at t = 1
of ``BrownianBridge``, only x0 says anything: v and flow give NaN there.
Sources: v, Salimans & Ho (ICLR 2022); flow, Lipman et al. (ICLR 2023).
"""

import torch

from course_lib.arguments import one_of
from course_lib.schedules import NO_SIGNAL

KINDS = ("x0", "eps", "v", "score", "flow")


def _signal(alpha, kind):
    """alpha, to divide by. Raises ValueError where it is zero."""
    if (torch.as_tensor(alpha) <= NO_SIGNAL).any():
        raise ValueError(
            f"no signal where alpha = 0 (t = 1): {kind} gives no x_0 there; start later, as log_snr_times does"
        )
    return alpha


def _noise(sigma):
    """sigma, to divide by. Raises ValueError where it is zero."""
    if (torch.as_tensor(sigma) == 0).any():
        raise ValueError("no noise where sigma = 0 (t = 0): there is no eps to be found; start a little above t = 0")
    return sigma


def target(kind, x_0, eps, alpha, sigma):
    """The training target of the given kind, the shape of x_0; alpha and sigma broadcast against it."""
    one_of(KINDS, kind=kind)
    if kind == "x0":
        return x_0
    if kind == "eps":
        return eps
    if kind == "v":
        return alpha * eps - sigma * x_0
    if kind == "score":
        return -eps / _noise(sigma)
    return eps - x_0  # flow


def to_x0(kind, output, x_t, alpha, sigma):
    """The clean image that a prediction of the given kind stands for, the shape of x_t."""
    one_of(KINDS, kind=kind)
    if kind == "x0":
        return output
    if kind == "eps":
        return (x_t - sigma * output) / _signal(alpha, kind)
    if kind == "v":
        return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)
    if kind == "score":
        return (x_t + sigma**2 * output) / _signal(alpha, kind)
    return (x_t - sigma * output) / (alpha + sigma)  # flow


def eps_from_x0(x_t, x_0, alpha, sigma):
    """eps = (x_t - alpha x_0) / sigma: the noise that a denoised image implies."""
    return (x_t - alpha * x_0) / _noise(sigma)


def from_x0(kind, x_0, x_t, alpha, sigma):
    """The prediction of the given kind that a clean image x_0 stands for at x_t: the inverse of :func:`to_x0`."""
    return x_0 if kind == "x0" else target(kind, x_0, eps_from_x0(x_t, x_0, alpha, sigma), alpha, sigma)


def preconditioning(sigma, sigma_data):
    """(c_skip, c_out, c_in) at noise sigma_t, where alpha_t = 1: D(x_t, t) = c_skip x_t + c_out F(c_in x_t, t).

    With s = sigma_t^2 + sigma_data^2:

        c_skip = sigma_data^2 / s,   c_out = sigma_t sigma_data / sqrt(s),   c_in = 1 / sqrt(s)

    For data of standard deviation sigma_data, what F sees and what it is to say, (x_0 - c_skip x_t) / c_out, both have
    variance 1, and of all c_skip this one makes c_out, by which F's errors count, least. With sigma_data = 1, F is -v.
    Karras et al. (NeurIPS 2022), table 1 and app. B.6. sigma: a tensor of any shape, or a number.
    """
    s = sigma**2 + sigma_data**2
    return sigma_data**2 / s, sigma * sigma_data / s**0.5, 1 / s**0.5


def convert(output, source, to, x_t, alpha, sigma):
    """Turn a prediction of kind ``source`` into one of kind ``to``, the shape of x_t."""
    return from_x0(to, to_x0(source, output, x_t, alpha, sigma), x_t, alpha, sigma)
