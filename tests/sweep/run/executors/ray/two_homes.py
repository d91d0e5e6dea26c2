"""A trial and its training under the home of a driver or of a worker, and a worker's calls of the file server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from jobs.checkpoint import Checkpoint, CheckpointFolder
from results.records.journal import Journal
from sweep.run.executors.ray.file_server import TrialFileServer

KEY, TRAINING = "0123456789abcdef", "fedcba9876543210"


def caller(file_server: TrialFileServer, allowed: int | None = None) -> Callable[..., Any]:
    """A function that calls the file_server as a worker does; the connection breaks after `allowed` calls."""
    calls = 0

    def call(method: str, *values: Any) -> Any:
        nonlocal calls
        calls += 1
        if allowed is not None and calls > allowed:
            raise ConnectionError
        return getattr(file_server, method)(*values)

    return call


def trial_in(home: Path) -> Path:
    return home / "trials" / KEY


def training_in(home: Path) -> Path:
    return home / "trainings" / TRAINING


def train(home: Path, first: int, last: int) -> None:
    """Writes a trial's files: a log, a journal line for each iteration, a training checkpoint for every second one."""
    folder = trial_in(home)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").touch()
    with Journal(folder) as journal, Journal(training_in(home)) as own:
        journal.start(first)
        for step in range(first + 1, last + 1):
            for each in (own, journal):
                each.metrics(step, {"train/loss": 1 / step})
            if step % 2 == 0:
                weight = torch.full((50,), float(step))
                checkpoints(home).save(Checkpoint(step, {"network.w": weight}, {}))


def checkpoints(home: Path) -> CheckpointFolder:
    return CheckpointFolder(training_in(home) / "checkpoints")


def end_training(home: Path) -> None:
    folder = training_in(home)
    (folder / "weights.safetensors").write_bytes(b"weights" * 40)
    (folder / "training.json").write_text(json.dumps({"key": TRAINING}))
    shutil.rmtree(folder / "checkpoints")


def contents(home: Path) -> dict[str, bytes]:
    """The content of all files of the trial and its training, except the lock."""
    paths = [path for folder in (trial_in(home), training_in(home)) for path in folder.rglob("*")]
    return {str(path.relative_to(home)): path.read_bytes() for path in paths if path.is_file() and path.name != "lock"}
