"""Two sweeps side by side: rows of the same name, tests where seeds and objects pair, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from results.errors import ResultsError
from results.load import Evidence, TrialRecord
from results.metrics import determines_scores
from results.provenance import ABSENT
from results.records import tags
from results.records.damage import DamagedFileError, read_object
from results.records.flat import as_written, flatten
from results.records.home import trial_folder
from results.records.trial_folder import RESULT_FILENAME
from results.table import Cell, Column, Row, Section, Table
from results.tables.assess import paired_comparisons
from results.tables.auto import entries
from results.tables.fill import Entry, source_of
from results.tables.metric_columns import MetricColumn, distinct, named
from results.tables.row_notes import DEVICES, device_notes, has_several_devices, row_notes, states
from results.tables.scores import Scores

DEFAULT = ("novel_psnr", "novel_ssim", "novel_lpips")
_SHORT = 7
_MOST_LISTED = 8


@dataclass(frozen=True)
class Pair:
    """Rows of one name, or one row alone, where `first` or `second` is None."""

    label: str
    first: Entry | None
    second: Entry | None
    #: why the two cannot be compared; empty where they can
    obstacles: tuple[str, ...] = ()
    #: settings in which they differ: key -> (first, second)
    differing: Mapping[str, tuple[str, str]] | None = None

    @property
    def is_comparable(self) -> bool:
        """Whether both sides exist and were evaluated alike."""
        return self.first is not None and self.second is not None and not self.obstacles

    @property
    def is_shared(self) -> bool:
        """Whether both sides are the same trials; one may have seeds that the other lacks."""
        return self.first is not None and self.second is not None and bool(_keys(self.first) & _keys(self.second))


def compare(first: Evidence, second: Evidence, home: Path, columns: Sequence[str] = DEFAULT) -> Table:
    """A table of both sweeps: for each of `columns` their means and the difference, the second minus the first.

    Raises `ResultsError` where no row has the same name in both, or none of those can be compared, with the reasons;
    `ValueError` for a column that does not exist, or is listed twice.
    """
    quantities = distinct([named(column) for column in columns])
    if not quantities:
        raise ValueError("no column is named")
    names = _sides(first, second)
    pairs = _pairs(first, second, home)
    _refuse_nothing(pairs, names)
    records = {record.planned.key: record for record in (*first.records, *second.records)}
    both = Evidence(first.plan, first.store, tuple(records.values()))
    scores = Scores.of(both, quantities)
    sides = [tuple(_row(entry, quantities, scores) for entry in (pair.first, pair.second)) for pair in pairs]
    tested = [
        (newer, older) if pair.is_comparable and not pair.is_shared else None
        for pair, (older, newer) in zip(pairs, sides, strict=True)
    ]
    comparisons = paired_comparisons(tested, quantities, scores, names[0])
    common = _common(pairs)
    has_devices = has_several_devices(quantities, both.records)
    rows = []
    for index, (pair, (older, newer)) in enumerate(zip(pairs, sides, strict=True)):
        cells: list[Cell] = []
        for column, quantity in enumerate(quantities):
            found = comparisons.get((index, column))
            cells += [
                older.cells[column],
                replace(newer.cells[column], comparison=found),
                _difference(pair, quantity, scores, (found.low, found.high) if found else None),
            ]
        notes = (*_notes(pair, names, common), *_notes_of_sides(pair, names, has_devices=has_devices))
        sources = (*older.sources, *newer.sources)
        state = states([record for entry in (pair.first, pair.second) if entry for record in entry.records])
        rows.append(Row(pair.label, tuple(cells), sources, state, notes))
    caption = f"{names[1]} compared with {names[0]}: means over objects, then over seeds, and the difference."
    return Table(
        "comparison",
        caption,
        tuple(column for quantity in quantities for column in _columns(quantity, names)),
        (Section(tuple(rows), ranked=False),),
        "Row",
        (*_notes_below(first, second, names, common, pairs), *((DEVICES,) if has_devices else ())),
    )


def _sides(first: Evidence, second: Evidence) -> tuple[str, str]:
    """Names of the two sweeps, which differ."""
    names = first.plan.sweep, second.plan.sweep
    return names if names[0] != names[1] else (f"{names[0]} (first)", f"{names[1]} (second)")


def _pairs(first: Evidence, second: Evidence, home: Path) -> list[Pair]:
    """The rows of the first sweep, then those that only the second has; trivial baselines after the trained rows."""
    pairs = []
    for control in (False, True):
        older, newer = (
            entries(record for record in side.records if record.planned.control == control) for side in (first, second)
        )
        of_older, of_newer = _by_name(older), _by_name(newer)
        found = [_pair(entry.label, entry, _called_alike(entry, of_newer), home) for entry in older]
        paired = {pair.second.label for pair in found if pair.second}
        alone = [entry for entry in newer if entry.label not in paired]
        found += [_pair(entry.label, _called_alike(entry, of_older), entry, home) for entry in alone]
        pairs += found
    return pairs


def _by_name(rows: Sequence[Entry]) -> dict[str, Entry]:
    """The row of each name of its trials; equal trials are one row, whose first name is its label."""
    every = {name: entry for entry in rows for name in entry.records[0].planned.names}
    return every | {entry.label: entry for entry in rows}


def _called_alike(entry: Entry, others: Mapping[str, Entry]) -> Entry | None:
    return next((others[name] for name in entry.records[0].planned.names if name in others), None)


def _pair(label: str, one: Entry | None, other: Entry | None, home: Path) -> Pair:
    if one is None or other is None:
        return Pair(label, one, other)
    differing = _differing(one.records[0], other.records[0])
    return Pair(label, one, other, _obstacles(one, other, differing, home), differing)


def _differing(one: TrialRecord, other: TrialRecord) -> dict[str, tuple[str, str]]:
    """Settings in which two trials differ, and frozen weights and code if both ran; what one lacks is a dash."""
    values = [_settings(record) for record in (one, other)]
    if one.run and other.run:
        values = [values[0] | _recorded(one.run.tags), values[1] | _recorded(other.run.tags)]
    names = dict.fromkeys(name for side in values for name in side)
    both = {name: (values[0].get(name, ABSENT), values[1].get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _settings(record: TrialRecord) -> dict[str, str]:
    # Without the defaults that plans of earlier versions do not state.
    flat = flatten(record.planned.plain_config)
    return {key: as_written(value) for key, value in flat.items() if key != "seed"}


def _recorded(recorded: Mapping[str, str]) -> dict[str, str]:
    """Frozen weights and code, from the tags of a run."""
    weights = {
        f"weights of {name.removeprefix(tags.WEIGHTS)}": value[:_SHORT]
        for name, value in recorded.items()
        if name.startswith(tags.WEIGHTS)
    }
    commit = tags.code_of(recorded, _SHORT)
    return weights | ({"code": commit} if commit else {})


def _obstacles(one: Entry, other: Entry, differing: Mapping[str, tuple[str, str]], home: Path) -> tuple[str, ...]:
    """Reasons why scores of two rows cannot be compared: other data, pictures, metrics or evaluation."""
    found = [f"{name} {values[0]} and {values[1]}" for name, values in differing.items() if determines_scores(name)]
    for what, of in (("data", _fingerprints), ("version of the evaluation", lambda entry: _versions(entry, home))):
        values = of(one), of(other)
        if all(values) and values[0] != values[1]:
            found.append(f"{what} {' and '.join(values)}")
    return tuple(found)


def _fingerprints(entry: Entry) -> str:
    finished = (record.run.tags.get(tags.DATA_FINGERPRINT, "")[:_SHORT] for record in entry.records if record.run)
    return ", ".join(dict.fromkeys(filter(None, finished)))


def _versions(entry: Entry, home: Path) -> str:
    """Versions of the evaluation, from results in this home; "" where they are elsewhere."""
    found: dict[str, None] = {}
    for record in entry.records:
        try:
            found[str(read_object(trial_folder(home, record.planned.key) / RESULT_FILENAME)["evaluation"])] = None
        except (OSError, KeyError, DamagedFileError):
            continue
    return ", ".join(found)


def _refuse_nothing(pairs: Sequence[Pair], names: tuple[str, str]) -> None:
    """Raises `ResultsError` where no trained row stands on both sides and can be compared."""
    trained = [pair for pair in pairs if not _is_control(pair)]
    both = [pair for pair in trained if pair.first and pair.second]
    if not both:
        listed = [
            ", ".join([pair.label for pair in trained if getattr(pair, side)][:_MOST_LISTED]) or "none"
            for side in ("first", "second")
        ]
        raise ResultsError(
            f"no row has the same name in both sweeps; rows of {names[0]}: {listed[0]}; of {names[1]}: {listed[1]}"
        )
    if not any(pair.is_comparable for pair in both):
        reasons = dict.fromkeys(reason for pair in both for reason in pair.obstacles)
        raise ResultsError(
            f"{names[0]} and {names[1]} cannot be compared, since their scores do not measure the same: "
            f"{'; '.join(reasons)}"
        )


def _is_control(pair: Pair) -> bool:
    return any(entry.records[0].planned.control for entry in (pair.first, pair.second) if entry)


def _keys(entry: Entry) -> set[str]:
    return {record.planned.key for record in entry.records}


def _row(entry: Entry | None, quantities: Sequence[MetricColumn], scores: Scores) -> Row:
    records = entry.records if entry else ()
    keys = [record.planned.key for record in records]
    cells = tuple(scores.cell(keys, quantity, sources=tuple(map(source_of, records))) for quantity in quantities)
    return Row(entry.label if entry else "", cells, tuple(map(source_of, records)))


def _difference(pair: Pair, quantity: MetricColumn, scores: Scores, interval: tuple[float, float] | None) -> Cell:
    """The second minus the first, seed by seed where both have the seed, on the objects that both have."""
    if not pair.is_comparable or pair.is_shared or pair.first is None or pair.second is None:
        return Cell()
    keys = {record.planned.seed: record.planned.key for record in pair.first.records}
    shared = [(r.planned.key, keys[r.planned.seed]) for r in pair.second.records if r.planned.seed in keys]
    found = scores.differences(shared, quantity)
    return Cell() if found is None else Cell(tuple(float(value) for value in found.mean(1)), interval=interval)


def _columns(quantity: MetricColumn, names: tuple[str, str]) -> tuple[Column, Column, Column]:
    column = quantity.column
    group = f"{column.group}: {column.label}"
    return (
        replace(column, name=f"{quantity.name}_first", label=names[0], group=group),
        replace(column, name=f"{quantity.name}_second", label=names[1], group=group),
        Column(f"{quantity.name}_change", "difference", group, None, column.precision),
    )


def _common(pairs: Sequence[Pair]) -> dict[str, tuple[str, str]]:
    """The differences that all pairs of trained rows have."""
    found = [pair.differing for pair in pairs if pair.differing is not None and not _is_control(pair)]
    return {name: values for name, values in found[0].items() if all(other.get(name) == values for other in found)}


def _notes(pair: Pair, names: tuple[str, str], common: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """Notes on the relation of a row's two sides."""
    if pair.first is None or pair.second is None:
        return (f"Only in {names[1] if pair.first is None else names[0]}.",)
    if pair.obstacles:
        return (f"Not comparable: {'; '.join(pair.obstacles)}.",)
    seeds = [{record.planned.seed for record in entry.records} for entry in (pair.first, pair.second)]
    alone = ", ".join(map(str, sorted(seeds[0] ^ seeds[1])))
    if pair.is_shared:
        return ("The same trials in both" + (f", and seeds of one side alone: {alone}." if alone else "."),)
    sides = list(zip((pair.first, pair.second), names, strict=True))
    notes = [f"Called {entry.label} in {name}." for entry, name in sides if entry.label != pair.label]
    if alone:
        notes.append(f"Seeds of one side alone, left out of the difference: {alone}.")
    own = {name: values for name, values in (pair.differing or {}).items() if name not in common}
    if own:
        notes.append(f"Also differs in {_listed(own)}.")
    return tuple(notes)


def _notes_of_sides(pair: Pair, names: tuple[str, str], *, has_devices: bool) -> tuple[str, ...]:
    """Notes on the trials of each side; those that one side alone has begin with its name.

    has_devices: whether costs of several devices are shown, so that notes name them.
    """
    found: dict[str, list[str]] = {}
    sides = [(entry, name) for entry, name in zip((pair.first, pair.second), names, strict=True) if entry]
    for entry, name in sides:
        for note in (*row_notes(entry.records), *(device_notes(entry.records) if has_devices else ())):
            found.setdefault(note, []).append(name)
    return tuple(note if len(having) == len(sides) else f"{having[0]}: {note}" for note, having in found.items())


def _listed(differing: Mapping[str, tuple[str, str]]) -> str:
    shown = [f"{name} ({one} and {other})" for name, (one, other) in list(differing.items())[:_MOST_LISTED]]
    more = len(differing) - len(shown)
    return "; ".join(shown) + (f" and {more} more" if more > 0 else "")


def _notes_below(
    first: Evidence,
    second: Evidence,
    names: tuple[str, str],
    common: Mapping[str, tuple[str, str]],
    pairs: Sequence[Pair],
) -> tuple[str, ...]:
    notes = [f"The difference is {names[1]} minus {names[0]}, on the seeds and objects that both have."]
    if common:
        notes.append(f"All rows differ in {_listed(common)}.")
    elif any(pair.differing is not None and not pair.is_shared for pair in pairs):
        notes.append("No setting differs in all rows.")
    unfinished = [
        f"{name}: {count}"
        for name, evidence in zip(names, (first, second), strict=True)
        if (count := sum(record.state != "finished" for record in evidence.records))
    ]
    if unfinished:
        notes.append(f"Trials without results: {'; '.join(unfinished)}.")
    return tuple(notes)
