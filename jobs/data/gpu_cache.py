"""Pictures where they are needed: gathered from the mapped file, or on a GPU that holds all of them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: A GPU keeps an array of a store if it takes no more than this share of its free memory.
_RESIDENT_SHARE = 0.4


def take(store: Path, name: str, array: np.ndarray, frames: np.ndarray, device: torch.device | str) -> Tensor:
    """`array[frames]` on `device`; `name` is the array's in `store`.

    On a GPU the whole array is there after the first call, where it fits, so that a step moves indices only.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return torch.from_numpy(array[frames])
    resident = _resident(store, name, device)
    if resident is None:
        return torch.from_numpy(array[frames]).pin_memory().to(device, non_blocking=True)
    return resident[torch.from_numpy(frames).to(device, non_blocking=True)]


@lru_cache(maxsize=4)  # pictures and depth of the dataset at hand and of the one before
def _resident(store: Path, name: str, device: torch.device) -> Tensor | None:
    array = np.load(store / f"{name}.npy", mmap_mode="r")
    if array.nbytes > _RESIDENT_SHARE * _free_memory(device):
        return None
    return torch.from_numpy(np.array(array)).to(device)


def _free_memory(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0])
