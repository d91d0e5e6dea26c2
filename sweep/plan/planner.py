"""Configurations -> keys -> what is finished and what is to run; printable, and frozen to `plan.json`."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from jobs.config import DataConfig, TrialConfig
from jobs.data.prepare import MissingDatasetError, open_dataset
from jobs.journal import Status as RunStatus
from jobs.journal import trial_status
from jobs.keys import frozen_weights, keys_of
from jobs.trial import weights_folder
from model.methods import find_method
from model.weights import WeightStore
from results.pause_gc import garbage_collection_paused
from sweep.file.schema import CONTROLS, Sweep
from sweep.plan.grid import expand
from sweep.plan.names import differing, differing_keys, flat, short_keys, value_name
from sweep.search.state import SearchState, searched

__all__ = [
    "Identities",
    "Identity",
    "Plan",
    "PlanError",
    "PlannedTrial",
    "differing",
    "freeze",
    "in_tenths",
    "make_plan",
    "plan_path",
    "plan_table",
    "read_plan",
]

#: What has become of a trial; `blocked` ones lack a dataset or weights, and their keys are not final.
Status = RunStatus | Literal["blocked"]

#: Told in a few words what planning is busy with, where that takes long.
Report = Callable[[str], None]

#: Rows of a table for the terminal, where nobody reads more.
MAX_ROWS = 500

_COLOURS: dict[Status, str] = {
    "pending": "",
    "running": "cyan",
    "finished": "green",
    "failed": "red",
    "interrupted": "yellow",
    "pruned": "yellow",
    "blocked": "magenta",
}


class PlanError(ValueError):
    """A sweep that cannot be planned on its data, or a plan file that cannot be read."""


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """One trial: a key, and all the names that lead to it."""

    key: str
    names: tuple[str, ...]
    seed: int
    config: TrialConfig
    status: Status
    #: what has to be had before it can run, each with the command that gets it
    missing: tuple[str, ...] = ()
    #: numbers of the proposals of the sweep's search that it belongs to
    proposals: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The name that comes first in the sweep file."""
        return self.names[0]

    @property
    def is_proposed_only(self) -> bool:
        """Whether nothing but the search asks for it."""
        return len(self.proposals) == len(self.names)

    @property
    def is_unfinished(self) -> bool:
        """Whether it is to run, or to run on: what failed is not, nor what was given up by the search alone."""
        return self.status in ("pending", "running", "interrupted") or (
            self.status == "pruned" and not self.is_proposed_only
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `plan.json` holds them."""
        return {
            "key": self.key,
            "name": self.name,
            "names": list(self.names),
            "seed": self.seed,
            "config": self.config.identity(),
            "status": self.status,
        } | {name: list(value) for name in ("missing", "proposals") if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PlannedTrial:
        """The inverse of `as_json`; keys of inactive axes come back as defaults, which changes no number."""
        config = TrialConfig.model_validate(content["config"])
        more = {name: tuple(content.get(name, ())) for name in ("missing", "proposals")}
        return cls(content["key"], tuple(content["names"]), content["seed"], config, content["status"], **more)


@dataclass(frozen=True)
class Plan:
    """All trials of a sweep, no key twice; `controls` are the trivial rows, judged like trials but not trained."""

    sweep: str
    created: str
    trials: tuple[PlannedTrial, ...]
    controls: tuple[PlannedTrial, ...]
    search: SearchState | None = None

    @property
    def everything(self) -> tuple[PlannedTrial, ...]:
        """Controls, which take seconds, then trials."""
        return (*self.controls, *self.trials)

    @property
    def pending(self) -> tuple[PlannedTrial, ...]:
        """What has no result yet and has not failed, controls first."""
        return tuple(t for t in self.everything if t.is_unfinished)

    @property
    def failed(self) -> tuple[PlannedTrial, ...]:
        """What failed when it last ran."""
        return tuple(t for t in self.everything if t.status == "failed")

    @property
    def missing(self) -> tuple[str, ...]:
        """What has to be had before the blocked trials can run, each once."""
        searched = self.search.missing if self.search else ()
        return tuple(dict.fromkeys((*(reason for trial in self.everything for reason in trial.missing), *searched)))

    def refreshed(self, home: Path) -> Plan:
        """The same plan with every trial's state as it is now."""
        begun = _begun(home)
        trials, controls = (
            tuple(replace(t, status=_status(t.key, t.missing, home, begun)) for t in section)
            for section in (self.trials, self.controls)
        )
        return replace(self, trials=trials, controls=controls, search=self.search and self.search.refreshed(trials))

    def to_json(self, more: Mapping[str, Mapping[str, Any]] = MappingProxyType({}), **about_all: Any) -> str:
        """The plan as text; `read_plan` reads it back.

        `more` is to be said of the trials with these keys, `about_all` of the plan.
        """
        sections = {"trials": self.trials, "controls": self.controls}
        # A trial a line: to read, to compare, and twice as quick to write as indented text.
        lines = {
            name: ",\n".join(
                f"  {json.dumps(trial.as_json() | dict(more.get(trial.key, {})), allow_nan=False)}" for trial in trials
            )
            for name, trials in sections.items()
        }
        searched = {"search": asdict(self.search)} if self.search else {}
        about_all = {"sweep": self.sweep, "created": self.created, **searched, **about_all}
        heads = [f'"{name}": {json.dumps(value)}' for name, value in about_all.items()]
        return "{" + ",\n".join([*heads, *(f'"{name}": [\n{text}\n]' for name, text in lines.items())]) + "}\n"


@garbage_collection_paused()
def make_plan(sweep: Sweep, home: Path | str, progress: Report | None = None) -> Plan:
    """Expand a sweep, find every trial's key, and see what has been done.

    Datasets that can be made or fetched are prepared first, since their content is part of the keys; a trial whose
    dataset the user has to bring, or whose weights can only be told apart by their file, is `blocked` until they
    are here.  Raises `PlanError` for a resolution that a dataset does not hold, and what `open_dataset` raises.
    """
    home = Path(home).absolute()
    named = expand(sweep)
    identify = Identities(home, progress or _say_nothing)
    search = searched(sweep, plan_path(sweep.name, home).parent, identify)
    controls = _folded(_controls([*(config for _, config in named), *search.examples]), identify, home)
    trials = _folded([*named, *search.trials], identify, home, search.numbers)
    # A trial that makes a trivial prediction is a control under one more name.
    extra = {t.key: t.names for t in trials if t.key in {control.key for control in controls}}
    return Plan(
        sweep=sweep.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        trials=tuple(t for t in trials if t.key not in extra),
        controls=tuple(replace(c, names=c.names + extra.get(c.key, ())) for c in controls),
        search=search.state and search.state.refreshed(trials),
    )


def _say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Identity:
    """A trial's key, and what of it is not in the configuration; not final where anything is missing."""

    key: str
    #: the dataset's
    fingerprint: str
    #: frozen weights by name -> sha256
    weights: Mapping[str, str]
    #: what has to be had first, each with the command that gets it
    missing: tuple[str, ...]


class Identities:
    """Finds out who trials are; opens each dataset and looks for each file of weights once."""

    def __init__(self, home: Path, report: Report = _say_nothing) -> None:
        self._home = home
        self._report = report
        self._identity = cache(WeightStore(weights_folder(home)).identity)
        self._datasets: dict[str, tuple[str, int] | str] = {}  # -> fingerprint and side of the images, or what to do

    def __call__(self, config: TrialConfig) -> Identity:
        """The identity of one trial.  Raises `PlanError` for a resolution that its dataset does not hold."""
        missing, fingerprint = [], "not here"
        dataset = self._dataset(config.data)
        if isinstance(dataset, str):
            missing.append(dataset)
        else:
            fingerprint, resolution = dataset
            if resolution < config.data.resolution:
                raise PlanError(
                    f"data.resolution {config.data.resolution}: dataset {config.data.name!r} has images of "
                    f"{resolution} px; see its options for larger ones"
                )
        weights = {name: self._identity(name) for name in frozen_weights(config)}
        missing += [
            f"weights {name!r} are not here; run: splatsweep weights fetch {name}"
            for name, sha256 in weights.items()
            if sha256 is None
        ]
        known = {name: sha256 or "not here" for name, sha256 in weights.items()}
        return Identity(keys_of(config, fingerprint, known).trial, fingerprint, known, tuple(missing))

    def _dataset(self, data: DataConfig) -> tuple[str, int] | str:
        case = json.dumps([data.name, data.options], sort_keys=True)
        if case not in self._datasets:
            try:
                store = open_dataset(data.name, data.options, self._home, in_tenths(data.name, self._report))
                self._datasets[case] = store.fingerprint, store.resolution
            except MissingDatasetError as error:
                self._datasets[case] = str(error)
        return self._datasets[case]


def in_tenths(name: str, report: Report) -> Callable[[int, int, str], None]:
    """A dataset's progress, object by object, as a line for each tenth of the way."""
    said: set[int] = set()

    def progress(done: int, total: int, _: str) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth not in said:
            said.add(tenth)
            report(f"preparing dataset {name}: {done} of {total} objects")

    return progress


def _folded(
    named: Iterable[tuple[str, TrialConfig]],
    identify: Identities,
    home: Path,
    proposals: Mapping[str, int] = MappingProxyType({}),
) -> list[PlannedTrial]:
    """One planned trial a key, in order of first appearance, with all names that lead to it.

    `proposals` has the number of those names that a search proposed.
    """
    first: dict[str, tuple[TrialConfig, tuple[str, ...]]] = {}
    names: dict[str, list[str]] = {}
    for name, config in named:
        identity = identify(config)
        first.setdefault(identity.key, (config, identity.missing))
        names.setdefault(identity.key, []).append(name)
    begun = _begun(home)
    return [
        PlannedTrial(
            key,
            tuple(dict.fromkeys(names[key])),
            config.seed,
            config,
            _status(key, missing, home, begun),
            missing,
            tuple(dict.fromkeys(proposals[name] for name in names[key] if name in proposals)),
        )
        for key, (config, missing) in first.items()
    ]


def _begun(home: Path) -> frozenset[str]:
    """The keys of trials that have a folder: only there is anything to read."""
    folder = home / "trials"
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def _status(key: str, missing: Sequence[str], home: Path, begun: Collection[str]) -> Status:
    if missing:
        return "blocked"
    return trial_status(home / "trials" / key) if key in begun else "pending"


def _controls(configs: Iterable[TrialConfig]) -> list[tuple[str, TrialConfig]]:
    """The trivial rows for every distinct way in which the trials are judged, named apart by what differs."""
    # Thousands of trials share these sections, so the costly comparison is left to those that do not.
    distinct = {(id(config.data), id(config.eval), config.model.input_views): config for config in configs}
    judged = {json.dumps(_judged(config), sort_keys=True): config for config in distinct.values()}
    return [
        (
            f"{name}{suffix}",
            TrialConfig(
                data=config.data,
                eval=config.eval,
                model=find_method(name).Options(name=name, input_views=config.model.input_views),
            ),
        )
        for config, suffix in zip(judged.values(), _suffixes(list(judged.values())), strict=True)
        for name in CONTROLS
    ]


def _judged(config: TrialConfig) -> dict[str, Any]:
    """What decides which pictures a trial is judged on, and how."""
    return {
        "data": config.data.model_dump(mode="json"),
        "eval": config.eval.model_dump(mode="json"),
        "model": {"input_views": config.model.input_views},
    }


def _suffixes(cases: Sequence[TrialConfig]) -> list[str]:
    """What to add to a control's name: nothing for a single case, ` resolution=64` and the like for several."""
    trees = [_judged(config) for config in cases]
    short = short_keys(differing_keys(trees))
    rows = [dict(flat(tree)) for tree in trees]
    return ["".join(f" {short[key]}={value_name(row.get(key), 1)}" for key in short if key in row) for row in rows]


# On disk


def plan_path(sweep: str, home: Path) -> Path:
    """Where the frozen plan of a sweep stands."""
    return home / "sweeps" / sweep / "plan.json"


def freeze(plan: Plan, home: Path) -> Path:
    """Write the plan for trials and reports to read.  A reader sees the old one or the new, never half of one."""
    path = plan_path(plan.sweep, home)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".plan-", suffix=".json")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(plan.to_json())
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def read_plan(path: Path) -> Plan:
    """A frozen plan.  Raises `PlanError` where it is missing or not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Plan(
            sweep=content["sweep"],
            created=content["created"],
            trials=tuple(PlannedTrial.from_json(trial) for trial in content["trials"]),
            controls=tuple(PlannedTrial.from_json(control) for control in content["controls"]),
            search=_search_from_json(content["search"]) if "search" in content else None,
        )
    except FileNotFoundError:
        raise PlanError(f"there is no plan at {path}; `splatsweep run` writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{path} is not a plan of this version: {type(error).__name__} at {error}") from error


def _search_from_json(content: Mapping[str, Any]) -> SearchState:
    lists = {name: tuple(content[name]) for name in ("open", "missing")}
    return SearchState(**{**content, **lists})


# On the terminal


def plan_table(plan: Plan) -> Table:
    """The plan for a terminal: a line a trial, folded names below the first, and a summary."""
    counts = Counter(trial.status for trial in plan.everything)
    summary = ", ".join(f"{counts[status]} {status}" for status in _COLOURS if counts[status])
    summary += f"\n{plan.search}" if plan.search else ""
    table = Table(title=f"sweep {plan.sweep}", caption=summary, title_justify="left", caption_justify="left")
    for heading in ("trial", "seed", "key", "status"):
        table.add_column(heading, justify="right" if heading == "seed" else "left")
    for section in (plan.trials, plan.controls):
        for trial in section[:MAX_ROWS]:
            table.add_row(*_cells(trial, is_control=section is plan.controls))
        if len(section) > MAX_ROWS:
            table.add_row(Text(f"... and {len(section) - MAX_ROWS} more; --json has all", style="dim"))
        table.add_section()
    return table


def _cells(trial: PlannedTrial, is_control: bool) -> tuple[Text, ...]:
    name = Text(trial.name)
    for other in trial.names[1:]:
        name.append(f"\n= {other}", style="dim")
    seed = "" if is_control else str(trial.seed)
    key = "" if trial.missing else trial.key
    return name, Text(seed), Text(key, style="dim"), Text(trial.status, style=_COLOURS[trial.status])
