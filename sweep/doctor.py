"""Checks of this machine: what works, what is limited, and how to repair it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from results.invocation import home_command

if TYPE_CHECKING:
    from sweep.file.schema import Sweep

_GIB = 1 << 30
_LITTLE_DISK_GIB = 5


@dataclass(frozen=True)
class Finding:
    """The result of one check: works, limited, or prevents any run."""

    state: Literal["good", "limited", "bad"]
    subject: str
    detail: str


def examine(home: Path, sweep: Sweep | None) -> list[Finding]:
    """Checks everything that sweeps need; with `sweep`, also whether its rows can be drawn."""
    return [
        _machine(),
        _packages(),
        *_rasterizers(),
        *(_rows(sweep) if sweep else ()),
        _gpu(),
        *_sharing(),
        _home(home),
        _weights(home),
        _store(home),
    ]


def _machine() -> Finding:
    memory = psutil.virtual_memory().total / _GIB
    detail = f"{os.cpu_count()} CPUs, {memory:.0f} GiB memory, Python {platform.python_version()}"
    return Finding("good", "machine", detail)


def _packages() -> Finding:
    names = ("torch", "ray", "mlflow", "lpips", "timm", "embreex")
    return Finding("good", "packages", ", ".join(f"{name} {metadata.version(name)}" for name in names))


def _rasterizers() -> list[Finding]:
    """A finding for each backend; a missing one is `limited` if only GPUs use it, and `bad` otherwise."""
    import torch

    from model.native.library import rasteriser_kernels
    from model.rasterizers import BACKENDS, CUDA_BACKENDS, capabilities, is_available
    from model.rasterizers.packages import BackendUnavailableError

    findings = []
    for name in BACKENDS:
        subject = f"rasteriser {name}"
        try:
            details = [str(capabilities(name))]
        except BackendUnavailableError as error:
            findings.append(Finding("limited" if name in CUDA_BACKENDS else "bad", subject, str(error)))
            continue
        if name == "cpu":
            details.append(f"kernels: {', '.join(rasteriser_kernels())}")
        if name in CUDA_BACKENDS and not torch.cuda.is_available():
            details.append("installed, but there is no GPU to draw on")
        elif name in CUDA_BACKENDS and not is_available(name):
            lacks = "installed, but without compiled kernels, and there is no CUDA compiler (nvcc) to make them"
            findings.append(Finding("limited", subject, ", ".join((*details, lacks))))
            continue
        findings.append(Finding("good", subject, ", ".join(filter(None, details)) or "plain torch, slow"))
    return findings


def _rows(sweep: Sweep) -> list[Finding]:
    """Findings about rows of a sweep that the installed rasterisers cannot draw."""
    from sweep.plan.drawing import undrawable
    from sweep.plan.grid import expand

    named = expand(sweep)
    found = undrawable(named, sweep.run)
    if not found:
        return [Finding("good", f"sweep {sweep.name}", f"all {len(named)} trials can be drawn")]
    return [Finding("bad", f"sweep {sweep.name}", f"cannot be drawn: {item}") for item in found]


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("limited", "gpu", "no CUDA device: trials run on the CPU (run.gpus_per_trial: 0)")
    return Finding("good", "gpu", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))


def _sharing() -> Iterator[Finding]:
    """A finding about NVIDIA's multi-process service, which lets kernels of several trials run on one GPU at once."""
    import torch

    if not torch.cuda.is_available():
        return
    folder = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps")
    if (folder / "control").exists():
        yield Finding("good", "gpu sharing", f"MPS is on ({folder}): trials that share a GPU run side by side")
        return
    yield Finding(
        "limited",
        "gpu sharing",
        "MPS is off: trials that share a GPU (run.gpus_per_trial below 1) take turns on it; "
        "to have them run side by side, start it before the sweep: nvidia-cuda-mps-control -d",
    )


def _home(home: Path) -> Finding:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        return Finding("bad", "home", f"{home} cannot be written; choose another with --home")
    free = shutil.disk_usage(existing).free / _GIB
    if free < _LITTLE_DISK_GIB:
        return Finding("limited", "home", f"{home}: only {free:.1f} GiB free")
    return Finding("good", "home", f"{home}: {free:.0f} GiB free")


def _weights(home: Path) -> Finding:
    from model.weights import WeightStore
    from results.records.home import weights_folder

    store = WeightStore(weights_folder(home))
    here = store.names()
    if not here:
        detail = "none are here yet; a trial fetches what it needs, or run: splatsweep weights fetch --for SWEEP"
        return Finding("limited", "weights", detail)
    return Finding("good", "weights", ", ".join(here))


def _store(home: Path) -> Finding:
    from results.records.home import database_file

    database = database_file(home)
    if not database.exists():
        return Finding("limited", "mlflow", f"no store at {database} yet; the first run makes it")
    return Finding("good", "mlflow", f"{database}; look at it with: {home_command(home, 'ui')}")
