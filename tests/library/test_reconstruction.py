"""Reconstruction: the scans that the supervised networks are trained on, and the record of notebook 09."""

import dataclasses

import numpy as np
import pytest
import torch

from course_lib import datasets, experiments, runtime, scans
from course_lib.denoisers import FunctionDenoiser, NetworkDenoiser
from course_lib.experiments import reconstruction as lab
from course_lib.inverse import diffpir, diffpir_step, pigdm, tv
from course_lib.metrics.images import contrast_kept, coverage, energy_score, prediction_interval, psnr, ssim
from course_lib.networks import build
from course_lib.operators import Radon, fitted, operator_norm
from course_lib.recipes import RECIPES
from course_lib.samplers import ddpm_step, sample
from course_lib.schedules import Cosine, log_snr_times
from course_lib.training import Batches, train


def blobs(n=8, size=32):
    """n smooth random images (n, 1, size, size) in [-1, 1] that are -1 outside a circle."""
    axis = torch.arange(size) - size / 2
    inside = (axis[:, None] ** 2 + axis**2 < (0.4 * size) ** 2).float()
    coarse = torch.rand(n, 1, size // 8, size // 8, generator=runtime.seeded(0))
    return 2 * inside * torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) - 1


@pytest.mark.parametrize("name", [f"brain_{scan}_{kind}" for scan in ("mri", "ct") for kind in ("unet", "unrolled")])
def test_a_tiny_supervised_network_trains(name, monkeypatch):
    """It sees other scans at every step, the same in every run, and its loss falls."""
    monkeypatch.setattr(datasets, "healthy_brains", lambda split, n: np.uint8((blobs(n)[:, 0] + 1) * 127.5))
    rounds = {"iterations": 2} if name.endswith("unrolled") else {}
    tiny = {"channels": (32, 32), "num_res_blocks": 1, "patch": 2} | rounds
    recipe = dataclasses.replace(RECIPES[name], network_args=tiny)

    def run(steps):
        torch.manual_seed(0)
        batches = Batches(datasets.healthy_brains("train", 16), batch_size=4)
        return list(
            train(build(recipe.network, **recipe.network_args), batches, recipe.loss, steps=steps, peak_rate=2e-3)
        )

    states = run(40)
    first, end = (
        float(torch.stack([state.loss.mean() for state in part]).mean()) for part in (states[:5], states[-5:])
    )
    assert end < 0.5 * first
    torch.testing.assert_close(run(2)[1].loss, states[1].loss, rtol=0, atol=0)
    quality, extra = recipe.measure(recipe, states[-1].ema)
    assert quality["test_images"] == 128 and not extra


def test_scans_hold_what_they_say():
    """Noise of the stated strength where something was measured, and nothing else; other lines for each image."""
    x = blobs(64)
    A, y = scans.scan_mri(x, [4, 8] * 32, runtime.seeded(0))
    assert (y[(A.lines == 0).expand(y.shape)] == 0).all()
    rest = (y - A(x))[(A.lines == 1).expand(y.shape)]
    for part in (rest.real, rest.imag):
        assert float(part.std()) == pytest.approx(scans.MRI_NOISE, rel=0.02)
    counts = A.lines.sum(-1).flatten()
    assert counts[0] == 7 and counts[1] == 3 and len(A.lines.flatten(1).unique(dim=0)) > 20
    A, y = scans.scan_ct(x, runtime.seeded(0))
    assert float((y - A(x)).std()) == pytest.approx(scans.noise_of("CT"), rel=0.02)
    assert scans.noise_of("CT") * A.unit == pytest.approx(scans.CT_NOISE)
    clean = scans.back_projected(A, A(x))
    assert (clean - x).square().mean() < 0.2 * (x + 1).square().mean()


@pytest.mark.parametrize("problem", scans.PROBLEMS)
def test_operators_of_scans_have_norm_one(problem):
    """So that a step length for one is one for the other."""
    A, _ = scans.scan(problem, torch.zeros(2, 1, 96, 96), 0)
    x = torch.randn(2, 1, 96, 96, generator=runtime.seeded(1), dtype=torch.float64)
    assert operator_norm(A, x, 40) == pytest.approx(1.0, abs=1e-6)


def test_the_unit_of_rays_changes_no_reconstruction():
    """The physics are those of rays in pixels, with the same noise: FBP, the fit and TV, and DiffPIR and PiGDM up to
    what conjugate gradients that stop after 30 steps make of rounding, less than a thousandth of the range."""
    x = torch.nn.functional.interpolate(blobs(2).double(), (96, 96), mode="bilinear")
    A, y = scans.scan_ct(x, runtime.seeded(0))
    pixels, unit = Radon(96, scans.CT_VIEWS), scans.CT_UNIT
    noise = scans.CT_NOISE * torch.randn(y.shape, generator=runtime.seeded(0))
    z = pixels(x) + noise
    torch.testing.assert_close(unit * y, z, rtol=0, atol=1e-6)  # the noise is drawn in float32
    y = z / unit
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(scans.back_projected(A, y), scans.back_projected(pixels, z), **close)
    torch.testing.assert_close(fitted(A, y, x, 0.05), fitted(pixels, z, x, 0.05 * unit**2), **close)
    torch.testing.assert_close(tv(A, y, 1e-3, 5, x), tv(pixels, z, 1e-3 * unit**2, 5, x), **close)
    prior = FunctionDenoiser(lambda x_t, t: 0.9 * torch.tanh(x_t), Cosine())
    eps = torch.randn(x.shape, generator=runtime.seeded(1), dtype=torch.float64)
    for method, step in ((diffpir, diffpir_step), (pigdm, ddpm_step)):
        found, before = (
            sample(method(prior, B, scan, sigma), eps, log_snr_times(Cosine(), 8, -6.0, 6.0), step, runtime.seeded(2))
            for B, scan, sigma in ((A, y, scans.noise_of("CT")), (pixels, z, scans.CT_NOISE))
        )
        assert (found - before).square().mean().sqrt() < 1e-3 * 2


def test_training_sees_both_accelerations():
    x = blobs(64)
    seen = scans.zero_filled_scan(x, runtime.seeded(0))
    missing = [(torch.fft.fft2(image)[0].abs().amax(0) < 1e-3).sum().item() for image in seen]
    assert set(missing) == {32 - 7, 32 - 3}


def test_a_network_denoiser_keeps_gradients_only_where_they_are_asked_for():
    denoiser = NetworkDenoiser(lambda x, t, y: x * weight, Cosine(), "x0")
    weight, x = torch.full((), 2.0, requires_grad=True), torch.randn(2, 1, 4, 4)
    assert not denoiser(x, 0.5).requires_grad
    asked = x.clone().requires_grad_()
    denoiser(asked, 0.5).sum().backward()
    torch.testing.assert_close(asked.grad, torch.full_like(x, 2.0))
    with torch.no_grad():
        assert not denoiser(asked, 0.5).requires_grad


# ---- measures --------------------------------------------------------------------------------------------------------


def test_psnr_and_ssim_are_those_of_other_libraries():
    from monai.metrics import PSNRMetric, SSIMMetric

    x = blobs(3)
    noisy = (x + 0.2 * torch.randn(x.shape, generator=runtime.seeded(1))).clamp(-1, 1)
    torch.testing.assert_close(psnr(noisy, x), PSNRMetric(max_val=2.0)(noisy, x)[:, 0], rtol=0, atol=1e-4)
    theirs = SSIMMetric(2, data_range=2.0, kernel_type="uniform", win_size=7)(noisy, x)[:, 0]
    torch.testing.assert_close(ssim(noisy, x).float(), theirs, rtol=0, atol=0.02)  # edges and 48/49 differ
    for measure in (psnr, ssim):
        assert measure(x + 5, x).tolist() == measure(torch.ones_like(x), x).tolist()  # clipped first


def test_ssim_is_the_formula_of_wang():
    """All windows of 7 x 7 that fit, unbiased variances, constants (0.01 * 2)^2 and (0.03 * 2)^2; of a faint picture,
    on which the constants weigh."""
    x = 0.1 * blobs(3).double()
    noisy = x + 0.02 * torch.randn(x.shape, generator=runtime.seeded(1))
    a, b = (image.unfold(2, 7, 1).unfold(3, 7, 1).flatten(-2) for image in (noisy, x))
    mean_a, mean_b = a.mean(-1, keepdim=True), b.mean(-1, keepdim=True)
    both = ((a - mean_a) * (b - mean_b)).sum(-1) / 48
    mean_a, mean_b, c_1, c_2 = mean_a[..., 0], mean_b[..., 0], 0.02**2, 0.06**2
    alike = (2 * mean_a * mean_b + c_1) / (mean_a.square() + mean_b.square() + c_1)
    expected = (alike * (2 * both + c_2) / (a.var(-1) + b.var(-1) + c_2)).mean((1, 2, 3))
    torch.testing.assert_close(ssim(noisy, x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("K", [2, 4, 12])
def test_intervals_of_gaussian_samples_cover_what_they_say(K):
    draws = 3.0 + 0.2 * torch.randn(K + 1, 10, 1, 64, 64, generator=runtime.seeded(K))
    inside = torch.ones(10, 1, 64, 64, dtype=torch.bool)
    for level in (0.5, 0.9):
        share = coverage(draws[:K], draws[K], inside, level)
        assert share.shape == (10,) and float(share.mean()) == pytest.approx(level, abs=0.008)
    inside[:, :, 32:] = False  # what lies outside does not count
    draws[K, :, :, 32:] = 99
    assert float(coverage(draws[:K], draws[K], inside).mean()) == pytest.approx(0.9, abs=0.012)
    with pytest.raises(ValueError, match="at least 2 samples"):
        prediction_interval(draws[:1])


def test_contrast_kept_by_hand():
    without, mask = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[:, :, :2] = True
    change = torch.full((2, 1, 4, 4), 0.5)
    found = torch.stack([0.25 * torch.ones(1, 4, 4), -0.5 * torch.ones(1, 4, 4)])
    found[:, :, 2:] = 9  # outside the mask
    assert contrast_kept(found, without, change, mask).tolist() == [0.5, -1.0]


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_energy_score_is_that_of_its_definition_and_least_where_the_spread_is_right(spread):
    """Samples N(0, spread^2 I) and a truth N(0, I): norms of differences, averaged, against the two moments."""
    draws, truth = (torch.randn(n, 4096, generator=runtime.seeded(n), dtype=torch.float64) for n in (200, 1))
    draws = spread * draws
    norms = [(a - b).norm(dim=1).mean() / 64 for a, b in ((draws, truth), (draws[::2], draws[1::2]))]
    found = energy_score((draws - truth).square().mean(), draws.var(0).mean())
    assert float(found) == pytest.approx(float(norms[0] - norms[1] / 2), abs=2e-3)
    assert float(found) >= float(energy_score(torch.tensor(2.0), torch.tensor(1.0))) - 0.02


def test_energy_score_of_one_answer_is_its_root_mean_squared_error():
    assert float(energy_score(torch.tensor(0.04), torch.tensor(0.0))) == pytest.approx(0.2)


# ---- the record ------------------------------------------------------------------------------------------------------


def test_scans_are_the_same_for_the_same_seed_whatever_the_images():
    for problem in scans.PROBLEMS:
        (A, y), (_, z) = (scans.scan(problem, x, 3) for x in (blobs(4), torch.zeros(4, 1, 32, 32)))
        torch.testing.assert_close(y - A(blobs(4)), z, rtol=0, atol=1e-4)


def test_a_scan_of_a_finer_grid_is_that_of_a_smooth_object_on_our_grid():
    """The same bell at the pixel centres of both grids: the field of view is shared, its middle between pixels."""

    def bell(size):
        axis = (torch.arange(size) - (size - 1) / 2) * 96 / size
        return torch.exp(-((axis[:, None] - 5) ** 2 + (axis + 8) ** 2) / 32)[None, None]

    (_, ours), (_, fine) = scans.scan(scans.FINE, bell(96), 0), scans.finer_scan(scans.FINE, bell(192), 0)
    assert (ours - fine).abs().max() < 1e-4 * ours.abs().max()


def test_unknown_methods_are_named():
    A, y = scans.scan(scans.PROBLEMS[0], blobs(4), 0)
    with pytest.raises(ValueError, match="no method 'GAN'; there are: zeros or FBP, TV"):
        lab.reconstruct(scans.PROBLEMS[0], "GAN", A, y)


def test_the_plan_has_more_steps_of_two_samplers_and_names_no_row_twice():
    plan = lab.plan()
    assert len({tuple(key.items()) for key in plan}) == len(plan)
    more = [key for key in plan if "steps" in key]
    assert {(key["problem"], key["steps"]) for key in more} == {
        *((problem, 100) for problem in scans.PROBLEMS),
        *((problem, 500) for problem in scans.PROBLEMS[1:]),
    }
    assert len(more) == 10 and not {key["method"] for key in more} & set(lab.METHODS)
    assert all(not lab.networks(key) for key in more)
    # differentiated evaluations, with the tuning on four subjects, at 45 ms each: within an hour and a half of one core
    evaluations = 0
    for key in more:
        method, steps = lab.few_of(key["method"]), key["steps"]
        images = lab.samples_of(key["problem"], method, steps) * lab.MORE[steps] + 4 * len(lab.GRID[method])
        evaluations += steps * images
    assert 0.045 * evaluations < 90 * 60


def test_several_samples_are_drawn_where_time_allows():
    several = {
        (problem, method, steps)
        for problem in scans.PROBLEMS
        for method in lab.METHODS
        for steps in (None, *lab.MORE)
        if lab.samples_of(problem, method, steps) == 4
    }
    ct, r4, r8 = "CT, 24 views", "MRI, R = 4", "MRI, R = 8"
    assert {(r8, None), (r8, 100), (r4, 100)} == {(scan, n) for scan, method, n in several if method == "DPS"}
    assert {method for scan, method, n in several if scan == ct} == {"DiffPIR"}


@pytest.mark.parametrize("method", ["DPS", "PiGDM"])
def test_a_row_of_more_steps_takes_the_best_of_what_it_tried(method, monkeypatch):
    """With few steps in place of many, and a prior that knows nothing."""
    x = torch.nn.functional.interpolate(blobs(8), (96, 96), mode="bilinear")
    monkeypatch.setattr(lab, "prior", lambda clip: FunctionDenoiser(lambda x_t, t: 0.5 * torch.tanh(x_t), Cosine()))
    monkeypatch.setattr(lab, "subjects", lambda: (x, x, x > 0, x > -1))
    monkeypatch.setattr(lab, "MORE", {6: 4})
    found, kept = lab.measure(scans.PROBLEMS[1], f"{method}, more steps", 6)
    assert not kept and found["nfe"] == 6 and len(found["psnr"]) == len(found["ssim"]) == 4
    assert [{k: v for k, v in entry.items() if k != "psnr"} for entry in found["tried"]] == list(lab.GRID[method])
    best = max(found["tried"], key=lambda entry: entry["psnr"])
    assert found["settings"] == {k: v for k, v in best.items() if k != "psnr"}
    A, y = scans.scan(scans.PROBLEMS[1], x[:4], lab.seed_of(0))
    again = lab.reconstruct(scans.PROBLEMS[1], method, A, y, lab.seed_of(0, 1), found["settings"], 6)
    torch.testing.assert_close(psnr(again, x[:4]), torch.tensor(found["psnr"]), rtol=0, atol=0.001)


def test_an_unrolled_network_answers_to_the_scan(monkeypatch):
    """And is left out of the study while it is not trained."""
    key = {"problem": scans.PROBLEMS[2], "method": "unrolled"}
    assert lab.networks(key) == ("brain_ct_unrolled",)
    assert lab.networks(key | {"problem": scans.PROBLEMS[0]}) == ("brain_mri_unrolled",)
    torch.manual_seed(0)
    net = build("Unrolled", iterations=2, channels=(32,), num_res_blocks=1, patch=2)
    monkeypatch.setattr(lab.pretrained, "load", lambda name: net.eval())
    for problem in scans.PROBLEMS:
        A, y = scans.scan(problem, blobs(4), 0)
        found = lab.reconstruct(problem, "unrolled", A, y)
        torch.testing.assert_close(found, net((A, y)).clamp(-1, 1).detach(), rtol=0, atol=2e-2)  # bfloat16
        assert not found.requires_grad


def test_settings_are_tried_anew_where_a_row_is_to_be_measured(monkeypatch):
    """As it is after its network has changed; those of a row that is there stay."""
    monkeypatch.setattr(lab, "tune", lambda problem, method: "anew")
    old = {f"{problem}, {method}": "old" for problem in lab.TUNED for method in lab.GRID}
    record = {"rows": [{"problem": lab.TUNED[0], "method": "DPS"}], "tuning": dict(old)}
    list(lab.tuned_plan(record))
    assert record["tuning"] == dict.fromkeys(old, "anew") | {f"{lab.TUNED[0]}, DPS": "old"}


@pytest.fixture(scope="module")
def record():
    if not (experiments.record.RECORDS / "09_reconstruction.json").exists():
        pytest.skip("the record has not been made yet: python -m course_lib.experiments 09_reconstruction")
    return experiments.load("09_reconstruction")


@pytest.mark.parametrize(
    ("problem", "method", "within"),
    [
        (scans.PROBLEMS[0], "zeros or FBP", 0.01),
        (scans.PROBLEMS[1], "TV", 0.02),
        (scans.PROBLEMS[2], "zeros or FBP", 0.01),
        (scans.PROBLEMS[1], "DiffPIR", 0.4),  # other processors round bfloat16 in other ways, 20 times over
    ],
)
def test_a_part_of_the_record_is_remade(record, problem, method, within):
    row = next((row for row in record["rows"] if (row["problem"], row["method"]) == (problem, method)), None)
    if row is None:
        pytest.skip(f"{method} for {problem} has not been made yet")
    truth = lab.subjects()[0][lab.group_of(1)]
    drawn, _, _ = lab.drawn(problem, method, truth, 1)
    stored = torch.tensor(row["psnr"][lab.GROUP : 2 * lab.GROUP])
    torch.testing.assert_close(psnr(drawn[0], truth), stored, rtol=0, atol=within)


def test_the_record_is_whole(record):
    assert record["cases"] == 32
    for row in record["rows"]:
        assert len(row["psnr"]) == len(row["ssim"]) == lab.MORE.get(row.get("steps"), 32)
        assert row["needs"] == lab.STUDY.needs(row)
        if "steps" in row:
            assert {**row["settings"], "psnr": max(entry["psnr"] for entry in row["tried"])} in row["tried"]
        elif "settings" in row:
            assert row["settings"] == lab.settings_of(row["problem"], row["method"])
        if "contrast_kept" in row:
            assert len(row["contrast_kept"]) == len(row["lesion_error"]) == 32
        assert ("coverage" in row) == (row.get("samples", 1) > 1)
        assert ("error_bar" in row) == (row["method"] in lab.TRAINED and row["problem"] != scans.FINE)
    kept = lab.stored_pictures()
    for key, images in kept.items():  # "problem/method/what"
        assert images.shape == (lab.SHOWN, 96, 96)
        assert float(images.min()) >= (-1e-6 if key.endswith("std") else -1.0) and float(images.max()) <= 1.0
    rows = {(row["problem"], row["method"]): row for row in record["rows"]}
    first = lab.subjects()[0][: lab.SHOWN]
    for (problem, method), row in rows.items():
        if (image := kept.get(f"{problem}/{method}/sample")) is not None:
            torch.testing.assert_close(
                psnr(image[:, None], first), torch.tensor(row["psnr"][: lab.SHOWN]), atol=0.05, rtol=0
            )
