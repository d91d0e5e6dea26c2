"""MLflow -> tidy frames: trial x seed x object x view kind x metric.

What was planned comes from the sweep's frozen plan, what was measured from MLflow; the two are joined by key.
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

from results.gallery import TrialSamples, read_samples
from results.plan import FrozenPlan, PlannedTrial, read_plan
from results.store import ResultStore, Run

#: metrics of the tables, as published: on unclamped renders
METRICS = ("psnr", "ssim", "lpips")
VIEW_KINDS = ("conditioned", "novel")

RESULT_COLUMNS = ["trial", "key", "seed", "split", "object", "view_kind", "metric", "value"]
CURVE_COLUMNS = ["trial", "key", "seed", "metric", "step", "value"]
TRIAL_COLUMNS = ["trial", "names", "key", "seed", "control", "state", "note", "run_id"]

#: states of a trial; "unrecorded" is finished on disk, but without usable results in MLflow
STATES = ("finished", "running", "pending", "interrupted", "failed", "unrecorded")

_PER_OBJECT = ["object", "split", "view_kind", "metric", "value"]


class TrackingOptions(Protocol):
    """Where a sweep is tracked; null means the home's own store."""

    @property
    def uri(self) -> str | None: ...


class SweepLike(Protocol):
    """All that results need of a sweep."""

    @property
    def name(self) -> str: ...

    @property
    def tracking(self) -> TrackingOptions: ...


@dataclass(frozen=True)
class TrialRecord:
    """A planned trial together with what the store knows of it."""

    planned: PlannedTrial
    run: Run | None
    state: str
    #: why there are no results, or ""
    note: str
    #: columns object, split, view_kind, metric, value; None unless the state is "finished"
    per_object: pd.DataFrame | None


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

    def results(self, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
        """One row per finished trial, object, view kind and metric; columns `RESULT_COLUMNS`."""
        frames = [
            frame.loc[frame["metric"].isin(metrics), _PER_OBJECT].assign(
                trial=record.planned.name, key=record.planned.key, seed=record.planned.seed
            )
            for record in self.records
            if (frame := record.per_object) is not None
        ]
        if not frames:
            return pd.DataFrame(columns=RESULT_COLUMNS).astype({"seed": "int64", "value": "float64"})
        return pd.concat(frames, ignore_index=True)[RESULT_COLUMNS]

    def curves(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """One row per recorded step of `metrics`, by default all of `train/` and `val/`: `CURVE_COLUMNS`."""
        rows = [
            (record.planned.name, record.planned.key, record.planned.seed, metric, step, value)
            for record in self.records
            if record.run
            for metric in record.run.metrics
            if (metric in metrics if metrics is not None else metric.startswith(("train/", "val/")))
            for step, value in self.store.history(record.run, metric)
        ]
        return pd.DataFrame(rows, columns=CURVE_COLUMNS).astype({"seed": "int64", "step": "int64", "value": "float64"})

    @cached_property
    def samples(self) -> tuple[TrialSamples, ...]:
        """The sample renders of every finished trial that has readable ones, in the plan's order."""
        return tuple(sample for record in self.records if (sample := self._samples_of(record)) is not None)

    def _samples_of(self, record: TrialRecord) -> TrialSamples | None:
        if record.run is None or record.state != "finished":
            return None
        try:
            with self.store.artifact(record.run, "samples.npz") as path:
                return read_samples(path, record.planned.name, record.planned.key, record.planned.seed)
        except (OSError, ValueError):
            return None


def read_evidence(sweep: SweepLike, home: Path | str) -> Evidence:
    """Join a sweep's plan and its runs.  Raises `ResultsError` for a sweep that was never planned."""
    home = Path(home).absolute()
    plan = read_plan(sweep.name, home)
    store = ResultStore.of(home, sweep.tracking.uri)
    runs = store.runs()
    records = tuple(_record(trial, runs.get(trial.key), store) for trial in plan.trials)
    return Evidence(plan, store, records)


def load_results(sweep: SweepLike, home: Path | str, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Per-object scores of every finished trial of `sweep`.

    Columns: trial, key, seed, split, object, view_kind (conditioned|novel), metric, value (the mean over the
    object's views of that kind).  The trivial rows are trials like any other (`blank`, `copy_input`).  A key
    that several names were folded onto appears under its first name only.
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


def _record(planned: PlannedTrial, run: Run | None, store: ResultStore) -> TrialRecord:
    state = run.status if run else planned.status
    if run is None and state == "finished":
        return TrialRecord(planned, run, "unrecorded", "finished, but not in MLflow: `splatsweep sync`", None)
    if run is None or state != "finished":
        note = run.tags.get("splatsweep.error", "") if run else ""
        return TrialRecord(planned, run, state, note, None)
    try:
        return TrialRecord(planned, run, state, "", _per_object(run, store))
    except (OSError, ValueError) as error:
        return TrialRecord(planned, run, "unrecorded", f"{error}: `splatsweep sync`", None)


def _per_object(run: Run, store: ResultStore) -> pd.DataFrame:
    with store.artifact(run, "per_object.parquet") as path:
        frame = pd.read_parquet(path)
    missing = [column for column in _PER_OBJECT if column not in frame.columns]
    if missing:
        raise ValueError(f"per_object.parquet of run {run.run_id} lacks {', '.join(missing)}")
    return frame[_PER_OBJECT].astype({"value": np.float64})
