"""Archives: complete records of ended trials, thinned journals, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from results.records.archive import archive
from results.records.atomic import write_json
from results.records.damage import read_object
from results.records.frozen_plans import earlier_plans, freeze, read_plan
from results.records.home import sweep_file, training_folder, trial_folder
from results.records.journal import Journal, read_events
from results.records.monitor import Monitor
from results.records.plan import Plan, PlannedTrial
from tests.homes import write_result

SWEEP = "study"


def _trial(name: str, training: str | None) -> PlannedTrial:
    return PlannedTrial(name, (name,), 0, {"seed": 0}, "pending", training=training)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a finished, a failed and a running trial."""
    home = tmp_path / "home"
    trials = tuple(_trial(name, f"training-{name}") for name in ("finished", "failed", "running"))
    freeze(Plan(SWEEP, "2026-03-01T12:00:00+00:00", trials, ()), home)
    for trial in trials:
        for folder in (trial_folder(home, trial.key), training_folder(home, trial.training)):
            with Journal(folder) as journal:
                journal.start(0)
                for step in range(1, 1001):
                    journal.metrics(step, {"train/loss": 1.0 / step})
                    if step % 500 == 0:
                        journal.metrics(step, {"val/psnr": 20.0})
            (folder / "config.json").write_text("{}")
            (folder / "lock").touch()
        (training_folder(home, trial.training) / "weights.safetensors").write_bytes(bytes(1000))
    write_result(trial_folder(home, "finished"))
    with Journal(trial_folder(home, "failed")) as journal:
        journal.failed("NonFiniteError: loss")
    return home


def test_ended_trials_keep_their_states_and_all_that_scores_stand_on(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = archive(SWEEP, home, out)
    assert (found.trials, found.left) == (2, 1)
    states = {trial.key: trial.status for trial in read_plan(SWEEP, out).refreshed(Monitor(out)).trials}
    assert states == {"finished": "finished", "failed": "failed", "running": "pending"}
    names = {path.name for path in out.rglob("*") if path.is_file()}
    assert names == {"plan.json", "journal.jsonl", "config.json", "result.json", "per_object.parquet"}
    assert found.size == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def test_a_journal_keeps_its_events_scores_and_last_loss(home: Path, tmp_path: Path) -> None:
    archive(SWEEP, home, tmp_path / "out", points=10)
    events = list(read_events(trial_folder(tmp_path / "out", "failed")))
    losses = [event["step"] for event in events if "train/loss" in event.get("values", {})]
    assert losses == list(range(100, 1001, 100))
    assert [event["step"] for event in events if "val/psnr" in event.get("values", {})] == [500, 1000]
    assert [event["event"] for event in events if event["event"] != "metrics"] == ["start", "failed"]


def test_a_journal_shorter_than_the_limit_is_copied_byte_for_byte(home: Path, tmp_path: Path) -> None:
    archive(SWEEP, home, tmp_path / "out", points=5000)
    ours, theirs = (trial_folder(each, "finished") / "journal.jsonl" for each in (tmp_path / "out", home))
    assert ours.read_bytes() == theirs.read_bytes()


def test_archiving_again_adds_what_has_ended_since(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    archive(SWEEP, home, out)
    with Journal(trial_folder(home, "running")) as journal:
        journal.failed("NonFiniteError: loss")
    assert archive(SWEEP, home, out).trials == 3
    assert trial_folder(out, "running").is_dir()


def test_a_sweep_of_the_same_name_stays_as_an_earlier_plan(home: Path, tmp_path: Path) -> None:
    out, colleague = tmp_path / "out", tmp_path / "colleague"
    archive(SWEEP, home, out)
    freeze(Plan(SWEEP, "2026-03-02T12:00:00+00:00", (_trial("other", None),), ()), colleague)
    archive(SWEEP, colleague, out)
    (former,) = earlier_plans(SWEEP, out)
    assert [trial.key for trial in read_plan(SWEEP, out, former).trials] == ["finished", "failed", "running"]


def test_the_home_itself_is_refused(home: Path) -> None:
    with pytest.raises(ValueError, match="is the home itself"):
        archive(SWEEP, home, home)


def test_costs_and_the_sweep_file_come_along_without_this_machines_paths(home: Path, tmp_path: Path) -> None:
    write_json(trial_folder(home, "finished") / "costs.json", {"parameters": 7})
    write_json(
        sweep_file(home, SWEEP), {"file": "host:/secret/study.yaml", "planned": "now", "content": {"seeds": [0]}}
    )
    out = tmp_path / "out"
    found = archive(SWEEP, home, out)
    assert (trial_folder(out, "finished") / "costs.json").exists()
    assert read_object(sweep_file(out, SWEEP)) == {"file": None, "planned": "now", "content": {"seeds": [0]}}
    assert found.size == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def test_the_plan_of_an_archive_has_the_states_of_its_trials(home: Path, tmp_path: Path) -> None:
    freeze(read_plan(SWEEP, home).refreshed(Monitor(home)), home)
    archive(SWEEP, home, tmp_path / "out")
    states = {trial.key: trial.status for trial in read_plan(SWEEP, tmp_path / "out").trials}
    assert states == {"finished": "finished", "failed": "failed", "running": "pending"}
