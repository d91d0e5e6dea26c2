"""A trial's sample renders as one image: each row an object with its source, then pairs of truth and render."""

from __future__ import annotations

import numpy as np
from PIL import Image

_GAP = 2
_SCALE = 3


def sample_sheet(samples: dict[str, np.ndarray]) -> Image.Image:
    """`jobs.evaluate.Evaluation.samples` -> a picture, enlarged without smoothing, white between the tiles."""
    rows = []
    for source, targets, renders in zip(samples["source"], samples["target"], samples["render"], strict=True):
        pairs = [tile for pair in zip(targets, renders, strict=True) for tile in pair]
        rows.append(np.concatenate([_framed(tile) for tile in [source, *pairs]], axis=1))
    return Image.fromarray(np.concatenate(rows, axis=0))


def _framed(tile: np.ndarray) -> np.ndarray:
    """(3, H, W) -> (H', W', 3), enlarged, with a gap on all sides."""
    enlarged = tile.transpose(1, 2, 0).repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    return np.pad(enlarged, ((_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255)
