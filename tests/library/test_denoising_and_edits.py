"""Denoising by the prior, magnitude images, counterfactual edits, and their record against a part made anew."""

import math

import numpy as np
import pytest
import torch

from course_lib import experiments, pretrained, runtime
from course_lib.applications import classical, counterfactual, denoising
from course_lib.applications.anomaly import noise_and_denoise
from course_lib.denoisers import Denoiser, GaussianDenoiser
from course_lib.experiments import image_to_image
from course_lib.samplers import ddim_step, dpmpp_2m_step
from course_lib.schedules import Cosine, Linear, RectifiedFlow


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---- denoising -------------------------------------------------------------------------------------------------------

COV = torch.tensor([[1.0, 0.6, 0.1], [0.6, 1.5, 0.3], [0.1, 0.3, 0.8]], dtype=torch.float64)
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("schedule", [Cosine(), Linear(), RectifiedFlow()])
@pytest.mark.parametrize("sigma_y", [0.05, 0.4, 3.0])
def test_the_denoiser_at_the_right_time_is_the_posterior_mean(schedule, sigma_y):
    """Against the textbook's conditional mean, element by element."""
    y = noise(20, 3)
    gain = COV @ torch.linalg.inv(COV + sigma_y**2 * torch.eye(3, dtype=torch.float64))
    expected = MEAN + (y - MEAN) @ gain.T
    found = denoising.posterior_mean(GaussianDenoiser(MEAN, COV, schedule), y, sigma_y)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_time_of_a_noise_level():
    assert float(denoising.noise_time(Cosine(), 0.4)) == pytest.approx(2 / math.pi * math.atan(0.4), abs=1e-12)
    assert float(denoising.noise_time(RectifiedFlow(), 0.25)) == pytest.approx(0.2, abs=1e-12)
    with pytest.raises(ValueError, match="must be positive"):
        denoising.noise_time(Cosine(), 0.0)


def test_random_walk_draws_from_the_posterior_and_a_deterministic_one_does_not():
    """One pixel, N(0, 1), noise 1: posterior y / 2 with variance 1/2; the flow takes y to y / sqrt 2."""
    pixel = GaussianDenoiser(torch.zeros(1).double(), torch.eye(1).double(), Cosine())
    y = torch.full((40_000, 1), 1.5, dtype=torch.float64)
    drawn = denoising.posterior_sample(pixel, y, 1.0, 200, torch.Generator().manual_seed(0))
    assert float(drawn.mean()) == pytest.approx(0.75, abs=0.015) and float(drawn.var()) == pytest.approx(0.5, rel=0.03)
    for step in (ddim_step, dpmpp_2m_step):
        one = denoising.posterior_sample(pixel, y[:1], 1.0, 300, step=step)
        assert float(one) == pytest.approx(1.5 / 2**0.5, abs=5e-3)


def test_walk_begins_at_the_noise_of_the_picture():
    times = denoising.walk_times(Cosine(), 0.4, 10)
    assert len(times) == 11 and times[-1] == 0 and (times.diff() < 0).all()
    assert float(times[0]) == pytest.approx(float(denoising.noise_time(Cosine(), 0.4)), abs=1e-12)
    for sigma_y, last in ((0.4, 8.0), (0.01, 1 - 2 * math.log(0.01))):  # of little noise it ends one beyond its start
        walked = Cosine().log_snr(denoising.walk_times(Cosine(), sigma_y, 10)[:-1])
        even = torch.linspace(-2 * math.log(sigma_y), last, 10, dtype=torch.float64)
        torch.testing.assert_close(walked, even, rtol=0, atol=1e-9)


# ---- magnitude images ------------------------------------------------------------------------------------------------


def test_mean_of_a_magnitude_against_numerical_integration_and_its_limits():
    from scipy import integrate, stats

    A, s = np.array([0.0, 0.1, 0.3, 0.8]), 0.2
    for a, found in zip(A, denoising.rician_mean(A, s)):
        expected = integrate.quad(lambda m, a=a: m * stats.rice.pdf(m, a / s, scale=s), 0, a + 12 * s)[0]
        assert found == pytest.approx(expected, rel=1e-6)
    assert denoising.rician_mean([0.0], s)[0] == pytest.approx(s * math.sqrt(math.pi / 2), rel=1e-12)
    assert denoising.rician_mean([1.0], 0.01)[0] == pytest.approx(1 + 0.01**2 / 2, rel=1e-6)  # no overflow


def test_magnitudes_have_the_second_moment_that_corrects_them():
    x = torch.full((1, 1, 400, 400), 0.2, dtype=torch.float64)
    y = denoising.rician(x, 0.4, torch.Generator().manual_seed(0))
    M = (y + 1) / 2
    assert float(M.square().mean()) == pytest.approx(0.6**2 + 2 * 0.2**2, rel=5e-3)
    assert float(M.mean()) == pytest.approx(denoising.rician_mean([0.6], 0.2)[0], rel=5e-3)
    exact = 2 * (torch.tensor(0.6**2 + 2 * 0.2**2)).sqrt() - 1
    assert float(denoising.remove_rician_bias(exact, 0.4)) == pytest.approx(0.2, abs=1e-6)
    assert float(denoising.remove_rician_bias(torch.tensor(-0.9), 0.4)) == -1  # M^2 < 2 s^2


# ---- baselines -------------------------------------------------------------------------------------------------------


def test_classical_denoisers_against_their_libraries_one_by_one():
    from scipy.ndimage import gaussian_filter
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    y = noise(3, 1, 24, 24).float()
    for k in range(3):
        image = y[k, 0].double().numpy()
        np.testing.assert_allclose(
            classical.blurred(y, 0.4, 1.2)[k, 0], gaussian_filter(image, 1.2, mode="nearest"), atol=1e-6
        )
        expected = denoise_tv_chambolle(image, weight=0.32, max_num_iter=100)
        np.testing.assert_allclose(classical.total_variation(y, 0.4, 0.8)[k, 0], expected, atol=1e-6)
        expected = denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.24, fast_mode=True, sigma=0.4)
        np.testing.assert_allclose(classical.nonlocal_means(y, 0.4, 0.6)[k, 0], expected, atol=1e-6)
    flat = torch.ones(1, 1, 24, 24)
    for function, settings in classical.DENOISERS.values():
        torch.testing.assert_close(function(flat, 0.4, **settings[0]), flat, rtol=0, atol=1e-5)


def test_mirror_image_finds_its_own_middle():
    x = torch.zeros(2, 1, 16, 32)
    x[0, 0, 4:12, 8:18] = 1  # middle 12.5: reflected onto itself by a shift of -6
    x[1, 0, 4:12, 14:20] = 1  # middle 16.5
    torch.testing.assert_close(classical.mirrored(x), x)
    hole = torch.zeros(2, 1, 16, 32, dtype=torch.bool)
    hole[:, :, 4:8, 9:12] = True
    torch.testing.assert_close(classical.mirror_fill(x * ~hole, hole)[0], x[0])
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[:, 0, 5, 9] = True  # a mask goes where its image puts it: 25 - 9 and 33 - 9
    assert classical.mirrored(mask, like=x).nonzero()[:, 3].tolist() == [16, 24]


def test_mirror_image_is_moved_by_the_reach_either_way_and_no_further():
    """Of 32 columns, those from a to b lie on a to b again when moved by a + b - 31."""
    for first, last in ((8, 17), (14, 23), (10, 15), (17, 20)):  # by -6, 6, -6 and 6
        x = torch.zeros(1, 1, 4, 32)
        x[..., first : last + 1] = 1
        assert torch.equal(classical.mirrored(x, reach=6), x)
        assert not torch.equal(classical.mirrored(x, reach=5), x)


def test_biharmonic_continues_a_straight_slope():
    x = torch.linspace(-1, 1, 20).expand(1, 1, 20, 20).clone()
    hole = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    hole[..., 8:12, 8:12] = True
    torch.testing.assert_close(classical.biharmonic(torch.where(hole, 0.0, x), hole), x, rtol=0, atol=1e-4)


# ---- edits -----------------------------------------------------------------------------------------------------------


def disc(radius=6, size=96, wide=1.0):
    """A round brain of white matter with fluid in its middle, (1, size, size)."""
    row, column = torch.meshgrid(torch.arange(size) - 47.5, torch.arange(size) - 47.5, indexing="ij")
    r = (row.square() + (column / wide).square()).sqrt()
    return torch.where(r < radius, 1, torch.where(r < 40, 3, 0))[None]


def test_ventricles_are_fluid_deep_inside_and_nowhere_else():
    labels = disc()
    labels[0, 8:12, 46:50] = 1  # a sulcus
    found = counterfactual.ventricles(labels)
    assert torch.equal(found, disc() == 1)
    assert float(counterfactual.area(labels)) == 4 * int((disc() == 1).sum())  # pixels of 2 mm
    assert not counterfactual.ventricles(torch.zeros(1, 96, 96, dtype=torch.long)).any()


def test_grown_map_has_the_area_asked_and_grows_from_the_wall():
    labels = disc()
    for more in (0, 37, 150):
        asked = counterfactual.area(labels) + 4 * more
        grown = counterfactual.grown(labels, asked)
        assert torch.equal(counterfactual.area(grown), asked)
        assert ((grown == labels) | (grown == 1)).all()
    row, column = ((grown[0] == 1).nonzero() - 47.5).T
    assert (row.square() + column.square()).sqrt().max() < 10.5  # a disc of 263 pixels has a radius of 9.2


def test_grown_map_stays_in_the_brain():
    """A slab of a brain, 30 columns wide: what would grow beyond it grows along it, to the number of pixels asked."""
    labels = torch.zeros(1, 96, 96, dtype=torch.long)
    labels[:, :, 33:63] = 3
    labels[disc(3) == 1] = 1
    grown = counterfactual.grown(labels, torch.tensor([4.0 * 1000]))
    assert int((grown == 1).sum()) == 1000 and not (grown[labels == 0] > 0).any()


def test_push_moves_the_wall_by_what_is_asked_and_fades():
    field = counterfactual.push(disc(), by=4.0, reach=10.0)
    assert field.shape == (1, 96, 96, 2)
    length = field.norm(dim=-1)[0]
    assert float(length[47, 54]) == pytest.approx(2.0, rel=0.15)  # near the wall, at a radius of 6.5: 4 mm
    ratio = float(length[47, 64] / length[47, 59])  # 5 pixels further out
    assert ratio == pytest.approx(math.exp(-1), rel=0.05)
    assert field[0, 47, 58, 1] > 0 > field[0, 47, 37, 1]  # outwards
    assert not counterfactual.push(torch.full((1, 96, 96), 3), 4.0, 10.0).any()


def test_moving_by_whole_pixels_is_a_shift():
    x = noise(2, 1, 12, 14).float()
    field = torch.zeros(2, 12, 14, 2)
    field[..., 0], field[..., 1] = 2.0, -1.0  # two rows down, one column left
    torch.testing.assert_close(counterfactual.moved(x, field)[:, :, 2:, :-1], x[:, :, :-2, 1:], rtol=0, atol=1e-5)


def test_amount_of_push_gives_the_area():
    labels = torch.cat([disc(6), disc(8, wide=0.7)])
    asked = counterfactual.area(labels) * 1.6
    by = counterfactual.amount(labels, asked, reach=8.0)
    field = counterfactual.push(labels, by, 8.0)
    found = counterfactual.area(counterfactual.moved(labels[:, None], field, "nearest")[:, 0].long())
    torch.testing.assert_close(found, asked, rtol=0.08, atol=0)


def test_amount_of_push_gives_the_area_on_the_fine_map():
    """Asked for the area after a known push: within 2.5 mm^2, of which a disc's area jumps by up to 2, and eight
    halvings of 8 mm leave the rest."""
    labels = disc()

    def area_after(by):
        region = counterfactual.ventricles(labels)[:, None].float()
        soft = counterfactual.moved(region, counterfactual.push(labels, by, 8.0))
        fine = torch.nn.functional.interpolate(soft, scale_factor=4, mode="bilinear") > 0.5
        return fine.flatten(1).sum(1) / 16 * 4

    for by in (0.7, 1.3, 2.4, 3.3, 4.2, 5.2, 6.1):
        asked = area_after(by)
        torch.testing.assert_close(area_after(counterfactual.amount(labels, asked, reach=8.0)), asked, rtol=0, atol=2.5)


def test_paint_changes_new_fluid_alone():
    labels, x = disc(), torch.full((1, 1, 96, 96), 0.5)
    x[:, 0][labels == 1] = -0.6
    grown = counterfactual.grown(labels, counterfactual.area(labels) + 200)
    new = (grown == 1) & (labels != 1)
    expected = torch.where(new[:, None], torch.tensor(-0.6), x)
    torch.testing.assert_close(counterfactual.painted(x, labels, grown), expected)
    rows, columns = (labels[0] == 1).nonzero()[:3].T
    x[0, 0, rows, columns] = expected[0, 0, rows, columns] = 0.9  # a few bright pixels: the median stays
    torch.testing.assert_close(counterfactual.painted(x, labels, grown), expected)


# ---- counterfactuals in closed form ----------------------------------------------------------------------------------


class Given(Denoiser):
    """Exact denoiser of x | y ~ N(y, c I): a condition that moves the mean."""

    schedule = Cosine()

    def __init__(self, c):
        self.c = c

    def __call__(self, x_t, t, y):
        return GaussianDenoiser(y, self.c * torch.eye(2, dtype=torch.float64), self.schedule)(x_t, t)


@pytest.mark.parametrize("t_0", [0.3, 0.6, 1.0])
def test_inversion_keeps_the_person_and_brings_a_share_of_the_effect(t_0):
    """x + (1 - sqrt G) (m' - m), with G = alpha^2 c / (alpha^2 c + sigma^2)."""
    c, before, after = 0.25, torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, -1.0]).double()
    denoiser, x = Given(c), noise(6, 2)
    alpha, sigma = float(Cosine().alpha(t_0)), float(Cosine().sigma(t_0))
    G = alpha**2 * c / (alpha**2 * c + sigma**2)
    found = counterfactual.inverted(denoiser, x, before, after, t_0, 600)
    torch.testing.assert_close(found, x + (1 - G**0.5) * (after - before), rtol=0, atol=0.02)
    torch.testing.assert_close(counterfactual.inverted(denoiser, x, before, before, t_0, 600), x, rtol=0, atol=0.02)


def test_sdedit_pays_for_the_effect_with_the_person():
    """Mean m' + G (x - m')."""
    c, t_0, after = 0.25, 0.35, torch.tensor([1.0, -1.0]).double()
    x = torch.tensor([[0.3, 0.8]]).double().expand(20_000, -1)
    found = counterfactual.sdedit(Given(c), x, t_0, 60, torch.Generator().manual_seed(0), after)
    alpha, sigma = float(Cosine().alpha(t_0)), float(Cosine().sigma(t_0))
    G = alpha**2 * c / (alpha**2 * c + sigma**2)
    torch.testing.assert_close(found.mean(0), after + G * (x[0] - after), rtol=0, atol=0.02)


def test_sdedit_without_a_map_is_noise_and_denoise():
    denoiser = GaussianDenoiser(MEAN[:2], COV[:2, :2], Cosine())
    x = noise(4, 2)
    expected = noise_and_denoise(denoiser, x, 0.4, 5, torch.Generator().manual_seed(3))
    torch.testing.assert_close(counterfactual.sdedit(denoiser, x, 0.4, 5, torch.Generator().manual_seed(3)), expected)


def test_a_method_that_is_held_to_an_effect_takes_the_best_setting_that_obtains_it():
    task, method = "larger ventricles", "inverted further, pushed map"
    assert image_to_image.TASKS[task].least[method] == 0.8
    rows = [
        {"task": task, "method": method, "split": "validation", "setting": {"t_0": t_0}, "psnr": [quality, quality]}
        | {"area_before": [100.0, 300.0], "area_of_truth": [200.0, 500.0], "area": area}
        for t_0, quality, area in ((0.4, 31, [150.0, 450.0]), (0.6, 29, [190.0, 460.0]), (0.8, 28, [200.0, 500.0]))
    ]
    shares = [image_to_image.effect(row) for row in rows]
    np.testing.assert_allclose(shares, [200 / 300, 250 / 300, 1.0])
    assert image_to_image.chosen(rows, task, method) == {"t_0": 0.6}


# ---- the record ------------------------------------------------------------------------------------------------------


def record_rows():
    return experiments.load("12_image_to_image")["rows"]


def test_record_is_whole_and_of_the_networks_that_are_here():
    rows = record_rows()
    for task, about in image_to_image.TASKS.items():
        for name, method in about.methods.items():
            mine = [row for row in rows if (row["task"], row["method"]) == (task, name)]
            needs = image_to_image.STUDY.needs({"task": task, "method": name})
            if needs is None:
                assert not mine
                continue
            assert all(row["needs"] == needs for row in mine)
            (test,) = [row for row in mine if row["split"] == "test"]
            assert test["setting"] == image_to_image.chosen(rows, task, name)
            n = image_to_image.REMOVED_CASES["test"] if task.startswith("removed") else image_to_image.CASES["test"]
            assert all(len(value) == n for value in test.values() if isinstance(value, list))
            if len(method.settings) > 1:
                validated = [row["setting"] for row in mine if row["split"] == "validation"]
                assert sorted(map(str, validated)) == sorted(map(str, method.settings))


@pytest.mark.parametrize(
    ("task", "name", "tolerance"),
    [
        ("denoising, 0.4", "TV", 0.02),
        ("denoising, 0.4", "posterior mean", 0.3),
        ("magnitude", "denoised, then corrected", 0.3),
        ("larger ventricles", "pushed", 0.02),
        ("larger ventricles", "inverted, pushed map", 0.5),
        ("larger ventricles", "inverted further, pushed map", 0.5),
        ("removed, mass", "biharmonic", 0.05),
        ("T1 to T2", "regression", 0.3),
        ("T1 to T2", "one curve", 0.02),
    ],
)
def test_first_cases_of_a_row_can_be_made_again(task, name, tolerance, monkeypatch):
    """PSNR in dB, in the precision of the record, which a busy machine may not take for the faster one."""
    monkeypatch.setattr(
        runtime, "precision", lambda: getattr(torch, experiments.load(image_to_image.STUDY.name)["precision"])
    )
    image_to_image.cases_of.cache_clear()  # in it are maps by a network
    rows = [row for row in record_rows() if (row["task"], row["method"], row["split"]) == (task, name, "test")]
    if not rows:
        pytest.skip(f"{name} of {task} is not in the record")
    again, _ = image_to_image.measure(task, name, rows[0]["setting"], "test", groups=1)
    np.testing.assert_allclose(again["psnr"], rows[0]["psnr"][: image_to_image.GROUP], rtol=0, atol=tolerance)


def test_settings_are_chosen_on_validation_alone():
    row = {"task": "denoising, 0.4", "method": "TV", "split": "validation"}
    rows = [row | {"setting": {"weight": 1}, "psnr": [20, 22]}, row | {"setting": {"weight": 2}, "psnr": [23, 24]}]
    rows.append(row | {"split": "test", "setting": {"weight": 1}, "psnr": [99]})
    assert image_to_image.chosen(rows, "denoising, 0.4", "TV") == {"weight": 2}
    assert image_to_image.chosen([], "denoising, 0.4", "posterior mean") == {}
    with pytest.raises(ValueError, match="no validation row of 'TV'"):
        image_to_image.chosen([], "denoising, 0.4", "TV")


def test_rows_of_a_network_that_is_not_here_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    for method, needs in (("regression", None), ("one curve", {})):
        assert image_to_image.STUDY.needs({"task": "T1 to T2", "method": method}) == needs


def test_given_and_what_if_are_the_same_person():
    from course_lib.datasets import synthetic_ventricles

    (x, before), (truth, after) = (synthetic_ventricles("validation", 2, walls) for walls in (0.0, 3.0))
    assert (counterfactual.area(after) > 1.1 * counterfactual.area(before)).all()
    far = (before == after) & (np.abs(x - truth) < 0.02)
    assert (far.mean((1, 2)) > 0.8).all()  # most of the picture has not moved
    again, _ = synthetic_ventricles("validation", 2, 0.0)
    np.testing.assert_array_equal(again, x)
