"""Live mode: what it prepares; in a browser: the first demo moves at the first touch, type is large, the deck works."""

import contextlib
import html
import os
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import cells
import lab_server
import live
import nbformat
import psutil
import pytest
import slides
import widget_driver
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]

FIRST = "00_start_here.ipynb"
# A closed list must be opened first: JupyterLab takes arrows on it as a wish to go to another cell.
KEYS = """control => control.tagName === 'SELECT'
    ? ['Space', control.selectedIndex === control.options.length - 1 ? 'ArrowUp' : 'ArrowDown', 'Enter']
    : [control.getAttribute('aria-valuenow') === control.getAttribute('aria-valuemax') ? 'ArrowLeft' : 'ArrowRight']"""


def needed(*sources, of=None):
    return cells.needed(list(sources), [len(sources) - 1 if of is None else of])


def test_a_cell_needs_what_binds_its_names_and_theirs():
    assert needed("import set_up", "a = 1", "b = 2", "c = a", "print(c)") == [0, 1, 3, 4]
    assert needed("0", "a = 1", "a = 2", "print(a)") == [0, 2, 3]  # the last binding is enough
    assert needed("0", "a = 1", "a += 1", "print(a)") == [0, 1, 2, 3]
    assert needed("0", "a = []", "a.append(1)", "b = 1", "a[0] = 2", "print(a)") == [0, 1, 2, 4, 5]
    assert needed("0", "x = 1", None, "[x for x in range(3)]", "f = lambda x: x", "f(2)") == [0, 4, 5]


def test_a_function_sees_what_its_names_hold_when_it_is_called():
    assert needed("0", "w = 1", "def f(x):\n    y = w * x\n    return y", "w = 2", "f(3)") == [0, 1, 2, 3, 4]
    assert needed("0", "y = 1", "def f(x):\n    y = x\n    return y", "f(3)") == [0, 2, 3]


def test_methods_of_modules_do_not_count_as_changes():
    assert needed("import torch", "torch.manual_seed(1)", "x = torch.ones(1)", "x") == [0, 2, 3]


def test_magics_are_no_python():
    assert needed("%matplotlib inline\na = 1", "%%bash\nls", "a") == [0, 2]


def test_demo_cells_are_those_of_the_live_widgets():
    output = new_output("display_data", {cells.WIDGET_VIEW: {"model_id": "x"}, "text/plain": "x"})
    notebook = new_notebook(
        cells=[new_code_cell("a = 1"), new_code_cell("b = 1"), new_code_cell("a", outputs=[output])]
    )
    assert cells.live_cells(notebook) == [2]
    assert cells.demo_cells(notebook) == [0, 2]


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_demos_want_few_cells(path):
    notebook = cells.read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells.demo_cells(notebook)) <= len(code) / 2


def test_every_notebook_belongs_to_a_part():
    prepared = [name for part in live.PARTS for name in live.names_of(part)]
    assert prepared == sorted(path.name for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_the_title_on_the_wall_says_nothing_of_run_times(path):
    notebook = cells.read(path)
    place = "**Place in the course:**"
    assert "Runs in" in notebook.cells[0].source
    live.fit_the_wall(notebook)
    title = notebook.cells[0].source
    assert place in title and "Runs in" not in title and "alone about" not in title.lower()
    said = title[title.index(place) :].split(".")[0]
    assert "live" in said and "minutes" in said


def test_options():
    options = live.parse(["--part", "3"])
    assert (options.part, options.no_browser) == (3, False)
    with pytest.raises(SystemExit):
        live.parse(["--part", "5"])


def of_all_processes(server, question):
    """What the server's process and each of its children answers; one that ends meanwhile has no answer."""
    process = psutil.Process(server.process.pid)
    answers = []
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            answers.append(question(each))
    return answers


def listeners(server):
    """The addresses at which they listen, one for each socket."""
    connections = of_all_processes(server, psutil.Process.net_connections)
    return [one.laddr.ip for found in connections for one in found if one.status == psutil.CONN_LISTEN]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with a kernel, as it stands while a class runs."""
    with lab_server.serve(tmp_path_factory.mktemp("served")) as server:
        wanted = {"path": FIRST, "name": FIRST, "type": "notebook", "kernel": {"name": "python3"}}
        server.api("sessions", wanted)
        deadline = time.monotonic() + 120
        while len(listeners(server)) < 6 and time.monotonic() < deadline:
            time.sleep(0.2)
        yield server


def test_the_token_stands_in_no_command_line(served):
    """Everybody on a machine may list the command lines of all processes; the token opens a shell."""
    lines = [" ".join(line) for line in of_all_processes(served, psutil.Process.cmdline)]
    assert len(lines) > 1
    assert any("jupyterlab" in line for line in lines)
    assert not any(served.token in line for line in lines)


def test_the_server_asks_for_the_token(served):
    assert served.api("status")["kernels"] == 1
    for headers in ({}, {"Authorization": "token " + "0" * 32}):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(f"{served.url}/api/contents", headers=headers), timeout=60)


def test_another_token_in_the_environment_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_TOKEN", "of-the-teachers-own-server")
    assert lab_server.environment(tmp_path, "the course's")["JUPYTER_TOKEN"] == "the course's"


def test_server_and_kernels_listen_on_this_machine_alone(served):
    assert len(listeners(served)) >= 6  # the server, and five sockets of the kernel
    assert set(listeners(served)) <= {"127.0.0.1", "::1"}


@pytest.mark.skipif(os.name == "nt", reason="rights of files as POSIX has them")
def test_the_browser_gets_the_address_in_a_file_for_the_user_alone(tmp_path, monkeypatch):
    """A browser's command line shows the address that it opens, and with it the token."""
    opened = []
    monkeypatch.setattr(live.webbrowser, "open", opened.append)
    server = lab_server.Server("http://127.0.0.1:9", tmp_path, None, "secret&<token>")
    live.open_browser(server, FIRST)
    assert len(opened) == 1
    assert "secret" not in opened[0]
    path = Path(urllib.request.url2pathname(urllib.parse.urlsplit(opened[0]).path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert html.escape(server.notebook(FIRST)) in path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(chromium, tmp_path_factory):
    """The first notebook as a teacher finds it: prepared, opened, and nothing run by hand."""
    with lab_server.serve(tmp_path_factory.mktemp("live"), live.CSS) as server:
        live.prepare(server, FIRST)
        page = chromium.new_page(viewport={"width": 1920, "height": 1080})
        page.set_default_timeout(lab_server.PATIENCE)
        lab_server.open_notebook(page, server.notebook(FIRST))
        yield page
        page.close()


def test_the_original_is_not_touched(page):
    stored = nbformat.read(ROOT / "notebooks" / FIRST, as_version=4)
    assert "widgets" not in stored.metadata
    assert stored.cells[1].execution_count == 1


def test_every_widget_moves_at_the_first_touch(page):
    moves = [*widget_driver.steppers(page, moves=2), *widget_driver.live_widgets(page, moves=3)]
    assert {move.kind for move in moves} == {"stepper", "live"}
    assert [move for move in moves if move.milliseconds is None] == []


def test_a_live_widget_needs_no_mouse(page):
    widget = page.locator(widget_driver.LIVE).first
    controls = widget.locator("select, .noUi-handle, input[type=checkbox]")
    controls.first.focus()
    reached, ringed = [], []
    for _ in range(2 * controls.count()):  # a slider has its number as a second stop
        reached.append(controls.evaluate_all("controls => controls.indexOf(document.activeElement)"))
        ringed.append(page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle"))
        before = widget.locator("img.course-live").get_attribute("src")
        if reached[-1] >= 0:
            for key in controls.nth(reached[-1]).evaluate(KEYS):
                page.keyboard.press(key)
            page.wait_for_function(
                "([kind, before]) => document.querySelector(kind + ' img.course-live').src !== before",
                arg=[widget_driver.LIVE, before],
                timeout=120_000,
            )
        page.keyboard.press("Tab")
    assert set(range(controls.count())) <= set(reached)
    assert "none" not in ringed, "one sees where the keyboard is"


def test_type_is_large(page):
    def size(selector):
        return page.locator(selector).first.evaluate("element => parseFloat(getComputedStyle(element).fontSize)")

    assert size(".jp-MarkdownCell .jp-RenderedHTMLCommon p") >= 22
    assert size(".cm-content") >= 20


@pytest.fixture
def deck(page):
    """The deck of the first notebook, at its title."""
    page.evaluate("() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }")  # it starts there
    page.evaluate("() => window.jupyterapp.commands.execute('deck:start')")
    page.wait_for_selector("body[data-jp-deck-mode='presenting']", state="attached")
    page.wait_for_function("() => document.querySelectorAll('.jp-Cell.jp-deck-mod-visible').length > 0")
    yield page
    page.evaluate("() => window.jupyterapp.commands.execute('deck:stop')")


def slide_with(deck, selector):
    """Turn the pages until one has the element; returns its locator."""
    found = deck.locator(f".jp-deck-mod-visible {selector}").first
    for _ in range(20):  # the deck ignores a press while it still turns the page
        if found.count():
            return found
        deck.evaluate("() => window.jupyterapp.commands.execute('deck:go', {direction: 'forward'})")
        deck.wait_for_timeout(300)
    raise AssertionError(f"no slide with {selector} among the first")


def test_the_deck_shows_slides_with_widgets_that_move(deck):
    assert deck.locator(".jp-Notebook .jp-Cell.jp-deck-mod-visible").count() < 10  # of the 46 cells
    widget = slide_with(deck, ".course-widget:has(input.course-stepper)")
    before = widget.locator("img.course-frame").get_attribute("src")
    slider = widget.locator("input.course-stepper")
    slider.fill("1" if slider.input_value() != "1" else "2")
    assert widget.locator("img.course-frame").get_attribute("src") != before


def test_in_the_deck_a_card_is_answered_with_the_mouse(deck):
    card = slide_with(deck, ".course-predict")
    assert not deck.locator(".jp-CodeCell:has(.course-predict) .cm-content").first.is_visible()
    card.locator("input[type=radio]").first.click()
    card.locator("button.course-commit").click()
    assert card.locator(".course-verdict").inner_text().strip()


def test_code_of_what_shows_something_is_folded_in_the_deck(deck):
    slide_with(deck, "img.course-frame")
    cell = deck.locator(".jp-CodeCell.jp-deck-mod-visible:has(img.course-frame)").first
    assert not cell.locator(".cm-content").is_visible()
    assert cell.locator("img.course-frame").bounding_box()["height"] > 500


def test_slides_of_several_cells_fit_the_wall(deck):
    notebook = cells.read(ROOT / "notebooks" / FIRST)
    numbers = [k for k, cell in enumerate(notebook.cells) if slides.slide_type(cell) in ("slide", "subslide")]
    assert len(numbers) > 10
    for number in numbers:
        deck.evaluate("k => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = k; }", number)
        deck.wait_for_function("() => document.querySelectorAll('.jp-Cell.jp-deck-mod-visible').length > 0")
        deck.wait_for_timeout(300)
        boxes = deck.locator(".jp-Cell.jp-deck-mod-visible").evaluate_all(
            "cells => cells.map(cell => cell.getBoundingClientRect()).map(box => [box.top, box.bottom])"
        )
        height = max(bottom for _, bottom in boxes) - min(top for top, _ in boxes)
        assert len(boxes) == 1 or height <= 1080, notebook.cells[number].source[:60]
