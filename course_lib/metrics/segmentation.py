"""Measures of masks, of distributions of masks, and of probabilities of pixels.

Masks are tensors (..., H, W) of 0 and 1 (or bool). Label maps, probabilities and masks in [-1, 1] raise ValueError: see
:func:`course_lib.metrics.checks.masks`.
"""

import torch

from course_lib.arguments import alike, whole
from course_lib.metrics import checks


def iou(a, b):
    """Intersection over union of masks (..., H, W), broadcast against each other: (...). Two empty masks score 1."""
    a, b = checks.masks(a, "a"), checks.masks(b, "b")
    union = (a | b).flatten(-2).sum(-1)
    return torch.where(union > 0, (a & b).flatten(-2).sum(-1) / union.clamp(min=1), 1.0)


def dice(a, b):
    """Dice overlap 2 |a & b| / (|a| + |b|) of masks (..., H, W), broadcast against each other: (...). Two empty masks
    score 1."""
    a, b = checks.masks(a, "a"), checks.masks(b, "b")
    both = (a & b).flatten(-2).sum(-1)
    sizes = a.flatten(-2).sum(-1) + b.flatten(-2).sum(-1)
    return torch.where(sizes > 0, 2 * both / sizes.clamp(min=1), 1.0)


def is_empty(masks):
    """Which of masks (..., H, W) have no pixel: float32 (...), 1 or 0, so that means are shares."""
    return (~checks.masks(masks, "masks").flatten(-2).any(-1)).float()


def label_counts(found, truth):
    """Pixels of anterior and posterior that are in both maps (N, H, W), in the found, in the true: int (N, 2, 3)."""
    pairs = [(found == k, truth == k) for k in (1, 2)]
    return torch.stack([torch.stack([(a & b), a, b], 1).flatten(2).sum(2) for a, b in pairs], 1)


def volume_dice(counted, volume):
    """Dice of anterior and posterior in each volume, (V, 2), from the counts (N, 2, 3) of its slices; volume (N,). NaN
    where a label is neither found nor true in a volume."""
    counted = counted.float()
    total = counted.new_zeros(int(volume.max()) + 1, 2, 3).index_add_(0, volume.to(counted.device).long(), counted)
    return 2 * total[..., 0] / (total[..., 1] + total[..., 2])


def expected_dice(mask, ratings, chances):
    """Dice of one mask (..., H, W) with ratings (R, ..., H, W), the mean by their chances (R,): (...)."""
    mask, ratings = checks.masks(mask, "mask"), checks.masks(ratings, "ratings")
    alike(mask=mask, **{"each rating": ratings[0]})
    scores = torch.stack([dice(mask, rating) for rating in ratings])
    return torch.tensordot(checks.chances(chances, len(ratings)).to(scores), scores, 1)


def mean_distance(a, p, b, q):
    """E d(a_i, b_j) = sum_ij p_i q_j (1 - IoU(a_i, b_j)) of masks a (K, ..., H, W) with chances p (K,), and b (R, ...,
    H, W) with chances q (R,): (...)."""
    if a.ndim != b.ndim:
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise ValueError(f"masks must be of the same cases, (K, ..., H, W) and (R, ..., H, W), got {shapes}")
    rows = torch.stack([torch.tensordot(q.to(a.device), 1 - iou(b, one), 1) for one in a])  # (K, ...)
    return torch.tensordot(p.to(a.device), rows, 1)


def _equal(n):
    return torch.full((n,), 1 / n)


def generalised_energy_distance(samples, ratings, chances=None):
    """Squared generalised energy distance of two distributions of masks: 2 E d(s, r) - E d(s, s') - E d(r, r').

    d = 1 - IoU; s, s' are samples of a model, r, r' ratings. Zero if and only if both distributions are the same.
    Székely & Rizzo (J. Stat. Plan. Inference 2013); for segmentation Kohl et al. (NeurIPS 2018), eq. 5.

    samples : (K, ..., H, W), K >= 2, equally likely; the mean over pairs s, s' leaves out s with itself, so that the
        estimate is unbiased (and may fall below 0). ratings : (R, ..., H, W) with chances (R,), equal by default, taken
        as the whole distribution: pairs r, r' include r with itself. Returns (...).
    Raises ValueError for fewer than two samples.
    """
    samples, ratings = checks.masks(samples, "samples"), checks.masks(ratings, "ratings")
    within = _distance_of_two(samples, "sample")
    q = _equal(len(ratings)) if chances is None else checks.chances(chances, len(ratings))
    between = mean_distance(samples, _equal(len(samples)), ratings, q)
    return 2 * between - within - mean_distance(ratings, q, ratings, q)


def _distance_of_two(masks, what):
    """Mean distance of two different ones of masks (K, ..., H, W), the pairs of a mask with itself left out: (...)."""
    K = len(masks)
    if K < 2:
        raise ValueError(f"one {what} has no spread: give at least 2 {what}s of each case, not {K}")
    return mean_distance(masks, _equal(K), masks, _equal(K)) * K / (K - 1)  # d(s, s) = 0


def energy_terms(samples, readings):
    """E d(s, r), E d(s, s') and E d(r, r') of samples (K, ..., H, W) and readings (R, ..., H, W): (3, ...).

    d = 1 - IoU. Both are draws, s and s' as well as r and r' two different ones of them: each mean is unbiased, and so
    is the generalised energy distance 2 E d(s, r) - E d(s, s') - E d(r, r') made of them, at any K and R from 2 on,
    where the readers of a case draw independently. A perfect model scores 0 on average over cases; a single case may
    score below.

    The formula that counts pairs of a mask with itself, 2 E d - (K - 1)/K E d(s, s') - (R - 1)/R E d(r, r'), is never
    negative, and too large by E d(s, s') / K + E d(r, r') / R on average: with four readings a quarter of their
    distance, for a perfect model too, and however many samples it draws. Székely & Rizzo (J. Stat. Plan. Inference
    2013), on U- and V-statistics. Raises ValueError for fewer than two of either.
    """
    samples, readings = checks.masks(samples, "samples"), checks.masks(readings, "readings")
    within, among = _distance_of_two(samples, "sample"), _distance_of_two(readings, "reading")
    between = mean_distance(samples, _equal(len(samples)), readings, _equal(len(readings)))
    return torch.stack([between, within, among])


def exact_energy_distance(masks, p, ratings, q):
    """The same distance of two distributions that are known whole: masks (M, ..., H, W) with chances p (M,), ratings
    (R, ..., H, W) with chances q (R,): (...)."""
    masks, ratings = checks.masks(masks, "masks"), checks.masks(ratings, "ratings")
    p, q = checks.chances(p, len(masks), "p"), checks.chances(q, len(ratings), "q")
    own = mean_distance(masks, p, masks, p) + mean_distance(ratings, q, ratings, q)
    return 2 * mean_distance(masks, p, ratings, q) - own


def consensus(readings, least=2):
    """Pixels that at least so many of readings (R, ..., H, W) have: bool (..., H, W). Of four, 2 counts ties in; where
    fewer than ``least`` readers drew anything the consensus is empty. Raises ValueError for a ``least`` beyond R."""
    readings = checks.masks(readings, "readings")
    whole(least=least)
    if least > len(readings):
        raise ValueError(f"least must be 1 to {len(readings)}, the number of readings; got {least}")
    return readings.sum(0) >= least


def each_against_others(readings):
    """For each of readings (R, ...) the pair: it, (...), and the others, (R - 1, ...)."""
    return [(one, torch.cat([readings[:k], readings[k + 1 :]])) for k, one in enumerate(readings)]


def brier_score(predicted, outcomes):
    """(predicted - outcome)^2 of probabilities (...), the mean over outcomes (R, ...) of 0 and 1, float64 (...).

    Brier (Monthly Weather Review 1950). Its expectation is (predicted - p)^2 + p (1 - p): what it exceeds
    :func:`disagreement` by is an unbiased estimate of the squared error of the probability, at any R from 2 on, for
    outcomes that are independent given the case. Raises ValueError for what are no probabilities, or no outcomes.
    """
    predicted, outcomes = checks.probabilities(predicted, "predicted"), checks.masks(outcomes, "outcomes").double()
    alike(predicted=predicted, **{"each outcome": outcomes[0]})
    return (predicted - outcomes).square().mean(0)


def disagreement(outcomes):
    """k (R - k) / (R (R - 1)) of outcomes (R, ...) of 0 and 1, of which k are 1: float64 (...), an unbiased estimate of
    p (1 - p), half the chance that two of them differ. Raises ValueError for fewer than two, and for other values."""
    outcomes = checks.masks(outcomes, "outcomes").double()
    R = len(outcomes)
    if R < 2:
        raise ValueError(f"one outcome cannot disagree: give at least 2 outcomes of each case, not {R}")
    mean = outcomes.mean(0)
    return mean * (1 - mean) * R / (R - 1)


def nearest_rating(samples, ratings):
    """Which of the ratings (R, ..., H, W) each of the samples (K, ..., H, W) is most like, by IoU: int64 (K, ...), -1
    where it overlaps none of them. An empty sample is like an empty rating only."""
    samples, ratings = checks.masks(samples, "samples"), checks.masks(ratings, "ratings")
    alike(**{"each sample": samples[0], "each rating": ratings[0]})
    most, which = torch.stack([iou(samples, rating) for rating in ratings]).max(0)
    return torch.where(most > 0, which, -1)


def reliability(predicted, truth, bins=10):
    """Predicted probabilities against true ones, in bins of the predicted: mean predicted, mean truth and share of all
    in each bin, float64 (3, bins); an empty bin has nan and share 0.

    predicted, truth : of one shape, in [0, 1]; truth may be exact probabilities, or 0 and 1 drawn from them. Raises
    ValueError otherwise, and for none.
    """
    predicted, truth = checks.probabilities(predicted, "predicted"), checks.probabilities(truth, "truth")
    alike(predicted=predicted, truth=truth)
    if not predicted.numel():
        raise ValueError("predicted is empty: leave out cases without a pixel that counts")
    whole(bins=bins)
    predicted, truth = predicted.flatten(), truth.flatten()
    which = (predicted * bins).long().clamp(0, bins - 1)
    count = torch.bincount(which, minlength=bins)
    means = [torch.bincount(which, x, minlength=bins) / count for x in (predicted, truth)]
    return torch.stack([*means, count / len(which)])


def calibration_error(predicted, truth, bins=10):
    """Expected calibration error: sum over bins of share |mean predicted - mean truth| of :func:`reliability`.

    Naeini et al. (AAAI 2015); Guo et al. (ICML 2017), eq. 3. It depends on which pixels are counted: plain background
    is predicted well by anyone, and dilutes it.
    """
    mean_predicted, mean_truth, share = reliability(predicted, truth, bins)
    return float((share * (mean_predicted - mean_truth).abs()).nansum())
