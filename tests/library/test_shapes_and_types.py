"""Shapes, types and batches that do not fit together are refused where they would give a wrong number in silence."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from course_lib import datasets, hippocampus, images, inverse, likelihood, losses, nifti, operators, scans, tumours
from course_lib.applications import anomaly, classical, counterfactual, denoising, segmentation
from course_lib.denoisers import (
    EmpiricalDenoiser,
    FunctionDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    NetworkDenoiser,
)
from course_lib.generate import draw, generate
from course_lib.guidance import Autoguidance, ClassifierFree
from course_lib.metrics import detection, memorisation
from course_lib.metrics import images as measures
from course_lib.metrics import segmentation as masks
from course_lib.networks import DiffusionUNet
from course_lib.schedules import BrownianBridge, Cosine, RectifiedFlow
from data_fetch import rated_lesions

X = torch.zeros(4, 1, 8, 8)
HALF = torch.arange(8)[:, None].expand(8, 8) < 4


def refused(argument, function, *args, **kwargs):
    """The call raises ValueError, and its sentence names the argument."""
    with pytest.raises(ValueError, match=rf"\b{argument}\b"):
        function(*args, **kwargs)


def uint8(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_masks_have_the_axes_of_the_images():
    flat = HALF.expand(4, 8, 8)
    refused("mask", measures.mean_inside, X, flat)
    refused("mask", measures.contrast_kept, X, X, X + 1, flat)
    refused("mask", measures.coverage, torch.zeros(3, 4, 1, 8, 8), X, flat)
    assert measures.mean_inside(torch.ones(4, 3, 8, 8), HALF.expand(4, 1, 8, 8)).tolist() == [1] * 4


def test_copies_are_looked_for_among_pictures_of_the_same_type():
    pictures = uint8(9, 8, 8)
    refused("others", memorisation.nearest_rms, images.to_tensor(pictures[:2]), pictures)
    assert memorisation.nearest_rms(images.to_tensor(pictures[:2]), images.to_tensor(pictures))[0].max() < 1e-6


def test_an_interval_of_an_array_is_that_of_the_tensor():
    samples = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for one, other in zip(measures.prediction_interval(samples), measures.prediction_interval(samples.numpy())):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_scores_lie_as_the_truth_does():
    truth = np.arange(96).reshape(8, 12) % 5 == 0
    refused("truth", detection.average_precision, truth.T + 0.0, truth)
    refused("truth", detection.auroc, truth.T + 0.0, truth)
    assert detection.auroc((truth + 0.0)[:, None], truth) == 1


def test_masks_of_samples_and_raters_have_the_same_axes():
    samples, ratings = torch.zeros(3, 4, 1, 8, 8, dtype=torch.bool), torch.zeros(1, 4, 8, 8, dtype=torch.bool)
    refused("masks", masks.generalised_energy_distance, samples, ratings)
    refused("each rating", masks.nearest_rating, samples, ratings)
    refused("each rating", masks.expected_dice, samples[0], ratings, [1.0])
    refused("each outcome", masks.brier_score, samples[0].double(), ratings)
    refused("truth", detection.counts, np.zeros((8, 12)), np.zeros((12, 8), bool), [0.5])


# ---- scans and operators ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["CT, 60 views", "CTX", "MRI, R = 4.5", "MRI, R = 4 fast"])
def test_the_whole_name_of_a_scan_counts(problem):
    refused("problem", scans.scan, problem, torch.zeros(1, 1, 24, 24), 0)


@pytest.mark.parametrize("n", [25, 26, 27])
def test_a_finer_scan_is_that_of_the_means_for_odd_sides_too(n, monkeypatch):
    """A smooth blob: the k-space of its pixel means is the middle of its fine k-space, to a hundredth."""
    monkeypatch.setattr(scans, "MRI_NOISE", 0.0)
    at = torch.arange(2 * n) / n - 1
    fine = torch.exp(-((at - 0.1) ** 2 + (at[:, None] + 0.2) ** 2) / 0.1)[None, None]
    A, y = scans.finer_scan("MRI, R = 4", fine, 0)
    assert float((A(F.avg_pool2d(fine, 2)) - y).abs().max()) < 0.01 * float(y.abs().max())


def test_a_finer_scan_is_of_mri_and_of_squares():
    refused("problem", scans.finer_scan, "CT, 24 views", torch.zeros(1, 1, 24, 24), 0)
    refused("x_fine", scans.finer_scan, "MRI, R = 4", torch.zeros(1, 1, 24, 48), 0)


def test_adjoints_know_the_number_of_scans():
    A = operators.KSpace((torch.rand(4, 1, 1, 8, generator=torch.Generator().manual_seed(0)) > 0.4).float())
    y = A(torch.ones(4, 1, 8, 8))
    for function in (A.adjoint, A.pinv):
        refused("lines", function, y[:1])
    refused("lines", A.solve, torch.zeros(1, 1, 8, 8), 1.0)
    coils = operators.MultiCoil(torch.ones(8, 8), torch.ones(3, 8, 8, dtype=torch.complex64))
    refused("y", coils.adjoint, torch.zeros(1, 1, 8, 8, dtype=torch.complex64))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_measurements_in_half_precision_are_those_in_single(kind):
    x, eps = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(kind), torch.finfo(kind).eps
    blur, radon, mri = operators.Blur(1.0), operators.Radon(8, 6), operators.KSpace(operators.sampled_lines(8, 2))
    for half, single in (
        (blur(x), blur(x.float())),
        (radon.fbp(radon(x)), radon.fbp(radon(x).float())),
        (mri.solve(x, 0.1), mri.solve(x.float(), 0.1)),
    ):
        assert half.dtype == kind
        torch.testing.assert_close(half.float(), single, atol=eps * float(single.abs().max()), rtol=0)
    assert torch.equal(mri(x), mri(x.float()))


def test_one_coil_without_phase_takes_real_pictures():
    refused("x", operators.KSpace(torch.ones(8)), torch.ones(1, 1, 8, 8, dtype=torch.complex64))


# ---- denoisers, guidance, likelihood ---------------------------------------------------------------------------------


def test_gradients_are_wanted_of_the_denoiser():
    blind = FunctionDenoiser(torch.no_grad()(lambda x, t: 0.5 * x), Cosine())
    refused("denoiser", likelihood.ode_log_likelihood, blind, torch.ones(1, 3), 4, t_max=0.9)
    y, A = X + 0.5, operators.Blur(1.0)
    refused("denoiser", inverse.dps(blind, A, y, 0.1), X, 0.5)


def test_a_class_is_a_whole_number_for_each_image():
    denoiser = FunctionDenoiser(lambda x, t, y: 0 * x + y.reshape(-1, 1, 1, 1), Cosine())
    for y in (torch.tensor([True] * 4), torch.tensor(1), torch.tensor([1]), None, 1):
        refused("y", ClassifierFree(denoiser, 2, 3.0), X, 0.5, y)
    none = ClassifierFree(denoiser, -1, 0)(X, 0.5, torch.ones(4, dtype=torch.uint8))
    assert (none == -1).all()


def test_conditions_of_other_types():
    net = NetworkDenoiser(DiffusionUNet(channels=(32,), concat=1), Cosine())
    assert net(X.double(), 0.5, y=X.double()).dtype == torch.float64
    net = NetworkDenoiser(DiffusionUNet(channels=(32,), num_classes=2), Cosine())
    y = torch.tensor([0, 1, 2, 1])
    torch.testing.assert_close(net(X, 0.5, y=y.to(torch.uint8)), net(X, 0.5, y=y), rtol=0, atol=0)
    refused("y", net, X, 0.5, y=torch.tensor([True] * 4))


def test_two_denoisers_have_one_schedule():
    """Their times mean the same noise, or one is asked about noise that is not there."""
    cosine, flow = (
        GaussianDenoiser(torch.zeros(1), torch.eye(1), schedule) for schedule in (Cosine(), RectifiedFlow())
    )
    refused("schedule", Autoguidance, cosine, flow, 1.5)
    refused("schedule", anomaly.heal, cosine, flow, torch.zeros(2, 1), 0.5, 4)


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 1, 4, 16), (2, 64)])
def test_copies_of_the_data_have_its_shape(shape):
    denoiser = EmpiricalDenoiser(torch.zeros(3, 1, 8, 8), Cosine())
    refused("x_t", denoiser, torch.zeros(shape), 0.5)


@pytest.mark.parametrize("shape", [(3,), (2, 2), (1, 1)])
def test_a_mixture_has_one_width_or_one_for_each(shape):
    refused("std", MixtureDenoiser, torch.tensor([0.5, 0.5]), torch.zeros(2, 2), torch.ones(shape), Cosine())


@pytest.mark.parametrize("function", [generate, draw])
def test_the_number_of_evaluations_is_named(function):
    denoiser = GaussianDenoiser(torch.zeros(1), torch.eye(1), Cosine())
    refused("nfe", function, denoiser, torch.zeros(2, 1) if function is generate else 2, nfe=0)


@pytest.mark.parametrize(("channels", "concat"), [(1, 1), (2, 3)])
def test_something_is_left_beside_the_condition(channels, concat):
    loss = losses.DiffusionLoss(Cosine(), concat=concat)
    refused("concat", loss, None, (torch.zeros(2, channels, 8, 8), None), torch.Generator())


def test_a_bridge_joins_images_of_as_many_channels():
    loss = losses.BridgeLoss(BrownianBridge())
    refused("y", loss, None, (torch.zeros(2, 3, 8, 8), None), torch.Generator())


# ---- pictures, maps, volumes -----------------------------------------------------------------------------------------


def test_no_lesion_has_no_margin():
    assert tumours.healthy_tissue(np.zeros((1, 16, 16), np.uint8)).all()
    assert not rated_lesions.ratings(np.zeros((1, 16, 16))).any()
    assert rated_lesions.ratings(np.ones((1, 16, 16)))[0, 1:].all()


def test_one_threshold_for_each_mask():
    refused("p", segmentation.random_threshold, torch.rand(4, 1, 8, 8), 4)
    refused("p", segmentation.random_threshold, torch.rand(8, 8), 4)
    assert segmentation.independent(np.full((2, 8, 8), 0.5), 3).shape == (3, 2, 8, 8)


def test_pictures_of_whole_numbers_are_scaled_first():
    pictures = uint8(9, 16, 16)
    healthy = anomaly.Healthy(images.to_tensor(pictures)[:, 0], 4)
    refused("x", healthy.z, pictures)
    refused("x", healthy.project, pictures)
    refused("y", denoising.remove_rician_bias, pictures, 0.1)
    refused("y", classical.total_variation, pictures[:, None], 0.1, 1.0)


def test_maps_may_lie_in_any_order_and_are_square():
    labels = torch.zeros(1, 96, 96, dtype=torch.long)
    labels[0, 8:88, 8:88], labels[0, 40:56, 44:52] = 2, 1
    grown = counterfactual.grown(labels.transpose(1, 2), [600.0])
    assert torch.equal(counterfactual.area(grown), torch.tensor([600.0]))
    refused("labels", counterfactual.area, labels[:, :, 8:88])


def test_channels_of_a_hippocampus():
    refused("masks", hippocampus.slice_labels, torch.zeros(2, 3, 6, 6))
    refused("masks", hippocampus.slice_labels, torch.zeros(2, 6, 6))
    label = np.zeros((40, 50, 40), np.uint8)
    label[10:20, 15:30, 12:20] = 1
    corner = hippocampus.hippocampus_box(label)
    assert (hippocampus.hippocampus_box(torch.as_tensor(label)) == corner).all()
    refused("image", hippocampus.hippocampus_channels, 1000.0 * label, label, (0, 0, 0))


@pytest.mark.parametrize("labels", [[0, 0.5], [0, 2], [0, -1]])
def test_labels_of_saved_images_are_refused_before_anything_is_written(labels, tmp_path):
    refused("labels", images.save_images, np.zeros((2, 8, 8)), tmp_path / "a", labels, ("a", "b"))
    assert not (tmp_path / "a").exists()


def test_names_of_classes_name_files(tmp_path):
    refused("classes", images.save_images, np.zeros((2, 8, 8)), tmp_path / "a", [0, 1], ("MRI", "CT/PET"))
    assert not (tmp_path / "a").exists()


def test_a_map_without_background_has_no_outline():
    """So all within 36 mm of the midline lies deep: 36 columns of 2 mm."""
    expected = torch.zeros(96, 96, dtype=torch.bool)
    expected[:, 30:66] = True
    assert torch.equal(counterfactual.ventricles(torch.ones(1, 96, 96, dtype=torch.long))[0], expected)


@pytest.mark.parametrize("n", [1, 4, 5])
def test_as_many_maps_as_asked_for(n):
    pictures, maps = datasets.brain_maps("train", n, 16)
    assert len(pictures) == len(maps) == n
    assert len(datasets.healthy_or_not("train", n)[1]) == n


def test_a_volume_in_the_template_s_space_is_finite():
    volume = np.ones((20, 20, 20), np.float32)
    volume[3, 3, 3] = np.nan
    refused("volume", datasets.mni_slices, volume, np.diag([9.0, 9, 9, 1]), [0.0])
    refused("volume", datasets.mni_slices, volume[0], np.diag([9.0, 9, 9, 1]), [0.0])


@pytest.mark.parametrize("affine", [np.diag([9.0, 9, 0, 1]), np.eye(3), np.full((4, 4), np.nan)])
def test_the_affine_of_a_volume_can_be_inverted(affine):
    refused("affine", datasets.mni_slices, np.ones((20, 20, 20)), affine, [0.0])


def test_one_level_is_a_list_of_one():
    affine = np.diag([9.0, 9, 9, 1])
    affine[:3, 3] = -90
    volume = np.random.default_rng(0).uniform(0.5, 1, (20, 24, 20))
    assert (datasets.mni_slices(volume, affine, 4.0) == datasets.mni_slices(volume, affine, [4.0])).all()


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("micron", 1e-3), ("meter", 1e3), (0, 1.0), (56, 1.0)])
def test_the_unit_of_a_file_counts(unit, factor, tmp_path):
    """Of one that names none, or none that is known, the lengths are mm."""
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.diag([500.0, 500, 500, 1]))
    if isinstance(unit, str):
        image.header.set_xyzt_units(unit)
    else:
        image.header["xyzt_units"] = unit
    nibabel.save(image, tmp_path / "a.nii.gz")
    _, affine = nifti.load_nifti(tmp_path / "a.nii.gz")[:2]
    np.testing.assert_allclose(np.abs(np.diag(affine)[:3]), 500 * factor)
