"""The training command from recipe to shipped weights, on a tiny recipe with random images."""

import dataclasses
import errno
import json
import os
import re

import numpy as np
import pytest
import torch

from course_lib import pretrained, runtime, train
from course_lib.datasets import DataError
from course_lib.eight_bits import rounded
from course_lib.networks import DiffusionUNet
from course_lib.recipes import RECIPES, queue, runs


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
    return tmp_path


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["train", "tiny", "--precision", "float32", *arguments])
    return train.main()


def test_train_ship_and_load(tiny, monkeypatch):
    run_main(monkeypatch, "--folder", str(tiny / "runs"), "--ship")
    card = json.loads((tiny / "weights" / "tiny.json").read_text())
    assert card["steps"] == 3 and card["seen"] == 6 and card["schedule"] == "Cosine" and card["kind"] == "v"
    weights = sum(weight.numel() for weight in RECIPES["tiny"].fresh().parameters())
    hours = None if runtime.device() == "cuda" else card["core_hours"]
    seen = 3 * RECIPES["tiny"].batch_size
    assert pretrained.budget("tiny") == {"weights": weights, "images seen": seen, "core-hours": hours}
    shipped, averaged = pretrained.load("tiny"), rounded(runs.trained(RECIPES["tiny"], tiny / "runs")[0])
    for key, value in averaged.state_dict().items():
        torch.testing.assert_close(shipped.state_dict()[key].cpu(), value, rtol=1e-3, atol=1e-6)  # float16 on disk
    x_0 = pretrained.load_denoiser("tiny")(torch.randn(2, 1, 16, 16).to(runtime.device()), 0.5, y=torch.tensor([0, 5]))
    assert x_0.shape == (2, 1, 16, 16) and x_0.abs().max() <= 1


def test_full_profile_trains_longer_and_goes_on_from_the_checkpoint(tiny, monkeypatch):
    run_main(monkeypatch, "--folder", str(tiny / "runs"))
    monkeypatch.setenv("COURSE_PROFILE", "full")
    run_main(monkeypatch, "--folder", str(tiny / "runs"))
    assert runs.trained(RECIPES["tiny"], tiny / "runs")[1] == 5


def test_more_processes_are_not_needed(tiny):
    """Without torchrun's variables a single process does it all, and each state is yielded."""
    states = list(runs.run(RECIPES["tiny"], tiny / "runs", torch.float32))
    assert [state.step for state in states] == [1, 2, 3]


def refused(monkeypatch, capsys, message, *arguments, status=1):
    """The command ends with that status and one sentence."""
    assert run_main(monkeypatch, *arguments) == status
    error = capsys.readouterr().err.rstrip("\n").rsplit("\n", 1)[-1]  # below a progress bar
    assert re.search("course_lib.train: .*" + message, error), error


@pytest.mark.parametrize("steps", ["0", "-5"])
def test_steps_below_one_are_refused(tiny, monkeypatch, capsys, steps):
    refused(monkeypatch, capsys, "--steps must be at least 1, of one batch each; got", "--steps", steps)


def test_fewer_steps_than_done_are_refused_and_as_many_are_no_fault(tiny, monkeypatch, capsys):
    folder = "--folder", str(tiny / "runs")
    assert run_main(monkeypatch, *folder) == 0
    refused(monkeypatch, capsys, "steps was 3 and is 2", *folder, "--steps", "2")
    assert run_main(monkeypatch, *folder) == 0
    assert "has all of its 3 steps already: nothing to train" in capsys.readouterr().out
    assert run_main(monkeypatch, *folder, "--ship") == 0 and (tiny / "weights" / "tiny.json").exists()


def test_other_settings_of_the_recipe_are_refused(tiny, monkeypatch, capsys):
    folder = "--folder", str(tiny / "runs")
    assert run_main(monkeypatch, *folder) == 0
    refused(monkeypatch, capsys, "precision was 'float32' and is 'bfloat16'", *folder, "--precision", "bfloat16")
    monkeypatch.setitem(RECIPES, "tiny", dataclasses.replace(RECIPES["tiny"], full={"batch_size": 8}))
    monkeypatch.setenv("COURSE_PROFILE", "full")
    refused(monkeypatch, capsys, "batch_size was 4 and is 8", *folder)


def test_automatic_precision_is_that_of_the_checkpoint(tiny, monkeypatch):
    folder = "--folder", str(tiny / "runs")
    assert run_main(monkeypatch, *folder, "--precision", "bfloat16", "--steps", "2") == 0
    monkeypatch.setattr(runtime, "precision", lambda: torch.float32)
    assert run_main(monkeypatch, *folder, "--precision", "auto", "--steps", "2") == 0


def test_a_recipe_may_want_more_precision_than_the_faster_one(monkeypatch):
    monkeypatch.setattr(runtime, "precision", lambda: torch.bfloat16)
    assert runs.precision_of(RECIPES["brain_autoencoder"]) == torch.float32
    assert runs.precision_of(RECIPES["brain"]) == torch.bfloat16


def test_unknown_names_are_refused(tiny, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train", "mednit"])
    assert train.main() == 1
    assert re.search("no recipe 'mednit'; there are: .*mednist", capsys.readouterr().err)


def test_a_folder_that_is_a_file_is_refused(tiny, monkeypatch, capsys):
    (tiny / "file").write_text("mine")
    for folder in ("file", "file/below"):
        refused(monkeypatch, capsys, "is no folder: give another with --folder", "--folder", str(tiny / folder))
    assert (tiny / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_refused_before_training(tiny, monkeypatch, capsys):
    def denied(dir):
        raise PermissionError(errno.EACCES, "Permission denied", str(dir))

    monkeypatch.setattr(runs.tempfile, "TemporaryFile", denied)
    refused(monkeypatch, capsys, r"cannot be written to .*\(Permission denied\)", "--folder", str(tiny / "runs"))


def test_a_full_disk_is_one_sentence(tiny, monkeypatch, capsys):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(monkeypatch, capsys, "No space left on device: .*tiny.checkpoint", "--folder", str(tiny / "runs"))
    assert not list((tiny / "runs").iterdir())


def test_data_that_is_not_there_is_one_sentence(tiny, monkeypatch, capsys):
    def missing():
        raise DataError("Blobs is not here: run get")

    monkeypatch.setitem(RECIPES, "tiny", dataclasses.replace(RECIPES["tiny"], load_data=missing))
    refused(monkeypatch, capsys, "Blobs is not here: run get", "--folder", str(tiny / "runs"))


def test_shipping_without_training_is_one_sentence(tiny):
    with pytest.raises(ValueError, match=r"there is no checkpoint .*tiny\.checkpoint\.safetensors: train first"):
        runs.ship(RECIPES["tiny"], tiny / "runs")


def test_a_stop_by_hand_says_where_it_goes_on(tiny, monkeypatch, capsys):
    """Ctrl-C: status 130, and the last checkpoint, which is whole."""
    folder, real = ("--folder", str(tiny / "runs")), runs.progress

    def stopped(states, **options):
        for state in real(states, **options):
            if state.step == 3:
                raise KeyboardInterrupt
            yield state

    monkeypatch.setattr(runs, "progress", stopped)
    message = "stopped after step 2; the same command goes on from the start, since there is no checkpoint yet"
    refused(monkeypatch, capsys, message, *folder, status=130)
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", -1)
    refused(monkeypatch, capsys, "stopped after step 2; the same command goes on from step 2 ", *folder, status=130)


def test_a_loss_that_is_not_finite_is_one_sentence(tiny, monkeypatch, capsys):
    def loss(net, batch, generator):
        return sum(p.sum() for p in net.parameters()) * torch.full((len(batch[0]),), float("nan")), None

    monkeypatch.setitem(RECIPES, "tiny", dataclasses.replace(RECIPES["tiny"], loss=loss))
    refused(monkeypatch, capsys, "step 1 of 3: the loss is nan", "--folder", str(tiny / "runs"))
    assert not list((tiny / "runs").iterdir())


def test_training_may_start_from_a_network_without_a_name(tiny):
    """Its first weights are those; its card does not say how many images they have seen, as nobody knows."""
    recipe, folder = dataclasses.replace(RECIPES["tiny"], steps=1, peak_rate=1e-12), tiny / "runs"
    torch.manual_seed(5)
    first, other = recipe.fresh(), recipe.fresh()
    net, _ = runs.finished(recipe, folder, first)
    for key, value in first.state_dict().items():
        torch.testing.assert_close(net.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    about = runs.measured(recipe, folder)[1]
    assert about["from"].startswith(type(first).__name__) and "images_seen" not in about
    with pytest.raises(ValueError, match="from was .* and is"):
        runs.finished(recipe, folder, other)


def test_training_may_start_from_a_shipped_network(tiny, monkeypatch, capsys):
    """Its first weights are those; the card says so; and it is a run of its own."""
    recipe, folder = RECIPES["tiny"], str(tiny / "runs")
    assert run_main(monkeypatch, "--folder", folder, "--ship") == 0
    monkeypatch.setitem(RECIPES, "tiny2", dataclasses.replace(recipe, name="tiny2", steps=1, peak_rate=1e-12))
    monkeypatch.setattr("sys.argv", ["train", "tiny2", "--from", "tiny", "--folder", folder, "--ship"])
    assert train.main() == 0
    sha256 = pretrained.card("tiny")["sha256"]
    assert pretrained.card("tiny2")["from"] == f"tiny {sha256[:16]}"
    assert pretrained.budget("tiny2")["images seen"] == (3 + 1) * recipe.batch_size
    assert runs._seen_before("tiny 0000") is None, "by now the card is that of another network"
    for key, value in pretrained.load("tiny").state_dict().items():
        torch.testing.assert_close(pretrained.load("tiny2").state_dict()[key], value, rtol=1e-3, atol=1e-6)
    monkeypatch.setattr("sys.argv", ["train", "tiny2", "--folder", folder])
    assert train.main() == 1 and f"from was 'tiny {sha256[:16]}' and is None" in capsys.readouterr().err
    args = recipe.network_args | {"channels": (32, 64)}
    monkeypatch.setitem(RECIPES, "tiny", dataclasses.replace(recipe, network_args=args))
    message = "tiny has another architecture than tiny: start from one of the same"
    refused(monkeypatch, capsys, message, "--from", "tiny", "--folder", str(tiny / "other"))
    refused(monkeypatch, capsys, "no network 'nobody'", "--from", "nobody", "--folder", str(tiny / "other"))


# ---- The queue -------------------------------------------------------------------------------------------------------


def test_every_entry_of_the_queue_is_a_recipe_and_comes_after_what_it_needs():
    before = []
    for entry in queue.QUEUE:
        assert entry.name in RECIPES and entry.images <= entry.many
        assert entry.start is None or entry.start in pretrained.names()
        assert set(entry.after) <= set(before)
        before.append(entry.name)
    assert len(set(before)) == len(before)
    assert queue.QUEUE[0].recipe().steps == 12_000  # brain: 384,000 images


def test_every_bar_is_about_values_that_cards_have():
    """What the shipped networks miss is said, in words; t = 0.5 comes with the next measurement. An unrolled network is
    measured as the U-Net of its scans is."""
    for entry in queue.QUEUE:
        name = entry.name.replace("unrolled", "unet")
        if name not in pretrained.names():
            continue
        card = pretrained.card(name)
        if entry.name == "brain_noisy_classifier":
            card["test_accuracy"]["t = 0.5"] = 0.4
        assert all(
            re.fullmatch(r"\S.* is [\d.]+, at (most|least) [\d.]+ is wanted", said) for said in entry.misses(card)
        )
    entry = queue.Entry("x", 1, 1, most={"a/b": 2}, least={"c": 1})
    assert entry.misses({"a": {"b": 2}, "c": 1}) == []
    assert entry.misses({"a": {"b": 3}, "c": float("nan")}) == [
        "a/b is 3, at most 2 is wanted",
        "c is nan, at least 1 is wanted",
    ]


def test_the_u_nets_of_scans_are_as_large_as_the_prior_and_see_as_many_images_as_it_has_seen():
    entries, seen = {entry.name: entry for entry in queue.QUEUE}, pretrained.card("brain")["images_seen"]
    for name in ("brain_mri_unet", "brain_ct_unet"):
        recipe = entries[name].recipe()
        assert recipe.network_args == entries["brain"].recipe().network_args
        assert entries[name].start == name
        assert 0 <= pretrained.card(name)["images_seen"] + recipe.steps * recipe.batch_size - seen < 1000


@pytest.fixture
def queued(tiny, monkeypatch):
    """Two entries of the tiny recipe, and the command for the next one."""
    for name in ("first", "second"):
        monkeypatch.setitem(RECIPES, name, dataclasses.replace(RECIPES["tiny"], name=name))
    entries = queue.Entry("first", 12, 12, most={"seen": 5}), queue.Entry("second", 8, 8, least={"seen": 6})
    monkeypatch.setattr(queue.next_entry, "__defaults__", (False, entries))
    arguments = ["--next", "--precision", "float32", "--no-compile", "--folder", str(tiny / "runs")]
    return lambda *more: train.main([*arguments, *more])


def test_next_goes_through_the_queue_and_ships_what_meets_its_bar(queued, tiny, monkeypatch, capsys):
    with monkeypatch.context() as patched:  # killed in the middle
        patched.setattr(runs, "CHECKPOINT_SECONDS", -1)
        patched.setattr(runs, "progress", lambda states, **options: (s for s, _ in zip(states, range(2))))
        assert queued() == 0
    assert runs.trained(RECIPES["first"], tiny / "runs")[1] == 2
    assert queued("--ship") == 0
    assert "first is not shipped: seen is 6, at most 5 is wanted" in capsys.readouterr().out
    assert runs.trained(RECIPES["first"], tiny / "runs")[1] == 3
    assert queued() == 0 and not pretrained.names()
    assert queued("--ship") == 0  # trained already, not yet measured
    assert "second is shipped" in capsys.readouterr().out
    assert pretrained.names() == ["second"] and pretrained.card("second")["steps"] == 2
    assert queued("--ship") == 0 and "all of the queue is trained" in capsys.readouterr().out
    (tiny / "runs" / "second.checkpoint.safetensors").unlink()
    assert queued() == 0 and "all of the queue is trained" in capsys.readouterr().out  # it ships with its budget


@pytest.mark.parametrize(
    ("arguments", "works", "compiled"),
    [
        (["--next"], True, True),
        (["--next"], False, False),
        (["--next", "--no-compile"], True, False),
        (["first"], True, False),
        (["first", "--compile"], False, True),
    ],
)
def test_the_queue_is_compiled_where_a_compiler_works(queued, tiny, monkeypatch, arguments, works, compiled):
    seen = []
    monkeypatch.setattr(train.compiling, "trouble", lambda device: None if works else "none")
    monkeypatch.setattr(train, "run", lambda *options: seen.append(options[-1]) or ())
    assert train.main([*arguments, "--precision", "float32", "--folder", str(tiny / "runs")]) == 0
    assert seen == [compiled]


@pytest.mark.parametrize(
    "arguments", [[], ["tiny", "--next"], ["--next", "--steps", "3"], ["--next", "--from", "tiny"]]
)
def test_a_name_or_next(arguments):
    with pytest.raises(SystemExit):
        train.main(arguments)


def test_a_network_that_is_told_classes_starts_as_the_one_that_was_told_none():
    torch.manual_seed(0)
    args = {"channels": (32, 32), "patch": 2}
    plain, told = DiffusionUNet(**args).eval(), DiffusionUNet(**args, num_classes=2).eval()
    told.start_from(plain.state_dict())
    x_t = torch.randn(3, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(told(x_t, 0.3, torch.tensor([0, 1, 2])), plain(x_t, 0.3))
