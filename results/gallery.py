"""Sample renders side by side: every trial's predictions for the same unseen objects."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pictures = NDArray[np.uint8]
#: a page holds a dozen of them
MOST_ANIMATION_BYTES = 1_000_000


@dataclass(frozen=True)
class TrialSamples:
    """Renders of one trial: K objects seen from M new viewpoints."""

    trial: str
    key: str
    seed: int
    objects: tuple[str, ...]  # K
    source: Pictures  # (K, 3, H, W): the network's input
    target: Pictures  # (K, M, 3, H, W): ground truth
    render: Pictures  # (K, M, 3, H, W)
    #: whether it is a trivial baseline, predicted without training
    is_trivial: bool = False


@dataclass(frozen=True)
class Gallery:
    """The same objects and viewpoints for several trials; `renders` has one entry per trial, in order."""

    objects: tuple[str, ...]
    source: Pictures
    target: Pictures
    renders: dict[str, Pictures]
    #: per object why it is shown: "best", "median" or "worst", or "" without a rule
    ranks: tuple[str, ...] = ()
    #: the trials that are trivial baselines
    trivial: frozenset[str] = frozenset()

    def chosen(self, indices: list[int], ranks: tuple[str, ...]) -> Gallery:
        """The gallery of some of its objects, with the reasons why they are shown."""
        return Gallery(
            tuple(self.objects[index] for index in indices),
            self.source[indices],
            self.target[indices],
            {trial: pictures[indices] for trial, pictures in self.renders.items()},
            ranks,
            self.trivial,
        )


@dataclass(frozen=True)
class Turntable:
    """An animation of one trial's predicted object, rendered from all around."""

    trial: str
    key: str
    object: str
    animation: bytes  # GIF
    still: bytes  # its first picture, PNG
    side: int  # of a picture, pixels


def read_turntable(path: Path) -> tuple[str, bytes, bytes, int]:
    """Object, animation, still and side of `turntable.gif`, as in `Turntable`.

    Raises `ValueError` naming the file where it is no GIF, or larger than `MOST_ANIMATION_BYTES`.
    """
    content = path.read_bytes()
    if len(content) > MOST_ANIMATION_BYTES:
        raise ValueError(f"{path}: {len(content)} bytes; at most {MOST_ANIMATION_BYTES} are shown")
    try:
        with Image.open(io.BytesIO(content), formats=["GIF"]) as picture:
            note = bytes(picture.info.get("comment", b"")).decode(errors="replace")
            still = io.BytesIO()
            picture.convert("RGB").save(still, "PNG", optimize=True)
            return note, content, still.getvalue(), picture.width
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        raise ValueError(f"{path}: not an animation ({error})") from error


def read_pictures(path: Path) -> tuple[tuple[str, ...], Pictures, Pictures, Pictures]:
    """Objects, source, target and render of `samples.npz`, shaped as in `TrialSamples`.

    Raises `ValueError` naming the file where its arrays are missing or do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            objects = tuple(str(name) for name in arrays["objects"])
            source, target, render = arrays["source"], arrays["target"], arrays["render"]
    except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a file of sample renders ({error})") from error
    expected = (len(objects), target.shape[1] if target.ndim == 5 else -1, *source.shape[1:])
    if source.ndim != 4 or target.shape != expected or render.shape != expected:
        raise ValueError(f"{path}: shapes do not fit: {source.shape=}, {target.shape=}, {render.shape=}")
    return objects, source, target, render


def galleries(samples: Iterable[TrialSamples]) -> list[Gallery]:
    """Group trials that rendered the same views; of several seeds of a trial, the first is shown."""
    groups: dict[tuple[object, ...], Gallery] = {}
    samples = tuple(samples)
    trivial = frozenset(sample.trial for sample in samples if sample.is_trivial)
    for sample in samples:
        views = (sample.objects, sample.source.shape, sample.source.tobytes(), sample.target.tobytes())
        gallery = groups.setdefault(views, Gallery(sample.objects, sample.source, sample.target, {}, trivial=trivial))
        gallery.renders.setdefault(sample.trial, sample.render)
    return list(groups.values())


def representative(gallery: Gallery) -> Gallery:
    """The best, the median and the worst of the recorded objects, by PSNR averaged over the trained trials and views.

    Trivial baselines count only where no trial is trained.  Of an even number, the median is the worse of the two in
    the middle.  With fewer than three objects all are shown, the best first.
    """
    trained = [render for trial, render in gallery.renders.items() if trial not in gallery.trivial]
    scores = np.mean([_psnr(render, gallery.target) for render in trained or gallery.renders.values()], axis=0)
    order, places = np.argsort(-scores, kind="stable"), _extremes(len(scores))
    return gallery.chosen(order[list(places)].tolist(), tuple(places.values()))


def representative_objects(scores: Mapping[str, float]) -> dict[str, str]:
    """The best, the median and the worst object, with these words, by scores of which the largest is the best.

    An object whose score is NaN is behind all others.
    """
    names = sorted(scores, key=lambda name: (math.inf if math.isnan(scores[name]) else -scores[name], name))
    return {names[place]: word for place, word in _extremes(len(names)).items()}


def _extremes(count: int) -> dict[int, str]:
    """The places, from the best, that stand for `count` objects, and what each is."""
    if count > 2:
        return {0: "best", count // 2: "median", count - 1: "worst"}
    return {0: "best", 1: "worst"} if count == 2 else dict.fromkeys(range(count), "")


def median(gallery: Gallery) -> Gallery | None:
    """The median object of a representative gallery alone; None where it has fewer than three objects."""
    return gallery.chosen([gallery.ranks.index("median")], ("median",)) if "median" in gallery.ranks else None


def _psnr(render: Pictures, target: Pictures) -> NDArray[np.float64]:
    """(K, M, 3, H, W) twice -> (K,), dB, mean over views; equal pictures count as 60 dB, below which 8 bits end."""
    difference = (render.astype(np.float64) - target) / 255
    squared = np.maximum((difference**2).mean(axis=(2, 3, 4)), 1e-6)
    return np.asarray(-10 * np.log10(squared).mean(axis=1))
