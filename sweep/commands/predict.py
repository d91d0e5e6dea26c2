"""`splatsweep predict`: reconstructs the objects of photographs."""

from __future__ import annotations

import json
import sys
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweep.commands.common import DEFAULT_HOME, Home, console, make_folder, say, user_path
from sweep.commands.trial_choice import Best, Seed, SweepOf, chosen_network

if TYPE_CHECKING:  # brings torch, which takes seconds
    from jobs.predict import PhotoReconstructor, Prediction

RECORD_FILENAME = "predictions.json"

Arguments = Annotated[
    list[str],
    typer.Argument(
        help="A trial's key, its beginning, its name, `NAME seed N`, its folder, or an exported .safetensors (none "
        "with --best); then pictures, or folders of pictures.",
        metavar="TRIAL PICTURE...",
        show_default=False,
    ),
]
Out = Annotated[
    Path, typer.Option(help="The folder to write to.", metavar="FOLDER", show_default=False, parser=user_path)
]
FieldOfView = Annotated[
    float | None,
    typer.Option(
        help="Field of view across the picture's width, degrees.  Default: what the camera recorded, else that of the "
        "training pictures.",
        metavar="DEGREES",
        show_default=False,
    ),
]
Focal = Annotated[
    float | None,
    typer.Option(help="The field of view as a focal length, pixels.", metavar="PIXELS", show_default=False),
]
MaskOption = Annotated[
    str,
    typer.Option(
        "--mask",
        help="The object: auto (transparency, else rembg where it is installed, else colour), colour (a simple removal "
        "of plain backgrounds), rembg, none (the largest square in the middle), or a picture that shows it white on "
        "black.",
        metavar="auto|FILE|none",
    ),
]


def predict(
    arguments: Arguments,
    out: Out,
    mask: MaskOption = "auto",
    fov: FieldOfView = None,
    focal: Focal = None,
    views: Annotated[int, typer.Option(min=2, help="Pictures of a turntable.")] = 24,
    size: Annotated[
        int | None,
        typer.Option(
            min=8, max=2048, help="Side of rendered pictures, pixels.  Default: 256 for Gaussians.", show_default=False
        ),
    ] = None,
    sweep: SweepOf = None,
    seed: Seed = None,
    best: Best = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Reconstruct the objects of photographs with a trained network.

    Writes for each picture a turntable (.gif, and .mp4 where ffmpeg is installed), renders (.png), the picture as the
    network reads it (-input.png), and, for methods with Gaussians, a .ply for 3DGS viewers.  predictions.json records
    how each picture was processed, also those of earlier calls whose files were not written again.  Of a picture that
    is written again, files that only an earlier call wrote are removed.  Files that predictions.json does not list are
    never overwritten; those that it lists are not read as pictures of FOLDER.

    Example: [bold]splatsweep predict 3f2a chair.jpg --out predicted --fov 65[/]

    Example: [bold]splatsweep predict --best novel_psnr --sweep sweep.yaml photos/ --out predicted[/]
    """
    from jobs.photos.picture import PictureError, picture_files
    from jobs.predict import load_reconstructor
    from jobs.video import find_ffmpeg
    from model.rasterizers.validation import NonFiniteGaussiansError
    from results.records.atomic import write_json

    home = home.absolute()
    trial, names = (None, arguments) if best is not None else (arguments[0], arguments[1:])
    if not names:
        raise ValueError(f"give the pictures{'' if best else ' after TRIAL'}: files, or folders of them")
    given = [user_path(name) for name in names]
    records = _read_records(out / RECORD_FILENAME)
    results = {name for record in records for name in record["files"]}
    files = [f for f in picture_files(given) if f in given or f.name not in results or not _is_in(f, out)]
    if not files:
        raise ValueError(f"{out}: all of its pictures are results of earlier calls")
    _check_mask(mask, files)
    is_file = trial is not None and _is_network_file(trial)
    if is_file and (sweep is not None or seed is not None):
        raise ValueError(f"--sweep and --seed choose a trial, and {trial} is a file")
    chosen = user_path(trial) if trial is not None and is_file else chosen_network(home, trial, sweep, seed, best)
    reconstruct = load_reconstructor(home, chosen)
    network = reconstruct.name if is_file else f"trial {reconstruct.name}"
    say(f"{reconstruct.config.model.name}, {network}, trained on {reconstruct.domain}")
    make_folder(out)
    foreign = {path.name for path in out.iterdir()} - results
    stems = _stems(files, foreign | {file.name for file in files if _is_in(file, out)})
    refused = 0
    for file, stem in zip(files, stems, strict=True):
        try:
            prediction = reconstruct(file, mask=mask, fov=fov, focal=focal)
            written = prediction.save(out, stem=stem, views=views, side=size)
        except (PictureError, NonFiniteGaussiansError) as error:
            named = error if isinstance(error, PictureError) else f"{file}: its reconstruction cannot be drawn: {error}"
            print(f"error: {named}", file=sys.stderr)
            refused += 1
            continue
        records = _kept_records(records, out, stem, written)
        records.append(prediction.as_json(written))
        write_json(out / RECORD_FILENAME, records)
        _show(prediction, reconstruct, written)
    if find_ffmpeg() is None and refused < len(files):
        say("No .mp4: ffmpeg is not installed (or: pip install imageio-ffmpeg)")
    if refused:
        say(f"{refused} of {len(files)} pictures could not be used")
        raise typer.Exit(2)


def _is_network_file(trial: str) -> bool:
    """Whether the argument names the file of an exported network, not a trial.

    Raises ValueError for such a file that does not exist, and for one of another kind.
    """
    path = user_path(trial)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise ValueError(f"{trial}: there is no such file; `splatsweep export` writes one")
        return True
    if path.is_file():
        raise ValueError(
            f"{trial}: not the .safetensors file of an exported network, which `splatsweep export` writes; published "
            "files can be evaluated, with: splatsweep evaluate --checkpoint FILE --dataset NAME"
        )
    return False


def _check_mask(mask: str, files: list[Path]) -> None:
    """Raises ValueError for a mask that is no word and no file, or one file for several pictures."""
    from jobs.photos.masks import WORDS

    if mask in WORDS:
        return
    if not user_path(mask).is_file():
        raise ValueError(f"--mask {mask}: there is no such file; allowed besides files: {', '.join(WORDS)}")
    if len(files) > 1:
        raise ValueError(f"--mask {mask}: one mask for {len(files)} pictures; give one picture, or --mask auto")


def _is_in(file: Path, folder: Path) -> bool:
    return file.parent.resolve() == folder.resolve()


def _stems(files: list[Path], taken: set[str]) -> list[str]:
    """A name for the results of each picture: its stem, with a number where other results or a taken name have it."""
    from jobs.predict import ENDINGS

    stems = []
    for file in files:
        numbered = (f"{file.stem}-{number}" for number in count(2))
        stem = next(
            name for name in chain([file.stem], numbered) if taken.isdisjoint(f"{name}{ending}" for ending in ENDINGS)
        )
        taken = taken | {f"{stem}{ending}" for ending in ENDINGS}
        stems.append(stem)
    return stems


def _read_records(path: Path) -> list[dict[str, Any]]:
    """The records of earlier calls.  Raises ValueError for a file that holds none."""
    if not path.exists():
        return []
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
        for record in records:
            set(record["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no record of predictions; delete it, or choose another folder with --out") from error
    return records


def _kept_records(records: list[dict[str, Any]], out: Path, stem: str, written: list[Path]) -> list[dict[str, Any]]:
    """The records of other files than those written; removes what else the other records list under this stem."""
    from jobs.predict import ENDINGS

    saved = {path.name for path in written}
    kept = [record for record in records if saved.isdisjoint(record["files"])]
    outdated = {name for record in records if record not in kept for name in record["files"]} - saved
    for name in outdated & {f"{stem}{ending}" for ending in ENDINGS}:
        (out / name).unlink(missing_ok=True)
    return kept


def _show(prediction: Prediction, reconstruct: PhotoReconstructor, written: list[Path]) -> None:
    console.print(f"{prediction.picture.path}", style="bold")
    for remark in prediction.remarks:
        console.print(f"  {remark}")
    if prediction.concerns:
        console.print("  This picture is far from what the network was trained on:", style="yellow")
        for concern in prediction.concerns:
            console.print(f"  - {concern}", style="yellow")
        console.print(f"  It was trained on {reconstruct.domain}", style="yellow")
    console.print(f"  Wrote {written[0].parent}/: {', '.join(path.name for path in written)}")
