"""Looks at the locks of a home, which `filelock` takes, without taking or writing them."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock.  Works where the home may only be read.

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
