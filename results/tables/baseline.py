"""Finds the baseline row of a table, with a note that explains the choice or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.load import Evidence
from results.tables.fill import Entry
from results.tables.select import selected

#: usual names of the baseline in presets, grids and leave-one-out blocks
USUAL_NAMES = ("baseline", "full", "base")

#: a row's name, or the setting of each axis that counts as the base
Declared = str | Mapping[str, Any]

_MOST_LISTED = 8


def find_baseline(
    rows: Sequence[Entry], evidence: Evidence, declared: str | None = None
) -> tuple[Entry | None, tuple[str, ...]]:
    """The baseline among `rows`, and notes for below the table.

    The table's own (`declared`) has priority over that of the sweep file, and that over `USUAL_NAMES`.
    """
    if declared is not None:
        return _declared(_called(rows, declared), declared, "the table file")
    of_sweep = evidence.plan.baseline
    if of_sweep is not None:
        found = _named(rows, of_sweep) if isinstance(of_sweep, str) else _with_setting(rows, of_sweep)
        return _declared(found, of_sweep, "the sweep file")
    usual = next(((name, found[0]) for name in USUAL_NAMES if (found := _called(rows, name))), None)
    if len(rows) < 2:
        return usual and usual[1], ()
    if usual is not None:
        name, entry = usual
        by_name = "its name" if name == entry.label else f"its name {name!r}"
        return entry, (
            f"Compared with {entry.label!r}, by {by_name}; `baseline:` in the sweep file names another row.",
        )
    listed = ", ".join(entry.label for entry in rows[:_MOST_LISTED]) + (", ..." if len(rows) > _MOST_LISTED else "")
    names = ", ".join(USUAL_NAMES)
    return None, (
        f"Nothing is compared: no row is called {names}, and the sweep file has no `baseline:`. "
        f"Name one of its rows there ({listed}), or the setting of each axis that counts as the base.",
    )


def described(baseline: Declared) -> str:
    """A declared baseline in words: 'vanilla', or {depth.model: none, depth.fusion: input}."""
    if isinstance(baseline, str):
        return repr(baseline)
    return "{" + ", ".join(f"{key}: {value}" for key, value in baseline.items()) + "}"


def _declared(found: Sequence[Entry], baseline: Declared, where: str) -> tuple[Entry | None, tuple[str, ...]]:
    """The one row that was found for a declared baseline, or a note on why none is."""
    if len(found) == 1:
        return found[0], ()
    if not found:
        return None, (f"Nothing is compared: no row is the baseline {described(baseline)} of {where}.",)
    if len({tuple(sorted(record.planned.key for record in entry.records)) for entry in found}) == 1:
        return found[0], ()  # the same trials under several labels
    listed = ", ".join(entry.label for entry in found[:_MOST_LISTED])
    remedy = "Name one of these labels" if isinstance(baseline, str) else "Give the setting of more axes"
    return None, (
        f"Nothing is compared: {len(found)} rows are the baseline {described(baseline)} of {where}: {listed}. "
        f"{remedy}.",
    )


def _called(rows: Sequence[Entry], name: str) -> list[Entry]:
    """The rows with this label; where there is none, those whose trials have the name."""
    return [entry for entry in rows if entry.label == name] or _named(rows, name)


def _named(rows: Sequence[Entry], name: str) -> list[Entry]:
    return [entry for entry in rows if any(name in record.planned.names for record in entry.records)]


def _with_setting(rows: Sequence[Entry], setting: Mapping[str, Any]) -> list[Entry]:
    return [entry for entry in rows if selected(entry.records[:1], setting)]
