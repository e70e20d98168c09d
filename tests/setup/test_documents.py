"""What the documents and the prose of the notebooks name exists: files, folders, modules, commands."""

import importlib
import json
import pkgutil
import re
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[2]

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("notebooks/*.ipynb")])
MODULES = house.modules(ROOT)
# What is made on the reader's machine, what docs/adding.md and docs/own_work.md have their reader write, the parts of a
# bundle of MONAI's.
ELSEWHERE = (
    *(".venv/", "build/", "runs/", "samples/"),
    *(
        "notebooks/15_my_topic.ipynb",
        "course_lib/exercises/nb15.py",
        "data_fetch/blobs.py",
        "course_lib/recipes/small.py",
        "my_recipe.py",
    ),
    *("configs/", "models/", "inference.json"),
)
PATH = r"[\w.*-]+(?:/[\w.*-]+)*/?"
ENDINGS = r"\w\.(?:py|md|ipynb|json|txt|toml|yml|cff|safetensors)"


def prose(path):
    """The text of a document, or of the text cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def code(text):
    """All that stands in backticks, blocks of code included."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return blocks + re.findall(r"`([^`\n]+)`", re.sub(r"```\w*\n.*?```", "", text, flags=re.DOTALL))


def missing(text, folder):
    """The paths and modules that code in a text names and that are not there. Paths start at ROOT or at the folder."""
    words = [word.rstrip(".:") for part in code(text) for word in re.split(r"[\s(),;\"'=]+", part)]
    paths = [w for w in words if re.fullmatch(PATH, w) and (w.rfind("/", 1) > 0 or re.search(ENDINGS + "$", w))]
    modules = [name for part in code(text) for name in re.findall(r"\b(?:course_lib|data_fetch)(?:\.[a-z_]+)+", part)]
    gone = [w for w in paths if not w.startswith(ELSEWHERE) and not any(any(top.glob(w)) for top in (ROOT, folder))]
    return gone + [name for name in modules if name not in MODULES and not defined(*name.rpartition(".")[::2])]


def defined(module, name):
    """Whether a module defines a name."""
    line = re.compile(rf"(?:def |class )?{name}\b")
    return module in MODULES and any(map(line.match, MODULES[module].read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_paths_and_modules_in_backticks_exist(path):
    assert missing(prose(path), path.parent) == []


def test_what_is_not_there_is_found():
    text = "`course_lib/nowhere.py`, `tools/*.nothing`, `README.md`, `tools/`, `x_0 / 2`, `course_lib.viz.figures`\n"
    text += "```\npython tools/gone.py --out runs/trial\npython -m course_lib.nowhere\n```\n"
    text += "`course_lib.samplers.sample`, `course_lib.samplers.gone`"
    names = ["course_lib.nowhere", "course_lib.samplers.gone"]
    assert sorted(missing(text, ROOT)) == sorted(["course_lib/nowhere.py", "tools/*.nothing", "tools/gone.py", *names])


def test_the_first_page_is_a_page():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110


@pytest.mark.parametrize("package", ["course_lib", "course_lib.metrics", "course_lib.viz", "course_lib.applications"])
def test_the_docstring_of_a_package_names_what_is_in_it(package):
    module = importlib.import_module(package)
    there = {found.name for found in pkgutil.iter_modules(module.__path__)}
    assert there - set(re.findall(r"\w+", module.__doc__)) == set()
