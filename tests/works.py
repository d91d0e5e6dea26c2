"""What trials do in tests of executors: no training, and what a test wants to see left behind in their folders."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch

from jobs.config import TrialConfig
from jobs.training import StopRequestedError
from jobs.trial import Runtime, TrialFailedError, TrialResult
from model.methods.blank import BlankOptions
from results.records.home import trial_folder
from results.records.journal import Journal
from results.records.plan import PlannedTrial
from results.records.trial_folder import MEASUREMENTS_FILENAME, RESULT_FILENAME

#: seeds of trials with a fate of their own
FAILING, RAISING, GREEDY = 7, 8, 9


def trial_of(seed: int, *, is_trained: bool = False) -> PlannedTrial[TrialConfig]:
    """A planned trial whose key is its seed."""
    config = TrialConfig(seed=seed) if is_trained else TrialConfig(model=BlankOptions(), seed=seed)
    return PlannedTrial(f"{seed:016x}", (f"trial {seed}",), seed, config, "pending")


def finish(key: str, home: Path) -> TrialResult:
    """Leave behind what a finished trial does."""
    folder = trial_folder(home, key)
    measurements = key.encode()
    (folder / MEASUREMENTS_FILENAME).write_bytes(measurements)
    result: dict[str, Any] = {"metrics": {}, "data_fingerprint": "", "weights": {}, "finished": time.time()}
    result["per_object_sha256"] = hashlib.sha256(measurements).hexdigest()
    (folder / RESULT_FILENAME).write_text(json.dumps(result))
    return TrialResult(key, folder, {}, 0)


def work(config: TrialConfig, home: Path, _runtime: Runtime) -> TrialResult:
    """Start, meet the fate of the seed, finish."""
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
    """As `work`, but the greedy trial needs more of a GPU than a half: a stand-in for torch's allocator."""
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
    """Run until a stop is asked for."""
    key = f"{config.seed:016x}"
    with Journal(trial_folder(home, key)) as journal:
        journal.start(0)
        while not (runtime.stop_file and Path(runtime.stop_file).exists()):
            time.sleep(0.05)
        journal.stopped("stopped")
    raise StopRequestedError("stopped")
