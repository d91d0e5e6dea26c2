"""The reasons why a trial must run: its differences from the finished trials of this home."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobs.config import TrialConfig
from jobs.continuation import Beginning, Beginnings, is_begun, refusal
from jobs.keys import EVALUATION_VERSION, NUMERICS_VERSION, WATCHING, keeps_best
from model.options import omitted_defaults
from results.records.flat import as_written, flatten
from results.records.frozen_plans import read_earlier_plans, read_plan, read_plans
from results.records.home import trial_folder, trials_folder
from results.records.journal import read_events
from results.records.plan import PlanError
from results.records.trial_folder import read_config, read_result
from sweep.file.diagnostics import shortened
from sweep.file.schema import CONTROLS
from sweep.plan.planner import MAX_ROWS, Identities, Plan, PlannedTrial, summary
from sweep.terminal import counted

Kind = Literal[
    "new",
    "changed",
    "to be evaluated",
    "data",
    "weights",
    "numerics",
    "failed",
    "interrupted",
    "running",
    "blocked",
    "pruned",
]

DATA, WEIGHTS = "fingerprint of the data", "weights"
NUMERICS, EVALUATION = "numerics version", "evaluation version"

#: Keys of a configuration that do not affect results, unless scores while training choose the weights.
_WATCHING = frozenset(f"eval.{key}" for key in WATCHING)

#: Parts of a trial's identity that a result records besides the configuration.
_IDENTITY = ("data_fingerprint", "weights", "numerics")

#: The value of a key that a configuration does not have.
ABSENT = "absent"

#: First words of a reason that compares with a finished trial.
_VERBS: dict[Kind, str] = {"new": "new, nearest is", "to be evaluated": "trained, to be evaluated; differs from"}

_WAITING = ("pending", "to be evaluated")
_NO_RESULT = ("failed", "blocked")

_SHOWN_CHANGES = 6
#: Digits of a hash, and those of them in messages.
_DIGITS, _SHOWN_DIGITS = 64, 8
#: The number of trials compared with all finished ones at once, which limits the memory of the distance matrix.
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that affects results, in a finished trial and in the planned one; either value may be `ABSENT`."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key} from {self._shown(self.before)} to {self._shown(self.after)}"

    def _shown(self, value: Any) -> str:
        text = as_written(value)
        is_hash = len(text) == _DIGITS and not _is_setting(self.key)
        return f"{text[:_SHOWN_DIGITS]}..." if is_hash else shortened(text)


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason why a trial has no result."""

    kind: Kind
    #: the error, or the iteration that was reached
    detail: str = ""
    #: key of the finished trial that it is compared with, and its name if a plan has it
    nearest: str | None = None
    nearest_name: str | None = None
    changes: tuple[Change, ...] = ()
    #: the finished training that it continues, or could if its state had been kept; None where there is none
    beginning: Beginning | None = None

    def __str__(self) -> str:
        return self._why() + (f"; {self.beginning}" if self.beginning else "")

    def _why(self) -> str:
        if self.nearest is None:
            return f"{self.kind}: {self.detail}" if self.detail else self.kind
        shown = ", ".join(str(change) for change in self.changes[:_SHOWN_CHANGES])
        more = len(self.changes) - _SHOWN_CHANGES
        other = f"{self.nearest_name} ({self.nearest})" if self.nearest_name else self.nearest
        verb = _VERBS.get(self.kind, "changed since")
        return f"{verb} {other}: {shown}" + (f" and {more} more" if more > 0 else "")

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kind": self.kind,
            "text": str(self),
            "nearest": self.nearest,
            "beginning": asdict(self.beginning) if self.beginning else None,
            "changes": [{"key": c.key, "before": c.before, "after": c.after} for c in self.changes],
        }


def reasons(
    plan: Plan, home: Path | str, continued: Mapping[str, Beginning] = MappingProxyType({})
) -> dict[str, Reason]:
    """Key -> why that trial must run, for every trial of a plan that is neither finished nor finally pruned.

    A pending trial is compared with the trial of the same name and seed in this sweep's last run, if that is finished;
    otherwise with the finished trial of this home that has the fewest differences, a trained one if it is trained.
    `continued` is what `beginnings` returns.
    """
    home = Path(home).absolute()
    waiting = [trial for trial in plan.everything if trial.status in _WAITING]
    begun = [t for t in plan.everything if t.status not in _WAITING and (t.is_unfinished or t.status in _NO_RESULT)]
    found = {t.key: _state(t, home) for t in begun}
    compared = _compared(waiting, plan.sweep, home)
    return found | {key: replace(reason, beginning=continued.get(key)) for key, reason in compared.items()}


def beginnings(plan: Plan, home: Path | str) -> dict[str, Beginning]:
    """Key -> the finished training of the home that is the beginning of a trial's, for trials that have to be trained.

    Of trials that share a training, one has it.
    """
    home = Path(home).absolute()
    waiting = {t.training: t for t in plan.everything if t.status == "pending" and t.training is not None}
    finished, identify = Beginnings(home) if waiting else None, Identities(home)
    if not finished:
        return {}
    found = {}
    for training, trial in waiting.items():
        identity = identify(trial.config)
        beginning = finished.of(trial.config, identity.fingerprint, identity.weights)
        if beginning is not None and not is_begun(home, training):
            found[trial.key] = beginning
    return found


def repeated(plan: Plan, home: Path | str) -> list[str]:
    """Lines on trials that were finished in the sweep's last run and are trained again, though no setting has changed.

    Their data, frozen weights or a version of the arithmetic have; a line has the number of trials with equal changes.
    """
    home = Path(home).absolute()
    predecessors = _predecessors(plan.sweep, home)
    pending = [
        (trial, predecessors.get((trial.name, trial.seed))) for trial in plan.trials if trial.status == "pending"
    ]
    former = [(trial, _finished_in(trial_folder(home, key))) for trial, key in pending if key not in (None, trial.key)]
    identities = Identities(home)
    counts: Counter[tuple[Change, ...]] = Counter()
    for trial, content in former:
        changes = _changes(content, _decisive(trial, identities), _omitted(trial.config)) if content else ()
        if changes and not any(_is_setting(change.key) for change in changes):
            counts[changes] += 1
    return [
        f"{counted(number, 'trial')} with the same settings as before must be trained again: "
        f"{', '.join(map(str, changes))}"
        for changes, number in counts.items()
    ]


def _is_setting(key: str) -> bool:
    """Whether a key of what decides is one of the configuration."""
    return key not in (DATA, NUMERICS, EVALUATION) and not key.startswith(f"{WEIGHTS} ")


def _state(trial: PlannedTrial, home: Path) -> Reason:
    """The reason why a trial that was started, or is blocked, has no result."""
    events = list(read_events(trial_folder(home, trial.key)))
    if trial.status == "failed":
        return Reason("failed", next((e["error"] for e in reversed(events) if e["event"] == "failed"), ""))
    if trial.status == "blocked":
        return Reason("blocked", "; ".join(trial.missing))
    step = max((event["step"] for event in events if "step" in event), default=0)
    assert trial.status in ("interrupted", "running", "pruned")
    refused = refusal(home, trial.training) if trial.training is not None else ""
    return Reason(trial.status, f"at iteration {step} of {trial.steps}" + (f"; {refused}" if refused else ""))


def _compared(waiting: Sequence[PlannedTrial], sweep: str, home: Path) -> dict[str, Reason]:
    finished = _finished(home)
    names, predecessors = _names(home), _predecessors(sweep, home)
    identities = Identities(home)
    wanted = {trial.key: _decisive(trial, identities) for trial in waiting}
    nearest: dict[str, str] = {}
    for controls in (False, True):
        nearest |= _nearest(_of_kind(wanted, controls=controls), _of_kind(finished, controls=controls))
    compared = {}
    for trial in waiting:
        before = predecessors.get((trial.name, trial.seed))
        is_successor = before in finished
        other = before if is_successor else nearest.get(trial.key)
        if other is None:
            compared[trial.key] = (
                Reason("to be evaluated", "its training is finished")
                if trial.status == "to be evaluated"
                else Reason("new", "nothing like it is finished")
            )
            continue
        changes = _changes(finished[other], wanted[trial.key], _omitted(trial.config))
        kind = "to be evaluated" if trial.status == "to be evaluated" else _kind(changes, is_successor)
        compared[trial.key] = Reason(kind, "", other, names.get(other), changes)
    return compared


def _kind(changes: Iterable[Change], is_successor: bool) -> Kind:
    keys = {change.key for change in changes}
    if keys == {DATA}:
        return "data"
    if keys == {NUMERICS}:
        return "numerics"
    if keys and all(key.startswith(f"{WEIGHTS} ") for key in keys):
        return "weights"
    return "changed" if is_successor else "new"


#: All settings and identities that a trial's results depend on, by name.
_Decisive = Mapping[str, Any]


def _decisive(trial: PlannedTrial, identities: Identities) -> _Decisive:
    identity = identities(trial.config)
    versions = NUMERICS_VERSION, EVALUATION_VERSION
    return _flattened(trial.config.identity(), identity.fingerprint, identity.weights, *versions)


def _flattened(
    config: Mapping[str, Any], data: str, weights: Mapping[str, str], numerics: int, evaluation: int
) -> _Decisive:
    ignored = frozenset() if keeps_best(config) else _WATCHING
    decisive = {key: value for key, value in flatten(config).items() if key not in ignored}
    named = {f"{WEIGHTS} {name}": sha256 for name, sha256 in weights.items()}
    return {**decisive, DATA: data, **named, NUMERICS: numerics, EVALUATION: evaluation}


def _of_kind(contents: Mapping[str, _Decisive], *, controls: bool) -> dict[str, _Decisive]:
    """The trivial baselines, or all others."""
    return {key: content for key, content in contents.items() if (content.get("model.name") in CONTROLS) is controls}


def _finished(home: Path) -> dict[str, _Decisive]:
    """Key -> the settings that its results depend on, for every trial of the home with a valid result."""
    found = {folder.name: _finished_in(folder) for folder in sorted(trials_folder(home).glob("*"))}
    return {key: content for key, content in found.items() if content is not None}


def _finished_in(folder: Path) -> _Decisive | None:
    """The settings that the results in a trial's folder depend on; None without a valid result."""
    result, config = read_result(folder), read_config(folder)
    if result is None or config is None or not result.keys() >= set(_IDENTITY):
        return None
    # Results from before the separation of trainings and trials have no evaluation version.
    data, weights, numerics = (result[name] for name in _IDENTITY)
    return _flattened(config, data, weights, numerics, result.get("evaluation", 1))


def _names(home: Path) -> dict[str, str]:
    """Key -> name, from the plans of all sweeps that ran in this home, else from the newest earlier one."""
    plans = (*read_plans(home), *read_earlier_plans(home))
    return {trial.key: trial.name for plan in reversed(plans) for trial in plan.everything}


def _predecessors(sweep: str, home: Path) -> dict[tuple[str, int], str]:
    """(Name, seed) -> key, from the last run of a sweep."""
    try:
        plan = read_plan(sweep, home)
    except PlanError:  # never run, or of another version: names are optional
        return {}
    return {(name, trial.seed): trial.key for trial in plan.everything for name in trial.names}


def _nearest(wanted: Mapping[str, _Decisive], finished: Mapping[str, _Decisive]) -> dict[str, str]:
    """For each trial, the finished trial with the fewest differences; the first of several.  Nothing without any."""
    if not finished:
        return {}
    columns: dict[tuple[str, str], int] = {}
    for content in finished.values():
        for item in _items(content):
            columns.setdefault(item, len(columns))
    keys, others = list(wanted), list(finished)
    has = _incidence(finished.values(), columns)
    sizes = np.array([len(content) for content in finished.values()])
    nearest: dict[str, str] = {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        # |A - B| + |B - A| = |A| + |B| - 2 |A and B|, of which |A| is the same for all B.
        distances = sizes - 2 * (_incidence((wanted[key] for key in chunk), columns) @ has.T)
        nearest |= {key: others[index] for key, index in zip(chunk, distances.argmin(axis=1), strict=True)}
    return nearest


def _incidence(contents: Iterable[_Decisive], columns: Mapping[tuple[str, str], int]) -> np.ndarray:
    """(contents, columns) float32: 1 where a content has the column's item."""
    rows = [[columns[item] for item in _items(content) if item in columns] for content in contents]
    matrix = np.zeros((len(rows), len(columns)), np.float32)
    for row, present in zip(matrix, rows, strict=True):
        row[present] = 1
    return matrix


def _items(content: _Decisive) -> list[tuple[str, str]]:
    return [(key, json.dumps(value)) for key, value in content.items()]


def _omitted(config: TrialConfig) -> _Decisive:
    """The keys that came later, which configurations omit at these defaults."""
    sections = {name: getattr(config, name) for name in type(config).model_fields if name not in config.sources}
    return {
        key: value for name, its in sections.items() for key, value in omitted_defaults(type(its)(), f"{name}.").items()
    }


def _changes(before: _Decisive, after: _Decisive, omitted: _Decisive) -> tuple[Change, ...]:
    """The keys that differ, those of the configuration first; omitted: the defaults of keys that came later."""
    known = omitted if before.get("model.name") == after.get("model.name") else {}
    return tuple(
        Change(key, before.get(key, known.get(key, ABSENT)), after.get(key, known.get(key, ABSENT)))
        for key in {**after, **before}
        if key not in before or key not in after or json.dumps(before[key]) != json.dumps(after[key])
    )


def why_table(plan: Plan, why: Mapping[str, Reason]) -> RenderableType:
    """A terminal table of the trials that must run, and why, if there are any; then `summary`."""
    table = Table(title=f"sweep {plan.sweep}: what is not finished", title_justify="left")
    table.add_column("trial", overflow="fold")
    table.add_column("seed", justify="right")
    table.add_column("why", overflow="fold")
    waiting = [trial for trial in plan.everything if trial.key in why]
    for trial in waiting[:MAX_ROWS]:
        table.add_row(Text(trial.name), Text(str(trial.seed)), Text(str(why[trial.key])))
    if len(waiting) > MAX_ROWS:
        table.add_row(Text(f"... and {len(waiting) - MAX_ROWS} more; --json has all", style="dim"))
    return Group(*([table] if waiting else []), Text(summary(plan)))
