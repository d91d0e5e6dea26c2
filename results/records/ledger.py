"""Ledger of a search: what it has proposed, one JSON object a line, appended, in `search.jsonl` beside the plan.

What came of a proposal stands in its trials' folders and nowhere else, so that the two cannot disagree.  A line cut
short by a crash was never handed out; it is cut off before the next append.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results.records.journal import cut_torn_line

FILENAME = "search.jsonl"

#: beginning of the names of its trials; a number follows
PREFIX = "search-"


def proposal_name(number: int) -> str:
    """What the search's proposal `number` is called: `search-0007`."""
    return f"{PREFIX}{number:04}"


@dataclass(frozen=True)
class Proposal:
    """One configuration that a search asked for."""

    #: which search: `sweep.search.space.study_name`
    study: str
    #: from 0
    number: int
    #: dotted key -> a number, or the index of a choice
    params: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As its trials are called."""
        return proposal_name(self.number)


def read_proposals(folder: Path, study: str) -> list[Proposal]:
    """The proposals of one study, in order."""
    path = folder / FILENAME
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as stream:
        lines = [json.loads(line) for line in stream if line.endswith("\n")]
    return [Proposal(**line) for line in lines if line["study"] == study]


def append_proposal(folder: Path, proposal: Proposal) -> None:
    """Write a proposal down, on the disk, before anybody acts on it."""
    path = folder / FILENAME
    cut_torn_line(path)
    with path.open("ab", buffering=0) as stream:
        stream.write(json.dumps(asdict(proposal)).encode() + b"\n")
        os.fsync(stream.fileno())
