"""pyproject.toml (ranges), requirements.txt (pins) and environment.yml (conda, Binder) agree, and so do the imports."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RANGES = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [Requirement(text) for group in PROJECT["optional-dependencies"].values() for text in group]
PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def pins(python):
    """Package name -> Requirement of requirements.txt, for one version of Python."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    applying = [r for r in requirements if r.marker is None or r.marker.evaluate({"python_version": python})]
    found = {canonicalize_name(r.name): r for r in applying}
    assert len(found) == len(applying), "a package is pinned twice"
    return found


def version_of(pin):
    """The version in `name==version`."""
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"{pin} is not a pin"
    return Version(specifier.version)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_range_has_a_pin_inside_it_and_every_pin_a_range(python):
    pinned = pins(python)
    for wanted in RANGES + EXTRAS:
        pin = pinned.pop(canonicalize_name(wanted.name))
        assert wanted.specifier.contains(version_of(pin)), f"{pin} is outside {wanted}"
        assert wanted.extras <= pin.extras, f"{pin} lacks an extra of {wanted}"
    assert not pinned, f"pinned, but not in pyproject.toml: {sorted(pinned)}"


def test_the_pinned_versions_are_those_under_test():
    for name, pin in pins("{}.{}".format(*sys.version_info)).items():
        assert Version(metadata.version(name)).public == version_of(pin).public, name


def test_start_accepts_the_pythons_of_pyproject(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    import start

    supported = SpecifierSet(PROJECT["requires-python"])
    assert "{}.{}".format(*start.OLDEST) == PYTHONS[0]
    assert "{}.{}".format(*start.NEWEST) == PYTHONS[-1]
    assert all(python in supported for python in PYTHONS)
    assert "3.9" not in supported


def test_environment_installs_the_same_pins_and_the_course(monkeypatch):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    monkeypatch.syspath_prepend(ROOT)
    import start

    assert pip == {"pip": [f"--extra-index-url {start.CPU_INDEX}", "-r requirements.txt", "-e ."]}
    assert environment["name"] == PROJECT["name"]


def test_pip_finds_nothing_left_to_do_on_the_list_of_the_environment():
    """pip's part of conda's and Binder's work, on what is installed here: the pins contradict neither one another nor
    the course's ranges. Neither conda nor Binder is run."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "-r", "requirements.txt", "-e", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    would = [line for line in done.stdout.splitlines() if line.startswith("Would install")]
    assert [name for line in would for name in line.split()[2:] if not name.startswith(PROJECT["name"])] == []


def imported(source):
    """Top-level names that Python source imports absolutely."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def notebook_source(path):
    """The code cells of a notebook as plain Python, without magics and shell lines."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = [line for cell in cells if not cell.startswith("%%") for line in cell.splitlines()]
    return "\n".join("pass" if line.startswith(("%", "!")) else line for line in lines)


def test_every_import_of_the_course_is_a_declared_dependency():
    used = set()
    for folder in ("course_lib", "data_fetch"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= imported(path.read_text(encoding="utf-8"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        used |= imported(notebook_source(path))
    used -= set(sys.stdlib_module_names) | {"course_lib", "data_fetch", "google"}  # google.colab is Colab's own
    owners = metadata.packages_distributions()
    declared = {canonicalize_name(r.name) for r in RANGES} | {"ipython", "traitlets"}  # ipywidgets' own dependencies
    undeclared = {name for name in used if not {canonicalize_name(owner) for owner in owners.get(name, [])} & declared}
    assert not undeclared
