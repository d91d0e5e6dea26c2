"""The state of a sweep's search for its plan: its progress, and the trials that it proposed."""

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
    """The identity of a trial, known before it runs."""

    @property
    def key(self) -> str: ...

    @property
    def missing(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Searched:
    """The part of a search that a plan includes."""

    state: SearchState | None = None
    #: the proposals so far: a trial's name -> the number of its proposal
    numbers: dict[str, int] = field(default_factory=dict)
    #: names and configurations, one per seed
    trials: Sequence[tuple[str, TrialConfig]] = ()
    #: example configurations that the search may propose, one of each kind
    examples: Sequence[TrialConfig] = ()


def _proposed(proposals: Sequence[Proposal]) -> int:
    """The number of proposals, including those whose ledger line is lost."""
    return 1 + max((proposal.number for proposal in proposals), default=-1)


def searched(sweep: Sweep, folder: Path, identify: Callable[[TrialConfig], Identified]) -> Searched:
    """The search of a sweep, whose ledger is in `folder`; an empty one where it has none."""
    search = sweep.search
    if search is None:
        return Searched()
    probed = examples(sweep)
    identities = [identify(config) for config in probed]
    study = study_name(search, sweep.first_seeds, identities[0].key)
    proposals = read_proposals(folder, study)
    missing = tuple(dict.fromkeys(reason for identity in identities for reason in identity.missing))
    return Searched(
        SearchState(study, search.metric, search.aim, search.trials, _proposed(proposals), (), missing),
        {proposal.name: proposal.number for proposal in proposals},
        [(p.name, config) for p in proposals for config in configurations(sweep, p.params)],
        probed,
    )
