"""Submits a sweep as a Ray job: sends the code and the sweep file to a cluster, where the driver runs.

The job runs exactly this code.  The libraries must already be in the image or environment of the cluster's nodes.  The
home must be a folder that outlives the job, at least on the driver's node.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from results.records.home import user_path
from results.tables import SUFFIXES
from sweep.file.inheritance import KEY as EXTENDS
from sweep.file.load import load_sweep
from sweep.file.schema import is_table_file
from sweep.file.yaml_reader import read_document

#: Our packages that a job contains, and the kinds of their files.
_PACKAGES = ("sweep", "model", "jobs", "results")
#: The kernels are compiled for the submitter's machine; the installation on the cluster has its own.
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "_native*.so")

#: Ray keeps uploads in the memory of the head node, and refuses larger ones.
UPLOAD_LIMIT_MIB = 100

#: An environment variable that Ray sets for a job's driver.  The job's working directory is a copy that Ray deletes.
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"

#: The error of a head node that has just started, and the seconds to wait for it.
_STARTING = "No available agent"
_PATIENCE_S = 60.0


class SubmitError(RuntimeError):
    """The cluster cannot be reached or rejects the job, or the job is too large to send."""


def submit_job(
    sweep: Path,
    address: str,
    home: Path,
    settings: Sequence[str],
    options: Sequence[str],
    environment: Mapping[str, str],
) -> str:
    """Sends a sweep file to the cluster whose job server is at `address`, http://HOST:8265, and starts its driver.

    home: an absolute folder on the cluster; settings: overrides of the sweep file; options: further options of
    `splatsweep run`; environment: variables for driver and trials.  Returns the job's name.  Raises `SubmitError`, and
    `SweepError` where the job lacks a file that the sweep file names.
    """
    command = ["python", "-c", "from sweep.cli import main; main()", "run", sweep.name, "--home", str(home)]
    command += [*(part for setting in settings for part in ("--set", setting)), *options]
    with tempfile.TemporaryDirectory(prefix="splatsweep-job-") as folder:
        stage(sweep, Path(folder), settings)
        client = _client(address)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return str(
                    client.submit_job(
                        entrypoint=shlex.join(command),
                        runtime_env={"working_dir": folder, "env_vars": dict(environment)},
                        metadata={"splatsweep.sweep": sweep.name},
                    )
                )
            except RuntimeError as error:
                if _STARTING not in str(error) or time.monotonic() > deadline:
                    raise SubmitError(f"{address} refused the job: {error}") from error
                time.sleep(1)


def stage(sweep: Path, folder: Path, settings: Sequence[str] = ()) -> None:
    """Copies a job's files into `folder`: the sweep file, the YAML files beside it, and our packages.

    The sweep file may extend the files beside it or use them as tables.  Raises `SweepError` where it names a file that
    is not there, and `SubmitError` where it names one that is elsewhere or the job is larger than a cluster accepts.
    """
    beside = (path for suffix in SUFFIXES for path in sweep.absolute().parent.glob(f"*{suffix}"))
    # An editor may keep a lock beside a file that is being edited: a link that leads nowhere.  Others may keep private
    # files there.
    readable = (path for path in beside if path.is_file() and os.access(path, os.R_OK))
    for path in {sweep, *_named(sweep, settings), *readable}:
        shutil.copy(path, folder)
    _named(folder / sweep.name, settings)  # an absolute name does not lead there
    for package in _PACKAGES:
        shutil.copytree(Path(str(import_module(package).__file__)).parent, folder / package, ignore=_LEFT_OUT)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    if size > UPLOAD_LIMIT_MIB:
        raise SubmitError(f"the job is {size:.0f} MiB large; at most {UPLOAD_LIMIT_MIB} MiB can be sent")


def _named(sweep: Path, settings: Sequence[str]) -> list[Path]:
    """The files that a sweep file extends or uses as tables.  Raises `SubmitError` where one is not beside it."""
    tables = load_sweep(sweep, settings, configurations=False).tables
    named = [*_extended(sweep), *(Path(table) for table in tables if is_table_file(table))]
    for path in named:
        if path.absolute().parent != sweep.absolute().parent:
            raise SubmitError(
                f"{path}: a job takes only the files beside {sweep.name} along; copy this one there, and name it "
                f"{path.name} in the file"
            )
    return named


def _extended(sweep: Path) -> Iterator[Path]:
    """The files that a valid sweep file extends, directly and through others."""
    while (name := read_document(sweep).value.get(EXTENDS)) is not None:
        sweep = sweep.parent / user_path(name)
        yield sweep


def lost_home_warning(home: Path) -> str | None:
    """A warning where plain `ray job submit` runs a sweep whose home is in a directory that Ray will delete."""
    if JOB_VARIABLE not in os.environ or not home.is_relative_to(Path.cwd()):
        return None
    return (
        f"{home} is in this job's copy of its working directory, which Ray deletes; to keep it all, name a folder "
        """outside of it:  --runtime-env-json '{"env_vars": {"SPLATSWEEP_HOME": "/shared/runs"}}'"""
    )


def follow_job(name: str, address: str, write: Callable[[str], None]) -> int:
    """Writes a job's log as it grows, until the job ends; returns the exit code of its driver.

    For a job that ended without one, returns 130 if it was stopped and 2 if its node was lost.  Raises `SubmitError`
    where the connection is lost, for instance by a proxy.  A keyboard interrupt ends the log, not the job, and says so.
    """
    import asyncio  # here, since commands that only look read this module

    from aiohttp import ClientError

    client, lost = _client(address), "the log ended before the job"

    async def tail() -> None:
        async for text in client.tail_job_logs(name):
            write(text)

    goes_on = f"it goes on while its cluster lives, see: ray job logs {name} --follow --address {shlex.quote(address)}"
    details = None
    try:
        asyncio.run(tail())
        details = client.get_job_info(name)
    except KeyboardInterrupt:
        write(f"\n{name} is no longer followed; {goes_on}\n")
        raise
    except (ClientError, OSError, RuntimeError) as error:
        lost = str(error) or type(error).__name__
    if details is None or not details.status.is_terminal():
        raise SubmitError(f"{name} is no longer followed ({lost}); {goes_on}")
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    return {"SUCCEEDED": 0, "STOPPED": 130}.get(str(details.status.value), 2)


def _client(address: str):  # type: ignore[no-untyped-def]  # Ray is imported only when a sweep is sent
    """A client of the cluster's job server; Ray reads the token from its own variables or file."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):  # Ray would take HOST:PORT for its control store's
        raise SubmitError(f"{address!r} is no address of a job server, such as http://head:8265")
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise SubmitError(
            f"{address} requires another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SubmitError(f"no job server answers at {address}: {error}") from error
