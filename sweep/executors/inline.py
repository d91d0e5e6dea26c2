"""Trials one after another in this process: for debugging, and for a single core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.trial import TrialFailedError, run_trial
from sweep.executors.runtime import runtime_of
from sweep.plan import PlannedTrial
from sweep.spec import RunOptions


def run(trials: Sequence[PlannedTrial], home: Path, options: RunOptions) -> None:
    """Run `trials` here; the reason of a failure is in the trial's journal."""
    for trial in trials:
        try:
            run_trial(trial.config, home, runtime_of(options))
        except TrialFailedError:
            continue
