"""Makes a sweep so: plan, run what is missing, record it, report.  Running it again does only what is left."""

from __future__ import annotations

import fnmatch
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from jobs.environment import git_state
from jobs.tracking import TrackedTrial, Tracker
from jobs.trial import run_trial
from model.registry import nearest, resolve
from results.address import default_uri, is_database, reason, without_secrets
from results.records import tags
from results.records.atomic import write_json
from results.records.disk import full_disk_explained
from results.records.home import code_file, database_file, sweep_folder, trial_folder
from results.records.permissions import whose
from results.records.plan import freeze
from results.table import Table
from sweep.file.load import RunOptions, Sweep
from sweep.invocation import command
from sweep.plan.drawing import refuse_undrawable
from sweep.plan.planner import Plan, PlannedTrial, make_plan
from sweep.run.display import Display
from sweep.run.executors import EXECUTORS
from sweep.run.executors.base import Assignment, Executor
from sweep.run.executors.queue import Listed, Source
from sweep.run.executors.run_guarded import Work
from sweep.run.frozen_file import claim
from sweep.run.result_table import result_table
from sweep.run.stop import FILENAME as STOP_FILENAME
from sweep.run.stop import Stop, request_stop, stop_on_signals, stop_requested, withdraw_prune

LOCK_FILENAME, OWNER_FILENAME = "driver.lock", "driver.json"
_SYNC_INTERVAL_S = 2.0
#: MLflow's own name for a run's description
_NOTES_TAG = "mlflow.note.content"

log = logging.getLogger(__name__)


class SweepBusyError(RuntimeError):
    """Another driver runs this sweep under this home."""


class SweepIdleError(RuntimeError):
    """No driver runs this sweep under this home."""


class TrackingError(RuntimeError):
    """The MLflow store cannot be written now."""


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
    #: why trials were stopped before their end, if they were
    stop: Stop | None
    #: configurations that the search has not tried yet, if it was to
    unsearched: int = 0

    @property
    def failed(self) -> list[PlannedTrial]:
        """Trials of the sweep that stand failed."""
        return [trial for trial in self.plan.trials if trial.status == "failed"]

    @property
    def unfinished(self) -> list[PlannedTrial]:
        """Trials that this call was to run and that were stopped before their end."""
        keys = {trial.key for trial in self.ran}
        return [t for t in self.plan.trials if t.key in keys and t.is_unfinished]

    @property
    def exit_code(self) -> int:
        """0 all well, 1 some trial failed, 2 something around them did, 130 stopped when asked to."""
        is_cut_short = bool(self.unfinished or self.unsearched)
        cause = self.stop.cause if self.stop is not None and is_cut_short else None
        if is_cut_short and cause != "failure":
            return 2 if cause == "disk" else 130
        return 1 if self.failed else 2 if self.tracking_error else 0


def run_sweep(
    sweep: Sweep,
    home: Path,
    *,
    console: Console,
    only: str | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    take_over: bool = False,
) -> Outcome:
    """Run every trial of `sweep` without a result, then write its report.

    only: a trial's name, or a glob over names; retry_failed: run failed trials again too; fail_fast: stop all behind
    a checkpoint when one fails; take_over: even where another file's sweep has the name.  Raises `SweepBusyError`
    where another driver is at it, ValueError where `only` matches nothing, the name is another file's or the driver of
    the store's database is not installed, what the executor raises, and `DiskFullError`.
    """
    _require_driver(sweep)
    resolve(EXECUTORS, sweep.run.executor, "executor").check()
    folder = sweep_folder(home, sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    with _sole_driver(sweep, home, console), full_disk_explained(home):
        claimed = claim(sweep, folder, take_over)
        if claimed is not None:
            console.print(claimed)
        console.print(f"Planning {sweep.name} in {home}")
        plan = make_plan(sweep, home, progress=lambda message: console.print(f"  {message}"))
        freeze(plan, home)
        _snapshot_code(code_file(home, sweep.name))
        is_searched = plan.search is not None and plan.search.left > 0 and _is_wanted(plan.search.next_name, only)
        wanted = _matching(plan.trials, only, or_nothing=is_searched)
        _refuse_blocked(wanted, plan.search.missing if plan.search and is_searched else ())
        chosen = ordered([t for t in wanted if _to_run(t, retry_failed)], sweep)
        refuse_undrawable(((trial.name, trial.config) for trial in chosen), sweep.run)
        controls = [t for t in plan.controls if _to_run(t, retry_failed)]
        finished = sum(trial.status == "finished" for trial in plan.trials)
        console.print(f"{len(plan.trials)} trials: {finished} finished before, {len(chosen)} to run")
        if is_searched:
            console.print(f"{plan.search}")
        elif not chosen:
            console.print("Nothing to train.")

        for trial in chosen:
            withdraw_prune(trial_folder(home, trial.key))
        tracker = Recorder(sweep, plan, home)
        stop_file = folder / STOP_FILENAME
        with tracker, stop_on_signals(stop_file, console):
            if is_searched:
                plan, chosen = _search(sweep, home, plan, [*controls, *chosen], tracker, console, fail_fast)
            elif chosen or controls:
                execute(Listed([*controls, *chosen]), home, sweep.run, stop_file, console, fail_fast, before=finished)
        plan = plan.refreshed(home)
        freeze(plan, home)

        left = plan.search.left if plan.search is not None and is_searched else 0
        report = _report(sweep, home, tracker.error, console)
        return Outcome(plan, tuple(chosen), report, tracker.error, stop_requested(stop_file), left)


def stop_sweep(sweep: Sweep, home: Path) -> str:
    """Ask the driver of a running sweep, wherever it runs, to stop its trials behind a checkpoint.

    Returns who it is.  Raises `SweepIdleError` where none is at it.
    """
    folder = sweep_folder(home, sweep.name)
    lock = FileLock(folder / LOCK_FILENAME)
    if folder.exists():
        try:
            with lock.acquire(timeout=0):
                pass
        except Timeout:
            request_stop(folder / STOP_FILENAME, "asked", "by `splatsweep stop`")
            return _owner(folder)
    raise SweepIdleError(f"sweep {sweep.name!r} is not being run in {home}: nothing to stop")


def sync_sweep(sweep: Sweep, home: Path) -> int:
    """Replay the journals of a planned sweep into MLflow.  Returns how many trials were looked at.

    Raises `TrackingError` where MLflow cannot be written, and ValueError as `run_sweep` does.
    """
    _require_driver(sweep)
    plan = make_plan(sweep, home)
    tracked = tracked_trials(sweep, plan)
    try:
        _tracker(sweep, home).sync(tracked)
    except Exception as error:  # as below
        where = without_secrets(sweep.tracking.uri or default_uri(home))
        raise TrackingError(
            f"the MLflow store {where} cannot be written: {_why_not_written(sweep, home, error)}"
        ) from error
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
                **sweep.tags,
                **({_NOTES_TAG: sweep.notes} if sweep.notes else {}),
                tags.SWEEP: sweep.name,
                tags.TRIAL: trial.name,
                tags.SEED: str(trial.seed),
                **_search_tags(trial, plan),
            },
        )
        for trial in (*plan.trials, *plan.controls)
    ]


def _search_tags(trial: PlannedTrial, plan: Plan) -> dict[str, str]:
    """What a search says of a trial that it proposed; its state is that of the trial."""
    if plan.search is None or not trial.proposals:
        return {}
    numbers = ", ".join(map(str, trial.proposals))
    return {tags.SEARCH: plan.search.study, tags.SEARCH_NUMBER: numbers}


class Recorder:
    """Drains journals into MLflow beside the running trials; its failures never reach them."""

    def __init__(self, sweep: Sweep, plan: Plan, home: Path) -> None:
        """plan: may be replaced while it is drained, by one with more trials."""
        self._sweep, self._home, self.plan = sweep, home, plan
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="mlflow-writer", daemon=True)
        self._tracker: Tracker | None = None
        self.error: str | None = None

    def __enter__(self) -> Recorder:
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
                self._tracker = _tracker(self._sweep, self._home)
            self._tracker.sync(tracked_trials(self._sweep, self.plan))
            self.error = None
        except Exception as error:  # whatever a database or a server throws: the journals stay the truth
            self.error = f"{type(error).__name__}: {_why_not_written(self._sweep, self._home, error)}"
            log.debug("MLflow could not be written: %s", self.error)


def _why_not_written(sweep: Sweep, home: Path, error: Exception) -> str:
    """What the store says, and whose its file is where that is why."""
    owner = whose(database_file(home)) if sweep.tracking.uri is None else None
    return reason(error) if owner is None else f"{reason(error)}; {owner}"


def _tracker(sweep: Sweep, home: Path) -> Tracker:
    return Tracker(home, sweep.tracking.uri, sweep.tracking.experiment or sweep.name)


def _require_driver(sweep: Sweep) -> None:
    """Better said before trials run than after."""
    from results.sql import require_driver

    if sweep.tracking.uri is not None and is_database(sweep.tracking.uri):
        require_driver(sweep.tracking.uri)


def execute(
    source: Source,
    home: Path,
    options: RunOptions,
    stop_file: Path,
    console: Console,
    fail_fast: bool = False,
    work: Work = run_trial,
    before: int = 0,
) -> None:
    """Run the source's trials; a second interrupt from the keyboard ends that at once, but not what comes after it.

    before: trials of the sweep that were done before, for its totals.
    """
    executor: Executor = resolve(EXECUTORS, options.executor, "executor")
    display = Display(console, home)
    with display.follow(source, executor.at_once(options), before), suppress(KeyboardInterrupt):
        executor.run(Assignment(source, home, stop_file, work, display, fail_fast), options)


def _search(
    sweep: Sweep,
    home: Path,
    plan: Plan,
    chosen: Sequence[PlannedTrial],
    tracker: Recorder,
    console: Console,
    fail_fast: bool,
) -> tuple[Plan, list[PlannedTrial]]:
    """Run what is `chosen`, then what the search proposes.  Returns the plan with it, and all trials that ran."""
    from sweep.search.source import SearchSource  # Optuna

    def grown(larger: Plan) -> None:
        freeze(larger, home)
        tracker.plan = larger

    stop_file = sweep_folder(home, sweep.name) / STOP_FILENAME
    source = SearchSource(
        sweep,
        home,
        plan,
        [trial for trial in chosen if not trial.is_proposed_only],
        stop_file=stop_file,
        retried={trial.key for trial in chosen},
        on_growth=grown,
    )
    with source.pruning():
        execute(source, home, sweep.run, stop_file, console, fail_fast)
    ran = {trial.key for trial in source.trials}
    return source.plan, [trial for trial in source.plan.trials if trial.key in ran]


def _refuse_blocked(trials: Sequence[PlannedTrial], searched: Sequence[str]) -> None:
    """searched: what the search lacks."""
    blocked = [trial for trial in trials if trial.status == "blocked"]
    if blocked or searched:
        reasons = dict.fromkeys([reason for trial in blocked for reason in trial.missing] + list(searched))
        who = f"{len(blocked)} of {len(trials)} trials" if blocked else "trials of the search"
        raise ValueError(
            f"{who} cannot run yet:" + "".join(f"\n  {reason}" for reason in reasons) + "\nor choose others with --only"
        )


def _report(sweep: Sweep, home: Path, tracking_error: str | None, console: Console) -> Path | None:
    """Write the report, and show its first table here."""
    from results.errors import ResultsError
    from results.report import build_report  # seconds of imports, needed only now

    def show(tables: Sequence[Table]) -> None:
        for table in tables[:1]:
            console.print(result_table(table))

    try:
        return build_report(sweep, home, tables=sweep.tables, notes=sweep.notes, labels=sweep.tags, on_tables=show)
    except ResultsError:
        if tracking_error is None:
            raise
        return None  # said already: what is recorded cannot be read either


def ordered(trials: Sequence[PlannedTrial], sweep: Sweep) -> list[PlannedTrial]:
    """Trials in the order in which they are to run (`run.order`)."""
    if sweep.run.order == "rows-first":
        return list(trials)
    turns = {seed: turn for turn, seed in enumerate(sweep.seeds)}
    return sorted(trials, key=lambda trial: turns.get(trial.seed, len(turns)))


def _to_run(trial: PlannedTrial, retry_failed: bool) -> bool:
    return trial.is_unfinished or (retry_failed and trial.status == "failed")


def _is_wanted(name: str, only: str | None) -> bool:
    return only is None or name == only or fnmatch.fnmatchcase(name, only)


def _matching(trials: Sequence[PlannedTrial], only: str | None, or_nothing: bool) -> list[PlannedTrial]:
    """Trials of that name; where there are none, those whose names match it as a glob."""
    named = [trial for trial in trials if only in trial.names]
    if named:
        return named
    chosen = [t for t in trials if any(_is_wanted(name, only) for name in t.names)]
    if only is not None and not chosen and not or_nothing:
        names = sorted({name for trial in trials for name in trial.names})
        hint = nearest(only, names)
        raise ValueError(
            f"--only {only!r} matches no trial; allowed: {', '.join(names)}"
            + (f"; did you mean {hint!r}?" if hint else "")
        )
    return chosen


@contextmanager
def _sole_driver(sweep: Sweep, home: Path, console: Console) -> Iterator[None]:
    """Hold the sweep's lock, which the operating system frees when its owner dies, and sign it."""
    folder = sweep_folder(home, sweep.name)
    signature, stop_file, lock = folder / OWNER_FILENAME, folder / STOP_FILENAME, FileLock(folder / LOCK_FILENAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        way_out = f"wait for it, or run: {command('stop', sweep, home)}"
        raise SweepBusyError(f"sweep {folder.name!r} is being run by {_owner(folder)}; {way_out}") from None
    try:
        if signature.exists():
            console.print(f"Taking over from {_owner(folder)}, which died while it ran this sweep.")
        stop_file.unlink(missing_ok=True)
        signature.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        signature.unlink(missing_ok=True)
        stop_file.unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    """The driver that signed the lock, in words."""
    try:
        who = json.loads((folder / OWNER_FILENAME).read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):  # about to sign, or killed while it did
        return "a driver that left no name"


def _snapshot_code(path: Path) -> None:
    write_json(path, git_state(Path(__file__).parent))
