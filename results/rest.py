"""An MLflow tracking server, read through MLflow's client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import product

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from results.store import KEY_TAG, Run

_PAGE = 10_000
_REQUESTS_AT_ONCE = 8


class RestReader:
    """Reads what `MlflowClient` reads: a server, above all."""

    errors = (MlflowException,)

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @cached_property
    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self._uri)

    def runs(self) -> list[Run]:
        """One request for every ten thousand runs."""
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
        """A request per run and metric, several at once: the server's joint one cuts long histories short."""

        def history(wanted: tuple[str, str]) -> list[tuple[str, str, int, float, int]]:
            points = self._client.get_metric_history(*wanted)
            return [(*wanted, point.step, point.value, point.timestamp) for point in points]

        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            rows = [row for rows in pool.map(history, product(run_ids, metrics)) for row in rows]
        return pd.DataFrame(rows, columns=["run_id", "metric", "step", "value", "timestamp"])

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
