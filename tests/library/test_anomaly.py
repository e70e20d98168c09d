"""Anomaly detection: its networks, scores of methods against closed forms, and its record against a part made anew."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from course_lib import datasets, experiments, pretrained, runtime, schedules
from course_lib.applications import anomaly
from course_lib.denoisers import GaussianDenoiser
from course_lib.eight_bits import rounded
from course_lib.experiments import anomaly as study
from course_lib.losses import AutoencoderLoss
from course_lib.metrics import detection
from course_lib.networks import VectorAutoencoder
from course_lib.recipes import RECIPES, brain, quality, queue, runs

# ---- the networks ----------------------------------------------------------------------------------------------------

TINY_NECK = {"image_size": 32, "channels": (8, 16), "latent_size": 4}


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variational", [False, True])
def test_everything_passes_through_the_vector(variational):
    net, x = VectorAutoencoder(**TINY_NECK, variational=variational).eval(), noise(3, 1, 32, 32)
    z = net.encode(x)
    assert z.shape == (3, 4) and net.decode(z).shape == x.shape
    out, mu, sigma = net(x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(mu, z)
    eps = torch.randn(mu.shape, generator=torch.Generator().manual_seed(1)) if variational else 0.0
    torch.testing.assert_close(out, net.decode(mu + sigma * eps))
    assert variational or torch.equal(sigma, torch.ones_like(mu))
    if variational:  # MONAI's layer gives the logarithm of the variance
        log_var = net.autoencoder.logvar(net.autoencoder.encode(x).flatten(1))
        torch.testing.assert_close(sigma.square(), log_var.exp())


def test_loss_of_a_plain_autoencoder_is_its_error_alone():
    net, x = VectorAutoencoder(**TINY_NECK, variational=False).eval(), noise(3, 1, 32, 32)
    loss, _ = AutoencoderLoss(0.0)(net, (x, None), torch.Generator())
    expected = F.l1_loss(net.decode(net.encode(x)), x, reduction="none").flatten(1).mean(1)
    torch.testing.assert_close(loss, expected)


def test_the_neck_tells_brightness():
    """Instance normalisation, MONAI's default, would make x and a brighter x nearly the same."""
    torch.manual_seed(0)
    net, x = VectorAutoencoder(**TINY_NECK).eval(), noise(1, 1, 32, 32)
    assert (net.encode(x + 1) - net.encode(x)).abs().max() > 0.01


SMALLER = {
    "brain_noisy_classifier": RECIPES["brain_noisy_classifier"].network_args,
    "brain_two_classes": {"channels": (32, 32), "num_res_blocks": 1, "patch": 4, "num_classes": 2},
    "brain_ae": TINY_NECK | {"variational": False},
    "brain_vae": TINY_NECK | {"variational": True},
    "brain_dae": {"channels": (32, 32), "num_res_blocks": 1, "patch": 4},
}


@pytest.fixture
def few_and_small(monkeypatch):
    """Slices are of 32 x 32, four of each sort, and samples are drawn in two steps."""
    from data_fetch import brain_cohort

    cohort, few = brain_cohort.cohort, 4
    monkeypatch.setattr(brain_cohort, "cohort", lambda split, n, size, **options: cohort(split, few, 32, **options))
    monkeypatch.setattr(brain, "FD_IMAGES", few)
    monkeypatch.setattr(quality, "FD_NFE", 2)
    datasets.healthy_brains.cache_clear()
    yield
    datasets.healthy_brains.cache_clear()


@pytest.mark.parametrize("name", [*SMALLER, "brain_control"])
def test_each_recipe_trains_ships_and_is_measured(name, few_and_small, tmp_path):
    """Its own data, loss and measure, with few and small images and a small network."""
    args = SMALLER.get(name, RECIPES[name].network_args)
    recipe = dataclasses.replace(RECIPES[name], network_args=args, image_size=32, batch_size=4, steps=2)
    if name == "brain_two_classes":  # the brain that ships is larger than this one; see the next test
        recipe = dataclasses.replace(recipe, start=None)
    for _ in runs.run(recipe, tmp_path, torch.float32):
        pass
    runs.ship(recipe, tmp_path, tmp_path)
    card = json.loads((tmp_path / f"{name}.json").read_text())
    measured = {
        "brain_noisy_classifier": ("test_accuracy", "test_images"),
        "brain_two_classes": ("frechet_distance", "share_with_a_lesion"),
        "brain_control": ("test_dice", "test_images"),
        "brain_dae": ("psnr", "psnr_of_noisy", "contrast_kept"),
    }
    for key in measured.get(name, ("psnr", "psnr_of_the_mean_image", "contrast_kept")):
        assert card[key] is not None
    assert set(card.get("share_with_a_lesion", {})) in (set(), {"healthy", "lesion"})


def test_the_network_of_two_classes_goes_on_from_that_of_healthy_brains(few_and_small, monkeypatch, tmp_path):
    """By its recipe, with a small network for ``brain``: it begins with brain's answers whatever the class, learns by
    AdamW to tell the classes, ships in eight bits, and is measured."""
    entry = next(entry for entry in queue.QUEUE if entry.name == "brain_two_classes")
    recipe, base = entry.recipe(), RECIPES["brain"]
    assert recipe.network_args == base.network_args | {"num_classes": 2}
    assert (type(recipe.loss.schedule), recipe.loss.kind) == (type(base.loss.schedule), base.loss.kind)
    assert recipe.start == "brain" and recipe.optimizer == "AdamW"

    # of 64 channels, since where each is a group of its own, normalising takes the class off again
    small, weights = {"channels": (64, 64), "num_res_blocks": 1, "patch": 4}, tmp_path / "weights"
    weights.mkdir()
    for path in pretrained.WEIGHTS.glob("brain_features.*"):
        shutil.copy(path, weights)
    monkeypatch.setattr(pretrained, "WEIGHTS", weights)
    torch.manual_seed(0)
    base = dataclasses.replace(base, network_args=small)
    net = base.fresh()
    for parameter in net.parameters():  # as after training: no last layer of a block is zero any more
        parameter.data += 0.05 * torch.randn_like(parameter)
    pretrained.save("brain", rounded(net), base.describe())

    def trained(folder, **changes):
        args = {"network_args": small | {"num_classes": 2}, "image_size": 32, "batch_size": 4}
        recipe = entry.recipe(8, **(args | changes))
        *_, state = runs.run(recipe, tmp_path / folder, torch.float32)
        assert state.step == 2
        return recipe, state.net.eval()

    def answers(net, y):
        with torch.no_grad():
            return net(noise(3, 1, 32, 32).to(runtime.device()), 0.5, *([] if y is None else [torch.tensor(y)])).cpu()

    _, still = trained("still", peak_rate=1e-12)
    torch.testing.assert_close(answers(still, [0, 1, 2]), answers(pretrained.load("brain"), None), rtol=0, atol=1e-5)
    recipe, moved = trained("moved")
    assert (answers(moved, [0, 0, 0]) - answers(moved, [1, 1, 1])).abs().max() > 1e-6
    card = runs.ship(recipe, tmp_path / "moved")
    assert card["start"] == "brain" and "optimizer" not in card and card["steps"] == 2
    assert set(card["share_with_a_lesion"]) == {"healthy", "lesion"} and card["frechet_distance"] > 0
    assert entry.misses(card), "an untrained network misses the bar, in words"
    denoiser = pretrained.load_denoiser("brain_two_classes")  # as the study of notebook 11 loads it
    assert denoiser(noise(2, 1, 32, 32), 0.5, y=torch.tensor([0, 1])).shape == (2, 1, 32, 32)


def test_shipped_size_of_the_recipes_stays_small():
    """In float16, 2.5 MB at most each; ``brain_two_classes`` is as large as ``brain``."""
    from course_lib.networks import build

    for name in SMALLER.keys() - {"brain_two_classes"}:
        net = build(RECIPES[name].network, **RECIPES[name].network_args)
        assert 2 * sum(parameter.numel() for parameter in net.parameters()) < 2.5e6, name


def test_half_of_the_classes_images_have_a_lesion(monkeypatch):
    monkeypatch.setattr(datasets, "brain_maps", lambda split, n: (None, np.array([[[0, 3]], [[4, 3]], [[1, 2]]])))
    assert datasets.healthy_or_not("train", 3)[1].tolist() == [0, 1, 0]


# ---- coarse noise ----------------------------------------------------------------------------------------------------


def test_coarse_noise_has_the_covariance_of_its_interpolation_and_stays_in_the_brain():
    """Against NumPy's linear interpolation, row by row: W of shape (96, 12), corner on corner, rolled by all shifts.

    The mean over shifts of a pixel's variance is std^2 (mean of diag(W W^T))^2, 0.45 std^2; that of the products of two
    pixels of a row follows from the other diagonals of W W^T. Tolerance: about five standard errors of 300 images.
    """
    inside = torch.zeros(96, 96, dtype=torch.bool)
    inside[10:80, 20:90] = True
    x = torch.where(inside, 0.2, -1.0).expand(300, 1, 96, 96)
    generator = torch.Generator().manual_seed(0)
    noise = torch.cat([anomaly.with_coarse_noise(part, generator) - part for part in x.split(1)])[:, 0]
    assert (noise[:, ~inside] == 0).all() and noise[:, inside].abs().max() > 0.5
    W = np.stack([np.interp(np.linspace(0, 11, 96), np.arange(12), row) for row in np.eye(12)], 1)
    along = [np.mean([(W @ W.T)[k, (k + lag) % 96] for k in range(96)]) for lag in (0, 1, 8, 24)]
    assert 0.40 < along[0] ** 2 < 0.50  # the standard deviation is two thirds of that of the numbers
    block = noise[:, 10:80, 20:90].double()
    for lag, expected in zip((0, 1, 8, 24), along):
        found = (block[:, :, lag:] * block[:, :, : 70 - lag]).mean()
        assert float(found) == pytest.approx(0.33**2 * along[0] * expected, abs=0.003)
    assert abs(float(block.mean())) < 0.01


def test_coarse_noise_is_of_its_generator_and_rolls():
    x = torch.zeros(2, 1, 32, 32)  # brain everywhere
    drawn = [anomaly.with_coarse_noise(x, torch.Generator().manual_seed(seed)) for seed in (0, 0, *range(1, 9))]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])
    # where the last row meets the first the noise is torn: at another row for each roll
    tears = [int((noise - noise.roll(1, 2)).abs().mean((0, 1, 3)).argmax()) for noise in drawn[1:]]
    assert len(set(tears)) > 3
    assert (anomaly.with_coarse_noise(-torch.ones(1, 1, 20, 12), None) == -1).all()  # no brain, sides of any length


def test_the_denoising_autoencoder_is_asked_without_noise(monkeypatch):
    """Its score is the blurred |x - net(x, 0)|, 0 outside the brain."""
    x = 0.5 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    x[:, :3] = -1
    asked = []

    def net(y, t):
        asked.append((y, t))
        return 0.9 * y

    monkeypatch.setattr(pretrained, "load", {"brain_dae": net}.get)
    score, twin = study.scores("denoising autoencoder", x, {})
    assert torch.equal(asked[0][0].cpu()[:, 0], x) and asked[0][1] == 0.0 and len(asked) == 1
    torch.testing.assert_close(twin, (0.9 * x))
    torch.testing.assert_close(score, anomaly.residual_score(x, 0.9 * x))


# ---- measures --------------------------------------------------------------------------------------------------------


def test_average_precision_and_auroc_against_monai():
    from monai.metrics import compute_average_precision, compute_roc_auc

    truth = (noise(300) > 1).float()
    scores = noise(300, seed=1) + truth
    rounded = (4 * scores).round()  # with ties
    assert detection.average_precision(scores, truth) == pytest.approx(
        float(compute_average_precision(scores, truth)), abs=1e-6
    )
    for s in (scores, rounded):
        assert detection.auroc(s, truth) == pytest.approx(float(compute_roc_auc(s, truth)), abs=1e-6)


def test_scores_without_information_have_the_floor():
    rng = np.random.default_rng(0)
    truth = rng.random(200_000) < 0.02
    assert detection.average_precision(rng.random(200_000), truth) == pytest.approx(truth.mean(), rel=0.05)
    assert detection.auroc(rng.random(200_000), truth) == pytest.approx(0.5, abs=0.02)
    assert detection.average_precision(np.zeros(200_000), truth) == pytest.approx(truth.mean())  # all tied
    with pytest.raises(ValueError, match="both kinds"):
        detection.average_precision(rng.random(3), np.zeros(3))


def test_average_precision_by_hand():
    """Positives at ranks 1 and 3: (1/1 + 2/3) / 2."""
    assert detection.average_precision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx(5 / 6)


def test_a_region_is_all_that_a_statistic_sees():
    scores, truth = np.arange(8.0).reshape(2, 2, 2), np.arange(8).reshape(2, 2, 2) % 2
    inside = np.array([[[True, True], [False, False]], [[False, True], [True, True]]])
    found = detection.in_region(lambda s, m: (s.tolist(), m.tolist()), scores, truth, inside)
    assert found == [([0.0, 1.0], [0, 1]), ([5.0, 6.0, 7.0], [1, 0, 1])]


def test_counts_dice_and_false_alarms_by_hand():
    scores = np.array([[[0.9, 0.8], [0.2, 0.1]]])
    true, positives = detection.counts(scores, np.array([[[1, 0], [1, 0]]]), [0.5, 0.15])
    assert true.tolist() == [[1, 2]] and positives.tolist() == [[2, 3]]
    assert detection.counts(scores, scores > 0.85, np.array([0.9, 0.8]))[1].tolist() == [[1, 2]], "at or above"
    assert detection.dice(true, positives, 2).tolist() == [[0.5, 0.8]]
    assert detection.dice(0, 0, 0) == 0
    mask = np.zeros((8, 8), int)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = 1  # one piece: corners touch
    mask[6, 6:] = 1  # too small
    assert detection.false_alarms(mask) == 1 and detection.false_alarms(mask, smallest=2) == 2
    assert detection.false_alarms(0 * mask) == 0


# ---- methods ---------------------------------------------------------------------------------------------------------

COSINE = schedules.Cosine()


def correlated(d=4):
    at = torch.arange(d, dtype=torch.float64)
    return torch.exp(-(at[:, None] - at).abs() / 2) + 0.1 * torch.eye(d, dtype=torch.float64)


def test_smoothing_against_scipy():
    from scipy.ndimage import gaussian_filter

    x = noise(2, 12, 15).double()
    expected = np.stack([gaussian_filter(image, 1.0, truncate=3.0, mode="nearest") for image in x.numpy()])
    torch.testing.assert_close(anomaly.smooth(x), torch.as_tensor(expected), rtol=1e-9, atol=1e-12)


def test_the_residual_is_blurred_first_and_cut_to_the_brain_then():
    """What differs beside the brain is blurred into it; nothing is left outside."""
    x = torch.full((1, 16, 16), -1.0)
    x[0, 4:12, 4:12] = 0.2
    twin = torch.zeros(1, 16, 16)
    expected = anomaly.smooth((x - twin).abs()) * (x > -0.95)
    torch.testing.assert_close(anomaly.residual_score(x, twin), expected, rtol=0, atol=0)
    assert float(expected[0, 4, 4]) > 0.4 and float(expected[0, 8, 8]) == pytest.approx(0.2, abs=1e-3)


def test_directions_of_healthy_against_the_singular_value_decomposition():
    images, x = noise(20, 6, 6), noise(3, 6, 6, seed=1)
    healthy = anomaly.Healthy(images, K=5)
    flat = images.flatten(1).double()
    _, _, rows = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    offset = x.flatten(1).double() - flat.mean(0)
    for K in (5, 2):
        expected = (flat.mean(0) + offset @ rows[:K].T @ rows[:K]).reshape(x.shape).float()
        torch.testing.assert_close(healthy.project(x, K), expected, rtol=1e-4, atol=1e-5)
    for least in (0.0, 0.05):
        expected = (x - images.mean(0)).abs() / (images.std(0) + least)
        torch.testing.assert_close(healthy.z(x, least), expected, rtol=1e-4, atol=0)
    assert torch.equal(healthy.z(x), healthy.z(x, 0.05))
    with pytest.raises(ValueError, match="number of images"):
        anomaly.Healthy(images, K=20)


def test_noise_and_denoise_keeps_and_forgets_what_the_formula_says():
    """20,000 runs of 200 steps on a Gaussian: mean G a, covariance of the restoration given x (I + G) C (I - G)."""
    cov, t_0 = correlated(), 0.4
    a = torch.tensor([0.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    denoiser = GaussianDenoiser(torch.zeros(4, dtype=torch.float64), cov, COSINE)
    runs = anomaly.noise_and_denoise(denoiser, a.expand(20_000, -1), t_0, 200, torch.Generator().manual_seed(0))
    G, one = anomaly.gain(cov, COSINE, t_0), torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(runs.mean(0), G @ a, rtol=0, atol=0.03)
    torch.testing.assert_close(torch.cov(runs.T), (one + G) @ cov @ (one - G), rtol=0, atol=0.03)
    means = anomaly.one_step(denoiser, a.expand(20_000, -1), t_0, 1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cov(means.T), G @ cov @ (one - G), rtol=0, atol=0.03)
    averaged = anomaly.one_step(denoiser, a.expand(20_000, -1), t_0, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cov(averaged.T), G @ cov @ (one - G) / 4, rtol=0, atol=0.02)


@pytest.mark.parametrize("sampled", [True, False])
def test_detectability_against_simulation(sampled):
    cov, t_0, n, draws = correlated(), 0.4, 100_000, 3
    a = torch.tensor([0.0, 1.5, 1.5, 0.0], dtype=torch.float64)
    G, generator = anomaly.gain(cov, COSINE, t_0), torch.Generator().manual_seed(0)
    alpha, sigma = COSINE.alpha(t_0), COSINE.sigma(t_0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    h = draw(n, 4) @ torch.linalg.cholesky(cov).T
    root = torch.linalg.cholesky(cov - G @ cov).T  # of the posterior covariance C (I - G)
    twins = [h @ G.T + sigma / alpha * draw(n, 4) @ G.T + sampled * draw(n, 4) @ root for _ in range(draws)]
    statistic = (h - sum(twins) / draws) @ a
    shift = a @ (a - G @ a)
    expected = anomaly.detectability(cov, COSINE, t_0, a, draws, sampled)
    assert float(shift / statistic.std()) == pytest.approx(expected, rel=0.01)


def test_detectability_at_its_ends():
    cov, a = correlated(), torch.tensor([0.0, 1.5, 1.5, 0.0], dtype=torch.float64)
    ceiling = float((a @ torch.linalg.solve(cov, a)).sqrt())
    assert anomaly.detectability(cov, COSINE, 1e-3, a, draws=float("inf")) == pytest.approx(ceiling, rel=1e-4)
    another = float(a @ a / (2 * a @ cov @ a).sqrt())  # all is noise: the restoration is another person
    assert anomaly.detectability(cov, COSINE, 1.0, a) == pytest.approx(another, rel=1e-6)
    assert anomaly.detectability(cov, COSINE, 1e-3, a) < 0.01 * ceiling
    for t in (0.1, 0.5, 0.9):
        assert anomaly.detectability(cov, COSINE, t, a, 10) < ceiling


def test_inversion_and_back_is_the_image_itself():
    cov = correlated()
    denoiser = GaussianDenoiser(torch.zeros(4, dtype=torch.float64), cov, COSINE)
    x = noise(8, 4).double()
    errors = [float((anomaly.heal(denoiser, denoiser, x, 0.5, n) - x).abs().max()) for n in (20, 200)]
    assert errors[1] < 0.01 and errors[1] < 0.2 * errors[0]  # of first order


def test_guided_back_moves_towards_what_it_is_guided_to():
    cov, zero = correlated(), torch.zeros(4, dtype=torch.float64)
    denoiser, other = GaussianDenoiser(zero, cov, COSINE), GaussianDenoiser(zero + 3, cov, COSINE)
    x = noise(8, 4).double()
    assert (anomaly.heal(denoiser, other, x, 0.5, 50) - x).mean() > 0.3


# ---- the record ------------------------------------------------------------------------------------------------------


def record_rows():
    return experiments.load("11_anomaly")["rows"]


def test_each_method_of_the_record_is_whole_and_of_the_networks_that_are_here():
    rows = record_rows()
    for name in {row["method"] for row in rows}:
        mine = [row for row in rows if row["method"] == name]
        assert all(study.STUDY.is_fresh(row) for row in mine)
        settings = [row["setting"] for row in mine if row["split"] == "validation"]
        assert sorted(map(str, settings)) == sorted(map(str, study.METHODS[name].settings))
        choice = study.chosen(rows, name)["setting"]
        assert all(row["setting"] == choice for row in mine if row["split"] == "test")
        tested = [(row["family"], row["strength"]) for row in mine if row["split"] == "test"]
        made = [key for key in tested if key[0] != datasets.REAL_FAMILY]  # real lesions are not everywhere
        assert sorted(map(str, made)) == sorted(map(str, study.TESTED)) and len(tested) - len(made) in (0, 1)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("bright threshold", 1e-3), ("supervised segmenter", 0.05), ("noise and denoise", 0.05)]
)
def test_first_cases_of_a_row_can_be_made_again(name, tolerance):
    """Within what another precision of the network changes."""
    rows, n = record_rows(), study.BATCH
    if name not in {row["method"] for row in rows}:
        pytest.skip(f"{name} is not in the record yet")
    choice = study.chosen(rows, name)
    (row,) = [r for r in rows if (r["method"], r.get("family"), r.get("strength")) == (name, "hyper", 1.0)]
    cohort = study.cases("test", "hyper")
    few = dataclasses.replace(cohort, **{k: getattr(cohort, k)[:n] for k in ("images", "healthy", "labels", "masks")})
    again = study.tested(name, choice, few, "hyper")
    for key in ("average_precision", "dice", "prevalence"):
        np.testing.assert_allclose(again[key], row[key][:n], rtol=0, atol=tolerance)


def test_settings_are_chosen_on_validation_alone():
    rows = [
        {"split": "validation", "method": "a", "setting": {"K": 1}, "average_precision": 0.2},
        {"split": "validation", "method": "a", "setting": {"K": 2}, "average_precision": 0.3},
        {"split": "test", "method": "a", "average_precision": [0.9]},
    ]
    assert study.chosen(rows, "a")["setting"] == {"K": 2}
    with pytest.raises(ValueError, match="no validation row of 'b'"):
        study.chosen(rows, "b")


@pytest.mark.parametrize("here", [False, True])
def test_test_rows_of_a_setting_that_is_no_longer_the_best_are_dropped(here, monkeypatch):
    """And real lesions are among the rows only where their data set is."""
    monkeypatch.setattr(study, "is_here", lambda name: here)

    def row(split, K, **more):
        return {"split": split, "method": "PCA", "setting": {"K": K}} | more

    monkeypatch.setattr(study, "METHODS", {"PCA": study.METHODS["PCA"]})
    rows = [row("validation", 8, average_precision=0.2), row("test", 8, family="hyper", strength=1.0)]
    rows += [row("validation", 16, average_precision=0.3), row("test", 16, family="hypo", strength=1.0)]
    record = {"rows": rows}
    keys = list(study.plan(record))
    assert [key["setting"]["K"] for key in keys if key["split"] == "validation"] == [8, 16, 32, 64, 128]
    tested = [(key["family"], key["strength"]) for key in keys if key["split"] == "test" and key["setting"]["K"] == 16]
    assert tested == study.TESTED + [("ms", 1.0)] * here
    assert [(row["split"], row["setting"]["K"]) for row in record["rows"]] == [
        ("validation", 8),
        ("validation", 16),
        ("test", 16),
    ]


def test_persons_of_the_recorded_real_lesions_are_those_of_the_subjects():
    """One list for all methods; made again where the data set is here."""
    rows = [row for row in record_rows() if row.get("family") == datasets.REAL_FAMILY]
    persons = rows[0]["persons"]
    assert all(row["persons"] == persons and len(row["dice"]) == len(persons) for row in rows)
    assert all(person % 5 == 0 for person in persons), "every fifth person is of the test split"
    if datasets.is_here("ms_lesions"):
        assert datasets.lenders(study.cases("test", datasets.REAL_FAMILY).numbers) == persons


def test_no_subject_is_in_two_sets():
    from data_fetch import brain_cohort

    seeds = range(40, 47)
    for split, sizes in (("test", [16] * 5 + [32, 16]), ("validation", [8] * 5)):
        drawn = [brain_cohort.numbers(split, n, seed) for seed, n in zip(seeds, sizes)]
        together = np.concatenate(drawn)
        assert len(np.unique(together)) == len(together)
