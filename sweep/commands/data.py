"""`splatsweep data`: datasets in the packed store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sweep.commands.common import DEFAULT_HOME, Home, console, say

app = typer.Typer(help="Datasets in the packed store.", no_args_is_help=True)


@app.command("list")
def data_list(home: Home = DEFAULT_HOME) -> None:
    """List the datasets, their options, and what is prepared.

    Example: [bold]splatsweep data list[/]
    """
    from jobs.data.prepare import describe

    table = Table(box=None, pad_edge=False)
    for heading in ("dataset", "what", "options (defaults)", "licence", "prepared"):
        table.add_column(heading)
    for facts in describe(home.absolute()):
        options = "\n".join(f"{key}: {value}" for key, value in facts.options.items())
        stores = "\n".join(path.name for path in facts.prepared) or "no"
        table.add_row(facts.name, facts.description, options, facts.licence, stores)
    console.print(table)


DatasetName = Annotated[
    str,
    typer.Argument(help="A dataset's name; see `splatsweep data list`.", metavar="NAME", show_default=False),
]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="An option of the dataset, e.g. views=32.", show_default=False),
]


@app.command("prepare")
def data_prepare(name: DatasetName, home: Home = DEFAULT_HOME, settings: DatasetOptions = None) -> None:
    """Import a dataset into the packed store.

    Example: [bold]splatsweep data prepare chairs --set train=500 --set image_size=128[/]
    """
    from jobs.data.prepare import prepare
    from sweep.plan import in_tenths

    path = prepare(name, _options(settings), home.absolute(), in_tenths(name, say))
    console.print(f"{name}: {path}", soft_wrap=True)


@app.command("check")
def data_check(name: DatasetName, home: Home = DEFAULT_HOME, settings: DatasetOptions = None) -> None:
    """Verify a prepared dataset: fingerprint, splits, cameras, pictures.

    Example: [bold]splatsweep data check scans[/]
    """
    from jobs.data.inspect import check
    from jobs.data.prepare import store_path
    from jobs.data.store import Store

    problems = check(Store.open(store_path(name, _options(settings), home.absolute())))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(2)
    console.print(f"{name}: sound")


@app.command("show")
def data_show(
    name: DatasetName,
    home: Home = DEFAULT_HOME,
    settings: DatasetOptions = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture to write; default NAME.png.", show_default=False),
    ] = None,
) -> None:
    """Write a contact sheet of a dataset.

    Example: [bold]splatsweep data show scans --out scans.png[/]
    """
    from jobs.data.inspect import contact_sheet
    from jobs.data.prepare import open_dataset

    path = out or Path(f"{name}.png")
    contact_sheet(open_dataset(name, _options(settings), home.absolute()), path)
    console.print(f"Wrote {path}", soft_wrap=True)


def _options(settings: list[str] | None) -> dict[str, object]:
    """OPTION=VALUE texts -> a mapping; values are read as YAML."""
    from ruamel.yaml import YAML

    options: dict[str, object] = {}
    for setting in settings or []:
        option, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting!r}: expected OPTION=VALUE, e.g. views=32")
        options[option] = YAML(typ="safe", pure=True).load(value)
    return options
