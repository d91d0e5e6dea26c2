"""The driver of a sweep: it plans, runs the missing trials, records them, and writes the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from rich.console import Console

from jobs.environment import git_state
from jobs.trial import run_trial
from model.registry import resolve
from results.records.atomic import write_json
from results.records.disk import full_disk_explained
from results.records.frozen_plans import freeze
from results.records.home import code_file, plan_file, sweep_folder, training_folder, trial_folder
from results.records.monitor import Monitor
from results.records.training_folder import read_weights
from results.table import Table
from sweep.file.load import RunOptions, Sweep
from sweep.only import choose, is_wanted, required
from sweep.plan.drawing import refuse_undrawable
from sweep.plan.plan_diff import repeated
from sweep.plan.planner import Plan, PlannedTrial, make_plan
from sweep.run.display import Display
from sweep.run.driver_lock import sole_driver
from sweep.run.executors import EXECUTORS
from sweep.run.executors.base import Assignment, Executor
from sweep.run.executors.queue import FixedQueue, TrialQueue
from sweep.run.executors.run_guarded import TrialFunction
from sweep.run.frozen_file import check_name, claim
from sweep.run.recording import Recorder, require_driver
from sweep.run.result_table import result_table
from sweep.run.stop import FILENAME as STOP_FILENAME
from sweep.run.stop import Stop, stop_on_signals, stop_requested, withdraw_prune
from sweep.terminal import Terminal, counted


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
    home: Path | str,
    *,
    console: Console | None = None,
    only: Sequence[str] = (),
    retry_failed: bool = False,
    fail_fast: bool = False,
    take_over: bool = False,
    evaluate_only: bool = False,
) -> Outcome:
    """Runs every trial of `sweep` that has no result, then writes the report.

    only: names of trials or globs over names, by default all; retry_failed: also run failed trials again; fail_fast:
    when one trial fails, stop the others, which write a checkpoint at once; take_over: take the sweep's name over from
    another file; evaluate_only: only evaluate trials whose training is finished.  Raises `SweepBusyError` where another
    driver runs the sweep, ValueError where one of `only` matches nothing, the name belongs to another file or the
    database driver of the store is not installed, the executor's errors, and `DiskFullError`.
    """
    home, console = Path(home).absolute(), console or Terminal()
    require_driver(sweep)
    resolve(EXECUTORS, sweep.run.executor, "executor").check()
    with full_disk_explained(home), sole_driver(sweep, home, console):
        taken_over = check_name(sweep, sweep_folder(home, sweep.name), take_over)
        console.print(f"Planning {sweep.name} in {home}")
        plan = make_plan(sweep, home, progress=lambda message: console.print(f"  {message}"))
        for line in repeated(plan, home):  # by the former plan, which is in force until trials can start
            console.print(line, markup=False)
        selection = _selected(plan, sweep, home, only, retry_failed, evaluate_only)
        if taken_over is not None:
            console.print(taken_over)
        _announce(plan, selection, console)
        begin = cache(partial(_put_in_force, plan, sweep, home))  # once
        if not plan_file(home, sweep.name).exists():
            begin()  # so that `status` works while Ray starts
        for trial in selection.chosen:
            withdraw_prune(trial_folder(home, trial.key))
        monitor = Monitor(home)
        tracker = Recorder(sweep, plan, home, monitor, say=console.print)
        stop_file = sweep_folder(home, sweep.name) / STOP_FILENAME
        session = _Session(sweep, home, console, tracker, monitor, stop_file, fail_fast, begin)
        with tracker, stop_on_signals(session.stop_file, console):
            plan, ran = _run(session, plan, selection)
        begin()  # where nothing ran
        plan = plan.refreshed(Monitor(home))
        freeze(plan, home)

        left = plan.search.left if plan.search is not None and selection.is_searched else 0
        report = _report(sweep, home, tracker.error, console)
        if report is not None and tracker.error is None and (ran or selection.controls):
            tracker.publish(report)
        everyone = (*selection.controls, *ran)
        return Outcome(plan, everyone, report, tracker.error, stop_requested(session.stop_file), left)


def _put_in_force(plan: Plan, sweep: Sweep, home: Path) -> None:
    """Freezes a plan and the state of the code, under the sweep's name.

    Until then, and thus where the trials are refused, `status` and `report` show the former plan.
    """
    freeze(plan, home)
    claim(sweep, sweep_folder(home, sweep.name))
    write_json(code_file(home, sweep.name), git_state(Path(__file__).parent))


@dataclass(frozen=True)
class _Selection:
    """The part of a plan that one call runs."""

    controls: list[PlannedTrial]
    #: in the order in which they run
    chosen: list[PlannedTrial]
    #: whether the search proposes further trials
    is_searched: bool
    #: whether rows may get further seeds, which are trained
    is_growing: bool
    #: whether a row of this name may get further trials
    is_wanted: Callable[[str], bool]
    #: whether a trial that is added to the plan runs as well
    is_to_run: Callable[[PlannedTrial], bool]


def _selected(
    plan: Plan, sweep: Sweep, home: Path, only: Sequence[str], retry_failed: bool, evaluate_only: bool
) -> _Selection:
    """The trials to run.  Raises ValueError where one of `only` matches nothing, and for trials that cannot run."""
    named = partial(is_wanted, only=only)
    is_searched = plan.search is not None and plan.search.left > 0 and named(plan.search.next_name)
    is_searched = is_searched and not evaluate_only
    is_growing = plan.seeds is not None and any(map(named, plan.seeds.may_come)) and not evaluate_only
    is_to_run = partial(_has_weights, home=home) if evaluate_only else partial(_is_open, retry_failed=retry_failed)
    wanted = (choose if is_searched else required)(plan.trials, only)
    runnable = list(filter(is_to_run, wanted))
    _refuse_blocked(runnable if evaluate_only else wanted, plan.search.missing if plan.search and is_searched else ())
    chosen = ordered(runnable, sweep)
    refuse_undrawable(((trial.name, trial.config) for trial in chosen), sweep.run)
    controls = [trial for trial in plan.controls if _is_open(trial, retry_failed)]
    return _Selection(controls, chosen, is_searched, is_growing, named, is_to_run)


def _announce(plan: Plan, selection: _Selection, console: Console) -> None:
    """Prints what is finished, what will run, and what decides."""
    trained = sum(map(_is_trained, selection.chosen))
    counts = [f"{_finished(plan)} finished before", f"{len(selection.chosen)} to run"]
    counts += [f"{trained} of them trained before and to be evaluated"] if trained else []
    counts += [f"and {counted(len(selection.controls), 'row')} without training"] if selection.controls else []
    console.print(f"{counted(len(plan.trials), 'trial')}: {', '.join(counts)}")
    if selection.is_searched:
        console.print(f"{plan.search}")
    elif trained == len(selection.chosen) and not selection.is_growing:
        console.print("Nothing to train.")
    if plan.seeds is not None:
        console.print(f"{plan.seeds}")
    if plan.primary is not None:
        console.print(f"primary metric: {plan.primary}")


def _finished(plan: Plan) -> int:
    return sum(trial.status == "finished" for trial in plan.trials)


def _is_open(trial: PlannedTrial, retry_failed: bool) -> bool:
    return trial.is_unfinished or (retry_failed and trial.status == "failed")


def _is_trained(trial: PlannedTrial) -> bool:
    return trial.status == "to be evaluated"


def _has_weights(trial: PlannedTrial, home: Path) -> bool:
    """Whether a trial can be evaluated without training: its weights are read, since damaged ones would be trained."""
    return _is_trained(trial) and read_weights(training_folder(home, str(trial.training))) is not None


@dataclass(frozen=True)
class _Session:
    """The sweep, its records and its way to be stopped, which all trials of one call share."""

    sweep: Sweep
    home: Path
    console: Console
    tracker: Recorder
    monitor: Monitor
    stop_file: Path
    fail_fast: bool
    #: as `Assignment.begin`
    begin: Callable[[], None]

    def execute(self, queue: TrialQueue, before: int = 0) -> None:
        """Runs the queue's trials; before: the number of trials finished before, for the totals."""
        execute(
            queue, self.home, self.sweep.run, self.stop_file, self.console, self.fail_fast,
            before=before, monitor=self.monitor, begin=self.begin,
        )  # fmt: skip


def _run(session: _Session, plan: Plan, selection: _Selection) -> tuple[Plan, Sequence[PlannedTrial]]:
    """Runs what is selected and what follows from its scores.  Returns the plan then, and all trials that ran."""
    first = [*selection.controls, *selection.chosen]
    if selection.is_searched:
        return _search(session, plan, first)
    if plan.seeds is not None and selection.chosen:
        return _until_decided(session, plan, first, selection)
    if first:
        session.execute(FixedQueue(first), before=_finished(plan))
    return plan, selection.chosen


def _search(session: _Session, plan: Plan, first: Sequence[PlannedTrial]) -> tuple[Plan, list[PlannedTrial]]:
    """Runs the `first` trials, then the search's proposals."""
    from sweep.search.source import SearchQueue  # Optuna

    queue = SearchQueue(
        session.sweep,
        session.home,
        plan,
        [trial for trial in first if not trial.is_proposed_only],
        stop_file=session.stop_file,
        retried={trial.key for trial in first},
        on_growth=session.tracker.extend,
        monitor=session.monitor,
    )
    with queue.pruning():
        session.execute(queue)
    ran = {trial.key for trial in queue.trials}
    return queue.plan, [trial for trial in queue.plan.trials if trial.key in ran]


def _until_decided(
    session: _Session, plan: Plan, first: Sequence[PlannedTrial], selection: _Selection
) -> tuple[Plan, list[PlannedTrial]]:
    """Runs the `first` trials, then further seeds of open rows."""
    from sweep.seeds.source import SeedQueue  # scipy, pandas

    queue = SeedQueue(
        session.sweep,
        session.home,
        plan,
        first,
        stop_file=session.stop_file,
        is_to_run=selection.is_to_run,
        is_wanted=selection.is_wanted,
        on_growth=session.tracker.extend,
        say=session.console.print,
        monitor=session.monitor,
    )
    session.execute(queue, before=_finished(plan))
    return queue.settled()


def execute(
    queue: TrialQueue,
    home: Path,
    options: RunOptions,
    stop_file: Path,
    console: Console,
    fail_fast: bool = False,
    work: TrialFunction = run_trial,
    before: int = 0,
    monitor: Monitor | None = None,
    begin: Callable[[], None] = lambda: None,
) -> None:
    """Runs the queue's trials; a second keyboard interrupt ends this at once, and the caller continues.

    before: the number of trials finished before, for the totals; monitor: one to share with other readers, if any;
    begin: as `Assignment.begin`.
    """
    executor: Executor = resolve(EXECUTORS, options.executor, "executor")
    display = Display(console, monitor or Monitor(home))
    with display.follow(queue, executor.at_once(options), before), suppress(KeyboardInterrupt):
        executor.run(Assignment(queue, home, stop_file, work, display, fail_fast, begin), options)


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
