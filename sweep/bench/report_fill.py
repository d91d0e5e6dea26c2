"""Fills stores for the benchmark `report` as trials do: with tags, parameters, metrics over steps and scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from results.address import default_uri
from results.records.hashing import file_sha256
from results.records.home import artifacts_folder, plan_file, sweep_folder
from results.records.tags import HASHES, PREFIX
from results.records.trial_folder import MEASUREMENTS_FILENAME
from sweep.bench.report_cases import SWEEP

SEEDS = 4
VIEW_KINDS = ("conditioned", "novel")
#: per view kind; the first three are those of the tables
METRICS = ("psnr", "ssim", "lpips", *(f"extra_{index}" for index in range(7)))
_STARTED = 1_772_366_400_000  # milliseconds, of every run
_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Size:
    """The amount of data; every run has 2 x `len(METRICS)` metrics of each object."""

    runs: int
    objects: int
    steps: int  # points of the training loss


@dataclass(frozen=True)
class Place:
    """The locations of a store's data."""

    #: the database's address for SQLAlchemy
    database: str
    artifacts: Path
    #: the artifact folder's address in the runs
    artifact_uri: str

    @classmethod
    def in_home(cls, home: Path, database: str | None = None) -> Place:
        """Artifacts, and unless there is another database a SQLite file, in a home."""
        folder = artifacts_folder(home)
        return cls(database or default_uri(home), folder, folder.as_uri())


def fill(home: Path, size: Size, place: Place) -> None:
    """A plan of `size.runs` finished trials in a home, four seeds each, and the MLflow store of their runs."""
    from mlflow import MlflowClient
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import create_engine, insert
    from sqlalchemy.pool import NullPool

    experiment = MlflowClient(place.database).create_experiment(SWEEP, artifact_location=place.artifact_uri)
    trials = [_trial(index) for index in range(size.runs)]
    plan = {"sweep": SWEEP, "created": "2026-03-01T12:00:00+00:00", "trials": trials, "controls": []}
    sweep_folder(home, SWEEP).mkdir(parents=True)
    plan_file(home, SWEEP).write_text(json.dumps(plan))
    hashes = _write_scores(trials, size, place.artifacts)
    tables: dict[Any, Iterator[dict[str, Any]]] = {
        models.SqlRun: (_run(trial, experiment, place.artifact_uri) for trial in trials),
        models.SqlTag: (row for trial, sha256 in zip(trials, hashes, strict=True) for row in _tags(trial, sha256)),
        models.SqlParam: (row for trial in trials for row in _params(trial)),
        models.SqlMetric: (row for trial in trials for row in _metrics(trial, size.steps)),
        models.SqlLatestMetric: (row for trial in trials for row in _latest(trial, size.steps)),
    }
    with create_engine(place.database, poolclass=NullPool).begin() as connection:
        for model, rows in tables.items():
            kept = list(rows)
            for start in range(0, len(kept), _ROWS_AT_ONCE):
                connection.execute(insert(model), kept[start : start + _ROWS_AT_ONCE])


def _write_scores(trials: list[dict[str, Any]], size: Size, artifacts: Path) -> list[str]:
    """Writes each trial's scores to a file; returns the files' hashes."""
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=size.objects)
    hashes = []
    for index, trial in enumerate(trials):
        path = artifacts / trial["key"] / "artifacts" / MEASUREMENTS_FILENAME
        path.parent.mkdir(parents=True)
        _scores(index, difficulty, rng).to_parquet(path, index=False)
        hashes.append(file_sha256(path))
    return hashes


def _trial(index: int) -> dict[str, Any]:
    """One entry of the plan: a grid over three settings, the first being the baseline."""
    name, seed = divmod(index, SEEDS)
    settings = {"depth": {"weight": name % 10}, "semantic": {"dim": name // 10 % 10}, "train": {"lr": name // 100}}
    label = "baseline" if name == 0 else f"variant {name}"
    common = {"status": "finished", "names": [label], "config": settings | {"seed": seed}}
    return {"key": f"{index:016x}", "name": label, "seed": seed, **common}


def _run(trial: dict[str, Any], experiment: str, artifact_uri: str) -> dict[str, Any]:
    return {
        "run_uuid": f"{trial['key']:0>32}",
        "name": trial["name"],
        "experiment_id": int(experiment),
        "lifecycle_stage": "active",
        "status": "FINISHED",
        "source_type": "LOCAL",
        "user_id": "bench",
        "start_time": _STARTED,
        "end_time": _STARTED + 60_000,
        "artifact_uri": f"{artifact_uri}/{trial['key']}/artifacts",
    }


def _tags(trial: dict[str, Any], sha256: str) -> Iterator[dict[str, str]]:
    identity = {"key": trial["key"], "status": "finished", "trial": trial["name"], "seed": str(trial["seed"])}
    versions = {f"version.package_{index}": "1.0" for index in range(15)}
    data = {"data_fingerprint": "0" * 64, "data_checksum": "1" * 64}
    tags = {PREFIX + name: value for name, value in {**identity, **versions, **data}.items()}
    for name, value in {**tags, HASHES: json.dumps({MEASUREMENTS_FILENAME: sha256})}.items():
        yield {"run_uuid": f"{trial['key']:0>32}", "key": name, "value": value}


def _params(trial: dict[str, Any]) -> Iterator[dict[str, str]]:
    for index in range(40):
        yield {"run_uuid": f"{trial['key']:0>32}", "key": f"section.setting_{index}", "value": str(index)}


def _metrics(trial: dict[str, Any], steps: int) -> Iterator[dict[str, Any]]:
    for step in range(1, steps + 1):
        yield _point(trial, "train/loss", 1 / step, step)
    yield from _latest(trial, steps, without=("train/loss",))


def _latest(trial: dict[str, Any], steps: int, without: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    scores = {f"{kind}/{metric}": 20.0 for kind in VIEW_KINDS for metric in METRICS}
    for name, value in {"train/loss": 1 / steps, "val/psnr": 20.0, **scores}.items():
        if name not in without:
            yield _point(trial, name, value, steps)


def _point(trial: dict[str, Any], name: str, value: float, step: int) -> dict[str, Any]:
    run_id = f"{trial['key']:0>32}"
    moment = _STARTED + step
    return {"run_uuid": run_id, "key": name, "value": value, "step": step, "timestamp": moment, "is_nan": False}


def _scores(index: int, difficulty: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Per-object scores; objects differ more than trials, as in real data."""
    effect = 0.1 * (index // SEEDS % 10)
    objects = len(difficulty)
    columns = [(kind, metric) for kind in VIEW_KINDS for metric in METRICS]
    values = [20 + effect + difficulty + 0.2 * rng.normal(size=objects) for _ in columns]
    return pd.DataFrame(
        {
            "object": np.tile([f"object_{number}" for number in range(objects)], len(columns)),
            "split": "test",
            "view_kind": np.repeat([kind for kind, _ in columns], objects),
            "metric": np.repeat([metric for _, metric in columns], objects),
            "value": np.concatenate(values),
        }
    )
