"""Short names of values, and the keys that differ between configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.records.flat import flatten


def value_name(value: Any, position: int) -> str:
    """The text of a value in a name.  A value without a short text becomes its `position` on its axis, from 1."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, Sequence) and value and all(isinstance(v, (str, int, float)) for v in value):
        return "-".join(value_name(v, position) for v in value)
    return f"#{position}"


def differing_keys(trees: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted keys whose values are not the same in all nested mappings, in the order of the keys.

    Absent differs from any value.
    """
    rows = [flatten(tree) for tree in trees]
    absent = object()
    varying = [
        key
        for key in dict.fromkeys(key for row in rows for key in row)
        if any(row.get(key, absent) != rows[0].get(key, absent) for row in rows)
    ]
    # Sorting by section keeps keys together that only later trees have.
    sections = list(dict.fromkeys(section for tree in trees for section in tree))
    return sorted(varying, key=lambda key: sections.index(key.split(".")[0]))
