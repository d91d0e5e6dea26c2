"""Finds trials by folder, key, beginning of a key, name in a plan, or score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.errors import ResultsError, did_you_mean
from results.invocation import home_command
from results.metrics import determines_scores, facts_of, score_name, split_column
from results.records.flat import flatten
from results.records.frozen_plans import read_plan, read_plans
from results.records.home import trial_folder, trials_folder
from results.records.plan import trial_label
from results.records.trial_folder import CONFIG_FILENAME, JOURNAL_FILENAME, read_config, read_result

_SHOWN = 20


class UnknownTrialError(ResultsError):
    """No trial has that name, or several have."""


class AmbiguousTrialError(UnknownTrialError):
    """Several trials have that name, or keys that begin so; they are named."""

    def __init__(self, several: str, ways: str) -> None:
        """several: a sentence about them; ways: ways to choose one."""
        super().__init__(f"{several}; choose one by {ways}")
        self.several = several


@dataclass(frozen=True)
class _Named:
    """A trial under one of its names."""

    key: str
    name: str
    seed: int
    control: bool

    @property
    def label(self) -> str:
        """`NAME seed N`, or a trivial baseline's name."""
        return trial_label(self.name, None if self.control else self.seed)


def find_trial_folder(text: str, home: Path, sweep: str | None = None, seed: int | None = None) -> Path:
    """Folder of the trial that `text` means: its folder, its key, the beginning of its key, or its name.

    A name is that of a row of a planned sweep, of `sweep` where it is given.  `seed`, or `NAME seed N`, chooses among
    planned trials; others have no name here.  Raises `UnknownTrialError` where no trial matches, `AmbiguousTrialError`
    where more than one does.
    """
    path = Path(text)
    if (path / JOURNAL_FILENAME).is_file() or (path / CONFIG_FILENAME).is_file():
        return path.absolute()
    if path.absolute().parent == trials_folder(home.absolute()):  # of a planned trial that has not begun
        text = path.name
    named = list(_named(home, sweep))
    matching = [trial for trial in named if text in (trial.name, trial.label)] if text else []
    unplanned = set() if matching else {key for key in _unplanned(home, named, sweep) if text and key.startswith(text)}
    matching = matching or [trial for trial in named if text and trial.key.startswith(text)]
    keys = unplanned | {trial.key for trial in matching if seed is None or trial.control or trial.seed == seed}
    if matching and not keys:
        seeds = ", ".join(str(number) for number in sorted({trial.seed for trial in matching}))
        raise UnknownTrialError(f"{text!r} has no seed {seed}; it has: {seeds}")
    if len(keys) == 1:
        return trial_folder(home, keys.pop())
    if keys:
        differ = len({trial.seed for trial in matching}) > 1
        ways = [option for option, helps in (("--seed", seed is None and differ), ("--sweep", sweep is None)) if helps]
        raise AmbiguousTrialError(_several(text, keys, named), " or ".join([*ways, "its key"]))
    raise UnknownTrialError(_unknown(text, home, named, sweep))


def best_trial_folder(
    column: str, home: Path, sweep: str | None = None, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Folder of the trained trial with the best score, such as `novel_psnr`, among those of a sweep or of the home.

    Calls `say` with a line about the choice.  Raises `UnknownTrialError` where no finished trial has that score, or
    where these trials are evaluated on different views.
    """
    name, better = _score(column)
    named = list(_named(home, sweep))
    keys = dict.fromkeys([trial.key for trial in named] + sorted(_unplanned(home, named, sweep)))
    results = ((key, read_result(trial_folder(home, key))) for key in keys)
    found: dict[str, dict[str, Any]] = {key: result for key, result in results if result and result.get("step")}
    where = f"sweep {sweep!r}" if sweep is not None else str(home)
    scores = {key: result["metrics"].get(name, math.nan) for key, result in found.items()}
    trained = {key: score for key, score in scores.items() if math.isfinite(score)}
    if not trained:
        measured = sorted({score.replace("/", "_") for result in found.values() for score in result["metrics"]})
        have = f"finished ones have: {', '.join(measured)}" if measured else "none is finished"
        raise UnknownTrialError(f"no trained trial of {where} has {column}: {have}")
    if len(grounds := {_evaluation_identity(home, key, found[key]) for key in trained}) > 1:
        raise UnknownTrialError(
            f"{len(trained)} trials of {where} are evaluated on {len(grounds)} different sets of views, so that their "
            f"{column} cannot be compared; {'' if sweep else 'choose a sweep with --sweep FILE, or '}name a trial"
        )
    chosen = max(trained, key=lambda key: better * trained[key])
    label = next((f"{trial.label} ({chosen})" for trial in named if trial.key == chosen), f"{chosen}, of no plan")
    trials = f"{len(trained)} trial{'s' if len(trained) > 1 else ''}"
    say(f"best {column} of {trials} of {where}: {label}, {trained[chosen]:.3f}")
    return trial_folder(home, chosen)


def _score(column: str) -> tuple[str, int]:
    """Name of a score in results, and the sign of better values."""
    try:
        _, metric = split_column(column.replace("/", "_", 1))
    except ValueError as error:
        raise UnknownTrialError(f"--best {error}") from None
    facts = facts_of(metric)
    return score_name(column.replace("/", "_", 1)), -1 if facts is not None and facts.direction == "down" else 1


def _evaluation_identity(home: Path, key: str, result: dict[str, Any]) -> str:
    """Identity of the data and settings of a trial's evaluation: equal for trials with comparable scores."""
    config = flatten(read_config(trial_folder(home, key)) or {})
    settings = sorted((name, repr(value)) for name, value in config.items() if determines_scores(name))
    return repr((result.get("data_fingerprint"), settings))


def _named(home: Path, sweep: str | None) -> Iterator[_Named]:
    """All trials of the plans, under each of their names."""
    for plan in read_plans(home) if sweep is None else (read_plan(sweep, home),):
        for trial in plan.everything:
            for name in trial.names:
                yield _Named(trial.key, name, trial.seed, trial.control)


def _unplanned(home: Path, named: Iterable[_Named], sweep: str | None) -> set[str]:
    """Keys of the home's trials that are in no plan; none where a sweep is given."""
    folder = trials_folder(home)
    if sweep is not None or not folder.is_dir():
        return set()
    return {path.name for path in folder.iterdir() if path.is_dir()} - {trial.key for trial in named}


def _several(text: str, keys: set[str], named: Iterable[_Named]) -> str:
    labels: dict[str, str] = {}
    for trial in named:
        labels.setdefault(trial.key, trial.label)
    meant = sorted(f"{labels[key]} ({key})" if key in labels else key for key in keys)
    more = f" and {len(meant) - _SHOWN} more" if len(meant) > _SHOWN else ""
    return f"{text!r} means {len(keys)} trials: {', '.join(meant[:_SHOWN])}{more}"


def _unknown(text: str, home: Path, named: Iterable[_Named], sweep: str | None) -> str:
    labels = sorted({trial.label for trial in named})
    names = {trial.name: trial.label for trial in named}
    hint = did_you_mean(text, [*names, *labels])
    there = ", ".join(labels[:_SHOWN]) or "none"
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    where = f"sweep {sweep!r}" if sweep is not None else str(home)
    keys = "" if sweep is not None else f", and keys in {trials_folder(home)}"
    listing = home_command(home, "trials")
    return f"no trial {text!r} in {where}; {hint}there are: {there}{more}{keys}; list them with: {listing}"
