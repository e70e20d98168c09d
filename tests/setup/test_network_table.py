"""The page of networks is what their cards say, each with its licence."""

import network_table
import pytest

from course_lib import pretrained


def test_page_is_what_the_cards_say():
    stored = network_table.PAGE.read_text(encoding="utf-8")
    assert stored == network_table.page(), "run: python tools/network_table.py"


def test_each_network_stands_under_its_licence():
    text = network_table.PAGE.read_text(encoding="utf-8")
    for name in pretrained.names():
        before = text[: text.index(f"\n| `{name}` |")]
        assert before.split("\n## ")[-1].split("\n\n")[1] == pretrained.card(name)["licence"]
        assert text.count(f"\n| `{name}` |") == 1


def test_a_network_that_is_not_described_is_named(monkeypatch):
    monkeypatch.delitem(network_table.NETWORKS, "brain_t2")
    with pytest.raises(ValueError, match=r"not both: brain_t2$"):
        network_table.page()


def test_a_row_waits_for_its_network(monkeypatch):
    """One whose network does not ship yet is left out; one that has not even a recipe is named."""
    here = pretrained.names()
    monkeypatch.setattr(pretrained, "names", lambda: [name for name in here if name != "brain_vae"])
    assert "`brain_vae`" not in network_table.page() and "`brain_ae`" in network_table.page()
    monkeypatch.setitem(network_table.NETWORKS, "brain_nobody", ("nothing", "none"))
    with pytest.raises(ValueError, match=r"not both: brain_nobody$"):
        network_table.page()
