"""Ablation table: the full configuration, those without one component each, and the differences."""

from __future__ import annotations

from dataclasses import replace

from results.load import Evidence
from results.table import Cell, Column, Table
from results.tables.auto import entries
from results.tables.baseline import find_baseline
from results.tables.fill import Block, Entry, fill
from results.tables.metric_columns import MetricColumn, named
from results.tables.options import Columns, Stem
from results.tables.options import Options as CommonOptions
from results.tables.scores import Scores

#: prefix of the names of a `leave_one_out` block's trials
_PREFIX = "without "
_DEFAULT = tuple(map(named, ("novel_psnr", "novel_ssim", "novel_lpips")))


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "leave_one_out"
    caption: str = "What is lost without each component."
    #: empty means the published metrics on novel views
    columns: Columns = ()
    #: name of the full configuration's trial; null means the sweep file's baseline, or one of the usual names
    baseline: str | None = None


def build(evidence: Evidence, options: Options) -> Table:
    """Each metric column is followed by a column of differences: this row minus the full one, seed by seed."""
    trained = entries(record for record in evidence.records if not record.planned.control)
    full, notes = find_baseline(trained, evidence, options.baseline)
    rows = tuple(entry for entry in trained if entry is full or _lacks_a_component(entry))
    quantities = options.columns or _DEFAULT
    if full is None or len(rows) < 2:
        notes = ("Nothing to show: the sweep has no trials called `without ...` beside a full one (`leave_one_out`).",)
        rows = ()
    frame = Table(options.name, options.caption, (), (), notes=notes)
    table = fill(frame, [Block(rows)], quantities, evidence, full)
    return table if full is None else _with_changes(table, full, quantities, Scores.of(evidence, quantities))


def _lacks_a_component(entry: Entry) -> bool:
    """Whether a `leave_one_out` block has its trials, perhaps under a name that comes after that of another trial."""
    return any(name.startswith(_PREFIX) for record in entry.records for name in record.planned.names)


def _with_changes(table: Table, full: Entry, quantities: tuple[MetricColumn, ...], scores: Scores) -> Table:
    columns = tuple(item for column in table.columns for item in (column, _change(column)))
    baseline = {record.planned.seed: record.planned.key for record in full.records}
    sections = []
    for section in table.sections:
        rows = []
        for row in section.rows:
            pairs = [(source.key, baseline[source.seed]) for source in row.sources if source.seed in baseline]
            is_full = all(own == other for own, other in pairs)
            cells = []
            for cell, quantity in zip(row.cells, quantities, strict=True):
                found = None if is_full else scores.differences(pairs, quantity)
                changes = () if found is None else tuple(float(change) for change in found.mean(1))
                compared = cell.comparison
                interval = (compared.low, compared.high) if compared and changes else None
                cells += [cell, Cell(changes, interval=interval)]
            rows.append(replace(row, cells=tuple(cells)))
        sections.append(replace(section, rows=tuple(rows)))
    return replace(table, columns=columns, sections=tuple(sections))


def _change(column: Column) -> Column:
    """The column of differences; it is not ranked, unlike the column beside it."""
    return Column(f"{column.name}_change", f"Δ {column.label}", column.group, None, column.precision)
