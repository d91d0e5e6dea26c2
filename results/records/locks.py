"""Tests whether a lock of a home is held; `filelock` acquires them.  Nothing is acquired or written here."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock.  Works in a home without write permission.

    Raises OSError where the lock's file cannot be read.
    """
    try:
        stream = lock.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return False
    with stream:
        try:
            # A shared lock needs no write access, and conflicts with the exclusive one of a holder.
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
