"""`splatsweep evaluate`: evaluates a sweep's finished trainings, or published checkpoints, as trials are evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from results.metrics import METRICS, VIEW_KINDS
from sweep.commands.common import DEFAULT_HOME, AsJson, Home, Only, console, planned_sweep, user_path
from sweep.commands.trial_choice import TRIAL_HELP, Best, Seed, SweepOf, chosen_network

if TYPE_CHECKING:  # brings torch, which takes seconds
    from jobs.config import TrialConfig
    from sweep.file.overrides import Setting

Sweep = Annotated[
    Path | None, typer.Argument(help="A sweep file.", metavar="SWEEP", show_default=False, parser=user_path)
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="A published file of Splatter Image, its variants or PixelNeRF; a .safetensors written by `export`; or a "
        "name of `splatsweep choices train.start`.",
        metavar="FILE|NAME",
        show_default=False,
        parser=user_path,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="With --checkpoint or --trial: a dataset's name; see `splatsweep data list`.",
        metavar="NAME",
        show_default=False,
    ),
]
TrialOption = Annotated[
    str | None,
    typer.Option("--trial", help=f"{TRIAL_HELP}  Evaluated on another dataset.", metavar="TRIAL", show_default=False),
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
    sweep: Sweep = None,
    checkpoint: Checkpoint = None,
    dataset: Dataset = None,
    trial: TrialOption = None,
    of_sweep: SweepOf = None,
    seed: Seed = None,
    best: Best = None,
    settings: TrialSettings = None,
    only: Only = None,
    home: Home = DEFAULT_HOME,
    as_json: AsJson = False,
    costs: Annotated[
        bool, typer.Option("--costs", help="Measure the finished trials' costs instead: size, times, memory.")
    ] = False,
) -> None:
    """Evaluate a sweep's finished trainings, or one network on any dataset.  Trains nothing.

    A sweep's trials are evaluated with the current settings of its file, then the report is written.  Existing results
    are kept.

    A checkpoint, or the network of a trial, is evaluated on a dataset like a trial; the result is in no report, unlike
    that of a trial with `train.start`.  A network's sizes are read from its file; no code in it is executed.

    Example: [bold]splatsweep evaluate sweep.yaml --set base.eval.split=val[/]

    Example: [bold]splatsweep evaluate sweep.yaml --costs[/]

    Example: [bold]splatsweep evaluate --checkpoint model_latest.pth --dataset co3d --set render.antialiasing=false[/]

    Example: [bold]splatsweep evaluate --checkpoint splatter_image_cars --dataset srn_cars[/]

    Example: [bold]splatsweep evaluate --trial 3f2a --dataset scans --set eval.objects=10[/]
    """
    if costs and sweep is None:
        raise ValueError("--costs measures the trials of a sweep: give its file")
    is_trial = trial is not None or best is not None
    if sweep is not None:
        if checkpoint is not None or dataset is not None or is_trial:
            raise ValueError("give a sweep file, or --dataset with --checkpoint or with --trial, not both")
        _refuse("a sweep file", {"--json": as_json, "--seed": seed is not None, "--sweep": of_sweep is not None})
        (_measure_sweep if costs else _evaluate_sweep)(sweep, settings or [], only or (), home.absolute())
    elif (checkpoint is None) == (not is_trial) or dataset is None:
        raise ValueError("give a sweep file, or --dataset with --checkpoint or with --trial (or --best)")
    else:
        unused = {"--only": bool(only)}
        if checkpoint is not None:
            unused |= {"--seed": seed is not None, "--sweep": of_sweep is not None}
        _refuse("--checkpoint" if checkpoint is not None else "a trial", unused)
        chosen = None if checkpoint is not None else chosen_network(home.absolute(), trial, of_sweep, seed, best)
        _evaluate_network(checkpoint, chosen, dataset, settings or [], home.absolute(), as_json)


def _refuse(what: str, unused: Mapping[str, bool]) -> None:
    """Raises ValueError where an option is given that evaluating `what` does not use."""
    for option, is_given in unused.items():
        if is_given:
            raise ValueError(f"{option} means nothing for {what}")


def _evaluate_sweep(sweep: Path, settings: list[str], only: Sequence[str], home: Path) -> None:
    from sweep.commands.sweeps import conclude
    from sweep.file.load import load_sweep
    from sweep.run.driver import run_sweep

    checked = load_sweep(sweep, settings)
    conclude(run_sweep(checked, home, console=console, only=only, evaluate_only=True), checked, home)


def _measure_sweep(sweep: Path, settings: list[str], only: Sequence[str], home: Path) -> None:
    """Measures the finished trials of a planned sweep, one after the other, and writes the report."""
    import torch

    from jobs.cost import measure_finished
    from jobs.device import choose_device
    from results.records.frozen_plans import read_plan
    from results.records.monitor import Monitor
    from results.report import build_report
    from sweep.only import choose, unmatched

    checked = planned_sweep(sweep, settings, home)
    plan = read_plan(checked.name, home).refreshed(Monitor(home))
    finished = [trial for trial in plan.trials if trial.status == "finished"]
    chosen, missing = choose(finished, only), unmatched(finished, only)
    if missing or not chosen:
        called = f" is called {' or '.join(map(repr, missing))}" if missing else ""
        raise ValueError(f"no finished trial of {checked.name} to measure{called}")
    torch.set_num_threads(checked.run.cpus_per_trial)
    device = choose_device("auto" if checked.run.gpus_per_trial else "cpu")
    failed = 0
    for trial in chosen:
        try:
            found = measure_finished(home, trial.key, device)
        except (ValueError, RuntimeError) as error:  # such as one that runs out of memory
            failed += 1
            console.print(f"{trial.label}: not measured: {error}", markup=False)
            continue
        console.print(
            f"{trial.label}: {found['parameters'] / 1e6:.2f} M parameters, {found['predict_ms']:.1f} ms a prediction, "
            f"{found['render_ms']:.1f} ms a render",
            markup=False,
        )
    console.print(
        f"Report: {build_report(checked, home, None, checked.tables, notes=checked.notes, labels=checked.tags)}"
    )
    raise typer.Exit(1 if failed else 0)


def _evaluate_network(
    checkpoint: Path | None, trial: Path | None, dataset: str, settings: list[str], home: Path, as_json: bool
) -> None:
    from jobs.model_file import OwnNetwork
    from jobs.official import Network, evaluate_checkpoint, read_network, stored_network
    from model.networks import is_network
    from model.weights import WeightStore
    from results.records.home import weights_folder
    from results.records.trial_folder import read_result
    from results.render.json import as_json as strict_json

    network: Network
    if checkpoint is not None and is_network(str(checkpoint)) and not checkpoint.exists():
        network = stored_network(str(checkpoint), WeightStore(weights_folder(home)))
    elif checkpoint is not None:
        network = read_network(checkpoint)
    else:
        assert trial is not None
        network = OwnNetwork.of_trial(trial)
    parsed = [setting for assignment in settings for setting in _parsed(assignment)]
    for setting in parsed:
        if setting.keys == ("model", "name"):
            network.check_method(str(setting.value), dataset)
    config = _configuration(network.settings(dataset), parsed)
    result = evaluate_checkpoint(network, config, home)
    if as_json:
        print(strict_json(read_result(result.folder)))
        return
    console.print(_means_table(_means(result.metrics) | _means_by_category(result.folder)))
    console.print(f"Result: {result.folder}")


def _means(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """Kind of views -> metric -> mean over objects."""
    by_kind: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        kind, _, metric = name.partition("/")
        by_kind.setdefault(kind, {})[metric] = value
    return {kind: by_kind[kind] for kind in VIEW_KINDS if kind in by_kind}


def _means_by_category(result: Path) -> dict[str, dict[str, float]]:
    """The same for novel views of the objects of each category; nothing where there is one category alone."""
    import pandas as pd

    from results.records.trial_folder import MEASUREMENTS_FILENAME

    scores = pd.read_parquet(result / MEASUREMENTS_FILENAME)
    novel = scores[scores["view_kind"] == "novel"]
    if novel["category"].nunique() < 2:
        return {}
    return {
        f"novel, {str(category) or 'no category'} ({rows['object'].nunique()})": {
            str(metric): float(values.mean(skipna=False)) for metric, values in rows.groupby("metric")["value"]
        }
        for category, rows in novel.groupby("category")
    }


def _means_table(means: dict[str, dict[str, float]]) -> Table:
    """A row for each name in `means`, a column for each metric."""
    measured = [name for name in METRICS if any(name in scores for scores in means.values())]
    table = Table(box=None, pad_edge=False)
    for heading in ("", *measured):
        table.add_column(heading, justify="right" if heading else "left")
    for row, scores in means.items():
        table.add_row(row, *(f"{scores[name]:.3f}" if name in scores else "" for name in measured))
    return table


def _configuration(known: dict[str, Any], assigned: list[Setting]) -> TrialConfig:
    """The file's configuration, overridden by settings.  Raises `SweepError` with all their mistakes."""
    from sweep.file.diagnostics import Mistake, SweepError
    from sweep.file.overrides import Draft, OverrideError, build, flatten

    settings = [*flatten(known, ("--dataset",)), *assigned]
    try:
        draft = build(Draft.defaults(), settings)
        findings = draft.findings(("--dataset",))
    except OverrideError as error:
        findings = [error.finding]
    if findings:
        raise SweepError(Mistake(str(f.path[0]), None, None, "", f.message, f.value, f.allowed) for f in findings)
    return draft.config()


def _parsed(assignment: str) -> list[Setting]:
    from sweep.file.cli_overrides import parse_value
    from sweep.file.overrides import flatten

    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set {assignment!r}: expected KEY=VALUE, e.g. eval.objects=10")
    origin = f"--set {key.strip()}"
    return list(flatten(parse_value(text, origin), (origin,), key.strip().removeprefix("base.")))
