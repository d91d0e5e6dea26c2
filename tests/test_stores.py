"""A sweep on real processes whose results go to PostgreSQL: run, reported, looked at, and cut off."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from mlflow import MlflowClient

from tests.processes import SWEEP, Home, finish, run, start, wait_for
from tests.servers import PostgresServer, free_port

SECRETS = (PostgresServer.PASSWORD, quote(PostgresServer.PASSWORD, safe=""))


@pytest.fixture(scope="module")
def sweep(postgres, empty_database, tmp_path_factory, weights) -> Path:  # noqa: ARG001 - found by their variable
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(
        SWEEP.replace("iterations: 150", "iterations: 4")
        + f"tracking: {{uri: '{postgres.uri(postgres.create(template=empty_database))}'}}\n"
    )
    return path


@pytest.fixture(scope="module")
def finished(sweep, prepared_home, tmp_path_factory) -> tuple[Home, str]:
    """The home of the sweep, and what running it printed."""
    path = tmp_path_factory.mktemp("finished")
    shutil.copytree(prepared_home, path, dirs_exist_ok=True)
    return Home(path), run("run", sweep, "--executor", "inline", home=path)


def test_results_go_to_the_database_and_from_there_into_the_report(finished, sweep):
    home, output = finished
    assert not (home.path / "mlflow.db").exists()
    run("report", sweep, home=home.path)
    assert "baseline" in (home.path / "reports" / "tiny" / "table.md").read_text()
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert [path for path in files for secret in SECRETS if secret.encode() in path.read_bytes()] == []
    assert not any(secret in output for secret in SECRETS)


def test_a_database_that_is_down_is_said_in_a_line_and_in_seconds(finished, sweep, postgres):
    home, _ = finished
    postgres.kill()
    try:
        said = {name: run(name, sweep, home=home.path, code=2) for name in ("report", "sync", "ui")}
        plan = run("plan", sweep, home=home.path)
    finally:
        postgres.start()
    for output in said.values():
        assert f"postgresql://mlflow:***@127.0.0.1:{postgres.port}/" in output
        assert "Connection refused" in output
        assert not any(secret in output for secret in SECRETS)
    assert "finished" in plan
    run("report", sweep, home=home.path)


@pytest.fixture
def ui(finished, sweep) -> Iterator[tuple[int, int]]:
    """The port and the process of the UI on the sweep's store."""
    port = free_port()
    process = start("ui", sweep, "--port", str(port), home=finished[0].path)
    yield port, process.pid
    os.killpg(process.pid, signal.SIGINT)
    finish(process, code=process.wait(timeout=60))


def test_the_ui_shows_the_database_and_its_command_hides_the_password(ui):
    port, pid = ui
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        client = MlflowClient(f"http://127.0.0.1:{port}")
        experiment = wait_for(lambda: shown(client), "the UI's answer")
    names = {run.info.run_name for run in client.search_runs([experiment])}
    assert names == {"baseline", "tv", "blank", "copy_input"}
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert not any(secret in argument for process in family for argument in process.cmdline() for secret in SECRETS)


def shown(client: MlflowClient) -> str | None:
    """The sweep's experiment, once the UI answers."""
    try:
        return client.get_experiment_by_name("tiny").experiment_id
    except Exception:  # not up yet
        return None
