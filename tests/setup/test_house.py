"""The measures of the house, on a package made for the test."""

import json

import house
import pytest

FILES = {
    "course_lib/__init__.py": "",
    "course_lib/base.py": "import math\n",
    "course_lib/left.py": "from course_lib import base\nimport course_lib.right\n",
    "course_lib/right.py": "from course_lib.base import number\n\n\ndef late():\n    from course_lib.left import x\n",
    "course_lib/viz/__init__.py": "",
    "course_lib/viz/figures.py": "from ..left import x\nfrom . import colours\n",
    "course_lib/viz/colours.py": "from monai.networks import nets\n",
    "course_lib/exercises/nb00.py": "import course_lib.base as base\n",
    "data_fetch/cache.py": "import pathlib\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    cells = [{"cell_type": "code", "source": ["a = 1\n", "b = 2"]}, {"cell_type": "markdown", "source": ["c"]}]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks/00.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return tmp_path


def test_edges_of_every_form_of_import(root):
    found = house.imports(root)
    short = {(a.removeprefix("course_lib."), b.removeprefix("course_lib.")) for a, b in house.edges(found)}
    two = {("left", "base"), ("left", "right"), ("right", "base"), ("right", "left")}
    assert short == two | {("viz.figures", "left"), ("viz.figures", "viz.colours"), ("exercises.nb00", "base")}
    assert house.edges(found) - house.edges(found, deferred=False) == {("course_lib.right", "course_lib.left")}
    where = {i.imported: (i.path.as_posix(), i.line) for i in found if house.room(i.imported) is None}
    assert where["monai.networks.nets"] == ("course_lib/viz/colours.py", 1)


def test_a_circle_is_one_layer_and_known_as_deferred(root):
    found = house.imports(root)
    both = ("course_lib.left", "course_lib.right")
    assert house.circles(house.edges(found)) == [both]
    assert house.circles(house.edges(found, deferred=False)) == []
    assert house.longest_chain(house.edges(found)) == [("course_lib.viz.figures",), both, ("course_lib.base",)]


def test_lines_of_rooms_and_of_code_in_notebooks(root):
    counted = house.lines(root)
    assert counted == {
        **{"course_lib": 0, "base": 1, "left": 2, "right": 5, "viz": 3, "exercises": 1, "data_fetch": 1},
        **{"course_lib/": 11, "notebooks": 2},
    }


def test_what_it_prints(root, capsys):
    house.main(root)
    said = capsys.readouterr().out.splitlines()
    assert said[:5] == [
        "layers   3 of modules: viz.figures > left = right > base",
        "layers   3 of rooms: viz > left = right > base",
        "edges    7 between 9 modules, 6 between rooms",
        "circles  1, 1 of them deferred",
        "         course_lib.left = course_lib.right",
    ]
    assert [line.split() for line in said if line.startswith(("viz", "base"))] == [["viz", "3", "1200"], ["base", "1"]]
