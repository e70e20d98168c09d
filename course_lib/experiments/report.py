"""``python -m course_lib.experiments.report`` writes ``docs/results.md``: all that Parts 3 and 4 measured.

A report turns a record and its tensors into paragraphs and tables of Markdown. What it says stands in ``report.md``,
with names in braces where numbers and tables go; no number stands there by hand.
"""

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from course_lib import experiments, pretrained
from course_lib.applications import classical
from course_lib.datasets import REAL_FAMILY, rater_chances
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
    real_challenges,
    real_persons,
    reconstruction,
    seeds,
    segmentation,
    synthesis,
    trainings,
    trends,
    tumour_trainings,
    tumours,
)
from course_lib.experiments.study import study_of
from course_lib.files import write_atomically
from course_lib.metrics.detection import auroc, froc_point
from course_lib.metrics.distribution import density_coverage, extrapolated, kernel_distance, precision_recall
from course_lib.metrics.intervals import bootstrap, jackknife
from course_lib.scans import FINE, PROBLEMS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results.md"
NONE = "–"
FEW = 10  # independent groups of cases; a percentile bootstrap of fewer holds too seldom for a verdict


def texts():
    """The texts of the page, {name: Markdown}."""
    parts = re.split(r"<!-- (.+) -->\n\n", Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2])}


def filled(name, **values):
    """A text with its values, each of its paragraphs on one line; paragraphs that are empty then are left out."""
    paragraphs = texts()[name].split("\n\n")
    found = (paragraph.replace("\n", " ").format(**values) for paragraph in paragraphs)
    return "\n\n".join(filter(None, found))


# ---- Numbers, tables, contests ---------------------------------------------------------------------------------------


def number(value, digits=2, sign=""):
    """A number as text, without a negative zero. sign: "+" to show it always."""
    value = round(float(value), 9)  # the order of a sum decides no tie: every machine writes the same
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def average(values, digits=2):
    """The mean of values as text."""
    return number(torch.as_tensor(values).double().mean(), digits)


def interval(values, digits=2, group=1, sign=""):
    """Mean of values (N,) and its 95 % bootstrap interval, as text. group: as of ``bootstrap``."""
    return "{} ({} to {})".format(*(number(v, digits, sign) for v in bootstrap(values, group)))


def covered(row):
    """Mean and interval of the coverage of a row in %, as text; a dash where no samples were drawn."""
    return interval([100 * share for share in row["coverage"]], 0) if "coverage" in row else NONE


def table(header, rows):
    """A Markdown table; header and rows are sequences of texts. The first column stands left, the others right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


@dataclass(frozen=True)
class Contest:
    """Scores {method: (N,)} of methods on the same cases.

    simple: the simple methods, the simplest first, whether they are there or not; to: the method that is subtracted in
    the table, left out the best simple one; apart: {method: why it does not compete}; group: neighbours that count as
    one case in an interval, or the group of each case; up: whether higher is better.
    """

    scores: dict
    simple: tuple = ()
    to: str = ""
    apart: dict = field(default_factory=dict)
    digits: int = 2
    group: int | list = 1
    up: bool = True
    unit: str = ""

    def ranked(self, names=None):
        """Those of the names (of all) that are there and compete, the best first."""
        names = [n for n in (self.scores if names is None else names) if n in self.scores and n not in self.apart]
        return sorted(names, key=lambda n: float(torch.as_tensor(self.scores[n]).double().mean()), reverse=self.up)

    @property
    def base(self):
        """The method that is subtracted in the table; a dash if there is none."""
        return self.to or next(iter(self.ranked(self.simple)), NONE)

    def label(self, name):
        """A name, bold if it is the best, with a note if it is the best simple one or does not compete."""
        bold = f"**{name}**" if self.ranked()[:1] == [name] else name
        note = "best simple" if self.ranked(self.simple)[:1] == [name] else self.apart.get(name)
        return f"{bold} ({note})" if note else bold

    def mean(self, name):
        """Mean and interval of a method, as text."""
        return interval(self.scores[name], self.digits, self.group)

    def difference(self, name, other):
        """Scores of a method minus those of another on the same cases, float64 (N,)."""
        return torch.as_tensor(self.scores[name]).double() - torch.as_tensor(self.scores[other]).double()

    def minus(self, name, other):
        """Mean and interval of the difference, as text; a dash for a method with itself, or with one not there."""
        if name == other or other not in self.scores:
            return NONE
        return interval(self.difference(name, other), self.digits, self.group, "+")

    def against(self, name, other):
        """A clause: the difference of two methods, and whether its interval excludes zero, unless there are too few
        independent groups of cases for an interval."""
        _, low, high = bootstrap(difference := self.difference(name, other), self.group)
        groups = -(-len(difference) // self.group) if isinstance(self.group, int) else len(set(map(int, self.group)))
        said = f"*{name}* minus *{other}*: {self.minus(name, other)}{self.unit}"
        if groups < FEW:  # the bootstrap of four holds in 80 of 100 studies where it promises 95
            return f"{said}, of {groups} groups: too few to say"
        return f"{said}, which {'excludes' if low > 0 or high < 0 else 'holds'} zero"

    def verdict(self):
        """Who is best, and by how much: against the simplest method and the best simple one, or without simple ones
        against the base; if one of these is best itself, the best of the others against it."""
        ranked, simple = self.ranked(), self.ranked(self.simple)
        if not ranked:
            return "None of those that compete is here yet."
        best = f"{'Highest' if self.up else 'Lowest'}: **{ranked[0]}**" + ", a simple method" * (ranked[0] in simple)
        simplest = [name for name in self.simple if name in simple][:1]
        plain = simple or [name for name in [self.base] if name in self.scores]
        if ranked[0] in plain:
            others = [name for name in ranked if name not in plain]
            return f"{best}; {self.against(others[0], ranked[0]) if others else 'the others are not here yet'}."
        rivals = dict.fromkeys([*simplest, *plain[:1]])
        return f"{best}; {'; '.join(self.against(ranked[0], r) for r in rivals) or 'what to compare with is missing'}."

    def table(self, score, more=(), above=()):
        """A Markdown table, a line a method. score: heading; more: {heading: {method: text}}; above: lines before."""
        more = dict(more)
        lines = [
            [self.label(n), self.mean(n), self.minus(n, self.base), *(texts.get(n, NONE) for texts in more.values())]
            for n in self.scores
        ]
        return table(["", score, f"minus {self.base}", *more], [*above, *lines])

    def shown(self, score, more=(), above=()):
        """The table of :meth:`table`, and the verdict under it."""
        return f"{self.table(score, more, above)}\n\n{self.verdict()}"


def settings(row):
    """The setting of a row as text, empty for none."""
    return ", ".join(f"{key} = {value}" for key, value in row["setting"].items())


def prior_quality():
    """A sentence on how good the prior of the brains is, from its card."""
    card = pretrained.card("brain")
    about = {key: number(card[key], 0) for key in ("frechet_distance", "floor")}
    about |= {"millions": number(card["weights"] / 1e6, 1), "seen": f"{card['images_seen']:,}"}
    return filled("prior", images=card["images"], **about)


def missing(names):
    """A line on rows that a record lacks; an empty text for no names."""
    return f"*Not in the record yet: {'; '.join(names)}.*" if names else ""


# ---- Notebook 08 -----------------------------------------------------------------------------------------------------


def sets(record, tensors):
    """Table of the distances of sets, and the sentence under it."""
    rows = {row["name"]: row for row in record["rows"] if row["kind"] == "set"}
    real, kernel, lines = tensors["set/real/features"].double(), {}, []
    for name in (*synthesis.REAL[1:], *synthesis.DRAWN, *synthesis.COPIES):
        row, cells, cost = rows[name], [NONE] * 3, [NONE] * 2
        if f"set/{name}/features" in tensors:
            features = tensors[f"set/{name}/features"].double()
            kernel[name] = jackknife(lambda x: kernel_distance(real, x), features, turn=6)
            shares = precision_recall(real, features)[0], density_coverage(real, features)[1]
            cells = ["{} ± {}".format(*(number(v, 3) for v in kernel[name])), *map(number, shares)]
        if name in synthesis.DRAWN:
            evaluations = record["steps"] if name in synthesis.NETWORKS else int(name == "VAE")
            cost = [evaluations, number(row["seconds_an_image"], 3)]
        label = name + {"real again": " (floor)", "held out": " (unseen)", "PCA-Gaussian": " (simple)"}.get(name, "")
        limit = extrapolated(record["sizes"][1:], row["frechet_distance"][1:])[0]
        lines.append([label, number(row["frechet_distance"][-1]), number(limit), *cells, *cost])
    best, simple = min(synthesis.DRAWN, key=lambda name: kernel[name][0]), "PCA-Gaussian"
    change = kernel[best][0] - kernel[simple][0]
    reach = 1.96 * (kernel[best][1] ** 2 + kernel[simple][1] ** 2) ** 0.5  # the sets are independent
    low, mean, high = (number(v, 3, "+") for v in (change - reach, change, change + reach))
    rest = f"minus *{simple}*: {mean} ({low} to {high}), which {'holds' if abs(change) <= reach else 'excludes'} zero"
    header = ["", f"Fréchet, {record['images']} ↓", "Fréchet, ∞ ↓", "kernel ↓", "precision ↑", "coverage ↑"]
    said = f"Lowest kernel distance of the generators: **{best}**; {rest if best != simple else 'the simple one'}."
    return f"{table([*header, 'evaluations', 's'], lines)}\n\n{said}"


def of_synthesis(record, tensors):
    """MedNIST: distances of sets, what classifiers learn from them, a rare class."""
    labels, points = tensors["test labels"].long(), {"digits": 1, "group": record["block"], "unit": " points"}
    used = {arm: 100 * tensors[f"classifier/{arm}/hits"].double() / record["seeds"] for arm in synthesis.ARMS}
    held = {arm: "has real images" for arm in used if "real" in arm or arm == "copies"} | {"real": "ceiling"}
    use = Contest(used, ("PCA-Gaussian",), apart=held, **points)
    of_real = {"minus real": {arm: use.minus(arm, "real") for arm in used}}
    sizes = {"images": {row["name"]: row["images"] for row in record["rows"] if row["kind"] == "classifier"}}
    chance = ["chance level: always the commonest class", number(100 * labels.bincount().max() / len(labels), 1)]
    found = {arm: 100 * tensors[f"rare/{arm}/own"].double() / record["rare_seeds"] for arm in synthesis.RARE_ARMS}
    simple = "oversampled", "oversampled, shifted", "Gaussian of the few"
    rare = Contest(found, simple, "oversampled", {"as it is": "nothing done", "real": "ceiling"}, **points)
    return filled(
        "synthesis",
        record=record,
        sets=sets(record, tensors),
        cases=len(labels),
        use=use.shown("accuracy, % ↑", of_real | sizes, [[*chance, *[NONE] * 3]]),
        few_verdict=use.against("real, few + diffusion", "real, few"),
        rare=rare.shown("recognised, % ↑"),
    )


# ---- Notebook 09 -----------------------------------------------------------------------------------------------------


def columns(rows, texts):
    """Columns of a table, {heading: {name: text}}, of rows {name: row}. texts: {heading: function of a row}."""
    return {heading: {name: text(row) for name, row in rows.items()} for heading, text in texts.items()}


def with_means(rows, samples):
    """Rows {method: row}, and of those with several samples what the mean of them scores and costs, as a row "method,
    mean of K"."""
    entries = {}
    for method, row in rows.items():
        entries[method] = row
        if "psnr_of_mean" in row:
            scores = {key.removesuffix("_of_mean"): values for key, values in row.items() if key.endswith("_of_mean")}
            costs = {key: samples * row[key] for key in ("nfe", "seconds")}
            entries[f"{method}, mean of {samples}"] = scores | costs | {"setting": row.get("setting")}
    return entries


COST = {"evaluations": lambda row: row["nfe"], "s": lambda row: number(row["seconds"], 3)}


def scan(rows):
    """Table and sentences of one kind of scan. rows: {method: row}."""
    lab = reconstruction
    entries = with_means(rows, max(row["samples"] for row in rows.values()))
    contest = Contest({name: row["psnr"] for name, row in entries.items()}, lab.METHODS[:2], unit=" dB")
    more = columns(entries, {"SSIM ↑": lambda row: interval(row["ssim"], 3)} | COST)
    said = [contest.shown("PSNR, dB ↑", more)]
    sampled = contest.ranked(name for name in entries if name.split(", mean")[0] in lab.STEPS)
    trained = contest.ranked(name for name in entries if name in lab.TRAINED)
    if sampled and trained:
        said.append(f"The best of the samplers and the best regression: {contest.against(sampled[0], trained[0])}.")
    return " ".join(said)


def more_steps(found):
    """DPS and PiGDM with few and with more steps, each compared on the subjects of the latter. found: {key: row}."""
    lab, lines = reconstruction, []
    for problem, method, steps in (tuple(key.values()) for key in lab.plan_of_more()):
        row, few = found.get((problem, method, steps)), found.get((problem, lab.few_of(method)))
        if row and few:
            scores = {"few": few["psnr"], "DiffPIR": found.get((problem, "DiffPIR"), {}).get("psnr", [])}
            rivals = {name: values[: len(row["psnr"])] for name, values in scores.items() if values}
            contest = Contest({"more": row["psnr"]} | rivals)
            means = contest.mean("few"), contest.mean("more"), contest.minus("more", "few")
            costs = few["nfe"], row["nfe"], number(row["seconds"], 1)
            name = f"{problem}: {lab.few_of(method)}"
            of_four = NONE
            if "psnr_of_mean" in row and (fitted := found.get((problem, "U-Net, fitted"))):
                four = Contest({"mean of four": row["psnr_of_mean"], "U-Net, fitted": fitted["psnr"]})
                of_four = four.minus("mean of four", "U-Net, fitted")
            lines.append([name, len(row["psnr"]), *costs, *means, contest.minus("more", "DiffPIR"), of_four])
    header = ["", "subjects", "few", "evaluations", "s", "few, dB ↑", "PSNR, dB ↑", "minus few", "minus DiffPIR"]
    header += ["mean of four minus U-Net, fitted"]
    return filled("more steps", table=table(header, lines)) if lines else ""


def of_reconstruction(record, tensors):
    """PSNR and SSIM for each scan, DPS and PiGDM with more steps, lesions and coverage, and the finer data."""
    lab, keys = reconstruction, ("problem", "method", "steps")
    found = {tuple(row[key] for key in keys if key in row): row for row in lab.STUDY.fresh(record)}
    wanted = [tuple(key.values()) for key in lab.plan()]
    scans = {p: {m: found[p, m] for m in lab.METHODS if (p, m) in found} for p in PROBLEMS}
    kept = []
    for problem, method in itertools.product(PROBLEMS, lab.METHODS):
        row = found.get((problem, method), {})
        if "contrast_kept" in row:  # large and tiny lesions take turns
            lesions = [interval(row["contrast_kept"][k :: len(lab.LESIONS)]) for k in range(len(lab.LESIONS))]
            kept.append([f"{problem}: {method}", *lesions, covered(row)])
    own, grids = PROBLEMS[0], []
    for method in lab.METHODS:
        if (own, method) in found and (FINE, method) in found:
            grid = Contest({problem: found[problem, method]["psnr"] for problem in (own, FINE)})
            grids.append([method, grid.mean(own), grid.mean(FINE), grid.minus(FINE, own)])
    return filled(
        "reconstruction",
        record=record,
        validation=lab.GROUP,
        prior=prior_quality(),
        scans="\n\n".join(f"### {problem}\n\n{scan(rows)}" for problem, rows in scans.items() if rows),
        more=more_steps(found),
        lesions=table(["", "large lesions ↑", "tiny lesions ↑", "coverage, %"], kept),
        grids=table(["", "own grid, dB ↑", "finer data, dB ↑", "difference"], grids),
        missing=missing([": ".join(map(str, key)) for key in wanted if key not in found]),
    )


def of_raw_scan(record, tensors):
    """A real scan by several coils: what each method does not predict of hidden points, and where its error lies."""
    lab, entries, lines = raw_scan, {}, []
    rows = {row["method"]: row for row in lab.STUDY.fresh(record)}
    absent = missing([method for method in lab.METHODS if method not in rows])
    if "TV" not in rows:
        return absent
    for method, row in rows.items():
        entries[method] = row
        if "test_of_mean" in row:
            costs = {key: lab.SAMPLES * row[key] for key in ("evaluations", "seconds")}
            name = f"{method}, mean of {lab.SAMPLES}"
            entries[name] = {"test": row["test_of_mean"], "setting": row["setting"]} | costs
            parts = [np.mean(row["test_of_mean"]), row["swapped"]["brain"], row["swapped"]["outside"]]
            lines.append([name, *(number(100 * part) for part in parts)])
    shares = {name: np.multiply(100, row["test"]) for name, row in entries.items()}
    contest = Contest(shares, lab.SIMPLE, up=False, unit=" points")
    said = {"setting": lambda row: settings(row) or NONE, "evaluations": lambda row: row["evaluations"]}
    more = columns(entries, said | {"s": lambda row: number(row["seconds"], 1)})
    floor = ["floor: noise", number(100 * record["floor"]), *[NONE] * 4]
    return filled(
        "raw scan",
        record=record,
        seen=number(100 * record["points"]["seen"] / np.prod(record["sides"]), 0),
        centre=lab.CENTRE,
        hidden=contest.shown("hidden energy, % ↓", more, [floor]),
        tv=average(np.multiply(100, rows["TV"]["test"])),
        swapped=table(["", "as it is ↓", "its brain, the rest by TV ↓", "its rest, the brain by TV ↓"], lines),
        missing=absent,
    )


# ---- Notebook 10 -----------------------------------------------------------------------------------------------------


DRAWING = {"samples": lambda row: row["samples"], "evaluations": lambda row: row["evaluations"], "s": COST["s"]}


def drawn_masks(ways, to, above=(), more=(), **about):
    """Contest and table of ways to draw masks, by the energy distance of the masks from those of readers or raters, and
    what they cost. ways: {name: row}; above: lines before; more: {heading: function of a row}; to, about: as in
    :class:`Contest`."""
    contest = Contest({name: row["energy_distance"] for name, row in ways.items()}, to=to, digits=3, up=False, **about)
    return contest, contest.table("energy distance ↓", columns(ways, dict(more) | DRAWING), above)


def lesions(rows):
    """Tables and sentences of the lesions with known raters. rows: {name: row}."""
    lab, blocks = segmentation, []
    named = {"test": "mask diffusion"}
    told = {"always the true outline": "was given the truth", "the best rater of each case": "ceiling"}
    ways = {named.get(name, name): rows[name] for name in (*lab.BASELINES, "test") if name in rows}
    if ways:
        above = [["floor: the raters themselves", number(0, 3), *[NONE] * 4]]
        contest, drawn = drawn_masks(ways, "U-Net, random threshold", above, apart=told)
        blocks += [drawn, contest.verdict()]
        if "mask diffusion" in ways:
            rivals = [name for name in ("U-Net, one mask", "always the true outline") if name in ways]
            blocks += [f"{'; '.join(contest.against('mask diffusion', rival) for rival in rivals)}."] if rivals else []
        header = "none", "core", "outline", "generous", "like no rater"
        shares = [[name, *map(number, row["shares"])] for name, row in ways.items()]
        known = ["true", *map(number, (*rater_chances(), 0))]
        blocks.append(filled("shares of raters", table=table(["", *header], [known, *shares])))
    if lab.SINGLE in rows:
        contest = Contest(rows[lab.SINGLE]["expected_dice"], to="U-Net", apart=told, digits=3)
        blocks.append(filled("one mask", dice=contest.shown("expected Dice ↑")))
    settings = {name: row for name, row in rows.items() if name in lab.PLAN and row["split"] == "test"}
    if len(settings) > 1:
        blocks.append(filled("settings of the mask diffusion", table=drawn_masks(settings, "test")[1]))
    return "\n\n".join(blocks)


def hippocampi(row, tensors):
    """The contest of the hippocampus: mean Dice of both parts, for each person."""
    counts, volume, person = (tensors[f"hippocampus.{key}"].long() for key in ("counts", "volume", "person"))
    people = segmentation.dice_by_person(row["methods"], counts, volume, person)
    return Contest(people, to=row["methods"][0], digits=3)


def hippocampus(row, tensors):
    """The part on the hippocampus. row: None if it was not measured."""
    if row is None:
        return ""
    contest = hippocampi(row, tensors)
    seconds = {method: number(seconds, 3) for method, seconds in zip(row["methods"], row["seconds"])}
    more = {"evaluations": dict(zip(row["methods"], row["evaluations"])), "s": seconds}
    return filled("hippocampus", row=row, dice=contest.shown("Dice ↑", more))


def of_segmentation(record, tensors):
    """Masks of lesions with known raters, and real hippocampi."""
    lab = segmentation
    rows = {row["name"]: row for row in lab.STUDY.fresh(record)}
    return filled(
        "segmentation",
        cases=lab.CASES["test"],
        lesions=lesions(rows),
        hippocampus=hippocampus(rows.get("hippocampus"), tensors),
        missing=missing([key["name"] for key in lab.plan() if key["name"] not in rows]),
    )


def of_trainings(record, tensors):
    """The networks of segmentation, trained anew."""
    tables = {}
    for data, key in (("lesions", "energy_distance"), ("hippocampi", None), ("nodules", "energy_distance")):
        rows = [row["found"] for row in record["rows"] if row["data"] == data]
        means = {way: [np.mean(row[way][key] if key else row[way]) for row in rows] for way in rows[0]} if rows else {}
        tables[data] = table(["", "mean of trainings"], [[way, over_seeds(found, 3)] for way, found in means.items()])
    return filled("trainings", record=record, **tables, missing=absent(trainings.STUDY, record))


def drawn_nodules(ways, readers):
    """Table and sentence of masks drawn for nodules. ways: {name: row}; readers: their row."""

    def against_least(row):
        return average(np.subtract(row["brier_of_empty"], readers["least_brier_of_empty"]), 3)

    more = {
        "to a reading": lambda row: average(row["between"], 3),
        "variety": lambda row: average(row["within"], 3),
        "empty, %": lambda row: average(np.multiply(100, row["empty"]), 0),
        "who draws, Brier excess ↓": against_least,
    }
    D, empty = average(readers["distance"], 3), average(np.multiply(100, readers["empty"]), 0)
    reference = ["reference: one more reader", number(0, 3), NONE, D, D, empty, against_least(readers), *[NONE] * 3]
    about = {"simple": (lidc.BLIND,), "apart": {"consensus of these four": "was given the readings"}}
    contest, drawn = drawn_masks(ways, "U-Net, random threshold", [reference], more, **about)
    return f"{drawn}\n\n{contest.verdict()}"


def outlined_nodules(maps, readers):
    """Table and sentence of the one mask of each map. maps: {name: row}; readers: their row."""
    scores = {name: row["others_dice"] for name, row in maps.items()} | {"a reader": readers["others_dice"]}
    contest = Contest(scores, ("nothing", lidc.BLIND), "U-Net", {"a reader": "reference"}, digits=3)
    more = {
        "consensus of 4": lambda row: average(row["consensus_dice"], 3) if "consensus_dice" in row else NONE,
        "one reading": lambda row: average(row["reading_dice"], 3),
        "threshold": lambda row: row.get("threshold", NONE),
    }
    return contest.shown("consensus of 3 ↑", columns(maps | {"a reader": readers}, more))


def calibrated_nodules(maps, readers):
    """Table and sentence of the probabilities of pixels. maps: {name: row}; readers: their row."""
    rows = maps | {"three readers for the fourth": readers}
    excess = {name: np.subtract(row["brier"], readers["least_brier"]) for name, row in rows.items()}
    apart = {"three readers for the fourth": "reference"}
    contest = Contest(excess, ("nothing", lidc.BLIND), "U-Net", apart, digits=4, up=False)
    error = {name: "{} ± {}".format(*(number(v, 3) for v in row["calibration_error"])) for name, row in maps.items()}
    right = {name: number(row["if_right"], 3) for name, row in maps.items()}
    return contest.shown("Brier excess ↓", {"ECE ↓": error, "ECE, if right": right})


def unets_alone(rows, five):
    """The part on each U-Net alone. rows: {name: row}; five: the row of their mean with a random threshold, or None."""
    if not rows or five is None:
        return ""
    named = {name.replace("lidc_unet_", "U-Net, seed "): row for name, row in rows.items()}
    scores = {name: row["energy_distance"] for name, row in named.items()} | {"all five": five["energy_distance"]}
    errors = {
        heading: lambda row, pixels=pixels: number(row["calibration_error"][pixels], 3)
        for heading, pixels in {"ECE, all pixels ↓": "all", "middle ↓": "middle", "near ↓": "near"}.items()
    }
    overlap = {"one mask, Dice ↑": lambda row: average(row["others_dice"], 3)}
    drawn, more = Contest(scores, to="all five", digits=3, up=False), columns(named, overlap | errors)
    return filled("U-Nets alone", near=lidc.NEAR, table=drawn.table("energy distance ↓", more))


def of_lidc(record, tensors):
    """Masks of lung nodules with four readings."""
    lab = lidc
    rows = {(row["kind"], row["name"]): row for row in lab.STUDY.fresh(record)}
    readers = rows.get(("readers", "readers"))
    wanted = [(key["kind"], key["name"]) for key in lab.plan()]
    if readers is None:
        return missing([": ".join(key) for key in wanted])
    ways, maps, alone = (
        {name: rows[kind, name] for kind, name in wanted if (kind, name) in rows and kind == which}
        for which in ("draws", "map", "alone")
    )
    return filled(
        "lung nodules",
        readers=readers,
        shares=", ".join(f"{count / readers['slices']:.0%}".replace("%", " %") for count in readers["drew"][1:]),
        plug_in=number(np.mean(readers["distance"]) * (1 / lab.SAMPLES + 1 / 4), 3),
        samples=lab.SAMPLES,
        drawn=drawn_nodules(ways, readers),
        outlined=outlined_nodules(maps, readers),
        calibrated=calibrated_nodules(maps, readers),
        alone=unets_alone(alone, ways.get("ensemble, random threshold")),
        missing=missing([": ".join(key) for key in wanted if key not in rows]),
    )


# ---- Notebook 11 -----------------------------------------------------------------------------------------------------


def costs(found, methods):
    """Second table of :func:`anomaly`. found: {(method, family): row}."""
    lab, lines = anomaly, []

    def joined(method, key):
        return list(itertools.chain.from_iterable(found[method, family].get(key, []) for family in lab.FAMILIES))

    for m in methods:
        healthy, sick = found[m, None], joined(m, "highest")
        truth = [1] * len(sick) + [0] * len(healthy["highest"])
        errors = [joined(m, key) for key in ("error_in_lesion", "error_elsewhere")]
        cells = [interval(joined(m, "dice")), interval(joined(m, "dice_oracle"))]
        cells += [interval(values) if values else NONE for values in errors]
        cells += [interval(healthy["false_alarms"], 1), number(auroc(sick + healthy["highest"], truth))]
        seconds = average([found[m, family]["seconds"] for family in lab.FAMILIES], 4)
        lines.append([m, settings(healthy) or NONE, *cells, lab.METHODS[m].evaluations, seconds])
    if untouched := next(filter(None, (joined(m, "untouched_in_lesion") for m in methods)), None):
        lines.insert(0, ["the image untouched", *[NONE] * 3, interval(untouched), *[NONE] * 5])
    header = "setting", "Dice ↑", "Dice, oracle ↑", "error in lesion ↓", "elsewhere ↓", "findings ↓", "AUROC ↑"
    return table(["", *header, "evaluations", "s"], lines)


def of_anomaly(record, tensors):
    """Detection of the families of lesions; healing, false alarms and cost."""
    lab = anomaly
    fresh = [row for row in lab.STUDY.fresh(record) if row["split"] == "test"]
    found = {(row["method"], row["family"]): row for row in fresh if row["strength"] == 1}
    methods = [m for m in lab.METHODS if all((m, family) in found for family in (*lab.FAMILIES, None))]
    simple, apart = ("bright threshold", "atlas z-score", "PCA"), {"supervised segmenter": "was given outlines"}
    precision = {f: {m: found[m, f]["average_precision"] for m in methods} for f in lab.FAMILIES}
    precision["all"] = {m: list(itertools.chain(*(precision[f][m] for f in lab.FAMILIES))) for m in methods}
    contests = {family: Contest(scores, simple, apart=apart) for family, scores in precision.items()}
    *each, overall = contests.values()
    chance = [found[methods[0], f]["prevalence"] for f in lab.FAMILIES] if methods else []
    blind = ["chance level: prevalence", *(average(values, 3) for values in [list(itertools.chain(*chance)), *chance])]
    more = {family: {m: contest.mean(m) for m in methods} for family, contest in zip(lab.FAMILIES, each)}
    return filled(
        "anomaly",
        record=record,
        families=len(lab.FAMILIES),
        validation=len(lab.FAMILIES) * record["cases"]["validation"],
        prior=prior_quality(),
        table=overall.table("all families ↑", more, [[*blind[:2], NONE, *blind[2:]]] if methods else []),
        verdicts="\n".join(f"- *{family}*: {contest.verdict()}" for family, contest in contests.items()),
        costs=costs(found, methods),
        real=real_lesions(found, simple, apart),
        missing=missing([m for m in lab.METHODS if m not in methods]),
    )


def real_lesions(found, simple, apart):
    """The part on made subjects with real shapes of lesions; empty where none was measured."""
    rows = {m: row for (m, family), row in found.items() if family == REAL_FAMILY}
    if not rows:
        return ""
    persons = next(iter(rows.values()))["persons"]
    scores = {m: row["average_precision"] for m, row in rows.items()}
    contest = Contest(scores, simple, apart=apart, group=persons)
    more = {"Dice ↑": "dice", "Dice, oracle ↑": "dice_oracle"}
    more = {heading: {m: interval(row[key], group=persons) for m, row in rows.items()} for heading, key in more.items()}
    chance = ["chance level: prevalence", average(next(iter(rows.values()))["prevalence"], 3), *[NONE] * 3]
    shown = contest.shown("average precision ↑", more, [chance])
    return filled("real lesions", cases=len(persons), persons=len(set(persons)), precision=shown)


NEIGHBOURS = 5  # slices by number that count as one case in an interval: often one patient's
FALSE_FINDINGS = (1, 4)  # a slice


def found_at(row, allowed, chosen):
    """Share of the lesions found at the best threshold with so many false findings a slice, of the slices chosen."""
    found, lesions, false = (np.array(row[key], float)[chosen] for key in ("found", "lesions", "false"))
    _, best = froc_point(found, lesions, false, allowed)
    if best is None:
        return number(0)
    return interval(found[:, best] / np.maximum(lesions, 1), group=NEIGHBOURS)


def of_noise_limit(record, tensors):
    """How well the kind of a lesion can be told in noise."""
    rows = {row["t"]: row for row in record["rows"]}
    names = {f"given {n}": f"observer given {n} of each family" for n in noise_limit.GIVEN}
    names |= {"network": f"`{noise_limit.NETWORK}`"}
    shares = {name: [average(100 * np.array(row[name]), 0) for row in rows.values()] for name in names}
    middle = rows.get(0.5, {})
    lines = [[text, *(number(100 * share, 0) for share in middle.get(name, ()))] for name, text in names.items()]
    return filled(
        "noise limit",
        record=record,
        chance=number(100 / len(record["kinds"]), 0),
        all=table(["", *(f"t = {t}" for t in rows)], [[text, *shares[name]] for name, text in names.items()]),
        kinds=table(["", *record["kinds"]], lines),
        missing=missing([f"t = {t}" for t in noise_limit.TIMES if t not in rows]),
    )


def of_tumours(record, tensors):
    """Detection of real tumours, by class: precision, Dice, and findings lesion by lesion."""
    lab, labels = tumours, np.array(record["labels"])
    fresh = [row for row in lab.STUDY.fresh(record) if row["split"] == "test"]
    rows = {row["method"]: row for row in sorted(fresh, key=lambda row: list(lab.METHODS).index(row["method"]))}
    parts = {"all classes": labels >= 0} | {name: labels == k for k, name in enumerate(record["classes"])}
    contests = {
        part: Contest(
            {m: np.array(row["average_precision"])[w] for m, row in rows.items()}, lab.SIMPLE, group=NEIGHBOURS
        )
        for part, w in parts.items()
    }
    overall, *each = contests.values()
    chance = [average(np.array(next(iter(rows.values()))["prevalence"])[w], 3) for w in parts.values()] if rows else []
    more = {name: {m: contest.mean(m) for m in rows} for name, contest in zip(record["classes"], each)}
    lines = []
    for m, row in rows.items():
        cells = [interval(row[key], group=NEIGHBOURS) for key in ("dice", "dice_oracle")]
        cells += [found_at(row, allowed, parts["all classes"]) for allowed in FALSE_FINDINGS]
        cells += [found_at(row, FALSE_FINDINGS[0], where) for where in list(parts.values())[1:]]
        lines.append([m, settings(row) or NONE, *cells, lab.METHODS[m].evaluations, number(row["seconds"], 4)])
    quiet = f"at {FALSE_FINDINGS[0]}"
    header = ["setting", "Dice ↑", "Dice, oracle ↑", *(f"found at {allowed} ↑" for allowed in FALSE_FINDINGS)]
    header += [*(f"{name}, {quiet} ↑" for name in record["classes"]), "evaluations", "s"]
    return filled(
        "tumours",
        record=record,
        cases=", ".join(f"{(labels == k).sum()} of {name}" for k, name in enumerate(record["classes"])),
        neighbours=NEIGHBOURS,
        split="by patient" if record["by_patient"] else "by blocks of numbers within a class, a stand-in for patients",
        table=overall.table(
            "all classes ↑", more, [["chance level: prevalence", chance[0], NONE, *chance[1:]]] if rows else []
        ),
        verdicts="\n".join(f"- *{part}*: {contest.verdict()}" for part, contest in contests.items()),
        found=table(["", *header], lines),
        missing=missing([m for m in lab.METHODS if m not in rows]),
    )


def of_tumour_trainings(record, tensors):
    """The autoencoders of :func:`of_tumours`, trained anew."""
    values = [tumour_trainings.by_training(record["rows"], key) for key in ("average_precision", "dice", "found")]
    lines = []
    for method in tumour_trainings.NETWORKS:
        lines.append([method, *(over_seeds([np.mean(one) for one in of[method]]) for of in values)])
    header = ["", "average precision ↑", "Dice ↑", f"found at {record['allowed']} ↑"]
    return filled("tumour trainings", table=table(header, lines), missing=absent(tumour_trainings.STUDY, record))


def of_persons(record, tensors):
    """Three real persons: how far from the cohort they are, and what each method finds in each of them."""
    lab = persons
    fresh = lab.STUDY.fresh(record)
    shifts = {row["images"]: row for row in fresh if row["kind"] == "shift"}
    levels = [f"rms at t = {t}" for t in lab.NOISE_LEVELS]
    lines = [
        [name, number(row["frechet_distance"], 0), *(number(row[key], 3) for key in levels)]
        for name, row in shifts.items()
    ]
    blocks, wanted = [], []
    for contrast in lab.CONTRASTS:
        rows = {row["method"]: row for row in fresh if row.get("contrast") == contrast}
        wanted += [f"{contrast}: {m}" for m in anomaly.METHODS if m not in rows]
        if not rows:
            continue
        any_row = next(iter(rows.values()))
        chance = [f"{number(share, 3)}; {NONE}; {NONE}; {NONE}" for share in any_row["prevalence"]]
        table_lines = [["chance level", *chance]]
        for method in filter(rows.__contains__, anomaly.METHODS):
            row = rows[method]
            values = zip(row["average_precision"], row["dice"], row["found"], row["lesions"], row["false"])
            cells = [f"{number(p, 3)}; {number(d)}; {f} of {n}; {number(a, 1)}" for p, d, f, n, a in values]
            table_lines.append([method, *cells])
        blocks.append(f"### {contrast}\n\n{table(['', *(f'person {k}' for k in record['persons'])], table_lines)}")
    return filled(
        "persons",
        record=record,
        slices=len(record["levels"]),
        shift=table(["", "Fréchet ↓", *(f"error, t = {t} ↓" for t in lab.NOISE_LEVELS)], lines),
        contrasts="\n\n".join(blocks),
        missing=missing(wanted),
    )


# ---- Notebook 12 -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """How tasks are shown: the score (key, heading, digits, up), further measures {heading: (key, digits)}, simple
    methods and the method to subtract as in :class:`Contest`, and those that know too much."""

    score: tuple = ("psnr", "PSNR, dB ↑", 2, True)
    more: dict = field(default_factory=dict)
    simple: tuple = ()
    to: str = ""
    apart: dict = field(default_factory=dict)


KEPT = {f"{family} kept ↑": (f"contrast_kept_{family}", 2) for family in image_to_image.LESIONS}
COVERED = {"coverage (right: 0.9)": ("coverage", 2)}
TOLD = {f"{way}, oracle map": "was given the true map" for way in ("inverted", "SDEdit")}

#: beginning of a task's name, and name of its text -> its style.
STYLES = {
    "denoising": Style(
        more={"SSIM ↑": ("ssim", 3), "contrast kept ↑": ("contrast_kept", 2)} | COVERED,
        simple=tuple(classical.DENOISERS),
    ),
    "assumed noise": Style(to="1.0 x"),
    "magnitude": Style(
        more={f"bias, {name}": (f"bias_{name}", 3) for name in ("background", "CSF", "white")}, to="as if Gaussian"
    ),
    "larger ventricles": Style(
        more={f"{where} ↓": (f"error_{where}", 3) for where in ("near", "far")}
        | {"area": ("area", 0), "of truth": ("area_of_truth", 0)},
        simple=("painted", "pushed"),
        apart=TOLD,
    ),
    "removed": Style(
        ("error_hole", "error in the hole ↓", 3, False),
        {"at its edge ↓": ("error_edge", 3), "grain": ("grain", 2)},
        ("biharmonic", "other side"),
    ),
    "T1 to T2": Style(
        more={"SSIM ↑": ("ssim", 3), "sharpness": ("sharpness", 2)} | COVERED | KEPT, simple=("one curve",)
    ),
}


def task_table(style, rows):
    """Table and sentence of a task. rows: {method: row}."""
    key, heading, digits, up = style.score
    entries = with_means(rows, image_to_image.SAMPLES)
    scores = {name: row[key] for name, row in entries.items()}
    more = {
        heading: {name: interval(row[measure], places) for name, row in entries.items() if measure in row}
        for heading, (measure, places) in style.more.items()
    }
    setting = {name: settings(row) for name, row in entries.items() if row["setting"]}
    unit = " dB" if key == "psnr" else ""
    contest = Contest(scores, style.simple, style.to, {"nothing": "untouched"} | style.apart, digits, up=up, unit=unit)
    more |= {"setting": setting} if setting else {}
    return contest.shown(heading, more | columns(entries, COST))


def of_image_to_image(record, tensors):
    """Denoising, counterfactuals, lesions removed, contrasts: a table a task."""
    lab, blocks, found = image_to_image, [], {}
    for row in lab.STUDY.fresh(record):
        if row["split"] == "test":
            found.setdefault(row["task"], {})[row["method"]] = row
    for start, style in STYLES.items():
        tasks = [task for task in lab.TASKS if task.startswith(start) and task in found]
        blocks += [filled(start)] if tasks else []
        for task in tasks:
            rows = {method: found[task][method] for method in lab.TASKS[task].methods if method in found[task]}
            cases = len(next(iter(rows.values()))["psnr"])
            blocks.append(f"*{task}*, {cases} cases:\n\n{task_table(style, rows)}")
    plan = [(task, method) for task, about in lab.TASKS.items() for method in about.methods]
    return filled(
        "image to image",
        record=record,
        prior=prior_quality(),
        tasks="\n\n".join(blocks),
        missing=missing([f"{task}: {method}" for task, method in plan if method not in found.get(task, ())]),
    )


def of_each_person(record, rows, **digits):
    """A table of rows {name: row}, a column a person. digits: of each measure in a cell; a dash where it is None."""

    def cell(row, k):
        values = ((row[name][k], places) for name, places in digits.items())
        return "; ".join(NONE if value is None else number(value, places) for value, places in values)

    persons = range(len(record["persons"]))
    header = ["", *(f"person {number}" for number in record["persons"])]
    return table(header, [[name, *(cell(row, k) for k in persons)] for name, row in rows.items()])


def counted(record, rows, measure):
    """How many of something there are in each person, as text; rows: those of a table, of which each says it."""
    each = next(iter(rows.values()), {}).get(measure, [])
    return ", ".join(f"{n} in person {who}" for n, who in zip(each, record["persons"]))


def share_placed(record, moved, there):
    """How much of the lesions' area the moved holes stand for, in each person, as text; rows as in :func:`counted`."""
    areas = [next(iter(rows.values()), {}).get("outlined", []) for rows in (moved, there)]
    shares = (f"{number(100 * a / b, 0)} % in person {who}" for a, b, who in zip(*areas, record["persons"]))
    return ", ".join(shares)


def of_real_persons(record, tensors):
    """T1 to T2 and lesions removed on three real persons: a table a question, a column a person."""
    lab, found, absent = real_persons, {}, []
    measured = {tuple(row[key] for key in ("of", "method")): row for row in lab.STUDY.fresh(record)}
    for key in lab.plan(record):
        row = measured.get((key["of"], key["method"]))
        found.setdefault(key["of"], {}).update({key["method"]: row} if row else {})
        absent += [] if row else [f"{key['of']}: {key['method']}"]
    real, made, lesions, healthy, heads = (found[of] for of in (lab.REAL, lab.MADE, *lab.WHERE))
    outside = max((max(row["outside"]) for of in lab.WHERE for row in found[of].values()), default=0)
    near, look = {"rms": 2, "correlation": 2}, {"brightness": 1, "grain": 2, "seam": 2, "called": 2}

    def without(rows, name):
        return {method: row for method, row in rows.items() if method != name}

    return filled(
        "real persons",
        near=of_each_person(record, without(real, lab.TRUTH), **near),
        near_made=of_each_person(record, without(made, lab.TRUTH), **near),
        lesions=counted(record, real, "lesions"),
        seen=of_each_person(record, real, contrast=1, kept=2, bright=2),
        faint=counted(record, real, "lesions_faint"),
        seen_faint=of_each_person(record, real, faint=1),
        holes=counted(record, healthy, "holes"),
        given=counted(record, lesions, "holes"),
        placed=share_placed(record, healthy, lesions),
        errors=of_each_person(record, without(healthy, "nothing"), error=3),
        errors_made=of_each_person(record, without(heads, "nothing"), error=3),
        outside=number(outside, 4),
        looks_healthy=of_each_person(record, healthy, **look),
        looks=of_each_person(record, lesions, **look),
        missing=missing(absent),
    )


# ---- Notebook 13 -----------------------------------------------------------------------------------------------------


def of_trends(record, tensors):
    """Networks of one size and one length of training, by number of evaluations."""
    rows = {(row["method"], row["sampler"], row["nfe"]): row for row in record["rows"]}
    blocks = []
    single = [way for way in trends.WAYS if way[0] in trends.NETWORKS]
    for title, ways in (
        ("Each with the sampler that it was made for", [way for way in single if way[1] != "2M"]),
        ("One sampler for all", [way for way in single if way[1] == "2M"]),
        (
            f"DDPM, with the flow's answers below log-SNR {trends.CUT:.0f}",
            [way for way in trends.WAYS if way not in single],
        ),
    ):
        lines = []
        for way in ways:
            for nfe in trends.WAYS[way].evaluations:
                if row := rows.get((*way, nfe)):
                    distance = f"{number(row['frechet_distance'])} ± {number(row['error'])}"
                    name = f"{way[0]}, {way[1]}"
                    lines.append([name, nfe, distance, number(100 * row["recognised"], 1), number(row["seconds"], 4)])
        blocks += [f"### {title}", table(["", "evaluations", "Fréchet ↓", "recognised, % ↑", "s"], lines)]
    wanted = [tuple(key.values()) for key in trends.plan()]
    ends = {name: f"{number(min(record[name]))} to {number(max(record[name]))}" for name in ("floor", "test_split")}
    return filled(
        "trends",
        record=record,
        floor=ends["floor"],
        draws=len(record["floor"]),
        unseen=ends["test_split"],
        tables="\n\n".join(blocks),
        missing=missing(["{} with {} at {}".format(*which) for which in wanted if which not in rows]),
    )


def over_seeds(values, digits=2):
    """Mean of a value of several trainings, its least and its largest, as text."""
    ends = (number(end, digits) for end in (min(values), max(values)))
    return f"{average(values, digits)} ({' to '.join(ends)})" if len(values) > 1 else number(values[0], digits)


def by_evaluations(record, key, digits=2):
    """A table of a value of methods trained several times, by number of evaluations."""
    methods = list(dict.fromkeys(row["method"] for row in record["rows"]))
    rows = {method: [row for row in record["rows"] if row["method"] == method] for method in methods}
    counts = sorted({nfe for row in record["rows"] for nfe in row["nfe"]})
    lines = [
        [method]
        + [
            over_seeds([row[key][row["nfe"].index(nfe)] for row in rows[method]], digits)
            if nfe in rows[method][0]["nfe"]
            else NONE
            for nfe in counts
        ]
        for method in methods
    ]
    return table(["", *counts], lines)


def absent(study, record):
    """What to say of the rows of methods, or data, and seeds that a record lacks."""
    lacked = [key for key in study.plan() if not any(key.items() <= row.items() for row in record["rows"])]
    return missing(["{}, seed {}".format(*key.values()) for key in lacked])


def of_seeds(record, tensors):
    """The same recipes, trained anew."""
    distances, missing = by_evaluations(record, "frechet_distance"), absent(seeds.STUDY, record)
    return filled("seeds", record=record, distances=distances, missing=missing)


def of_bridge(record, tensors):
    """Low dose to full dose on real CT."""
    keys = {"psnr": 2, "detail": 2, "frechet_distance": 1}
    tables = {key: by_evaluations(record, key, digits) for key, digits in keys.items()}
    low = {key: number(record["low dose"][key], digits) for key, digits in keys.items()}
    return filled("bridge", record=record, low=low, **tables, missing=absent(bridge.STUDY, record))


def of_labels(record, tensors):
    """Maps of labels by masked and by Gaussian diffusion."""
    keys = {"frechet_distance": 3, "in_one_piece": 2, "area_spread": 0}
    tables = {key: by_evaluations(record, key, digits) for key, digits in keys.items()}
    real = {key: number(record["real"][key], digits) for key, digits in keys.items()}
    nats = [row["nats"] for row in record["rows"] if "nats" in row]
    nats = over_seeds(nats, 0) if nats else NONE
    return filled("labels", record=record, real=real, nats=nats, **tables, missing=absent(labels.STUDY, record))


# ---- Notebook 14 -----------------------------------------------------------------------------------------------------


AFFORDED = 0.25  # false findings a healthy image
OF_MRI = {"zeros or FBP": "zero filling"}  # what a method is called where all scans are MRI


def reader(rows):
    """Lines of the reader's table: lesions found and false findings at AFFORDED, and at the segmenter's own cut."""
    lab, lines = challenges, []
    for R, method in [(1, lab.TRUTH), *itertools.product(lab.TRAINED, lab.METHODS)]:
        if row := rows.get(("reader", R, method)):
            found = 100 * torch.tensor(row["found"]).double()[::2]  # large lesions: every other subject
            false = torch.tensor(row["false_findings"]).double().mean(0)
            after = int((false > AFFORDED).nonzero().max()) + 1 if (false > AFFORDED).any() else 0
            own = lab.LEVELS.index(0.5)
            cells = [[interval(found[:, k], 0), number(false[k])] for k in (min(after, len(false) - 1), own)]
            lines.append([f"R = {R}: {OF_MRI.get(method, method)}", *cells[0], *cells[1]])
    return lines


def fixed_bands(rows):
    """Header and lines of the table of intervals of one half-width."""
    lab = challenges
    within = {key[1:]: torch.tensor(row["share_within"]).double() for key, row in rows.items() if key[0] == "band"}
    half = lab.CASES // 2
    if not within:
        return ["", "not measured yet"], []
    width = {m: np.interp(0.9, within["as trained", m][:half].mean(0), lab.HALF_WIDTHS) for m in lab.BANDS}
    bands = [*width.items(), ("DiffPIR", width["TV"])]
    parts = {name: (name, slice(half * (name == lab.SHIFTS[0]), None)) for name in lab.SHIFTS}
    parts |= {f"{size} lesions": ("lesion", slice(k, None, 2)) for k, size in enumerate(("large", "tiny"))}
    lines = []
    for label, (name, part) in parts.items():
        shares = ([100 * np.interp(w, lab.HALF_WIDTHS, case) for case in within[name, m][part]] for m, w in bands)
        lines.append([label, *(interval(share, 0) for share in shares)])
    return ["", *(f"{method} ± {number(size)}" for method, size in bands)], lines


def of_challenges(record, tensors):
    """Copies by number of training subjects, lesions by acceleration, anatomy that the prior never saw."""
    lab = challenges
    rows = {(row["kind"], row["name"], row["method"]): row for row in record["rows"]}
    copies = []
    for n, steps in lab.COPIES:
        if row := rows.get(("copies", n, steps)):
            shares = [number(100 * row[f"share_of_{who}"], 1) for who in ("copies", "held_out")]
            distances = [number(row[key], 1) for key in ("frechet_distance", "frechet_distance_of_a_copier")]
            copies.append([f"{n:,} subjects, {steps:,} steps", *shares, *distances])
    lesions, shifts = [], []
    for R, method in itertools.product(lab.ACCELERATIONS, lab.METHODS):
        if row := rows.get(("lesion", R, method)):
            kept = [interval(row["contrast_kept"][k::2]) for k in range(2)]  # large and tiny lesions take turns
            lesions.append([f"R = {R}: {OF_MRI.get(method, method)}", *kept])
    for shift in lab.SHIFTS:
        found = {m: rows["shift", shift, m] for m in lab.METHODS if ("shift", shift, m) in rows}
        contest = Contest({m: row["psnr"] for m, row in found.items()}, lab.METHODS[:2], to="TV")
        for method, row in found.items():
            cells = [contest.mean(method), contest.minus(method, "TV"), average(row["misfit"]), covered(row)]
            shifts.append([f"{shift}: {OF_MRI.get(method, method)}", *cells])
    found, bands = reader(rows), fixed_bands(rows)
    wanted = [tuple(key.values()) for key in lab.plan()]
    return filled(
        "challenges",
        record=record,
        copies=table(["", "copies, %", "held out, %", "Fréchet ↓", "of a copier"], copies),
        lesions=table(["", "large lesions ↑", "tiny lesions ↑"], lesions),
        afforded=AFFORDED,
        found=table(["", "found, % ↑", "false findings", "at its own cut: found, %", "false findings"], found),
        R=lab.SHIFT_R,
        shifts=table(["", "PSNR, dB ↑", "minus TV", "misfit", "coverage, %"], shifts),
        bands=table(*bands),
        missing=missing(["; ".join(map(str, which)) for which in wanted if which not in rows]),
    )


def of_real_challenges(record, tensors):
    """Real lesions in a simulated scan, and intervals for the areas that real readers outline."""
    lab = real_challenges
    rows = {tuple(row[key] for key in ("kind", "name", "R", "method")): row for row in lab.STUDY.fresh(record)}
    keys = [tuple(key.values()) for key in lab.plan()]
    scans = {key[1:]: rows[key] for key in keys if key[0] == "lesion" and key in rows}
    label = {key: f"{key[0]}, R = {key[1]}: {OF_MRI.get(key[2], key[2])}" for key in scans}
    told = {label[key]: row for key, row in scans.items() if key[2] != lab.TRUTH}
    ours = {name: row for name, row in told.items() if "width_in_lesion" in row}
    found = {label[key]: row for key, row in scans.items() if "found" in row}
    persons = range(len(record["persons"]))
    called = [
        [name, *(f"{lab.found_at(row, k, FALSE_FINDINGS[0])} of {row['lesions'][k]}" for k in persons)]
        for name, row in found.items()
    ]
    finest = {
        name: {key: [of[-1] for of in row[f"ring_{key}"]] for key in ("error", "energy")} for name, row in told.items()
    }
    drawn = {f"{key[1]}: {key[3]}": row for key, row in rows.items() if key[0] == "nodules"}
    nodules = [
        [name, *(interval(100 * np.array(row[share]), 0) for share in ("covered", "larger"))]
        + [interval(row[key], 0) if key in row else NONE for key in ("width", "score")]
        for name, row in drawn.items()
    ]
    return filled(
        "real challenges",
        record=record,
        kept=of_each_person(record, told, kept=2, kept_small=2, kept_large=2),
        allowed=FALSE_FINDINGS[0],
        called=table(["", *(f"person {k}" for k in record["persons"])], called),
        covered=of_each_person(record, ours, coverage_in_lesion=2, coverage_elsewhere=2),
        widths=of_each_person(record, ours, width_in_lesion=2, width_elsewhere=2),
        finest=of_each_person(record, finest, error=2, energy=2),
        nodules=table(["", "covered, %", "larger, %", "width, pixels ↓", "interval score ↓"], nodules),
        missing=missing(["; ".join(map(str, key)) for key in keys if key not in rows]),
    )


def of_audits(record, tensors):
    """Made scanners, error bars in lesions, and membership inference."""
    rows = {(row["kind"], row["name"], row["method"]): row for row in audits.STUDY.fresh(record)}
    keys = [tuple(key.values()) for key in audits.plan()]
    there = [key for key in keys if key in rows]
    scanners = [
        [f"{name}: {method}", interval(rows["scanner", name, method]["psnr"]), covered(rows["scanner", name, method])]
        for kind, name, method in there
        if kind == "scanner"
    ]
    members = []
    for kind, name, method in there:
        if kind == "membership":
            known, others = (-np.array(rows[kind, name, method][key]) for key in ("members", "others"))
            members.append([name, *(number(of_two(k, o)) for k, o in zip(known, others))])
    at = [f"log-SNR {level:g}" for level in record["log_snr"]]
    return filled(
        "audits",
        record=record,
        scanners=table(["", "PSNR, dB ↑", "coverage, %"], scanners),
        members=table(["", *at], members),
        missing=missing(["; ".join(filter(None, key)) for key in keys if key not in rows]),
    )


def of_two(known, others):
    """AUROC of scores (N,) of those known against (M,) of others."""
    return auroc(np.concatenate([known, others]), np.arange(len(known) + len(others)) < len(known))


# ---- The page --------------------------------------------------------------------------------------------------------

#: name of a record -> title of its section, report (record, tensors) -> its text.
REPORTS = {
    "08_synthesis": ("Synthesis", of_synthesis),
    "09_reconstruction": ("Reconstruction", of_reconstruction),
    "09_raw_scan": ("Reconstruction: a real scan of eight coils", of_raw_scan),
    "10_segmentation": ("Segmentation", of_segmentation),
    "10_trainings": ("Segmentation: other seeds", of_trainings),
    "10_lidc": ("Segmentation: four real readers", of_lidc),
    "11_anomaly": ("Anomaly detection", of_anomaly),
    "11_noise_limit": ("Anomaly detection: what can be told in noise", of_noise_limit),
    "11_tumours": ("Anomaly detection: real tumours", of_tumours),
    "11_tumour_trainings": ("Anomaly detection: real tumours, other seeds", of_tumour_trainings),
    "11_persons": ("Anomaly detection: three real persons", of_persons),
    "12_image_to_image": ("More applications", of_image_to_image),
    "12_real_persons": ("More applications: three real persons", of_real_persons),
    "13_trends": ("Trends", of_trends),
    "13_seeds": ("Trends: other seeds", of_seeds),
    "13_bridge": ("Trends: a bridge from low dose to full dose", of_bridge),
    "13_labels": ("Trends: maps of labels", of_labels),
    "14_challenges": ("Open challenges", of_challenges),
    "14_audits": ("Open challenges: two made scanners, members", of_audits),
    "14_real_challenges": ("Open challenges: real lesions, real readers", of_real_challenges),
}


def section(name):
    """The section of a record, Markdown; for one that is not there, or is of other weights, what to do about it."""
    title, report = REPORTS[name]
    notebook = next((ROOT / "notebooks").glob(f"{name[:2]}_*.ipynb"), None)
    link = f"[notebook {name[:2]}](../notebooks/{notebook.name})" if notebook else f"notebook {name[:2]}"
    try:
        record = experiments.load(name)
    except ValueError as error:
        return f"## {title}\n\nExplained in {link}. *Not measured yet: {str(error).replace(f'{ROOT}/', '')}.*"
    made = f"Explained in {link}. Remade by `{record['made_by']}`; networks ran in {record['precision']}."
    if stale := sum(not study_of(name).is_fresh(row) for row in record["rows"]):
        made += f" *{stale} of its rows were measured with other weights than those here; remake them.*"
    return f"## {title}\n\n{made}\n\n{report(record, experiments.tensors(name))}"


def page():
    """The whole page, Markdown."""
    return "\n\n".join([texts()["introduction"], *map(section, REPORTS)]) + "\n"


def main():
    """The command."""
    write_atomically(PAGE, page().encode())
    print(PAGE)


if __name__ == "__main__":
    main()
