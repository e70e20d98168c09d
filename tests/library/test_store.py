"""Tables of measurements as files: what is written comes back, whatever it holds."""

import json

import pytest

from course_lib.files import write_rows


@pytest.mark.parametrize(
    "record",
    [
        {"rows": []},
        {"about": None, "rows": [{"a": 1.5, "b": None}, {"a": [None, "null"]}], "last": "null"},
        {"settings": {"rows": None}, "title": 'a "rows": null in a text', "rows": [{"rows": None}]},
    ],
)
def test_rows_come_back_as_they_were(tmp_path, record):
    write_rows(tmp_path / "record.json", record)
    text = (tmp_path / "record.json").read_text()
    assert json.loads(text) == record
    assert len(text.splitlines()) >= len(record["rows"])  # a row a line


def test_every_stored_record_is_written_as_it_stands(tmp_path):
    """The form is part of the record: a file that is written again has the same bytes."""
    from course_lib import experiments

    paths = sorted(experiments.record.RECORDS.glob("*.json"))
    for path in paths:
        write_rows(tmp_path / path.name, json.loads(path.read_text(encoding="utf-8")))
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(paths) >= 10
