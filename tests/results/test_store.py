"""The door to MLflow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from results.errors import ResultsError
from results.load import read_evidence
from results.rest import RestReader
from results.sql import SqlReader
from results.store import ResultStore


@pytest.mark.parametrize(
    ("uri", "label"),
    [
        ("postgresql://me:secret@db/mlflow", "postgresql://db/mlflow"),
        ("http://h:5000", "http://h:5000"),
        ("sqlite:////home/a/mlflow.db", "sqlite:////home/a/mlflow.db"),
    ],
)
def test_the_stores_label_has_no_credentials(uri: str, label: str) -> None:
    assert ResultStore(uri).label == label


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


def test_a_server_that_is_down_is_an_error_that_names_it() -> None:
    with pytest.raises(ResultsError, match=r"http://127\.0\.0\.1:9 cannot be read"):
        ResultStore("http://127.0.0.1:9").runs()


@pytest.fixture
def statements() -> list[str]:
    """SQL statements of the test, as they are executed."""
    executed: list[str] = []

    def note(*arguments: Any) -> None:
        executed.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", note)
    yield executed
    event.remove(Engine, "before_cursor_execute", note)


def test_one_query_for_each_table_however_many_runs(study, sweep, statements: list[str]) -> None:
    evidence = read_evidence(sweep, study.home)
    assert [statement.split("FROM ")[1].split()[0] for statement in statements] == ["runs", "tags", "latest_metrics"]
    statements.clear()
    assert len(evidence.curves()) > 0
    assert [statement.split("FROM ")[1].split()[0] for statement in statements] == ["metrics"]


def test_mlflows_client_and_the_database_tell_the_same(study) -> None:
    uri = ResultStore.of(study.home, None).uri
    by_client, by_query = (
        sorted(reader.runs(), key=lambda run: run.key) for reader in (RestReader(uri), SqlReader(uri))
    )
    assert by_client == by_query
    assert [run.key for run in by_query] == ["a0", "a1", "b0", "b1", "c0", "x0", "x1"]
    ids = [run.run_id for run in by_query]
    frames = [
        reader.histories(ids, ["train/loss", "val/psnr"]).sort_values(["run_id", "metric", "step"], ignore_index=True)
        for reader in (RestReader(uri), SqlReader(uri))
    ]
    assert len(frames[0]) == 4 * (4 + 2)
    pd.testing.assert_frame_equal(*frames)


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


def test_a_database_without_mlflows_tables_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(ResultsError, match=r"mlflow\.db cannot be read: .*no such table"):
        ResultStore.of(tmp_path, None).runs()


@pytest.mark.parametrize("uri", ["postgresql+nodriver://db/mlflow", "nothing://db/mlflow"])
def test_a_malformed_address_is_refused(uri: str) -> None:
    with pytest.raises(ResultsError, match="cannot be read"):
        ResultStore(uri).runs()
