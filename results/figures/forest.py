"""Forest plot: every row's difference to the baseline with its 95 % interval, one panel per column of the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from results.figures.style import FOREGROUND, PALETTE, dress, name_ticks
from results.render.layout import column_title, comparisons
from results.table import ARROWS, Column, Comparison, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: more rows than this cannot be read on a page; those with the smallest p-values are drawn
MOST_ROWS = 30
_COLOURS = {"better": PALETTE[0], "worse": PALETTE[1], "no difference shown": FOREGROUND, "underpowered": FOREGROUND}


def draw(table: Table) -> Figure | None:
    """Filled where the difference survives the correction, hollow elsewhere; None for a table without comparisons."""
    found = {(row.label, column.name): comparison for row, column, comparison in comparisons(table)}
    columns = [column for column in table.columns if any(name == column.name for _, name in found)]
    if not columns:
        return None
    from matplotlib.figure import Figure

    rows = _chosen(table, found)
    size = (1.6 + 1.9 * min(len(columns), 3), 0.9 + 0.24 * len(rows))
    height = -(-len(columns) // 3)
    figure = Figure(figsize=(size[0], size[1] * height), layout="constrained")
    panels = figure.subplots(height, min(len(columns), 3), sharey=True, squeeze=False)
    for axes, column in zip(panels.flat, columns, strict=False):
        _panel(axes, column, [found.get((label, column.name)) for label in rows])
    for axes in panels.flat[len(columns) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        name_ticks(axes.yaxis, rows)
    return figure


def _chosen(table: Table, found: dict[tuple[str, str], Comparison]) -> list[str]:
    """Labels of the rows to draw, in the table's order."""
    smallest: dict[str, float] = {}
    for (label, _), comparison in found.items():
        smallest[label] = min(smallest.get(label, 2.0), comparison.p_adjusted)
    kept = set(sorted(smallest, key=lambda label: smallest[label])[:MOST_ROWS])
    return list(dict.fromkeys(row.label for row in table.rows if row.label in kept))


def _panel(axes: Axes, column: Column, compared: list[Comparison | None]) -> None:
    dress(axes, f"{column_title(column)} {ARROWS[column.direction]}", "difference to the baseline")
    axes.axvline(0, color=FOREGROUND, linewidth=0.8, linestyle=":")
    found = [(place, comparison) for place, comparison in enumerate(compared) if comparison is not None]
    places = [place for place, _ in found]
    colours = [_COLOURS[comparison.verdict] for _, comparison in found]
    faces = [_COLOURS[comparison.verdict] if comparison.is_significant else "none" for _, comparison in found]
    lows, highs = [comparison.low for _, comparison in found], [comparison.high for _, comparison in found]
    axes.hlines(places, lows, highs, colors=colours, linewidth=1.2)
    middles = [comparison.difference for _, comparison in found]
    axes.scatter(middles, places, s=16, edgecolors=colours, facecolors=faces, zorder=3)
    axes.set_ylim(len(compared) - 0.4, -0.6)
