"""The trials that `--only` chooses by name."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from model.registry import nearest
from results.records.plan import PlannedTrial

#: the most names that a message lists before it counts the rest
_SHOWN = 20

Trial = TypeVar("Trial", bound=PlannedTrial[Any])


def is_wanted(name: str, only: str | None) -> bool:
    """Whether a name is `only`, or matches it as a glob; True for all names where `only` is None."""
    return only is None or name == only or fnmatchcase(name, only)


def choose(trials: Iterable[Trial], only: str | None) -> list[Trial]:
    """Trials with the name `only`; where there are none, those with a name that matches it as a glob.

    A name may hold the characters of a glob, e.g. `ours [ema]`.
    """
    among = list(trials)
    named = [trial for trial in among if only in trial.names]
    return named or [trial for trial in among if any(is_wanted(name, only) for name in trial.names)]


def required(trials: Iterable[Trial], only: str | None) -> list[Trial]:
    """As `choose`.  Raises ValueError, with the allowed names, where `only` chooses none."""
    among = list(trials)
    found = choose(among, only)
    if only is not None and not found:
        names = sorted({name for trial in among for name in trial.names})
        hint = nearest(only, names)
        likely = f"; did you mean {hint!r}?" if hint else ""
        listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise ValueError(f"--only {only!r} matches no trial; allowed: {listed}{likely}")
    return found
