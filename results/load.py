"""MLflow -> tidy frames: trial x seed x object x view kind x metric.

Trials come from the sweep's frozen plan, measurements from MLflow; the two are joined by key.
A planned trial without results is never dropped: `load_trials` lists it with its state and the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from results.costs import KIND, Costs, costs_of, read_costs
from results.invocation import command
from results.measurements import TEXT_COLUMNS, Measurements, Texts, read_measurements
from results.metrics import PUBLISHED
from results.records import tags
from results.records.frozen_plans import read_plan
from results.records.home import cache_folder, training_folder, trial_folder
from results.records.monitor import Monitor, TrialProgress
from results.records.plan import FrozenPlan, RecordedTrial
from results.records.training_folder import read_training
from results.records.trial_folder import COSTS_FILENAME, MEASUREMENTS_FILENAME, SAMPLES_FILENAME, Status, read_result
from results.runs import Run
from results.store import ResultStore

if TYPE_CHECKING:
    import pandas as pd

    from results.gallery import TrialSamples

RESULT_COLUMNS = ["trial", "key", "seed", "split", "object", "view_kind", "metric", "value"]
CURVE_COLUMNS = ["trial", "key", "seed", "metric", "step", "value"]
TRIAL_COLUMNS = ["trial", "names", "key", "seed", "control", "state", "note", "run_id"]

#: states of a trial; "unrecorded" is finished on disk, but without usable results in MLflow
STATES = ("finished", "running", "pending", "to be evaluated", "interrupted", "failed", "pruned", "unrecorded")

#: state -> the tag of a run that holds the reason
_NOTES = {"failed": tags.ERROR, "pruned": tags.PRUNED}


class TrackingOptions(Protocol):
    """Address of a sweep's MLflow store; null means the home's own."""

    @property
    def uri(self) -> str | None: ...


class SweepLike(Protocol):
    """The fields of a sweep that this package reads."""

    @property
    def name(self) -> str: ...

    @property
    def tracking(self) -> TrackingOptions: ...


@dataclass(frozen=True)
class TrialRecord:
    """A planned trial with its run in the store."""

    planned: RecordedTrial
    run: Run | None
    state: str
    #: why there are no results, or ""
    note: str
    #: None unless the state is "finished"
    per_object: Measurements | None
    costs: Costs = field(default_factory=Costs)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of all finished trials of a sweep below each other, each with its trial."""

    measured: Measurements  # N
    trial: Texts
    key: Texts
    seed: NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class Evidence:
    """Everything recorded of one sweep: a plan, and for each of its trials a record, in the plan's order."""

    plan: FrozenPlan
    store: ResultStore
    records: tuple[TrialRecord, ...]

    def trials(self) -> pd.DataFrame:
        """One row per planned trial, finished or not; columns `TRIAL_COLUMNS`."""
        import pandas as pd

        rows = [
            (
                record.planned.name,
                record.planned.names,
                record.planned.key,
                record.planned.seed,
                record.planned.control,
                record.state,
                record.note,
                record.run.run_id if record.run else None,
            )
            for record in self.records
        ]
        return pd.DataFrame(rows, columns=TRIAL_COLUMNS)

    def results(self, metrics: Sequence[str] = PUBLISHED) -> pd.DataFrame:
        """One row per finished trial, object, view kind and metric; columns `RESULT_COLUMNS`, text as categories."""
        import pandas as pd

        scores = self.scores
        chosen = scores.measured.metric.among(metrics)
        texts = {"trial": scores.trial, "key": scores.key}
        texts |= {name: getattr(scores.measured, name) for name in TEXT_COLUMNS}
        columns: dict[str, Any] = {
            name: pd.Categorical.from_codes(text.codes[chosen], pd.Index(text.names, dtype=object))
            for name, text in texts.items()
        }
        columns |= {"seed": scores.seed[chosen], "value": scores.measured.value[chosen]}
        return pd.DataFrame(columns)[RESULT_COLUMNS]

    @cached_property
    def scores(self) -> ScoreTable:
        """The scores of all finished trials."""
        finished = [
            (_with_costs(record.per_object, record.costs), record.planned)
            for record in self.records
            if record.per_object is not None
        ]
        rows = [len(measured) for measured, _ in finished]
        return ScoreTable(
            Measurements.joined([measured for measured, _ in finished]),
            Texts.repeated([trial.name for _, trial in finished], rows),
            Texts.repeated([trial.key for _, trial in finished], rows),
            np.repeat(np.array([trial.seed for _, trial in finished], np.int64), rows),
        )

    @property
    def categories(self) -> tuple[str, ...]:
        """The recorded categories of evaluated objects, in the order of the datasets."""
        return tuple(filter(None, self.scores.measured.category.names))

    def curves(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per recorded step of `metrics`, by default all of `train/` and `val/`: `CURVE_COLUMNS`."""
        import pandas as pd

        runs = [(record, record.run) for record in self.records if record.run]
        recorded = {metric for _, run in runs for metric in run.metrics}
        wanted = [name for name in recorded if (name in metrics if metrics else name.startswith(("train/", "val/")))]
        trials = pd.DataFrame(
            [(record.planned.name, record.planned.key, record.planned.seed, run.run_id) for record, run in runs],
            columns=["trial", "key", "seed", "run_id"],
        ).astype({"seed": "int64"})
        histories = self.store.histories([run for _, run in runs], sorted(wanted))
        return trials.merge(histories, on="run_id")[CURVE_COLUMNS]

    @cached_property
    def samples(self) -> tuple[TrialSamples, ...]:
        """The sample renders of every finished trial that has readable ones, in the plan's order."""
        finished = [
            (record.planned, record.run) for record in self.records if record.run and record.state == "finished"
        ]
        return self.samples_of(finished)

    def samples_of(self, trials: Sequence[tuple[RecordedTrial, Run]]) -> tuple[TrialSamples, ...]:
        """The sample renders of those among `trials` that have readable ones, in their order."""
        from results.gallery import TrialSamples, read_pictures

        found = self.store.read([run for _, run in trials], SAMPLES_FILENAME, read_pictures)
        return tuple(
            TrialSamples(planned.name, planned.key, planned.seed, *pictures, is_trivial=planned.control)
            for (planned, _), pictures in zip(trials, found, strict=True)
            if not isinstance(pictures, Exception)
        )


@dataclass(frozen=True)
class Recorded:
    """A plan and the runs of its trials, before any of their artifacts is read."""

    home: Path
    plan: FrozenPlan
    store: ResultStore
    #: by key; trials without a run have none
    runs: Mapping[str, Run]
    #: by key: the folders in this home of trials without a finished run
    here: Mapping[str, TrialProgress]
    #: the command that records what is missing
    sync: str

    @property
    def finished(self) -> list[Run]:
        """The finished runs, in the plan's order."""
        return [run for run in self.runs.values() if run.status == "finished"]

    @property
    def trials(self) -> tuple[RecordedTrial, ...]:
        """All trials of the plan."""
        return (*self.plan.trials, *self.plan.controls)

    def state(self, trial: RecordedTrial) -> tuple[str, str]:
        """State of a trial, before its scores are read, and the reason why it has none.

        Without a finished run its folder decides: a driver that was killed left the run as it was.
        """
        run, here = self.runs.get(trial.key), self.here.get(trial.key, TrialProgress())
        if run is not None and run.status == "finished":
            return "finished", ""
        if here.status == "finished":
            return "unrecorded", f"finished, but not in MLflow: `{self.sync}`"
        if here.status != "pending":
            return here.status, here.error or ""
        if run is not None:
            return run.status, run.tags.get(_NOTES.get(run.status, ""), "")
        # What a folder stated when the plan was made is outdated.
        return "pending" if trial.status in get_args(Status) else trial.status, ""

    def evidence(self) -> Evidence:
        """The runs with their scores."""
        cache = cache_folder(self.home) / "measurements"
        files = self.store.read(self.finished, MEASUREMENTS_FILENAME, lambda path: read_measurements(path, cache))
        found = dict(zip((run.key for run in self.finished), files, strict=True))
        records = tuple(self._record(trial, found.get(trial.key)) for trial in self.trials)
        return Evidence(self.plan, self.store, records)

    def _record(self, trial: RecordedTrial, per_object: Measurements | Exception | None) -> TrialRecord:
        run, (state, note) = self.runs.get(trial.key), self.state(trial)
        if isinstance(per_object, Exception):
            return TrialRecord(trial, run, "unrecorded", str(per_object), None)
        return TrialRecord(trial, run, state, note, per_object, self.costs.get(trial.key, Costs()))

    @cached_property
    def costs(self) -> Mapping[str, Costs]:
        """Costs of finished trials by key: of the trial's folder, else of its artifact, else its time of training."""
        found, recorded = {}, []
        trainings = {trial.key: trial.training for trial in self.plan.trials}
        for run in self.finished:
            try:
                found[run.key] = read_costs(trial_folder(self.home, run.key) / COSTS_FILENAME)
                continue
            except (OSError, ValueError):
                training = trainings.get(run.key)
            record = read_training(training_folder(self.home, training)) if training else None
            found[run.key] = costs_of({"train_s": record.get("seconds")} if record else {})
            if tags.artifact_hash(run.tags, COSTS_FILENAME) is not None:
                recorded.append(run)
        for run, costs in zip(recorded, self.store.read(recorded, COSTS_FILENAME, read_costs), strict=True):
            if not isinstance(costs, Exception):
                found[run.key] = costs
        return found


def read_recorded(sweep: SweepLike, home: Path | str, plan_name: str | None = None) -> Recorded:
    """Join a sweep's plan, the last or an earlier one, and its runs.

    Raises `ResultsError` for a sweep that was never planned, and for a plan that it does not have.
    """
    home = Path(home).absolute()
    plan = read_plan(sweep.name, home, plan_name)
    sync = command("sync", sweep, home)
    store = ResultStore.of(home, sweep.tracking.uri, sync)
    planned = [trial.key for trial in (*plan.trials, *plan.controls)]
    results = {key: read_result(trial_folder(home, key)) for key in planned}
    runs = store.runs({key: result["per_object_sha256"] for key, result in results.items() if result is not None})
    found = {key: runs[key] for key in planned if key in runs}
    here = Monitor(home).look_at(key for key in planned if key not in found or found[key].status != "finished")
    return Recorded(home, plan, store, found, here, sync)


def read_evidence(sweep: SweepLike, home: Path | str, plan_name: str | None = None) -> Evidence:
    """Join a sweep's plan, the last or an earlier one, its runs and their scores.

    Raises `ResultsError` for a sweep that was never planned, and for a plan that it does not have.
    """
    return read_recorded(sweep, home, plan_name).evidence()


def load_results(sweep: SweepLike, home: Path | str, metrics: Sequence[str] = PUBLISHED) -> pd.DataFrame:
    """Per-object scores of every finished trial of `sweep`.

    Columns: trial, key, seed, split, object, view_kind (conditioned|novel), metric, value (the mean over the
    object's views of that kind).  The trivial baselines (`blank`, `copy_input`) are trials like any other.  A key
    that has several names appears under its first name only.
    """
    return read_evidence(sweep, home).results(metrics)


def load_trials(sweep: SweepLike, home: Path) -> pd.DataFrame:
    """State of every planned trial.  Columns: trial, names, key, seed, control, state, note, run_id."""
    return read_evidence(sweep, home).trials()


def load_curves(sweep: SweepLike, home: Path, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Metrics over training iterations.  Columns: trial, key, seed, metric, step, value."""
    return read_evidence(sweep, home).curves(metrics)


def load_samples(sweep: SweepLike, home: Path) -> tuple[TrialSamples, ...]:
    """The sample renders of every finished trial, in the plan's order."""
    return read_evidence(sweep, home).samples


def _with_costs(measured: Measurements, costs: Costs) -> Measurements:
    """The scores of a trial and, as those of one more object without a name, its costs."""
    names, values = tuple(costs.values), list(costs.values.values())
    same = {
        name: Texts.repeated([text], [len(names)]) for name, text in (("object", ""), ("category", ""), ("split", ""))
    }
    kind, metric = Texts.repeated([KIND], [len(names)]), Texts.repeated(names, [1] * len(names))
    return Measurements.joined([measured, Measurements(**same, view_kind=kind, metric=metric, value=np.array(values))])
