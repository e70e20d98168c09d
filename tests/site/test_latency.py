"""docs/latency.md: every widget of every notebook was measured, and a goal counts as met where its numbers meet it."""

import html
import re
from pathlib import Path

import cells
import latency
import pytest
import widget_driver

ROOT = Path(__file__).resolve().parents[2]

PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
ROWS = re.findall(latency.ROW, latency.PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def stepper_titles(notebook):
    """Titles of the notebook's sliders that need no kernel, in order."""
    markup = [
        output.get("data", {}).get("text/html", "") for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    steppers = [text for text in markup if 'class="course-stepper"' in text]
    return [html.unescape(re.search(r'aria-label="([^"]*)"', text).group(1)) for text in steppers]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_widget_was_measured(path):
    notebook = cells.read(path)
    rows = [row for row in ROWS if row[0] == path.name[:2]]
    kinds = widget_driver.stored(notebook)
    assert [row[1] for row in rows if row[2] == "no kernel"] == stepper_titles(notebook), (
        "run `python tools/latency.py`"
    )
    assert len([row for row in rows if row[2] == "kernel"]) == kinds.count("live"), "run `python tools/latency.py`"


def test_a_goal_is_met_where_the_numbers_say_so():
    goals = {latency.KINDS[kind]: goal for kind, goal in latency.GOALS.items()}
    for _, title, kind, median, _, first, met, _ in ROWS:
        assert "none" not in (median, first), f"{title}: no picture came"
        assert (int(median) <= goals[kind] and int(first) <= latency.FIRST) == (met == "yes"), title


def test_row():
    good = latency.row("00", "live", "A title", [900.0, 300.4, 400.0], 0.2)
    assert good == "| 00 | A title | kernel | 400 | 900 | 900 | yes | 0.2 |"
    assert re.match(latency.ROW, good)
    assert "| no |" in latency.row("00", "stepper", "A title", [90.0, 110.0, 120.0], 0.2)
    assert "| no |" in latency.row("00", "live", "A title", [2500.0, 300.0, 400.0], 0.2)
    assert "| none | none | 90 | no |" in latency.row("00", "live", "A title", [90.0, None], 0.2)
