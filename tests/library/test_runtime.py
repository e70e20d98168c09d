"""The check of the learner's machine: it says what is, tells what to do, and never stops; seeds repeat."""

import hashlib
import json
import os
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from course_lib import environment, pretrained, runtime

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder with one made network, in place of the shipped ones."""
    content = b"not a network, but bytes with a checksum"
    (tmp_path / "made.safetensors").write_bytes(content)
    (tmp_path / "made.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path)
    return tmp_path


def row(what, **kwargs):
    """The line of the check of that name."""
    return {check.what: check for check in environment.checks(**kwargs)}[what]


def test_versions_are_those_of_pyproject():
    listed = re.search(r"^dependencies = \[(.*?)^\]", PYPROJECT, re.DOTALL | re.MULTILINE).group(1)
    wanted = [Requirement(text) for text in re.findall(r'"(.+?)"', listed)]
    assert {r.name: str(r.specifier).removeprefix(">=") for r in wanted} == environment.PACKAGES
    assert f'requires-python = ">={environment.OLDEST_PYTHON[0]}.{environment.OLDEST_PYTHON[1]}"' in PYPROJECT


def test_text_says_what_the_table_says():
    page = environment.check_environment(data={"mednist": False})
    shown = page._repr_mimebundle_()
    rows = environment.checks(data={"mednist": False})
    assert shown["text/html"].count("<tr") == len(rows) + 1
    lines = shown["text/plain"].splitlines()[3:]
    for check, line in zip(rows, lines, strict=True):
        assert ("✓ OK" if check.ok else "! attention") in line
        assert line.startswith(check.what) and check.what in shown["text/html"]
    assert shown["text/html"].count("✓ OK") == sum(check.ok for check in rows)


def test_a_missing_data_set_gets_both_ways_to_get_it():
    here, missing = (row("Data: mednist", data={"mednist": there}) for there in (True, False))
    assert here.ok
    assert not missing.ok
    assert "data_fetch get mednist" in missing.remedy and "data_fetch import FILE" in missing.remedy


def test_whole_weights_are_ok(weights):
    assert row("Networks").ok and row("Networks").found.startswith("1 of 1 whole")
    assert not any(check.what.startswith("Network: ") for check in environment.checks())


@pytest.mark.parametrize("harm", ["changed", "weights gone", "card gone", "card unreadable"])
def test_harmed_weights_want_attention(weights, harm):
    if harm == "changed":
        (weights / "made.safetensors").write_bytes(b"something else")
    elif harm == "card unreadable":
        (weights / "made.json").write_text("{")
    else:
        (weights / ("made.json" if harm == "card gone" else "made.safetensors")).unlink()
    found = row("Network: made")
    assert not found.ok and not any(check.what == "Networks" for check in environment.checks())
    if harm != "card unreadable":
        assert "git checkout" in found.remedy


def test_no_weights_at_all_want_attention(weights):
    for path in weights.iterdir():
        path.unlink()
    assert not row("Network: (none)").ok
    weights.rmdir()
    assert not row("Network: (none)").ok


def test_the_shipped_weights_are_whole():
    number = len(list(pretrained.WEIGHTS.glob("*.safetensors")))
    assert row("Networks").found.startswith(f"{number} of {number} whole")
    assert not [check for check in environment.checks() if check.what.startswith("Network: ")]


def test_a_package_that_is_missing_or_old_gets_a_command(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return {"torch": "2.7.1+cpu", "monai": "1.10"}.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert "torch>=2.8" in row("PyTorch").remedy
    assert row("MONAI").ok  # 1.10 is newer than 1.5
    assert "scipy>=1.13" in row("Other packages").remedy
    assert "numpy" not in row("Other packages").remedy


def test_scarce_cores_memory_and_disk_want_attention(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    monkeypatch.setattr(environment, "_free_memory", lambda: 0.5e9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    for what in ("Processor cores", "Free memory", "Free disk"):
        assert not row(what).ok, what
    monkeypatch.setattr(environment, "_free_memory", lambda: None)
    assert row("Free memory").ok  # Windows and macOS do not say: no reason to alarm


def test_disk_of_a_folder_that_is_not_made_yet(tmp_path):
    assert row("Free disk", folder=tmp_path / "not" / "yet").found == row("Free disk", folder=tmp_path).found


def test_a_check_that_breaks_is_a_line_and_no_error(monkeypatch):
    def broken():
        raise RuntimeError("no such thing")

    for name in ("_device", "_precision", "_cores", "_free_memory", "_python"):
        monkeypatch.setattr(environment, name, broken)
    text = str(environment.check_environment())
    assert text.count("could not be checked") == 5
    assert "RuntimeError: no such thing" in text


def test_fast_runs_without_gradients_in_the_measured_precision():
    layer = torch.nn.Linear(4, 4)
    with runtime.fast():
        out = layer(torch.ones(1, 4, device="cpu"))
    assert not out.requires_grad
    if runtime.device() == "cpu":
        assert out.dtype == runtime.precision()


def test_seeds_repeat():
    a, b, c = (torch.randn(5, generator=runtime.seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    ("convolution", "order"),
    [(torch.nn.Conv2d, torch.channels_last), (torch.nn.Conv3d, torch.channels_last_3d)],
)
def test_weights_of_both_kinds_of_network_are_placed(convolution, order):
    """Convolutions of slices and of volumes, beside layers of other ranks, keep their values in channels-last order."""
    net = torch.nn.Sequential(convolution(4, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Linear(8, 8))
    before = net[0].weight.clone()
    placed = runtime.placed(net)
    assert placed[0].weight.is_contiguous(memory_format=order)
    torch.testing.assert_close(placed[0].weight.cpu(), before, rtol=0, atol=0)


def test_the_top_of_a_notebook_says_where_networks_run_and_colab_how_to_get_a_gpu(monkeypatch):
    monkeypatch.setattr(runtime, "precision", lambda: torch.float32)
    monkeypatch.setattr(runtime, "device", lambda: "cpu")
    assert runtime.where() == "Networks run on the CPU in float32."
    monkeypatch.setitem(sys.modules, "google.colab", None)
    assert "Runtime > Change runtime type" in runtime.where()
    monkeypatch.setattr(runtime, "device", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert runtime.where() == "Networks run on the GPU (Tesla T4) in float32."


# ---- Several processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def torchrun(monkeypatch):
    """A process of torchrun's: process 5, the second of four on its machine; ``done`` is what it did."""
    done = []
    for name, value in {"RANK": 5, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: done.append(index))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda: done.append("joined"))
    return done


def test_a_process_takes_the_gpu_of_its_local_rank_and_then_joins(torchrun):
    runtime.join_processes()
    assert torchrun == [1, "joined"]


def test_on_a_cpu_it_only_joins_and_alone_it_does_nothing(torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runtime.join_processes()
    assert torchrun == ["joined"]
    monkeypatch.delenv("RANK")
    runtime.join_processes()
    assert torchrun == ["joined"]


def test_more_processes_than_gpus_and_another_launcher_are_refused(torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 processes on a machine of 2 GPUs: give --nproc-per-node 2 at most"):
        runtime.join_processes()
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(ValueError, match="RANK is set, but LOCAL_RANK.* is not: start several processes by torchrun"):
        runtime.join_processes()
    assert torchrun == []
