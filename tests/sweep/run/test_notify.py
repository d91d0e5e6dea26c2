"""A command of the user runs at the end of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.config import TrialConfig
from results.records.plan import Status
from sweep.plan.planner import Plan, PlannedTrial
from sweep.run.driver import Outcome
from sweep.run.notify import describe, notified, notify
from sweep.run.stop import Cause, Stop


def test_the_command_reads_a_line_and_its_environment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (
        f'cat > {out}; echo "$SPLATSWEEP_SWEEP/$SPLATSWEEP_OUTCOME/$SPLATSWEEP_REPORT/$SPLATSWEEP_MESSAGE" >> {out}'
    )
    assert notify(command, "a", "finished", "a: it's [done]; $HOME", "/r/index.html") is None
    assert out.read_text() == "a: it's [done]; $HOME\na/finished//r/index.html/a: it's [done]; $HOME\n"


def test_a_command_that_fails_is_a_warning() -> None:
    assert notify("echo no such channel >&2; exit 3", "a", "finished", "x") == (
        "--notify echo no such channel >&2; exit 3: exit code 3 (no such channel)"
    )


def test_an_error_is_notified_and_raised(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no room"), notified(f"cat > {out}", "a"):
        raise ValueError("no room")
    assert out.read_text() == "a: ValueError: no room\n"


def test_nothing_runs_without_a_command() -> None:
    with notified(None, "a") as tell:
        tell(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "cause", "kind"),
    [
        (("finished", "finished"), None, "finished"),
        (("finished", "failed"), None, "failed"),
        (("pending", "failed"), "failure", "failed"),
        (("pending", "failed"), "request", "stopped"),
        (("pending", "finished"), "disk", "stopped"),
    ],
)
def test_the_word_for_the_outcome_agrees_with_the_exit_code(
    states: tuple[Status, ...], cause: Cause | None, kind: str
) -> None:
    trials = tuple(PlannedTrial(f"{n}", (f"{n}",), 0, TrialConfig(), state) for n, state in enumerate(states))
    stop = None if cause is None else Stop(cause, "why")
    outcome = Outcome(Plan("a", "now", trials, ()), trials, None, None, stop)
    assert describe(outcome)[0] == kind
    assert (outcome.exit_code == 1) == (kind == "failed")
