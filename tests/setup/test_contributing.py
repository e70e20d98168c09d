"""The documents for contributors hold: their code runs as they say, the hooks leave the course as it is."""

import dataclasses
import importlib.util
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import types
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import yaml
from helpers.promises import promises

import start
from course_lib import runtime
from course_lib.recipes import runs
from data_fetch import DataError, download, registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
ADDING = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
CODE = {
    code.split("\n", 1)[0].removeprefix("# "): code for code in re.findall(r"```python\n(.*?)```", ADDING, re.DOTALL)
}
WORKFLOWS = ROOT / ".github" / "workflows"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONFIG = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
HOOKS = {hook["id"]: hook for repository in CONFIG["repos"] for hook in repository["hooks"]}


def test_each_section_fits_on_a_page():
    sections = re.split(r"^## ", ADDING, flags=re.MULTILINE)[1:]
    assert [section.split("\n")[0] for section in sections] == ["A notebook", "An exercise", "A data set", "A recipe"]
    assert max(len(section.splitlines()) for section in sections) <= 60
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_what_the_documents_link_to_exists():
    for path in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "adding.md"):
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            assert link.startswith("http") or (path.parent / link).exists(), link


def test_workflows_run_the_commands_of_the_course_and_publish_where_the_project_says():
    found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS.glob("*.yml")}
    runs = {
        (name, step["run"])
        for name, about in found.items()
        for job in about["jobs"].values()
        for step in job["steps"]
        if "run" in step
    }
    assert runs == {("site", "python3 start.py site"), ("tests", ".ci/run")}
    assert start.parse(["site"])[0].command == "site" and os.access(ROOT / ".ci" / "run", os.X_OK)
    build, publish = (found["site"]["jobs"][name] for name in ("build", "publish"))
    uploaded = [step["with"]["path"] for step in build["steps"] if "upload-pages-artifact" in step.get("uses", "")]
    assert [ROOT / path for path in uploaded] == [Path(start.SITE)]
    assert publish["needs"] == "build" and publish["permissions"] == {"pages": "write", "id-token": "write"}
    owner, name = re.search(r"github\.com/([\w-]+)/([\w-]+)$", PROJECT["urls"]["Repository"]).groups()
    assert PROJECT["urls"]["Documentation"] == f"https://{owner}.github.io/{name}/"


def test_exercise(tmp_path):
    path = tmp_path / "nb15.py"
    path.write_text(CODE["course_lib/exercises/nb15.py"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("course_lib.exercises.nb15", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = list(promises(module))
    assert made
    for _, promise in made:
        promise()


def test_data_set(tmp_path, monkeypatch):
    blobs = types.ModuleType("data_fetch.blobs")
    exec(CODE["data_fetch/blobs.py"], vars(blobs))
    entry = registry.DataSet("blobs", "Blobs", "8x8", "CC0", "nobody", folder="Blobs", counts={"images": 3})
    monkeypatch.setitem(registry.DATASETS, "blobs", entry)
    monkeypatch.setitem(download._PACKERS, "blobs", blobs.pack)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "cache"))
    assert not blobs.is_available()
    with pytest.raises(DataError, match="Blobs has no public address: run `python -m data_fetch import FILE`"):
        download.get("blobs")
    archive = tmp_path / "blobs.tar"
    with tarfile.open(archive, "w") as tar:
        for k in range(3):
            member = tarfile.TarInfo(f"Blobs/{k}.raw")
            member.size = 64
            tar.addfile(member, io.BytesIO(bytes([k] * 64)))
    download.import_archive(archive)
    assert blobs.is_available()
    np.testing.assert_array_equal(blobs.load()[:, 0, 0], [0, 1, 2])


def test_recipe(tmp_path):
    space = {}
    exec(CODE["course_lib/recipes/small.py"], space)
    recipe = dataclasses.replace(space["small"], steps=2, batch_size=8)
    *_, state = runs.run(recipe, tmp_path, torch.float32)
    assert state.step == 2
    quality, _ = recipe.measure(recipe, runtime.placed(runs.trained(recipe, tmp_path)[0]))
    assert quality["floor"] < quality["baseline_grey"] / 5
    assert quality["floor"] < quality["error"]  # after two steps


def run_hook(name, folder, files):
    """One hook as pre-commit calls it; its exit status."""
    command = [sys.executable if word == "python" else word for word in shlex.split(HOOKS[name]["entry"])]
    return subprocess.run([*command, *map(str, files)], cwd=folder, capture_output=True).returncode


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with the notebooks and what decides how they are checked."""
    folder = tmp_path_factory.mktemp("course")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name in ("course_lib", "data_fetch"):  # ruff looks here which imports are the course's own
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("weights", "records", "__pycache__"))
    return folder


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_leave_the_notebooks_as_they_are(name, copy):
    paths = sorted((copy / "notebooks").glob("*.ipynb"))
    before = [path.read_bytes() for path in paths]
    assert run_hook(name, copy, paths) == 0
    assert [path.name for path, old in zip(paths, before) if path.read_bytes() != old] == []


def test_hooks_take_out_what_does_not_belong(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    cell = nbformat.v4.new_code_cell("x=1", execution_count=1, metadata={"execution": {"iopub.status.busy": "now"}})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    path, untidy = tmp_path / "a.ipynb", tmp_path / "a.py"
    nbformat.write(notebook, path)
    untidy.write_text("import os\nx=1\n")
    assert run_hook("ruff-check", tmp_path, [untidy]) != 0
    run_hook("ruff-format", tmp_path, [untidy])
    assert "x = 1" in untidy.read_text()
    run_hook("nbstripout", tmp_path, [path])
    after = nbformat.read(path, as_version=4)
    assert "widgets" not in after.metadata
    assert after.cells[0].metadata == {}
    assert (after.cells[0].execution_count, after.cells[0].id) == (1, cell.id)


def test_all_code_is_formatted():
    command = [sys.executable, "-m", "ruff", "format", "--check", "."]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_hooks_need_no_network():
    assert {repository["repo"] for repository in CONFIG["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}


def test_citation_has_what_its_format_asks_for_and_agrees_with_pyproject():
    """The required keys of the Citation File Format 1.2.0, and those that are said twice."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["type"] in ("software", "dataset")
    for work in (citation, *citation["references"]):
        assert work["title"]
        assert all("name" in person or "family-names" in person for person in work["authors"])
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]


def test_licences_say_what_is_whose():
    content = (ROOT / "LICENSE-CONTENT.md").read_text(encoding="utf-8")
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    rows = [line for line in content.splitlines() if line.startswith("| ")]
    for what, licence in {"code": "Apache-2.0", "prose and figures": "CC BY 4.0", "MedNIST": "CC BY-SA 4.0"}.items():
        assert any(what in row and licence in row for row in rows), what
    assert "Erickson" in content
    assert "Antonelli" in content
    assert "Louis" in content and "Collins" in content
    assert "Not for clinical use" in (ROOT / "README.md").read_text(encoding="utf-8")
