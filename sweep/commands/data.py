"""`splatsweep data`: datasets in the packed store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sweep.commands.common import DEFAULT_HOME, Home, console, errors, make_folder, say, user_path

if TYPE_CHECKING:
    from jobs.data.prepare import DatasetFacts

app = typer.Typer(help="List, import, verify and show datasets.", no_args_is_help=True)


@app.command("list")
def data_list(
    name: Annotated[
        str | None,
        typer.Argument(help="One dataset, with its options; none means all.", metavar="NAME", show_default=False),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """List the datasets and what is prepared; or show what one needs, its files and options.

    Example: [bold]splatsweep data list transforms[/]
    """
    from jobs.data.prepare import describe
    from model.registry import UnknownChoiceError

    found = {facts.name: facts for facts in describe(home.absolute())}
    if name is None:
        table = _table("dataset", "description", "prepared")
        for facts in found.values():
            table.add_row(facts.name, facts.description, "\n".join(path.name for path in facts.prepared) or "no")
        console.print(table)
        say("`splatsweep data list NAME` shows what a dataset needs, and its options.")
    elif name in found:
        _show_facts(found[name])
    else:
        raise UnknownChoiceError("dataset", name, found)


def _show_facts(facts: DatasetFacts) -> None:
    """Prints all facts on one dataset."""
    from results.records.flat import as_written

    table = _table("", "")
    table.show_header = False
    table.add_row("dataset", f"{facts.name}: {facts.description}")
    table.add_row("licence", facts.licence)
    table.add_row("--source DIR", facts.needs_source or "not needed")
    for role, what in facts.file_roles.items():
        table.add_row(f"--file {role}=FILE", f"optional; {what}")
    table.add_row("prepared", "\n".join(path.name for path in facts.prepared) or "no")
    console.print(table)
    if facts.options:
        table = _table("--set", "default", "meaning")
        for option, default in facts.options.items():
            table.add_row(option, as_written(default), facts.meanings[option])
        console.print()
        console.print(table)


def _table(*headings: str) -> Table:
    """An empty table whose long cells continue on the next line."""
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


DatasetName = Annotated[
    str,
    typer.Argument(help="A dataset's name; see `splatsweep data list`.", metavar="NAME", show_default=False),
]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="An option of the dataset, e.g. views=32.", show_default=False),
]


@app.command("prepare")
def data_prepare(
    name: DatasetName,
    home: Home = DEFAULT_HOME,
    settings: DatasetOptions = None,
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder to import from, for datasets that need one.",
            show_default=False,
            parser=user_path,
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=FILE", help="An additional file, e.g. exclude=bad.txt.", show_default=False),
    ] = None,
    max_unreadable: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the objects that may be unreadable and are skipped, e.g. 10%; at least one if above 0.  "
            "Default: 5%, but none of fewer than 20 objects.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that read objects; default: one per core.", show_default=False),
    ] = None,
) -> None:
    """Import a dataset into the packed store.  An interrupted import continues where it stopped.

    One run finds and lists everything that cannot be read.  If that is too much, the import fails, and the next run
    reuses the objects that could be read.

    Example: [bold]splatsweep data prepare co3d --set category=hydrant --source /data/co3d --file exclude=bad.txt[/]
    """
    from jobs.data.prepare import prepare, store_path

    options, files, share = parse_options(settings), _files(file), _share(max_unreadable)
    is_there = store_path(name, options, home.absolute()).exists()
    with _progress(name) as progress:
        path = prepare(
            name,
            options,
            home.absolute(),
            progress,
            workers,
            source=source,
            files=files,
            max_unreadable=share,
        )
    _report_left_out(path)
    if is_there and source is not None:
        say(f"{source} was imported before and is not read again; if its files have changed, delete {path} first")
    console.print(f"{name}: {path}")


@app.command("check")
def data_check(name: DatasetName, home: Home = DEFAULT_HOME, settings: DatasetOptions = None) -> None:
    """Verify a prepared dataset: checksum, splits, cameras, images.

    Example: [bold]splatsweep data check scans[/]
    """
    from jobs.data.inspect import check
    from jobs.data.prepare import find_prepared

    store = find_prepared(name, parse_options(settings), home.absolute())
    problems = check(store)
    _report_remarks(store.path)
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
        typer.Option(
            metavar="FILE", help="The picture to write; default: NAME.png.", show_default=False, parser=user_path
        ),
    ] = None,
) -> None:
    """Write a contact sheet of a dataset: one object per row, with its cameras and views.

    Example: [bold]splatsweep data show scans --out scans.png[/]
    """
    from jobs.data.contact_sheet import contact_sheet
    from jobs.data.prepare import open_dataset

    path = out or Path(f"{name}.png")
    make_folder(path.parent)
    contact_sheet(open_dataset(name, parse_options(settings), home.absolute()), path)
    console.print(f"Wrote {path}")


#: The most lines about a store's objects that are printed; its manifest has all.
_LINES = 50


def _report_left_out(path: Path) -> None:
    """Prints which parts of the source are missing in the store, wholly or partly."""
    from jobs.data.store import Store

    skipped = Store.open(path).manifest.skipped
    _say_some([f"left out {entry.object}: {entry.reason}" for entry in skipped], path)
    _report_remarks(path)


def _report_remarks(path: Path) -> None:
    """Prints remarks about the store's objects."""
    from jobs.data.store import Store

    _say_some([f"{remark.object}: {remark.text}" for remark in Store.open(path).manifest.remarks], path)


def _say_some(lines: list[str], path: Path) -> None:
    for line in lines[:_LINES]:
        say(line)
    if len(lines) > _LINES:
        say(f"and {len(lines) - _LINES} more lines like these, in {path / 'manifest.json'}")


def _share(text: str | None) -> float | None:
    """Parses a fraction: `10%` or `0.1` -> 0.1."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"--max-unreadable {text!r}: expected a share of the objects, such as 10% or 0.1")
    return share


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int, str], None]]:
    """A callback that reports an import's progress: a bar in a terminal, a line for each tenth elsewhere."""
    from sweep.plan.planner import report_tenths

    if not errors.is_terminal:
        yield report_tenths(name, say)
        return
    columns = (
        TextColumn(name, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def _files(settings: list[str] | None) -> dict[str, list[Path]]:
    """Parses ROLE=FILE texts to paths by role."""
    files: dict[str, list[Path]] = {}
    for setting in settings or []:
        role, equals, path = setting.partition("=")
        if not equals or not path:
            raise ValueError(f"--file {setting!r}: expected ROLE=FILE, e.g. exclude=bad.txt")
        files.setdefault(role, []).append(user_path(path))
    return files


def parse_options(settings: list[str] | None) -> dict[str, object]:
    """Parses OPTION=VALUE texts to a mapping; values are read as YAML.  Raises `SweepError` where one is none."""
    from sweep.file.cli_overrides import parse_value

    options: dict[str, object] = {}
    for setting in settings or []:
        option, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting!r}: expected OPTION=VALUE, e.g. views=32")
        options[option] = parse_value(value, f"--set {option}")
    return options
