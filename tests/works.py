"""Replacements of `run_trial` for tests of executors: they train nothing and write what a test checks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jobs.config import TrialConfig
from jobs.stop import StopRequestedError
from jobs.trial import Runtime, TrialFailedError, TrialResult
from model.methods.blank import BlankOptions
from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.plan import PlannedTrial
from tests.homes import write_result

if TYPE_CHECKING:
    import pytest

#: seeds of trials that fail, raise, or run out of GPU memory
FAILING, RAISING, GREEDY = 7, 8, 9


def trial_of(seed: int, *, is_trained: bool = False) -> PlannedTrial[TrialConfig]:
    """A planned trial whose key is its seed."""
    config = TrialConfig(seed=seed) if is_trained else TrialConfig(model=BlankOptions(), seed=seed)
    return PlannedTrial(f"{seed:016x}", (f"trial {seed}",), seed, config, "pending")


def finish(key: str, home: Path) -> TrialResult:
    """Writes the files of a finished trial."""
    folder = trial_folder(home, key)
    write_result(folder, key.encode(), data_fingerprint="", weights={}, finished=time.time())
    return TrialResult(key, folder, {}, 0)


def work(config: TrialConfig, home: Path, _runtime: Runtime) -> TrialResult:
    """Starts, fails or raises where the seed says so, and finishes otherwise."""
    key = f"{config.seed:016x}"
    with Journal(trial_folder(home, key)) as journal:
        journal.start(0)
        if config.seed == FAILING:
            journal.failed("a reason of its own")
            raise TrialFailedError("a reason of its own")
        if config.seed == RAISING:
            raise ValueError("before it could say why")
    return finish(key, home)


def greedy_work(config: TrialConfig, home: Path, _runtime: Runtime) -> TrialResult:
    """Finishes, but the greedy trial needs more than half a GPU: it raises the error of torch's allocator."""
    import ray

    key = f"{config.seed:016x}"
    share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)
    with Journal(trial_folder(home, key)) as journal:
        journal.start(0)
        journal.metrics(0, {"test/share": share})
    if config.seed == GREEDY and share <= 0.5:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return finish(key, home)


def endless_work(config: TrialConfig, home: Path, runtime: Runtime) -> TrialResult:
    """Runs until the stop file exists."""
    key = f"{config.seed:016x}"
    with Journal(trial_folder(home, key)) as journal:
        journal.start(0)
        while not (runtime.stop_file and Path(runtime.stop_file).exists()):
            time.sleep(0.05)
        journal.stopped("stopped")
    raise StopRequestedError("stopped")


def hungry_work(config: TrialConfig, home: Path, _runtime: Runtime) -> TrialResult:
    """Takes up to 4 GiB of memory, and finishes where nobody stops it."""
    key = f"{config.seed:016x}"
    with Journal(trial_folder(home, key)) as journal:
        journal.start(0)
        taken = []
        while len(taken) < 64:
            taken.append(torch.ones(1 << 24))
            time.sleep(0.1)
    return finish(key, home)


class Silent:
    """Notices that are recorded and not shown."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def wait_for(self, what: str | None) -> None:
        if what is not None:
            self.said.append(what)


def start_ray(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Starts Ray with these resources, real or not, or other settings, and makes the executor use it."""
    import ray

    from sweep.run.executors.ray import tune
    from sweep.run.executors.ray.connection import python_of_workers

    settings["runtime_env"] = python_of_workers(None)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, **settings)
    monkeypatch.setattr(tune, "connect", lambda: None)
