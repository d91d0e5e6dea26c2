"""How fast the rasterisers draw what a training step asks of them, forward alone and with the gradients of an MSE.

The Gaussians are those that a network predicts for one input image: one a pixel, on a smooth surface, about a pixel
wide, seen from 30 degrees away.  The backend `reference`, in float32, is the dense torch that everybody writes first.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from model.rasterizers import cpu, is_available, render
from model.rasterizers.native import STAGES
from model.types import Cameras, Gaussians
from sweep.bench.measure import BenchResult, interleaved, machine, matmul_gflops, torch_threads

#: GFLOP/s of a 2048 float32 matrix product on one core of the machine that the targets are for.
REFERENCE_GFLOPS = 85.0
DISTANCE = 1.75  # of every camera from the middle of the surface, scene units
YAW = 30.0  # degrees
DENSE_PAIRS_MAX = 2**24  # Gaussians times pixels that dense torch is asked to hold


@dataclass(frozen=True)
class Workload:
    """B scenes of size x size Gaussians, V views of size x size pixels."""

    name: str
    scenes: int
    views: int
    size: int
    targets: tuple[float, float]  # milliseconds forward and backward, with one thread and with two

    @property
    def dense_pairs(self) -> int:
        return self.scenes * self.views * self.size**4


WORKLOADS = (
    Workload("32 px", 1, 1, 32, (0.45, 0.35)),
    Workload("64 px", 1, 1, 64, (1.3, 0.8)),
    Workload("128 px", 1, 1, 128, (4.8, 2.7)),
    Workload("8 x 4 at 64 px", 8, 4, 64, (36.0, 19.0)),
)


@dataclass(frozen=True)
class Task:
    """A workload's arguments, and images to be approached."""

    leaves: tuple[Tensor, ...]  # the fields of Gaussians
    cameras: Cameras
    background: Tensor
    targets: Tensor

    def forward(self, backend: str) -> Tensor:
        return render(Gaussians(*self.leaves), self.cameras, self.background, backend)

    def both(self, backend: str) -> tuple[Tensor, ...]:
        """Gradients of the mean squared error by the five tensors."""
        return torch.autograd.grad((self.forward(backend) - self.targets).square().mean(), self.leaves)


def make_task(workload: Workload, device: str = "cpu", seed: int = 0) -> Task:
    """The Gaussians of a workload, always the same."""
    generator = torch.Generator().manual_seed(seed)
    scenes, views, size = workload.scenes, workload.views, workload.size
    leading = (scenes, size * size)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*leading, *shape, generator=generator)

    rays = (torch.arange(size) + 0.5) / size - 0.5  # x/z and y/z of the pixels of a camera with focal length `size`
    y, x = (grid.flatten() for grid in torch.meshgrid(rays, rays, indexing="ij"))
    z = DISTANCE + 0.15 * torch.sin(6 * x) * torch.cos(5 * y)
    surface = torch.stack([x * z, y * z, z - DISTANCE], dim=-1)
    pixel = DISTANCE / size
    leaves = (
        surface + 0.002 * normal(3),
        pixel * (0.35 * normal(3)).exp(),
        torch.nn.functional.normalize(normal(4), dim=-1),
        torch.sigmoid(normal(1)),
        0.3 * normal(4, 3),
    )
    return Task(
        leaves=tuple(leaf.to(device).requires_grad_() for leaf in leaves),
        cameras=_cameras(scenes, views, size).to(device),
        background=torch.ones(3, device=device),
        targets=torch.rand(scenes, views, 3, size, size, generator=generator).to(device),
    )


def _cameras(scenes: int, views: int, size: int) -> Cameras:
    """Cameras that look at the origin from 30 degrees to the right and to the left, in turn."""
    matrices = torch.eye(4).repeat(scenes, views, 1, 1)
    for view in range(views):
        yaw = math.radians(YAW if view % 2 == 0 else -YAW)
        c, s = math.cos(yaw), math.sin(yaw)
        matrices[:, view, :3, :3] = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    matrices[..., 2, 3] = DISTANCE
    focal = torch.full((scenes, views, 2), float(size))
    return Cameras(matrices, focal, focal / 2, height=size, width=size)


@dataclass(frozen=True)
class Case:
    """One workload on one backend with one number of threads."""

    workload: Workload
    backend: str
    device: str
    threads: int

    def calls(self) -> dict[str, Callable[[], object]]:
        """What to measure, by column."""
        task = make_task(self.workload, self.device)

        def measured(call: Callable[[str], object]) -> Callable[[], object]:
            def run() -> None:
                with torch_threads(self.threads):
                    call(self.backend)
                if self.device == "cuda":
                    torch.cuda.synchronize()

            return run

        return {"forward ms": measured(task.forward), "both ms": measured(task.both)}


def cases_of(workload: Workload) -> list[Case]:
    """All backends that can draw a workload here."""
    cases = [Case(workload, "cpu", "cpu", threads) for threads in (1, 2)]
    if workload.dense_pairs <= DENSE_PAIRS_MAX:
        cases += [Case(workload, "reference", "cpu", threads) for threads in (1, 2)]
    if torch.cuda.is_available():
        cases += [Case(workload, name, "cuda", 1) for name in ("inria", "gsplat") if is_available(name)]
    return cases


def run(quick: bool) -> BenchResult:
    """Medians over interleaved rounds, and the targets scaled by the matrix product measured in the same run."""
    gflops = {threads: matmul_gflops(threads) for threads in (1, 2)}
    workloads = WORKLOADS[:1] if quick else WORKLOADS
    rows = [row for workload in workloads for row in _measure(workload, gflops, rounds=2 if quick else 25)]
    facts = machine() | {f"matmul GFLOP/s with {threads}": rate for threads, rate in gflops.items()}
    return BenchResult("raster", facts, rows, [*_notes(), *(_profile(workload, quick) for workload in workloads)])


def _measure(workload: Workload, gflops: dict[int, float], rounds: int) -> list[dict[str, Any]]:
    """One row a case."""
    cases = cases_of(workload)
    calls = {(case, column): call for case in cases for column, call in case.calls().items()}
    times = interleaved({f"{number}": call for number, call in enumerate(calls.values())}, rounds, warmup=1)
    medians = dict(zip(calls, map(median, times.values()), strict=True))
    ours = medians[cases[0], "both ms"]
    rows = []
    for case in cases:
        target = workload.targets[case.threads - 1] if case.backend == "cpu" else None
        both = medians[case, "both ms"]
        rows.append(
            {
                "workload": workload.name,
                "backend": case.backend,
                "threads": case.threads,
                "forward ms": medians[case, "forward ms"],
                "both ms": both,
                "times cpu": both / ours,
                "target ms": target,
                "scaled target ms": target and target * REFERENCE_GFLOPS * case.threads / gflops[case.threads],
            }
        )
    return rows


def _notes() -> list[str]:
    return [
        "Both: forward, mean squared error and backward. Times cpu: both, over that of cpu with one thread.",
        f"Target: for a core that multiplies matrices at {REFERENCE_GFLOPS:g} GFLOP/s; scaled by the product measured "
        "here. The product gains more by wide vectors than drawing can.",
    ]


def _profile(workload: Workload, quick: bool) -> str:
    """Where the time of one thread goes, forward and backward: milliseconds of each stage, medians over calls."""
    task = make_task(workload)
    samples = []
    with torch_threads(1):
        for _ in range(3 if quick else 15):
            seconds = (ctypes.c_double * len(STAGES))()
            gaussians = Gaussians(*task.leaves)
            background = task.background.expand(workload.scenes, 3)
            images, _ = cpu.render(gaussians, task.cameras, background, False, False, seconds=seconds)
            torch.autograd.grad((images - task.targets).square().mean(), task.leaves)
            samples.append(list(seconds))
    medians = map(median, zip(*samples, strict=True))
    stages = [f"{name} {1e3 * spent:.3f}" for name, spent in zip(STAGES, medians, strict=True)]
    return f"cpu, {workload.name}, one thread, ms: {', '.join(stages)}; the rest is Python, torch and memory."
