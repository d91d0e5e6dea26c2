"""Formats a trial's journal and log as readable lines, sorted by time (UTC)."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results.records.trial_folder import JOURNAL_FILENAME, LOG_FILENAME

_TIME = "%Y-%m-%d %H:%M:%S"
_STAMPED = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


class TrialLog:
    """Reads both files incrementally."""

    def __init__(self, folder: Path) -> None:
        self._journal, self._log = _Growing(folder / JOURNAL_FILENAME), _Growing(folder / LOG_FILENAME)

    def read(self) -> list[str]:
        """Lines since the last call; log lines without a time follow the line before."""
        found: list[tuple[str, str]] = []
        for line in self._journal.lines():
            try:
                found.append(_of_event(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError, RecursionError):
                # damaged, or with a time that is none: shown unchanged
                found.append(("", line))
        stamp = ""
        for line in self._log.lines():
            stamp = line[:19] if _STAMPED.match(line) else stamp
            found.append((stamp, line))
        return [line for _, line in sorted(found, key=lambda item: item[0])]


class _Growing:
    """A file that grows line by line."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def lines(self) -> list[str]:
        """Complete lines since the last call."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                content = stream.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace").splitlines()


def _of_event(event: dict[str, Any]) -> tuple[str, str]:
    """The time of an event, and the event as text."""
    stamp = datetime.fromtimestamp(event["time"], UTC).strftime(_TIME)
    kind = event["event"]
    if kind == "metrics":
        values = ", ".join(f"{name} {value:.4g}" for name, value in event["values"].items())
        return stamp, f"{stamp} iteration {event['step']}: {values}"
    if kind == "start":
        return stamp, f"{stamp} starts at iteration {event['step']} as process {event['pid']} on {event['host']}"
    if kind == "continued":
        return stamp, f"{stamp} continues training {event['training']}, which ended at iteration {event['step']}"
    why = event.get("error") or event.get("reason")
    return stamp, f"{stamp} {kind}" + (f": {why}" if why else "")
