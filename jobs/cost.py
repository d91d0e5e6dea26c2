"""Cost of a trained network: its size, and the time and memory of one prediction and one rendering.

All rows are measured in the same way: one object of the evaluated split, one process, medians after a warm-up.  Outputs
of frozen models come from their cache, so the times exclude the encoders and depth models themselves.
"""

from __future__ import annotations

import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from jobs.config import TrialConfig
from jobs.data.prepare import open_dataset
from jobs.data.store import Store
from jobs.device import processor, wait_for
from jobs.evaluate import Predict, object_views, predicting
from jobs.memory import reset_gpu_peak
from jobs.precision import products
from jobs.trained import load_trained
from model.rasterizers.validation import NonFiniteGaussiansError
from results.records.atomic import write_json
from results.records.home import training_folder, trial_folder
from results.records.training_folder import read_training, training_of
from results.records.trial_folder import COSTS_FILENAME

#: Repetitions of a measurement: at least these, then more while the time lasts, up to the most.
_LEAST, _MOST, _SECONDS = 3, 9, 0.3
_MIB = 2**20

Result = TypeVar("Result")


@torch.inference_mode()
def measure_costs(
    network: nn.Module, predict: Predict, config: TrialConfig, store: Store, device: torch.device, train_s: float | None
) -> dict[str, Any]:
    """The content of `costs.json`; train_s: seconds spent in training iterations; None where that is not known.

    Gaussians that are not finite are left out.  `predict_ms` is one object's sources to its scene, `render_ms` that
    scene from one camera at the trial's resolution, `memory_mib` the parameters and the most that both allocate
    beside them; None where the system cannot measure it.
    """
    row = next(store.split(config.eval.split).itertuples())
    views = object_views(store, row, config.data.resolution, config.model.input_views, device)
    source, seen = views.select(0, config.model.input_views), views.select(0, 1)
    scene, predict_ms = _median_ms(lambda: predict(source), device)
    try:
        _, render_ms = _median_ms(lambda: scene.render(seen.cameras, seen.background), device)
    except NonFiniteGaussiansError:
        return measure_costs(network, lambda given: predict(given).without_non_finite(), config, store, device, train_s)
    allocated = _peak_bytes(lambda: predict(source).render(seen.cameras, seen.background), device)
    own = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
        "train_s": train_s,
        "predict_ms": predict_ms,
        "render_ms": render_ms,
        "memory_mib": None if allocated is None else (own + allocated) / _MIB,
        "device": device_name(device),
    }


def measure_finished(home: Path, key: str, device: torch.device) -> dict[str, Any]:
    """Measures a finished trial from its weights and writes `costs.json` into its folder; its result stays as it is.

    Raises ValueError for a trial without a network or without weights.
    """
    folder = trial_folder(home, key)
    trained = load_trained(home, key, device)
    record = read_training(training_folder(home, training_of(folder) or key))
    store = open_dataset(trained.config.data.name, trained.config.data.options, home)
    predict = predicting(trained.reconstructor, trained.context, trained.config)
    seconds = None if record is None else record.get("seconds")
    with products(trained.config.train.precision):
        costs = measure_costs(trained.reconstructor, predict, trained.config, store, device, seconds)
    write_json(folder / COSTS_FILENAME, costs)
    return costs


def device_name(device: torch.device) -> str:
    """Name of a GPU, or of the processor with the number of threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' * (threads > 1)}"


def _median_ms(run: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """The last result, and the median time after one call that is not counted."""
    times: list[float] = []
    result, began = run(), time.perf_counter()
    while len(times) < _LEAST or (len(times) < _MOST and time.perf_counter() - began < _SECONDS):
        wait_for(device)
        started = time.perf_counter()
        result = run()
        wait_for(device)
        times.append(1000 * (time.perf_counter() - started))
    return result, statistics.median(times)


def _peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """The most memory that a call allocates at any time beside what was allocated before; None where unknown.

    On a GPU this is torch's; on a CPU the resident memory of the process, which only Linux lets one measure.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        reset_gpu_peak(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    if platform.libc_ver()[0] != "glibc":
        return None
    ctypes.CDLL(None).malloc_trim(0)  # else the call would reuse pages that earlier ones left resident
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = _resident("VmRSS")
        run()
        return max(0, _resident("VmHWM") - before)
    except (OSError, KeyError):
        return None


def _resident(name: str) -> int:
    """A field of the process's status, in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[name].split()[0]) * 1024
