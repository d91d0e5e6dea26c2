"""Artifacts of runs are read from any existing copy."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from results.artifacts import Artifacts
from results.errors import ResultsError
from results.records.tags import HASH
from tests.servers import Proxy

NAME, CONTENT = "per_object.parquet", b"rows"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def run_of(artifact_uri: str, sha256: str | None = SHA256) -> Any:
    tags = {} if sha256 is None else {HASH + NAME: sha256}
    return SimpleNamespace(run_id="r", key="0123", tags=tags, artifact_uri=artifact_uri)


def content(home: Path, run: Any, uri: str = "http://127.0.0.1:9") -> bytes:
    with Artifacts(home, uri).file(run, NAME) as path:
        return path.read_bytes()


@pytest.fixture
def served(proxy, tmp_path: Path) -> str:
    """The address of an artifact folder on a server."""
    client = MlflowClient(proxy.uri)
    run = client.create_run(client.create_experiment(f"artifacts {proxy.server_port}"))
    (tmp_path / NAME).write_bytes(CONTENT)
    client.log_artifact(run.info.run_id, str(tmp_path / NAME))
    (tmp_path / NAME).unlink()
    proxy.requests.clear()
    return str(run.info.artifact_uri)


def downloads(proxy: Proxy) -> int:
    """The requests so far, without MLflow's single request for the server's features."""
    return len([request for request in proxy.requests if not request.endswith("/server-info")])


def test_a_download_takes_one_request_and_is_kept(proxy, served: str, tmp_path: Path) -> None:
    assert content(tmp_path, run_of(served), proxy.uri) == CONTENT
    assert downloads(proxy) == 1
    assert content(tmp_path, run_of(served), proxy.uri) == CONTENT
    assert downloads(proxy) == 1
    assert [path.name for path in (tmp_path / "cache" / "artifacts").iterdir()] == [f"{SHA256}.parquet"]


def test_a_damaged_copy_in_the_cache_is_fetched_again(proxy, served: str, tmp_path: Path) -> None:
    content(tmp_path, run_of(served), proxy.uri)
    (tmp_path / "cache" / "artifacts" / f"{SHA256}.parquet").write_bytes(b"rot")
    assert content(tmp_path, run_of(served), proxy.uri) == CONTENT
    assert downloads(proxy) == 2


def test_what_a_run_states_no_hash_of_is_not_kept(proxy, served: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert content(tmp_path, run_of(served, sha256=None), proxy.uri) == CONTENT
    assert downloads(proxy) == 2
    assert not (tmp_path / "cache").exists()


def test_a_download_that_is_not_what_was_recorded_is_refused(proxy, served: str, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"per_object\.parquet is not what was recorded"):
        content(tmp_path, run_of(served, sha256="0" * 64), proxy.uri)
    assert list((tmp_path / "cache" / "artifacts").iterdir()) == []


def test_storage_whose_package_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(FileNotFoundError, match=r"cannot be fetched: .*boto3"):
        content(tmp_path, run_of("s3://bucket/r"))


def test_what_a_server_does_not_have_is_missing(proxy, served: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cannot be fetched"):
        content(tmp_path, run_of(f"{served}/other"), proxy.uri)


def trial_file(home: Path, what: bytes) -> None:
    folder = home / "trials" / "0123"
    folder.mkdir(parents=True)
    (folder / NAME).write_bytes(what)


def test_the_trials_own_file_serves_where_it_is_what_was_recorded(tmp_path: Path) -> None:
    trial_file(tmp_path, CONTENT)
    assert content(tmp_path, run_of("mlflow-artifacts:/1/r/artifacts")) == CONTENT


def test_the_trials_own_file_does_not_serve_once_it_was_changed(tmp_path: Path) -> None:
    trial_file(tmp_path, b"better numbers")
    with pytest.raises(FileNotFoundError, match="cannot be fetched"):
        content(tmp_path, run_of("mlflow-artifacts:/1/r/artifacts"))


def test_a_recorded_file_that_was_changed_is_refused_unless_the_trial_has_it(tmp_path: Path) -> None:
    store = tmp_path / "artifacts"
    store.mkdir()
    (store / NAME).write_bytes(b"better numbers")
    with pytest.raises(ResultsError, match="is not what was recorded"):
        content(tmp_path, run_of(store.as_uri()))
    trial_file(tmp_path, CONTENT)
    assert content(tmp_path, run_of(store.as_uri())) == CONTENT
