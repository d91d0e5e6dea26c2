"""Square crops of pictures."""

from __future__ import annotations

import numpy as np

#: Left, top, right, bottom, pixels.
Box = tuple[float, float, float, float]

#: A crop smaller than this, in pixels, is rejected.
MIN_CROP = 8


def square_around(principal: np.ndarray, size: tuple[int, int]) -> Box | None:
    """Left, top, right, bottom of the largest square centred on a point (x, y) of a picture of `size` (W, H)."""
    half = float(min(*principal, *(np.array(size) - principal)))
    if half < MIN_CROP / 2:
        return None
    x, y = (float(value) for value in principal)
    return x - half, y - half, x + half, y + half
