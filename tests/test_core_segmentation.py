"""Masks: overlap, energy distance, and the raters whose distribution is known."""

import numpy as np
import pytest
import torch

from course_lib.metrics.segmentation import generalised_energy_distance, iou
from data_fetch import rated_lesions


def square(side, size=12):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[:side, :side] = True
    return mask


def test_iou_of_squares_is_the_ratio_of_their_areas():
    found = iou(torch.stack([square(2), square(3), square(0)]), torch.stack([square(4), square(3), square(0)]))
    torch.testing.assert_close(found, torch.tensor([4 / 16, 1, 1]), rtol=0, atol=1e-7)


def test_energy_distance_against_sums_over_all_pairs():
    rng = np.random.default_rng(0)
    samples, ratings, chances = rng.random((5, 8, 8)) > 0.5, rng.random((3, 8, 8)) > 0.4, np.array([0.2, 0.3, 0.5])

    def d(a, b):
        return 1 - (a & b).sum() / (a | b).sum()

    between = sum(c * d(s, r) for c, r in zip(chances, ratings) for s in samples) / 5
    within = sum(d(samples[j], samples[k]) for j in range(5) for k in range(5) if j != k) / 20
    raters = sum(a * b * d(r, q) for a, r in zip(chances, ratings) for b, q in zip(chances, ratings))
    found = generalised_energy_distance(samples, ratings, chances)
    assert float(found) == pytest.approx(2 * between - within - raters, abs=1e-6)


def test_energy_distance_of_the_raters_themselves_is_zero_on_average():
    ratings, chances = torch.stack([square(k) for k in (0, 3, 5, 8)]), torch.tensor([0.2, 0.2, 0.35, 0.25])
    draws = torch.multinomial(chances, 4 * 4000, True, generator=torch.Generator().manual_seed(0)).reshape(4, 4000)
    found = generalised_energy_distance(ratings[draws], ratings[:, None].expand(-1, 4000, -1, -1), chances)
    assert abs(found.mean()) < 4 * found.std() / 4000**0.5
    constant = generalised_energy_distance(ratings[[2, 2]], ratings, chances)
    assert constant > 0.3, "always the outline is not the distribution"


def test_one_sample_is_too_few():
    with pytest.raises(ValueError, match="at least 2 samples"):
        generalised_energy_distance(square(3)[None], square(3)[None])


def test_raters_nest_and_their_edges_are_where_they_should_be():
    disc = (np.hypot(*np.mgrid[-16:16, -16:16]) < 8)[None]
    none, core, outline, generous = rated_lesions.ratings(disc)[0].astype(bool)
    assert not none.any() and (core <= outline).all() and (outline <= generous).all() and (outline == disc[0]).all()
    # by another way: a pixel's depth is its distance to the nearest pixel on the other side of the edge
    inside, outside = np.argwhere(disc[0]), np.argwhere(~disc[0])
    apart = np.linalg.norm(inside[:, None] - outside[None], axis=2)
    assert core.sum() == (apart.min(1) > 1).sum() and generous.sum() - outline.sum() == (apart.min(0) <= 2).sum()


def test_rated_lesions_are_whole_and_the_same_each_time():
    rated = rated_lesions.load("test", 6)
    assert rated.images.shape == (6, 64, 64) and rated.ratings.shape == (6, 4, 64, 64)
    assert rated.families == ("hyper", "hypo", "mass") * 2 and np.abs(rated.images).max() <= 1
    assert (rated.ratings[:, 1].sum((1, 2)) > 0).all(), "every lesion has a core"
    edge = rated.ratings[:, 3].copy()
    edge[:, 2:-2, 2:-2] = 0
    assert not edge.any(), "no mask is cut off"
    np.testing.assert_array_equal(rated.ratings, rated_lesions.load("test", 6).ratings)


def test_raters_are_drawn_by_their_chances():
    masks = np.zeros((1, 32, 32), bool)
    masks[0, 8:20, 8:20] = True
    many = rated_lesions.RatedLesions(
        np.zeros((8000, 32, 32), np.float32), np.repeat(rated_lesions.ratings(masks), 8000, 0), np.arange(8000), ()
    )
    areas = rated_lesions.draw(many, np.random.default_rng(0)).sum((1, 2))
    found = [(areas == area).mean() for area in rated_lesions.ratings(masks)[0].sum((1, 2))]
    np.testing.assert_allclose(found, rated_lesions.CHANCES, atol=0.02)  # four standard errors
