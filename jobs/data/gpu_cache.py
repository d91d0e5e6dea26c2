"""Gathers images on a device: from the memory-mapped file, or from a copy of all of them on the GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.memory import may_cache, watch_gpu_memory

#: A GPU keeps an array of a store if it takes no more than this share of its free memory.
_MEMORY_SHARE = 0.4

#: Store, name and device of an array -> its copy there; None where it does not fit.
_held: dict[tuple[Path, str, torch.device], Tensor | None] = {}


def take(store: Path, name: str, array: np.ndarray, frames: np.ndarray, device: torch.device | str) -> Tensor:
    """`array[frames]` on `device`; `name` is the array's name in `store`.

    If the whole array fits on a GPU, the first call copies it there, and later calls transfer indices only.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return torch.from_numpy(array[frames])
    cached = _on_device(store, name, device)
    if cached is None:
        return torch.from_numpy(array[frames]).pin_memory().to(device, non_blocking=True)
    return cached[torch.from_numpy(frames).to(device, non_blocking=True)]


def keep_only(store: Path | None) -> None:
    """Frees the arrays of other stores: a trial has the memory, and uses the memory, that it would have alone.

    None: frees all.
    """
    others = [key for key, array in _held.items() if key[0] != store or array is None]
    freed = [key for key in others if _held.pop(key) is not None]
    if freed:
        watch_gpu_memory()


def _on_device(store: Path, name: str, device: torch.device) -> Tensor | None:
    """The whole array on the device; None where it does not fit."""
    key = store, name, device
    if key not in _held:
        array = np.load(store / f"{name}.npy", mmap_mode="r")
        fits = may_cache(array.nbytes, _MEMORY_SHARE, device)
        _held[key] = torch.from_numpy(np.array(array)).to(device) if fits else None
    return _held[key]
