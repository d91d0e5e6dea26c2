"""Plans of a home's sweeps as files: frozen before a sweep runs, kept when another replaces them, and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from results.records.atomic import write_atomically
from results.records.damage import DamagedFileError, member, pass_over, read_object
from results.records.home import earlier_plans_folder, plan_file, sweeps_folder
from results.records.plan import (
    FrozenPlan,
    Plan,
    PlanError,
    PlannedTrial,
    PrimaryMetric,
    RecordedTrial,
    RowState,
    Ruling,
    SearchState,
    SeedState,
    Status,
)

Section = TypeVar("Section")

#: names of states in plans of earlier versions
_RENAMED = {"to be judged": "to be evaluated"}

_STATUSES = frozenset(state for part in get_args(Status) for state in (get_args(part) or (part,)))


def freeze(plan: Plan[Any], home: Path) -> Path:
    """Write the plan for trials and reports.  A former plan with other trials is kept among the earlier plans.

    A plan that differs from the former one in its time alone is not written, so a report of it stays current.
    """
    path = plan_file(home, plan.sweep)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        former = _read(path)
    except PlanError:  # none, or of another version: it could not be reported either
        former = None
    if former is not None:
        if replace(plan, created=former.created).to_json().encode() == path.read_bytes():
            return path
        _keep_former(path, former, plan, home)
    write_atomically(path, plan.to_json().encode())
    return path


def _keep_former(path: Path, former: FrozenPlan, plan: Plan[Any], home: Path) -> None:
    """Copy the plan at `path` aside where it has trials that `plan` lacks."""
    if {trial.key for trial in former.everything} <= {trial.key for trial in plan.everything}:
        return
    folder = earlier_plans_folder(home, plan.sweep)
    folder.mkdir(exist_ok=True)
    stamp = former.created.replace(":", "").replace("+0000", "")
    write_atomically(folder / f"{stamp}.json", path.read_bytes())


def earlier_plans(sweep: str, home: Path) -> list[str]:
    """Names of a sweep's earlier plans, i.e. their creation times (UTC), the oldest first."""
    return sorted(path.stem for path in earlier_plans_folder(home, sweep).glob("*.json"))


def read_plan(sweep: str, home: Path, name: str | None = None) -> FrozenPlan:
    """The frozen plan of a sweep, or an earlier one, by the beginning of its name.

    Raises `PlanError` where it is missing or invalid, or `name` is ambiguous.
    """
    if name is not None:
        names = earlier_plans(sweep, home)
        found = [known for known in names if known.startswith(name)]
        if len(found) != 1:
            number = f"{len(found)} earlier plans" if found else "no earlier plan"
            there_are = ", ".join(names) or "none"
            raise PlanError(f"sweep {sweep!r} has {number} whose name begins with {name!r}; there are: {there_are}")
        return _read(earlier_plans_folder(home, sweep) / f"{found[0]}.json")
    path = plan_file(home, sweep)
    if not path.exists():
        raise PlanError(
            f"sweep {sweep!r} has not been planned under {home}: there is no {path}; "
            "run `splatsweep run` on its sweep file first, or give the --home it ran under"
        )
    return _read(path)


def sweep_names(home: Path) -> list[str]:
    """Names of the sweeps that were planned in a home."""
    return sorted(path.parent.name for path in sweeps_folder(home).glob("*/plan.json"))


def read_plans(home: Path) -> Iterator[FrozenPlan]:
    """The plans of all sweeps of a home that can be read, by name; others are reported."""
    return _readable(plan_file(home, name) for name in sweep_names(home))


def read_earlier_plans(home: Path) -> Iterator[FrozenPlan]:
    """The earlier plans of all sweeps that can be read, by name, the newest first; others are reported."""
    return _readable(
        earlier_plans_folder(home, sweep) / f"{name}.json"
        for sweep in sweep_names(home)
        for name in reversed(earlier_plans(sweep, home))
    )


def _readable(paths: Iterable[Path]) -> Iterator[FrozenPlan]:
    for path in paths:
        try:
            yield _read(path)
        except PlanError as error:
            if isinstance(error.__cause__, DamagedFileError):
                pass_over(error.__cause__, "its trials are not known by their names")


def _read(path: Path) -> FrozenPlan:
    try:
        content = read_object(path)
        return _parsed(content, path)
    except (DamagedFileError, FileNotFoundError) as error:
        raise PlanError(f"{error}; plan the sweep again") from error


def _parsed(content: Mapping[str, Any], path: Path) -> FrozenPlan:
    seen: set[str] = set()
    trials = _trials(member(content, "trials", list, path), path, seen, is_control=False)
    controls = _trials(content.get("controls", []), path, seen, is_control=True)
    return Plan(
        member(content, "sweep", str, path),
        member(content, "created", str, path),
        trials,
        controls,
        _section(content.get("search"), _search, path, "its search is", "the progress of its search is not shown"),
        content.get("baseline"),
        _axes(content.get("axes")),
        _section(content.get("seeds"), _seeds, path, "its seeds are", "the decisions on its rows are not shown"),
        _section(content.get("primary"), _primary, path, "its primary metric is", "tables have no primary metric"),
    )


def _trials(entries: Any, path: Path, seen: set[str], is_control: bool) -> tuple[RecordedTrial, ...]:
    """The trials of one section, with unique keys; damaged entries are skipped, unless all are damaged."""
    read, damaged = [], []
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
        try:
            trial = _trial(entry, is_control)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            which = f"{'control' if is_control else 'trial'} {number}"
            damaged.append(DamagedFileError(path, f"{which} is none of this version ({type(error).__name__}: {error})"))
            continue
        if trial.key not in seen:
            seen.add(trial.key)
            read.append(trial)
    if damaged and not read:
        raise damaged[0]
    for problem in damaged:
        pass_over(problem, "it is left out; plan the sweep again")
    return tuple(read)


def _trial(entry: Mapping[str, Any], is_control: bool) -> RecordedTrial:
    trial = PlannedTrial(
        key=entry["key"],
        names=tuple(entry.get("names") or [entry["name"]]),
        seed=int(entry["seed"]),
        config=dict(entry["config"]),
        status=_RENAMED.get(entry["status"], entry["status"]),
        missing=tuple(entry.get("missing", ())),
        proposals=tuple(entry.get("proposals", ())),
        control=is_control,
        training=entry.get("training"),
        defaults=dict(entry.get("defaults", {})),
    )
    keys = (trial.key, *([] if trial.training is None else [trial.training]))
    _require(str, *keys, *trial.names, *trial.missing, trial.status)
    _require(int, *trial.proposals)
    if any("/" in key for key in keys) or trial.status not in _STATUSES:
        raise ValueError(f"key {trial.key!r}, training {trial.training!r}, status {trial.status!r}")
    _ = trial.steps
    return trial


def _require(kind: type | tuple[type, ...], *values: Any) -> None:
    """Raises TypeError for a value of another kind."""
    for value in values:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{value!r} is of the wrong kind")


def _axes(content: Any) -> Mapping[str, str]:
    """Short names of the varied keys; plans of earlier versions have none, and reports do without them."""
    return {str(key): str(short) for key, short in content.items()} if isinstance(content, Mapping) else {}


def _section(
    content: Any, read: Callable[[Mapping[str, Any]], Section], path: Path, what: str, consequence: str
) -> Section | None:
    """A section that a plan may lack; a damaged one is None, with a warning.

    what: the section with its verb; consequence: that of its absence.
    """
    if content is None:
        return None
    try:
        return read(content)
    except (KeyError, TypeError) as error:
        problem = DamagedFileError(path, f"{what} none of this version ({type(error).__name__}: {error})")
        pass_over(problem, f"{consequence}; plan the sweep again")
        return None


def _search(content: Mapping[str, Any]) -> SearchState:
    search = SearchState(**{**content, **{name: tuple(content[name]) for name in ("open", "missing")}})
    _require(str, search.study, search.metric, search.direction, *search.missing)
    _require(int, search.wanted, search.proposed, *search.open)
    return search


def _seeds(content: Mapping[str, Any]) -> SeedState:
    rulings = tuple(Ruling(**ruling) for ruling in content["rulings"])
    seeds = SeedState(**{**content, "rulings": rulings, "former": tuple(content["former"])})
    _require(str, seeds.metric, seeds.baseline, *seeds.former, *(ruling.row for ruling in rulings))
    _require(int, seeds.at_least, seeds.at_most, *(n for ruling in rulings for n in (ruling.seeds, ruling.wanted)))
    _require((int, float), seeds.alpha, *(number for ruling in rulings for number in ruling.measured))
    if any(ruling.state not in get_args(RowState) for ruling in rulings):
        raise TypeError(f"states {[ruling.state for ruling in rulings]!r}")
    return seeds


def _primary(content: Mapping[str, Any]) -> PrimaryMetric:
    primary = PrimaryMetric(**content)
    _require(str, primary.metric)
    _require(int, primary.trials, primary.finished)
    return primary
