"""Atomic writing: a reader sees the old content of a file or the new, never a part."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from results.records.disk import full_disk_explained

#: ending of files that are being written, or that a killed writer left
PARTIAL = ".partial"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, sync it and rename it; its permissions are those of the umask.

    Raises `DiskFullError` where there is no room; the old content stays then too.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with full_disk_explained(path.parent), partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk every byte counts
        raise


def write_json(path: Path, content: Any) -> None:
    """Write plain values as indented JSON, atomically.  Infinity and NaN are written as Python's own words."""
    write_atomically(path, json.dumps(content, indent=2).encode())
