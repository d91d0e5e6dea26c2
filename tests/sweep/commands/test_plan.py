import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweep.cli import app


@pytest.fixture
def sweep(tmp_path: Path, tiny: Callable[..., dict[str, Any]]) -> Path:
    path = tmp_path / "sweep.yaml"
    content = {"name": "a", "base": tiny(), "trials": {"blank row": {"model.name": "blank"}, "small": {}}}
    path.write_text(json.dumps(content))
    return path


def _plan(sweep: Path, home: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["plan", str(sweep), "--home", str(home), *options], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_a_plan_shows_known_costs(sweep: Path, home: Path) -> None:
    assert "3 to run of unknown cost" in _plan(sweep, home)
    measured = json.loads(_plan(sweep, home, "--estimate", "--json"))["estimate"]
    assert measured["unknown_trials"] == 0
    assert measured["wall_s"] > 0
    assert measured["disk_bytes"] > 100_000


def test_a_plan_shows_why_trials_must_run(sweep: Path, home: Path) -> None:
    content = json.loads(_plan(sweep, home, "--diff", "--json"))
    assert [trial["why"]["kind"] for trial in content["trials"]] == ["new"]
    CliRunner().invoke(app, ["run", str(sweep), "--home", str(home), "--executor", "inline"], catch_exceptions=False)
    assert "nothing to run" in _plan(sweep, home, "--diff")
    changed = json.loads(_plan(sweep, home, "--diff", "--json", "--set", "base.train.batch_size=1"))
    [trial] = changed["trials"]
    assert trial["why"]["kind"] == "changed"
    assert trial["why"]["changes"] == [{"key": "train.batch_size", "before": 2, "after": 1}]
    seeded = json.loads(_plan(sweep, home, "--diff", "--json", "--set", "seeds=[0, 1]"))
    assert [trial.get("why", {}).get("kind") for trial in seeded["trials"]] == [None, "new"]
    assert seeded["estimate"]["unknown_trials"] == 0, "a seed more takes as long as the one before"


def test_a_plan_names_trainings_that_are_continued_and_explain_those_that_were(sweep: Path, home: Path) -> None:
    content = json.loads(sweep.read_text())
    content |= {"trials": {"small": {}}, "run": {"executor": "inline"}}
    for iterations in ([12], [12, 6]):
        stages = [{"iterations": n, "lr": 1e-3, "losses": {"l2": 1.0}} for n in iterations]
        content["base"]["train"]["stages"] = stages
        sweep.write_text(json.dumps(content))
        text = _plan(sweep, home)
        CliRunner().invoke(app, ["run", str(sweep), "--home", str(home)], catch_exceptions=False)
    assert "1 of them continue finished trainings, which --diff names." in text
    stages[0]["iterations"] = 13
    sweep.write_text(json.dumps(content))
    assert "1 train anew although a finished training is their beginning" in _plan(sweep, home)
    arguments = ["explain", "auto", "small", "novel_psnr", "--sweep", str(sweep), "--home", str(home)]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "continues: training" in shown
    assert "at iteration 12" in shown
