"""Queues from which executors take trials one at a time: a fixed list, or one that grows by what trials score."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from sweep.plan.planner import PlannedTrial


class TrialQueue(Protocol):
    """A queue of trials.  One thread calls its methods; other threads may read `trials`."""

    @property
    def trials(self) -> Sequence[PlannedTrial]:
        """All trials known so far, including those already handed out."""
        ...

    @property
    def is_growing(self) -> bool:
        """Whether a trial may come after `next` returned None, because of the outcome of one that still runs."""
        ...

    def next(self) -> PlannedTrial | None:
        """The next trial to run; None where there is none now."""
        ...

    def ended(self, trial: PlannedTrial) -> None:
        """Reports that a trial no longer runs; its folder records its outcome."""
        ...


class FixedQueue:
    """A fixed list of trials."""

    is_growing = False

    def __init__(self, trials: Sequence[PlannedTrial]) -> None:
        self.trials = tuple(trials)
        self._waiting = deque(trials)

    def next(self) -> PlannedTrial | None:
        """The next trial of the list."""
        return self._waiting.popleft() if self._waiting else None

    def ended(self, trial: PlannedTrial) -> None:
        """Does nothing, because the list is fixed."""
