"""The walls of the house: who may import whom. What breaks one is named by file, line and rule."""

import re
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[2]

# rule: (modules that it binds, what they do not import, whether through others neither)
WALLS = {
    "data_fetch knows neither the library nor torch": (r"data_fetch\b", r"(course_lib|torch|monai)\b", False),
    "in the library, datasets alone knows data_fetch": (r"course_lib\.(?!datasets$)", r"data_fetch\b", False),
    "viz draws what it is given, it neither trains nor loads": (
        r"course_lib\.viz\b",
        r"course_lib\.(training|pretrained|recipes|datasets|networks|generate)\b",
        True,
    ),
    "samplers, guidance and inverse know no network": (
        r"course_lib\.(samplers|guidance|inverse)$",
        r"(monai|course_lib\.(networks|pretrained))\b",
        True,
    ),
    "a network loads no network": (r"course_lib\.networks\b", r"course_lib\.pretrained$", True),
    "who reads a record imports no study": (
        r"course_lib\.experiments(\.record)?$",
        r"course_lib\.experiments\.(?!record$)",
        True,
    ),
}
CIRCLE = "no module imports itself through others"


def violations(root, rule):
    """What breaks a rule in the course below root, as lines "file:line imports module: rule"."""
    found = house.imports(root)
    if rule == CIRCLE:
        home = {name: circle for circle in house.circles(house.edges(found)) for name in circle}
        broken = [i for i in found if i.imported in home.get(i.importer, ())]
    else:
        inside, outside, through = WALLS[rule]
        bound = {i.importer for i in found if re.match(inside, i.importer)}
        if through:
            pairs = {pair for pair in house.edges(found) if not re.match(outside, pair[1])}
            bound = bound.union(*(house.reached(pairs, name) for name in bound))
        broken = [i for i in found if i.importer in bound and re.match(outside, i.imported)]
    return sorted({f"{i.path.as_posix()}:{i.line} imports {i.imported}: {rule}" for i in broken})


@pytest.mark.parametrize("rule", [*WALLS, CIRCLE])
def test_wall_holds(rule):
    broken = violations(ROOT, rule)
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("rule", WALLS)
def test_wall_binds_modules_that_exist(rule):
    assert any(re.match(WALLS[rule][0], name) for name in house.modules(ROOT))


BROKEN = {
    "course_lib/samplers.py": "import math\nfrom course_lib import middle\n",
    "course_lib/middle.py": "\ndef late():\n    from monai.networks import nets\n",
    "course_lib/networks.py": "def build():\n    from course_lib import pretrained\n",
    "course_lib/pretrained.py": "from course_lib import networks\nfrom monai import utils\n",
    "course_lib/recipes.py": "from data_fetch import mednist\n",
    "course_lib/datasets.py": "from data_fetch.mednist import load\n",
    "course_lib/viz/figures.py": "from course_lib.recipes import RECIPES\n",
    "course_lib/experiments/__init__.py": "from course_lib.experiments import record, trends\n",
    "course_lib/experiments/record.py": "",
    "course_lib/experiments/trends.py": "from course_lib.experiments.targets import STEPS\n",
    "course_lib/experiments/targets.py": "",
    "data_fetch/mednist.py": "import numpy\nimport course_lib.samplers\n",
}
NAMED = {
    "data_fetch knows neither the library nor torch": ["data_fetch/mednist.py:2 imports course_lib.samplers"],
    "in the library, datasets alone knows data_fetch": ["course_lib/recipes.py:1 imports data_fetch.mednist"],
    "viz draws what it is given, it neither trains nor loads": [
        "course_lib/viz/figures.py:1 imports course_lib.recipes"
    ],
    "samplers, guidance and inverse know no network": ["course_lib/middle.py:3 imports monai.networks.nets"],
    "a network loads no network": ["course_lib/networks.py:2 imports course_lib.pretrained"],
    "who reads a record imports no study": [
        "course_lib/experiments/__init__.py:1 imports course_lib.experiments.trends"
    ],
    CIRCLE: [
        "course_lib/networks.py:2 imports course_lib.pretrained",
        "course_lib/pretrained.py:1 imports course_lib.networks",
    ],
}


@pytest.mark.parametrize("rule", [*WALLS, CIRCLE])
def test_what_breaks_a_wall_is_named_by_file_line_and_rule(rule, tmp_path):
    for name, text in BROKEN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert violations(tmp_path, rule) == [f"{broken}: {rule}" for broken in NAMED[rule]]
