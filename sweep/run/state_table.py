"""States of trials as text: a table for the terminal, and lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from results.records.plan import trial_label
from sweep.run.progress import TrialState, in_words, unfinished_first
from sweep.terminal import STATE_STYLES

#: The terminal width from which the column of iterations per second fits.
_WIDE = 100


def state_table(
    states: Sequence[TrialState], left: Sequence[float | None], width: int, rows: int | None = None
) -> Table:
    """A terminal table of trials, running ones first, with at most `rows` of them."""
    splits = {state.split for state in states}
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("trial", overflow="fold", ratio=1 if width < _WIDE else None)
    headings = [
        "seed",
        "state",
        "it/s",
        "left",
        "loss",
        "val\nPSNR",
        f"{splits.pop() if len(splits) == 1 else 'final'}\nPSNR",
    ]
    for heading in headings:
        if heading != "it/s" or width >= _WIDE:
            table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    order = unfinished_first(states)
    for index in order[:rows]:
        state = states[index]
        cells: list[Text | str] = [
            Text(state.name),
            str(state.seed) if state.steps else "",
            Text(_doing(state), STATE_STYLES[state.status] or "dim"),
            f"{state.rate:.1f}" if state.rate else "",
            _left_in_words(state, left[index]),
            _number(state.metrics.get("train/loss"), 4),
            _number(state.validation_score, 2),
            _number(state.score, 2),
        ]
        if width < _WIDE:
            del cells[3]
        table.add_row(*cells)
    if rows is not None and len(order) > rows:
        table.add_row(Text(f"... and {len(order) - rows} more", "dim"))
    return table


def _left_in_words(state: TrialState, seconds: float | None) -> str:
    return in_words(seconds) if state.status == "running" and seconds is not None else ""


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _doing(state: TrialState) -> str:
    """The trial's state and its iteration, as text."""
    if state.is_evaluating:
        return "evaluating" if state.step or not state.steps else "starting"
    if state.status in ("running", "interrupted", "pruned", "failed") and state.steps:
        return f"{state.status} {state.step}/{state.steps}"
    return state.status


def failures(states: Sequence[TrialState]) -> list[str]:
    """One line for each failed trial, with the reason."""
    return [f"{_labelled(s)} failed: {_first_line(s.error)}" for s in states if s.status == "failed"]


def silences(states: Sequence[TrialState]) -> list[str]:
    """One line for each running trial that has recorded nothing for long."""
    return [
        f"{_labelled(s)} runs on {s.host}, but has recorded nothing for {in_words(s.silent_s)}; "
        "if that machine has failed, running the sweep again continues it"
        for s in states
        if s.is_silent
    ]


def _labelled(state: TrialState) -> str:
    """A trial's name and seed."""
    return trial_label(state.name, state.seed if state.steps else None)


def _first_line(text: str | None) -> str:
    """The first line of an error."""
    return (text or "").strip().partition("\n")[0]


def state_line(state: TrialState) -> str:
    """A trial with its state, and with its score or error, in one line."""
    detail = ""
    if state.status == "finished" and state.score is not None:
        detail = f"  {state.split} PSNR {state.score:.2f} dB"
    elif state.error is not None:
        detail = f"  {_first_line(state.error)}"
    return f"{_labelled(state)}: {state.status}{detail}"
