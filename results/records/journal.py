"""Journal of a trial: one JSON object a line, appended, and the truth that MLflow is filled from.

Events: `start` (who runs it, and from which step), `metrics` (step -> values), `stopped` (from outside), `pruned`
(given up by a search, and why), `failed` (why).  A finished trial is known by its `result.json`, not by its journal.
A line cut short by a crash is ignored when reading and cut off before the next append.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from results.records.disk import full_disk_explained

FILENAME = "journal.jsonl"


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

    def repeat(self, folder: Path) -> None:
        """Take over those metrics from the journal in another folder that this one lacks, with their times."""
        here = {(event["step"], name) for event in _metrics(self._folder) for name in event["values"]}
        for event in _metrics(folder):
            values = {name: value for name, value in event["values"].items() if (event["step"], name) not in here}
            here.update((event["step"], name) for name in values)
            if values:
                self._append("metrics", step=event["step"], values=values, time=event["time"])

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


def _metrics(folder: Path) -> Iterator[dict[str, Any]]:
    return (event for event in read_events(folder) if event["event"] == "metrics")


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
