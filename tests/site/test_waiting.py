"""docs/waiting.md: every notebook was run in JupyterLab, and the goal counts as met where silence is short enough."""

import re
from pathlib import Path

import pytest
import waiting

PATHS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
RAN = {
    "cells": [
        {"number": 1, "begin": 1000, "end": 1500, "first": 1200},  # shows something after 0.2 s
        {"number": 2, "begin": 1500, "end": 11_000, "first": None},  # shows nothing for 9.5 s
        {"number": 4, "begin": 11_000, "end": 31_000, "first": 11_500},  # a line, then 19.5 s of work
        {"number": 5, "begin": 31_000, "end": 32_000, "first": 33_000},  # of a later change that counts for nobody
    ]
}


def test_every_notebook_was_measured():
    rows = re.findall(waiting.ROW, waiting.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [row[0] for row in rows] == [path.name[:2] for path in PATHS], "run `python tools/waiting.py`"
    for _, whole, silence, _, met, _ in rows:
        assert (float(silence) <= waiting.GOAL) == (met == "yes") and float(silence) <= float(whole)


def test_a_cell_is_silent_until_its_first_sign_or_its_end():
    assert waiting.silences(RAN) == pytest.approx({1: 0.2, 2: 9.5, 4: 0.5, 5: 1.0})


def test_row():
    line = waiting.row("03", RAN, {"1": [1], "2": [2, 3, 4]}, 0.26)
    assert line == "| 03 | 31 | 9.5 | 2 | no | 0.3 |"
    assert re.match(waiting.ROW, line)
    assert "set-up | no" in waiting.row("03", RAN, {"1": [1]}, 0.2), "cells before the first section"
