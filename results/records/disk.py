"""A full disk, told apart from what is wrong with a trial: the same trial goes on once there is room."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """No room, or no quota, is left where something was to be written; what was written before is intact."""


class SpareableLog(logging.FileHandler):
    """A log file that a full disk cuts short, without a word on the terminal and without an error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Drop the record."""

    def close(self) -> None:
        """Close, whatever could not be written any more."""
        with suppress(OSError):
            super().close()


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn the system's errors of a full disk, raised while `folder` is written to, into `DiskFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(f"no space left to write {error.filename or folder}; make room and run it again") from error
