"""Workers that Ray stops for want of memory are restarted like any other that died, and the sweep goes on."""

from __future__ import annotations

import pickle
from pathlib import Path

import psutil

from results.records.home import trial_folder
from results.records.journal import read_events
from results.records.trial_folder import trial_status
from sweep.run.executors.base import Assignment
from sweep.run.executors.queue import FixedQueue
from sweep.run.executors.ray import RayOptions, tune
from sweep.run.executors.ray.worker_deaths import WorkerDiedError
from tests import works


def test_a_node_without_memory_fails_a_trial_and_not_the_sweep(tmp_path: Path, monkeypatch) -> None:
    """Ray may use 2 GiB more than is used now; the trial takes them, and Ray stops its worker."""
    memory = psutil.virtual_memory()
    most = (memory.total - memory.available + (2 << 30)) / memory.total
    limits = {"memory_usage_threshold": most, "memory_monitor_refresh_ms": 100}
    works.start_ray(monkeypatch, num_cpus=1, _system_config=limits)
    stop_file = tmp_path / "sweeps" / "s" / "stop"
    stop_file.parent.mkdir(parents=True)
    trials = [works.trial_of(1), works.trial_of(2)]
    assignment = Assignment(FixedQueue(trials), tmp_path, stop_file, works.hungry_work, works.Silent(), fail_fast=True)
    tune.run(assignment, RayOptions(max_failures=1))
    states = [trial_status(trial_folder(tmp_path, trial.key)) for trial in trials]
    assert states[0] == "failed"
    assert states[1] in ("pending", "interrupted")
    (failed,) = (event for event in read_events(trial_folder(tmp_path, trials[0].key)) if event["event"] == "failed")
    assert "died 2 times (" in failed["error"]
    assert "memory" in failed["error"]


def test_the_error_is_the_same_once_tune_has_stored_it() -> None:
    assert str(pickle.loads(pickle.dumps(WorkerDiedError(error_msg="why")))) == "why"
