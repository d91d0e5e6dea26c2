"""Table -> CSV at full precision: one line per row; per column the measured and published values and the verdict."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from results.render.layout import is_text
from results.table import Cell, Row, Section, Table

#: suffixes of a numeric column's name
_PARTS = ("", "_std", "_low", "_high", "_reference", "_difference", "_p_adjusted", "_verdict")


def render(table: Table) -> str:
    """Columns: label, group, section, ranked, state, seeds (finished), planned, those of each column, keys.

    A column of numbers has its mean, the deviation over seeds, the 95 % interval, the published value, and against
    the baseline the difference, its p-value after Holm's correction and the verdict.  Numbers read back to the
    same float; what is missing is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    texts = [is_text(table, index) for index in range(len(table.columns))]
    names = [
        f"{column.name}{part}"
        for column, text_only in zip(table.columns, texts, strict=True)
        for part in ([""] if text_only else _PARTS)
    ]
    facts = ["group", "section", "ranked", "state", "seeds", "planned"]
    writer.writerow([table.row_header.lower(), *facts, *names, "keys"])
    for section in table.sections:
        writer.writerows(_row(row, section, texts) for row in section.rows)
    return text.getvalue()


def _row(row: Row, section: Section, texts: Sequence[bool]) -> list[str]:
    cells = [
        value
        for cell, text_only in zip(row.cells, texts, strict=True)
        for value in ([cell.text] if text_only else _values(cell))
    ]
    finished = sum(source.state == "finished" for source in row.sources)
    keys = " ".join(source.key for source in row.sources)
    facts = [row.group, section.label, str(section.ranked).lower(), row.state, str(finished), str(len(row.sources))]
    return [row.label, *facts, *cells, keys]


def _values(cell: Cell) -> list[str]:
    low, high = cell.interval or (None, None)
    found = cell.comparison
    numbers = [cell.mean, cell.std, low, high, cell.reference]
    numbers += [found.difference, found.p_adjusted] if found else [None, None]
    return [*map(_number, numbers), found.verdict if found else ""]


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))
