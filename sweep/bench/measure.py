"""Tools of the benchmarks: interleaved cases, medians, and the machine's peak performance.

Other processes slow a machine down by factors, and unevenly over time.  Therefore all cases run in turn in every round,
results are medians over rounds, and claims are ratios between cases of one run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

import torch
from torch.nn import functional as F

from jobs.device import processor
from model.rasterizers.packages import BackendUnavailableError
from model.weights import MissingWeightsError

Name = TypeVar("Name")  # of a case

#: (channels, pixels a side) of the 3x3 convolutions among which the peak is looked for.
PEAK_SHAPES: tuple[tuple[int, int], ...] = ((64, 64), (128, 32), (256, 16), (256, 32))


@dataclass(frozen=True)
class BenchResult:
    """The result of one benchmark: the machine, one row per case with equal keys, and notes that explain the columns.

    `details`, if not empty, are the rows of a second table.
    """

    name: str
    machine: dict[str, Any]
    rows: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)


def machine() -> dict[str, Any]:
    """The properties of this machine that determine its speed."""
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def interleaved(cases: Mapping[Name, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[Name, list[float]]:
    """Milliseconds of every call, by case; each round calls every case once, in turn.

    The first `warmup` rounds are not counted.  Raises ValueError where there is nothing to measure.
    """
    if rounds < 1 or not cases:
        raise ValueError(f"{rounds} rounds of {len(cases)} cases measure nothing; give at least one of each")
    times: dict[Name, list[float]] = {name: [] for name in cases}
    for index in range(warmup + rounds):
        for name, call in cases.items():
            started = time.perf_counter()
            call()
            elapsed = time.perf_counter() - started
            if index >= warmup:
                times[name].append(1e3 * elapsed)
    return times


def why_without_figures(error: Exception) -> dict[str, str]:
    """The part of a row without figures that says why: as `lacks` what is not installed here, else as `fails`."""
    is_lacking = isinstance(error, ModuleNotFoundError | BackendUnavailableError | MissingWeightsError)
    return {"lacks" if is_lacking else "fails": f"{type(error).__name__}: {error}"}


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets torch's number of threads to `count` inside the body, and restores it afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matmul_gflops(threads: int, size: int = 2048) -> float:
    """GFLOP/s of a square float32 matrix product with `threads` threads: the median of five calls."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    with torch_threads(threads):
        milliseconds = interleaved({"matmul": lambda: a @ b}, rounds=5, warmup=1)["matmul"]
    return 2 * size**3 / median(milliseconds) / 1e6


@dataclass(frozen=True)
class Convolution:
    """Forward and backward pass of one 3x3 convolution as in our networks, float32, channels last."""

    channels: int
    side: int
    batch: int

    @property
    def gflop(self) -> float:
        """GFLOP of one call: 2 per multiply-add, for the output and the gradients of input and weight."""
        return 3 * 2 * 9 * self.channels**2 * self.side**2 * self.batch / 1e9

    def case(self) -> Callable[[], object]:
        """The call to measure."""
        shape = (self.batch, self.channels, self.side, self.side)
        x = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(self.channels, self.channels, 3, 3).contiguous(memory_format=torch.channels_last)
        weight.requires_grad_()
        by_output = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        return lambda: torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), by_output)


def fastest_convolution(batch: int, rounds: int) -> Convolution:
    """The shape of `PEAK_SHAPES` for which this machine's library reaches the most FLOP/s."""
    shapes = {f"{c}x{side}": Convolution(c, side, batch) for c, side in PEAK_SHAPES}
    times = interleaved({name: shape.case() for name, shape in shapes.items()}, rounds)
    return max(shapes.values(), key=lambda s: s.gflop / median(times[f"{s.channels}x{s.side}"]))
