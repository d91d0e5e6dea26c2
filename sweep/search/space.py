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
from typing import Any

from pydantic import BaseModel, ValidationError

from jobs.config import TrialConfig
from sweep.file.diagnostics import ABSENT, Path
from sweep.file.overrides import Setting, build, flatten
from sweep.file.schema import Search, SearchAxis, Sweep, comparable, distinct_choices
from sweep.plan.grid import Point, base_draft, is_loss

#: dotted key -> a number, or the index of a choice
Params = Mapping[str, Any]

#: The most configurations of a space that are validated before any is proposed.
_MAX_PROBES = 1024

_ORIGIN: Path = ("search", "space")


def configurations(sweep: Sweep, params: Params) -> list[TrialConfig]:
    """`base` with the parameters on top, for each seed; none where the parameters do not fit together."""
    assert sweep.search is not None
    values = {key: _value(axis, params[key]) for key, axis in sweep.search.space.items()}
    try:
        config = build(base_draft(sweep), _settings(values, {key: (*_ORIGIN, key) for key in values})).config()
    except ValidationError:
        return []
    return [config.model_copy(update={"seed": seed}) for seed in sweep.first_seeds]


def params_of(search: Search, config: TrialConfig) -> dict[str, Any] | None:
    """The parameters that give a configuration's values at the keys of the space; None where none do.

    Other keys of the configuration may differ.
    """
    found = {key: _param(axis, key, config) for key, axis in search.space.items()}
    return None if any(param is None for param in found.values()) else found


def examples(sweep: Sweep) -> list[TrialConfig]:
    """Example configurations that a search may propose, one of each kind; empty where the sweep has no search."""
    base = base_draft(sweep)
    return [build(base, point.settings).config() for point in probes(sweep)]


def probes(sweep: Sweep) -> Iterator[Point]:
    """All combinations of choices, bounds and a number between them; a random sample of 1024 where there are more.

    A search may propose any point if all of these are valid configurations.
    """
    if sweep.search is None:
        return
    axes = {key: _probed(axis, (*_ORIGIN, key)) for key, axis in sweep.search.space.items()}
    for index, combination in enumerate(_combinations(list(axes.values()))):
        places = dict(zip(axes, combination, strict=True))
        values = {key: value for key, (value, _) in places.items()}
        settings = _settings(values, {key: origin for key, (_, origin) in places.items()})
        yield Point(f"proposal {index}", tuple(settings), _ORIGIN)


def study_name(search: Search, seeds: Sequence[int], example: str) -> str:
    """A hash (16 hex digits) of all that a score in a search depends on, such as the space and `base`.

    `example` is the key of any configuration of the space; it covers `base`, the data and the frozen weights.
    """
    space = {key: axis.model_dump(mode="json") for key, axis in search.space.items()}
    content = [space, search.metric, search.aim, list(seeds), example]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def count_points(search: Search) -> int | None:
    """The number of points of a space; None where an axis is continuous."""
    counts = [_count(axis) for axis in search.space.values()]
    return None if None in counts else math.prod(count for count in counts if count is not None)


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
    return param if axis.choices is None else axis.choices[param]


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


def _combinations(axes: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
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
        for item in node if part == "*" else node[int(part) : int(part) + 1]:
            yield from _found(item, rest)
    else:
        yield ABSENT
