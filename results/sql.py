"""MLflow's database on a server, read with one query per table; `results.sqlite` reads one in a file.

MLflow's own client loads runs as objects with all their parameters and queries each metric's history separately;
for thousands of runs that takes minutes.  The tables read here have kept their columns since MLflow 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Engine, Select, column, create_engine, make_url, select, table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from results.address import reason, without_secrets
from results.errors import ResultsError
from results.records.tags import KEY
from results.runs import Point, Run

_EXPERIMENTS = table("experiments", *map(column, ("experiment_id", "name", "lifecycle_stage")))
_RUNS = table(
    "runs",
    *map(column, ("run_uuid", "experiment_id", "lifecycle_stage", "status", "artifact_uri", "start_time", "end_time")),
)
_RUN_COLUMNS = ("run_uuid", "status", "artifact_uri", "start_time", "end_time", "experiment_id")
_TAGS = table("tags", *map(column, ("run_uuid", "key", "value")))
_LATEST = table("latest_metrics", *map(column, ("run_uuid", "key")))
_METRICS = table("metrics", *map(column, ("run_uuid", "key", "step", "value", "timestamp", "is_nan")))
#: runs in one statement; SQL Server accepts 2,100 values, of which names of metrics and tags need some
_IDS_AT_ONCE = 1_500


#: database driver's package -> the pip requirement that installs it
_EXTRAS = {"psycopg": "splatsweep[postgresql]"}


def require_driver(uri: str) -> None:
    """Raises `ResultsError`, with the command that installs it, where a database's driver is not installed."""
    try:
        make_url(uri).get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        package = _EXTRAS.get(str(error.name), error.name)
        raise ResultsError(f"{without_secrets(uri)} needs the package {error.name}: pip install '{package}'") from error
    except SQLAlchemyError as error:
        raise ResultsError(f"{without_secrets(uri)} cannot be opened: {reason(error)}") from error


class SqlReader:
    """Reads PostgreSQL, MySQL and SQL Server, by SQLAlchemy's address of the database."""

    errors = (SQLAlchemyError,)

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _engine(self) -> Engine:
        require_driver(self._uri)
        return create_engine(self._uri, poolclass=NullPool)

    def runs(self) -> list[Run]:
        """Runs, tags and names of metrics: three queries."""
        ours = select(_TAGS.c.run_uuid).where(_TAGS.c.key == KEY)
        runs = self._rows(
            select(*(_RUNS.c[name] for name in _RUN_COLUMNS), _EXPERIMENTS.c.name)
            .join(_EXPERIMENTS, _RUNS.c.experiment_id == _EXPERIMENTS.c.experiment_id)
            .where(_RUNS.c.run_uuid.in_(ours))
            .where(_RUNS.c.lifecycle_stage == "active", _EXPERIMENTS.c.lifecycle_stage == "active")
        )
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        for run_id, name, value in self._rows(select(_TAGS).where(_TAGS.c.run_uuid.in_(ours))):
            tags[run_id][name] = value
        metrics: dict[str, list[str]] = defaultdict(list)
        for run_id, name in self._rows(select(_LATEST).where(_LATEST.c.run_uuid.in_(ours))):
            metrics[run_id].append(name)
        return [
            Run.recorded(run_id, status, tags[run_id], metrics[run_id], uri, start, end, *experiment)
            for run_id, status, uri, start, end, *experiment in runs
        ]

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[Point]:
        """One query; MLflow writes a NaN as a zero with a flag."""
        points = select(*(_METRICS.c[name] for name in ("run_uuid", "key", "step", "value", "timestamp", "is_nan")))
        rows: list[Point] = []
        for start in range(0, len(run_ids), _IDS_AT_ONCE):
            chosen = _METRICS.c.run_uuid.in_(run_ids[start : start + _IDS_AT_ONCE])
            # SQL Server has no conditions of a column alone, and others compare none with a number: Python decides.
            rows += [
                (run_id, name, step, None if is_nan else value, moment)
                for run_id, name, step, value, moment, is_nan in self._rows(
                    points.where(chosen, _METRICS.c.key.in_(metrics))
                )
            ]
        return rows

    def _rows(self, query: Select[Any]) -> list[Any]:
        with self._engine.connect() as connection:
            # Plain tuples: pandas inspects each of SQLAlchemy's rows twice.
            return [tuple(row) for row in connection.execute(query)]
