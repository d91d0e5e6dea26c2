"""Blocks, differences and probabilities as every format prints them."""

from __future__ import annotations

import math

import pytest

from results.render.layout import (
    below,
    blocks,
    compared_rows,
    effect_size,
    is_text,
    leading_text,
    probability,
    row_titles,
    signed,
    signed_difference,
)
from results.table import Cell, Column, Row, Section, Table


def test_only_neighbours_of_one_group_stand_together() -> None:
    rows = [Row(label, (), group=group) for label, group in ("a-", "b-", "cX", "dX", "e-", "fX")]
    rows = [Row(row.label, (), group=row.group.strip("-")) for row in rows]
    assert ["".join(row.label for row in block) for block in blocks(rows)] == ["a", "b", "cd", "e", "f"]


@pytest.mark.parametrize(
    ("ours", "published", "text"),
    [
        (21.0, 20.0, "+1.00"),
        (20.004, 20.0, "0.00"),
        (21.006, 20.004, "+1.01"),
        (19.5, 20.0, "-0.50"),
        (math.nan, 20.0, "nan"),
    ],
)
def test_a_difference_is_that_of_the_printed_numbers(ours: float, published: float, text: str) -> None:
    assert signed_difference(Cell((ours,), reference=published), Column("psnr", "PSNR")) == text


def test_there_is_no_difference_to_nothing() -> None:
    assert signed_difference(Cell((1.0,)), Column("psnr", "PSNR")) == ""
    assert signed_difference(Cell(reference=1.0), Column("psnr", "PSNR")) == ""


def test_signs() -> None:
    assert [signed(value, 1) for value in (0.04, -0.04, 0.06, -0.06, math.inf)] == [
        "0.0",
        "0.0",
        "+0.1",
        "-0.1",
        "+inf",
    ]
    assert [probability(p) for p in (0.0004, 0.001, 0.04, 1.0)] == ["< 0.001", "0.001", "0.040", "1.000"]


def test_a_probability_below_the_level_is_not_rounded_up_to_it() -> None:
    assert [probability(p) for p in (0.0494, 0.0499, 0.05, 0.0504)] == ["0.049", "< 0.050", "0.050", "0.050"]


def test_no_two_rows_are_called_alike() -> None:
    labels = [("MiDaS", "Input"), ("MiDaS", "X-Attn"), ("tv", ""), ("tv", "")]
    rows = tuple(Row(label, (), group=group) for label, group in labels)
    titles = row_titles(Table("t", "", (), (Section(rows[:1]), Section(rows[1:]))))
    assert titles == ["Input: MiDaS", "X-Attn: MiDaS", "tv (1)", "tv (2)"]
    named = tuple(Row("a", (), name=name, group="G") for name in ("model=a lr=1", "model=a lr=2", ""))
    assert row_titles(Table("t", "", (), (Section(named),))) == ["model=a lr=1", "model=a lr=2", "G: a"]


@pytest.mark.parametrize(("citation", "source"), [("Doe & al.", ": Doe & al.,"), ("", "")])
def test_published_values_are_explained_with_their_source_if_it_is_known(citation: str, source: str) -> None:
    table = Table("t", "", (Column("c", "C"),), (Section((Row("r", (Cell(reference=1.0),)),)),), citation=citation)
    assert below(table) == [f"Published values{source} with the difference, ours minus published."]


def test_comparisons_are_in_the_order_of_rows(table: Table) -> None:
    found = [(column.name, found.verdict) for row in compared_rows(table) for column, found in row.found]
    assert found == [("conditioned_psnr", "better"), ("novel_psnr", "underpowered")]


def test_text_columns_before_the_first_number() -> None:
    columns = (Column("a", "a"), Column("b", "b"), Column("c", "c"))
    rows = Row("r", (Cell(text="x"), Cell((1.0,)), Cell(text="y"))), Row("empty", (Cell(), Cell(), Cell()))
    table = Table("t", "", columns, (Section(rows),))
    assert [is_text(table, index) for index in range(3)] == [True, False, True]
    assert leading_text(table) == 1
    assert leading_text(Table("t", "", columns[:1], (Section((Row("r", (Cell(text="x"),)),)),))) == 1


def test_the_kinds_of_columns_are_found_once_however_many_rows_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    from results.render import html, layout

    asked: list[int] = []
    monkeypatch.setattr(layout, "is_text", lambda table, index: asked.append(index) or is_text(table, index))
    rows = tuple(Row(f"row {number}", (Cell(text="x"), Cell()), state="failed") for number in range(20))
    html._template.cache_clear()
    page = html.render_table(Table("t", "", (Column("a", "a"), Column("b", "b")), (Section(rows),)))
    html._template.cache_clear()
    assert page.count("<span>failed</span>") == len(rows)
    assert sorted(asked) == [0, 0, 1, 1]  # for the heads of columns, and for the empty rows


@pytest.mark.parametrize(("value", "text"), [(float("nan"), "–"), (0.5, "0.50"), (-1.234, "-1.23")])
def test_an_effect_that_one_object_leaves_without_spread_is_a_dash(value: float, text: str) -> None:
    from types import SimpleNamespace

    assert effect_size(SimpleNamespace(effect_size=value)) == text
