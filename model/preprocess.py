"""Preprocessing of images for frozen models: resizing and normalisation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Triple = tuple[float, float, float]
Interpolation = Literal["bilinear", "bicubic"]

#: (mean, standard deviation) of red, green and blue in [0, 1], from the models' training.
HALF: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: tuple[Triple, Triple] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def prepare(
    images: Tensor,
    size: tuple[int, int] | None,
    mean: Triple | None,
    std: Triple | None,
    *,
    interpolation: Interpolation = "bicubic",
    antialias: bool = True,
) -> Tensor:
    """Resize, then normalise: (N, 3, H, W) RGB in [0, 1] -> (N, 3, *size), (values - mean) / std.

    `size` (height, width) None keeps the size, `mean` and `std` None the values.  With `antialias` the
    result equals that of PIL's filters before rounding to bytes, also for downscaling; without, it equals that
    of plain `F.interpolate`.  Bicubic values are clamped to [0, 1], as bytes would be.
    """
    images = resize(images, size, interpolation=interpolation, antialias=antialias).clamp(0, 1)
    if mean is not None:
        images = images - torch.tensor(mean, dtype=images.dtype, device=images.device)[:, None, None]
    if std is not None:
        images = images / torch.tensor(std, dtype=images.dtype, device=images.device)[:, None, None]
    return images


def resize(
    pictures: Tensor, size: tuple[int, int] | None, *, interpolation: Interpolation, antialias: bool = False
) -> Tensor:
    """(N, C, H, W) -> (N, C, *size), pixel centres at half integers; the input itself if it has that size."""
    if size is None or tuple(pictures.shape[-2:]) == tuple(size):
        return pictures
    return F.interpolate(pictures, size, mode=interpolation, align_corners=False, antialias=antialias)


def next_multiple(length: int, of: int) -> int:
    """The smallest multiple of `of` that is no less than `length`."""
    return -(-length // of) * of
