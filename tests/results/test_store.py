"""The interface to MLflow stores."""

from __future__ import annotations

import math
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from results.errors import ResultsError
from results.load import read_evidence
from results.records.tags import HASH
from results.runs import Run
from results.store import ResultStore
from tests.results.conftest import FakeSweep, RecordedHome, Tracking, record_study


def test_the_stores_label_has_no_password(tmp_path: Path) -> None:
    assert ResultStore("postgresql://me:secret@db/mlflow", tmp_path).label == "postgresql://me:***@db/mlflow"


def test_the_homes_own_store_is_the_default(tmp_path: Path) -> None:
    assert ResultStore.of(tmp_path, None).uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert ResultStore.of(tmp_path, "http://h:5000").uri == "http://h:5000"


def test_an_artifact_is_the_file_itself_or_an_error(study) -> None:
    store = ResultStore.of(study.home, None)
    run = store.runs()["a0"]
    with store.artifact(run, "per_object.parquet") as path:
        assert path.is_relative_to(study.home)
        assert path.is_file()
    with pytest.raises(FileNotFoundError, match=r"no artifact nothing\.txt"), store.artifact(run, "nothing.txt"):
        pass


@pytest.mark.parametrize("address", ["http://me:secret@127.0.0.1:9", "postgresql://me:secret@127.0.0.1:9/mlflow"])
def test_a_server_that_is_down_is_an_error_that_names_it(address: str, tmp_path: Path) -> None:
    masked = address.replace("secret", "***")
    with pytest.raises(ResultsError) as caught:
        ResultStore(address, tmp_path).runs()
    assert str(caught.value).startswith(f"the MLflow store {masked} cannot be read: ")
    assert "secret" not in str(caught.value)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the SQL statements that the test executes."""
    executed: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(executed.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return executed


def test_one_query_for_each_table_however_many_runs(study, sweep, statements: list[str]) -> None:
    evidence = read_evidence(sweep, study.home)
    assert tables_of(statements) == ["runs", "tags", "latest_metrics"]
    statements.clear()
    assert len(evidence.curves()) > 0
    assert tables_of(statements) == ["metrics"]


def tables_of(statements: list[str]) -> list[str]:
    """The tables that are read, but for the one read to find out whether the file can be opened."""
    tables = [statement.split("FROM ")[1].split()[0] for statement in statements]
    return [table for table in tables if table != "sqlite_master"]


def test_histories_keep_infinite_and_missing_values(recorded) -> None:
    points = [(1, math.nan), (2, math.inf), (3, -math.inf), (4, 2.0)]
    recorded.record("a", "base", curves={"train/loss": points})
    store = ResultStore.of(recorded.home, None)
    frame = store.histories(list(store.runs().values()), ["train/loss"])
    np.testing.assert_array_equal(frame["value"], [value for _, value in points])


def test_runs_that_were_deleted_are_gone(recorded) -> None:
    from mlflow import MlflowClient

    run = recorded.record("a", "base")
    recorded.record("b", "other")
    store = ResultStore.of(recorded.home, None)
    MlflowClient(store.uri).delete_run(run)
    assert set(store.runs()) == {"b"}


def test_artifacts_are_read_in_order_and_failures_returned(study) -> None:
    store = ResultStore.of(study.home, None)
    runs = store.runs()
    chosen = [runs["a1"], runs["c0"], runs["a0"]]
    found = list(store.read(chosen, "per_object.parquet", lambda path: path.parent.parent.name))
    assert found[::2] == [runs["a1"].run_id, runs["a0"].run_id]
    assert isinstance(found[1], FileNotFoundError)


def test_artifacts_are_parsed_in_the_callers_thread(study) -> None:
    """Python 3.11's `ast`, with which `numpy.load` reads headers, fails now and then if several threads use it."""
    store = ResultStore.of(study.home, None)
    finished = [run for run in store.runs().values() if run.status == "finished"]
    assert len(finished) > 1
    assert set(store.read(finished, "per_object.parquet", lambda _: threading.get_ident())) == {threading.get_ident()}


def test_a_database_without_mlflows_tables_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(
        ResultsError, match=r"mlflow\.db cannot be read: no such table: runs; .*mlflow\.db is no MLflow store"
    ):
        ResultStore.of(tmp_path, None).runs()


@pytest.mark.parametrize("uri", ["postgresql+nodriver://db/mlflow", "nothing://db/mlflow"])
def test_an_address_without_a_store_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=uri.replace("+", r"\+")):
        ResultStore(uri, tmp_path).runs()


def test_a_driver_that_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ResultsError, match=r"db/mlflow needs the package psycopg: pip install 'splatsweep\[postgresql\]'"
    ):
        ResultStore("postgresql://me@db/mlflow", tmp_path).runs()


# The three kinds of store


@pytest.fixture(scope="module", params=["postgresql", "http"])
def remote_study(request, tmp_path_factory, empty_store: Path) -> tuple[RecordedHome, FakeSweep]:
    """The study of `record_study` in another kind of store, and a sweep with its address."""
    if request.param == "http":
        uri = request.getfixturevalue("mlflow_server").uri
    else:
        server = request.getfixturevalue("postgres")
        uri = server.uri(server.create(template=request.getfixturevalue("empty_database")))
    recorded = RecordedHome(tmp_path_factory.mktemp(request.param), empty_store, uri)
    record_study(recorded)
    return recorded, FakeSweep(tracking=Tracking(uri))


def test_every_kind_of_store_returns_the_same(study, sweep, remote_study) -> None:
    recorded, remote_sweep = remote_study
    ours, theirs = read_evidence(sweep, study.home), read_evidence(remote_sweep, recorded.home)
    pd.testing.assert_frame_equal(theirs.results(), ours.results())
    assert len(ours.results()) == 6 * 3 * 2 * 3
    pd.testing.assert_frame_equal(theirs.curves(), ours.curves())
    assert len(ours.curves()) == 4 * (4 + 2)
    pd.testing.assert_frame_equal(theirs.trials().drop(columns="run_id"), ours.trials().drop(columns="run_id"))
    assert len(ours.samples) == 6
    for here, there in zip(ours.samples, theirs.samples, strict=True):
        np.testing.assert_array_equal(here.render, there.render)
    for here, there in zip(ours.records, theirs.records, strict=True):
        assert here.run is not None
        assert there.run is not None
        assert own_tags(here.run) == own_tags(there.run)
        assert (here.run.started, here.run.ended) == (there.run.started, there.run.ended)
        assert here.run.experiment == there.run.experiment == "study"


def own_tags(run: Run) -> dict[str, str]:
    """Our tags, without hashes (npz files contain the time) and without MLflow's own tags."""
    return {name: tag for name, tag in run.tags.items() if not name.startswith((HASH, "mlflow.runName"))}


@pytest.fixture(scope="module")
def fifty(mlflow_server) -> list[str]:
    """Fifty runs on the server, with 20 metrics of three points each."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

    client = MlflowClient(mlflow_server.uri)
    experiment = client.create_experiment("fifty")
    metrics = [Metric(f"train/{name}", 10.0 * name + step, step, step) for name in range(20) for step in range(3)]
    runs = [client.create_run(experiment).info.run_id for _ in range(50)]
    for number, run in enumerate(runs):
        client.log_batch(run, metrics, tags=[RunTag("splatsweep.key", f"fifty {number}")])
    return runs


def test_one_request_reads_many_runs(fifty: list[str], proxy, tmp_path: Path) -> None:
    store = ResultStore(proxy.uri, tmp_path)
    runs = [run for run in store.runs().values() if run.run_id in fifty]
    assert len(runs) == 50
    assert [request.rpartition("/api/2.0/mlflow")[2] for request in proxy.requests] == [
        "/experiments/search",
        "/runs/search",
    ]
    proxy.requests.clear()
    histories = store.histories(runs, [f"train/{name}" for name in range(20)])
    assert len(histories) == 50 * 20 * 3
    chosen = histories[(histories["run_id"] == fifty[7]) & (histories["metric"] == "train/19")]
    assert list(chosen["value"]) == [190.0, 191.0, 192.0]
    # One statement for each metric, and not for each run.
    assert len(proxy.requests) == 20


def test_histories_longer_than_one_response_are_complete(fifty: list[str], proxy, tmp_path: Path) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(proxy.uri)
    for start in range(0, 3000, 1000):
        points = [Metric("train/long", float(step), step, step) for step in range(start, start + 1000)]
        client.log_batch(fifty[0], points)
    client.log_metric(fifty[1], "train/long", math.nan, 5, 5)
    store = ResultStore(proxy.uri, tmp_path)
    runs = {run.run_id: run for run in store.runs().values()}
    proxy.requests.clear()
    histories = store.histories([runs[fifty[0]], runs[fifty[1]]], ["train/long"])
    steps = histories.groupby("run_id", observed=True)["step"].apply(list)
    assert steps[fifty[0]] == list(range(3000))
    assert steps[fifty[1]] == [5]
    assert histories["value"].isna().sum() == 1
    assert len(proxy.requests) == 1 + 2
