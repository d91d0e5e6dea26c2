"""`splatsweep weights`: pretrained weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sweep.commands.common import DEFAULT_HOME, Home, console, user_path

if TYPE_CHECKING:
    from model.weights import WeightStore

app = typer.Typer(help="List, fetch and verify pretrained weights.", no_args_is_help=True)

WeightNames = Annotated[
    list[str] | None,
    typer.Argument(help="Names from the list; also timm:NAME and hub:REPOSITORY.", metavar="NAME", show_default=False),
]


@app.command("list")
def weights_list(home: Home = DEFAULT_HOME) -> None:
    """List all pretrained files of the project, and whether they are on this machine.

    Example: [bold]splatsweep weights list[/]
    """
    from model.weights import WEIGHTS, find_weight

    store = _weight_store(home)
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("description", "MB", "licence", "sha256", "here"):
        table.add_column(heading, overflow="fold")
    for name in dict.fromkeys([*WEIGHTS, *store.names()]):
        weight, identity = find_weight(name), store.identity(name)
        table.add_row(
            name,
            weight.description,
            "" if weight.megabytes is None else f"{weight.megabytes:.0f}",
            weight.licence,
            identity[:8] if identity else "",
            _origin(store, name) if store.has(name) else "no",
        )
    console.print(table)


@app.command("fetch")
def weights_fetch(
    names: WeightNames = None,
    path: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A published file or folder that is already on this machine.",
            metavar="PATH",
            parser=user_path,
        ),
    ] = None,
    sweep: Annotated[
        Path | None,
        typer.Option("--for", help="Fetch all that the trials of this sweep need.", metavar="SWEEP", parser=user_path),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Fetch weights from the usual caches, their publishers, or pip's index.  Interrupted downloads are resumed.

    Example: [bold]splatsweep weights fetch --for sweep.yaml[/], or
    [bold]splatsweep weights fetch clip_vit_b32 --from clip-vit-base-patch32/[/]
    """
    from model.weights import MissingWeightsError

    store = _weight_store(home)
    if path is not None:
        if sweep or not names or len(names) != 1:
            raise ValueError("--from takes one NAME: that of the weights at PATH")
        console.print(f"{names[0]}: {store.adopt(names[0], path)}")
        return
    wanted = dict.fromkeys([*(names or []), *(_needed(sweep) if sweep else [])])
    if not wanted:
        raise ValueError("nothing to fetch; name weights of `splatsweep weights list`, or give --for SWEEP")
    problems = []
    for name in wanted:
        try:
            console.print(f"{name}: {store.fetch(name)}")
        except MissingWeightsError as error:
            problems.append(str(error))
    _fail_with(problems)


@app.command("check")
def weights_check(names: WeightNames = None, home: Home = DEFAULT_HOME) -> None:
    """Verify the hashes of the named weights, which must be on this machine, or of all weights on this machine.

    Example: [bold]splatsweep weights check[/]
    """
    store = _weight_store(home)
    checked = names or store.names()
    _fail_with([problem for name in checked if (problem := store.problem(name))])
    console.print(f"sound: {', '.join(checked)}" if checked else f"no weights are in {store.folder}")


def _origin(store: WeightStore, name: str) -> str:
    """The origin of the stored weights, and whether keys contain another hash than the table's."""
    from model.weights import find_weight

    differs = find_weight(name).sha256 not in (None, store.identity(name))
    return f"from {store.source(name)}{', not the published file: its own hash enters keys' if differs else ''}"


def _needed(sweep: Path) -> list[str]:
    from jobs.keys import frozen_weights
    from sweep.file.load import load_sweep
    from sweep.plan.grid import expand
    from sweep.search.space import examples

    checked = load_sweep(sweep)
    configs = [*(config for _, config in expand(checked)), *examples(checked)]
    return sorted({name for config in configs for name in frozen_weights(config)})


def _fail_with(problems: list[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(2)


def _weight_store(home: Path) -> WeightStore:
    from model.weights import WeightStore
    from results.records.home import weights_folder

    return WeightStore(weights_folder(home.absolute()))
