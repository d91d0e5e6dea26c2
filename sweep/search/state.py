"""The search of a sweep as its plan shows it: how far it has come, and which trials it asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jobs.config import TrialConfig
from results.records.ledger import Proposal, read_proposals
from results.records.plan import SearchState
from sweep.file.schema import Sweep
from sweep.search.space import configurations, examples, study_name


class Identified(Protocol):
    """What is known of a trial before it runs."""

    @property
    def key(self) -> str: ...

    @property
    def missing(self) -> tuple[str, ...]: ...


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


def _proposed(proposals: Sequence[Proposal]) -> int:
    """How many were proposed, those included whose line of the ledger is lost."""
    return 1 + max((proposal.number for proposal in proposals), default=-1)


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
        SearchState(study, search.metric, search.aim, search.trials, _proposed(proposals), (), missing),
        {proposal.name: proposal.number for proposal in proposals},
        [(p.name, config) for p in proposals for config in configurations(sweep, p.params)],
        probed,
    )
