"""base x (trials + grid blocks + leave-one-out) x seeds -> named configurations.  Pure: touches no file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from jobs.config import TrialConfig
from model.context import SOURCES, find_source
from results.records.short_keys import short_keys
from sweep.file.diagnostics import Path
from sweep.file.overrides import REMOVE, Draft, Setting, build, flatten
from sweep.file.schema import GridBlock, Sweep
from sweep.plan.conditions import Conditions, position_on_axis
from sweep.plan.names import value_name

#: Components that can be switched off by the choice "none": key -> its choices.
SWITCHES: Mapping[str, Mapping[str, str]] = {
    f"{name}.{source.switch}": source.models for name, source in ((name, find_source(name)) for name in SOURCES)
}
OFF = "none"
#: Terms of the training loss, removed as `train.stages.*.losses.NAME`.
LOSS_PREFIX = ("train", "stages")
UNTOUCHED = "full"


@dataclass(frozen=True, slots=True)
class Point:
    """One named configuration before it is built: its settings on top of `base`, and its place in the sweep file."""

    name: str
    settings: tuple[Setting, ...]
    origin: Path


def expand(sweep: Sweep) -> list[tuple[str, TrialConfig]]:
    """All trials as (name, configuration), one for each of the first seeds, in the order of the sweep file.

    Points of two blocks with the same name and configuration are merged.  Raises `ValueError` for a sweep that
    `load_sweep` would reject.
    """
    base = base_draft(sweep)
    distinct: dict[str, list[TrialConfig]] = {}
    for point in points(sweep):
        config = build(base, point.settings).config()
        same_name = distinct.setdefault(point.name, [])
        if config not in same_name:
            same_name.append(config)
    return [
        (name, config if config.seed == seed else config.model_copy(update={"seed": seed}))
        for name, configs in distinct.items()
        for config in configs
        for seed in sweep.first_seeds
    ]


def base_draft(sweep: Sweep) -> Draft:
    """The configuration that every point starts from."""
    return build(Draft.defaults(), base_settings(sweep))


def base_settings(sweep: Sweep) -> list[Setting]:
    """The settings in `base`."""
    return list(flatten(sweep.base, ("base",)))


def points(sweep: Sweep) -> Iterator[Point]:
    """All points, without seeds; `base` alone where the sweep has no trials, grid, leave-one-out or search."""
    yield from _named_trials(sweep)
    short = short_keys(key for block in sweep.grid for key in block.axes)
    for index, block in enumerate(sweep.grid):
        if block.axes:
            yield from _grid_points(block, ("grid", index), short)
    yield from _leave_one_out(sweep)
    if not (sweep.trials or sweep.grid or sweep.leave_one_out or sweep.search):
        yield Point("base", (), ("base",))


def varied_keys(sweep: Sweep) -> dict[str, str]:
    """The dotted keys that the sweep file varies, with their short names, as the names of a grid's points have them."""
    keys = {".".join(setting.keys): None for point in points(sweep) for setting in point.settings}
    keys |= dict.fromkeys(sweep.search.space.axes if sweep.search else ())
    return short_keys(keys) | short_keys(key for block in sweep.grid for key in block.axes)


def _named_trials(sweep: Sweep) -> Iterator[Point]:
    for name, overrides in sweep.trials.items():
        origin = ("trials", name)
        yield Point(name, tuple(flatten(overrides, origin)), origin)


def _leave_one_out(sweep: Sweep) -> Iterator[Point]:
    if sweep.leave_one_out:
        yield Point(UNTOUCHED, (), ("leave_one_out",))
    for index, component in enumerate(sweep.leave_one_out):
        origin: Path = ("leave_one_out", index)
        value = OFF if component in SWITCHES else REMOVE
        yield Point(f"without {component_name(component)}", tuple(flatten(value, origin, component)), origin)


def component_name(component: str) -> str:
    """The name of a component in a table: a switch's section, a loss's name."""
    return component.split(".")[0] if component in SWITCHES else component.split(".")[-1]


def is_loss(component: str) -> bool:
    """Whether a dotted key has the form `train.stages.INDEX.losses.NAME`."""
    parts = component.split(".")
    return len(parts) == 5 and tuple(parts[:2]) == LOSS_PREFIX and parts[3] == "losses"


# An axis and the index of a value on it: points are compared by index, since 1, 1.0 and true are equal.
_Choice = tuple[str, int]


def _grid_points(block: GridBlock, origin: Path, short: Mapping[str, str]) -> Iterator[Point]:
    settings: dict[_Choice, tuple[Setting, ...]] = {}
    names: dict[_Choice, str] = {}
    for key, values in block.axes.items():
        for index, value in enumerate(values):
            settings[key, index] = tuple(flatten(value, (*origin, "axes", key, index), key))
            names[key, index] = f"{short[key]}={value_name(value, index + 1)}"
    for choices in grid_choices(block):
        yield Point(
            " ".join(names[choice] for choice in choices),
            tuple(itertools.chain.from_iterable(settings[choice] for choice in choices)),
            origin,
        )


def grid_choices(block: GridBlock) -> Iterator[tuple[_Choice, ...]]:
    """The points of a block: (axis, index of value) pairs in the order of `axes`, the last axis varying fastest.

    A point has no pair for an axis whose condition it does not meet.
    """
    order = {key: position for position, key in enumerate(block.axes)}
    excluded = [_excluded_choices(block, entry) for entry in block.exclude]
    conditions = Conditions(block.axes, block.when)
    seen: set[tuple[_Choice, ...]] = set()
    for combination in itertools.product(*_axis_groups(block)):
        indices = dict(itertools.chain.from_iterable(combination))
        choices = tuple(
            (key, indices[key]) for key in sorted(indices, key=order.__getitem__) if conditions.applies(key, indices)
        )
        if choices not in seen and not any(entry.issubset(choices) for entry in excluded):
            seen.add(choices)
            yield choices


def count_product(block: GridBlock) -> int:
    """The number of a block's points before exclusions and conditions."""
    return prod(len(steps) for steps in _axis_groups(block))


def _axis_groups(block: GridBlock) -> list[list[tuple[_Choice, ...]]]:
    """The steps of each independent group: zipped axes, at the place of the first of them, or a single axis."""
    group_of = {key: group for group in block.zip for key in group}
    groups = dict.fromkeys(group_of.get(key, (key,)) for key in block.axes)
    return [_steps(block, group) for group in groups]


def _steps(block: GridBlock, group: Iterable[str]) -> list[tuple[_Choice, ...]]:
    columns = [[(key, index) for index in range(len(block.axes[key]))] for key in group]
    return list(zip(*columns, strict=True))


def _excluded_choices(block: GridBlock, entry: Mapping[str, Any]) -> set[_Choice]:
    return {(key, position_on_axis(block.axes[key], value)) for key, value in entry.items()}
