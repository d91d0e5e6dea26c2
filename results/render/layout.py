"""Table layout shared by all formats: blocks of rows, differences, and the sentences below."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from results.table import ALPHA, Cell, Column, Comparison, Row, Table, rounded


@dataclass(frozen=True)
class ComparedRow:
    """A row that is compared with the baseline, in at least one column."""

    #: its name, which no other row of the table has
    title: str
    row: Row
    found: tuple[tuple[Column, Comparison], ...]


def blocks(rows: Sequence[Row]) -> list[tuple[Row, ...]]:
    """Groups neighbouring rows with the same group label; rows without one form their own block."""
    numbered = enumerate(rows)
    return [
        tuple(row for _, row in block)
        for _, block in groupby(numbered, key=lambda item: item[1].group or f"\0{item[0]}")
    ]


def signed_difference(cell: Cell, column: Column) -> str:
    """Ours minus the published value, of the numbers as they are printed; "" where either is missing."""
    if cell.mean is None or cell.reference is None:
        return ""
    ours, published = (float(rounded(value, column.precision)) for value in (cell.mean, cell.reference))
    return signed(ours - published, column.precision)


def signed(value: float, precision: int) -> str:
    """A difference with its sign; zero has none."""
    text = rounded(value, precision)
    return text if text.startswith(("-", "nan")) or not text.strip("0.") else f"+{text}"


def probability(p: float) -> str:
    """A p-value with three decimals; "< 0.001", or "< 0.050" for one below the level that would be rounded up to it."""
    text = rounded(max(p, 0.001), 3)
    return f"< {text}" if p < 0.001 or p < ALPHA <= float(text) else text


def effect_size(found: Comparison) -> str:
    """Cohen's d with two decimals; a dash where it is undefined, as with one object."""
    return rounded(found.effect_size, 2) if not math.isnan(found.effect_size) else "–"


def compared_rows(table: Table) -> list[ComparedRow]:
    """The rows that are compared with the baseline, with their comparisons."""

    def found(row: Row) -> tuple[tuple[Column, Comparison], ...]:
        cells = zip(table.columns, row.cells, strict=True)
        return tuple((column, cell.comparison) for column, cell in cells if cell.comparison)

    rows = zip(row_titles(table), table.rows, strict=True)
    return [ComparedRow(title, row, found(row)) for title, row in rows if found(row)]


def row_titles(table: Table) -> list[str]:
    """Unique title of each row for use outside of its table, e.g. "Input: MiDaS_small"."""
    titles = [row.name or (f"{row.group}: {row.label}" if row.group else row.label) for row in table.rows]
    repeated = {title for title, count in Counter(titles).items() if count > 1}
    seen: Counter[str] = Counter()
    for index, title in enumerate(titles):
        if title in repeated:
            seen[title] += 1
            titles[index] = f"{title} ({seen[title]})"
    return titles


def column_title(column: Column) -> str:
    """Title of a column for use outside of its table, e.g. "Novel views: PSNR"."""
    return f"{column.group}: {column.label}" if column.group else column.label


def below(table: Table) -> list[str]:
    """The sentences below a table: the meaning of marks, the source of published values, and remarks on them."""
    source = f": {table.citation}," if table.citation else ""
    published = [f"Published values{source} with the difference, ours minus published."] if table.has_references else []
    return [*table.legend, *published, *table.remarks]


def is_text(table: Table, index: int) -> bool:
    """Whether a column shows settings of the rows instead of measurements."""
    return any(row.cells[index].text for row in table.rows)


def leading_text(table: Table) -> int:
    """Number of text columns before the first number: a row without numbers shows these, then its state."""
    kinds = [is_text(table, index) for index in range(len(table.columns))]
    return kinds.index(False) if False in kinds else len(kinds)
