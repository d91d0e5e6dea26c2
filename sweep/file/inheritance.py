"""`extends: other.yaml` merges a sweep file over another; each value keeps the file and line where it was written.

Mappings are merged; all other values replace.  Keys of a trial's configuration (`base`, each of `trials`) are merged by
their meaning: `train.batch_size` replaces `{train: {batch_size: ...}}`.  A section or a trial without a value changes
nothing.
"""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from results.records.home import user_path
from sweep.file.cli_overrides import is_dotted
from sweep.file.diagnostics import Finding, Path, SweepError
from sweep.file.overrides import Setting, flatten
from sweep.file.yaml_reader import Document, is_file, read_document

KEY = "extends"


def read_extended(path: FilePath) -> Document:
    """The tree of a sweep file merged over the files that it extends.  Raises `SweepError` for unreadable files."""
    return _read(path, ())


def _read(path: FilePath, extended_by: tuple[FilePath, ...]) -> Document:
    document = read_document(path)
    name = document.value.get(KEY) if isinstance(document.value, dict) else None
    if not isinstance(name, str):
        return document  # validation against the schema reports a value that is neither text nor null
    other = path.parent / user_path(name)
    problem = _problem(other, (*extended_by, path))
    if problem is not None:
        document.mistakes.append(document.mistake(Finding((KEY,), problem, name)))
        return document
    try:
        parent = _read(other, (*extended_by, path))
    except SweepError as error:
        raise SweepError([*document.mistakes, *error.mistakes]) from None
    if not isinstance(parent.value, dict):
        document.mistakes.append(document.mistake(Finding((KEY,), "is no mapping of keys to values", name)))
        return document
    return merge(parent, document)


def _problem(other: FilePath, extended_by: tuple[FilePath, ...]) -> str | None:
    if not is_file(other):
        return f"there is no such file in the folder of {extended_by[-1].name}"
    if other.resolve() in {path.resolve() for path in extended_by}:
        chain = " -> ".join(path.name for path in (*extended_by, other))
        return f"files cannot extend each other in a circle: {chain}"
    return None


def merge(parent: Document, child: Document) -> Document:
    """Merges the child's tree over the parent's, and the places of their values."""
    merged = Document({}, mistakes=[*parent.mistakes, *child.mistakes])
    own = {key: value for key, value in child.value.items() if value is not None or key not in parent.value}
    merged.value.update(_merged(parent, parent.value, child, own, (), merged))
    return merged


def _merged(
    parent: Document, below: dict[str, Any], child: Document, above: dict[str, Any], path: Path, into: Document
) -> dict[str, Any]:
    _note_place(child, path, into, path)
    if is_dotted(path):
        return _merged_settings(parent, below, child, above, path, into)
    node = {}
    for key in {**below, **above}:
        at = (*path, key)
        lower, upper = below.get(key), above.get(key)
        if upper is None and key in above and is_dotted(at):
            upper = {}  # a trial's name alone
        if isinstance(lower, dict) and isinstance(upper, dict):
            node[key] = _merged(parent, lower, child, upper, at, into)
        elif key in above:
            node[key] = _graft(child, upper, at, into, at)
        else:
            node[key] = _graft(parent, lower, at, into, at)
    return node


def _merged_settings(
    parent: Document, below: dict[str, Any], child: Document, above: dict[str, Any], path: Path, into: Document
) -> dict[str, Any]:
    """Merges both files' keys of a configuration, each as a complete dotted key, in the order in which they apply."""
    settings: dict[str, tuple[Document, Setting]] = {}
    for source, node in ((parent, below), (child, above)):
        for setting in flatten(node, path):
            key = ".".join(setting.keys)
            if settings.pop(key, (None,))[0] is source:
                into.mistakes.append(source.mistake(Finding(setting.origin, "set twice", setting.value, at="key")))
            settings[key] = source, setting
    return {
        key: _graft(source, setting.value, setting.origin, into, (*path, key))
        for key, (source, setting) in settings.items()
    }


def _graft(source: Document, node: Any, path: Path, into: Document, target: Path) -> Any:
    """Copies `node`, which is at `path` of `source`, and records its places under `target`."""
    _note_place(source, path, into, target)
    if isinstance(node, dict):
        return {key: _graft(source, value, (*path, key), into, (*target, key)) for key, value in node.items()}
    if isinstance(node, list):
        return [_graft(source, value, (*path, i), into, (*target, i)) for i, value in enumerate(node)]
    return node


def _note_place(source: Document, path: Path, into: Document, target: Path) -> None:
    into.values[target] = source.place(path)
    if path in source.keys:
        into.keys[target] = source.keys[path]
