"""Table files: YAML that lists the tables of a report.

tables:
  - kind: rows
    name: depth
    caption: Depth as input
    columns: [novel_psnr, {metric: lpips, label: LPIPS, precision: 2}]
    baseline: without depth
    sections:
      - rows:
          - {label: without depth, select: {depth.model: none}}
          - {label: with depth, select: {depth.model: "dpt_*"}, references: {novel_psnr: 21.12}}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from results.errors import ResultsError
from results.tables.options import Options

_MAX_BYTES = 1 << 18


@dataclass(frozen=True)
class TableMistake:
    """A value of a table file that is wrong, or a table whose keys are."""

    path: tuple[str | int, ...]
    message: str = ""
    value: Any = None
    allowed: tuple[str, ...] = ()
    #: of a table whose keys are wrong: its options, and what is wrong with them
    options: type[Options] | None = None
    error: ValidationError | None = None

    def __str__(self) -> str:
        if self.error is None:
            allowed = f"; allowed: {', '.join(self.allowed)}" if self.allowed else ""
            return f"{_joined(self.path)}: {self.message} {self.value!r}{allowed}"
        return "\n".join(_message(self.path, details) for details in self.error.errors(include_url=False))


class TableFileError(ResultsError):
    """The values of a table file that are wrong; `str()` gives a line for each."""

    def __init__(self, path: Path, mistakes: Sequence[TableMistake]) -> None:
        self.mistakes = tuple(mistakes)
        lines = [line for mistake in mistakes for line in str(mistake).splitlines()]
        super().__init__("\n".join(f"{path}: {line}" for line in lines))


def read_tables(path: Path, kinds: dict[str, str]) -> list[tuple[ModuleType, Options]]:
    """The kind and the options of each table in a file.

    Raises `TableFileError` with all wrong values, and `ResultsError` for a file that is no YAML or cannot be read.
    """
    content = _parsed(path)
    if not isinstance(content, dict) or list(content) != ["tables"] or not isinstance(content["tables"], list):
        raise ResultsError(f"{path}: a table file holds the one key `tables`, a list of tables")
    tables: list[tuple[ModuleType, Options]] = []
    mistakes: list[TableMistake] = []
    for index, entry in enumerate(content["tables"]):
        read = _read(entry, ("tables", index), kinds)
        if isinstance(read, TableMistake):
            mistakes.append(read)
        else:
            tables.append(read)
    if mistakes:
        raise TableFileError(path, mistakes)
    return tables


def _parsed(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ResultsError(f"{path}: larger than {_MAX_BYTES} bytes, which no table file is")
        # YAML 1.2, in which `no` is text and `1e-5` a number; safe, so no tag builds anything.
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read as a table file: {error.strerror}") from error
    except RecursionError:
        raise ResultsError(f"{path}: is not YAML of a table file: nested too deeply") from None
    except (YAMLError, ValueError) as error:  # ValueErrors for a `!!int text`, a month 13, or other than UTF-8
        raise ResultsError(f"{path}: is not YAML: {error}") from error


def _read(entry: Any, path: tuple[str | int, ...], kinds: dict[str, str]) -> tuple[ModuleType, Options] | TableMistake:
    if not isinstance(entry, dict):
        return TableMistake(path, "not a mapping of keys to values:", entry)
    kind = entry.get("kind", "rows")
    if not isinstance(kind, str) or kind not in kinds:
        return TableMistake((*path, "kind"), "unknown kind", kind, tuple(sorted(kinds)))
    module = import_module(kinds[kind])
    try:
        return module, module.Options.model_validate({key: value for key, value in entry.items() if key != "kind"})
    except ValidationError as error:
        return TableMistake(path, options=module.Options, error=error)


def _message(path: tuple[str | int, ...], details: Any) -> str:
    received = "" if isinstance(details["input"], dict) else f" (received {details['input']!r})"
    return f"{_joined((*path, *details['loc']))}: {details['msg'].removeprefix('Value error, ')}{received}"


def _joined(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))
