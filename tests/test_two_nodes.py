"""A sweep on a Ray cluster of several nodes goes on when one of them dies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import psutil
import pytest

from tests.processes import SWEEP, Home, finish, start, wait_for

TRIALS = ("baseline", "tv")


@pytest.fixture
def cluster(monkeypatch) -> Iterator:
    """A head node that runs no trials, and two nodes that run one each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


def kill_node_of(worker: int) -> None:
    """Kill the raylet above a worker and all that is below it, as when a machine goes off."""
    raylet = next(parent for parent in psutil.Process(worker).parents() if "raylet" in parent.name())
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()


def test_trials_of_a_node_that_dies_move_to_another(cluster, prepared_home, weights, tmp_path):  # noqa: ARG001
    home = Home(tmp_path / "home")
    shutil.copytree(prepared_home, home.path)
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(SWEEP)
    iterations = ("--set", "base.train.stages.0.iterations=800")
    driver = start("run", sweep, "--executor", "ray", *iterations, home=home.path, RAY_ADDRESS=cluster.address)
    try:
        owner = wait_for(lambda: home.in_the_middle(40, 300), "a trial in its middle")
        kill_node_of(owner["pid"])
        finish(driver)
    finally:
        if driver.poll() is None:
            os.killpg(driver.pid, 9)
    assert {home.trials()[name]["status"] for name in TRIALS} == {"finished"}
    (moved,) = [name for name in TRIALS if len(home.events(name, "start")) > 1]
    first, *_, last = home.events(moved, "start")
    assert first["pid"] == owner["pid"]
    assert last["step"] >= 20
    assert last["pid"] != first["pid"]
