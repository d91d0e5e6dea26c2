"""`splatsweep export`: writes a trial's network to one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.filesize import decimal

from sweep.commands.common import DEFAULT_HOME, Home, console, user_path
from sweep.commands.trial_choice import Best, Seed, SweepOf, Trial, chosen_network


def export(
    out: Annotated[
        Path,
        typer.Option(
            help="A self-contained .safetensors, or a .pth in the layout of Splatter Image's published files.",
            metavar="FILE",
            show_default=False,
            parser=user_path,
        ),
    ],
    trial: Trial = None,
    sweep: SweepOf = None,
    seed: Seed = None,
    best: Best = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Write a trial's network to a file, for other machines and other code.

    The .safetensors includes the configuration and facts about the training pictures, so that `predict` and `evaluate
    --checkpoint` read it on a machine without this home.  A .pth is refused for networks that the published code lacks.
    It has tensors alone: `evaluate --checkpoint` takes settings that do not follow from these by --set, such as
    model.input_views, semantic.resolution and render.antialiasing.

    Example: [bold]splatsweep export 3f2a --out model.safetensors[/]
    """
    from jobs.model_file import export_trial

    export_trial(chosen_network(home.absolute(), trial, sweep, seed, best), out.absolute())
    console.print(f"Wrote {out}, {decimal(out.stat().st_size)}")
