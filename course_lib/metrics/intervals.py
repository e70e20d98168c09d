"""How sure is a number that was measured on few cases?"""

import math

import torch

from course_lib.arguments import alike, inside, shaped, whole
from course_lib.metrics import checks

BLOCKS = 10


def with_error(values):
    """Mean of values (N,) and its standard error: two floats, which a table shows as mean ± error. Raises ValueError
    for fewer than two values, and for NaN."""
    values = checks.finite(values, "values").cpu().double()
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"expected values (N,), two or more; got shape {tuple(values.shape)}")
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def means_of(values, groups):
    """Mean of values (N,) over each of groups (N,), such as the person of each slice: float64 (G,), by rising group.

    What belongs to one person is no independent case: :func:`bootstrap` of these means draws whole persons, each of
    whom counts alike, however many slices there are (cluster bootstrap; Field & Welsh, J. R. Stat. Soc. B 2007). Raises
    ValueError for values that are NaN, and for groups of another shape.
    """
    values = checks.finite(values, "values").double()
    groups = torch.as_tensor(groups, device=values.device)
    alike(values=values, groups=groups)
    _, which, count = groups.unique(return_inverse=True, return_counts=True)
    return torch.bincount(which, values) / count


def jackknife(statistic, features, blocks=BLOCKS, turn=1):
    """A statistic of features (N, d), such as a distance, and its standard error from leaving out one block in ten.

    Block b holds the images b, b + 10, ...; where ``turn`` classes take turns, it holds whole turns, so that each set
    that is left has as many of each class. SE^2 = (g - 1)/g sum of squared deviations (Efron & Stein, Annals of
    Statistics 1981). For distances of sets it is to be preferred to the bootstrap, whose sets hold images twice. Raises
    ValueError where features do not fill each block.
    """
    if blocks < 2 or turn < 1 or len(features) < blocks * turn:
        raise ValueError(
            f"{len(features)} features do not fill {blocks} blocks of {turn}: take at least {max(2, blocks) * turn}, "
            "or fewer blocks, but two"
        )
    block = torch.arange(len(features)) // turn % blocks
    left_out = torch.tensor([statistic(features[block != b]) for b in range(blocks)], dtype=torch.float64)
    return statistic(features), float(((blocks - 1) * left_out.var(unbiased=False)).sqrt())


def bootstrap(values, group=1, level=0.95, repeats=2000, seed=0):
    """Mean of values (N,), and the ends of its percentile interval: three floats.

    Groups of ``group`` neighbours are drawn together, with replacement: where neighbours are alike, as slices of one
    scan, single cases would pretend to know more than they do (block bootstrap, Künsch, Annals of Statistics 1989).
    Where ``group`` names the group of each value, (N,), such as its person, these are drawn; unlike with
    :func:`means_of` each value counts alike, and so a group by its size.
    To compare two methods on the same cases pass the differences of the cases: paired. Raises ValueError for fewer
    than two groups, for values that are NaN, and for a level that is not between 0 and 1.
    """
    values = checks.finite(values, "values").cpu().double()
    inside(0, 1, level=level)
    whole(repeats=repeats)
    parts = _groups(values, group)
    if values.ndim != 1 or len(parts) < 2:
        raise ValueError(f"expected values (N,) in two groups or more; got shape {tuple(values.shape)}, group {group}")
    sums = torch.stack([part.sum() for part in parts])
    sizes = torch.tensor([float(len(part)) for part in parts], dtype=torch.float64)
    drawn = torch.randint(len(parts), (repeats, len(parts)), generator=torch.Generator().manual_seed(seed))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = torch.quantile(means, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return float(values.mean()), low, high


def _groups(values, group):
    """Values (N,) in groups of so many neighbours, or by the group (N,) of each: a sequence of tensors."""
    group = torch.as_tensor(group, device=values.device)
    if group.ndim == 0:
        whole(group=group.item())
        return values.split(group.item())
    alike(values=values, group=group)
    return [values[group == one] for one in group.unique()]


def bootstrap_auroc(positives, negatives, level=0.95, repeats=2000, seed=0):
    """AUROC of the scores of positive cases (P,) against those of negative ones (N,), ties counting half, and the ends
    of its percentile interval: three floats. Cases of either kind are drawn with replacement, each kind for itself.
    Raises ValueError for a kind without a case, for scores that are NaN, and for a level that is not between 0 and 1.
    """
    scores = {"positives": checks.finite(positives, "positives"), "negatives": checks.finite(negatives, "negatives")}
    inside(0, 1, level=level)
    whole(repeats=repeats)
    for name, values in scores.items():
        shaped("n", **{name: values})
        if not len(values):
            raise ValueError(f"{name} are empty: an AUROC compares two kinds of cases, give one of each at least")
    high, low = (values.cpu().double() for values in scores.values())
    wins = (torch.sign(high[:, None] - low) + 1) / 2  # (P, N): 1, or 1/2 for a tie
    generator = torch.Generator().manual_seed(seed)
    share = []  # of the draws that each case has: (repeats, P) and (repeats, N)
    for n in wins.shape:
        drawn = torch.randint(n, (repeats, n), generator=generator)
        count = torch.zeros(repeats, n, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(repeats, n).double())
        share.append(count / n)
    areas = ((share[0] @ wins) * share[1]).sum(1)
    ends = torch.quantile(areas, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64))
    return float(wins.mean()), *ends.tolist()


def conformal_quantile(scores, level=0.9):
    """The ceil((n + 1) level)-th smallest of the calibration scores (n,), the bound of split conformal prediction.

    A new score that is exchangeable with the n lies at or below it with probability at least ``level``, and at most
    level + 1 / (n + 1) where no two scores are equal, for every distribution: its rank among the n + 1 is uniform. The
    probability is over both, the calibration cases and the new one; it says nothing of a group of cases, nor of any
    that are not exchangeable with these (Angelopoulos & Bates, Foundations and Trends in Machine Learning, 2023).

    inf where n is too small for the level, n < level / (1 - level): then only an infinite bound keeps the promise.
    Raises ValueError for scores that are NaN, and for a level that is not between 0 and 1.
    """
    scores = checks.finite(scores, "scores").cpu().double()
    shaped("n", scores=scores)
    inside(0, 1, level=level)
    rank = math.ceil((len(scores) + 1) * float(level) - 1e-9)
    return float(scores.sort().values[rank - 1]) if rank <= len(scores) else math.inf
