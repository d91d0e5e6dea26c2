"""Provenance of numbers: settings that all trials share, and those in which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from results.load import Evidence, TrialRecord
from results.records import tags as record_tags

_CODE_TAGS = ("mlflow.source.git.", record_tags.PREFIX)
#: printed for an absent setting
ABSENT = "–"


def split_common(
    records: Iterable[Mapping[str, Any]],
) -> tuple[dict[str, Any], list[str]]:
    """`(settings that every record has with the same value, names of the others)`, in order of appearance."""
    records = list(records)
    names = list(dict.fromkeys(name for record in records for name in record))
    common = {
        name: records[0][name]
        for name in names
        if all(name in record and record[name] == records[0].get(name) for record in records)
    }
    return common, [name for name in names if name not in common]


def configurations(evidence: Evidence) -> list[tuple[TrialRecord, dict[str, Any]]]:
    """Flat configuration of every trained trial, without its seed."""
    flat = [(record, record.planned.flat_config) for record in evidence.records if not record.planned.control]
    return [(record, {k: v for k, v in config.items() if k != "seed"}) for record, config in flat]


def tags(evidence: Evidence) -> list[tuple[TrialRecord, dict[str, str]]]:
    """Code and machine tags of each recorded trial; trials without a run in the store are left out."""
    return [
        (
            record,
            {
                name.removeprefix(record_tags.PREFIX).removeprefix("mlflow.source."): value
                for name, value in sorted(record.run.tags.items())
                if name.startswith(_CODE_TAGS)
                and name not in (*record_tags.IDENTITY, record_tags.ERROR)
                and not name.startswith(record_tags.HASHES)
            },
        )
        for record in evidence.records
        if record.run
    ]
