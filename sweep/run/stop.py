"""Stops a sweep through a file that its trials watch, on whichever machine they run.

The file is written by the driver on an interrupt, SIGTERM or SIGHUP, by `splatsweep stop`, and by a trial that fails
under `--fail-fast` or finds the disk full.  Running trials write a checkpoint at once and stop; others do not start.  A
separate file stops a single trial that a search prunes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from rich.console import Console

from results.records.atomic import write_atomically
from results.records.trial_folder import PRUNE_FILENAME

FILENAME = "stop"

#: Batch systems and `ray job stop` send SIGTERM.
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Cause = Literal["request", "failure", "disk"]


@dataclass(frozen=True)
class Stop:
    """The reason why a sweep was stopped before its end."""

    cause: Cause
    reason: str


def request_stop(stop_file: Path, cause: Cause, reason: str) -> None:
    """Writes the stop file, unless it exists: the first request counts."""
    with suppress(FileExistsError), stop_file.open("x", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(Stop(cause, reason))))


def stop_requested(stop_file: Path) -> Stop | None:
    """The stop request, if there is one; a file with other content, made by hand or on a full disk, also is one."""
    try:
        content = stop_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Stop(**json.loads(content))
    except (ValueError, TypeError):
        return Stop("request", content.strip() or f"{stop_file} was there")


def request_prune(folder: Path, reason: str) -> None:
    """Requests that the trial in a folder stop, because a search prunes it."""
    write_atomically(folder / PRUNE_FILENAME, reason.encode())


def withdraw_prune(folder: Path) -> None:
    """Removes a prune request, so that the trial can run again."""
    (folder / PRUNE_FILENAME).unlink(missing_ok=True)


@contextmanager
def stop_on_signals(stop_file: Path, console: Console) -> Iterator[None]:
    """The first keyboard interrupt or SIGTERM requests a stop; the second raises KeyboardInterrupt at once.

    SIGHUP, which a closing terminal and some batch systems send, also requests a stop and may come repeatedly; under
    `nohup` it stays ignored.  The end of a pipe's reader, such as `tee` at the same interrupt, does nothing.
    """
    _outlive_reader(console)
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can handle signals
        return
    terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
    is_hung_up = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal is_hung_up
        if number == signal.SIGHUP:
            is_hung_up = True
            _drop(terminals)
        else:
            for each in _SIGNALS:
                signal.signal(each, signal.default_int_handler)
        request_stop(stop_file, "request", f"by {signal.Signals(number).name}")
        again = "" if number == signal.SIGHUP else "; interrupt again to stop at once"
        console.print(f"Stopping after a checkpoint{again}.")

    before = {each: signal.signal(each, handle) for each in _SIGNALS}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, handle)
    try:
        yield
    finally:
        for each, handler in before.items():
            # A closed terminal may send SIGHUP more than once, and the report still has to be written.
            signal.signal(each, signal.SIG_IGN if is_hung_up and each == signal.SIGHUP else handler)


def _outlive_reader(console: Console) -> None:
    """From now on, a pipe without a reader takes what the console prints; Rich would end this process."""
    console.on_broken_pipe = lambda: _drop([console.file.fileno()])  # type: ignore[method-assign]


def _drop(descriptors: Sequence[int]) -> None:
    """Redirects the descriptors to the null device, because writing to what is closed there raises errors."""
    with Path(os.devnull).open("r+b") as nowhere:
        for descriptor in descriptors:
            os.dup2(nowhere.fileno(), descriptor)


@contextmanager
def signal_handlers_kept() -> Iterator[None]:
    """Restores the signal handlers after the body, where a library may replace them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in _SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
