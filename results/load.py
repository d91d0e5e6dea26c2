"""MLflow -> tidy frames: trial x seed x object x view kind x metric.

Trials come from the sweep's frozen plan, measurements from MLflow; the two are joined by key.
A planned trial without results is never dropped: `load_trials` lists it with its state and the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.gallery import TrialSamples, read_pictures
from results.metrics import PUBLISHED
from results.records import tags
from results.records.plan import FrozenPlan, RecordedTrial, read_plan
from results.records.trial_folder import MEASUREMENTS_FILENAME, SAMPLES_FILENAME
from results.runs import Run
from results.store import ResultStore

RESULT_COLUMNS = ["trial", "key", "seed", "split", "object", "view_kind", "metric", "value"]
CURVE_COLUMNS = ["trial", "key", "seed", "metric", "step", "value"]
TRIAL_COLUMNS = ["trial", "names", "key", "seed", "control", "state", "note", "run_id"]

#: states of a trial; "unrecorded" is finished on disk, but without usable results in MLflow
STATES = ("finished", "running", "pending", "to be judged", "interrupted", "failed", "pruned", "unrecorded")

#: state -> the tag of a run that holds the reason
_NOTES = {"failed": tags.ERROR, "pruned": tags.PRUNED}

_PER_OBJECT = ["object", "split", "view_kind", "metric", "value"]


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
    #: columns object, split, view_kind, metric (dictionary-encoded), value; None unless the state is "finished"
    per_object: pa.Table | None


@dataclass(frozen=True)
class Evidence:
    """Everything recorded of one sweep: a plan, and for each of its trials a record, in the plan's order."""

    plan: FrozenPlan
    store: ResultStore
    records: tuple[TrialRecord, ...]

    def trials(self) -> pd.DataFrame:
        """One row per planned trial, finished or not; columns `TRIAL_COLUMNS`."""
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
        if not len(self._scores):
            return pd.DataFrame(columns=RESULT_COLUMNS).astype({"seed": "int64", "value": "float64"})
        chosen = pc.is_in(self._scores["metric"].cast(pa.string()), pa.array(metrics, pa.string()))
        return self._scores.filter(chosen).select(RESULT_COLUMNS).to_pandas()

    @cached_property
    def _scores(self) -> pa.Table:
        """The scores of all finished trials, each with its trial."""
        finished = [(record.per_object, record.planned) for record in self.records if record.per_object is not None]
        if not finished:
            return pa.table({})
        scores = pa.concat_tables([table for table, _ in finished]).unify_dictionaries()
        rows = [len(table) for table, _ in finished]
        for column, values in (
            ("trial", [trial.name for _, trial in finished]),
            ("key", [trial.key for _, trial in finished]),
        ):
            codes, names = pd.factorize(np.array(values, object))
            repeated = pa.DictionaryArray.from_arrays(np.repeat(codes.astype(np.int32), rows), pa.array(names))
            scores = scores.append_column(column, repeated)
        return scores.append_column("seed", pa.array(np.repeat([trial.seed for _, trial in finished], rows)))

    def curves(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per recorded step of `metrics`, by default all of `train/` and `val/`: `CURVE_COLUMNS`."""
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
        found = self.store.read([run for _, run in trials], SAMPLES_FILENAME, read_pictures)
        return tuple(
            TrialSamples(planned.name, planned.key, planned.seed, *pictures)
            for (planned, _), pictures in zip(trials, found, strict=True)
            if not isinstance(pictures, Exception)
        )


def read_evidence(sweep: SweepLike, home: Path | str, plan_name: str | None = None) -> Evidence:
    """Join a sweep's plan, the last or an earlier one, and its runs.

    Raises `ResultsError` for a sweep that was never planned, and for a plan that it does not have.
    """
    home = Path(home).absolute()
    plan = read_plan(sweep.name, home, plan_name)
    planned = (*plan.trials, *plan.controls)
    store = ResultStore.of(home, sweep.tracking.uri)
    runs = store.runs()
    finished = [runs[trial.key] for trial in planned if trial.key in runs and runs[trial.key].status == "finished"]
    files = store.read(finished, MEASUREMENTS_FILENAME, _per_object)
    found = dict(zip((run.key for run in finished), files, strict=True))
    records = tuple(_record(trial, runs.get(trial.key), found.get(trial.key)) for trial in planned)
    return Evidence(plan, store, records)


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


def _record(planned: RecordedTrial, run: Run | None, per_object: pa.Table | Exception | None) -> TrialRecord:
    state = run.status if run else planned.status
    if run is None and state == "finished":
        return TrialRecord(planned, run, "unrecorded", "finished, but not in MLflow: `splatsweep sync`", None)
    if run is None or state != "finished":
        note = run.tags.get(_NOTES.get(state, ""), "") if run else ""
        return TrialRecord(planned, run, state, note, None)
    if isinstance(per_object, Exception):
        return TrialRecord(planned, run, "unrecorded", f"{per_object}: `splatsweep sync`", None)
    return TrialRecord(planned, run, state, "", per_object)


def _per_object(path: Path) -> pa.Table:
    """The columns `_PER_OBJECT` of a file.  Raises `ValueError` naming the file and the problem."""
    try:
        return _read_per_object(path)
    except (pa.ArrowException, NotImplementedError, TypeError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{path} cannot be used: {why}") from error


def _read_per_object(path: Path) -> pa.Table:
    *text, _ = _PER_OBJECT
    metadata = pq.read_metadata(path)
    missing = [column for column in _PER_OBJECT if column not in metadata.schema.names]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    # Pre-buffering suits remote stores: it makes reading files of some kilobytes three times slower.
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=text, pre_buffer=False) as file:
        table = file.read(_PER_OBJECT, use_threads=False)
    kinds = [(name, pa.dictionary(pa.int32(), pa.string())) for name in text]
    return table.cast(pa.schema([*kinds, ("value", pa.float64())]))
