"""The home's own MLflow store, a SQLite file, read and updated without importing MLflow, which takes seconds.

MLflow stores absolute paths of artifacts.  After a home was copied, moved, renamed or mounted elsewhere,
paths to its former place are rewritten; the files themselves lie in the home.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from results.records import tags
from results.records.home import artifacts_folder, database_file
from results.sqlite_file import reading

_EXPERIMENTS = """
    SELECT experiment_id FROM experiments e WHERE artifact_location LIKE 'file:%/artifacts' AND artifact_location != ?
    AND (EXISTS (SELECT 1 FROM experiment_tags t WHERE t.experiment_id = e.experiment_id AND t.key = ?)
         OR EXISTS (SELECT 1 FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
                    WHERE r.experiment_id = e.experiment_id AND t.key = ?))
"""
_RUNS = """
    SELECT run_uuid FROM runs WHERE artifact_uri LIKE 'file:%/artifacts/' || run_uuid || '/artifacts'
    AND artifact_uri != ? || '/' || run_uuid || '/artifacts'
"""
#: timeout for a store that another process is writing
_PATIENCE_S = 10


def adopt_store(home: Path, database: Path | None = None) -> None:
    """Rewrite artifact paths in the home's own store, or in a copy of it, that point outside the home.

    Runs whose artifacts are not in the home keep their address.  Writes nothing where there is nothing to rewrite.
    Raises `sqlite3.Error`.
    """
    if not has_store(home):
        return
    database = database or database_file(home)
    folder = artifacts_folder(home)
    here = folder.as_uri()
    with reading(database, _PATIENCE_S) as connection:
        experiments = connection.execute(_EXPERIMENTS, (here, tags.EXPERIMENT, tags.KEY)).fetchall()
        runs = [run for (run,) in connection.execute(_RUNS, (here,)) if (folder / run).is_dir()]
    if not (experiments or runs):
        return
    with closing(sqlite3.connect(database, timeout=_PATIENCE_S)) as connection, connection:
        connection.executemany(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            [(here, experiment) for (experiment,) in experiments],
        )
        connection.executemany(
            "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?",
            [(f"{here}/{run}/artifacts", run) for run in runs],
        )


def has_store(home: Path) -> bool:
    """Whether the home has a store of its own; an empty file is none."""
    database = database_file(home)
    return database.is_file() and database.stat().st_size > 0
