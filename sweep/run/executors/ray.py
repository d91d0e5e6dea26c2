"""Trials side by side under Ray Tune, on this machine or on the cluster that Ray is attached to.

Tune packs and restarts; what to run is decided by the plan.  A worker that dies is started again up to
`max_failures` times and its trial goes on from the checkpoint in the home.  An exception inside a trial is its
result, not Tune's business: it would end the same way again.

A worker that does not see the home, which it finds out for itself, sends what its trial makes to a `Keeper` beside
the driver.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# The journals are the record; Tune's own loggers would write everything a second time.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# An interrupt is the driver's: it asks the trials to stop, where Tune would drop them.
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.config import TrialConfig
from jobs.trial import Runtime, run_trial
from results.records.home import ray_folder, trial_folder
from results.records.journal import Journal
from results.records.trial_folder import trial_status
from sweep.file.load import RunOptions
from sweep.plan.planner import PlannedTrial
from sweep.run.executors.file_server import Keeper
from sweep.run.executors.queue import Source
from sweep.run.executors.remote_worker import attempt_away
from sweep.run.executors.run_guarded import Work, attempt, runtime_of
from sweep.run.stop import request_stop, signals_kept

_HEARTBEAT_S = 5.0


def run(
    source: Source,
    home: Path,
    options: RunOptions,
    stop_file: Path,
    fail_fast: bool = False,
    work: Work = run_trial,
) -> None:
    """Run the source's trials in workers of `options.cpus_per_trial` CPUs and `options.gpus_per_trial` GPUs each."""
    # What it says about workers that died stands in the journals, without a page of traceback each.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    with signals_kept():  # Ray's own answer to SIGTERM ends the driver on the spot
        connect()
    storage = ray_folder(home) / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    _keeper, sign = _start_keeper(storage, home, stop_file, options)  # an actor ends with its last handle
    resources = {"cpu": options.cpus_per_trial, "gpu": options.gpus_per_trial}
    tuner = tune.Tuner(
        tune.with_resources(_run_point, resources),
        param_space={
            "home": str(home),
            "runtime": asdict(runtime_of(options, stop_file)),
            "fail_fast": fail_fast,
            "work": work,
            "sign": sign,
        },
        tune_config=tune.TuneConfig(
            search_alg=_Feed(source),
            num_samples=-1,  # until the source has no more
            # A worker that is kept has its imports behind it: 0.1 s to the next trial instead of 6 to 10.
            reuse_actors=True,
            max_concurrent_trials=options.max_concurrent,
            trial_name_creator=lambda trial: str(trial.config["point"]["key"]),
            trial_dirname_creator=lambda trial: str(trial.config["point"]["key"]),
        ),
        run_config=tune.RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            failure_config=tune.FailureConfig(max_failures=options.max_failures),
            callbacks=[_Heartbeat(), _Losses(home, options.max_failures, stop_file if fail_fast else None)],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        ray.shutdown()  # idle workers would keep their memory, and stopped trials would look alive
        shutil.rmtree(storage, ignore_errors=True)  # Tune's own state: the journals hold all that matters


class _Feed(Searcher):
    """Hands the source's trials to Tune, which asks for one when the last has a place to run."""

    def __init__(self, source: Source) -> None:
        super().__init__(metric=None, mode="max")
        self._source = source
        self._trials: dict[str, PlannedTrial] = {}

    def suggest(self, trial_id: str) -> Any:
        """The parameters of `_run_point`, besides those that are the same for all."""
        trial = self._source.next()
        if trial is None:
            return Searcher.FINISHED
        self._trials[trial_id] = trial
        return {"point": {"key": trial.key, "config": trial.config.model_dump(mode="json")}}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Tune has done with a trial."""
        self._source.ended(self._trials[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what to run is decided by the plan."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its own set-up, which nobody reads


def _run_point(parameters: dict[str, Any]) -> None:
    key, config = parameters["point"]["key"], TrialConfig.model_validate(parameters["point"]["config"])
    runtime, home, sign = Runtime(**parameters["runtime"]), Path(parameters["home"]), parameters["sign"]
    arguments = (key, config, home, runtime, parameters["fail_fast"], parameters["work"])
    if sign is None or os.access(sign, os.F_OK):
        attempt(*arguments)
    else:
        keeper = ray.get_actor(Path(sign).name)
        attempt_away(lambda method, *values: ray.get(getattr(keeper, method).remote(*values)), *arguments)
    tune.report({"key": key})


def _start_keeper(storage: Path, home: Path, stop_file: Path, options: RunOptions) -> tuple[Any, str | None]:
    """A keeper on this node, and the path of a file that is named as it is; nothing where all trials run here.

    A worker that sees the file sees the home.  It is not written where none is to work in the home.
    """
    if not (os.environ.get("RAY_ADDRESS") or len(ray.nodes()) > 1 or options.scratch == "always"):
        return None, None
    sign = storage / f"keeper-{secrets.token_hex(8)}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1)(Keeper).options(name=sign.name, scheduling_strategy=here)
    keeper: Any = actor.remote(str(home), str(stop_file))
    if not ray.get(keeper.sees_home.remote()):
        raise HomeUnseenError(f"Ray's node at {ray.util.get_node_ip_address()}, this driver's own, does not see {home}")
    if options.scratch == "auto":
        storage.mkdir(parents=True)
        sign.touch()
    return keeper, str(sign)


class HomeUnseenError(RuntimeError):
    """Nothing would be kept: not even the driver's own node of Ray sees the home, in a container perhaps."""


class ClusterLostError(RuntimeError):
    """All nodes of Ray are dead, and with them the trials' workers; the trials' folders are as they were."""


class _Heartbeat(tune.Callback):
    """Ends a sweep that has no node left, where Tune would wait for one for ever."""

    def __init__(self) -> None:
        self._asked = time.monotonic()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called some times a second."""
        if time.monotonic() - self._asked < _HEARTBEAT_S:
            return
        self._asked = time.monotonic()
        if not any(node["Alive"] for node in ray.nodes()):
            raise ClusterLostError("Ray's node died; nothing is lost: run the same command again")


class _Losses(tune.Callback):
    """Says in the journal of a trial whose workers all died that it failed, and why."""

    def __init__(self, home: Path, max_failures: int, stop_file: Path | None) -> None:
        """stop_file: written after the first loss, where it is given."""
        self._home, self._max_failures, self._stop_file = home, max_failures, stop_file

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune has given a trial up."""
        key = trial.config["point"]["key"]
        folder = trial_folder(self._home, key)
        if trial_status(folder) not in ("finished", "failed"):
            with Journal(folder) as journal:
                journal.failed(f"its worker process died {self._max_failures + 1} times (killed, or out of memory)")
        if self._stop_file is not None:
            request_stop(self._stop_file, "failure", f"trial {key} failed")


def connect() -> None:
    """Attach to the cluster that RAY_ADDRESS names, or start Ray on this machine."""
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
    else:
        ray.init(address="local", include_dashboard=False, **quiet)
        token = Path.home() / ".ray" / "auth_token"
        if token.exists():  # Ray writes it readable for everybody
            token.chmod(0o600)
