"""The only module that speaks to MLflow: runs found by their key, metric histories, artifacts."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from results.errors import ResultsError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

KEY_TAG = "splatsweep.key"
STATUS_TAG = "splatsweep.status"
#: tags that say which trial a run is; all others say where and how it ran
IDENTITY_TAGS = (KEY_TAG, STATUS_TAG, "splatsweep.trial", "splatsweep.seed", "splatsweep.sweep")

_STATUS_OF_MLFLOW = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}
_PAGE = 10_000


@dataclass(frozen=True)
class Run:
    """The record of one trial, without its histories and artifacts."""

    run_id: str
    key: str
    status: str
    tags: Mapping[str, str]
    #: names of the metrics it has
    metrics: tuple[str, ...]
    artifact_uri: str
    started: datetime | None
    ended: datetime | None


class ResultStore:
    """Runs in an MLflow store; nothing is ever written to it, and a missing SQLite file is not created."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @classmethod
    def of(cls, home: Path, uri: str | None) -> ResultStore:
        """The store at `uri`, or the home's own."""
        return cls(uri or f"sqlite:///{home.resolve() / 'mlflow.db'}")

    @property
    def label(self) -> str:
        """The address without credentials, fit for printing."""
        parts = urlsplit(self.uri)
        if "@" not in parts.netloc:
            return self.uri
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @cached_property
    def _client(self) -> MlflowClient:
        # A report should say within seconds that a server is down; the default retries for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _exists(self) -> bool:
        path = self.uri.removeprefix("sqlite:///")
        return path == self.uri or Path(path).is_file()

    def runs(self) -> dict[str, Run]:
        """Every trial's run by key, over all experiments, in one query.

        A key may have been trained by another sweep.  Should a key have several runs, a finished one wins,
        then the latest.  Raises `ResultsError` where the store does not answer.
        """
        if not self._exists():
            return {}
        with self._readable():
            runs = [_from_mlflow(run) for run in self._search()]
        epoch = datetime.fromtimestamp(0, UTC)
        runs.sort(key=lambda run: (run.status == "finished", run.started or epoch))
        return {run.key: run for run in runs}

    def _search(self) -> Iterator[MlflowRun]:
        experiments = [experiment.experiment_id for experiment in self._client.search_experiments()]
        token = None
        while True:
            page = self._client.search_runs(
                experiments, f"tags.`{KEY_TAG}` LIKE '%'", max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def history(self, run: Run, metric: str) -> list[tuple[int, float]]:
        """`(step, value)` in order of steps; a step logged twice keeps the value logged last."""
        with self._readable():
            points = self._client.get_metric_history(run.run_id, metric)
        points = sorted(points, key=lambda point: point.timestamp)
        return sorted({point.step: _unclamped(point.value) for point in points}.items())

    @contextmanager
    def artifact(self, run: Run, name: str) -> Iterator[Path]:
        """A local file with the artifact; for a remote store it lives as long as the context.

        Raises `FileNotFoundError` where the run has no such artifact or it cannot be fetched.
        """
        parts = urlsplit(run.artifact_uri)
        if parts.scheme in ("", "file"):
            path = Path(unquote(parts.path)) / name
            if not path.is_file():
                raise FileNotFoundError(f"run {run.run_id} has no artifact {name}")
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="splatsweep-") as folder:
            yield self._download(run, name, folder)

    def _download(self, run: Run, name: str, folder: str) -> Path:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            uri = f"{run.artifact_uri.rstrip('/')}/{name}"
            return Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=self.uri))
        except (OSError, MlflowException) as error:
            raise FileNotFoundError(f"run {run.run_id}: artifact {name} cannot be fetched: {error}") from error

    @contextmanager
    def _readable(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise ResultsError(f"the MLflow store {self.label} cannot be read: {error}") from error


def _from_mlflow(run: MlflowRun) -> Run:
    tags = dict(run.data.tags)
    return Run(
        run_id=run.info.run_id,
        key=tags[KEY_TAG],
        status=tags.get(STATUS_TAG) or _STATUS_OF_MLFLOW.get(run.info.status, "running"),
        tags=tags,
        metrics=tuple(sorted(run.data.metrics)),
        artifact_uri=run.info.artifact_uri or "",
        started=_moment(run.info.start_time),
        ended=_moment(run.info.end_time),
    )


def _unclamped(value: float) -> float:
    """SQL stores keep an infinite metric as the largest finite float."""
    return math.copysign(math.inf, value) if abs(value) >= sys.float_info.max else value


def _moment(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
