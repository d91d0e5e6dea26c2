"""Workers that died or failed are restarted; the last reason is recorded, and what they held is released."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray.cloudpickle
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from results.records.home import trial_folder
from results.records.journal import Journal, read_events
from results.records.trial_folder import trial_status
from sweep.run.executors.base import Assignment
from sweep.run.executors.queue import FixedQueue
from sweep.run.executors.ray import RayOptions, tune
from sweep.run.executors.ray.worker_deaths import DeadTrials, WorkerDiedError
from sweep.run.stop import stop_requested
from tests import works
from tests.homes import write_result


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


def raised_in_a_worker(error: Exception) -> RayError:
    """The error as the caller of a worker's method gets it."""
    return RayTaskError("train", "a traceback", error, "worker", 1, "127.0.0.1").as_instanceof_cause()


DENIED = PermissionError(13, "Permission denied", "/scratch")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (raised_in_a_worker(DENIED), f"its worker failed 3 times: PermissionError: {DENIED}"),
        (
            raised_in_a_worker(raised_in_a_worker(ConnectionError("by the file server"))),
            "its worker failed 3 times: ConnectionError: by the file server",
        ),
        (ActorDiedError(), "its worker process died 3 times (killed, or out of memory)"),
        (WorkerDiedError(error_msg="too little. Much more"), "its worker process died 3 times (too little)"),
    ],
    ids=["in the worker", "in the file server", "death", "named death"],
)
def test_a_trial_fails_with_the_reason_of_its_last_worker(error: RayError, reason: str, tmp_path: Path) -> None:
    key, released = "0123456789abcdef", []
    stored = ray.cloudpickle.dumps(error)  # as Tune stores it
    trial = SimpleNamespace(config={"point": {"key": key}}, get_pickled_error=lambda: ray.cloudpickle.loads(stored))
    DeadTrials(tmp_path, 2, None, released.append).on_trial_error(0, [], trial)
    (failed,) = read_events(trial_folder(tmp_path, key))
    assert failed["error"] == reason
    assert released == [key]


@pytest.mark.parametrize("end", ["finished", "pruned", "failed", "middle"])
def test_a_death_after_the_end_changes_nothing_and_stops_the_others_only_after_a_failure(end: str, tmp_path) -> None:
    key, stop_file = "0123456789abcdef", tmp_path / "stop"
    folder = trial_folder(tmp_path, key)
    with Journal(folder) as journal:
        journal.start(0)
        if end == "failed":
            journal.failed("a reason of its own")
        if end == "pruned":
            journal.pruned("worse than the median")
    if end == "finished":
        write_result(folder)
    trial = SimpleNamespace(config={"point": {"key": key}}, get_pickled_error=ActorDiedError)
    DeadTrials(tmp_path, 2, stop_file, lambda _: None).on_trial_error(0, [], trial)
    reasons = [event["error"].partition(" 3 times")[0] for event in read_events(folder) if event["event"] == "failed"]
    expected = {"finished": [], "pruned": [], "failed": ["a reason of its own"], "middle": ["its worker process died"]}
    assert reasons == expected[end]
    stop = stop_requested(stop_file)
    assert (stop is None) == (end in ("finished", "pruned"))
    assert stop is None or (stop.cause, stop.reason) == ("failure", f"trial {key} failed")
