"""Reimplements the image steps of Splatter Image's CO3D preprocessing one by one, without PyTorch3D.

Numbers of the mask's box (threshold, context, 800 px) are the defaults of PyTorch3D's `JsonIndexDataset`, through
which the published preprocessing reads masks; its bilinear resizing of tensors has no antialiasing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jobs.data.importers.crops import Box
from jobs.data.inspect import bounding_box

if TYPE_CHECKING:  # takes seconds, and only this way of shrinking needs it
    from torch import Tensor

#: The mask is cropped to pixels above this probability, with this share of the box's size as margin.
BOX_THRESHOLD, BOX_CONTEXT = 0.4, 0.3
#: Step by which the threshold is lowered until a pixel exceeds it.
THRESHOLD_STEP = 0.05
#: The longer side of the mask that PyTorch3D returns, pixels.
MASK_SIDE = 800


def shrink(picture: np.ndarray, mask: np.ndarray, square: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours and mask of the square in `picture` (H, W, 3) uint8 at size x size pixels.

    mask: (H, W) probability in [0, 1]; square: of a side that need not be whole.
    Returns uint8 (size, size, 3) and float32 (size, size).
    """
    import torch
    from torch.nn import functional as F

    foreground = torch.from_numpy(_through_box(mask))[None, None]
    colours = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    # The last step before Pillow truncates to integers; it does not round.
    cropped = (_crop(colours, square)[0] * 255).byte().permute(1, 2, 0).numpy()
    small = Image.fromarray(cropped).resize((size, size), Image.Resampling.LANCZOS)
    shrunk = F.interpolate(_crop(foreground, square), (size, size), mode="bilinear", align_corners=False)
    return np.asarray(small), shrunk[0, 0].numpy()


def _through_box(mask: np.ndarray) -> np.ndarray:
    """The mask (H, W) after resizing its box to 800 px by nearest neighbours, and back bilinearly."""
    import torch
    from torch.nn import functional as F

    left, top, right, bottom = _box_around(mask)
    inside = torch.from_numpy(np.ascontiguousarray(mask[top:bottom, left:right], np.float32))[None, None]
    scale = min(MASK_SIDE / (bottom - top), MASK_SIDE / (right - left))
    enlarged = F.interpolate(inside, scale_factor=scale, mode="nearest", recompute_scale_factor=True)
    # PyTorch3D marks all but the last row and column as valid, and pastes back only valid pixels.
    filled = enlarged[..., : max(enlarged.shape[-2] - 1, 1), : max(enlarged.shape[-1] - 1, 1)]
    pasted = np.zeros(mask.shape, np.float32)
    back = F.interpolate(filled, (bottom - top, right - left), mode="bilinear", align_corners=False)
    pasted[top:bottom, left:right] = back[0, 0].numpy()
    return pasted


def _box_around(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the object's box with its context, whole pixels within the mask (H, W)."""
    threshold, above = BOX_THRESHOLD, mask > BOX_THRESHOLD
    while above.sum() <= 1:
        threshold -= THRESHOLD_STEP
        above = mask > threshold
    left, top, right, bottom = bounding_box(above)
    low = np.array([left, top], np.float32)
    extent = np.array([right - 1, bottom - 1], np.float32) - low
    low -= extent * BOX_CONTEXT / 2
    high = low + np.maximum(extent * (1 + BOX_CONTEXT), 2) + 1
    bounds = np.array(mask.shape[::-1])
    left, top = (round(float(value)) for value in np.clip(low, 0, bounds))
    right, bottom = (round(float(value)) for value in np.clip(high, 0, bounds))
    return left, top, right, bottom


def _crop(picture: Tensor, square: Box) -> Tensor:
    """The square of a picture (1, C, H, W), (1, C, n, n): bilinear samples about a pixel apart, n being whole."""
    import torch
    from torch.nn import functional as F

    left, top, right, bottom = square
    count = math.floor(right - left)
    half = (right - left) / 2
    inset = 0.5 / count  # as published, in pixels; probably half a pixel was intended
    steps = torch.linspace(-half + inset, half - inset, count)
    x = ((left + right) / 2 + steps) * 2 / picture.shape[-1] - 1
    y = ((top + bottom) / 2 + steps) * 2 / picture.shape[-2] - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
