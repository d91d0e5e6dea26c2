"""The home's database, and runs that are forgotten; `test_tracking.py` has the tests of experiments."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import psutil
import pytest
from mlflow import MlflowClient

from jobs.mlflow_store import create_database, forget
from results.address import default_uri

KEY = "0123456789abcdef"


def test_a_database_that_was_being_created_when_its_driver_died_is_created_anew(tmp_path: Path) -> None:
    """Tables appear under a temporary name; what a killed driver left there is replaced."""
    (tmp_path / "mlflow.db.1234.partial").write_bytes(b"half of a database")
    (tmp_path / "mlflow.db.1234.partial-journal").write_bytes(b"of the same")
    (tmp_path / "mlflow.db.partial").write_bytes(b"of an earlier version")
    (tmp_path / "mlflow.db").touch()
    create_database(tmp_path / "mlflow.db")
    assert [found.name for found in MlflowClient(default_uri(tmp_path)).search_experiments()] == ["Default"]
    assert not list(tmp_path.glob("*partial*"))


def test_a_process_creates_a_database_again_that_was_deleted(tmp_path: Path) -> None:
    """Somebody deletes the home in a notebook, and runs the sweep again."""
    for name in ("first", "second"):
        create_database(tmp_path / "mlflow.db")
        client = MlflowClient(default_uri(tmp_path))
        client.create_experiment(name)
        assert {found.name for found in client.search_experiments()} == {"Default", name}
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            assert ("Default",) in connection.execute("SELECT name FROM experiments").fetchall()
        for path in list(tmp_path.iterdir()):
            path.unlink()


def test_a_database_is_made_anew_without_the_log_of_the_one_that_was_moved_away(tmp_path: Path) -> None:
    """A killed driver leaves it; SQLite takes any log of that name for the database's own."""
    database, log = tmp_path / "mlflow.db", tmp_path / "mlflow.db-wal"
    create_database(database)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("CREATE TABLE of_the_former (x)")
        connection.commit()
        left = log.read_bytes()
    for path in list(tmp_path.iterdir()):
        path.unlink()
    log.write_bytes(left)
    create_database(database)
    with closing(sqlite3.connect(database)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert "experiments" in tables
    assert "of_the_former" not in tables


def test_a_database_that_exists_keeps_its_content(tmp_path: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    MlflowClient(default_uri(tmp_path)).create_experiment("mine")
    create_database(tmp_path / "mlflow.db")
    assert len(MlflowClient(default_uri(tmp_path)).search_experiments()) == 2


@pytest.mark.parametrize(("system", "mode"), [("ext4", "wal"), ("nfs4", "delete"), ("fuse.sshfs", "delete")])
def test_a_store_on_a_network_has_no_log_that_machines_would_have_to_share(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, system: str, mode: str
) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="xfs"), SimpleNamespace(mountpoint=str(tmp_path), fstype=system)]
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: mounts)
    shutil.copy(empty_store, tmp_path / "mlflow.db")

    def journal(*change: str) -> str:
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            return str(connection.execute(f"PRAGMA journal_mode{''.join(change)}").fetchone()[0])

    journal("=WAL")  # as of an earlier version
    create_database(tmp_path / "mlflow.db")
    assert journal() == mode


def record(home: Path, empty_store: Path) -> MlflowClient:
    """Records a run of the key in a home's store, with an artifact."""
    shutil.copy(empty_store, home / "mlflow.db")
    client = MlflowClient(default_uri(home))
    run = client.create_run(client.create_experiment("study"), tags={"splatsweep.key": KEY}).info.run_id
    (home / "artifacts" / run / "artifacts").mkdir(parents=True)
    (home / "artifacts" / "of another" / "artifacts").mkdir(parents=True)
    return client


def test_a_trial_that_is_forgotten_has_no_run_nor_artifacts(tmp_path: Path, empty_store: Path) -> None:
    client = record(tmp_path, empty_store)
    assert forget(tmp_path, ["another", KEY]) == 1
    assert client.search_runs([found.experiment_id for found in client.search_experiments()]) == []
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["of another"]
    assert forget(tmp_path, [KEY]) == 0


def test_forgetting_that_was_killed_is_completed_when_it_is_repeated(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, empty_store)

    def killed(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    for owner, name in ((shutil, "rmtree"), (MlflowClient, "delete_run")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            with pytest.raises(KeyboardInterrupt):
                forget(tmp_path, [KEY])
    assert forget(tmp_path, [KEY]) == 1
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["of another"]


def test_a_home_without_a_store_has_only_runs_of_others_to_forget(tmp_path: Path, empty_store: Path) -> None:
    record(tmp_path, empty_store)
    assert forget(tmp_path / "none", [KEY]) == 0
    assert forget(tmp_path / "none", [], default_uri(tmp_path)) == 0
    assert not (tmp_path / "none").exists()
    (tmp_path / "none").mkdir()
    assert forget(tmp_path / "none", [KEY], default_uri(tmp_path)) == 1


@pytest.mark.parametrize(
    ("module", "given", "expected"),
    [
        ("jobs.mlflow_store", {}, "10 WARNING"),
        ("jobs.tracking", {"PGCONNECT_TIMEOUT": "3", "MLFLOW_LOGGING_LEVEL": "ERROR"}, "3 ERROR"),
        ("jobs.tracking", {}, "10 WARNING"),
    ],
)
def test_mlflow_is_imported_with_our_settings_unless_the_user_has_others(
    module: str, given: dict[str, str], expected: str
) -> None:
    """It reads some of them only then."""
    code = f"""if True:
        import {module}, logging, os
        level = logging.getLogger("mlflow").getEffectiveLevel()
        print(os.environ["PGCONNECT_TIMEOUT"], logging.getLevelName(level))
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PGCONNECT"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**own, **given}
    )
    assert done.stdout.strip() == expected
