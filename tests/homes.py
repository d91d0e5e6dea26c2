"""Folders as trials leave them, written without training anything."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from results.records.home import trial_folder
from results.records.trial_folder import MEASUREMENTS_FILENAME, RESULT_FILENAME


def write_result(folder: Path, measurements: bytes = b"rows", **result: Any) -> None:
    """Writes the scores by which a trial is finished; `result` are members of its result."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MEASUREMENTS_FILENAME).write_bytes(measurements)
    result = {"metrics": {}, "per_object_sha256": hashlib.sha256(measurements).hexdigest(), **result}
    (folder / RESULT_FILENAME).write_text(json.dumps(result))


def finish(home: Path, key: str, data: str = "chairs", step: int = 10, **scores: float) -> None:
    """Writes a finished trial's folder."""
    folder = trial_folder(home, key)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    metrics = {name.replace("_", "/", 1): score for name, score in scores.items()}
    write_result(folder, metrics=metrics, data_fingerprint=data, step=step)
