"""The entry point of the command line; `sweep.commands` defines the commands.

Exit codes: 0 success, 1 some trial failed, 2 invalid input or environment, 130 interrupted.  A user's mistake shows no
traceback, unless SPLATSWEEP_DEBUG=1 is set.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from results.invocation import completed
from results.records.damage import system_words
from results.records.permissions import whose
from sweep.commands import (
    archive,
    bench,
    choices,
    clean,
    compare,
    data,
    evaluate,
    explain,
    export,
    figure,
    logs,
    machine,
    predict,
    render,
    schema,
    submit,
    sweeps,
    trials,
    view,
    weights,
)
from sweep.terminal import escape_unencodable


def _print_version(is_requested: bool) -> None:
    if is_requested:
        print(f"splatsweep {metadata.version('splatsweep')}")
        raise typer.Exit


#: errors of a path that this process may not write
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def _join_lines_of_help(group: typer.Typer) -> None:
    """Lets the help of commands wrap at the terminal's width: Typer keeps the line breaks of docstrings."""
    for command in group.registered_commands:
        paragraphs = inspect.cleandoc(getattr(command.callback, "__doc__", None) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


app = typer.Typer(
    name="splatsweep",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (
    sweeps.init,
    sweeps.validate,
    sweeps.plan,
    schema.schema,
    sweeps.run,
    submit.submit,
    submit.stop,
    sweeps.status,
    trials.trials,
    logs.logs,
    sweeps.report,
    sweeps.sync,
    archive.archive,
    explain.explain,
    predict.predict,
    compare.compare,
    view.view,
    figure.figure,
    export.export,
    choices.choices,
    evaluate.evaluate,
    clean.clean,
    bench.bench,
    machine.doctor,
    machine.ui,
):
    app.command()(command)
app.add_typer(data.app, name="data")
app.add_typer(render.app, name="render")
app.add_typer(weights.app, name="weights")
for group in (app, data.app, render.app, weights.app):
    _join_lines_of_help(group)


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Ablation sweeps for single-view 3D reconstruction with Gaussian splats."""


def main() -> None:
    """The entry point of the console script."""
    escape_unencodable()
    try:
        app()
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("SPLATSWEEP_DEBUG"):
            raise
        print("\n".join([f"error: {completed(_message(error))}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        filename = error.filename if isinstance(error, OSError) and error.errno in _REFUSED else None
        if filename is not None and (owner := whose(Path(os.fsdecode(filename)))):
            print(f"({owner})", file=sys.stderr)
        sys.exit(2)


def _message(error: Exception) -> str:
    """The words of an error; the system's errors name the path first, and no number."""
    if isinstance(error, OSError) and (words := system_words(error)):
        return f"{os.fsdecode(error.filename)}: {words}"
    return str(error)
