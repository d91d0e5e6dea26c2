"""The queue of a sweep whose seeds are added: the planned trials first, then one more seed of each open row.

A row gets its next seed as soon as its last one and that of the baseline are scored and leave it open; rows do not
wait for each other.  Decisions depend on the scores alone (`results.seeds`), so a sweep that was killed continues
to the same decisions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.stop import is_requested
from results.records.monitor import Monitor
from results.records.plan import SeedState
from results.seeds import described
from sweep.file.schema import Sweep
from sweep.plan.grid import expand
from sweep.plan.planner import Identities, Plan, PlannedTrial, folded
from sweep.seeds.rows import SeedRows


class SeedQueue:
    """A source of trials (`sweep.run.executors.queue`) that adds seeds to the plan."""

    def __init__(
        self,
        sweep: Sweep,
        home: Path,
        plan: Plan,
        first: Sequence[PlannedTrial],
        *,
        stop_file: Path | None = None,
        is_to_run: Callable[[PlannedTrial], bool] = lambda trial: trial.is_unfinished,
        is_wanted: Callable[[str], bool] = lambda _: True,
        on_growth: Callable[[Plan], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
        monitor: Monitor | None = None,
    ) -> None:
        """first: trials to run before any seed is added; is_to_run: which of the added trials run.

        Only rows whose name `is_wanted` get more seeds, and none once `stop_file` exists.  on_growth is called with
        the new plan before any trial of it is handed out; say is called with each decision in words.
        """
        assert plan.seeds is not None
        self.plan, self._state = plan, plan.seeds
        self._home, self._stop_file, self._is_to_run = home, stop_file, is_to_run
        self._is_wanted, self._on_growth, self._say = is_wanted, on_growth, say
        self._identify = Identities(home)
        self._rows = SeedRows(sweep, expand(sweep), self._identify, monitor or Monitor(home), plan.seeds.former)
        self._lock = threading.RLock()
        self._queue = deque(first)
        self._handed: list[PlannedTrial] = []
        #: keys of trials that were handed out and run
        self._running: set[str] = set()

    @property
    def trials(self) -> Sequence[PlannedTrial]:
        """All trials handed out or queued, in order."""
        with self._lock:
            return [*self._handed, *self._queue]

    @property
    def is_growing(self) -> bool:
        """Whether running trials may lead to more."""
        with self._lock:
            return bool(self._running) and not self._is_stopped()

    def next(self) -> PlannedTrial | None:
        """The next trial; None while all open rows wait for running trials, and after the stop file appeared."""
        with self._lock:
            if self._is_stopped() or not (self._queue or self._grow()):
                return None
            trial = self._queue.popleft()
            self._handed.append(trial)
            self._running.add(trial.key)
            return trial

    def ended(self, trial: PlannedTrial) -> None:
        """Marks a trial as no longer running, and adds the seeds that its score calls for."""
        with self._lock:
            self._running.discard(trial.key)
            if not self._is_stopped():
                self._grow()

    def settled(self) -> tuple[Plan, list[PlannedTrial]]:
        """The final plan, and those of its trials that were handed out, or would be had the sweep not been stopped.

        A seed that was added to a row while another row's score was missing, and is not needed with it, is left out.
        """
        with self._lock:
            state = self._rows.state()
            waiting = {trial.key for trial in self._added(state) if self._is_to_run(trial)}
            wanted = {self._rows.key(name, config.seed) for name, config in self._rows.trials(state)}
            trials = tuple(trial for trial in self.plan.trials if trial.key in wanted)
            self.plan = replace(self.plan, trials=trials, seeds=state)
            involved = waiting | {trial.key for trial in self.trials}
            return self.plan, [trial for trial in trials if trial.key in involved]

    def _is_stopped(self) -> bool:
        return is_requested(self._stop_file)

    def _grow(self) -> bool:
        """Adds to the plan and queues what rows need now.  Returns whether the queue has a trial."""
        while True:
            state = self._rows.state()
            self._announce(state)
            added = self._added(state)
            if not added and state == self._state:
                return bool(self._queue)
            self._state = state
            self._on_growth(self.plan)
            self._queue += filter(self._is_to_run, added)

    def _added(self, state: SeedState) -> list[PlannedTrial]:
        """Adds the trials to the plan that rows need in this state.  Returns them."""
        known = {trial.key for trial in self.plan.everything}
        new = [
            (name, config)
            for name, config in self._rows.trials(state)
            if self._is_wanted(name) and self._rows.key(name, config.seed) not in known
        ]
        added = folded(new, self._identify, self._home)
        trials = sorted((*self.plan.trials, *added), key=lambda trial: (self._rows.order(trial.name), trial.seed))
        self.plan = replace(self.plan, trials=tuple(trials), seeds=state)
        return added

    def _announce(self, state: SeedState) -> None:
        before = {ruling.row: ruling.state for ruling in self._state.rulings}
        for ruling in state.rulings:
            if ruling.is_final and before.get(ruling.row) != ruling.state:
                self._say(described(ruling, state.metric))
