"""Records, the page of results, data sets and answers at the edge: nothing is mixed, or taken for another."""

import argparse
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from course_lib import pretrained, runtime, train
from course_lib.exercises import reading
from course_lib.experiments import image_to_image, record, report, study
from course_lib.recipes import RECIPES
from course_lib.recipes.gpu_day import _lay_out
from course_lib.viz import figures
from data_fetch import cache, download, packing, picture_files
from data_fetch.__main__ import main as data_fetch
from data_fetch.errors import DataError


@pytest.fixture
def records(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    return tmp_path


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "data"))
    return tmp_path


def test_a_record_goes_on_in_its_own_precision(records, monkeypatch):
    def begin():
        return {"precision": runtime.precision_name()}, {}

    monkeypatch.setattr(runtime, "precision_name", lambda: "bfloat16")
    record.resumed("03_targets", (), begin, lambda row: True)
    record.resumed("03_targets", (), begin, lambda row: True)
    monkeypatch.setattr(runtime, "precision_name", lambda: "float32")
    with pytest.raises(ValueError, match="begun in bfloat16, and networks run in float32 here"):
        record.resumed("03_targets", (), begin, lambda row: True)


def test_a_damaged_record_is_named(records):
    (records / "03_targets.json").write_text('{"rows": [')
    with pytest.raises(ValueError, match="03_targets.json is damaged"):
        record.load("03_targets")


@pytest.mark.parametrize("name", ["13_trends", "14_challenges", "11_tumour_trainings", "10_trainings", "13_seeds"])
def test_the_page_says_where_rows_are_of_other_weights(name, records):
    original = json.loads((record.Path(record.__file__).parent / "records" / f"{name}.json").read_text())
    for row in original["rows"]:
        if row.get("needs"):
            row["needs"] = dict.fromkeys(row["needs"], "0" * 64)
    stale = sum(bool(row.get("needs")) for row in original["rows"])
    for path in (record.Path(record.__file__).parent / "records").glob(f"{name}.tensors.*"):
        (records / path.name).write_bytes(path.read_bytes())
    (records / f"{name}.json").write_text(json.dumps(original))
    said = f"*{stale} of its rows were measured with other weights than those here; remake them.*"
    assert stale and said in report.section(name)


@pytest.mark.parametrize("name", ["07_volumes", "10_trainings", "11_tumour_trainings", "13_seeds"])
def test_a_training_of_another_seed_is_stale_once_what_ships_is_another(name, monkeypatch):
    made, rows = study.study_of(name), record.load(name)["rows"]
    assert {row["seed"] for row in rows} == {0, 1, 2} and all(map(made.is_fresh, rows))
    monkeypatch.setattr(pretrained, "sha256_of", lambda names: dict.fromkeys(names, "0" * 64))
    assert not any(map(made.is_fresh, rows))


def test_no_verdict_from_a_handful_of_groups():
    scores = {"a": np.arange(16.0), "b": np.zeros(16)}
    assert "excludes zero" in report.Contest(scores).against("a", "b")
    assert "of 4 groups: too few to say" in report.Contest(scores, group=[0] * 4 + [1] * 4 + [2] * 4 + [3] * 4).against(
        "a", "b"
    )
    assert "of 4 groups: too few to say" in report.Contest(scores, group=4).against("a", "b")


def test_a_grid_that_shrinks_leaves_no_test_row_behind(monkeypatch):
    """The best setting is no longer on offer: neither it nor its test row is taken."""
    grid = study.grid(k=(1, 2))
    method = image_to_image.Method(lambda: None, grid)
    task = argparse.Namespace(methods={"m": method}, goal="psnr", least={})
    monkeypatch.setattr(image_to_image, "TASKS", {"t": task})
    monkeypatch.setattr(image_to_image, "STUDY", argparse.Namespace(needs=lambda key: {}))
    key = {"task": "t", "method": "m"}
    rows = [key | {"setting": {"k": k}, "split": "validation", "psnr": [float(k)]} for k in (1, 2, 3)]
    kept = {"rows": [*rows, *(key | {"setting": {"k": k}, "split": "test"} for k in (2, 3))]}
    assert image_to_image.chosen(kept["rows"], "t", "m") == {"k": 2}
    assert list(image_to_image.plan(kept))[-1] == key | {"setting": {"k": 2}, "split": "test"}
    assert [row["setting"] for row in kept["rows"] if row["split"] == "test"] == [{"k": 2}]


def test_a_part_of_mednist_is_not_taken_for_the_whole(data, monkeypatch, capsys):
    labels = np.repeat(np.arange(6), 4).astype(np.int64)
    images = np.random.default_rng(0).integers(0, 255, (24, 64, 64), dtype=np.uint8)
    cache.save("mednist", {"images": images, "labels": labels}, public_checksum=True)
    packing.pack("mednist", data / "part.pack", 12)
    monkeypatch.setenv("COURSE_DATA", str(data / "other"))
    packing.unpack(data / "part.pack")
    assert cache.is_part("mednist") and not cache.manifest("mednist")["public_checksum"]
    data_fetch(["list"])
    assert "here, a part" in capsys.readouterr().out
    asked = []
    monkeypatch.setattr(download, "download", lambda *what: asked.append(what))
    monkeypatch.setattr(download, "_ingest", lambda *what, **how: None)
    download.get("mednist")
    assert asked, "the rest is fetched"


def test_what_is_no_packed_data_set_is_refused_in_a_sentence(data):
    def packed(about):
        found = io.BytesIO()
        np.savez(found, about=np.array(json.dumps(about)))
        return found.getvalue()

    array = io.BytesIO()
    np.save(array, np.zeros(3))
    for content in (array.getvalue(), packed([1]), packed({"name": "hippocampus", "arrays": 1})):
        (data / "odd").write_bytes(content)
        with pytest.raises(DataError, match="is no packed data set"):
            packing.unpack(data / "odd")


@pytest.mark.parametrize("path", ["", "."])
def test_a_pack_wants_the_name_of_a_file(path, data):
    cache.save("hippocampus", {"a": np.zeros(3)})
    with pytest.raises(DataError, match="no name of a file"):
        packing.pack("hippocampus", path)


def test_what_a_picture_hides_is_not_shown(tmp_path):
    found = []
    for hidden in (0, 255):
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[..., :3] = hidden
        pixels[20:40, 20:40] = (120, 120, 120, 255)
        Image.fromarray(pixels).save(tmp_path / "disc.png")
        found.append(picture_files._grey(Image.open(tmp_path / "disc.png")))
    assert np.array_equal(*found) and found[0][0, 0] == 0 and found[0][30, 30] == 120


@pytest.mark.parametrize("text", ["1e99999999", "1E-99999999", "3e+5000000"])
def test_a_number_of_a_million_digits_is_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(reading.Refusal):
        reading.number(text)
    assert time.perf_counter() - start < 1
    assert reading.number("2.5e-3") == 0.0025 and reading.number("1e300") == 1e300


def test_pictures_of_whole_numbers_say_what_they_want():
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for image in (ramp, np.stack([ramp] * 3, -1)):
        with pytest.raises(ValueError, match="to_tensor"):
            figures.image_grid([image])
    figures.image_grid([ramp], vmin=0, vmax=255)


def test_what_could_not_ship_is_not_trained(tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(train, "_train", lambda *what: trained.append(what))
    for change, said in (({"name": "my net"}, "letters, digits"), ({"measure": None}, "has no `measure`")):
        recipe = train.dataclasses.replace(RECIPES["mednist"], **change)
        monkeypatch.setattr(train, "_recipe", lambda *what, recipe=recipe: recipe)
        assert train.main(["mine.py", "--ship", "--folder", str(tmp_path)]) == 1 and not trained
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main(["--gpu-day", "1", "--ship"])


def test_a_day_in_an_old_folder_takes_what_ships_now(tmp_path):
    day = argparse.Namespace(folder=tmp_path)
    _lay_out(day)
    (tmp_path / "weights" / "brain_features.json").write_text("old")
    _lay_out(day)
    assert "sha256" in (tmp_path / "weights" / "brain_features.json").read_text()
