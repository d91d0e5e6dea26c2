"""Training curves: one line per trial, the mean over its seeds with a band of one standard deviation.

A mean of the seeds that have not diverged would look like an improvement, so a line has a gap where a seed has NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from results.figures.style import FOREGROUND, dress, line_look
from results.metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


@dataclass(frozen=True)
class Panel:
    """One metric over iterations.  `smooth` draws a running mean over a fiftieth of the run."""

    metric: str
    label: str
    log: bool = False
    smooth: bool = False


_PSNR = METRICS["psnr"]

PANELS = (
    Panel("train/loss", "training loss", log=True, smooth=True),
    Panel("val/psnr", f"validation {_PSNR.label} [{_PSNR.unit}]"),
)

#: maximum number of trials with a colour and a name; more cannot be distinguished
MOST_NAMED = 14
#: points of all nameless lines together; more only increase the file size
MOST_BACKGROUND_POINTS = 30_000
#: maximum number of changes of stage that are marked; more lines would hide the curves
MOST_MARKS = 6


def draw(curves: pd.DataFrame, panels: Sequence[Panel] = PANELS, changes: Sequence[int] = ()) -> Figure | None:
    """Draw the frame of `results.load.load_curves`; None where it holds none of the panels' metrics.

    changes: iterations at which another stage begins, marked by a vertical line if at most `MOST_MARKS`.

    Trials keep their colour in every panel: the place of their first appearance in the frame.  Beyond the first
    `MOST_NAMED` they are thin grey lines without a name.
    """
    panels = [panel for panel in panels if (curves["metric"] == panel.metric).any()]
    if not panels:
        return None
    from matplotlib.figure import Figure

    named = list(curves["trial"].unique()[:MOST_NAMED])
    # As categories, names are compared as integers.
    curves = curves.astype({"trial": "category"})
    figure = Figure(figsize=(5.6 * len(panels), 3.2 + 0.2 * _legend_rows(named)), layout="constrained")
    handles: dict[str, Line2D] = {}
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        _dress(axes, panel)
        _mark(axes, changes)
        chosen = curves[curves["metric"] == panel.metric]
        foreground = chosen["trial"].isin(named)
        if not foreground.all():
            _background(axes, chosen[~foreground])
        lines = dict(iter(chosen[foreground].groupby("trial", observed=True)))
        for index, trial in enumerate(named):
            if trial in lines:
                handles[trial] = _line(axes, lines[trial], panel, *line_look(index))
    _legend(figure, {trial: handles[trial] for trial in named if trial in handles})
    return figure


def _mark(axes: Axes, changes: Sequence[int]) -> None:
    """A vertical line where a stage begins."""
    for change in changes if len(changes) <= MOST_MARKS else ():
        axes.axvline(change, color=FOREGROUND, linewidth=0.8, linestyle=":", alpha=0.6, zorder=1)


def _background(axes: Axes, curves: pd.DataFrame) -> None:
    """Means of the trials without a name, as one artist: a figure of a thousand lines is slow to save."""
    from matplotlib.collections import LineCollection

    means = curves.groupby(["trial", "step"], observed=True)["value"].mean(skipna=False).reset_index()
    ends = np.flatnonzero(np.diff(means["trial"].cat.codes)) + 1
    lines = np.split(means[["step", "value"]].to_numpy(), ends)
    most = max(2, MOST_BACKGROUND_POINTS // len(lines))
    thinned = [line[np.linspace(0, len(line) - 1, min(most, len(line))).astype(int)] for line in lines]
    axes.add_collection(LineCollection(thinned, colors=FOREGROUND, linewidths=0.4, alpha=0.15))
    axes.autoscale_view()


def _line(axes: Axes, curve: pd.DataFrame, panel: Panel, colour: str, style: str) -> Line2D:
    """Draws the mean over a trial's seeds, with a band of one standard deviation."""
    steps = curve.groupby("step")["value"]
    mean, std = steps.mean(skipna=False), steps.std(skipna=False).fillna(0.0)
    x = mean.index.to_numpy()
    if panel.smooth and len(x) >= 100:
        axes.plot(x, mean, color=colour, linewidth=0.5, alpha=0.25)
        mean, std = (series.rolling(len(x) // 50, center=True, min_periods=1).mean() for series in (mean, std))
    if (std > 0).any():
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
    # A single evaluation would be an invisible line.
    marker = "o" if len(x) < 20 else None
    (line,) = axes.plot(x, mean, color=colour, linestyle=style, linewidth=1.5, marker=marker, markersize=3)
    return line


def _dress(axes: Axes, panel: Panel) -> None:
    if panel.log:
        axes.set_yscale("log", nonpositive="mask")
    dress(axes, panel.label, "iteration")


def _legend_columns(trials: Sequence[str]) -> int:
    """At most six, within about 150 characters, with the rows of the legend evenly filled."""
    most = max(1, min(6, 150 // (max(map(len, trials)) + 8)))
    rows = -(-len(trials) // most)
    return -(-len(trials) // rows)


def _legend_rows(trials: Sequence[str]) -> int:
    return -(-len(trials) // _legend_columns(trials))


def _legend(figure: Figure, handles: dict[str, Line2D]) -> None:
    legend = figure.legend(
        list(handles.values()),
        [""] * len(handles),
        loc="outside lower center",
        ncols=_legend_columns(list(handles)),
        frameon=False,
        fontsize=9,
        labelcolor=FOREGROUND,
    )
    # Set afterwards, without math parsing: a name may hold a dollar sign or begin with an underscore.
    for text, trial in zip(legend.get_texts(), handles, strict=True):
        text.set_parse_math(False)
        text.set_text(trial)
