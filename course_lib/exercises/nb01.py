"""Exercises of notebook 01: the ELBO, a coverage number, the change of variables, and what each family can tell."""

import math

import numpy as np
import torch
from torch.distributions import Normal, kl_divergence

from course_lib.exercises.engine import Exercises, case, choice, function, mistake, number, prop

LOG_2PI = math.log(2 * math.pi)
ZERO = torch.zeros(3, 2)
X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 0.1]])
DECODED = torch.tensor([[0.2, -0.8], [1.5, 0.0], [-0.7, 0.4]])
MU = torch.tensor([[0.5, 1.0], [-1.5, 0.2], [0.0, 0.3]])
LOG_VAR = torch.tensor([[-2.0, 0.5], [-1.0, -3.0], [0.0, -0.5]])


# ---- q1: the ELBO ----------------------------------------------------------------------------------------------------


def elbo(x, decoded, s, mu, log_var):
    log_likelihood = -((x - decoded) ** 2 / (2 * s**2) + math.log(s) + 0.5 * math.log(2 * math.pi)).sum(1)
    kl = 0.5 * (mu**2 + torch.exp(log_var) - 1 - log_var).sum(1)
    return log_likelihood - kl


def _log_likelihood(error, s):
    return -(error**2 / (2 * s**2) + math.log(s) + 0.5 * LOG_2PI).sum(1)


def _kl(mu, log_var):
    return 0.5 * (mu**2 + torch.exp(log_var) - 1 - log_var).sum(1)


def _elbo(log_likelihood=_log_likelihood, kl=_kl):
    """`elbo` with another log p(x | z) or another KL."""
    return lambda x, decoded, s, mu, log_var: log_likelihood(x - decoded, s) - kl(mu, log_var)


q1 = function(
    """Write `elbo(x, decoded, s, mu, log_var)`: the ELBO of each point, in nats, with one draw of the code.
    `decoded` is the decoder's mean for that draw, `s` the decoder's standard deviation (a number), `mu` and `log_var`
    the encoder's answer. x, decoded, mu, log_var are (B, d); the result is (B,).""",
    solution=elbo,
    tests=[
        case(
            "a perfect decoder",
            (ZERO, ZERO, 0.1, ZERO, ZERO),
            """With decoded = x and q = p(z) only the normalising constant is left: -log s - log(2 pi)/2 for each
            coordinate, summed, with the sign of log p and not of a loss. (The KL is 0 here: mu^2 + sigma^2 - 1 -
            log sigma^2, where sigma^2 = exp(log_var) = 1.)""",
        ),
        case(
            "the decoder's width",
            (X, DECODED, 0.5, ZERO, ZERO),
            "Check log p(x | z): the squared error is divided by 2 s^2.",
        ),
        case(
            "the mean of the code",
            (X, DECODED, 0.5, MU, ZERO),
            """A code far from 0 must cost: subtract KL = mu^2 / 2 for each coordinate here.
            Is the KL there, with a minus, and summed over the coordinates of each point?""",
        ),
        case(
            "the variance of the code",
            (X, DECODED, 0.5, MU, LOG_VAR),
            """The KL is (mu^2 + sigma^2 - 1 - log sigma^2) / 2 for each coordinate. sigma^2 is exp(log_var), and
            log sigma^2 is log_var: check both, and the minus.""",
        ),
        case(
            "three coordinates",
            (torch.ones(2, 3), torch.zeros(2, 3), 0.5, torch.ones(2, 3), torch.zeros(2, 3)),
            "Right for points in the plane alone: the constant log s + log(2 pi)/2 belongs to each coordinate.",
        ),
    ],
    mistakes=[
        mistake(_elbo(lambda error, s: -(error**2 / (2 * s**2)).sum(1)), "a perfect decoder", "the constant left out"),
        mistake(_elbo(lambda error, s: -(error**2 / 2 + math.log(s) + 0.5 * LOG_2PI).sum(1)), "the decoder's width"),
        mistake(_elbo(kl=lambda mu, log_var: 0), "the mean of the code", "the missing KL"),
        mistake(_elbo(kl=lambda mu, log_var: -_kl(mu, log_var)), "the mean of the code", "the KL's sign"),
        mistake(_elbo(kl=lambda mu, log_var: _kl(mu, 2 * log_var)), "the variance of the code"),
        mistake(
            _elbo(kl=lambda mu, log_var: 0.5 * (mu**2 + log_var - 1 - torch.log(log_var.abs() + 1e-9)).sum(1)),
            "a perfect decoder",
            "log-variance taken for variance",
        ),
        mistake(lambda *args: elbo(*args).mean(), "shape", "one number for the whole batch"),
        mistake(
            _elbo(lambda error, s: -(error**2).sum(1) / (2 * s**2) - 2 * math.log(s) - LOG_2PI),
            "three coordinates",
            "the constant of two coordinates",
        ),
        mistake(_elbo(kl=lambda mu, log_var: 2 * _kl(mu, log_var)), "the mean of the code", "the half of the KL"),
        mistake(lambda *args: -elbo(*args), "a perfect decoder", "the loss"),
        mistake(_elbo(lambda error, s: _log_likelihood(error, s) / 2), "a perfect decoder", "a mean over coordinates"),
        mistake(
            _elbo(kl=lambda mu, log_var: 0.5 * ((1 + mu**2) / log_var.exp() - 1 + log_var).sum(1)),
            "the variance of the code",
            "KL the other way round",
        ),
        mistake(
            _elbo(lambda error, s: -(error.abs() / s + math.log(s) + 0.5 * LOG_2PI).sum(1)),
            "the decoder's width",
            "absolute errors",
        ),
    ],
    also_right=[
        lambda x, decoded, s, mu, log_var: (
            Normal(decoded, s).log_prob(x).sum(1)
            - kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
        ),
        lambda x, decoded, s, mu, log_var: (
            -0.5 * ((x - decoded) / s).square().sum(-1)
            - x.shape[1] * (torch.log(s) + 0.5 * LOG_2PI)
            - 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(-1)
        ),
    ],
    hints=[
        "Two parts: log N(x; decoded, s^2 I), summed over coordinates, and minus KL(q || N(0, I)).",
        "log N = -(x - decoded)^2 / (2 s^2) - log s - log(2 pi) / 2, for each coordinate.",
        "KL = 0.5 * (mu^2 + exp(log_var) - 1 - log_var), summed over the code's coordinates.",
    ],
    explanation="""Kingma & Welling (ICLR 2014), eq. 10. Leaving out log(2 pi) / 2 changes no gradient, so training does
    not notice; but then the number is no longer a bound and cannot be compared with another model's.""",
)


# ---- q2: mode collapse from a number ---------------------------------------------------------------------------------

q2 = number(
    """A hospital's data have four kinds of lesion with shares 70, 20, 8 and 2 %.
    Of 1000 images that a GAN made, 880, 115, 4 and 1 show them.
    Count a kind as covered if it gets at least a quarter of its share. How many of the four are covered?""",
    solution="sum(made / 1000 >= share / 4 for made, share in zip((880, 115, 4, 1), (0.70, 0.20, 0.08, 0.02)))",
    mistakes=[
        (4, "Each kind appears, but once in 1000 is not coverage: 4 of 1000 is 0.4 %, a quarter of 8 % is 2 %."),
        (3, "Check the last kind too: a quarter of 2 % is 0.5 %, that is 5 images; there is 1."),
        (1, "A share that is too small still counts above a quarter: 11.5 % is more than 5 %, a quarter of 20 %."),
        (0.995, "That is the share of samples in the covered kinds. 99.5 % of them look right: that is the trap."),
    ],
    also_right=[2.0, "2", np.int64(2)],
    hints=[
        "Compare each kind's share among the samples with a quarter of its share in the data.",
        "0.004 against 0.02?",
    ],
    explanation="""Two of four: the two rare kinds are as good as gone, although 99.5 % of all samples are of kinds that
    exist. Coverage is counted by mode and not by sample.""",
    rtol=1e-3,
)


# ---- q3: change of variables -----------------------------------------------------------------------------------------


def log_prob(x, a, b):
    u = torch.exp(a) * x + b
    return -0.5 * u**2 - 0.5 * math.log(2 * math.pi) + a


def _log_prob(log_det):
    """`log_prob` with another log-determinant, as a function of a."""
    return lambda x, a, b: log_prob(x, a, b) - a + log_det(a)


LINE = torch.linspace(-2, 2, 5)
FINE = torch.linspace(-8, 8, 2001)  # for u: 8 standard deviations to either side
A, NONE = torch.tensor(0.7), torch.tensor(0.0)


def _integral(f, a):
    """Integral of exp f(x, a, 0) over the x that f sends to FINE."""
    x = FINE * torch.exp(-a)
    return float(torch.trapezoid(f(x, a, NONE).exp(), x))


q3 = function(
    r"""A flow with one layer in one dimension: $u = f(x) = e^{a} x + b$, $u \sim \mathcal N(0, 1)$.
    Write `log_prob(x, a, b)`: $\log p(x)$ for points x (B,), with tensors a and b.""",
    solution=log_prob,
    tests=[
        case("no stretching", (LINE, NONE, NONE), "At a = b = 0 it is the standard normal: -x^2/2 - log(2 pi)/2."),
        case(
            "the shift",
            (LINE, NONE, torch.tensor(1.0)),
            "The data go through f before the normal is asked: u = e^a x + b. Have you used the inverse of f?",
        ),
        prop(
            "integrates to one",
            lambda f: all(abs(_integral(f, a) - 1) < 1e-3 for a in (A, -A)),
            """Your density does not integrate to one at a = 0.7 and at a = -0.7. The log-determinant is log |df/dx| =
            log e^a = a, with its own sign: where f stretches, the density of x is higher.""",
        ),
        case("stretched and shifted", (LINE, A, torch.tensor(-0.5)), "Check u = e^a x + b and the log-determinant a."),
    ],
    mistakes=[
        mistake(_log_prob(lambda a: 0), "integrates to one", "no log-determinant"),
        mistake(_log_prob(lambda a: -a), "integrates to one", "the sign of the log-determinant"),
        mistake(_log_prob(torch.exp), "no stretching", "the determinant, not its log"),
        mistake(lambda x, a, b: log_prob(x - b, -a, 0 * b), "the shift", "the inverse of f"),
        mistake(_log_prob(lambda a: 0.5 * LOG_2PI + a), "no stretching", "the normal's constant"),
        mistake(lambda x, a, b: log_prob(x, a, b) if float(b) == 0 else log_prob(x, NONE, b), "stretched and shifted"),
        mistake(_log_prob(abs), "integrates to one", "never negative"),
        mistake(_log_prob(torch.relu), "integrates to one", "only where it stretches"),
        mistake(_log_prob(lambda a: a**2), "integrates to one", "squared"),
        mistake(lambda x, a, b: log_prob(x + b, a, 0 * b), "stretched and shifted", "shifted before it is stretched"),
        mistake(lambda x, a, b: log_prob(x, a, b).exp(), "no stretching", "no logarithm"),
        mistake(lambda x, a, b: log_prob(x, a, b).sum(), "shape", "one number for all points"),
        mistake(lambda x, a, b: log_prob(x, torch.log(1 + a), b), "stretched and shifted", "1 + a for e^a"),
    ],
    also_right=[
        lambda x, a, b: Normal(0.0, 1.0).log_prob(a.exp() * x + b) + a,
        lambda x, a, b: torch.log(
            torch.exp(a) * torch.exp(-((torch.exp(a) * x + b) ** 2) / 2) / math.sqrt(2 * math.pi)
        ),
        lambda x, a, b: Normal(-b * torch.exp(-a), torch.exp(-a)).log_prob(x),
        lambda x, a, b: [-((math.exp(a) * float(at) + float(b)) ** 2) / 2 - LOG_2PI / 2 + float(a) for at in x],
    ],
    hints=[
        "log p(x) = log N(f(x); 0, 1) + log |f'(x)|.",
        "f'(x) = e^a, so its logarithm is a.",
        "Test yourself: the density must integrate to one over x.",
    ],
    explanation="""p(x) is a normal of mean -b e^-a and standard deviation e^-a. A flow that contracts data towards the
    noise (a < 0) has a wide density of x; the log-determinant keeps the total at one.""",
)


# ---- q4, q5, q6: what each can tell ----------------------------------------------------------------------------------

IMPLICIT, BOUND, EXPLICIT = np.arange(3)


def kind(family):
    return {
        "VAE": BOUND,
        "GAN": IMPLICIT,
        "normalising flow": EXPLICIT,
        "autoregressive model": EXPLICIT,
        "kernel density estimate": EXPLICIT,
        "diffusion, as a chain of random steps": BOUND,
        "diffusion, by its probability-flow ODE": EXPLICIT,
        "generator trained on the energy distance": IMPLICIT,
    }[family]


def _kind(**changed):
    """`kind` with another answer for one family, named by its initial letters."""
    changed = {_INITIALS[initials]: answer for initials, answer in changed.items()}
    return lambda family: changed.get(family, kind(family))


_INITIALS = {
    "vae": "VAE",
    "gan": "GAN",
    "flow": "normalising flow",
    "auto": "autoregressive model",
    "kde": "kernel density estimate",
    "chain": "diffusion, as a chain of random steps",
    "ode": "diffusion, by its probability-flow ODE",
    "energy": "generator trained on the energy distance",
}

q4 = function(
    """Eight families. For a given point x, which of them gives log p(x) itself, exactly or to the accuracy of a solver
    (EXPLICIT, 2)? Which gives a lower bound of it alone (BOUND, 1)? Which can only be sampled (IMPLICIT, 0)? Fill in
    the table of `kind(family)`. The images have 64 x 64 pixels, and the code of the VAE has 32 numbers.""",
    solution=kind,
    tests=[
        case(
            "GAN", ("GAN",), "A GAN's generator only makes samples; the density of what it makes is never written down."
        ),
        case(
            "VAE",
            ("VAE",),
            """A VAE gives a lower bound. The integral over the code was possible here on a grid of 400 x 400; with 32
            numbers the grid would need 400^32 points.""",
        ),
        case("normalising flow", ("normalising flow",), "The flow's change of variables is exact."),
        case(
            "autoregressive model",
            ("autoregressive model",),
            "log p(x) is the sum of log p(x_i | all before i), each given by the network.",
        ),
        case(
            "kernel density estimate",
            ("kernel density estimate",),
            "A kernel density estimate is a formula: the log of a mean of Gaussians. Being simple is no hindrance.",
        ),
        case(
            "the chain",
            ("diffusion, as a chain of random steps",),
            """Read as a chain of random steps, a diffusion model is a VAE with many layers: the integral over all paths
            to x cannot be done, and the ELBO is a bound (notebook 02).""",
        ),
        case(
            "the ODE",
            ("diffusion, by its probability-flow ODE",),
            """The differential equation is a flow of infinitely many thin layers: exact up to the solver's error, which
            the notebook measured.""",
        ),
        case(
            "the energy distance",
            ("generator trained on the energy distance",),
            """What a model is trained on does not give it a density. The energy distance compares samples with samples;
            the generator can be drawn from, and no more.""",
        ),
    ],
    mistakes=[
        mistake(_kind(gan=BOUND), "GAN"),
        mistake(lambda family: EXPLICIT, "GAN", "all explicit"),
        mistake(_kind(vae=EXPLICIT), "VAE"),
        mistake(_kind(vae=IMPLICIT), "VAE"),
        mistake(_kind(flow=BOUND), "normalising flow"),
        mistake(_kind(auto=BOUND), "autoregressive model"),
        mistake(_kind(kde=IMPLICIT), "kernel density estimate"),
        mistake(_kind(chain=EXPLICIT), "the chain"),
        mistake(_kind(chain=IMPLICIT), "the chain"),
        mistake(_kind(ode=BOUND), "the ODE"),
        mistake(_kind(energy=EXPLICIT), "the energy distance"),
        mistake(_kind(energy=BOUND), "the energy distance"),
    ],
    also_right=[
        lambda family: 0 if "GAN" in family or "energy" in family else 1 if "VAE" in family or "chain" in family else 2,
        lambda family: float(kind(family)),
    ],
    hints=[
        "Implicit models only sample. Which two here are implicit?",
        "Which of them had a gap to its own log p(x)? The chain of a diffusion model is of the same kind.",
    ],
    explanation="""Explicit: flow, autoregressive, kernel density, and diffusion by its ODE, to the accuracy of a
    solver. Bound: VAE, and diffusion as a chain. Implicit, only samples: GAN, and any generator that is trained on
    samples alone. One network can be of two kinds: diffusion is, by what one computes with it.""",
)

q5 = choice(
    """Two papers on the same data. Paper A: a VAE, 'NLL at most 1.65 nats', by the ELBO.
    Paper B: a flow, NLL 1.40 nats, exact. The entropy is not known. What follows?""",
    {
        "a": "The flow's density is better: 1.40 is below 1.65.",
        "b": "The VAE's density is better, since its true NLL is below 1.65.",
        "c": "Nothing about which density is better: the VAE's NLL is somewhere at or below 1.65, perhaps below 1.40.",
        "d": "The flow's samples look better.",
    },
    answer="c",
    feedback={
        "a": """1.65 is an upper bound of the VAE's NLL. In the notebook the bound gave away 0.06 nats on points
        in the plane; how much it gives away here nobody has said, and more than 0.25 would turn the order.""",
        "b": "Below 1.65 does not mean below 1.40. The gap can be small.",
        "d": "NLL says little about single samples: a model that is 99 % noise loses only 4.6 nats.",
    },
    hints=["On which side of the number does the VAE's true NLL lie?", "Could an importance-weighted bound settle it?"],
    explanation="""A bound and an exact value can be compared in one direction only: had the VAE's bound been 1.30, its
    density would be better for certain. With many draws K the bound tightens and may settle it.""",
)

q6 = choice(
    """You want synthetic images to train a detector of a disease that one patient in fifty has. A GAN's samples have an
    energy distance to held-out data at the floor of real against real. Which check do you still need most?""",
    {
        "a": "none: the distance is at its floor",
        "b": "a count of the diseased among the samples, against their share in the data",
        "c": "the discriminator's loss at the end of training",
        "d": "the GAN's likelihood on held-out patients",
    },
    answer="b",
    feedback={
        "a": "The truth without its rare mode was at the floor too. What happened to the 2 %?",
        "c": "That loss says how the game stands and not what G makes. It stays unremarkable while modes go missing.",
        "d": "A GAN has no likelihood. That is just why its missing modes go unnoticed.",
    },
    hints=["Look at the row 'truth without rare' of the table."],
    explanation="""A distance over all samples weighs a mode by its share.
    What matters and is rare has to be counted by itself.""",
)

summary = Exercises(vars()).summary
