"""Sampling of frames for training and evaluation: pure functions without state.

The batch of a step depends on (seed, iteration) only, so a trial that was killed and resumed draws the same
batches as one that was not.  Random numbers come from numpy's PCG64, seeded by a `SeedSequence` over
(seed, stream, counter); numpy keeps both stable between versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pandas as pd

# Independent random streams.  2 and 3 belong to the training loop.
_OBJECT_STREAM, _FRAME_STREAM, _PIXEL_STREAM = 0, 1, 4


class FrameRange(Protocol):
    """An object's row in the store: a pandas Series, a named tuple of `itertuples`, ..."""

    @property
    def object(self) -> Any: ...
    @property
    def first_frame(self) -> Any: ...
    @property
    def num_frames(self) -> Any: ...


def training_frames(
    objects: pd.DataFrame,
    *,
    seed: int,
    iteration: int,
    batch_size: int,
    views: int,
    input_views: int = 1,
    sources_apart: bool = False,
) -> np.ndarray:
    """The (batch_size, views) int64 frames of one step, counted from 0.

    Objects come in an order that is reshuffled for every epoch, each once per epoch; a batch may lie
    across two epochs.  An object's frames are drawn without replacement.  As published, the first `input_views`
    of them are the sources, and all of them are targets.  With `sources_apart`, `input_views` more frames come first,
    which are the sources; the targets are drawn uniformly from all frames, sources included.
    Raises ValueError where an object has fewer frames than `views`, or there are fewer views than sources.
    """
    if not 1 <= input_views <= (input_views if sources_apart else views):
        raise ValueError(f"{input_views} input views of {views} views per object requested; allowed: 1 to {views}")
    first, count = objects["first_frame"].to_numpy(), objects["num_frames"].to_numpy()
    if count.min() < views:
        name = objects["object"].iloc[int(count.argmin())]
        raise ValueError(f"{views} views per object requested, but object {name!r} has {count.min()} frames")
    rows = _objects_of_step(len(objects), seed, iteration, batch_size)
    generator = _generator(seed, _FRAME_STREAM, iteration)
    sizes = (input_views, views) if sources_apart else (views,)
    frames = [
        first[row] + np.concatenate([generator.choice(count[row], size=size, replace=False) for size in sizes])
        for row in rows
    ]
    return np.stack(frames).astype(np.int64)


def training_pixels(
    *, seed: int, iteration: int, batch_size: int, views: int, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the pixels of one step: independent draws, uniform over all views and positions.

    Returns the view of each, (batch_size, pixels) int64 below `views`, and its row and column as fractions in [0, 1) of
    the rectangle that pixels are drawn from, (batch_size, pixels, 2) float32.
    """
    generator = _generator(seed, _PIXEL_STREAM, iteration)
    view = generator.integers(views, size=(batch_size, pixels))
    return view, generator.random((batch_size, pixels, 2), dtype=np.float32)


def evaluation_frames(row: FrameRange, protocol: Mapping[str, Any], input_views: int = 1) -> np.ndarray:
    """All frames of an object, (num_frames,) int64: its `input_views` sources first, the others in index order.

    `protocol` is the manifest's `evaluation`, indices within the object:

        {"source_frames": [64, 128]}                    the published sources, in order; there are no more
        {"source_frame": 0}                             the first source; further ones at even steps from there
        {"source_frame": 0, "objects": {"a": 7, ...}}   the same, with a first source of their own for some objects

    Raises ValueError where the object has no such frame, or the protocol has fewer sources.
    """
    first, count = int(row.first_frame), int(row.num_frames)
    sources = _source_frames(str(row.object), count, protocol, input_views)
    for source in sources:
        if not 0 <= source < count:
            raise ValueError(f"source frame {source} is not within the {count} frames of object {row.object!r}")
    others = [frame for frame in range(count) if frame not in sources]
    return first + np.array([*sources, *others], dtype=np.int64)


def _source_frames(name: str, count: int, protocol: Mapping[str, Any], input_views: int) -> list[int]:
    published = protocol.get("source_frames")
    if not 1 <= input_views <= (count if published is None else len(published)):
        allowed = f"the {count} frames of object {name!r}" if published is None else f"source_frames {published}"
        raise ValueError(f"{input_views} input views requested, which is not within {allowed}")
    if published is not None:
        return [int(frame) for frame in published[:input_views]]
    start = int(protocol.get("objects", {}).get(name, protocol["source_frame"]))
    if not 0 <= start < count:
        return [start]  # rejected by the caller
    return [(start + step * count // input_views) % count for step in range(input_views)]


def _objects_of_step(num_objects: int, seed: int, iteration: int, batch_size: int) -> list[int]:
    draws = range(iteration * batch_size, (iteration + 1) * batch_size)
    return [int(_permutation(num_objects, seed, draw // num_objects)[draw % num_objects]) for draw in draws]


@lru_cache(maxsize=4)  # the current epoch and the next; evicted ones are recomputed identically
def _permutation(num_objects: int, seed: int, epoch: int) -> np.ndarray:
    return _generator(seed, _OBJECT_STREAM, epoch).permutation(num_objects)


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, counter])))
