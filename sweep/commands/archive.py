"""`splatsweep archive`: copies a sweep's records, to publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweep.commands.common import (
    DEFAULT_HOME,
    Home,
    Settings,
    SweepFile,
    console,
    make_folder,
    planned_sweep,
    user_path,
)
from sweep.terminal import counted


def archive(
    sweep: SweepFile,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The home to copy into.", show_default=False, parser=user_path)
    ],
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
    points: Annotated[int, typer.Option(min=1, help="The most logged training losses to keep per trial.")] = 100,
) -> None:
    """Copy a sweep's records without weights: scores, journals, samples, plan.  Reports can be made from the copy.

    Example: [bold]splatsweep archive sweep.yaml --out published[/]

    Example: [bold]splatsweep report sweep.yaml --home published[/]
    """
    from results.records.archive import archive as copy_records

    home = home.absolute()
    checked = planned_sweep(sweep, settings, home)
    make_folder(out)
    found = copy_records(checked.name, home, out, points)
    left = f"; {found.left} have not ended" if found.left else ""
    console.print(f"{counted(found.trials, 'trial')} in {out}, {found.size / 1e6:.1f} MB{left}")
    if checked.tracking.uri is not None:
        console.print("Readers who do not reach the MLflow store of its file add: --set tracking.uri=null")
