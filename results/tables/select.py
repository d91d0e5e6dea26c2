"""Selects the trials of a row by configuration or by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from results.load import TrialRecord

_LOSSES = ".losses."
#: the key of a selector that matches a trial's names instead of its configuration
TRIAL = "trial"


def configurations(records: Iterable[TrialRecord]) -> list[tuple[TrialRecord, ...]]:
    """The trials of each name and configuration, a seed each, in order of first appearance."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in records:
        config = {key: value for key, value in record.planned.config.items() if key != "seed"}
        identity = record.planned.name, json.dumps(config, sort_keys=True, default=str)
        groups.setdefault(identity, []).append(record)
    return [tuple(group) for group in groups.values()]


def selected(records: Iterable[TrialRecord], selector: Mapping[str, Any]) -> list[TrialRecord]:
    """The trials that meet every condition of `selector`.

    Its keys are dotted keys of a configuration, in which `*` matches anything, or `trial`.  Its values are the wanted
    ones: a value, text in which `*` matches anything, a list of these, or null for an absent key.  A value that is a
    list stands in a list of its own: `{model.channel_mult: [[1, 2]]}`.  Components that are switched off count as
    absent: `{depth.model: null}` and `{depth.model: none}` mean the same, and so does the weight 0 of a loss.  Of a
    setting with parts, such as a loss with a start, the whole can be null or `*`.
    """
    return [record for record in records if all(_meets(record, *condition) for condition in selector.items())]


def varying(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values differ between flat configurations, in order of appearance."""
    keys = dict.fromkeys(key for config in configs for key in config if key != "seed")
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]


def rows_with(rows: Mapping[str, Mapping[str, Any]], setting: Mapping[str, Any]) -> list[str]:
    """Names of the flat configurations that have a setting; of equal ones, the first."""
    found: dict[str, str] = {}
    for name, flat in rows.items():
        if has_setting(flat, setting):
            found.setdefault(json.dumps(flat, sort_keys=True, default=str), name)
    return list(found.values())


def has_setting(flat: Mapping[str, Any], setting: Mapping[str, Any]) -> bool:
    """Whether a flat configuration meets every condition of a selector without `trial`."""
    return all(_is_one_of(_values(flat, key), key, wanted) for key, wanted in setting.items())


def _meets(record: TrialRecord, key: str, wanted: Any) -> bool:
    found = list(record.planned.names) if key == TRIAL else _values(record.planned.flat_config, key)
    return _is_one_of(found, key, wanted)


def _values(flat: Mapping[str, Any], key: str) -> list[Any]:
    """The values at a key; of a setting with parts, such as a loss with a start, a mapping for each part."""
    if key in flat:
        own, parts = [key], []
    elif "*" in key:
        own = [name for name in flat if _matches(name, key)]
        parts = [name for name in flat if _matches(name, f"{key}.*")]
    else:
        own, parts = [], [name for name in flat if name.startswith(f"{key}.")]
    values = [flat[name] for name in own] + [{name: flat[name]} for name in parts if flat[name] is not None]
    return [value for value in values if value not in (None, "none")]


def _is_one_of(found: Sequence[Any], key: str, wanted: Any) -> bool:
    options = wanted if isinstance(wanted, list | tuple) else [wanted]
    return any(_is_like(found, key, option) for option in options)


def _is_like(found: Sequence[Any], key: str, wanted: Any) -> bool:
    # Configurations leave losses of weight 0 out.
    if wanted is None or wanted == "none" or (_LOSSES in key and wanted == 0 and not isinstance(wanted, bool)):
        return not found
    if isinstance(wanted, str):
        return any(_matches(str(value), wanted) for value in found)
    # True equals 1 in Python, but not in YAML.
    return any(value == wanted and isinstance(value, bool) == isinstance(wanted, bool) for value in found)


def _matches(text: str, pattern: str) -> bool:
    """Whether a text has the form of a pattern, in which `*` is any text; other signs are themselves, as in names."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text, re.DOTALL) is not None
