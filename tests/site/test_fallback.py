"""Ten pictures for an hour in which nothing runs."""

import re

import fallback
import pytest


def test_ten_pictures_of_all_parts_come_from_the_stored_notebooks(tmp_path):
    paths = fallback.write(tmp_path)
    assert len(paths) == 10 and {part for part, *_ in fallback.PICTURES} == {1, 2, 3, 4}
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'src="([^"]+)"', page) == [path.name for path in paths]
    assert len(re.findall(r'alt="[^"]{20,}"', page)) == 10 and "http" not in page
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"RIFF")


def test_a_figure_that_is_gone_is_named():
    with pytest.raises(ValueError, match=r"03_ddpm.ipynb has no figure in cell c00"):
        fallback.figure("03_ddpm", "c00")
