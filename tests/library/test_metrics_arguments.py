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
    refused(r"outcomes must lie in \[0, 1\]", segmentation.disagreement, torch.tensor([[2.0], [0.0]]))
    refused("bins", segmentation.reliability, p, p, bins=0)
    sums = torch.tensor([1 / 3] * 3, dtype=torch.float32).sum().expand(2) * (1 + 1e-7)  # 1, up to rounding
    assert segmentation.calibration_error(sums, torch.ones(2)) < 1e-6


def test_images_of_another_range_or_shape_are_refused():
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    for measure in (images.psnr, images.ssim):
        refused("0 to 255", measure, x, (x + 1) * 127.5)
        refused("floats", measure, (x * 100).byte(), (x * 100).byte())
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
