"""`splatsweep figure`: the qualitative figure of a paper, of chosen objects, views and rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweep.commands.common import (
    DEFAULT_HOME,
    Home,
    Settings,
    SweepFile,
    console,
    make_folder,
    recorded_sweep,
    user_path,
)
from sweep.commands.view import MOST_ROWS
from sweep.only import first_seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from results.load import Evidence
    from results.records.plan import RecordedTrial

Out = Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write.", show_default=False, parser=user_path)]
Rows = Annotated[
    list[str] | None,
    typer.Option(
        "--row",
        metavar="NAME",
        help="A row, again for more; default: the first eight with the same pictures.",
        show_default=False,
    ),
]
Objects = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        metavar="NAME",
        help="An object, again for more; default: best, median and worst of all, by PSNR averaged over the rows.",
        show_default=False,
    ),
]
ViewNumbers = Annotated[
    list[int] | None,
    typer.Option(
        "--view",
        metavar="NUMBER",
        help="A view of each object, from 0, again for more; default: three novel ones, spread evenly.",
        show_default=False,
    ),
]


def figure(
    sweep: SweepFile,
    out: Out,
    rows: Rows = None,
    objects: Objects = None,
    views: ViewNumbers = None,
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
) -> None:
    """Write the qualitative figure of a paper: input, ground truth and finished rows, for chosen objects and views.

    The folder gets figure.tex with a file for each picture, overview.png with error maps, and figure.json with the
    trials' keys. Of each row the first finished seed is shown.

    Example: [bold]splatsweep figure sweep.yaml --row baseline --row 'depth input' --object chair_00220 --out fig[/]
    """
    from results.load import read_evidence

    home = home.absolute()
    with recorded_sweep(sweep, settings, home) as checked:
        evidence = read_evidence(checked, home)
    shown, left_out = chosen_rows(evidence, rows or ())
    make_folder(out)
    import torch

    from jobs.qualitative import draw_rows
    from results.figures.qualitative import FIGURE, OVERVIEW

    chosen = dict.fromkeys(objects, "") if objects else _representative(evidence, list(shown.values()))
    console.print(f"Drawing {', '.join(chosen)} by {', '.join(shown)}", markup=False)
    if left_out:
        console.print(f"Left out: {', '.join(left_out)}; --row chooses others", markup=False)
    draw_rows(home, shown, chosen, views or [], torch.device("cpu")).write(out)
    console.print(f"Wrote {out / FIGURE}, {out / OVERVIEW} and the pictures", markup=False)


def chosen_rows(evidence: Evidence, names: Sequence[str]) -> tuple[dict[str, RecordedTrial], list[str]]:
    """The first finished seed of each named row, or of the first `MOST_ROWS` rows that have the pictures of the first.

    Returns the names of the other finished rows too, if none is named.

    Raises ValueError for a name that no finished row has, and where no row is finished.
    """
    from results.figures.qualitative import pictures_of

    done = [record.planned for record in evidence.records if record.state == "finished" and not record.planned.control]
    finished = first_seeds(done)
    if not finished:
        raise ValueError(f"no trained row of {evidence.plan.sweep} is finished")
    for name in names:
        if name not in finished:
            raise ValueError(
                f"--row {name!r} is no finished row of {evidence.plan.sweep}; allowed: {', '.join(finished)}"
            )
    if names:
        return {name: finished[name] for name in names}, []
    rows = {trial.name: trial for trial in finished.values()}
    of_first = pictures_of(next(iter(rows.values())).flat_config)
    alike = [name for name, trial in rows.items() if pictures_of(trial.flat_config) == of_first][:MOST_ROWS]
    return {name: rows[name] for name in alike}, [name for name in rows if name not in alike]


def _representative(evidence: Evidence, trials: Sequence[RecordedTrial]) -> dict[str, str]:
    """The best, median and worst object by PSNR on novel views, averaged over the trials."""
    from results.gallery import representative_objects

    scores = evidence.results(["psnr"])
    keys = [trial.key for trial in trials]
    novel = scores[(scores["view_kind"] == "novel") & scores["key"].isin(keys)]
    if novel.empty:
        raise ValueError("no trial has the PSNR of novel views, by which objects are chosen; name them with --object")
    means = novel.groupby("object", observed=True)["value"].mean(skipna=False)
    return representative_objects({str(name): float(mean) for name, mean in means.items()})
