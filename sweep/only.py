"""The trials that `--only` chooses by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from model.registry import nearest
from results.records.plan import PlannedTrial

#: the most names that a message lists before it counts the rest
_SHOWN = 20

Trial = TypeVar("Trial", bound=PlannedTrial[Any])


def is_wanted(name: str, only: Sequence[str]) -> bool:
    """Whether a name is one of `only`, or matches one as a glob; True for all names where `only` is empty."""
    return not only or any(name == each or fnmatchcase(name, each) for each in only)


def choose(trials: Iterable[Trial], only: Sequence[str]) -> list[Trial]:
    """Trials that one of `only` names or, where it names none, matches as a glob; all trials where `only` is empty.

    A name may hold the characters of a glob, e.g. `ours [ema]`.
    """
    among = list(trials)
    chosen = {trial.key for each in only for trial in _matching(among, each)}
    return [trial for trial in among if not only or trial.key in chosen]


def _matching(trials: Sequence[Trial], text: str) -> list[Trial]:
    named = [trial for trial in trials if text in trial.names]
    return named or [trial for trial in trials if any(fnmatchcase(name, text) for name in trial.names)]


def unmatched(trials: Iterable[Trial], only: Sequence[str]) -> list[str]:
    """Those of `only` that choose none of the trials."""
    among = list(trials)
    return [each for each in only if not _matching(among, each)]


def first_seeds(trials: Iterable[Trial]) -> dict[str, Trial]:
    """The first of the trials of each row, by every name of the row."""
    first: dict[str, Trial] = {}
    for trial in trials:
        for name in trial.names:
            first.setdefault(name, trial)
    return first


def required(trials: Iterable[Trial], only: Sequence[str]) -> list[Trial]:
    """As `choose`.  Raises ValueError, with the allowed names, where one of `only` chooses none."""
    among = list(trials)
    for each in unmatched(among, only):
        names = sorted({name for trial in among for name in trial.names})
        hint = nearest(each, names)
        likely = f"; did you mean {hint!r}?" if hint else ""
        listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        raise ValueError(f"--only {each!r} matches no trial; allowed: {listed}{likely}")
    return choose(among, only)
