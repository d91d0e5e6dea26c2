"""`--set KEY=VALUE`: overrides of a sweep file's values on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.config import TrialConfig
from sweep.file.diagnostics import Mistake, Path, SweepError
from sweep.file.overrides import flatten
from sweep.file.schema import Sweep
from sweep.file.yaml_reader import Document, Place, parse

#: Mappings whose keys may be whole dotted keys (`*`: any name or index).  Elsewhere a dot separates nested keys.
_DOTTED_SECTIONS: tuple[tuple[str, ...], ...] = (
    ("base",),
    ("trials", "*"),
    ("grid", "*", "axes"),
    ("grid", "*", "exclude", "*"),
    ("grid", "*", "when", "*"),
)

#: Mappings whose keys are whole dotted keys, with further keys below them.
_OF_AXES: tuple[tuple[str, ...], ...] = (
    ("baseline",),
    ("grid", "*", "when"),
    ("search", "space"),
    ("search", "space", "when"),
    ("search", "space", "when", "*"),
)
_WHEN = "when"

#: Sections of a trial's configuration; `seeds` sets the seed.
_TRIAL_SECTIONS = frozenset(TrialConfig.model_fields) - {"seed"} - frozenset(Sweep.model_fields)


def assign(document: Document, overrides: Sequence[str]) -> None:
    """Writes each `KEY=VALUE` into the document in turn; invalid ones are added to the document's mistakes."""
    for override in overrides:
        key, equals, text = override.partition("=")
        file = f"--set {key.strip()}"
        if not equals or not key.strip():
            document.mistakes.append(Mistake(file, None, None, "", "must have the form KEY=VALUE", override))
            continue
        try:
            value = parse_value(text, file)
            _descend(document, document.value, (), _whole_key(key.strip()), value, Place(file))
        except SweepError as error:
            document.mistakes.extend(error.mistakes)


def parse_value(text: str, option: str) -> Any:
    """The value that an option of the command line has, read as YAML; `option` names it in messages.

    Raises `SweepError` with all mistakes of the text.
    """
    try:
        document = parse(text, option)
    except SweepError as error:
        raise SweepError(_on_command_line(error.mistakes)) from None
    if document.mistakes:
        raise SweepError(_on_command_line(document.mistakes))
    return document.value


def _whole_key(key: str) -> str:
    """The complete key: `base.train.batch_size` for `train.batch_size`, since `base` has a trial's sections."""
    section = key.partition(".")[0]
    return f"base.{key}" if section in _TRIAL_SECTIONS else key


def _on_command_line(mistakes: list[Mistake]) -> list[Mistake]:
    return [replace(mistake, line=None, column=None) for mistake in mistakes]


def _descend(document: Document, node: Any, path: Path, key: str, value: Any, place: Place) -> None:
    """Writes `value` at the dotted `key` below `node`, which is at `path`."""
    if isinstance(node, list):
        _into_list(document, node, path, key, value, place)
        return
    if not isinstance(node, dict):
        raise _refusal(place, path, f"has no keys, so {key!r} does not exist")
    if is_dotted(path):
        for setting in flatten(value, (), key):
            _discard(node, setting.keys)
        _write(document, node, path, key, value, place)
        return
    step, rest = _step(node, path, key, place)
    if not rest:
        _write(document, node, path, step, value, place)
        return
    if node.get(step) is None:
        _write(document, node, path, step, {}, place)
    _descend(document, node[step], (*path, step), rest, value, place)


def _step(node: dict[str, Any], path: Path, key: str, place: Place) -> tuple[str, str]:
    """The first key to follow, and the rest.  Names may contain dots, so the longest existing one is taken."""
    known = [name for name in node if key == name or key.startswith(f"{name}.")]
    first, _, rest = key.partition(".")
    if known:
        first = max(known, key=len)
        rest = key[len(first) + 1 :]
    elif _is_in(path, _OF_AXES) and first != _WHEN:
        first, rest = key, ""
    elif path == ("trials",) and rest:
        raise _refusal(place, path, "there is no such trial", first, tuple(node))
    return first, rest


def _into_list(document: Document, node: list[Any], path: Path, key: str, value: Any, place: Place) -> None:
    first, _, rest = key.partition(".")
    if not first.isdecimal() or int(first) >= len(node):
        allowed = tuple(str(index) for index in range(len(node)))
        raise _refusal(place, path, f"has {len(node)} elements, reached by index", first, allowed)
    index = int(first)
    if rest:
        _descend(document, node[index], (*path, index), rest, value, place)
    else:
        _write(document, node, path, index, value, place)


def _write(document: Document, node: Any, path: Path, key: str | int, value: Any, place: Place) -> None:
    at = (*path, key)
    for places in (document.keys, document.values):
        for known in [known for known in places if known[: len(at)] == at]:
            del places[known]
    if isinstance(node, dict):
        node.pop(key, None)  # moves the key to the end, since the last one set takes precedence
        document.keys[at] = place
    document.values[at] = place
    node[key] = value


def _discard(node: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Removes the file's own value at `keys`, nested or dotted, so that it is not set twice."""
    for name in list(node):
        parts = tuple(name.split("."))
        if parts == keys:
            del node[name]
        elif keys[: len(parts)] == parts and isinstance(node[name], dict):
            _discard(node[name], keys[len(parts) :])


def is_dotted(path: Path) -> bool:
    """Whether the mapping at `path` of a sweep file holds keys of a trial's configuration, nested or dotted."""
    return _is_in(path, _DOTTED_SECTIONS)


def _is_in(path: Path, sections: Sequence[tuple[str, ...]]) -> bool:
    return any(
        len(path) == len(section) and all(s in ("*", piece) for s, piece in zip(section, path, strict=True))
        for section in sections
    )


def _refusal(place: Place, path: Path, message: str, *value_and_allowed: Any) -> SweepError:
    name = ".".join(str(piece) for piece in path)
    return SweepError([Mistake(place.file, None, None, name, message, *value_and_allowed)])
