"""The function that Tune calls in its workers: it runs one trial, in the home where the worker sees it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray
from ray import tune

from jobs.config import TrialConfig
from jobs.trial import Runtime
from sweep.run.executors.ray.packing import memory_limit
from sweep.run.executors.ray.remote_worker import run_remotely
from sweep.run.executors.run_guarded import run_guarded


def run_point(parameters: dict[str, Any]) -> None:
    """Runs the trial of `parameters["point"]`, and reports its use of memory to `QueueSearcher`."""
    key, training = parameters["point"]["key"], parameters["point"]["training"]
    config = TrialConfig.model_validate(parameters["point"]["config"])
    runtime, home, marker = Runtime(**parameters["runtime"]), Path(parameters["home"]), parameters["marker"]
    share = parameters["point"]["gpus"]
    total = _limit_memory(share)
    arguments = (config, home, runtime, parameters["fail_fast"], parameters["work"], share)
    if marker is None or os.access(marker, os.F_OK):
        attempted = run_guarded(key, *arguments)
    else:
        file_server = ray.get_actor(Path(marker).name)
        attempted = run_remotely(
            lambda method, *values: ray.get(getattr(file_server, method).remote(*values)), key, training, *arguments
        )
    tune.report(
        {"key": key, "is_put_back": attempted.is_put_back, "peak_bytes": attempted.gpu_bytes, "total_bytes": total}
    )


def _limit_memory(share: float) -> int:
    """Limits torch's memory to the worker's share of its GPU.  Returns the GPU's total bytes; 0 without a GPU."""
    import torch

    if share <= 0 or not torch.cuda.is_available():
        return 0
    total = int(torch.cuda.get_device_properties(0).total_memory)
    torch.cuda.set_per_process_memory_fraction(1.0 if share >= 1 else memory_limit(share, total))
    return total
