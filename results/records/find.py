"""Finds trials by folder, key, beginning of a key, or name in a plan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from results.errors import ResultsError
from results.records.home import trial_folder, trials_folder
from results.records.plan import read_plan, read_plans
from results.records.trial_folder import CONFIG_FILENAME, JOURNAL_FILENAME

_SHOWN = 20


class UnknownTrialError(ResultsError):
    """No trial has that name, or several have."""


def find_trial_folder(text: str, home: Path, sweep: str | None = None) -> Path:
    """Folder of the trial that `text` means: its folder, its key, the beginning of its key, or its name.

    A name is that of a row of a planned sweep, of `sweep` where it is given, and `NAME seed N` where several seeds
    have it.  Raises `UnknownTrialError` where no trial matches, or more than one does.
    """
    path = Path(text)
    if (path / JOURNAL_FILENAME).is_file() or (path / CONFIG_FILENAME).is_file():
        return path.absolute()
    named = list(_named(home, sweep))
    keys = {key for name, key in named if text in (name, name.rpartition(" seed ")[0])} if text else set()
    keys = keys or {key for key in _keys(home, {key for _, key in named}) if text and key.startswith(text)}
    if len(keys) == 1:
        return trial_folder(home, keys.pop())
    if keys:
        meant = sorted(f"{name} ({key})" for name, key in set(named) if key in keys) or sorted(keys)
        raise UnknownTrialError(f"{text!r} means {len(keys)} trials: {', '.join(meant[:_SHOWN])}; name one of them")
    there = ", ".join(sorted({name for name, _ in named})[:_SHOWN]) or "none"
    raise UnknownTrialError(f"no trial {text!r} in {home}; there are: {there}, and keys in {trials_folder(home)}")


def _named(home: Path, sweep: str | None) -> Iterator[tuple[str, str]]:
    """`NAME seed N`, or a control's name, with its key."""
    for plan in read_plans(home) if sweep is None else (read_plan(sweep, home),):
        for trial in plan.everything:
            for name in trial.names:
                yield (name if trial.control else f"{name} seed {trial.seed}"), trial.key


def _keys(home: Path, planned: set[str]) -> set[str]:
    folder = trials_folder(home)
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return there | planned
