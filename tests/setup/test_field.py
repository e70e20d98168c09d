"""docs/field.md: each work has its venue, its year, its address, and what was claimed beside what was shown."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "field.md").read_text(encoding="utf-8")
LATEST = int(re.search(r"As of \d+ \w+ (20\d\d)", PAGE)[1])
ENTRIES = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
# What a learner who comes from a conference of 2026 has heard of.
WORKS = (
    *("MeanFlow", "MOTFM", "WFM", "WaveDiT", "MAISI-v2", "NV-Generate-CTMR", "MedVAE", "CheXGenBench", "LCMem"),
    *("Fréchet radiomic distance", "RoentGen-v2", "InverseBench", "DAPS", "Conformal bounds", "Flow-SSN", "YODA"),
    *("benchmark of anomaly detection", "SynthRAD2025"),
)


def lacks(text):
    """What an entry lacks of: title, venue and year, address, claim, evidence."""
    head, *rest = re.split(r"\*\*Claimed\.\*\*", text)
    claimed, *shown = re.split(r"\*\*Shown\.\*\*", "".join(rest))
    there = {
        "title": re.search(r"\*[^*\n][^*]+\*", re.sub(r"\*\*.*?\*\*", "", head)),
        "venue and year": len(venues(head)) == 1,
        "address": re.search(r"\]\(https://[\w.-]+\.\w+/[^)\s]*\)", head),
        "claim": len(claimed.split()) > 5,
        "evidence": len("".join(shown).split()) > 5,
    }
    return [part for part, found in there.items() if not found]


def venues(text):
    """(venue, year) of each bold venue in the head of an entry."""
    return re.findall(r"\*\*([^*]*?[A-Za-z][^*]*?)\s+(20\d\d)\.\*\*", text)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_is_whole(name):
    assert lacks(ENTRIES[name]) == []


@pytest.mark.parametrize("name", ENTRIES)
def test_years_agree_with_the_numbers_of_arxiv(name):
    """A number YYMM.NNNNN says when a preprint came: a paper is not older, and a preprint has that year."""
    ((venue, year),) = venues(ENTRIES[name])
    assert int(year) <= LATEST
    for month in re.findall(r"arxiv\.org/abs/(\d{4})\.\d{5}", ENTRIES[name]):
        assert int(year) == 2000 + int(month[:2]) if venue == "arXiv" else int(year) >= 2000 + int(month[:2])


def test_address_and_text_of_a_link_to_arxiv_are_one_number():
    links = re.findall(r"\[arXiv ([^\]]+)\]\(https://arxiv\.org/abs/([^)]+)\)", PAGE)
    assert len(links) > 15
    assert [text for text, address in links if text != address] == []
    assert PAGE.count("arxiv.org/") == len(links)


@pytest.mark.parametrize("work", WORKS)
def test_the_page_has(work):
    assert [name for name in ENTRIES if work in name]


def test_what_is_not_there_is_found():
    whole = "A, *A title*. **MIDL 2026.** [x](https://a.org/b)\n\n**Claimed.** one two three four five six\n"
    whole += "**Shown.** one two three four five six"
    assert lacks(whole) == []
    assert lacks(whole.replace("**MIDL 2026.**", "MIDL")) == ["venue and year"]
    assert lacks(whole.replace(" 2026", "")) == ["venue and year"]
    assert lacks(whole.replace("https:", "ftp:")) == ["address"]
    assert lacks(whole.replace("*A title*", "A title")) == ["title"]
    assert lacks(whole.split("**Shown")[0]) == ["evidence"]
    assert "claim" in lacks(whole.replace("**Claimed.** ", ""))


def test_notebook_13_leads_here():
    assert "../docs/field.md" in (ROOT / "notebooks" / "13_trends.ipynb").read_text(encoding="utf-8")
