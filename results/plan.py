"""The frozen plan of a sweep, as far as results need it: which trials there should be, under which names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import ResultsError


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a plan; `names` are all the names that were folded onto its key, `name` is the first."""

    key: str
    name: str
    names: tuple[str, ...]
    seed: int
    config: Mapping[str, Any]
    status: str
    #: whether this is a trivial row, predicted without training
    control: bool = False
    #: whether a search proposed it
    proposed: bool = False


@dataclass(frozen=True)
class FrozenPlan:
    """The plan that a sweep's trials were read from; controls follow the trials."""

    sweep: str
    created: str
    trials: tuple[PlannedTrial, ...]
    #: what the sweep's search is after, as tables name it, and which way: "maximize" or "minimize"
    searched: tuple[str, str] | None = None


def read_plan(sweep: str, home: Path) -> FrozenPlan:
    """Read `home/sweeps/<sweep>/plan.json`.  Raises `ResultsError` where it is missing or not a plan."""
    path = home / "sweeps" / sweep / "plan.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(
            f"sweep {sweep!r} has not been planned under {home}: there is no {path}; "
            "run `splatsweep run` on its sweep file first, or give the --home it ran under"
        ) from None
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} cannot be read as a plan ({error}); plan the sweep again") from error
    try:
        trials = [_planned(entry, control=False) for entry in content["trials"]]
        controls = [_planned(entry, control=True) for entry in content.get("controls", [])]
        unique: dict[str, PlannedTrial] = {}
        for trial in trials + controls:
            unique.setdefault(trial.key, trial)
        search = content.get("search")
        searched = (str(search["metric"]), str(search["direction"])) if search else None
        return FrozenPlan(str(content["sweep"]), str(content["created"]), tuple(unique.values()), searched)
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{path} is not a plan (at {error}); plan the sweep again") from error


def _planned(entry: Mapping[str, Any], control: bool) -> PlannedTrial:
    return PlannedTrial(
        key=entry["key"],
        name=entry["name"],
        names=tuple(entry.get("names") or [entry["name"]]),
        seed=int(entry["seed"]),
        config=entry["config"],
        status=entry["status"],
        control=control,
        proposed=bool(entry.get("proposals")),
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration -> `{"train.stages.0.losses.l2": 1.0}`: dots for mappings, indices for lists."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat
