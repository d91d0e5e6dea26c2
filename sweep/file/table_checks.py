"""Checks a sweep's tables: their names, and their selectors against the settings that trials have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from results.errors import ResultsError
from results.tables import table_options, wanted_tables
from results.tables.file import TableFileError, TableMistake
from results.tables.options import Options
from sweep.file.diagnostics import Finding, Mistake, SweepError
from sweep.file.pydantic_errors import explain
from sweep.file.schema import is_table_file
from sweep.file.selector_keys import alternatives
from sweep.file.yaml_reader import Document, read_document


def located(error: ResultsError, path: FilePath) -> list[Mistake]:
    """An error of a table file as mistakes with line and column."""
    try:
        document = read_document(path)
    except SweepError as unreadable:
        return unreadable.mistakes
    if not isinstance(error, TableFileError):
        # Keys that are given twice are among the document's mistakes.
        return document.mistakes or [document.mistake(Finding((), str(error).removeprefix(f"{path}: ")))]
    return [document.mistake(finding) for mistake in error.mistakes for finding in _findings(mistake)]


def _findings(mistake: TableMistake) -> Iterator[Finding]:
    if mistake.error is None or mistake.options is None:
        yield Finding(mistake.path, mistake.message.removesuffix(":"), mistake.value, mistake.allowed)
    else:
        yield from explain(mistake.error, mistake.options, lambda path, _: (*mistake.path, *path))


def table_mistakes(tables: Sequence[str], document: Document) -> Iterator[Mistake]:
    """Mistakes in tables that are sound by themselves: built-in names, or paths of table files.

    `document` is that of the sweep file.  Two tables must not have one name.  A key of a selector that no trial can
    have would count as absent in every trial.  An axis without a dot may be the short name of any setting.
    """
    try:
        wanted_tables(tables)
    except ResultsError as error:
        yield document.mistake(Finding(("tables",), str(error)))
    for name in filter(is_table_file, tables):
        unknown = [
            (index, what, key, allowed)
            for index, (_, options) in enumerate(table_options(name))
            for key, what in _keys(options).items()
            if (allowed := alternatives(key))
        ]
        written = read_document(FilePath(name)) if unknown else None
        for index, what, key, allowed in unknown:
            assert written is not None
            places = [path for path in written.keys if path[:2] == ("tables", index) and path[-1] == key]
            for path in places or [("tables", index)]:
                yield written.mistake(Finding(path, what, key, allowed, at="key"))


def _keys(options: Options) -> dict[str, str]:
    """Settings that a table names -> what is wrong where there is no such setting."""
    axes = {name: "an axis is an unknown key" for name in options.axes if "." in name}
    return axes | {key: "selects by an unknown key" for selector in options.selectors for key in selector}
