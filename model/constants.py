"""Small constant tensors, made once for each device."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def constant(values: Any, like: Tensor) -> Tensor:
    """`values`, nested lists or tuples of numbers, in the dtype and on the device of `like`; not to be changed.

    A tensor that is made from numbers on a GPU has the host wait for the device, in every step that makes one.
    """
    return _constant(_frozen(values), like.dtype, like.device)


@lru_cache(maxsize=256)
def _constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # an evaluation that comes first must not spoil it for training
        return torch.tensor(values, dtype=dtype, device=device)


def _frozen(values: Any) -> Any:
    return tuple(map(_frozen, values)) if isinstance(values, list | tuple) else values
