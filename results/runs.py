"""Runs of an MLflow store, and the interface of its readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from results.records.tags import KEY, STATUS

HISTORY_COLUMNS = ["run_id", "metric", "step", "value"]

#: run, metric, step, value, milliseconds since 1970 when it was logged; a value of None is a NaN
Point = tuple[str, str, int, float | None, int]

_STATUS_OF_MLFLOW = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}


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
    #: MLflow's number of its experiment, and its name
    experiment_id: str = ""
    experiment: str = ""

    @classmethod
    def recorded(
        cls,
        run_id: str,
        mlflow_status: str,
        tags: Mapping[str, str],
        metrics: Sequence[str],
        artifact_uri: str | None,
        started: int | None,
        ended: int | None,
        experiment_id: int | str,
        experiment: str,
    ) -> Run:
        """A run from MLflow's record of it; times are milliseconds since 1970."""
        return cls(
            run_id=run_id,
            key=tags[KEY],
            status=tags.get(STATUS) or _STATUS_OF_MLFLOW.get(mlflow_status, "running"),
            tags=tags,
            metrics=tuple(sorted(metrics)),
            artifact_uri=artifact_uri or "",
            started=_moment(started),
            ended=_moment(ended),
            experiment_id=str(experiment_id),
            experiment=experiment,
        )


class Reader(Protocol):
    """Interface for reading one kind of store."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Exception types raised when the store does not answer."""
        ...

    def runs(self) -> list[Run]:
        """Every run that carries the tag `KEY`, of experiments that were not deleted."""
        ...

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[Point]:
        """Every logged point of `metrics`, in any order."""
        ...


def _moment(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
