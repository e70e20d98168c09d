"""Run every notebook in JupyterLab from top to bottom and write how long its cells are silent to docs/waiting.md.

    python tools/waiting.py              all notebooks (about fifteen minutes)
    python tools/waiting.py 00 03        these; the rows of the others stay

Run it when nothing else runs: the load of the machine is written into the table.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cell_times
import cells
import lab_server
import live
import widget_driver

PAGE = lab_server.ROOT / "docs" / "waiting.md"
GOAL = 8  # seconds without a sign
HEAD = """# How long a cell says nothing

Each notebook as it is shipped, run from top to bottom in JupyterLab, in a headless Chromium. "Silence" is the longest
time from the start of a cell to the first thing that it shows, be it the line that says what runs and for how long, or
to its end if it shows nothing; "in" is the section where that was. Goal: {goal} s. "All" is the time from the first
cell to the end of the last. "Load" is the number of other processes that wanted the processor. Measured on {machine},
by `python tools/waiting.py`.

| Notebook | All, s | Silence, s | In | Goal met | Load |
|---|---|---|---|---|---|
"""
ROW = r"^\| (\d\d) \| (\d+) \| ([\d.]+) \| (.+?) \| (yes|no) \| ([\d.]+) \|$"

# Runs all cells; gives for each code cell that ran its number, when it began and ended, and when its outputs on the
# page changed for the first time, in milliseconds.
RUN_ALL = """async () => {
    const {shell, commands} = window.jupyterapp, panel = shell.currentWidget;
    await panel.sessionContext.ready;
    await commands.execute('editmenu:clear-all');
    const cells = panel.content.widgets, first = new Map(), begins = new Map();
    cells.forEach((cell, number) => cell.model.type === 'code' && new MutationObserver(() => {
        if (begins.has(number) && !first.has(number)) first.set(number, performance.now());
    }).observe(cell.outputArea.node, {childList: true, subtree: true, characterData: true}));
    const order = [...cells.keys()].filter(k => cells[k].model.type === 'code' &&
        cells[k].model.sharedModel.getSource().trim());
    panel.sessionContext.iopubMessage.connect((_, message) => {
        if (message.header.msg_type === 'execute_input') begins.set(order[begins.size], performance.now());
    });
    await commands.execute('notebook:run-all-cells');
    const end = performance.now(), failed = order.filter(k => cells[k].model.outputs.toJSON().some(
        output => output.output_type === 'error'));
    const starts = order.map(k => begins.get(k) ?? end);
    return {failed, cells: order.map((number, k) => ({number, begin: starts[k], end: starts[k + 1] ?? end,
        first: first.get(number) ?? null}))};
}"""


def silences(ran):
    """{number of the cell: seconds until it showed something, or until it ended if it did not}."""
    return {
        cell["number"]: (min(cell["first"] or cell["end"], cell["end"]) - cell["begin"]) / 1000 for cell in ran["cells"]
    }


def row(number, ran, sections, load):
    """One line of the table, of what RUN_ALL gave; `sections` as of cell_times."""
    seconds = silences(ran)
    where = max(seconds, key=seconds.get)
    section = next((name for name, numbers in sections.items() if where in numbers), "set-up")
    whole = (ran["cells"][-1]["end"] - ran["cells"][0]["begin"]) / 1000
    met = "yes" if seconds[where] <= GOAL else "no"
    return f"| {number} | {whole:.0f} | {seconds[where]:.1f} | {section} | {met} | {load:.1f} |"


def measure(server, page, name):
    """The row of one notebook. Raises RuntimeError where a cell stops with an error."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    lab_server.open_notebook(page, server.notebook(name))
    widget_driver.trust(page)
    ran = page.evaluate(RUN_ALL)
    widget_driver.stop_kernel(page)
    if ran["failed"]:
        raise RuntimeError(f"{name}: cells {ran['failed']} stop with an error; run the notebook by hand to see it")
    return row(name[:2], ran, cell_times.sections(cells.read(server.notebooks / name)), load)


def main(arguments):
    """Entry point."""
    before = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    rows = {match.group(1): match.group() for match in re.finditer(ROW, before, re.MULTILINE)}
    head = HEAD.format(goal=GOAL, machine=cell_times.machine())
    with (
        tempfile.TemporaryDirectory() as folder,
        lab_server.serve(folder, live.CSS) as server,
        lab_server.chromium(1366, 768) as page,
    ):
        page.set_default_timeout(lab_server.PATIENCE)
        for path in sorted(server.notebooks.glob("[0-9][0-9]_*.ipynb")):
            if not arguments or path.name[:2] in arguments:
                rows[path.name[:2]] = measure(server, page, path.name)
                print(rows[path.name[:2]], flush=True)
                PAGE.write_text(head + "".join(rows[key] + "\n" for key in sorted(rows)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
