"""The line of a cell that takes its time: what it says, and that nothing of it stays."""

import live
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_lib.viz import progress


@pytest.fixture
def lines(monkeypatch):
    """What is shown and cleared ("" for that), with a clock that a loop's body sets."""
    shown = []
    monkeypatch.setattr(progress, "_show", shown.append)
    monkeypatch.setattr(progress, "_clear", lambda: shown.append(""))
    return shown


class Clock:
    """`time` with hands that a test moves."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_each_counts_and_foretells_by_what_was_seen(lines, clock):
    seen = []
    for name in progress.each(["a", "b", "c"], "Training"):
        seen.append(name)
        clock.now += 4
    assert seen == ["a", "b", "c"]
    assert lines == [
        "Training: item 1 of 3",
        "Training: item 2 of 3, 4 s, about 8 s left",  # two more of four seconds each
        "Training: item 3 of 3, 8 s, about 4 s left",
        "",
    ]


def test_each_takes_what_has_no_length_and_long_times(lines, clock):
    for _ in progress.each(iter("ab"), "Looking"):
        clock.now += 150
    assert lines == ["Looking: item 1, 0 s", "Looking: item 2, 2 min", ""]


def test_during_says_how_long_it_took_on_two_cores(lines):
    with progress.during("Filling the holes", 58):
        assert lines == ["Filling the holes: about 58 s on two cores"]
    assert lines[-1] == ""


def test_what_stops_early_leaves_its_line(lines):
    for _ in progress.each("abc", "Looking"):
        break
    with pytest.raises(ZeroDivisionError), progress.during("Dividing", 1):
        _ = 1 / 0
    assert lines == ["Looking: item 1 of 3", "Dividing: about 1 s on two cores"]


def test_outside_a_notebook_it_is_silent(capfd):
    assert list(progress.each("ab", "Looking")) == ["a", "b"]
    with progress.during("Looking", 1):
        pass
    assert capfd.readouterr() == ("", "")


LOOP = """
from course_lib.viz import progress
for k in progress.each(range(3), "Looking"):
    pass
with progress.during("Looking", 1):
    pass
"""


def test_a_stored_notebook_keeps_nothing_of_it():
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = new_notebook(cells=[new_code_cell(LOOP), new_code_cell(LOOP + "print('three')")])
    nbclient.NotebookClient(notebook, timeout=300, startup_timeout=300, kernel_name="python3").execute()
    silent, speaks = notebook.cells
    assert silent.outputs == [], "a cell without outputs stays off the slides"
    assert [output.text for output in speaks.outputs] == ["three\n"]
    nbformat.validate(notebook)


def test_live_mode_shows_nothing_of_it():
    class Client:
        """A kernel that shows a line, clears it and prints."""

        def execute_interactive(self, source, output_hook, **kwargs):
            for kind, content in (
                ("stream", {"name": "stdout", "text": "Looking: item 1 of 3\n"}),
                ("clear_output", {"wait": False}),
                ("stream", {"name": "stdout", "text": "three\n"}),
            ):
                output_hook({"msg_type": kind, "header": {"msg_type": kind}, "content": content})
            return {"content": {"status": "ok"}}

    assert [output.text for output in live._run(Client(), "...")] == ["three\n"]
