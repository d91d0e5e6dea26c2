"""Ranks, spreads and notes of a table, independent of its output format."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from results.table import Cell, Column, Comparison, Row, Section, Table, ranked, rounded

UP = Column("psnr", "PSNR", direction="up", precision=2)
DOWN = Column("lpips", "LPIPS", direction="down", precision=3)


def table(values: list[float | None], column: Column = UP, unranked: tuple[float, ...] = ()) -> Table:
    def row(value: float | None) -> Row:
        return Row("row", (Cell(() if value is None else (value,)),))

    sections = (Section(tuple(map(row, values))), Section(tuple(map(row, unranked)), ranked=False))
    return ranked(Table("test", "", (column,), sections))


def ranks(built: Table) -> list[str | None]:
    return [row.cells[0].rank for row in built.rows]


def test_columns_determine_whether_higher_is_better() -> None:
    assert ranks(table([20.0, 22.0, 21.0])) == [None, "best", "second"]
    assert ranks(table([0.20, 0.22, 0.21], DOWN)) == ["best", None, "second"]
    assert ranks(table([1.0, 2.0], Column("n", "N"))) == [None, None]
    assert ranks(table([9.5, 10.2, -1.0])) == ["second", "best", None]


def test_what_prints_alike_is_a_tie_and_ties_are_never_marked() -> None:
    assert ranks(table([22.001, 21.999, 21.0])) == [None, None, None]
    assert ranks(table([22.0, 21.001, 20.999, 19.0])) == ["best", None, None, None]


def test_nothing_is_marked_where_there_is_nothing_to_compare() -> None:
    assert ranks(table([22.0])) == [None]
    assert ranks(table([22.0, None])) == [None, None]
    assert ranks(table([22.001, 22.002])) == [None, None]


def test_trivial_rows_do_not_compete() -> None:
    assert ranks(table([20.0, 21.0], unranked=(30.0,))) == ["second", "best", None]
    assert ranks(table([20.0, 21.0], unranked=(21.0,))) == ["second", "best", None]


def test_rows_of_several_sections_compete() -> None:
    sections = tuple(Section(tuple(Row("r", (Cell((value,)),)) for value in part)) for part in ((20.0, 22.0), (21.0,)))
    assert ranks(ranked(Table("test", "", (UP,), sections))) == [None, "best", "second"]


def test_the_legend_explains_what_is_there() -> None:
    def legend(*cells: Cell) -> list[str]:
        return Table("t", "", (UP,), (Section(tuple(Row("r", (cell,)) for cell in cells)),), notes=("A note.",)).legend

    plain = Cell((20.0,), comparison=Comparison("base", 1.0, 0.5, 1.5, 0.2, 0.4, 1.0, "paired", "underpowered"))
    assert legend(plain) == ["A note."]
    best, spread = replace(plain, rank="best"), replace(plain, values=(20.0, 21.0))
    starred = replace(plain, comparison=replace(plain.comparison, verdict="worse"))
    for cell, beginning in ((best, "Best in bold"), (starred, "* differs"), (spread, "± is the")):
        sentence, note = legend(plain, cell)
        assert sentence.startswith(beginning)
        assert note == "A note."


def test_nan_is_never_best_and_infinity_is() -> None:
    assert ranks(table([math.nan, 20.0, 21.0])) == [None, "second", "best"]
    assert ranks(table([math.inf, 20.0])) == ["best", "second"]


def test_spread_is_the_sample_standard_deviation() -> None:
    cell = Cell((1.0, 2.0, 3.0))
    assert (cell.n, cell.mean, cell.std) == (3, 2.0, 1.0)
    assert Cell((1.0,)).std is None
    assert Cell().mean is None
    assert Cell((1.0, math.inf)).std is None


@pytest.mark.parametrize(
    ("value", "text"), [(20.955, "20.95"), (-0.001, "0.00"), (math.inf, "inf"), (math.nan, "nan"), (-2.0, "-2.00")]
)
def test_rounded(value: float, text: str) -> None:
    assert rounded(value, 2) == text


def test_equal_notes_share_a_marker() -> None:
    rows = (
        Row("a", (Cell((1.0,)),), notes=("first",)),
        Row("b", (Cell((1.0,)),), notes=("second", "first")),
    )
    built = Table("test", "", (UP,), (Section(rows),))
    assert built.footnotes == {"first": "a", "second": "b"}
    assert [built.markers(row) for row in rows] == ["a", "b,a"]


def test_markers_continue_after_z() -> None:
    rows = tuple(Row("r", (Cell(),), notes=(str(index),)) for index in range(28))
    assert list(Table("test", "", (UP,), (Section(rows),)).footnotes.values())[24:] == ["y", "z", "aa", "ab"]
