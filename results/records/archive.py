"""Copy of a sweep's records, without weights, checkpoints and logs.

The copy is a home that `report` and `explain` read, small enough to be published beside a paper.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.records import home as layout
from results.records import training_folder as training
from results.records import trial_folder as trial
from results.records.atomic import write_atomically, write_json
from results.records.damage import DamagedFileError, read_object
from results.records.frozen_plans import freeze, read_plan
from results.records.ledger import FILENAME as LEDGER_FILENAME
from results.records.monitor import Monitor
from results.records.plan import ENDED, PlannedTrial

TRIAL_FILES: tuple[str, ...] = (
    trial.RESULT_FILENAME,
    trial.MEASUREMENTS_FILENAME,
    trial.CONFIG_FILENAME,
    trial.ENVIRONMENT_FILENAME,
    trial.SAMPLES_FILENAME,
    trial.COSTS_FILENAME,
    training.RECORD_FILENAME,
)
TRAINING_FILES: tuple[str, ...] = (trial.CONFIG_FILENAME, trial.ENVIRONMENT_FILENAME, training.RECORD_FILENAME)


@dataclass(frozen=True)
class Archived:
    """Summary of an archive of one sweep."""

    #: trials with their records
    trials: int
    #: planned trials that have not ended, of which the archive has the plan's line alone
    left: int
    #: size of the files that were written
    size: int


def archive(sweep: str, home: Path, out: Path, points: int = 100) -> Archived:
    """Copy the records of a planned sweep's ended trials into another home, which may hold others already.

    Journals keep all events, but of the iterations at which only training losses were logged at most `points`, evenly
    spread.  Raises `PlanError` where the sweep has no plan, and ValueError where `out` is the home itself.
    """
    if out.resolve() == home.resolve():
        raise ValueError(f"--out {out}: is the home itself; name another folder")
    plan = read_plan(sweep, home)
    states = Monitor(home).look_at(each.key for each in plan.everything)
    ended = [each for each in plan.everything if states[each.key].status in ENDED]
    layout.sweep_folder(out, sweep).mkdir(parents=True, exist_ok=True)
    size = sum(_copy_records(each, home, out, points) for each in ended)
    for source in (layout.code_file(home, sweep), layout.sweep_folder(home, sweep) / LEDGER_FILENAME):
        size += _copy(source, layout.sweep_folder(out, sweep))
    size += _copy_sweep_file(layout.sweep_file(home, sweep), layout.sweep_file(out, sweep))
    size += freeze(plan.refreshed(Monitor(out)), out).stat().st_size
    return Archived(len(ended), len(plan.everything) - len(ended), size)


def _copy_sweep_file(source: Path, target: Path) -> int:
    """Copies the record of the sweep file without its place on this machine; returns its size."""
    try:
        write_json(target, read_object(source) | {"file": None})
    except (FileNotFoundError, DamagedFileError):
        return 0
    return target.stat().st_size


def _copy_records(planned: PlannedTrial, home: Path, out: Path, points: int) -> int:
    folders = [(layout.trial_folder(home, planned.key), layout.trial_folder(out, planned.key), TRIAL_FILES)]
    if planned.training is not None:
        folders.append(
            (
                layout.training_folder(home, planned.training),
                layout.training_folder(out, planned.training),
                TRAINING_FILES,
            )
        )
    size = 0
    for source, target, names in folders:
        target.mkdir(parents=True, exist_ok=True)
        journal = source / trial.JOURNAL_FILENAME
        if journal.exists():
            content = _thinned(journal.read_bytes().splitlines(keepends=True), points)
            write_atomically(target / journal.name, content)
            size += len(content)
        size += sum(_copy(source / name, target) for name in names)
    return size


def _copy(source: Path, folder: Path) -> int:
    """Copies a file where it exists; returns its size."""
    if not source.exists():
        return 0
    shutil.copyfile(source, folder / source.name)
    return source.stat().st_size


def _thinned(lines: Sequence[bytes], points: int) -> bytes:
    """The lines of a journal with at most `points` of those that hold training losses alone, the last one included."""
    losses = [number for number, line in enumerate(lines) if _is_of_training_alone(line)]
    stride = -(-len(losses) // points) or 1
    kept = set(losses[::-1][::stride])
    dropped = set(losses) - kept
    return b"".join(line for number, line in enumerate(lines) if number not in dropped)


def _is_of_training_alone(line: bytes) -> bool:
    try:
        event = json.loads(line)
        return event["event"] == "metrics" and all(name.startswith("train/") for name in event["values"])
    except (ValueError, KeyError, TypeError, AttributeError):  # no event: kept as it is
        return False
