"""Monitor of a home's trials: repeated queries read only new events.

Progress, tracking, search and plans share one monitor in the driver.  A finished trial is read once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.records.damage import DamagedFileError, pass_over
from results.records.home import trial_folder, trials_folder
from results.records.journal import Event, JournalReader
from results.records.trial_folder import DECISIVE, Status, read_result, status_after

#: metrics whose values at all steps are kept: those on the validation split, of which there are few
_KEPT = "val/"
#: metrics of the final evaluation
_EVALUATED = ("novel/", "conditioned/")


@dataclass(frozen=True)
class TrialProgress:
    """State of one trial, as its folder records it at one moment."""

    status: Status = "pending"
    #: iterations trained
    step: int = 0
    #: iterations per second since the trial was last started or resumed, including evaluations on the validation split
    rate: float | None = None
    #: newest value of every metric
    metrics: Mapping[str, float] = field(default_factory=dict)
    #: metric on the validation split -> iteration -> value
    validation: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    #: why it failed, was stopped or pruned
    error: str | None = None
    #: seconds that the final evaluation took; None before its end
    evaluation_s: float | None = None
    #: moments of the first and the newest event, in seconds since 1970; None without events
    first: float | None = None
    newest: float | None = None
    #: machine on which it was last started or resumed
    host: str | None = None
    #: content of `result.json` of a finished trial
    result: Mapping[str, Any] | None = None


class Monitor:
    """Reads the state of trials of one home; safe for use by several threads.

    A trial once found finished stays finished for this monitor.  One that cannot be read for a while, as on network
    storage, keeps the state that was read last.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._watched: dict[str, _TrialReader] = {}
        self._lock = threading.Lock()

    def look(self, key: str) -> TrialProgress:
        """One trial as it is now."""
        with self._lock:
            watched = self._watched.get(key)
            if watched is None:
                watched = self._watched[key] = _TrialReader(trial_folder(self.home, key))
            return watched.look()

    def look_at(self, keys: Iterable[str]) -> dict[str, TrialProgress]:
        """Several trials; those without a folder cost nothing."""
        begun = self._begun()
        return {key: self.look(key) if key in begun else TrialProgress() for key in keys}

    def _begun(self) -> frozenset[str]:
        folder = trials_folder(self.home)
        return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


class _TrialReader:
    """Incremental state of one trial."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reader = JournalReader(folder)
        self._generation = 0
        self._story = _JournalState()
        self._seen: TrialProgress | None = None

    def look(self) -> TrialProgress:
        if self._seen is None:
            self._seen = self._look()
        elif self._seen.result is None:
            try:
                self._seen = self._look()
            except OSError as error:  # network storage recovers
                problem = DamagedFileError(self._folder, error.strerror or str(error))
                pass_over(problem, "the trial's state is the one that was read last")
        return self._seen

    def _look(self) -> TrialProgress:
        result = read_result(self._folder)  # before the journal: once it is there, the journal is whole
        events = self._reader.new()
        if self._reader.generation != self._generation:
            self._generation, self._story = self._reader.generation, _JournalState()
        for event in events:
            self._story.add(event)
        return self._story.progress(result, self._folder)


class _JournalState:
    """Accumulates the events of a journal, in order, into a trial's progress."""

    def __init__(self) -> None:
        self._decisive: Event | None = None
        self._taken_up: tuple[float, int] | None = None
        self._trained_at = 0.0
        self._host: str | None = None
        self._first: float | None = None
        self._newest: float | None = None
        self._step = 0
        self._rate: float | None = None
        self._error: str | None = None
        self._evaluation_s: float | None = None
        self._metrics: dict[str, float] = {}
        self._validation: dict[str, dict[int, float]] = {}

    def add(self, event: Event) -> None:
        kind = event["event"]
        self._newest = event["time"]
        self._first = self._newest if self._first is None else self._first
        if kind in DECISIVE:
            self._decisive = event
        if kind == "start":
            self._taken_up, self._trained_at = (event["time"], event["step"]), event["time"]
            self._step, self._host, self._error = event["step"], event["host"], None
        elif kind == "failed":
            self._error = event["error"]
        elif kind in ("stopped", "pruned"):
            self._error = event.get("reason")
        elif kind == "metrics":
            self._measured(event["time"], event["step"], event["values"])

    def _measured(self, time: float, step: int, values: Mapping[str, float]) -> None:
        self._metrics |= values
        self._step = step
        for name, value in values.items():
            if name.startswith(_KEPT):
                self._validation.setdefault(name, {})[step] = value
        if any(name.startswith(_EVALUATED) for name in values):
            self._evaluation_s = max(time - self._trained_at, 0.0)  # the clock may be set back
            return
        self._trained_at = time
        if self._taken_up and step > self._taken_up[1] and time > self._taken_up[0]:
            self._rate = (step - self._taken_up[1]) / (time - self._taken_up[0])

    def progress(self, result: Mapping[str, Any] | None, folder: Path) -> TrialProgress:
        return TrialProgress(
            status=status_after(self._decisive, folder) if result is None else "finished",
            step=self._step,
            rate=self._rate,
            metrics=self._metrics | (dict(result["metrics"]) if result else {}),
            validation={name: dict(values) for name, values in self._validation.items()},
            error=self._error,
            evaluation_s=self._evaluation_s,
            first=self._first,
            newest=self._newest,
            host=self._host,
            result=result,
        )
