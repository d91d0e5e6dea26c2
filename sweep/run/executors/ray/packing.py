"""The share of a GPU that a trial gets: the sweep file's, or a larger one where measured memory requires it.

A share of a GPU is a share of its memory.  A trial that exceeds its share is queued again with a larger one, up to
a whole GPU.  Trials of the same cost get that share from then on, also in later runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.config import TrialConfig
from results.records.atomic import write_json
from results.records.damage import DamagedFileError, read_object

FILENAME = "gpu-memory.json"

#: The GPU memory of a process besides torch's tensors: the CUDA context and libraries' handles.
CONTEXT_BYTES = 700 << 20
#: The factor on measured memory, since fragmentation differs from run to run.
_MARGIN = 1.1


@dataclass(frozen=True)
class Use:
    """The GPU memory that a trial used."""

    #: the peak of torch's reserved memory
    peak_bytes: int
    #: the memory of the whole GPU
    total_bytes: int

    @property
    def share(self) -> float:
        """The fraction of the GPU's memory, with a margin and the memory of a process's CUDA context."""
        return (self.peak_bytes * _MARGIN + CONTEXT_BYTES) / self.total_bytes


class Packing:
    """The share of a GPU that each trial gets.  Where GPUs are not shared, it is the one in the sweep file."""

    def __init__(self, share: float, shape: Callable[[TrialConfig], str], memory: Path) -> None:
        """share: `run.gpus_per_trial`; shape: equal for trials of equal cost; memory: the file of learned shares."""
        self._wanted, self._shape, self._memory = share, shape, memory
        self._learned = _read(memory)

    @property
    def is_shared(self) -> bool:
        """Whether several trials share a GPU."""
        return 0 < self._wanted < 1

    def share_of(self, config: TrialConfig) -> float:
        """The share for a trial: 1/n of a GPU, so that n trials fill it, or the share in the sweep file."""
        if not self.is_shared:
            return self._wanted
        return max(self._wanted, whole_part(self._learned.get(self._shape(config), 0.0)))

    def used(self, config: TrialConfig, use: Use) -> None:
        """Records the GPU memory of a trial that succeeded."""
        if self.is_shared:
            self._learn(config, use.share)

    def ran_out(self, config: TrialConfig, share: float) -> None:
        """Records that a trial ran out of memory with this share of a GPU: the next one is at least twice as large."""
        self._learn(config, 1 / max(math.floor(1 / share + 1e-6) // 2, 1))

    def _learn(self, config: TrialConfig, share: float) -> None:
        shape = self._shape(config)
        if share > self._learned.get(shape, 0.0):
            self._learned[shape] = min(share, 1.0)
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._memory, self._learned)


def whole_part(share: float) -> float:
    """The smallest 1/n that is at least `share`."""
    return 1.0 if share >= 1 else 0.0 if share <= 0 else 1 / math.floor(1 / share + 1e-9)


def memory_limit(share: float, total_bytes: int) -> float:
    """The fraction of a GPU's memory that torch may use in a worker with this share, without the CUDA context."""
    return max(share - CONTEXT_BYTES / total_bytes, 0.01)


def _read(path: Path) -> dict[str, float]:
    """Learned shares by shape; those that are missing or damaged are measured again."""
    try:
        content = read_object(path)
    except (FileNotFoundError, DamagedFileError):
        return {}
    return {shape: share for shape, share in content.items() if isinstance(share, float)}
