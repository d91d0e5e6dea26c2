"""One row per configuration, in the plan's order; trivial baselines stand below a rule and are not ranked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from results.load import Evidence, TrialRecord
from results.provenance import ABSENT
from results.table import Row, Table
from results.tables.axes import named_axis
from results.tables.baseline import find_baseline
from results.tables.fill import Block, Entry, fill, with_texts
from results.tables.metric_columns import measured
from results.tables.options import Columns, Stem
from results.tables.options import Options as CommonOptions
from results.tables.select import configurations

#: description of each trivial baseline; its trial's name may continue after a space
_TRIVIAL = {
    "blank": "blank (the background colour everywhere)",
    "copy_input": "copy_input (the input view for every target)",
}


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "auto"
    caption: str = "Reconstruction quality per trial: mean over views, then over objects."
    #: empty means the metrics of the trials' evaluation, on both kinds of views
    columns: Columns = ()
    #: name of the trial that all others are compared with; null means the sweep file's, or one of the usual names
    baseline: str | None = None


def build(evidence: Evidence, options: Options) -> Table:
    """Means over objects per seed, then over seeds.  A NaN among the values makes the mean NaN."""
    trained = entries(record for record in evidence.records if not record.planned.control)
    controls = entries(record for record in evidence.records if record.planned.control)
    baseline, comparison = find_baseline(trained, evidence, options.baseline)
    notes = (*_trivial_notes([entry.label for entry in controls]), *comparison)
    frame = Table(options.name, options.caption, (), (), notes=notes)
    quantities = options.columns or measured(record.planned.plain_config for record in evidence.records)
    table = fill(frame, [Block(trained), Block(controls, ranked=False)], quantities, evidence, baseline)
    return with_axes(table, trained, evidence.plan.axes)


def entries(records: Iterable[TrialRecord]) -> tuple[Entry, ...]:
    """A row for each configuration, with the name of its trials."""
    return tuple(Entry(group[0].planned.name, group) for group in configurations(records))


def with_axes(table: Table, rows: Sequence[Entry], declared: Mapping[str, str]) -> Table:
    """The table with a column of text for each axis of a grid, and labels that do not repeat these.

    The first axis has no column: its value is the label of the grid's points.  Where other rows stand beside them the
    label is `axis=value`, else the axis is the column's header.

    rows: the trained rows; declared: dotted key -> short name, of what the sweep file varies.
    """
    axes = _axis_columns(rows)
    if not axes:
        return table
    points = {label for values in axes.values() for label in values}
    is_grid_alone = all(entry.label in points for entry in rows)
    axes = _of_all_rows(axes, rows, declared)
    first, *_ = axes

    def shortened(row: Row) -> Row:
        row = replace(row, cells=row.cells[1:])
        if row.label not in points:
            return row
        value = axes[first].get(row.label, ABSENT)
        return replace(row, label=value if is_grid_alone else f"{first}={value}", name=row.label)

    table = with_texts(table, axes)
    sections = tuple(replace(section, rows=tuple(map(shortened, section.rows))) for section in table.sections)
    header = first if is_grid_alone else table.row_header
    return replace(table, columns=table.columns[1:], sections=sections, row_header=header)


def _axis_columns(rows: Sequence[Entry]) -> dict[str, dict[str, str]]:
    """Axis -> row -> value, from the names of a grid's points, such as `model=midas_small fusion=input`.

    Axes with one value are left out, unless only some of the points have them.
    """
    axes: dict[str, dict[str, str]] = {}
    for entry in rows:
        settings = [setting.partition("=") for setting in entry.label.split(" ")]
        if all(name and equals for name, equals, _ in settings):
            for name, _, value in settings:
                axes.setdefault(name, {})[entry.label] = value
    varied = {axis for axis, values in axes.items() if len(set(values.values())) > 1}
    points = {label for axis in varied for label in axes[axis]}
    return {
        axis: values for axis, values in axes.items() if axis in varied or 0 < len(points & values.keys()) < len(points)
    }


def _of_all_rows(
    axes: Mapping[str, Mapping[str, str]], rows: Sequence[Entry], declared: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Axis -> row -> value, also of rows whose names do not have the axis; plans of earlier versions declare none."""
    configs = {entry.label: entry.records[0].planned.flat_config for entry in rows}
    found = {name: dict(values) for name, values in axes.items()}
    for name in found.keys() & set(declared.values()):
        with suppress(ValueError):  # an axis of nothing but absent settings
            axis = named_axis(name, list(configs.values()), declared)
            found[name] = {label: axis.value(config) for label, config in configs.items()} | found[name]
    return found


def _trivial_notes(labels: Sequence[str]) -> tuple[str, ...]:
    known = dict.fromkeys(label.split()[0] for label in labels if label.split()[0] in _TRIVIAL)
    if not known:
        return ()
    return (f"Below the rule, trivial baselines without training: {' and '.join(_TRIVIAL[name] for name in known)}.",)
