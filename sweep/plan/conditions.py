"""Axes that apply only for some values of others: `when: {axis: {other axis: values}}`, in a grid and in a search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sweep.file.diagnostics import Finding, Path, shown

#: Axis -> {other axis: the values for which the first applies}.
When = Mapping[str, Mapping[str, Sequence[Any]]]


class Conditions:
    """The conditions of some axes; values are compared by their indices, since 1, 1.0 and true are equal."""

    def __init__(self, axes: Mapping[str, Sequence[Any]], when: When) -> None:
        """axes: the values of each axis that a condition may name.  Raises `ValueError` for a value on no axis."""
        self._axes = tuple(axes)
        self._indices = {
            key: {
                other: frozenset(position_on_axis(axes[other], value) for value in values)
                for other, values in condition.items()
            }
            for key, condition in when.items()
        }

    def applies(self, key: str, indices: Mapping[str, Any]) -> bool:
        """Whether an axis applies where the others have these indices.

        All axes in its condition must apply themselves, and have one of its values.  Axes that are missing from
        `indices` do not apply.
        """
        return all(
            indices.get(other) in fitting and self.applies(other, indices)
            for other, fitting in self._indices.get(key, {}).items()
        )

    def in_order(self) -> tuple[str, ...]:
        """The axes in their order, but each behind those that its condition names."""
        found: dict[str, None] = {}

        def visit(key: str) -> None:
            for other in self._indices.get(key, ()):
                visit(other)
            found.setdefault(key)

        for key in self._axes:
            visit(key)
        return tuple(found)


def position_on_axis(values: Sequence[Any], value: Any) -> int:
    """The index of a value on an axis; true differs from 1.  Raises `ValueError` where it is absent."""
    for index, candidate in enumerate(values):
        if candidate == value and isinstance(candidate, bool) == isinstance(value, bool):
            return index
    raise ValueError(f"{value!r} is not on this axis; it has {list(values)!r}")


def condition_findings(
    axes: Mapping[str, Sequence[Any] | None], when: When, path: Path, place: str
) -> Iterator[Finding]:
    """Mistakes in conditions: unknown axes, unknown values and cycles.

    axes: the values of each axis, None for one without a list of values; place: where the axes are, for messages.
    """
    yield from unknown_axes(axes, {key: (*path, key) for key in when}, place)
    for key, condition in when.items():
        yield from unknown_axes(axes, {other: (*path, key, other) for other in condition}, place)
        if key in _conditioning(when, key):
            yield Finding((*path, key), "an axis cannot depend on itself", key, at="key")
        for other, values in condition.items():
            if other in axes and axes[other] is None:
                yield Finding((*path, key, other), "has no list of values that a condition could name", other, at="key")
                continue
            for index, value in enumerate(values):
                yield from unknown_value(axes, other, value, (*path, key, other, index))


def unknown_axes(axes: Iterable[str], places: Mapping[str, Path], place: str) -> Iterator[Finding]:
    """A finding for each key in `places` that is none of the axes."""
    axes = tuple(axes)
    for key, path in places.items():
        if key not in axes:
            yield Finding(path, f"not an axis of {place}", key, axes, at="key")


def unknown_value(axes: Mapping[str, Sequence[Any] | None], key: str, value: Any, path: Path) -> Iterator[Finding]:
    """A finding where an axis does not have this value; none for an unknown axis."""
    values = axes.get(key)
    if values is None:
        return
    try:
        position_on_axis(values, value)
    except ValueError:
        yield Finding(
            path, "not a value of this axis", value, tuple(v if isinstance(v, str) else shown(v) for v in values)
        )


def _conditioning(when: When, key: str) -> set[str]:
    """The axes that an axis depends on, directly or through other axes."""
    found: set[str] = set()
    waiting = list(when.get(key, ()))
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += when.get(other, ())
    return found
