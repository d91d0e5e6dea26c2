"""All trials of a home, planned or not: states, scores, sizes on disk, and the sweeps that plan them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.records.disk import size_of
from results.records.frozen_plans import read_earlier_plans, read_plan, read_plans
from results.records.home import training_folder, trial_folder, trials_folder
from results.records.monitor import Monitor
from results.records.plan import FrozenPlan, States, Status
from results.records.training_folder import training_of
from results.records.trial_folder import read_config


@dataclass(frozen=True)
class HomeTrial:
    """One trial of a home."""

    key: str
    #: names in the plans that have it, current ones first; empty where no plan has it
    names: tuple[str, ...]
    #: None where it is not recorded
    seed: int | None
    #: whether it is a trivial baseline, predicted without training
    control: bool
    state: Status
    #: newest value of every score: "novel/psnr", ...; empty before its evaluation
    scores: Mapping[str, float]
    #: bytes of its own folder
    size: int
    #: key of its training; None for a trivial baseline
    training: str | None
    #: bytes of its training's folder, which other trials may share
    training_size: int
    #: sweeps whose plans have it
    sweeps: tuple[str, ...]
    #: sweeps of which only an earlier plan has it
    earlier: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its first name, or nothing."""
        return self.names[0] if self.names else ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "key": self.key,
            "names": list(self.names),
            "seed": self.seed,
            "control": self.control,
            "state": self.state,
            "scores": dict(self.scores),
            "bytes": self.size,
            "training": self.training,
            "training_bytes": self.training_size,
            "sweeps": list(self.sweeps),
            "earlier_sweeps": list(self.earlier),
        }


@dataclass
class _Known:
    """Facts from plans on one key."""

    seed: int | None = None
    control: bool = False
    training: str | None = None
    missing: tuple[str, ...] = ()
    names: dict[str, None] = field(default_factory=dict)
    sweeps: dict[str, None] = field(default_factory=dict)
    earlier: dict[str, None] = field(default_factory=dict)


def home_trials(home: Path, sweep: str | None = None) -> list[HomeTrial]:
    """The trials of a home, or of one sweep's plan: planned ones in the order of their plans, then all others.

    Raises `PlanError` for a sweep without a plan.
    """
    known: dict[str, _Known] = {}
    for plan in read_plans(home) if sweep is None else (read_plan(sweep, home),):
        _add(known, plan, earlier=False)
    planned = list(known)
    for plan in read_earlier_plans(home):
        _add(known, plan, earlier=True)
    others = sorted((set(known) | begun_keys(home)) - set(planned)) if sweep is None else []
    states = States(monitor := Monitor(home))
    sizes: dict[str, int] = {}
    return [_trial(home, key, known.get(key, _Known()), states, monitor, sizes) for key in (*planned, *others)]


def _add(known: dict[str, _Known], plan: FrozenPlan, earlier: bool) -> None:
    for trial in (*plan.trials, *plan.controls):
        facts = known.setdefault(trial.key, _Known(trial.seed, trial.control, trial.training, trial.missing))
        facts.names.update(dict.fromkeys(trial.names))
        if not earlier:
            facts.sweeps[plan.sweep] = None
        elif plan.sweep not in facts.sweeps:
            facts.earlier[plan.sweep] = None


def begun_keys(home: Path) -> set[str]:
    """Keys of the trials that have a folder."""
    folder = trials_folder(home)
    found = folder.iterdir() if folder.is_dir() else ()
    return {path.name for path in found if path.is_dir() and not path.name.startswith(".")}


def _trial(home: Path, key: str, known: _Known, states: States, monitor: Monitor, sizes: dict[str, int]) -> HomeTrial:
    folder = trial_folder(home, key)
    training = known.training or training_of(folder)
    if training is not None and training not in sizes:
        sizes[training] = size_of(training_folder(home, training))
    seed = known.seed if known.names else (read_config(folder) or {}).get("seed")
    result = monitor.look(key).result
    return HomeTrial(
        key=key,
        names=tuple(known.names),
        seed=seed,
        control=known.control,
        state=states.of(key, training, known.missing),
        scores=dict(result["metrics"]) if result else {},
        size=size_of(folder),
        training=training,
        training_size=sizes.get(training, 0) if training else 0,
        sweeps=tuple(known.sweeps),
        earlier=tuple(known.earlier),
    )
