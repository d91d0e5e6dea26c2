"""Outputs of frozen models for the source views, computed once for all trials and read from a mapped file."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.config import TrialConfig
from jobs.contexts import ContextConfig, frozen_class, frozen_options
from jobs.data.sampling import evaluation_frames
from jobs.data.store import SPLITS, Store
from jobs.feature_file import FeatureFile, ensure_feature_file, is_sound, rounded
from jobs.memory import may_cache
from jobs.precision import products
from jobs.stop import ShouldStop, never
from model.context import find_source
from model.frozen import FrozenModel
from model.fusion import FUSION, ContextType, Source
from model.fusion.base import context_type_for
from model.registry import resolve
from model.types import Context, Views
from model.weights import WeightStore

#: Increased when our own code changes the outputs of frozen models, so that old files are not read.
FEATURES_VERSION = 1

#: Frames per forward pass of a frozen model: fixed, so that the values do not depend on the batch size.
_CHUNK = 16

#: A GPU keeps all features of a source if they take no more than this share of its free memory.
_GPU_CACHE_SHARE = 0.25


class ContextReader:
    """Source views -> `Context`, by the sections of a configuration on frozen models."""

    def __init__(
        self,
        config: TrialConfig,
        store: Store,
        weights: WeightStore,
        cache: Path,
        device: torch.device | str = "cpu",
        should_stop: ShouldStop = never,
        on_work: Callable[[], None] = lambda: None,
        *,
        splits: Collection[str] = SPLITS,
    ) -> None:
        """Computes features that `cache` lacks on `device`; loads frozen models only for these, or if not cached.

        Calls `on_work` before it computes, or waits for, those of a source.  `splits` are those whose views it will
        read.  Raises `StopRequestedError` where a stop is requested meanwhile.
        """
        device = torch.device(device)
        self._sources: dict[Source, FrozenModel | CachedFeatures] = {
            source: _open(source, section, config, store, weights, cache, device, should_stop, on_work, splits)
            for source, section in config.sources.items()
            if frozen_class(section) is not None
        }

    @property
    def widths(self) -> dict[str, int]:
        """Length of the vector or of each token, or channels of the map, by source."""
        return {source: model.width for source, model in self._sources.items()}

    @torch.no_grad()
    def __call__(self, views: Views) -> Context:
        """The context of every view.

        A frame that is never a source has no features.  On a CPU this raises ValueError.  On a GPU, which must not
        wait for the check, its features are NaN, and training stops on them.
        """
        return Context(**{source: model(views) for source, model in self._sources.items()})


class LiveContext:
    """Source views -> `Context`, by the frozen models themselves, for views that are no frames of a store.

    Values are rounded as those of a `ContextReader`, so that equal views have equal contexts.
    """

    def __init__(self, config: TrialConfig, weights: WeightStore, device: torch.device) -> None:
        """Loads the frozen models.  Raises ValueError for one that reads the dataset's own depth."""
        self._models: dict[Source, FrozenModel] = {}
        for source, section in config.sources.items():
            cls = frozen_class(section)
            if cls is None:
                continue
            if cls.needs_depth:
                raise ValueError(
                    f"this network takes the dataset's own depth ({source}.{find_source(source).switch}: "
                    f"{section.choice}), which no other picture has; choose a row with another depth model"
                )
            self._models[source] = _build(source, section, weights, device)

    @property
    def widths(self) -> dict[str, int]:
        """Length of the vector or of each token, or channels of the map, by source."""
        return {source: model.width for source, model in self._models.items()}

    @torch.no_grad()
    def __call__(self, views: Views) -> Context:
        """The context of every view."""
        return Context(**{source: self._values(model, views) for source, model in self._models.items()})

    def _values(self, model: FrozenModel, views: Views) -> Tensor:
        if not model.cached:
            values: Tensor = model(views)
            return values
        with products("float32"):  # all trials share the features
            values = model(views).float().cpu()
        return torch.from_numpy(rounded(values.flatten(0, 1).numpy())).view(values.shape).to(views.images.device)


class CachedFeatures:
    """A frozen model's values for every frame that can be a source."""

    def __init__(self, path: Path, context_type: ContextType, device: torch.device) -> None:
        self._file = FeatureFile(path)
        self.width = self._file.shape[0 if context_type == "map" else -1]
        frames = self._file.frames
        # Frames without features refer to a row after the last, whose scale is NaN.
        rows = np.full(frames.max() + 1, len(frames), np.int64)
        rows[frames] = np.arange(len(frames))
        self._rows = torch.from_numpy(rows).to(device)
        self._scales = torch.from_numpy(np.append(self._file.scales, np.float32(np.nan))).to(device)
        self._gpu_cache: Tensor | None = None
        if device.type == "cuda" and may_cache(self._file.values_nbytes, _GPU_CACHE_SHARE, device):
            self._gpu_cache = torch.from_numpy(self._file.values()).to(device)

    def __call__(self, views: Views) -> Tensor:
        """(B, V, *shape of one feature) in float32, on the views' device."""
        frames = views.frames.to(self._rows.device)
        last = len(self._rows) - 1
        rows = torch.where(frames <= last, self._rows[frames.clamp(max=last)], len(self._scales) - 1)
        scales = self._scales[rows]
        if not scales.is_cuda and scales.isnan().any():
            raise ValueError("a requested frame is never a source view; its features were not computed")
        values = self._values(rows.clamp(max=len(self._scales) - 2)).float()
        return (values * scales.view(*scales.shape, *[1] * len(self._file.shape))).to(views.images.device)

    def _values(self, rows: Tensor) -> Tensor:
        if self._gpu_cache is not None:
            return self._gpu_cache[rows]
        values = torch.from_numpy(self._file.values(rows.cpu().numpy()))
        return values.pin_memory().to(rows.device, non_blocking=True) if rows.is_cuda else values


def _open(
    source: Source,
    section: ContextConfig,
    config: TrialConfig,
    store: Store,
    weights: WeightStore,
    cache: Path,
    device: torch.device,
    should_stop: ShouldStop,
    on_work: Callable[[], None],
    splits: Collection[str],
) -> FrozenModel | CachedFeatures:
    """The features of a source, computed where `cache` lacks them, or its model where these are not cached."""
    cls: Any = frozen_class(section)
    if not cls.cached:
        return _build(source, section, weights, device)
    for wanted in dict.fromkeys((SPLITS, tuple(splits))):  # a file for all splits serves as well
        frames = source_frames(store, config.model.input_views, wanted)
        path = cache / "features" / f"{section.choice}-{_digest(source, section, config, store, weights, frames)}.npy"
        if is_sound(path, frames):
            break
    else:
        ensure_feature_file(
            path,
            frames,
            _CHUNK,
            _computing(lambda: _build(source, section, weights, device), store, config.data.resolution, device),
            should_stop,
            on_work,
        )
    return CachedFeatures(path, _context_type(source, section), device)


def _digest(
    source: Source, section: ContextConfig, config: TrialConfig, store: Store, weights: WeightStore, frames: np.ndarray
) -> str:
    """A hash of all that determines the features of `frames`: 16 hex digits."""
    cls: Any = frozen_class(section)
    options = frozen_options(section)
    identity = {
        "version": FEATURES_VERSION,
        "source": source,
        "name": section.choice,
        "kind": _context_type(source, section),
        "preprocess": section.preprocess,
        "input": section.resolution,
        "options": dataclasses.asdict(options),
        "weights": {name: _identity(weights, name) for name in cls.weights(options)},
        "data": store.fingerprint,
        "resolution": config.data.resolution,
        "frames": hashlib.sha256(frames.tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def context_widths(config: TrialConfig, weights: WeightStore) -> dict[str, int]:
    """Length of the vector or of each token, or channels of the map, by active source; loads the frozen models."""
    sections = {source: section for source, section in config.sources.items() if frozen_class(section) is not None}
    return {source: _build(source, section, weights, torch.device("cpu")).width for source, section in sections.items()}


def _context_type(source: Source, section: ContextConfig) -> ContextType:
    """The form in which a model's output enters the network."""
    context_type = context_type_for(resolve(FUSION, section.fusion, "fusion"), source)
    assert context_type is not None  # the configuration was checked
    return context_type


def _build(source: Source, section: ContextConfig, weights: WeightStore, device: torch.device) -> FrozenModel:
    cls: Any = frozen_class(section)
    model: FrozenModel = cls(
        weights,
        output_type=_context_type(source, section),
        preprocess=section.preprocess,
        resolution=section.resolution,
        options=frozen_options(section),
    )
    model.to(device)
    return model


def _identity(weights: WeightStore, name: str) -> str | None:
    if weights.identity(name) is None:  # no published hash, and the file is missing
        weights.fetch(name)
    return weights.identity(name)


def source_frames(store: Store, input_views: int, splits: Collection[str] = SPLITS) -> np.ndarray:
    """The frames of `splits` that can be a source, int64: all training frames, and the sources of evaluation."""
    frames: list[np.ndarray] = []
    for split in splits:
        for row in _rows(store, split):
            if split == SPLITS[0]:
                frames.append(np.arange(row.first_frame, row.first_frame + row.num_frames))
            else:
                frames.append(evaluation_frames(row, store.manifest.evaluation, input_views)[:input_views])
    return np.concatenate(frames).astype(np.int64)


def _rows(store: Store, split: str) -> list[Any]:
    return list(store.objects[store.objects["split"] == split].itertuples())


def _computing(
    build: Callable[[], FrozenModel], store: Store, resolution: int, device: torch.device
) -> Callable[[np.ndarray], np.ndarray]:
    """Frames -> the model's output for each, in float32; the model is built at the first call."""
    model = functools.cache(build)

    @torch.inference_mode()
    def compute(frames: np.ndarray) -> np.ndarray:
        # One frame per object: frames are independent.
        views = store.views(frames[:, None], resolution).to(device)
        with products("float32"):
            values: np.ndarray = model()(views)[:, 0].float().cpu().numpy()
        return values

    return compute
