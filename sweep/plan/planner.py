"""Plans a sweep: configurations -> keys -> trials with their states, to be printed and frozen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobs.config import DataConfig, TrialConfig
from jobs.data.prepare import MissingDatasetError, open_dataset, prepare_command
from jobs.data.requirements import Requirements
from jobs.data.store import Store, StoreError
from jobs.keys import frozen_weights, keys_of
from model.methods import find_method
from model.weights import WeightStore, fetch_command
from results.pause_gc import garbage_collection_paused
from results.records.flat import flatten
from results.records.frozen_plans import read_plan
from results.records.home import sweep_folder, weights_folder
from results.records.monitor import Monitor
from results.records.plan import FrozenPlan, PlanError, PrimaryMetric, SeedState, States, Status
from results.records.plan import Plan as RecordedPlan
from results.records.plan import PlannedTrial as RecordedTrial
from results.records.short_keys import short_keys
from sweep.file.schema import CONTROLS, Sweep
from sweep.plan.grid import expand, varied_keys
from sweep.plan.names import differing_keys, value_name
from sweep.search.state import searched
from sweep.terminal import STATE_STYLES

__all__ = [
    "Identities",
    "Identity",
    "Plan",
    "PlanError",
    "PlannedTrial",
    "make_plan",
    "plan_table",
    "report_tenths",
    "summary",
]

Plan = RecordedPlan[TrialConfig]
PlannedTrial = RecordedTrial[TrialConfig]

#: Called with a short text about what takes long in planning.
Report = Callable[[str], None]

#: States of trials with a finished training, whose curves and perhaps scores can be seen.
_TRAINED: tuple[Status, ...] = ("finished", "to be evaluated")

#: The most rows of a table on the terminal.
MAX_ROWS = 500


@garbage_collection_paused()
def make_plan(sweep: Sweep, home: Path | str, progress: Report | None = None) -> Plan:
    """Expands a sweep into trials, computes their keys, and reads their states.

    Datasets that can be generated or downloaded are prepared first, since their content is part of the keys.  A trial
    is `blocked` while a dataset that the user has to provide is missing, or a weights file without a known hash.
    Raises `PlanError` with all requirements of unfinished trials that their datasets do not meet, and the errors of
    `open_dataset`.
    """
    home = Path(home).absolute()
    named = expand(sweep)
    identify = Identities(home, progress or _say_nothing)
    seeds = None
    if sweep.seed_rule is not None:
        from sweep.seeds.rows import SeedRows  # brings scipy and pandas

        rows = SeedRows(sweep, named, identify, Monitor(home))
        seeds = rows.state()
        named = rows.trials(seeds)
    search = searched(sweep, sweep_folder(home, sweep.name), identify)
    controls = folded(_controls([*(config for _, config in named), *search.examples]), identify, home)
    trials = folded([*named, *search.trials], identify, home, search.numbers)
    unfinished = [(trial.name, trial.config) for trial in (*trials, *controls) if trial.status != "finished"]
    _refuse_misfits([*unfinished, *(("the search", config) for config in search.examples)], identify)
    # A trial with a trivial prediction equals a trivial baseline, which gets the trial's names too.
    extra = {t.key: t.names for t in trials if t.key in {control.key for control in controls}}
    trained = tuple(t for t in trials if t.key not in extra)
    return Plan(
        sweep=sweep.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        trials=trained,
        controls=tuple(replace(c, names=c.names + extra.get(c.key, ()), control=True) for c in controls),
        search=search.state and search.state.refreshed(trials),
        baseline=sweep.baseline,
        axes=varied_keys(sweep),
        seeds=seeds and _with_former_rules(seeds, sweep.name, trained, home),
        primary=_primary(sweep, home, trained),
    )


def _primary(sweep: Sweep, home: Path, trials: Sequence[PlannedTrial]) -> PrimaryMetric | None:
    """The primary metric of the sweep, as its earlier plan has it if it named the same one."""
    if sweep.primary is None:
        return None
    with suppress(PlanError):
        earlier = read_plan(sweep.name, home).primary
        if earlier is not None and earlier.metric == sweep.primary:
            return earlier
    return PrimaryMetric(sweep.primary, len(trials), sum(trial.status in _TRAINED for trial in trials))


def _with_former_rules(seeds: SeedState, sweep: str, trials: Sequence[RecordedTrial[Any]], home: Path) -> SeedState:
    """The state with the other rules, in words, under which trials of this sweep were trained before."""
    try:
        earlier = read_plan(sweep, home)
    except PlanError:
        return seeds
    former, rule = earlier.seeds.former if earlier.seeds else (), _rule_of(earlier, seeds, trials)
    if rule != seeds.rule and _is_any_trained(earlier.trials, home):
        former = (*former, rule)
    return replace(seeds, former=tuple(dict.fromkeys(text for text in former if text != seeds.rule)))


def _rule_of(earlier: FrozenPlan, now: SeedState, trials: Iterable[RecordedTrial[Any]]) -> str:
    """The rule of an earlier plan in words; it differs from the rule now where that compares fewer rows.

    trials: those of the plan now, by whose keys renamed rows are found.
    """
    if earlier.seeds is None:
        listed = ", ".join(str(seed) for seed in sorted({trial.seed for trial in earlier.trials}))
        return f"seeds {listed} for all rows"
    names = {trial.key: trial.names for trial in trials}

    def called(row: str) -> set[str]:
        """The names that a row of the earlier plan has now, its own among them."""
        return {row}.union(*(names.get(trial.key, ()) for trial in earlier.trials if row in trial.names))

    left = {ruling.row for ruling in now.rulings}
    gone = [ruling.row for ruling in earlier.seeds.rulings if not called(ruling.row) & left]
    is_same = now.baseline in called(earlier.seeds.baseline)
    rule = replace(earlier.seeds, baseline=now.baseline).rule if is_same else earlier.seeds.rule
    return rule + (f", also for {', '.join(gone)}" if gone else "")


def _is_any_trained(trials: Iterable[RecordedTrial[Any]], home: Path) -> bool:
    """Whether one of these trials, of an earlier plan, has a finished training now."""
    states = States(Monitor(home))
    return any(states.of(trial.key, trial.training) in _TRAINED for trial in trials)


def _refuse_misfits(named: Iterable[tuple[str, TrialConfig]], identify: Identities) -> None:
    """Raises `PlanError` with the requirements that datasets do not meet, each once, and the trials that have them."""
    asking: dict[str, list[str]] = {}
    for name, config in named:
        for problem in identify.problems(config):
            asking.setdefault(problem, []).append(name)
    if asking:
        raise PlanError("\n".join(f"{problem} (required by {_listed(names)})" for problem, names in asking.items()))


def _listed(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def _say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Identity:
    """A trial's key and its parts outside the configuration; the key is not final while anything is missing."""

    key: str
    #: key of the trial's training; None for a trivial baseline
    training: str | None
    #: the dataset's fingerprint
    fingerprint: str
    #: frozen weights by name -> sha256
    weights: Mapping[str, str]
    #: missing datasets and weights, each with the command that provides it
    missing: tuple[str, ...]


class Identities:
    """Computes the identities of trials; opens each dataset and looks up each weights file once."""

    def __init__(self, home: Path, report: Report = _say_nothing) -> None:
        self._home = home
        self._report = report
        self._identity = cache(WeightStore(weights_folder(home)).identity)
        #: the store and its checks, or a message on how to obtain it
        self._datasets: dict[str, tuple[Store, Requirements] | str] = {}

    def __call__(self, config: TrialConfig) -> Identity:
        """The identity of one trial."""
        missing, fingerprint = [], "not here"
        dataset = self._dataset(config.data)
        if isinstance(dataset, str):
            missing.append(dataset)
        else:
            fingerprint = dataset[0].fingerprint
        weights = {name: self._identity(name) for name in frozen_weights(config)}
        missing += [
            f"weights {name!r} are not here; run: {fetch_command(name)}"
            for name, sha256 in weights.items()
            if sha256 is None
        ]
        known = {name: sha256 or "not here" for name, sha256 in weights.items()}
        keys = keys_of(config, fingerprint, known)
        return Identity(keys.trial, keys.training, fingerprint, known, tuple(missing))

    def problems(self, config: TrialConfig) -> list[str]:
        """Requirements of the trial that its dataset does not meet; empty where the dataset is not on this machine."""
        dataset = self._dataset(config.data)
        return [] if isinstance(dataset, str) else dataset[1].problems(config)

    def _dataset(self, data: DataConfig) -> tuple[Store, Requirements] | str:
        case = json.dumps([data.name, data.options], sort_keys=True)
        if case not in self._datasets:
            try:
                store = open_dataset(data.name, data.options, self._home, report_tenths(data.name, self._report))
                self._datasets[case] = store, Requirements(store)
            except MissingDatasetError as error:
                self._datasets[case] = str(error)
            except StoreError as error:  # of one dataset; trials of others can run
                anew = prepare_command(data.name, data.options, self._home)
                self._datasets[case] = f"{error}; delete that folder and run: {anew}"
        return self._datasets[case]


def report_tenths(name: str, report: Report) -> Callable[[int, int, str], None]:
    """A progress callback for preparing a dataset, which reports a line for each tenth of its files and its objects."""
    reported: set[tuple[int, int]] = set()

    def progress(done: int, total: int, item: str) -> None:
        tenth = total, 10 * done // max(total, 1)
        if tenth not in reported:
            reported.add(tenth)
            report(f"preparing dataset {name}: {done} of {total} ({item})")

    return progress


def folded(
    named: Iterable[tuple[str, TrialConfig]],
    identify: Identities,
    home: Path,
    proposals: Mapping[str, int] = MappingProxyType({}),
) -> list[PlannedTrial]:
    """One planned trial for each key, in the order of first appearance, with all its names.

    `proposals` maps the names that a search proposed to their numbers.
    """
    first: dict[str, tuple[TrialConfig, Identity]] = {}
    names: dict[str, list[str]] = {}
    for name, config in named:
        identity = identify(config)
        first.setdefault(identity.key, (config, identity))
        names.setdefault(identity.key, []).append(name)
    states = States(Monitor(home))
    return [
        PlannedTrial(
            key,
            tuple(dict.fromkeys(names[key])),
            config.seed,
            config,
            states.of(key, identity.training, identity.missing),
            identity.missing,
            tuple(dict.fromkeys(proposals[name] for name in names[key] if name in proposals)),
            training=identity.training,
            defaults=config.omitted_defaults(),
        )
        for key, (config, identity) in first.items()
    ]


def _controls(configs: Iterable[TrialConfig]) -> list[tuple[str, TrialConfig]]:
    """The trivial baselines for each distinct evaluation of the trials; suffixes distinguish their names."""
    # Thousands of trials share these objects, so only distinct ones need the costly comparison.
    distinct = {(id(config.data), id(config.eval), config.model.input_views): config for config in configs}
    evaluations = {json.dumps(_evaluation_settings(config), sort_keys=True): config for config in distinct.values()}
    return [
        (
            f"{name}{suffix}",
            TrialConfig(
                data=config.data,
                eval=config.eval,
                model=find_method(name).Options(name=name, input_views=config.model.input_views),
            ),
        )
        for config, suffix in zip(evaluations.values(), _suffixes(list(evaluations.values())), strict=True)
        for name in CONTROLS
    ]


def _evaluation_settings(config: TrialConfig) -> dict[str, Any]:
    """The settings that determine which images a trial is evaluated on, and how."""
    return {
        "data": config.data.model_dump(mode="json"),
        "eval": config.eval.model_dump(mode="json"),
        "model": {"input_views": config.model.input_views},
    }


def _suffixes(cases: Sequence[TrialConfig]) -> list[str]:
    """Suffixes for a trivial baseline's name: empty for a single case, ` resolution=64` and the like for several."""
    trees = [_evaluation_settings(config) for config in cases]
    short = short_keys(differing_keys(trees))
    rows = [flatten(tree) for tree in trees]
    return ["".join(f" {short[key]}={value_name(row.get(key), 1)}" for key in short if key in row) for row in rows]


# On the terminal


def summary(plan: Plan) -> str:
    """The number of trials in each state, and what decides."""
    counts = Counter(trial.status for trial in plan.everything)
    lines = [", ".join(f"{counts[status]} {status}" for status in STATE_STYLES if counts[status])]
    lines += [f"primary metric: {plan.primary}"] if plan.primary else []
    lines += [str(progress) for progress in (plan.search, plan.seeds) if progress]
    return "\n".join(lines)


def plan_table(plan: Plan) -> RenderableType:
    """A terminal table of the plan: one row per trial, with its further names below the first; then `summary`."""
    table = Table(title=f"sweep {plan.sweep}", title_justify="left")
    table.add_column("trial", overflow="fold")
    for heading in ("seed", "key", "status"):
        table.add_column(heading, justify="right" if heading == "seed" else "left", no_wrap=True)
    for section in (plan.trials, plan.controls):
        for trial in section[:MAX_ROWS]:
            table.add_row(*_cells(trial, is_control=section is plan.controls))
        if len(section) > MAX_ROWS:
            table.add_row(Text(f"... and {len(section) - MAX_ROWS} more; --json has all", style="dim"))
        table.add_section()
    return Group(table, Text(summary(plan)))


def _cells(trial: PlannedTrial, is_control: bool) -> tuple[Text, ...]:
    name = Text(trial.name)
    for other in trial.names[1:]:
        name.append(f"\n= {other}", style="dim")
    seed = "" if is_control else str(trial.seed)
    key = "" if trial.missing else trial.key
    return name, Text(seed), Text(key, style="dim"), Text(trial.status, style=STATE_STYLES[trial.status])
