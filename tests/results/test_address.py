"""Valid addresses of stores, and their display."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from results.address import (
    AddressError,
    check_address,
    expanded_address,
    is_database,
    reason,
    sqlite_path,
    sqlite_uri,
    without_secrets,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@db/mlflow", "postgresql://me:***@db/mlflow"),
        ("postgresql+psycopg://me:sec/r:et@db:5432/mlflow", "postgresql+psycopg://me:***@db:5432/mlflow"),
        ("postgresql://me:sec@ret@db/mlflow", "postgresql://me:***@db/mlflow"),
        ("https://:secret@h:5000", "https://:***@h:5000"),
        ("postgresql://db/mlflow?user=me&password=secret&x=1", "postgresql://db/mlflow?user=me&password=***&x=1"),
        ("mssql://?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret", "mssql://?odbc_connect=***"),
        ("cannot open postgresql://me:secret@db/a (why)", "cannot open postgresql://me:***@db/a (why)"),
        ("{'uri': 'postgresql://me:secret@db/a'}", "{'uri': 'postgresql://me:***@db/a'}"),
    ],
)
def test_secrets_are_masked_wherever_an_address_stands(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    ["http://h:5000/path", "sqlite:////home/a/mlflow.db", "postgresql://me@db:5432/mlflow", "at 10:30 a@b http://h"],
)
def test_what_holds_no_secret_is_left_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////home/a/mlflow.db",
        "postgresql://me:pw@db:5432/mlflow",
        "postgresql+psycopg:///mlflow?host=/run/postgresql",
        "mysql+pymysql://me@db/mlflow",
        "http://127.0.0.1:5000",
        "https://h/prefix",
    ],
)
def test_addresses_of_stores_are_accepted(uri: str) -> None:
    check_address(uri)
    assert is_database(uri) is not uri.startswith("http")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("postgres://db/mlflow", r"allowed: sqlite://, postgresql://, mysql://, mssql://, http://, https://"),
        ("mlruns", "not the address of an MLflow store"),
        ("", "not the address of an MLflow store"),
        ("sqlite:///mlflow.db", "must be absolute"),
        ("http://:5000", "lacks a host"),
        ("http://h:port", "port must be a number"),
        ("http://[h", "not an address"),
        ("postgresql://me:pw@db", "lacks a database"),
        ("postgresql://me:sec/ret@db/mlflow", "password %-encoded"),
    ],
)
def test_other_addresses_are_refused_with_what_is_wrong(uri: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason) as caught:
        check_address(uri)
    assert "sec" not in str(caught.value)


def test_an_error_is_shortened_to_a_line() -> None:
    error = ValueError("no answer at postgresql://me:secret@db/a\n[SQL: SELECT 1]")
    assert reason(error) == "no answer at postgresql://me:***@db/a"
    assert reason(ValueError()) == "ValueError"


def test_the_drivers_message_replaces_an_error_that_begins_with_a_hint() -> None:
    error = ValueError(
        "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)\n"
        "(sqlite3.OperationalError) attempt to write a readonly database\n[SQL: INSERT INTO runs]"
    )
    assert reason(error) == "(sqlite3.OperationalError) attempt to write a readonly database"


@pytest.mark.parametrize("name", ["plain", "a b", "a%20b", "a%zz", "a?b=c", "a#b", "größe 大", "a&b;c", "[x]"])
def test_the_address_of_a_file_opens_that_file_for_every_path(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "mlflow.db"
    file.parent.mkdir()
    uri = sqlite_uri(file)
    check_address(uri)
    assert sqlite_path(uri) == str(file)
    with create_engine(uri, poolclass=NullPool).connect() as connection:
        connection.execute(text("CREATE TABLE made (x)"))
        connection.commit()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_tilde_in_the_address_of_a_file_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded_address("sqlite:///~/mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert expanded_address("sqlite:////~/mlflow.db") == "sqlite:////~/mlflow.db"
    assert expanded_address("http://host/~me") == "http://host/~me"
