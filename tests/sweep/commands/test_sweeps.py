"""Commands on a sweep's file and its plan: `validate`, `status`, and the end of `run`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from filelock import FileLock
from typer.testing import CliRunner

from jobs.config import TrialConfig
from results.records.frozen_plans import freeze
from results.records.home import driver_lock_file, trial_folder
from results.records.journal import Journal
from results.records.plan import Plan, PlannedTrial
from sweep.cli import app
from sweep.commands.sweeps import conclude
from sweep.file.schema import Sweep
from sweep.run.driver import Outcome
from sweep.run.stop import Stop
from tests.homes import finish

SWEEP = "name: s\ntrials: {baseline: {}, same: {}, other: {train.batch_size: 4}}\nseeds: [0, 1]\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@contextmanager
def driven(home: Path) -> Iterator[FileLock]:
    """Holds the lock of the sweep's driver."""
    file = driver_lock_file(home, "s")
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file) as lock:
        yield lock


def test_equal_trials_count_once(file: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(file)])
    assert "valid, 4 trials (6 named, some of them equal)" in " ".join(result.output.split())


def test_watching_ends_with_the_driver_and_not_between_its_trials(
    file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = PlannedTrial("0123456789abcdef", ("baseline",), 0, {"seed": 0}, "pending")
    freeze(Plan("s", "2026-03-01T12:00:00+00:00", (trial,), ()), home)
    with driven(home) as lock:
        looks = iter([lambda: None, lock.release])
        monkeypatch.setattr("sweep.commands.sweeps.time", SimpleNamespace(sleep=lambda _: next(looks)()))
        result = CliRunner().invoke(app, ["status", str(file), "--home", str(home), "--watch"])
        assert not lock.is_locked, "it ended while the sweep was being run"
    assert result.exit_code == 0
    assert "baseline" in result.output


def test_watching_ends_where_the_machine_of_a_trial_has_failed(
    file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that cannot be asked leaves a journal that says `start` and nothing after it."""
    trial = PlannedTrial("0123456789abcdef", ("baseline",), 0, {"seed": 0}, "pending")
    freeze(Plan("s", "2026-03-01T12:00:00+00:00", (trial,), ()), home)
    folder = trial_folder(home, trial.key)
    folder.mkdir(parents=True)
    start = {"event": "start", "time": 0.0, "step": 0, "host": "node-7", "pid": 1, "created": 0.0}
    (folder / "journal.jsonl").write_text(json.dumps(start) + "\n")
    now = 60.0

    def sleep(_: float) -> None:
        nonlocal now
        assert now == 60, "it goes on"
        now += 3 * 3600

    monkeypatch.setattr("sweep.run.progress.time", SimpleNamespace(time=lambda: now))
    monkeypatch.setattr("sweep.commands.sweeps.time", SimpleNamespace(sleep=sleep))
    result = CliRunner().invoke(app, ["status", str(file), "--home", str(home), "--watch"])
    assert result.exit_code == 0
    assert now > 60, "it ended while the trial may still be running"
    assert "baseline runs on node-7, but has recorded nothing for 3 h 1 min" in " ".join(result.output.split())


def test_rows_without_training_count_as_they_do_while_the_sweep_runs(file: Path, home: Path) -> None:
    trained, control = (PlannedTrial(name, (name,), 0, {"seed": 0}, "pending") for name in ("baseline", "blank"))
    freeze(Plan("s", "2026-03-01T12:00:00+00:00", (trained,), (control,)), home)
    finish(home, "blank", novel_psnr=10.5)
    result = CliRunner().invoke(app, ["status", str(file), "--home", str(home)])
    assert "1 of 2 done" in result.output
    assert [line.split()[0] for line in result.output.splitlines() if "10.50" in line] == ["blank"]


def test_a_sweep_that_is_being_planned_is_not_taken_for_one_that_never_was(file: Path, home: Path) -> None:
    with driven(home):
        result = CliRunner().invoke(app, ["status", str(file), "--home", str(home)])
        assert "is being planned" in str(result.exception)
    result = CliRunner().invoke(app, ["status", str(file), "--home", str(home)])
    assert "has not been planned" in str(result.exception)


def test_a_failure_is_named_with_its_seed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trial = PlannedTrial("0123456789abcdef", ("tv",), 2, TrialConfig(), "failed")
    with Journal(trial_folder(home, trial.key)) as journal:
        journal.failed("ValueError: no")
    with pytest.raises(typer.Exit):
        conclude(Outcome(Plan("s", "now", (trial,), ()), (trial,), None, None, None), Sweep(name="s"), home)
    assert "tv seed 2 failed: ValueError: no" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stop", "reason"),
    [(None, "pruned by another sweep's search"), (Stop("request", "by SIGINT"), "by SIGINT")],
)
def test_trials_that_were_not_finished_are_counted_with_the_reason(
    home: Path, capsys: pytest.CaptureFixture[str], stop: Stop | None, reason: str
) -> None:
    trial = PlannedTrial("0123456789abcdef", ("tv",), 2, TrialConfig(), "pruned")
    with pytest.raises(typer.Exit) as ended:
        conclude(Outcome(Plan("s", "now", (trial,), ()), (trial,), None, None, stop), Sweep(name="s"), home)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed == f"Stopped with 1 trial unfinished ({reason}); the same command goes on."
    assert ended.value.exit_code == 130
