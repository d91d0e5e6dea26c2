"""Recording of a sweep in MLflow, from the trials' journals: while trials run, or afterwards."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.address import default_uri, is_database, without_secrets
from results.errors import ResultsError
from results.invocation import command
from results.own_store import has_store
from results.records import tags
from results.records.frozen_plans import freeze, read_plan
from results.records.monitor import Monitor, TrialProgress
from results.records.plan import Plan, PlannedTrial, trial_label
from results.runs import Run
from results.store import ResultStore
from results.store_errors import store_problem
from sweep.file.schema import Sweep
from sweep.run.driver_lock import is_driven

if TYPE_CHECKING:  # brings MLflow, which takes seconds
    from jobs.tracking import TrackedTrial, Tracker

#: Seconds between two synchronisations.  Each costs MLflow some milliseconds of writing for every running trial.  The
#: first comes sooner, so that runs appear.
_SYNC_INTERVAL_S, _FIRST_SYNC_S = 10.0, 2.0
#: Seconds of the last synchronisation after which the user is told what is waited for.
_SILENT_S = 5.0
#: Bytes that all networks of a sweep may take in MLflow where the file does not choose; each trial has an equal share.
_MODELS_BYTES = 1e9
#: Characters of a trial's name in that of its run, for which databases have 250; a tag has the whole name.
_NAME_LENGTH = 200

log = logging.getLogger(__name__)

Say = Callable[[str], None]


class TrackingError(RuntimeError):
    """The MLflow store cannot be written now."""


def sync_sweep(sweep: Sweep, home: Path) -> tuple[int, int]:
    """Replays the journals of a planned sweep into MLflow.  Returns how many trials have begun, and how many there are.

    Raises `TrackingError` where MLflow cannot be written, and ValueError as `run_sweep` does.
    """
    require_driver(sweep)
    plan = read_plan(sweep.name, home)
    monitor = Monitor(home)
    try:
        left = _unrecorded(sweep, plan, monitor)
        if left:  # otherwise MLflow is not imported
            tracked = [trial for trial in tracked_trials(sweep, plan) if trial.key in left]
            _tracker(sweep, plan, home, monitor).sync(tracked)
    except Exception as error:  # see `Recorder._attempt`
        raise TrackingError(_unwritten(sweep, home, error)) from error
    begun = sum(monitor.look(trial.key).status != "pending" for trial in plan.everything)
    return begun, len(plan.everything)


def other_experiments(sweep: Sweep, home: Path) -> dict[str, int]:
    """Experiments other than the sweep's that have runs of its trials -> the number of these, the largest first.

    A trial has one run, which stays where it was first recorded: by another sweep, or before `tracking.experiment` was
    changed.  Raises `ResultsError` where the store cannot be read.
    """
    recorded = _runs(_begun(read_plan(sweep.name, home), Monitor(home)), home, sweep.tracking.uri)
    places = Counter(run.experiment for run in recorded.values())
    return {name: count for name, count in places.most_common() if name != sweep.experiment}


def record_ended(sweep: Sweep, home: Path) -> None:
    """Records the ended trials of which the home's own store does not have the end.

    It has none in a copy of a home without its store, and after a driver was killed.  Does nothing while a driver runs,
    which records itself, and where the sweep has another store.  Raises `TrackingError` where the store cannot be
    written.
    """
    if sweep.tracking.uri not in (None, default_uri(home)) or is_driven(sweep.name, home):
        return
    begun = _begun(read_plan(sweep.name, home), Monitor(home))
    try:
        recorded = _recorded(begun, home)
    except ResultsError as error:
        raise TrackingError(str(error)) from error
    ended = {key: found.status for key, found in begun.items() if found.status != "running"}
    if any(recorded.get(key) not in ("finished", status) for key, status in ended.items()):
        sync_sweep(sweep, home)


def _unrecorded(sweep: Sweep, plan: Plan[Any], monitor: Monitor) -> set[str]:
    """Keys of the started trials that are not known to be completely recorded."""
    begun = _begun(plan, monitor)
    if sweep.tracking.uri not in (None, default_uri(monitor.home)):
        return set(begun)
    recorded = _recorded(begun, monitor.home)
    return {key for key in begun if recorded.get(key) != "finished"}


def _begun(plan: Plan[Any], monitor: Monitor) -> dict[str, TrialProgress]:
    found = monitor.look_at(trial.key for trial in plan.everything)
    return {key: progress for key, progress in found.items() if progress.status != "pending"}


def _recorded(begun: Mapping[str, TrialProgress], home: Path) -> dict[str, str]:
    """State of each trial in the home's own store, by key.  Raises `ResultsError`."""
    return {key: run.status for key, run in _runs(begun, home).items()} if has_store(home) else {}


def _runs(begun: Mapping[str, TrialProgress], home: Path, uri: str | None = None) -> dict[str, Run]:
    """The runs of these trials in a store, by default the home's own, by key.  Raises `ResultsError`."""
    scores = {key: found.result["per_object_sha256"] for key, found in begun.items() if found.result is not None}
    return {key: run for key, run in ResultStore.of(home, uri).runs(scores).items() if key in begun}


def tracked_trials(sweep: Sweep, plan: Plan[Any]) -> list[TrackedTrial]:
    """The trials of a plan with the names and tags of their MLflow runs."""
    from jobs.tracking import TrackedTrial

    several = len({trial.seed for trial in plan.trials}) > 1
    return [
        TrackedTrial(
            key=trial.key,
            run_name=trial_label(trial.name[:_NAME_LENGTH], trial.seed if several and not trial.control else None),
            config=trial.plain_config,
            tags={
                **sweep.tags,
                **({tags.DESCRIPTION: sweep.notes} if sweep.notes else {}),
                tags.SWEEP: sweep.name,
                tags.TRIAL: trial.name,
                tags.SEED: str(trial.seed),
                **_search_tags(trial, plan),
            },
        )
        for trial in (*plan.trials, *plan.controls)
    ]


def _search_tags(trial: PlannedTrial[Any], plan: Plan[Any]) -> dict[str, str]:
    """Tags of a trial that a search proposed: the study and the proposals' numbers."""
    if plan.search is None or not trial.proposals:
        return {}
    numbers = ", ".join(map(str, trial.proposals))
    return {tags.SEARCH: plan.search.study, tags.SEARCH_NUMBER: numbers}


class Recorder:
    """Copies journals into MLflow while trials run; its failures never affect them."""

    def __init__(
        self, sweep: Sweep, plan: Plan[Any], home: Path, monitor: Monitor | None = None, say: Say = log.info
    ) -> None:
        """say: prints the reason for which the end has to be waited for."""
        self._sweep, self._home, self.plan, self._say = sweep, home, plan, say
        self._monitor = monitor or Monitor(home)
        self._tracked: tuple[Plan[Any], list[TrackedTrial]] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="mlflow-writer", daemon=True)
        self._tracker: Tracker | None = None
        self.error: str | None = None

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_SILENT_S)
        if self._thread.is_alive():
            uri = self._sweep.tracking.uri or default_uri(self._home)
            self._say(f"Waiting for the MLflow store {without_secrets(uri)}, which still records the last results")
        self._thread.join()

    def extend(self, larger: Plan[Any]) -> None:
        """Freezes a plan that has grown, and records its trials from now on."""
        freeze(larger, self._home)
        self.plan = larger

    def publish(self, report: Path) -> None:
        """Adds the report's page and the sweep's description to the experiment."""

        def write(tracker: Tracker) -> None:
            tracker.describe(_description(self._sweep, report))
            tracker.publish_report(self._sweep.name, report)

        self._attempt(write)

    def _drain(self) -> None:
        interval = min(_FIRST_SYNC_S, _SYNC_INTERVAL_S)
        while not self._stop.wait(interval):
            self._attempt(self._sync)
            interval = _SYNC_INTERVAL_S
        self._attempt(self._sync)

    def _sync(self, tracker: Tracker) -> None:
        tracker.sync(self._trials())
        self.error = None

    def _attempt(self, write: Callable[[Tracker], None]) -> None:
        """Writes to MLflow; where this fails, `error` says why, until all trials are recorded."""
        try:
            if self._tracker is None:
                self._tracker = _tracker(self._sweep, self.plan, self._home, self._monitor)
            write(self._tracker)
        except Exception as error:  # any error of a database or a server; the journals remain complete
            self.error = _unwritten(self._sweep, self._home, error)
            log.debug("%s", self.error)

    def _trials(self) -> list[TrackedTrial]:
        plan = self.plan
        if self._tracked is None or self._tracked[0] is not plan:
            self._tracked = plan, tracked_trials(self._sweep, plan)
        return self._tracked[1]


def _description(sweep: Sweep, report: Path) -> str:
    """The description of a sweep's experiment, in Markdown."""
    page = f"The run *report of {sweep.name}* has the report as an artifact; on the machine that wrote it: `{report}`"
    labels = [f"- {name}: {value}" for name, value in sweep.tags.items()]
    return "\n\n".join(part for part in (sweep.notes, "\n".join(labels), page) if part)


def _tracker(sweep: Sweep, plan: Plan[Any], home: Path, monitor: Monitor) -> Tracker:
    from jobs.tracking import Tracker  # seconds of imports

    return Tracker(home, sweep.tracking.uri, sweep.experiment, monitor, _largest_model(sweep, plan))


def _largest_model(sweep: Sweep, plan: Plan[Any]) -> float:
    """Bytes of weights up to which a network is recorded: by default the equal share of each trial that is trained."""
    proposed = plan.search.left * len(sweep.first_seeds) if plan.search is not None else 0
    trained = len(plan.trials) + proposed
    limits = {"never": 0.0, "always": math.inf, "auto": _MODELS_BYTES / max(trained, 1)}
    return limits[sweep.tracking.models]


def _unwritten(sweep: Sweep, home: Path, error: Exception) -> str:
    """The reason why MLflow is incomplete, with the remedy if one is known."""
    uri = sweep.tracking.uri or default_uri(home)
    if isinstance(error, ResultsError):
        return str(error)
    return store_problem(uri, error, "written", command("sync", sweep, home))


def require_driver(sweep: Sweep) -> None:
    """Raises `ResultsError` where the driver of the store's database is missing; called before trials run."""
    if sweep.tracking.uri is not None and is_database(sweep.tracking.uri):
        from results import sql

        sql.require_driver(sweep.tracking.uri)
