"""Plan of a sweep: its trials with their keys, names and states, its search and its rule of seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeVar

from results.errors import ResultsError
from results.records.flat import flatten
from results.records.home import training_folder, trainings_folder, trials_folder
from results.records.ledger import proposal_name
from results.records.monitor import Monitor
from results.records.training_folder import read_training
from results.records.trial_folder import Status as RunStatus

#: state of a trial; a `blocked` one lacks a dataset or weights, and its key is not final; one `to be evaluated` has a
#: finished training
Status = RunStatus | Literal["blocked", "to be evaluated"]

#: states in which the outcome of a trial is final for its search
ENDED = ("finished", "failed", "pruned")


class PlanError(ResultsError):
    """A plan that is missing, cannot be read, or cannot be made."""


class Configuration(Protocol):
    """Protocol of a trial's typed configuration."""

    def identity(self) -> dict[str, Any]:
        """Plain JSON values."""
        ...


Config = TypeVar("Config", bound="Configuration | Mapping[str, Any]", covariant=True)


def trial_label(name: str, seed: int | None) -> str:
    """`NAME seed N`; the name alone where there is no seed, as with a trivial baseline."""
    return name if seed is None else f"{name} seed {seed}"


@dataclass(frozen=True)
class PlannedTrial(Generic[Config]):
    """One trial: a key, and all the names that lead to it; `config` is plain values in a plan that was read."""

    key: str
    names: tuple[str, ...]
    seed: int
    config: Config
    status: Status
    #: prerequisites it lacks, each with the command that provides it
    missing: tuple[str, ...] = ()
    #: numbers of the proposals of the sweep's search that it belongs to
    proposals: tuple[int, ...] = ()
    #: whether it is a trivial baseline, predicted without training
    control: bool = False
    #: key of the training that it evaluates; None for a trivial baseline, and in plans of earlier versions
    training: str | None = None
    #: settings under dotted keys that `config` omits, since they have the default of a key that was added later
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name that comes first in the sweep file."""
        return self.names[0]

    @property
    def label(self) -> str:
        """`NAME seed N`, or a trivial baseline's name."""
        return trial_label(self.name, None if self.control else self.seed)

    @cached_property
    def plain_config(self) -> Mapping[str, Any]:
        """The configuration as plain JSON values."""
        return self.config if isinstance(self.config, Mapping) else self.config.identity()

    @cached_property
    def flat_config(self) -> Mapping[str, Any]:
        """The configuration and the defaults that it omits, under dotted keys, e.g. `train.stages.0.losses.l2`."""
        return flatten(self.plain_config) | dict(self.defaults)

    @cached_property
    def steps(self) -> int:
        """Training iterations; 0 where nothing is trained."""
        return sum(stage["iterations"] for stage in self.plain_config.get("train", {}).get("stages", ()))

    @property
    def is_proposed_only(self) -> bool:
        """Whether only the search requested this trial."""
        return len(self.proposals) == len(self.names)

    @property
    def is_unfinished(self) -> bool:
        """Whether work remains; failed and search-pruned trials have none.

        A pruned trial that the sweep file also names is unfinished.
        """
        return self.status in ("pending", "to be evaluated", "running", "interrupted") or (
            self.status == "pruned" and not self.is_proposed_only
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `plan.json` holds them."""
        return {
            "key": self.key,
            "name": self.name,
            "names": list(self.names),
            "seed": self.seed,
            "config": self.plain_config,
            "status": self.status,
            "training": self.training,
            "defaults": dict(self.defaults),
        } | {name: list(value) for name in ("missing", "proposals") if (value := getattr(self, name))}


#: a trial of a plan that was read from its file
RecordedTrial = PlannedTrial[Mapping[str, Any]]


@dataclass(frozen=True)
class SearchState:
    """Progress of a sweep's search; its trials are among those of the plan."""

    #: identifies the search: another space or base is another study
    study: str
    metric: str
    direction: str
    #: configurations to propose in total
    wanted: int
    #: how many it has proposed
    proposed: int = 0
    #: proposals with trials that have not ended
    open: tuple[int, ...] = ()
    #: prerequisites it lacks, each with the command that provides it
    missing: tuple[str, ...] = ()

    @property
    def ended(self) -> int:
        """Proposals whose outcome is known."""
        return self.proposed - len(self.open)

    @property
    def left(self) -> int:
        """Configurations that remain to be tried."""
        return max(self.wanted - self.ended, 0)

    @property
    def next_name(self) -> str:
        """Name of the next proposal."""
        return proposal_name(self.proposed)

    def refreshed(self, trials: Iterable[PlannedTrial[Any]], proposed: int | None = None) -> SearchState:
        """The state updated from the current states of `trials`, all trials of the plan."""
        waiting = {number for trial in trials if trial.status not in ENDED for number in trial.proposals}
        return replace(self, open=tuple(sorted(waiting)), proposed=self.proposed if proposed is None else proposed)

    def __str__(self) -> str:
        total = max(self.wanted, self.proposed)
        return f"search: {self.ended} of {total} configurations tried, {self.left} left ({self.metric})"


#: state of a row whose seeds are added until it is decided; a `futile` one would be decided by chance alone, and an
#: `undecided` one has all seeds
RowState = Literal["better", "worse", "futile", "undecided", "open"]


@dataclass(frozen=True)
class Ruling:
    """The state of one row against the baseline, from the scores of its first seeds."""

    row: str
    state: RowState
    #: seeds that it rests on; those measured so far where the row is open
    seeds: int
    #: seeds that the row should have
    wanted: int
    #: mean of (row - baseline) over these seeds, with the interval of its last test; None before the first test
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    #: the t statistic of the last test, and the boundary of |t|
    t: float | None = None
    boundary: float | None = None

    @property
    def measured(self) -> tuple[float, ...]:
        """Its numbers, those that are known."""
        numbers = (self.difference, self.low, self.high, self.t, self.boundary)
        return tuple(number for number in numbers if number is not None)

    @property
    def is_final(self) -> bool:
        """Whether the row gets no further seed."""
        return self.state != "open"


@dataclass(frozen=True)
class SeedState:
    """Progress of rows whose seeds are added until their difference to the baseline is decided."""

    at_least: int
    at_most: int
    metric: str
    #: family-wise error over all rows
    alpha: float
    #: name of the row that all others are compared with
    baseline: str
    #: the rows but for the baseline
    rulings: tuple[Ruling, ...]
    #: other rules in words, under which trials were trained before
    former: tuple[str, ...] = ()

    @property
    def wanted(self) -> dict[str, int]:
        """Row -> the number of its seeds, first that of the baseline: as many as any other row has."""
        rows = {ruling.row: ruling.wanted for ruling in self.rulings}
        return {self.baseline: max(rows.values(), default=self.at_least)} | rows

    @property
    def may_come(self) -> dict[str, int]:
        """Row -> trials that may be added, at most."""
        left = [ruling for ruling in self.rulings if not ruling.is_final]
        rows = {ruling.row: self.at_most - ruling.wanted for ruling in left}
        shared = {self.baseline: self.at_most - self.wanted[self.baseline]} if left else {}
        return {row: count for row, count in (shared | rows).items() if count}

    @property
    def rule(self) -> str:
        """The rule in words."""
        until = f"until {self.metric} is decided against {self.baseline}"
        return f"{self.at_least} to {self.at_most} seeds {until}, alpha {self.alpha:g}"

    def __str__(self) -> str:
        final, more = sum(ruling.is_final for ruling in self.rulings), sum(self.may_come.values())
        coming = f", up to {more} more trials may come" if more else ""
        return (
            f"{self.at_least} to {self.at_most} seeds a row until {self.metric} is decided against {self.baseline}: "
            f"{final} of {len(self.rulings)} rows stopped{coming}"
        )


@dataclass(frozen=True)
class PrimaryMetric:
    """The score that decides, with what was known when it was named."""

    #: such as "novel_psnr"
    metric: str
    #: trials of the sweep with a training, and how many of these had finished, when a plan named it first
    trials: int
    finished: int

    def __str__(self) -> str:
        after = f"after {self.finished} of {self.trials} trials were trained"
        return f"{self.metric}, named {after if self.finished else 'before any trial was trained'}"


@dataclass(frozen=True)
class Plan(Generic[Config]):
    """All trials of a sweep, with unique keys; `controls` are trivial baselines, evaluated but not trained."""

    sweep: str
    created: str
    trials: tuple[PlannedTrial[Config], ...]
    controls: tuple[PlannedTrial[Config], ...]
    search: SearchState | None = None
    #: baseline of tables: a row's name, or the setting of each axis; None where the file names none
    baseline: str | Mapping[str, Any] | None = None
    #: dotted keys that the sweep file varies, each with its short name; empty in plans of earlier versions
    axes: Mapping[str, str] = field(default_factory=dict)
    #: None where the seeds are listed
    seeds: SeedState | None = None
    #: None where the file names none
    primary: PrimaryMetric | None = None

    @property
    def everything(self) -> tuple[PlannedTrial[Config], ...]:
        """Trivial baselines, which take seconds, then trials."""
        return (*self.controls, *self.trials)

    @property
    def pending(self) -> tuple[PlannedTrial[Config], ...]:
        """Trials without a result that have not failed, trivial baselines first."""
        return tuple(t for t in self.everything if t.is_unfinished)

    @property
    def failed(self) -> tuple[PlannedTrial[Config], ...]:
        """Trials whose last run failed."""
        return tuple(t for t in self.everything if t.status == "failed")

    @property
    def missing(self) -> tuple[str, ...]:
        """Prerequisites that blocked trials lack, without duplicates."""
        searched = self.search.missing if self.search else ()
        return tuple(dict.fromkeys((*(reason for trial in self.everything for reason in trial.missing), *searched)))

    def refreshed(self, monitor: Monitor) -> Plan[Config]:
        """The same plan with every trial's state as it is now."""
        states = States(monitor)
        trials, controls = (
            tuple(replace(t, status=states.of(t.key, t.training, t.missing)) for t in section)
            for section in (self.trials, self.controls)
        )
        return replace(self, trials=trials, controls=controls, search=self.search and self.search.refreshed(trials))

    def to_json(self, more: Mapping[str, Mapping[str, Any]] = MappingProxyType({}), **about_all: Any) -> str:
        """The plan as text; `read_plan` reads it back.

        `more` has further members of the trials with these keys, `about_all` of the plan.
        """
        sections = {"trials": self.trials, "controls": self.controls}
        # One line per trial: readable, easy to compare, and twice as fast to write as indented text.
        lines = {
            name: ",\n".join(
                f"  {json.dumps(trial.as_json() | dict(more.get(trial.key, {})), allow_nan=False)}" for trial in trials
            )
            for name, trials in sections.items()
        }
        searched = {"search": asdict(self.search)} if self.search else {}
        compared = {"baseline": self.baseline} if self.baseline is not None else {}
        varied = {"axes": dict(self.axes)} if self.axes else {}
        sequential = {"seeds": asdict(self.seeds)} if self.seeds else {}
        deciding = {"primary": asdict(self.primary)} if self.primary else {}
        members = compared | deciding | varied | searched | sequential
        about_all = {"sweep": self.sweep, "created": self.created, **members, **about_all}
        heads = [f'"{name}": {json.dumps(value)}' for name, value in about_all.items()]
        return "{" + ",\n".join([*heads, *(f'"{name}": [\n{text}\n]' for name, text in lines.items())]) + "}\n"


#: a plan that was read from its file
FrozenPlan = Plan[Mapping[str, Any]]


class States:
    """States of a home's trials; only existing folders are read."""

    def __init__(self, monitor: Monitor) -> None:
        self._home, self._monitor = monitor.home, monitor
        self._begun, self._trained = _names(trials_folder(self._home)), _names(trainings_folder(self._home))

    def of(self, key: str, training: str | None, missing: tuple[str, ...] = ()) -> Status:
        """State of the trial with that key; blocked while anything is missing."""
        if missing:
            return "blocked"
        state: Status = self._monitor.look(key).status if key in self._begun else "pending"
        if state in ("pending", "interrupted") and training in self._trained:
            folder = training_folder(self._home, str(training))
            return "to be evaluated" if read_training(folder) is not None else state
        return state


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()
