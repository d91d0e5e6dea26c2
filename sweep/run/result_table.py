"""Formats a table of results for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Drawn
from rich.text import Text

from results.render.layout import row_titles
from results.table import ARROWS, Cell, Column, Table, rounded

_STYLES = {"best": "bold", "second": "underline"}


def result_table(table: Table, console: Console) -> Drawn:
    """A table as in the report: the best value of a column is bold, the second underlined, stars mark significance.

    Spreads over seeds are left out where the terminal is too narrow.
    """
    whole = _drawn(table, has_spread=True)
    if not console.is_terminal or _width(whole, console) <= console.width:
        return whole
    return _drawn(table, has_spread=False)


def _width(drawn: Drawn, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=10_000), drawn).maximum


def _drawn(table: Table, has_spread: bool) -> Drawn:
    drawn = Drawn(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=table.name, title_justify="left")
    drawn.add_column(table.row_header, overflow="fold")
    for column in table.columns:
        group = f"{column.group.removesuffix(' views')}\n" if column.group else ""
        drawn.add_column(f"{group}{column.label} {ARROWS[column.direction]}".rstrip(), justify="right", no_wrap=True)
    titles = iter(row_titles(table))
    for index, section in enumerate(table.sections):
        if index:
            drawn.add_section()
        for row in section.rows:
            name = next(titles) + (f" ({row.state})" if row.is_empty and not row.is_published_only else "")
            cells = [_cell(cell, column, has_spread) for cell, column in zip(row.cells, table.columns, strict=True)]
            drawn.add_row(Text(name), *cells)
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
