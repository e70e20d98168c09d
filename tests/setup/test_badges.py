"""Badges and links to the repository derive from pyproject.toml; the first lines of the README are the commands."""

import re
from pathlib import Path
from urllib.parse import unquote

import badges
import pytest

ROOT = Path(__file__).resolve().parents[2]

SLUG = badges.slug((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", badges.files(), ids=lambda path: path.name)
def test_links_follow_pyproject(path):
    text = path.read_bytes().decode()
    assert badges.rewritten(text, SLUG) == text, "run: python tools/badges.py"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_each_notebook_has_its_own_badges_there_and_in_the_readme(name):
    for text in (README, (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")):
        assert f"colab.research.google.com/github/{SLUG}/blob/main/notebooks/{name}.ipynb" in text
        assert f"mybinder.org/v2/gh/{SLUG}/main?urlpath=lab/tree/notebooks/{name}.ipynb" in text


def test_a_change_of_address_reaches_every_kind_of_link():
    text = f'git clone https://github.com/{SLUG} && repository-code: "https://github.com/{SLUG}" '
    text += badges.badges("03_ddpm", SLUG) + f" pip install git+https://github.com/{SLUG}.git"
    moved = badges.rewritten(text, "someone/else-where")
    assert SLUG not in moved
    assert moved.count("someone/else-where") == 5
    assert moved.endswith("someone/else-where.git")


def test_readme_begins_with_the_two_commands():
    lines = README.splitlines()
    assert lines[1].startswith("python3 start.py lab")
    assert lines[2].startswith("python3 start.py test")


def test_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)\s]+)\)", README) + re.findall(r'src="([^"]+)"', README)
    local = [unquote(link.split("#")[0]) for link in links if not link.startswith(("http", "#"))]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []
