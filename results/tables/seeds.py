"""The end of rows with added seeds: their seeds, the difference to the baseline, and what decided it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from results.load import Evidence, TrialRecord
from results.metrics import METRICS, split_column
from results.records.plan import Ruling, SeedState
from results.seeds import WORDS, direction_of, rulings
from results.sequential import FUTILE, Design
from results.table import Cell, Column, Row, Section, Table
from results.tables.fill import source_of
from results.tables.metric_columns import MetricColumn, named
from results.tables.options import Options as CommonOptions
from results.tables.options import Stem
from results.tables.scores import Scores


class Options(CommonOptions):
    """Options of this kind of table."""

    name: Stem = "seeds"
    caption: str = "Seeds until each row's difference to the baseline was decided."


def build(evidence: Evidence, options: Options) -> Table:
    """One row per compared configuration, decided anew from the recorded scores."""
    seeds = evidence.plan.seeds
    if seeds is None:
        notes = ("Nothing to show: the sweep has a list of seeds, and no rule that adds them.",)
        return Table(options.name, options.caption, (), (), notes=notes)
    rows = {row: _records(evidence, row) for row in (seeds.baseline, *(ruling.row for ruling in seeds.rulings))}
    baseline, quantity = rows.pop(seeds.baseline), named(seeds.metric)
    scores = Scores.of(evidence, [quantity])
    reference = _scores(baseline, scores, quantity)
    measured = {row: _scores(records, scores, quantity) for row, records in rows.items()}
    design = Design(seeds.at_least, seeds.at_most, seeds.alpha)
    found = rulings(design, direction_of(seeds.metric), reference, measured)
    of_baseline = _obstacles(baseline, reference)
    facts = METRICS[split_column(seeds.metric)[1]]
    precision = facts.precision + 1
    columns = (
        Column("tested", "Seeds", precision=0),
        Column("difference", f"Δ {facts.label}", split_column(seeds.metric)[0], precision=precision),
        Column("low", "from", "interval", precision=precision),
        Column("high", "to", "interval", precision=precision),
        Column("t", "|t|", "test", precision=2),
        Column("boundary", "boundary", "test", precision=2),
        Column("outcome", "Outcome"),
    )
    obstacles = {row: [*_obstacles(records, measured[row]), *of_baseline] for row, records in rows.items()}
    body = tuple(_row(ruling, rows[ruling.row], obstacles[ruling.row]) for ruling in found)
    return Table(options.name, options.caption, columns, (Section(body, ranked=False),), notes=_notes(seeds))


def _records(evidence: Evidence, row: str) -> list[TrialRecord]:
    """A row's trials in the order of seeds."""
    found = [record for record in evidence.records if record.planned.name == row]
    return sorted(found, key=lambda record: record.planned.seed)


def _scores(records: Sequence[TrialRecord], scores: Scores, quantity: MetricColumn) -> list[float | None]:
    """The score of each seed from 0 on; None for a trial without one."""
    return [next(iter(scores.means([record.planned.key], quantity)), None) for record in records]


def _obstacles(records: Sequence[TrialRecord], scores: Sequence[float | None]) -> list[str]:
    """The trials that end a row's scores: those that failed, or have a score that is not finite."""
    ends = [
        (record, "failed" if record.state == "failed" else f"has the score {score}")
        for record, score in zip(records, scores, strict=True)
        if record.state == "failed" or (score is not None and not math.isfinite(score))
    ]
    return [f"{record.planned.label} {why}" for record, why in ends]


def _row(ruling: Ruling, records: Sequence[TrialRecord], obstacles: Sequence[str]) -> Row:
    absolute = None if ruling.t is None else abs(ruling.t)
    numbers = (ruling.seeds, ruling.difference, ruling.low, ruling.high, absolute, ruling.boundary)
    cells = tuple(Cell(() if number is None else (float(number),)) for number in numbers)
    outcome = WORDS[ruling.state]
    if ruling.state == "open" and obstacles:
        outcome = f"{outcome}: {', '.join(obstacles)}"
    return Row(ruling.row, (*cells, Cell(text=outcome)), tuple(map(source_of, records)))


def _notes(seeds: SeedState) -> tuple[str, ...]:
    notes = [
        f"From {seeds.at_least} seeds on, at most {seeds.at_most}, each row is tested after every seed against "
        f"{seeds.baseline!r}, paired by seed; the family-wise error over all rows and looks is at most "
        f"{seeds.alpha:.0%} if differences are about symmetric "
        "(group-sequential t test, error spent with the third power of the seeds, Holm's correction at each look).",
        f"A row stops for futility if the predicted probability of a decision is below {FUTILE:.0%}. Intervals are at "
        "the level of the last test. Differences that stopped a row early are too large on average.",
        "Decisions hold for other trainings on the same objects. Stars in other tables are from tests that also count "
        "the choice of objects, and not the looks.",
    ]
    former = [
        f"Trials were trained before under another rule ({rule}); the error is kept by rules fixed beforehand."
        for rule in seeds.former
    ]
    return (*notes, *former)
