"""Requests to stop a trial: files that long work looks for between its parts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

#: Whether a stop is requested.
ShouldStop = Callable[[], bool]

#: Seconds between two looks at the files, which may be on another machine.
_INTERVAL_S = 1.0
#: Seconds between two looks for a stop while another process holds a lock.
_WAIT_S = 1.0

log = logging.getLogger(__name__)


class StopRequestedError(RuntimeError):
    """A stop was requested; the trial continues when it runs again.  The message says from where."""


def never() -> bool:
    """No stop is ever requested."""
    return False


def stop_signal(*files: Path | str | None) -> ShouldStop:
    """Whether one of these files exists; None is none."""
    paths = [Path(file) for file in files if file is not None]
    looked, found = 0.0, False

    def should_stop() -> bool:
        nonlocal looked, found
        if time.monotonic() - looked > _INTERVAL_S:
            looked, found = time.monotonic(), any(path.exists() for path in paths)
        return found

    return should_stop


@contextmanager
def alone(
    lock_file: Path, what: str, should_stop: ShouldStop, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Holds the lock of work that another process may be doing for hours; calls `on_wait` once if one does.

    what: names the work in messages.  Raises `StopRequestedError` where a stop is requested meanwhile.
    """
    lock = FileLock(lock_file)
    is_waiting = False
    while True:
        try:
            lock.acquire(timeout=_WAIT_S)
            break
        except Timeout:
            if not is_waiting:
                log.info("waiting for %s, which another process runs", what)
                on_wait()
                is_waiting = True
            if should_stop():
                raise StopRequestedError(f"stopped while it waited for {what}, which another process runs") from None
    try:
        yield
    finally:
        lock.release()
