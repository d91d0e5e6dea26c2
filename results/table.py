"""Tables as numbers: cells, spread over seeds, comparisons, ranks and notes.  Renderers format them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Literal

from results.metrics import Direction

Rank = Literal["best", "second"]
#: Conclusion of a comparison with the baseline.  "underpowered": a relevant difference cannot be excluded; "one
#: seed": the difference cannot be distinguished from the spread over trainings.
Verdict = Literal["better", "worse", "no difference shown", "underpowered", "one seed"]

#: symbol of a direction, printed beside its metric's name
ARROWS: dict[Direction | None, str] = {"up": "↑", "down": "↓", None: ""}


@dataclass(frozen=True)
class Column:
    """Description of a table column.  `direction` says which way is better; a column without one is not ranked.

    `category`: that of the objects that it averages over; None: all objects.
    """

    name: str
    label: str
    group: str = ""
    direction: Direction | None = None
    precision: int = 2
    category: str | None = None


@dataclass(frozen=True)
class Source:
    """A trial that a row is computed from."""

    key: str
    seed: int
    state: str
    run_id: str | None = None


#: level of the tests: a comparison is significant where its corrected p-value is below
ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """A row against the table's baseline, in one column, over the objects and seeds that both have."""

    #: label of the row that it is compared with
    baseline: str
    #: mean of (this row - baseline), with its 95 % interval
    difference: float
    low: float
    high: float
    #: two-sided, of the one test and after Holm's correction over its family (`Table.families`)
    p: float
    p_adjusted: float
    #: mean of the objects' differences in units of their standard deviation (Cohen's d_z)
    effect_size: float
    #: in words, with the numbers of objects and seeds
    test: str
    verdict: Verdict
    #: the smallest true difference that would have been found in four of five repetitions; None where unknown
    minimal_detectable: float | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the difference survives the correction; it then gets a star."""
        return self.verdict in ("better", "worse")


@dataclass(frozen=True)
class Cell:
    """One value per finished seed, the interval and comparison of their mean, and its rank."""

    values: tuple[float, ...] = ()
    #: among the rows of ranked sections
    rank: Rank | None = None
    #: 95 % interval of the mean, over objects and seeds; with one seed, over objects alone
    interval: tuple[float, float] | None = None
    #: the published value; `Table.citation` names its source
    reference: float | None = None
    comparison: Comparison | None = None
    #: printed instead of a number, in columns of settings
    text: str = ""
    #: the trials behind this cell, where a row holds several configurations; None for those of the row
    sources: tuple[Source, ...] | None = None
    #: the trials' keys, in the order of `values`; empty where these are not of one trial each
    keys: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """Number of seeds behind the mean."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None without a finished seed."""
        return sum(self.values) / self.n if self.values else None

    @cached_property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; None for fewer than two, or where one is not finite."""
        if self.n < 2 or not all(map(math.isfinite, self.values)):
            return None
        return statistics.stdev(self.values)


@dataclass(frozen=True)
class Row:
    """One line: a cell per column (all empty where nothing has finished) and the trials it comes from."""

    label: str
    cells: tuple[Cell, ...]
    sources: tuple[Source, ...] = ()
    #: printed across the columns where the row has no numbers, "failed" for instance
    state: str = "finished"
    notes: tuple[str, ...] = ()
    #: neighbouring rows of one group share a label that spans them
    group: str = ""
    #: its name outside of the table, if the label alone is not unique, such as the value of one axis
    name: str = ""

    def sources_of(self, column: int) -> tuple[Source, ...]:
        """The trials behind one of its cells."""
        own = self.cells[column].sources
        return self.sources if own is None else own

    @property
    def is_empty(self) -> bool:
        """Whether the row has no measured number; it may have published ones."""
        return not any(cell.values for cell in self.cells)

    @property
    def is_published_only(self) -> bool:
        """Whether the row is a published result that no trial of the sweep reproduces."""
        return not self.sources and any(cell.reference is not None for cell in self.cells)


@dataclass(frozen=True)
class Section:
    """Rows between two rules.  Only rows of ranked sections compete for best and second."""

    rows: tuple[Row, ...]
    ranked: bool = True
    label: str = ""


@dataclass(frozen=True)
class Table:
    """Columns, rows in sections, and notes below them."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    sections: tuple[Section, ...]
    row_header: str = "Trial"
    notes: tuple[str, ...] = ()
    #: where the references come from
    citation: str = ""
    #: findings about the published numbers, such as marks that contradict them
    remarks: tuple[str, ...] = ()
    #: the families of tests that p-values are corrected over, in words
    families: str = "the table"

    @property
    def has_references(self) -> bool:
        """Whether any cell has a published value."""
        return any(cell.reference is not None for row in self.rows for cell in row.cells)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All rows, top to bottom."""
        return tuple(row for section in self.sections for row in section.rows)

    def sources(self, row: int, column: int) -> tuple[Source, ...]:
        """The trials behind one cell; rows are counted from the top."""
        return self.rows[row].sources_of(column)

    @cached_property
    def competitors(self) -> list[int]:
        """Indices, from the top, of the rows in ranked sections."""
        ranked = [section.ranked for section in self.sections for _ in section.rows]
        return [index for index, is_ranked in enumerate(ranked) if is_ranked]

    def with_cells(self, change: Callable[[int, int, Cell], Cell]) -> Table:
        """The table with every cell changed; `change` receives the row, counted from the top, and the column."""
        sections, first = [], 0
        for section in self.sections:
            rows = []
            for index, row in enumerate(section.rows, start=first):
                cells = tuple(change(index, column, cell) for column, cell in enumerate(row.cells))
                rows.append(replace(row, cells=cells))
            first += len(rows)
            sections.append(replace(section, rows=tuple(rows)))
        return replace(self, sections=tuple(sections))

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
            sentences.append(
                "Best in bold, second best underlined, among trained rows, if tests distinguish them from the next."
            )
        if any(cell.comparison and cell.comparison.is_significant for cell in cells):
            sentences.append(f"* differs from the baseline (p < 0.05 after Holm's correction over {self.families}).")
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

    Values are compared as printed, and ties are never marked: after a tie for best there is neither,
    after a tie for second no second.  `results.tables.assess` decides whether a mark is significant.
    """
    marks = [_ranks(table, index) for index in range(len(table.columns))]
    competitors = set(table.competitors)

    def marked(row: int, column: int, cell: Cell) -> Cell:
        if row not in competitors or cell.mean is None:
            return cell
        return replace(cell, rank=marks[column].get(rounded(cell.mean, table.columns[column].precision)))

    return table.with_cells(marked)


def printed_order(values: Sequence[float], column: Column) -> list[tuple[str, int]]:
    """`(text, number of values printed so)`, the best first; values that are not numbers are left out."""
    counts = Counter(rounded(value, column.precision) for value in values if not math.isnan(value))
    return sorted(counts.items(), key=lambda item: float(item[0]), reverse=column.direction == "up")


def _ranks(table: Table, index: int) -> dict[str, Rank]:
    """Printed value -> rank, for one column."""
    column = table.columns[index]
    rows = table.rows
    means = [rows[row].cells[index].mean for row in table.competitors]
    order = printed_order([mean for mean in means if mean is not None], column)
    if column.direction is None or len(order) < 2 or order[0][1] > 1:
        return {}
    ranks: dict[str, Rank] = {order[0][0]: "best"}
    if order[1][1] == 1:
        ranks[order[1][0]] = "second"
    return ranks


def _marker(index: int) -> str:
    """0 -> "a", 25 -> "z", 26 -> "aa"."""
    marker = ""
    index += 1
    while index:
        index, digit = divmod(index - 1, 26)
        marker = chr(ord("a") + digit) + marker
    return marker
