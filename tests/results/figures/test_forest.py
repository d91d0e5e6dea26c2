"""The forest plot shows the comparisons' numbers in the right rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from results.figures import forest
from results.figures.style import PALETTE, inline_svg, save
from results.table import Cell, Column, Comparison, Row, Section, Table

COLUMNS = (Column("psnr", "PSNR", "Novel views", "up"), Column("lpips", "LPIPS", "Novel views", "down", 3))


def comparison(difference: float, verdict: str, p: float = 0.5) -> Comparison:
    return Comparison("base", difference, difference - 1, difference + 1, p, p, 0.3, "paired", verdict)


def table(count: int = 2) -> Table:
    rows = [Row("base", (Cell((20.0,)), Cell((0.2,))))]
    for index in range(count):
        verdict = "better" if index % 2 == 0 else "underpowered"
        found = comparison(index + 0.5, verdict, p=1 / (index + 2))
        rows.append(Row(f"$row_{index}$", (Cell((21.0,), comparison=found), Cell((0.2,)))))
    return Table("t", "", COLUMNS, (Section(tuple(rows)),))


def test_without_comparisons_there_is_no_figure() -> None:
    assert forest.draw(table(0)) is None


def test_one_panel_for_each_compared_column_with_every_interval() -> None:
    (axes,) = forest.draw(table()).axes
    lines, points, *_ = axes.collections
    np.testing.assert_allclose([segment[:, 0] for segment in lines.get_segments()], [[-0.5, 1.5], [0.5, 2.5]])
    np.testing.assert_allclose(points.get_offsets(), [[0.5, 0], [1.5, 1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$row_0$", "$row_1$"]
    assert axes.yaxis_inverted(), "the first row is on top"


def test_only_what_survives_the_correction_is_filled() -> None:
    (axes,) = forest.draw(table()).axes
    filled, hollow = axes.collections[1].get_facecolors() if len(axes.collections[1].get_facecolors()) == 2 else (1, 0)
    assert filled[-1] == 1
    assert hollow[-1] == 0


def test_long_names_leave_room_for_the_panels() -> None:
    grown = table()
    rows = tuple(replace(row, label=f"{row.label} " + "depth.model=midas_small " * 4) for row in grown.rows)
    figure = forest.draw(replace(grown, sections=(Section(rows),)))
    save(figure, "png")
    (axes,) = figure.axes
    inches = axes.get_position().width * figure.get_size_inches()[0]
    assert inches > 1.4


def test_rows_of_one_label_in_two_groups_are_drawn_apart() -> None:
    rows = tuple(
        Row("MiDaS", (Cell((21.0,), comparison=comparison(value, "better")), Cell()), group=group)
        for group, value in (("Input", 1.0), ("X-Attn", 2.0))
    )
    (axes,) = forest.draw(Table("t", "", COLUMNS, (Section(rows),))).axes
    np.testing.assert_allclose(axes.collections[1].get_offsets(), [[1.0, 0], [2.0, 1]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Input: MiDaS", "X-Attn: MiDaS"]


def test_of_many_rows_those_with_the_smallest_p_remain_in_order() -> None:
    many = forest.MOST_ROWS + 5
    (axes,) = forest.draw(table(many)).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    # The later a row, the smaller its p-value.
    assert labels == [f"$row_{index}$" for index in range(5, many)]


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_equal_figures_give_equal_bytes(kind: str) -> None:
    assert save(forest.draw(table()), kind) == save(forest.draw(table()), kind)


def test_names_are_printed_as_they_are() -> None:
    svg = inline_svg(forest.draw(table()))
    assert "$row_0$" in svg
    assert f"var(--series-0, {PALETTE[0]})" in svg
