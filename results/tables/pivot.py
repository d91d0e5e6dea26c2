"""Two axes against each other: one quantity, a row for each value of one axis and a column for each of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from results.costs import KIND
from results.load import Evidence, TrialRecord
from results.provenance import ABSENT
from results.table import Row, Section, Table
from results.tables.axes import Axis, find_axes, named_axis
from results.tables.fill import source_of, with_intervals
from results.tables.metric_columns import MetricColumn, named
from results.tables.options import Column as QuantityOption
from results.tables.options import Options as CommonOptions
from results.tables.options import Stem
from results.tables.row_notes import DEVICES, absence, device_notes, has_several_devices, row_notes, states
from results.tables.scores import Scores
from results.tables.select import configurations, selected

Trials = tuple[TrialRecord, ...]
#: (value on the rows' axis, value on the columns' axis) -> configurations there
Crossing = Mapping[tuple[str, str], Sequence[Trials]]


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "pivot"
    caption: str = "Two settings against each other."
    #: dotted keys, in which `*` matches any index, or short names; null: the two axes that vary, if just two do
    rows: str | None = None
    columns: str | None = None
    value: QuantityOption = named("novel_psnr")
    #: conditions on trials, as those of a row; see `results.tables.select.selected`
    select: dict[str, Any] = Field(default_factory=dict)

    @property
    def selectors(self) -> Sequence[Mapping[str, Any]]:
        return [self.select]

    @property
    def axes(self) -> Sequence[str]:
        return [name for name in (self.rows, self.columns) if name is not None]


def build(evidence: Evidence, options: Options) -> Table:
    """Means over objects, then over seeds.  A cell with several configurations stays empty and has a note."""
    trained = [record for record in evidence.records if not record.planned.control]
    groups = configurations(selected(trained, options.select))
    configs = [group[0].planned.flat_config for group in groups]
    frame = Table(options.name, options.caption, (), ())
    try:
        axes = _axes(configs, options, evidence.plan.axes)
    except ValueError as error:
        return replace(frame, notes=(f"Nothing to show: {error}.",))
    if len(axes) != 2:
        listed = "; ".join(f"{axis.label} ({', '.join(axis.keys)})" for axis in axes) or "none"
        reason = f"Nothing to show: a pivot has two axes, and these settings vary here: {listed}."
        return replace(frame, notes=(f"{reason} Name two of them as `rows` and `columns` in a table file.",))
    crossing: dict[tuple[str, str], list[Trials]] = {}
    for group, config in zip(groups, configs, strict=True):
        crossing.setdefault((axes[0].value(config), axes[1].value(config)), []).append(group)
    labels = [axis.label for axis in axes]
    return _filled(frame, crossing, labels, options.value, Scores.of(evidence, [options.value]))


def _axes(configs: Sequence[Mapping[str, Any]], options: Options, declared: Mapping[str, str]) -> list[Axis]:
    """The requested axes, or else those that vary.  Raises `ValueError` for one that no configuration has."""
    requested = [name and named_axis(name, configs, declared) for name in (options.rows, options.columns)]
    if all(requested):
        return [axis for axis in requested if axis]
    found = [axis for axis in find_axes(configs, declared) if axis.is_declared or not declared]
    if not declared:  # an older plan, whose settings may follow from others: that one is absent does not make an axis
        found = [axis for axis in found if len({axis.value(config) for config in configs} - {ABSENT}) > 1]
    one = requested[0] or requested[1]
    if not one:
        return found
    others = [axis for axis in found if not set(axis.keys) & {*one.keys, *one.parts}]
    return [one, *others] if requested[0] else [*others, one]


def _filled(frame: Table, crossing: Crossing, axes: Sequence[str], quantity: MetricColumn, scores: Scores) -> Table:
    across = list(dict.fromkeys(column for _, column in crossing))
    down = list(dict.fromkeys(row for row, _ in crossing))
    everyone = (record for groups in crossing.values() for group in groups for record in group)
    has_devices = has_several_devices([quantity], everyone)
    rows = tuple(_row(value, across, crossing, quantity, scores, has_devices=has_devices) for value in down)
    columns = tuple(
        replace(quantity.column, name=f"{quantity.name}[{value}]", label=value, group=axes[1], direction=None)
        for value in across
    )
    end = "" if frame.caption.endswith((".", "?", "!")) else "."
    of_views = "" if quantity.view_kind == KIND else f", {quantity.view_kind} views"
    caption = f"{frame.caption}{end} {quantity.column.label}{of_views}."
    table = replace(
        frame,
        caption=caption,
        columns=columns,
        sections=(Section(rows, ranked=False),),
        row_header=axes[0],
        notes=(DEVICES,) if has_devices else (),
    )
    return with_intervals(table, [quantity] * len(columns), scores)


def _row(
    value: str,
    across: Sequence[str],
    crossing: Crossing,
    quantity: MetricColumn,
    scores: Scores,
    *,
    has_devices: bool,
) -> Row:
    """has_devices: whether costs of several devices are shown, so that notes name them."""
    cells, notes, everyone = [], [], []
    for column in across:
        groups = crossing.get((value, column), ())
        records = sorted((record for group in groups for record in group), key=lambda record: record.planned.seed)
        everyone += records
        if len(groups) > 1:
            names = ", ".join(group[0].planned.name for group in groups)
            notes.append(f"Several configurations at {column}, so no mean: {names}; choose with `select`.")
        keys = [record.planned.key for record in records] if len(groups) == 1 else []
        cells.append(scores.cell(keys, quantity, sources=tuple(map(source_of, records))))
        told = (*row_notes(records), *(device_notes(records) if has_devices else ()))
        notes += [f"{column}: {note}" for note in told] if len(groups) == 1 else []
    is_mixed = any(len(crossing.get((value, column), ())) > 1 for column in across)
    has_values = any(cell.values for cell in cells)
    state = states(everyone) if has_values else "several configurations" if is_mixed else absence(everyone)
    return Row(value, tuple(cells), tuple(map(source_of, everyone)), state, tuple(notes))
