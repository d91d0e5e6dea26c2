"""How far the search of a sweep has come, and which trials it asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from jobs.config import TrialConfig
from sweep.file.schema import Sweep
from sweep.search import proposal_name
from sweep.search.ledger import read_proposals
from sweep.search.space import configurations, examples, study_name

#: A trial with one of these has told its search all that it will.
ENDED = ("finished", "failed", "pruned")


class Identified(Protocol):
    """What is known of a trial before it runs."""

    @property
    def key(self) -> str: ...

    @property
    def missing(self) -> tuple[str, ...]: ...


class Asked(Protocol):
    """A planned trial."""

    @property
    def status(self) -> str: ...

    @property
    def proposals(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class SearchState:
    """A search, as `plan.json` tells of it; its trials are among those of the plan."""

    #: which search: of another space or base, it is another
    study: str
    metric: str
    direction: str
    #: configurations that it is to try
    wanted: int
    #: how many it has proposed
    proposed: int = 0
    #: proposals with trials that have not ended
    open: tuple[int, ...] = ()
    #: what has to be had before it can go on, each with the command that gets it
    missing: tuple[str, ...] = ()

    @property
    def ended(self) -> int:
        """Proposals whose outcome is known."""
        return self.proposed - len(self.open)

    @property
    def left(self) -> int:
        """Configurations to try yet."""
        return max(self.wanted - self.ended, 0)

    @property
    def next_name(self) -> str:
        """What the next proposal will be called."""
        return proposal_name(self.proposed)

    def refreshed(self, trials: Iterable[Asked], proposed: int | None = None) -> SearchState:
        """As these trials, all of the plan, stand now."""
        waiting = {number for trial in trials if trial.status not in ENDED for number in trial.proposals}
        return replace(self, open=tuple(sorted(waiting)), proposed=self.proposed if proposed is None else proposed)

    def __str__(self) -> str:
        total = max(self.wanted, self.proposed)
        return f"search: {self.ended} of {total} configurations tried, {self.left} left ({self.metric})"


@dataclass(frozen=True)
class Searched:
    """What a plan has to know of a search."""

    state: SearchState | None = None
    #: what was proposed so far: a trial's name -> the number of its proposal
    numbers: dict[str, int] = field(default_factory=dict)
    #: names and configurations, a seed each
    trials: Sequence[tuple[str, TrialConfig]] = ()
    #: configurations that it may propose, of all kinds
    examples: Sequence[TrialConfig] = ()


def searched(sweep: Sweep, folder: Path, identify: Callable[[TrialConfig], Identified]) -> Searched:
    """The search of a sweep, whose ledger is in `folder`; an empty one where it has none."""
    search = sweep.search
    if search is None:
        return Searched()
    probed = examples(sweep)
    identities = [identify(config) for config in probed]
    study = study_name(search, sweep.seeds, identities[0].key)
    proposals = read_proposals(folder, study)
    missing = tuple(dict.fromkeys(reason for identity in identities for reason in identity.missing))
    return Searched(
        SearchState(study, search.metric, search.aim, search.trials, len(proposals), (), missing),
        {proposal.name: proposal.number for proposal in proposals},
        [(p.name, config) for p in proposals for config in configurations(sweep, p.params)],
        probed,
    )
