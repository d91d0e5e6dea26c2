"""Makes a sweep so: plan, run what is missing, record it, report.  Running it again does only what is left."""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout
from rich.console import Console

from jobs.environment import git_state
from jobs.tracking import TrackedTrial, Tracker
from model.registry import nearest, resolve
from sweep.executors import EXECUTORS
from sweep.plan import Plan, PlannedTrial, freeze, make_plan
from sweep.progress import follow
from sweep.spec import RunOptions, Sweep

_SYNC_INTERVAL_S = 2.0

log = logging.getLogger(__name__)


class SweepBusyError(RuntimeError):
    """Another driver runs this sweep under this home."""


@dataclass(frozen=True)
class Outcome:
    """What a run of a sweep came to."""

    plan: Plan
    #: trials that this call ran
    ran: tuple[PlannedTrial, ...]
    #: None where MLflow, which it is made from, cannot be read now
    report: Path | None
    #: why MLflow does not hold everything, if so
    tracking_error: str | None

    @property
    def failed(self) -> list[PlannedTrial]:
        """Trials of the sweep that stand failed."""
        return [trial for trial in self.plan.trials if trial.status == "failed"]

    @property
    def unfinished(self) -> list[PlannedTrial]:
        """Trials that this call was to run and that were stopped before their end."""
        keys = {trial.key for trial in self.ran}
        return [t for t in self.plan.trials if t.key in keys and t.status not in ("finished", "failed")]


def run_sweep(
    sweep: Sweep, home: Path, *, console: Console, only: str | None = None, retry_failed: bool = False
) -> Outcome:
    """Run every trial of `sweep` without a result, then write its report.

    only: a glob over trial names; retry_failed: run failed trials again too.
    Raises `SweepBusyError` where another driver is at it, and ValueError where `only` matches nothing.
    """
    folder = home / "sweeps" / sweep.name
    folder.mkdir(parents=True, exist_ok=True)
    with _sole_driver(folder):
        console.print(f"Planning [bold]{sweep.name}[/] in {home}")
        plan = make_plan(sweep, home, progress=lambda message: console.print(f"  {message}"))
        freeze(plan, home)
        _snapshot_code(folder)
        wanted = _matching(plan.trials, only)
        _refuse_blocked(wanted)
        chosen = [t for t in wanted if _to_run(t, retry_failed)]
        controls = [t for t in plan.controls if _to_run(t, retry_failed)]
        finished = sum(trial.status == "finished" for trial in plan.trials)
        console.print(f"{len(plan.trials)} trials: {finished} finished before, {len(chosen)} to run")
        if not chosen:
            console.print("Nothing to train.")

        tracker = _Recorder(sweep, plan, home)
        with tracker, stop_on_interrupt(folder / "stop", console) as stop_file:
            if chosen or controls:
                _execute([*controls, *chosen], home, sweep.run, stop_file, console)
        plan = plan.refreshed(home)
        freeze(plan, home)

        return Outcome(plan, tuple(chosen), _report(sweep, home, tracker.error), tracker.error)


def sync_sweep(sweep: Sweep, home: Path) -> int:
    """Replay the journals of a planned sweep into MLflow.  Returns how many trials were looked at."""
    plan = make_plan(sweep, home)
    tracked = tracked_trials(sweep, plan)
    Tracker(home, sweep.tracking.uri, sweep.tracking.experiment or sweep.name).sync(tracked)
    return len(tracked)


def tracked_trials(sweep: Sweep, plan: Plan) -> list[TrackedTrial]:
    """The trials of a plan as MLflow shows them."""
    several = len({trial.seed for trial in plan.trials}) > 1
    return [
        TrackedTrial(
            key=trial.key,
            run_name=f"{trial.name} seed {trial.seed}" if several and trial in plan.trials else trial.name,
            config=trial.config.identity(),
            tags={
                "splatsweep.sweep": sweep.name,
                "splatsweep.trial": trial.name,
                "splatsweep.seed": str(trial.seed),
            },
        )
        for trial in (*plan.trials, *plan.controls)
    ]


class _Recorder:
    """Drains journals into MLflow beside the running trials; its failures never reach them."""

    def __init__(self, sweep: Sweep, plan: Plan, home: Path) -> None:
        self._sweep, self._home, self._trials = sweep, home, tracked_trials(sweep, plan)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="mlflow-writer", daemon=True)
        self._tracker: Tracker | None = None
        self.error: str | None = None

    def __enter__(self) -> _Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _drain(self) -> None:
        while not self._stop.wait(_SYNC_INTERVAL_S):
            self._sync()
        self._sync()

    def _sync(self) -> None:
        try:
            if self._tracker is None:
                experiment = self._sweep.tracking.experiment or self._sweep.name
                self._tracker = Tracker(self._home, self._sweep.tracking.uri, experiment)
            self._tracker.sync(self._trials)
            self.error = None
        except Exception as error:  # whatever a database or a server throws: the journals stay the truth
            self.error = f"{type(error).__name__}: {error}"
            log.debug("MLflow could not be written: %s", self.error)


def _execute(
    trials: Sequence[PlannedTrial], home: Path, options: RunOptions, stop_file: Path, console: Console
) -> None:
    """Run `trials`; a second interrupt from the keyboard ends that at once, but not what comes after it."""
    executor = resolve(EXECUTORS, options.executor, "executor")
    with follow(trials, home, console), suppress(KeyboardInterrupt):
        executor(trials, home, options, stop_file)


@contextmanager
def stop_on_interrupt(stop_file: Path, console: Console) -> Iterator[Path]:
    """The first interrupt from the keyboard asks the trials to stop, through a file that they watch.

    They write a checkpoint and end; the second interrupt is Python's own, and ends them where they are.
    """
    stop_file.unlink(missing_ok=True)
    before = signal.getsignal(signal.SIGINT)

    def ask(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop_file.touch()
        console.print("Stopping after a checkpoint; interrupt again to stop at once.")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, ask)
    try:
        yield stop_file
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
        stop_file.unlink(missing_ok=True)


def _refuse_blocked(trials: Sequence[PlannedTrial]) -> None:
    blocked = [trial for trial in trials if trial.status == "blocked"]
    if blocked:
        reasons = dict.fromkeys(reason for trial in blocked for reason in trial.missing)
        raise ValueError(
            f"{len(blocked)} of {len(trials)} trials cannot run yet:"
            + "".join(f"\n  {reason}" for reason in reasons)
            + "\nor choose others with --only"
        )


def _report(sweep: Sweep, home: Path, tracking_error: str | None) -> Path | None:
    from results.errors import ResultsError
    from results.report import build_report  # seconds of imports, needed only now

    try:
        return build_report(sweep, home, tables=sweep.tables)
    except ResultsError:
        if tracking_error is None:
            raise
        return None  # said already: what is recorded cannot be read either


def _to_run(trial: PlannedTrial, retry_failed: bool) -> bool:
    return trial.status in ("pending", "interrupted", "running") or (retry_failed and trial.status == "failed")


def _matching(trials: Sequence[PlannedTrial], only: str | None) -> list[PlannedTrial]:
    if only is None:
        return list(trials)
    chosen = [t for t in trials if any(fnmatch.fnmatchcase(name, only) for name in t.names)]
    if not chosen:
        names = sorted({name for trial in trials for name in trial.names})
        hint = nearest(only, names)
        raise ValueError(
            f"--only {only!r} matches no trial; allowed: {', '.join(names)}"
            + (f"; did you mean {hint!r}?" if hint else "")
        )
    return chosen


@contextmanager
def _sole_driver(folder: Path) -> Iterator[None]:
    """Hold the sweep's lock; the operating system frees it when its owner dies."""
    owner = folder / "driver.json"
    lock = FileLock(folder / "driver.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = json.loads(owner.read_text()) if owner.exists() else {}
        raise SweepBusyError(
            f"sweep {folder.name!r} is being run by process {who.get('pid')} on {who.get('host')}; "
            "wait for it, or stop it first"
        ) from None
    try:
        owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        lock.release()


def _snapshot_code(folder: Path) -> None:
    state = git_state(Path(__file__).parent)
    (folder / "code.json").write_text(json.dumps(state, indent=2))
