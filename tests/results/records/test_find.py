"""Finding trials by folder, key, prefix of a key, name, and score."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from results.records.find import UnknownTrialError, best_trial_folder, find_trial_folder
from results.records.frozen_plans import freeze
from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.plan import Plan, PlannedTrial
from tests.homes import finish


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


def test_the_folder_of_a_planned_trial_need_not_exist(home: Path) -> None:
    folder = trial_folder(home, "dd55")
    assert not folder.exists()
    assert find_trial_folder(str(folder), home) == folder


def test_a_name_of_two_sweeps_needs_the_sweep(home: Path) -> None:
    listed = r"means 2 trials: tv seed 0 \(bb33\), tv seed 0 \(dd55\); choose one by --sweep or its key$"
    with pytest.raises(UnknownTrialError, match=listed):
        find_trial_folder("tv", home)
    assert find_trial_folder("tv", home, "second") == trial_folder(home, "dd55")


def test_the_seed_chooses_among_trials_of_one_name(home: Path) -> None:
    assert find_trial_folder("ours [ema]", home, seed=1) == trial_folder(home, "aa22")
    with pytest.raises(UnknownTrialError, match=r"means 2 trials: .*; choose one by --seed or its key$"):
        find_trial_folder("ours [ema]", home, "first")
    with pytest.raises(UnknownTrialError, match=r"means 2 trials: .*; choose one by --seed or --sweep or its key$"):
        find_trial_folder("aa", home)  # the beginning of keys
    assert find_trial_folder("aa", home, seed=1) == trial_folder(home, "aa22")
    with pytest.raises(UnknownTrialError, match="'aa11' has no seed 1; it has: 0"):
        find_trial_folder("aa11", home, seed=1)
    assert find_trial_folder("ee", home, seed=1) == trial_folder(home, "ee66")  # is in no plan
    assert find_trial_folder("blank", home, seed=1) == trial_folder(home, "cc44")  # has none
    with pytest.raises(UnknownTrialError, match=r"'ours \[ema\]' has no seed 7; it has: 0, 1"):
        find_trial_folder("ours [ema]", home, seed=7)


def test_a_sweep_has_only_its_own_trials(home: Path) -> None:
    for text in ("ee", "aa11"):
        with pytest.raises(UnknownTrialError, match=rf"no trial '{text}' in sweep 'second'; there are: tv seed 0;"):
            find_trial_folder(text, home, "second")


@pytest.mark.parametrize("text", ["ours [ema]", "aa", "nothing", ""])
def test_what_means_none_or_several_lists_what_there_is(home: Path, text: str) -> None:
    with pytest.raises(UnknownTrialError, match=r"ours \[ema\] seed 0"):
        find_trial_folder(text, home)


def test_the_nearest_name_is_suggested(home: Path) -> None:
    with pytest.raises(UnknownTrialError, match=r"did you mean 'ours \[ema\]'\?"):
        find_trial_folder("ours (ema)", home)


@pytest.mark.parametrize(("column", "key"), [("novel_psnr", "aa22"), ("novel/psnr", "aa22"), ("novel_lpips", "aa11")])
def test_the_best_trial_by_the_metrics_direction(home: Path, column: str, key: str) -> None:
    finish(home, "aa11", novel_psnr=14.0, novel_lpips=0.1)
    finish(home, "aa22", novel_psnr=15.0, novel_lpips=0.3)
    finish(home, "cc44", step=0, novel_psnr=99.0, novel_lpips=0.0)  # a control was not trained
    said: list[str] = []
    assert best_trial_folder(column, home, "first", said.append) == trial_folder(home, key)
    assert "of 2 trials of sweep 'first': ours [ema] seed" in said[0]
    assert best_trial_folder(column, home) == trial_folder(home, key)


def test_the_best_trial_of_a_home_may_be_of_no_plan(home: Path) -> None:
    finish(home, "ff77", novel_psnr=14.0)
    said: list[str] = []
    assert best_trial_folder("novel_psnr", home, say=said.append) == trial_folder(home, "ff77")
    assert said == [f"best novel_psnr of 1 trial of {home}: ff77, of no plan, 14.000"]


def test_a_score_that_is_no_number_is_not_the_best(home: Path) -> None:
    finish(home, "aa11", novel_psnr=math.nan)
    finish(home, "bb33", novel_psnr=math.inf)
    finish(home, "aa22", novel_psnr=15.0)
    assert best_trial_folder("novel_psnr", home, "first") == trial_folder(home, "aa22")


def test_other_metrics_beside_a_score_do_not_matter(home: Path) -> None:
    for key, metrics in (("aa11", ["psnr"]), ("bb33", ["psnr", "iou"])):
        finish(home, key, novel_psnr=14.0 if key == "aa11" else 15.0)
        config = {"eval": {"split": "test", "metrics": metrics}}
        (trial_folder(home, key) / "config.json").write_text(json.dumps(config))
    assert best_trial_folder("novel_psnr", home) == trial_folder(home, "bb33")


def test_scores_on_different_data_are_not_compared(home: Path) -> None:
    finish(home, "aa11", novel_psnr=14.0)
    finish(home, "dd55", "cars", novel_psnr=15.0)
    with pytest.raises(UnknownTrialError, match=r"2 different sets of views.*--sweep"):
        best_trial_folder("novel_psnr", home)
    assert best_trial_folder("novel_psnr", home, "first") == trial_folder(home, "aa11")


@pytest.mark.parametrize("inputs", [1, 2])
def test_scores_of_a_sweep_on_different_views_are_not_compared(home: Path, inputs: int) -> None:
    """Views that are no input are novel."""
    for key, views in (("aa11", 1), ("aa22", inputs)):
        finish(home, key, novel_psnr=14.0)
        (trial_folder(home, key) / "config.json").write_text(json.dumps({"model": {"input_views": views}}))
    if inputs == 1:
        assert best_trial_folder("novel_psnr", home, "first") == trial_folder(home, "aa11")
    else:
        with pytest.raises(UnknownTrialError, match=r"2 different sets of views.*compared; name a trial"):
            best_trial_folder("novel_psnr", home, "first")


def test_a_score_that_no_trial_has(home: Path) -> None:
    with pytest.raises(UnknownTrialError, match=r"no trained trial of .* has novel_psnr: none is finished"):
        best_trial_folder("novel_psnr", home)
    finish(home, "aa11", novel_psnr=14.0)
    with pytest.raises(UnknownTrialError, match="has novel_dists: finished ones have: novel_psnr"):
        best_trial_folder("novel_dists", home)
    with pytest.raises(UnknownTrialError, match="--best 'psnr' is not a column"):
        best_trial_folder("psnr", home)
