"""The outcome of a proposal is that of its trials."""

from __future__ import annotations

import pytest

from results.records.monitor import TrialProgress
from results.records.trial_folder import Status
from sweep.search.outcome import Outcome, outcome, reported


def trial(status: Status, **metrics: float) -> TrialProgress:
    return TrialProgress(status, metrics={name.replace("_", "/"): value for name, value in metrics.items()})


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["finished", "finished"], Outcome("finished", 21.0)),
        (["finished", "running"], None),
        (["finished", "interrupted"], None),
        (["running", "failed"], Outcome("failed")),
        (["pruned", "running"], Outcome("pruned")),
        (["pruned", "failed"], Outcome("failed")),
    ],
)
def test_seeds_are_one_outcome(states: list[Status], expected: Outcome | None) -> None:
    trials = [trial(state, novel_psnr=20.0 + 2 * seed) for seed, state in enumerate(states)]
    assert outcome(trials, "novel_psnr") == expected


def test_a_trial_that_was_not_measured_so_has_failed() -> None:
    assert outcome([trial("finished", novel_ssim=0.9)], "novel_psnr") == Outcome("failed")


def test_scores_during_training_are_those_of_the_validation_split() -> None:
    progress = TrialProgress("running", validation={"val/psnr": {6: 20.0}, "val/ssim": {6: 0.9}})
    assert reported(progress, "novel_psnr") == {6: 20.0}
    assert reported(progress, "novel_lpips") == {}
