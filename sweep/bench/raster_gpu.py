"""Benchmark of the rasterisers on a GPU: every backend that runs there, interleaved, timed by CUDA events.

The time between two events includes all work of the device for a call, and its waiting for the host.  A backend that
reads nothing back is also timed as a CUDA graph, in which training replays it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from model.rasterizers import CUDA_BACKENDS, capabilities, is_available
from model.rasterizers.backend import deferred_checks
from results.records.arithmetic import Execution
from sweep.bench.raster_cases import PAPER_STEP, WORKLOADS, Task, Workload, make_task

log = logging.getLogger(__name__)

#: The renders of one training step at three sizes: the laptop's, one between, and the paper's.
GPU_WORKLOADS = (Workload("8 x 4 at 32 px", 8, 4, 32), WORKLOADS[3], PAPER_STEP)
NOTE = "On a GPU: medians by CUDA events. Times inria: both, over that of inria in the same run."
_WARMUP = 3
_FORWARD, _BOTH = "forward ms", "both ms"

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
    """One row for each workload, backend and execution; in every round all of them draw in turn."""
    rows = []
    for workload in workloads:
        calls = _calls(make_task(workload, device), backends)
        times: dict[tuple[str, Execution, str], list[float]] = {key: [] for key in calls}
        for index in range(_WARMUP + rounds):
            for key, call in calls.items():
                ms = stopwatch(call)
                if index >= _WARMUP:
                    times[key].append(ms)
        medians = {key: median(values) for key, values in times.items()}
        published = medians.get(("inria", "eager", _BOTH))
        rows += [
            {
                "workload": workload.name,
                "backend": backend,
                "execution": execution,
                "device": device,
                _FORWARD: medians[backend, execution, _FORWARD],
                _BOTH: both,
                "times inria": published and both / published,
            }
            for (backend, execution, column), both in medians.items()
            if column == _BOTH and (backend, execution, _FORWARD) in medians
        ]
    return rows


def _calls(task: Task, backends: Sequence[str]) -> dict[tuple[str, Execution, str], Callable[[], object]]:
    """The calls to time, by backend, execution and column; without those of a backend that fails."""
    calls: dict[tuple[str, Execution, str], Callable[[], object]] = {}
    for backend in backends:
        try:
            can = capabilities(backend)
            task.both(backend)
        except Exception as error:  # a broken package must not cost the others' rows
            log.warning("%s is not timed: %s", backend, error)
            continue
        for column, call in ((_FORWARD, task.forward), (_BOTH, task.both)):
            calls[backend, "eager", column] = partial(call, backend)
            if can.capturable:
                try:
                    calls[backend, "graph", column] = captured(partial(call, backend))
                except RuntimeError as error:  # one row must not cost the others
                    log.warning("%s is not timed as a graph: %s", backend, error)
    return calls


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """A call as a CUDA graph."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(_WARMUP):
            call()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream), deferred_checks():
        call()
    replay: Callable[[], object] = graph.replay
    return replay
