"""Disks: sizes of folders, file systems, and the error of a full disk, after which a trial can be resumed."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: file systems that one machine uses alone; others may be on a network
_LOCAL = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "overlay", "tmpfs", "ufs", "xfs", "zfs"}
)


def is_local(path: Path) -> bool:
    """Whether a path lies on a file system that this machine uses alone; False where that is not known."""
    systems = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    place = path.resolve()
    return next((systems[each] for each in (place, *place.parents) if each in systems), "") in _LOCAL


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; 0 where there is none.  Links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return _bytes(path)
    return sum(_bytes(Path(folder) / name) for folder, _, names in os.walk(path) for name in names)


def _bytes(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # none, or removed meanwhile
        return 0


class DiskFullError(OSError):
    """No space or quota is left for a write; everything written before is intact."""


class SpareableLog(logging.FileHandler):
    """A log file that a full disk truncates silently, without an error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Drop the record."""

    def close(self) -> None:
        """Close, even if pending records cannot be written."""
        with suppress(OSError):
            super().close()


def require_room(folder: Path, size: int, what: str) -> None:
    """Raises `DiskFullError` where the folder's file system has less room than `size` bytes, which `what` takes."""
    found = shutil.disk_usage(folder)
    if found.total and found.free < size:  # some network storage states nothing
        needed, free = (f"{count / 1e9:,.2f} GB" for count in (size, found.free))
        raise DiskFullError(f"{what} takes {needed}, and {folder} has {free} free; make room and run it again")


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn the system's errors of a full disk, raised while `folder` is written to, into `DiskFullError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(f"no space left to write {error.filename or folder}; make room and run it again") from error
