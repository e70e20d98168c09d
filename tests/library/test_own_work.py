"""The recipes of docs/own_work.md run as they stand, with fewer steps and pictures, in an empty folder; and what they
promise holds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.own_files import save_png

from course_lib import pretrained, train
from course_lib.checkpoints import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "own_work.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
PICTURES, SAMPLER, OPERATOR, MONAI, CLUSTER = SECTIONS


def code(section, **smaller):
    """The Python of a section, with other numbers in the lines NAME = NUMBER."""
    (text,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for name, value in smaller.items():
        text, found = re.subn(rf"^{name} = \d+", f"{name} = {value}", text, flags=re.MULTILINE)
        assert found == 1, name
    return text


def executed(section, **smaller):
    names = {"__name__": "recipe"}
    exec(code(section, **smaller), names)
    return names


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """An empty folder to work in, with 40 noisy PNGs in ``pictures``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for k in range(40):
        save_png(tmp_path / "pictures" / f"{k:03d}.png", rng.integers(0, 256, (32, 32), dtype=np.uint8))
    return tmp_path


def test_two_hundred_pictures(pictures, capsys):
    """Read, train, watch, save, load: the network that comes back is the one that was saved, to the last digit."""
    names = executed(PICTURES, STEPS=4)
    assert names["seen"].shape == (20, 32, 32) and names["unseen"].shape == (20, 1, 32, 32)
    assert len(re.findall(r"step \d: loss \d.*, of unseen pictures \d", capsys.readouterr().out)) == 4
    assert sorted(path.name for path in (pictures / "networks").iterdir()) == ["mine.json", "mine.safetensors"]
    back = pretrained.load("mine", folder="networks").state_dict()
    for key, value in names["state"].ema.state_dict().items():
        assert torch.equal(back[key], value), key
    assert names["x_0"].shape == (16, 32, 32) and names["x_0"].abs().max() <= 1
    assert names["denoiser"].schedule.alpha(0.3) == names["loss"].schedule.alpha(0.3)


def test_a_sampler_of_second_order(capsys):
    names = executed(SAMPLER)
    assert abs(float(names["order"]) - 2) < 0.1
    assert names["errors"][160] < 1e-3


def test_an_operator_on_a_gaussian(capsys):
    """The means of 100 samples are as near to the exact posterior mean as the page says, and chance alone makes what it
    says, by the exact posterior variance; A.adjoint is the transpose of the recipe's matrix of A."""
    names = executed(OPERATOR)
    exact, A, M, size = (names[name] for name in ("exact", "A", "M", "size"))
    y = torch.eye(len(M)).double().view(-1, 1, *names["y"].shape[2:])
    torch.testing.assert_close(A.adjoint(y).flatten(1), M, rtol=0, atol=1e-12)
    assert abs(names["off"]["DiffPIR"] - 0.040) < 0.002 and abs(names["off"]["DPS"] - 0.047) < 0.002, names["off"]
    assert abs(float(exact.square().mean().sqrt()) - 1.2) < 0.05
    cov, noise = names["cov"], names["sigma_y"] ** 2 * torch.eye(len(M))
    left = (cov - cov @ M.T @ torch.linalg.solve(M @ cov @ M.T + noise, M @ cov)).diagonal().mean()
    assert abs(float((left / 100).sqrt()) - 0.035) < 0.001
    assert names["found"]["DPS"].shape == (100, 1, size, size)


def test_monai_there_and_back():
    names = executed(MONAI, T=20)
    torch.testing.assert_close(names["ours"], names["theirs"], rtol=0, atol=1e-4)
    torch.testing.assert_close(names["again"], names["theirs"], rtol=0, atol=1e-4)


def test_a_recipe_of_ones_own(pictures, capsys):
    """Trained by the command, resumed, measured and shipped into its folder, and drawn from."""
    Path("my_recipe.py").write_text(code(CLUSTER, STEPS=2).replace("batch_size=64", "batch_size=8"), encoding="utf-8")
    assert train.main(["my_recipe.py", "--ship", "--precision", "float32"]) == 0
    assert "std_of_pictures" in capsys.readouterr().out
    assert train.main(["my_recipe.py", "--precision", "float32"]) == 0
    assert "has all of its 2 steps already" in capsys.readouterr().out
    card = pretrained.card("mine", folder="runs")
    assert (card["steps"], card["stored"], card["images_seen"]) == (2, "int8", 16)
    denoiser = pretrained.load_denoiser("mine", folder="runs", precision=torch.float32)
    assert denoiser(torch.zeros(1, 1, 32, 32), 0.5).shape == (1, 1, 32, 32)
    assert "mine" not in pretrained.names()


SMALL = """
import numpy as np
from course_lib.recipes.recipe import classifier

def load_data():
    return np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8), np.arange(8) % 2

ABOUT = {"load_data": load_data, "data": "made", "licence": "none", "classes": ("a", "b"), "image_size": 16}
recipe = classifier("two", {"num_classes": 2, "channels": (8, 8)}, ABOUT, None, steps=2, batch_size=4)
"""


def test_torchrun_trains_a_recipe_of_ones_own_in_two_processes(tmp_path):
    (tmp_path / "two.py").write_text(SMALL, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "course_lib.train", "two.py", "--precision", "float32"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *_, step, run = read_checkpoint(tmp_path / "runs" / "two.checkpoint.safetensors")
    assert (step, run["processes"], run["batch_size"]) == (2, 2, 4)


def test_each_section_is_a_recipe_of_about_twenty_lines():
    for section in SECTIONS:
        lines = [line for line in code(section).splitlines() if line and not line.startswith(("import", "from"))]
        assert len(lines) <= 30, section.split("\n")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no file gone.py"), ("recipe = 3", r"gone.py must set `recipe`"), ("", "gone.py must set")],
)
def test_a_file_without_a_recipe_is_one_sentence(content, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("gone.py").write_text(content)
    assert train.main(["gone.py"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
