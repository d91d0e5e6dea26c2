"""Waiting under Ray is reported and ends on a stop; trials that run out of memory on a shared GPU run again."""

from __future__ import annotations

import io
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from results.records.home import trial_folder
from results.records.journal import read_events
from results.records.trial_folder import trial_status
from sweep.plan.planner import PlannedTrial
from sweep.run.executors.base import Assignment
from sweep.run.executors.queue import FixedQueue
from sweep.run.executors.ray import RayOptions, tune
from sweep.run.executors.ray.nodes import NodeWatch
from sweep.run.executors.room import Room
from sweep.run.stop import request_stop, stop_on_signals, stop_requested
from sweep.terminal import Terminal
from tests import works
from tests.processes import wait_for


class Notices:
    def __init__(self) -> None:
        self.waited: list[str] = []
        self.changed = threading.Condition()

    def say(self, text: str) -> None:
        """Ignored by these tests."""

    def wait_for(self, what: str | None) -> None:
        with self.changed:
            self.waited.append(what or "")
            self.changed.notify_all()

    def await_word(self, word: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: any(word in waited for waited in self.waited), 300), self.waited


def test_sigterm_while_ray_starts_is_a_request_to_stop(tmp_path, stop_file, monkeypatch) -> None:
    """Ray has its own handler of the signal while it starts, which raises SystemExit."""

    def connect() -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(tune, "connect", connect)
    output, notices = io.StringIO(), Notices()
    with stop_on_signals(stop_file, Terminal(file=output)):
        source = FixedQueue([works.trial_of(0)])
        tune.run(Assignment(source, tmp_path, stop_file, works.work, notices), RayOptions())
    assert "Stopping after a checkpoint" in output.getvalue()
    assert stop_requested(stop_file).reason == "by SIGTERM"
    assert notices.waited == ["Ray to start", ""]


@pytest.fixture
def stop_file(tmp_path: Path) -> Path:
    path = tmp_path / "sweeps" / "s" / "stop"
    path.parent.mkdir(parents=True)
    return path


def shares(home: Path, seed: int) -> list[float]:
    events = read_events(trial_folder(home, f"{seed:016x}"))
    return [event["values"]["test/share"] for event in events if event["event"] == "metrics"]


def test_where_no_worker_starts_for_long_the_logs_of_this_ray_are_named(tmp_path, stop_file, monkeypatch) -> None:
    works.start_ray(monkeypatch, num_cpus=1)
    monkeypatch.setattr(tune, "_HEARTBEAT_S", 0.1)
    monkeypatch.setattr(tune, "_LATE_S", 0.0)
    notices = Notices()
    tune.run(Assignment(FixedQueue([works.trial_of(1)]), tmp_path, stop_file, works.work, notices), RayOptions())
    (text,) = {waited for waited in notices.waited if "first worker" in waited}
    logs = Path(text.partition("Ray's logs: ")[2].rstrip(")"))
    assert logs.resolve() == logs, "a link to the Ray that any process started last"
    assert Path(logs, "raylet.err").is_file()


def test_what_the_cluster_lacks_is_reported_until_a_trial_runs(monkeypatch) -> None:
    nodes = {"a": Room("10.0.0.1", 2, 0)}
    monkeypatch.setattr(tune, "_HEARTBEAT_S", 0.0)
    monkeypatch.setattr(tune, "living_nodes", lambda: nodes)
    monkeypatch.setattr(tune, "placement_group_table", dict)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    notices = Notices()
    watch = tune._Watch(notices, NodeWatch(notices, nodes), RayOptions(), "a node to join")
    for states in ([], ["PENDING"], ["PENDING"], ["RUNNING", "PENDING"], ["TERMINATED", "PENDING"]):
        watch.on_step_begin(0, [SimpleNamespace(status=state) for state in states])
    assert notices.waited == ["", "a node to join", "a node to join", "", "the first worker to start"]


def test_waiting_for_resources_is_reported_and_ends_with_a_stop(tmp_path, stop_file, monkeypatch) -> None:
    works.start_ray(monkeypatch, num_cpus=1)
    monkeypatch.setattr(tune, "_HEARTBEAT_S", 0.2)

    @ray.remote(num_cpus=1)
    class Occupant:
        def is_here(self) -> bool:
            return True

    occupant = Occupant.remote()
    assert ray.get(occupant.is_here.remote())
    notices, source = Notices(), FixedQueue([works.trial_of(1), works.trial_of(2)])

    def stop() -> None:
        notices.await_word("1 CPU on one node; free: 0 of 1 CPU")
        request_stop(stop_file, "request", "by a test")

    stopper = threading.Thread(target=stop)
    stopper.start()
    tune.run(Assignment(source, tmp_path, stop_file, works.work, notices), RayOptions())
    stopper.join()
    assert {trial_status(trial_folder(tmp_path, t.key)) for t in source.trials} == {"pending"}
    assert notices.waited[-1] == ""


def test_running_trials_end_behind_their_checkpoints_while_waiting_ones_are_dropped(
    tmp_path, stop_file, monkeypatch
) -> None:
    works.start_ray(monkeypatch, num_cpus=1)
    source = FixedQueue([works.trial_of(1), works.trial_of(2)])

    def stop() -> None:
        wait_for(lambda: trial_status(trial_folder(tmp_path, f"{1:016x}")) == "running", "the first trial")
        request_stop(stop_file, "request", "by a test")

    stopper = threading.Thread(target=stop)
    stopper.start()
    tune.run(Assignment(source, tmp_path, stop_file, works.endless_work, Notices()), RayOptions())
    stopper.join()
    assert [trial_status(trial_folder(tmp_path, t.key)) for t in source.trials] == ["interrupted", "pending"]


class BreakingQueue(FixedQueue):
    """A queue whose second trial raises an error, once the first one runs."""

    def __init__(self, home: Path) -> None:
        super().__init__([works.trial_of(1), works.trial_of(2)])
        self._first = trial_folder(home, self.trials[0].key)

    def next(self) -> PlannedTrial | None:
        if len(self._waiting) < 2:
            wait_for(lambda: trial_status(self._first) == "running", "the first trial")
            raise ZeroDivisionError("in a sampler")
        return super().next()


def test_an_error_of_the_queue_is_raised_behind_the_checkpoints_of_running_trials(
    tmp_path, stop_file, monkeypatch
) -> None:
    works.start_ray(monkeypatch, num_cpus=2)
    source = BreakingQueue(tmp_path)
    with pytest.raises(ZeroDivisionError, match="in a sampler"):
        tune.run(Assignment(source, tmp_path, stop_file, works.endless_work, Notices()), RayOptions())
    assert read_events(trial_folder(tmp_path, source.trials[0].key))[-1]["event"] == "stopped"
    assert stop_requested(stop_file).reason == "ZeroDivisionError in the driver: in a sampler"


def test_a_trial_without_memory_is_run_again_with_fewer_beside_it(tmp_path, stop_file, monkeypatch) -> None:
    works.start_ray(monkeypatch, num_cpus=4, num_gpus=1)
    trials = [works.trial_of(seed, is_trained=True) for seed in (1, works.GREEDY, 2)]
    options = RayOptions(gpus_per_trial=0.25)
    tune.run(Assignment(FixedQueue(trials), tmp_path, stop_file, works.greedy_work, Notices()), options)
    assert [trial_status(trial_folder(tmp_path, t.key)) for t in trials] == ["finished"] * 3
    assert shares(tmp_path, works.GREEDY) == [0.25, 0.5, 1.0]
    reasons = [e["reason"] for e in read_events(trial_folder(tmp_path, trials[1].key)) if e["event"] == "stopped"]
    assert len(reasons) == 2
    assert all("queued again to run with fewer trials on the GPU (OutOfMemoryError" in reason for reason in reasons)
