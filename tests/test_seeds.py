"""Seeds that are added until rows are decided, on real trainings: whatever ran them, the decisions are the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Home, finish, run, start, tiny_sweep, wait_for_middle

RULE = """
seeds: {at_least: 2, at_most: 3, until: decided}
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, weights) -> Path:  # noqa: ARG001 - the commands find the weights by their variable
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(tiny_sweep(120) + RULE)
    return path


def state(home: Path) -> dict[str, Any]:
    return json.loads((home / "sweeps" / "tiny" / "plan.json").read_text())["seeds"]


def test_a_killed_sweep_resumes_to_the_same_decisions(sweep, prepared_home, tmp_path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for home in (undisturbed, killed):
        shutil.copytree(prepared_home, home)
    assert "2 to 3 seeds a row" in run("plan", sweep, home=undisturbed)
    output = run("run", sweep, "--executor", "inline", home=undisturbed)
    (ruling,) = state(undisturbed)["rulings"]
    assert ruling["state"] != "open"
    assert f"tv after {ruling['seeds']} seeds: " in output
    report = (undisturbed / "reports" / "tiny" / "seeds.md").read_text()
    assert "| tv" in report
    assert "family-wise error" in (undisturbed / "reports" / "tiny" / "index.html").read_text()

    driver = start("run", sweep, "--executor", "inline", home=killed)
    wait_for_middle(Home(killed), driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    finish(start("run", sweep, "--executor", "ray", home=killed))
    assert state(killed) == state(undisturbed)
    assert Home(killed).trials().keys() == Home(undisturbed).trials().keys()
    for name in Home(killed).trials():
        assert Home(killed).measured(name) == Home(undisturbed).measured(name)
    assert "Nothing to train" in run("run", sweep, "--executor", "inline", home=killed)
