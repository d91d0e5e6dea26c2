"""A stop request ends the queue of trials, and drops those that wait for resources."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from sweep.plan.planner import PlannedTrial
from sweep.run.executors.queue import FixedQueue
from sweep.run.executors.ray.packing import Packing
from sweep.run.executors.ray.searcher import QueueSearcher, StoppableScheduler
from sweep.run.stop import request_stop, stop_requested
from tests import works


def test_a_stop_ends_the_queue_at_once(tmp_path: Path) -> None:
    """Tune would start and end waiting trials one by one, which takes minutes where there are thousands."""
    stop_file = tmp_path / "stop"
    source = FixedQueue([works.trial_of(seed) for seed in range(3)])
    searcher = QueueSearcher(source, Packing(1.0, str, tmp_path / "memory.json"), stop_file)
    assert searcher.suggest("first")["point"]["key"] == source.trials[0].key
    request_stop(stop_file, "request", "by a test")
    assert searcher.suggest("second") == Searcher.FINISHED
    assert source.next() == source.trials[1], "it was not taken from the queue"


class EndedQueue(FixedQueue):
    """Knows which trials have ended."""

    def __init__(self, *seeds: int) -> None:
        super().__init__([works.trial_of(seed) for seed in seeds])
        self.ended_keys: list[str] = []

    def ended(self, trial: PlannedTrial) -> None:
        self.ended_keys.append(trial.key)


def test_a_trial_that_was_put_back_is_next_with_a_larger_share(tmp_path: Path) -> None:
    source = EndedQueue(1, 2)
    first, second = source.trials
    packing = Packing(0.25, lambda config: str(config.seed), tmp_path / "memory.json")
    searcher = QueueSearcher(source, packing, tmp_path / "stop")
    points = [searcher.suggest(name)["point"] for name in ("a", "b")]
    assert [(point["key"], point["gpus"]) for point in points] == [(first.key, 0.25), (second.key, 0.25)]
    assert searcher.suggest("c") is None, "one that runs may be put back"
    searcher.on_trial_complete("a", {"is_put_back": True})
    assert source.ended_keys == []
    point = searcher.suggest("c")["point"]
    assert (point["key"], point["gpus"]) == (first.key, 0.5)
    searcher.on_trial_complete("b", {"is_put_back": False, "peak_bytes": 70, "total_bytes": 100})
    assert packing.share_of(second.config) == 1.0
    searcher.on_trial_complete("c", error=True)
    assert source.ended_keys == [second.key, first.key]
    assert packing.share_of(first.config) == 0.5
    assert searcher.suggest("d") == Searcher.FINISHED


@pytest.mark.parametrize(("is_growing", "expected"), [(True, None), (False, Searcher.FINISHED)])
def test_a_queue_that_grows_is_asked_again(is_growing: bool, expected: object, tmp_path: Path) -> None:
    source = EndedQueue(1)
    source.is_growing = is_growing
    searcher = QueueSearcher(source, Packing(1.0, str, tmp_path / "memory.json"), tmp_path / "stop")
    assert searcher.suggest("first") is not None
    assert searcher.suggest("second") == expected


def test_an_error_at_the_end_of_a_trial_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_file, source = tmp_path / "stop", EndedQueue(1, 2)
    searcher = QueueSearcher(source, Packing(1.0, str, tmp_path / "memory.json"), stop_file)
    searcher.suggest("first")
    error = ZeroDivisionError("in a sampler")
    monkeypatch.setattr(source, "ended", lambda _: (_ for _ in ()).throw(error))
    searcher.on_trial_complete("first", {})
    assert (searcher.error, searcher.suggest("second")) == (error, Searcher.FINISHED)
    assert stop_requested(stop_file).cause == "failure"


def test_storage_that_fails_for_a_moment_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    searcher = QueueSearcher(FixedQueue([works.trial_of(0)]), Packing(1.0, str, tmp_path / "m.json"), tmp_path / "stop")
    with monkeypatch.context() as failing:
        failing.setattr(os, "stat", fail)
        assert searcher.suggest("first")["point"]["key"] == works.trial_of(0).key


def test_a_trial_that_is_dropped_before_tune_has_looked_at_it_has_a_folder(tmp_path: Path) -> None:
    stop_file = tmp_path / "stop"
    request_stop(stop_file, "request", "by a test")
    calls: list[str] = []
    trials = [
        SimpleNamespace(status=status, init_local_path=lambda: calls.append("folder"))
        for status in ("RUNNING", "PENDING", "TERMINATED")
    ]
    controller = SimpleNamespace(get_trials=lambda: trials, stop_trial=lambda trial: calls.append(trial.status))
    with suppress(AttributeError):  # Tune's own choice, which needs a whole controller
        StoppableScheduler(stop_file).choose_trial_to_run(controller)
    assert calls == ["folder", "PENDING"]
