"""A trial's own account of itself: one JSON object a line, appended, and the truth that MLflow is filled from.

Events: `start` (who runs it, and from which step), `metrics` (step -> values), `stopped` (from outside), `pruned`
(given up by a search, and why), `failed` (why).  A finished trial is known by its `result.json`, not by its journal.
A line cut short by a crash is ignored when reading and cut off before the next append.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import psutil

from jobs.disk import full_disk_explained

FILENAME = "journal.jsonl"
RESULT_FILENAME = "result.json"
MEASUREMENTS_FILENAME = "per_object.parquet"

#: Holds why, in a trial's folder, while a search wants the trial given up.
PRUNE_FILENAME = "prune"

Status = Literal["pending", "running", "finished", "failed", "interrupted", "pruned"]


class Journal:
    """Appends events to `folder/journal.jsonl`; one process at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILENAME
        cut_torn_line(path)
        self._folder = folder
        self._stream = path.open("ab", buffering=0)

    def start(self, step: int) -> None:
        """This process takes the trial over, after `step` finished iterations."""
        process = psutil.Process()
        owner = {"host": socket.gethostname(), "pid": process.pid, "created": process.create_time()}
        self._append("start", step=step, **owner)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values measured after `step` finished iterations."""
        self._append("metrics", step=step, values=dict(values))

    def stopped(self, reason: str | None = None) -> None:
        """The trial was stopped from outside, and can go on."""
        self._append("stopped", **({"reason": reason} if reason else {}))

    def pruned(self, reason: str) -> None:
        """The trial was given up, since others are better; it could go on."""
        self._append("pruned", reason=reason)

    def failed(self, error: str) -> None:
        """The trial cannot go on."""
        self._append("failed", error=error)

    def close(self) -> None:
        """Flush to the disk and close."""
        os.fsync(self._stream.fileno())
        self._stream.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, event: str, **content: Any) -> None:
        """Write a whole line or, where the disk is full, none of it: then `DiskFullError` is raised."""
        rest = json.dumps({"event": event, "time": time.time(), **content}).encode() + b"\n"
        end = os.fstat(self._stream.fileno()).st_size
        try:
            with full_disk_explained(self._folder):
                while rest:
                    rest = rest[self._stream.write(rest) :]
        except OSError:
            self._stream.truncate(end)
            raise


def cut_torn_line(path: Path) -> None:
    """Drop what stands behind the last newline: the trace of a writer that was killed in mid-line."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """All whole events of a trial's journal, oldest first; none where there is no journal."""
    path = folder / FILENAME
    if not path.exists():
        return
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            if line.endswith("\n"):
                yield json.loads(line)


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
