"""How fast a report is built from many runs, and with how much memory, beside what MLflow's own calls take.

The store is SQLite with local artifacts, filled as trials fill it: tags, parameters, metrics over steps and per-object
scores of each run.  Every case runs in a process of its own, so that its imports and its peak of memory count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from sweep.bench.measure import BenchResult, machine
from sweep.bench.report_cases import CASES, SWEEP

SEEDS = 4
VIEW_KINDS = ("conditioned", "novel")
#: per view kind; the first three are those of the tables
METRICS = ("psnr", "ssim", "lpips", *(f"extra_{index}" for index in range(7)))
TARGET_SECONDS, TARGET_MIB = 10.0, 1024.0
_STARTED = 1_772_366_400_000  # milliseconds, of every run
_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Size:
    """How much is recorded; every run has 2 x `len(METRICS)` metrics of each object."""

    runs: int
    objects: int
    steps: int  # points of the training loss


def run(quick: bool) -> BenchResult:
    """The whole report, its loading alone, and MLflow's way of loading the same scores."""
    size = Size(runs=40, objects=10, steps=20) if quick else Size(runs=2000, objects=100, steps=60)
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory(prefix="splatsweep-bench-") as folder:
        home = Path(folder)
        fill(home, size)
        samples: dict[str, list[dict[str, float]]] = {case: [] for case in CASES}
        for _ in range(rounds):
            for case in CASES:
                samples[case].append(in_process(case, home))
    rows = [
        {
            "case": case,
            "runs": size.runs,
            "metrics": len(VIEW_KINDS) * len(METRICS),
            "objects": size.objects,
            **{name: median(sample[name] for sample in found) for name in ("seconds", "processor s", "peak MiB")},
        }
        for case, found in samples.items()
    ]
    note = (
        f"Target of report: below {TARGET_SECONDS:g} s and {TARGET_MIB:g} MiB. "
        "Of a fresh process, with its imports; processor s counts all of its threads."
    )
    return BenchResult("report", machine(), rows, [note])


def in_process(case: str, home: Path) -> dict[str, float]:
    """Seconds and peak of resident memory of one case."""
    done = subprocess.run(
        [sys.executable, "-m", "sweep.bench.report_cases", case, str(home)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def fill(home: Path, size: Size) -> None:
    """A home with a plan of `size.runs` finished trials, four seeds each, and the MLflow store of their runs."""
    from mlflow import MlflowClient
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import create_engine, insert
    from sqlalchemy.pool import NullPool

    uri = f"sqlite:///{home / 'mlflow.db'}"
    artifacts = home / "artifacts"
    experiment = MlflowClient(uri).create_experiment(SWEEP, artifact_location=artifacts.as_uri())
    trials = [_trial(index) for index in range(size.runs)]
    plan = {"sweep": SWEEP, "created": "2026-03-01T12:00:00+00:00", "trials": trials, "controls": []}
    (home / "sweeps" / SWEEP).mkdir(parents=True)
    (home / "sweeps" / SWEEP / "plan.json").write_text(json.dumps(plan))
    tables: dict[Any, Iterator[dict[str, Any]]] = {
        models.SqlRun: (_run(trial, experiment, artifacts) for trial in trials),
        models.SqlTag: (row for trial in trials for row in _tags(trial)),
        models.SqlParam: (row for trial in trials for row in _params(trial)),
        models.SqlMetric: (row for trial in trials for row in _metrics(trial, size.steps)),
        models.SqlLatestMetric: (row for trial in trials for row in _latest(trial, size.steps)),
    }
    with create_engine(uri, poolclass=NullPool).begin() as connection:
        for model, rows in tables.items():
            kept = list(rows)
            for start in range(0, len(kept), _ROWS_AT_ONCE):
                connection.execute(insert(model), kept[start : start + _ROWS_AT_ONCE])
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=size.objects)
    for index, trial in enumerate(trials):
        folder = artifacts / trial["key"] / "artifacts"
        folder.mkdir(parents=True)
        _scores(index, difficulty, rng).to_parquet(folder / "per_object.parquet", index=False)


def _trial(index: int) -> dict[str, Any]:
    """One entry of the plan: a grid over three settings, the first being the baseline."""
    name, seed = divmod(index, SEEDS)
    settings = {"depth": {"weight": name % 10}, "semantic": {"dim": name // 10 % 10}, "train": {"lr": name // 100}}
    label = "baseline" if name == 0 else f"variant {name}"
    common = {"status": "finished", "names": [label], "config": settings | {"seed": seed}}
    return {"key": f"{index:016x}", "name": label, "seed": seed, **common}


def _run(trial: dict[str, Any], experiment: str, artifacts: Path) -> dict[str, Any]:
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
        "artifact_uri": (artifacts / trial["key"] / "artifacts").as_uri(),
    }


def _tags(trial: dict[str, Any]) -> Iterator[dict[str, str]]:
    identity = {"key": trial["key"], "status": "finished", "trial": trial["name"], "seed": str(trial["seed"])}
    versions = {f"version.package_{index}": "1.0" for index in range(15)}
    for name, value in {**identity, **versions, "data_fingerprint": "0" * 64}.items():
        yield {"run_uuid": f"{trial['key']:0>32}", "key": f"splatsweep.{name}", "value": value}


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
    """Per-object scores; objects differ more than trials do, as they really do."""
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
