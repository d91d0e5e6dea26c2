"""YAML read into plain values, with the line and column of every key and value.

It is safe by construction: it returns only mappings, lists, text, numbers, booleans and null, whatever tags the file
has.  It limits the size, the depth and the expansion of aliases, and reports duplicate keys as mistakes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StreamMark, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from sweep.file.diagnostics import ABSENT, Finding, Mistake, Path, SweepError

MAX_BYTES = 1 << 18
MAX_DEPTH = 30
MAX_VALUES = 100_000

_TAG = "tag:yaml.org,2002:"
_MERGE_KEY = _TAG + "merge"
#: Dates stay text, because no setting is a date and a name may look like one.
_TEXT_TAGS = (_TAG + "str", _TAG + "timestamp")
_SCALAR_TAGS = tuple(_TAG + name for name in ("int", "float", "bool", "null"))


@dataclass(frozen=True, slots=True)
class Place:
    """The place where a key or value was written.  Without a line, `file` is the `--set` option that wrote it."""

    file: str
    line: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class Document:
    """A tree of plain values, with the place of each key and value."""

    value: Any
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    #: mistakes after which reading could continue: duplicate keys, tags
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: Path, at: str = "value") -> Place:
        """The place of `path`, or of its closest parent that has one."""
        if at == "key" and path in self.keys:
            return self.keys[path]
        for length in range(len(path), -1, -1):
            if path[:length] in self.values:
                return self.values[path[:length]]
        raise KeyError(path)

    def mistake(self, finding: Finding) -> Mistake:
        """The finding with file, line and column."""
        place = self.place(finding.path, finding.at)
        path = ".".join(str(piece) for piece in finding.path)
        return Mistake(place.file, place.line, place.column, path, finding.message, finding.value, finding.allowed)


#: A directive for another YAML version, which has other rules for numbers and booleans.
_OTHER_VERSION = re.compile(r"^%YAML[ \t]+(?!1\.2\b)\S+", re.MULTILINE)


def read_document(path: FilePath) -> Document:
    """The tree in a YAML file.  Raises `SweepError` for a file that is missing, too large or not YAML."""
    return parse(_read_text(path), str(path))


def parse(text: str, file: str) -> Document:
    """The tree in a YAML text; `file` names it in messages.  Raises `SweepError` with line and column."""
    # The pure loader's resolver is YAML 1.2's: `1e-5` is a number and `no` is text.
    yaml = YAML(typ="safe", pure=True)
    other = _OTHER_VERSION.search(text)
    if other is not None:
        line = text.count("\n", 0, other.start()) + 1
        message = "sweep files are YAML 1.2, in which 010 is ten and `yes` is text; remove this line"
        raise SweepError([Mistake(file, line, 1, "", message, other[0])])
    try:
        node = yaml.compose(text)
        reader = _Reader(file, yaml.constructor.construct_object)
        value = None if node is None else reader.read(node, ())
    except MarkedYAMLError as error:
        raise SweepError([_syntax_mistake(error, file)]) from None
    except ReaderError as error:
        line, column = _place_after(text[: error.position])
        raise SweepError([Mistake(file, line, column, "", f"not valid YAML: {str(error).splitlines()[0]}")]) from None
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        raise SweepError([Mistake(file, 1, 1, "", f"not valid YAML: {reason}")]) from None
    except RecursionError:
        raise SweepError([Mistake(file, 1, 1, "", f"nested deeper than {MAX_DEPTH} levels")]) from None
    reader.values.setdefault((), Place(file, 1, 1))
    return Document(value, reader.keys, reader.values, reader.mistakes)


def presets() -> dict[str, Traversable]:
    """The sweep files that come with the package, by name."""
    files = resources.files("sweep.presets").iterdir()
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def is_file(path: FilePath) -> bool:
    """Whether the file exists; False also for text that cannot be a path."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_text(path: FilePath) -> str:
    def refuse(message: str, line: int | None = None, column: int | None = None) -> SweepError:
        return SweepError([Mistake(str(path), line, column, "", message)])

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        name = path.name.removesuffix(".yaml")
        words = [name, "--out", str(path.with_name(f"{name}.yaml"))] if name in presets() else []
        command = shlex.join(["splatsweep", "init", *words])
        raise refuse(f"there is no such file; `{command}` writes one to start from") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise refuse(f"larger than {MAX_BYTES} bytes, which no sweep file needs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_after(error.object[: error.start].decode("utf-8"))
        raise refuse(f"not UTF-8 text: the byte {error.object[error.start]:#04x}", *place) from None


def _place_after(text: str) -> tuple[int, int]:
    """Line and column of what follows a text, counted from 1."""
    return text.count("\n") + 1, len(text.rpartition("\n")[2]) + 1


def _syntax_mistake(error: MarkedYAMLError, file: str) -> Mistake:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    context = f" {error.context}" if error.context else ""
    return Mistake(file, line, column, "", f"not valid YAML:{context} {error.problem}".rstrip())


class _Reader:
    """Converts a graph of YAML nodes to plain values, and records places and mistakes."""

    def __init__(self, file: str, construct: Callable[[Node], Any]) -> None:
        self.file = file
        self.construct = construct
        self.keys: dict[Path, Place] = {}
        self.values: dict[Path, Place] = {}
        self.mistakes: list[Mistake] = []

    def read(self, node: Node, path: Path) -> Any:
        self._check_limits(node, path)
        self.values[path] = self._place(node.start_mark)
        if isinstance(node, MappingNode):
            return {key: self.read(value, (*path, key)) for key, value in self._pairs(node, path)}
        if isinstance(node, SequenceNode):
            return [self.read(value, (*path, index)) for index, value in enumerate(node.value)]
        return self._scalar(node, path)

    def _check_limits(self, node: Node, path: Path) -> None:
        """Limits aliases: one may refer to its own container, and a few lines can expand to billions of values."""
        if len(path) > MAX_DEPTH:
            self._refuse(node.start_mark, path[:3], f"nested deeper than {MAX_DEPTH} levels")
            raise SweepError(self.mistakes)
        if len(self.values) >= MAX_VALUES:
            message = f"more than {MAX_VALUES} values, counting each use of an alias"
            self._refuse(node.start_mark, path[:3], message)
            raise SweepError(self.mistakes)

    def _pairs(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Node]]:
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._refuse(key.start_mark, path, "a key must be plain text")
            elif key.tag == _MERGE_KEY:
                self._refuse(key.start_mark, path, "merge keys (<<) are not supported; put shared keys in base")
            elif key.value in seen:
                self._refuse(key.start_mark, (*path, key.value), "this key is given twice")
            else:
                seen.add(key.value)
                self.keys[*path, key.value] = self._place(key.start_mark)
                yield key.value, value

    def _scalar(self, node: Node, path: Path) -> Any:
        tag = str(node.tag)
        if tag in _TEXT_TAGS:
            return node.value
        if tag not in _SCALAR_TAGS:
            self._refuse(node.start_mark, path, f"the tag {tag.removeprefix(_TAG)!r} has no meaning here")
            return node.value
        try:
            return self.construct(node)
        except ValueError:  # such as `!!int text`
            self._refuse(node.start_mark, path, f"not a valid {tag.removeprefix(_TAG)}", node.value)
            return node.value

    def _place(self, mark: StreamMark) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1)

    def _refuse(self, mark: StreamMark, path: Path, message: str, value: Any = ABSENT) -> None:
        name = ".".join(str(piece) for piece in path)
        self.mistakes.append(Mistake(self.file, mark.line + 1, mark.column + 1, name, message, value))
