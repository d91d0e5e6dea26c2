"""`splatsweep logs`: prints a trial's journal and log, and follows them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from sweep.commands.common import DEFAULT_HOME, Home, console, user_path

Trial = Annotated[
    str,
    typer.Argument(
        help="A trial's name, `NAME seed N`, its key or the key's beginning, or its folder.",
        metavar="TRIAL",
        show_default=False,
    ),
]
SweepOf = Annotated[
    Path | None,
    typer.Option(
        "--sweep", help="The sweep file whose trial it is.", metavar="FILE", show_default=False, parser=user_path
    ),
]
_INTERVAL_S = 0.5


def logs(
    trial: Trial,
    home: Home = DEFAULT_HOME,
    sweep: SweepOf = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the trial runs no more.")] = False,
    lines: Annotated[int, typer.Option(min=1, help="The last lines of each, at first.")] = 20,
) -> None:
    """Show a trial's journal and log: iterations with their losses, scores, warnings, why it stopped or failed.

    Example: [bold]splatsweep logs 'baseline seed 0' --follow[/]
    """
    from results.records.find import find_trial_folder
    from results.records.trial_folder import trial_status
    from sweep.file.load import load_sweep
    from sweep.run.trial_log import TrialLog

    home = home.absolute()
    name = load_sweep(sweep, configurations=False).name if sweep is not None else None
    folder = find_trial_folder(trial, home, name)
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
