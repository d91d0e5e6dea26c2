"""Records a trial's environment beside its result: code, packages, machine, arithmetic."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from jobs.config import TrialConfig
from model.rasterizers import choose
from results.records.arithmetic import Arithmetic, Execution
from results.records.trial_folder import CHECKPOINTS_FOLDER, read_environment

#: The commit of code that lies in no checkout, with `-dirty` where it was modified.
COMMIT_VARIABLE = "SPLATSWEEP_COMMIT"
_DIRTY = "-dirty"

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


def training_environment(folder: Path, arithmetic: Arithmetic | None) -> dict[str, Any]:
    """The environment of a training in `folder`: this process's, with the arithmetics in order of use.

    Earlier processes count if they left a checkpoint; their commits, if others, are `earlier_commits`.
    """
    now: dict[str, Any] = dict(describe_environment())
    checkpoints = folder / CHECKPOINTS_FOLDER
    goes_on = checkpoints.is_dir() and any(checkpoints.iterdir())
    before = (read_environment(folder) if goes_on else None) or {}
    arithmetics = _without_last(before.get("arithmetic", []), arithmetic and arithmetic.as_json())
    arithmetics += [] if arithmetic is None else [arithmetic.as_json()]
    commits = [*before.get("earlier_commits", []), *([before["git"]] if before.get("git") else [])]
    earlier = _without_last(commits, now["git"])
    return now | {"arithmetic": arithmetics} | ({"earlier_commits": earlier} if earlier else {})


def trial_environment(training: Mapping[str, Any], config: TrialConfig, device: torch.device) -> dict[str, Any]:
    """The environment of a trial: its training's, and as `evaluation` that of this process where it is another.

    The arithmetic of an evaluation is its rasteriser and its kind of device.
    """
    now = dict(describe_environment())
    last = (training.get("arithmetic") or [{}])[-1]
    drawing = {"backend": drawing_backend(config, device), "device": device.type}
    trained_here = all(training.get(name) == value for name, value in now.items())
    if trained_here and all(last.get(name) == value for name, value in drawing.items()):
        return dict(training)
    return {**training, "evaluation": now | {"arithmetic": [drawing]}}


def _without_last(entries: list[Any], current: Any) -> list[Any]:
    """The entries without the last one where that is the current one."""
    return entries[:-1] if entries and entries[-1] == current else list(entries)


def git_state(folder: Path) -> dict[str, object]:
    """The commit of the checkout that has the files of `folder`, and whether it was modified.

    Without one, as in a job's copy or an image, it is what COMMIT_VARIABLE names; empty without that.  A package in
    the virtual environment of a project is not part of the project's checkout.
    """

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None or not git("ls-files", "--", "."):
        return _named_state(os.environ.get(COMMIT_VARIABLE, ""))
    return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def git_variable(folder: Path) -> dict[str, str]:
    """The variable through which a copy of `folder` knows its git state; none where it is unknown."""
    state = git_state(folder)
    return {COMMIT_VARIABLE: f"{state['commit']}{_DIRTY * bool(state['dirty'])}"} if state else {}


def _named_state(text: str) -> dict[str, object]:
    commit = text.strip().removesuffix(_DIRTY)
    return {"commit": commit, "dirty": text.strip().endswith(_DIRTY)} if commit else {}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
