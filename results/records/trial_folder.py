"""Folder of a trial: the names of its files, its result and its state."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil

from results.records import journal
from results.records.damage import DamagedFileError, member, pass_over, read_object
from results.records.hashing import file_sha256
from results.records.journal import read_events
from results.records.locks import is_held

JOURNAL_FILENAME = journal.FILENAME
RESULT_FILENAME = "result.json"
MEASUREMENTS_FILENAME = "per_object.parquet"
CONFIG_FILENAME = "config.json"
ENVIRONMENT_FILENAME = "environment.json"
LOG_FILENAME = "log.txt"
SAMPLES_FILENAME = "samples.npz"
SHEET_FILENAME = "samples.png"
COSTS_FILENAME = "costs.json"
TURNTABLE_FILENAME = "turntable.gif"
LOCK_FILENAME = "lock"
CHECKPOINTS_FOLDER = "checkpoints"
#: written by a search to prune the trial; holds the reason
PRUNE_FILENAME = "prune"

#: files that are artifacts of the trial's run in MLflow
ARTIFACTS = (
    MEASUREMENTS_FILENAME,
    SAMPLES_FILENAME,
    SHEET_FILENAME,
    TURNTABLE_FILENAME,
    COSTS_FILENAME,
    CONFIG_FILENAME,
    ENVIRONMENT_FILENAME,
    LOG_FILENAME,
)

Status = Literal["pending", "running", "finished", "failed", "interrupted", "pruned"]


#: events that determine the state of an unfinished trial
DECISIVE = ("start", "stopped", "pruned", "failed")


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of `result.json`, or None while the trial has no valid result.

    A result is valid if the measurements it was computed from are present and unchanged.  A damaged one is ignored: the
    trial resumes from its last checkpoint, and is evaluated again.
    """
    path = folder / RESULT_FILENAME
    try:
        return _read_result(path, folder / MEASUREMENTS_FILENAME)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFileError as error:
        pass_over(error, "the trial counts as not finished, and is evaluated again when it runs")
        return None


def _read_result(path: Path, measurements: Path) -> dict[str, Any]:
    result = read_object(path)
    expected = member(result, "per_object_sha256", str, path)
    for name, value in member(result, "metrics", dict, path).items():
        if not isinstance(value, (int, float)):
            raise DamagedFileError(path, f"its metric {name!r} is no number")
    try:
        sha256 = file_sha256(measurements)
    except OSError as error:
        raise DamagedFileError(measurements, error.strerror or str(error)) from error
    if sha256 != expected:
        raise DamagedFileError(measurements, f"its SHA-256 is not the one in {path.name}")
    return result


def read_config(folder: Path) -> dict[str, Any] | None:
    """The configuration that a trial was run with; None where it was not written or is damaged."""
    path, consequence = folder / CONFIG_FILENAME, "the trial's configuration is not known from its folder"
    config = _optional(path, consequence)
    try:
        for section in (config or {}).keys() - {"seed"}:
            member(config or {}, section, dict, path)
    except DamagedFileError as error:
        pass_over(error, consequence)
        return None
    return config


def read_environment(folder: Path) -> dict[str, Any] | None:
    """Code and machine of a trial; None where the file is missing or damaged."""
    return _optional(folder / ENVIRONMENT_FILENAME, "the trial's code and machine are not recorded")


def _optional(path: Path, consequence: str) -> dict[str, Any] | None:
    try:
        return read_object(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFileError as error:
        pass_over(error, consequence)
        return None


def trial_status(folder: Path) -> Status:
    """Status of the trial in `folder`.

    `running` means that its last process is alive, holds the lock or ran on another machine; `interrupted`, that the
    process ended without a result.
    """
    if read_result(folder) is not None:
        return "finished"
    decisive = [event for event in read_events(folder) if event["event"] in DECISIVE]
    return status_after(decisive[-1] if decisive else None, folder)


def status_after(event: Mapping[str, Any] | None, folder: Path) -> Status:
    """State of the trial in `folder`, which has no result, from the newest of its `DECISIVE` events."""
    if event is None:
        return "pending"
    if event["event"] == "start":
        # After the clock was set, a process seems to be another one; its lock shows that it is alive.
        return "running" if _alive(event) or _is_locked(folder) else "interrupted"
    states: dict[str, Status] = {"failed": "failed", "pruned": "pruned", "stopped": "interrupted"}
    return states[event["event"]]


def _is_locked(folder: Path) -> bool:
    """Whether a process holds the trial's lock; False where that cannot be seen, as on storage without locks."""
    try:
        return is_held(folder / LOCK_FILENAME)
    except OSError:
        return False


def _alive(owner: Mapping[str, Any]) -> bool:
    if owner["host"] != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) < 1
    except psutil.NoSuchProcess:
        return False
