"""A stop request ends the queue of trials, and drops those that wait for resources."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.tune.search import Searcher

from sweep.run.executors.queue import FixedQueue
from sweep.run.executors.ray.packing import Packing
from sweep.run.executors.ray.searcher import QueueSearcher, StoppableScheduler
from sweep.run.stop import request_stop
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
    trial = SimpleNamespace(status="PENDING", init_local_path=lambda: calls.append("folder"))
    controller = SimpleNamespace(get_trials=lambda: [trial], stop_trial=lambda _: calls.append("stopped"))
    with suppress(AttributeError):  # Tune's own choice, which needs a whole controller
        StoppableScheduler(stop_file).choose_trial_to_run(controller)
    assert calls == ["folder", "stopped"]
