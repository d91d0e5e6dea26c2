"""Writes a comparison of two sweeps to a file: in any format of tables, or as an HTML page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name

from results.errors import ResultsError
from results.records.atomic import write_atomically
from results.render import RENDERERS
from results.table import Table

_PAGE = "results.render.html:render_table"
_FORMATS = {".html": _PAGE, **RENDERERS}


def writer(path: Path) -> Callable[[Table], Path]:
    """A function that writes a table in the format of the path's suffix and returns the path.

    The table is named after the file.  Raises `ResultsError` for another suffix, before anything is computed.
    """
    # `both_wide.tex` ends in two of them.
    for suffix in sorted(_FORMATS, key=len, reverse=True):
        if path.name.endswith(suffix) and path.name != suffix:
            return partial(_write, path, suffix)
    raise ResultsError(f"{path}: no format is called {path.suffix!r}; allowed: {', '.join(_FORMATS)}")


def _write(path: Path, suffix: str, table: Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.removesuffix(suffix))
    write_atomically(path, resolve_name(_FORMATS[suffix])(replace(table, name=name)).encode())
    return path
