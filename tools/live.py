"""Teach from the notebooks: warm everything, then open JupyterLab with large type and the first demo ready to move.

    python3 start.py lab --live             Part 1
    python3 start.py lab --live --part 3    the notebooks of Part 3
    python3 start.py lab --live --no-browser

The notebooks are opened as copies in a temporary folder, trusted, so that every kernel-free slider is alive at once;
what is changed in class is gone afterwards, and the stored figures stay as the fallback. For each notebook of the part
a kernel is started that has run the set-up and what the live widgets need; JupyterLab finds them by itself. No
setting of the teacher's own JupyterLab is read or changed, and nothing needs a network.
"""

import argparse
import contextlib
import html
import os
import queue
import re
import sys
import tempfile
import time
import webbrowser
from pathlib import Path

import nbformat

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS), str(TOOLS.parent)]
import cells  # noqa: E402
import lab_server  # noqa: E402
import slides  # noqa: E402

PARTS = {1: ("00", "01", "02", "03"), 2: ("04", "05", "06", "07"), 3: ("08", "09", "10", "11", "12"), 4: ("13", "14")}
# A style sheet, since JupyterLab takes fonts from no settings but the user's own. Figures and widgets have their size
# in pixels: what is 700 wide on a laptop is 1050 on the wall, if it is not too high then. In the deck a cell shows its
# picture first and its code below, and what JupyterLab lays over the left of an output, to fold it, catches no click.
# The code of a prediction card is hidden: it holds the answer. Badges need a network.
CSS = """
body { --jp-code-font-size: 20px; --jp-content-font-size1: 22px; --jp-ui-font-size1: 16px; }
.jp-OutputArea-output img.course-figure, .jp-OutputArea-output .course-widget,
.jp-OutputArea-output .widget-vbox:has(.course-live) { zoom: 1.5; --jp-widgets-font-size: 15px; }
.jp-OutputArea-output .course-widget img.course-figure { zoom: 1; }
.jp-OutputArea-output .course-table { zoom: 1.5; }
.jp-OutputArea-output .course-table :is(th, td) { padding: 1px 8px; }
.jp-OutputArea-output img:is(.course-figure, .course-frame, .course-live) { max-height: 44vh; width: auto; }
.jp-OutputArea-output img:is(.course-frame, .course-live) { zoom: 1.4; max-height: 31vh; }
.jp-CodeCell:has(.course-predict) .jp-Cell-inputWrapper, .jp-MarkdownOutput a:has(> img[src^='http']) { display: none; }
body[data-jp-deck-mode='presenting'] { --jp-content-font-size1: 28px; --jp-code-font-size: 24px; }
body[data-jp-deck-mode='presenting'] .jp-MarkdownOutput table { font-size: 24px; }
body[data-jp-deck-mode='presenting'] .jp-OutputArea-promptOverlay { display: none; }
body[data-jp-deck-mode='presenting'] .jp-CodeCell.jp-deck-mod-visible { display: flex; flex-direction: column; }
body[data-jp-deck-mode='presenting'] .jp-CodeCell.jp-deck-mod-visible .jp-Cell-outputWrapper { order: -1; }
body[data-jp-deck-mode='presenting'] .jp-OutputArea-output img:is(.course-frame, .course-live) {
  height: 28vh !important; width: auto !important; max-width: 100% !important;
  object-fit: contain; object-position: left top;
}
body[data-jp-deck-mode='presenting'] .jp-OutputArea-output .course-widget.course-predict { zoom: 1.9; }
body[data-jp-deck-mode='presenting'] .jp-OutputArea-output img.course-figure {
  width: auto !important; min-height: 40vh; max-width: 100% !important; object-fit: contain; object-position: left top;
}
body[data-jp-deck-mode='presenting'] .jp-OutputArea-output img.course-shared { min-height: 0; max-height: 29vh; }
"""


# How long a notebook takes alone and to run: for the learner, not for the wall.
RUN_TIME = r"[,.] alone about \d+ minutes\. Runs in .+? CPU cores, offline[^.]*"
FIGURE, SHARED = 'class="course-figure"', 'class="course-figure course-shared"'


def warm():
    """Import what notebooks import, verify every network and look for the data. Returns lines of a report."""
    start = time.perf_counter()
    import matplotlib.font_manager  # noqa: F401  (it builds its cache of fonts on the first import ever)
    import monai.inferers
    import monai.networks.nets  # noqa: F401
    import torch  # noqa: F401

    from course_lib import environment
    from data_fetch import cache, hippocampus, mednist

    lines = [f"Python, PyTorch, MONAI and fonts are warm ({time.perf_counter() - start:.0f} s)."]
    data = {"mednist": mednist.is_available(), "hippocampus": hippocampus.is_available()}
    rows = environment.checks(data, folder=cache.root())
    lines.append(f"{sum(row.ok for row in rows)} of {len(rows)} checks of machine, networks and data are fine.")
    return lines + [f"  {row.what}: {row.found}. {row.remedy}" for row in rows if not row.ok]


def trust(server, path):
    """Sign a copied notebook in the server's own store of signatures, so that its scripts run."""
    from nbformat.sign import NotebookNotary

    NotebookNotary(data_dir=str(server.folder / "data_dir")).sign(cells.read(path))


def prepare(server, name):
    """Start a notebook's kernel and run its demo cells in it; the copy then shows these widgets, alive.

    Returns the seconds it took. Raises RuntimeError with the error of a cell that fails.
    """
    from jupyter_client import BlockingKernelClient

    start = time.perf_counter()
    wanted = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
    session = server.api("sessions", wanted)
    connection = server.folder / "runtime_dir" / f"kernel-{session['kernel']['id']}.json"
    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels(stdin=False, hb=False)
    try:
        _await(client)
        path = server.notebooks / name
        notebook = cells.read(path)
        alive = cells.live_cells(notebook)
        for number in cells.demo_cells(notebook):
            outputs = _run(client, notebook.cells[number].source)
            if number in alive:
                notebook.cells[number].outputs = outputs
        fit_the_wall(notebook)
        nbformat.write(notebook, path)
        trust(server, path)
    finally:
        client.stop_channels()
    return time.perf_counter() - start


def fit_the_wall(notebook):
    """Fold the code of every cell that shows something, but for those tagged to be read (a click unfolds it); mark
    figures that share a cell; take the times from the title."""
    title = notebook.cells[0]
    title.source = re.sub(RUN_TIME, "", title.source, flags=re.IGNORECASE)
    for cell in notebook.cells:
        if cell.get("outputs") and not slides.shows_code(cell):
            cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
        figures = [output for output in cell.get("outputs", []) if FIGURE in slides.markup_of(output)]
        if len(figures) > 1:
            for output in figures:
                output.data["text/html"] = slides.markup_of(output).replace(FIGURE, SHARED)


def _await(client, seconds=120):
    """Return once the kernel both answers and is heard. Raises RuntimeError where it stays silent.

    `wait_for_ready` goes by the heartbeat, and takes a kernel that starts on a busy machine for dead.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        client.kernel_info()
        with contextlib.suppress(queue.Empty):
            client.get_iopub_msg(timeout=1)
            return
    raise RuntimeError(f"the kernel did not answer within {seconds} s")


def _run(client, source):
    """Run a cell; returns its outputs. Raises RuntimeError when it fails."""
    outputs = []

    def keep(message):
        if message["msg_type"] in ("display_data", "execute_result", "stream"):
            outputs.append(nbformat.v4.output_from_msg(message))
        elif message["msg_type"] == "clear_output":  # the line of course_lib.viz.progress
            outputs.clear()

    reply = client.execute_interactive(source, allow_stdin=False, timeout=600, output_hook=keep)["content"]
    if reply["status"] != "ok":
        raise RuntimeError(f"{reply['ename']}: {reply['evalue']}, in the cell\n{source}")
    return outputs


def open_browser(server, name):
    """Open a notebook in the teacher's browser by a file that sends it on, as JupyterLab does itself.

    The address holds the token, and a browser's command line can be listed by everybody on the machine.
    """
    path = server.folder / "open.html"
    address = html.escape(server.notebook(name))
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(f'<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={address}">')
        file.write(f'<title>The course</title><a href="{address}">Open the notebook</a>')
    webbrowser.open(path.as_uri())


def names_of(part):
    """File names of the part's notebooks that are there."""
    found = [sorted((lab_server.ROOT / "notebooks").glob(f"{number}_*.ipynb")) for number in PARTS[part]]
    return [path.name for paths in found for path in paths]


def parse(arguments):
    """The options."""
    parser = argparse.ArgumentParser(prog="start.py lab --live", description=__doc__.splitlines()[0])
    parser.add_argument("--part", type=int, choices=sorted(PARTS), default=1, help="the hour to prepare (default 1)")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    return parser.parse_args(arguments)


def main(arguments):
    """Entry point: warm, serve, prepare, and wait for Ctrl-C."""
    options = parse(arguments)
    print("Warming up ...", flush=True)
    print("\n".join(warm()), flush=True)
    names = names_of(options.part)
    with (
        tempfile.TemporaryDirectory(prefix="course-live-", ignore_cleanup_errors=True) as folder,
        lab_server.serve(folder, CSS, ["--ServerApp.answer_yes=True"]) as server,
    ):
        for path in server.notebooks.glob("*.ipynb"):
            trust(server, path)
        for name in names:
            try:
                print(f"  {name}: ready after {prepare(server, name):.0f} s", flush=True)
            except (RuntimeError, TimeoutError) as error:
                print(f"  {name}: its widgets are not ready, run its cells by hand. {error}", flush=True)
            if name == names[0]:
                print(f"Open {server.notebook(name)}", flush=True)
                if not options.no_browser:
                    open_browser(server, name)
        print("All is ready. Start the slides by the deck button in the toolbar. Ctrl-C ends the class.", flush=True)
        server.process.wait()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nThe class is over; the copies are gone.")
