"""Reads our own files where they may be damaged, empty or edited by hand, and reports the consequence.

A file that a command requires raises `DamagedFileError`.  Any other is skipped, and the consequence is
logged once per process as a warning, which the command line shows on stderr.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.errors import ResultsError

log = logging.getLogger(__name__)

_warned: set[tuple[Path, str]] = set()
_lock = threading.Lock()


class DamagedFileError(ResultsError):
    """One of our files does not have the expected content; the message names it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} cannot be used: {problem}")
        self.path, self.problem = path, problem


def pass_over(error: DamagedFileError, consequence: str) -> None:
    """Warn, once per process, which file is skipped, why, and with what consequence."""
    warning = (error.path, error.problem)
    with _lock:
        if warning in _warned:
            return
        _warned.add(warning)
    log.warning("%s: %s", error, consequence)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises `FileNotFoundError` or `NotADirectoryError` where there is none, and `DamagedFileError` for other content.
    """
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFileError(path, json_problem(path, error)) from error
    if not isinstance(content, dict):
        raise DamagedFileError(path, f"a JSON object is expected, not {_kind(content)}")
    return content


def system_words(error: OSError) -> str | None:
    """The system's words for its error with a file, for the middle of a sentence; None for an error without a file."""
    if error.filename is None or not error.strerror:
        return None
    return error.strerror[0].lower() + error.strerror[1:]


def json_problem(path: Path, error: Exception) -> str:
    """The reason why a file is no JSON, in few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if path.is_file() and not path.stat().st_size:
        return "it is empty"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return "not text in UTF-8"
    return f"not JSON: {error}"


def member(content: Mapping[str, Any], name: str, kind: type | tuple[type, ...], path: Path) -> Any:
    """A member of the object that `path` holds.  Raises `DamagedFileError` where it is absent or of another kind."""
    if name not in content:
        raise DamagedFileError(path, f"it lacks {name!r}")
    value = content[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DamagedFileError(path, f"{name!r} is {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return names.get(type(value), "a number")
