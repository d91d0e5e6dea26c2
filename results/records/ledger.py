"""Append-only ledger of a search's proposals, one JSON object per line, in `search.jsonl` beside the plan.

Outcomes of proposals are stored only in the trials' folders, so that the two cannot disagree.  A proposal on a line
truncated by a crash was never used; the line is removed before the next append.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results.records.damage import DamagedFileError, pass_over
from results.records.journal import remove_truncated_line

FILENAME = "search.jsonl"

#: beginning of the names of its trials; a number follows
PREFIX = "search-"


def proposal_name(number: int) -> str:
    """Name of the search's proposal `number`, e.g. `search-0007`."""
    return f"{PREFIX}{number:04}"


@dataclass(frozen=True)
class Proposal:
    """One configuration that a search proposed."""

    #: which search: `sweep.search.space.study_name`
    study: str
    #: from 0
    number: int
    #: dotted key -> a number, or the index of a choice
    params: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of its trials."""
        return proposal_name(self.number)


def read_proposals(folder: Path, study: str) -> list[Proposal]:
    """The proposals of one study, in order.  Invalid lines, damaged or edited by hand, are skipped."""
    path = folder / FILENAME
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            proposal = _proposal(line)
        except (ValueError, TypeError, RecursionError):
            problem = DamagedFileError(path, f"line {number} is no proposal")
            pass_over(problem, "the line is skipped; its proposal counts as tried, without an outcome")
            continue
        found.append(proposal)
    return [proposal for proposal in found if proposal.study == study]


def _proposal(line: bytes) -> Proposal:
    proposal = Proposal(**json.loads(line))
    kinds = {"study": str, "number": int, "params": dict}
    if not all(isinstance(getattr(proposal, name), kind) for name, kind in kinds.items()):
        raise TypeError
    return proposal


def append_proposal(folder: Path, proposal: Proposal) -> None:
    """Write a proposal to disk, before any trial is started from it."""
    path = folder / FILENAME
    remove_truncated_line(path)
    with path.open("ab") as stream:
        stream.write(json.dumps(asdict(proposal)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
