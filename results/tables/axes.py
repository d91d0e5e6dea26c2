"""Axes of a sweep: the settings that vary between its configurations; those that vary together are one axis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from results.provenance import ABSENT
from results.records.short_keys import short_keys
from results.tables.select import varying

Flat = Mapping[str, Any]

_INDEX = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True)
class Axis:
    """Settings that vary together, under one name."""

    #: short name, or several with commas
    label: str
    #: dotted keys, in which `*` matches any index
    keys: tuple[str, ...]
    #: whether the sweep file varies it; other settings follow from those that it does
    is_declared: bool = True
    #: settings below its key, where that is a section, such as `train.ema`
    parts: tuple[str, ...] = ()

    def value(self, config: Flat) -> str:
        """The values of a flat configuration on this axis, each once; a dash where it has none."""
        texts = [_text(value) for key in self.keys for name, value in config.items() if is_at(name, key)]
        depth = len(self.keys[0].split("."))
        texts += [f"{'.'.join(name.split('.')[depth:])} {_text(config[name])}" for name in self.parts if name in config]
        return ", ".join(dict.fromkeys(texts)) or ABSENT


def find_axes(configs: Sequence[Flat], declared: Mapping[str, str]) -> list[Axis]:
    """The axes of flat configurations: first those of `declared` (dotted key -> short name), then what follows.

    Settings under the same key but for an index are one axis where they have equal values everywhere, and so are
    settings that divide the configurations alike.
    """
    columns = _columns(configs, declared)
    shorts = {**short_keys([*columns, *declared]), **declared}
    alike: dict[tuple[int, ...], list[str]] = {}
    for key, texts in columns.items():
        alike.setdefault(_division(texts), []).append(key)
    axes = []
    for keys in alike.values():
        chosen = [key for key in keys if _is_declared(key, declared)]
        shown = tuple(chosen or keys[:1])
        axes.append(Axis(", ".join(shorts[key] for key in shown), shown, bool(chosen)))
    return axes


def named_axis(name: str, configs: Sequence[Flat], declared: Mapping[str, str]) -> Axis:
    """The axis of one key, given by its dotted key or its short name; of a section, the parts that vary.

    Raises `ValueError`, with the nearest names, where no configuration has such a setting.
    """
    by_short = {short: key for key, short in declared.items()}
    key = by_short.get(name, name)
    parts = tuple(found for found in varying(configs) if is_below(found, key))
    if not parts and not any(is_at(found, key) for config in configs for found in config):
        known = [*by_short, *dict.fromkeys(found for config in configs for found in config)]
        near = get_close_matches(name, known, n=3) or list(by_short)
        raise ValueError(f"no setting is called {name!r}" + (f"; near it: {', '.join(near)}" if near else ""))
    general = _INDEX.sub(".*", key)
    shorts = {**short_keys([*_columns(configs, declared), general]), **declared}
    return Axis(shorts.get(key, shorts[general]), (key,), parts=parts)


def is_at(name: str, key: str) -> bool:
    """Whether a flat configuration's `name` is the setting `key`, in which `*` matches any index.

    A key may end below it: `losses.tv.weight` is `losses.tv` where the loss has a weight alone.
    """
    parts, wanted = name.split("."), key.split(".")
    return len(parts) <= len(wanted) and all(map(fnmatchcase, parts, wanted))


def is_below(name: str, key: str) -> bool:
    """Whether a flat configuration's `name` is a part of the setting `key`, in which `*` matches any index."""
    parts, wanted = name.split("."), key.split(".")
    return len(parts) > len(wanted) and all(map(fnmatchcase, parts, wanted))


def _columns(configs: Sequence[Flat], declared: Mapping[str, str]) -> dict[str, list[str]]:
    """Key -> its text in each configuration, of the keys that vary; the declared ones first, in their order."""
    keys: dict[str, None] = {}
    by_general: dict[str, list[str]] = {}
    for name in varying(configs):
        at = next((key for key in declared if is_at(name, key)), None)
        if at is None:
            by_general.setdefault(_INDEX.sub(".*", name), []).append(name)
        else:
            keys[at] = None
    for general, names in by_general.items():
        same = len({_division([_text(config.get(name, ABSENT)) for config in configs]) for name in names}) == 1
        keys |= dict.fromkeys([general] if same and len(names) > 1 else names)
    places = {key: place for place, key in enumerate(declared)}
    order = sorted(keys, key=lambda key: places.get(key, _below(key, declared, places)))
    columns = {key: [Axis("", (key,)).value(config) for config in configs] for key in order}
    return {key: texts for key, texts in columns.items() if len(set(texts)) > 1}


def _below(key: str, declared: Mapping[str, str], places: Mapping[str, int]) -> int:
    """Place of the declared key that holds `key` among its parts; behind all where there is none."""
    return next((places[name] for name in declared if key.startswith(f"{name}.")), len(places))


def _is_declared(key: str, declared: Mapping[str, str]) -> bool:
    return key in declared or any(key.startswith(f"{name}.") for name in declared)


def _division(texts: Sequence[str]) -> tuple[int, ...]:
    """The groups into which a column divides the configurations: equal numbers where it has equal values."""
    first: dict[str, int] = {}
    return tuple(first.setdefault(text, len(first)) for text in texts)


def _text(value: Any) -> str:
    """A value as the names of a grid's points have it: 0.01 and not 1.0e-2."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "-".join(map(_text, value))
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )
