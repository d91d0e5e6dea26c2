"""Evidence in memory, like that of `read_evidence`, but without a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.load import Evidence, TrialRecord
from results.measurements import Measurements, Texts
from results.records.plan import Plan, PlannedTrial, PrimaryMetric
from results.runs import Run
from results.store import ResultStore


def per_object(scores: Mapping[str, Any], categories: Sequence[str] = ()) -> Measurements:
    """The scores that a trial records, from column -> values of objects: {"novel_psnr": [20.0, 21.0]}.

    categories: those of the objects; empty where not recorded.
    """
    rows = [
        (f"object_{index}", categories[index] if categories else "", "test", *column.split("_", 1), float(value))
        for column, values in scores.items()
        for index, value in enumerate(values)
    ]
    *texts, values = zip(*rows, strict=True) if rows else [()] * 6
    return Measurements(*(Texts.repeated(column, [1] * len(column)) for column in texts), value=np.array(values, float))


def record(
    name: str,
    seed: int = 0,
    scores: Mapping[str, Any] | None = None,
    state: str = "finished",
    config: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    names: tuple[str, ...] = (),
    control: bool = False,
    categories: Sequence[str] = (),
) -> TrialRecord:
    """The record of a trial; `scores`, and the objects' `categories`, are used where `state` is "finished"."""
    key = f"{name}/{seed}"
    planned = PlannedTrial(key, names or (name,), seed, {**(config or {}), "seed": seed}, state, control=control)
    if state != "finished":
        return TrialRecord(planned, None, state, "", None)
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    run = Run(f"run of {key}", key, state, dict(tags or {}), (), "", moment, moment)
    return TrialRecord(planned, run, state, "", per_object(scores or {}, categories))


def evidence(*records: TrialRecord, primary: PrimaryMetric | None = None) -> Evidence:
    """The evidence of a sweep of these trials."""
    plan = Plan("study", "2026-03-01T12:00:00+00:00", tuple(item.planned for item in records), (), primary=primary)
    return Evidence(plan, ResultStore.of(Path("/nowhere"), None), records)


class Study:
    """Builders of records and evidence for tests."""

    record = staticmethod(record)
    evidence = staticmethod(evidence)

    @staticmethod
    def trained(
        name: str, mean: float, seeds: int = 3, objects: int = 20, column: str = "novel_psnr", **more: Any
    ) -> list[TrialRecord]:
        """Records of several seeds whose scores have exactly this mean; objects differ far more than seeds."""
        rng = np.random.default_rng(0)
        of_objects, of_seeds = rng.normal(0, 2, objects), rng.normal(0, 0.01, seeds)
        rest = np.random.default_rng(list(name.encode())).normal(0, 0.05, (seeds, objects))
        values = of_objects + of_seeds[:, None] + rest
        values += mean - values.mean()
        return [record(name, seed, {column: values[seed]}, **more) for seed in range(seeds)]


@pytest.fixture(scope="session")
def make() -> type[Study]:
    """Builders of trials and sweeps."""
    return Study
