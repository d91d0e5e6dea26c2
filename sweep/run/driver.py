"""The driver of a sweep: it plans, runs the missing trials, records them, and writes the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from jobs.environment import git_state
from jobs.trial import run_trial
from model.registry import resolve
from results.records.atomic import write_json
from results.records.disk import full_disk_explained
from results.records.home import code_file, sweep_folder, trial_folder
from results.records.monitor import Monitor
from results.records.plan import freeze
from results.table import Table
from sweep.file.load import RunOptions, Sweep
from sweep.only import choose, is_wanted, required
from sweep.plan.drawing import refuse_undrawable
from sweep.plan.planner import Plan, PlannedTrial, make_plan
from sweep.run.display import Display
from sweep.run.driver_lock import sole_driver
from sweep.run.executors import EXECUTORS
from sweep.run.executors.base import Assignment, Executor
from sweep.run.executors.queue import FixedQueue, TrialQueue
from sweep.run.executors.run_guarded import TrialFunction
from sweep.run.frozen_file import claim
from sweep.run.recording import Recorder, require_driver
from sweep.run.result_table import result_table
from sweep.run.stop import FILENAME as STOP_FILENAME
from sweep.run.stop import Stop, stop_on_signals, stop_requested, withdraw_prune
from sweep.terminal import Terminal


@dataclass(frozen=True)
class Outcome:
    """The outcome of running a sweep."""

    plan: Plan
    #: trials that this call ran
    ran: tuple[PlannedTrial, ...]
    #: None where MLflow, its source, cannot be read now
    report: Path | None
    #: why MLflow is incomplete; None where it is complete
    tracking_error: str | None
    #: why trials were stopped early; None where none was
    stop: Stop | None
    #: the number of configurations that the search has not tried yet
    unsearched: int = 0

    @property
    def failed(self) -> list[PlannedTrial]:
        """The sweep's failed trials, rows without training among them."""
        return [trial for trial in self.plan.everything if trial.status == "failed"]

    @property
    def unfinished(self) -> list[PlannedTrial]:
        """Trials of this call that were stopped before their end."""
        keys = {trial.key for trial in self.ran}
        return [t for t in self.plan.everything if t.key in keys and t.is_unfinished]

    @property
    def exit_code(self) -> int:
        """0: success; 1: a trial failed; 2: the disk was full, or MLflow is incomplete; 130: stopped on request."""
        is_cut_short = bool(self.unfinished or self.unsearched)
        cause = self.stop.cause if self.stop is not None and is_cut_short else None
        if is_cut_short and cause != "failure":
            return 2 if cause == "disk" else 130
        return 1 if self.failed else 2 if self.tracking_error else 0


def run_sweep(
    sweep: Sweep,
    home: Path,
    *,
    console: Console | None = None,
    only: str | None = None,
    retry_failed: bool = False,
    fail_fast: bool = False,
    take_over: bool = False,
    evaluate_only: bool = False,
) -> Outcome:
    """Runs every trial of `sweep` that has no result, then writes the report.

    only: a trial's name, or a glob over names; retry_failed: also run failed trials again; fail_fast: when one trial
    fails, stop the others, which write a checkpoint at once; take_over: take the sweep's name over from another file;
    evaluate_only: only evaluate trials whose training is finished.  Raises `SweepBusyError` where another driver runs
    the sweep, ValueError where `only` matches nothing, the name belongs to another file or the database driver of the
    store is not installed, the executor's errors, and `DiskFullError`.
    """
    console = console or Terminal()
    require_driver(sweep)
    resolve(EXECUTORS, sweep.run.executor, "executor").check()
    folder = sweep_folder(home, sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    with sole_driver(sweep, home, console), full_disk_explained(home):
        claimed = claim(sweep, folder, take_over)
        if claimed is not None:
            console.print(claimed)
        console.print(f"Planning {sweep.name} in {home}")
        plan = make_plan(sweep, home, progress=lambda message: console.print(f"  {message}"))
        freeze(plan, home)
        _snapshot_code(code_file(home, sweep.name))
        is_searched = plan.search is not None and plan.search.left > 0 and is_wanted(plan.search.next_name, only)
        is_searched = is_searched and not evaluate_only
        wanted = (choose if is_searched else required)(plan.trials, only)
        is_to_run = _is_trained if evaluate_only else partial(_to_run, retry_failed=retry_failed)
        if evaluate_only:
            wanted = list(filter(is_to_run, wanted))
        _refuse_blocked(wanted, plan.search.missing if plan.search and is_searched else ())
        chosen = ordered(filter(is_to_run, wanted), sweep)
        refuse_undrawable(((trial.name, trial.config) for trial in chosen), sweep.run)
        controls = [t for t in plan.controls if _to_run(t, retry_failed)]
        finished = sum(trial.status == "finished" for trial in plan.trials)
        trained = sum(trial.status == "to be evaluated" for trial in chosen)
        counts = [f"{finished} finished before", f"{len(chosen)} to run"]
        counts += [f"{trained} of them trained before and to be evaluated"] if trained else []
        counts += [f"and {len(controls)} rows without training"] if controls else []
        console.print(f"{len(plan.trials)} trials: {', '.join(counts)}")
        if is_searched:
            console.print(f"{plan.search}")
        elif trained == len(chosen):
            console.print("Nothing to train.")
        if plan.seeds is not None:
            console.print(f"{plan.seeds}")
        if plan.primary is not None:
            console.print(f"primary metric: {plan.primary}")

        for trial in chosen:
            withdraw_prune(trial_folder(home, trial.key))
        monitor = Monitor(home)
        tracker = Recorder(sweep, plan, home, monitor)
        stop_file = folder / STOP_FILENAME
        with tracker, stop_on_signals(stop_file, console):
            if is_searched:
                plan, chosen = _search(sweep, home, plan, [*controls, *chosen], tracker, console, fail_fast, monitor)
            elif plan.seeds is not None and chosen:
                plan, chosen = _until_decided(
                    sweep, home, plan, [*controls, *chosen], tracker, console, fail_fast, monitor, only, is_to_run,
                    finished,
                )  # fmt: skip
            elif chosen or controls:
                execute(
                    FixedQueue([*controls, *chosen]),
                    home,
                    sweep.run,
                    stop_file,
                    console,
                    fail_fast,
                    before=finished,
                    monitor=monitor,
                )
        plan = plan.refreshed(Monitor(home))
        freeze(plan, home)

        left = plan.search.left if plan.search is not None and is_searched else 0
        report = _report(sweep, home, tracker.error, console)
        if report is not None and tracker.error is None and (chosen or controls):
            tracker.publish(report)
        return Outcome(plan, (*controls, *chosen), report, tracker.error, stop_requested(stop_file), left)


def execute(
    source: TrialQueue,
    home: Path,
    options: RunOptions,
    stop_file: Path,
    console: Console,
    fail_fast: bool = False,
    work: TrialFunction = run_trial,
    before: int = 0,
    monitor: Monitor | None = None,
) -> None:
    """Runs the source's trials; a second keyboard interrupt ends this at once, and the caller continues.

    before: the number of trials finished before, for the totals; monitor: one to share with other readers, if any.
    """
    executor: Executor = resolve(EXECUTORS, options.executor, "executor")
    display = Display(console, monitor or Monitor(home))
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
    monitor: Monitor,
) -> tuple[Plan, list[PlannedTrial]]:
    """Runs the `chosen` trials, then the search's proposals.  Returns the extended plan, and all trials that ran."""
    from sweep.search.source import SearchQueue  # Optuna

    stop_file = sweep_folder(home, sweep.name) / STOP_FILENAME
    source = SearchQueue(
        sweep,
        home,
        plan,
        [trial for trial in chosen if not trial.is_proposed_only],
        stop_file=stop_file,
        retried={trial.key for trial in chosen},
        on_growth=tracker.extend,
        monitor=monitor,
    )
    with source.pruning():
        execute(source, home, sweep.run, stop_file, console, fail_fast, monitor=monitor)
    ran = {trial.key for trial in source.trials}
    return source.plan, [trial for trial in source.plan.trials if trial.key in ran]


def _until_decided(
    sweep: Sweep,
    home: Path,
    plan: Plan,
    chosen: Sequence[PlannedTrial],
    tracker: Recorder,
    console: Console,
    fail_fast: bool,
    monitor: Monitor,
    only: str | None,
    is_to_run: Callable[[PlannedTrial], bool],
    before: int,
) -> tuple[Plan, list[PlannedTrial]]:
    """Runs the `chosen` trials, then further seeds of open rows.  Returns the final plan, and all trials that ran."""
    from sweep.seeds.source import SeedQueue

    stop_file = sweep_folder(home, sweep.name) / STOP_FILENAME
    source = SeedQueue(
        sweep,
        home,
        plan,
        chosen,
        stop_file=stop_file,
        is_to_run=is_to_run,
        is_wanted=partial(is_wanted, only=only),
        on_growth=tracker.extend,
        say=console.print,
        monitor=monitor,
    )
    execute(source, home, sweep.run, stop_file, console, fail_fast, before=before, monitor=monitor)
    return source.settled()


def _refuse_blocked(trials: Sequence[PlannedTrial], searched: Sequence[str]) -> None:
    """Raises ValueError where trials are blocked; searched: missing datasets and weights of the search."""
    blocked = [trial for trial in trials if trial.status == "blocked"]
    if blocked or searched:
        reasons = dict.fromkeys([reason for trial in blocked for reason in trial.missing] + list(searched))
        who = f"{len(blocked)} of {len(trials)} trials" if blocked else "trials of the search"
        raise ValueError(
            f"{who} cannot run yet:" + "".join(f"\n  {reason}" for reason in reasons) + "\nor choose others with --only"
        )


def _report(sweep: Sweep, home: Path, tracking_error: str | None, console: Console) -> Path | None:
    """Writes the report, and prints its first table."""
    from results.errors import ResultsError
    from results.report import build_report  # seconds of imports, needed only now

    def show(tables: Sequence[Table]) -> None:
        for table in tables[:1]:
            console.print(result_table(table, console))

    try:
        return build_report(sweep, home, tables=sweep.tables, notes=sweep.notes, labels=sweep.tags, on_tables=show)
    except ResultsError:
        if tracking_error is None:
            raise
        return None  # `tracking_error` already reports that the store cannot be used


def ordered(trials: Iterable[PlannedTrial], sweep: Sweep) -> list[PlannedTrial]:
    """Trials in the order in which they run (`run.order`).

    Trials that share a training with an earlier one come last, since they would wait for it if it were not finished.
    """
    turns = {seed: turn for turn, seed in enumerate(sweep.first_seeds)}
    by_seed = sweep.run.order == "seeds-first"
    in_turn = sorted(trials, key=lambda trial: turns.get(trial.seed, len(turns) + trial.seed) if by_seed else 0)
    first = {trial.training: trial.key for trial in reversed(in_turn)}
    return sorted(in_turn, key=lambda trial: trial.training is not None and first[trial.training] != trial.key)


def _to_run(trial: PlannedTrial, retry_failed: bool) -> bool:
    return trial.is_unfinished or (retry_failed and trial.status == "failed")


def _is_trained(trial: PlannedTrial) -> bool:
    return trial.status == "to be evaluated"


def _snapshot_code(path: Path) -> None:
    write_json(path, git_state(Path(__file__).parent))
