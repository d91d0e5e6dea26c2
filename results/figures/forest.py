"""Forest plot: every row's difference to the baseline with its 95 % interval, one panel per column of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from results.figures.style import FOREGROUND, PALETTE, dress, name_ticks, wrapped
from results.render.layout import ComparedRow, column_title, compared_rows
from results.table import ARROWS, Column, Comparison, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: more rows than this cannot be read on a page; those with the smallest p-values are drawn
MOST_ROWS = 30
_ACROSS = 3
_NAME_WIDTH = 40  # characters of a line beside the panels
_COLOURS = {"better": PALETTE[0], "worse": PALETTE[1]}


def draw(table: Table) -> Figure | None:
    """Filled where the difference survives the correction, hollow elsewhere; None for a table without comparisons."""
    compared = compared_rows(table)
    if not compared:
        return None
    columns = [column for column in table.columns if any(_comparison(row, column) for row in compared)]
    from matplotlib.figure import Figure

    rows = _chosen(compared)
    names = [wrapped(row.title, _NAME_WIDTH, 2) for row in rows]
    across, down = min(len(columns), _ACROSS), -(-len(columns) // _ACROSS)
    longest = max(len(line) for name in names for line in name.split("\n"))
    width = 0.3 + 0.063 * longest + 1.9 * across
    figure = Figure(figsize=(width, (0.9 + 0.26 * len(rows)) * down), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes, column in zip(panels.flat, columns, strict=False):
        _panel(axes, column, [_comparison(row, column) for row in rows])
    for axes in panels.flat[len(columns) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        name_ticks(axes.yaxis, names)
    for axes in panels[:, 1:].flat:
        # Only the leftmost panel shows names; hidden ticks would still cost layout time.
        axes.yaxis.set_visible(False)
    return figure


def _chosen(compared: Sequence[ComparedRow]) -> list[ComparedRow]:
    """The rows to draw, in the table's order."""
    smallest = {row.title: min(found.p_adjusted for _, found in row.found) for row in compared}
    kept = set(sorted(smallest, key=lambda title: smallest[title])[:MOST_ROWS])
    return [row for row in compared if row.title in kept]


def _comparison(row: ComparedRow, column: Column) -> Comparison | None:
    return next((found for place, found in row.found if place is column), None)


def _panel(axes: Axes, column: Column, compared: list[Comparison | None]) -> None:
    dress(axes, f"{column_title(column)} {ARROWS[column.direction]}", "difference to the baseline")
    axes.axvline(0, color=FOREGROUND, linewidth=0.8, linestyle=":")
    found = [(place, comparison) for place, comparison in enumerate(compared) if comparison is not None]
    places = [place for place, _ in found]
    colours = [_COLOURS.get(comparison.verdict, FOREGROUND) for _, comparison in found]
    faces = [
        _COLOURS.get(comparison.verdict, FOREGROUND) if comparison.is_significant else "none" for _, comparison in found
    ]
    lows, highs = [comparison.low for _, comparison in found], [comparison.high for _, comparison in found]
    axes.hlines(places, lows, highs, colors=colours, linewidth=1.2)
    middles = [comparison.difference for _, comparison in found]
    axes.scatter(middles, places, s=16, edgecolors=colours, facecolors=faces, zorder=3)
    rows = axes.hlines(range(len(compared)), 0, 1, transform=axes.get_yaxis_transform(), color=FOREGROUND, zorder=0)
    rows.set(alpha=0.12, linewidth=0.6)
    axes.locator_params(axis="x", nbins=4)
    axes.set_ylim(len(compared) - 0.4, -0.6)
