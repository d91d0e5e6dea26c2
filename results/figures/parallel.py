"""Parallel axes: one vertical line per setting that differs between trials, one polyline per trial, up to its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from results.figures.style import FOREGROUND, name_ticks, shortened
from results.provenance import ABSENT, split_common

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: minimum numbers; below them a table is clearer
LEAST_SETTINGS, LEAST_TRIALS = 2, 4
MOST_SETTINGS = 10
#: maximum length of a choice's name; longer names lose their middle
MOST_CHARACTERS = 24
#: maximum number of labels of an axis; of more values, some are named, evenly from the lowest to the highest
MOST_LABELS = 16
#: maximum length of a number that is printed in full
_MOST_DIGITS = 8
#: maximum length of an axis's name
MOST_TITLE = 36


def draw(trials: Sequence[tuple[Mapping[str, Any], float]], score: str) -> Figure | None:
    """`trials`: flat configuration and score of each; lines of low scores are drawn first, and darker.

    None where too little differs for a figure; those beyond the first `MOST_SETTINGS` that differ are left out.
    """
    trials = sorted((trial for trial in trials if np.isfinite(trial[1])), key=lambda trial: trial[1])
    _, differing = split_common([config for config, _ in trials])
    if len(differing) < LEAST_SETTINGS or len(trials) < LEAST_TRIALS:
        return None
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    names = differing[:MOST_SETTINGS]
    scores = np.array([value for _, value in trials])
    span = float(np.ptp(scores)) or 1.0
    heights = np.column_stack([*(_axis(trials, name) for name in names), (scores - scores.min()) / span])
    longest = max(len(_label(text)) for name in names for text in _values(trials, name))
    figure = Figure(figsize=(max(1.15, 0.1 + 0.06 * longest) * (len(names) + 1), 3.4), layout="constrained")
    axes = figure.subplots()
    lines = [np.column_stack([np.arange(len(line)), line]) for line in heights]
    # Without the ends of the scale, which vanish on a dark or on a light page.
    colours = colormaps["viridis"](0.35 + 0.6 * heights[:, -1])
    width = min(1.2, 12 / np.sqrt(len(lines)))  # many lines are thinner
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=width, alpha=0.85))
    for place, name in enumerate(names):
        _choices(axes, place, dict(zip(_values(trials, name), heights[:, place], strict=True)))
    # Where both are printed alike, the label is where equal scores are.
    _choices(axes, len(names), {f"{scores.max():.4g}": 1.0, f"{scores.min():.4g}": 0.0})
    _dress(axes, [*map(_title, names), score])
    return figure


def _title(name: str) -> str:
    """The name of an axis; of settings that vary together, the first ones and the number of the others."""
    if len(name) <= MOST_TITLE:
        return name
    first, *others = name.split(", ")
    while others and len(f"{first}, {others[0]}") < MOST_TITLE - len(" and 99 more"):
        first = f"{first}, {others.pop(0)}"
    return shortened(first, MOST_TITLE) + (f" and {len(others)} more" if others else "")


def _values(trials: Sequence[tuple[Mapping[str, Any], float]], name: str) -> list[str]:
    return [str(config.get(name, ABSENT)) for config, _ in trials]


def _axis(trials: Sequence[tuple[Mapping[str, Any], float]], name: str) -> np.ndarray:
    """Heights between 0 and 1: numbers by their order, other choices by their names."""
    values = _values(trials, name)
    order = sorted(set(values), key=_rank)
    places = {value: index / max(1, len(order) - 1) for index, value in enumerate(order)}
    return np.array([places[value] for value in values])


def _rank(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _choices(axes: Axes, place: int, heights: Mapping[str, float]) -> None:
    """Draws a vertical axis with labels for the choices."""
    axes.axvline(place, color=FOREGROUND, linewidth=0.8)
    choices = sorted(heights.items(), key=lambda choice: choice[1])
    named = np.linspace(0, len(choices) - 1, min(len(choices), MOST_LABELS)).round().astype(int)
    for text, height in (choices[index] for index in named):
        axes.annotate(
            _label(text),
            (place, height),
            (3, 2),
            textcoords="offset points",
            fontsize=6.5,
            color=FOREGROUND,
            parse_math=False,
        )


def _label(value: str) -> str:
    """A choice's name; a long number, as a search proposes them, with four digits."""
    is_number = not _rank(value)[0]
    return f"{float(value):.4g}" if is_number and len(value) > _MOST_DIGITS else shortened(value, MOST_CHARACTERS)


def _dress(axes: Axes, names: Sequence[str]) -> None:
    name_ticks(axes.xaxis, names)
    axes.tick_params(axis="x", labelsize=7, labelrotation=20, colors=FOREGROUND, length=0)
    axes.set_yticks([])
    axes.set_ylim(-0.05, 1.05)
    for spine in axes.spines.values():
        spine.set_visible(False)
