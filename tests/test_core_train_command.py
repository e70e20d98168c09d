"""The training command from recipe to shipped weights, on a tiny recipe with random images."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from course_lib import pretrained, runtime, train
from course_lib.recipes import RECIPES


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (16, 16, 16), dtype=np.uint8), np.arange(16) % 6
    recipe = dataclasses.replace(
        RECIPES["mednist"],
        name="tiny",
        network_args={"channels": (32, 32), "num_res_blocks": 1, "patch": 2, "num_classes": 6},
        load_data=lambda: (images, labels),
        measure=lambda recipe, net: ({"seen": int(net.num_classes)}, {}),
        image_size=16,
        batch_size=4,
        steps=3,
        full={"steps": 5},
    )
    monkeypatch.setitem(RECIPES, "tiny", recipe)
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(pretrained.save, "__defaults__", (None, tmp_path / "weights"))
    return tmp_path


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["train", "tiny", "--precision", "float32", *arguments])
    train.main()


def test_train_ship_and_load(tiny, monkeypatch):
    run_main(monkeypatch, "--folder", str(tiny / "runs"), "--ship")
    card = json.loads((tiny / "weights" / "tiny.json").read_text())
    assert card["steps"] == 3 and card["seen"] == 6 and card["schedule"] == "Cosine" and card["kind"] == "v"
    shipped, averaged = pretrained.load("tiny"), train.trained(RECIPES["tiny"], tiny / "runs")[0]
    for key, value in averaged.state_dict().items():
        torch.testing.assert_close(shipped.state_dict()[key].cpu(), value, rtol=1e-3, atol=1e-6)  # float16 on disk
    x_0 = pretrained.load_denoiser("tiny")(torch.randn(2, 1, 16, 16).to(runtime.device()), 0.5, y=torch.tensor([0, 5]))
    assert x_0.shape == (2, 1, 16, 16) and x_0.abs().max() <= 1


def test_full_profile_trains_longer_and_goes_on_from_the_checkpoint(tiny, monkeypatch):
    run_main(monkeypatch, "--folder", str(tiny / "runs"))
    monkeypatch.setenv("COURSE_PROFILE", "full")
    run_main(monkeypatch, "--folder", str(tiny / "runs"))
    assert train.trained(RECIPES["tiny"], tiny / "runs")[1] == 5


def test_more_processes_are_not_needed(tiny):
    """Without torchrun's variables a single process does it all, and each state is yielded."""
    states = list(train.run(RECIPES["tiny"], tiny / "runs", torch.float32))
    assert [state.step for state in states] == [1, 2, 3]
