"""Histories of a tracking server, which samples them in one of two ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from results.rest import RestReader

#: limit of one response
MOST = 2500


class Server(RestReader):
    """Answers as MLflow's servers do: `old` ones sample the steps of all runs together, others those of each run."""

    def __init__(self, old: bool, histories: Mapping[str, Sequence[int]]) -> None:
        super().__init__("http://mlflow.lab")
        self._old, self._steps_of = old, histories
        self.requests: list[str] = []

    def _request(self, method: str, endpoint: str, timeout: float = 0, /, **query: Any) -> dict[str, Any]:
        asked = query["params"]
        self.requests.append(endpoint)
        if endpoint == "metrics/get-history":
            first = int(asked.get("page_token", 0))
            steps = self._steps_of[asked["run_id"]]
            more = {"next_page_token": str(first + 2000)} if first + 2000 < len(steps) else {}
            return {"metrics": [point(step) for step in steps[first : first + 2000]], **more}
        assert endpoint == "metrics/get-history-bulk-interval"
        assert asked["max_results"] <= MOST
        known = {run: self._steps_of[run] for run in asked["run_ids"]}
        together = sampled(sorted({step for steps in known.values() for step in steps}))
        together |= {step for steps in known.values() for step in (*steps[:1], *steps[-1:])}
        return {
            "metrics": [
                {"run_id": run, **point(step)}
                for run, steps in known.items()
                for step in (together.intersection(steps) if self._old else sampled(steps))
            ]
        }


def sampled(steps: Sequence[int]) -> set[int]:
    return set(steps) if len(steps) <= MOST else {steps[int(i * len(steps) / MOST)] for i in range(MOST)} | {steps[-1]}


def point(step: int) -> dict[str, Any]:
    return {"key": "train/loss", "step": step, "value": 0.5, "timestamp": 1000 + step}


def read(server: Server) -> Counter[tuple[str, int]]:
    found = server.histories(list(server._steps_of), ["train/loss"])
    assert {(name, value) for _, name, _, value, _ in found} <= {("train/loss", 0.5)}
    assert all(moment == 1000 + step for _, _, step, _, moment in found)
    return Counter((run_id, step) for run_id, _, step, *_ in found)


def every(histories: Mapping[str, Iterable[int]]) -> Counter[tuple[str, int]]:
    return Counter((run_id, step) for run_id, steps in histories.items() for step in steps)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("histories", "sampled"),
    [
        ({"a": range(0, 100_000, 50), "b": range(0, 100_000, 37)}, True),
        ({"a": range(1500), "b": range(1000, 2600), "c": ()}, True),
        ({"a": range(7000), "b": range(3)}, True),
        ({"a": range(1500), "b": range(2000), "c": ()}, False),
        ({"a": (), "b": ()}, False),
    ],
    ids=["other paces", "other beginnings", "a long one", "short ones", "none"],
)
def test_histories_are_complete_however_a_server_samples_them(
    old: bool, histories: dict[str, Sequence[int]], sampled: bool
) -> None:
    server = Server(old, histories)
    assert read(server) == every(histories)
    assert (len(server.requests) > 1) == sampled


def test_points_of_one_step_count_as_well() -> None:
    server = Server(False, {"a": [1] * 4000})
    server._request = lambda _, endpoint, **query: (  # type: ignore[method-assign]
        {"metrics": [{"run_id": "a", **point(1)}] * MOST}
        if endpoint == "metrics/get-history-bulk-interval"
        else Server._request(server, "GET", endpoint, **query)
    )
    assert read(server) == {("a", 1): 4000}
