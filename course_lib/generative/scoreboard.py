"""How near the samples of a generative model are to data of known density: measures, and a table with a row a model."""

import time

import torch

from course_lib import arguments
from course_lib.arguments import alike, positive, shaped
from course_lib.generative.models import RARE, check_points


def _one_dimension(a, b, names):
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{names} must be points of one dimension d, got d = {a.shape[1]} and {b.shape[1]}")


def mode_shares(samples, data, reach=3.0):
    """Share of the samples within `reach` standard deviations of each of the K means, (K,): a real point of a mode lies
    there with probability 1 - exp(-reach^2 / 2), 98.9 % for 3."""
    check_points(samples, "samples", least=1)
    positive(reach=reach)
    _one_dimension(samples, data.means, "samples and the data")
    distance = torch.cdist(samples, data.means)  # (N, K)
    return (distance < reach * data.variances.sqrt()).float().mean(0)


def modes_hit(shares, weights, least=0.25):
    """How many modes have at least the part `least` of the share that is theirs; shares and weights (K,)."""
    alike(shares=shares, weights=weights)
    return int((shares >= least * weights).sum())


def spread_in_mode(samples, data, k=RARE, reach=3.0):
    """Standard deviations along and across the ring of the samples within `reach` of the k-th mean: (float, float).

    Real points have one width in both directions; a bridge between two modes that passes here is long and thin. Raises
    ValueError where fewer than two are there.
    """
    mean = data.means[k]
    near = torch.cdist(samples, mean[None])[:, 0] < reach * data.variances.sqrt()[k]
    if near.sum() < 2:
        raise ValueError(f"{int(near.sum())} of the samples lie in mode {k}: a spread takes two or more; draw more")
    outward = mean / mean.norm()
    along = torch.stack([-outward[1], outward[0]])
    from_mean = samples[near] - mean
    return float((from_mean @ along).std()), float((from_mean @ outward).std())


def energy_distance(a, b):
    """Energy distance (Székely & Rizzo, J. Stat. Planning Inference 2013): 2 E|a - b| - E|a - a'| - E|b - b'|, >= 0.

    a (N, d), b (M, d). Unbiased means over pairs of different points, so that two samples of one distribution score
    about zero, above or below: quote that floor.
    """
    check_points(a, "a")
    check_points(b, "b")
    _one_dimension(a, b, "a and b")
    within = [torch.cdist(c, c).sum() / (len(c) * (len(c) - 1)) for c in (a.double(), b.double())]
    return float(2 * torch.cdist(a.double(), b.double()).mean() - within[0] - within[1])


def sharpness(images):
    """Mean absolute difference of neighbouring pixels in images (N, 1, H, W): falls when edges are smoothed away."""
    shaped("N, 1, H, W", images=images)
    arguments.images(images=images)
    return float((images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()) / 2)


class Scoreboard:
    """The measures of every model on one data set, a row each: `rows` {name: {measure: number}}, `samples` {name: x}.

    data : the mixture, with its density. test (N, d): held-out points. low : a log-density that 99 of 100 real points
    exceed; samples below it are off the data.
    """

    def __init__(self, data, test, low):
        self.data, self.test, self.low, self.rows, self.samples = data, test, low, {}, {}

    @torch.no_grad()
    def mark(self, name, draw, nll=None, kind="none", seconds=0.0, evaluations=0, n=2000, seed=5):
        """Measure n samples of draw(n, generator) and keep the row; nll, its kind ("exact", "bound"), the seconds of
        training and the evaluations for a sample are the caller's. Returns the row in words."""
        start = time.perf_counter()
        x = self.samples[name] = draw(n, torch.Generator().manual_seed(seed))
        spent = (time.perf_counter() - start) / n * 1000
        shares = mode_shares(x, self.data)
        row = self.rows[name] = {
            "nll": nll,
            "kind": kind,
            "hit": modes_hit(shares, self.data.weights),
            "rare": float(shares[RARE]),
            "off": float((self.data.log_density(x, 0.0) < self.low).float().mean()),
            "energy": energy_distance(x, self.test[:n]),
            "seconds": seconds,
            "draw": spent,
            "evaluations": evaluations,
        }
        return (
            f"{name}: modes hit {row['hit']} of {len(shares)}, rare mode {100 * row['rare']:.1f} %, "
            f"off the data {100 * row['off']:.1f} %"
        )

    def table(self):
        """The rows as {model: {head: value}}, for `viz.tables`; shares as shares, seconds for 1000 samples."""
        heads = {
            "NLL": "nll",
            "likelihood": "kind",
            "modes": "hit",
            "rare": "rare",
            "off": "off",
            "energy d.": "energy",
            "train s": "seconds",
            "s per 1000": "draw",
            "NFE": "evaluations",
        }
        return {name: {head: row[key] for head, key in heads.items()} for name, row in self.rows.items()}
