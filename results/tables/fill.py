"""Fills a table from trials: each row has the means over seeds, intervals, notes, comparisons and marks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isclose

import numpy as np

from results.costs import KIND
from results.load import Evidence, TrialRecord
from results.provenance import ABSENT
from results.records.plan import PrimaryMetric
from results.statistics import bootstrap_interval
from results.table import Cell, Column, Row, Section, Source, Table
from results.tables.assess import assessed
from results.tables.metric_columns import MetricColumn
from results.tables.row_notes import DEVICES, absence, device_notes, has_several_devices, row_notes, states
from results.tables.scores import Scores

#: seed of the bootstrap's draws, so that equal results give equal intervals
_DRAWS = 20240
ONE_SEED = "Rows of one seed earn no marks: another training of the same configuration may differ as much."


@dataclass(frozen=True)
class Entry:
    """A row to be filled: a label, and the trials of one configuration, one per seed."""

    label: str
    records: tuple[TrialRecord, ...] = ()
    group: str = ""
    #: published values by column
    references: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    #: whether the row has no selector, and so no trials
    is_published_only: bool = False


@dataclass(frozen=True)
class Block:
    """Rows between two rules."""

    entries: tuple[Entry, ...]
    ranked: bool = True
    label: str = ""


def fill(
    frame: Table,
    blocks: Sequence[Block],
    quantities: Sequence[MetricColumn],
    evidence: Evidence,
    baseline: Entry | None,
) -> Table:
    """Adds columns and rows to `frame`, a table with name, caption and notes only.

    Rows are compared with `baseline`, which need not be in `blocks`; None: they are not compared.
    """
    scores = Scores.of(evidence, quantities)
    shown = (record for block in blocks for entry in block.entries for record in entry.records)
    if has_several_devices(quantities, shown):
        frame, blocks = _with_devices(frame, blocks)
    beside = baseline.records if baseline else _first_trials(blocks)
    sections = tuple(
        Section(tuple(_row(entry, quantities, scores, beside) for entry in block.entries), block.ranked, block.label)
        for block in blocks
        if block.entries
    )
    table = replace(frame, columns=tuple(quantity.column for quantity in quantities), sections=sections)
    baseline_row = _row(baseline, quantities, scores, ()) if baseline else None
    table = with_intervals(table, quantities, scores)
    primary = evidence.plan.primary if baseline else None
    if primary is not None and primary.metric not in [quantity.name for quantity in quantities]:
        primary = None
    marked = assessed(table, baseline_row, quantities, scores, primary.metric if primary else None)
    return _explained(marked, quantities, primary, evidence.categories)


def with_texts(table: Table, texts: Mapping[str, Mapping[str, str]]) -> Table:
    """The table with a column of text for each of `texts` (label -> row's label -> text) before its numbers."""
    columns = tuple(Column(label, label) for label in texts)
    sections = tuple(
        replace(
            section,
            rows=tuple(
                replace(row, cells=(*(Cell(text=text.get(row.label, ABSENT)) for text in texts.values()), *row.cells))
                for row in section.rows
            ),
        )
        for section in table.sections
    )
    return replace(table, columns=(*columns, *table.columns), sections=sections)


def _with_devices(frame: Table, blocks: Sequence[Block]) -> tuple[Table, Sequence[Block]]:
    """Adds notes that name the devices of costs."""
    named = [
        tuple(replace(entry, notes=(*entry.notes, *device_notes(entry.records))) for entry in block.entries)
        for block in blocks
    ]
    blocks = [replace(block, entries=entries) for block, entries in zip(blocks, named, strict=True)]
    return replace(frame, notes=(*frame.notes, DEVICES)), blocks


def _first_trials(blocks: Sequence[Block]) -> tuple[TrialRecord, ...]:
    """Trials of the first ranked row, whose conditions the notes of others refer to without a baseline."""
    for block in blocks:
        if block.ranked and block.entries:
            return block.entries[0].records
    return ()


def _row(entry: Entry, quantities: Sequence[MetricColumn], scores: Scores, beside: Sequence[TrialRecord]) -> Row:
    records = sorted(entry.records, key=lambda record: record.planned.seed)
    keys = [record.planned.key for record in records]
    cells = tuple(scores.cell(keys, quantity, reference=entry.references.get(quantity.name)) for quantity in quantities)
    notes = (*entry.notes, *row_notes(records, beside))
    state = _state(entry, any(cell.values for cell in cells))
    return Row(entry.label, cells, tuple(map(source_of, records)), state, notes, entry.group)


def _state(entry: Entry, has_values: bool) -> str:
    if entry.records:
        return states(entry.records) if has_values else absence(entry.records)
    return "published only" if entry.is_published_only else "not in this sweep"


def source_of(record: TrialRecord) -> Source:
    """The reference to a trial in tables."""
    run = record.run.run_id if record.run else None
    return Source(record.planned.key, record.planned.seed, record.state, run)


def with_intervals(table: Table, quantities: Sequence[MetricColumn], scores: Scores) -> Table:
    """Adds intervals to all cells; the table has a column for each quantity.

    Cells with equal numbers of seeds and objects are computed together.
    """
    by_shape: dict[tuple[int, ...], list[tuple[tuple[int, int], np.ndarray]]] = defaultdict(list)
    for index, row in enumerate(table.rows):
        for column, quantity in enumerate(quantities):
            values = scores.crossed([source.key for source in table.sources(index, column)], quantity)
            # Where seeds were evaluated on different objects, the mean over common objects differs from the cell's.
            mean = row.cells[column].mean
            if values is not None and mean is not None and np.isfinite(values).all() and isclose(values.mean(), mean):
                by_shape[values.shape].append(((index, column), values))
    intervals = {}
    for group in by_shape.values():
        lows, highs = bootstrap_interval(np.stack([values for _, values in group]), np.random.default_rng(_DRAWS))
        for (place, _), low, high in zip(group, lows, highs, strict=True):
            if np.isfinite(low):  # one object and one seed have no spread
                intervals[place] = float(low), float(high)
    return table.with_cells(lambda row, column, cell: replace(cell, interval=intervals.get((row, column))))


def _explained(
    table: Table, quantities: Sequence[MetricColumn], primary: PrimaryMetric | None, categories: Sequence[str]
) -> Table:
    """Adds notes: on the primary metric, on rows of one seed, which get no marks, and on columns without a value."""
    notes = list(table.notes)
    if primary is not None:
        late = " Error rates hold for a choice made before." if primary.finished else ""
        notes.append(f"Primary metric: {primary}.{late}")
        table = replace(table, families=f"the tests of {primary.metric}, and over all others")
    rows = [row for index in table.competitors if not (row := table.rows[index]).is_empty]
    if len(rows) > 1 and any(all(cell.n < 2 for cell in row.cells) for row in rows):
        notes.append(ONE_SEED)
    measured = [row for row in table.rows if not row.is_empty]
    absent = [q for column, q in enumerate(quantities) if not any(row.cells[column].values for row in measured)]
    unknown = [q.category for q in absent if q.category is not None and q.category not in categories]
    costs = [q.name for q in absent if q.view_kind == KIND]
    scores = [q.name for q in absent if q.view_kind != KIND and q.category not in unknown]
    if measured and unknown:
        recorded = ", ".join(categories) or "none"
        notes.append(f"No object has the category {', '.join(dict.fromkeys(unknown))}; recorded: {recorded}.")
    if measured and scores:
        notes.append(f"No trial of this table has {', '.join(scores)}; eval.metrics lists what trials measure.")
    if measured and costs:
        notes.append(
            f"No trial of this table has {', '.join(costs)}; `splatsweep evaluate SWEEP --costs` measures costs."
        )
    return replace(table, notes=tuple(notes))
