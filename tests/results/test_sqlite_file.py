"""SQLite files on storage that may not be written, for which `immutable` and a copy stand in."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from results import sqlite_file
from results.sqlite_file import copy_to, reading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database whose writes are in the file, and whose name holds the characters of an address."""
    path = tmp_path / "a %20 b?c#d.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
    return path


@contextmanager
def unfinished(path: Path) -> Iterator[None]:
    """A writer whose last row is in the log alone."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("INSERT INTO t VALUES (2)")
        connection.commit()
        yield


@pytest.fixture
def is_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite cannot make files beside the database, as on storage that is mounted read-only."""
    connect = sqlite3.connect

    class Refusing(sqlite3.Connection):
        def execute(self, *_: Any) -> Any:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error

    def opened(place: Any, **options: Any) -> sqlite3.Connection:
        is_first = isinstance(place, Path) and "splatsweep-" not in str(place)
        return connect(place, **options, factory=Refusing) if is_first else connect(place, **options)

    monkeypatch.setattr(sqlite_file.sqlite3, "connect", opened)
    monkeypatch.setattr(os, "access", lambda *_: False)


def rows(path: Path) -> list[int]:
    with reading(path, 1) as connection:
        return [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]


def test_an_ordinary_file_is_read_with_its_log(path: Path) -> None:
    assert rows(path) == [1]
    with unfinished(path):
        assert rows(path) == [1, 2]


def test_an_ordinary_file_is_not_copied(path: Path) -> None:
    """A copy, or a file that is taken for unchanging, does not show what is written meanwhile."""
    with reading(path, 1) as connection, closing(sqlite3.connect(path)) as writer:
        for row in (2, 3):
            writer.execute(f"INSERT INTO t VALUES ({row})")
            writer.commit()
            assert connection.execute("SELECT max(x) FROM t").fetchone() == (row,)


@pytest.mark.parametrize("is_writable", [True, False])
def test_a_file_that_another_program_has_locked_is_waited_for_and_not_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, is_writable: bool
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: is_writable)
    waited = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite_file.sqlite3, "connect", lambda *place, **found: waited.append(found) or connect(*place, timeout=0)
    )
    with closing(connect(path)) as owner:
        owner.execute("PRAGMA locking_mode=EXCLUSIVE")
        owner.execute("INSERT INTO t VALUES (2)")
        owner.commit()
        with pytest.raises(sqlite3.OperationalError, match="locked"), reading(path, 7):
            pass
    assert waited == [{"timeout": 7}]


def test_a_file_that_cannot_be_opened_although_it_may_be_written_is_an_error(path: Path) -> None:
    path.unlink()
    path.mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"), reading(path, 1):
        pass


def test_an_empty_log_is_not_copied(path: Path, request: pytest.FixtureRequest, monkeypatch) -> None:
    request.getfixturevalue("is_read_only")
    path.with_name(f"{path.name}-wal").touch()
    monkeypatch.setattr(sqlite_file.shutil, "copyfile", lambda *_: pytest.fail("copied"))
    assert rows(path) == [1]


def test_a_file_that_may_not_be_written_is_read_as_it_is(path: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("is_read_only")
    before = {found.name for found in path.parent.iterdir()}
    assert rows(path) == [1]
    assert {found.name for found in path.parent.iterdir()} == before


def test_the_log_of_a_file_that_may_not_be_written_is_read_too(path: Path, request: pytest.FixtureRequest) -> None:
    with unfinished(path):
        request.getfixturevalue("is_read_only")
        assert rows(path) == [1, 2]


def test_other_errors_are_raised(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"no database at all, but longer than a header" * 20)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        rows(path)


def test_damaged_names_are_an_error_of_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    assert content.count(b"tablett") == 1
    path.write_bytes(content.replace(b"tablett", b"table\xff\xff"))
    with pytest.raises(sqlite3.DatabaseError, match=r"malformed: .*can't decode"):
        rows(path)


def test_a_copy_holds_what_the_log_holds(path: Path, tmp_path: Path) -> None:
    with unfinished(path):
        copy_to(tmp_path / "copy.db", path, 1)
    assert rows(tmp_path / "copy.db") == [1, 2]
