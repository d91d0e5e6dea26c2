"""Read-only access to MLflow: runs by trial key, metric histories, artifacts.

`results.sqlite` and `results.sql` read databases with one query per table; `results.rest` reads tracking servers with
one request for many runs; `results.artifacts` reads artifacts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from results import mlflow_settings
from results.address import AddressError, check_address, default_uri, is_database, sqlite_path, without_secrets
from results.artifacts import Artifacts
from results.errors import ResultsError
from results.invocation import command
from results.records.tags import artifact_hash, differ
from results.records.trial_folder import MEASUREMENTS_FILENAME
from results.runs import HISTORY_COLUMNS, Reader, Run
from results.store_errors import store_problem

if TYPE_CHECKING:
    import pandas as pd

_DOWNLOADS_AT_ONCE = 8

Content = TypeVar("Content")


class ResultStore:
    """Runs in an MLflow store; a missing SQLite file is not created."""

    def __init__(self, uri: str, home: Path, sync: str | None = None) -> None:
        """home: artifacts are searched for here first, and downloads are kept here; sync: the command that records
        what the store lacks, for messages.

        Raises `AddressError` where `uri` is no address of an MLflow store.
        """
        try:
            check_address(uri)
        except AddressError as error:
            raise AddressError(f"{without_secrets(uri)}: {error}") from None
        self.uri, self._sync = uri, sync or command("sync", None, home)
        self._artifacts = Artifacts(home, uri)

    @classmethod
    def of(cls, home: Path, uri: str | None, sync: str | None = None) -> ResultStore:
        """The store at `uri`, or the home's own."""
        home = home.absolute()
        return cls(uri or default_uri(home), home, sync)

    @property
    def label(self) -> str:
        """The address without secrets, fit for printing."""
        return without_secrets(self.uri)

    def runs(self, scores: Mapping[str, str] | None = None) -> dict[str, Run]:
        """Every trial's run by key, over all experiments.

        scores: key -> SHA-256 of the scores of this home's trial.  Finished runs of its key with other scores, for
        instance of another machine, are left out.

        A key may have been trained by another sweep.  Should a key have several runs, a finished one wins,
        then the latest.  Raises `ResultsError` where the store does not answer.
        """
        if not self.exists():
            return {}
        with self._readable() as reader:
            runs = reader.runs()
        own, epoch = scores or {}, datetime.fromtimestamp(0, UTC)
        runs = [run for run in runs if run.status != "finished" or not differ(own.get(run.key), _scores(run))]
        runs.sort(key=lambda run: (run.status == "finished", run.started or epoch))
        return {run.key: run for run in runs}

    def histories(self, runs: Sequence[Run], metrics: Sequence[str]) -> pd.DataFrame:
        """Columns `HISTORY_COLUMNS`, by run, metric and step; a step logged twice keeps the value logged last.

        run_id and metric are categories.
        """
        import pandas as pd

        if not runs or not metrics:
            return pd.DataFrame(columns=HISTORY_COLUMNS).astype({"step": "int64", "value": "float64"})
        with self._readable() as reader:
            rows = reader.histories([run.run_id for run in runs], metrics)
        points = pd.DataFrame(rows, columns=["run_id", "metric", "step", "value", "timestamp"])
        # As categories, names are compared as integers.
        kinds = {"run_id": "category", "metric": "category", "step": "int64", "value": "float64"}
        points = points.astype(kinds).sort_values("timestamp", kind="stable")
        points = points.drop_duplicates(["run_id", "metric", "step"], keep="last")
        points = points.sort_values(["run_id", "metric", "step"], ignore_index=True)[HISTORY_COLUMNS]
        # SQL stores keep an infinite metric as the largest finite float.
        largest = points["value"].abs() >= sys.float_info.max
        return points.assign(value=points["value"].mask(largest, points["value"] * math.inf))

    def read(self, runs: Sequence[Run], name: str, parse: Callable[[Path], Content]) -> Iterator[Content | Exception]:
        """`parse` of the artifact `name` of each run, in order; an OSError or ValueError is returned in its place.

        Files are fetched by several threads.  They are parsed in the caller's: parsing gains nothing from threads, and
        `numpy.load` is not safe in several, since Python 3.11's parser of its headers is not.
        """

        def fetch(run: Run) -> tuple[ExitStack, Path | Exception]:
            held = ExitStack()
            try:
                return held, held.enter_context(self.artifact(run, name))
            except (OSError, ValueError) as error:
                return held, error

        with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
            for held, path in pool.map(fetch, runs):
                with held:
                    yield path if isinstance(path, Exception) else _parsed(path, parse)

    def artifact(self, run: Run, name: str) -> AbstractContextManager[Path]:
        """As `Artifacts.file`."""
        return self._artifacts.file(run, name)

    def exists(self) -> bool:
        """Whether a SQLite file exists; True for databases and servers, which are not contacted."""
        path = sqlite_path(self.uri)
        return path is None or Path(path).is_file()

    @cached_property
    def _reader(self) -> Reader:
        # A report should fail within seconds if a server is down; the defaults retry for minutes.
        mlflow_settings.set_defaults()
        path = sqlite_path(self.uri)
        if path is not None and "?" not in self.uri:
            from results.sqlite import SqliteReader

            return SqliteReader(Path(path))
        if is_database(self.uri):
            from results.sql import SqlReader

            return SqlReader(self.uri)
        from results.rest import RestReader

        return RestReader(self.uri)

    @contextmanager
    def _readable(self) -> Iterator[Reader]:
        """The reader; its errors become a `ResultsError` that names the store."""
        reader = self._reader
        try:
            yield reader
        except reader.errors as error:
            raise ResultsError(store_problem(self.uri, error, "read", self._sync)) from error


def _scores(run: Run) -> str | None:
    return artifact_hash(run.tags, MEASUREMENTS_FILENAME)


def _parsed(path: Path, parse: Callable[[Path], Content]) -> Content | Exception:
    try:
        return parse(path)
    except (OSError, ValueError) as error:
        return error
