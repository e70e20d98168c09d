"""Drive every widget of every notebook in a browser, ten moves each, and write docs/latency.md.

    python tools/latency.py              all notebooks (about ten minutes)
    python tools/latency.py 00 03        these; the rows of the others stay

Run it when nothing else runs: the load of the machine is written into the table.
"""

import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cell_times
import cells
import lab_server
import live
import widget_driver

PAGE = lab_server.ROOT / "docs" / "latency.md"
MOVES = 10
GOALS = {"stepper": 100, "live": 1000}  # milliseconds, of the median: computed before, or by the kernel
FIRST = 2000  # milliseconds, of the first touch
KINDS = {"stepper": "no kernel", "live": "kernel"}
HEAD = """# How quickly the widgets answer

From the move of a hand to the new picture on the screen: a headless Chromium on JupyterLab, kernels warmed as by
`python3 start.py lab --live`, {moves} moves a widget over all its controls in turn. "First" is the first touch after
the notebook was opened. Goals: {stepper} ms for the median where the pictures were computed before, {live} ms where
the kernel computes, {first} ms for the first touch. "Load" is the number of other processes that wanted the processor.
Measured on {machine}, by `python tools/latency.py`.

| Notebook | Widget | Pictures by | Median, ms | Slowest, ms | First, ms | Goal met | Load |
|---|---|---|---|---|---|---|---|
"""
ROW = r"^\| (\d\d) \| (.+?) \| (.+?) \| (\d+|none) \| (\d+|none) \| (\d+|none) \| (yes|no) \| ([\d.]+) \|$"


def measure(server, page, name):
    """Rows of the table for one notebook."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    live.trust(server, server.notebooks / name)
    if cells.live_cells(cells.read(server.notebooks / name)):
        live.prepare(server, name)
    lab_server.open_notebook(page, server.notebook(name))
    moves = list(widget_driver.steppers(page, MOVES))
    if cells.live_cells(cells.read(server.notebooks / name)):
        moves += widget_driver.live_widgets(page, MOVES)
        widget_driver.stop_kernel(page)
    found = {}
    for move in moves:
        found.setdefault((move.kind, move.index, move.title), []).append(move.milliseconds)
    return [row(name[:2], kind, title, times, load) for (kind, _, title), times in found.items()]


def row(number, kind, title, times, load):
    """One line of the table; a move that gave no picture makes it "none"."""
    whole = None not in times
    median, slowest = (statistics.median(times), max(times)) if whole else (None, None)
    met = whole and median <= GOALS[kind] and times[0] <= FIRST
    numbers = ["none" if value is None else f"{value:.0f}" for value in (median, slowest, times[0])]
    return f"| {number} | {title} | {KINDS[kind]} | {' | '.join(numbers)} | {'yes' if met else 'no'} | {load:.1f} |"


def main(arguments):
    """Entry point."""
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows = {match.group(1): [] for match in re.finditer(ROW, before, re.MULTILINE)}
    for match in re.finditer(ROW, before, re.MULTILINE):
        rows[match.group(1)].append(match.group())
    names = sorted(path.name for path in (lab_server.ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    head = HEAD.format(moves=MOVES, machine=cell_times.machine(), first=FIRST, **GOALS)
    with (
        tempfile.TemporaryDirectory() as folder,
        lab_server.serve(folder, live.CSS) as server,
        lab_server.chromium(1920, 1080) as page,
    ):
        page.set_default_timeout(lab_server.PATIENCE)
        for name in names:
            if not arguments or name[:2] in arguments:
                start = time.perf_counter()
                rows[name[:2]] = measure(server, page, name)
                print("\n".join(rows[name[:2]]), f"\n{name}: {time.perf_counter() - start:.0f} s", flush=True)
                table = "".join(line + "\n" for key in sorted(rows) for line in rows[key])
                PAGE.write_text(head + table, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
