"""Checks of a sweep that matches the schema: each yields findings and repairs nothing.

A mistake in `base` is reported once, however many trials inherit it, because findings are identified by the
place where the offending value was written.  Where only the settings of some trials make it one, these are named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from jobs.config import TrialConfig
from jobs.data import DATASETS
from model.methods import find_method
from model.options import WHOLE
from model.rasterizers import BACKENDS, CUDA_BACKENDS
from model.registry import is_choice
from results.metrics import split_column
from sweep.file.diagnostics import ABSENT, Finding, Path, split_allowed
from sweep.file.overrides import (
    METHOD_SECTION,
    REMOVE,
    Draft,
    OverrideError,
    Setting,
    known_method_keys,
    named_options,
    variants_with,
)
from sweep.file.schema import GridBlock, Sweep
from sweep.plan.conditions import condition_findings, unknown_axes, unknown_value
from sweep.plan.grid import (
    OFF,
    SWITCHES,
    Point,
    base_settings,
    count_product,
    expand,
    grid_choices,
    is_loss,
    points,
)
from sweep.plan.names import differing_keys
from sweep.search.checks import proposal_findings, search_findings, space_findings
from sweep.search.space import probes

MAX_TRIALS = 100_000

_DEFAULTS = Draft.defaults().values

#: place of a dataset's options, its name, and the options as JSON -> the mistakes in them
_OptionFindings = dict[tuple[Path | None, str, str], list[Finding]]


def find_mistakes(sweep: Sweep, *, is_complete: bool = True) -> Iterator[Finding]:
    """All mistakes in the configurations of a sweep, and in how it describes them.

    `is_complete` is false when parts were dropped because they did not match the schema; settings without effect and
    the baseline are then not checked.
    """
    yield from _repeated(sweep.first_seeds, ("seeds",))
    yield from _repeated(sweep.tables, ("tables",))
    yield from _repeated(sweep.leave_one_out, ("leave_one_out",))
    for index, block in enumerate(sweep.grid):
        yield from _block_findings(block, ("grid", index))
    unconditional = None
    if sweep.search is not None and (found := list(space_findings(sweep.search))):
        yield from found
        space = sweep.search.space.model_copy(update={"when": {}})
        unconditional = sweep.search.model_copy(update={"space": space})
    sweep = sweep.model_copy(
        update={
            "grid": tuple(_without_invalid(block) for block in sweep.grid),
            "search": unconditional or sweep.search,
        }
    )
    count = sum(count_product(block) for block in sweep.grid) * sweep.most_seeds
    if count > MAX_TRIALS:
        yield Finding(("grid",), f"stands for {count} trials; at most {MAX_TRIALS} can be planned")
        sweep, is_complete = sweep.model_copy(update={"grid": ()}), False
    configuration_findings = list(_configuration_findings(sweep, is_complete))
    yield from configuration_findings
    baseline_findings = list(_baseline_findings(sweep)) if is_complete and sweep.baseline is not None else []
    yield from baseline_findings
    if sweep.primary is not None and is_complete and not configuration_findings:
        yield from metric_findings(sweep.primary, dict(expand(sweep)), ("primary",))
    if sweep.search is not None and is_complete and not configuration_findings:
        yield from proposal_findings(sweep)
    if sweep.seed_rule is not None and is_complete and not (configuration_findings or baseline_findings):
        from sweep.seeds.checks import seed_findings  # brings scipy and pandas

        yield from seed_findings(sweep)


def _baseline_findings(sweep: Sweep) -> Iterator[Finding]:
    """Mistakes in `baseline`: it must select one row; keys that all rows share may be left out."""
    try:
        named = expand(sweep)
    except (OverrideError, ValueError):  # found and located by the other checks
        return
    if isinstance(sweep.baseline, str):
        names = list(dict.fromkeys(name for name, _ in named))
        if sweep.baseline not in names:
            yield Finding(("baseline",), "no row has this name", sweep.baseline, allowed=tuple(names))
        return
    assert sweep.baseline is not None
    from results.tables.select import rows_with  # pandas
    from sweep.file.selector_keys import alternatives

    unknown = {key: allowed for key in sweep.baseline if (allowed := alternatives(key))}
    for key, allowed in unknown.items():
        yield Finding(("baseline", key), "selects by an unknown key", key, allowed, at="key")
    if unknown:
        return
    rows = {name: config for name, config in named if config.seed == sweep.first_seeds[0]}
    found = rows_with({name: config.settings() for name, config in rows.items()}, sweep.baseline)
    if len(found) != 1:
        differing = differing_keys([config.identity() for config in rows.values()])
        varying = ", ".join(key for key in differing if key != "seed") or "nothing"
        count = f"{len(found)} rows have" if found else "no row has"
        reason = f"{count} this setting, but it must identify exactly one row; these settings vary: {varying}"
        if not found and any(isinstance(value, list | tuple) for value in sweep.baseline.values()):
            reason += "; a list means any of its values, a list in a list that list itself"
        yield Finding(("baseline",), reason, dict(sweep.baseline))


def metric_findings(metric: str, rows: Mapping[str, TrialConfig], path: Path) -> Iterator[Finding]:
    """A mistake at `path` where trained rows are not evaluated by a metric, such as `novel_psnr`."""
    for name, config in rows.items():
        if config.is_trained and split_column(metric)[1] not in config.metrics:
            measured = ", ".join(config.metrics)
            yield Finding(path, f"row {name!r} is not evaluated by it, only by {measured}", metric)
            return


def _repeated(values: tuple[Any, ...], path: Path) -> Iterator[Finding]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Finding((*path, index), "is given twice", value)


# Grid blocks

_BLOCK = "this block"


def _block_findings(block: GridBlock, path: Path) -> Iterator[Finding]:
    for key, values in block.axes.items():
        yield from _repeated_json(values, (*path, "axes", key))
    zip_findings = list(_zip_findings(block, (*path, "zip")))
    exclude_findings = list(_exclude_findings(block, (*path, "exclude")))
    when_findings = list(_when_findings(block, (*path, "when")))
    yield from zip_findings
    yield from exclude_findings
    yield from when_findings
    is_sound = not (zip_findings or exclude_findings or when_findings) and count_product(block) <= MAX_TRIALS
    if is_sound and next(grid_choices(block), None) is None:
        yield Finding((*path, "exclude"), "leaves no point of this block")


def _repeated_json(values: tuple[Any, ...], path: Path) -> Iterator[Finding]:
    """Like `_repeated`, but 1 and true differ, and values may be mappings."""
    texts = [json.dumps(value, sort_keys=True) for value in values]
    for index, text in enumerate(texts):
        if text in texts[:index]:
            yield Finding((*path, index), "is given twice", values[index])


def _zip_findings(block: GridBlock, path: Path) -> Iterator[Finding]:
    uses = Counter(key for group in block.zip for key in group)
    for index, group in enumerate(block.zip):
        yield from unknown_axes(block.axes, {key: (*path, index, i) for i, key in enumerate(group)}, _BLOCK)
        if len(group) < 2:
            yield Finding((*path, index), "must name two or more axes", list(group))
        lengths = {key: len(block.axes[key]) for key in group if key in block.axes}
        if len(set(lengths.values())) > 1:
            counted = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            yield Finding((*path, index), f"axes that move together must have equally many values; {counted}")
        for position, key in enumerate(group):
            if uses[key] > 1 and key in block.axes:
                yield Finding((*path, index, position), "an axis can move with one group only, and once", key)


def _exclude_findings(block: GridBlock, path: Path) -> Iterator[Finding]:
    for index, entry in enumerate(block.exclude):
        yield from unknown_axes(block.axes, {key: (*path, index, key) for key in entry}, _BLOCK)
        if not entry:
            yield Finding((*path, index), "must name one or more axes")
        for key, value in entry.items():
            yield from unknown_value(block.axes, key, value, (*path, index, key))


def _when_findings(block: GridBlock, path: Path) -> Iterator[Finding]:
    yield from condition_findings(block.axes, block.when, path, _BLOCK)


def _without_invalid(block: GridBlock) -> GridBlock:
    """The block without its invalid zips, exclusions and conditions, so that the rest can be checked."""
    unsound = {finding.path[:2] for finding in _zip_findings(block, ("zip",))}
    unsound |= {finding.path[:2] for finding in _exclude_findings(block, ("exclude",))}
    has_unsound_conditions = next(_when_findings(block, ("when",)), None) is not None
    return block.model_copy(
        update={
            "zip": tuple(group for i, group in enumerate(block.zip) if ("zip", i) not in unsound),
            "exclude": tuple(entry for i, entry in enumerate(block.exclude) if ("exclude", i) not in unsound),
            "when": {} if has_unsound_conditions else block.when,
        }
    )


# Configurations


def _configuration_findings(sweep: Sweep, is_complete: bool) -> Iterator[Finding]:
    base, findings = _built(Draft.defaults(), base_settings(sweep))
    yield from findings
    # Settings of `base` that do not fit together by themselves may fit in every trial.
    yield from (finding for finding in base.value_findings() if finding.path)
    component_findings = list(_component_findings(sweep, base))
    yield from component_findings
    unsound = {finding.path for finding in component_findings}
    drafts, of_rows = [], []
    known: _OptionFindings = {}
    for point in chain(points(sweep), probes(sweep)):
        if point.origin not in unsound:
            draft, findings = _built(base, point.settings)
            yield from findings or _replaced_findings(draft, point)
            found = [*draft.findings(point.origin), *_option_findings(draft, known)]
            of_rows += [(_of_axis(finding), point.name) for finding in found]
            drafts.append((point, draft))
    yield from _with_rows(of_rows, [*base.findings(()), *_option_findings(base, known)])
    yield from _name_findings(drafts)
    if sweep.search is not None:
        yield from search_findings(sweep.search, sweep.first_seeds, _value(base, "eval"))
    if sweep.run.gpus_per_trial == 0:
        yield from _backend_findings([draft for _, draft in drafts])
    if is_complete:
        yield from _inactive_findings([draft for _, draft in drafts])


def _built(draft: Draft, settings: tuple[Setting, ...] | list[Setting]) -> tuple[Draft, list[Finding]]:
    """The draft with all valid settings applied, and the mistakes in the others."""
    findings = []
    places: dict[tuple[str, ...], Path] = {}
    for setting in settings:
        if setting.keys[0] == "seed":
            findings.append(Finding(setting.origin, "set by `seeds`, for all trials alike", setting.value, at="key"))
            continue
        if setting.keys in places:
            first = ".".join(map(str, places[setting.keys]))
            findings.append(Finding(setting.origin, f"set twice; first as {first}", setting.value, at="key"))
        places[setting.keys] = setting.origin
        try:
            draft = draft.apply(setting)
        except OverrideError as error:
            findings.append(error.finding)
    return draft, findings


def _replaced_findings(draft: Draft, point: Point) -> Iterator[Finding]:
    """Mistakes: settings of a point of which nothing is left, such as a loss before the list of all stages."""
    left = set(draft.origins.values())
    for setting in point.settings:
        if setting.origin not in left and setting.value not in (REMOVE, {}):
            yield Finding(setting.origin, "has no effect, since a later key replaces it", setting.value, at="key")


def _component_findings(sweep: Sweep, base: Draft) -> Iterator[Finding]:
    losses = _losses(base)
    allowed = (*SWITCHES, *(f"train.stages.*.losses.{name}" for name in losses))
    for index, component in enumerate(sweep.leave_one_out):
        path: Path = ("leave_one_out", index)
        if component in SWITCHES:
            if _value(base, component) == OFF:
                yield Finding(path, f"base has no such component: {component} is {OFF!r}", component)
        elif not is_loss(component):
            yield Finding(path, "not a component that can be left out", component, allowed)
        elif component.split(".")[-1] not in losses:
            yield Finding(path, "base has no such loss", component, allowed)


def _losses(draft: Draft) -> tuple[str, ...]:
    stages = _value(draft, "train.stages")
    if not isinstance(stages, list):
        return ()
    losses = [stage.get("losses") for stage in stages if isinstance(stage, dict)]
    return tuple(dict.fromkeys(name for terms in losses if isinstance(terms, dict) for name in terms))


def _value(draft: Draft, key: str) -> Any:
    """The value of a draft at a dotted key; None where a (possibly invalid) draft has none."""
    node: Any = draft.values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _name_findings(drafts: list[tuple[Point, Draft]]) -> Iterator[Finding]:
    first: dict[str, tuple[Point, Draft]] = {}
    for point, draft in drafts:
        other, values = first.setdefault(point.name, (point, draft))
        if values.values != draft.values:
            place = ".".join(map(str, other.origin))
            message = f"the name {point.name!r} is taken by another trial, of {place}"
            yield Finding(point.origin, message, at="key")


def _with_rows(found: Iterable[tuple[Finding, str]], of_base: Iterable[Finding]) -> Iterator[Finding]:
    """Mistakes of rows, each once; one at a place in `base`, which `base` alone does not have, names its rows."""
    rows: dict[tuple[Path, str], tuple[Finding, dict[str, None]]] = {}
    for finding, name in found:
        rows.setdefault((finding.path, finding.message), (finding, {}))[1][name] = None
    known = {(finding.path, finding.message) for finding in of_base}
    for place, (finding, names) in rows.items():
        if finding.path[:1] == ("base",) and place not in known:
            first, *others = names
            more = f" and {len(others)} more" if others else ""
            finding = replace(finding, message=f"in trial {first!r}{more}: {finding.message}")
        yield finding


def _of_axis(finding: Finding) -> Finding:
    """A fraction that a search would propose for a whole number, as a mistake of its axis; others as they are."""
    is_bound = finding.path[:2] == ("search", "space") and finding.path[-1] in ("low", "high", "step")
    if not is_bound or not finding.message.startswith(WHOLE):
        return finding
    return replace(finding, path=finding.path[:-1], message=f"{WHOLE}: add int: true", value=ABSENT)


def _option_findings(draft: Draft, known: _OptionFindings) -> list[Finding]:
    """Mistakes in `data.options`, which only the dataset's importer understands; known: those of earlier drafts."""
    name, options = _value(draft, "data.name"), _value(draft, "data.options")
    if not isinstance(options, dict) or not options or not is_choice(name, DATASETS):
        return []
    case = (draft.origin(("data", "options")), name, json.dumps(options, sort_keys=True))
    if case not in known:
        known[case] = list(_importer_findings(name, options, draft))
    return known[case]


def _importer_findings(name: str, options: dict[str, Any], draft: Draft) -> Iterator[Finding]:
    from jobs.data.prepare import parse_options  # importers bring heavy packages along
    from model.options import OptionsError

    try:
        parse_options(name, options)
    except OptionsError as error:
        for option, problem in error.problems:
            path = draft.origin(("data", "options", *option.split("."))) or ("base",)
            message, allowed = split_allowed(problem)
            yield Finding(path, message, option if allowed else ABSENT, allowed, at="key")


def _backend_findings(drafts: list[Draft]) -> Iterator[Finding]:
    """Mistakes: rasterisers that need a GPU, in trials without one."""
    allowed = tuple(name for name in ("auto", *BACKENDS) if name not in CUDA_BACKENDS)
    origins = {
        draft.origin(("render", "backend")): backend
        for draft in drafts
        if (backend := _value(draft, "render.backend")) in CUDA_BACKENDS
    }
    for origin, backend in origins.items():
        if origin is not None:
            yield Finding(origin, "needs a GPU, and run.gpus_per_trial is 0", backend, allowed)


def _inactive_findings(drafts: list[Draft]) -> Iterator[Finding]:
    """Mistakes: settings without effect in every trial that has them.

    Where a setting has an effect in some trials, those without it become equal and are planned once.
    """
    on: set[Path] = set()
    off: dict[Path, tuple[str, Any]] = {}
    for draft in drafts:
        for key, origin in draft.origins.items():
            reason = _why_off(draft, key)
            if reason is None:
                on.add(origin)
            else:
                off[origin] = reason, _value(draft, ".".join(map(str, key)))
    for origin, (reason, value) in off.items():
        if origin not in on:
            yield Finding(origin, f"has no effect, since {reason}", value, at="key")


def _why_off(draft: Draft, key: Path) -> str | None:
    """The reason why a key has no effect in a draft; None where it may have one."""
    switch = _switch_of(key)
    if switch and _value(draft, switch) == OFF:
        choices = ", ".join(SWITCHES[switch])
        return f"{switch} is {OFF!r} in every trial that inherits it ({switch} may be {choices})"
    if key == ("train", "keep_by") and _value(draft, "train.keep") == "last":
        return "train.keep is 'last' in every trial that inherits it (train.keep may be last, best)"
    options = named_options(draft.values[METHOD_SECTION])
    if options is None:  # a misspelt method may have any key
        return None
    if key[0] == METHOD_SECTION and len(key) > 1 and key[1] in known_method_keys() - options.model_fields.keys():
        having = ", ".join(variants_with(str(key[1])))
        return f"no trial that inherits it has a method with this key (it belongs to {having})"
    name = options.model_fields["name"].default
    if key[0] == "render" and find_method(name).scene != "gaussians":
        return f"model.name is {name!r} in every trial that inherits it, which renders no Gaussians"
    return None


def _switch_of(key: Path) -> str | None:
    """The switch that must be on for a key to have an effect; None for switches and keys without one."""
    section, *inner = key
    for switch in SWITCHES:
        governor, _, itself = switch.partition(".")
        if section == governor and inner and inner[0] != itself and inner[0] in _DEFAULTS[governor]:
            return switch
    return None
