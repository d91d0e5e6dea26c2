"""What came of a proposal, as a monitor sees its trials."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from results.metrics import score_name, split_column
from results.records.monitor import TrialProgress


@dataclass(frozen=True)
class Outcome:
    """What an ended configuration tells a search."""

    state: Literal["finished", "pruned", "failed"]
    #: None where it was not finished
    value: float | None = None


def outcome(trials: Sequence[TrialProgress], metric: str) -> Outcome | None:
    """Of the trials of one configuration, a seed each: the mean if all have finished; None while some may go on.

    metric: as tables name it, `novel_psnr`.
    """
    states = [trial.status for trial in trials]
    if "failed" in states:
        return Outcome("failed")
    if "pruned" in states:
        return Outcome("pruned")
    if any(state != "finished" for state in states):
        return None
    values = [trial.metrics.get(score_name(metric)) for trial in trials]
    if None in values:  # judged by another version, or changed by hand: it tells nothing
        return Outcome("failed")
    return Outcome("finished", statistics.fmean(value for value in values if value is not None))


def reported(trial: TrialProgress, metric: str) -> Mapping[int, float]:
    """Iteration -> the metric on the validation split, of novel views, as far as a trial has come."""
    return trial.validation.get(f"val/{split_column(metric)[1]}", {})
