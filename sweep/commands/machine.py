"""Commands about this machine and its home."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from results.address import UI_PORT
from results.invocation import completed
from sweep.commands.common import DEFAULT_HOME, Home, Settings, console, user_path

_MARKS = {"good": Text("ok", "green"), "limited": Text("--", "yellow"), "bad": Text("no", "red")}


def doctor(
    sweep: Annotated[
        Path | None,
        typer.Argument(
            metavar="SWEEP", help="A sweep file whose rows are checked too.", show_default=False, parser=user_path
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
) -> None:
    """Check what this machine can and cannot do, and how to repair it.

    Example: [bold]splatsweep doctor[/]

    Example: [bold]splatsweep doctor sweep.yaml[/]
    """
    from sweep.doctor import examine
    from sweep.file.load import load_sweep

    home = home.absolute()
    if sweep is None and settings:
        raise ValueError("--set changes a sweep file; name the file too")
    findings = examine(home.absolute(), load_sweep(sweep, settings or []) if sweep else None)
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(_MARKS[finding.state], finding.subject, completed(finding.detail))
    console.print(table)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(2)


def ui(
    sweep: Annotated[
        Path | None,
        typer.Argument(
            metavar="SWEEP",
            help="The sweep file whose store to show; default: the home's store.",
            show_default=False,
            parser=user_path,
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on the loopback interface.")] = UI_PORT,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Open the MLflow UI on the store of a home or a sweep, on the loopback interface only, until Ctrl-C.

    Example: [bold]splatsweep ui --port 5001[/]

    Example: [bold]splatsweep ui sweep.yaml[/]
    """
    from results.address import is_database
    from results.store import ResultStore
    from sweep.file.load import load_sweep
    from sweep.run.mlflow_ui import ended_by_signals, serve, writable_store

    home = home.absolute()
    if sweep is None and settings:
        raise ValueError("--set changes a sweep file; name the file too")
    checked = load_sweep(sweep, settings or [], configurations=False) if sweep else None
    store = ResultStore.of(home, checked.tracking.uri if checked else None)
    if not is_database(store.uri):
        console.print(f"This sweep is tracked by a server, which has a UI itself: {store.label}")
        return
    if not store.exists():
        raise ValueError(f"{store.label}: no MLflow store yet; run a sweep first")
    store.runs()  # raises within seconds where a database is down; the UI would retry for minutes
    experiment = checked.experiment if checked else None
    with ended_by_signals(), writable_store(store.uri, home, console.print) as uri:
        serve(uri, port, experiment, console.print, opens=browser and sys.stdout.isatty())
