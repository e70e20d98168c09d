"""Open challenges: the measures of the stress tests, the networks of the copies, and the record of notebook 14."""

import dataclasses

import numpy as np
import pytest
import torch

from course_lib import datasets, experiments, runtime, scans
from course_lib.experiments import challenges as lab
from course_lib.images import to_tensor
from course_lib.metrics.detection import touched
from course_lib.metrics.images import contrast_kept, psnr
from course_lib.recipes import RECIPES, copies, quality

# ---- measures --------------------------------------------------------------------------------------------------------


def noise(seed, n=8, size=96):
    return torch.randn(n, 1, size, size, generator=runtime.seeded(seed))


@pytest.mark.parametrize("R", lab.ACCELERATIONS)
def test_a_scan_measures_one_in_R_lines(R):
    A, _ = scans.scan(lab.problem_of(R), noise(0), 0)
    measured = A.lines.flatten(1).sum(1)
    assert ((measured - 96 / R).abs() <= (4 if R > 1 else 1)).all(), measured


def test_what_is_left_out_known_or_invented_on_missing_lines():
    truth = noise(0)
    A, _ = scans.scan(lab.problem_of(8), truth, 0)
    for found, error, energy in ((A.adjoint(A(truth)), 1.0, 0.0), (truth, 0.0, 1.0), (noise(1), 2.0, 1.0)):
        shares = lab.ring_shares(found, truth, A)
        assert shares[0].shape == (8, lab.RINGS)
        for share, expected in zip(shares, (error, energy)):  # the mean over eight images
            torch.testing.assert_close(share.mean(0), torch.full((lab.RINGS,), expected), atol=0.3, rtol=0)
    halfway = lab.ring_shares(0.5 * truth, truth, A)
    torch.testing.assert_close(halfway[0], torch.full_like(halfway[0], 0.25), atol=1e-4, rtol=0)


def test_rings_are_of_the_missing_lines_only():
    """A wrong coefficient on a measured line changes nothing; on a missing line it counts in its own ring."""
    truth = noise(0, n=1)
    A, _ = scans.scan(lab.problem_of(8), truth, 0)
    wave = torch.cos(2 * torch.pi * 40 * torch.arange(96) / 96)  # along the measured direction, at frequency 40 of 48
    for column in (0, next(k for k in range(1, 20) if A.lines[0, 0, 0, 48 + k] == 0)):
        across = torch.cos(2 * torch.pi * column * torch.arange(96) / 96)
        error, _ = lab.ring_shares(truth + wave[:, None] * across, truth, A)
        assert (error[0, :3] < 1e-6).all()
        assert (error[0, 3] > 0.1) == (column > 0)


def test_sharpness_by_hand():
    x = noise(0, n=2)
    torch.testing.assert_close(lab.sharpness(0.5 * x, x), torch.full((2,), 0.25), atol=1e-5, rtol=0)
    smooth = torch.ones_like(x)
    assert (lab.sharpness(smooth, x) < 1e-6).all()


def test_the_truth_has_a_misfit_of_one():
    x = noise(0).clamp(-1, 1)
    A, y = scans.scan(lab.problem_of(lab.SHIFT_R), x, 0)
    torch.testing.assert_close(lab.misfit(A, y, x), torch.ones(8), atol=0.06, rtol=0)
    assert (lab.misfit(A, y, -x) > 5).all()


def test_levels_are_the_same_people_elsewhere():
    middle, top, again = (
        datasets.synthetic_levels("test", 2, level, size=32) for level in (16, lab.LEVEL["vertex"], 16)
    )
    assert np.array_equal(middle, again) and middle.shape == (2, 32, 32)
    assert ((top > -0.9).sum((1, 2)) < 0.7 * (middle > -0.9).sum((1, 2))).all()
    with pytest.raises(ValueError, match="no shift 'feet'; there are: as trained"):
        lab.images_of("feet")


# ---- the networks of the copies --------------------------------------------------------------------------------------


def test_the_networks_of_the_copies_differ_in_data_and_steps_alone(monkeypatch):
    entries = [RECIPES[f"copies_{n}_{steps}"] for n, steps in copies.COPIES]
    for key in ("network", "network_args", "peak_rate", "seed", "image_size", "loss"):
        assert all(getattr(entry, key) == getattr(entries[0], key) for entry in entries)
    assert [entry.batch_size for entry in entries] == [min(n, 16) for n, _ in copies.COPIES]
    monkeypatch.setattr(datasets, "healthy_brains", lambda split, n, size: (split, n, size))
    assert [entry.load_data() for entry in entries] == [(("train", n, 32), None) for n, _ in copies.COPIES]


def people(split, n, size=32, seed=0):
    """Stand-ins for made brains, uint8: smooth random pictures; a longer draw begins with the shorter."""
    first = {"train": 0, "validation": 20_000, "test": 40_000}[split] + 5000 * seed
    coarse = torch.stack([torch.rand(1, 6, 6, generator=runtime.seeded(first + k)) for k in range(n)])
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")[:, 0]
    return (255 * fine).to(torch.uint8).numpy()


@pytest.mark.parametrize("n", [10, 100])
def test_copies_are_found_and_new_people_are_not(monkeypatch, n):
    monkeypatch.setattr(datasets, "healthy_brains", people)
    monkeypatch.setattr(copies, "coarse_features", lambda images: torch.as_tensor(images)[:, ::8, ::8].flatten(1))
    recipe, known = RECIPES[f"copies_{n}_3000"], to_tensor(people("train", n))[:, 0]
    for made, low, high in ((known[torch.arange(300) % n], 1.0, 1.0), (people("test", 300, seed=3), 0.0, 0.05)):
        drawn = to_tensor(made)[:, 0] + 0.002 * torch.randn(300, 32, 32, generator=runtime.seeded(0))
        monkeypatch.setattr(copies, "images", lambda *args, drawn=drawn, **options: drawn)
        quality, tensors = recipe.measure(recipe, None)
        assert low <= quality["share_of_copies"] <= high and quality["share_of_held_out"] < 0.04
        assert quality["training_images"] == n and tensors["reference.samples"].shape == (12, 32, 32)


def test_copies_are_trained_and_measured_in_one_go(monkeypatch, tmp_path):
    """Two steps instead of 3,000; a second call goes on from the checkpoint and finds the same."""
    monkeypatch.setattr(datasets, "healthy_brains", people)
    monkeypatch.setattr(copies, "coarse_features", lambda images: torch.as_tensor(images)[:, ::8, ::8].flatten(1))
    monkeypatch.setattr(quality, "FD_NFE", 2)
    monkeypatch.setitem(RECIPES, "copies_10_3000", dataclasses.replace(RECIPES["copies_10_3000"], steps=2))
    found, shown = lab.copies_row(10, 3000, tmp_path)
    assert found["steps"] == 2 and found["training_images"] == 10 and found["weights"] > 500_000
    assert {key: x.shape for key, x in shown.items()} == dict.fromkeys(("samples", "nearest"), (12, 32, 32))
    again, _ = lab.copies_row(10, 3000, tmp_path)
    assert again == found


# ---- the record ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    if not (experiments.record.RECORDS / "14_challenges.json").exists():
        pytest.skip("the record has not been made yet: python -m course_lib.experiments 14_challenges")
    return experiments.load("14_challenges")


def row_of(record, *key):
    row = next((row for row in record["rows"] if (row["kind"], row["name"], row["method"]) == key), None)
    return row if row is not None else pytest.skip(f"{key} has not been made yet")


@pytest.mark.parametrize(("R", "method", "within"), [(8, "zeros or FBP", 0.005), (12, "TV", 0.02), (8, "DiffPIR", 0.1)])
def test_a_part_of_the_lesions_is_remade(record, R, method, within):
    row, part = row_of(record, "lesion", R, method), lab.lab.group_of(1)
    healthy, sick, masks, _ = (x[part] for x in lab.lab.subjects())
    without, with_lesion = (lab.lab.drawn(lab.problem_of(R), method, x, 1)[0][0] for x in (healthy, sick))
    kept = contrast_kept(with_lesion, without, sick - healthy, masks)
    torch.testing.assert_close(kept, torch.tensor(row["contrast_kept"][part]), rtol=0, atol=within)


@pytest.mark.parametrize(("shift", "method", "within"), [("T2-like", "zeros or FBP", 0.01), ("vertex", "TV", 0.02)])
def test_a_part_of_the_shifts_is_remade(record, shift, method, within):
    row, part = row_of(record, "shift", shift, method), lab.lab.group_of(1)
    truth = lab.images_of(shift)[part]
    drawn, A, y = lab.lab.drawn(lab.problem_of(lab.SHIFT_R), method, truth, 1)
    torch.testing.assert_close(psnr(drawn[0], truth), torch.tensor(row["psnr"][part]), rtol=0, atol=within)
    torch.testing.assert_close(lab.misfit(A, y, drawn[0]), torch.tensor(row["misfit"][part]), rtol=0, atol=0.05)


def test_a_finding_is_large_enough_and_touches_the_lesion():
    above, mask = np.zeros((2, 9, 9), bool)
    above[1, 1:3] = above[2, 3] = True  # three pixels, the last by a corner
    above[6, 6:8] = True
    for row, column, found in ((2, 3, True), (1, 1, True), (6, 6, False), (4, 4, False)):
        mask[:] = False
        mask[row, column] = True
        assert touched(above, mask, lab.SMALLEST) == found


def test_a_part_of_the_reader_and_of_the_bands_is_remade(record):
    row, part = row_of(record, "reader", 8, "zeros or FBP"), lab.lab.group_of(1)
    cohorts = (x[part] for x in lab.lab.subjects()[:2])
    pictures = [lab.lab.drawn(lab.problem_of(8), "zeros or FBP", x, 1)[0][0] for x in cohorts]
    healthy, sick = (lab.lesion_probability(x) for x in pictures)
    masks = lab.lab.subjects()[2][part, 0].numpy()
    for k in range(3, len(lab.LEVELS), 3):
        level = lab.LEVELS[k]
        found = [touched(above, mask, lab.SMALLEST) for above, mask in zip((sick >= level).numpy(), masks)]
        false = [lab.false_alarms(above, lab.SMALLEST) for above in (healthy >= level).numpy()]
        assert np.abs(np.array(false) - np.array(row["false_findings"])[part, k]).max() <= 1
        assert np.abs(np.array(found, int) - np.array(row["found"])[part, k]).sum() <= 1
    row, x = row_of(record, "band", "T2-like", "TV"), lab.images_of("T2-like")[part]
    error = (lab.lab.drawn(lab.problem_of(lab.SHIFT_R), "TV", x, 1)[0][0] - x).abs()[lab.brain(x)]
    shares = [float((error <= half).float().mean()) for half in lab.HALF_WIDTHS]
    np.testing.assert_allclose(np.mean(row["share_within"][lab.GROUP : 2 * lab.GROUP], 0), shares, atol=0.02)


def test_both_records_agree_on_the_same_scans(record):
    """Notebook 09 measured the same subjects with the same seeds at R = 8."""
    if not (experiments.record.RECORDS / "09_reconstruction.json").exists():
        pytest.skip("the record of notebook 09 has not been made yet")
    theirs = {(row["problem"], row["method"]): row for row in experiments.load("09_reconstruction")["rows"]}
    for method in ("zeros or FBP", "TV", "DiffPIR"):
        ours, other = row_of(record, "lesion", 8, method), theirs[lab.problem_of(8), method]
        same = torch.tensor(ours["contrast_kept"]) - torch.tensor(other["contrast_kept"])
        assert same.abs().max() < (0.1 if method == "DiffPIR" else 0.005)


def test_the_record_is_whole(record):
    kept = experiments.pictures("14_challenges")
    assert {(row["kind"], row["name"], row["method"]) for row in record["rows"]} == {
        tuple(key.values()) for key in lab.plan()
    }
    for row in record["rows"]:
        assert lab.STUDY.is_fresh(row)
        lengths = {len(value) for value in row.values() if isinstance(value, list)}
        assert lengths <= {lab.GUIDED_IMAGES if row["kind"] == "guidance" else lab.CASES}
        if row["kind"] not in ("reader", "band"):
            assert any(key.startswith(f"{row['kind']}/{row['name']}/{row['method']}/") for key in kept)
    for name, n in lab.RARE.items():
        if (features := kept.get(f"rare/{name}//features")) is not None:
            assert len(features) == n and features.isfinite().all()
