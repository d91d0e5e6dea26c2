"""`splatsweep trials`, and the ways in which all commands choose a trial."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.records.frozen_plans import freeze
from results.records.home import training_folder, trial_folder
from results.records.plan import Plan, PlannedTrial
from sweep.cli import app
from sweep.commands.trial_choice import chosen_network, chosen_trial
from tests.homes import finish

SWEEP = "name: first\nbase: {data: {name: chairs}}\ntrials: {ours: {}}\nseeds: [0, 1]\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    trials = tuple(PlannedTrial(f"aaaaaa{seed}", ("ours",), seed, {}, "pending") for seed in (0, 1))
    home = tmp_path / "home"
    freeze(Plan("first", "now", trials, ()), home)
    finish(home, "aaaaaa0", novel_psnr=14.0, novel_lpips=0.1)
    finish(home, "aaaaaa1", novel_psnr=15.0, novel_lpips=0.2)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return home


def trials(home: Path, *arguments: str, width: int = 80) -> str:
    result = CliRunner().invoke(app, ["trials", "--home", str(home), *arguments], env={"COLUMNS": str(width)})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_table_fits_a_terminal_and_shortens_keys_no_further_than_they_differ(home: Path) -> None:
    lines = trials(home).splitlines()
    assert lines[0].split() == ["key", "trial", "seed", "state", "novel_psnr", "size", "sweeps"]
    assert lines[1].split()[:5] == ["aaaaaa0", "ours", "0", "finished", "14.00"]
    assert lines[-1].startswith("2 trials, ")
    assert max(map(len, lines)) <= 80
    assert "…" not in trials(home, width=50)


def test_the_best_are_first_on_request(home: Path) -> None:
    for metric, best in (("novel_psnr", "15.00"), ("novel_lpips", "0.100")):
        assert trials(home, "--by-score", "--metric", metric).splitlines()[1].split()[4] == best


def test_json_has_everything(home: Path) -> None:
    found = json.loads(trials(home, "--json", "--sweep", "first"))["trials"]
    assert [(trial["key"], trial["state"], trial["sweeps"]) for trial in found] == [
        ("aaaaaa0", "finished", ["first"]),
        ("aaaaaa1", "finished", ["first"]),
    ]
    assert found[0]["scores"] == {"novel/psnr": 14.0, "novel/lpips": 0.1}


def test_scores_that_are_not_finite_are_words_in_json_and_never_the_best(home: Path) -> None:
    finish(home, "aaaaaa2", novel_psnr=math.nan, novel_lpips=math.inf)
    found = json.loads(trials(home, "--json"), parse_constant=pytest.fail)["trials"]
    assert found[2]["scores"] == {"novel/psnr": "nan", "novel/lpips": "inf"}
    assert trials(home, "--by-score").splitlines()[1].split()[4] == "15.00"


def test_a_metric_that_no_trial_has(home: Path) -> None:
    with pytest.raises(ValueError, match="no trial has it; they have: novel_lpips, novel_psnr"):
        trials(home, "--metric", "novel_fid")


def test_an_empty_home(tmp_path: Path) -> None:
    assert "No trials in" in trials(tmp_path)


def test_a_trial_by_its_row_and_seed_or_by_its_score(home: Path) -> None:
    file = home.parent / "sweep.yaml"
    assert chosen_trial(home, "ours", file, 1) == trial_folder(home, "aaaaaa1")
    assert chosen_trial(home, "ours", Path("first"), 0) == trial_folder(home, "aaaaaa0")
    assert chosen_trial(home, None, file, best="novel_lpips") == trial_folder(home, "aaaaaa0")


def test_a_network_of_a_checkpoint_is_named_as_such(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen_network(home, "aaaaaa1") == trial_folder(home, "aaaaaa1")
    assert capsys.readouterr().err == ""
    checkpoints = training_folder(home, "aaaaaa1") / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "000000010.safetensors").touch()
    assert chosen_network(home, "aaaaaa1") == trial_folder(home, "aaaaaa1")
    assert "trial aaaaaa1 is not finished: its network is that of its last checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ((None, None, None, None), "give TRIAL or --best METRIC"),
        (("ours", None, None, "novel_psnr"), "give TRIAL or --best METRIC, not both"),
        ((None, None, 1, "novel_psnr"), "--seed goes with TRIAL"),
        (("ours", Path("second"), None, None), "no such file, nor a sweep of .*; there are: first"),
    ],
)
def test_choices_that_contradict(home: Path, choice: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_trial(home, *choice)
