"""Seconds of every cell of every notebook, measured, into docs/cell_times.json and the plan of docs/instructor.md.

    python tools/cell_times.py             execute all notebooks, one after another (about ten minutes)
    python tools/cell_times.py 03 09       these; what was measured before of the others stays

Nothing is changed in the notebooks. Run it when nothing else runs: how busy the cores are before each is written down.
"""

import contextlib
import datetime
import json
import os
import platform
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
TIMES, PLAN = ROOT / "docs" / "cell_times.json", ROOT / "docs" / "instructor.md"
ROW = r"^\| (\d:\d\d) \| (\d+) \| (\d\d) \| ([^|]+) \| ([^|]+) \|([^|]*)\|$"
BUSY = 0.2  # cores busy with something else, above which a measurement is said to be taken beside other work


def measure(path):
    """Execute a copy of a notebook: {"busy": cores in use before the start, "cells": {number: seconds}}."""
    import psutil
    from nbclient import NotebookClient

    busy = round(psutil.cpu_percent(interval=2) / 100 * os.cpu_count(), 2)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=1800, record_timing=True, resources=folder).execute()
    seconds = {}
    for number, cell in enumerate(notebook.cells):
        stamps = cell.metadata.get("execution", {})
        if "iopub.execute_input" in stamps and "shell.execute_reply" in stamps:
            begin, end = (_time(stamps[name]) for name in ("iopub.execute_input", "shell.execute_reply"))
            seconds[str(number)] = round((end - begin).total_seconds(), 2)
    return {"busy": busy, "cells": seconds}


def _time(stamp):
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00"))


def machine():
    """The number of cores that this process may use, and their kind: "2 cores (Intel Xeon)"."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, AttributeError):
        name = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()).group(1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = re.sub(r"\((?:R|TM)\)|@.*|\bProcessor\b|\bCPU\b", "", name)
    return f"{cores} core{'s' * (cores != 1)} ({' '.join(name.split())})"


def sections(notebook):
    """{number of the section, or the name of a test: numbers of its cells}, by the `##` headings."""
    found, current = {}, None
    for number, cell in enumerate(notebook.cells):
        heading = re.match(r"## (.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            current = heading.group(1).split(" · ")[0].strip()
        if current is not None:
            found.setdefault(current, []).append(number)
    return found


def path_of(number):
    """The notebook of that number, or None."""
    return next(iter(sorted((ROOT / "notebooks").glob(f"{number}_*.ipynb"))), None)


def text_of(seconds):
    """Seconds as the plan shows them."""
    return "" if seconds is None else f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"


def section_seconds(times, number, section):
    """Measured seconds of a notebook's section, or None where they were not measured, or it has no such section."""
    if number not in times["notebooks"] or path_of(number) is None:
        return None
    cells = sections(nbformat.read(path_of(number), as_version=4)).get(section)
    measured = times["notebooks"][number]["cells"]
    return None if cells is None else sum(measured.get(str(cell), 0) for cell in cells)


def said(times):
    """The sentence about the measurement."""
    if not times["notebooks"]:
        return "not measured yet."
    busy = [row["busy"] for row in times["notebooks"].values()]
    state = "nothing else running" if max(busy) < BUSY else f"beside other work (up to {max(busy):.1f} cores)"
    return f"measured on {times['machine']}, {state}, by `python tools/cell_times.py`."


def filled(text, times):
    """The plan with its last column and the sentence about the machine put in."""

    def row(match):
        clock, minutes, number, section, shown, _ = match.groups()
        seconds = text_of(section_seconds(times, number, section.strip()))
        return f"| {clock} | {minutes} | {number} | {section} | {shown} | {seconds} |".replace("|  |", "| |")

    text = re.sub(r"(if you run them anew: ).*", lambda match: match.group(1) + said(times), text)
    return re.sub(ROW, row, text, flags=re.MULTILINE)


def main(arguments):
    """Entry point."""
    times = json.loads(TIMES.read_text()) if TIMES.exists() else {"machine": "", "notebooks": {}}
    times["machine"] = machine()
    for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        if not arguments or path.name[:2] in arguments:
            times["notebooks"][path.name[:2]] = measure(path)
            print(path.name, f"{sum(times['notebooks'][path.name[:2]]['cells'].values()):.0f} s", flush=True)
            TIMES.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
            PLAN.write_text(filled(PLAN.read_text(encoding="utf-8"), times), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
