"""Per-object scores against the baseline's: where a variant wins, and on which objects it loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from results.figures.style import FOREGROUND, PALETTE, dress, wrapped
from results.render.layout import compared_rows
from results.table import Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: more panels than this cannot be read on a page; the first rows of the table are drawn
MOST_PANELS = 12
_ACROSS = 4
_TITLE_WIDTH = 25  # characters above a panel


def draw(table: Table, results: pd.DataFrame, kind: str = "novel", metric: str = "psnr") -> Figure | None:
    """One panel per compared row, one point per object: means over seeds, of views of `kind`.

    `results` are those of `results.load.load_results`.  None for a table without comparisons.
    """
    chosen = results[(results["view_kind"] == kind) & (results["metric"] == metric)]
    rows = {row.name or row.label: row for row in table.rows}
    pairs = [
        (compared.title, _means(chosen, compared.row), _means(chosen, rows[baseline]))
        for compared in compared_rows(table)[:MOST_PANELS]
        if (baseline := compared.found[0][1].baseline) in rows
    ]
    pairs = [(label, own.loc[own.index.intersection(base.index)], base) for label, own, base in pairs]
    pairs = [pair for pair in pairs if len(pair[1])]
    if not pairs:
        return None
    from matplotlib.figure import Figure

    across, down = min(len(pairs), _ACROSS), -(-len(pairs) // _ACROSS)
    figure = Figure(figsize=(0.4 + 1.75 * across, 0.4 + 1.9 * down), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes, (label, own, base) in zip(panels.flat, pairs, strict=False):
        _panel(axes, label, own, base.loc[own.index])
    for axes in panels.flat[len(pairs) :]:
        axes.set_visible(False)
    figure.supxlabel(f"{metric.upper()} of the baseline, {kind} views", fontsize=8, color=FOREGROUND)
    figure.supylabel(f"{metric.upper()} of the variant", fontsize=8, color=FOREGROUND)
    return figure


def _means(results: pd.DataFrame, row: Row) -> pd.Series:
    """Object -> mean over the row's seeds; NaN where one is."""
    own = results[results["key"].isin([source.key for source in row.sources])]
    return own["value"].groupby(own["object"].astype(str)).mean(skipna=False)


def _panel(axes: Axes, label: str, own: pd.Series, base: pd.Series) -> None:
    ahead = int((own > base).sum())
    dress(axes, wrapped(label, _TITLE_WIDTH, 3), f"ahead on {ahead} of {len(own)} objects")
    both = pd.concat([own, base])
    ends = [both.min(), both.max()]
    axes.plot(ends, ends, color=FOREGROUND, linewidth=0.8, linestyle=":")
    axes.scatter(base, own, s=9, color=PALETTE[0], alpha=0.7, linewidths=0)
