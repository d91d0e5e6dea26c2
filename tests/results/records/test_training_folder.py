"""Records of finished trainings, and their weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from results.records.training_folder import read_training, read_weights, training_of

WEIGHTS = b"some tensors"
RECORD = {
    "key": "t1",
    "step": 18,
    "seconds": 1.5,
    "weights_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    "environment": {"arithmetic": []},
}


def write(folder: Path, record: Any, weights: bytes | None = WEIGHTS) -> Path:
    (folder / "training.json").write_text(record if isinstance(record, str) else json.dumps(record))
    if weights is not None:
        (folder / "weights.safetensors").write_bytes(weights)
    return folder


def test_a_finished_training(tmp_path: Path) -> None:
    assert read_weights(tmp_path) is None
    folder = write(tmp_path, RECORD)
    assert read_weights(folder) == (RECORD, WEIGHTS)
    assert read_training(folder) == RECORD
    assert training_of(folder) == "t1"
    (folder / "weights.safetensors").unlink()
    assert read_training(folder) is None
    assert read_weights(folder) is None


@pytest.mark.parametrize("name", RECORD)
@pytest.mark.parametrize("value", ["absent", None, [], True])
def test_a_record_with_another_member_is_no_finished_training(tmp_path: Path, name: str, value: Any, caplog) -> None:
    record = {**RECORD, name: value}
    if value == "absent":
        del record[name]
    assert read_weights(write(tmp_path, record)) is None
    assert "training.json cannot be used: " in caplog.text
    assert name in caplog.text
    assert (read_training(tmp_path) is None) == (training_of(tmp_path) is None) == (name == "key")


@pytest.mark.parametrize("record", ["", "{", "[]", "null", "\0"])
def test_a_damaged_record_is_passed_over(tmp_path: Path, record: str, caplog) -> None:
    folder = write(tmp_path, record)
    assert read_training(folder) is None
    assert read_weights(folder) is None
    assert training_of(folder) is None
    assert "training.json cannot be used: " in caplog.text


@pytest.mark.parametrize("weights", [b"", WEIGHTS[:-1], WEIGHTS + b"\0"])
def test_damaged_weights_are_no_finished_training(tmp_path: Path, weights: bytes, caplog) -> None:
    assert read_weights(write(tmp_path, RECORD, weights)) is None
    assert "weights.safetensors cannot be used: its SHA-256 is not the one in training.json" in caplog.text
