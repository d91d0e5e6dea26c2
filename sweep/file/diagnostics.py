"""Diagnostics of a sweep file: the place of each mistake, the reason, and the nearest allowed value."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from model.registry import nearest
from results.address import without_secrets

#: A place in the sweep file's tree: mapping keys as written (`"train.batch_size"` is one) and list indices.
Path = tuple[str | int, ...]

_SHOWN = 60


class Absent(Enum):
    """Marks an absent value, since null is a value."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake and its place in the tree; `Document.mistake` adds line and column."""

    path: Path
    message: str
    value: Any = ABSENT
    allowed: tuple[str, ...] = ()
    #: whether the key or its value is wrong
    at: Literal["key", "value"] = "value"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake with file, line and column, counted from 1; both are None on the command line (`--set`)."""

    file: str
    line: int | None
    column: int | None
    path: str
    message: str
    value: Any = ABSENT
    allowed: tuple[str, ...] = ()

    @property
    def nearest(self) -> str | None:
        """The allowed name that is most similar to the value; None where none is close."""
        return nearest(self.value, self.allowed) if isinstance(self.value, str) else None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        path = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in self.path)
        parts = [f"{path}: {self.message}" if path else self.message]
        if self.value is not ABSENT:
            parts.append(f"got {shown(self.value)}")
        if self.allowed:
            parts.append(f"allowed: {', '.join(self.allowed)}")
        if self.nearest:
            parts.append(f"did you mean {self.nearest!r}?")
        return without_secrets(f"{place}: {'; '.join(parts)}")  # of keys and places; values were masked before


class SweepError(ValueError):
    """All mistakes in a sweep file; `str()` gives one line for each."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        distinct = {str(mistake): mistake for mistake in mistakes}
        self.mistakes = sorted(distinct.values(), key=_place)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))

    def __reduce__(self) -> tuple[type[SweepError], tuple[list[Mistake]]]:
        return SweepError, (self.mistakes,)  # the error may be pickled into another process


def _place(mistake: Mistake) -> tuple[bool, str, int, int]:
    """The sort key: file, line and column; mistakes on the command line come last, in their own order."""
    if mistake.line is None:
        return True, "", 0, 0
    return False, mistake.file, mistake.line, mistake.column or 0


def key_path(path: Path) -> Path:
    """The path of the key that a value belongs to; an element of a list belongs to the list's key."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return path


def split_allowed(text: str) -> tuple[str, tuple[str, ...]]:
    """Splits one of our messages into its text and its list of allowed values."""
    message, _, listed = text.partition("; allowed: ")
    names = listed.partition(";")[0].split(", ") if listed else ()
    return message, tuple(names)


def shown(value: Any) -> str:
    """A value as it would be written in the file, shortened to one line, without passwords in addresses."""
    written = repr(value) if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return shortened(without_secrets(written))


def shortened(text: str) -> str:
    """A text of at most `_SHOWN` characters; a longer one ends in dots."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
