"""The page of results: numbers of hand-made records against NumPy, sentences, and the page that is stored against the
records that are stored."""

import re

import numpy as np
import pytest
import torch

from course_lib import experiments
from course_lib.experiments import (
    anomaly,
    audits,
    bridge,
    challenges,
    image_to_image,
    labels,
    lidc,
    noise_limit,
    persons,
    raw_scan,
    real_persons,
    reconstruction,
    report,
    seeds,
    segmentation,
    synthesis,
    trainings,
    trends,
    tumour_trainings,
    tumours,
)
from course_lib.experiments.report import Contest
from course_lib.metrics.intervals import bootstrap
from course_lib.scans import FINE, PROBLEMS


def rng():
    return np.random.default_rng(0)


def tables(blocks):
    """Each table of a report: {name of the row: {heading: text}}; names without bold type and notes in brackets."""
    found = []
    for block in blocks:
        if block.startswith("|"):
            header, _, *lines = ([cell.strip() for cell in line[1:-1].split("|")] for line in block.split("\n"))
            plain = [re.sub(r"\*\*| \((?!card).*\)", "", line[0]) for line in lines]
            found.append({name: dict(zip(header, line)) for name, line in zip(plain, lines)})
    return found


def blocks_of(text):
    """The paragraphs and tables of a report."""
    return text.split("\n\n")


def first(text):
    """The number that a cell begins with."""
    return float(text.split(" ")[0])


def near(values, digits=2):
    """The mean of values, to within half a unit of the last digit that is printed."""
    return pytest.approx(float(np.mean(values)), abs=0.5001 * 10**-digits)


# ---- Numbers and sentences -------------------------------------------------------------------------------------------


def test_numbers_have_no_negative_zero_and_a_sign_where_asked():
    assert [report.number(v, 1) for v in (-0.04, 2.26, -2.26)] == ["0.0", "2.3", "-2.3"]
    assert report.number(-0.001, 2, "+") == "+0.00"


def test_an_interval_holds_the_mean_and_the_ends_of_the_bootstrap():
    values = rng().normal(3, 1, 12)
    numbers = [float(v) for v in re.findall(r"[-\d.]+", report.interval(values, 3, group=2))]
    np.testing.assert_allclose(numbers, bootstrap(values, 2), atol=0.00051)
    assert numbers[0] == near(values, 3) and numbers[1] < numbers[0] < numbers[2]


def test_a_table_is_markdown():
    assert report.table(["", "a"], [["x", 1], ["y", 2]]) == "|  | a |\n| --- | ---: |\n| x | 1 |\n| y | 2 |"


def contest(**changes):
    base = rng().normal(0, 1, 40)
    scores = {"zeros": base, "TV": base + 1, "network": base + 1 + rng().normal(0.5, 0.1, 40), "told": base + 9}
    return Contest(**{"scores": scores, "simple": ("zeros", "TV", "absent"), "apart": {"told": "was told"}} | changes)


def test_a_contest_names_the_best_the_best_simple_one_and_who_stands_apart():
    names = [contest().label(name) for name in contest().scores]
    assert names == ["zeros", "TV (best simple)", "**network**", "told (was told)"]
    assert contest().base == "TV" and contest(to="zeros").base == "zeros" and contest(scores={}).base == report.NONE
    assert contest(up=False).ranked() == ["zeros", "TV", "network"]


def test_differences_are_paired():
    """The cases differ by far more than the methods: unpaired, the interval would be a hundred times as wide."""
    numbers = [float(v) for v in re.findall(r"[-+][\d.]+", contest(digits=3).minus("TV", "zeros"))]
    assert numbers == [1, 1, 1]
    assert contest().minus("TV", "TV") == contest().minus("TV", "absent") == report.NONE


def test_a_verdict_compares_the_winner_with_the_simplest_and_with_the_best_simple_one():
    said = contest().verdict()
    gain = np.mean(contest().difference("network", "TV").numpy())
    assert said.startswith("Highest: **network**; *network* minus *zeros*: +1.") and f"*TV*: {gain:+.2f} (" in said
    assert said.count("excludes zero") == 2 and "told" not in said


def test_a_verdict_where_the_simple_method_wins_or_nothing_is_shown():
    base = rng().normal(0, 1, 40)
    noise = torch.tensor([1.0, -1.0]).repeat(20)
    level = Contest({"zeros": base, "network": torch.tensor(base) - 0.01 + noise}, ("zeros",)).verdict()
    assert level.startswith("Highest: **zeros**, a simple method; *network* minus *zeros*: -0.01 (")
    assert level.endswith("which holds zero.")
    assert Contest({"zeros": base}, ("zeros",)).verdict().endswith("the others are not here yet.")
    assert Contest({"a": base}, apart={"a": "floor"}).verdict() == "None of those that compete is here yet."
    lowest = Contest({"U-Net": base, "diffusion": base + 1}, to="U-Net", up=False).verdict()
    assert lowest == "Lowest: **U-Net**; *diffusion* minus *U-Net*: +1.00 (+1.00 to +1.00), which excludes zero."


# ---- Reports of hand-made records ------------------------------------------------------------------------------------


def test_synthesis():
    draw, n, cases = rng(), 60, 90
    sources = (*synthesis.REAL, *synthesis.DRAWN)
    tensors = {f"set/{s}/features": torch.tensor(draw.normal(k, 1, (n, 3))) for k, s in enumerate(sources)}
    tensors["test labels"] = torch.tensor([0] * 40 + [1] * 50, dtype=torch.uint8)
    for arm in synthesis.ARMS:
        tensors[f"classifier/{arm}/hits"] = torch.tensor(draw.integers(0, 4, cases), dtype=torch.uint8)
    for arm in synthesis.RARE_ARMS:
        tensors[f"rare/{arm}/own"] = torch.tensor(draw.integers(0, 2, cases), dtype=torch.uint8)
    record = {"images": 600, "stored": n, "steps": 15, "sizes": [50, 100, 200], "seeds": 3, "rare_seeds": 1, "few": 20}
    record |= {"block": 10, "training_images": 1234, "rows": []}
    for k, source in enumerate((*sources, *synthesis.COPIES)):
        distances = [9.0, 2 + k + 0.5, 2 + k + 0.25]  # on a line in 1/N through 2 + k
        record["rows"].append({"kind": "set", "name": source, "frechet_distance": distances, "seconds_an_image": 0.5})
    record["rows"] += [{"kind": "classifier", "name": arm, "images": 7} for arm in synthesis.ARMS]
    sets, use, rare = tables(blocks_of(report.of_synthesis(record, tensors)))

    real = tensors["set/real/features"].numpy()
    for k, source in enumerate(sources[1:], 1):
        fake = tensors[f"set/{source}/features"].numpy()
        ours, theirs, both = (((a @ b.T) / 3 + 1) ** 3 for a, b in ((real, real), (fake, fake), (real, fake)))
        pairs = [(m.sum() - m.trace()) / (n * (n - 1)) for m in (ours, theirs)]
        assert first(sets[source]["kernel ↓"]) == near(sum(pairs) - 2 * both.mean(), 3)
        reach = np.sort(np.linalg.norm(real[:, None] - real, axis=2), 1)[:, 5]
        inside = np.linalg.norm(real[:, None] - fake, axis=2) <= reach[:, None]
        assert first(sets[source]["precision ↑"]) == near(inside.any(0))
        assert first(sets[source]["coverage ↑"]) == near(inside.any(1))
        assert first(sets[source]["Fréchet, 600 ↓"]) == near(2.25 + k) and first(sets[source]["Fréchet, ∞ ↓"]) == 2 + k
    assert sets["copies"]["kernel ↓"] == report.NONE and sets["diffusion"]["evaluations"] == "15"
    hits = {arm: tensors[f"classifier/{arm}/hits"].double().numpy() * 100 / 3 for arm in synthesis.ARMS}
    for arm, values in hits.items():
        assert first(use[arm]["accuracy, % ↑"]) == near(values, 1)
        if arm not in ("real", "PCA-Gaussian"):
            assert first(use[arm]["minus real"]) == near(values - hits["real"], 1)
            assert first(use[arm]["minus PCA-Gaussian"]) == near(values - hits["PCA-Gaussian"], 1)
    assert first(use["chance level: always the commonest class"]["accuracy, % ↑"]) == near(500 / 9, 1)
    for arm in synthesis.RARE_ARMS:
        assert first(rare[arm]["recognised, % ↑"]) == near(100 * tensors[f"rare/{arm}/own"].numpy(), 1)


def reconstruction_record():
    lab, draw = reconstruction, rng()
    record = {"cases": 32, "rows": []}
    for key in lab.plan():
        row = key | {"needs": lab.STUDY.needs(key), "samples": 1, "nfe": key.get("steps", 3)}
        n = lab.MORE.get(key.get("steps"), 32)
        row |= {key: draw.uniform(0, 30, n).tolist() for key in ("psnr", "ssim", "contrast_kept")} | {"seconds": 0.25}
        if key["method"] == "DiffPIR" and key["problem"] != FINE:
            row |= {key: draw.uniform(0, 1, 32).tolist() for key in ("psnr_of_mean", "ssim_of_mean", "coverage")}
            row["samples"] = 4
        if key.get("steps") == 100 and lab.samples_of(key["problem"], lab.few_of(key["method"]), 100) == 4:
            row |= {"psnr_of_mean": draw.uniform(0, 30, n).tolist(), "samples": 4}
        record["rows"].append(row)
    return record


def test_reconstruction():
    lab, record = reconstruction, reconstruction_record()
    found = {(row["problem"], row["method"]): row for row in record["rows"]}
    *scans, _, kept, grids = tables(blocks_of(report.of_reconstruction(record, {})))
    assert len(scans) == 3 and len(kept) == 3 * len(lab.METHODS)
    for problem, scan in zip(PROBLEMS, scans):
        simple = max(lab.METHODS[:2], key=lambda method: np.mean(found[problem, method]["psnr"]))
        for method in lab.METHODS:
            row = found[problem, method]
            assert first(scan[method]["PSNR, dB ↑"]) == near(row["psnr"])
            assert first(scan[method]["SSIM ↑"]) == near(row["ssim"], 3)
            if method != simple:
                change = np.subtract(row["psnr"], found[problem, simple]["psnr"])
                assert first(scan[method][f"minus {simple}"]) == near(change)
            line = kept[f"{problem}: {method}"]
            assert first(line["large lesions ↑"]) == near(row["contrast_kept"][0::2])
            assert first(line["tiny lesions ↑"]) == near(row["contrast_kept"][1::2])
        row, mean = found[problem, "DiffPIR"], scan["DiffPIR, mean of 4"]
        assert first(mean["PSNR, dB ↑"]) == near(row["psnr_of_mean"]) and mean["evaluations"] == "12"
        assert mean["s"] == "1.000" and scan["DiffPIR"]["s"] == "0.250"
        assert first(kept[f"{problem}: DiffPIR"]["coverage, %"]) == near(100 * np.array(row["coverage"]), 0)
    own, fine = found[PROBLEMS[0], "TV"]["psnr"], found[FINE, "TV"]["psnr"]
    assert first(grids["TV"]["difference"]) == near(np.subtract(fine, own))


def test_a_real_scan():
    """Shares of each point as per cent; of the mean of several, too; what changes with a part of TV's picture."""
    lab, draw = raw_scan, rng()
    record = {"sides": [12, 8], "points": {"seen": 50, "validation": 7, "test": 9}, "floor": 0.0123, "rows": []}
    for method, about in lab.METHODS.items():
        row = {"method": method, "setting": {"weight": 0.5}, "evaluations": about.evaluations, "seconds": 0.5}
        row |= {"test": draw.uniform(0, 1, 9).tolist(), "needs": lab.STUDY.needs({"method": method})}
        if about.evaluations:
            row |= {"test_of_mean": draw.uniform(0, 1, 9).tolist(), "swapped": {"brain": 0.4, "outside": 0.3}}
        record["rows"].append(row)
    found = {row["method"]: row for row in record["rows"]}
    blocks = blocks_of(report.of_raw_scan(record, {}))
    scores, swapped = tables(blocks)
    simple = min(lab.SIMPLE, key=lambda name: np.mean(found[name]["test"]))
    for method, row in found.items():
        assert first(scores[method]["hidden energy, % ↓"]) == near(100 * np.array(row["test"]))
        if method != simple:
            change = 100 * np.subtract(row["test"], found[simple]["test"])
            assert first(scores[method][f"minus {simple}"]) == near(change)
        if "test_of_mean" in row:
            mean, parts = scores[f"{method}, mean of 4"], list(swapped[f"{method}, mean of 4"].values())[1:]
            assert first(mean["hidden energy, % ↓"]) == near(100 * np.array(row["test_of_mean"]))
            assert mean["evaluations"] == str(4 * row["evaluations"]) and mean["s"] == "2.0"
            assert float(parts[0]) == near(100 * np.array(row["test_of_mean"])) and parts[1:] == ["40.00", "30.00"]
    assert first(scores["floor: noise"]["hidden energy, % ↓"]) == 1.23 and "9 judge" in blocks[0]
    record["rows"] = [row for row in record["rows"] if row["method"] != "TV"]
    assert report.of_raw_scan(record, {}) == "*Not in the record yet: TV.*"


def test_more_steps_of_a_sampler_are_compared_with_few_on_the_same_subjects():
    record = reconstruction_record()
    rows = {tuple(row[key] for key in ("problem", "method", "steps") if key in row): row for row in record["rows"]}
    text = report.of_reconstruction(record, {})
    lines = [line[2:-2].split(" | ") for line in text.split("\n") if re.match(r"\| .*: (DPS|PiGDM) \| (16|32) ", line)]
    assert len(lines) == 10 and [line[3] for line in lines].count("500") == 4
    assert [line[-1] for line in lines].count("–") == 6  # four samples with 100 steps in MRI
    for name, subjects, few, evaluations, seconds, before, now, gain, ahead, of_four in lines:
        problem, method = name.split(": ")
        more, n = rows[problem, f"{method}, more steps", int(evaluations)], int(subjects)
        base, rival = (rows[problem, other]["psnr"][:n] for other in (method, "DiffPIR"))
        assert (few, seconds, n) == ("3", "0.2", len(more["psnr"]))  # half a tenth to the even one
        assert first(before) == near(base) and first(now) == near(more["psnr"])
        assert first(gain) == near(np.subtract(more["psnr"], base))
        assert first(ahead) == near(np.subtract(more["psnr"], rival))
        if of_four != "–":
            fitted = rows[problem, "U-Net, fitted"]["psnr"]
            assert first(of_four) == near(np.subtract(more["psnr_of_mean"], fitted))


def test_without_rows_of_more_steps_there_is_no_table_of_them():
    record = reconstruction_record()
    record["rows"] = [row for row in record["rows"] if "steps" not in row]
    text = report.of_reconstruction(record, {})
    assert "### More steps" not in text
    assert "Not in the record yet: MRI, R = 8: DPS, more steps: 100; CT, 24 views: DPS, more steps: 100;" in text


def test_rows_of_other_networks_are_left_out_and_named():
    record = reconstruction_record()
    record["rows"][0]["needs"] = {"brain": "of another network"}
    problem, method = (record["rows"][0][key] for key in ("problem", "method"))
    blocks = blocks_of(report.of_reconstruction(record, {}))
    assert blocks[-1] == f"*Not in the record yet: {problem}: {method}.*"
    assert f"{problem}: {method}" not in tables(blocks)[-2]


def lidc_record(persons=12):
    """A hand-made record of lung nodules, every row of it."""
    draw, lab = rng(), lidc
    keys = {
        "readers": ("distance", "others_dice", "reading_dice", "brier", "least_brier", "empty", "brier_of_empty"),
        "draws": ("energy_distance", "between", "within", "empty", "brier_of_empty"),
        "map": ("consensus_dice", "others_dice", "reading_dice", "brier"),
        "alone": ("energy_distance", "others_dice"),
    }
    rows = []
    for key in lab.plan():
        row = key | {name: draw.uniform(0, 1, persons).tolist() for name in keys[key["kind"]]}
        row |= {"samples": 16, "evaluations": 7, "seconds": 0.25, "needs": lab.STUDY.needs(key)}
        error = {"all": 0.002, "middle": 0.008, "near": 0.016} if key["kind"] == "alone" else [0.03, 0.01]
        rows.append(row | {"threshold": 0.35, "calibration_error": error, "if_right": 0.02})
    rows[0] |= {"drew": [0, 5, 2, 1, 2], "slices": 10, "persons": persons}
    rows[0] |= {f"least_{name}": draw.uniform(0, 1, persons).tolist() for name in ("brier", "brier_of_empty")}
    return {"rows": rows}


def test_lung_nodules(monkeypatch):
    monkeypatch.setattr(report.pretrained, "sha256_of", lambda networks: dict.fromkeys(networks, "0"))
    record, lab = lidc_record(), lidc
    blocks = blocks_of(report.of_lidc(record, {}))
    drawn, outlined, calibrated, alone = tables(blocks)
    rows = {(row["kind"], row["name"]): row for row in record["rows"]}
    readers = rows["readers", "readers"]
    assert "outlined by one, two, three and four readers" in blocks[0] and "50 %, 20 %, 10 %, 20 %" in blocks[0]
    assert f"would score {np.mean(readers['distance']) * (1 / 16 + 1 / 4):.3f} at 16 samples" in blocks[1]
    assert set(drawn) == {"reference: one more reader", *lab.DRAWS} and set(outlined) == {"a reader", *lab.MAPS}
    for name in lab.DRAWS:
        row, line = rows["draws", name], drawn[name]
        assert first(line["energy distance ↓"]) == near(row["energy_distance"], 3)
        assert first(line["to a reading"]) == near(row["between"], 3)
        assert first(line["variety"]) == near(row["within"], 3)
        assert first(line["empty, %"]) == near(100 * np.array(row["empty"]), 0)
        excess = np.subtract(row["brier_of_empty"], readers["least_brier_of_empty"])
        assert first(line["who draws, Brier excess ↓"]) == near(excess, 3) and line["evaluations"] == "7"
    for name in lab.MAPS:
        row = rows["map", name]
        assert first(outlined[name]["consensus of 3 ↑"]) == near(row["others_dice"], 3)
        assert first(outlined[name]["consensus of 4"]) == near(row["consensus_dice"], 3)
        assert first(outlined[name]["one reading"]) == near(row["reading_dice"], 3)
        assert first(calibrated[name]["Brier excess ↓"]) == near(np.subtract(row["brier"], readers["least_brier"]), 4)
        assert (calibrated[name]["ECE ↓"], calibrated[name]["ECE, if right"]) == ("0.030 ± 0.010", "0.020")
    assert first(outlined["a reader"]["consensus of 3 ↑"]) == near(readers["others_dice"], 3)
    excess = np.subtract(readers["brier"], readers["least_brier"])
    assert first(calibrated["three readers for the fourth"]["Brier excess ↓"]) == near(excess, 4)
    five = rows["draws", "ensemble, random threshold"]["energy_distance"]
    assert len(alone) == 6
    for seed, name in enumerate(lab.UNETS):
        row, line = rows["alone", name], alone[f"U-Net, seed {seed}"]
        assert first(line["energy distance ↓"]) == near(row["energy_distance"], 3)
        assert first(line["minus all five"]) == near(np.subtract(row["energy_distance"], five), 3)
        assert first(line["one mask, Dice ↑"]) == near(row["others_dice"], 3)
        ece = [line[heading] for heading in ("ECE, all pixels ↓", "middle ↓", "near ↓")]
        assert ece == ["0.002", "0.008", "0.016"]


def test_lung_nodules_without_networks():
    """What the data alone say is shown; the rest is named as missing."""
    record, simple = lidc_record(), ("readers", lidc.BLIND, "nothing", "consensus of these four")
    record["rows"] = [row for row in record["rows"] if row["name"] in simple]
    blocks = blocks_of(report.of_lidc(record, {}))
    assert [len(table) for table in tables(blocks)] == [3, 3, 3]
    assert "draws: mask diffusion" in blocks[-1] and "map: U-Net" in blocks[-1]
    assert report.of_lidc({"rows": []}, {}).startswith("*Not in the record yet: readers: readers; ")


def test_segmentation():
    lab, draw = segmentation, rng()
    record = {"rows": []}
    for name, setting in lab.PLAN.items():
        row = {"name": name, "energy_distance": draw.uniform(0, 1, 64).tolist(), "shares": [0.1, 0.2, 0.3, 0.4, 0.0]}
        cost = {"seconds": 0.5, "evaluations": setting["samples"] * setting["nfe"]}
        record["rows"].append(row | setting | cost | {"needs": lab.STUDY.needs({"name": name})})
    for name, (_, evaluations) in lab.BASELINES.items():
        row = {"name": name, "energy_distance": draw.uniform(0, 1, 64).tolist(), "shares": [0.4, 0.3, 0.2, 0.1, 0.0]}
        row |= {"samples": 16, "evaluations": evaluations, "seconds": 0.25, "needs": lab.STUDY.needs({"name": name})}
        record["rows"].append(row)
    dices = {name: draw.uniform(0, 1, 64).tolist() for name in ("U-Net", "diffusion", "the best rater of each case")}
    record["rows"].append({"name": lab.SINGLE, "expected_dice": dices, "needs": lab.STUDY.needs({"name": lab.SINGLE})})
    volume, person = torch.arange(6).repeat_interleave(2), torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2])
    counts = torch.tensor(draw.integers(1, 50, (4, 12, 2, 3)))
    hippocampus = {"name": "hippocampus", "methods": lab.METHODS, "evaluations": lab.COST, "seconds": [1, 2, 3, 4]}
    record["rows"].append(hippocampus | {"volumes": 6, "persons": 3, "needs": lab.STUDY.needs({"name": "hippocampus"})})
    tensors = {"hippocampus.counts": counts, "hippocampus.volume": volume, "hippocampus.person": person}
    contest, shares, single, settings, dice = tables(blocks_of(report.of_segmentation(record, tensors)))

    rows = {row["name"]: row for row in record["rows"]}
    test, base = (np.array(rows[name]["energy_distance"]) for name in ("test", "U-Net, random threshold"))
    assert set(contest) == {"floor: the raters themselves", *lab.BASELINES, "mask diffusion"}
    for name in (*lab.BASELINES, "test"):
        line, scores = contest[{"test": "mask diffusion"}.get(name, name)], np.array(rows[name]["energy_distance"])
        assert first(line["energy distance ↓"]) == near(scores, 3)
        assert line["evaluations"] == str(rows[name]["evaluations"]) and first(line["s"]) == rows[name]["seconds"]
        if name != "U-Net, random threshold":
            assert first(line["minus U-Net, random threshold"]) == near(scores - base, 3)
    assert set(settings) == set(lab.PLAN) - {"validation"}
    for name, line in settings.items():
        scores = np.array(rows[name]["energy_distance"])
        assert first(line["energy distance ↓"]) == near(scores, 3)
        assert line["evaluations"] == str(lab.PLAN[name]["samples"] * lab.PLAN[name]["nfe"]) and first(line["s"]) == 0.5
        if name != "test":
            assert first(line["minus test"]) == near(scores - test, 3)
    for name, scores in dices.items():
        assert first(single[name]["expected Dice ↑"]) == near(scores, 3)
    assert list(shares["mask diffusion"].values())[1:] == ["0.10", "0.20", "0.30", "0.40", "0.00"]
    assert list(shares["U-Net, one mask"].values())[1:] == ["0.40", "0.30", "0.20", "0.10", "0.00"]
    assert list(shares["true"].values())[1:] == ["0.20", "0.20", "0.35", "0.25", "0.00"]
    for method, counted in zip(lab.METHODS, counts.numpy()):
        of_volume = [counted[volume == v].sum(0) for v in range(6)]
        scores = [np.mean([2 * part[0] / (part[1] + part[2]) for part in total]) for total in of_volume]
        persons = [np.mean(scores[:2]), scores[2], np.mean(scores[3:])]
        assert first(dice[method]["Dice ↑"]) == near(persons, 3)


def test_anomaly():
    lab, draw = anomaly, rng()
    record = {"cases": {"test": 6, "validation": 2}, "healthy": 5, "rows": []}
    lists = ("average_precision", "prevalence", "dice", "dice_oracle", "highest", "error_in_lesion", "error_elsewhere")
    for method in lab.METHODS:
        for family in (*lab.FAMILIES, None):
            n = 6 if family else 5
            row = {key: draw.uniform(0, 1, n).tolist() for key in (*lists, "false_alarms", "untouched_in_lesion")}
            row |= {"split": "test", "method": method, "family": family, "strength": 1.0, "seconds": 0.5}
            record["rows"].append(row | {"setting": {"t_0": 0.3}, "needs": lab.STUDY.needs({"method": method})})
            record["rows"].append(record["rows"][-1] | {"strength": 0.5, "average_precision": [9.0] * n})
    record["rows"] = [row for row in record["rows"] if (row["method"], row["family"]) != ("VAE", "tiny")]
    blocks = blocks_of(report.of_anomaly(record, {}))
    assert blocks[-1] == "*Not in the record yet: VAE.*"
    precision, costs = tables(blocks)
    rows = {(row["method"], row["family"]): row for row in record["rows"] if row["strength"] == 1}
    joined = {
        (method, key): np.concatenate([rows[method, family][key] for family in lab.FAMILIES])
        for method in lab.METHODS
        for key in lists
        if method != "VAE"
    }
    simple = max(("bright threshold", "atlas z-score", "PCA"), key=lambda m: joined[m, "average_precision"].mean())
    for method in (name for name in lab.METHODS if name != "VAE"):
        scores = joined[method, "average_precision"]
        for family in lab.FAMILIES:
            assert first(precision[method][family]) == near(rows[method, family]["average_precision"])
        assert first(precision[method]["all families ↑"]) == near(scores)
        if method != simple:
            change = scores - joined[simple, "average_precision"]
            assert first(precision[method][f"minus {simple}"]) == near(change)
        line = costs[method]
        for heading, key in (("Dice ↑", "dice"), ("Dice, oracle ↑", "dice_oracle"), ("elsewhere ↓", "error_elsewhere")):
            assert first(line[heading]) == near(joined[method, key])
        sick, well = joined[method, "highest"], np.array(rows[method, None]["highest"])
        assert first(line["AUROC ↑"]) == near(sick[:, None] > well)
        assert first(line["findings ↓"]) == near(rows[method, None]["false_alarms"], 1)
        assert line["evaluations"] == str(lab.METHODS[method].evaluations) and line["setting"] == "t_0 = 0.3"
    chance = [rows["bright threshold", family]["prevalence"] for family in lab.FAMILIES]
    assert first(precision["chance level: prevalence"]["all families ↑"]) == near(np.concatenate(chance), 3)
    assert first(precision["chance level: prevalence"]["mass"]) == near(chance[lab.FAMILIES.index("mass")], 3)


def test_real_lesions_are_a_part_of_their_own():
    lab, draw = anomaly, rng()
    row = {key: draw.uniform(0, 1, 6).tolist() for key in ("average_precision", "prevalence", "dice", "dice_oracle")}
    row["persons"] = [4, 9, 4, 9, 9, 9]
    rows = {("PCA", "ms"): row, ("PCA", "hyper"): {}, ("autoencoder", "hyper"): {}}
    assert report.real_lesions({key: rows[key] for key in rows if key[1] != "ms"}, lab.METHODS, {}) == ""
    (line,) = tables(blocks_of(report.real_lesions(rows, ("PCA",), {})))
    assert first(line["PCA"]["average precision ↑"]) == near(row["average_precision"])
    assert first(line["PCA"]["Dice ↑"]) == near(row["dice"]) and "autoencoder" not in line
    assert line["PCA"]["Dice ↑"] == report.interval(row["dice"], group=row["persons"])
    assert "those of 2 persons" in report.real_lesions(rows, ("PCA",), {})


def test_persons():
    lab, draw = persons, rng()
    levels = {f"rms at t = {t}": 0.1 * k for k, t in enumerate(lab.NOISE_LEVELS)}
    needs = lab.STUDY.needs({"kind": "shift"})
    rows = [{"kind": "shift", "images": "T1", "frechet_distance": 12.3, "needs": needs} | levels]
    key = {"kind": "method", "method": "PCA", "contrast": "T1", "needs": {}}
    values = {name: draw.uniform(0, 1, 3).tolist() for name in ("average_precision", "prevalence", "dice", "false")}
    rows.append(key | values | {"found": [1, 2, 3], "lesions": [4, 5, 6]})
    text = report.of_persons({"persons": [7, 19, 26], "levels": [0, 2], "rows": rows}, {})
    shift, found = tables(blocks_of(text))
    assert shift["T1"]["Fréchet ↓"] == "12" and shift["T1"][f"error, t = {lab.NOISE_LEVELS[2]} ↓"] == "0.200"
    precision, dice, pieces, false = found["PCA"]["person 19"].split("; ")
    assert float(precision) == near(values["average_precision"][1], 3) and float(dice) == near(values["dice"][1])
    assert pieces == "2 of 5" and float(false) == near(values["false"][1], 1)
    assert "FLAIR: PCA" in text and "T1: PCA;" not in text and "rank no" in text


def test_noise_limit_without_its_middle():
    """By hand: half of the first kind and all of the second are told right, at the one noise that is there."""
    record = {"kinds": ["a", "b"], "pictures": 4, "subjects": 2, "rows": [{"t": 0.4}]}
    record["rows"][0] |= {name: [0.5, 1.0] for name in (*(f"given {n}" for n in noise_limit.GIVEN), "network")}
    blocks = blocks_of(report.of_noise_limit(record, {}))
    shares, kinds = tables(blocks)
    assert all(line["t = 0.4"] == "75" for line in shares.values()) and len(shares) == len(noise_limit.GIVEN) + 1
    assert all(set(line) == {""} for line in kinds.values())
    assert "t = 0.5" in blocks[-1] and "t = 0.4" not in blocks[-1]
    record["rows"].append(record["rows"][0] | {"t": 0.5})
    _, kinds = tables(blocks_of(report.of_noise_limit(record, {})))
    assert all((line["a"], line["b"]) == ("50", "100") for line in kinds.values())


def test_tumours():
    """Thresholds by hand: the first is quiet and finds half, the second finds all at two false findings a slice."""
    lab, draw, n = tumours, rng(), 60
    record = {"classes": ["a", "b"], "labels": [0] * 30 + [1] * 30, "validation": 9, "by_patient": False, "rows": []}
    for method in lab.METHODS:
        row = {
            key: draw.uniform(0, 1, n).tolist() for key in ("average_precision", "prevalence", "dice", "dice_oracle")
        }
        row |= {"lesions": [1] * n, "found": [[k % 2, 1] for k in range(n)], "false": [[0, 2]] * n, "seconds": 0.5}
        row |= {"split": "test", "method": method, "setting": {"K": 8}, "needs": lab.STUDY.needs({"method": method})}
        record["rows"] += [row] if row["needs"] is not None else []
    there = {row["method"]: row for row in record["rows"]}
    blocks = blocks_of(report.of_tumours(record, {}))
    absent = [name for name in lab.METHODS if name not in there]
    assert ("Not in the record yet" in blocks[-1]) == bool(absent)
    precision, found = tables(blocks)
    for method, row in there.items():
        scores = np.array(row["average_precision"])
        assert first(precision[method]["all classes ↑"]) == near(scores)
        assert first(precision[method]["b"]) == near(scores[30:])
        assert first(found[method]["Dice ↑"]) == near(row["dice"])
        assert first(found[method]["found at 1 ↑"]) == 0.5 and first(found[method]["found at 4 ↑"]) == 1
        assert found[method]["setting"] == "K = 8"
    assert first(precision["chance level: prevalence"]["a"]) == near(next(iter(there.values()))["prevalence"][:30], 3)
    assert "a stand-in for patients" in report.of_tumours(record, {})


def test_applications():
    lab, draw = image_to_image, rng()
    record, keys = {"cases": lab.CASES, "rows": []}, {"ssim"}
    for style in report.STYLES.values():
        keys |= {style.score[0], *(measure for measure, _ in style.more.values())}
    for task, about in lab.TASKS.items():
        for method in about.methods:
            row = {key: draw.uniform(0, 30, 8).tolist() for key in (*keys, "psnr")}
            row |= {"task": task, "method": method, "split": "test", "setting": {}}
            row["needs"] = lab.STUDY.needs(row)
            record["rows"].append(row | {"nfe": 3, "seconds": 0.25})
            record["rows"].append(record["rows"][-1] | {"split": "validation", "psnr": [99.0] * 8})
    walk = next(row for row in record["rows"] if row["method"] == "walk")
    walk |= {"psnr_of_mean": [7.0] * 8, "ssim_of_mean": [0.5] * 8}
    blocks = blocks_of(report.of_image_to_image(record, {}))
    found = dict(zip(lab.TASKS, tables(blocks)))
    assert set(found) == set(lab.TASKS) and "Not in the record" not in blocks[-1]
    for row in record["rows"]:
        if row["split"] == "test":
            style = next(style for start, style in report.STYLES.items() if row["task"].startswith(start))
            line, (key, heading, digits, _) = found[row["task"]][row["method"]], style.score
            assert first(line[heading]) == near(row[key], digits)
            for column, (measure, places) in style.more.items():
                assert first(line[column]) == near(row[measure], places)
    mean = found[walk["task"]]["walk, mean of 4"]
    assert first(mean["PSNR, dB ↑"]) == 7 and mean["evaluations"] == "12" and mean["s"] == "1.000"
    assert mean["contrast kept ↑"] == report.NONE


def test_real_persons():
    """A column a person; a dash where a person has no such lesion; what is missing is named."""
    lab, draw = real_persons, rng()
    record = {"persons": [7, 19, 26], "rows": []}
    measures = ("rms", "correlation", "contrast", "kept", "bright", "faint", "brightness", "grain", "seam", "called")
    for key in lab.plan(record):
        row = (
            key
            | {name: draw.uniform(0, 9, 3).tolist() for name in (*measures, "error")}
            | {"needs": lab.STUDY.needs(key)}
        )
        row |= {"outside": [0.0, 0.0, 0.25], "lesions": [4, 5, 6], "lesions_faint": [0, 1, 2], "holes": [7, 8, 9]}
        row |= {"outlined": [10, 30, 90] if key["of"] == lab.HEALTHY else [20, 40, 90]}
        record["rows"].append(row | {"faint": [None, 1.25, 2.0]})
    gone = record["rows"].pop()
    found = {(row["of"], row["method"]): row for row in record["rows"]}
    text = report.of_real_persons(record, {})
    near_real, near_made, seen, faint, errors, made, healthy, lesions = tables(blocks_of(text))
    assert lab.TRUTH not in near_real and lab.TRUTH in seen and "nothing" not in errors and "nothing" in healthy
    for printed, of, measure, digits in (
        (near_real, lab.REAL, ("rms", "correlation"), (2, 2)),
        (near_made, lab.MADE, ("rms", "correlation"), (2, 2)),
        (seen, lab.REAL, ("contrast", "kept", "bright"), (1, 2, 2)),
        (errors, lab.HEALTHY, ("error",), (3,)),
        (made, lab.HEADS_MADE, ("error",), (3,)),
        (healthy, lab.HEALTHY, ("brightness", "grain", "seam", "called"), (1, 2, 2, 2)),
        (lesions, lab.LESIONS, ("brightness", "grain", "seam", "called"), (1, 2, 2, 2)),
    ):
        for method, line in printed.items():
            values = [float(value) for value in line["person 19"].split("; ")]
            assert values == [near([found[of, method][name][1]], d) for name, d in zip(measure, digits)]
    assert list(faint["regression"].values())[1:] == [report.NONE, "1.2", "2.0"]
    assert "have 50 % in person 7, 75 % in person 19, 100 % in person 26 of" in text
    assert "4 in person 7, 5 in person 19" in text and "in any place, is 0.2500" in text and "rank no" in text
    assert f"Not in the record yet: {gone['of']}: {gone['method']}." in text
    assert report.of_real_persons(record | {"rows": []}, {}).count("Not in the record yet") == 1


# ---- The page --------------------------------------------------------------------------------------------------------


def test_trends():
    plan = [tuple(key.values()) for key in trends.plan()]
    rows = [
        {"method": m, "sampler": s, "nfe": n, "frechet_distance": 3 + k, "error": 0.25, "recognised": 0.5, "seconds": 1}
        for k, (m, s, n) in enumerate(plan)
    ]
    record = {"rows": rows[:-1], "floor": [0.4, 0.6, 0.5], "images": 600, "reference_images": 30_000}
    record["test_split"] = [1.9, 2.1]
    blocks = blocks_of(report.of_trends(record, {}))
    lines = [line for block in blocks if block.startswith("|") for line in block.split("\n")[2:]]
    own_first = sorted(range(len(plan)), key=lambda k: 2 if plan[k][0] == trends.MENDED else plan[k][1] == "2M")
    for line, k in zip(lines, own_first):
        method, sampler, nfe = plan[k]
        assert line == f"| {method}, {sampler} | {nfe} | {3 + k:.2f} ± 0.25 | 50.0 | 1.0000 |"
    assert len(lines) == len(plan) - 1 and "Floor: 0.40 to 0.60, 3 sets" in blocks[1]
    assert "Unseen images, of the test split: 1.90 to 2.10." in blocks[1]
    assert blocks[-1] == f"*Not in the record yet: {trends.MENDED} with ancestral at 15.*"


def of_seeds(study, nfe, **values):
    """A record of a study of methods and seeds, but for its last row: value + seed at the first number of evaluations,
    and twice that at the second; of a method that was only asked once, that."""
    rows = []
    for key in study.plan()[:-1]:
        counts = [1] if key["method"] == "regression" else nfe
        found = {name: [(value + key["seed"]) * (k + 1) for k in range(len(counts))] for name, value in values.items()}
        rows.append(key | {"nfe": counts} | found)
    return {"rows": rows, "images": 600}


def test_seeds():
    blocks = blocks_of(report.of_seeds(of_seeds(seeds.STUDY, [1, 4], frechet_distance=2.0), {}))
    (found,) = tables(blocks)
    assert set(found) == set(seeds.SAMPLERS)
    assert found["flow"] == {"": "flow", "1": "3.00 (2.00 to 4.00)", "4": "6.00 (4.00 to 8.00)"}
    assert found["MeanFlow"]["1"] == "2.50 (2.00 to 3.00)", "its last seed is missing"
    assert blocks[-1] == "*Not in the record yet: MeanFlow, seed 2.*"


def test_trainings(monkeypatch):
    monkeypatch.setattr(trainings.datasets, "hippocampus_is_here", lambda: True)
    monkeypatch.setattr(trainings.datasets, "is_here", lambda name: name == "lidc")
    rows = [
        {"data": "lesions", "seed": k, "found": {"16 samples": {"energy_distance": [0.05 + 0.01 * k, 0.07]}}}
        for k in range(3)
    ]
    rows += [{"data": "hippocampi", "seed": k, "found": {"U-Net": [0.8, 0.9 + 0.02 * k]}} for k in range(2)]
    rows += [{"data": "nodules", "seed": k, "found": {"SSN": {"energy_distance": [0.1, 0.2 * k]}}} for k in range(2)]
    blocks = blocks_of(report.of_trainings({"rows": rows}, {}))
    lesions, hippocampi, nodules = tables(blocks)
    assert lesions == {"16 samples": {"": "16 samples", "mean of trainings": "0.065 (0.060 to 0.070)"}}
    assert hippocampi == {"U-Net": {"": "U-Net", "mean of trainings": "0.855 (0.850 to 0.860)"}}
    assert nodules == {"SSN": {"": "SSN", "mean of trainings": "0.100 (0.050 to 0.150)"}}
    assert blocks[-1] == "*Not in the record yet: hippocampi, seed 2; nodules, seed 2.*"


def test_tumour_trainings(monkeypatch):
    monkeypatch.setattr(tumour_trainings.datasets, "is_here", lambda name: name == "brain_tumours")
    found = {"average_precision": [0.2, 0.4], "dice": [0.1, 0.2], "found": 0.5}
    rows = [{"method": "autoencoder", "seed": k} | found for k in range(3)]
    rows += [{"method": "denoising autoencoder", "seed": 0} | found | {"found": 0.75}]
    rows[2] |= {"average_precision": [0.3, 0.6]}
    blocks = blocks_of(report.of_tumour_trainings({"rows": rows, "allowed": 1}, {}))
    (of,) = tables(blocks)
    assert of["autoencoder"]["average precision ↑"] == "0.35 (0.30 to 0.45)"
    assert of["autoencoder"]["Dice ↑"] == "0.15 (0.15 to 0.15)"
    assert of["denoising autoencoder"]["found at 1 ↑"] == "0.75"
    assert "seed 1; denoising autoencoder, seed 2" in blocks[-1] and blocks[-1].count("seed") == 2


def test_bridge():
    record = of_seeds(bridge.STUDY, [1, 50], psnr=20.0, detail=0.5, frechet_distance=7.0)
    record |= {"persons": 81, "noise": 0.3, "unseen": 4.8}
    record["low dose"] = {"psnr": 17.715, "detail": 9.0456, "frechet_distance": 136.02}
    text = report.of_bridge(record, {})
    psnr, detail, distance = tables(blocks_of(text))
    assert psnr["regression"] == {"": "regression", "1": "21.00 (20.00 to 22.00)", "50": report.NONE}
    assert detail["bridge"]["50"] == "2.00 (1.00 to 3.00)" and distance["beside"]["1"] == "8.0 (7.0 to 9.0)"
    assert "low-dose images have 17.7" in text and "the low-dose images 136.0" in text and "81 persons" in text


def test_labels():
    record = of_seeds(labels.STUDY, [1, 8], frechet_distance=0.5, in_one_piece=0.25, area_spread=80.0)
    for row in record["rows"]:
        row |= {"nats": 100.0 + row["seed"]} if row["method"] == "masked" else {}
    record["real"] = {"frechet_distance": 0.029, "in_one_piece": 0.81, "area_spread": 81.7}
    record["nats"] = {"place by place": 284.0, "uniform": 1687.5}
    text = report.of_labels(record, {})
    distance, pieces, spread = tables(blocks_of(text))
    assert distance["masked"]["8"] == "3.000 (1.000 to 5.000)" and pieces["Gaussian"]["1"] == "0.75 (0.25 to 1.25)"
    assert spread["masked"]["1"] == "81 (80 to 82)" and "network: 101 (100 to 102) nats" in text
    assert text.endswith("*Not in the record yet: Gaussian, seed 2.*")


def test_audits():
    rows = []
    for key in audits.plan()[:-1]:
        of = {"scanner": {"psnr": [20.0, 22.0]}, "lesion": {}}
        # two of three pairs of a member and another in the right order, then all, then none
        of["membership"] = {"members": [[1.0, 3.0], [1.0, 1.0], [2.0, 2.0]], "others": [[2.0], [3.0], [1.0]]}
        found = of[key["kind"]] | ({"coverage": [0.5, 0.7]} if key["method"] == "DiffPIR" else {})
        rows.append(key | found | {"needs": audits.STUDY.needs(key)})
    record = {"rows": rows, "subjects": 2, "samples": 4, "log_snr": [2.0, 0.0, -2.0]}
    scanners, members = tables(blocks_of(report.of_audits(record, {})))
    assert first(scanners["softer: TV"]["PSNR, dB ↑"]) == 21 and scanners["softer: TV"]["coverage, %"] == report.NONE
    assert first(scanners["noisier: DiffPIR"]["coverage, %"]) == 60
    found = {name: list(line.values())[1:] for name, line in members.items()}
    assert set(map(tuple, found.values())) == {("0.50", "1.00", "0.00")}


def test_challenges():
    draw, lab = rng(), challenges
    rows = [
        {"kind": "copies", "name": n, "method": steps, "share_of_copies": 1 / n, "share_of_held_out": 0.01}
        | {"frechet_distance": 7.0, "frechet_distance_of_a_copier": 5.0}
        for n, steps in lab.COPIES
    ]
    for kind, name, method in (key.values() for key in lab.plan()):
        values = {key: draw.normal(20, 3, 32).tolist() for key in ("contrast_kept", "psnr", "misfit")}
        if method == "DiffPIR":
            values["coverage"] = draw.uniform(0, 1, 32).tolist()
        if kind in ("lesion", "shift") and (kind, name) != ("lesion", 12):
            rows.append({"kind": kind, "name": name, "method": method} | values)
    for R, method in [(1, lab.TRUTH), *((R, m) for R in lab.TRAINED for m in lab.METHODS)]:
        falling = (np.linspace(3, 0, len(lab.LEVELS)) + draw.uniform(0, 0.1, (32, 1))).tolist()
        hits = (draw.uniform(0, 1, (32, 1)) > np.linspace(0, 1, len(lab.LEVELS))).astype(int).tolist()
        rows.append({"kind": "reader", "name": R, "method": method, "found": hits, "false_findings": falling})
    for name in (*lab.SHIFTS, "lesion"):
        for method in lab.BANDS:
            shares = np.sort(draw.uniform(0, 1, (32, len(lab.HALF_WIDTHS))), 1).tolist()
            rows.append({"kind": "band", "name": name, "method": method, "share_within": shares})
    found = {(row["kind"], row["name"], row["method"]): row for row in rows}
    blocks = blocks_of(report.of_challenges({"rows": rows, "cases": 32}, {}))
    copies, lesions, reader, shifts, bands = tables(blocks)
    row, line = found["reader", 8, "TV"], reader["R = 8: TV"]
    false = np.mean(row["false_findings"], 0)
    first_afforded = int(np.argmax(false <= report.AFFORDED))
    assert first(line["found, % ↑"]) == near(100 * np.array(row["found"])[::2, first_afforded], 0)
    assert first(line["at its own cut: found, %"]) == near(100 * np.array(row["found"])[::2, lab.LEVELS.index(0.5)], 0)
    assert first(line["false findings"]) == near(false[lab.LEVELS.index(0.5)])
    shares = {
        key: np.array(found[("band", *key)]["share_within"]) for key in (("as trained", "TV"), ("lesion", "DiffPIR"))
    }
    width = np.interp(0.9, shares["as trained", "TV"][:16].mean(0), lab.HALF_WIDTHS)
    names = list(bands["hands"])[1:]
    assert names[0] == f"TV ± {width:.2f}" and names[2] == f"DiffPIR ± {width:.2f}"
    half = [np.interp(width, lab.HALF_WIDTHS, case) for case in shares["as trained", "TV"][16:]]
    assert first(bands["as trained"][names[0]]) == near(100 * np.array(half), 0)
    tiny = [np.interp(width, lab.HALF_WIDTHS, case) for case in shares["lesion", "DiffPIR"][1::2]]
    assert first(bands["tiny lesions"][names[2]]) == near(100 * np.array(tiny), 0)
    for n, steps in lab.COPIES:
        assert first(copies[f"{n:,} subjects, {steps:,} steps"]["copies, %"]) == near([100 / n], 1)
    for name, method in (("R = 8: TV", "TV"), ("R = 8: zero filling", "zeros or FBP")):
        kept = found["lesion", 8, method]["contrast_kept"]
        assert first(lesions[name]["large lesions ↑"]) == near(kept[::2])
        assert first(lesions[name]["tiny lesions ↑"]) == near(kept[1::2])
    ours, plain = (found["shift", "hands", m] for m in ("DiffPIR", "TV"))
    line = shifts["hands: DiffPIR"]
    assert first(line["minus TV"]) == near(np.subtract(ours["psnr"], plain["psnr"]))
    assert first(line["misfit"]) == near(ours["misfit"]) and shifts["hands: TV"]["coverage, %"] == report.NONE
    assert first(line["coverage, %"]) == near(100 * np.array(ours["coverage"]), 0)
    assert "lesion; 12; TV" in blocks[-1] and "guidance; 8; interval" in blocks[-1]


def test_a_record_that_is_missing_says_how_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments.record, "RECORDS", tmp_path)
    for name in report.REPORTS:
        said = report.section(name)
        assert f"make it with `python -m course_lib.experiments {name}`" in said and "|" not in said
    assert report.page().count("\n## ") == len(report.REPORTS)


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments.record, "RECORDS", tmp_path)
    monkeypatch.setattr(report, "PAGE", tmp_path / "docs" / "results.md")
    report.main()
    assert (tmp_path / "docs" / "results.md").read_text(encoding="utf-8") == report.page()
    assert "results.md" in capsys.readouterr().out


def test_the_stored_page_is_what_the_command_writes_now():
    stored = report.PAGE.read_text(encoding="utf-8")
    assert stored == report.page(), "records or cards have changed: run `python -m course_lib.experiments.report`"
