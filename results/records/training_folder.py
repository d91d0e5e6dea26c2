"""Folder of a training: its files, and the record of a finished training.

A home stores trainings separately from trials, because several trials may evaluate one training:

    trainings/<training key>/   config.json, environment.json, lock
                                journal.jsonl         what was measured while it trained
                                checkpoints/          until it is finished; with run.keep_optimizer the last one stays
                                weights.safetensors   the weights that are evaluated
                                training.json         the record, written last
    trials/<trial key>/         journal.jsonl         the training's metrics, then those of the evaluation
                                training.json         which training it evaluates
                                result.json and what it stands on
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results.records.damage import DamagedFileError, member, pass_over, read_object

RECORD_FILENAME = "training.json"
WEIGHTS_FILENAME = "weights.safetensors"

#: which trainings another one continues, the first of them first: `training` (key) and `step` (iterations)
Lineage = Sequence[Mapping[str, Any]]

Kinds = type | tuple[type, ...]
#: members that a finished training goes on from
_MEMBERS: Mapping[str, Kinds] = {
    "key": str,
    "step": int,
    "seconds": (int, float),
    "weights_sha256": str,
    "environment": dict,
}
_UNFINISHED = "the training counts as not finished"


def read_training(folder: Path) -> dict[str, Any] | None:
    """The record of a finished training; None while it is not finished.

    Keys: `key`, `step` (iterations), `judged_step` (those after which it had its weights), `seconds` spent in them,
    `continued_from` (the trainings that it continues, the first of them first: `training`, `step`), `keeps_optimizer`
    (whether its last checkpoint stays), `weights_sha256` of the file, `environment`, `data_fingerprint`,
    `data_checksum`, `weights` (frozen ones by name), `numerics`, `finished` (time).  Earlier versions lack some.
    """
    record = _record(folder, {"key": str}, _UNFINISHED)
    return record if record is not None and (folder / WEIGHTS_FILENAME).exists() else None


def read_weights(folder: Path) -> tuple[dict[str, Any], bytes] | None:
    """The record of a finished training and the content of its weights' file.

    None while it is not finished, and where the weights are damaged, which is reported.
    """
    record, path = _record(folder, _MEMBERS, _UNFINISHED), folder / WEIGHTS_FILENAME
    if record is None or not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() == record["weights_sha256"]:
        return record, content
    pass_over(DamagedFileError(path, f"its SHA-256 is not the one in {RECORD_FILENAME}"), _UNFINISHED)
    return None


def training_of(trial: Path) -> str | None:
    """Key of the training that the trial in a folder evaluates.

    None for a trivial baseline, and for a trial of an earlier version.
    """
    record = _record(trial, {"key": str}, "the training that the trial evaluates is not known from its folder")
    return None if record is None else str(record["key"])


def lineage_text(lineage: Lineage) -> str:
    """`training KEY at iteration 1000, then training KEY at iteration 2000`; empty for a training from the start."""
    return ", then ".join(f"training {each['training']} at iteration {each['step']}" for each in lineage)


def _record(folder: Path, members: Mapping[str, Kinds], consequence: str) -> dict[str, Any] | None:
    path = folder / RECORD_FILENAME
    try:
        record = read_object(path)
        for name, kind in members.items():
            member(record, name, kind, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFileError as error:
        pass_over(error, consequence)
        return None
    return record
