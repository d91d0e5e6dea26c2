"""What the commands share: the terminal, and options that mean the same everywhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

console = Console()

SweepFile = Annotated[Path, typer.Argument(help="The sweep file.", metavar="SWEEP", show_default=False)]
Home = Annotated[
    Path, typer.Option("--home", envvar="SPLATSWEEP_HOME", help="Where everything is kept.", metavar="DIR")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the sweep file, e.g. seeds=[0,1].",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_HOME = Path("runs")


def say(message: str) -> None:
    """Progress goes to the error stream, so that `--json` stays clean."""
    print(message, file=sys.stderr)
