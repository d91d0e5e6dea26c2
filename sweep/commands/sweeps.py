"""Commands on a sweep file, from its first draft to its report."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.text import Text

from results.invocation import command, completed
from sweep.commands.common import (
    DEFAULT_HOME,
    AsJson,
    Home,
    Only,
    Settings,
    SweepFile,
    console,
    make_folder,
    planned_sweep,
    recorded_sweep,
    say,
    user_path,
)
from sweep.run.executors import EXECUTORS
from sweep.terminal import counted

if TYPE_CHECKING:
    from sweep.file.schema import Sweep
    from sweep.plan.planner import PlannedTrial
    from sweep.run.driver import Outcome


def init(
    preset: Annotated[str, typer.Argument(help="The preset to start from.", metavar="PRESET")] = "quick",
    out: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE", parser=user_path)] = Path(
        "sweep.yaml"
    ),
) -> None:
    """Write a commented sweep file to start from.

    Example: [bold]splatsweep init quick --out my.yaml[/]
    """
    from model.registry import UnknownChoiceError
    from sweep.file.yaml_reader import presets

    files = presets()
    if preset not in files:
        unknown = UnknownChoiceError("preset", preset, files)
        if not preset.endswith((".yaml", ".yml")):
            raise unknown
        raise ValueError(f"{unknown}; to write {preset}: {shlex.join(['splatsweep', 'init', '--out', preset])}")
    if out.exists():
        raise ValueError(f"{out} exists; choose another name with --out")
    make_folder(out.parent)
    out.write_text(files[preset].read_text())
    console.print(f"Wrote {out}. Next: {shlex.join(['splatsweep', 'plan', str(out)])}")


def validate(sweep: SweepFile, settings: Settings = None) -> None:
    """Check a sweep file: every mistake at once, with line and column.

    Example: [bold]splatsweep validate sweep.yaml[/]
    """
    from sweep.file.load import SweepError, load_sweep
    from sweep.plan.drawing import drawing_lines, undrawable
    from sweep.plan.grid import expand

    try:
        checked = load_sweep(sweep, settings or [])
    except SweepError as error:
        print(error, file=sys.stderr)
        count = len(error.mistakes)
        print(counted(count, "mistake"), file=sys.stderr)
        raise typer.Exit(2) from None
    more = f", and a search of {checked.search.trials} configurations" if checked.search else ""
    named = expand(checked)
    count = len({json.dumps(config.identity(), sort_keys=True) for _, config in named})
    more = (f" ({len(named)} named, some of them equal)" if len(named) > count else "") + more
    rule = checked.seed_rule
    more += f", and up to {rule.at_most} seeds a row, {rule.at_least} at first" if rule else ""
    console.print(f"{sweep}: valid, {counted(count, 'trial')}{more}")
    for line in drawing_lines(undrawable(named, checked.run), checked.run):
        console.print(Text(line))


def plan(
    sweep: SweepFile,
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show why each trial must run.")] = False,
    probe: Annotated[
        bool, typer.Option("--estimate", help="Measure the time of trials unlike any finished one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which trials are finished and which will run.  Prepares the dataset, whose fingerprint is in each key.

    Example: [bold]splatsweep plan sweep.yaml --diff[/]

    Example: [bold]splatsweep plan sweep.yaml --json | jq '.trials[].key'[/]
    """
    from sweep.file.load import load_sweep
    from sweep.plan.drawing import drawing_as_json, drawing_lines, undrawable
    from sweep.plan.estimate import estimate, measure
    from sweep.plan.plan_diff import beginnings, reasons, repeated, why_table
    from sweep.plan.planner import make_plan, plan_table

    home = home.absolute()
    checked = load_sweep(sweep, settings or [])
    planned = make_plan(checked, home, progress=say)
    continued = beginnings(planned, home)
    expected = estimate(planned, home, checked.run, measure(home, checked.run, say) if probe else None, continued)
    why = reasons(planned, home, continued) if diff else {}
    cannot = undrawable(((trial.name, trial.config) for trial in planned.trials), checked.run)
    if as_json:
        more = {key: {"why": reason.as_json()} for key, reason in why.items()}
        print(planned.to_json(more, estimate=expected.as_json(), rasterizers=drawing_as_json(cannot)), end="")
        return
    console.print(why_table(planned, why) if diff else plan_table(planned))
    console.print(f"{expected}")
    for line in repeated(planned, home):
        console.print(line, markup=False)
    going_on = sum(not beginning.obstacle for beginning in continued.values())
    if going_on:
        console.print(f"{going_on} of them continue finished trainings, which --diff names.")
    if going_on < len(continued):
        stuck = len(continued) - going_on
        console.print(f"{stuck} train anew although a finished training is their beginning; --diff says why.")
    if planned.search is not None and planned.search.proposed < planned.search.wanted:
        console.print("Future proposals of the search are not included.")
    for line in drawing_lines(cannot, checked.run):
        console.print(Text(line))
    for reason in planned.missing:
        console.print(Text.assemble(("missing", "magenta"), f" {completed(reason)}"))


def run(
    sweep: SweepFile,
    home: Home = DEFAULT_HOME,
    executor: Annotated[
        str | None, typer.Option(help=f"{' or '.join(EXECUTORS)}; overrides run.executor.", show_default=False)
    ] = None,
    settings: Settings = None,
    only: Only = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also run failed trials again.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="When a trial fails, stop the others; each writes a checkpoint at once.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take over the sweep's name from another file in this home.")
    ] = False,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="A shell command to run at the end, with a message as its input and SPLATSWEEP_OUTCOME set.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the missing trials, then write the report.  After a crash, run it again: it resumes where it stopped.

    Example: [bold]splatsweep run sweep.yaml --executor inline --only 'baseline*'[/]
    """
    from model.registry import UnknownChoiceError
    from sweep.file.load import load_sweep
    from sweep.run.driver import run_sweep
    from sweep.run.notify import notified
    from sweep.run.submit import lost_home_warning

    if executor is not None and executor not in EXECUTORS:
        raise UnknownChoiceError("--executor", executor, EXECUTORS)
    home = home.absolute()
    warning = lost_home_warning(home)
    if warning is not None:
        console.print(warning, style="yellow")
    checked = load_sweep(sweep, [*(settings or []), *([f"run.executor={executor}"] if executor is not None else [])])
    with notified(notify, checked.name) as notify_of:
        outcome = run_sweep(
            checked,
            home,
            console=console,
            only=only or (),
            retry_failed=retry_failed,
            fail_fast=fail_fast,
            take_over=take_over,
        )
        notify_of(outcome)
    conclude(outcome, checked, home)


def conclude(outcome: Outcome, checked: Sweep, home: Path) -> NoReturn:
    """Prints the outcome of running a sweep, and exits with its code."""
    for trial in outcome.failed:
        _explain_failure(checked, home, trial)
    if outcome.tracking_error:
        console.print(Text.assemble(("MLflow is incomplete", "yellow"), f" ({outcome.tracking_error})."))
        again = f"{command('sync', checked, home)} && {command('report', checked, home)}"
        console.print(f"Nothing is lost; once the store is available again: {again}")
    if outcome.report is not None:
        console.print(f"Report: {outcome.report}")
    if outcome.unfinished:
        is_pruned = any(trial.status == "pruned" for trial in outcome.unfinished)
        cause = outcome.stop.reason if outcome.stop else "pruned by another sweep's search" if is_pruned else None
        reason = f" ({cause})" if cause else ""
        console.print(
            f"Stopped with {counted(len(outcome.unfinished), 'trial')} unfinished{reason}; the same command goes on."
        )
    elif outcome.unsearched and outcome.stop:
        console.print(f"Stopped ({outcome.stop.reason}); the same command continues the search.")
    raise typer.Exit(outcome.exit_code)


def status(
    sweep: SweepFile,
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
    watch: Annotated[bool, typer.Option("--watch", help="Update until the sweep is no longer being run.")] = False,
) -> None:
    """Show the state of the trials of the last planned run, and why trials failed.

    Example: [bold]splatsweep status sweep.yaml --watch[/]
    """
    from rich.live import Live

    from sweep.run.driver_lock import is_driven
    from sweep.run.status import SweepStatus

    home = home.absolute()
    checked = planned_sweep(sweep, settings, home)
    look = SweepStatus(checked, home)
    shown = look()
    if watch:
        with Live(shown.view(console), console=console) as live:
            # Between trials, and while controls run or Ray starts, the driver alone shows that the sweep goes on.
            while shown.is_running or is_driven(checked.name, home):
                time.sleep(1)
                shown = look()
                live.update(shown.view(console))
    else:
        console.print(shown.view(console))
    for line in shown.remarks:
        console.print(line)


def report(
    sweep: SweepFile,
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder to write; default: in the home.", show_default=False, parser=user_path
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Report an earlier plan, given by the beginning of its time.", show_default=False
        ),
    ] = None,
) -> None:
    """Write tables, figures and the HTML page from the finished trials.  A report replaces its folder.

    Example: [bold]splatsweep report sweep.yaml --out paper/tables[/]

    Example: [bold]splatsweep report sweep.yaml --plan 2026-11-26 --out before[/]
    """
    from results.records.frozen_plans import earlier_plans
    from results.report import build_report

    home = home.absolute()
    with recorded_sweep(sweep, settings, home) as checked:
        path = build_report(checked, home, out, checked.tables, plan, notes=checked.notes, labels=checked.tags)
        console.print(f"Report: {path}")
        if plan is None and (earlier := earlier_plans(checked.name, home)):
            console.print(f"Earlier plans, for --plan: {', '.join(earlier)}")


def sync(sweep: SweepFile, home: Home = DEFAULT_HOME, settings: Settings = None) -> None:
    """Replay the trials' journals into MLflow, after its store was down or lost.

    Example: [bold]splatsweep sync sweep.yaml[/]
    """
    from sweep.file.load import load_sweep
    from sweep.run.recording import other_experiments, sync_sweep

    checked, home = load_sweep(sweep, settings or [], configurations=False), home.absolute()
    begun, planned = sync_sweep(checked, home)
    console.print(
        f"{begun} of {planned} trials are in MLflow" + ("" if begun == planned else "; the others have not begun")
    )
    for name, count in other_experiments(checked, home).items():
        console.print(f"{count} of them stay in the experiment {name!r}, where they were first recorded")


def _explain_failure(sweep: Sweep, home: Path, trial: PlannedTrial) -> None:
    """Prints why a trial failed: its error, the end of its log, and the command to run it again."""
    from results.records.home import trial_folder
    from results.records.journal import read_events
    from results.records.trial_folder import LOG_FILENAME

    folder = trial_folder(home, trial.key)
    errors = [event["error"] for event in read_events(folder) if event["event"] == "failed"]
    reason = errors[-1] if errors else "no reason is recorded"
    console.print(Text.assemble((f"{trial.label} failed", "red"), f": {reason}"))
    log = folder / LOG_FILENAME
    for line in log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []:
        console.print(f"    {line}", style="dim")
    console.print(f"  log: {log}")
    only = [] if trial.control else [f"--only={trial.name}"]  # --only selects trained rows
    console.print(f"  again: {command('run', sweep, home, *only, '--retry-failed')}")
