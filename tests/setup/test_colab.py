"""A notebook opened alone on Google Colab sets itself up in its first code cell and runs; see tools/colab.py.

The suite runs the quickest notebook, on this Python and PyTorch with Colab's other packages; `python tools/colab.py`
runs all of them, and with `--python python3.13` on Colab's own Python. pip has to reach its index: without it the
simulation is skipped, but under CI, where it fails.
"""

import os
import subprocess
import sys
from pathlib import Path

import colab
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
simulated = pytest.mark.skipif(
    os.name == "nt" or not (3, 11) <= sys.version_info[:2] <= (3, 13), reason="Colab's packages have no build for this"
)


def set_up_cell(path):
    """Source of a notebook's first code cell."""
    return next(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_set_up_cell_is_the_same_everywhere_and_says_where_networks_run(path):
    assert set_up_cell(path) == set_up_cell(NOTEBOOKS[0])
    assert set_up_cell(path).endswith("print(runtime.where())")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A simulated Colab, made once; conftest.py's closed proxy is left aside, since pip has to reach its index."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.delenv(name, raising=False)
        folder = tmp_path_factory.mktemp("colab")
        probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "-d", folder, "einops"]
        if subprocess.run(probe, capture_output=True).returncode and "CI" not in os.environ:
            pytest.skip("pip does not reach its index")
        colab.make_image(folder / "image", sys.executable)
        yield folder / "image"


@simulated
def test_the_first_notebook_runs_from_an_empty_folder(image, tmp_path):
    result = colab.run(NOTEBOOKS[0], image, tmp_path)
    assert result.problem == ""


@simulated
def test_a_changed_package_and_an_error_in_a_widget_are_found(image, tmp_path):
    """The simulation can fail: this notebook does what none of the course's may."""
    cells = [
        "import subprocess, sys\nassert 'google.colab' in sys.modules\n"
        "subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', 'einops==0.8.1'], check=True)",
        "import ipywidgets\nout = ipywidgets.Output()\ndisplay(out)\nwith out:\n    1 / 0",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    result = colab.run(tmp_path / "bad.ipynb", image, tmp_path)
    assert "einops 0.8.2 became 0.8.1" in result.problem
    assert "ZeroDivisionError" in result.problem


def test_link_brings_a_distribution_and_what_it_requires(tmp_path):
    colab.link_distribution("jinja2", tmp_path)
    linked = {path.name for path in tmp_path.iterdir()}
    assert {"jinja2", "markupsafe"} <= linked
    assert (tmp_path / "jinja2" / "__init__.py").exists()
