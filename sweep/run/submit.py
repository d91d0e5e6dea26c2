"""A sweep as a Ray job: the code and the sweep file are sent to a cluster, and its driver runs there.

What is sent is this very code, so that what runs on the cluster is what was tried here; the libraries have to be
there already, in the image or environment of its nodes.  The home has to be a folder that outlives the job, on the
node of its driver at least.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

#: What a job runs of ours, and which files of it.
_PACKAGES = ("sweep", "model", "jobs", "results")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")

#: Ray keeps uploads in the memory of the head node, and refuses larger ones.
UPLOAD_LIMIT_MIB = 100

#: Set by Ray for the driver of a job, whose working directory is a copy that Ray deletes.
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"

#: What a head node says that has just been started, and how long it is given.
_STARTING = "No available agent"
_PATIENCE_S = 60.0


class SubmitError(RuntimeError):
    """A cluster that cannot be reached or refuses, or a job too large to send."""


def submit_job(sweep: Path, address: str, home: Path, options: Sequence[str], environment: Mapping[str, str]) -> str:
    """Send a sweep file to the cluster whose job server is at `address`, http://HOST:8265, and start its driver.

    home: an absolute folder there; options: further ones of `splatsweep run`;
    environment: variables for driver and trials.  Returns the job's name.  Raises `SubmitError`.
    """
    command = ["python", "-c", "from sweep.cli import main; main()", "run", sweep.name, "--home", str(home), *options]
    with tempfile.TemporaryDirectory(prefix="splatsweep-job-") as folder:
        stage(sweep, Path(folder))
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


def stage(sweep: Path, folder: Path) -> None:
    """Put what a job needs into `folder`: the sweep file with the YAML files beside it, and our packages.

    The files beside it are those that it may extend or take tables from.
    Raises `SubmitError` where that is more than a cluster takes.
    """
    for path in {sweep, *sweep.absolute().parent.glob("*.yaml")}:
        shutil.copy(path, folder)
    for package in _PACKAGES:
        shutil.copytree(Path(str(import_module(package).__file__)).parent, folder / package, ignore=_LEFT_OUT)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    if size > UPLOAD_LIMIT_MIB:
        raise SubmitError(f"the job is {size:.0f} MiB large; at most {UPLOAD_LIMIT_MIB} MiB can be sent")


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

    For a job that ended without one, returns 130 if it was stopped and 2 if its node was lost.
    """
    client = _client(address)

    async def tail() -> None:
        async for text in client.tail_job_logs(name):
            write(text)

    asyncio.run(tail())
    details = client.get_job_info(name)
    if details.driver_exit_code is not None:
        return int(details.driver_exit_code)
    return {"SUCCEEDED": 0, "STOPPED": 130}.get(str(details.status.value), 2)


def _client(address: str):  # type: ignore[no-untyped-def]  # Ray is imported only when a sweep is sent
    """A client of the cluster's job server; it takes the token from Ray's own variables or file."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise SubmitError(
            f"{address} asks for another token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SubmitError(f"no job server answers at {address}: {error}") from error
