"""Tests whether a lock of a home is held; `filelock` acquires them.  Nothing is acquired or written here."""

from __future__ import annotations

import errno
import fcntl
import socket
from pathlib import Path

import psutil


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
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            return _names_a_holder(stream.read())
    return False


def _names_a_holder(content: bytes) -> bool:
    """Whether the content of a lock's file names a process that may be alive.

    On storage without locks `filelock` writes process and host into the file, and deletes it afterwards.
    """
    pid, _, rest = content.decode(errors="replace").partition("\n")
    host = rest.partition("\n")[0]
    return pid.isdecimal() and (host != socket.gethostname() or psutil.pid_exists(int(pid)))
