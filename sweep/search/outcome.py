"""The outcome of a proposal, from the progress of its trials."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from results.metrics import score_name, split_column
from results.records.monitor import TrialProgress


@dataclass(frozen=True)
class Outcome:
    """The result of a configuration whose trials have ended."""

    state: Literal["finished", "pruned", "failed"]
    #: None where not all trials finished
    value: float | None = None


def outcome(trials: Sequence[TrialProgress], metric: str) -> Outcome | None:
    """The outcome of a configuration's trials, one per seed: their mean score if all finished; None while some run.

    metric: the name of a table's column, such as `novel_psnr`.
    """
    states = [trial.status for trial in trials]
    if "failed" in states:
        return Outcome("failed")
    if "pruned" in states:
        return Outcome("pruned")
    if any(state != "finished" for state in states):
        return None
    values = [trial.metrics.get(score_name(metric)) for trial in trials]
    if None in values:  # evaluated by another version, or edited by hand
        return Outcome("failed")
    return Outcome("finished", statistics.fmean(value for value in values if value is not None))


def reported(trial: TrialProgress, metric: str) -> Mapping[int, float]:
    """Iteration -> the metric on the validation split, of novel views, as far as a trial has come."""
    return trial.validation.get(f"val/{split_column(metric)[1]}", {})
