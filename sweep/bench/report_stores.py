"""The kinds of store that the benchmark `report` reads from."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sweep.bench.report_fill import Place, Size, fill
from sweep.run.mlflow_ui import wait_until_healthy

#: environment variable with the address of an empty database to fill, postgresql://...
DATABASE_VARIABLE = "SPLATSWEEP_BENCH_DATABASE"


@dataclass(frozen=True)
class Store:
    """A filled store, and the home that its runs are read from; without a uri, the store in the home."""

    name: str
    home: Path
    uri: str | None = None


@contextmanager
def filled_stores(folder: Path, size: Size) -> Iterator[list[Store]]:
    """One store of each kind with the same runs: SQLite, a database if its address is given, a tracking server."""
    stores = [Store("SQLite", folder / "sqlite")]
    fill(stores[0].home, size, Place.in_home(stores[0].home))
    address = os.environ.get(DATABASE_VARIABLE)
    if address:
        stores.append(Store(address.partition(":")[0], folder / "database", address))
        fill(stores[-1].home, size, Place.in_home(stores[-1].home, address))
    served = Place(f"sqlite:///{folder / 'server.db'}", folder / "served", "mlflow-artifacts:")
    stores.append(Store("server", folder / "server"))
    fill(stores[-1].home, size, served)
    with _server(served) as uri:
        yield [*stores[:-1], Store("server", stores[-1].home, uri)]


@contextmanager
def _server(place: Place) -> Iterator[str]:
    """A tracking server on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", place.database, "--artifacts-destination", str(place.artifacts)]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as server:
        uri = f"http://127.0.0.1:{port}"
        try:
            if problem := wait_until_healthy(server, uri):
                raise RuntimeError(f"MLflow's server {problem}")
            yield uri
        finally:
            server.terminate()
