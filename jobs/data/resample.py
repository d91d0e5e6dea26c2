"""Downscaling by area: each pixel is the mean over the area it covers, fractions of pixels included."""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np
import torch
from torch import Tensor

from jobs.precision import products


def area_mean(pictures: Tensor, side: int) -> Tensor:
    """Bytes (..., S, S) -> means in [0, 1], (..., side, side) float32; S >= side."""
    size = pictures.shape[-1]
    if size == side:
        return pictures.float().div_(255)
    return _area_sum(pictures.float(), side).div_(255 * (size // gcd(size, side)) ** 2)


def area_mean_of_valid(maps: Tensor, side: int) -> Tensor:
    """Means (..., side, side) of the values > 0 of `maps` (..., S, S); 0 where a pixel covers none."""
    maps = maps.float()
    if maps.shape[-1] == side:
        return maps
    return _area_sum(maps, side) / _area_sum((maps > 0).float(), side).clamp_(min=1)


def _area_sum(pictures: Tensor, side: int) -> Tensor:
    """Sums over the pixels that each small pixel covers, weighted by the overlap in integer units.

    Integers make sums of bytes exact in float32 (for S up to 256, and wherever `side` divides S): neither
    threads nor the order of addition change a bit.
    """
    size = pictures.shape[-1]
    if size % side == 0:
        return _block_sum(pictures, size // side)
    weights = _overlaps(size, side, pictures.device)
    with products("float32"):
        return weights @ pictures @ weights.T


def _block_sum(pictures: Tensor, factor: int) -> Tensor:
    """Sums over blocks of factor x factor pixels, in half the time of `avg_pool2d`."""
    rows = sum((pictures[..., i::factor, :] for i in range(1, factor)), start=pictures[..., ::factor, :])
    return sum((rows[..., i::factor] for i in range(1, factor)), start=rows[..., ::factor])


@lru_cache(maxsize=16)
def _overlaps(size: int, side: int, device: torch.device) -> Tensor:
    """Overlap of each of `size` pixels with each of `side` small ones, (side, size), in integer units."""
    unit = gcd(size, side)
    small, large = np.arange(side + 1) * (size // unit), np.arange(size + 1) * (side // unit)
    ends = np.minimum(small[1:, None], large[None, 1:])
    starts = np.maximum(small[:-1, None], large[None, :-1])
    with torch.inference_mode(False):  # an inference tensor, cached by an evaluation, could not be used in training
        return torch.from_numpy(np.maximum(ends - starts, 0).astype(np.float32)).to(device)
