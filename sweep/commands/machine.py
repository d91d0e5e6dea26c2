"""Commands about this machine and its home."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.table import Table

from sweep.commands.common import DEFAULT_HOME, Home, console


def doctor(home: Home = DEFAULT_HOME) -> None:
    """Say what this machine can and cannot do, and how to mend it.

    Example: [bold]splatsweep doctor[/]
    """
    from sweep.doctor import examine

    findings = examine(home.absolute())
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = {"good": "[green]ok[/]", "limited": "[yellow]--[/]", "bad": "[red]no[/]"}[finding.state]
        table.add_row(mark, finding.subject, finding.detail)
    console.print(table)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(2)


def ui(
    home: Home = DEFAULT_HOME,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on the loopback interface.")] = 5000,
) -> None:
    """Open the MLflow UI on this home's store, on the loopback interface only.

    Example: [bold]splatsweep ui --port 5001[/]
    """
    from jobs.tracking import default_uri

    if not (home / "mlflow.db").exists():
        raise ValueError(f"{home.absolute()} has no MLflow store yet; run a sweep first")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [*command, "--backend-store-uri", default_uri(home)])
