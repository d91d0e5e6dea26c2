"""Table -> CSV at full precision: one line per row, a mean and a deviation per column."""

from __future__ import annotations

import csv
import io

from results.table import Row, Table


def render(table: Table) -> str:
    """Columns: label, ranked, state, seeds (finished), planned, `<column>` and `<column>_std` of each, keys.

    Numbers read back to the same float; a cell without a value is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for column in table.columns for name in (column.name, f"{column.name}_std")]
    writer.writerow([table.row_header.lower(), "ranked", "state", "seeds", "planned", *names, "keys"])
    for section in table.sections:
        writer.writerows(_row(row, section.ranked) for row in section.rows)
    return text.getvalue()


def _row(row: Row, ranked: bool) -> list[str]:
    numbers = [_number(value) for cell in row.cells for value in (cell.mean, cell.std)]
    finished = sum(source.state == "finished" for source in row.sources)
    keys = " ".join(source.key for source in row.sources)
    return [
        row.label,
        str(ranked).lower(),
        row.state,
        str(finished),
        str(len(row.sources)),
        *numbers,
        keys,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)
