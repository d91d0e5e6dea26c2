"""Profile of one forward and backward call of the CPU rasteriser, inside the kernels and outside.

A function that only allocates its outputs measures the time that every rasteriser needs: the mean squared error, its
gradient, and torch's overhead between them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.native.library import STAGES
from model.rasterizers import cpu
from model.rasterizers.validation import validate
from model.types import Gaussians
from sweep.bench.measure import interleaved, torch_threads
from sweep.bench.raster_cases import Task, Workload, make_task

PARTS = (*STAGES, "checks", "MSE and autograd", "rest", "all")
NOTE = (
    "Where it goes, ms, by workload and number of threads: the stages of the kernels, as the calling thread sees them; "
    "checks of types and shapes; what the same mean squared error and its gradient cost behind a function that draws "
    "nothing; the rest is memory, arguments and caches that all these leave cold for each other."
)


class _Nothing(torch.autograd.Function):
    """A function with the rasteriser's tensor shapes that computes nothing."""

    @staticmethod
    def forward(ctx: Any, shape: torch.Size, *leaves: Tensor) -> Tensor:
        ctx.save_for_backward(*leaves)
        return torch.empty(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _by_images: Tensor) -> tuple[Tensor | None, ...]:
        return None, *map(torch.empty_like, ctx.saved_tensors)


def profiles(workloads: Iterable[Workload], rounds: int) -> list[dict[str, Any]]:
    """One row per part, one column per workload and number of threads."""
    found = {
        f"{workload.name}, {threads}": profile(workload, threads, rounds)
        for workload in workloads
        for threads in (1, 2)
    }
    return [{"part": part} | {name: parts[part] for name, parts in found.items()} for part in PARTS]


def profile(workload: Workload, threads: int, rounds: int) -> dict[str, float]:
    """Milliseconds of each of PARTS, medians over interleaved rounds."""
    task = make_task(workload)
    seconds: list[list[float]] = []

    def staged() -> None:
        spent = (ctypes.c_double * len(STAGES))()
        background = task.background.expand(workload.scenes, 3)
        images, _ = cpu.render(Gaussians(*task.leaves), task.cameras, background, False, False, seconds=spent)
        task.gradients(images)
        seconds.append(list(spent))

    with torch_threads(threads):
        times = interleaved({"staged": staged, **_around(task)}, rounds)
    medians = {name: median(ms) for name, ms in times.items()}
    stages = (1e3 * median(spent) for spent in zip(*seconds[-rounds:], strict=True))
    parts = dict(zip(STAGES, stages, strict=True)) | {name: medians[name] for name in ("checks", "MSE and autograd")}
    return parts | {"rest": medians["all"] - sum(parts.values()), "all": medians["all"]}


def _around(task: Task) -> dict[str, Callable[[], object]]:
    """Milliseconds of the whole call, and of its parts outside the kernels."""
    gaussians, shape = Gaussians(*task.leaves), task.targets.shape
    return {
        "all": lambda: task.both("cpu"),
        "checks": lambda: validate(gaussians, task.cameras, task.background, values=False),
        "MSE and autograd": lambda: task.gradients(_Nothing.apply(shape, *task.leaves)),
    }
