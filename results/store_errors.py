"""Describes MLflow store errors in one sentence: the store, the decisive line of the error, and the remedy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from results.address import reason, sqlite_path, without_secrets
from results.records.permissions import whose

_NEWER = "it was written by a newer MLflow than the one that is installed: pip install --upgrade mlflow"
_LOCKED = (
    "another program has locked it: close that program, and on network storage use the store from one machine only"
)
_CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


def store_problem(uri: str, error: Exception, tried: Literal["read", "written"], sync: str) -> str:
    """The reason why the store at `uri` cannot be read or written, without its secrets.

    The remedy follows where the kind of error has one; `sync` is the command that records what the store lacks.
    """
    why, _, _ = reason(error).partition(". Take a backup")  # MLflow's own remedy for a database of another version
    text = str(error).lower()
    remedy = next((remedy(uri, text, sync) for pattern, remedy in _REMEDIES if re.search(pattern, text)), None)
    sentence = f"the MLflow store {without_secrets(uri)} cannot be {tried}: {why}"
    return sentence if remedy is None else f"{sentence}; {remedy}"


def _whose(uri: str) -> str | None:
    """Owner of a SQLite store's file, if this process may not use it."""
    path = sqlite_path(uri)
    return None if path is None else whose(Path(path))


def _schema(uri: str, text: str, _: str) -> str:
    """Remedy for a database of another version; a version that the installed MLflow does not know is a newer one's."""
    found = re.search(r"found version (\w+)", text)
    spec = find_spec("mlflow")
    if found is not None and spec is not None:
        for folder in spec.submodule_search_locations or ():
            versions = Path(folder) / "store" / "db_migrations" / "versions"
            if versions.is_dir() and not any(versions.glob(f"{found[1]}_*.py")):
                return _NEWER
    return f"it is of an older MLflow; make a copy of it, then: mlflow db upgrade {shlex.quote(without_secrets(uri))}"


def _not_a_store(uri: str, _: str, sync: str) -> str:
    path = sqlite_path(uri)
    if path is None:
        return "this is no MLflow store"
    anew = f"move it away, then, for each sweep, have it made anew from the trials' journals: {sync}"
    return f"{path} is no MLflow store, or a damaged one; {anew}"


def _not_opened(uri: str, text: str, sync: str) -> str | None:
    path = sqlite_path(uri)
    return _not_a_store(uri, text, sync) if path is not None and Path(path).is_dir() else _whose(uri)


_REMEDIES: tuple[tuple[str, Callable[[str, str, str], str | None]], ...] = (
    (r"readonly database|unable to open database|permission denied", _not_opened),
    (r"database is locked", lambda *_: _LOCKED),
    (r"out-of-date database schema|database schema \(found", _schema),
    (r"can't locate revision", lambda *_: _NEWER),
    (r"not a database|malformed|no such table|no such column|unsupported file format|decode", _not_a_store),
    (r"error code 401", lambda *_: _CREDENTIALS),
    (r"disk is full|no space left", lambda _, __, sync: f"make room, then: {sync}"),
)
