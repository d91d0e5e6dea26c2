"""Runs a command of the user when a sweep ends, whatever its outcome."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.terminal import errors

if TYPE_CHECKING:  # brings torch, which takes seconds
    from sweep.run.driver import Outcome

_PATIENCE_S = 60.0


def notify(command: str, sweep: str, outcome: str, message: str, report: str = "") -> str | None:
    """Runs a shell command with the message as its standard input, and details in environment variables.

    outcome: finished, failed, stopped or error.  Returns the command's error, if any.
    """
    variables = {
        "SPLATSWEEP_SWEEP": sweep,
        "SPLATSWEEP_OUTCOME": outcome,
        "SPLATSWEEP_MESSAGE": message,
        "SPLATSWEEP_REPORT": report,
    }
    try:
        done = subprocess.run(
            command,
            shell=True,
            input=message + "\n",
            text=True,
            errors="replace",
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            env={**os.environ, **variables},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"--notify {command}: {error}"
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).partition("\n")[0]
        return f"--notify {command}: exit code {done.returncode}" + (f" ({reason})" if reason else "")
    return None


@contextmanager
def notified(command: str | None, sweep: str) -> Iterator[Callable[[Outcome], None]]:
    """Runs the command when the body ends, with the outcome that the body passes or with the error that it raises."""
    outcomes: list[Outcome] = []
    try:
        yield outcomes.append
    except BaseException as error:
        if command is not None:
            is_interrupted = isinstance(error, KeyboardInterrupt)
            reason = "interrupted" if is_interrupted else f"{type(error).__name__}: {error}"
            _warn(notify(command, sweep, "stopped" if is_interrupted else "error", f"{sweep}: {reason}"))
        raise
    if command is not None:
        for outcome in outcomes:
            kind, message = describe(outcome)
            _warn(notify(command, sweep, kind, message, str(outcome.report or "")))


def describe(outcome: Outcome) -> tuple[str, str]:
    """The outcome of running a sweep, as one word and as one line."""
    trials = outcome.plan.trials
    finished = sum(trial.status == "finished" for trial in trials)
    failed, unfinished = len(outcome.failed), len(outcome.unfinished)
    is_stopped = unfinished or (outcome.unsearched and outcome.stop)
    # A failure that stops the others (`--fail-fast`) is a failure, as in the exit code.
    kind = "failed" if outcome.exit_code == 1 else "stopped" if is_stopped else "finished"
    parts = [f"{finished} of {len(trials)} trials finished"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{unfinished} stopped before their end"] if unfinished else []
    return kind, f"{outcome.plan.sweep}: {', '.join(parts)}"


def _warn(problem: str | None) -> None:
    if problem is not None:
        errors.print(problem, style="yellow")
