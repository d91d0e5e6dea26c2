"""Flat configurations: nested values under dotted keys, and their text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration -> `{"train.stages.0.losses.l2": 1.0}`, with indices for elements of lists of mappings.

    Lists of plain values and empty mappings stay values.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{path}."))
        else:
            flat[path] = value
    return flat


def as_written(value: Any) -> str:
    """A value for reading, as a sweep file spells it: null, true, [1, 2]; text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
