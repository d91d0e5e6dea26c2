"""Folder of a training: its files, and the record that it has once it is finished.

A home keeps trainings apart from trials, because several trials may judge one training:

    trainings/<training key>/   config.json, environment.json, lock
                                journal.jsonl         what was measured while it trained
                                checkpoints/          until it is finished
                                weights.safetensors   the weights that are judged
                                training.json         the record, written last
    trials/<trial key>/         journal.jsonl         the training's metrics, then those of the judgement
                                training.json         which training it judges
                                result.json and what it stands on

Homes of the versions before keep a trial's checkpoints in its own folder; they can still be read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD_FILENAME = "training.json"
WEIGHTS_FILENAME = "weights.safetensors"


def read_training(folder: Path) -> dict[str, Any] | None:
    """The record of a finished training; None while it is not finished.

    Keys: `key`, `step` (iterations), `seconds` spent in them, `weights_sha256` of the file, `environment`,
    `data_fingerprint`, `weights` (frozen ones by name), `numerics`, `finished` (time).
    """
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILENAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record if (folder / WEIGHTS_FILENAME).exists() else None


def training_of(trial: Path) -> str | None:
    """Key of the training that the trial in a folder judges; None for a control, and a trial of a version before."""
    try:
        key: str = json.loads((trial / RECORD_FILENAME).read_text(encoding="utf-8"))["key"]
    except FileNotFoundError:
        return None
    return key
