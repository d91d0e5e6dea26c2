"""Append-only journal of a trial, one JSON object per line; MLflow is filled from it.

Events: `start` (the process that runs it, and the first step), `continued` (the finished training that it continues),
`metrics` (step -> values), `stopped` (from outside), `pruned` (by a search, with the reason), `failed` (with the
reason).  `result.json`, not the journal, marks a finished trial.  A line truncated by a crash is ignored when reading
and removed before the next append.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from results.records.damage import DamagedFileError, pass_over
from results.records.disk import full_disk_explained

FILENAME = "journal.jsonl"


class Journal:
    """Appends events to `folder/journal.jsonl`; one process at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILENAME
        remove_truncated_line(path)
        self._folder = folder
        self._stream = path.open("ab", buffering=0)

    def start(self, step: int) -> None:
        """This process takes the trial over, after `step` finished iterations."""
        process = psutil.Process()
        owner = {"host": socket.gethostname(), "pid": process.pid, "created": process.create_time()}
        self._append("start", step=step, **owner)

    def continued(self, training: str, step: int) -> None:
        """The training continues another one of this home, which ended after `step` iterations."""
        self._append("continued", training=training, step=step)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Values measured after `step` finished iterations."""
        self._append("metrics", step=step, values=dict(values))

    def repeat(self, folder: Path) -> None:
        """Take over what the journal in another folder has of training and this one lacks, with its times.

        That is metrics, and which trainings it continues.
        """
        mine = read_events(self._folder)
        here = {(event["step"], name) for event in _of_kind("metrics", mine) for name in event["values"]}
        known = {(event["training"], event["step"]) for event in _of_kind("continued", mine)}
        theirs = read_events(folder)
        for event in _of_kind("continued", theirs):
            if (event["training"], event["step"]) not in known:
                known.add((event["training"], event["step"]))
                self._append("continued", training=event["training"], step=event["step"], time=event["time"])
        for event in _of_kind("metrics", theirs):
            values = {name: value for name, value in event["values"].items() if (event["step"], name) not in here}
            here.update((event["step"], name) for name in values)
            if values:
                self._append("metrics", step=event["step"], values=values, time=event["time"])

    def stopped(self, reason: str | None = None) -> None:
        """The trial was stopped from outside, and can be resumed."""
        self._append("stopped", **({"reason": reason} if reason else {}))

    def pruned(self, reason: str) -> None:
        """A search pruned the trial, since others are better; it could be resumed."""
        self._append("pruned", reason=reason)

    def failed(self, error: str) -> None:
        """The trial failed; running it again would end the same way."""
        self._append("failed", error=error)

    def close(self) -> None:
        """Flush to the disk and close.  Network storage reports a lack of room only now, as `DiskFullError`."""
        with full_disk_explained(self._folder), self._stream:
            os.fsync(self._stream.fileno())

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, event: str, **content: Any) -> None:
        """Append a whole line; raises `DiskFullError` and writes nothing where the disk is full."""
        rest = json.dumps({"event": event, "time": time.time(), **content}).encode() + b"\n"
        end = os.fstat(self._stream.fileno()).st_size
        try:
            with full_disk_explained(self._folder):
                while rest:
                    rest = rest[self._stream.write(rest) :]
        except OSError:
            self._stream.truncate(end)
            raise


def _of_kind(kind: str, events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (event for event in events if event["event"] == kind)


def remove_truncated_line(path: Path) -> None:
    """Remove the text after the last newline, left by a writer that was killed while writing a line."""
    if not path.exists():
        return
    with path.open("rb+") as stream:
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)


Event = dict[str, Any]

_Members = dict[str, type | tuple[type, ...]]
#: members of every event
_COMMON: _Members = {"event": str, "time": (int, float)}
#: further members of events of these names; other events are not checked
_MEMBERS: dict[str, _Members] = {
    "start": {"step": int, "host": str, "pid": int, "created": (int, float)},
    "continued": {"training": str, "step": int},
    "metrics": {"step": int, "values": dict},
    "failed": {"error": str},
    "pruned": {"reason": str},
}


class JournalReader:
    """Reads a trial's journal incrementally: only events that are new since the last read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILENAME
        self._offset, self._line = 0, 0
        self._file: tuple[int, int] | None = None
        #: raised when the journal was replaced or cut, so that `new` begins at its start again
        self.generation = 0

    def new(self) -> list[Event]:
        """Complete events after those that were read before; none where nothing is new or there is no journal.

        A line that is no valid event, edited by hand or damaged, is skipped.
        """
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._begin_again(None)
            return []
        if (found.st_dev, found.st_ino) != self._file or found.st_size < self._offset:
            self._begin_again((found.st_dev, found.st_ino))
        if found.st_size == self._offset:
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            lines = stream.read().split(b"\n")[:-1]
        events = []
        for line in lines:
            self._line += 1
            self._offset += len(line) + 1
            try:
                events.append(self._event(line))
            except DamagedFileError as error:
                pass_over(error, "the line is passed over")
        return events

    def has_new(self) -> bool:
        """Whether the file has changed since `new` read it, in any way."""
        try:
            found = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return self._file is not None
        return (found.st_dev, found.st_ino) != self._file or found.st_size != self._offset

    def _begin_again(self, file: tuple[int, int] | None) -> None:
        self.generation += self._file is not None
        self._file, self._offset, self._line = file, 0, 0

    def _event(self, line: bytes) -> Event:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            raise DamagedFileError(self._path, f"line {self._line} is not JSON") from None
        if not isinstance(event, dict):
            raise DamagedFileError(self._path, f"line {self._line} is no JSON object")
        kind = event.get("event")
        for name, kinds in {**_COMMON, **_MEMBERS.get(str(kind), {})}.items():
            if not isinstance(event.get(name), kinds):
                raise DamagedFileError(self._path, f"line {self._line} has no {name!r} as events have it")
        if kind == "metrics" and not all(isinstance(value, (int, float)) for value in event["values"].values()):
            raise DamagedFileError(self._path, f"line {self._line} has values that are no numbers")
        return event


def read_events(folder: Path) -> list[Event]:
    """All whole events of a trial's journal, oldest first; none where there is no journal."""
    return JournalReader(folder).new()
