"""The library installs alone: `pip install .` brings code, weights, records and scripts, and nothing of the course's
folder is needed afterwards."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TRY = """
import course_lib, data_fetch
from course_lib import experiments, pretrained, runtime
from course_lib.samplers import ddim_step, sample
from course_lib.schedules import uniform_times
from course_lib.viz import widgets
import torch

assert {installed!r} in course_lib.__file__ and {installed!r} in data_fetch.__file__, course_lib.__file__
denoiser = pretrained.load_denoiser("trend_ddpm")
x = sample(denoiser, torch.randn(1, 1, 32, 32, generator=runtime.seeded(0)), uniform_times(3), ddim_step)
assert x.shape == (1, 1, 32, 32) and x.isfinite().all()
assert experiments.load("04_samplers")["rows"] and len(pretrained.names()) == {networks}
assert "root" in widgets.predict("Which?", ["one", "two"], "one", "It is.").markup  # its script is a file of its own
print("installed alone")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which pip installed the library, from a copy of its sources."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in ("course_lib", "data_fetch"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("pyproject.toml"), *ROOT.glob("README.md"), *ROOT.glob("LICENSE*")):
        shutil.copy(path, source)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True, timeout=300)
    return target


def test_every_file_of_the_library_is_installed(installed):
    for package in ("course_lib", "data_fetch"):
        files = {p.relative_to(ROOT) for p in (ROOT / package).rglob("*") if p.is_file() and p.suffix != ".pyc"}
        assert not [str(path) for path in files if not (installed / path).is_file()]


def test_it_samples_from_any_folder(installed, tmp_path):
    networks = len(list((ROOT / "course_lib" / "weights").glob("*.safetensors")))
    code = TRY.format(installed=str(installed), networks=networks)
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "installed alone", done.stderr
