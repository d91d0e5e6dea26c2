"""The figures of a report and their captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import pandas as pd

from results.figures import curves, forest, parallel, scatter
from results.load import Evidence
from results.provenance import configurations
from results.render.layout import compared_rows
from results.table import Table
from results.tables.axes import find_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Illustration:
    """A figure, the stem of its files, a description for those who cannot see it, and its caption."""

    stem: str
    figure: Figure
    description: str
    caption: str


def illustrate(evidence: Evidence, tables: Sequence[Table]) -> list[Illustration]:
    """Every figure for which there are enough results; training curves first."""
    results = evidence.results(["psnr"])
    return [*_curves(evidence), *_comparisons(results, tables), *_settings(evidence, results)]


def _curves(evidence: Evidence) -> Iterator[Illustration]:
    frame = evidence.curves([panel.metric for panel in curves.PANELS])
    changes = _changes_of_stage(evidence)
    figure = curves.draw(frame, changes=changes)
    if figure is None:
        return
    caption = (
        "The loss is each trial's own weighted sum, drawn as a running mean over the faint raw values; "
        "trials with different losses cannot be compared by it."
    )
    if 0 < len(changes) <= curves.MOST_MARKS:
        caption += (
            f" Dotted lines mark where a stage ends ({', '.join(map(str, changes))}): the next has its own losses and "
            "learning rate, so the loss may jump."
        )
    if frame.groupby("trial")["seed"].nunique().gt(1).any():
        caption = f"Mean over seeds; the band is one standard deviation. {caption}"
    if frame["value"].isna().any():
        caption += " A line has a gap where the value of a seed is not a number."
    if (trials := frame["trial"].nunique()) > curves.MOST_NAMED:
        caption += f" The first {curves.MOST_NAMED} of {trials} trials are named; grey lines are the others."
    yield Illustration("curves", figure, "Training loss and validation scores of every trial over iterations", caption)


def _changes_of_stage(evidence: Evidence) -> list[int]:
    """Iterations at which a stage of any recorded trial ends and another begins."""
    changes = set()
    for record in evidence.records:
        stages = record.planned.plain_config.get("train", {}).get("stages", ()) if record.run else ()
        changes |= set(accumulate(stage["iterations"] for stage in stages[:-1]))
    return sorted(changes)


def _comparisons(results: pd.DataFrame, tables: Sequence[Table]) -> Iterator[Illustration]:
    """For each table that compares with a baseline, a forest plot and a scatter of objects."""
    for index, table in enumerate(tables):
        suffix = f"_{table.name}" if index else ""
        figure = forest.draw(table)
        if figure is None:
            continue
        caption = (
            "Differences to the baseline with 95 % intervals. Filled where the difference survives Holm's correction."
        )
        if (count := len(compared_rows(table))) > forest.MOST_ROWS:
            caption += f" The {forest.MOST_ROWS} of {count} rows with the smallest p-values are drawn."
        yield Illustration(f"forest{suffix}", figure, "Differences to the baseline; the table below has them", caption)
        figure = scatter.draw(table, results)
        if figure is not None:
            caption = "Each point is an object, mean over seeds; above the line the variant is ahead of the baseline."
            if count > scatter.MOST_PANELS:
                caption += f" The first {scatter.MOST_PANELS} of {count} rows are drawn."
            yield Illustration(f"objects{suffix}", figure, "Per-object PSNR against the baseline's", caption)


def _settings(evidence: Evidence, results: pd.DataFrame) -> Iterator[Illustration]:
    """Parallel axes over the settings that differ."""
    novel = results[(results["view_kind"] == "novel") & (results["metric"] == "psnr")]
    means = novel.groupby("trial", observed=True)["value"].mean(skipna=False).to_dict()
    settings = {record.planned.name: config for record, config in configurations(evidence)}
    settings = {name: config for name, config in settings.items() if name in means}
    axes = find_axes(list(settings.values()), evidence.plan.axes)
    names = [axis.label for axis in axes]
    scored = [({axis.label: axis.value(config) for axis in axes}, means[name]) for name, config in settings.items()]
    figure = parallel.draw(scored, "novel PSNR")
    if figure is not None:
        caption = (
            "Every trained row is a line through its settings to its score, the mean over seeds; the brighter, the "
            "higher. Settings that vary together are one axis; those that the sweep file varies come first."
        )
        if left_out := names[parallel.MOST_SETTINGS :]:
            caption += f" Left out: {', '.join(left_out)}."
        yield Illustration("settings", figure, "Settings of every row and its PSNR on novel views", caption)
