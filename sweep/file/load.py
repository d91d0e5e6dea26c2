"""Loads sweep.yaml into a validated, frozen `Sweep`, or reports every mistake with line and column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from results.errors import ResultsError
from results.pause_gc import garbage_collection_paused
from results.records.home import user_path
from results.tables import table_options
from sweep.file.cli_overrides import assign
from sweep.file.diagnostics import Finding, Mistake, Path, SweepError, key_path
from sweep.file.inheritance import KEY as EXTENDS
from sweep.file.inheritance import read_extended
from sweep.file.pydantic_errors import explain
from sweep.file.schema import GridBlock, Origin, RunOptions, Sweep, Tracking, is_table_file
from sweep.file.yaml_reader import Document, is_file

__all__ = ["GridBlock", "Mistake", "RunOptions", "Sweep", "SweepError", "Tracking", "load_sweep"]

#: Sections with trials that inherit settings.
_TRIAL_SECTIONS = ("base", "trials", "grid")
#: In place of a block of the grid that does not match the schema: it has no points.
_EMPTY = GridBlock.model_construct(axes={})


@garbage_collection_paused()
def load_sweep(path: FilePath | str, overrides: Sequence[str] = (), *, configurations: bool = True) -> Sweep:
    """Reads and validates a sweep file.

    `overrides` are `KEY=VALUE` texts that are applied to the file's tree first, such as `base.train.batch_size=4` or
    `seeds=[0, 1]`.  Raises `SweepError` with all mistakes of the file and of the overrides.  With
    `configurations=False`, the trials' configurations are not validated, which avoids the seconds of importing torch;
    commands that show the frozen plan find them there.
    """
    path = user_path(path)
    document = read_extended(path)
    if not isinstance(document.value, dict):
        raise SweepError([document.mistake(_not_a_sweep(document.value))])
    written = document.value.get(EXTENDS)
    assign(document, overrides)
    sweep, findings = _shaped(document.value)
    if document.value.get(EXTENDS) != written:
        findings.append(Finding((EXTENDS,), "must be set in the file, which is read before --set applies"))
    if configurations:
        from sweep.file.checks import find_mistakes

        is_complete = not any(finding.path[0] in _TRIAL_SECTIONS for finding in findings)
        findings += find_mistakes(sweep, is_complete=is_complete)
    tables = tuple(_located(table, ("tables", index), document, path) for index, table in enumerate(sweep.tables))
    of_tables = [mistake for index, table in enumerate(tables) for mistake in _of_table(index, table, document)]
    if configurations and not of_tables:
        from sweep.file.table_checks import table_mistakes

        of_tables += table_mistakes(tables, document)
    mistakes = document.mistakes + [document.mistake(finding) for finding in findings] + of_tables
    if mistakes:
        raise SweepError(mistakes)
    return sweep.model_copy(update={"tables": tables}).read_from(Origin(path, tuple(overrides)))


def _located(table: str, at: Path, document: Document, sweep_file: FilePath) -> str:
    """A built-in table's name, or the absolute path of a table's file, relative to the file that names it."""
    if not is_table_file(table):
        return table
    place = document.place(at)
    folder = (sweep_file if place.line is None else FilePath(place.file)).parent
    return str((folder / user_path(table)).absolute())


def _of_table(index: int, table: str, document: Document) -> list[Mistake]:
    """Mistakes in the file of a table, the one of this index in the sweep."""
    if not is_table_file(table):
        return []
    if not is_file(FilePath(table)):
        return [document.mistake(Finding(("tables", index), "there is no such file", table))]
    try:
        table_options(table)
    except ResultsError as error:
        from sweep.file.table_checks import located

        return located(error, FilePath(table))
    return []


def _not_a_sweep(value: Any) -> Finding:
    if value is None:
        return Finding((), "the file is empty; `splatsweep init` writes one to start from")
    return Finding((), "a sweep file is a mapping of keys to values", value)


def _shaped(tree: dict[str, Any]) -> tuple[Sweep, list[Finding]]:
    """The sweep, and the places where it does not match the schema.

    Invalid parts are left out of the sweep, so that the rest can be checked too.
    """
    findings: list[Finding] = []
    while True:
        try:
            return Sweep.model_validate(tree), findings
        except ValidationError as error:
            found = list(explain(error, Sweep, lambda path, _: path))
            findings = findings or found  # later rounds find only consequences of the removal
            for finding in found:
                tree = _without(tree, finding.path)
            tree["name"] = "unnamed"


def _without(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """The tree without the value at `path`; without its closest existing parent where there is no such value.

    An invalid element removes its whole list, because the indices of the other elements must not change; a block of
    the grid leaves an empty one.  A section that an earlier finding removed, or that is missing altogether, leaves the
    tree as it is.
    """
    if not path:
        return {}
    block, path = path[:2], key_path(path)
    if block[0] == "grid" and len(block) == 2 and _holds(tree, block) and (len(path) < 3 or not _holds(tree, path)):
        return {**tree, "grid": [_EMPTY if i == block[1] else item for i, item in enumerate(tree["grid"])]}
    while path and not _holds(tree, path):
        path = key_path(path[:-1])
    return _removed(tree, path) if path else tree


def _holds(node: Any, path: Path) -> bool:
    for piece in path:
        try:
            node = node[piece]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _removed(node: Any, path: Path) -> Any:
    if isinstance(node, list):
        return [_removed(item, path[1:]) if i == path[0] else item for i, item in enumerate(node)]
    if len(path) == 1:
        return {key: value for key, value in node.items() if key != path[0]}
    return {key: _removed(value, path[1:]) if key == path[0] else value for key, value in node.items()}
