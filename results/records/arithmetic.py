"""Arithmetic of a trial: the settings besides the configuration that determine the last digits of its numbers.

A trial records it in `environment.json` and `result.json` as a list: one entry, or several in order of use where the
trial was resumed on another kind of machine.  The store holds it as tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from results.records.tags import ARITHMETIC

Execution = Literal["eager", "compiled", "graph"]
Precision = Literal["float32", "tf32", "bf16"]

#: Separator between the values of a trial that was resumed with another arithmetic.
_THEN = " then "


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic of a trial in one process, with every choice resolved."""

    #: rasteriser of Gaussians, never "auto"; None where the method renders no Gaussians
    backend: str | None
    #: execution of the network
    execution: Execution
    #: precision of products in the network
    precision: Precision
    #: kind of the device: "cpu", "cuda"
    device: str

    def as_json(self) -> dict[str, Any]:
        """Plain values, as stored in files."""
        return asdict(self)


def arithmetic_tags(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Tags of a run from the entries that a trial recorded; none from no entries."""
    listed = list(entries)
    tags = {}
    for field in fields(Arithmetic):
        values = dict.fromkeys(str(entry[field.name]) for entry in listed if entry.get(field.name) is not None)
        if values:
            tags[ARITHMETIC + field.name] = _THEN.join(values)
    return tags


def recorded_arithmetic(tags: Mapping[str, str]) -> dict[str, str]:
    """Name of the field -> value, from a run's tags; empty for a run of a version that recorded none."""
    names = [field.name for field in fields(Arithmetic)]
    return {name: tags[ARITHMETIC + name] for name in names if ARITHMETIC + name in tags}
