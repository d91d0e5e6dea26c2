"""The rows of a sweep whose seeds are added: their scores, rulings and trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from jobs.config import TrialConfig
from results.metrics import score_name
from results.records.monitor import Monitor
from results.records.plan import SeedState
from results.seeds import direction_of, rulings
from results.sequential import Design
from results.tables.baseline import USUAL_NAMES
from results.tables.select import rows_with
from sweep.file.schema import Sweep


class Identified(Protocol):
    """The identity of a trial, known before it runs."""

    @property
    def key(self) -> str: ...


class SeedRows:
    """The compared rows of a sweep with a seed rule: one for each distinct configuration that is trained."""

    def __init__(
        self,
        sweep: Sweep,
        named: Sequence[tuple[str, TrialConfig]],
        identify: Callable[[TrialConfig], Identified],
        monitor: Monitor,
        former: Sequence[str] = (),
    ) -> None:
        """named: all rows, each with its first seeds; former: other rules in words under which trials finished."""
        assert sweep.seed_rule is not None
        self._rule, self._identify, self._monitor, self._former = sweep.seed_rule, identify, monitor, tuple(former)
        self._design = Design(self._rule.at_least, self._rule.at_most, self._rule.alpha)
        self._direction = direction_of(self._rule.metric)
        self._configs = {name: config for name, config in named if config.seed == sweep.first_seeds[0]}
        self._keys: dict[tuple[str, int], str] = {}
        # Equal configurations are one row, under its first name.
        first: dict[str, str] = {}
        self._row_of = {name: first.setdefault(self.key(name, 0), name) for name in self._configs}
        self._baseline = self._row_of[baseline_of(sweep, named)]
        trained = {self._row_of[name]: None for name, config in self._configs.items() if config.iterations}
        self._compared = [row for row in trained if row != self._baseline]

    def state(self) -> SeedState:
        """The state of all rows now."""
        rows = {row: self._scores(row) for row in self._compared}
        found = rulings(self._design, self._direction, self._scores(self._baseline), rows)
        rule = self._rule
        return SeedState(rule.at_least, rule.at_most, rule.metric, rule.alpha, self._baseline, found, self._former)

    def trials(self, state: SeedState) -> list[tuple[str, TrialConfig]]:
        """All trials as (name, configuration) that the rows should have, in the order of the sweep file."""
        wanted = state.wanted
        return [
            (name, config.model_copy(update={"seed": seed}))
            for name, config in self._configs.items()
            for seed in range(wanted.get(self._row_of[name], self._rule.at_least))
        ]

    def order(self, name: str) -> int:
        """The place of a row in the sweep file."""
        return list(self._configs).index(name)

    def _scores(self, row: str) -> list[float]:
        """Scores of a row's finished trials, up to the first seed without one."""
        scores: list[float] = []
        while len(scores) < self._rule.at_most:
            found = self._monitor.look(self.key(row, len(scores)))
            score = found.metrics.get(score_name(self._rule.metric)) if found.status == "finished" else None
            if score is None:
                break
            scores.append(score)
        return scores

    def key(self, name: str, seed: int) -> str:
        """The key of one trial of a row."""
        if (name, seed) not in self._keys:
            config = self._configs[name].model_copy(update={"seed": seed})
            self._keys[name, seed] = self._identify(config).key
        return self._keys[name, seed]


def baseline_of(sweep: Sweep, named: Sequence[tuple[str, TrialConfig]]) -> str:
    """The row that all others are compared with.  Raises ValueError where there is not exactly one."""
    names = list(dict.fromkeys(name for name, _ in named))
    if isinstance(sweep.baseline, str):
        found = [sweep.baseline] if sweep.baseline in names else []
    elif sweep.baseline is not None:
        rows = {name: config.settings() for name, config in named if config.seed == sweep.first_seeds[0]}
        found = rows_with(rows, sweep.baseline)
    else:
        found = [name for name in USUAL_NAMES if name in names][:1]
    if len(found) != 1:
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise ValueError(f"rows are decided against a baseline: name one with `baseline:`, of {listed}")
    return found[0]
