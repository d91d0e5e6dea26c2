"""Trials of a home: planned, planned earlier, and not planned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from results.records.atomic import write_json
from results.records.frozen_plans import freeze
from results.records.home import training_folder, trial_folder
from results.records.journal import Journal
from results.records.plan import Plan, PlanError, PlannedTrial
from results.trials import home_trials
from tests.homes import finish


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A sweep that lost a trial, another that shares one, and a trial that no plan has."""
    base = PlannedTrial("aa11", ("base", "same"), 0, {}, "pending", training="t1")
    gone = PlannedTrial("bb22", ("gone",), 3, {}, "pending", training="t1")
    blank = PlannedTrial("cc33", ("blank",), 0, {}, "pending", control=True)
    freeze(Plan("first", "2026-11-26T10:00:00+00:00", (base, gone), (blank,)), tmp_path)
    freeze(Plan("first", "2026-11-26T11:00:00+00:00", (base,), (blank,)), tmp_path)
    freeze(Plan("second", "2026-11-26T12:00:00+00:00", (replace(base, names=("ours",)),), ()), tmp_path)
    finish(tmp_path, "aa11", novel_psnr=14.5)
    finish(tmp_path, "bb22", novel_psnr=13.5)
    with Journal(trial_folder(tmp_path, "dd44")) as journal:
        journal.start(0)
        journal.failed("ValueError: no")
    write_json(trial_folder(tmp_path, "dd44") / "config.json", {"seed": 7})
    write_json(trial_folder(tmp_path, "dd44") / "training.json", {"key": "t2"})
    training_folder(tmp_path, "t1").mkdir(parents=True)
    (training_folder(tmp_path, "t1") / "weights.safetensors").write_bytes(bytes(1000))
    return tmp_path


def test_every_trial_is_listed_once_with_its_sweeps(home: Path) -> None:
    found = {trial.key: trial for trial in home_trials(home)}
    assert list(found) == ["aa11", "cc33", "bb22", "dd44"]
    base, gone, lost = found["aa11"], found["bb22"], found["dd44"]
    assert (base.names, base.sweeps, base.earlier) == (("base", "same", "ours"), ("first", "second"), ())
    assert (gone.name, gone.seed, gone.sweeps, gone.earlier) == ("gone", 3, (), ("first",))
    assert (lost.name, lost.seed, lost.sweeps, lost.earlier) == ("", 7, (), ())
    assert [trial.state for trial in found.values()] == ["finished", "pending", "finished", "failed"]


def test_scores_and_sizes(home: Path) -> None:
    found = {trial.key: trial for trial in home_trials(home)}
    assert found["aa11"].scores == {"novel/psnr": 14.5}
    assert found["aa11"].size == sum(path.stat().st_size for path in trial_folder(home, "aa11").iterdir()) > 0
    assert found["aa11"].training_size == found["bb22"].training_size == 1000
    assert (found["dd44"].training, found["dd44"].training_size) == ("t2", 0)
    assert (found["cc33"].size, found["cc33"].training_size) == (0, 0)


def test_one_sweep(home: Path) -> None:
    assert [trial.key for trial in home_trials(home, "second")] == ["aa11"]
    with pytest.raises(PlanError, match="'third' has not been planned"):
        home_trials(home, "third")


def test_an_empty_home_has_none(tmp_path: Path) -> None:
    assert home_trials(tmp_path / "nothing") == []
