"""An MLflow tracking server, read in as few requests as its API allows.

One request returns a thousand runs with all their tags.  One request returns the histories of one metric of a hundred
runs, sampled to 2,500 points per run; older servers sample to 2,500 of all steps of these runs together.  Where points
may be missing, the histories are requested again, one by one and in full.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from itertools import product
from typing import Any

from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response
from requests import Response

from results.address import without_secrets
from results.errors import ResultsError
from results.records.tags import KEY
from results.runs import Point, Run

_RUNS_AT_ONCE = 1000
#: limits of MLflow's request for the histories of several runs
_HISTORIES_AT_ONCE, _MOST_POINTS = 100, 2500
_REQUESTS_AT_ONCE = 8
#: timeout for one response, which may hold megabytes; a server that is down is detected at once
_PATIENCE_S = 120
#: timeout for the shortest response, by which a server shows that it is up; MLFLOW_HTTP_REQUEST_TIMEOUT replaces it
_ALIVE_S = 10
_API = "/api/2.0/mlflow/"
#: redirections that turn a POST into a GET
_CHANGING = (HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.FOUND, HTTPStatus.SEE_OTHER)


class RestReader:
    """Reads a server; credentials come from MLflow's own variables, MLFLOW_TRACKING_USERNAME or _TOKEN say."""

    errors = (MlflowException,)

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def check(self) -> None:
        """Raises where the server does not answer, and `ResultsError` where it redirects to another address."""
        timeout = float(os.environ.get(MLFLOW_HTTP_REQUEST_TIMEOUT.name, _ALIVE_S))
        self._request("POST", "experiments/search", timeout, json={"max_results": 1})

    def runs(self) -> list[Run]:
        """One request for every thousand runs, and one for every thousand experiments."""
        pages = self._pages("POST", "experiments/search", json={"max_results": 1000})
        names = {found["experiment_id"]: found["name"] for page in pages for found in page.get("experiments", [])}
        query = {"experiment_ids": list(names), "filter": f"tags.`{KEY}` LIKE '%'", "max_results": _RUNS_AT_ONCE}
        pages = self._pages("POST", "runs/search", json=query)
        return [_run(found, names) for page in pages for found in page.get("runs", [])]

    def histories(self, run_ids: Sequence[str], metrics: Sequence[str]) -> list[Point]:
        """One request for every metric and hundred runs, several at once."""
        groups = [run_ids[start : start + _HISTORIES_AT_ONCE] for start in range(0, len(run_ids), _HISTORIES_AT_ONCE)]
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            return [row for rows in pool.map(self._joint_histories, product(groups, metrics)) for row in rows]

    def _joint_histories(self, wanted: tuple[Sequence[str], str]) -> list[Point]:
        run_ids, metric = wanted
        query = {"run_ids": run_ids, "metric_key": metric, "max_results": _MOST_POINTS}
        response = self._request("GET", "metrics/get-history-bulk-interval", params=query)
        points = [_point(found["run_id"], found) for found in response.get("metrics", [])]
        count = Counter(run_id for run_id, *_ in points)
        if max([len({step for _, _, step, *_ in points}), *count.values()]) < _MOST_POINTS:
            return points
        return [point for run_id in count for point in self._history(run_id, metric)]

    def _history(self, run_id: str, metric: str) -> Iterator[Point]:
        query = {"run_id": run_id, "metric_key": metric, "max_results": 25_000}
        for page in self._pages("GET", "metrics/get-history", params=query):
            yield from (_point(run_id, found) for found in page.get("metrics", []))

    def _pages(self, method: str, endpoint: str, **query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Every page of a paginated response; `query` has one entry, an argument of `http_request`."""
        token: str | None = ""
        while token is not None:
            request = {kind: {**values, **({"page_token": token} if token else {})} for kind, values in query.items()}
            page = self._request(method, endpoint, **request)
            yield page
            token = page.get("next_page_token") or None

    def _request(self, method: str, endpoint: str, timeout: float = _PATIENCE_S, /, **query: Any) -> dict[str, Any]:
        path, host = f"{_API}{endpoint}", get_default_host_creds(self._uri)
        response = http_request(host, path, method, timeout=timeout, **query)
        self._refuse_redirection(response)
        content: dict[str, Any] = verify_rest_response(response, path).json()
        return content

    def _refuse_redirection(self, response: Response) -> None:
        """Raises `ResultsError` where a request arrived as another one, which MLflow answers with any error."""
        for redirection in response.history:
            if redirection.status_code in _CHANGING:
                there = redirection.headers.get("Location", "").partition(_API)[0]
                raise ResultsError(
                    f"the MLflow store {without_secrets(self._uri)} redirects to {without_secrets(there)}; give that "
                    "address (tracking.uri)"
                )


def _run(found: dict[str, Any], experiments: Mapping[str, str]) -> Run:
    info, data = found["info"], found.get("data", {})
    return Run.recorded(
        info["run_id"],
        info["status"],
        {tag["key"]: tag["value"] for tag in data.get("tags", [])},
        [metric["key"] for metric in data.get("metrics", [])],
        info.get("artifact_uri"),
        info.get("start_time"),
        info.get("end_time"),
        info["experiment_id"],
        experiments[info["experiment_id"]],
    )


def _point(run_id: str, found: dict[str, Any]) -> Point:
    """One point of a history; NaN and 64-bit integers may be encoded as strings."""
    return run_id, found["key"], int(found.get("step", 0)), float(found["value"]), int(found["timestamp"])
