"""How well do scores find what is rare? Average precision, AUROC, Dice over thresholds, false alarms.

Scores rise with suspicion. Pixels are flattened; the truth is 1 on the lesion, 0 elsewhere. Scores that are NaN, and
truths of other values, raise ValueError.
"""

import numpy as np

from course_lib.arguments import alike
from course_lib.metrics import checks


def _checked(scores, truth):
    """Scores and truth as arrays, the scores floats, the truth bool."""
    scores = np.ascontiguousarray(scores)  # torch takes no reversed views
    if scores.dtype.kind != "f":
        scores = scores.astype(float)  # minus a whole number without a sign is a large one
    return checks.finite(scores, "scores").numpy(), _mask(truth, "truth")


def _mask(values, name):
    """A mask as a bool array."""
    return checks.masks(np.ascontiguousarray(values), name).numpy()


def _descending(scores, truth):
    """Numbers of true and of all positives at each distinct score, from the highest down: two arrays (K,)."""
    scores, truth = (np.squeeze(values) for values in _checked(scores, truth))
    if scores.shape != truth.shape or not 0 < truth.sum() < truth.size:
        raise ValueError(f"expected a score for each truth, and both kinds of truth; got {scores.shape}, {truth.sum()}")
    scores, truth = scores.ravel(), truth.ravel()
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # ties are taken together
    return np.cumsum(truth[order])[last], np.flatnonzero(last) + 1


def average_precision(scores, truth):
    """Area under the precision-recall curve (AUPRC) as average precision: sum over k of (R_k - R_(k-1)) P_k.

    Its chance level, what scores without information have on the average, is the prevalence. Davis & Goadrich (ICML
    2006) on why it is the sum and no straight lines. Raises ValueError where truth is all of one kind.
    """
    true, positives = _descending(scores, truth)
    return float(np.sum(np.diff(true, prepend=0) / true[-1] * true / positives))


def auroc(scores, truth):
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half. Chance level 0.5."""
    true, positives = _descending(scores, truth)
    false = positives - true
    return float(np.trapezoid(np.r_[0, true], np.r_[0, false]) / (true[-1] * false[-1]))  # from (0, 0) on


def in_region(statistic, scores, truth, inside):
    """statistic(scores, truth) over the region of each image, such as :func:`average_precision`: a list of N. All
    arrays (N, H, W), inside a mask. Raises ValueError for other shapes."""
    inside = _mask(inside, "inside")
    alike(scores=scores, truth=truth, inside=inside)
    return [statistic(s[i], m[i]) for s, m, i in zip(scores, truth, inside)]


def counts(scores, truth, thresholds):
    """Of each image of scores (N, ...): the true pixels at or above each of the thresholds (K,), and all pixels at or
    above it: two int arrays (N, K), as :func:`dice` takes them."""
    scores, truth = _checked(scores, truth)
    alike(scores=scores, truth=truth)
    scores, truth = (values.reshape(len(values), -1) for values in (scores, truth))
    thresholds = checks.finite(thresholds, "thresholds").tolist()
    above = np.stack([scores >= threshold for threshold in thresholds], 1)  # (N, K, pixels)
    return (above & truth[:, None]).sum(-1), above.sum(-1)


def dice(true, positives, size):
    """Dice overlap 2 TP / (positives + size) of counts of any shape; size is the number of true pixels. Where there are
    neither positives nor true pixels it is 0, as nothing was found; of two empty masks
    :func:`course_lib.metrics.segmentation.dice` is 1."""
    return 2 * np.asarray(true) / np.maximum(np.asarray(positives) + np.asarray(size), 1)


def _pieces(mask):
    """The connected pieces (corners touch) of a mask (H, W), numbered from 1, and the number of pixels of each."""
    from scipy.ndimage import label

    pieces, _ = label(_mask(mask, "mask"), np.ones((3, 3)))
    return pieces, np.bincount(pieces.ravel())


def false_alarms(mask, smallest=3):
    """Number of connected pieces (corners touch) of at least ``smallest`` pixels in a mask (H, W)."""
    return int((_pieces(mask)[1][1:] >= smallest).sum())


def touched(mask, lesion, smallest=3):
    """Whether a connected piece of at least ``smallest`` pixels of a mask (H, W) touches a lesion, a mask (H, W)."""
    mask, lesion = _mask(mask, "mask"), _mask(lesion, "lesion")
    alike(mask=mask, lesion=lesion)
    pieces, sizes = _pieces(mask)
    return bool((sizes[np.unique(pieces[mask & lesion])] >= smallest).any())


def findings(scores, truth, thresholds, smallest=3):
    """What an alarm at each of the thresholds (K,) finds in each image: int arrays found (N, K), lesions (N,) and false
    (N, K).

    scores, truth : (N, H, W). A lesion is a connected piece of the truth, found where a piece of at least ``smallest``
    pixels at or above the threshold touches it; such a piece that touches no lesion is a false finding. One piece may
    find several lesions: of a threshold so low that all is one piece, precision has to tell.
    """
    scores, truth = _checked(scores, truth)
    alike(scores=scores, truth=truth)
    thresholds = checks.finite(thresholds, "thresholds").tolist()
    found, false = np.zeros((2, len(scores), len(thresholds)), int)
    lesions = np.zeros(len(scores), int)
    for n, (score, mask) in enumerate(zip(scores, truth)):
        numbered, sizes = _pieces(mask)
        lesions[n] = len(sizes) - 1
        for k, threshold in enumerate(thresholds):
            pieces, sizes = _pieces(score >= threshold)
            large = sizes >= smallest
            large[0] = False  # the background
            touching = np.unique(pieces[mask])
            found[n, k] = len(np.setdiff1d(np.unique(numbered[large[pieces]]), [0]))
            false[n, k] = large.sum() - large[touching].sum()
    return found, lesions, false


def froc_point(found, lesions, false, allowed):
    """The point of the FROC curve at so many false findings an image: the highest share of all lesions that is found by
    a threshold with at most ``allowed`` of them on average, and the place of that threshold; 0.0 and None where all
    have more.

    found, lesions, false : as :func:`findings` gives them. Raises ValueError where there is no lesion.
    """
    found, lesions, false = (np.asarray(values, float) for values in (found, lesions, false))
    if not lesions.sum() > 0:
        raise ValueError("lesions must hold at least one lesion: of none no share can be found")
    quiet = np.flatnonzero(false.mean(0) <= allowed)
    if not quiet.size:
        return 0.0, None
    shares = found.sum(0) / lesions.sum()
    best = int(quiet[shares[quiet].argmax()])
    return float(shares[best]), best
