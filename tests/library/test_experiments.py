"""Records and the loop that fills them: resuming, staleness, networks that are not here, and who imports whom."""

import dataclasses
import json
import subprocess
import sys
from importlib import import_module

import pytest
import torch

from course_lib import experiments, pretrained
from course_lib.experiments import record
from course_lib.experiments.__main__ import NAMES, main
from course_lib.experiments.study import Study, run, timed

NETWORK = "lesion_unet_0"  # any that ships


@pytest.fixture
def records(tmp_path, monkeypatch):
    """An empty folder for records."""
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    return tmp_path


def study(asked, **changes):
    """Three rows, of which one uses a network and one another that is not here; the keys measured go to ``asked``."""

    def measure(n, way):
        asked.append((n, way))
        return {"value": [n]}, {f"{n}": torch.tensor([float(n)]).half()}

    keys = [{"n": 1, "way": "a"}, {"n": 2, "way": "net"}, {"n": 3, "way": "gone"}]
    uses = {"a": (), "net": (NETWORK,), "gone": ("no such network",)}
    declared = Study(
        "rows", lambda record: keys, measure, lambda: ({"cases": 2}, {}), networks=lambda key: uses[key["way"]]
    )
    return dataclasses.replace(declared, **changes)


def test_a_study_is_measured_once_and_leaves_out_what_it_has_no_network_for(records):
    asked = []
    run(study(asked))
    run(study(asked))
    assert asked == [(1, "a"), (2, "net")]
    found = experiments.load("rows")
    needs = {NETWORK: pretrained.card(NETWORK)["sha256"]}
    assert list(found) == ["made_by", "sha256", "cases", "rows"] and found["cases"] == 2
    assert found["made_by"] == "python -m course_lib.experiments rows" and found["sha256"] == {}
    assert found["rows"] == [
        {"n": 1, "way": "a", "value": [1], "needs": {}},
        {"n": 2, "way": "net", "value": [2], "needs": needs},
    ]
    assert {key: value.dtype for key, value in experiments.tensors("rows").items()} == dict.fromkeys(
        "12", torch.float32
    )
    assert sorted(file.name for file in records.iterdir()) == ["rows.json", "rows.tensors.safetensors"]


def test_rows_are_kept_as_they_are_unless_their_network_has_changed(records):
    asked = []
    run(study(asked))
    found = json.loads(record.path("rows").read_text())
    found["rows"][0]["kept"] = True
    found["rows"][1] |= {"needs": {NETWORK: "0" * 64}, "value": ["old"]}
    record.path("rows").write_text(json.dumps(found))
    run(study(asked))
    assert asked[2:] == [(2, "net")]
    rows = experiments.load("rows")["rows"]
    assert rows[0]["kept"] and [row["value"] for row in rows] == [[1], [2]]


def test_what_was_measured_is_there_after_an_interruption(records):
    def broken(n, way):
        if n == 2:
            raise KeyboardInterrupt
        return {}, {}

    with pytest.raises(KeyboardInterrupt):
        run(study([], measure=broken))
    assert [row["n"] for row in experiments.load("rows")["rows"]] == [1]


def test_a_second_process_is_told_and_no_row_is_lost(records):
    """Another process ends a row while this one measures its own."""

    def measure(n, way):
        run(study([], plan=lambda record: [{"n": 7, "way": "a"}]))
        return {}, {}

    with pytest.raises(ValueError, match=r"rows.json was changed while a row was measured: let one process at a time"):
        run(study([], measure=measure))
    assert [row["n"] for row in experiments.load("rows")["rows"]] == [7]
    run(study([]))
    assert sorted(row["n"] for row in experiments.load("rows")["rows"]) == [1, 2, 7]


def test_a_plan_may_depend_on_rows_measured_before(records):
    def plan(record):
        yield {"n": 1, "way": "a"}
        yield {"n": 10 * record["rows"][-1]["n"], "way": "a"}

    asked = []
    run(study(asked, plan=plan, networks=None))
    assert asked == [(1, "a"), (10, "a")]
    assert all("needs" not in row for row in experiments.load("rows")["rows"])


def test_a_record_of_other_weights_is_refused(records):
    run(study([], shared=(NETWORK,)))
    assert experiments.load("rows")["sha256"] == {NETWORK: pretrained.card(NETWORK)["sha256"]}
    found = json.loads(record.path("rows").read_text()) | {"sha256": {NETWORK: "0" * 64}}
    record.path("rows").write_text(json.dumps(found))
    for use in (lambda: experiments.load("rows"), lambda: run(study([]))):
        with pytest.raises(
            ValueError, match=r"rows.json was made with other weights: delete it and run `python -m course"
        ):
            use()
    with pytest.raises(ValueError, match="no record 'none': make it with `python -m course_lib.experiments none`"):
        experiments.load("none")


def test_rows_may_say_what_they_cost(records):
    @timed
    def measure(n, way):
        return {"value": n}, {}

    assert measure(n=1, way="a")[0] == {"value": 1, "cpu_seconds": 0.0}


def test_rounded_keeps_the_nesting():
    assert record.rounded(torch.tensor([[1.23456, 2.0], [3.0, 4.56789]]), 2) == [[1.23, 2.0], [3.0, 4.57]]
    assert record.rounded([torch.tensor(0.123456), (1, 2.71828)]) == [0.1235, [1.0, 2.7183]]
    assert record.rounded(torch.tensor(0.5)) == 0.5


@pytest.mark.parametrize(
    "table",
    [
        {"rows": []},
        {"about": None, "rows": [{"a": 1.5, "b": None}, {"a": [None, "null"]}], "last": "null"},
        {"settings": {"rows": None}, "title": 'a "rows": null in a text', "rows": [{"rows": None}]},
    ],
)
def test_rows_come_back_as_they_were(table):
    text = record.as_text(table)
    assert json.loads(text) == table
    assert len(text.splitlines()) >= len(table["rows"])  # a row a line


def test_every_stored_record_is_written_as_it_stands():
    """The form is part of the record: a file that is written again has the same bytes."""
    paths = sorted(record.RECORDS.glob("*.json"))
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert record.as_text(json.loads(text)) == text, path.name
        assert json.loads(text)["made_by"] == record.command(path.stem)
    assert len(paths) >= 10


def test_reading_a_record_imports_no_study():
    code = """
import sys
from importlib import import_module
from course_lib import experiments
experiments.load("14_challenges"), experiments.tensors("14_challenges")
print(*sorted(name for name in sys.modules if name.startswith("course_lib.experiments.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["course_lib.experiments.record"]


@pytest.mark.parametrize("name", NAMES)
def test_each_record_has_its_study(name):
    assert import_module(f"course_lib.experiments.{name[3:]}").STUDY.name == name
    assert record.path(name).exists()


def test_the_command_may_be_stopped(monkeypatch, capsys):
    def stop(study):
        raise KeyboardInterrupt

    monkeypatch.setattr("course_lib.experiments.__main__.run", stop)
    assert main(["13_labels"]) == 130
    assert "stopped; `python -m course_lib.experiments 13_labels` goes on" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(records, capsys):
    (records / "04_samplers.json").write_text(json.dumps({"sha256": {"mednist": "0" * 64}, "rows": []}))
    assert main(["04_samplers"]) == 1
    assert "course_lib.experiments: " in (said := capsys.readouterr().err) and "made with other weights" in said
