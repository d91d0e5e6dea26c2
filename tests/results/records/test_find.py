"""Finding trials by folder, key, prefix of a key, and name."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.records.find import UnknownTrialError, find_trial_folder
from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.plan import Plan, PlannedTrial, freeze


def planned(key: str, name: str, seed: int = 0, *, control: bool = False) -> PlannedTrial:
    return PlannedTrial(key, (name,), seed, {}, "pending", control=control)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    trials = (planned("aa11", "ours [ema]", 0), planned("aa22", "ours [ema]", 1), planned("bb33", "tv"))
    freeze(Plan("first", "now", trials, (planned("cc44", "blank", control=True),)), tmp_path)
    freeze(Plan("second", "now", (planned("dd55", "tv"),), ()), tmp_path)
    with Journal(trial_folder(tmp_path, "ee66")) as journal:
        journal.start(0)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("aa11", "aa11"),
        ("bb", "bb33"),
        ("ours [ema] seed 1", "aa22"),
        ("blank", "cc44"),
        ("ee", "ee66"),
    ],
)
def test_trials_are_found(home: Path, text: str, key: str) -> None:
    assert find_trial_folder(text, home) == trial_folder(home, key)


def test_a_folder_stands_for_itself(home: Path) -> None:
    folder = trial_folder(home, "ee66")
    assert find_trial_folder(str(folder), Path("/elsewhere")) == folder


def test_a_name_of_two_sweeps_needs_the_sweep(home: Path) -> None:
    with pytest.raises(UnknownTrialError, match=r"means 2 trials: tv seed 0 \(bb33\), tv seed 0 \(dd55\)"):
        find_trial_folder("tv", home)
    assert find_trial_folder("tv", home, "second") == trial_folder(home, "dd55")


@pytest.mark.parametrize("text", ["ours [ema]", "aa", "nothing", ""])
def test_what_means_none_or_several_lists_what_there_is(home: Path, text: str) -> None:
    with pytest.raises(UnknownTrialError, match=r"ours \[ema\] seed 0"):
        find_trial_folder(text, home)
