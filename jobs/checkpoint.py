"""Saves and restores training states: weights, Adam's state, the step, the running averages.

Sampling and dropout are functions of (seed, iteration), so no random state is stored.  A checkpoint is a
safetensors file and a JSON file with the hash of both.  They are written under a temporary name, synced and renamed,
the JSON last.  The last two checkpoints are kept; if the newest is damaged, the one before is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from jobs.adam import FlatAdam
from jobs.flat import to_logical_order, to_memory_order
from results.records.atomic import write_atomically

KEEP = 2
_STEP_DIGITS = 9
#: prefix of the names of Adam's tensors
_OPTIMIZER = "optimizer."
#: that of earlier versions, which stored Adam's state in the order of memory
_FORMER_OPTIMIZER = "optimizer.0."

log = logging.getLogger(__name__)


class FormerCheckpointError(ValueError):
    """A checkpoint was written by an earlier version and cannot be continued."""


@dataclass(frozen=True)
class Checkpoint:
    """A state of training after `step` finished iterations."""

    step: int
    tensors: dict[str, Tensor]
    #: small exact values: running averages, seconds spent
    extra: dict[str, Any]

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """The weights to evaluate: the best where they are kept, else the moving average, else the network's."""
        return evaluated_weights(self.tensors)

    @property
    def best(self) -> dict[str, Tensor]:
        """The weights with the best score so far; empty where the last are kept."""
        return _without_prefix(self.tensors, "best.")

    def restore(
        self,
        network: nn.Module,
        optimizer: FlatAdam | None = None,
        average: nn.Module | None = None,
    ) -> None:
        """Restore the weights, and the moving average and Adam's state where these are given.

        `average` may be the network itself, if averaging is off.  A checkpoint of weights alone leaves Adam as it is.
        """
        network.load_state_dict(_without_prefix(self.tensors, "network."))
        if average is not None and average is not network:
            average.load_state_dict(_without_prefix(self.tensors, "average."))
        state = _without_prefix(self.tensors, _OPTIMIZER)
        if optimizer is not None and state:
            optimizer.load({name: to_memory_order(t, network) if t.dim() else t for name, t in state.items()})


def capture(
    step: int,
    network: nn.Module,
    optimizer: FlatAdam,
    average: nn.Module,
    extra: dict[str, Any],
    best: Mapping[str, Tensor] = MappingProxyType({}),
) -> Checkpoint:
    """The current state; weights share memory with the networks.

    `average` may be the network itself; `best` are the best weights so far, where these are kept.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    if average is not network:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for name, tensor in optimizer.state.items():
        tensors[f"{_OPTIMIZER}{name}"] = to_logical_order(tensor, network) if tensor.dim() else tensor
    return Checkpoint(step, tensors, extra)


class CheckpointFolder:
    """The checkpoints of one training."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint) -> None:
        """Write one, then drop all but the last two; what is beyond its step was damaged."""
        stem = f"{checkpoint.step:0{_STEP_DIGITS}d}"
        self._write(checkpoint, stem)
        self._keep([path.stem for path in self._records() if path.stem <= stem][-KEEP:])

    def _write(self, checkpoint: Checkpoint, stem: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        data = save({name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()})
        record = {
            "step": checkpoint.step,
            "sha256": _hash(data, checkpoint.step, checkpoint.extra),
            "extra": checkpoint.extra,
        }
        write_atomically(self.folder / f"{stem}.safetensors", data)
        write_atomically(self.folder / f"{stem}.json", json.dumps(record).encode())

    def _keep(self, stems: Collection[str]) -> None:
        """Delete all other files: other checkpoints, and partial files of killed writers."""
        for path in self.folder.glob("*"):
            if path.stem not in stems:
                path.unlink()

    def latest(self) -> Checkpoint | None:
        """The newest sound checkpoint, or None where there is none.  Raises `FormerCheckpointError`."""
        for path in reversed(self._records()):
            try:
                return _read(path)
            except FormerCheckpointError:
                raise
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("checkpoint %s is damaged and passed over: %s", path.name, error)
        return None

    def refusal(self) -> str:
        """The reason why the newest checkpoint cannot be continued, its earlier version; else "".  Reads no tensors."""
        for path in reversed(self._records()):
            try:
                with safe_open(path.with_suffix(".safetensors"), "pt") as file:
                    return _refusal(path, file.keys())
            except (OSError, SafetensorError):  # damaged: `latest` passes over it
                continue
        return ""

    def is_empty(self) -> bool:
        """Whether there is no checkpoint, sound or damaged."""
        return not self._records()

    def keep_newest(self) -> None:
        """Delete all but the newest checkpoint."""
        self._keep([path.stem for path in self._records()[-1:]])

    def _records(self) -> list[Path]:
        return sorted(self.folder.glob("*.json"))


def evaluated_weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights to evaluate among a checkpoint's tensors; all tensors of a file that holds nothing else."""
    prefixes = ("best.", "average.", "network.")
    return next((found for prefix in prefixes if (found := _without_prefix(tensors, prefix))), tensors)


def _read(path: Path) -> Checkpoint:
    record = json.loads(path.read_text())
    data = path.with_suffix(".safetensors").read_bytes()
    found = _hash(data, record["step"], record["extra"])
    if found != record["sha256"]:
        raise ValueError(f"sha256 {found}, expected {record['sha256']}")
    tensors = load(data)
    if refusal := _refusal(path, tensors):
        raise FormerCheckpointError(refusal)
    return Checkpoint(record["step"], tensors, record["extra"])


def _refusal(path: Path, names: Iterable[str]) -> str:
    """The reason why a checkpoint with tensors of these names cannot be continued; "" where it can."""
    if not any(name.startswith(_FORMER_OPTIMIZER) for name in names):
        return ""
    return f"{path} was written by an earlier version and cannot be continued; to train anew, delete {path.parent}"


def _hash(data: bytes, step: int, extra: dict[str, Any]) -> str:
    """SHA-256 of the tensors and of the record stored with them, so that damage to either is detected."""
    found = hashlib.sha256(data)
    found.update(json.dumps([step, extra]).encode())
    return found.hexdigest()


def _without_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
