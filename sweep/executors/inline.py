"""Trials one after another in this process: for debugging, and for a single core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.trial import run_trial
from sweep.executors.attempt import Work, attempt, runtime_of
from sweep.plan import PlannedTrial
from sweep.spec import RunOptions


def run(
    trials: Sequence[PlannedTrial],
    home: Path,
    options: RunOptions,
    stop_file: Path,
    fail_fast: bool = False,
    work: Work = run_trial,
) -> None:
    """Run `trials` here."""
    for trial in trials:
        attempt(trial.key, trial.config, home, runtime_of(options, stop_file), fail_fast, work)
