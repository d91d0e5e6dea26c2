"""A home that was copied, moved, renamed or mounted elsewhere: its MLflow store is made to name its own files.

MLflow keeps addresses of artifacts as absolute paths.  Those in the home's own store that name the place where the
home was are rewritten; the files themselves lie in the home.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from results.records import tags
from results.records.home import artifacts_folder, database_file

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


def adopt_store(home: Path) -> None:
    """Rewrite addresses of artifacts in the home's own store that name another place than the home.

    Runs whose artifacts are not in the home keep their address.  Raises `sqlite3.Error`.
    """
    database, folder = database_file(home), artifacts_folder(home)
    if not database.is_file() or not database.stat().st_size:
        return
    here = folder.as_uri()
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        experiments = connection.execute(_EXPERIMENTS, (here, tags.EXPERIMENT, tags.KEY)).fetchall()
        runs = [run for (run,) in connection.execute(_RUNS, (here,)) if (folder / run).is_dir()]
        if experiments:
            connection.executemany(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                [(here, experiment) for (experiment,) in experiments],
            )
        if runs:
            connection.executemany(
                "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?",
                [(f"{here}/{run}/artifacts", run) for run in runs],
            )
