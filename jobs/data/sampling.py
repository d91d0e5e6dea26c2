"""Which frames a training step or an evaluation sees: pure functions, no state to save.

The batch of a step depends on (seed, iteration) alone, so a trial that was killed and resumed draws what an
undisturbed one would have drawn.  Random numbers come from numpy's PCG64, seeded by a `SeedSequence` over
(seed, stream, counter); numpy keeps both stable between versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pandas as pd

# Two streams of numbers that never meet, whatever their counters are.
_OBJECT_STREAM, _FRAME_STREAM = 0, 1


class FrameRange(Protocol):
    """An object's row in the store: a pandas Series, a named tuple of `itertuples`, ..."""

    @property
    def first_frame(self) -> Any: ...
    @property
    def num_frames(self) -> Any: ...


def training_frames(objects: pd.DataFrame, *, seed: int, iteration: int, batch_size: int, views: int) -> np.ndarray:
    """The (batch_size, views) int64 frames of one step, counted from 0.

    Objects come in an order that is shuffled afresh for every epoch, each once per epoch; a batch may lie
    across two epochs.  An object's frames are drawn without replacement; the first is the source, and one of
    the targets.  Raises ValueError where an object has fewer frames than `views`.
    """
    first, count = objects["first_frame"].to_numpy(), objects["num_frames"].to_numpy()
    if count.min() < views:
        name = objects["object"].iloc[int(count.argmin())]
        raise ValueError(f"{views} views per object asked for, but object {name!r} has {count.min()} frames")
    rows = _objects_of_step(len(objects), seed, iteration, batch_size)
    generator = _generator(seed, _FRAME_STREAM, iteration)
    frames = [first[row] + generator.choice(count[row], size=views, replace=False) for row in rows]
    return np.stack(frames).astype(np.int64)


def evaluation_frames(row: FrameRange, protocol: Mapping[str, Any]) -> np.ndarray:
    """All frames of an object, (num_frames,) int64: the protocol's source first, the others in index order.

    `protocol` is the manifest's `evaluation`: {"source_frame": index within the object}.
    Raises ValueError where the object has no such frame.
    """
    first, count, source = int(row.first_frame), int(row.num_frames), int(protocol["source_frame"])
    if not 0 <= source < count:
        raise ValueError(f"source_frame {source} is not within the object's {count} frames")
    others = [frame for frame in range(count) if frame != source]
    return first + np.array([source, *others], dtype=np.int64)


def _objects_of_step(num_objects: int, seed: int, iteration: int, batch_size: int) -> list[int]:
    draws = range(iteration * batch_size, (iteration + 1) * batch_size)
    return [int(_permutation(num_objects, seed, draw // num_objects)[draw % num_objects]) for draw in draws]


@lru_cache(maxsize=4)  # the epoch at hand and the next; anything forgotten is computed again, the same
def _permutation(num_objects: int, seed: int, epoch: int) -> np.ndarray:
    return _generator(seed, _OBJECT_STREAM, epoch).permutation(num_objects)


def _generator(seed: int, stream: int, counter: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, counter])))
