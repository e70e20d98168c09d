"""docs/clinicians.md: the clock of the hour, its numbers, which are those of the notebooks, its place on the site."""

import json
import re
from pathlib import Path

import pytest

from course_lib import experiments

ROOT = Path(__file__).resolve().parents[2]
TEXT = " ".join((ROOT / "docs" / "clinicians.md").read_text(encoding="utf-8").split())
LINES = (ROOT / "docs" / "clinicians.md").read_text(encoding="utf-8").splitlines()


def shown(notebook, cell):
    """What a cell of a stored notebook shows, as plain text."""
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = {c["id"]: c for c in json.loads(path.read_text(encoding="utf-8"))["cells"]}
    outputs = cells[cell]["outputs"]
    return "\n".join("".join(out.get("text", out.get("data", {}).get("text/plain", ""))) for out in outputs)


def row(notebook, cell, *names):
    """The columns after the names of a row in the (first) table that a cell shows, as text."""
    start = r"^" + r"\s{2,}".join(map(re.escape, names)) + r"\s{2,}(.+)$"
    found = re.findall(start, shown(notebook, cell), re.MULTILINE)
    assert found, f"no {names} in {cell} of notebook {notebook}"
    return re.split(r"\s{2,}", found[0].strip())


def test_the_hour_has_sixty_minutes_and_the_table_has_its_stops():
    table = [re.fullmatch(r"\| (\d+) \| \[.+?\]\(#(.+?)\) \| .+ \|", line) for line in LINES]
    table = [(int(found[1]), found[2]) for found in table if found]
    slots = re.findall(r"## ([^#*]+?) \*Minutes (\d+) to (\d+)\.\*", TEXT)
    anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title, *_ in slots]
    assert table == [(int(begin), anchor) for (_, begin, _), anchor in zip(slots, anchors, strict=True)]
    assert [int(end) for *_, end in slots] == [int(begin) for _, begin, _ in slots[1:]] + [60]
    assert table[0][0] == 0


def test_the_classifier_was_content():
    assert f"**{row('00', 'c15-2686b5', '15 looks')[-1]} of 18**" in TEXT
    assert f"**{row('00', 'c15-2686b5', '1 look')[-1]} of 18**" in TEXT


def test_lines_measured_at_eight_fold():
    (numbers, _) = row("09", "c04-dac3b9", "MRI, R = 8")
    assert f"{int(numbers) // 96} of 96 lines" in TEXT


@pytest.mark.parametrize(
    ("says", "method"),
    [
        ("without further knowledge", "zeros or FBP"),
        ("total variation, which has learnt nothing", "TV"),
        ("U-Net, trained for this scan", "U-Net"),
        ("the same, fitted to the scan", "U-Net, fitted"),
        ("diffusion (DiffPIR)", "DiffPIR"),
    ],
)
def test_contrast_of_tiny_lesions(says, method):
    kept = [row("09", "c53-73f5e6", scan, method)[2] for scan in ("MRI, R = 8", "CT, 24 views")]
    assert f"| {says} | {kept[0]} | {kept[1]} |" in TEXT


def test_what_the_trained_models_left_and_who_is_ahead_for_a_computer():
    left = {m: row("09", "c53-73f5e6", "CT, 24 views", m) for m in ("zeros or FBP", "DiffPIR", "U-Net")}
    scan, diffusion, unet = (columns[2] for columns in left.values())
    assert f"of {scan} the diffusion model left {diffusion} and the plain U-Net {unet}" in TEXT
    assert (
        "from the pictures of the diffusion model, in both scans, and in the CT from those of the plain U-Net" in TEXT
    )
    for scan in ("CT, 24 views", "MRI, R = 8"):
        detected = {m: float(row("09", "c53-73f5e6", scan, m)[3].split()[0]) for m in left}
        assert min(detected["DiffPIR"], detected["U-Net"]) > detected["zeros or FBP"]


def test_error_bars_inside_the_lesion():
    inside, elsewhere, _ = row("14", "c14-d3d1c5", "DiffPIR")
    mean, low, high = re.fullmatch(r"(\d+) \((\d+) to (\d+)\)", inside).groups()
    assert f"**{elsewhere.split()[0]} %** of the pixels elsewhere" in TEXT
    assert f"**{mean} %** inside the lesion (95 % interval: {low} to {high} %)" in TEXT


@pytest.mark.parametrize(
    ("says", "name"),
    [("the patient, untouched", "untouched"), ("least noise (0.05)", "0.05"), ("most noise (0.5)", "0.5")],
)
def test_errors_of_the_twins(says, name):
    inside, elsewhere = (text.removeprefix("★ ") for text in row("11", "c30-80cf56", name))
    assert f"| {says} | {inside} | {elsewhere} |" in TEXT


def test_false_alarms():
    methods = ("bright threshold", "atlas z-score", "noise and denoise", "supervised segmenter")
    bright, atlas, twin, segmenter = (row("11", "c65-651d8b", name)[1] for name in methods)
    assert f"From **{segmenter} %**" in TEXT and f"over **{twin} %**" in TEXT and f"to **{atlas} %**" in TEXT
    assert f'"bright means lesion" flags {bright} %' in TEXT
    networks = ("autoencoder", "VAE", "denoising autoencoder", "noise and denoise", "one step, ten draws")
    networks += ("inversion, classifier", "inversion, classifier-free")
    rows = [row for row in experiments.load("11_persons")["rows"] if row.get("contrast") == "FLAIR"]
    false = [sum(row["false"]) / len(row["false"]) for row in rows if row["method"] in networks]
    assert len(false) == len(networks)
    assert f"mark on average {round(min(false))} to {round(max(false))} pieces" in TEXT


def test_an_anatomy_never_seen():
    behind = {name: row("14", "c23-9dc1b9", name)[4] for name in ("posterior fossa", "T2-like", "hands", "vertex")}
    gaps = {name: float(text.split()[0]) for name, text in behind.items()}
    assert gaps.pop("vertex") > 0 > max(gaps.values())
    assert f"by {-max(gaps.values()):.1f} to {-min(gaps.values()):.1f} dB" in TEXT
    covered = [int(row("14", "c70-66d40c", name)[0].split()[0]) for name in behind]
    assert f"they hold {min(covered)} to {max(covered)} %" in TEXT
    width = {name: float(row("14", "c70-66d40c", name)[1].split()[0]) for name in (*behind, "as trained")}
    wider = {name: width[name] / width["as trained"] for name in behind}
    assert "by a third (hands) to seven tenths (T2-like)" in TEXT
    assert min(wider.values()) == wider["hands"] == pytest.approx(4 / 3, abs=0.03)
    assert max(wider.values()) == wider["T2-like"] == pytest.approx(1.7, abs=0.03)
    caught, of = row("14", "c27-25e913", "hands")[3:]
    assert f"{caught} of {of} hands" in TEXT and row("14", "c27-25e913", "T2-like")[3] == of


def test_copies():
    ten, hundred, longer, many = (
        row("14", "c34-2a5989", *key)[1].split()[0]
        for key in (("10", "3,000"), ("100", "3,000"), ("100", "9,000"), ("10,000", "9,000"))
    )
    assert float(ten) == 100 and float(many) == 0
    assert f"Trained on 100 people: **{hundred} %**" in TEXT and f"as long: **{float(longer):.0f} %**" in TEXT
    pixels, blocks, _ = (float(text.split()[0]) for text in row("08", "c59-d6b275", "altered copies"))
    assert f"found {pixels:.0%} by comparing pixels, {blocks:.0%} by".replace("%", " %") in TEXT


def test_it_is_the_first_link_of_the_first_page(tab, site):
    tab.goto(site.address)
    first = tab.locator("article a:not(.headerlink)", has_text=re.compile(r"\S")).first  # the picture's has none
    assert first.text_content() == "A clinician’s hour"
    first.click()
    assert tab.locator("article h1").text_content().startswith("A clinician")


def test_every_stop_shows_what_it_names(tab, site):
    """Figures, sliders and the card of the notebooks stand in the page itself: no station of a lab is needed."""
    asked = [line for line in LINES if line.startswith("<!-- shown:")]
    tab.goto(site.address + "docs/clinicians.html")
    shown_there = tab.locator("article .cell_output").count()
    assert shown_there == len(asked) >= 11
    assert tab.locator("article input.course-stepper").count() == 4
    assert "<!--" not in tab.locator("article").inner_text()
