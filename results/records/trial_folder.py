"""Folder of a trial: the names of its files, its result, and the state that it is in."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil

from results.records import journal
from results.records.journal import read_events

JOURNAL_FILENAME = journal.FILENAME
RESULT_FILENAME = "result.json"
MEASUREMENTS_FILENAME = "per_object.parquet"
CONFIG_FILENAME = "config.json"
ENVIRONMENT_FILENAME = "environment.json"
LOG_FILENAME = "log.txt"
SAMPLES_FILENAME = "samples.npz"
SHEET_FILENAME = "samples.png"
TURNTABLE_FILENAME = "turntable.gif"
LOCK_FILENAME = "lock"
CHECKPOINTS_FOLDER = "checkpoints"
#: holds the reason while a search wants the trial given up
PRUNE_FILENAME = "prune"

#: files that the trial's run in MLflow shows
ARTIFACTS = (
    MEASUREMENTS_FILENAME,
    SAMPLES_FILENAME,
    SHEET_FILENAME,
    TURNTABLE_FILENAME,
    CONFIG_FILENAME,
    ENVIRONMENT_FILENAME,
    LOG_FILENAME,
)

Status = Literal["pending", "running", "finished", "failed", "interrupted", "pruned"]


def read_result(folder: Path) -> dict[str, Any] | None:
    """The content of `result.json`, or None while the trial has no valid result.

    A result is valid when the measurements it was made from are there, unchanged.
    """
    path, measurements = folder / RESULT_FILENAME, folder / MEASUREMENTS_FILENAME
    if not path.exists() or not measurements.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    sha256 = hashlib.sha256(measurements.read_bytes()).hexdigest()
    return result if sha256 == result["per_object_sha256"] else None


def trial_status(folder: Path) -> Status:
    """What has become of the trial in `folder`.

    `running` means that its last owner is alive, or lives on another machine; `interrupted`, that the owner is
    gone without a result.
    """
    if read_result(folder) is not None:
        return "finished"
    last = None
    for event in read_events(folder):
        if event["event"] in ("start", "stopped", "pruned", "failed"):
            last = event
    if last is None:
        return "pending"
    if last["event"] == "failed":
        return "failed"
    if last["event"] == "pruned":
        return "pruned"
    if last["event"] == "stopped":
        return "interrupted"
    return "running" if _alive(last) else "interrupted"


def _alive(owner: Mapping[str, Any]) -> bool:
    if owner["host"] != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(owner["pid"]).create_time() - owner["created"]) < 1
    except psutil.NoSuchProcess:
        return False
