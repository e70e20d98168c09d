"""A day on a large GPU, played with tiny networks and seconds: what it leaves, and that it ends in time."""

import dataclasses
import importlib
import json
import multiprocessing
import sys
import time

import numpy as np
import pytest
import torch
from tqdm import tqdm
from tqdm.std import TqdmDefaultWriteLock

from course_lib import pretrained, train
from course_lib.checkpoints import read_checkpoint
from course_lib.datasets import DataError
from course_lib.recipes import RECIPES, gpu_day, queue
from data_fetch import brain_cohort, rated_lesions


def _images():
    return np.random.default_rng(0).integers(0, 255, (16, 16, 16), dtype=np.uint8), None


def _copies_of_first():
    """Data that only the result of ``first`` can give."""
    assert float(next(pretrained.load("first").parameters()).abs().sum()) > 0
    return _images()


def _away():
    raise DataError("Blobs is not here")


def _measure(recipe, net):
    return {"kept": float(len(recipe.load_data()[0]))}, {"reference.kept": torch.ones(3)}


@pytest.fixture
def tiny_day(monkeypatch, tmp_path):
    """A queue of four tiny networks, of which one comes after the first and one has no data; day(seconds) runs it."""
    importlib.import_module("monai.networks.nets")  # seconds, once, before the processes part
    base = dataclasses.replace(
        RECIPES["brain"],
        network_args={"channels": (32, 32), "num_res_blocks": 1, "patch": 2},
        load_data=_images,
        measure=_measure,
        image_size=16,
        batch_size=4,
    )
    data = {"first": _images, "second": _images, "third": _copies_of_first, "broken": _away}
    for name, load in data.items():
        monkeypatch.setitem(RECIPES, name, dataclasses.replace(base, name=name, load_data=load))
    entries = (
        queue.Entry("broken", 24, 24, share=0.1),
        queue.Entry("first", 24, 24, start="first", least={"kept": 16}, share=4),
        queue.Entry("third", 12, 12, after=("first",), own_data=True, share=4),
        queue.Entry("second", 40, 40_000_000, most={"kept": 15}, share=8),
    )
    monkeypatch.setattr(queue, "QUEUE", entries)
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(pretrained, "WEIGHTS", tmp_path / "weights")
    return lambda seconds, **options: gpu_day.gpu_day(
        seconds / 60, tmp_path / "day", 2, precision=torch.float32, **options
    )


def test_a_day_trains_what_it_can_and_ends_in_time(tiny_day, tmp_path):
    begin = time.time()
    summary = tiny_day(30)
    assert time.time() - begin < 30
    assert summary["first"]["result"] == "meets its bar" and summary["first"]["measure"]["kept"] == 16
    assert summary["first"]["images"] == 24 and summary["first"]["loss"] > 0 and summary["first"]["seconds"] > 0
    assert summary["third"]["result"] == "meets its bar"  # after the first, with its weights
    assert summary["second"]["result"] == "kept is 16, at most 15 is wanted"
    assert summary["broken"]["result"] == "failed: DataError: Blobs is not here"
    results = tmp_path / "day" / "results"
    names = {f"{name}.{kind}" for name in ("first", "second", "third") for kind in ("json", "log", "safetensors")}
    assert {path.name for path in results.iterdir()} == names | {"broken.log", "summary.json"}
    assert all(path.stat().st_size < 16_000_000 for path in results.iterdir())
    assert json.loads((results / "summary.json").read_text())["networks"] == summary
    assert "DataError" in (results / "broken.log").read_text() and "loss=" in (results / "first.log").read_text()
    card = json.loads((results / "first.json").read_text())
    assert card["steps"] == 6 and card["training_images"] == 16
    assert not list(pretrained.WEIGHTS.iterdir())  # what ships is as it was


def test_the_learning_rate_falls_at_the_end_of_the_time(tiny_day, tmp_path):
    """The network whose budget is endless ends by the clock, level for 0.7 of its steps, then falling to the end."""
    tiny_day(16)
    level, fall = (read_checkpoint(tmp_path / "day" / part / "second.checkpoint.safetensors") for part in ("", "fall"))
    assert level[3] > 2 and fall[-1]["steps"] == int(level[3] / gpu_day.LEVEL) >= fall[3] > level[3]


def test_a_day_goes_on_where_it_was_stopped(tiny_day, tmp_path):
    stopped = tiny_day(0.2)  # before any machine is done with a network
    assert all(
        stopped[name]["result"] in ("not begun", "stopped at the end of the day") for name in ("first", "second")
    )
    first = tiny_day(36)
    began = time.time()
    assert tiny_day(30) == first and time.time() - began < 12  # only the one that failed is tried again


def test_a_day_of_some_entries_leaves_the_others_alone(tiny_day, tmp_path):
    summary = tiny_day(20, only=["first"])
    assert list(summary) == ["first"] and summary["first"]["measure"]["kept"] == 16
    names = {path.name for path in (tmp_path / "day" / "results").iterdir()}
    assert names == {"first.json", "first.log", "first.safetensors", "summary.json"}


def test_a_process_that_is_stopped_as_it_draws_a_progress_bar_stops_no_other(tiny_day, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("only a fork shares the lock of its parent's progress bars")
    shared = multiprocessing.RLock()
    monkeypatch.setattr(TqdmDefaultWriteLock, "mp_lock", shared, raising=False)
    monkeypatch.setattr(tqdm, "_lock", TqdmDefaultWriteLock(), raising=False)
    process = multiprocessing.get_context("fork").Process(target=lambda: shared.acquire() and time.sleep(60))
    process.start()
    while shared.acquire(block=False):  # until the process holds it
        shared.release()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert tiny_day(20, only=["first"])["first"]["result"] == "meets its bar"


def _measure_once_allowed(allowed):
    """A measure that fails until the file ``allowed`` is there."""

    def measure(recipe, net):
        if not allowed.exists():
            raise OSError("no memory left")
        return _measure(recipe, net)

    return measure


def test_a_network_that_goes_on_from_a_shipped_one_is_measured_by_the_next_call(tiny_day, tmp_path, monkeypatch):
    """The next call trains nothing anew, and the card counts the images of the network that it started from."""
    if sys.platform != "linux":
        pytest.skip("only a fork knows the recipes of its parent")
    recipe = dataclasses.replace(RECIPES["first"], measure=_measure_once_allowed(tmp_path / "allowed"))
    monkeypatch.setitem(RECIPES, "first", recipe)
    torch.manual_seed(0)
    pretrained.save("first", recipe.fresh(), recipe.describe() | {"images_seen": 1000})
    shipped = pretrained.card("first")["sha256"]
    day, fall = tmp_path / "day", tmp_path / "day" / "fall" / "first.checkpoint.safetensors"
    failed = tiny_day(20, only=["first"])["first"]
    assert failed["result"] == "failed: OSError: no memory left" and failed["loss"] > 0
    assert pretrained.card("first", day / "weights")["sha256"] == shipped
    assert pretrained.card("first", day / "results")["steps"] == 6
    before = fall.stat().st_mtime_ns
    (tmp_path / "allowed").touch()
    said = tiny_day(20, only=["first"])["first"]
    assert said["result"] == "meets its bar" and fall.stat().st_mtime_ns == before
    assert {key: said[key] for key in ("images", "seconds", "loss")} == {
        key: failed[key] for key in ("images", "seconds", "loss")
    }
    card = pretrained.card("first", day / "results")
    assert card["images_seen"] == 1000 + 24 and card["from"] == f"first {shipped[:16]}"
    assert pretrained.card("first", day / "weights") == card  # for those that come after it


def test_a_fall_that_has_begun_is_not_begun_anew(tiny_day, tmp_path):
    tiny_day(16, only=["second"])
    fall = tmp_path / "day" / "fall" / "second.checkpoint.safetensors"
    steps, before = read_checkpoint(fall)[-1]["steps"], (tmp_path / "day" / fall.name).read_bytes()
    (tmp_path / "day" / "second.state.json").unlink()  # as if it had never come to its measure
    assert "measure" in tiny_day(12, only=["second"])["second"]
    assert (tmp_path / "day" / fall.name).read_bytes() == before and read_checkpoint(fall)[-1]["steps"] == steps


def test_a_copy_that_breaks_off_leaves_no_short_file(tiny_day, tmp_path):
    resource = pytest.importorskip("resource")
    (pretrained.WEIGHTS / "large.safetensors").write_bytes(bytes(2_000_000))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="large.safetensors"):
            tiny_day(5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "day" / "weights").iterdir())


def test_data_that_are_answers_of_a_network_are_made_by_their_own_process():
    """Their own process starts after that network is done, and knows where the day's lies."""
    loads = {entry.name: entry.recipe().load_data for entry in queue.QUEUE}
    answers = {name for name, load in loads.items() if "pretrained" in getattr(load, "func", load).__code__.co_names}
    assert "brain_latent" in answers
    assert all(entry.own_data for entry in queue.QUEUE if entry.name in answers)


def test_minutes_and_slots_are_checked(capsys, tmp_path):
    for arguments in (["--gpu-day", "0"], ["--gpu-day", "nan"], ["--gpu-day", "1", "--slots", "0"]):
        assert train.main([*arguments, "--folder", str(tmp_path)]) == 1
        assert "--gpu-day wants minutes above 0 and --slots at least 1; got" in capsys.readouterr().err
    assert train.main(["--gpu-day", "1", "--only", "brain,brian", "--folder", str(tmp_path)]) == 1
    assert "the queue has no brian; course_lib/recipes/queue.py" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main(["--only", "brain", "--next"])
    assert "--only chooses entries of a GPU day" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_several_processes_make_the_same_data():
    one, two = (brain_cohort.cohort("train", 4, 32, lesion="mixed", processes=n) for n in (1, 2))
    assert all(np.array_equal(getattr(one, key), getattr(two, key)) for key in ("images", "healthy", "masks", "labels"))
    one, two = (rated_lesions.load("train", 3, processes=n) for n in (1, 2))
    assert np.array_equal(one.images, two.images) and np.array_equal(one.ratings, two.ratings)
    assert one.images.dtype == np.float32 and one.ratings.dtype == np.uint8
