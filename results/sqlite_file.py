"""Opens a SQLite file to read it, also where it lies on storage that may not be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

#: primary codes of errors where SQLite cannot make the files that it needs beside the database
_NO_PLACE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def may_write(path: Path) -> bool:
    """Whether this process may write a database, and the files that SQLite makes beside it."""
    return all(os.access(place, os.W_OK) for place in (path, path.parent))


@contextmanager
def reading(path: Path, patience_s: float) -> Iterator[sqlite3.Connection]:
    """A connection to an existing file; patience_s: timeout for a file that another process is writing.

    Recent writes of MLflow's store lie in a log beside it, and to read that SQLite makes a file in the same folder.
    Where it may not, the file is read as it is if the log is empty, else from a copy.  Raises `sqlite3.Error`.
    """
    with ExitStack() as stack:
        try:
            yield _opened(path, patience_s, stack)
        except UnicodeDecodeError as error:  # SQLite's message repeats what is damaged
            raise sqlite3.DatabaseError(f"malformed: {error}") from error


def copy_to(target: Path, path: Path, patience_s: float) -> None:
    """Copies a database, with what its log holds, into a new file.  Raises `sqlite3.Error`."""
    with reading(path, patience_s) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def _opened(path: Path, patience_s: float, stack: ExitStack) -> sqlite3.Connection:
    try:
        connection = stack.enter_context(closing(sqlite3.connect(path, timeout=patience_s)))
        connection.execute("SELECT name FROM sqlite_master LIMIT 1")
        return connection
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _NO_PLACE or os.access(path.parent, os.W_OK):
            raise
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size):
        return stack.enter_context(closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="splatsweep-")))
    for file in (path, log):
        shutil.copyfile(file, folder / file.name)
    return stack.enter_context(closing(sqlite3.connect(folder / path.name)))
