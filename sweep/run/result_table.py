"""Formats a table of results for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Drawn
from rich.text import Text

from results.render.layout import row_titles
from results.table import ARROWS, Cell, Column, Table, rounded
from sweep.terminal import table_width

#: columns of the terminal that a name takes before it is folded
_NAME_WIDTH = 14
_STYLES = {"best": "bold", "second": "underline"}


def result_table(table: Table, console: Console) -> Drawn:
    """A table as in the report: the best value of a column is bold, the second underlined, stars mark significance.

    On a narrow console, spreads over seeds are left out, then columns from the left, with a note.  A table without rows
    is its notes.
    """
    if not any(section.rows for section in table.sections):
        empty = Drawn(box=None, pad_edge=False, show_header=False, title=table.name, title_justify="left")
        empty.add_row(Text(" ".join(table.notes)))
        return empty
    for form in _forms(len(table.columns)):
        drawn = _drawn(table, *form)
        if _width(drawn, console) <= table_width(console):
            break
    return drawn


def _forms(columns: int) -> Iterator[tuple[bool, int, bool]]:
    """Forms of a table from wide to narrow: whether it has spreads, its first column, whether long names are folded."""
    for folded in (False, True):
        yield True, 0, folded
    for first in range(columns):
        for folded in (False, True):
            yield False, first, folded


def _width(drawn: Drawn, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=10_000), drawn).maximum


def _drawn(table: Table, has_spread: bool, first: int = 0, folded: bool = False) -> Drawn:
    """The table from its column number `first` on, with all names in a line each or long ones folded."""
    rows = [row for section in table.sections for row in section.rows]
    names = [
        title + (f" ({row.state})" if row.is_empty and not row.is_published_only else "")
        for title, row in zip(row_titles(table), rows, strict=True)
    ]
    caption = "columns left out: the terminal is too narrow" if first else None
    drawn = Drawn(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), title=table.name, title_justify="left", caption=caption
    )
    longest = max(map(cell_len, (*names, *table.row_header.split())))
    name_width = min(longest, _NAME_WIDTH) if folded else longest
    drawn.add_column(table.row_header, overflow="fold", min_width=name_width, max_width=name_width)
    for column in table.columns[first:]:
        group = f"{column.group.removesuffix(' views')}\n" if column.group else ""
        drawn.add_column(f"{group}{column.label} {ARROWS[column.direction]}".rstrip(), justify="right", no_wrap=True)
    left = iter(names)
    for index, section in enumerate(table.sections):
        if index:
            drawn.add_section()
        for row in section.rows:
            cells = [_cell(cell, column, has_spread) for cell, column in zip(row.cells, table.columns, strict=True)]
            drawn.add_row(Text(next(left)), *cells[first:])
    return drawn


def _cell(cell: Cell, column: Column, has_spread: bool) -> Text:
    if cell.text:
        return Text(cell.text)
    if cell.mean is None:
        return Text("–")
    text = rounded(cell.mean, column.precision).replace("inf", "∞").replace("-", "−")
    star = "*" * bool(cell.comparison and cell.comparison.is_significant)
    spread = "" if cell.std is None or not has_spread else f" ± {rounded(cell.std, column.precision)}"
    return Text.assemble((text, _STYLES.get(cell.rank or "", "")), star, (spread, "dim"))
