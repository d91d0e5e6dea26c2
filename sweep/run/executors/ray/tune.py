"""Runs trials in parallel under Ray Tune, on this machine or on the cluster that Ray is attached to.

Tune packs trials and restarts workers; the plan decides which trials run.  A worker that dies is restarted up to
`max_failures` times, and its trial resumes from the checkpoint in the home.  So is a worker that raises an error
outside the trial, such as one of the transfer of its files.  An exception inside a trial makes it failed, without a
restart by Tune, because it would end the same way again; except where it has cost the worker its GPU.

A worker detects by itself whether it sees the home.  If not, it sends its trial's files to a `TrialFileServer` on the
driver's node.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Trials record everything in their journals; Tune's own loggers would write it a second time.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# The driver handles interrupts: it lets trials write a checkpoint, whereas Tune would drop them.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray.exceptions import RayActorError
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.config import TrialConfig
from jobs.stop import is_requested
from results.records.home import cache_folder, ray_folder
from sweep.run.executors.base import Assignment, Notices, unused_gpus
from sweep.run.executors.ray import RayOptions
from sweep.run.executors.ray.connection import connect, disconnect, logs_folder, named_address
from sweep.run.executors.ray.file_server import TrialFileServer
from sweep.run.executors.ray.nodes import NodeWatch, find_autoscaler, living_nodes
from sweep.run.executors.ray.packing import FILENAME as MEMORY_FILENAME
from sweep.run.executors.ray.packing import Packing
from sweep.run.executors.ray.searcher import QueueSearcher, StoppableScheduler
from sweep.run.executors.ray.worker import run_point
from sweep.run.executors.ray.worker_deaths import DeadTrials
from sweep.run.executors.room import check_room, requested
from sweep.run.executors.run_guarded import runtime_of
from sweep.run.progress import shape
from sweep.run.stop import signal_handlers_kept
from sweep.terminal import counted

_HEARTBEAT_S = 5.0
#: Seconds after which a worker that has not started may never do.
_LATE_S = 60.0


class HomeUnseenError(RuntimeError):
    """Not even Ray's node on the driver's machine sees the home, so no result could be stored (a container perhaps)."""


def run(assignment: Assignment, options: RayOptions) -> None:
    """Runs the queue's trials in workers of `options.cpus_per_trial` CPUs and `options.gpus_per_trial` GPUs each."""
    # The journals record which workers died, without a page of traceback for each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    home, stop_file, notices = assignment.home, assignment.stop_file, assignment.notices
    notices.wait_for("Ray to start" if named_address() is None else f"Ray at {named_address()} to answer")
    try:
        with signal_handlers_kept():
            connect()
    except SystemExit:  # raised by Ray's own handler of SIGTERM
        notices.wait_for(None)
        disconnect()
        signal.raise_signal(signal.SIGTERM)  # the driver's handler requests a stop and says so
        return
    storage = ray_folder(home) / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    try:
        nodes = living_nodes()
        lacking = check_room(options, list(nodes.values()), find_autoscaler(), named_address())
        unused = unused_gpus(sum(node.gpus for node in nodes.values()), options, share=0.25)
        if unused is not None:
            notices.say(unused)
        if not is_requested(stop_file):
            _tune(assignment, options, storage, _Watch(notices, NodeWatch(notices, nodes), options, lacking))
    finally:
        notices.wait_for(None)
        disconnect()  # idle workers would keep their memory, and stopped trials would look alive
        shutil.rmtree(storage, ignore_errors=True)  # Tune's own state, which nothing reads: journals record it all


def _tune(assignment: Assignment, options: RayOptions, storage: Path, watch: _Watch) -> None:
    home, stop_file = assignment.home, assignment.stop_file
    file_server, marker = _start_file_server(storage, home, stop_file, options)  # an actor ends with its last handle
    assignment.begin()

    def release(key: str) -> None:
        if file_server is not None:
            with suppress(RayActorError):  # it is being restarted, and holds nothing
                ray.get(file_server.release.remote(key))

    failed_stop = stop_file if assignment.fail_fast else None
    packing = Packing(options.gpus_per_trial, _shape_name, cache_folder(home) / MEMORY_FILENAME)
    searcher = QueueSearcher(assignment.queue, packing, stop_file)
    tuner = tune.Tuner(
        tune.with_resources(
            run_point,
            lambda parameters: tune.PlacementGroupFactory([_resources(options.cpus_per_trial, parameters)]),
        ),
        param_space={
            "home": str(home),
            "runtime": asdict(runtime_of(options, stop_file)),
            "fail_fast": assignment.fail_fast,
            "work": assignment.work,
            "marker": marker,
        },
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StoppableScheduler(stop_file),
            num_samples=-1,  # until the queue is exhausted
            # A reused worker has already imported everything: its next trial starts in 0.1 s instead of 6 to 10 s.
            reuse_actors=True,
            max_concurrent_trials=options.max_concurrent,
            trial_name_creator=lambda trial: str(trial.config["point"]["key"]),
            trial_dirname_creator=lambda trial: str(trial.config["point"]["key"]),
        ),
        run_config=tune.RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            failure_config=tune.FailureConfig(max_failures=options.max_failures),
            callbacks=[watch, DeadTrials(home, options.max_failures, failed_stop, release)],
            verbose=0,
        ),
    )
    tuner.fit()
    if searcher.error is not None:
        raise searcher.error


def _resources(cpus: int, parameters: dict[str, Any]) -> dict[str, float]:
    """The CPUs and GPUs of a worker for one call of `run_point`."""
    gpus = parameters["point"]["gpus"]
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _shape_name(config: TrialConfig) -> str:
    return hashlib.sha256(shape(config.identity()).encode()).hexdigest()[:16]


def _start_file_server(storage: Path, home: Path, stop_file: Path, options: RayOptions) -> tuple[Any, str | None]:
    """Starts a file server on this node; returns it and the path of a marker file with its name.

    Returns (None, None) where all trials run on this node.  A worker that sees the marker file sees the home.  With
    `scratch: always` the file is not written, so that no worker runs in the home.
    """
    if named_address() is None and len(ray.nodes()) == 1 and options.scratch != "always":
        return None, None
    marker = storage / f"file_server-{secrets.token_hex(8)}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1)(TrialFileServer).options(name=marker.name, scheduling_strategy=here)
    file_server: Any = actor.remote(str(home), str(stop_file))
    if not ray.get(file_server.sees_home.remote()):
        raise HomeUnseenError(f"Ray's node at {ray.util.get_node_ip_address()}, this driver's own, does not see {home}")
    if options.scratch == "auto":
        storage.mkdir(parents=True)
        marker.touch()
    return file_server, str(marker)


class _Watch(tune.Callback):
    """Reports what trials wait for and which nodes come and go; ends a sweep whose last node died."""

    def __init__(self, notices: Notices, nodes: NodeWatch, options: RayOptions, lacking: str | None) -> None:
        """lacking: what trials have to wait for before the first can start; None where nothing."""
        self._notices, self._nodes, self._options = notices, nodes, options
        self._lacking, self._looked, self._waiting_since = lacking, 0.0, time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called several times a second."""
        if time.monotonic() - self._looked < _HEARTBEAT_S:
            return
        self._looked = time.monotonic()
        self._nodes.look(living_nodes())
        states = [trial.status for trial in trials]
        is_waiting = "PENDING" in states and "RUNNING" not in states
        if trials and not is_waiting:  # Tune calls this once before it requests the first trial
            self._lacking, self._waiting_since = None, self._looked
        self._notices.wait_for(self._missing() if is_waiting else None)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see `QueueSearcher.__getstate__`

    def _missing(self) -> str:
        if self._lacking is not None:
            return self._lacking
        groups = placement_group_table().values()
        if not any(group["state"] in ("PENDING", "RESCHEDULING") for group in groups):
            is_late = named_address() is None and self._looked - self._waiting_since > _LATE_S
            return "the first worker to start" + (f" (Ray's logs: {logs_folder()})" if is_late else "")
        free, whole = ray.available_resources(), ray.cluster_resources()
        found = " and ".join(f"{free.get(n, 0):g} of {counted(whole[n], n)}" for n in ("CPU", "GPU") if n in whole)
        return f"{requested(self._options.cpus_per_trial, self._options.gpus_per_trial)} on one node; free: {found}"
