"""Messages about a store that cannot be used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from results import store_errors
from results.address import sqlite_uri
from results.store_errors import store_problem

SYNC = "splatsweep sync 'a b.yaml' --set seeds=[0] --home /h"
SCHEMA = (
    "Detected out-of-date database schema (found version 89d4b8295536, but expected 76601a5f987d). Take a backup of "
    "your database, then run 'mlflow db upgrade <database_uri>' to migrate your database to the latest schema. NOTE"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("(sqlite3.OperationalError) database is locked", "another program has locked it"),
        (SCHEMA, "mlflow db upgrade 'sqlite:////"),
        (SCHEMA.replace("89d4b8295536", "ffffffffffff"), "newer MLflow than the one that is installed"),
        (SCHEMA.replace("found version", "found"), "mlflow db upgrade"),
        ("Can't locate revision identified by 'ffff'", "newer MLflow"),
        ("file is not a database", f"made anew from the trials' journals: {SYNC}"),
        ("database disk image is malformed", "made anew"),
        ("unsupported file format", "made anew"),
        ("Could not decode to UTF-8 column 'value' with text 'x'", "made anew"),
        ("'utf-8' codec can't decode byte 0xff in position 37", "made anew"),
        ("no such table: experiments", "no MLflow store"),
        ("API request to endpoint /api/x failed with error code 401 != 200", "set MLFLOW_TRACKING_USERNAME and"),
        ("(sqlite3.OperationalError) database or disk is full", f"make room, then: {SYNC}"),
    ],
)
def test_the_remedy_follows_the_reason(tmp_path: Path, error: str, said: str) -> None:
    uri = sqlite_uri(tmp_path / "my home" / "mlflow.db")
    problem = store_problem(uri, ValueError(error), "written", SYNC)
    assert problem.startswith(f"the MLflow store {uri} cannot be written: {error[:30]}")
    assert said in problem
    assert "Take a backup" not in problem
    assert ".;" not in problem


def test_an_mlflow_that_does_not_list_its_versions_is_not_taken_for_an_older_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(store_errors, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=[tmp_path]))
    problem = store_problem(sqlite_uri(tmp_path / "mlflow.db"), ValueError(SCHEMA), "written", SYNC)
    assert "mlflow db upgrade" in problem


def test_the_owner_of_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    monkeypatch.setattr(store_errors, "whose", lambda file: f"{file} belongs to alice")
    problem = store_problem(sqlite_uri(path), ValueError("attempt to write a readonly database"), "written", SYNC)
    assert problem.endswith(f"attempt to write a readonly database; {path} belongs to alice")


def test_a_reason_without_a_remedy_stands_alone_and_without_secrets() -> None:
    problem = store_problem("postgresql://me:pw@db/a", ValueError("no answer at postgresql://me:pw@db/a"), "read", SYNC)
    assert problem == "the MLflow store postgresql://me:***@db/a cannot be read: no answer at postgresql://me:***@db/a"


@pytest.mark.parametrize(
    ("uri", "error", "end"),
    [
        ("postgresql://me@db/a", "permission denied for table runs", "permission denied for table runs"),
        ("http://mlflow.lab", "no such table: experiments", "no such table: experiments; this is no MLflow store"),
    ],
)
def test_the_remedies_of_files_are_not_named_for_a_server(uri: str, error: str, end: str) -> None:
    assert store_problem(uri, ValueError(error), "read", SYNC).endswith(f"cannot be read: {end}")


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    problem = store_problem(sqlite_uri(tmp_path), ValueError("unable to open database file"), "written", SYNC)
    assert f"{tmp_path} is no MLflow store" in problem
    assert SYNC in problem
