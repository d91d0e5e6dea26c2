"""Gathers images on a device: from the memory-mapped file, or from a copy of all of them on the GPU."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.memory import free_gpu_memory

#: A GPU keeps an array of a store if it takes no more than this share of its free memory.
_MEMORY_SHARE = 0.4


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


@lru_cache(maxsize=6)  # images, masks and depth of the current and the previous dataset
def _on_device(store: Path, name: str, device: torch.device) -> Tensor | None:
    """The whole array on the device; None where it does not fit."""
    array = np.load(store / f"{name}.npy", mmap_mode="r")
    if array.nbytes > _MEMORY_SHARE * free_gpu_memory(device):
        return None
    return torch.from_numpy(np.array(array)).to(device)
