"""Measurements of `make gpu` that no benchmark command makes; each prints JSON, one object a line, as it is measured.

PYTHONPATH=. python tests/gpu/measure.py step         # rows of `bench step`
PYTHONPATH=. python tests/gpu/measure.py agreement    # 200 steps beside a CPU's, host reads, LPIPS, compiling
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.data.prepare import open_dataset
from jobs.data.prepare import prepare as prepare_dataset
from jobs.data.store import Store
from jobs.precision import products
from model.losses.lpips import LpipsDistance
from model.methods.splatter_image.backbones import unet
from model.rasterizers import CUDA_BACKENDS, is_available
from model.weights import WeightStore
from results.records.arithmetic import Execution
from sweep.bench.measure import torch_threads, why_without_figures
from sweep.bench.step import row_of_two_cpu_cores
from sweep.bench.step_gpu import CUDA, GPU_SIZES, Case, GpuSize, gpu_step_rows, make_step

CPU = torch.device("cpu")
STEPS = 200
#: Images and their side, for the shift of LPIPS.
_IMAGES, _SIDE = 32, 128


def agreement(
    device: torch.device, store: Store, steps: int, executions: tuple[Execution, ...], backend: str
) -> Iterator[dict[str, Any]]:
    """Largest relative difference of the losses of each execution from those of the CPU, over the first `steps`.

    From the same weights, in float32, and without dropout, whose random numbers differ between devices.
    """
    before, unet.DROPOUT = unet.DROPOUT, 0.0
    try:
        with torch_threads(2):  # more only wait for each other
            expected = _losses(_small_step("cpu", "eager", store, CPU), steps)
            for execution in executions:
                found = _losses(_small_step(backend, execution, store, device), steps)
                difference = float(((found - expected).abs() / expected.abs()).max())
                yield {"measure": "agreement", "execution": execution, "backend": backend, "difference": difference}
    finally:
        unet.DROPOUT = before


def _small_step(backend: str, execution: Execution, store: Store, device: torch.device) -> Callable[[], Any]:
    torch.manual_seed(0)
    step = make_step(Case(GPU_SIZES[0], backend, execution, "float32"), store, device)

    def in_float32() -> Any:
        with products("float32"):
            return step()

    return in_float32


def _losses(step: Callable[[], Any], steps: int) -> Tensor:
    """Losses (steps,) on the host; a captured step overwrites its own, so each is copied."""
    losses = []
    for iteration in range(steps):
        torch.manual_seed(iteration)
        losses.append(step().losses["loss"].detach().clone())
    return torch.stack(losses).cpu()


def host_reads(store: Store, backend: str, execution: Execution) -> dict[str, Any]:
    """Whether the host waits for the device in a step, after some steps; the message of the first wait, if any."""
    step = _small_step(backend, execution, store, CUDA)
    for _ in range(6):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    message = None
    try:
        step()
    except RuntimeError as error:
        message = str(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"measure": "host reads", "backend": backend, "execution": execution, "waits": message}


def lpips_shift(device: torch.device, weights: WeightStore, images: int = _IMAGES, side: int = _SIDE) -> dict[str, Any]:
    """Shift of the mean LPIPS of noisy images where its trunk computes in bfloat16 and channels last."""
    generator = torch.Generator().manual_seed(0)
    one = torch.rand((images, 3, side, side), generator=generator)
    other = (one + 0.1 * torch.randn(one.shape, generator=generator)).to(device)
    one = one.to(device)
    means = []
    for in_bf16 in (False, True):
        distance = LpipsDistance("vgg", weights).to(device)
        if in_bf16:
            distance.to(memory_format=torch.channels_last)
        with torch.no_grad(), products("float32"):  # torch's default on a GPU is TF32 for convolutions
            features = [distance.features(pictures, in_bf16=in_bf16) for pictures in (one, other)]
            means.append(float(distance.between(*features).mean()))
    return {"measure": "lpips", "float32": means[0], "bf16": means[1], "shift": abs(means[1] - means[0])}


def compiling(store: Store, backend: str, rounds: int = 20) -> dict[str, Any]:
    """Seconds that compiling takes, and that a step saves by it."""
    seconds, compile_seconds = {}, 0.0
    executions: tuple[Execution, ...] = ("eager", "compiled")
    for execution in executions:
        step = _small_step(backend, execution, store, CUDA)
        started = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if execution == "compiled":
            compile_seconds = time.perf_counter() - started
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(rounds):
            step()
        torch.cuda.synchronize()
        seconds[execution] = (time.perf_counter() - started) / rounds
    return {
        "measure": "compiling",
        "seconds": compile_seconds,
        "saved a step": seconds["eager"] - seconds["compiled"],
    }


def all_of_agreement() -> Iterator[dict[str, Any]]:
    """All measures besides rows; a measure that fails is reported, and the others follow."""
    backends = [name for name in ("triton", *CUDA_BACKENDS) if is_available(name)]
    if not backends:
        yield {"measure": "agreement", "lacks": "no rasteriser for a GPU is installed"}
        return
    backend = backends[0]
    weights = WeightStore(Path(os.environ.get("SPLATSWEEP_WEIGHTS", "runs/weights")))
    with _chairs(GPU_SIZES[0]) as store:
        measures: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
            "agreement": lambda: agreement(CUDA, store, STEPS, ("eager", "graph"), backend),
            "host reads": lambda: [host_reads(store, backend, "eager"), host_reads(store, backend, "graph")],
            "lpips": lambda: [lpips_shift(CUDA, weights)],
            "compiling": lambda: [compiling(store, backend)],
            "agreement compiled": lambda: agreement(CUDA, store, STEPS, ("compiled",), backend),
        }
        for name, measure in measures.items():
            try:
                yield from measure()
            except Exception as error:  # one measure must not cost the others
                yield {"measure": name, **why_without_figures(error)}


@contextmanager
def _chairs(size: GpuSize) -> Iterator[Store]:
    """A store of procedural chairs in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        config = size.config("cpu", "float32")
        prepare_dataset(config.data.name, config.data.options, Path(folder), workers=1)
        yield open_dataset(config.data.name, config.data.options, Path(folder))


def step_rows() -> Iterator[dict[str, Any]]:
    """Rows of `bench step` on the GPU, and that of two CPU cores for the laptop's size."""
    yield row_of_two_cpu_cores()
    yield from gpu_step_rows(10, compiled=False, with_usage=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["step", "agreement"])
    found = step_rows() if parser.parse_args().what == "step" else all_of_agreement()
    for row in found:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
