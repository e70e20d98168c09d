"""Every notebook as it is stored: run from top to bottom, small, readable. (nbval runs them anew; alt texts and
headings: test_accessibility.py.)"""

import ast
import re
import warnings
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MEGABYTE = 1_000_000
LINES_GOAL, LINES_LIMIT = 15, 25
SET_UP_LIMIT = 20

pytestmark = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path):
    """The notebook, checked against the format's schema."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(path):
    """Its code cells that hold code."""
    return [cell for cell in read(path).cells if cell.cell_type == "code" and cell.source.strip()]


def headings(path):
    """(level, text) of every markdown heading, in order."""
    markdown = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    without_code = [re.sub(r"```.*?```", "", source, flags=re.DOTALL) for source in markdown]
    found = re.findall(r"^(#{1,6})\s+(.+)$", "\n".join(without_code), re.MULTILINE)
    return [(len(marks), text.strip()) for marks, text in found]


def outputs(path):
    """(cell, output) for every stored output."""
    return [(cell, output) for cell in code_cells(path) for output in cell.outputs]


def test_is_stored_as_one_run_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "restart the kernel, run all, save"


def test_stores_no_error_that_is_not_meant(path):
    for cell, output in outputs(path):
        expected = "raises-exception" in cell.metadata.get("tags", [])
        assert output.output_type != "error" or expected, f"{output.get('ename')} in:\n{cell.source}"


def test_stores_no_warning(path):
    texts = [output.text for _, output in outputs(path) if output.output_type == "stream" and output.name == "stderr"]
    assert [text for text in texts if "Warning" in text] == []


def test_is_small(path):
    assert path.stat().st_size < MEGABYTE


def test_cells_are_short(path):
    lengths = {cell.source: len(cell.source.strip().splitlines()) for cell in code_cells(path)}
    too_long = [source for source, length in lengths.items() if length > LINES_LIMIT]
    assert not too_long, f"over {LINES_LIMIT} lines:\n" + "\n---\n".join(too_long)
    for source, length in lengths.items():
        if length > LINES_GOAL:
            warnings.warn(f"{path.name}: a cell of {length} lines: {source.splitlines()[0]}", stacklevel=1)


def test_no_text_is_lost(path):
    """An f-string that is a statement of its own is a piece of text whose brackets were forgotten."""
    for cell in code_cells(path):
        if not cell.source.startswith("%"):
            statements = [node.value for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Expr)]
            assert [ast.unparse(value) for value in statements if isinstance(value, ast.JoinedStr)] == []


def test_no_page_is_lost(path):
    """What shows itself only as the last line of a cell, a page or a question, is its last line."""
    shown_as_last = {"table", "picture", "listing", "predict", "stepper"}
    for cell in code_cells(path):
        if not cell.source.startswith("%"):
            lines = ast.parse(cell.source).body
            nodes = [
                node for line in lines for node in ast.walk(line) if isinstance(node, ast.Expr) and node != lines[-1]
            ]
            calls = [node.value for node in nodes if isinstance(node.value, ast.Call)]
            lost = [call for call in calls if ast.unparse(call.func).split(".")[-1] in shown_as_last]
            lost += [node.value for node in nodes if isinstance(node.value, ast.Attribute | ast.Name)]
            assert [ast.unparse(value) for value in lost] == [], "display(...), or tables.show for tables.table"


def test_has_title_set_up_and_key_points(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.lstrip().startswith("# ")
    assert "course_lib" in code_cells(path)[0].source, "the first code cell is the set-up cell"
    assert any(re.search("key points", text, re.IGNORECASE) for _, text in headings(path))


def test_plumbing_is_folded_and_nothing_else(path):
    """The set-up cell, cells tagged `claims`, and cards that ask for a prediction, whose code holds the answer: folded
    in JupyterLab, a form with a title on Colab, and they run."""
    set_up, *others = code_cells(path)
    claims = [cell for cell in others if "claims" in cell.metadata.get("tags", [])]
    cards = [cell for cell in others if "course-predict" in str(cell.outputs)]
    plumbing = [cell for cell in code_cells(path) if cell in (set_up, *claims, *cards)]
    folded = [cell for cell in code_cells(path) if cell.metadata.get("jupyter", {}).get("source_hidden")]
    titled = [cell for cell in code_cells(path) if cell.source.startswith("# @title ")]
    ids = [cell.id for cell in plumbing]
    assert [cell.id for cell in folded] == ids, "run `python tools/slides.py`"
    assert [cell.id for cell in titled] == ids, "run `python tools/slides.py`"
    assert all(cell.metadata.get("cellView") == "form" for cell in folded)
    assert len(set_up.source.splitlines()) <= SET_UP_LIMIT


def test_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type != "markdown":
            continue
        for link in re.findall(r"\]\(([^)\s]+)\)", cell.source):
            if not re.match(r"https?:|#|attachment:|mailto:", link):
                assert (path.parent / link.split("#")[0]).exists(), link


def test_runs_on_whatever_kernel_is_called_python3(path):
    assert read(path).metadata.kernelspec.name == "python3"
