"""A table of results on the terminal."""

from __future__ import annotations

from rich.table import Table as Drawn
from rich.text import Text

from results.render.layout import row_titles
from results.table import ARROWS, Cell, Column, Table, rounded

_STYLES = {"best": "bold", "second": "underline"}


def result_table(table: Table) -> Drawn:
    """Rows and columns as in the report; the best of a column is bold, the second underlined, stars as there."""
    drawn = Drawn(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=table.name, title_justify="left")
    drawn.add_column(table.row_header, overflow="fold")
    for column in table.columns:
        group = f"{column.group}\n" if column.group else ""
        drawn.add_column(f"{group}{column.label} {ARROWS[column.direction]}".rstrip(), justify="right")
    titles = iter(row_titles(table))
    for index, section in enumerate(table.sections):
        if index:
            drawn.add_section()
        for row in section.rows:
            name = next(titles) + (f" ({row.state})" if row.is_empty and not row.is_published_only else "")
            cells = [_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)]
            drawn.add_row(Text(name), *cells)
    return drawn


def _cell(cell: Cell, column: Column) -> Text:
    if cell.text:
        return Text(cell.text)
    if cell.mean is None:
        return Text("–")
    text = rounded(cell.mean, column.precision).replace("inf", "∞").replace("-", "−")
    star = "*" * bool(cell.comparison and cell.comparison.is_significant)
    spread = "" if cell.std is None else f" ± {rounded(cell.std, column.precision)}"
    return Text.assemble((text, _STYLES.get(cell.rank or "", "")), star, (spread, "dim"))
