"""Tables: headers for screen readers, aligned text for terminals, and numbers as they are meant."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from course_lib.viz import tables
from course_lib.viz.html import Page

ROWS = {
    "TV": {"PSNR": (23.98, 23.57, 24.39), "SSIM": 0.752, "NFE": 0},
    "DiffPIR": {"PSNR": (29.68, 29.1, 30.17), "SSIM": 0.923, "NFE": 60, "mean of 4": 30.76},
}


class Cells(HTMLParser):
    """Rows of (tag, scope, text), and the caption."""

    def __init__(self, markup):
        super().__init__()
        self.rows, self.caption, self.inside = [], "", None
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append([tag, dict(attrs).get("scope"), ""])
        self.inside = tag if tag in ("th", "td", "caption") else self.inside

    def handle_endtag(self, tag):
        self.inside = None if tag in ("th", "td", "caption") else self.inside

    def handle_data(self, data):
        if self.inside == "caption":
            self.caption += data
        elif self.inside:
            self.rows[-1][-1][2] += data.replace("\N{NO-BREAK SPACE}", " ")


def cells(rows, **options):
    """The texts of a table, its head first."""
    return [[text for *_, text in row] for row in Cells(tables.table(rows, **options).markup).rows]


def value(number, digits=2):
    return cells({"a": {"b": number}}, digits=digits)[1][1]


def test_every_header_says_what_it_heads():
    page = tables.table(ROWS, caption="32 subjects", corner="method", floor={"PSNR": 40.0})
    read = Cells(page.markup)
    assert isinstance(page, Page) and read.caption == "32 subjects"
    assert [row[0][:2] for row in read.rows] == [["th", "col"], *[["th", "row"]] * 3]
    assert all(cell[:2] == ["th", "col"] for cell in read.rows[0])
    assert all(cell[:2] == ["td", None] for row in read.rows[1:] for cell in row[1:])
    assert page.markup.index("<tfoot>") < page.markup.index(tables.FLOOR)
    assert re.findall("color:[^;]+", page.markup) == ["color:inherit"], "the page around it knows whether it is dark"


def test_an_empty_corner_is_no_header():
    assert Cells(tables.table(ROWS).markup).rows[0][0] == ["td", None, ""]


def test_a_cell_that_a_row_lacks_shows_a_dash_and_columns_stand_in_the_order_of_their_naming():
    head, tv, diffpir = cells(ROWS)
    assert head == ["", "PSNR", "SSIM", "NFE", "mean of 4"]
    assert tv == ["TV", "23.98 (23.57 to 24.39)", "0.75", "0", "–"]
    assert diffpir[-1] == "30.76"


@pytest.mark.parametrize(
    ("number", "digits", "shown"),
    [
        (1.005e3, 1, "1005.0"),
        (3, 2, "3"),
        (np.int64(7), 2, "7"),
        (torch.tensor(0.5), 2, "0.50"),
        (torch.tensor([0.5, 0.25]), 2, "0.50 ± 0.25"),
        ((torch.tensor(0.5), np.float32(0.25), 1), 1, "0.5 (0.2 to 1.0)"),
        ((0.5, -0.001, 0.6), "+.2f", "+0.50 (+0.00 to +0.60)"),
        ((0.5, 0.25), "+.2f", "+0.50 ± 0.25"),
        (-0.001, 2, "0.00"),
        (-0.0, "+.1f", "+0.0"),
        (-0.01, 2, "-0.01"),
        (7205636, ",", "7,205,636"),
        (2.7e-10, ".1e", "2.7e-10"),
        (0.976, ".0%", "98"),
        (float("nan"), 2, "nan"),
        (True, 2, "yes"),
        ("none", 2, "none"),
        (None, 2, "–"),
    ],
)
def test_a_value_is_shown_as_meant(number, digits, shown):
    assert value(number, digits) == shown


def test_units_and_per_cent_stand_above_the_column():
    rows = {"a": {"PSNR": 30.0, "covered": (0.9, 0.85, 0.95)}}
    assert cells(rows, units={"PSNR": "dB"}, digits={"covered": ".0%", "PSNR": 1}) == [
        ["", "PSNR, dB", "covered, %"],
        ["a", "30.0", "90 (85 to 95)"],
    ]


def test_the_best_of_a_column_has_a_star_and_so_has_its_equal():
    rows = {"a": {"FD": 2.004, "x": 1}, "b": {"FD": 2.001, "x": 3}, "c": {"FD": float("nan")}, "d": {"FD": 9.0}}
    page = tables.table(rows, better={"FD": "lower", "x": "higher"}, floor={"FD": 0.5})
    head, *body = ([text for *_, text in row] for row in Cells(page.markup).rows)
    assert head == ["", "FD ↓", "x ↑"]
    assert [row[1:] for row in body] == [["★ 2.00", "1"], ["★ 2.00", "★ 3"], ["nan", "–"], ["9.00", "–"], ["0.50", "–"]]
    assert page.text.endswith("↑ higher is better; ↓ lower is better; ★ best of its column")
    assert page.markup.count("<b>") == 3
    assert "is better" not in tables.table(rows).text


def test_a_row_may_have_a_name_of_several_parts():
    head, first, last = cells(
        {("plain", 1.25): {"FD": 3}}, corner=("guidance", "w"), references={"chance level": {"FD": 9}}
    )
    assert (head, first, last) == (["guidance", "w", "FD"], ["plain", "1.25", "3"], ["chance level", "", "9"])


def test_markup_is_escaped_and_marks_code():
    page = tables.table({"a < b & c": {"<b>": "run `x < y`"}}, caption="p < 0.05")
    assert "a &lt; b &amp; c" in page.markup and "&lt;b&gt;" in page.markup and "p &lt; 0.05" in page.markup
    assert "<code>x &lt; y</code>" in page.markup and "<b>run" not in page.markup
    assert "a < b & c" in page.text


def test_a_number_stays_on_its_line_and_an_interval_may_go_below_it():
    page = tables.table({"a": {"FD": (2.0, 0.5), "Dice": (0.9, 0.8, 1.0)}}, caption="32 subjects (95 %)")
    assert "<td>2.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.50</td>" in page.markup
    assert "<td>0.90 (0.80\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}1.00)</td>" in page.markup
    assert "(95\N{NO-BREAK SPACE}%)" in page.markup


def test_text_is_aligned():
    lines = str(tables.table(ROWS, caption="32 subjects", corner="method", floor={"SSIM": 1.0})).splitlines()
    assert lines == [
        "32 subjects",
        "method                                       PSNR   SSIM   NFE   mean of 4",
        "--------------------------------------------------------------------------",
        "TV                         23.98 (23.57 to 24.39)   0.75     0           –",
        "DiffPIR                    29.68 (29.10 to 30.17)   0.92    60       30.76",
        "--------------------------------------------------------------------------",
        "floor: real against real                        –   1.00     –           –",
    ]


@pytest.mark.parametrize(
    ("rows", "options", "complaint"),
    [
        ({}, {}, "at least"),
        ({"a": {}}, {}, "at least"),
        ([{"a": 1}], {}, "at least"),
        ({"a": 1}, {}, "at least"),
        (ROWS, {"floor": 3}, r"floor must be \{column: value\}"),
        (ROWS, {"floor": {"psnr": 3}}, r"real: \['psnr'\] are not among the columns \['PSNR'"),
        (ROWS, {"digits": {"psnr": 3}}, "digits: .* not among"),
        (ROWS, {"better": "up"}, "better must be one of '', 'higher', 'lower', got 'up'"),
        (ROWS, {"corner": ("a", "b")}, "one length"),
        ({"a": {"b": [1, 2, 3, 4]}}, {}, r"a cell is a number.*got \[1, 2, 3, 4\]"),
        ({"a": {"b": {"c": 1}}}, {}, "a cell is a number"),
    ],
)
def test_what_is_no_table_is_refused(rows, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        tables.table(rows, **options)


def test_show_displays_at_once(capsys):
    assert tables.show(ROWS) is None
    assert re.search(r"DiffPIR +29\.68 \(29\.10 to 30\.17\)", capsys.readouterr().out)
