"""Floors, kernel distance, copies, intervals: against brute force, simulation and closed forms; the record of notebook
08 against what it is made of."""

import math

import pytest
import torch

from course_lib import experiments, pretrained
from course_lib.experiments import synthesis
from course_lib.metrics import intervals, memorisation
from course_lib.metrics.distribution import (
    Moments,
    expected_floor,
    extrapolated,
    frechet_distance,
    kernel_distance,
    moments,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- the floor of the Fréchet distance -------------------------------------------------------------------------------


def test_floor_of_the_unit_gaussian_is_the_closed_form():
    """d (d + 5) / (2 N), not d (d + 3) / (2 N): the means give 2 d / N, the covariances d (d + 1) / (2 N)."""
    for d, n in ((1, 7), (4, 100), (16, 50)):
        assert expected_floor(torch.eye(d), n, n) == pytest.approx(d * (d + 5) / (2 * n), rel=1e-12)


def test_floor_against_simulation_with_unequal_eigenvalues_and_sizes():
    """40 pairs of samples, within 6 %; the sum over directions is not that of d equal ones."""
    scales = torch.tensor([9.0, 4.0, 1.0, 0.25, 0.01]).double()
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator(), dtype=torch.float64)).Q
    n, m, scores = 300, 900, []
    g = generator(1)
    for _ in range(40):
        x, y = (torch.randn(k, 5, generator=g, dtype=torch.float64) * scales.sqrt() @ turn.T for k in (n, m))
        scores.append(frechet_distance(moments(x), moments(y)))
    cov = turn @ torch.diag(scales) @ turn.T
    assert sum(scores) / 40 == pytest.approx(expected_floor(cov, n, m), rel=0.06)


def test_floor_in_one_dimension_by_hand():
    """FD = (m1 - m2)^2 + (s1 - s2)^2; with unit variance E = 2/N + 2 * 1/(2 N) = 3/N."""
    assert expected_floor(torch.ones(1, 1), 50, 50) == pytest.approx(3 / 50)


def test_extrapolation_finds_the_constant_of_a_line_in_one_over_n():
    sizes = torch.tensor([60, 120, 240, 600])
    limit, slope = extrapolated(sizes, 2.5 + 90 / sizes)
    assert (limit, slope) == (pytest.approx(2.5), pytest.approx(90))
    with pytest.raises(ValueError, match="two sizes"):
        extrapolated([100, 100], [1.0, 2.0])


def test_extrapolation_of_samples_comes_near_the_truth():
    """A shifted Gaussian, true distance 1; at N = 100 the score is a third above it, extrapolated within 0.1."""
    d, g = 8, generator(2)
    true = Moments(torch.zeros(d).double(), torch.eye(d).double(), 10**9)
    sizes, scores = (50, 100, 200, 400), []
    for n in sizes:
        draws = [torch.randn(n, d, generator=g) + 1 / math.sqrt(d) for _ in range(60)]
        scores.append(sum(frechet_distance(moments(x), true) for x in draws) / 60)
    assert scores[1] > 1.2
    assert extrapolated(sizes, scores)[0] == pytest.approx(1, abs=0.1)


def test_moments_of_one_feature_are_a_matrix():
    x, y = torch.randn(9, 1, generator=generator()), 3 * torch.randn(7, 1, generator=generator(1)) + 2
    by_hand = float((x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2)
    assert moments(x).cov.shape == (1, 1)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(by_hand, rel=1e-5)


# ---- drawn sets, kept in the temporary folder ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("VAE", "VAE", synthesis.VAE | {"latent_size": 7}),
        *((name, "IMAGES", 60) for name in ("VAE", "PCA-Gaussian")),
        *(("VAE", setting, 3) for setting in ("VAE_STEPS", "VAE_BATCH", "VAE_RATE", "GAUSSIAN_IMAGES")),
        ("PCA-Gaussian", "GAUSSIAN_IMAGES", 3),
        ("diffusion", "STEPS", 3),
        ("weak diffusion", "NETWORKS", {"weak diffusion": "mednist"}),
    ],
)
def test_a_set_is_drawn_anew_under_other_settings(name, setting, value, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    one, other = torch.zeros(2), torch.ones(2)
    assert torch.equal(synthesis._kept(name, lambda: one)[0], one)
    assert torch.equal(synthesis._kept(name, lambda: other)[0], one)
    monkeypatch.setattr(synthesis, setting, value)
    assert torch.equal(synthesis._kept(name, lambda: other)[0], other)


# ---- kernel distance -------------------------------------------------------------------------------------------------


def test_kernel_distance_is_the_double_sum():
    x = torch.randn(7, 3, generator=generator(), dtype=torch.float64)
    y = torch.randn(5, 3, generator=generator(1), dtype=torch.float64) + 0.5

    def k(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    within = [
        sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    across = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-12)
    assert kernel_distance(x, y) == pytest.approx(kernel_distance(y, x), rel=1e-12)


def test_kernel_distance_is_unbiased_and_may_be_negative():
    """200 pairs of 20-samples of one distribution: mean zero within three standard errors, a third or more below zero;
    the Fréchet distance of the same pairs is never near zero."""
    g = generator(3)
    pairs = [torch.randn(2, 20, 4, generator=g) for _ in range(200)]
    scores = torch.tensor([kernel_distance(*pair) for pair in pairs])
    assert abs(float(scores.mean())) < 3 * float(scores.std()) / 200**0.5
    assert float((scores < 0).double().mean()) > 0.33
    assert min(frechet_distance(moments(a), moments(b)) for a, b in pairs) > 0.2


def test_kernel_distance_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="got"):
        kernel_distance(torch.randn(5, 3), torch.randn(5, 4))
    with pytest.raises(ValueError, match="M > k = 1"):
        kernel_distance(torch.randn(5, 3), torch.randn(1, 3))


# ---- copies ----------------------------------------------------------------------------------------------------------


def test_nearest_is_the_root_mean_square():
    others = torch.randn(5, 3, 4, generator=generator())
    distance, which = memorisation.nearest_rms(others[[3, 1]] + 0.25, others)
    torch.testing.assert_close(distance, torch.tensor([0.25, 0.25]), rtol=0, atol=1e-5)
    assert which.tolist() == [3, 1]


def test_nearest_and_crowd_by_brute_force():
    images, others = torch.randn(4, 6, generator=generator()), torch.randn(9, 6, generator=generator(1))
    nearest, crowd = memorisation.nearest_and_crowd(images, others, k=3)
    for i, image in enumerate(images):
        rms = sorted(math.sqrt(float((image - other).square().mean())) for other in others)
        assert float(nearest[i]) == pytest.approx(rms[0], rel=1e-5)
        assert float(crowd[i]) == pytest.approx(sum(rms[:3]) / 3, rel=1e-5)
    with pytest.raises(ValueError, match="10 neighbours"):
        memorisation.nearest_and_crowd(images, others, k=10)


@pytest.mark.parametrize(("n", "level"), [(19, 0.05), (100, 0.05), (39, 0.1)])
def test_threshold_keeps_its_level_for_any_distribution(n, level):
    """3,000 new values against thresholds from n: flagged in floor(level (n + 1)) / (n + 1), within sampling error."""
    g, flagged = generator(4), 0
    for _ in range(3000):
        null = torch.rand(n + 1, generator=g) ** 3
        flagged += float(null[-1]) < memorisation.threshold(null[:-1], level)
    exact = int(level * (n + 1) + 1e-9) / (n + 1)
    assert exact <= level
    assert flagged / 3000 == pytest.approx(exact, abs=3 * math.sqrt(exact / 3000))


def test_threshold_needs_enough_values():
    with pytest.raises(ValueError, match="at least 19"):
        memorisation.threshold(torch.rand(18), 0.05)


# ---- intervals -------------------------------------------------------------------------------------------------------


def test_jackknife_leaves_out_whole_turns_of_the_classes():
    """Six classes far apart, in turn, as many of each: a mean over balanced sets hardly varies."""
    x = torch.arange(240.0)[:, None] % 6 * 100 + torch.randn(240, 1, generator=torch.Generator().manual_seed(0))
    mixed, whole = (intervals.jackknife(lambda f: float(f.mean()), x, turn=turn)[1] for turn in (1, 6))
    assert whole < 0.2 < 1 < mixed


def test_jackknife_of_a_mean_is_the_textbooks_standard_error():
    """With blocks of one image: s / sqrt(N)."""
    x = torch.randn(50, 1, generator=generator())
    value, error = intervals.jackknife(lambda f: float(f.mean()), x, blocks=50)
    assert value == pytest.approx(float(x.mean()))
    assert error == pytest.approx(float(x.std()) / 50**0.5, rel=1e-5)
    assert intervals.with_error(x[:, 0]) == pytest.approx((value, error), rel=1e-5)


def test_bootstrap_covers_as_it_says():
    """95 % intervals of the mean of 60 values hold the truth in 200 repetitions about 95 times in 100 (90 to 98)."""
    g, held = generator(5), 0
    for _ in range(200):
        _, low, high = intervals.bootstrap(torch.randn(60, generator=g), repeats=300)
        held += low <= 0 <= high
    assert 0.90 <= held / 200 <= 0.98


def test_bootstrap_of_groups_is_wider_where_neighbours_are_alike():
    values = torch.randn(40, generator=generator(6)).repeat_interleave(10)
    single, grouped = intervals.bootstrap(values), intervals.bootstrap(values, group=10)
    assert grouped[2] - grouped[1] > 2.5 * (single[2] - single[1])
    assert single[0] == grouped[0] == pytest.approx(float(values.mean()))
    with pytest.raises(ValueError, match="two groups"):
        intervals.bootstrap(torch.rand(10), group=10)


def test_bootstrap_of_named_groups():
    """Groups that are neighbours are those of the number; of a group of three and one alone the draws are both three,
    both one or one of each, and their means those of all the values drawn."""
    values, person = torch.randn(40, generator=generator(8)), torch.arange(40) // 4
    assert intervals.bootstrap(values, person) == intervals.bootstrap(values, 4)
    order = torch.randperm(40, generator=generator(9))
    assert intervals.bootstrap(values[order], person[order]) == pytest.approx(intervals.bootstrap(values, 4))
    assert intervals.bootstrap([0.0, 1.0, 0.0, 0.0], [7, 2, 7, 7]) == (0.25, 0.0, 1.0)
    assert intervals.bootstrap([0.0, 1.0, 0.0, 0.0], [7, 2, 7, 7], level=0.4) == (0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match="two groups"):
        intervals.bootstrap(torch.rand(3), [5, 5, 5])
    with pytest.raises(ValueError, match="values and group must have one shape"):
        intervals.bootstrap(torch.rand(3), [5, 5])


def test_intervals_over_persons_cover_and_those_over_slices_do_not():
    """60 persons with 1 to 12 slices each, alike within a person: the truth, 0, lies in 90 to 98 of 100 intervals of
    the persons' means, and in under 75 of those that take slices for cases."""
    g, held = generator(7), [0, 0]
    person = torch.arange(60).repeat_interleave(torch.arange(60) % 12 + 1)
    for _ in range(200):
        values = torch.randn(60, generator=g)[person] + 0.3 * torch.randn(len(person), generator=g)
        for k, cases in enumerate((intervals.means_of(values, person), values)):
            _, low, high = intervals.bootstrap(cases, repeats=300)
            held[k] += low <= 0 <= high
    assert 0.90 <= held[0] / 200 <= 0.98 and held[1] / 200 < 0.75


def test_means_of_groups_by_hand():
    means = intervals.means_of(torch.tensor([1.0, 5.0, 3.0, 2.0]), [7, 2, 7, 2])
    assert means.tolist() == [3.5, 2.0] and means.dtype == torch.float64
    with pytest.raises(ValueError, match="values and groups must have one shape"):
        intervals.means_of(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="1 of the 2 values are NaN"):
        intervals.means_of(torch.tensor([1.0, float("nan")]), torch.ones(2))


# ---- the study and its record ----------------------------------------------------------------------------------------


def test_gaussian_has_the_mean_and_covariance_of_its_images():
    """20,000 draws from 30 images of four pixels: moments within sampling error."""
    images = torch.randn(30, 2, 2, generator=generator())
    drawn = moments(synthesis.gaussian(images, 20_000, generator(1)).flatten(1))
    wanted = moments(images.flatten(1))
    torch.testing.assert_close(drawn.mean, wanted.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.cov, wanted.cov, rtol=0, atol=0.05)


def test_altered_copies_are_near_and_not_equal():
    images = torch.randint(0, 256, (8, 16, 16), generator=generator(), dtype=torch.uint8)
    images = torch.nn.functional.interpolate(images[:, None].float(), scale_factor=4, mode="bilinear")[:, 0].byte()
    copies = synthesis.altered(images, generator(1))
    assert copies.dtype == torch.uint8
    assert not (copies == images).all((1, 2)).any()
    distance, which = memorisation.nearest_rms(copies.float(), images.float())
    assert which.tolist() == list(range(8))
    assert 2 < float(distance.mean()) < 40


def test_blocks_do_not_see_contrast():
    images = torch.randint(60, 180, (3, 64, 64), generator=generator(), dtype=torch.uint8)
    brighter = (images.float() * 1.2 + 10).round().to(torch.uint8)
    difference = synthesis.blocks(images) - synthesis.blocks(brighter)
    assert float(difference.abs().max()) < 0.1
    assert torch.allclose(synthesis.blocks(images).mean(1), torch.zeros(3), atol=1e-5)


def test_a_rare_class_has_few_real_images(monkeypatch):
    """The sets have the sizes that the notebook states, and the made images are of the rare class alone."""
    y = torch.arange(600) % 6
    fake = {"real": torch.zeros(600, 32, 32) + y[:, None, None], "diffusion": torch.full((600, 32, 32), 9.0)}
    monkeypatch.setattr(synthesis, "training_set", lambda arm: (fake[arm], y))
    sizes = dict.fromkeys(synthesis.RARE_ARMS, 600) | {"as it is": 520}
    for arm, size in sizes.items():
        images, labels, shift = synthesis.rare_set(arm, 2)
        assert len(images) == len(labels) == size
        assert int((labels == 2).sum()) == size - 500
        assert (shift > 0) == (arm == "oversampled, shifted")
        assert int((images[:, 0, 0] == 9).sum()) == (80 if arm == "diffusion" else 0)
    with pytest.raises(ValueError, match="no way 'magic'"):
        synthesis.rare_set("magic", 2)


def test_the_record_holds_together():
    """Every row that is planned is there, and the stored features score what the row says of 240 images."""
    record, stored = experiments.load("08_synthesis"), experiments.tensors("08_synthesis")
    assert [{"kind": row["kind"], "name": row["name"]} for row in record["rows"]] == synthesis.plan()
    reference, labels = pretrained.reference("mednist_features"), stored["test labels"]
    for row in record["rows"]:
        if (features := stored.get(f"set/{row['name']}/features")) is not None and row["kind"] == "set":
            assert features.shape == (synthesis.STORED, 320)
            again = frechet_distance(moments(features), reference)
            assert again == pytest.approx(row["frechet_distance"][synthesis.SIZES.index(240)], rel=0.01)
        if row["kind"] == "classifier":
            share = float(stored[f"classifier/{row['name']}/hits"].double().mean()) / record["seeds"]
            assert share == pytest.approx(row["accuracy"], abs=1e-4)
    assert len(labels) == 2947
    size = sum(path.stat().st_size for path in experiments.record.RECORDS.glob("08_synthesis.*"))
    assert size < 1_600_000


def test_a_part_of_the_record_is_drawn_anew():
    """The first six images of the diffusion network: mean and spread of each within a grey level in fifty."""
    stored = next(row for row in experiments.load("08_synthesis")["rows"] if row["name"] == "diffusion")
    images = synthesis.sampled("diffusion", n=6).float() / 127.5 - 1
    drawn = torch.stack([images.mean((1, 2)), images.std((1, 2))], 1)
    torch.testing.assert_close(drawn, torch.tensor(stored["first_six"]), rtol=0, atol=0.04)
