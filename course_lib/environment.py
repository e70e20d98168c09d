"""The check of the learner's environment that notebook 00 shows."""

import contextlib
import functools
import json
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from course_lib import pretrained, runtime
from course_lib.files import sha256

#: The oldest versions that the course works with, as in pyproject.toml (a test compares the two).
PACKAGES = {
    "torch": "2.8", "monai": "1.5", "einops": "0.8", "h5py": "3.11", "numpy": "2.0", "matplotlib": "3.9",
    "ipywidgets": "7.7", "nibabel": "5.2", "nilearn": "0.11", "pillow": "10", "platformdirs": "4.2", "pydicom": "3.0",
    "safetensors": "0.4", "scikit-image": "0.24", "scipy": "1.13", "tqdm": "4.66",
}  # fmt: skip
OLDEST_PYTHON = (3, 10)
CORES, MEMORY_GB, DISK_GB = 2, 2, 1  # what the course wants at least, the last two free


@dataclass(frozen=True)
class Check:
    """One line of the check: what was looked at, what was found, and what to do about it; fine if nothing is to do."""

    what: str
    found: str
    remedy: str = ""

    @property
    def ok(self):
        return not self.remedy


def checks(data=None, folder=None):
    """What :func:`check_environment` shows, as a list of :class:`Check`; same parameters. Never raises. Networks
    that are whole share a line; each of the others has its own."""
    looks = (
        ("Python", _python),
        ("PyTorch", functools.partial(_package, "torch")),
        ("MONAI", functools.partial(_package, "monai")),
        ("Other packages", _other_packages),
        ("Device", _device),
        ("Precision", _precision),
        ("Processor cores", _cores),
        ("Free memory", _memory),
        ("Free disk", functools.partial(_disk, folder)),
        *((f"Data: {name}", functools.partial(_data_set, name, here)) for name, here in (data or {}).items()),
    )
    networks = [_looked(f"Network: {name}", functools.partial(_weights, name)) for name in _shipped()]
    whole = sum(row.ok for row in networks)
    together = [Check("Networks", f"{whole} of {len(networks)} whole, sha256 as on their cards")] if whole else []
    return [_looked(*pair) for pair in looks] + together + [row for row in networks if not row.ok]


def _looked(what, look):
    """The line of one check. One that breaks is a line to look at, never the learner's stop."""
    try:
        return Check(what, *look())
    except Exception as error:
        return Check(what, "could not be checked", f"{type(error).__name__}: {error}")


def check_environment(data=None, folder=None):
    """Table of what the course needs and what is here, each with "OK" or "attention" and a remedy. Never raises.

    data : {name of a data set that wants a download: whether it is here}.
    folder : where data sets go, for the free disk; left out, the current folder.
    Returns a Page, which displays itself as the last line of a cell and prints as text.
    """
    from course_lib.viz import tables

    lines = checks(data, folder)
    wanting = sum(not line.ok for line in lines)
    title = f"{len(lines) - wanting} of {len(lines)} checks are OK"
    title += f"; {wanting} want{'s' * (wanting == 1)} attention" if wanting else ""
    rows = {
        line.what: {
            "found": line.found,
            "state": "✓ OK" if line.ok else "! attention",
            "what to do": line.remedy,
        }
        for line in lines
    }
    return tables.table(rows, caption=title, corner="checked")


def _python():
    oldest = ".".join(map(str, OLDEST_PYTHON))
    old = sys.version_info < OLDEST_PYTHON
    return platform.python_version(), f"The course needs Python {oldest} or newer." if old else ""


def _problem(package):
    """What is wrong with an installed package, as a pip requirement that would mend it, or ""."""
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        found = "0"
    return "" if _numbers(found) >= _numbers(PACKAGES[package]) else f"{package}>={PACKAGES[package]}"


def _numbers(version):
    """ "2.13.0+cpu" -> (2, 13, 0)."""
    return tuple(int(digits) for digits in re.findall(r"\d+", version.split("+")[0])[:3])


def _install(*wanted):
    return f"Run `python3 start.py lab` in the course's folder, or `pip install {' '.join(map(repr, wanted))}`."


def _package(package):
    problem = _problem(package)
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        found = "not installed"
    return found, _install(problem) if problem else ""


def _other_packages():
    others = [package for package in PACKAGES if package not in ("torch", "monai")]
    problems = list(filter(None, map(_problem, others)))
    found = f"{len(others) - len(problems)} of {len(others)} are here and new enough"
    return found, _install(*problems) if problems else ""


def _device():
    where = runtime.device()
    if where == "cpu":
        return "CPU, all that the course needs", ""
    return f"{where}: {torch.cuda.get_device_name() if where == 'cuda' else 'Apple GPU'}", ""


def _precision():
    name = runtime.precision_name()
    return f"{name}, {'clearly faster here' if name == 'bfloat16' else 'as fast here as bfloat16'}", ""


def _cores():
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return str(count), "" if count >= CORES else f"The times given are for {CORES} cores: expect twice as long."


def _memory():
    free = _free_memory()
    if free is None:
        return f"not known on this system; {MEMORY_GB} GB are enough", ""
    low = free < MEMORY_GB * 1e9
    return f"{free / 1e9:.1f} GB", f"Close other programs and notebooks: {MEMORY_GB} GB should be free." if low else ""


def _free_memory():
    """Bytes that programs may still take, the limit of a container counted in; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    free = int(re.search(r"MemAvailable:\s+(\d+)", text).group(1)) * 1024
    with contextlib.suppress(OSError, ValueError):  # no container, or one without limit ("max")
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, limit - used)
    return free


def _disk(folder):
    place = Path(folder or ".").absolute()
    place = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(place).free
    low = free < DISK_GB * 1e9
    return f"{free / 1e9:.0f} GB", f"Make room: {DISK_GB} GB is enough for all data sets." if low else ""


def _data_set(name, here):
    if here:
        return "here", ""
    return "not here; the embedded brain cohort takes its place", (
        f"Optional. With network, run `%run -m data_fetch get {name}` in a cell (in a terminal: "
        f"`python -m data_fetch get {name}`); without, `%run -m data_fetch import FILE` takes an archive, for example "
        "from a USB stick."
    )


def _shipped():
    """Names of which weights or card are there, so that a missing half is noticed; "(none)" when there is nothing."""
    there = (path for path in pretrained.WEIGHTS.glob("*") if path.suffix in (".json", ".safetensors"))
    return sorted({path.stem for path in there}) or ["(none)"]


def _weights(name):
    remedy = "Get it back with `git checkout -- course_lib/weights`, or install the course anew."
    card, tensors = (pretrained.WEIGHTS / f"{name}{ending}" for ending in (".json", ".safetensors"))
    if not card.exists() or not tensors.exists():
        return "card or weights missing", remedy
    if sha256(tensors) != json.loads(card.read_text(encoding="utf-8"))["sha256"]:
        return "not the file on its card (sha256 differs)", remedy
    return "sha256 as on its card", ""
