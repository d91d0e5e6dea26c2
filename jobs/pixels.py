"""Pixels as whole numbers from 0 to 255."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def as_bytes(values: torch.Tensor) -> NDArray[np.uint8]:
    """Values in [0, 1], rounded; others become the nearest of these."""
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def as_pictures(images: torch.Tensor) -> NDArray[np.uint8]:
    """Images (..., 3, H, W) in [0, 1] -> (..., H, W, 3)."""
    return np.moveaxis(as_bytes(images), -3, -1)
