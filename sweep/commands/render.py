"""`splatsweep render`: renders turntables of reconstructed objects, and writes Gaussians as files for viewers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.commands.common import DEFAULT_HOME, Home, console, make_folder, user_path
from sweep.commands.data import DatasetName, DatasetOptions, parse_options
from sweep.commands.trial_choice import Best, Seed, SweepOf, Trial, chosen_network

if TYPE_CHECKING:  # brings torch, which takes seconds
    from jobs.turntable import GaussianObject

app = typer.Typer(help="Render objects from all around, and write .ply files.", no_args_is_help=True)

ObjectName = Annotated[
    str | None,
    typer.Option(
        "--object",
        metavar="NAME",
        help="The object; default: the first test object, or of a trial the first that it is evaluated on.",
        show_default=False,
    ),
]
ViewCount = Annotated[int, typer.Option("--views", min=1, help="Pictures once around the object.")]
Size = Annotated[int, typer.Option(min=8, max=4096, help="Side of each picture, pixels.")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A .png, or a .gif that turns; default: OBJECT.png.", show_default=False, parser=user_path
    ),
]
Ply = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the Gaussians as a .ply that 3DGS viewers open.",
        show_default=False,
        parser=user_path,
    ),
]


@app.command("trial")
def render_trial(
    trial: Trial = None,
    name: ObjectName = None,
    views: ViewCount = 12,
    size: Size = 128,
    out: Out = None,
    ply: Ply = None,
    home: Home = DEFAULT_HOME,
    sweep: SweepOf = None,
    seed: Seed = None,
    best: Best = None,
) -> None:
    """Render a trial's reconstruction from an object's source view; Gaussians can also be written to a file.

    Example: [bold]splatsweep render trial 3f2a --object chair_00256 --out chair.gif --ply chair.ply[/]
    """
    from jobs.gaussian_sources import predicted

    _check_paths(out, ply)
    home = home.absolute()
    _write(predicted(chosen_network(home, trial, sweep, seed, best), name), views, size, out, ply)


@app.command("data")
def render_data(
    dataset: DatasetName,
    name: ObjectName = None,
    settings: DatasetOptions = None,
    views: ViewCount = 12,
    size: Size = 128,
    out: Out = None,
    ply: Ply = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Render a dataset's object as Gaussians placed by its depth maps, one for each pixel of each view.

    Example: [bold]splatsweep render data chairs --object chair_00256 --views 12 --out chair.png --ply chair.ply[/]
    """
    from jobs.data.prepare import open_dataset
    from jobs.gaussian_sources import measured

    _check_paths(out, ply)
    store = open_dataset(dataset, parse_options(settings), home.absolute())
    _write(measured(store, name), views, size, out, ply)


def _check_paths(out: Path | None, ply: Path | None) -> None:
    """Checks the paths before any long computation.  Raises ValueError for a suffix of another format."""
    from jobs.turntable import check_picture_path

    if out is not None:
        check_picture_path(out)
    if ply is not None and ply.suffix != ".ply":
        raise ValueError(f"{ply}: the name of a file of Gaussians must end in .ply")


def _write(subject: GaussianObject, views: int, size: int, out: Path | None, ply: Path | None) -> None:
    from jobs.turntable import render_turntable, save_pictures
    from model.ply import write_ply
    from model.scenes import GaussianScene

    if ply is not None and not isinstance(subject.scene, GaussianScene):
        kind = subject.scene.kind
        raise ValueError(f"{ply}: only Gaussians can be written, and the scene of {subject.name} is of kind {kind}")
    path = out or Path(f"{subject.name.replace('/', '_')}.png")
    for place in (path, *([ply] if ply is not None else [])):
        make_folder(place.parent)
    save_pictures(render_turntable(subject, views, size), path)
    console.print(f"Wrote {path}")
    if ply is not None and isinstance(subject.scene, GaussianScene):
        write_ply(subject.scene.gaussians, ply)
        console.print(f"Wrote {ply}")
