"""Small constant tensors, created once for each device."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor) -> Tensor:
    """`values`, nested lists or tuples of numbers, as a tensor like `like` in dtype and device; must not be modified.

    Creating a GPU tensor from numbers synchronises host and device, so it is done once and not in every step.
    """
    return _constant(_frozen(values), like.dtype, like.device)


@lru_cache(maxsize=256)
def _constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # an inference tensor, cached by an evaluation, could not be used in training
        return torch.tensor(values, dtype=dtype, device=device)


def _frozen(values: Any) -> Any:
    return tuple(map(_frozen, values)) if isinstance(values, list | tuple) else values
