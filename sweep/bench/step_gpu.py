"""Benchmark of a training step on a GPU: ours in all variants and with all rasterisers, against the published style.

The published style is the same network without acceleration, in torch's default layout, with one rasteriser call per
render.  It runs in a process of its own, since `torch.backends.cudnn.benchmark`, which it does not use, chooses
convolutions for a whole process.  The use of host and device in a step is measured separately from the timed rounds.
"""

from __future__ import annotations

import gc
import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from jobs.adam import FlatAdam
from jobs.batch import Batch, draw_batch
from jobs.captured_step import CapturedStep
from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.prepare import prepare as prepare_dataset
from jobs.data.store import Store
from jobs.device import prepare, wait_for
from jobs.drawn_ahead import DrawnAhead
from jobs.execution import captures_steps, prepare_training
from jobs.flat import flatten_parameters
from jobs.memory import is_out_of_memory
from jobs.nonfinite import NonFiniteGuard
from jobs.precision import products
from jobs.reconstructor import build_reconstructor
from jobs.step import Step, StepInputs, step_inputs
from model.losses import LOSSES
from model.rasterizers import CUDA_BACKENDS, is_available, render
from model.registry import resolve
from model.scenes import Reconstructor
from model.types import Cameras, Context, Gaussians
from model.weights import WeightStore
from results.records.arithmetic import Execution, Precision
from sweep.bench.measure import interleaved, why_without_figures

#: Settings of PyTorch's sync debug mode.
_SILENT, _WARN = 0, 1
CUDA = torch.device("cuda")
#: Columns of `usage_of`.
USAGE = ("busy", "launches", "synchronisations", "peak GiB")
_STEPS = 100_000  # more than any benchmark takes


@dataclass(frozen=True)
class GpuSize:
    """The sizes of a network and its batch."""

    name: str
    resolution: int
    base_dim: int
    num_blocks: int
    attention: int
    batch: int = 8
    views: int = 4

    def config(self, backend: str, precision: Precision) -> TrialConfig:
        """A trial of this size on procedural chairs."""
        options = {"train": self.batch, "val": 1, "test": 1, "views": self.views, "image_size": self.resolution}
        model = {"base_dim": self.base_dim, "num_blocks": self.num_blocks, "attention_resolutions": [self.attention]}
        return TrialConfig.model_validate(
            {
                "data": {"name": "chairs", "resolution": self.resolution, "options": options},
                "model": model,
                "train": {"batch_size": self.batch, "views_per_object": self.views, "precision": precision},
                "render": {"backend": backend},
            }
        )


#: The sizes of the preset `laptop` and of the paper.
GPU_SIZES = (GpuSize("laptop", 32, 16, 1, 8), GpuSize("paper", 128, 128, 4, 16))


@dataclass(frozen=True)
class Case:
    """One variant of a training step: the published style, or ours."""

    size: GpuSize
    backend: str
    execution: Execution
    precision: Precision
    published: bool = False

    @property
    def name(self) -> str:
        """The variant's name in a table."""
        return "published style" if self.published else "ours"


def cases_of(size: GpuSize, backends: Sequence[str], *, compiled: bool) -> list[Case]:
    """The published style first, then ours: with every backend, and with the best backend in all executions."""
    # diff-gaussian-rasterization draws one view per call; where it is missing, another backend is called that way.
    cases = [Case(size, "inria" if "inria" in backends else backends[0], "eager", "tf32", published=True)]
    precisions: tuple[Precision, ...] = ("tf32", "bf16")
    for precision in precisions:
        cases += [Case(size, backend, "graph", precision) for backend in backends]
        cases.append(Case(size, backends[0], "eager", precision))
        if compiled:
            cases.append(Case(size, backends[0], "compiled", precision))
    return cases


def gpu_step_rows(
    rounds: int,
    *,
    compiled: bool,
    with_usage: bool = True,
    sizes: Sequence[GpuSize] = GPU_SIZES,
    device: torch.device = CUDA,
) -> Iterator[dict[str, Any]]:
    """One row per case, as it is measured; `compiled` includes `torch.compile`: a minute per size and precision.

    A row has milliseconds, also relative to the published style's, and the use of host and device.  Measuring the use
    takes longer than all else.
    """
    backends = [name for name in CUDA_BACKENDS if is_available(name)]
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        home = Path(folder)
        for size in sizes if backends else ():
            published, *ours = cases_of(size, backends, compiled=compiled)
            config = size.config(published.backend, "tf32")
            prepare_dataset(config.data.name, config.data.options, home, workers=1)
            stock = process.submit(measured_row, published, home, rounds, device, with_usage).result()
            yield relative_to(stock, stock)
            for case in ours:
                yield relative_to(stock, measured_row(case, home, rounds, device, with_usage))


def relative_to(published: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A row with its milliseconds also relative to those of the published style."""
    is_measured = row["ms"] is not None and published["ms"] is not None
    return row | {"of published": row["ms"] / published["ms"] if is_measured else None}


def measured_row(case: Case, home: Path, rounds: int, device: torch.device, with_usage: bool = True) -> dict[str, Any]:
    """The row of a case, on the chairs in `home`.

    Without figures where it does not fit into the GPU's memory, lacks something or fails; the latter two say so.
    """
    config = case.size.config(case.backend, "tf32")
    row: dict[str, Any] = {
        "size": case.size.name,
        "case": case.name,
        "backend": case.backend,
        "execution": case.execution,
        "precision": case.precision,
        "device": device.type,
    }
    try:
        row |= _figures(case, open_dataset(config.data.name, config.data.options, home), rounds, device, with_usage)
    except Exception as error:  # one case must not cost the others
        row |= dict.fromkeys(("ms", *USAGE) if with_usage else ("ms",))
        row |= {} if is_out_of_memory(error) else why_without_figures(error)
    gc.collect()  # graphs and steps refer to each other
    torch.cuda.empty_cache()
    return row


def _figures(case: Case, store: Store, rounds: int, device: torch.device, with_usage: bool) -> dict[str, Any]:
    call = _timed(make_step(case, store, device), case.precision, device)
    ms = median(interleaved({case: call}, rounds, warmup=5)[case])
    return {"ms": ms} | (usage_of(call, device) if with_usage else {})


def _timed(step: Callable[[], object], precision: Precision, device: torch.device) -> Callable[[], object]:
    def run() -> None:
        with products(precision):
            step()
        wait_for(device)

    return run


def make_step(case: Case, store: Store, device: torch.device) -> Callable[[], object]:
    """One training step: batch, network, rendering, squared error, backward, Adam."""
    config = case.size.config(case.backend, case.precision)
    network = build_reconstructor(config, {}, WeightStore(store.path)).train()
    objects, counter = store.split("train"), itertools.count()

    def draw(iteration: int) -> Batch:
        return draw_batch(store, objects, config, iteration, device)

    if case.published:
        take = _published_step(network.to(device), case.backend, config)
        return lambda: take(draw(next(counter)))
    take_inputs = _our_step(network, case, config, device)
    stage = config.train.stages[0]
    inputs = DrawnAhead(lambda i: step_inputs(draw(i), Context(), stage, 0, i, config.seed), device, _STEPS)

    def step() -> object:
        iteration = next(counter)
        done = take_inputs(inputs.take(iteration))
        inputs.prepare(iteration + 1)
        return done

    return step


def _published_step(network: Reconstructor, backend: str, config: TrialConfig) -> Callable[[Batch], object]:
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-5, eps=config.method.adam_eps, fused=False)

    def step(batch: Batch) -> None:
        scene: Any = network(batch.source, Context())
        images = render_one_by_one(scene.gaussians, batch.seen.cameras, batch.seen.background, backend)
        optimizer.zero_grad(set_to_none=True)
        (images - batch.seen.images).square().mean().backward()
        optimizer.step()

    return step


def _our_step(
    network: Reconstructor, case: Case, config: TrialConfig, device: torch.device
) -> Callable[[StepInputs], object]:
    """The step of `jobs.training`, with its check of losses and gradients."""
    in_one_graph = captures_steps(case.execution, case.backend, device)
    prepare_training(prepare(network, device), device, case.execution, case.precision, in_captured_step=in_one_graph)
    stage = config.train.stages[0]
    optimizer = FlatAdam(flatten_parameters(network), stage.lr, config.method.adam_eps)
    losses = {name: resolve(LOSSES, name, "loss")(WeightStore(Path("unused"))) for name in stage.losses}
    step = Step(network, losses, optimizer, NonFiniteGuard("stop", device), finite_parts=False)
    return CapturedStep(step, device) if in_one_graph else step


def render_one_by_one(gaussians: Gaussians, cameras: Cameras, background: Tensor, backend: str) -> Tensor:
    """Images (B, V, 3, H, W) by one rasteriser call for each scene and view, as in the published code."""
    scenes, views = cameras.focal.shape[:2]
    images = []
    for b, v in itertools.product(range(scenes), range(views)):
        scene = Gaussians(*(getattr(gaussians, name)[b : b + 1] for name in Gaussians.__dataclass_fields__))
        camera = Cameras(
            world_to_camera=cameras.world_to_camera[b : b + 1, v : v + 1],
            focal=cameras.focal[b : b + 1, v : v + 1],
            principal=cameras.principal[b : b + 1, v : v + 1],
            height=cameras.height,
            width=cameras.width,
            near=cameras.near,
        )
        images.append(render(scene, camera, background[b : b + 1], backend))
    return torch.stack([image[0, 0] for image in images]).unflatten(0, (scenes, views))


def usage_of(step: Callable[[], object], device: torch.device) -> dict[str, float | None]:
    """Busy share of the device, kernel launches, host synchronisations and peak memory of one step.

    Memory excludes weights, gradients and Adam's state.  None without a GPU.
    """
    if device.type != "cuda":
        return dict.fromkeys(USAGE)
    torch.cuda.reset_peak_memory_stats(device)
    held = torch.cuda.memory_allocated(device)
    synchronisations = count_synchronisations(step)
    peak = (torch.cuda.max_memory_allocated(device) - held + bytes_of_graphs()) / 2**30
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
    spans = device_spans(profile.events())
    return {
        "busy": busy_share(spans),
        "launches": float(len(spans)),
        "synchronisations": float(synchronisations),
        "peak GiB": peak,
    }


def device_spans(events: Iterable[Any]) -> list[tuple[float, float]]:
    """Begin and end of all work on a GPU among a profile's events; of its labels, as of an optimiser's step, none."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    ]


def busy_share(spans: Iterable[tuple[float, float]]) -> float:
    """The fraction of the time from the first span's start to the last one's end that spans cover; 0 without spans."""
    ordered = sorted(spans)
    if not ordered:
        return 0.0
    covered, (first, reached) = 0.0, (ordered[0][0], ordered[0][0])
    for start, end in ordered:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered / (reached - first) if reached > first else 0.0


def bytes_of_graphs() -> int:
    """The memory that CUDA graphs keep for their replays, which allocate none."""
    return sum(s["total_size"] for s in torch.cuda.memory_snapshot() if tuple(s["segment_pool_id"]) != (0, 0))


def count_synchronisations(step: Callable[[], object]) -> int:
    """The number of host synchronisations in a step, by PyTorch's sync debug mode, without the final wait."""
    torch.cuda.set_sync_debug_mode(_WARN)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode(_SILENT)
    return sum("synchroniz" in str(warning.message) for warning in caught)
