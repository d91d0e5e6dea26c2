"""What the trials of a sweep are doing, read from their journals; live in a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from results.records.home import trial_folder
from results.records.journal import read_events
from results.records.plan import PlannedTrial
from results.records.trial_folder import Status, read_result, trial_status
from sweep.run.executors.queue import Source

_REFRESH_S = 1.0
_STYLES: dict[str, str] = {
    "finished": "green",
    "failed": "red",
    "running": "cyan",
    "interrupted": "yellow",
    "pruned": "yellow",
}


@dataclass(frozen=True)
class TrialState:
    """One trial at one moment."""

    name: str
    seed: int
    status: Status
    step: int
    steps: int
    #: iterations a second since the trial was last taken up
    rate: float | None
    #: the newest values of all metrics
    metrics: dict[str, float]
    error: str | None

    @property
    def eta_s(self) -> float | None:
        """Seconds of training left."""
        return (self.steps - self.step) / self.rate if self.status == "running" and self.rate else None


def trial_state(trial: PlannedTrial[Any], home: Path) -> TrialState:
    """Read one trial's journal."""
    folder = trial_folder(home, trial.key)
    started: tuple[float, int] | None = None
    step, rate, error = 0, None, None
    metrics: dict[str, float] = {}
    for event in read_events(folder):
        if event["event"] == "start":
            started, step, error = (event["time"], event["step"]), event["step"], None
        elif event["event"] == "failed":
            error = event["error"]
        elif event["event"] in ("stopped", "pruned"):
            error = event.get("reason")
        elif event["event"] == "metrics":
            metrics |= event["values"]
            step = event["step"]
            if started and step > started[1]:
                rate = (step - started[1]) / (event["time"] - started[0])
    result = read_result(folder)
    return TrialState(
        name=trial.name,
        seed=trial.seed,
        status=trial_status(folder),
        step=step,
        steps=trial.steps,
        rate=rate,
        metrics=metrics if result is None else metrics | result["metrics"],
        error=error,
    )


def state_table(states: Sequence[TrialState]) -> Table:
    """A table of trials for the terminal."""
    table = Table(box=None, pad_edge=False)
    for heading, justify in (
        ("trial", "left"),
        ("seed", "right"),
        ("state", "left"),
        ("iteration", "right"),
        ("it/s", "right"),
        ("left", "right"),
        ("loss", "right"),
        ("novel PSNR", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for s in states:
        psnr = s.metrics.get("novel/psnr", s.metrics.get("val/psnr"))
        table.add_row(
            s.name,
            str(s.seed) if s.steps else "",
            f"[{_STYLES.get(s.status, 'dim')}]{s.status}[/]",
            f"{s.step}/{s.steps}" if s.steps else "",
            f"{s.rate:.1f}" if s.rate else "",
            "" if s.eta_s is None else f"{s.eta_s:.0f} s",
            f"{s.metrics['train/loss']:.4f}" if "train/loss" in s.metrics else "",
            "" if psnr is None else f"{psnr:.2f}",
        )
    return table


@contextmanager
def follow(source: Source, home: Path, console: Console) -> Iterator[None]:
    """Show the progress of a source's trials while the body runs."""
    stop = threading.Event()
    show = _show_live if console.is_terminal else _show_lines
    thread = threading.Thread(target=show, args=(source, home, console, stop), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _show_live(source: Source, home: Path, console: Console, stop: threading.Event) -> None:
    def table() -> Table:
        return state_table([trial_state(trial, home) for trial in source.trials])

    with Live(table(), console=console, refresh_per_second=4) as live:
        while not stop.wait(_REFRESH_S):
            live.update(table())
        live.update(table())


def _show_lines(source: Source, home: Path, console: Console, stop: threading.Event) -> None:
    """One line whenever a trial changes its state."""
    seen: dict[str, Status] = {}
    started = time.monotonic()
    last = False
    while not last:
        last = stop.wait(_REFRESH_S)
        for trial in source.trials:
            state = trial_state(trial, home)
            if seen.get(trial.key, "pending") != state.status:
                seen[trial.key] = state.status
                console.print(_line(state, time.monotonic() - started), highlight=False)


def _line(state: TrialState, elapsed: float) -> str:
    detail = ""
    if state.status == "finished" and "novel/psnr" in state.metrics:
        detail = f"  novel PSNR {state.metrics['novel/psnr']:.2f} dB"
    elif state.error is not None:
        detail = f"  {state.error}"
    seed = f" seed {state.seed}" if state.steps else ""
    return f"  {elapsed:5.0f} s  {state.name}{seed}: {state.status}{detail}"
