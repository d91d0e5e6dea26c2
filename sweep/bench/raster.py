"""Benchmark of the rasterisers on a training step's workload: forward alone, and with the gradients of an MSE.

The backend `reference`, in float32, is the dense implementation in plain torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from jobs.memory import keep_freed_memory
from sweep.bench.measure import BenchResult, interleaved, machine, matmul_gflops, torch_threads
from sweep.bench.raster_cases import WORKLOADS, Workload, make_task
from sweep.bench.raster_gpu import NOTE as GPU_NOTE
from sweep.bench.raster_gpu import gpu_backends, gpu_rows
from sweep.bench.raster_profile import NOTE, profiles

#: GFLOP/s of a float32 matrix product of size 2048 on one core of the machine that the targets are for.
REFERENCE_GFLOPS = 85.0
DENSE_PAIRS_MAX = 2**24  # the most pairs of Gaussian and pixel that the dense torch backend holds


@dataclass(frozen=True)
class Case:
    """One workload on one backend with one number of threads."""

    workload: Workload
    backend: str
    threads: int

    def calls(self) -> dict[str, Callable[[], object]]:
        """The calls to measure, by column."""
        task = make_task(self.workload)

        def measured(call: Callable[[str], object]) -> Callable[[], object]:
            def run() -> None:
                with torch_threads(self.threads):
                    call(self.backend)

            return run

        return {"forward ms": measured(task.forward), "both ms": measured(task.both)}


def cases_of(workload: Workload) -> list[Case]:
    """All backends that can draw a workload on the CPU."""
    names = ("cpu", "reference") if workload.dense_pairs <= DENSE_PAIRS_MAX else ("cpu",)
    return [Case(workload, name, threads) for name in names for threads in (1, 2)]


def run(quick: bool) -> BenchResult:
    """Runs the benchmark: medians over interleaved rounds, and targets scaled by a matrix product in the same run.

    On a machine with a GPU, its backends come first.
    """
    keep_freed_memory()  # as trials do
    gflops = {threads: matmul_gflops(threads) for threads in (1, 2)}
    workloads = WORKLOADS[:1] if quick else WORKLOADS
    rows = gpu_rows(gpu_backends(), rounds=20) if torch.cuda.is_available() else []
    rows += [row for workload in workloads for row in _measure(workload, gflops, turns=2 if quick else 5)]
    columns = dict.fromkeys(name for row in rows for name in row)
    rows = [{name: row.get(name) for name in columns} for row in rows]
    facts = machine() | {f"matmul GFLOP/s with {threads}": rate for threads, rate in gflops.items()}
    return BenchResult("raster", facts, rows, _notes(), profiles(workloads, rounds=3 if quick else 25))


def _measure(workload: Workload, gflops: dict[int, float], turns: int) -> list[dict[str, Any]]:
    """One row per case."""
    cases = cases_of(workload)
    medians = _medians(cases, turns)
    ours = medians[cases[0], "both ms"]
    rows = []
    for case in cases:
        target = workload.targets[case.threads - 1] if case.backend == "cpu" and workload.targets else None
        both = medians[case, "both ms"]
        rows.append(
            {
                "workload": workload.name,
                "backend": case.backend,
                "device": "cpu",
                "threads": case.threads,
                "forward ms": medians[case, "forward ms"],
                "both ms": both,
                "times cpu": both / ours,
                "target ms": target,
                "scaled target ms": target and target * REFERENCE_GFLOPS * case.threads / gflops[case.threads],
            }
        )
    return rows


def _medians(cases: list[Case], turns: int) -> dict[tuple[Case, str], float]:
    """Milliseconds by case and column.  Dense torch, which takes nearly all of the time, runs in one round of five."""
    calls = {(case, column): call for case in cases for column, call in case.calls().items()}
    dense = {key: call for key, call in calls.items() if key[0].backend == "reference"}
    others = {key: call for key, call in calls.items() if key not in dense}
    times: dict[tuple[Case, str], list[float]] = {key: [] for key in calls}
    for turn in range(turns):
        # The first round of a turn is not counted: it finds the caches as dense torch leaves them.
        for group, rounds, warmup in ((others, 5, 1), (dense, 1, int(turn == 0))):
            for key, ms in (interleaved(group, rounds, warmup) if group else {}).items():
                times[key] += ms
    return {key: median(ms) for key, ms in times.items()}


def _notes() -> list[str]:
    return [
        "Both: forward, mean squared error and backward. Times cpu: both, over that of cpu with one thread.",
        f"Target: for a core that multiplies matrices at {REFERENCE_GFLOPS:g} GFLOP/s; scaled by the product measured "
        "here. The product gains more by wide vectors than drawing can.",
        *([GPU_NOTE] if torch.cuda.is_available() else []),
        NOTE,
    ]
