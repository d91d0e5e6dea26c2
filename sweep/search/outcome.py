"""What came of a proposal, read from its trials' folders."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from results.records.journal import read_events
from results.records.trial_folder import read_result, trial_status


@dataclass(frozen=True)
class Outcome:
    """What an ended configuration tells a search."""

    state: Literal["finished", "pruned", "failed"]
    #: None where it was not finished
    value: float | None = None


def outcome(folders: Sequence[Path], metric: str) -> Outcome | None:
    """Of the trials of one configuration, a seed each: the mean if all have finished; None while some may go on.

    metric: as tables name it, `novel_psnr`.
    """
    states = [trial_status(folder) for folder in folders]
    if "failed" in states:
        return Outcome("failed")
    if "pruned" in states:
        return Outcome("pruned")
    if any(state != "finished" for state in states):
        return None
    results = [read_result(folder) for folder in folders]
    return Outcome("finished", statistics.fmean(r["metrics"][metric.replace("_", "/")] for r in results if r))


def reported(folder: Path, metric: str) -> dict[int, float]:
    """Iteration -> the metric on the validation split, of novel views, as far as a trial has come."""
    name = "val/" + metric.rpartition("_")[2]
    return {
        event["step"]: event["values"][name]
        for event in read_events(folder)
        if event["event"] == "metrics" and name in event["values"]
    }
