"""A small sweep on real processes, for tests that interrupt and kill its processes or cut its connections.

The processes are forked from a server that has imported the packages: each starts seconds sooner.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from results.records.journal import read_events

_SWEEP = """
name: tiny
base:
  data: {name: chairs, resolution: 16, options: {train: 6, val: 2, test: 3, views: 5, image_size: 16}}
  model: {base_dim: 8, channel_mult: [1, 2], attention_resolutions: [8]}
  train:
    batch_size: 2
    stages: [{iterations: ITERATIONS, lr: 1.0e-3, losses: {l2: 1.0}}]
  eval: {metrics: [psnr, ssim]}
trials:
  baseline: {}
  tv: {train.stages.*.losses.tv: 0.01}
run: {log_every: 5, checkpoint_every: 20}
"""
CHECKPOINT_EVERY = 20

#: Seconds until a test fails; steps that take ten on an idle machine may take minutes on a busy one.
PATIENCE_S = 600.0

#: Iterations of trials that take one to three seconds, long enough for a test to interrupt them.
LONG = 160

#: Variables of this process; in the server, those that it was started with.
_VARIABLES = frozenset(os.environ)
#: Consoles read it when they are made.
_COLUMNS = {"COLUMNS": "200"}

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        __name__,
        "jobs.tracking",
        "jobs.trial",
        "matplotlib.backends.backend_pdf",
        "matplotlib.backends.backend_svg",
        "results.report",
        "sweep.cli",
        "sweep.run.driver",
        "sweep.run.executors.ray.tune",
    ]
)


class Command:
    """A running `splatsweep`, forked from the server; like a `subprocess.Popen` whose output is text."""

    def __init__(self, arguments: Sequence[str], home: Path, environment: dict[str, str]) -> None:
        self._output = tempfile.NamedTemporaryFile("r")  # noqa: SIM115 - read when the command has ended
        self._process = _server.Process(target=_main, args=(arguments, home, environment, self._output.name))
        with mock.patch.dict(os.environ, _COLUMNS):  # for the server, which the first command starts
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("splatsweep", timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Its output, once it has ended."""
        self.wait(timeout)
        return Path(self._output.name).read_text(), None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _main(arguments: Sequence[str], home: Path, environment: dict[str, str], output: str) -> None:
    """The forked process: becomes `splatsweep ARGUMENTS` in a group of its own."""
    os.setsid()
    os.chdir(home)
    for name in _VARIABLES - environment.keys():
        os.environ.pop(name, None)
    os.environ.update(environment)  # what modules set when they were imported stays
    with Path(output).open("w") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    sys.argv = ["splatsweep", *arguments]
    from sweep.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()


def tiny_sweep(iterations: int = 100) -> str:
    """A sweep of two trials of about 150 iterations per second, with a checkpoint every `CHECKPOINT_EVERY`."""
    return _SWEEP.replace("ITERATIONS", str(iterations))


_started: list[Command | subprocess.Popen[str]] = []


def start(
    *arguments: str | Path, home: Path, from_shell: bool = False, **environment: str
) -> Command | subprocess.Popen[str]:
    """Starts `splatsweep ARGUMENTS` on a home, in its own process group.

    With variables of its own it is not forked, but starts as from a shell: packages read theirs when they are imported.
    """
    words = [str(argument) for argument in arguments]
    variables = {**os.environ, "SPLATSWEEP_HOME": str(home), **_COLUMNS}
    process: Command | subprocess.Popen[str]
    if from_shell or environment:
        process = subprocess.Popen(
            [sys.executable, "-c", "from sweep.cli import main; main()", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**variables, **environment},
            cwd=home,
            start_new_session=True,
        )
    else:
        process = Command(words, home, variables)
    _started.append(process)
    return process


def end_leftovers() -> None:
    """Kills the processes that a failed test left running, which would slow down all later tests."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finish(process: Command | subprocess.Popen[str], code: int = 0) -> str:
    """Waits for a command; returns its output, and asserts that this has no traceback."""
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def run(*arguments: str | Path, home: Path, code: int = 0, from_shell: bool = False, **environment: str) -> str:
    """Runs `splatsweep ARGUMENTS` to its end, as `start` does; returns its output."""
    return finish(start(*arguments, home=home, from_shell=from_shell, **environment), code)


def free_port() -> int:
    """An unused port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Waits until `condition` is true, and returns its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about in {seconds:.0f} s")


@dataclass(frozen=True)
class Home:
    """The content of a home during or after a run of `SWEEP` in it."""

    path: Path

    def trials(self) -> dict[str, dict[str, Any]]:
        """The frozen plan's trials by name, controls among them."""
        plan = json.loads((self.path / "sweeps" / "tiny" / "plan.json").read_text())
        return {trial["name"]: trial for trial in plan["trials"] + plan["controls"]}

    def folder(self, name: str) -> Path:
        """The folder of one trial."""
        return self.path / "trials" / str(self.trials()[name]["key"])

    def training(self, name: str) -> Path:
        """The folder of the training that one trial evaluates."""
        return self.path / "trainings" / str(self.trials()[name]["training"])

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        """The events of one kind in one trial's journal."""
        return [event for event in read_events(self.folder(name)) if event["event"] == kind]

    def measured(self, name: str) -> dict[tuple[int, str], float]:
        """All metrics of a trial except times; asserts that values measured twice are equal."""
        values: dict[tuple[int, str], float] = {}
        for event in self.events(name, "metrics"):
            for metric, value in event["values"].items():
                if not metric.startswith("time/"):
                    assert values.setdefault((event["step"], metric), value) == value
        return values

    def in_the_middle(self, place: Path | None = None) -> dict[str, Any] | None:
        """The last `start` event of a trial with a checkpoint and over half of its iterations left; else None.

        place: the home that the trials work in; this one where it is None.
        """
        planned = (self.path / "sweeps" / "tiny" / "plan.json").exists()
        place = place or self.path
        for trial in self.trials().values() if planned else ():
            events = list(read_events(place / "trials" / str(trial["key"])))
            reached = max((event["step"] for event in events if event["event"] == "metrics"), default=0)
            iterations = sum(stage["iterations"] for stage in trial["config"].get("train", {}).get("stages", ()))
            training = place / "trainings" / str(trial["training"])
            if reached < iterations / 2 and any(training.glob("checkpoints/*.json")):
                return next(event for event in reversed(events) if event["event"] == "start")
        return None

    def retrained(self, name: str) -> list[int]:
        """The number of iterations that a trial repeated, for each time it was resumed."""
        repeated, reached = [], 0
        for event in read_events(self.folder(name)):
            if event["event"] == "metrics":
                reached = max(reached, event["step"])
            elif event["event"] == "start" and reached:
                repeated.append(reached - event["step"])
        return repeated


def wait_for_middle(
    home: Home, driver: Command | subprocess.Popen[str], places: Sequence[Path | None] = (None,)
) -> dict[str, Any]:
    """The first result of `Home.in_the_middle`, at one of the places, while the driver runs."""

    def owner() -> dict[str, Any] | None:
        assert driver.poll() is None, f"the driver ended first: {driver.communicate()[0]}"
        return next(filter(None, map(home.in_the_middle, places)), None)

    return wait_for(owner, "a trial in its middle")
