"""Checks a sweep's tables: their names, and their selectors against the settings that trials have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jobs.config import TrialConfig
from model.methods import METHODS, find_method
from results.errors import ResultsError
from results.tables import table_options, wanted_tables
from results.tables.select import TRIAL
from sweep.file.diagnostics import Finding
from sweep.file.overrides import METHOD_SECTION
from sweep.file.schema import is_table_file


def table_findings(tables: Sequence[str]) -> Iterator[Finding]:
    """Findings in tables that are sound by themselves: built-in names, or paths of table files.

    Two must not have one name.  A key of a selector that no trial can have would count as absent in every trial.
    """
    try:
        wanted_tables(tables)
    except ResultsError as error:
        yield Finding(("tables",), str(error))
    for index, name in enumerate(tables):
        for _, options in table_options(name) if is_table_file(name) else ():
            for key in dict.fromkeys(key for selector in options.selectors for key in selector):
                allowed = _alternatives(key)
                if allowed:
                    yield Finding(("tables", index), f"table {options.name!r} selects by an unknown key", key, allowed)


def _alternatives(key: str) -> tuple[str, ...]:
    """The keys that could be meant by an unknown one; nothing for a known one, or one with `*`."""
    section, *rest = key.split(".")
    if section == TRIAL or "*" in section:
        return ()
    if section not in TrialConfig.model_fields:
        return (TRIAL, *TrialConfig.model_fields)
    names = _names(section)
    if not rest or not names or "*" in rest[0] or rest[0] in names:
        return ()
    return tuple(f"{section}.{name}" for name in names)


def _names(section: str) -> tuple[str, ...]:
    """Names of the settings in a section; nothing for one that is a single value."""
    if section == METHOD_SECTION:
        return tuple(dict.fromkeys(key for method in METHODS for key in find_method(method).Options.model_fields))
    return tuple(getattr(TrialConfig.model_fields[section].annotation, "model_fields", ()))
