"""A command of the user runs at the end of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.config import TrialConfig
from results.records.plan import Status
from sweep.plan.planner import Plan, PlannedTrial
from sweep.run import notify as module
from sweep.run.driver import Outcome
from sweep.run.notify import describe, notified, notify
from sweep.run.stop import Cause, Stop


def test_the_command_reads_a_line_and_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANNEL", "lab")
    monkeypatch.setenv("SPLATSWEEP_OUTCOME", "of an earlier sweep")
    out, values = tmp_path / "out", "$SPLATSWEEP_SWEEP/$SPLATSWEEP_OUTCOME/$SPLATSWEEP_REPORT/$SPLATSWEEP_MESSAGE"
    command = f'cat > {out}; echo "$CHANNEL/{values}" >> {out}'
    assert notify(command, "a", "finished", "a: it's [done]; $HOME", "/r/index.html") is None
    assert out.read_text() == "a: it's [done]; $HOME\nlab/a/finished//r/index.html/a: it's [done]; $HOME\n"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("echo posting; (echo no such channel; echo usage) >&2; exit 3", "exit code 3 (no such channel)"),
        ("echo no such channel; exit 3", "exit code 3 (no such channel)"),
        ("exit 3", "exit code 3"),
        ("printf '\\377' >&2; exit 3", "exit code 3 (\N{REPLACEMENT CHARACTER})"),
        ("sleep 600", "Command 'sleep 600' timed out after 0.5 seconds"),
    ],
)
def test_a_command_that_fails_is_a_warning(command: str, problem: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(module, "_PATIENCE_S", 60 if "exit" in command else 0.5)
    with notified(command, "a") as tell:
        tell(Outcome(Plan("a", "now", (), ()), (), None, None, None))
    assert capsys.readouterr().err == f"--notify {command}: {problem}\n"


@pytest.mark.parametrize(
    ("error", "notice"),
    [(ValueError("no room"), "a: ValueError: no room\nerror\n"), (KeyboardInterrupt(), "a: interrupted\nstopped\n")],
)
def test_an_error_is_notified_and_raised(error: BaseException, notice: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(type(error)), notified(f'cat > {out}; echo "$SPLATSWEEP_OUTCOME" >> {out}', "a"):
        raise error
    assert out.read_text() == notice


def test_a_command_that_cannot_be_started_is_a_warning() -> None:
    problem = notify("cat", "a", "error", "x" * 3_000_000)  # more than a variable may have
    assert problem == "--notify cat: [Errno 7] Argument list too long: '/bin/sh'"


def test_nothing_runs_without_a_command(capsys) -> None:
    with notified(None, "a") as tell:
        tell(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no room"), notified(None, "a"):
        raise ValueError("no room")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("report", [None, Path("/r/index.html")])
def test_an_outcome_is_notified(report: Path | None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with notified(f'cat > {out}; echo "$SPLATSWEEP_OUTCOME/$SPLATSWEEP_REPORT" >> {out}', "a") as tell:
        tell(Outcome(Plan("a", "now", (), ()), (), report, None, Stop("request", "why"), unsearched=2))
    assert out.read_text() == f"a: 0 of 0 trials finished\nstopped/{report or ''}\n"


@pytest.mark.parametrize(
    ("states", "cause", "kind", "message"),
    [
        (("finished", "finished"), None, "finished", "2 of 2 trials finished"),
        (("finished", "finished"), "request", "finished", "2 of 2 trials finished"),
        (("finished", "failed"), None, "failed", "1 of 2 trials finished, 1 failed"),
        (("pending", "failed"), "failure", "failed", "0 of 2 trials finished, 1 failed, 1 stopped before their end"),
        (("pending", "failed"), "request", "stopped", "0 of 2 trials finished, 1 failed, 1 stopped before their end"),
        (("pending", "finished"), "disk", "stopped", "1 of 2 trials finished, 1 stopped before their end"),
    ],
)
def test_the_word_for_the_outcome_agrees_with_the_exit_code(
    states: tuple[Status, ...], cause: Cause | None, kind: str, message: str
) -> None:
    trials = tuple(PlannedTrial(f"{n}", (f"{n}",), 0, TrialConfig(), state) for n, state in enumerate(states))
    stop = None if cause is None else Stop(cause, "why")
    outcome = Outcome(Plan("a", "now", trials, ()), trials, None, None, stop)
    assert describe(outcome) == (kind, f"a: {message}")
    assert (outcome.exit_code == 1) == (kind == "failed")
