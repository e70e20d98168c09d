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
