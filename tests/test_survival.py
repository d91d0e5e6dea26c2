"""A sweep that is killed, stopped, terminated or out of disk space resumes, and ends like an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from results.address import default_uri
from tests.processes import CHECKPOINT_EVERY, LONG, PATIENCE_S, Home, finish, run, start, tiny_sweep, wait_for_middle

TRIALS = ("baseline", "tv", "blank", "copy_input")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, weights) -> Path:  # noqa: ARG001 - the commands find the weights by their variable
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(tiny_sweep(LONG))
    return path


@pytest.fixture
def here(prepared_home, tmp_path) -> Home:
    path = tmp_path / "home"
    shutil.copytree(prepared_home, path)
    return Home(path)


def assert_same(disturbed: Home, undisturbed: Home) -> None:
    """Asserts bit-identical results, and that no trial repeated more than the iterations after its last checkpoint."""
    for name in TRIALS:
        assert disturbed.trials()[name]["status"] == "finished"
        assert disturbed.measured(name) == undisturbed.measured(name)
        assert all(steps <= CHECKPOINT_EVERY for steps in disturbed.retrained(name))
    client = MlflowClient(default_uri(disturbed.path))
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`splatsweep.key` LIKE '%'")
    assert sorted(run.info.run_name for run in runs) == sorted(TRIALS)
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_killed_driver_is_succeeded_by_another(sweep, here, undisturbed):
    driver = start("run", sweep, "--executor", "ray", home=here.path)
    owner = wait_for_middle(here, driver)
    worker = psutil.Process(owner["pid"])
    raylet = next(parent for parent in worker.parents() if "raylet" in parent.name())
    worker.suspend()  # it may end its trial before it sees that the cluster is gone
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    psutil.wait_procs([raylet], timeout=PATIENCE_S)
    worker.resume()
    output = run("run", sweep, "--executor", "inline", home=here.path)
    assert f"Taking over from process {driver.pid} on " in output
    assert not psutil.pid_exists(owner["pid"])
    assert any(here.retrained(name) for name in TRIALS), "no trial was in its middle"
    assert_same(here, undisturbed)


def test_stop_ends_a_running_sweep(sweep, here):
    assert "nothing to stop" in run("stop", sweep, home=here.path, code=2)
    endless = ("--only", "baseline", "--set", "base.train.stages.0.iterations=1000000")
    driver = start("run", sweep, "--executor", "inline", *endless, home=here.path)
    wait_for_middle(here, driver)
    assert f"Requested that process {driver.pid} on " in run("stop", sweep, home=here.path)
    output = finish(driver, code=130)
    assert "Stopped with 1 trial unfinished (by `splatsweep stop`)" in output
    assert here.trials()["baseline"]["status"] == "interrupted"
    (stopped,) = here.events("baseline", "stopped")
    checkpoints = sorted(int(path.stem) for path in (here.training("baseline") / "checkpoints").glob("*.json"))
    assert stopped["reason"] == f"stopped after {checkpoints[-1]} of 1000000 iterations"


def test_fail_fast_leaves_the_others_for_later(sweep, here):
    burst = ["--set", "trials={burst: {train.stages.0.lr: 1.0e+30}, calm: {}}"]
    output = run("run", sweep, "--executor", "inline", "--fail-fast", *burst, home=here.path, code=1)
    assert "burst seed 0 failed" in output
    assert "Stopped with 1 trial unfinished" in output
    assert {name: here.trials()[name]["status"] for name in ("burst", "calm")} == {"burst": "failed", "calm": "pending"}


def fill(ballast: Path) -> None:
    """Writes to a file until the disk is full."""
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


@pytest.fixture
def small_disk(here, mount_disk) -> Path:
    """The trials' folder on a separate disk of 4 MB."""
    folder = here.path / "trials"
    folder.mkdir()
    mount_disk(folder, "4m")
    return folder


def test_full_disk_is_named_and_costs_nothing_once_there_is_room(sweep, here, undisturbed, small_disk):
    driver = start("run", sweep, "--executor", "inline", home=here.path)
    wait_for_middle(here, driver)
    ballast = small_disk / "ballast"
    fill(ballast)
    output = finish(driver, code=2)
    assert f"no space left to write {small_disk}" in output
    assert "make room" in output
    ballast.unlink()
    run("run", sweep, "--executor", "inline", home=here.path)
    assert_same(here, undisturbed)
