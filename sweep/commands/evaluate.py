"""`splatsweep evaluate`: published checkpoints, judged as trials are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from results.metrics import METRICS, VIEW_KINDS
from sweep.commands.common import DEFAULT_HOME, AsJson, Home, console, user_path

if TYPE_CHECKING:  # brings torch, which takes seconds
    from jobs.config import TrialConfig

Checkpoint = Annotated[
    Path,
    typer.Option(
        help="A published file of Splatter Image, one of its variants, or PixelNeRF.",
        metavar="FILE",
        show_default=False,
        parser=user_path,
    ),
]
Dataset = Annotated[
    str, typer.Option(help="A dataset's name; see `splatsweep data list`.", metavar="NAME", show_default=False)
]
TrialSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A key of a trial's configuration, e.g. eval.objects=10, or as in a sweep file: base.eval.objects=10.",
        show_default=False,
    ),
]


def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    settings: TrialSettings = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
) -> None:
    """Judge a published checkpoint on a dataset's test split, as trials are judged.

    The network's sizes are read from the file; nothing in it is executed.

    Example: [bold]splatsweep evaluate --checkpoint model_latest.pth --dataset co3d --set render.antialiasing=false[/]
    """
    from jobs.official import OfficialCheckpoint, evaluate_checkpoint
    from results.records.trial_folder import RESULT_FILENAME

    network = OfficialCheckpoint.read(checkpoint)
    config = _configuration(network.settings(dataset), settings or [])
    result = evaluate_checkpoint(network, config, home.absolute())
    if as_json:
        print((result.folder / RESULT_FILENAME).read_text())
        return
    console.print(_means_table(result.metrics))
    console.print(f"Result: {result.folder}")


def _means_table(metrics: dict[str, float]) -> Table:
    kinds = [kind for kind in VIEW_KINDS if any(name.startswith(f"{kind}/") for name in metrics)]
    measured = [name for name in METRICS if any(f"{kind}/{name}" in metrics for kind in kinds)]
    table = Table(box=None, pad_edge=False)
    for heading in ("", *measured):
        table.add_column(heading, justify="right" if heading else "left")
    for kind in kinds:
        scores = (metrics.get(f"{kind}/{name}") for name in measured)
        table.add_row(kind, *("" if score is None else f"{score:.3f}" for score in scores))
    return table


def _configuration(known: dict[str, Any], assignments: list[str]) -> TrialConfig:
    """What the file says, with `KEY=VALUE` texts on top.  Raises `SweepError` with all that is wrong with these."""
    from sweep.file.diagnostics import Mistake, SweepError
    from sweep.file.overrides import Draft, OverrideError, build, flatten

    settings = list(flatten(known, ("--dataset",)))
    for assignment in assignments:
        settings += _parsed(assignment)
    try:
        draft = build(Draft.defaults(), settings)
        findings = draft.findings(("--dataset",))
    except OverrideError as error:
        findings = [error.finding]
    if findings:
        raise SweepError(Mistake(str(f.path[0]), None, None, "", f.message, f.value, f.allowed) for f in findings)
    return draft.config()


def _parsed(assignment: str) -> list[Any]:
    from sweep.file.overrides import flatten
    from sweep.file.yaml_reader import parse

    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set {assignment!r}: expected KEY=VALUE, e.g. eval.objects=10")
    origin = f"--set {key.strip()}"
    return list(flatten(parse(text, origin).value, (origin,), key.strip().removeprefix("base.")))
