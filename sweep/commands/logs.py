"""`splatsweep logs`: prints a trial's journal and log, and follows them."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from sweep.commands.common import DEFAULT_HOME, Home, console
from sweep.commands.trial_choice import Best, Seed, SweepOf, Trial, chosen_trial

_INTERVAL_S = 0.5


def logs(
    trial: Trial = None,
    home: Home = DEFAULT_HOME,
    sweep: SweepOf = None,
    seed: Seed = None,
    best: Best = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow until the trial ends.")] = False,
    lines: Annotated[int, typer.Option(min=1, help="Lines to print at first, the last ones.")] = 20,
) -> None:
    """Show a trial's journal and log: losses by iteration, scores, warnings, and why it stopped or failed.

    Times are UTC.

    Example: [bold]splatsweep logs 'baseline seed 0' --follow[/]
    """
    from results.records.trial_folder import trial_status
    from sweep.run.trial_log import TrialLog

    folder = chosen_trial(home.absolute(), trial, sweep, seed, best)
    log = TrialLog(folder)
    for line in log.read()[-lines:]:
        console.print(line)
    while follow:
        is_last = trial_status(folder) not in ("running", "pending")
        for line in log.read():
            console.print(line)
        if is_last:
            break
        time.sleep(_INTERVAL_S)
    console.print(f"{folder.name}: {trial_status(folder)}", style="dim")
