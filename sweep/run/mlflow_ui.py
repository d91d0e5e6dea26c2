"""Serves the MLflow UI on the loopback interface, without its log on the terminal."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from results.address import UI_HOST, default_uri, experiment_page, reason, sqlite_path, sqlite_uri
from results.invocation import home_command
from results.own_store import adopt_store
from results.sqlite_file import copy_to, may_write
from results.store_errors import store_problem

#: the command that serves MLflow's UI, without its options
SERVER = (sys.executable, "-m", "mlflow", "ui")
_PATIENCE_S = 120.0
_ENDING = (signal.SIGTERM, signal.SIGHUP)
#: A proxy of the environment cannot reach the loopback interface of this machine.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class UiError(RuntimeError):
    """The UI cannot be served."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt once, so that contexts inside clean up.

    SIGHUP, which a closed terminal sends, stays ignored under `nohup`.
    """
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def writable_store(uri: str, home: Path, say: Callable[[str], None]) -> Iterator[str]:
    """The address of a store that MLflow's server may write, as it must: `uri`, or that of a copy.

    In the home's own store, paths of artifacts to a former place of the home are updated.  Raises `UiError`.
    """
    path = None if (found := sqlite_path(uri)) is None else Path(found)
    with ExitStack() as stack:
        shown = uri
        try:
            if path is not None and not may_write(path):
                copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="splatsweep-"))) / path.name
                copy_to(copy, path, _PATIENCE_S)
                say(f"{path} may not be written, so a copy of it is shown; what is changed there is lost.")
                path, shown = copy, sqlite_uri(copy)
            if uri == default_uri(home):
                adopt_store(home, path)
        except sqlite3.Error as error:
            raise UiError(store_problem(uri, error, "written", home_command(home, "ui"))) from error
        yield shown


def serve(uri: str, port: int, experiment: str | None, say: Callable[[str], None], opens: bool) -> None:
    """Serves a store until KeyboardInterrupt; prints the page of an experiment (by name), and `opens` it in a browser.

    Raises `UiError` where the port is taken or the server ends by itself.
    """
    _refuse_taken(port)
    say("Starting MLflow's UI; this takes some seconds.")
    with tempfile.TemporaryFile() as output, _server(uri, port, output) as server:
        local = f"http://{UI_HOST}:{port}"
        if problem := wait_until_healthy(server, local):
            raise UiError(f"MLflow's UI {problem}: {_end_of(output)}")
        address = experiment_page(local, _experiment_id(uri, experiment))
        say(f"MLflow: {address}")
        say("Ctrl-C ends it.")
        if opens:
            webbrowser.open(address)
        try:
            server.wait()
        except KeyboardInterrupt:
            return
        raise UiError(f"MLflow's UI ended by itself: {_end_of(output)}")


@contextmanager
def _server(uri: str, port: int, output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server in a process group of its own, which ends with this context."""
    command = [*SERVER, "--host", UI_HOST, "--port", str(port), "--workers", "1"]
    # The address stands in the environment, since other users can read a process's arguments.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _interrupt(*_: object) -> None:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)  # a second one would end the cleaning up
    raise KeyboardInterrupt


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((UI_HOST, port))
        except OSError as error:
            raise UiError(
                f"port {port} of {UI_HOST} cannot be used ({error.strerror}); choose another with --port"
            ) from None


def wait_until_healthy(server: subprocess.Popen[bytes], uri: str) -> str | None:
    """Waits until an MLflow server of this machine answers at `uri`; returns the reason where it does not."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            return "does not start"
        with suppress(OSError), _DIRECTLY.open(f"{uri}/health", timeout=5):
            return None
        time.sleep(0.1)
    return f"did not answer within {_PATIENCE_S:.0f} s"


def _end_of(output: IO[bytes]) -> str:
    output.seek(0)
    printed = output.read().decode(errors="replace").strip()
    lines = printed.splitlines()
    if not lines:
        return "it printed nothing"
    cause = reason(RuntimeError(printed))  # the line of a database's error, else the first
    return cause if cause != lines[0] else lines[-1]


def _experiment_id(uri: str, name: str | None) -> str | None:
    """The number of the experiment that was created with a name; None where there is none."""
    if name is None:
        return None
    from mlflow import MlflowClient

    from jobs.mlflow_store import find_experiment

    found = find_experiment(MlflowClient(uri), name)
    return None if found is None else str(found.experiment_id)
