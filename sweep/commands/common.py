"""The terminal, and the options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from results.invocation import DEFAULT_HOME, command, remember_home
from results.records.home import user_path
from results.records.permissions import widen_umask
from sweep.terminal import console, errors

if TYPE_CHECKING:
    from sweep.file.schema import Sweep

__all__ = [
    "DEFAULT_HOME",
    "AsJson",
    "Home",
    "Only",
    "Settings",
    "SweepFile",
    "console",
    "errors",
    "planned_sweep",
    "recorded_sweep",
    "say",
    "user_path",
]

SweepFile = Annotated[
    Path, typer.Argument(help="The sweep file.", metavar="SWEEP", show_default=False, parser=user_path)
]


def _as_home(path: Path) -> Path:
    """The home folder; everyone who may write it may also write the files that a command creates in it.

    Raises ValueError for a file.
    """
    with suppress(PermissionError):  # raised again, with the path, by what reads it
        if path.is_file():
            raise ValueError(f"{path} is a file; a home is a folder: choose another with --home")
    widen_umask(path.absolute())
    remember_home(path)
    return path


Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="SPLATSWEEP_HOME",
        help="The home, the folder of all data and results.",
        metavar="DIR",
        callback=_as_home,
        parser=user_path,
    ),
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
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|GLOB",
        help="Only the trials of that name, or those whose names match; may be repeated.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def say(message: str) -> None:
    """Prints progress to the error stream, so that `--json` output stays valid."""
    print(message, file=sys.stderr)


def make_folder(out: Path) -> None:
    """Makes a folder for what a command writes.  Raises ValueError where a file has that name, or is above it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{out}: there is a file of that name; choose another folder") from None


def planned_sweep(path: Path, settings: list[str] | None, home: Path) -> Sweep:
    """The sweep of a file, for a command that shows its frozen plan; prints a line where file and plan differ.

    Raises ValueError where there is no plan.
    """
    from sweep.file.load import load_sweep
    from sweep.run.driver_lock import is_driven
    from sweep.run.frozen_file import difference

    sweep = load_sweep(path, settings or [], configurations=False)
    folder = home / "sweeps" / sweep.name
    if not (folder / "plan.json").exists():
        if is_driven(sweep.name, home):
            raise ValueError(f"sweep {sweep.name!r} is being planned in {home}: wait until its first trial starts")
        raise ValueError(
            f"sweep {sweep.name!r} has not been planned in {home}; plan and run it: {command('run', sweep, home)}"
        )
    changed = difference(sweep, folder, command("run", sweep, home))
    if changed is not None:
        errors.print(changed, style="yellow")
    return sweep


@contextmanager
def recorded_sweep(path: Path, settings: list[str] | None, home: Path) -> Iterator[Sweep]:
    """`planned_sweep` for a command that reads results: finished trials that the home's own store lacks are recorded.

    Where the store cannot be written, a line says so at the end, unless the command fails: a store that cannot be read
    either has been named by then.
    """
    from sweep.run.recording import TrackingError, record_ended

    sweep, unwritten = planned_sweep(path, settings, home), None
    try:
        record_ended(sweep, home)
    except TrackingError as error:
        unwritten = str(error)
    yield sweep
    if unwritten is not None:
        errors.print(unwritten, style="yellow")
