"""Sample renders side by side: what every trial made of the same unseen objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class TrialSamples:
    """Renders of one trial: K objects seen from M new viewpoints."""

    trial: str
    key: str
    seed: int
    objects: tuple[str, ...]  # K
    source: Pictures  # (K, 3, H, W): what the network saw
    target: Pictures  # (K, M, 3, H, W): ground truth
    render: Pictures  # (K, M, 3, H, W)


@dataclass(frozen=True)
class Gallery:
    """The same objects and viewpoints for several trials; `renders` has one entry per trial, in order."""

    objects: tuple[str, ...]
    source: Pictures
    target: Pictures
    renders: dict[str, Pictures]
    #: seed that each trial's pictures come from
    seeds: dict[str, int]


def read_samples(path: Path, trial: str, key: str, seed: int) -> TrialSamples:
    """Read `samples.npz`.  Raises `ValueError` naming the file where its arrays are missing or do not fit."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            objects = tuple(str(name) for name in arrays["objects"])
            source, target, render = arrays["source"], arrays["target"], arrays["render"]
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a file of sample renders ({error})") from error
    expected = (len(objects), target.shape[1] if target.ndim == 5 else -1, *source.shape[1:])
    if source.ndim != 4 or target.shape != expected or render.shape != expected:
        raise ValueError(f"{path}: shapes do not fit: {source.shape=}, {target.shape=}, {render.shape=}")
    return TrialSamples(trial, key, seed, objects, source, target, render)


def galleries(samples: Iterable[TrialSamples]) -> list[Gallery]:
    """Group trials that rendered the same views; of several seeds of a trial, the first is shown."""
    groups: dict[tuple[object, ...], Gallery] = {}
    for sample in samples:
        views = (sample.objects, sample.source.shape, sample.source.tobytes(), sample.target.tobytes())
        gallery = groups.setdefault(views, Gallery(sample.objects, sample.source, sample.target, {}, {}))
        gallery.renders.setdefault(sample.trial, sample.render)
        gallery.seeds.setdefault(sample.trial, sample.seed)
    return list(groups.values())
