"""The entry of the command line; the commands stand in `sweep.commands`.

Exit codes: 0 all well, 1 some trial failed, 2 bad input or environment, 130 interrupted.  A user's mistake never
ends in a traceback; set SPLATSWEEP_DEBUG=1 to see one all the same.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer

from results.records.permissions import whose
from sweep.commands import bench, choices, data, evaluate, explain, machine, render, schema, submit, sweeps, weights
from sweep.terminal import survive_any_text

app = typer.Typer(
    name="splatsweep",
    help="Ablation sweeps for single-view 3D reconstruction with Gaussian splats.",
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
    sweeps.report,
    sweeps.sync,
    explain.explain,
    choices.choices,
    evaluate.evaluate,
    bench.bench,
    machine.doctor,
    machine.ui,
):
    app.command()(command)
app.add_typer(data.app, name="data")
app.add_typer(render.app, name="render")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """The console script."""
    survive_any_text()
    try:
        app()
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("SPLATSWEEP_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        filename = error.filename if isinstance(error, PermissionError) else None
        if filename is not None and (owner := whose(Path(os.fsdecode(filename)))):
            print(f"({owner})", file=sys.stderr)
        sys.exit(2)
