"""`splatsweep trials`: lists the trials of a home."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from sweep.commands.common import DEFAULT_HOME, AsJson, Home, console, user_path
from sweep.terminal import STATE_STYLES, counted

if TYPE_CHECKING:
    from results.trials import HomeTrial

#: digits of keys that are shown at least
_DIGITS = 6


def trials(
    home: Home = DEFAULT_HOME,
    sweep: Annotated[
        Path | None,
        typer.Option(
            "--sweep", help="Only the trials of this sweep: its file or its name.", metavar="FILE", parser=user_path
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="The score to show.", metavar="METRIC")] = "novel_psnr",
    by_score: Annotated[bool, typer.Option("--by-score", help="Best first.")] = False,
    as_json: AsJson = False,
) -> None:
    """List trials: key, name, state, score, size on disk with the training, and the sweeps that plan them.

    Keys are shortened to the digits that distinguish them here; every TRIAL argument accepts them.

    Example: [bold]splatsweep trials --sweep sweep.yaml --metric novel_lpips --by-score[/]
    """
    from results.metrics import facts_of, score_name, split_column
    from results.render.json import as_json as strict_json
    from results.trials import begun_keys, home_trials
    from sweep.commands.trial_choice import sweep_name

    home = home.absolute()
    facts = facts_of(split_column(metric)[1])
    found = home_trials(home, None if sweep is None else sweep_name(sweep, home))
    if facts is None and not any(score_name(metric) in trial.scores for trial in found):
        measured = sorted({score.replace("/", "_") for trial in found for score in trial.scores})
        raise ValueError(f"--metric {metric}: no trial has it; they have: {', '.join(measured) or 'none yet'}")
    if by_score:
        sign = -1 if facts is not None and facts.direction == "down" else 1
        score = score_name(metric)
        found.sort(key=lambda trial: _rank(sign * trial.scores.get(score, math.nan)))
    if as_json:
        print(strict_json({"home": str(home), "trials": [trial.as_json() for trial in found]}))
        return
    if not found:
        console.print(f"No trials in {home}" + ("" if home.exists() else ", which does not exist"))
        return
    digits = _shortest({*(trial.key for trial in found), *begun_keys(home)})
    console.print(_table(found, digits, metric, facts.precision if facts else 3))
    console.print(_summary(found))


def _rank(score: float) -> tuple[bool, float]:
    """A sort key: the highest score first, what is no finite number last."""
    return not math.isfinite(score), -score if math.isfinite(score) else 0.0


def _table(found: Sequence[HomeTrial], digits: int, metric: str, precision: int) -> Table:
    from results.metrics import score_name

    score = score_name(metric)
    table = Table(box=None, pad_edge=False)
    for heading in ("key", "trial", "seed", "state", metric, "size", "sweeps"):
        is_number = heading in ("seed", metric, "size")
        is_short = is_number or heading in ("key", "state")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=is_short, overflow="fold")
    for trial in found:
        value = trial.scores.get(score)
        table.add_row(
            Text(trial.key[:digits], style="dim"),
            trial.name,
            "" if trial.control or trial.seed is None else str(trial.seed),
            Text(trial.state, style=STATE_STYLES[trial.state]),
            "" if value is None else f"{value:.{precision}f}",
            decimal(trial.size + trial.training_size) if trial.size else "",
            _sweeps(trial),
        )
    return table


def _sweeps(trial: HomeTrial) -> Text:
    earlier = [f"{name} (earlier)" for name in trial.earlier]
    if not (trial.sweeps or earlier):
        return Text("no plan", style="yellow")
    return Text(", ".join([*trial.sweeps, *earlier]))


def _summary(found: Sequence[HomeTrial]) -> str:
    trainings = {trial.training: trial.training_size for trial in found if trial.training}
    size = sum(trial.size for trial in found) + sum(trainings.values())
    return f"{counted(len(found), 'trial')}, {decimal(size)}"


def _shortest(keys: Set[str]) -> int:
    """The number of digits that distinguish the keys."""
    digits = _DIGITS
    while len({key[:digits] for key in keys}) < len(keys):
        digits += 1
    return digits
