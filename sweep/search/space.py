"""The space of a search: converts its parameters to a configuration's settings, and back.

A parameter is a number, or the index of a choice, so that a choice may be any YAML value.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError

from jobs.config import TrialConfig
from sweep.file.diagnostics import ABSENT, Path
from sweep.file.overrides import Setting, build, flatten
from sweep.file.schema import Search, SearchAxis, Sweep, comparable, distinct_choices
from sweep.plan.conditions import Conditions
from sweep.plan.grid import Point, base_draft, is_loss

#: dotted key -> a number, or the index of a choice
Params = Mapping[str, Any]

#: The most configurations of a space that are validated before any is proposed.
_MAX_PROBES = 1024

_ORIGIN: Path = ("search", "space")


def configurations(sweep: Sweep, params: Params) -> list[TrialConfig]:
    """`base` with the parameters on top, for each seed; none where the parameters do not fit together.

    An axis that does not apply has no parameter.
    """
    assert sweep.search is not None
    values = {key: _value(axis, params[key]) for key, axis in sweep.search.space.axes.items() if key in params}
    try:
        config = build(base_draft(sweep), _settings(values, {key: (*_ORIGIN, key) for key in values})).config()
    except ValidationError:
        return []
    return [config.model_copy(update={"seed": seed}) for seed in sweep.first_seeds]


def params_of(search: Search, config: TrialConfig) -> dict[str, Any] | None:
    """The parameters that give a configuration's values at the keys of the space; None where none do.

    Other keys of the configuration may differ.
    """
    found: dict[str, Any] = {}
    conditions = conditions_of(search)
    for key in conditions.in_order():
        if conditions.applies(key, found):
            found[key] = _param(search.space.axes[key], key, config)
    return None if None in found.values() else found


def conditions_of(search: Search) -> Conditions:
    """The conditions under which the axes of a search apply."""
    return Conditions({key: axis.choices or () for key, axis in search.space.axes.items()}, search.space.when)


def applying(conditions: Conditions, params: Params) -> dict[str, Any]:
    """The parameters of those axes that apply, in their order."""
    return {key: param for key, param in params.items() if conditions.applies(key, params)}


def examples(sweep: Sweep) -> list[TrialConfig]:
    """Example configurations that a search may propose, one of each kind; empty where the sweep has no search."""
    base = base_draft(sweep)
    return [build(base, point.settings).config() for point in probes(sweep)]


def probes(sweep: Sweep) -> Iterator[Point]:
    """All combinations of choices, bounds and a number between them; at most 1024 drawn at random where there are more.

    A search may propose any point if all of these are valid configurations.
    """
    if sweep.search is None:
        return
    axes = sweep.search.space.axes
    probed = {key: _probed(axis, (*_ORIGIN, key)) for key, axis in axes.items()}
    conditions, seen = conditions_of(sweep.search), set[tuple[tuple[str, int], ...]]()
    for combination in _combinations([range(len(places)) for places in probed.values()]):
        # The places of an axis with choices are its choices, so that their indices are its parameters.
        applied = applying(conditions, dict(zip(axes, combination, strict=True)))
        if tuple(applied.items()) in seen:
            continue
        seen.add(tuple(applied.items()))
        values = {key: probed[key][index][0] for key, index in applied.items()}
        settings = _settings(values, {key: probed[key][index][1] for key, index in applied.items()})
        yield Point(f"proposal {len(seen) - 1}", tuple(settings), _ORIGIN)


def study_name(search: Search, seeds: Sequence[int], example: str) -> str:
    """A hash (16 hex digits) of all that a score in a search depends on, such as the space and `base`.

    `example` is the key of any configuration of the space; it covers `base`, the data and the frozen weights.
    """
    space = {key: axis.model_dump(mode="json") for key, axis in search.space.axes.items()}
    content = [space, search.metric, search.aim, list(seeds), example]
    if search.space.when:
        content.append(search.space.model_dump(mode="json", include={"when"}))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def count_points(search: Search) -> int | None:
    """The number of points of a space; None where an axis is continuous."""
    counts = {key: count for key, axis in search.space.axes.items() if (count := _count(axis)) is not None}
    if len(counts) < len(search.space.axes):
        return None
    conditions, axes = conditions_of(search), search.space.axes
    deciding = list(dict.fromkeys(other for condition in search.space.when.values() for other in condition))
    every = itertools.product(*(distinct_choices(axes[key]) for key in deciding))
    cases = {tuple(applying(conditions, dict(zip(deciding, indices, strict=True))).items()) for indices in every}
    free = counts.keys() - set(deciding)
    return sum(math.prod(counts[key] for key in free if conditions.applies(key, case)) for case in map(dict, cases))


def is_continuous(axis: SearchAxis) -> bool:
    """Whether an axis has no finite list of values."""
    return _count(axis) is None


def _count(axis: SearchAxis) -> int | None:
    if axis.choices is not None:
        return len(distinct_choices(axis))
    assert axis.low is not None
    assert axis.high is not None
    step = axis.step or (1.0 if axis.int else None)
    return None if step is None else math.floor((axis.high - axis.low) / step + 1e-9) + 1


def _value(axis: SearchAxis, param: Any) -> Any:
    if axis.choices is not None:
        return axis.choices[param]
    if axis.low is None or axis.high is None or axis.step is None or axis.int:
        return param
    return on_step(param, axis.low, axis.high, axis.step)


def on_step(value: float, low: float, high: float, step: float) -> float:
    """The nearest of low, low + step, ... up to `high`, as one would write it: 0.3, not 0.30000000000000004."""
    first, width = Decimal(str(low)), Decimal(str(step))
    last = int((Decimal(str(high)) - first) // width)
    return float(first + min(max(round((Decimal(value) - first) / width), 0), last) * width)


def _settings(values: Mapping[str, Any], origins: Mapping[str, Path]) -> list[Setting]:
    return [setting for key, value in values.items() for setting in flatten(value, origins[key], key)]


def _probed(axis: SearchAxis, origin: Path) -> list[tuple[Any, Path]]:
    """Representative values of an axis, with the place of each in the sweep file."""
    if axis.choices is not None:
        return [(choice, (*origin, index)) for index, choice in enumerate(axis.choices)]
    low, high = axis.low, axis.high
    assert low is not None
    assert high is not None
    if axis.step is not None or axis.int:
        between = min(low + (axis.step or 1.0), high)
    else:
        between = math.sqrt(low * high) if axis.log else (low + high) / 2
    places = {low: "low", between: "step" if axis.step is not None else "low", high: "high"}
    return [(int(value) if axis.int else value, (*origin, name)) for value, name in places.items()]


def _combinations(axes: Sequence[Sequence[int]]) -> Iterator[tuple[int, ...]]:
    if math.prod(map(len, axes)) <= _MAX_PROBES:
        yield from itertools.product(*axes)
        return
    draw = random.Random(0)
    for _ in range(_MAX_PROBES):
        yield tuple(draw.choice(values) for values in axes)


def _param(axis: SearchAxis, key: str, config: TrialConfig) -> Any:
    """The study's parameter for a configuration's value at `key`; None where the value is not on the axis."""
    found = list(_found(config, key.split(".")))
    if is_loss(key):  # a loss that is absent has the weight 0
        found = [0.0 if value is ABSENT else value for value in found]
    if ABSENT in found or any(value != found[0] for value in found):
        return None
    value = found[0]
    if axis.choices is not None:
        texts = [comparable(choice) for choice in axis.choices]
        text = comparable(value)
        return texts.index(text) if text in texts else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    assert axis.low is not None
    assert axis.high is not None
    return value if axis.low <= value <= axis.high else None


def _found(node: Any, parts: Sequence[str]) -> Iterator[Any]:
    """The plain values at a dotted key, several where it has a `*`; `ABSENT` for each missing one."""
    if not parts:
        yield node.model_dump(mode="json") if isinstance(node, BaseModel) else node
        return
    part, rest = parts[0], parts[1:]
    if isinstance(node, BaseModel) and part in type(node).model_fields:
        yield from _found(getattr(node, part), rest)
    elif isinstance(node, Mapping) and part in node:
        yield from _found(node[part], rest)
    elif isinstance(node, tuple):
        items = node if part == "*" else node[int(part) : int(part) + 1]
        for item in items:
            yield from _found(item, rest)
        if not items:
            yield ABSENT
    else:
        yield ABSENT
