"""The examples run: the ten lines of the README, and the one from data to picture, here on a handful of made images."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from course_lib import pretrained
from data_fetch import mednist

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--steps", "2", "--size", "8", "--nfe", "2", "--out"]


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(ROOT / "examples/mednist.py"))["main"]


def test_from_data_to_picture_and_twice_the_same(main, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (36, 64, 64), dtype=np.uint8), np.repeat(np.arange(6), 6)
    monkeypatch.setattr(mednist, "load", lambda split: (images, labels))
    for name in ("a.png", "b.png"):
        main([*TINY, str(tmp_path / name)])
    first, second = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert "48 pictures" in capsys.readouterr().out
    assert first.std() > 10
    np.testing.assert_array_equal(first, second)


def test_without_the_data_it_says_how_to_get_them(main, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="run `python -m data_fetch get mednist`"):
        main([*TINY, str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


def test_ten_lines_of_the_readme_draw_hands_and_heads(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(list(filter(None, code.splitlines()))) <= 10
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert np.asarray(Image.open("drawn.png")).std() > 10
    found = pretrained.load("mednist_features")(names["x_0"]).argmax(1)
    assert [mednist.CLASSES[k] for k in found] == ["Hand"] * 3 + ["HeadCT"] * 3
