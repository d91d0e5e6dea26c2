"""The state of a planned sweep's trials, for `splatsweep status`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.text import Text

from model.registry import resolve
from results.records.frozen_plans import read_plan
from results.records.monitor import Monitor
from sweep.file.schema import Sweep
from sweep.run.executors import EXECUTORS
from sweep.run.executors.base import Executor
from sweep.run.progress import Clock, Snapshot, snapshot_of, trial_state
from sweep.run.state_table import failures, silences, state_table
from sweep.terminal import table_width


@dataclass(frozen=True)
class StatusView:
    """The state of a sweep at one moment."""

    seen: Snapshot
    #: reasons for failed trials, running ones that record nothing, and the progress of the search or of added seeds
    remarks: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        """Whether any trial is running and has recorded something lately."""
        return any(state.status == "running" and not state.is_silent for state in self.seen.states)

    def view(self, console: Console) -> RenderableType:
        """Renders totals and one row per trial."""
        table = state_table(self.seen.states, self.seen.left, table_width(console))
        return Group(Text(str(self.seen.totals)), table)


class SweepStatus:
    """Reads the state of a sweep, once or repeatedly; a search adds trials to its plan in between."""

    def __init__(self, sweep: Sweep, home: Path) -> None:
        self._sweep, self._home, self._monitor = sweep, home, Monitor(home)
        executor: Executor = resolve(EXECUTORS, sweep.run.executor, "executor")
        self._at_once = executor.at_once(sweep.run)
        self._clock = Clock()

    def __call__(self) -> StatusView:
        """The state now."""
        plan = read_plan(self._sweep.name, self._home)
        states = [trial_state(trial, self._monitor) for trial in plan.everything]
        search = plan.refreshed(self._monitor).search
        added = (*([str(search)] if search is not None else []), *([str(plan.seeds)] if plan.seeds else []))
        seen = snapshot_of(plan.everything, states, self._clock, self._at_once)
        return StatusView(seen, (*failures(states), *silences(states), *added))
