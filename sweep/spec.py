"""From sweep.yaml to a checked, frozen `Sweep`; or to every mistake in it, each with line and column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from sweep.assign import assign
from sweep.checks import find_mistakes
from sweep.mistakes import Finding, Mistake, Path, SweepError, key_path
from sweep.positions import read_document
from sweep.schema import GridBlock, RunOptions, Sweep, Tracking
from sweep.wording import explain

__all__ = ["GridBlock", "Mistake", "RunOptions", "Sweep", "SweepError", "Tracking", "load_sweep"]

#: Whoever inherits a setting stands in these.
_TRIAL_SECTIONS = ("base", "trials", "grid")


def load_sweep(path: FilePath | str, overrides: Sequence[str] = ()) -> Sweep:
    """Read and check a sweep file.

    `overrides` are `KEY=VALUE` texts that are put into the file's tree first, as `base.train.batch_size=4` or
    `seeds=[0, 1]`.  Raises `SweepError` with all mistakes of the file and of the overrides.
    """
    document = read_document(FilePath(path))
    if not isinstance(document.value, dict):
        raise SweepError([document.mistake(_not_a_sweep(document.value))])
    assign(document, overrides)
    sweep, findings = _shaped(document.value)
    is_complete = not any(finding.path[0] in _TRIAL_SECTIONS for finding in findings)
    findings += find_mistakes(sweep, is_complete=is_complete)
    mistakes = document.mistakes + [document.mistake(finding) for finding in findings]
    if mistakes:
        raise SweepError(mistakes)
    return sweep


def _not_a_sweep(value: Any) -> Finding:
    if value is None:
        return Finding((), "the file is empty; `splatsweep init` writes one to start from")
    return Finding((), "a sweep file is a mapping of keys to values", value)


def _shaped(tree: dict[str, Any]) -> tuple[Sweep, list[Finding]]:
    """The sweep, and what is wrong with its shape.

    Where something is wrong, the sweep is that of the tree without it, so that the rest can be checked too.
    """
    findings: list[Finding] = []
    while True:
        try:
            return Sweep.model_validate(tree), findings
        except ValidationError as error:
            found = list(explain(error, Sweep, lambda path, _: path))
            findings = findings or found  # later rounds find only what the pruning did
            for finding in found:
                tree = _without(tree, finding.path)
            tree["name"] = "unnamed"


def _without(tree: dict[str, Any], path: Path) -> dict[str, Any]:
    """The tree without what is at `path`, or what is around it where nothing is.

    Whole lists go where an element is wrong, since the others' places must stay.
    """
    path = key_path(path)
    while path and not _holds(tree, path):
        path = key_path(path[:-1])
    return _removed(tree, path) if path else {}


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
