"""Rows from a table file: each selects trials, and may have published values beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, model_validator

from results.load import Evidence, TrialRecord
from results.table import Table, printed_order, rounded
from results.tables.baseline import find_baseline
from results.tables.fill import Block, Entry, fill
from results.tables.metric_columns import STANDARD, MetricColumn
from results.tables.options import Columns, Strict, as_tuple
from results.tables.options import Options as CommonOptions
from results.tables.select import TRIAL, configurations, selected

Texts = Annotated[tuple[str, ...], as_tuple]


class RowOptions(Strict):
    """A row.  Without `select`, it is a published result that no trial reproduces."""

    label: Annotated[str, Field(min_length=1)]
    #: conditions on trials; see `results.tables.select.selected`
    select: dict[str, Any] | None = None
    #: neighbouring rows of one group share a label that spans them
    group: str = ""
    #: published values by column
    references: dict[str, FiniteFloat] = Field(default_factory=dict)
    #: columns in which the publication does not mark this row as best; contradictions are reported
    published_unmarked: Texts = ()
    notes: Texts = ()


class SectionOptions(Strict):
    """Rows between two rules."""

    rows: Annotated[tuple[RowOptions, ...], as_tuple, Field(min_length=1)]
    label: str = ""
    #: whether its rows compete for best and second
    ranked: bool = True


class Options(CommonOptions):
    """Options of this kind of table."""

    #: empty means the published metrics on both kinds of views
    columns: Columns = ()
    sections: Annotated[tuple[SectionOptions, ...], as_tuple, Field(min_length=1)]
    row_header: str = "Trial"
    #: label of a row, or a row that does not stand in the table
    baseline: str | RowOptions | None = None
    #: where the references come from
    citation: str = ""
    notes: Texts = ()
    #: remarks on the publication beyond its numbers
    remarks: Texts = ()

    @property
    def selectors(self) -> Sequence[Mapping[str, Any]]:
        rows = [row for section in self.sections for row in section.rows]
        rows += [self.baseline] if isinstance(self.baseline, RowOptions) else []
        return [row.select for row in rows if row.select is not None]

    @model_validator(mode="after")
    def _check_names(self) -> Options:
        columns = [quantity.name for quantity in self.columns or STANDARD]
        rows = [row for section in self.sections for row in section.rows]
        for row in rows:
            for name in (*row.references, *row.published_unmarked):
                if name not in columns:
                    raise ValueError(f"row {row.label!r}: no column {name!r}; allowed: {', '.join(columns)}")
        labels = [row.label for row in rows if row.select is not None]
        if isinstance(self.baseline, str) and self.baseline not in labels:
            raise ValueError(f"baseline: no row {self.baseline!r} with trials; allowed: {', '.join(labels)}")
        return self


def build(evidence: Evidence, options: Options) -> Table:
    """The rows of the file, in its order; one whose selector finds nothing has a note."""
    quantities = options.columns or STANDARD
    blocks = [
        Block(tuple(entry for row in section.rows for entry in _entries(row, evidence)), section.ranked, section.label)
        for section in options.sections
    ]
    baseline, comparison = _baseline(options, blocks, evidence)
    frame = Table(
        name=options.name,
        caption=options.caption,
        columns=(),
        sections=(),
        row_header=options.row_header,
        notes=(*options.notes, *comparison),
        citation=options.citation,
        remarks=(*_findings(options, quantities), *options.remarks),
    )
    return fill(frame, blocks, quantities, evidence, baseline)


def _entries(row: RowOptions, evidence: Evidence) -> list[Entry]:
    """One row; where several configurations match, one for each, since their mean would mean nothing."""
    groups = _matching(row, evidence)
    if len(groups) < 2:
        records = groups[0] if groups else ()
        return [Entry(row.label, records, row.group, row.references, row.notes, row.select is None)]
    note = f"{len(groups)} configurations match {row.label!r}; each has a row of its own."
    return [
        Entry(f"{row.label} ({group[0].planned.name})", group, row.group, row.references, (*row.notes, note))
        for group in groups
    ]


def _matching(row: RowOptions, evidence: Evidence) -> list[tuple[TrialRecord, ...]]:
    """Trials that match the row; trivial baselines are matched by name only, as their configuration has no network."""
    if row.select is None:
        return []
    records = [record for record in evidence.records if TRIAL in row.select or not record.planned.control]
    return configurations(selected(records, row.select))


def _baseline(options: Options, blocks: Sequence[Block], evidence: Evidence) -> tuple[Entry | None, tuple[str, ...]]:
    """The baseline, which need not be a row of the table, and notes on it."""
    if options.baseline is None:
        return find_baseline([entry for block in blocks for entry in block.entries if entry.records], evidence)
    wanted = [options.baseline] if isinstance(options.baseline, RowOptions) else _labelled(options, options.baseline)
    matching = [group for row in wanted for group in _matching(row, evidence)]
    groups = list({tuple(record.planned.key for record in group): group for group in matching}.values())
    label, count = wanted[0].label, len(groups)
    if count == 1:
        return Entry(label, groups[0]), ()
    return None, (f"Nothing is compared: {count or 'no'} configurations are the baseline {label!r}.",)


def _labelled(options: Options, label: str) -> list[RowOptions]:
    rows = [row for section in options.sections for row in section.rows]
    return [row for row in rows if row.label == label]


def _findings(options: Options, quantities: Sequence[MetricColumn]) -> list[str]:
    """Remarks where published marks contradict published numbers, or rows are worse than the published baseline."""
    rows = [row for section in options.sections for row in section.rows]
    findings: list[str] = []
    for quantity in quantities:
        findings += _unmarked_best(rows, quantity)
        if isinstance(options.baseline, RowOptions):
            findings += _worse_than(options.baseline, rows, quantity)
    return findings


def _unmarked_best(rows: Sequence[RowOptions], quantity: MetricColumn) -> Iterator[str]:
    if quantity.column.direction is None:
        return
    published = [row.references[quantity.name] for row in rows if quantity.name in row.references]
    order = printed_order(published, quantity.column)
    for row in rows:
        is_unmarked = quantity.name in row.published_unmarked and quantity.name in row.references
        if is_unmarked and order[0] == (_printed(row, quantity), 1):
            yield (
                f"The published marks contradict the published numbers: {_named(row)} has the best {_title(quantity)} "
                f"({_printed(row, quantity)}) and is not marked."
            )


def _worse_than(baseline: RowOptions, rows: Sequence[RowOptions], quantity: MetricColumn) -> Iterator[str]:
    reference = baseline.references.get(quantity.name)
    if reference is None or quantity.column.direction is None:
        return
    sign = 1 if quantity.column.direction == "up" else -1
    worse = [row for row in rows if sign * (row.references.get(quantity.name, reference) - reference) < 0]
    if worse:
        listed = ", ".join(f"{_named(row)} ({_printed(row, quantity)})" for row in worse)
        yield (
            f"Published with a worse {_title(quantity)} than {baseline.label} "
            f"({_printed(baseline, quantity)}): {listed}."
        )


def _named(row: RowOptions) -> str:
    return f"{row.group} {row.label}".strip()


def _title(quantity: MetricColumn) -> str:
    return f"{quantity.view_kind} {quantity.column.label}"


def _printed(row: RowOptions, quantity: MetricColumn) -> str:
    return rounded(row.references[quantity.name], quantity.column.precision)
