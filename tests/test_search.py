"""A search on real processes: a killed and resumed one makes the same proposals and results as an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient

from results.address import default_uri
from tests.processes import CHECKPOINT_EVERY, LONG, Home, finish, run, start, tiny_sweep, wait_for, wait_for_middle

PLANNED = ("baseline", "tv")
PROPOSED = ("search-0000", "search-0001", "search-0002")
SEARCH = """
search:
  space: {train.stages.0.losses.tv.weight: {low: 1.0e-4, high: 1.0, log: true}}
  trials: 3
tables: [search, auto]
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, weights) -> Path:  # noqa: ARG001 - the commands find the weights by their variable
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(tiny_sweep(LONG) + SEARCH)
    return path


@pytest.fixture(scope="module")
def searched(sweep, undisturbed, tmp_path_factory) -> Home:
    """The home after an undisturbed search, which found the planned trials finished."""
    path = tmp_path_factory.mktemp("searched") / "home"
    shutil.copytree(undisturbed.path, path)
    output = run("run", sweep, "--executor", "inline", home=path)
    assert "search: 0 of 3 configurations tried, 3 left (novel_psnr)" in output
    return Home(path)


def ledger(home: Home) -> str:
    return (home.path / "sweeps" / "tiny" / "search.jsonl").read_text()


def journals(home: Home) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in home.path.glob("trials/*/journal.jsonl")}


def test_proposals_follow_what_was_planned_and_the_report_shows_the_best(sweep, searched):
    assert tuple(searched.trials())[:5] == PLANNED + PROPOSED
    assert {trial["status"] for trial in searched.trials().values()} == {"finished"}
    report = (searched.path / "reports" / "tiny" / "search.md").read_text()
    assert all(name in report for name in PROPOSED)
    assert "3 of 3 configurations tried, 0 left" in run("plan", sweep, home=searched.path)
    assert "3 of 3 configurations tried, 0 left" in run("status", sweep, home=searched.path)


def test_a_killed_driver_is_succeeded_by_one_that_proposes_the_same(sweep, prepared_home, searched, tmp_path):
    here = Home(tmp_path / "home")
    shutil.copytree(prepared_home, here.path)
    driver = start("run", sweep, "--executor", "inline", home=here.path)

    def a_proposal_is_in_its_middle() -> bool:
        ledger_file = here.path / "sweeps" / "tiny" / "search.jsonl"
        assert driver.poll() is None, "the driver ended first"
        return ledger_file.exists() and "search-0001" in here.trials() and bool(here.in_the_middle())

    wait_for(a_proposal_is_in_its_middle, "a proposal in its middle")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = journals(here)
    run("run", sweep, "--executor", "ray", "--set", "run.max_concurrent=1", home=here.path)
    assert ledger(here) == ledger(searched)
    assert any(here.retrained(name) for name in PROPOSED), "no trial was in its middle"
    for name in PLANNED + PROPOSED:
        assert here.measured(name) == searched.measured(name)
        assert all(steps <= CHECKPOINT_EVERY for steps in here.retrained(name))
    finished_before = [key for key, content in before.items() if journals(here)[key] == content]
    assert len(finished_before) >= len(PLANNED)


def test_more_trials_extend_it_and_train_nothing_twice(sweep, searched, tmp_path):
    here = Home(tmp_path / "home")
    shutil.copytree(searched.path, here.path)
    before = journals(here)
    options = ("--set", "search.trials=5", "--set", "trials={baseline: {}}", "--executor", "ray")
    output = run("run", sweep, *options, home=here.path)
    assert "search: 3 of 5 configurations tried, 2 left" in output
    after = journals(here)
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 2
    assert ledger(here).startswith(ledger(searched))
    output = run("run", sweep, *options, home=here.path)
    assert "Nothing to train" in output
    assert journals(here) == after

    client = MlflowClient(default_uri(here.path))
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`splatsweep.key` LIKE '%'")
    numbers = {r.info.run_name: r.data.tags.get("splatsweep.search.number") for r in runs}
    assert {name: number for name, number in numbers.items() if number} == {
        f"search-{number:04}": str(number) for number in range(5)
    }
    (first,) = [r for r in runs if r.info.run_name == "search-0000"]
    assert 1e-4 <= float(first.data.params["train.stages.0.losses.tv"]) <= 1


def test_an_interrupted_search_reports_that(sweep, prepared_home, tmp_path):
    here = Home(tmp_path / "home")
    shutil.copytree(prepared_home, here.path)
    endless = ("--only", "search-*", "--set", "base.train.stages.0.iterations=1000000")
    driver = start("run", sweep, "--executor", "inline", *endless, home=here.path)
    wait_for_middle(here, driver)
    driver.send_signal(signal.SIGINT)
    output = finish(driver, code=130)
    assert "Stopped with 1 trial unfinished (by SIGINT)" in output
    assert here.trials()["search-0000"]["status"] == "interrupted"
    assert here.trials()["baseline"]["status"] == "pending"
    assert len(ledger(here).splitlines()) == 1
