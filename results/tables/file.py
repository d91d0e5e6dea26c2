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


def read_tables(path: Path, kinds: dict[str, str]) -> list[tuple[ModuleType, Options]]:
    """The kind and the options of each table in a file.

    Raises `ResultsError` naming the file, the place in it, the value there and the allowed ones.
    """
    content = _parsed(path)
    if not isinstance(content, dict) or list(content) != ["tables"] or not isinstance(content["tables"], list):
        raise ResultsError(f"{path}: a table file holds the one key `tables`, a list of tables")
    return [_read(entry, f"{path}: tables.{index}", kinds) for index, entry in enumerate(content["tables"])]


def _parsed(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ResultsError(f"{path}: larger than {_MAX_BYTES} bytes, which no table file is")
        # YAML 1.2, in which `no` is text and `1e-5` a number; safe, so no tag builds anything.
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read as a table file: {error.strerror}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: is not YAML: {error}") from error


def _read(entry: Any, place: str, kinds: dict[str, str]) -> tuple[ModuleType, Options]:
    if not isinstance(entry, dict):
        raise ResultsError(f"{place}: a table is a mapping, not {entry!r}")
    kind = entry.get("kind", "rows")
    if kind not in kinds:
        raise ResultsError(f"{place}.kind: unknown kind {kind!r}; allowed: {', '.join(sorted(kinds))}")
    module = import_module(kinds[kind])
    try:
        return module, module.Options.model_validate({key: value for key, value in entry.items() if key != "kind"})
    except ValidationError as error:
        raise ResultsError("\n".join(_message(place, mistake) for mistake in error.errors())) from None


def _message(place: str, mistake: Any) -> str:
    where = ".".join([place, *map(str, mistake["loc"])])
    received = "" if isinstance(mistake["input"], dict) else f" (received {mistake['input']!r})"
    return f"{where}: {mistake['msg'].removeprefix('Value error, ')}{received}"
