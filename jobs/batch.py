"""The data of one training step: source views, target views, and the compared pixels."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from jobs.config import TrialConfig
from jobs.data.sampling import training_frames, training_pixels
from jobs.data.store import Store
from model.methods.base import Targets
from model.types import Pixels, Rendering, Views

#: Smallest difference of any channel from the background that makes a pixel part of the object: half a step of uint8.
_VISIBLE = 0.5 / 255


@dataclass(frozen=True)
class Batch:
    """Source views of B objects, and the views or pixels that a step compares with the data."""

    views: Views  # (B, S + V), or (B, V) with the sources among them
    sources: int  # S
    pixels: Pixels | None  # of `seen`; None: all of them

    @property
    def source(self) -> Views:
        """(B, S); views of the same memory as all."""
        return self.views.select(0, self.sources)

    @property
    def seen(self) -> Views:
        """(B, V); the cameras that render.  Those of a method that compares pixels are no sources."""
        return self.views if self.pixels is None else self.views.select(self.sources, self.views.images.shape[1])

    @property
    def target(self) -> Rendering:
        """Ground truth in the form of a rendering."""
        images = self.seen.images
        return Rendering(images if self.pixels is None else self.pixels.of(images))


def draw_batch(
    store: Store, objects: pd.DataFrame, config: TrialConfig, iteration: int, device: torch.device | str = "cpu"
) -> Batch:
    """The batch of one step, a function of the seed and the iteration.

    For a method that compares whole views, the sources are among the targets, as in Splatter Image.  A method that
    compares pixels draws them from `train.views_per_object` views, chosen among all of the object's.
    """
    targets, sources, train = config.method.targets(config.model), config.model.input_views, config.train
    frames = training_frames(
        objects,
        seed=config.seed,
        iteration=iteration,
        batch_size=train.batch_size,
        views=train.views_per_object,
        input_views=sources,
        sources_apart=targets.pixels is not None,
    )
    # Frozen models that read depth are cached, so their values are in the features.
    views = store.views(frames, config.data.resolution, device, depth=False)
    if targets.pixels is None:
        return Batch(views, sources, None)
    in_box = iteration < targets.in_box_until
    coverage = store.masks(frames[:, sources:], config.data.resolution, device) if in_box else None
    seen = views.select(sources, frames.shape[1])
    return Batch(views, sources, _draw_pixels(seen, coverage, targets, config, iteration))


def _draw_pixels(seen: Views, coverage: Tensor | None, targets: Targets, config: TrialConfig, iteration: int) -> Pixels:
    batch, views, _, height, width = seen.images.shape
    assert targets.pixels is not None
    drawn = training_pixels(seed=config.seed, iteration=iteration, batch_size=batch, views=views, pixels=targets.pixels)
    view, place = (torch.from_numpy(part).to(seen.images.device, non_blocking=True) for part in drawn)
    if iteration < targets.in_box_until:
        boxes = foreground_boxes(seen, coverage)  # (B, V, 2, 2)
        first, last = boxes[torch.arange(batch, device=view.device)[:, None], view].unbind(-1)  # (B, P, 2)
        row, column = (first + (place * (last - first + 1)).floor()).long().unbind(-1)
    else:
        row, column = (place[..., 0] * height).long(), (place[..., 1] * width).long()
    return Pixels(view, row, column)


def foreground_boxes(views: Views, coverage: Tensor | None = None) -> Tensor:
    """Bounding boxes of the objects in views (B, V): (B, V, 2, 2) float, rows before columns, first and last pixel.

    `coverage` (B, V, 1, H, W) is the share of each pixel that the object covers; without it, the object is
    every pixel that differs from the background.  An empty view has a box of the whole image.
    """
    if coverage is None:
        distance = (views.images - views.background[:, None, :, None, None]).abs().amax(2)  # (B, V, H, W)
        foreground = distance > _VISIBLE
    else:
        foreground = coverage[:, :, 0] > 0
    return torch.stack([_span(foreground.any(3)), _span(foreground.any(2))], dim=2)


def _span(lines: Tensor) -> Tensor:
    """First and last true index of (B, V, N) -> (B, V, 2) float; the full range where none is true."""
    count = lines.shape[-1]
    lines = lines | ~lines.any(-1, keepdim=True)
    first = lines.float().argmax(-1)
    last = count - 1 - lines.flip(-1).float().argmax(-1)
    return torch.stack([first, last], dim=-1).float()
