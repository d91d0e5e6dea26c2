"""A table as numbers: cells, spread over seeds, ranks and notes.  Renderers add the ink."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

Direction = Literal["up", "down"]
Rank = Literal["best", "second"]

#: how a direction is printed beside its metric's name
ARROWS: dict[Direction | None, str] = {"up": "↑", "down": "↓", None: ""}


@dataclass(frozen=True)
class Column:
    """What a column shows.  `direction` says which way is better; without one, it is not ranked."""

    name: str
    label: str
    group: str = ""
    direction: Direction | None = None
    precision: int = 2


@dataclass(frozen=True)
class Cell:
    """One value per finished seed, and the rank of their mean among the trained rows."""

    values: tuple[float, ...] = ()
    rank: Rank | None = None

    @property
    def n(self) -> int:
        """Number of seeds behind the mean."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None without a finished seed."""
        return sum(self.values) / self.n if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two, or where one is not finite."""
        if self.n < 2 or not all(map(math.isfinite, self.values)):
            return None
        return statistics.stdev(self.values)


@dataclass(frozen=True)
class Source:
    """A trial that stands behind a row."""

    key: str
    seed: int
    state: str
    run_id: str | None = None


@dataclass(frozen=True)
class Row:
    """One line: a cell per column (all empty where nothing has finished) and the trials it comes from."""

    label: str
    cells: tuple[Cell, ...]
    sources: tuple[Source, ...] = ()
    #: printed across the columns where the row has no numbers, "failed" for instance
    state: str = "finished"
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is no number to show."""
        return not any(cell.values for cell in self.cells)


@dataclass(frozen=True)
class Section:
    """Rows between two rules.  Only rows of ranked sections compete for best and second."""

    rows: tuple[Row, ...]
    ranked: bool = True


@dataclass(frozen=True)
class Table:
    """Columns, rows in sections, and what must be said below them."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    row_header: str = "Trial"
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, top to bottom."""
        return tuple(row for section in self.sections for row in section.rows)

    @property
    def column_groups(self) -> list[tuple[str, int]]:
        """`(group, width)` of neighbouring columns that share a header."""
        return [(group, len(list(columns))) for group, columns in groupby(self.columns, lambda c: c.group)]

    @cached_property
    def footnotes(self) -> dict[str, str]:
        """Marker of each note of a row, in order of appearance; equal notes share one."""
        notes = dict.fromkeys(note for row in self.rows for note in row.notes)
        return {note: _marker(index) for index, note in enumerate(notes)}

    @property
    def legend(self) -> list[str]:
        """Sentences that explain spread and marks, if there are any, and the table's own notes."""
        cells = [cell for row in self.rows for cell in row.cells]
        sentences = []
        if any(cell.rank for cell in cells):
            sentences.append("Best in bold, second best underlined, among trained rows.")
        if any(cell.std is not None for cell in cells):
            sentences.append("± is the sample standard deviation over seeds.")
        return [*sentences, *self.notes]

    def markers(self, row: Row) -> str:
        """Markers of a row's notes, as in "a,b"."""
        return ",".join(self.footnotes[note] for note in row.notes)


def rounded(value: float, precision: int) -> str:
    """Fixed-point text; "inf", "-inf" or "nan" for values that are not finite, never a negative zero."""
    text = f"{value:.{precision}f}"
    return text.lstrip("-") if not text.strip("-0.") else text


def ranked(table: Table) -> Table:
    """The table with best and second marked in every column that has a direction.

    Values are compared as printed, so cells that look alike are marked alike; after a tie for best there is
    no second.  Where all look alike, or only one has a value, nothing is marked.
    """
    marks = [_ranks(table, index) for index in range(len(table.columns))]
    sections = []
    for section in table.sections:
        rows = section.rows
        if section.ranked:
            rows = tuple(replace(row, cells=_marked(row.cells, table.columns, marks)) for row in rows)
        sections.append(replace(section, rows=rows))
    return replace(table, sections=tuple(sections))


def _ranks(table: Table, index: int) -> dict[str, Rank]:
    """Printed value -> rank, for one column."""
    column = table.columns[index]
    if column.direction is None:
        return {}
    means = [row.cells[index].mean for section in table.sections if section.ranked for row in section.rows]
    printed = [rounded(mean, column.precision) for mean in means if mean is not None and not math.isnan(mean)]
    order = sorted(set(printed), key=float, reverse=column.direction == "up")
    if len(order) < 2:
        return {}
    ranks: dict[str, Rank] = {order[0]: "best"}
    if printed.count(order[0]) == 1:
        ranks[order[1]] = "second"
    return ranks


def _marked(cells: Sequence[Cell], columns: Sequence[Column], marks: Sequence[dict[str, Rank]]) -> tuple[Cell, ...]:
    return tuple(
        cell if cell.mean is None else replace(cell, rank=ranks.get(rounded(cell.mean, column.precision)))
        for cell, column, ranks in zip(cells, columns, marks, strict=True)
    )


def _marker(index: int) -> str:
    """0 -> "a", 25 -> "z", 26 -> "aa"."""
    marker = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        marker = chr(ord("a") + digit) + marker
    return marker
