"""Short names of dotted keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """The shortest unique ending of each dotted key: `model` for `depth.model`, if no other key ends so."""
    keys = list(dict.fromkeys(keys))
    return {key: _shortest_ending(key, [other for other in keys if other != key]) for key in keys}


def _shortest_ending(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    for start in range(len(parts) - 1, 0, -1):
        ending = ".".join(parts[start:])
        # An ending that starts with an index or `*` is not informative.
        is_telling = not (parts[start] == "*" or parts[start].isdecimal())
        if is_telling and not any(f".{other}".endswith(f".{ending}") for other in others):
            return ending
    return key
