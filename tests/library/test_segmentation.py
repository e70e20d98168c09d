"""Masks: overlap, energy distance, and the raters whose distribution is known."""

import dataclasses
import itertools
import json
from types import SimpleNamespace as Namespace

import numpy as np
import pytest
import torch

from course_lib import datasets, experiments, pretrained, schedules
from course_lib.applications.segmentation import (
    draw_masks,
    draw_normal,
    from_channels,
    independent,
    labels_at,
    random_threshold,
)
from course_lib.denoisers import Denoiser
from course_lib.experiments import lidc, segmentation, trainings
from course_lib.experiments.study import run
from course_lib.metrics.segmentation import (
    brier_score,
    calibration_error,
    consensus,
    dice,
    disagreement,
    each_against_others,
    energy_terms,
    exact_energy_distance,
    expected_dice,
    generalised_energy_distance,
    iou,
    is_empty,
    label_counts,
    nearest_rating,
    reliability,
    volume_dice,
)
from course_lib.recipes import RECIPES, queue
from course_lib.training import Batches, train
from data_fetch import rated_lesions


def square(side, size=12):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[:side, :side] = True
    return mask


def test_iou_of_squares_is_the_ratio_of_their_areas():
    found = iou(torch.stack([square(2), square(3), square(0)]), torch.stack([square(4), square(3), square(0)]))
    torch.testing.assert_close(found, torch.tensor([4 / 16, 1, 1]), rtol=0, atol=1e-7)


def test_dice_is_that_of_monai_and_twice_iou_over_one_plus_iou():
    from monai.metrics import compute_dice

    a, b = torch.stack([square(2), square(5), square(0)]), torch.stack([square(4), square(5), square(0)])
    torch.testing.assert_close(dice(a, b), 2 * iou(a, b) / (1 + iou(a, b)), rtol=0, atol=1e-7)
    theirs = compute_dice(a[:2, None].float(), b[:2, None].float())[:, 0]  # two empty masks: nan there, 1 here
    torch.testing.assert_close(dice(a, b)[:2], theirs, rtol=0, atol=1e-7)
    assert dice(a, b)[2] == 1 and dice(square(0), square(3)) == 0


def test_expected_dice_by_hand():
    ratings = torch.stack([square(0), square(3)])
    assert float(expected_dice(square(3), ratings, (0.3, 0.7))) == pytest.approx(0.7)
    assert float(expected_dice(square(0), ratings, (0.3, 0.7))) == pytest.approx(0.3)


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
    with_itself = within * 20 / 25  # as a whole distribution, pairs of a mask with itself count too
    whole = exact_energy_distance(samples, np.full(5, 0.2), ratings, chances)
    assert float(whole) == pytest.approx(2 * between - with_itself - raters, abs=1e-6)


def test_exact_energy_distance_of_a_distribution_from_itself_is_zero():
    ratings, chances = torch.stack([square(k) for k in (0, 3, 5, 8)]), (0.2, 0.2, 0.35, 0.25)
    assert abs(exact_energy_distance(ratings, chances, ratings, chances)) < 1e-6
    shuffled = exact_energy_distance(ratings[[3, 0, 1, 2]], (0.25, 0.2, 0.2, 0.35), ratings, chances)
    assert abs(shuffled) < 1e-6, "the order of the masks does not matter"
    # never against always: twice the chance of the one, less that of two raters who differ
    always = exact_energy_distance(square(3)[None], (1.0,), torch.stack([square(0), square(3)]), (0.3, 0.7))
    assert float(always) == pytest.approx(2 * 0.3 - 2 * 0.3 * 0.7, abs=1e-6)


# ---- readings that are draws, four a case ----------------------------------------------------------------------------


def every_draw(masks, chances, n):
    """All ordered sets of n draws from masks with chances: masks (n, sets, H, W), and the chance of each set."""
    sets = torch.tensor(list(itertools.product(range(len(masks)), repeat=n)))
    return masks[sets.T], chances[sets].prod(1)


def test_terms_of_draws_are_unbiased_and_the_plug_in_is_not():
    """By enumeration of all 27 sets of three samples and all 81 of four readings, of two known distributions."""
    masks = torch.stack([square(0), square(3), square(4)])
    p, q = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.4, 0.5, 0.1])
    samples, of_samples = every_draw(masks, p, 3)
    readings, of_readings = every_draw(masks, q, 4)
    chance = (of_samples[:, None] * of_readings).double()
    terms = energy_terms(samples[:, :, None].expand(-1, -1, 81, -1, -1), readings[:, None].expand(-1, 27, -1, -1, -1))
    between, within, among = ((term * chance).sum() for term in terms)

    def d(one, other):  # of two distributions over the three masks
        return float(one.double() @ (1 - iou(masks[:, None], masks)).double() @ other.double())

    assert [float(x) for x in (between, within, among)] == pytest.approx([d(p, q), d(p, p), d(q, q)], abs=1e-6)
    exact = float(exact_energy_distance(masks, p, masks, q))
    assert 2 * between - within - among == pytest.approx(exact, abs=1e-6)
    equal = torch.full((3,), 1 / 3), torch.full((4,), 1 / 4)
    plug_in = [exact_energy_distance(samples[:, [k]], equal[0], readings, equal[1]) for k in range(27)]
    assert min(float(value.min()) for value in plug_in) > -1e-6, "it is never negative"
    mean = float((torch.stack(plug_in) * chance).sum())
    assert mean == pytest.approx(exact + d(p, p) / 3 + d(q, q) / 4, abs=1e-6)
    torch.testing.assert_close(torch.stack(plug_in), 2 * terms[0] - 2 / 3 * terms[1] - 3 / 4 * terms[2])


def test_a_reader_against_the_others_is_at_distance_zero_and_says_nothing():
    """Left out in turn, readers are at 2 D - D - D: by construction, whatever they drew. The first term is D."""
    readings = torch.rand(4, 5, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.6
    among = energy_terms(readings, readings)[1]
    terms = [energy_terms(others, torch.stack([one, one]))[:2] for one, others in each_against_others(readings)]
    between, within = torch.stack(terms).mean(0)
    torch.testing.assert_close(between, among)
    torch.testing.assert_close(within, among)


def test_terms_want_two_of_each():
    with pytest.raises(ValueError, match="at least 2 readings of each case, not 1"):
        energy_terms(square(3).expand(2, -1, -1), square(3)[None])
    with pytest.raises(ValueError, match="at least 2 samples of each case, not 1"):
        energy_terms(square(3)[None], square(3).expand(2, -1, -1))


def test_consensus_of_nested_readings_is_the_smaller_of_those_needed():
    readings = torch.stack([square(k) for k in (5, 0, 2, 4)])
    for least, side in ((1, 5), (2, 4), (3, 2), (4, 0)):
        assert torch.equal(consensus(readings, least), square(side))
    assert not consensus(torch.stack([square(5), *[square(0)] * 3])).any(), "one reader alone makes no consensus"
    with pytest.raises(ValueError, match="least must be 1 to 4"):
        consensus(readings, 5)


def test_a_mask_of_one_pixel_is_not_empty():
    masks = torch.stack([square(k) for k in (0, 1, 5, 0)])
    assert torch.equal(is_empty(masks), torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert torch.equal(is_empty(masks.view(2, 2, 12, 12).int()), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))


def test_each_reader_is_left_out_once():
    readings = torch.arange(4)
    assert [(int(one), others.tolist()) for one, others in each_against_others(readings)] == [
        (0, [1, 2, 3]),
        (1, [0, 2, 3]),
        (2, [0, 1, 3]),
        (3, [0, 1, 2]),
    ]


@pytest.mark.parametrize("R", [2, 4])
def test_brier_score_less_disagreement_is_the_squared_error_on_average(R):
    """By enumeration of all outcomes of R readers with p = 0.3."""
    p, predicted = 0.3, torch.tensor([0.0, 0.3, 0.75])
    outcomes = torch.tensor(list(itertools.product((0, 1), repeat=R))).T  # (R, 2^R)
    chance = torch.where(outcomes > 0, p, 1 - p).double().prod(0)
    assert float((disagreement(outcomes) * chance).sum()) == pytest.approx(p * (1 - p), abs=1e-7)
    score = brier_score(predicted[:, None].expand(-1, 2**R), outcomes[:, None].expand(-1, 3, -1))
    excess = ((score - disagreement(outcomes)) * chance).sum(1)
    torch.testing.assert_close(excess, (predicted.double() - p).square(), rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="at least 2 outcomes"):
        disagreement(outcomes[:1])


def test_nearest_rating():
    ratings = torch.stack([square(k) for k in (0, 3, 5, 8)])
    found = nearest_rating(torch.stack([square(k) for k in (0, 1, 3, 4, 7, 8)]), ratings)
    assert found.tolist() == [0, 1, 1, 2, 3, 3]  # 16 of 25 pixels against 9 of 16
    assert nearest_rating(square(2).roll((9, 9), (0, 1))[None], ratings) == -1, "it overlaps nobody's mask"


def test_reliability_of_bins_by_hand():
    predicted, truth = torch.tensor([0.02, 0.08, 0.55, 0.55, 1.0]), torch.tensor([0.0, 0.1, 0.5, 0.7, 0.8])
    mean_predicted, mean_truth, share = reliability(predicted, truth)
    torch.testing.assert_close(mean_predicted[[0, 5, 9]], torch.tensor([0.05, 0.55, 1.0]).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(mean_truth[[0, 5, 9]], torch.tensor([0.05, 0.6, 0.8]).double(), atol=1e-6, rtol=0)
    assert share.tolist() == pytest.approx([0.4, 0, 0, 0, 0, 0.4, 0, 0, 0, 0.2]) and mean_truth[1].isnan()
    assert calibration_error(predicted, truth) == pytest.approx(0.4 * 0.05 + 0.2 * 0.2)


def test_calibration_error_of_exact_probabilities_is_zero():
    """Exact probabilities are calibrated: the error of 0 and 1 drawn from them is chance alone."""
    p = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    drawn = (torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < p).float()
    assert calibration_error(p, p) < 1e-12 and calibration_error(p, drawn) < 0.01
    assert calibration_error((p * 0.8).clamp(max=1), p) == pytest.approx(0.1, abs=0.005)  # mean of 0.2 p


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


# ---- the record of notebook 10 ---------------------------------------------------------------------------------------


def test_packed_masks_come_back_as_they_were():
    masks = (
        torch.rand(3, 5, 7, 9, generator=torch.Generator().manual_seed(0)) > 0.8
    )  # 945 bits: no whole number of bytes
    packed = segmentation.pack(masks)
    assert packed.dtype == torch.uint8 and torch.equal(segmentation.unpack(packed, masks.shape), masks)


def test_labels_of_probabilities():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.35, 0.45], [0.9, 0.06, 0.04]]).T.reshape(1, 3, 1, 3)
    assert labels_at(p, 0.4).tolist() == [[[1, 2, 0]]]
    assert labels_at(p, 0.6).tolist() == [[[0, 2, 0]]]
    channels = torch.tensor([[1.0, -1.0], [-1.0, -1.0]]).reshape(1, 2, 1, 2)  # anterior, then background
    assert from_channels(channels).tolist() == [[[[0, 1]], [[1, 0]], [[0, 0]]]]
    unsure = torch.tensor([[-0.5, 0.2], [0.2, 0.4]]).reshape(1, 2, 1, 2)  # 0.25 and 0.6; 0.6 and 0.7, more than 1
    expected = torch.tensor([[0.15, 0.0], [0.25, 0.6], [0.6, 0.7]]).reshape(1, 3, 1, 2)
    torch.testing.assert_close(from_channels(unsure), expected)


def test_dice_of_volumes_is_that_of_all_their_slices_together():
    rng = torch.Generator().manual_seed(0)
    found, truth = (torch.randint(3, (5, 8, 8), generator=rng) for _ in range(2))
    volume = torch.tensor([0, 0, 1, 1, 1])
    scores = volume_dice(label_counts(found, truth), volume)
    for v in range(2):
        for k in (1, 2):
            a, b = (labels[volume == v].reshape(-1, 8) == k for labels in (found, truth))
            assert float(scores[v, k - 1]) == pytest.approx(float(dice(a, b)), abs=1e-6)


def test_the_threshold_is_the_one_that_scores_best():
    truth = torch.zeros(2, 4, 4, dtype=torch.long)
    truth[:, :2] = torch.tensor([1, 1, 2, 2])
    p = torch.full((2, 3, 4, 4), 0.17) + 0.2 * torch.nn.functional.one_hot(truth, 3).movedim(-1, 1)
    assert segmentation.chosen_threshold(p, truth, torch.tensor([0, 1])) == 0.4  # 0.54 inside, 0.34 outside


def test_fewer_cases_or_draws_are_the_beginning_of_more():
    class Still(Denoiser):
        schedule = schedules.Cosine()

        def __call__(self, x_t, t, y):
            return x_t.clamp(-1, 1) * y

    y = torch.ones(4, 1, 64, 64)
    many = draw_masks(Still(), y, 3, nfe=3)
    assert many.shape == (3, 4, 1, 64, 64)
    torch.testing.assert_close(draw_masks(Still(), y[:2], 2, nfe=3), many[:2, :2])
    assert not torch.equal(many[0], many[1]), "sample k comes from the noise of seed + k"
    torch.testing.assert_close(draw_masks(Still(), y, 2, nfe=3, seed=1), many[1:])


def test_baselines_are_made_of_the_masks_in_the_record(tmp_path, monkeypatch):
    """Masks that are measured anew stand in the record before what is made of them; what cannot be made is left out."""
    monkeypatch.setattr(experiments.record, "RECORDS", tmp_path)
    settings = {"samples": 1, "split": "test"}
    monkeypatch.setattr(segmentation, "PLAN", {"test": settings, "validation": settings, "more": settings})
    monkeypatch.setattr(segmentation, "CASES", {"test": 1})
    monkeypatch.setattr(segmentation, "BASELINES", {"simple": ((), 0)})
    monkeypatch.setattr(segmentation.datasets, "hippocampus_is_here", lambda: False)
    asked, masks = [], torch.ones(1, 1, 64, 64, dtype=torch.bool)
    monkeypatch.setattr(segmentation, "drawn_row", lambda name: asked.append(name) or ({}, masks))

    def made(stored):
        assert {split: kept.all() for split, kept in stored.items()} == {"test": True, "validation": True}
        return {"simple": {}, "one mask": {}}

    monkeypatch.setattr(segmentation, "baseline_rows", made)
    segmentation._baselines.cache_clear()
    run(segmentation.STUDY)
    assert asked == ["test", "validation", "more"]
    record = experiments.load("10_segmentation")
    record["rows"][1]["needs"] = {"net": "old"}
    experiments.record.path("10_segmentation").write_text(json.dumps(record))
    run(segmentation.STUDY)
    assert asked[3:] == ["validation"]
    names = [row["name"] for row in experiments.load("10_segmentation")["rows"]]
    assert names == ["test", "simple", "one mask", "more", "validation"]
    segmentation._baselines.cache_clear()


def nested(shape=(6, 8, 8)):
    """Maps of probabilities with values 0, 0.25, 0.6 and 0.8."""
    return torch.tensor([0.0, 0.25, 0.6, 0.8])[torch.randint(4, shape, generator=torch.Generator().manual_seed(0))]


def test_masks_drawn_from_probabilities():
    """Both ways draw each pixel with its probability; one threshold for all pixels gives level sets, the other not."""
    p = nested()
    for way in (independent, random_threshold):
        masks = way(p, 4000)
        assert masks.shape == (4000, 6, 8, 8) and (masks.float().mean(0) - p).abs().max() < 4 * 0.5 / 4000**0.5
        levels = torch.stack([p > cut for cut in (0, 0.25, 0.6, 0.8)])
        whole = (masks[:100, None] == levels).flatten(3).all(3).any(1)
        assert whole.all() if way is random_threshold else not whole.any()
        first, second = (masks[:, n].flatten(1).float().mean(1) for n in (0, 1))  # two images are drawn apart
        assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 4 / 4000**0.5


# ---- networks of lung nodules ----------------------------------------------------------------------------------------


@pytest.fixture
def nodules(monkeypatch):
    """Five made cases of three persons, 64 x 64: squares of four sizes, one of them empty, in place of LIDC."""
    g = torch.Generator().manual_seed(0)
    readings = torch.stack(
        [torch.stack([square(side, 64).roll((20 + n, 20), (0, 1)) for n in range(5)]) for side in (0, 9, 12, 15)]
    )
    images = (torch.rand(5, 64, 64, generator=g) * 255).byte().numpy()
    cases = images, readings.numpy(), np.array([3, 3, 8, 18, 18])
    monkeypatch.setattr(datasets, "lidc_cases", lambda split: cases)
    return cases


def drawn_from(mean, variance, factors):
    """In place of a ``StochasticSegmenter``: the same normal for every image, and a weight, as networks have."""
    net = torch.nn.Linear(1, 1)
    net.forward = lambda x: tuple(part.expand(len(x), *part.shape) for part in (mean, variance, factors))
    return net


def test_probabilities_of_a_normal_are_the_mean_of_its_sigmoids():
    g = torch.Generator().manual_seed(1)
    mean, variance, factors = (
        torch.randn(4, 4, generator=g) * 3,
        torch.rand(4, 4, generator=g),
        torch.randn(2, 4, 4, generator=g),
    )
    logits, p = draw_normal(drawn_from(mean, variance, factors), torch.zeros(1, 1, 4, 4), 20_000)
    assert logits.shape == (20_000, 1, 4, 4) and p.shape == (1, 4, 4)
    assert (logits.sigmoid().mean(0) - p).abs().max() < 4 * 0.5 / 20_000**0.5
    certain = draw_normal(drawn_from(mean, 0 * variance, 0 * factors), torch.zeros(1, 1, 4, 4), 1)[1]
    torch.testing.assert_close(certain[0], mean.sigmoid())


@pytest.mark.parametrize("name", ["lidc_masks", "lidc_unet_0", "lidc_ssn"])
def test_networks_of_nodules_train_and_are_measured(name, nodules):
    """Two steps of each on the same examples; its card says what it draws beside what the readers did."""
    small = {"lidc_masks": {"channels": (32,), "num_res_blocks": 1, "patch": 8, "concat": 1}}
    body = {"channels": (8, 8)} | ({"num_labels": 2} if "unet" in name else {"rank": 2})
    recipe = dataclasses.replace(RECIPES[name], network_args=small.get(name, body), steps=2, batch_size=2)
    images, readings, _ = nodules
    x = np.stack([255 * readings[1].astype(np.uint8), images], 1) if "masks" in name else images
    y = None if "masks" in name else readings[1].astype(np.uint8)
    *_, state = train(recipe.fresh(), Batches(x, y, batch_size=2), recipe.loss, steps=2)
    card, tensors = recipe.measure(recipe, state.ema)
    assert not tensors and card["not_outlined"] == 0.25 and card["test_persons"] == 3 and card["test_slices"] == 5
    terms = [card[f"between_{what}"] for what in ("masks", "readings")]
    assert card["energy_distance"] == pytest.approx(2 * card["mask_to_reading"] - sum(terms), abs=2e-4)
    pairs = [1.0] * 3 + [1 - 81 / 144, 1 - 81 / 225, 1 - 144 / 225]
    assert card["between_readings"] == pytest.approx(sum(pairs) / 6, abs=1e-4)
    assert recipe.licence.startswith("CC BY 3.0") and "Armato" in recipe.licence and 0 <= card["empty"] <= 1


def test_every_network_of_nodules_sees_the_same_readings(monkeypatch):
    images, masks = np.arange(8, dtype=np.uint8).repeat(4096).reshape(8, 64, 64), np.ones((8, 64, 64), np.uint8)
    monkeypatch.setattr(datasets, "lidc_readings", lambda: (images, masks))
    pairs, none = RECIPES["lidc_masks"].load_data()
    assert none is None and (pairs[:, 0] == 255).all() and (pairs[:, 1] == images).all()
    seen = {entry.images for entry in queue.QUEUE if entry.name.startswith("lidc")}
    others = [recipe for name, recipe in RECIPES.items() if name.startswith("lidc") and name != "lidc_masks"]
    assert len(seen) == 1 and len(others) == 6 and len({recipe.load_data for recipe in others}) == 1


def forget():
    """Empty what the study of nodules keeps between rows."""
    for kept in (lidc.cases, lidc.sampled, lidc.of_unets, lidc.training_readings, lidc.map_of, lidc.cut_of):
        kept.cache_clear()


@pytest.fixture
def exact_networks(monkeypatch, nodules):
    """The study on twenty made cases of ten persons, with networks that give each pixel the share of its readings."""
    images, readings, _ = nodules
    images, readings = np.tile(images, (4, 1, 1)), np.tile(readings, (1, 4, 1, 1))
    p = torch.as_tensor(readings).float().mean(0)
    monkeypatch.setattr(datasets, "lidc_cases", lambda split: (images, readings, np.repeat(np.arange(10), 2)))
    monkeypatch.setattr(datasets, "lidc", lambda split: Namespace(masks=np.moveaxis(readings, 1, 0)))
    drawn = {
        "probabilities": lambda y, unets: p.expand(len(unets), *p.shape),
        "first_answer": lambda y, denoiser: p,
        "draw_normal": lambda net, y, samples: (random_threshold(p, samples).float() - 0.5, p),
        "draw_masks": lambda denoiser, y, samples: (random_threshold(p, samples).float() - 0.5)[:, :, None],
    }
    for name, stand_in in drawn.items():
        monkeypatch.setattr(lidc, name, stand_in)
    for load in ("load", "load_denoiser"):
        monkeypatch.setattr(pretrained, load, lambda name: None)
    forget()
    yield
    forget()


def test_rows_of_nodules_by_hand(exact_networks):
    """Nested readings of areas 0, 81, 144 and 225, of ten persons with two slices each, and a model that is exact."""
    areas, rows = (0, 81, 144, 225), {}
    for key in lidc.plan():
        row, tensors = lidc.measure(**key)
        assert not tensors and all(len(v) == 10 for v in row.values() if isinstance(v, list) and len(v) > 5)
        rows[key["kind"], key["name"]] = {k: np.mean(v) if np.ndim(v) == 1 else v for k, v in row.items()}
    pairs = list(itertools.combinations(areas, 2))
    readers = rows["readers", "readers"]
    assert readers["distance"] == pytest.approx(np.mean([1 - a / b for a, b in pairs]), abs=1e-4)
    assert readers["reading_dice"] == pytest.approx(np.mean([2 * a / (a + b) for a, b in pairs]), abs=1e-4)
    of_three = [(0, 144), (81, 144), (144, 81), (225, 81)]  # the consensus of the others is the middle one of them
    others = np.mean([2 * min(a, b) / (a + b) for a, b in of_three])
    assert readers["others_dice"] == pytest.approx(others, abs=1e-4)
    assert readers["empty"] == 0.25 and readers["least_brier_of_empty"] == pytest.approx(1 * 3 / 12, abs=1e-4)
    assert readers["brier_of_empty"] == pytest.approx((1 + 3 * (1 / 3) ** 2) / 4, abs=1e-4)

    level_sets = rows["draws", "U-Net, random threshold"]
    assert level_sets["energy_distance"] == pytest.approx(
        2 * level_sets["between"] - level_sets["within"] - readers["distance"], abs=3e-4
    )
    assert level_sets["samples"] == 16 and level_sets["evaluations"] == 1
    consensus_of_four = rows["draws", "consensus of these four"]  # areas at least 2 have: 144
    assert consensus_of_four["within"] == 0 and consensus_of_four["empty"] == 0
    wanted = np.mean([1, 1 - 81 / 144, 0, 1 - 144 / 225])
    assert consensus_of_four["between"] == pytest.approx(wanted, abs=1e-4)
    blind = rows["draws", lidc.BLIND]
    assert blind["between"] > level_sets["between"]

    exact = rows["map", "U-Net"]
    assert exact["consensus_dice"] == 1 and 0.25 <= exact["threshold"] < 0.5, "p is 0.5 where two drew, and ties count"
    assert exact["calibration_error"] == 0 and exact["if_right"] > 0
    assert exact["reading_dice"] == pytest.approx(np.mean([2 * min(a, 144) / (a + 144) for a in areas]), abs=1e-4)
    with_others = np.mean([2 * min(144, b) / (144 + b) for _, b in of_three])
    assert exact["others_dice"] == pytest.approx(with_others, abs=1e-4)
    assert exact["brier"] == pytest.approx(0.75 * readers["least_brier"], rel=0.01), "it has seen these four"
    assert rows["map", "nothing"]["consensus_dice"] == 0
    for name in lidc.UNETS:  # each of them is the exact one
        alone = rows["alone", name]
        assert alone["threshold"] == exact["threshold"] and alone["others_dice"] == exact["others_dice"]
        assert alone["energy_distance"] == level_sets["energy_distance"]
        assert alone["calibration_error"] == {"all": 0, "middle": 0, "near": 0}


def test_pixels_near_a_nodule():
    """Of two readings of one pixel each: what lies within six rows and columns of either, cut off at the border."""
    readings = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    readings[0, 0, 30, 40] = readings[1, 0, 0, 0] = True
    wanted = torch.zeros(1, 64, 64, dtype=torch.bool)
    wanted[0, 24:37, 34:47] = wanted[0, :7, :7] = True
    assert torch.equal(lidc.near(readings), wanted)


def test_stored_unet_alone_is_that_of_the_tables():
    stored = {(row["kind"], row["name"]): row for row in experiments.load("10_lidc")["rows"]}
    alone, drawn, mapped = (
        stored[key] for key in (("alone", lidc.UNETS[0]), ("draws", "U-Net, random threshold"), ("map", "U-Net"))
    )
    assert alone["energy_distance"] == drawn["energy_distance"]
    assert alone["others_dice"] == mapped["others_dice"] and alone["threshold"] == mapped["threshold"]
    assert alone["calibration_error"]["middle"] == mapped["calibration_error"][0]


def test_rows_of_nodules_need_the_set_and_their_networks(monkeypatch):
    monkeypatch.setattr(lidc.datasets, "is_here", lambda name: False)
    assert lidc.plan_of_this_machine({}) == []
    monkeypatch.setattr(lidc.datasets, "is_here", lambda name: True)
    keys = lidc.plan_of_this_machine({})
    monkeypatch.setattr(lidc.pretrained, "sha256_of", lambda names: None if lidc.MASKS in names else {})
    left_out = [key["name"] for key in keys if lidc.STUDY.needs(key) is None]
    assert left_out == ["diffusion, t = 1, random threshold", "mask diffusion", "diffusion, t = 1", "mask diffusion"]
    stored = experiments.load("10_lidc")
    assert not (set(stored["sha256"]) or experiments.tensors("10_lidc")), "numbers of persons, no picture"
    assert all(len(row[key]) == 81 for row in stored["rows"] for key in ("brier", "energy_distance") if key in row)


def test_the_best_cut_lies_where_the_best_level_set_is():
    """Nested raters none, core, outline, generous with the course's chances: the outline is best, p above 0.25."""
    ratings = torch.stack([square(k) for k in (0, 9, 10, 11)])[:, None]
    p = torch.tensordot(datasets.rater_chances(), ratings.float(), 1)
    scores = [float(expected_dice(mask, ratings, datasets.rater_chances())) for mask in ratings]
    assert scores.index(max(scores)) == 2 and 0.25 <= segmentation.best_cut(p, ratings) < 0.6


def test_an_unknown_row_is_refused():
    with pytest.raises(ValueError, match="no row 'magic'; there are: test, validation"):
        segmentation.drawn_row("magic")


def test_the_first_training_is_that_of_the_networks_that_ship():
    """Its measures are those of the other record, and all rows are there and of these networks."""
    rows = {(row["data"], row["seed"]): row for row in experiments.load("10_trainings")["rows"]}
    assert set(rows) == {(data, seed) for data in trainings.ROWS for seed in trainings.SEEDS}
    assert all(trainings.STUDY.is_fresh(row) for row in rows.values())
    stored = {row["name"]: row for row in experiments.load("10_segmentation")["rows"]}
    nodules = {row["name"]: row for row in experiments.load("10_lidc")["rows"] if row["kind"] == "draws"}
    for way, row in rows["nodules", 0]["found"].items():
        for key in ("energy_distance", "between", "within", "empty"):
            assert np.mean(row[key]) == pytest.approx(np.mean(nodules[way][key]), abs=2e-3), (way, key)
    found = rows["lesions", 0]["found"]
    for name, way in (("test", "16 samples"), ("diffusion, t = 1, random threshold", "t = 1, random threshold")):
        np.testing.assert_allclose(found[way]["energy_distance"], stored[name]["energy_distance"], rtol=0, atol=2e-3)
    counts, volume, person = segmentation.stored_counts()
    for counted, (method, people) in zip(counts, rows["hippocampi", 0]["found"].items(), strict=True):
        of_volumes = volume_dice(counted, volume).mean(1)  # by person, in a loop of their own
        owner = [int(person[volume == v][0]) for v in range(len(of_volumes))]
        means = [np.mean([float(d) for d, o in zip(of_volumes, owner) if o == k]) for k in sorted(set(owner))]
        np.testing.assert_allclose(people, means, rtol=0, atol=2e-3, err_msg=method)


def test_another_training_is_of_its_own_seed_and_in_eight_bits(monkeypatch):
    asked, net = [], torch.nn.Linear(64, 64)
    monkeypatch.setattr(trainings, "finished", lambda recipe, folder: asked.append((recipe, folder)) or (net, 1))
    found = trainings.network("lesion_raters", 2, "somewhere")
    ((recipe, folder),) = asked
    assert (recipe.name, recipe.seed, recipe.steps, folder) == ("lesion_raters_2", 2, 18_750, "somewhere")
    weight = found.weight / found.weight.abs().amax(1, keepdim=True) * 127
    torch.testing.assert_close(weight, weight.round(), rtol=0, atol=1e-2)
    assert trainings.network("lesion_raters", 0) is not net and len(asked) == 1


def test_a_part_of_the_record_of_segmentation_is_remade():
    _, masks = segmentation.drawn_row("test", n=3, samples=2)
    stored = segmentation.stored_masks("test")
    assert (masks != stored[:2, :3]).float().mean() < 0.005  # bfloat16 rounds differently on other processors
    rows = {row["name"]: row for row in experiments.load("10_segmentation")["rows"]}
    assert set(rows) == {key["name"] for key in segmentation.plan()}
    assert all(segmentation.STUDY.is_fresh(row) for row in rows.values()), "made with other weights"
    cases = datasets.rated("test", segmentation.CASES["test"])
    again = generalised_energy_distance(stored, segmentation.ratings_of(cases), datasets.rater_chances())
    torch.testing.assert_close(again, torch.tensor(rows["test"]["energy_distance"]), rtol=0, atol=1e-4)
    validation = segmentation.stored_masks("validation")
    for name, row in segmentation.baseline_rows({"test": stored, "validation": validation}).items():
        for key in {"energy_distance", "area"} & row.keys():  # networks round differently on other processors
            found, kept = (float(torch.tensor(values[key]).mean()) for values in (row, rows[name]))
            assert found == pytest.approx(kept, abs=0.01 if key == "energy_distance" else 1.0)
    for name, values in row["expected_dice"].items():
        assert np.mean(values) == pytest.approx(np.mean(rows["one mask"]["expected_dice"][name]), abs=0.01)
