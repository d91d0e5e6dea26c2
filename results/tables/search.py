"""The best configurations of a search, and how much each setting mattered."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from results.load import Evidence
from results.provenance import ABSENT
from results.records.flat import as_written
from results.table import Table
from results.tables.auto import entries
from results.tables.axes import is_at, is_below
from results.tables.baseline import find_baseline
from results.tables.fill import Block, Entry, fill, with_texts
from results.tables.metric_columns import MetricColumn, measured, named
from results.tables.options import Column as QuantityOption
from results.tables.options import Columns, Stem
from results.tables.options import Options as CommonOptions
from results.tables.scores import Scores
from results.tables.select import varying

#: minimum number of finished configurations; with fewer, an importance would be noise
_LEAST = 8
#: settings shown beside the numbers, the most important first
_MOST_SETTINGS = 5
_MAGNITUDES = 100


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "search"
    caption: str = "The best configurations found."
    #: the ranking quantity; null means the objective of the sweep's search, or novel_psnr where it has none
    value: QuantityOption | None = None
    #: empty means the metrics of the trials' evaluation, on both kinds of views
    columns: Columns = ()
    #: rows shown
    best: Annotated[int, Field(ge=1, le=1000)] = 10
    #: name of the trial that all others are compared with; null means the sweep file's, or one of the usual names
    baseline: str | None = None


def build(evidence: Evidence, options: Options) -> Table:
    """Rows in order of the value, with the settings that vary and their importance (PED-ANOVA, by Optuna).

    Where the sweep has a search, the rows are its proposals, compared with the baseline; else all trials.  Tests cover
    all rows, since those shown were chosen by the scores that are tested.
    """
    trained = entries(record for record in evidence.records if not record.planned.control)
    baseline, comparison = find_baseline(trained, evidence, options.baseline)
    if any(_is_proposed(entry) for entry in trained):
        trained = tuple(entry for entry in trained if _is_proposed(entry))
    value = _value(evidence, options)
    scores = Scores.of(evidence, [value])
    scored = [(entry, _mean(entry, value, scores)) for entry in trained]
    found = [(entry, mean) for entry, mean in scored if mean is not None]
    found.sort(key=lambda item: item[1], reverse=value.column.direction == "up")
    configs = {entry.label: _chosen(entry, evidence.plan.axes) for entry, _ in found}
    importance = _importance([(configs[entry.label], mean) for entry, mean in found], value, evidence.plan.axes)
    shown = tuple(entry for entry, _ in found[: options.best])
    without = [entry for entry, mean in scored if mean is None]
    notes = (*_importance_notes(importance, len(found)), *_left_out(without, len(found), len(shown)), *comparison)
    frame = Table(options.name, options.caption, (), (), notes=notes)
    table = fill(
        frame,
        [Block(tuple(entry for entry, _ in found))],
        options.columns or measured(record.planned.plain_config for record in evidence.records),
        evidence,
        baseline,
    )
    settings = _settings({entry.label: configs[entry.label] for entry in shown}, list(importance))
    return with_texts(_first_rows(table, len(shown)), settings)


def _chosen(entry: Entry, axes: Iterable[str]) -> dict[str, Any]:
    """The flat configuration of a row; a section that an axis chooses as a whole, such as `train.ema`, is one value."""
    config = dict(entry.records[0].planned.flat_config)
    for axis in axes:
        parts = [key for key in config if key.startswith(f"{axis}.")]
        if parts:
            config[axis] = ", ".join(f"{key.removeprefix(f'{axis}.')} {as_written(config.pop(key))}" for key in parts)
    return config


def _first_rows(table: Table, count: int) -> Table:
    return replace(table, sections=tuple(replace(each, rows=each.rows[:count]) for each in table.sections))


def _is_proposed(entry: Entry) -> bool:
    return any(bool(record.planned.proposals) for record in entry.records)


def _value(evidence: Evidence, options: Options) -> MetricColumn:
    if options.value is not None:
        return options.value
    search = evidence.plan.search
    metric, direction = (search.metric, search.direction) if search else ("novel_psnr", "maximize")
    quantity = named(metric)
    return replace(quantity, column=replace(quantity.column, direction="up" if direction == "maximize" else "down"))


def _mean(entry: Entry, value: MetricColumn, scores: Scores) -> float | None:
    """Mean over finished seeds, if there is a finite one."""
    values = scores.means([record.planned.key for record in entry.records], value)
    mean = sum(values) / len(values) if values else math.nan
    return mean if math.isfinite(mean) else None


def _importance(
    points: Sequence[tuple[Mapping[str, Any], float]], value: MetricColumn, declared: Iterable[str]
) -> dict[str, float]:
    """Setting -> share of importance, the most important first; NaN where points are too few, or have equal scores.

    declared: dotted keys that the sweep file varies.
    """
    keys = _independent([config for config, _ in points], list(declared))
    if len(points) < _LEAST or not keys or len({mean for _, mean in points}) == 1:
        return dict.fromkeys(keys, math.nan)
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = {key: [config.get(key, ABSENT) for config, _ in points] for key in keys}
    space: dict[str, BaseDistribution] = {}
    for key, column in values.items():
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in column):
            low, high = min(column), max(column)
            # Settings that vary over orders of magnitude are taken on a logarithmic scale.
            space[key] = FloatDistribution(low, high, log=0 < _MAGNITUDES * low <= high)
        else:
            values[key] = [str(value) for value in column]
            space[key] = CategoricalDistribution(sorted(set(values[key])))
    study = optuna.create_study(direction="minimize" if value.column.direction == "down" else "maximize")
    for index, (_, mean) in enumerate(points):
        params = {key: column[index] for key, column in values.items()}
        study.add_trial(optuna.create_trial(params=params, distributions=space, value=mean))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _independent(configs: Sequence[Mapping[str, Any]], declared: Sequence[str]) -> list[str]:
    """The keys that vary; of keys with always equal values, such as one loss in several stages, only one.

    Settings that follow from the declared ones are left out; plans of earlier versions declare none.
    """
    columns: dict[str, str] = {}
    for key in varying(configs):
        if not declared or any(is_at(key, axis) or is_below(key, axis) for axis in declared):
            columns.setdefault(json.dumps([config.get(key, ABSENT) for config in configs], default=str), key)
    return list(columns.values())


def _importance_notes(importance: Mapping[str, float], count: int) -> tuple[str, ...]:
    if not importance:
        return ("Nothing was varied among the finished trials.",) if count else ("No trial has finished.",)
    if any(map(math.isnan, importance.values())):
        equal = " of equal scores" if count >= _LEAST else ""
        return (f"With {count} finished configurations{equal}, the settings' importance cannot be estimated.",)
    listed = ", ".join(f"{key} {share:.0%}" for key, share in importance.items())
    return (f"Importance of the settings over {count} configurations (PED-ANOVA): {listed}.",)


def _left_out(without: Sequence[Entry], found: int, shown: int) -> tuple[str, ...]:
    """without: the rows that have no finite score; found, shown: numbers of those that have one, and of the table's."""
    hidden = found - shown
    pruned = sum(_has(entry, "pruned") for entry in without)
    broken = sum(_has(entry, "finished") and not _has(entry, "pruned") for entry in without)
    unfinished = len(without) - pruned - broken
    notes = []
    if found > 1:
        notes.append("Evaluated on the objects by which they were chosen, so the best scores are optimistic.")
    if hidden:
        notes.append(f"{hidden} other finished configuration{'s' * (hidden > 1)} not shown.")
    if broken:
        notes.append(f"{broken} finished configuration{'s' * (broken > 1)} without a finite score.")
    if pruned:
        notes.append(f"{pruned} configuration{'s' * (pruned > 1)} pruned, since others were ahead.")
    if unfinished:
        several = "s" * (unfinished > 1)
        notes.append(f"{unfinished} configuration{several} without a result, stopped or failed ones too.")
    return tuple(notes)


def _has(entry: Entry, state: str) -> bool:
    return any(record.state == state for record in entry.records)


def _settings(configs: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> dict[str, dict[str, str]]:
    """Setting -> row -> its value."""
    return {
        key: {label: _short(config.get(key, ABSENT)) for label, config in configs.items()}
        for key in keys[:_MOST_SETTINGS]
    }


def _short(value: Any) -> str:
    """A value, shortened for reading; `splatsweep plan --json` has all digits."""
    return f"{value:.3g}" if isinstance(value, float) else as_written(value)
