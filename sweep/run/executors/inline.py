"""Trials one after another in this process: for debugging, and for a single core."""

from __future__ import annotations

from pathlib import Path

from jobs.trial import run_trial
from sweep.file.load import RunOptions
from sweep.run.executors.queue import Source
from sweep.run.executors.run_guarded import Work, attempt, runtime_of


def run(
    source: Source,
    home: Path,
    options: RunOptions,
    stop_file: Path,
    fail_fast: bool = False,
    work: Work = run_trial,
) -> None:
    """Run the source's trials here."""
    while (trial := source.next()) is not None:
        attempt(trial.key, trial.config, home, runtime_of(options, stop_file), fail_fast, work)
        source.ended(trial)
