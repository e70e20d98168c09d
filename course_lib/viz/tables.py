"""Numbers as a table: one that a screen reader can walk through, and the same aligned as text for a terminal.

A table is data, a mapping of rows to mappings of columns to values. A value is a number, a text, a pair (value, error),
shown as 5.86 ± 0.66, or (mean, low, high) as `metrics.intervals.bootstrap` gives it, shown as 0.92 (0.89 to 0.94).

    tables.show(
        {method: {family: bootstrap(scores[method, family]) for family in families} for method in methods},
        caption="Average precision, 16 subjects (95 %)", better="higher", references={"chance level": prevalence},
    )

Colours are those of the page around it, dark or light; nothing is said by colour.
"""

import math
from collections.abc import Mapping

from course_lib.arguments import one_of
from course_lib.viz.html import Page, inline

__all__ = ["show", "table"]

ARROWS = {"higher": "↑", "lower": "↓"}
BEST, MISSING = "★", "–"
FLOOR = "floor: real against real"


def show(rows, **options):
    """Display the table at once, anywhere in a cell; arguments are those of :func:`table`."""
    from IPython.display import display

    display(table(rows, **options))


def table(rows, *, caption="", corner="", digits=2, units=None, better=None, floor=None, references=None):
    """{row: {column: value}} -> Page, which displays itself as the last line of a cell and prints as aligned text.

    A row is named by a text, or by a tuple of texts and numbers that takes as many columns; `corner` is the text above
    the names, or a tuple of them. Columns stand in the order in which the rows name them; a cell that a row lacks shows
    a dash. A text may hold `code` and $math$.

    digits : after the point, for all columns or {column: digits}. A format such as "+.2f" does as well; one that ends
        in "%" shows shares as per cent and says so above the column. Columns of whole numbers show these as they are.
    units : {column: unit}, shown above the column.
    better : "higher" or "lower", for all columns or {column: ...}: an arrow above the column, a star at its best value.
    floor : {column: value}, what real data score against real data; references : {name: {column: value}}, such as the
        chance level. They stand below a line and take no part in the contest.
    Raises ValueError for an empty table, a column that no row has, and a value that is none of the above.
    """
    references = ({FLOOR: floor} if floor else {}) | dict(references or {})
    if not (_is_table(rows) and any(rows.values())):
        raise ValueError(f"a table needs {{row: {{column: value}}}} with a row and a column at least, got {rows!r:.80}")
    if references and not _is_table(references):
        raise ValueError("floor must be {column: value} and references {name: {column: value}}")
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    for name, setting in {"digits": digits, "units": units, "better": better, **references}.items():
        if unknown := [key for key in (setting if isinstance(setting, Mapping) else ()) if key not in columns]:
            raise ValueError(f"{name}: {unknown} are not among the columns {columns}")
    stubs = [_names(name) for name in (corner, *rows)]
    if len({len(stub) for stub in stubs}) != 1:
        raise ValueError(f"corner and the names of rows must all be texts, or tuples of one length; got {stubs}")
    stub, lines = len(stubs[0]), [*rows.values(), *references.values()]
    settings = zip(columns, *(_each(setting, columns) for setting in (digits, units, better)), strict=True)
    texts = [_column(name, [_plain(line.get(name)) for line in lines], len(rows), *look) for name, *look in settings]
    stubs += [[name, *[""] * (stub - 1)] for name in references]
    grid = [[*names, *cells] for names, cells in zip(stubs, zip(*(cells for cells, _ in texts)), strict=True)]
    right = [False] * stub + [is_number for _, is_number in texts]
    shown = str(grid)
    key = [f"{sign} {word} is better" for word, sign in ARROWS.items() if sign in shown]
    key = "; ".join([*key, *[f"{BEST} best of its column"] * (BEST in shown)])
    return Page(_markup(caption, key, grid, right, stub, len(rows)), _text(caption, key, grid, right, len(rows)))


def _is_table(rows):
    return isinstance(rows, Mapping) and len(rows) > 0 and all(isinstance(row, Mapping) for row in rows.values())


def _names(name):
    return [str(part) for part in name] if isinstance(name, tuple) else [str(name)]


def _each(setting, columns):
    return [setting.get(column) if isinstance(setting, Mapping) else setting for column in columns]


def _plain(value):
    """A cell as None, a text or a list of one to three numbers, from Python, numpy or torch."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None or isinstance(value, (str, bool)):
        return ("no", "yes")[value] if isinstance(value, bool) else value
    numbers = value if isinstance(value, (tuple, list)) else [value]
    numbers = [number.item() if hasattr(number, "item") else number for number in numbers]
    if not 1 <= len(numbers) <= 3 or not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError(f"a cell is a number, a text, (value, error) or (mean, low, high); got {value!r}")
    return numbers


def _column(name, cells, contestants, digits, unit, better):
    """Texts of a column, its head first, and whether it holds numbers; the first `contestants` cells compete."""
    one_of(("", *ARROWS), better=better or "")
    numbers = [cell for cell in cells if isinstance(cell, list)]
    whole = all(isinstance(number, int) for cell in numbers for number in cell)
    form = digits if isinstance(digits, str) else "d" if whole else f".{2 if digits is None else digits}f"
    unit = "%" if unit is None and form.endswith("%") else unit
    texts = [_value(cell, form) if isinstance(cell, list) else MISSING if cell is None else cell for cell in cells]
    ranked = {row: cell[0] for row, cell in enumerate(cells[:contestants]) if isinstance(cell, list)}
    ranked = {row: value for row, value in ranked.items() if not math.isnan(value)}
    if better and len(ranked) > 1:
        best = _number((max if better == "higher" else min)(ranked.values()), form)
        for row in (row for row, value in ranked.items() if _number(value, form) == best):  # equal as shown: all best
            texts[row] = f"{BEST} {texts[row]}"
    head = f"{name}, {unit}" if unit else str(name)
    return [f"{head} {ARROWS[better]}" if better else head, *texts], bool(numbers)


def _value(numbers, form):
    first, *others = (_number(number, form) for number in numbers)
    if len(others) == 1:
        return f"{first} ± {others[0].lstrip('+')}"
    return f"{first} ({others[0]} to {others[1]})" if others else first


def _number(number, form):
    """A number in its format: without the sign of a negative zero, and shares in per cent without theirs."""
    text = format(100 * number, form[:-1] + "f") if form.endswith("%") else format(number, form)
    is_zero = text.startswith("-") and float(text.replace(",", "")) == 0
    return ("+" if "+" in form else "") + text[1:] if is_zero else text


def _markup(caption, key, grid, right, stub, rows):
    """Style where it is needed: Colab has no padding of its own, JupyterLab takes texts to the right."""

    def cell(line, column, text):
        side = "right" if right[column] else "left"
        if (line == 0 or column < stub) and text:
            head = 'scope="col" style="' if line == 0 else 'scope="row" style="font-weight:normal;'
            return f'<th {head}text-align:{side}">{inline(text)}</th>'
        if not right[column]:
            return f'<td style="text-align:left">{inline(text)}</td>'
        text = _unbroken(text)
        return f"<td><b>{text}</b></td>" if text.startswith(BEST) else f"<td>{text}</td>"

    def row(line):
        cells = "".join(cell(line, column, text) for column, text in enumerate(grid[line]))
        return f'<tr style="border-top:1px solid">{cells}</tr>' if line in (1, rows + 1) else f"<tr>{cells}</tr>"

    head, *lines = map(row, range(len(grid)))
    caption = inline(caption).replace(" %", "\N{NO-BREAK SPACE}%")
    said = "<br>".join(filter(None, [f"<b>{caption}</b>" * bool(caption), key]))
    above = "caption-side:top;min-width:20em;text-align:left;padding:5px"
    caption = f'<caption style="{above}">{said}</caption>' if said else ""
    foot = f"<tfoot>{''.join(lines[rows:])}</tfoot>" if lines[rows:] else ""
    look = "color:inherit;border-collapse:collapse;text-align:right;font-size:15px;font-variant-numeric:tabular-nums"
    return (
        f'<div class="course-table" style="overflow-x:auto"><table cellpadding="5" style="{look}">'
        f"{caption}<thead>{head}</thead><tbody>{''.join(lines[:rows])}</tbody>{foot}</table></div>"
    )


def _unbroken(text):
    """A number as HTML that stays on its line; where room is short its interval goes below it."""
    return inline(text).replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}(", " (")


def _text(caption, key, grid, right, rows):
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    head, *lines = (
        "   ".join(
            text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in grid
    )
    rule = "-" * max(map(len, [head, *lines]))
    foot = [rule, *lines[rows:]] if lines[rows:] else []
    return "\n".join(filter(None, [caption, head, rule, *lines[:rows], *foot, key]))
