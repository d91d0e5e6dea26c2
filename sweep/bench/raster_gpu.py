"""Benchmark of the rasterisers on a GPU: every backend that runs there, interleaved, timed by CUDA events.

The time between two events includes all work of the device for a call, and its waiting for the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from model.rasterizers import CUDA_BACKENDS, is_available
from sweep.bench.raster_cases import PAPER_STEP, WORKLOADS, Workload, make_task

#: The renders of one training step at three sizes: the laptop's, one between, and the paper's.
GPU_WORKLOADS = (Workload("8 x 4 at 32 px", 8, 4, 32), WORKLOADS[3], PAPER_STEP)
NOTE = "On a GPU: medians by CUDA events. Times inria: both, over that of inria in the same run."
_WARMUP = 3

#: A call -> milliseconds.
Stopwatch = Callable[[Callable[[], object]], float]


def by_events(call: Callable[[], object]) -> float:
    """Milliseconds between two events of the current stream around a call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def gpu_backends() -> list[str]:
    """Backends that run on the GPU of this machine."""
    return [name for name in CUDA_BACKENDS if is_available(name)]


def gpu_rows(
    backends: Sequence[str],
    rounds: int,
    workloads: Sequence[Workload] = GPU_WORKLOADS,
    device: str = "cuda",
    stopwatch: Stopwatch = by_events,
) -> list[dict[str, Any]]:
    """One row for each workload and backend; in every round all backends draw in turn."""
    rows = []
    for workload in workloads:
        task = make_task(workload, device)
        times: dict[tuple[str, str], list[float]] = {}
        for index in range(_WARMUP + rounds):
            for backend in backends:
                for column, call in (("forward ms", task.forward), ("both ms", task.both)):
                    ms = stopwatch(lambda call=call, backend=backend: call(backend))  # type: ignore[misc]
                    if index >= _WARMUP:
                        times.setdefault((backend, column), []).append(ms)
        medians = {key: median(values) for key, values in times.items()}
        published = medians.get(("inria", "both ms"))
        rows += [
            {
                "workload": workload.name,
                "backend": backend,
                "device": device,
                "forward ms": medians[backend, "forward ms"],
                "both ms": medians[backend, "both ms"],
                "times inria": published and medians[backend, "both ms"] / published,
            }
            for backend in backends
        ]
    return rows
