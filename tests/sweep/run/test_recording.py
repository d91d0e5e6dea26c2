"""Records of a sweep in MLflow: their extent, and when they are written without a driver."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.config import TrialConfig
from results.records import tags
from results.records.frozen_plans import freeze
from results.records.hashing import file_sha256
from results.records.journal import Journal
from results.records.plan import Plan, PlannedTrial, SearchState
from results.store import ResultStore
from sweep.file.schema import Sweep, Tracking
from sweep.run import recording
from sweep.run.recording import (
    Recorder,
    _largest_model,
    other_experiments,
    record_ended,
    sync_sweep,
    tracked_trials,
)
from tests.homes import finish


@pytest.mark.parametrize(
    ("models", "trials", "expected"), [("auto", 1, 1e9), ("auto", 200, 5e6), ("never", 1, 0), ("always", 200, math.inf)]
)
def test_the_largest_network_that_is_recorded(models: str, trials: int, expected: float) -> None:
    sweep = Sweep.model_validate({"name": "s", "tracking": {"models": models}})
    planned = tuple(PlannedTrial(str(number), ("a",), number, {}, "pending") for number in range(trials))
    assert _largest_model(sweep, Plan("s", "now", planned, ())) == expected


def test_the_trials_of_a_search_share_the_room_for_networks_each_with_its_seeds() -> None:
    sweep = Sweep.model_validate({"name": "s", "seeds": [0, 1, 2]})
    planned = tuple(PlannedTrial(str(seed), ("a",), seed, {}, "pending") for seed in range(3))
    plan = Plan("s", "now", planned, (), search=SearchState("study", "novel_psnr", "maximize", wanted=9))
    assert _largest_model(sweep, plan) == 1e9 / 30


def test_the_name_of_a_run_fits_into_a_database() -> None:
    """PostgreSQL refuses longer ones; the name of a grid's point with a long list has thousands of characters."""
    planned = tuple(PlannedTrial(str(seed), ("64-" * 1000,), seed, {}, "pending") for seed in (0, 4_000_000_000))
    tracked = tracked_trials(Sweep(name="s"), Plan("s", "now", planned, ()))
    assert all(len(trial.run_name) <= 250 for trial in tracked)
    assert [trial.run_name.rpartition(" ")[2] for trial in tracked] == ["0", "4000000000"]
    assert tracked[0].tags[tags.TRIAL] == "64-" * 1000


def test_ends_that_the_store_does_not_have_are_recorded_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver is killed before it records a failure; another trial is trained again with other scores."""
    sweep = Sweep.model_validate({"name": "s"})
    planned = (PlannedTrial(key, (key,), 0, TrialConfig(), "pending") for key in ("failing", "again", "alive"))
    freeze(Plan("s", "2026-03-01T12:00:00+00:00", tuple(planned), ()), tmp_path)
    folders = {key: tmp_path / "trials" / key for key in ("failing", "again", "alive")}
    finish(tmp_path, "again")
    for key in ("failing", "alive"):
        with Journal(folders[key]) as journal:
            journal.start(0)
    sync_sweep(sweep, tmp_path)

    with Journal(folders["failing"]) as journal:
        journal.failed("out of memory")
    shutil.rmtree(folders["again"])
    finish(tmp_path, "again")
    (folders["again"] / "per_object.parquet").write_bytes(b"other rows")
    scores = {"again": file_sha256(folders["again"] / "per_object.parquet")}
    (folders["again"] / "result.json").write_text(json.dumps({"metrics": {}, "per_object_sha256": scores["again"]}))
    store = ResultStore.of(tmp_path, None)
    assert {key: run.status for key, run in store.runs(scores).items()} == {"failing": "running", "alive": "running"}
    record_ended(sweep, tmp_path)
    ended = {"failing": "failed", "again": "finished", "alive": "running"}
    assert {key: run.status for key, run in store.runs(scores).items()} == ended

    with Journal(folders["alive"]) as journal:
        journal.metrics(1, {"train/loss": 1.0})
    monkeypatch.setattr(recording, "sync_sweep", lambda *_: pytest.fail("recorded again"))
    record_ended(sweep, tmp_path)


def test_trials_stay_in_the_experiment_where_they_were_first_recorded(tmp_path: Path) -> None:
    """A run per trial cannot move: what is in other experiments than the sweep's is named."""
    assert other_experiments(swept("first", ("a", "b", "c"), tmp_path), tmp_path) == {}, "none has begun"
    for key in ("a", "b"):
        finish(tmp_path, key)
    for sweep in (swept("first", ("a",), tmp_path), swept("second", ("b", "c"), tmp_path)):
        sync_sweep(sweep, tmp_path)
        assert other_experiments(sweep, tmp_path) == {}
    shared = swept("third", ("b", "c", "a", "never"), tmp_path)
    with Journal(tmp_path / "trials" / "c") as journal:
        journal.start(0)
    sync_sweep(swept("second", ("b", "c"), tmp_path), tmp_path)
    assert sync_sweep(shared, tmp_path) == (3, 4)
    assert other_experiments(shared, tmp_path) == {"second": 2, "first": 1}
    renamed = shared.model_copy(update={"tracking": Tracking(experiment="first")})
    assert other_experiments(renamed, tmp_path) == {"second": 2}


def swept(name: str, keys: Iterable[str], home: Path) -> Sweep:
    """A sweep whose plan has trials of these keys."""
    planned = tuple(PlannedTrial(key, (key,), 0, TrialConfig(), "pending") for key in keys)
    freeze(Plan(name, "2026-03-01T12:00:00+00:00", planned, ()), home)
    return Sweep(name=name)


def test_a_published_report_does_not_hide_that_trials_are_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the database is locked")

    store = SimpleNamespace(sync=refuse, describe=lambda *_: None, publish_report=lambda *_: None)
    monkeypatch.setattr(recording, "_tracker", lambda *_: store)
    with Recorder(Sweep(name="s"), Plan("s", "now", (), ()), tmp_path) as recorder:
        pass
    recorder.publish(tmp_path)
    assert "the database is locked" in str(recorder.error)
