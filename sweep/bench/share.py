"""The overhead of running a sweep: time between trials, and processor time of the driver and Ray.

The first is relative to the time that the trials of the preset `quick` take on the same machine in the same call.  The
second is the processor time of the driver and of Ray's own processes meanwhile, relative to the available processor
time.  These processes work at fixed intervals, so other load on the machine hardly changes it.
"""

from __future__ import annotations

import io
import tempfile
import threading
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import psutil

from jobs.cores import usable_cores
from results.records.home import trial_folder, trials_folder
from results.records.journal import read_events
from results.records.trial_folder import read_result
from sweep.file.load import load_sweep
from sweep.plan.planner import make_plan
from sweep.run.driver import execute
from sweep.run.executors.queue import FixedQueue
from sweep.run.recording import Recorder
from sweep.terminal import Terminal

#: The target for the overhead, in percent of the wall-clock time after start-up.
TARGET_PERCENT = 3.0
#: Settings for two trials of minimal length.
_SMALL = (
    "trials={baseline: {}, tv: {train.stages.*.losses.tv: 0.01}}",
    "base.semantic={}",
    "base.data.options={train: 4, val: 2, test: 2, views: 5, image_size: 32}",
    "base.train.stages=[{iterations: 30, lr: 1.0e-3, losses: {l2: 1.0}}]",
)
#: Seconds between two samples; long, because sampling itself takes processor time.
_SAMPLED_S = 1.0


@dataclass(frozen=True)
class Shares:
    """Seconds of a sweep from its first trial's start on, by use."""

    trials: int
    #: wall-clock seconds of all trials, from their first event to their result
    busy: float
    #: processor seconds of the driver and of Ray's own processes
    beside: float
    #: available processor seconds: wall-clock seconds times usable processors
    available: float

    def percent(self, gap: float) -> dict[str, float]:
        """The overhead in percent if a worker waits `gap` seconds between trials: between trials, beside them, both."""
        between = 100 * self.trials * gap / (self.busy + self.trials * gap)
        beside = 100 * self.beside / self.available
        return {"between %": between, "beside %": beside, "both %": between + beside, "target %": TARGET_PERCENT}


def run_preset(small: bool) -> Shares:
    """Runs the preset `quick` with all the driver's work, in a temporary home."""
    preset = resources.files("sweep.presets") / "quick.yaml"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, resources.as_file(preset) as path:
        home, sweep = Path(folder), load_sweep(path, _SMALL if small else ())
        plan = make_plan(sweep, home)
        clock = _ProcessorClock(trials_folder(home))
        with clock, Recorder(sweep, plan, home):
            execute(FixedQueue(plan.everything), home, sweep.run, home / "stop", Terminal(file=io.StringIO()))
        busy = sum(_busy(trial_folder(home, trial.key)) for trial in plan.everything)
        return Shares(len(plan.everything), busy, clock.beside, clock.seconds * usable_cores())


def _busy(folder: Path) -> float:
    result = read_result(folder)
    if result is None:
        raise RuntimeError(f"a trial of the preset did not end: {folder}")
    return float(result["finished"]) - float(read_events(folder)[0]["time"])


class _ProcessorClock:
    """Processor seconds of this process and its descendants except Ray's workers, from the first trial's start."""

    def __init__(self, trials: Path) -> None:
        self._trials, self._done = trials, threading.Event()
        self._first: dict[psutil.Process, float] = {}
        self._last: dict[psutil.Process, float] = {}
        self._thread = threading.Thread(target=self._watch, name="processor-clock", daemon=True)
        #: wall-clock seconds observed
        self.seconds = 0.0

    def __enter__(self) -> _ProcessorClock:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def beside(self) -> float:
        """The processor seconds that these processes have used."""
        return sum(spent - self._first[process] for process, spent in self._last.items())

    def _watch(self) -> None:
        while not self._trials.exists() and not self._done.wait(0.1):
            pass
        began = time.monotonic()
        while True:
            self._sample(begins=not self._last)
            self.seconds = time.monotonic() - began
            if self._done.wait(_SAMPLED_S):
                return

    def _sample(self, begins: bool) -> None:
        for process in (me := psutil.Process(), *me.children(recursive=True)):
            try:
                spent, command = sum(process.cpu_times()[:2]), " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            if not _is_worker(command):
                self._first.setdefault(process, spent if begins else 0.0)
                self._last[process] = spent


def _is_worker(command: str) -> bool:
    """Whether a process is a Ray worker that runs trials; Ray renames a worker after its task once it has started."""
    return "default_worker.py" in command or (command.startswith("ray::") and "Agent" not in command)
