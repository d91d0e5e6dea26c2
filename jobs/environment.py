"""Records a trial's environment beside its result: code, packages, machine, arithmetic."""

from __future__ import annotations

import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from jobs.config import TrialConfig
from model.rasterizers import choose
from results.records.arithmetic import Arithmetic, Execution
from results.records.trial_folder import CHECKPOINTS_FOLDER, ENVIRONMENT_FILENAME, read_environment

_PACKAGES = ("splatsweep", "torch", "torchvision", "numpy", "ray", "mlflow", "timm", "lpips", "gsplat")


@cache
def describe_environment() -> dict[str, object]:
    """Git state of the code, versions of the packages that matter, and the machine."""
    return {
        "git": git_state(Path(__file__).parent),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
    }


def arithmetic_of(config: TrialConfig, device: torch.device, execution: Execution = "eager") -> Arithmetic | None:
    """The arithmetic of a trial on a device, with every choice resolved; None for a trial without a network.

    Raises `BackendUnavailableError` where no rasteriser can draw its Gaussians there.
    """
    if not config.is_trained:
        return None
    return Arithmetic(
        backend=drawing_backend(config, device),
        execution=execution,
        precision=config.train.precision if device.type == "cuda" else "float32",
        device=device.type,
    )


def drawing_backend(config: TrialConfig, device: torch.device) -> str | None:
    """The rasteriser of a trial's Gaussians on a device, never "auto"; None where its method renders none.

    Raises `BackendUnavailableError` where none can draw them there.
    """
    if config.method.scene != "gaussians":
        return None
    return choose(config.render.backend, device.type, antialiasing=config.render.antialiasing)


def arithmetic_history(folder: Path, current: Arithmetic | None) -> list[dict[str, Any]]:
    """All arithmetics of a trial in order of use: those of earlier processes with a checkpoint, and the current one."""
    file, checkpoints = folder / ENVIRONMENT_FILENAME, folder / CHECKPOINTS_FOLDER
    goes_on = file.exists() and checkpoints.is_dir() and any(checkpoints.iterdir())
    earlier = (read_environment(folder) or {}).get("arithmetic", []) if goes_on else []
    now = [] if current is None else [current.as_json()]
    return earlier if earlier[-1:] == now else [*earlier, *now]


def git_state(folder: Path) -> dict[str, object]:
    """The commit of the checkout that contains `folder`, and whether it was modified; empty outside a checkout."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return {}
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
