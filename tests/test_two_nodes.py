"""A sweep on a Ray cluster of several nodes continues when one of them dies, whether or not they see the home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest

from sweep.run.executors.ray.trial_sync import INTERVAL_S
from tests.processes import LONG, Home, finish, free_port, start, tiny_sweep, wait_for, wait_for_middle

TRIALS = ("baseline", "tv")


@pytest.fixture
def cluster(monkeypatch) -> Iterator:
    """A head node that runs no trials."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, weights) -> Path:  # noqa: ARG001 - the commands find the weights by their variable
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(tiny_sweep(LONG))
    return path


@pytest.fixture
def home(prepared_home, tmp_path) -> Home:
    shutil.copytree(prepared_home, tmp_path / "home")
    return Home(tmp_path / "home")


def blindfold(folder: Path) -> Sequence[str]:
    """A command prefix that hides a folder's content; empty where mount namespaces are not available."""
    words = ["unshare", "--user", "--map-root-user", "--mount"]
    script = f"mount -t tmpfs none {folder} && exec"
    possible = shutil.which("unshare") and subprocess.run([*words, "sh", "-c", f"{script} true"], check=False)
    return [*words, "sh", "-c", f'{script} "$@"', "node"] if possible and not possible.returncode else []


@contextmanager
def node(address: str, ip: str, scratch: Path, before: Sequence[str]) -> Iterator[None]:
    """A Ray node for one trial at a time, with its own scratch folder."""
    ray = str(Path(sys.executable).with_name("ray"))
    command = [*before, ray, "start", "--address", address, "--num-cpus", "1", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", ip, "--dashboard-agent-listen-port", str(free_port())]
    environment = {**os.environ, "SPLATSWEEP_SCRATCH": str(scratch)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def alive(cluster) -> list:
    return [each for each in cluster.global_state.node_table() if each["Alive"]]


def kill_node_of(worker: int) -> None:
    """Kills a worker's raylet and all its descendants, as when a machine loses power."""
    raylet = next(parent for parent in psutil.Process(worker).parents() if "raylet" in parent.name())
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()


def slow_down_until_transferred(home: Home, driver, scratches: Sequence[Path]) -> None:
    """Suspends a trial in its middle again and again, until its files in the home are of its middle, too.

    At full speed it may end between two transfers.
    """
    trial = psutil.Process(wait_for_middle(home, driver, scratches)["pid"])
    while not home.in_the_middle():
        trial.suspend()
        assert any(map(home.in_the_middle, scratches)), "it went on to its second half"
        time.sleep(INTERVAL_S)  # its next transfer is due when it goes on
        trial.resume()
        time.sleep(0.05)


def run_and_kill_a_node(sweep: Path, home: Home, address: str, *options: str, scratches: Sequence[Path] = ()) -> None:
    """Runs the sweep, and kills the node of a trial midway; scratches: the homes that the trials work in, if others."""
    driver = start("run", sweep, "--executor", "ray", *options, home=home.path, RAY_ADDRESS=address)
    try:
        if scratches:
            slow_down_until_transferred(home, driver, scratches)
        owner = wait_for_middle(home, driver)
        kill_node_of(owner["pid"])
        finish(driver)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, 9)
    (moved,) = [name for name in TRIALS if len(home.events(name, "start")) > 1]
    first, *_, last = home.events(moved, "start")
    assert first["pid"] == owner["pid"]
    assert last["pid"] != first["pid"]
    assert last["step"] >= 20, "it did not go on from its checkpoint"


def assert_same(home: Home, undisturbed: Home) -> None:
    """Asserts that every trial ended with bit-identical results."""
    for name in TRIALS:
        assert home.trials()[name]["status"] == "finished"
        assert home.measured(name) == undisturbed.measured(name)
        ours, theirs = (pd.read_parquet(each.folder(name) / "per_object.parquet") for each in (home, undisturbed))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_trials_of_a_node_that_dies_move_to_another(cluster, sweep, home, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLATSWEEP_SCRATCH", str(tmp_path / "scratch"))
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    run_and_kill_a_node(sweep, home, cluster.address)
    assert_same(home, undisturbed)
    assert not (tmp_path / "scratch").exists(), "they see the home, and had to work there"


def test_trials_move_between_nodes_that_do_not_see_the_home(cluster, sweep, home, undisturbed, tmp_path):
    before = blindfold(home.path)
    scratches = [tmp_path / "a", tmp_path / "b"]
    with ExitStack() as nodes:
        for number, scratch in enumerate(scratches, start=2):
            # Each node has its own address, so that the driver attaches to the head.  They start one by one, since
            # their sockets lie in the same folder.
            nodes.enter_context(node(cluster.address, f"127.0.0.{number}", scratch, before))
            wait_for(lambda number=number: len(alive(cluster)) == number, "a node")
        options = [] if before else ["--set", "run.scratch=always"]
        run_and_kill_a_node(sweep, home, cluster.address, *options, scratches=scratches)
    assert_same(home, undisturbed)
    for name in TRIALS:
        files, theirs = (
            {str(path.relative_to(each.folder(name))) for path in each.folder(name).rglob("*") if path.is_file()}
            for each in (home, undisturbed)
        )
        assert files == theirs
    assert all(list(scratch.glob("data/chairs-*/manifest.json")) for scratch in scratches)
