"""Commands for a sweep on a cluster: submit it, and stop it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from results.invocation import command
from sweep.commands.common import DEFAULT_HOME, Home, Only, Settings, SweepFile, console


def submit(
    sweep: SweepFile,
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_API_SERVER_ADDRESS", metavar="URL", help="The cluster's job server.", show_default=False
        ),
    ],
    home: Home = DEFAULT_HOME,
    settings: Settings = None,
    only: Only = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Also run failed trials again.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="When a trial fails, stop the others; each writes a checkpoint at once.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take over the sweep's name from another file in this home.")
    ] = False,
    environment: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="A variable for the driver and trials.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Show the log until the sweep ends, and exit with its code.")] = True,
) -> None:
    """Run a sweep on a Ray cluster: sends this code and the sweep file as a job, and follows its log.

    The home is a folder on the cluster, preferably on storage that all nodes see: a node that does not see it needs its
    own datasets and weights.  A cluster with a token needs RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or
    RAY_AUTH_TOKEN_PATH.

    Example: [bold]splatsweep submit sweep.yaml --address http://head:8265 --home /shared/runs[/]
    """
    from jobs.environment import git_variable
    from sweep.file.load import load_sweep
    from sweep.run.frozen_file import FILE_VARIABLE, file_of
    from sweep.run.submit import follow_job, submit_job

    checked = load_sweep(sweep, settings or [])  # reports mistakes here rather than on the cluster
    options = [f"--only={each}" for each in only or ()]
    options += ["--retry-failed"] * retry_failed + ["--fail-fast"] * fail_fast + ["--take-over"] * take_over
    variables = {FILE_VARIABLE: str(file_of(checked))} | git_variable(Path(__file__).parent)
    variables |= dict(_variable(text) for text in environment or [])
    job = submit_job(sweep, address, home.absolute(), settings or [], options, variables)
    in_sight = home.is_dir()  # `stop` needs it
    stopping = command("stop", checked, home) if in_sight else f"ray job stop {job} --address {shlex.quote(address)}"
    console.print(f"Submitted as {job}; to stop it: {stopping}")
    if follow:
        raise typer.Exit(follow_job(job, address, lambda text: console.out(text, end="", highlight=False)))


def stop(sweep: SweepFile, home: Home = DEFAULT_HOME, settings: Settings = None) -> None:
    """Stop a running sweep: each trial writes a checkpoint at once.  `splatsweep run` resumes it.

    Works from every machine that sees the home.

    Example: [bold]splatsweep stop sweep.yaml[/]
    """
    from sweep.file.load import load_sweep
    from sweep.run.driver_lock import stop_sweep

    owner = stop_sweep(load_sweep(sweep, settings or [], configurations=False), home.absolute())
    console.print(f"Requested that {owner} stop its trials; each writes a checkpoint at once.")


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"--env {text!r}: give NAME=VALUE")
    return name, value
