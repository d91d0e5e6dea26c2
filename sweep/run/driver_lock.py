"""The lock of a sweep: one driver per home and sweep, which records who it is; another process can stop it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from results.invocation import command
from results.records.home import driver_lock_file, sweep_folder
from results.records.locks import is_held
from sweep.file.schema import Sweep
from sweep.run.stop import FILENAME as STOP_FILENAME
from sweep.run.stop import request_stop

OWNER_FILENAME = "driver.json"
#: Seconds in which a driver that holds the lock has recorded itself.
_RECORD_S = 5.0


class SweepBusyError(RuntimeError):
    """Another driver runs this sweep under this home."""


class SweepIdleError(RuntimeError):
    """No driver runs this sweep under this home."""


@contextmanager
def sole_driver(sweep: Sweep, home: Path, console: Console) -> Iterator[None]:
    """Holds the sweep's lock, which the operating system frees when its owner dies, and records the owner.

    Raises `SweepBusyError` where another driver holds it.
    """
    folder = sweep_folder(home, sweep.name)
    signature, stop_file = folder / OWNER_FILENAME, folder / STOP_FILENAME
    lock = FileLock(driver_lock_file(home, sweep.name))
    try:
        # A look at it (`results.records.locks`) takes a moment.  On storage without locks, an empty file of a home that
        # was copied there counts as held for two seconds.
        lock.acquire(timeout=3)
    except Timeout:
        way_out = f"wait for it, or run: {command('stop', sweep, home)}"
        raise SweepBusyError(f"sweep {folder.name!r} is being run by {_owner(folder)}; {way_out}") from None
    try:
        dead = _owner(folder) if signature.exists() else None
        signature.unlink(missing_ok=True)  # first: `stop_sweep` waits for the one that is written below
        stop_file.unlink(missing_ok=True)
        signature.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        if dead is not None:
            console.print(f"Taking over from {dead}, which died while it ran this sweep.")
        yield
    finally:
        signature.unlink(missing_ok=True)
        stop_file.unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    """A text for the driver that holds the lock."""
    try:
        who = json.loads((folder / OWNER_FILENAME).read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):  # the record is not written yet, or its writer was killed
        return "an unknown driver"


def is_driven(sweep: str, home: Path) -> bool:
    """Whether a driver, on this machine or another, runs the sweep in this home now."""
    return is_held(driver_lock_file(home, sweep))


def stop_sweep(sweep: Sweep, home: Path) -> str:
    """Requests that the driver of a running sweep, on any machine, stop its trials, which write a checkpoint at once.

    Returns a text for that driver.  Raises `SweepIdleError` where no driver runs the sweep.
    """
    folder = sweep_folder(home, sweep.name)
    deadline = time.monotonic() + _RECORD_S
    while is_driven(sweep.name, home):
        # Until a driver has recorded itself, it removes the stop file as one that its predecessor left.
        if (folder / OWNER_FILENAME).exists() or time.monotonic() > deadline:
            request_stop(folder / STOP_FILENAME, "request", "by `splatsweep stop`")
            return _owner(folder)
        time.sleep(0.05)
    raise SweepIdleError(f"sweep {sweep.name!r} is not being run in {home}: nothing to stop")
