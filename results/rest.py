"""An MLflow tracking server, read in as few requests as its API allows.

Runs come a thousand to a request with all their tags.  Histories come for a hundred runs and one metric to a request,
cut down to 2,500 points a run; the few that are longer are asked for again, one by one and whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import product
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request_safe

from results.store import KEY_TAG, Run

_RUNS_AT_ONCE = 1000
#: limits of MLflow's request for the histories of several runs
_HISTORIES_AT_ONCE, _MOST_POINTS = 100, 2500
_HISTORIES = "/api/2.0/mlflow/metrics/get-history-bulk-interval"
_REQUESTS_AT_ONCE = 8

Point = tuple[str, str, int, float, int]


class RestReader:
    """Reads a server; credentials come from MLflow's own variables, MLFLOW_TRACKING_USERNAME or _TOKEN say."""

    errors = (MlflowException,)

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self._uri)

    def runs(self) -> list[Run]:
        """One request for every thousand runs, and one for every thousand experiments."""
        return [
            Run.recorded(
                run.info.run_id,
                run.info.status,
                dict(run.data.tags),
                list(run.data.metrics),
                run.info.artifact_uri,
                run.info.start_time,
                run.info.end_time,
            )
            for run in self._search()
        ]

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
        """One request for every metric and hundred runs, several at once."""
        groups = [run_ids[start : start + _HISTORIES_AT_ONCE] for start in range(0, len(run_ids), _HISTORIES_AT_ONCE)]
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            rows = [row for rows in pool.map(self._joint_histories, product(groups, metrics)) for row in rows]
        return pd.DataFrame(rows, columns=["run_id", "metric", "step", "value", "timestamp"])

    def _joint_histories(self, wanted: tuple[Sequence[str], str]) -> list[Point]:
        run_ids, metric = wanted
        query: dict[str, Any] = {"run_ids": run_ids, "metric_key": metric, "max_results": _MOST_POINTS}
        answer = http_request_safe(get_default_host_creds(self._uri), _HISTORIES, "GET", params=query)
        points = answer.json().get("metrics", [])
        count = Counter(point["run_id"] for point in points)
        cut = [run_id for run_id in run_ids if count[run_id] >= _MOST_POINTS]
        # Numbers may come as texts: NaN, and integers of 64 bits.
        whole: list[Point] = [
            (point["run_id"], metric, int(point.get("step", 0)), float(point["value"]), int(point["timestamp"]))
            for point in points
            if point["run_id"] not in cut
        ]
        return whole + [row for run_id in cut for row in self._history(run_id, metric)]

    def _history(self, run_id: str, metric: str) -> list[Point]:
        points = self._client.get_metric_history(run_id, metric)
        return [(run_id, metric, point.step, point.value, point.timestamp) for point in points]

    def _search(self) -> Iterator[MlflowRun]:
        experiments = [experiment.experiment_id for experiment in self._experiments()]
        token = None
        while True:
            page = self._client.search_runs(
                experiments, f"tags.`{KEY_TAG}` LIKE '%'", max_results=_RUNS_AT_ONCE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _experiments(self) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_experiments(page_token=token)
            yield from page
            token = page.token
            if not token:
                return
