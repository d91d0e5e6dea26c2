"""`splatsweep view`: Gaussians of several rows side by side, in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.commands.common import DEFAULT_HOME, Home, Only, Settings, SweepFile, console, planned_sweep
from sweep.only import choose, first_seeds, unmatched
from sweep.terminal import counted

if TYPE_CHECKING:
    from results.records.plan import FrozenPlan, RecordedTrial

#: columns beyond these would be too small to see
MOST_ROWS = 8
#: objects that are shown by default
FIRST_OBJECTS = 2


def view(
    sweep: SweepFile,
    objects: Annotated[
        int | None,
        typer.Option(
            min=1, max=20, help="Objects to show, the first that are evaluated.", show_default=str(FIRST_OBJECTS)
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--object", metavar="NAME", help="An object to show instead, again for more.", show_default=False),
    ] = None,
    only: Only = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port on this machine; the next free one is taken.")
    ] = 8080,
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
) -> None:
    """Show the Gaussians of finished rows side by side in a browser, under one camera, with input and ground truth.

    Needs the package viser: pip install 'splatsweep\\[view]'. Rows without Gaussians are shown as pictures. The server
    listens on this machine only; Ctrl-C ends it.

    Example: [bold]splatsweep view sweep.yaml --objects 3 --only 'depth*'[/]
    """
    from jobs.viewer import LOOPBACK, require_viewer, serve
    from results.records.frozen_plans import read_plan
    from results.records.monitor import Monitor

    if objects is not None and names:
        raise ValueError("give --objects, their number, or --object, their names")
    require_viewer()
    home = home.absolute()
    checked = planned_sweep(sweep, settings, home)
    chosen, left_out = chosen_rows(read_plan(checked.name, home).refreshed(Monitor(home)), only or ())
    import torch

    from jobs.exhibits import exhibition

    wanted = names or objects or FIRST_OBJECTS
    what = f"at most {counted(wanted, 'object')}" if isinstance(wanted, int) else ", ".join(wanted)
    rows = f"{counted(len(chosen), 'row')}: {', '.join(trial.name for trial in chosen)}"
    console.print(f"Reconstructing {what} by {rows}", markup=False)
    shown = exhibition(home, chosen, wanted, torch.device("cpu"))
    if left_out:
        console.print(f"Left out: {', '.join(left_out)}; --only chooses others", markup=False)
    server = serve(shown, f"splatsweep {checked.name}", port)
    console.print(f"Open http://{LOOPBACK}:{server.get_port()}; Ctrl-C ends it.", markup=False)
    try:
        server.sleep_forever()
    except KeyboardInterrupt:
        server.stop()


def chosen_rows(plan: FrozenPlan, only: Sequence[str]) -> tuple[list[RecordedTrial], list[str]]:
    """The first finished seed of each trained row, at most `MOST_ROWS`, and the names of the others.

    Raises ValueError where there is none, or none for one of `only`.
    """
    finished = [trial for trial in plan.trials if trial.status == "finished"]
    first, missing = first_seeds(choose(finished, only)), unmatched(finished, only)
    if missing or not first:
        wanted = f" matches {' or '.join(map(repr, missing))}" if missing else ""
        there = ", ".join(dict.fromkeys(f"{trial.name} ({trial.status})" for trial in plan.trials))
        raise ValueError(f"no finished row of {plan.sweep}{wanted}; its rows: {there or 'none'}")
    rows = list({trial.key: trial for trial in first.values()}.values())  # equal rows are one
    return rows[:MOST_ROWS], [trial.name for trial in rows[MOST_ROWS:]]
