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

Homes of earlier versions keep a trial's checkpoints in its own folder; they can still be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results.records.damage import DamagedFileError, member, pass_over, read_object

RECORD_FILENAME = "training.json"
WEIGHTS_FILENAME = "weights.safetensors"

#: which trainings another one continues, the first of them first: `training` (key) and `step` (iterations)
Lineage = Sequence[Mapping[str, Any]]


def read_training(folder: Path) -> dict[str, Any] | None:
    """The record of a finished training; None while it is not finished.

    Keys: `key`, `step` (iterations), `judged_step` (those after which it had its weights), `seconds` spent in them,
    `continued_from` (the trainings that it continues, the first of them first: `training`, `step`), `keeps_optimizer`
    (whether its last checkpoint stays), `weights_sha256` of the file, `environment`, `data_fingerprint`, `weights`
    (frozen ones by name), `numerics`, `finished` (time).  Earlier versions lack some.
    """
    record = _record(folder, "the training counts as not finished")
    return record if record is not None and (folder / WEIGHTS_FILENAME).exists() else None


def training_of(trial: Path) -> str | None:
    """Key of the training that the trial in a folder evaluates; None for controls and trials of earlier versions."""
    record = _record(trial, "the training that the trial evaluates is not known from its folder")
    return None if record is None else str(record["key"])


def lineage_text(lineage: Lineage) -> str:
    """`training KEY at iteration 1000, then training KEY at iteration 2000`; empty for a training from the start."""
    return ", then ".join(f"training {each['training']} at iteration {each['step']}" for each in lineage)


def _record(folder: Path, consequence: str) -> dict[str, Any] | None:
    path = folder / RECORD_FILENAME
    try:
        record = read_object(path)
        member(record, "key", str, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFileError as error:
        pass_over(error, consequence)
        return None
    return record
