"""Nothing in the repository's text belongs to the machine of who wrote it, and nothing is left half done."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".git", ".venv", ".pytest_cache", ".ruff_cache", "build"}
KINDS = {".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".yaml", ".json", ".cff"}


def text_files():
    """The text files of the repository; the folder of installed packages is not walked."""
    tops = [top for top in ROOT.iterdir() if top.name not in SKIPPED and not top.name.endswith(".egg-info")]
    paths = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*"))]
    return sorted(path for path in paths if path.suffix in KINDS and ".ipynb_checkpoints" not in path.parts)


# An absolute path below a home or a work folder, or a kernel's temporary file in a stored traceback.
OF_A_MACHINE = r"(?<![\w.+=/-])/(?:work|root|home|Users|mnt)/\w|/tmp/ipykernel_|[A-Z]:\\+Users\\"
LEFT_OVER = r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME"]) + r")\b|^(?:<<<<<<<|>>>>>>>) "


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_path_of_a_machine_and_nothing_left_over(path):
    text = path.read_text(encoding="utf-8")
    if path == Path(__file__).resolve():
        text = text.replace(OF_A_MACHINE, "")
    found = re.finditer(f"{OF_A_MACHINE}|{LEFT_OVER}", text, re.MULTILINE)
    # Only the surroundings are shown: a line of a notebook may hold a megabyte of picture.
    assert [text[max(0, match.start() - 40) : match.end() + 60] for match in found] == []


def test_ruff_finds_nothing():
    found = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format=concise", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout
