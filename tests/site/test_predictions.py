"""The code of a card that asks for a prediction holds its answer: nobody sees it, in JupyterLab, on Colab, on the site
or in the deck, before clicking for it. (In a browser: test_pages.py, test_jupyterlab.py, test_live.py.)"""

import ast
import importlib.util
import json
import re
from pathlib import Path

import live
import nbformat
import pytest
import slides
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
of_every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def cards(notebook):
    """Its cells with a card, by what they showed and not by their code: the rule goes by the code."""
    found = [cell for cell in notebook.cells if "course-predict" in str(cell.get("outputs"))]
    assert found, "a lesson asks for at least one prediction"
    return found


def in_sight(found, hidden):
    """The first lines of those cells that are not hidden."""
    return [cell.source[:60] for cell in found if not hidden(cell)]


def folded(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def asked(source):
    """Question and options of the card in a cell's code, with single spaces; options that a call makes are left out."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (card,) = [call for call in calls if ast.unparse(call.func) == "widgets.predict"]
    question, options = card.args[:2]
    texts = [question, *getattr(options, "keys", getattr(options, "elts", []))]
    return [" ".join(ast.literal_eval(text).split()) for text in texts]


@of_every_notebook
def test_the_stored_card_is_that_of_the_code(path):
    """Whoever changes a question runs its cell: deck and site show what is stored."""
    for cell in cards(read(path)):
        (shown,) = [output["data"]["text/plain"] for output in cell.outputs if "data" in output]
        assert [text for text in asked(cell.source) if text not in " ".join(shown.split())] == [], cell.id


@of_every_notebook
def test_jupyterlab_folds_them(path):
    assert in_sight(cards(read(path)), folded) == [], "run `python tools/slides.py`"


@of_every_notebook
def test_colab_shows_a_form_with_a_title(path):
    def form(cell):
        return cell.metadata.get("cellView") == "form" and cell.source.startswith("# @title Predict, then run")

    assert in_sight(cards(read(path)), form) == [], "run `python tools/slides.py`"


@of_every_notebook
def test_the_site_folds_them(path, site_settings):
    source = [path.read_text(encoding="utf-8")]
    site_settings.fold_code(None, f"notebooks/{path.stem}", source)
    notebook = nbformat.from_dict(json.loads(source[0]))
    hidden = in_sight(cards(notebook), lambda cell: "hide-input" in cell.metadata.get("tags", []))
    assert hidden == [], "run `python tools/slides.py`"


@of_every_notebook
def test_the_deck_hides_them(path):
    """With live mode, which folds the code of what shows something, and in JupyterLab's own deck of the stored file."""
    notebook = read(path)
    assert in_sight(cards(notebook), lambda cell: folded(cell) and not slides.shows_code(cell)) == []
    live.fit_the_wall(notebook)
    assert in_sight(cards(notebook), folded) == []
    assert ".jp-CodeCell:has(.course-predict) .jp-Cell-inputWrapper" in live.CSS  # and the line of its title


@of_every_notebook
def test_the_rule_finds_them(path):
    notebook = read(path)
    assert [cell.id for cell in notebook.cells if slides.is_prediction(cell)] == [c.id for c in cards(notebook)]


@of_every_notebook
def test_no_right_answer_goes_by_which_data_are_here(path):
    """The guide and the decks print one answer, and the room may have it without the optional data sets."""
    asking = [cell.id for cell in cards(read(path)) if re.search(r"\bis_(available|here)\b", cell.source)]
    assert asking == [], "ask what holds on the course's made data, too"


@pytest.fixture(scope="module")
def site_settings():
    spec = importlib.util.spec_from_file_location("site_settings", ROOT / "docs" / "site" / "conf.py")
    settings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(settings)
    return settings


def test_folding_twice_changes_nothing_and_nothing_else_is_changed():
    output = nbformat.v4.new_output("display_data", {"text/html": "card"})
    card = new_code_cell(
        'widgets.predict("?", ["a", "b"], "a", "Because.")',
        outputs=[output],
        execution_count=7,
        metadata={"tags": ["kept"], "jupyter": {"outputs_hidden": False}},
    )
    titled = new_code_cell('# @title Predict, then run (defines x)\nx = "a"\nwidgets.predict("?", ["a", "b"], x, "")')
    others = [new_markdown_cell("`widgets.predict(...)`"), new_code_cell("y = model.predict(x)")]
    notebook = slides.fold_predictions(new_notebook(cells=[card, titled, *others]))
    once = nbformat.writes(notebook)
    assert nbformat.writes(slides.fold_predictions(notebook)) == once
    nbformat.validate(notebook)
    assert card.source == '# @title Predict, then run\nwidgets.predict("?", ["a", "b"], "a", "Because.")'
    assert titled.source.count("@title") == 1
    assert (card.execution_count, card.outputs) == (7, [output])
    hidden = {"jupyter": {"outputs_hidden": False, "source_hidden": True}, "cellView": "form", "tags": ["kept"]}
    assert card.metadata == hidden
    assert [cell.metadata for cell in others] == [{}, {}]


def test_the_command_folds_a_file(tmp_path):
    path = tmp_path / "lesson.ipynb"
    cells = [new_markdown_cell("# Title"), new_code_cell("widgets.predict()")]
    nbformat.write(new_notebook(cells=cells), path)
    slides.main([str(path)])
    assert folded(read(path).cells[1])
