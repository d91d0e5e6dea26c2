"""`splatsweep clean` lists by default, removes with --yes, and what it removed is in no report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.tracking import TrackedTrial, Tracker
from results.errors import ResultsError
from results.load import load_trials
from results.records import tags
from results.records.frozen_plans import freeze
from results.records.home import database_file, trial_folder
from results.records.journal import Journal
from results.records.plan import Plan, PlannedTrial
from sweep.cli import app
from sweep.file.load import load_sweep
from tests.homes import finish

SWEEP = "name: first\nbase: {data: {name: chairs}}\ntrials: {ours: {}, broken: {}}\nseeds: [0]\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    config = {"data": {"name": "chairs"}}
    trials = tuple(PlannedTrial(key, (name,), 0, config, "failed") for key, name in (("aa", "ours"), ("bb", "broken")))
    freeze(Plan("first", "now", trials, ()), home)
    for key in ("aa", "cc"):
        finish(home, key, novel_psnr=14.0)
    with Journal(trial_folder(home, "bb")) as journal:
        journal.start(0)
        journal.failed("ValueError: no")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return home


def clean(home: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["clean", *arguments, "--home", str(home)], env={"COLUMNS": "80"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_it_lists_and_removes_nothing_by_default(home: Path) -> None:
    text = clean(home)
    assert "trials: trials that no plan has: 1" in text
    assert "trials/cc" in text
    assert "failed trials, and trainings that only they started: 1" in text
    assert "Nothing was removed" in text
    assert trial_folder(home, "cc").is_dir()
    assert trial_folder(home, "bb").is_dir()


def test_only_the_named_kinds(home: Path) -> None:
    text = clean(home, "trials", "--yes")
    assert f"more; to list it: splatsweep clean --home {home}" in text, "the failed trial"
    assert not trial_folder(home, "cc").exists()
    assert trial_folder(home, "bb").is_dir()
    assert "There is nothing to remove." in clean(home, "trials")


def test_what_was_removed_is_in_no_report(home: Path) -> None:
    tracker = Tracker(home, None, "first")
    tracker.sync([TrackedTrial(key, key, {}, {tags.TRIAL: key}) for key in ("aa", "bb", "cc")])
    sweep = load_sweep(home.parent / "sweep.yaml", configurations=False)
    before = load_trials(sweep, home).set_index("trial")
    assert (before["state"]["broken"], before["note"]["broken"]) == ("failed", "ValueError: no")
    text = clean(home, "--yes")
    assert "Removed" in text
    assert "to list it" not in text, "nothing is left"
    after = load_trials(sweep, home).set_index("trial")
    assert (after["state"]["broken"], after["note"]["broken"]) == ("pending", "")
    assert not isinstance(after["run_id"]["broken"], str)
    assert after["run_id"]["ours"] == before["run_id"]["ours"]
    assert clean(home).rstrip().endswith("There is nothing to remove.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trails"], "'trails' is no kind of file; allowed: trials, failed,"),
        (["--yes", "--dry-run"], "give one of them"),
        (["--store", "mlruns"], "mlruns: not the address of an MLflow store"),
    ],
)
def test_mistakes(home: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clean(home, *arguments)


@pytest.mark.parametrize("store", ["damaged", "http://127.0.0.1:9", "postgresql://me:pw@127.0.0.1:9/mlflow"])
def test_a_store_that_cannot_be_written_is_named_and_nothing_is_removed(home: Path, store: str) -> None:
    if store == "damaged":
        database_file(home).write_text("garbage")
    options = [] if store == "damaged" else ["--store", store]
    with pytest.raises(ResultsError, match=r"no file was removed: the MLflow store .* cannot be written") as caught:
        clean(home, "--yes", *options)
    assert ":pw" not in str(caught.value)
    assert trial_folder(home, "cc").is_dir()


@pytest.mark.parametrize(
    "data", [None, "x", [1], -1.5, {"name": None}, {"name": [1]}, {"name": "chairs", "options": 3}]
)
def test_a_trial_whose_configuration_was_edited_by_hand_hides_nothing(tmp_path: Path, data: object) -> None:
    for key, content in (("a" * 16, {"data": data}), ("b" * 16, {"data": {"name": "chairs"}})):
        (tmp_path / "trials" / key).mkdir(parents=True)
        (tmp_path / "trials" / key / "config.json").write_text(json.dumps(content))
    (tmp_path / "data" / "chairs-1").mkdir(parents=True)
    (tmp_path / "data" / "chairs-1" / "manifest.json").write_text(json.dumps(data))
    result = CliRunner().invoke(app, ["clean", "--json", "--home", str(tmp_path)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    found = json.loads(result.stdout)
    assert {waste["key"] for waste in found["chosen"]} == {"a" * 16, "b" * 16}
    assert [waste["kept"] for waste in found["others"]] == ["it was imported from your own folder"]
