"""The deck of each notebook, walked in a real browser by the arrow to the right alone: it meets the plan, in order."""

import contextlib
import re
from pathlib import Path

import cell_times
import cells
import lab_server
import live
import pytest
import slides
import widget_driver

ROOT = Path(__file__).resolve().parents[2]

PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
PLAN = re.findall(cell_times.ROW, (ROOT / "docs" / "instructor.md").read_text(encoding="utf-8"), re.MULTILINE)
START = """() => {
    window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0;
    return window.jupyterapp.commands.execute('deck:start');
}"""
# The number of the active cell; the numbers of those that the wall shows; and of each of their tables the size of its
# smallest type in pixels of the screen, and whether it is wider than its place.
WALL = """() => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    const shown = notebook.widgets.map((cell, k) => [cell.node, k]).filter(([node]) =>
        node.classList.contains('jp-deck-mod-visible') && node.getBoundingClientRect().height > 0);
    const size = field => parseFloat(getComputedStyle(field).fontSize) * field.currentCSSZoom;
    const tables = shown.flatMap(([node]) => [...node.querySelectorAll('table')]).filter(table => table.offsetWidth);
    return [notebook.activeCellIndex, shown.map(([, k]) => k), tables.map(table => [
        Math.min(...[...table.querySelectorAll('th, td')].map(size)),
        table.parentElement.scrollWidth > table.parentElement.clientWidth + 1,
    ])];
}"""
MOVED = "before => window.jupyterapp.shell.currentWidget.content.activeCellIndex !== before"
SMALLEST = 20  # pixels, the type of a table
PRESSES = 10  # at most for one move: the deck ignores a press while it still turns the page


LAPTOP = 960  # pixels that a screen of 1366 leaves to an output beside JupyterLab's list of files
TOO_WIDE = """() => [...document.querySelectorAll('.course-table')].map((table, k) => [table, k])
    .filter(([table]) => table.scrollWidth > table.clientWidth + 1).map(([, k]) => k)"""


def test_tables_fit_a_laptop(tab):
    found = [
        (path.name, cell.id, slides.markup_of(output))
        for path in PATHS
        for cell in cells.read(path).cells
        for output in cell.get("outputs", [])
        if "course-table" in slides.markup_of(output)
    ]
    assert len(found) > 100
    tab.set_content(f'<div style="width:{LAPTOP}px">{"".join(markup for *_, markup in found)}</div>')
    assert [found[k][:2] for k in tab.evaluate(TOO_WIDE)] == []


@pytest.fixture(scope="module")
def server(chromium, tmp_path_factory):
    """JupyterLab as live mode serves it, without kernels: what a slide shows is stored."""
    with lab_server.serve(tmp_path_factory.mktemp("deck"), live.CSS) as server:
        yield server


def walk(page, last):
    """What the wall shows, cells and tables, at the first slide and after each press of the arrow, until the cell
    `last` is active."""
    page.evaluate(START)
    page.wait_for_selector("body[data-jp-deck-mode='presenting']", state="attached")
    page.wait_for_function("() => document.querySelectorAll('.jp-Cell.jp-deck-mod-visible').length > 0")
    active, *shown = page.evaluate(WALL)
    walls = [shown]
    while active != last:
        go_right(page, active)
        active, *shown = page.evaluate(WALL)
        walls.append(shown)
    return walls


def go_right(page, active):
    """Press the arrow until another cell than that is the active one."""
    from playwright.sync_api import TimeoutError as NotYet

    for _ in range(PRESSES):
        page.keyboard.press("ArrowRight")
        with contextlib.suppress(NotYet):
            page.wait_for_function(MOVED, arg=active, timeout=3000)
            return
    raise AssertionError(f"the arrow to the right leads nowhere from cell {active}")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_arrow_right_shows_every_row_of_the_plan_in_order_and_tables_that_can_be_read(path, chromium, server):
    notebook = cells.read(path)
    sections = cell_times.sections(notebook)
    rows = [sections[row[3].strip()] for row in PLAN if row[2] == path.name[:2] and row[3].strip() in sections]
    assert rows
    wanted = [[k for k in section if slides.is_planned(notebook.cells[k])] for section in rows]
    number = {cell.id: k for k, cell in enumerate(notebook.cells)}
    page = chromium.new_page(viewport={"width": 1920, "height": 1080})
    page.set_default_timeout(lab_server.PATIENCE)
    lab_server.open_notebook(page, server.notebook(path.name))
    walls = walk(page, number[slides.main_line(notebook)[-1][-1].id])
    widget_driver.stop_kernel(page)
    page.close()
    here = 0
    for row in wanted:
        assert row
        for cell in row:
            met = [k for k, (shown, _) in enumerate(walls) if k >= here and cell in shown]
            assert met, f"{notebook.cells[cell].id} is not on the way"
            here = met[0]
    for shown, tables in walls:
        for size, is_cut in tables:
            assert size >= SMALLEST and not is_cut, f"a table on the slide of {notebook.cells[shown[0]].id}"
