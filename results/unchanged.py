"""Recognises a report that is still current, so that it need not be drawn again.

A report's manifest holds the SHA-256 of each of its files, and of everything that it was made from: the plan, the
runs with the hashes of their artifacts, the tables' files, the sweep's texts, and the code that draws it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from results.load import Recorded
from results.records.hashing import file_sha256
from results.records.tags import artifact_hash
from results.records.trial_folder import MEASUREMENTS_FILENAME
from results.render import MANIFEST_FILENAME
from results.tables import SUFFIXES

#: files of this package, and packages, that determine the bytes of a report
_SOURCES = (".css", ".j2", ".js", ".py", ".yaml")
_PACKAGES = ("jinja2", "matplotlib", "numpy", "pandas", "pillow", "scipy")


def manifest(sweep: str, files: Mapping[str, bytes], made_from: str | None) -> bytes:
    """The manifest of a report with these files; `made_from` is the result of `inputs`."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    return json.dumps({"sweep": sweep, "made_from": made_from, "files": hashes}, indent=2).encode()


def listed_files(folder: Path) -> set[str]:
    """The files that the manifest of a report lists, itself included; none where there is no readable one."""
    try:
        return {MANIFEST_FILENAME, *map(str, _read(folder)["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def is_current(folder: Path, made_from: str | None) -> bool:
    """Whether a folder holds exactly the report that was made from these inputs."""
    if made_from is None:
        return False
    try:
        content = _read(folder)
        hashes = dict(content["files"])
        present = {path.name for path in folder.iterdir()} - {MANIFEST_FILENAME}
        return (
            content["made_from"] == made_from
            and present == set(hashes)
            and all(file_sha256(folder / name) == sha256 for name, sha256 in hashes.items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def inputs(recorded: Recorded, tables: Sequence[str], notes: str | None, labels: Mapping[str, str]) -> str | None:
    """SHA-256 of what a report is made from; None where that is still changing, or is not all there."""
    states = [recorded.state(trial) for trial in recorded.trials]
    if any(state == "running" for state, _ in states):
        return None
    if any(artifact_hash(run.tags, MEASUREMENTS_FILENAME) is None for run in recorded.finished):
        return None
    # The store compares an artifact with its recorded hash.
    found = recorded.store.read(recorded.finished, MEASUREMENTS_FILENAME, Path.exists)
    if any(isinstance(problem, Exception) for problem in found):
        return None
    content: list[Any] = [
        _code(),
        recorded.plan.to_json(),
        {key: astuple(run) for key, run in recorded.runs.items()},
        states,
        {key: astuple(costs) for key, costs in recorded.costs.items()},
        [[table, _table_file(table)] for table in tables],
        notes,
        dict(labels),
    ]
    # Sorted, since a store returns runs and tags in any order.
    return hashlib.sha256(json.dumps(content, default=str, sort_keys=True).encode()).hexdigest()


def _table_file(table: str) -> str | None:
    """SHA-256 of a table's file; None for a built-in table, whose name a file in the working directory may have."""
    return file_sha256(Path(table)) if table.endswith(SUFFIXES) and Path(table).is_file() else None


def _read(folder: Path) -> Any:
    return json.loads((folder / MANIFEST_FILENAME).read_text(encoding="utf-8"))


@cache
def _code() -> list[str]:
    """This package's files and the versions of those that it draws with."""
    root = Path(__file__).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in _SOURCES)
    return [
        *(f"{path.relative_to(root)} {file_sha256(path)}" for path in files),
        *(f"{name} {metadata.version(name)}" for name in _PACKAGES),
    ]
