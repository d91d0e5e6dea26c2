"""Kinds of tables, and table files, which list the tables of a report.

A kind is a module with `Options`, the keys in a table file, and `build(evidence, options) -> Table`: numbers, no
markup.  A new kind is one such file and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from results.errors import ResultsError
from results.render import MANIFEST_FILENAME, PAGE_FILENAME, table_filenames

if TYPE_CHECKING:
    from types import ModuleType

    from results.load import Evidence
    from results.table import Table
    from results.tables.options import Options

#: kind -> module
KINDS = {
    "auto": "results.tables.auto",
    "categories": "results.tables.categories",
    "costs": "results.tables.costs",
    "leave_one_out": "results.tables.leave_one_out",
    "pivot": "results.tables.pivot",
    "rows": "results.tables.rows",
    "search": "results.tables.search",
    "seeds": "results.tables.seeds",
}
#: name in a sweep file -> a kind with default options, or a table file of this package
TABLES = {
    "auto": "auto",
    "categories": "categories",
    "costs": "costs",
    "leave_one_out": "leave_one_out",
    "paper": "paper.yaml",
    "study": "study.yaml",
    "pivot": "pivot",
    "search": "search",
    "seeds": "seeds",
}
#: tables that a report has unasked: of a sweep whose seeds are added until rows are decided, and of what rows cost
SEEDS, COSTS = "seeds", "costs"
#: suffixes of table files; anything else is a name
SUFFIXES = (".yaml", ".yml")


def build_tables(names: Sequence[str], evidence: Evidence) -> list[Table]:
    """The tables of each name in `TABLES` or path of a table file, in order.

    Raises `ResultsError` for another name, and for a file that is no table file.
    """
    return [kind.build(evidence, options) for kind, options in wanted_tables(names).values()]


def wanted_tables(names: Sequence[str]) -> dict[str, tuple[ModuleType, Options]]:
    """Kind and options of the tables that `build_tables` builds, by the tables' own names.

    Raises `ResultsError` as well where two have one name, or would write one file of a report.
    """
    wanted: dict[str, tuple[ModuleType, Options]] = {}
    origins: dict[str, str] = {}
    for origin in map(str, names):
        for kind, options in table_options(origin):
            if options.name in wanted:
                both = " and ".join(dict.fromkeys((origins[options.name], origin)))
                raise ResultsError(f"two tables are called {options.name!r}, and would be one file: {both}")
            wanted[options.name], origins[options.name] = (kind, options), origin
    _check_files(origins)
    return wanted


def _check_files(origins: Mapping[str, str]) -> None:
    """Raises `ResultsError` where two files of a report have one name; `origins` says where its tables come from."""
    own = "the report itself"
    owners = {MANIFEST_FILENAME: own, PAGE_FILENAME: own}
    unasked = {name: "which reports have unasked" for name in (SEEDS, COSTS) if name not in origins}
    for name, origin in (unasked | dict(origins)).items():
        for file in table_filenames(name):
            if file in owners:
                raise ResultsError(
                    f"{file} would be a file of {owners[file]}, and of table {name!r} ({origin}); rename a table"
                )
            owners[file] = f"table {name!r} ({origin})"


def table_options(name: str) -> list[tuple[ModuleType, Options]]:
    """Kind and options of each table of `name`, one of `TABLES` or the path of a table file."""
    from results.tables.file import read_tables

    source = TABLES.get(name, name)
    if source in KINDS and name in TABLES:
        kind = import_module(KINDS[source])
        return [(kind, kind.Options())]
    if not source.endswith(SUFFIXES):
        allowed = ", ".join(sorted(TABLES))
        raise ResultsError(f"unknown table {name!r}; allowed: {allowed}, or the path of a table file (.yaml)")
    return read_tables(Path(__file__).parent / source if name in TABLES else Path(source), KINDS)
