"""Every widget of every notebook in JupyterLab, in a real browser: still picture untrusted, then each control moved.

For each notebook, one visit: open it as a fresh clone (untrusted, no kernel), look at the stills; trust it and move the
sliders that need no kernel; run the cells that its live widgets need (tools/cells.py) and move each of their controls.
How quickly they answer is measured by tools/latency.py; here a picture has to come, and it has to be another one.
"""

from dataclasses import dataclass, field
from pathlib import Path

import cells
import lab_server
import pytest
import widget_driver

ROOT = Path(__file__).resolve().parents[2]

PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
ERROR = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
# A badge that is not loaded without network; a stored widget in a trusted notebook, until its cell is run.
HARMLESS = ("Failed to load resource", "widget model not found")


@dataclass
class Visit:
    """What one notebook showed."""

    stored: list
    stills: list
    moves: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    outputs_with_error: int = 0
    expected_errors: int = 0


@pytest.fixture(scope="module")
def server(chromium, tmp_path_factory):
    """JupyterLab over copies of the notebooks; without a browser the tests are skipped before it starts."""
    with lab_server.serve(tmp_path_factory.mktemp("lab")) as server:
        yield server


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def visit(request, chromium, server):
    """Everything that is done with one notebook; the tests below look at what it gave."""
    notebook = cells.read(request.param)
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(lab_server.PATIENCE)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    lab_server.open_notebook(page, server.notebook(request.param.name))
    found = Visit(widget_driver.stored(notebook), widget_driver.stills(page), errors=errors)
    widget_driver.trust(page)
    found.moves += widget_driver.steppers(page, moves=3)
    if cells.live_cells(notebook):
        widget_driver.run_cells(page, cells.demo_cells(notebook))
        found.moves += widget_driver.live_widgets(page, moves=1)
        widget_driver.stop_kernel(page)
    found.outputs_with_error = page.locator(ERROR).count()
    found.expected_errors = str(notebook.cells).count("'output_type': 'error'")
    page.close()
    return found


def test_a_fresh_clone_shows_the_still_of_every_widget(visit):
    assert [still["kind"] for still in visit.stills] == visit.stored
    for still in visit.stills:
        assert still["words"], still
        assert still["kind"] == "predict" or (still["picture"] and still["alt"]), still


def test_every_control_of_every_widget_gives_another_picture(visit):
    expected = len([kind for kind in visit.stored if kind != "predict"])
    assert len({(move.kind, move.index) for move in visit.moves}) == expected
    assert [move for move in visit.moves if move.milliseconds is None] == []


def test_nothing_goes_wrong_on_the_page(visit):
    assert [error for error in visit.errors if not any(text in error for text in HARMLESS)] == []
    assert visit.outputs_with_error == visit.expected_errors
