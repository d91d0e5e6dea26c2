"""Provenance of one number of a table: runs, seeds, objects, configuration, data and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import ResultsError, did_you_mean
from results.load import SweepLike, TrialRecord, read_evidence
from results.records.arithmetic import recorded_arithmetic
from results.records.find import AmbiguousTrialError, UnknownTrialError, find_trial_folder
from results.records.tags import (
    CONTINUED_FROM,
    DATA_CHECKSUM,
    DATA_FINGERPRINT,
    JUDGED_STEP,
    code_of,
    evaluation_of,
)
from results.render.layout import column_title
from results.table import Cell, Column, Row, Table
from results.tables import COSTS, SEEDS, wanted_tables


@dataclass(frozen=True)
class Origin:
    """One trial behind a cell."""

    key: str
    seed: int
    state: str
    note: str
    #: mean over objects; None where the trial contributes nothing to the cell
    value: float | None
    run_id: str | None
    objects: tuple[str, ...]
    data_fingerprint: str
    #: "" where not recorded
    data_checksum: str
    commit: str
    #: rasteriser, execution, precision and device, with every choice resolved; empty where not recorded
    arithmetic: dict[str, str]
    #: the trainings that its training continues; empty for one from the start
    continued_from: str
    #: iterations after which the evaluated weights were best; empty where the last are evaluated
    judged_step: str
    #: host, code, backend and device of the evaluation; empty where the training's process evaluated
    evaluation: dict[str, str]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Explanation:
    """A cell of a table, with the trials that it is computed from."""

    table: Table
    row: Row
    column: Column
    cell: Cell
    origins: tuple[Origin, ...]


def explain(
    sweep: SweepLike, home: Path, tables: Sequence[str], table: str, row: str, column: str
) -> tuple[Explanation, ...]:
    """The cells of that name: one, or one for every row with that label.

    `row` is a label, with its group before a slash where labels repeat ("Input/DPT_Large"), a name of its trials, or
    one of these (`results.records.find`); `column` is a column's name or title.  Raises `ResultsError`, listing the
    alternatives, where one of them does not exist, and with the reason for a table without rows.
    """
    evidence = read_evidence(sweep, home)
    wanted = wanted_tables(tables)
    if table not in wanted:  # a report has these as well
        others = (SEEDS, COSTS) if evidence.plan.seeds is not None else (COSTS,)
        wanted |= wanted_tables([name for name in others if name not in wanted])
    kind, options = wanted[_named("table", table, list(wanted))]
    chosen = kind.build(evidence, options)
    if not chosen.rows:
        raise ResultsError(f"the table {table!r} has no rows. {' '.join(chosen.notes)}".rstrip())
    columns = {name: place for place, found in enumerate(chosen.columns) for name in (column_title(found), found.name)}
    place = columns[_named("column", column, list(columns))]
    rows: dict[str, list[Row]] = {}
    for found in chosen.rows:
        for name in _row_names(found):
            rows.setdefault(name, []).append(found)
    records = {record.planned.key: record for record in evidence.records}
    meant = rows.get(row) or _rows_of_trials(row, chosen, records, sweep.name, home)
    return tuple(_explanation(chosen, found, place, records) for found in meant or rows[_named("row", row, list(rows))])


def _rows_of_trials(text: str, table: Table, records: Mapping[str, TrialRecord], sweep: str, home: Path) -> list[Row]:
    """The rows with a trial that `text` means by a name, `NAME seed N`, a key, or its beginning; none for another text.

    Raises `ResultsError` for a beginning of several keys, which it names.
    """
    keys = {key for key, record in records.items() if text in record.planned.names}
    try:
        keys = keys or {find_trial_folder(text, home, sweep).name}
    except AmbiguousTrialError as error:
        raise ResultsError(f"{error.several}; name one by more of its key") from None
    except UnknownTrialError:
        return []
    return [row for row in table.rows if not keys.isdisjoint(source.key for source in row.sources)]


def _row_names(row: Row) -> list[str]:
    """Names that a row is found by: its name outside of the table, or its label with and without its group."""
    return [row.name] if row.name else list(dict.fromkeys((row.label, f"{row.group}/{row.label}".lstrip("/"))))


def _named(kind: str, wanted: str, names: Sequence[str]) -> str:
    if wanted in names:
        return wanted
    there = ", ".join(dict.fromkeys(names)) or "none"
    raise ResultsError(f"there is no {kind} {wanted!r}; {did_you_mean(wanted, names)}there are: {there}")


def _explanation(table: Table, row: Row, place: int, records: dict[str, TrialRecord]) -> Explanation:
    cell, column, sources = row.cells[place], table.columns[place], row.sources_of(place)
    keys = cell.keys or tuple(source.key for source in sources if source.state == "finished")
    # A finished trial may lack the metric; a cell without keys does not show which value belongs to which trial then.
    values = dict(zip(keys, cell.values, strict=True)) if len(keys) == cell.n else {}
    origins = tuple(_origin(records[source.key], values.get(source.key), column) for source in sources)
    return Explanation(table, row, column, cell, origins)


def _origin(record: TrialRecord, value: float | None, column: Column) -> Origin:
    tags = record.run.tags if record.run else {}
    return Origin(
        key=record.planned.key,
        seed=record.planned.seed,
        state=record.state,
        note=record.note,
        value=value,
        run_id=record.run.run_id if record.run else None,
        objects=_objects(record, column.category),
        data_fingerprint=tags.get(DATA_FINGERPRINT, ""),
        data_checksum=tags.get(DATA_CHECKSUM, ""),
        commit=code_of(tags),
        arithmetic=recorded_arithmetic(tags),
        continued_from=tags.get(CONTINUED_FROM, ""),
        judged_step=tags.get(JUDGED_STEP, ""),
        evaluation=evaluation_of(tags),
        config=record.planned.flat_config,
    )


def _objects(record: TrialRecord, category: str | None) -> tuple[str, ...]:
    """The objects that a trial was evaluated on: all, or those of one category."""
    found = record.per_object
    if found is None:
        return ()
    names = found.object if category is None else found.object.where(found.category.among([category]))
    return tuple(sorted(names.used()))
