"""A sweep with its results in PostgreSQL, on real processes: runs, reports, reads, and loses its connection."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from sweep import cli
from tests.processes import Home, run, tiny_sweep
from tests.servers import PostgresServer

SECRETS = (PostgresServer.PASSWORD, quote(PostgresServer.PASSWORD, safe=""))


@pytest.fixture(scope="module")
def uri(postgres, empty_database) -> str:
    """The address of the store, with its password."""
    return postgres.uri(postgres.create(template=empty_database))


@pytest.fixture(scope="module")
def sweep(uri, tmp_path_factory, weights) -> Path:  # noqa: ARG001 - the commands find the weights by their variable
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(f"{tiny_sweep(4)}tracking: {{uri: '{uri}'}}\n")
    return path


@pytest.fixture(scope="module")
def finished(sweep, prepared_home, tmp_path_factory) -> tuple[Home, str]:
    """The home of the sweep, and the output of its run."""
    path = tmp_path_factory.mktemp("finished")
    shutil.copytree(prepared_home, path, dirs_exist_ok=True)
    (path / "mlflow.db").unlink()  # the store is elsewhere
    return Home(path), run("run", sweep, "--executor", "inline", "--only", "baseline", home=path)


@pytest.fixture
def command(finished, sweep, monkeypatch, capfd) -> Callable[[str], tuple[int, str]]:
    """Runs `splatsweep NAME` on the sweep in this process; returns its exit code and output."""

    def call(name: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["splatsweep", name, str(sweep), "--home", str(finished[0].path)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), "".join(capfd.readouterr())

    return call


def test_results_go_to_the_database_and_from_there_into_the_report(finished, command):
    home, output = finished
    assert not (home.path / "mlflow.db").exists()
    assert command("report")[0] == 0
    (row,) = [
        line
        for line in (home.path / "reports" / "tiny" / "auto.md").read_text().splitlines()
        if line.startswith("| baseline")
    ]
    assert any(character.isdigit() for character in row)
    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert [path for path in files for secret in SECRETS if secret.encode() in path.read_bytes()] == []
    assert not any(secret in output for secret in SECRETS)


def test_an_unreachable_database_is_reported_in_a_line(postgres, command):
    postgres.kill()
    try:
        answers = [command(name) for name in ("report", "sync", "ui")]
        plan = command("plan")
    finally:
        postgres.start()
    for code, output in answers:
        assert code == 2
        assert f"postgresql://mlflow:***@127.0.0.1:{postgres.port}/" in output
        assert "Connection refused" in output
        assert "Traceback" not in output
        assert not any(secret in output for secret in SECRETS)
    assert plan[0] == 0
    assert "finished" in plan[1]
    assert command("sync")[0] == 0


def test_the_ui_opens_the_database_and_shows_its_password_to_nobody(uri, command, monkeypatch):
    opened = []

    def popen(arguments, *, env, **_):
        opened.append((arguments, env["MLFLOW_BACKEND_STORE_URI"]))
        raise RuntimeError("no server in this test")

    monkeypatch.setattr("sweep.run.mlflow_ui.subprocess.Popen", popen)
    command("ui")
    [(arguments, store)] = opened
    assert store == uri
    assert not any(secret in argument for argument in arguments for secret in SECRETS)
