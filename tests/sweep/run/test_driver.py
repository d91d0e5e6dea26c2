"""The driver and MLflow: a store that is slow, needs a login or is down, and the messages about it."""

from __future__ import annotations

import base64
import re
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import pytest
from mlflow import MlflowClient
from rich.console import Console

from jobs.config import TrialConfig
from jobs.data.prepare import MissingDatasetError
from results import rest
from results.errors import ResultsError
from results.records.frozen_plans import freeze, read_plan
from results.records.home import sweep_folder, trial_folder
from results.records.journal import Journal
from results.records.plan import PlanError, RowState, Ruling, SeedState
from results.store import ResultStore
from sweep.file.schema import Sweep
from sweep.plan import planner as plan_module
from sweep.plan.planner import Plan, PlannedTrial, make_plan
from sweep.run import driver, recording
from sweep.run.driver import Outcome, run_sweep
from sweep.run.driver_lock import SweepBusyError
from sweep.run.frozen_file import claim, difference
from sweep.run.recording import Recorder, TrackingError, sync_sweep
from tests.datasets import planned_dataset
from tests.homes import write_result
from tests.processes import wait_for
from tests.servers import Proxy

PASSWORD = "open-sesame"


@pytest.fixture(autouse=True)
def _dataset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Replaces the packed store; fingerprints, and therefore keys, differ between tests."""
    dataset = planned_dataset(fingerprint=str(tmp_path))
    monkeypatch.setattr(plan_module, "open_dataset", lambda *_, **__: dataset)


def sweep_at(uri: str) -> Sweep:
    stages = [{"iterations": 5, "lr": 1e-4, "losses": {"l2": 1.0}}]
    content: Mapping[str, Any] = {"name": "a", "base": {"train.stages": stages}, "trials": {"baseline": {}}}
    return Sweep.model_validate({**content, "tracking": {"uri": uri}})


def planned(sweep: Sweep, home: Path) -> str:
    """Freezes a sweep's plan; returns the key of its first trial."""
    plan = make_plan(sweep, home)
    freeze(plan, home)
    return plan.trials[0].key


def losses(uri: str, key: str) -> list[int]:
    """The steps with a recorded loss in the run of a key."""
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments, f"tags.`splatsweep.key` = '{key}'")
    return [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]


def test_a_server_that_does_not_answer_delays_no_trial(
    proxy: Proxy, mlflow_server, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(recording, "_SYNC_INTERVAL_S", 0.05)
    sweep = sweep_at(proxy.uri)
    plan = make_plan(sweep, tmp_path)
    key = plan.trials[0].key
    proxy.is_open.clear()
    with Recorder(sweep, plan, tmp_path) as recorder, Journal(tmp_path / "trials" / key) as journal:
        journal.start(0)
        journal.metrics(1, {"train/loss": 1.0})
        wait_for(lambda: proxy.requests, "a request")
        for step in range(2, 51):  # or it would wait for what comes behind it
            journal.metrics(step, {"train/loss": 1 / step})
        assert len(proxy.requests) == 1, "the server was waited for until the client gave up"
        proxy.is_open.set()
    assert recorder.error is None
    assert losses(mlflow_server.uri, key) == list(range(1, 51))


def test_a_server_may_take_long_to_store_an_artifact(proxy: Proxy, tmp_path: Path, monkeypatch) -> None:
    """A server that puts networks of hundreds of megabytes elsewhere answers when they are there."""
    monkeypatch.setattr(rest, "_ALIVE_S", 0.2)
    sweep = sweep_at(proxy.uri)
    plan = make_plan(sweep, tmp_path)
    key = plan.trials[0].key
    with Journal(tmp_path / "trials" / key) as journal:
        journal.start(0)
    write_result(tmp_path / "trials" / key)
    proxy.delays = {"PUT": 0.5}
    with Recorder(sweep, plan, tmp_path) as recorder:
        pass
    assert any(request.startswith("PUT") for request in proxy.requests)
    assert recorder.error is None
    proxy.delays = {"POST": 0.5}
    with Recorder(sweep, plan, tmp_path) as recorder:
        pass
    assert "timed out" in recorder.error


def test_who_waits_for_a_slow_server_is_told_so(proxy: Proxy, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "_SILENT_S", 0.05)
    sweep = sweep_at(proxy.uri)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        proxy.is_open.set()

    proxy.is_open.clear()
    with Recorder(sweep, make_plan(sweep, tmp_path), tmp_path, say=say) as recorder:
        pass
    assert recorder.error is None
    assert said == [f"Waiting for the MLflow store {proxy.uri}, which still records the last results"]


def test_a_server_that_redirects_is_named_with_its_own_address(proxy: Proxy, mlflow_server, tmp_path: Path) -> None:
    """The request that writes would arrive as one that reads, to which MLflow answers with any error."""
    proxy.redirection = mlflow_server.uri
    sweep = sweep_at(proxy.uri)
    with Recorder(sweep, make_plan(sweep, tmp_path), tmp_path) as recorder:
        pass
    expected = f"the MLflow store {proxy.uri} redirects to {mlflow_server.uri}; give that address (tracking.uri)"
    assert recorder.error == expected
    with pytest.raises(ResultsError, match=re.escape(expected)):
        ResultStore(proxy.uri, tmp_path).runs()


def test_a_server_that_asks_for_a_password_has_it_from_the_environment(
    proxy: Proxy, mlflow_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.authorization = f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"
    sweep = sweep_at(proxy.uri)
    key = planned(sweep, tmp_path)
    with Journal(tmp_path / "trials" / key) as journal:
        journal.start(0)
        journal.metrics(1, {"train/loss": 1.0})
    with pytest.raises(TrackingError, match="401"):
        sync_sweep(sweep, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    sync_sweep(sweep, tmp_path)
    assert losses(proxy.uri, key) == [1]
    for place in (tmp_path, mlflow_server.folder):
        assert [path for path in place.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("kind", ["postgresql", "http"])
def test_a_store_that_is_down_is_named_without_its_password(kind: str, tmp_path: Path) -> None:
    sweep = sweep_at(f"{kind}://me:{PASSWORD}@127.0.0.1:9/mlflow")
    key = planned(sweep, tmp_path)
    with Journal(tmp_path / "trials" / key) as journal:
        journal.start(0)
    began = time.monotonic()
    with pytest.raises(TrackingError, match=rf"{kind}://me:\*\*\*@127\.0\.0\.1:9/mlflow cannot be written") as caught:
        sync_sweep(sweep, tmp_path)
    with Recorder(sweep, make_plan(sweep, tmp_path), tmp_path) as recorder:
        pass
    assert time.monotonic() - began < 120, "MLflow's own retries would take minutes"
    assert recorder.error is not None
    assert PASSWORD not in f"{caught.value} {recorder.error}"


def test_a_row_without_training_that_failed_is_reported() -> None:
    control = PlannedTrial("c0", ("blank",), 0, TrialConfig(), "failed", control=True)
    outcome = Outcome(Plan("a", "now", (), (control,)), (control,), None, None, None)
    assert outcome.failed == [control]
    assert outcome.exit_code == 1


@pytest.mark.parametrize(("state", "evaluate_only"), [("open", False), ("open", True), ("futile", False)])
def test_nothing_is_to_be_trained_unless_rows_may_get_seeds(
    state: RowState, evaluate_only: bool, tmp_path: Path, capsys
) -> None:
    seeds = SeedState(2, 4, "novel_psnr", 0.05, "baseline", (Ruling("tv", state, 2, 2),))
    plan = Plan("a", "now", (), (), seeds=seeds)
    selection = driver._selected(plan, Sweep(name="a"), tmp_path, (), False, evaluate_only)
    driver._announce(plan, selection, Console())
    assert ("Nothing to train" in capsys.readouterr().out) == (state != "open" or evaluate_only)


def test_a_missing_database_driver_is_reported_before_anything_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ResultsError, match=r"pip install 'splatsweep\[postgresql\]'"):
        run_sweep(sweep_at("postgresql://me@127.0.0.1:9/mlflow"), tmp_path, console=Console())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [Path, str])
def test_a_relative_home_is_that_of_the_working_directory(tmp_path: Path, monkeypatch, kind: type) -> None:
    """Ray's workers have working directories of their own."""

    def refuse(_sweep: Sweep, home: Path, _console: Console) -> NoReturn:
        raise SweepBusyError(str(home))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "sole_driver", refuse)
    with pytest.raises(SweepBusyError, match=f"^{tmp_path / 'runs'}$"):
        run_sweep(Sweep(name="a"), kind("runs"))


def test_a_file_that_cannot_be_planned_is_still_newer_than_the_plan(tmp_path: Path) -> None:
    """`status` and `report` show the former plan, and say so."""
    folder = sweep_folder(tmp_path, "a")
    former = Sweep.model_validate({"name": "a", "run": {"executor": "inline"}, "trials": {"baseline": {}}})
    planned(former, tmp_path)
    claim(former, folder)
    edited = former.model_copy(update={"base": {"data.resolution": 4096}})
    with pytest.raises(PlanError, match="4096"):
        run_sweep(edited, tmp_path)
    assert "base.data.resolution is 4096" in str(difference(edited, folder, "renew"))


class Unrecorded(nullcontext):
    """A recorder that records nothing."""

    error = "there is no MLflow here"


@pytest.mark.parametrize(
    ("change", "only", "reason"),
    [
        ({"run": {"executor": "inline", "gpus_per_trial": 1}}, [], "gpus_per_trial is 1, but this machine has"),
        ({}, ["basline"], "basline"),
        ({"base": {"data": {"name": "srn_cars"}}}, [], "cannot run yet"),
    ],
    ids=["too small a machine", "a name", "no data"],
)
def test_a_run_that_is_refused_leaves_the_former_plan(
    change: Mapping[str, Any], only: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` and `report` show its results until others can come."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(driver, "Recorder", lambda *_, **__: Unrecorded())
    monkeypatch.setattr(driver, "refuse_undrawable", lambda *_: None)
    former = {"name": "a", "run": {"executor": "inline"}, "trials": {"baseline": {}}, "seeds": [0]}
    folder = sweep_folder(tmp_path, "a")
    planned(Sweep.model_validate(former), tmp_path)
    claim(Sweep.model_validate(former), folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    edited = Sweep.model_validate({**former, "seeds": [0, 1], **change})
    if "base" in change:

        def missing(*_: object, **__: object) -> NoReturn:
            raise MissingDatasetError("dataset srn_cars is missing")

        monkeypatch.setattr(plan_module, "open_dataset", missing)
    with pytest.raises(ValueError, match=reason):
        run_sweep(edited, tmp_path, console=Console(quiet=True), only=only)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.name != "driver.lock"} == before
    assert "seeds has changed" in str(difference(edited, folder, "renew"))


def test_a_sweep_has_a_plan_before_its_executor_has_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(driver, "Recorder", lambda *_, **__: Unrecorded())
    monkeypatch.setattr(driver, "refuse_undrawable", lambda *_: None)
    content = {"name": "a", "run": {"executor": "inline", "gpus_per_trial": 1}, "trials": {"baseline": {}}}
    with pytest.raises(ValueError, match="gpus_per_trial is 1"):
        run_sweep(Sweep.model_validate(content), tmp_path, console=Console(quiet=True))
    assert [trial.name for trial in read_plan("a", tmp_path).trials] == ["baseline"]


def test_a_run_with_nothing_to_train_puts_its_plan_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "Recorder", lambda *_, **__: Unrecorded())
    monkeypatch.setattr(driver, "_report", lambda *_: None)
    sweep = Sweep.model_validate({"name": "a", "run": {"executor": "inline"}, "trials": {"baseline": {}}})
    key = planned(sweep, tmp_path)
    for trial in make_plan(sweep, tmp_path).everything:
        write_result(trial_folder(tmp_path, trial.key))
    edited = sweep.model_copy(update={"trials": {"first": {}}})
    run_sweep(edited, tmp_path, console=Console(quiet=True))
    plan = read_plan("a", tmp_path)
    assert [(trial.key, trial.name, trial.status) for trial in plan.trials] == [(key, "first", "finished")]
    folder = sweep_folder(tmp_path, "a")
    assert difference(edited, folder, "renew") is None
    assert (folder / "code.json").exists()
