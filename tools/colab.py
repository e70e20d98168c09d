"""Run notebooks as Google Colab would: each alone in an empty folder, on Colab's packages, from its set-up cell on.

python tools/colab.py                                    every notebook, and a table of results
python tools/colab.py notebooks/00_start_here.ipynb      one of them
python tools/colab.py --python python3.13                on Colab's own Python; PyTorch then comes from PyPI, with CUDA

Every notebook starts from a fresh copy of a virtual environment with the versions in colab.txt, without MONAI and
nilearn, in a kernel that has loaded a module `google.colab`. git is told to read the course's public address from this
checkout, so the set-up cell installs what is committed here; pip fetches the rest from its index. A notebook passes if
it raises nothing, shows no error inside a widget, and has left every package that was there before at its version.

Not simulated: Colab's page, its GPU, and, on this same Python, its PyTorch: that of this environment is linked in.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent

PACKAGES = ROOT / "tools" / "colab.txt"
TORCH = "torch==2.11.0"
NOT_THERE = {"monai", "nilearn", "pydicom"}  # the set-up cell has to bring these


@dataclass(frozen=True)
class Result:
    """What became of one notebook: seconds in all and in its set-up cell, and what went wrong, "" if nothing."""

    name: str
    seconds: float
    set_up: float
    problem: str


def make_image(folder, python):
    """A virtual environment with Colab's packages in ``folder``, made by the interpreter ``python``."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    same = subprocess.run([python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
    torch = [TORCH]
    if same.stdout.strip() == str(sys.version_info[:2]):
        link_distribution("torch", site)
        torch = []
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
    subprocess.run([*pip, *torch, "-r", PACKAGES], check=True, env=environment(folder))
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00_colab.py").write_text("import google.colab\n")


def link_distribution(name, site, done=None):
    """Link an installed distribution of this Python, and all that it requires, into another's site-packages."""
    done = set() if done is None else done
    if name in done:
        return
    done.add(name)
    distribution = metadata.distribution(name)
    for top in {Path(file).parts[0] for file in distribution.files} - {"..", "__pycache__"}:
        if not (site / top).exists():
            (site / top).symlink_to(Path(distribution.locate_file(top)).resolve())
    for requirement in map(Requirement, distribution.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            link_distribution(requirement.name, site, done)


def environment(folder):
    """The environment variables of the simulated machine, whose files lie in ``folder``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "JUPYTER", "COURSE"))}
    course = re.search(r'^Repository = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    settings = {
        f"url.{ROOT.as_uri()}.insteadOf": course.group(1),
        "uploadpack.allowFilter": "true",  # as GitHub does: pip asks for the files of one commit alone
        "uploadpack.allowAnySHA1InWant": "true",
    }
    for k, (key, value) in enumerate(settings.items()):
        kept |= {f"GIT_CONFIG_KEY_{k}": key, f"GIT_CONFIG_VALUE_{k}": value}
    return kept | {
        "GIT_CONFIG_COUNT": str(len(settings)),
        "IPYTHONDIR": str(folder / "ipython"),
        "COURSE_DATA": str(folder / "data"),  # empty: no data set has been fetched
        "PIP_NO_WARN_SCRIPT_LOCATION": "1",
        "PIP_NO_COMPILE": "0",  # in pip's words yes: most modules are never imported, and each would be compiled
    }


def copy_image(image, folder):
    """A copy of an image that shares the files on the disk; pip replaces files and never writes into one."""
    shutil.copytree(image, folder, symlinks=True, copy_function=os.link)


def packages(machine):
    """{name: version} of what is installed on a simulated machine."""
    command = [machine / "bin" / "python", "-m", "pip", "list", "--format=json"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment(machine))
    return {package["name"].lower(): package["version"] for package in json.loads(listed.stdout)}


def errors_in_widgets(notebook):
    """Errors that widgets show, which stop no run: those in the state of Output widgets."""
    state = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state", {})
    shown = [output for model in state.values() for output in model["state"].get("outputs", [])]
    return [f"{output['ename']}: {output['evalue']}" for output in shown if output["output_type"] == "error"]


def execute(notebook, machine, folder):
    """Run a notebook in ``folder`` with the kernel of a machine; raises what a cell raises. Outputs go in place."""
    spec = machine / "kernels" / "colab"
    spec.mkdir(parents=True)
    argv = [str(machine / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Colab", "language": "python"}))
    kernels = KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False)
    manager = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=kernels)
    client = NotebookClient(
        notebook, km=manager, timeout=900, record_timing=True, resources={"metadata": {"path": str(folder)}}
    )
    try:
        client.execute(env=environment(machine))
    finally:
        run_sync(manager.shutdown_kernel)(now=True)  # a client leaves alone a kernel that it was given


def set_up_seconds(notebook):
    """Seconds that the first code cell took."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    start, end = (
        datetime.fromisoformat(cell.metadata.execution[key].replace("Z", "+00:00"))
        for key in ("iopub.execute_input", "shell.execute_reply")
    )
    return (end - start).total_seconds()


def run(path, image, scratch):
    """Run one notebook on a fresh machine; returns its :class:`Result`."""
    machine, folder = scratch / "machine", scratch / "content"
    copy_image(image, machine)
    folder.mkdir()
    before, notebook = packages(machine), nbformat.read(path, as_version=4)
    assert not NOT_THERE & set(before), "the simulated machine has more than Colab"
    start, problem = time.perf_counter(), ""
    try:
        execute(notebook, machine, folder)
        problem = "; ".join(errors_in_widgets(notebook))
    except (CellExecutionError, DeadKernelError) as error:
        problem = str(error)
    seconds, after = time.perf_counter() - start, packages(machine)
    changed = [f"{name} {old} became {after.get(name)}" for name, old in before.items() if after.get(name) != old]
    return Result(path.stem, seconds, set_up_seconds(notebook), "; ".join(filter(None, [problem, *changed])))


def main(arguments):
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run notebooks as Google Colab would.")
    parser.add_argument("notebooks", nargs="*", type=Path, help="files; left out, all of the course's")
    parser.add_argument("--python", default=sys.executable, help="the interpreter; left out, this one")
    parser.add_argument("--image", type=Path, help="folder of the environment, made if it is not there, and kept")
    options = parser.parse_args(arguments)
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    failed = 0
    with tempfile.TemporaryDirectory(prefix="colab-", dir=options.image and options.image.parent) as scratch:
        image = options.image or Path(scratch, "image")
        if not image.exists():
            make_image(image, options.python)
        print(f"{'notebook':24} {'set-up':>8} {'in all':>8}", flush=True)
        for path in paths:
            with tempfile.TemporaryDirectory(dir=scratch) as own:
                result = run(path, image, Path(own))
            failed += bool(result.problem)
            verdict = result.problem or "passed"
            print(f"{result.name:24} {result.set_up:6.0f} s {result.seconds:6.0f} s  {verdict}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
