"""Progress display: one line of totals above a table of trials on a terminal; plain lines elsewhere."""

from __future__ import annotations

import os
import pdb
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from results.records.monitor import Monitor
from sweep.run.progress import DONE, Clock, Snapshot, in_words, snapshot_of, trial_state
from sweep.run.state_table import state_line, state_table

if TYPE_CHECKING:  # brings torch, which takes seconds
    from sweep.run.executors.queue import TrialQueue

_REFRESH_S = 1.0
_REMINDER_S = 30.0
#: Seconds between two lines of totals while no trial changes its state.
_TOTALS_S = 300.0
#: Terminal lines around the table's rows.
_AROUND = 6


class Display:
    """Shows the progress of running trials and an executor's notices (`executors.base.Notices`)."""

    def __init__(self, console: Console, monitor: Monitor) -> None:
        self._console, self._monitor = console, monitor
        self._lock = threading.Lock()
        self._waiting: tuple[str, float] | None = None  # what trials wait for, and since when
        self._reminded = 0.0
        self._began = time.monotonic()
        self._clock = Clock()
        #: set once a breakpoint in this process is reached
        self._quiet = threading.Event()

    def say(self, text: str) -> None:
        """Prints a line above the table, or among the other lines."""
        self._console.print(text)

    def wait_for(self, what: str | None) -> None:
        """Shows why no trial can start; None ends the notice."""
        with self._lock:
            if what is None:
                self._waiting = None
            elif self._waiting is None:
                self._waiting = what, time.monotonic()
                self._reminded = time.monotonic()
            else:
                self._waiting = what, self._waiting[1]

    @contextmanager
    def follow(self, queue: TrialQueue, at_once: int, before: int = 0) -> Iterator[None]:
        """Shows the progress of a queue's trials while the body runs.

        at_once: the number of trials running at the same time; before: the number of trials finished before.
        """

        def look() -> Snapshot:
            trials = list(queue.trials)
            states = [trial_state(trial, self._monitor) for trial in trials]
            return snapshot_of(trials, states, self._clock, at_once, before)

        stop = threading.Event()
        show = self._show_live if self._console.is_terminal else self._show_lines
        thread = threading.Thread(target=show, args=(look, stop), name="progress", daemon=True)
        thread.start()
        try:
            with _at_breakpoints(self._quiet.set):
                yield
        finally:
            stop.set()
            thread.join()

    def _show_live(self, look: Callable[[], Snapshot], stop: threading.Event) -> None:
        def view() -> RenderableType:
            seen = look()
            rows = max(self._console.height - _AROUND, 3)
            return Group(Text(self._headline(seen)), state_table(seen.states, seen.left, self._console.width, rows))

        live = Live(view(), console=self._console, refresh_per_second=4)
        with live:
            while not stop.wait(_REFRESH_S):
                if self._quiet.is_set():
                    live.stop()
                    continue
                live.update(view())
            live.start()
            live.update(view())

    def _headline(self, seen: Snapshot) -> str:
        with self._lock:
            waiting = self._waiting
        if waiting is None:
            return str(seen.totals)
        return f"{seen.totals}\nwaiting for {waiting[0]}, {in_words(time.monotonic() - waiting[1])} so far"

    def _show_lines(self, look: Callable[[], Snapshot], stop: threading.Event) -> None:
        """Prints a line when a trial changes its state, the reason for waiting every half minute, and totals."""
        shown: dict[str, str] = {}
        printed, last = time.monotonic(), False
        while not last:
            last = stop.wait(_REFRESH_S)
            seen = look()
            changed = [state for state in seen.states if shown.get(state.key, "pending") != state.status]
            for state in changed:
                shown[state.key] = state.status
                self._line(state_line(state))
            ended = any(state.status in DONE for state in changed)
            if ended or time.monotonic() - printed > _TOTALS_S:
                printed = time.monotonic()
                self._line(str(seen.totals))
            self._remind()

    def _remind(self) -> None:
        with self._lock:
            if self._waiting is None or time.monotonic() - self._reminded < _REMINDER_S:
                return
            self._reminded = time.monotonic()
            what, since = self._waiting
        self._line(f"waiting for {what}, {in_words(time.monotonic() - since)} so far")

    def _line(self, text: str) -> None:
        self._console.print(f"  {time.monotonic() - self._began:5.0f} s  {text}")


@contextmanager
def _at_breakpoints(quieten: Callable[[], None]) -> Iterator[None]:
    """From the first `breakpoint()` in this process on, silences the display until the body ends."""
    before = sys.breakpointhook

    def stop_here(*arguments: Any, **options: Any) -> Any:
        quieten()
        time.sleep(_REFRESH_S + 0.2)  # the display stops at its next refresh
        if before is sys.__breakpointhook__ and os.environ.get("PYTHONBREAKPOINT", "") in ("", "pdb.set_trace"):
            return pdb.Pdb().set_trace(sys._getframe(1))  # the frame of `breakpoint()`, not this one
        return before(*arguments, **options)

    sys.breakpointhook = stop_here
    try:
        yield
    finally:
        sys.breakpointhook = before
