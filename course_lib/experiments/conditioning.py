"""The record ``06_conditioning``: what replacement and RePaint draw into the holes of 32 test subjects, twice each.

Of each image the pixels of the hole are kept, as bytes; the others are the subject's own. It takes two minutes.
"""

import functools

import torch

from course_lib import operators, pretrained, runtime
from course_lib.datasets import BRAIN_SIZE, synthetic_brains
from course_lib.denoisers import FunctionDenoiser
from course_lib.experiments.record import as_bytes, rounded
from course_lib.experiments.study import Study
from course_lib.images import to_tensor
from course_lib.inverse import repaint_times, replacement
from course_lib.metrics.images import mean_inside
from course_lib.samplers import sample
from course_lib.schedules import uniform_times

SUBJECTS = 32
FILLINGS = {"replacement": uniform_times(48), "RePaint": repaint_times(uniform_times(12), rounds=4)}  # 48 evaluations
SEEDS = (1, 11)


@functools.cache
def cases():
    """Test subjects (SUBJECTS, 1, 96, 96) in [-1, 1], and the mask that takes an ellipse of 20 x 14 pixels from each,
    its centre anywhere in the brain."""
    people, generator = synthetic_brains("test", SUBJECTS), runtime.seeded(61)
    ellipses = []
    for labels in people.labels:
        brain = torch.tensor(labels > 0).nonzero()
        row, column = brain[torch.randint(len(brain), (), generator=generator)]
        ellipses.append(operators.ellipse(BRAIN_SIZE, row, column, height=20, width=14))
    return to_tensor(people.images), operators.Mask(torch.stack(ellipses)[:, None])


def fill(filling, seed, asked=SUBJECTS):
    """The first ``asked`` subjects with their holes filled, (asked, 1, 96, 96) in [-1, 1].

    The network is asked for these alone, and the noise is drawn for all of them: a seed means the same images whatever
    their number, up to the rounding of the network.
    """
    truth, mask = cases()
    prior = pretrained.load_denoiser("brain")

    def of_first(x_t, t):
        return torch.cat([prior(x_t[:asked], t), torch.zeros_like(x_t[asked:])])

    noise = torch.randn(truth.shape, generator=runtime.seeded(seed))
    step, denoiser = replacement(mask, truth), FunctionDenoiser(of_first, prior.schedule)
    return sample(denoiser, noise, FILLINGS[filling], step, runtime.seeded(seed + 1))[:asked].clamp(-1, 1)


def measure(filling, seed):
    """A row: each subject's root mean squared error in the hole; and the pixels of all holes, subject by subject."""
    truth, mask = cases()
    hole, x = mask.known == 0, fill(filling, seed)
    error = mean_inside((x - truth).square(), hole).sqrt()
    return {"error_in_hole": rounded(error)}, {f"{filling}/{seed}": as_bytes(x[hole])}


def plan(record=None):
    """The rows: each filling with each seed."""
    return [{"filling": filling, "seed": seed} for filling in FILLINGS for seed in SEEDS]


def begin():
    """What stands above the rows."""
    return {"subjects": SUBJECTS, "precision": runtime.precision_name()}, {}


STUDY = Study("06_conditioning", plan, measure, begin, ("brain",))
