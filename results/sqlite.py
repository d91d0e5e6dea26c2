"""MLflow's database in a SQLite file, read with one query per table, without importing SQLAlchemy."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.records.tags import KEY
from results.runs import Point, Run
from results.sqlite_file import reading

_OURS = "(SELECT run_uuid FROM tags WHERE key = ?)"
_RUNS = f"""
    SELECT run_uuid, status, artifact_uri, start_time, end_time, e.experiment_id, e.name
    FROM runs r JOIN experiments e ON r.experiment_id = e.experiment_id
    WHERE run_uuid IN {_OURS} AND r.lifecycle_stage = 'active' AND e.lifecycle_stage = 'active'
"""
_TAGS = f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN {_OURS}"
_LATEST = f"SELECT run_uuid, key FROM latest_metrics WHERE run_uuid IN {_OURS}"
# MLflow writes a NaN as a zero with a flag.
_POINTS = "SELECT run_uuid, key, step, CASE WHEN is_nan THEN NULL ELSE value END, timestamp FROM metrics"
#: values that every version of SQLite accepts in one statement
_IDS_AT_ONCE = 900
#: timeout for a file that another process is writing, in seconds
_PATIENCE_S = 5


class SqliteReader:
    """Reads one SQLite file, which must exist."""

    errors = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self._path = path

    def runs(self) -> list[Run]:
        """Runs, tags and names of metrics: three queries."""
        with reading(self._path, _PATIENCE_S) as connection:
            runs = connection.execute(_RUNS, (KEY,)).fetchall()
            tags: dict[str, dict[str, str]] = defaultdict(dict)
            for run_id, name, value in connection.execute(_TAGS, (KEY,)):
                tags[run_id][name] = value
            metrics: dict[str, list[str]] = defaultdict(list)
            for run_id, name in connection.execute(_LATEST, (KEY,)):
                metrics[run_id].append(name)
        return [
            Run.recorded(run_id, status, tags[run_id], metrics[run_id], uri, start, end, *experiment)
            for run_id, status, uri, start, end, *experiment in runs
        ]

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[Point]:
        """One query for every `_IDS_AT_ONCE` runs."""
        points: list[Point] = []
        with reading(self._path, _PATIENCE_S) as connection:
            for start in range(0, len(run_ids), _IDS_AT_ONCE):
                chosen = run_ids[start : start + _IDS_AT_ONCE]
                where = f"run_uuid IN ({_marks(chosen)}) AND key IN ({_marks(metrics)})"
                points += connection.execute(f"{_POINTS} WHERE {where}", (*chosen, *metrics))
        return points


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
