"""Writes a comparison of two sweeps to a file: in any format of tables, or as an HTML page."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

from results.errors import ResultsError
from results.records.atomic import write_atomically
from results.render import RENDERERS
from results.table import Table

_PAGE = "results.render.html:render_table"
_FORMATS = {".html": _PAGE, **{suffix: place for suffix, place in RENDERERS.items() if suffix.startswith(".")}}


def writer(path: Path) -> Callable[[Table], Path]:
    """A function that writes a table in the format of the path's suffix and returns the path.

    Raises `ResultsError` for another suffix, before anything is computed.
    """
    if path.suffix not in _FORMATS:
        raise ResultsError(f"{path}: no format is called {path.suffix!r}; allowed: {', '.join(_FORMATS)}")
    return partial(_write, path)


def _write(path: Path, table: Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, resolve_name(_FORMATS[path.suffix])(table).encode())
    return path
