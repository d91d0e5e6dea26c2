"""Where executors get their trials from, one at a time: a list, or a search that decides what comes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from sweep.plan.planner import PlannedTrial


class Source(Protocol):
    """Asked by one thread; `trials` may be read by others."""

    @property
    def trials(self) -> Sequence[PlannedTrial]:
        """All trials that are known to be coming, those handed out among them."""
        ...

    def next(self) -> PlannedTrial | None:
        """The next trial to run; None: there will be no other."""
        ...

    def ended(self, trial: PlannedTrial) -> None:
        """A trial that was handed out runs no more; what became of it stands in its folder."""
        ...


class Listed:
    """Trials that are known beforehand."""

    def __init__(self, trials: Sequence[PlannedTrial]) -> None:
        self.trials = tuple(trials)
        self._waiting = deque(trials)

    def next(self) -> PlannedTrial | None:
        """In order."""
        return self._waiting.popleft() if self._waiting else None

    def ended(self, trial: PlannedTrial) -> None:
        """Changes nothing."""
