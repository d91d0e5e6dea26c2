"""Training curves: one line per trial, the mean over its seeds with a band of one standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from results.figures.style import FOREGROUND, line_look

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


PANELS = (
    Panel("train/loss", "training loss", log=True, smooth=True),
    Panel("val/psnr", "validation PSNR [dB]"),
)


def draw(curves: pd.DataFrame, panels: Sequence[Panel] = PANELS) -> Figure | None:
    """Draw the frame of `results.load.load_curves`; None where it holds none of the panels' metrics.

    Trials keep their colour in every panel: the place of their first appearance in the frame.
    """
    panels = [panel for panel in panels if (curves["metric"] == panel.metric).any()]
    if not panels:
        return None
    from matplotlib.figure import Figure

    trials = list(dict.fromkeys(curves["trial"]))
    figure = Figure(figsize=(5.6 * len(panels), 3.2 + 0.2 * _legend_rows(trials)), layout="constrained")
    handles: dict[str, Line2D] = {}
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        _dress(axes, panel)
        for index, trial in enumerate(trials):
            chosen = curves[(curves["trial"] == trial) & (curves["metric"] == panel.metric)]
            if len(chosen):
                handles[trial] = _line(axes, chosen, panel, *line_look(index))
    _legend(figure, {trial: handles[trial] for trial in trials if trial in handles})
    return figure


def _line(axes: Axes, curve: pd.DataFrame, panel: Panel, colour: str, style: str) -> Line2D:
    steps = curve.groupby("step")["value"].agg(["mean", "std"])
    x, mean, std = steps.index.to_numpy(), steps["mean"], steps["std"].fillna(0.0)
    if panel.smooth and len(steps) >= 100:
        axes.plot(x, mean, color=colour, linewidth=0.5, alpha=0.25)
        mean, std = (series.rolling(len(steps) // 50, center=True, min_periods=1).mean() for series in (mean, std))
    if (std > 0).any():
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
    # A single evaluation would be an invisible line.
    marker = "o" if len(steps) < 20 else None
    (line,) = axes.plot(x, mean, color=colour, linestyle=style, linewidth=1.5, marker=marker, markersize=3)
    return line


def _dress(axes: Axes, panel: Panel) -> None:
    if panel.log:
        axes.set_yscale("log", nonpositive="mask")
    axes.set_title(panel.label, fontsize=10, color=FOREGROUND, loc="left")
    axes.set_xlabel("iteration", fontsize=9, color=FOREGROUND)
    axes.tick_params(which="both", colors=FOREGROUND, labelsize=8, width=0.6)
    axes.grid(True, color=FOREGROUND, alpha=0.12, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FOREGROUND)
        spine.set_linewidth(0.6)


def _legend_columns(trials: Sequence[str]) -> int:
    """As many as the longest name allows, with the rows of the legend evenly filled."""
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
    # Set afterwards and without mathematics: a name may hold a dollar sign or begin with an underscore.
    for text, trial in zip(legend.get_texts(), handles, strict=True):
        text.set_parse_math(False)
        text.set_text(trial)
