"""Requests to stop a trial: files that long work looks for between its parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

#: Whether a stop is requested.
ShouldStop = Callable[[], bool]

#: Seconds between two looks at the files, which may be on another machine.
_INTERVAL_S = 1.0


class StopRequestedError(RuntimeError):
    """A stop was requested; the trial continues when it runs again.  The message says from where."""


def never() -> bool:
    """No stop is ever requested."""
    return False


def is_requested(*files: Path | str | None) -> bool:
    """Whether one of these files exists; None is none.  Storage that fails for a moment is no request, nor an error."""
    return any(os.path.exists(file) for file in files if file is not None)  # noqa: PTH110 - `Path.exists` raises


def stop_signal(*files: Path | str | None) -> ShouldStop:
    """`is_requested`, looked for at most once a second."""
    looked, found = 0.0, False

    def should_stop() -> bool:
        nonlocal looked, found
        if time.monotonic() - looked > _INTERVAL_S:
            looked, found = time.monotonic(), is_requested(*files)
        return found

    return should_stop
