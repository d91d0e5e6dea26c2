"""MLflow's store as a whole: the home's database, experiments by name, and runs that are to be forgotten.

`jobs.tracking` writes runs; `results.store` reads them.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from results import mlflow_settings

mlflow_settings.set_defaults()

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Experiment, ViewType
from mlflow.utils.uri import is_http_uri
from sqlalchemy import column, create_engine, table, update
from sqlalchemy.pool import NullPool

from results.address import default_uri, sqlite_uri
from results.records import tags
from results.records.atomic import PARTIAL
from results.records.disk import is_local
from results.records.home import artifacts_folder, database_file, database_lock
from results.records.permissions import inherit_permissions
from results.rest import RestReader

# This logger prints, with a traceback, errors that are raised anyway.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

_RUNS = table("runs", column("run_uuid"), column("artifact_uri"))


def refuse_dead_store(uri: str) -> None:
    """Raises at once where a store does not answer, since MLflow would retry a database for minutes."""
    if is_http_uri(uri):
        RestReader(uri).check()
    else:
        with create_engine(uri, poolclass=NullPool).connect():
            pass


def create_database(database: Path) -> None:
    """Creates the home's database where there is none, and sets its permissions and its kind of journal."""
    if not (database.exists() and database.stat().st_size > 0):
        _create_tables(database)
    _make_shared(database)
    # A write-ahead log allows reading, for instance in the UI, while the store is being written.  Machines that share
    # a database with such a log do not see each other's writes, and lose them.
    mode = "WAL" if is_local(database) else "DELETE"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")


def _create_tables(database: Path) -> None:
    """Create MLflow's tables in a file beside the database, and rename it when they are complete.

    A driver that is killed meanwhile leaves no database that lacks some of its tables.  MLflow keeps connections for
    each address, which would be those to a file that this process has created before and that was deleted since.
    """
    database.parent.mkdir(parents=True, exist_ok=True)
    for leftover in database.parent.glob(f"{database.name}*{PARTIAL}*"):
        leftover.unlink()
    partial = database.with_name(f"{database.name}.{uuid.uuid4().hex}{PARTIAL}")
    _make_shared(partial)
    MlflowClient(sqlite_uri(partial)).search_experiments(max_results=1)
    _close_connections(partial)
    for log in ("-wal", "-shm", "-journal"):  # of a database that was moved away: SQLite would write it into this one
        database.with_name(f"{database.name}{log}").unlink(missing_ok=True)
    partial.replace(database)
    _close_connections(database)


def _close_connections(database: Path) -> None:
    """Closes the connections that MLflow keeps to a database, for which it has no public function."""
    with suppress(ImportError, AttributeError):
        from mlflow.tracking._tracking_service.utils import _get_store

        _get_store(sqlite_uri(database)).engine.dispose()


def _make_shared(database: Path) -> None:
    """Creates an empty database with the permissions of the home; SQLite would omit those of the group."""
    database.touch()
    inherit_permissions(database)


def set_artifact_folder(uri: str, run_id: str, folder: str) -> None:
    """Sets the address of a run's artifacts in a database; MLflow's client cannot change it."""
    engine = create_engine(uri, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(update(_RUNS).where(_RUNS.c.run_uuid == run_id).values({_RUNS.c.artifact_uri: folder}))


def find_experiment(client: MlflowClient, name: str) -> Experiment | None:
    """The experiment of a name, or the one that was created with it and later renamed; perhaps a deleted one."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found
    named = [found for found in all_experiments(client, ViewType.ALL) if found.tags.get(tags.EXPERIMENT) == name]
    return min(named, key=lambda found: found.lifecycle_stage != "active", default=None)


def all_experiments(client: MlflowClient, view_type: int = ViewType.ACTIVE_ONLY) -> Iterator[Experiment]:
    """Every experiment of a store, the newest first; MLflow returns a thousand at once."""
    token: str | None = ""
    while token is not None:
        page = client.search_experiments(view_type, page_token=token or None)
        yield from page
        token = page.token or None


def forget(home: Path, keys: Sequence[str], uri: str | None = None) -> int:
    """Delete the runs of trials from a store, by default the home's own, with their artifacts in the home.

    Returns the number of runs.  Deleted runs are in no report; a trial that runs again gets a new one.
    """
    own = default_uri(home)
    if not keys or (uri in (None, own) and not database_file(home).exists()):
        return 0
    count = 0
    with FileLock(database_lock(home)):
        refuse_dead_store(uri or own)
        client = MlflowClient(uri or own)
        experiments = [found.experiment_id for found in all_experiments(client, ViewType.ALL)]
        for key in keys:
            for run in client.search_runs(experiments, f"tags.`{tags.KEY}` = '{key}'"):
                # First: nothing would find the artifacts of a deleted run, if this were killed in between.
                shutil.rmtree(artifacts_folder(home) / run.info.run_id, ignore_errors=True)
                client.delete_run(run.info.run_id)
                count += 1
    return count
