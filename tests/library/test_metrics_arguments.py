"""Measures at the ends of what they take: the right value, or one sentence that names the argument."""

import numpy as np
import pytest
import torch

from course_lib.metrics import detection, distribution, images, intervals, memorisation, segmentation


def refused(match, function, *arguments, **options):
    """The call raises a ValueError that says ``match``, in one sentence."""
    with pytest.raises(ValueError, match=match) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


LABELS = torch.zeros(8, 8, dtype=torch.long)
LABELS[2:6, 2:4], LABELS[2:6, 4:6] = 1, 2
MASK = LABELS > 0

NO_MASKS = {
    "a label map": LABELS,
    "a label map of floats": LABELS.double(),
    "logits": torch.where(MASK, 5.0, -5.0),
    "a picture in [-1, 1]": MASK * 2.0 - 1,
    "probabilities": torch.full((8, 8), 0.01),
    "a uint8 picture of 0 and 255": MASK.to(torch.uint8) * 255,
    "NaN": torch.full((8, 8), float("nan")),
}


@pytest.mark.parametrize("kind", NO_MASKS)
def test_what_is_no_mask_is_refused_by_every_measure_of_masks(kind):
    values = NO_MASKS[kind]
    several = values.expand(4, 8, 8)
    for function in (segmentation.dice, segmentation.iou):
        refused("a must hold 0 and 1", function, values, MASK)
        refused("b must hold 0 and 1", function, MASK, values)
    refused("ratings must", segmentation.expected_dice, MASK, several, [0.25] * 4)
    refused("samples must", segmentation.generalised_energy_distance, several, MASK[None])
    refused("ratings must", segmentation.generalised_energy_distance, MASK.expand(2, 8, 8), values[None])
    refused("samples must", segmentation.energy_terms, several, MASK.expand(2, 8, 8))
    refused("readings must", segmentation.energy_terms, MASK.expand(2, 8, 8), several)
    refused("readings must", segmentation.consensus, several)
    refused("masks must", segmentation.is_empty, several)
    refused("masks must", segmentation.exact_energy_distance, several, [0.25] * 4, MASK[None], [1.0])
    refused("samples must", segmentation.nearest_rating, several, MASK[None])
    refused("truth must", detection.auroc, np.zeros((8, 8)), values.numpy())
    refused("mask must", detection.false_alarms, values.numpy())
    pair = torch.zeros(1, 1, 8, 8)
    refused("mask must", images.contrast_kept, pair, pair, pair, values[None, None])


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_masks_of_every_type_score_alike(kind):
    a, b = MASK.to(kind), torch.roll(MASK, 1, 0).to(kind)
    assert float(segmentation.dice(a, b)) == pytest.approx(2 * 12 / 32)
    assert float(segmentation.iou(a.numpy(), b.numpy())) == pytest.approx(12 / 20)
    assert float(segmentation.generalised_energy_distance(a.expand(4, 8, 8), a[None])) == pytest.approx(0, abs=1e-7)


def test_each_label_of_a_map_scores_by_itself():
    swapped = torch.where(MASK, 3 - LABELS, 0)
    assert [float(segmentation.dice(swapped == k, k == LABELS)) for k in (1, 2)] == [0, 0]


def test_chances_are_chances():
    ratings = MASK.expand(2, 8, 8)
    for wrong in ([0.5, 0.6], [1.5, -0.5], [1.0], [0.5, float("nan")]):
        refused("sum to 1", segmentation.expected_dice, MASK, ratings, wrong)
        refused("sum to 1", segmentation.generalised_energy_distance, ratings, ratings, wrong)


def test_reliability_takes_probabilities_alone():
    p = torch.tensor([0.2, 0.8])
    refused(r"predicted must lie in \[0, 1\]", segmentation.reliability, torch.tensor([-3.0, 4.0]), p)
    refused(r"truth must lie in \[0, 1\]", segmentation.reliability, p, torch.tensor([1, 2]))
    refused("NaN", segmentation.calibration_error, torch.tensor([0.1, float("nan")]), p)
    refused("one shape", segmentation.calibration_error, p[:, None], p)
    refused(r"predicted must lie in \[0, 1\]", segmentation.brier_score, torch.tensor([-3.0, 4.0]), p[None])
    refused("outcomes must hold 0 and 1 only", segmentation.disagreement, torch.tensor([[2.0], [0.0]]))
    refused("bins", segmentation.reliability, p, p, bins=0)
    sums = torch.tensor([1 / 3] * 3, dtype=torch.float32).sum().expand(2) * (1 + 1e-7)  # 1, up to rounding
    assert segmentation.calibration_error(sums, torch.ones(2)) < 1e-6


def test_images_of_another_range_or_shape_are_refused():
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    for measure in (images.psnr, images.ssim):
        refused("0 to 255", measure, x, (x + 1) * 127.5)
        refused("floats", measure, (x * 100).byte(), (x * 100).byte())
        refused("floats", measure, x, (x > 0).int())
        refused("one shape", measure, x, x[:, 0])
        refused("one shape", measure, x, x[:2])
        assert measure(x * 3, x).isfinite().all()  # a reconstruction may overshoot
        assert measure(torch.where(x > 0.99, float("nan"), x * 0 + float("nan")), x).isnan().all()


def test_measures_within_a_mask_want_a_pixel_in_it():
    x, inside = torch.randn(5, 2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    inside[0] = True
    refused("inside is empty in image 1", images.coverage, x[:4], x[4], inside)
    refused("mask is empty in image 1", images.contrast_kept, x[0], x[1], x[2], inside)
    for level in (0, 1, 90, -0.5, float("nan")):
        refused("level must lie between 0 and 1", images.prediction_interval, x, level)


def test_scores_that_are_nan_are_told():
    truth = np.array([0, 1, 1, 0])
    for function in (detection.auroc, detection.average_precision):
        refused("1 of the 4 scores are NaN", function, [0.1, float("nan"), 0.3, 0.2], truth)
        refused("both kinds", function, [0.1, 0.2, 0.3], truth)
        assert function([0.1, 0.9, 0.8, 0.2], truth) == 1.0
    refused("scores", detection.counts, np.full((2, 4), np.nan), np.stack([truth, truth]), [0.5])
    refused("thresholds", detection.counts, np.zeros((2, 4)), np.stack([truth, truth]), [np.nan])
    refused("one shape", detection.counts, np.zeros((2, 4)), np.stack([truth[:3], truth[:3]]), [0.5])


def test_features_are_numbers_of_one_kind():
    x = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bad = x.clone()
    bad[4, 1] = float("inf")
    refused("1 of the 60 features", distribution.moments, bad)
    refused("1 of the 60 features", distribution.density_coverage, x, bad)
    refused("one shape", distribution.frechet_distance, distribution.moments(x), distribution.moments(x[:, :2]))
    refused("k must be 1", distribution.precision_recall, x, x, k=0)
    refused("2 images or more", distribution.expected_floor, torch.eye(3), 1, 100)


def test_intervals_want_cases_that_fill_them():
    refused("two or more", intervals.with_error, torch.ones(1))
    refused("values are NaN", intervals.with_error, torch.tensor([1.0, float("nan")]))
    refused("do not fill 10 blocks of 1", intervals.jackknife, len, torch.zeros(9, 2))
    refused("do not fill 10 blocks of 6", intervals.jackknife, len, torch.zeros(59, 2), turn=6)
    refused("1 of the 3 values", intervals.bootstrap, torch.tensor([1.0, float("nan"), 2.0]))
    refused("level", intervals.bootstrap, torch.rand(5), level=95)
    refused("group", intervals.bootstrap, torch.rand(5), group=0)
    refused("held-out values are NaN", memorisation.threshold, torch.tensor([1.0, float("nan")] * 30))
    refused("level", memorisation.threshold, torch.rand(50), level=1.5)


@pytest.mark.parametrize("offset", [0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_nearest_images_are_found_at_every_offset_and_scale(offset, scale):
    generator = torch.Generator().manual_seed(0)
    others = offset + scale * torch.randn(5000, 3, 4, dtype=torch.float64, generator=generator)
    near = others[[4999, 7]] + torch.tensor([0.25, -0.5])[:, None, None] * scale * 1e-2
    distance, which = memorisation.nearest_rms(near, others)
    by_hand = (near[:, None] - others).square().flatten(2).mean(2).sqrt()
    assert which.tolist() == [4999, 7] == by_hand.argmin(1).tolist()
    smallest = 1e-7 * offset + 1e-6 * scale  # what the numbers themselves, or their difference, cannot tell apart
    torch.testing.assert_close(distance.double(), by_hand.min(1).values, rtol=1e-4, atol=smallest)
    nearest, crowd = memorisation.nearest_and_crowd(near, others, k=3)
    sorted_by_hand = by_hand.sort(1).values[:, :3]
    torch.testing.assert_close(nearest.double(), sorted_by_hand[:, 0], rtol=1e-4, atol=smallest)
    torch.testing.assert_close(crowd.double(), sorted_by_hand.mean(1), rtol=1e-4, atol=smallest)


def test_nearest_of_pictures_in_whole_numbers():
    pictures = torch.tensor([[[0, 255], [3, 4]], [[255, 0], [3, 4]]], dtype=torch.uint8)
    distance, which = memorisation.nearest_rms(pictures[:1] + torch.tensor(1, dtype=torch.uint8) * 0, pictures.flip(0))
    assert distance.tolist() == [0.0] and which.tolist() == [1]
    refused("4 pixels, the others 3", memorisation.nearest_rms, pictures, torch.zeros(5, 3))
    refused("no others", memorisation.nearest_rms, pictures, pictures[:0])
    refused("NaN", memorisation.nearest_rms, torch.full((1, 2), float("nan")), torch.zeros(4, 2))
    refused("NaN", memorisation.nearest_rms, torch.zeros(1, 2), torch.full((4, 2), float("nan")))


# ---- detection: ties, types and regions ------------------------------------------------------------------------------


def mann_whitney(scores, truth):
    """How often a positive scores above a negative, ties counting half, over all pairs."""
    above = np.subtract.outer(scores[truth == 1].astype(float), scores[truth == 0].astype(float))
    return float(((above > 0) + (above == 0) / 2).mean())


@pytest.mark.parametrize(
    ("scores", "area"), [([1, 1, 1, 1], 0.5), ([1.0, 1, 0, 0], 0.5), ([2, 2, 1, 0], 0.375), ([0, 2, 2, 1], 0.625)]
)
def test_auroc_of_ties_at_the_top(scores, area):
    scores, truth = np.array(scores), np.array([0, 1, 0, 1])
    assert mann_whitney(scores, truth) == area
    assert detection.auroc(scores, truth) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, bool, np.uint16, np.int64, np.float16, np.float32, np.float64])
def test_scores_of_every_type_rank_alike(kind):
    """Whole numbers have no minus, or a least one without its opposite; reversed views are arrays too."""
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.3
    low, high = (0, 2) if kind is bool else (-128, 128) if kind is np.int8 else (0, 6)
    scores = rng.integers(low, high, 200).astype(kind)
    scores[0] = low
    assert detection.auroc(scores, truth) == pytest.approx(mann_whitney(scores, truth), abs=1e-12)
    assert detection.auroc(scores[::-1], truth[::-1]) == pytest.approx(mann_whitney(scores, truth), abs=1e-12)
    found = detection.average_precision(scores, truth)
    assert found == detection.average_precision(scores.astype(float), truth)


def test_a_region_and_a_lesion_are_masks_of_one_shape():
    scores, truth = np.arange(8.0).reshape(2, 2, 2), np.arange(8).reshape(2, 2, 2) % 2
    region = np.array([[[1, 1], [0, 0]], [[0, 1], [1, 1]]])
    take = lambda s, m: (s.tolist(), m.tolist())  # noqa: E731
    assert detection.in_region(take, scores, truth, region)[0] == ([0.0, 1.0], [0, 1])
    refused("must have one shape", detection.in_region, take, scores, truth, region[:1])
    refused("inside must hold 0 and 1", detection.in_region, take, scores, truth, region * 2)

    mask, lesion = np.zeros((2, 6, 6), int)
    mask[1:3, 1:4] = 1
    assert not detection.touched(mask, lesion)
    lesion[2, 3] = 1
    assert detection.touched(mask, lesion) and detection.touched(mask[::-1], lesion[::-1])
    lesion[2, 3], lesion[5, 5] = 0, 1
    assert not detection.touched(mask, lesion)
    refused("lesion must hold 0 and 1", detection.touched, mask, lesion * 3)
    refused("mask and lesion must have one shape", detection.touched, mask, lesion[:1])


# ---- images ----------------------------------------------------------------------------------------------------------


def test_what_is_nan_where_it_counts_scores_nan_and_elsewhere_does_not():
    draws = torch.randn(6, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    samples, truth, inside = draws[:5], draws[5], torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    inside[..., :2] = True
    right = images.coverage(samples, truth, inside)
    for values in (samples.clone(), truth.clone()):
        of = lambda x: (x, truth) if values.ndim == 5 else (samples, x)  # noqa: B023, E731
        values[..., 1, 0, 0, 3] = float("nan")  # beside the region, in image 1
        assert images.coverage(*of(values), inside).equal(right)
        values[..., 1, 0, 0, 0] = float("nan")
        found = images.coverage(*of(values), inside)
        assert found[0] == right[0] and found[1].isnan()
    values = torch.tensor([[1.0, 2, float("nan"), float("inf")]]).reshape(1, 1, 2, 2)
    region = torch.tensor([1, 1, 0, 0]).reshape(1, 1, 2, 2)
    assert images.mean_inside(values, region).tolist() == [1.5]
    assert images.mean_inside(values > 1, region).tolist() == [0.5]
    refused("mask is empty in image 0", images.mean_inside, values, region * 0)
    refused("mask must hold 0 and 1", images.mean_inside, values, region * 2)


def test_images_have_four_axes_and_one_channel_where_it_matters():
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    refused("one channel", images.ssim, x, x)
    for measure in (images.psnr, images.ssim):
        refused("N, C, H, W", measure, x[:, 0], x[:, 0])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_psnr_of_half_precision_is_finite(kind):
    """An error of 2^-10 everywhere: 10 log10(4 * 2^20) dB. Its square is beyond half precision."""
    reference = torch.zeros(1, 1, 8, 8, dtype=kind)
    assert float(images.psnr(reference + 2**-10, reference)) == pytest.approx(10 * np.log10(4 * 2**20), abs=1e-4)


# ---- probabilities, outcomes and thresholds --------------------------------------------------------------------------


def test_no_pixels_have_no_calibration():
    nothing = torch.zeros(0)
    refused("predicted is empty", segmentation.calibration_error, nothing, nothing)


def test_outcomes_are_0_or_1():
    p = torch.tensor([0.2, 0.8])
    shares = torch.tensor([[0.5, 1.0], [0.5, 0.0]])
    refused("outcomes must hold 0 and 1 only", segmentation.disagreement, shares)
    refused("outcomes must hold 0 and 1 only", segmentation.brier_score, p, shares)
    drawn = torch.tensor([[True, True], [False, True]])
    torch.testing.assert_close(segmentation.brier_score(p, drawn), torch.tensor([(0.64 + 0.04) / 2, 0.04]).double())
    assert segmentation.disagreement(drawn).tolist() == [0.5, 0.0]


def test_held_out_values_stand_in_a_line():
    refused("null must be an array or tensor", memorisation.threshold, torch.rand(40, 2))


@pytest.mark.parametrize(("level", "least"), [(0.05, 19), (0.1, 9), (0.3, 3), (0.5, 1)])
def test_the_number_of_held_out_values_that_a_level_needs(level, least):
    values = torch.arange(float(least))
    assert memorisation.threshold(values, level) == 0
    refused(f"take at least {least}$", memorisation.threshold, values[:-1], level)


def test_numbers_of_a_list_keep_their_precision():
    """0.9 stays 0.9, so that what equals a threshold is at it."""
    scores, truth = np.array([[0.9, 0.8, 0.2]]), np.array([[1, 0, 0]])
    assert detection.counts(scores, truth, [0.9, 0.8])[1].tolist() == [[1, 2]]
    assert intervals.conformal_quantile([0.9] * 12) == 0.9
    assert memorisation.threshold([0.1] * 40) == 0.1
