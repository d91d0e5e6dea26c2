"""What frozen models say about the source views: computed once for all trials, then read from a mapped file."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.lib.format import open_memmap
from torch import Tensor

from jobs.config import TrialConfig
from jobs.data.sampling import evaluation_frames
from jobs.data.store import SPLITS, Store
from model.depth import DEPTH
from model.frozen import FrozenModel
from model.registry import resolve
from model.semantic import SEMANTIC
from model.types import Context, Views
from model.weights import WEIGHTS, WeightStore

#: Frames per forward pass of a frozen model: fixed, so that the values do not depend on who asks for them.
_CHUNK = 16

log = logging.getLogger(__name__)


class ContextReader:
    """Source views -> `Context`, by the semantic and depth sections of a configuration."""

    def __init__(self, config: TrialConfig, store: Store, weights: WeightStore, cache: Path) -> None:
        self._sources: dict[str, FrozenModel | CachedFeatures] = {}
        for source, registry, name, section in (
            ("semantic", SEMANTIC, config.semantic.encoder, config.semantic),
            ("depth", DEPTH, config.depth.model, config.depth),
        ):
            if name == "none":
                continue
            model = resolve(registry, name, source)(
                weights, preprocess=section.preprocess, resolution=section.resolution
            )
            if model.cached:
                identity = {
                    "source": source,
                    "name": name,
                    "preprocess": section.preprocess,
                    "input": section.resolution,
                    "weights": {weight: WEIGHTS[weight].sha256 for weight in model.weights},
                    "data": store.fingerprint,
                    "resolution": config.data.resolution,
                }
                self._sources[source] = CachedFeatures(model, store, config.data.resolution, identity, cache)
            else:
                self._sources[source] = model

    @property
    def widths(self) -> dict[str, int]:
        """Length of the vector or channels of the map, by source."""
        return {source: model.width for source, model in self._sources.items()}

    @torch.no_grad()
    def __call__(self, views: Views) -> Context:
        return Context(**{source: model(views) for source, model in self._sources.items()})


class CachedFeatures:
    """A frozen model's values for every frame that can be a source: all of training, one per evaluated object."""

    def __init__(
        self, model: FrozenModel, store: Store, resolution: int, identity: dict[str, Any], cache: Path
    ) -> None:
        self.width = model.width
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        path = cache / "features" / f"{identity['name']}-{digest}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _compute(path, model, store, resolution)
        self._values = np.load(path, mmap_mode="r")

    def __call__(self, views: Views) -> Tensor:
        values = torch.from_numpy(self._values[views.frames.cpu().numpy()])
        if values.isnan().any():
            raise ValueError("a frame was asked for that is never a source view; its features were not computed")
        return values.to(views.images.device)


def _source_frames(store: Store) -> np.ndarray:
    frames = [np.arange(row.first_frame, row.first_frame + row.num_frames) for row in _rows(store, "train")]
    for split in SPLITS[1:]:
        frames += [evaluation_frames(row, store.manifest.evaluation)[:1] for row in _rows(store, split)]
    return np.concatenate(frames)


def _rows(store: Store, split: str) -> list[Any]:
    return list(store.objects[store.objects["split"] == split].itertuples())


@torch.inference_mode()
def _compute(path: Path, model: FrozenModel, store: Store, resolution: int) -> None:
    frames = _source_frames(store)
    log.info("computing %s for %d frames", path.stem, len(frames))
    partial = path.with_suffix(".partial")
    values: np.memmap | None = None
    for chunk in np.array_split(frames, np.arange(_CHUNK, len(frames), _CHUNK)):
        # One frame an item: each stands for itself.
        out = model(store.views(chunk[:, None], resolution))[:, 0].numpy()
        if values is None:
            values = open_memmap(partial, mode="w+", dtype=np.float32, shape=(len(store.images), *out.shape[1:]))
            values[:] = np.nan
        values[chunk] = out
    assert values is not None
    values.flush()
    partial.replace(path)
