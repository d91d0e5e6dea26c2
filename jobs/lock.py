"""The lock of work that one process does while others wait for its result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from jobs.stop import ShouldStop, StopRequestedError

#: Seconds between two looks for a stop while another process holds a lock.
_WAIT_S = 1.0

log = logging.getLogger(__name__)


@contextmanager
def exclusive_lock(
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
