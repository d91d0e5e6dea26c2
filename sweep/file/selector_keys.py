"""Keys of selectors, which choose rows by their settings: those of tables, and of `baseline`."""

from __future__ import annotations

from jobs.config import TrialConfig
from model.methods import METHODS, find_method
from results.tables.select import TRIAL
from sweep.file.overrides import METHOD_SECTION


def alternatives(key: str) -> tuple[str, ...]:
    """The keys that could be meant by an unknown one, or a section; nothing for a known one, or one with `*`."""
    section, *rest = key.split(".")
    if section == TRIAL or "*" in section:
        return ()
    if section not in TrialConfig.model_fields:
        return (TRIAL, *TrialConfig.model_fields)
    names = _names(section)
    if not names or (rest and ("*" in rest[0] or rest[0] in names)):
        return ()
    return tuple(f"{section}.{name}" for name in names)


def _names(section: str) -> tuple[str, ...]:
    """Names of the settings in a section; nothing for one that is a single value."""
    if section == METHOD_SECTION:
        return tuple(dict.fromkeys(key for method in METHODS for key in find_method(method).Options.model_fields))
    return tuple(getattr(TrialConfig.model_fields[section].annotation, "model_fields", ()))
