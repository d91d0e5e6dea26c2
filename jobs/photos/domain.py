"""Common properties of the source pictures of a training: cameras, framing, background, colours."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from jobs.config import TrialConfig
from jobs.data import DATASETS
from jobs.data.inspect import bounding_box, nearest_point, object_frames, silhouettes_of
from jobs.data.sampling import evaluation_frames
from jobs.data.store import Store
from jobs.pixels import as_bytes
from model.registry import resolve

#: Maximum numbers of training pictures and of objects that are measured, spread evenly over the dataset.
_PICTURES, _OBJECTS = 512, 64
#: Minimum share of the border's pixels with the background's colour in a picture on a plain background.
PLAIN_BORDER = 0.25
#: Variance added to every descriptor, so that a constant one does not dominate the distance.
_SLACK = 0.02**2


@dataclass(frozen=True)
class Domain:
    """Facts about the pictures of one dataset at one resolution; lengths in scene units, angles in radians."""

    dataset: str
    description: str
    objects: int
    categories: tuple[str, ...]
    #: side of the network's pictures and of the dataset's stored ones, pixels
    resolution: int
    stored: int
    #: RGB in [0, 1]
    background: tuple[float, float, float]
    #: whether pictures show an object on nothing but the background
    is_plain: bool
    near: float
    far: float
    #: whether these are relative to the camera z of the objects' origin
    bounds_from_origin: bool
    #: pixels at `resolution`, of source views of evaluation
    focal: tuple[float, float]
    principal: tuple[float, float]
    #: the origin around which objects lie, in the source camera's axes
    origin: tuple[float, float, float]
    #: of the source cameras above the objects' horizon
    elevation: float
    #: larger side of the object's bounding box, and its middle (x, y), as shares of the picture's side
    fill: float
    middle: tuple[float, float]
    #: mean and inverse covariance of `describe`, and the largest distance of a training picture
    usual: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    farthest: float
    #: how many training pictures these come from
    sample: int

    @classmethod
    def of(cls, store: Store, config: TrialConfig) -> Domain:
        """The facts of a store, as a trial's network sees it."""
        resolution, manifest = config.data.resolution, store.manifest
        evaluated = list(islice(_evaluated(store), _OBJECTS))
        views = store.views(np.array([[source] for _, source in evaluated]), resolution)
        assert views.origin is not None
        trained = store.split("train")
        spans = zip(trained["first_frame"].to_numpy(), trained["num_frames"].to_numpy(), strict=True)
        frames = np.concatenate([np.arange(first, first + count) for first, count in spans])
        frames = frames[np.linspace(0, len(frames) - 1, min(_PICTURES, len(frames))).astype(int)]
        images = as_bytes(store.views(frames[:, None], resolution).images[:, 0])
        masks = store.masks(frames[:, None], resolution)
        shown = silhouettes_of(images, None if masks is None else as_bytes(masks[:, 0, 0]), manifest.background)
        is_plain = float(np.median([border_share(image, manifest.background) for image in images])) >= PLAIN_BORDER
        if not is_plain:
            shown = np.ones_like(shown)
        # Of each object the first and the end, x before y.
        boxes = np.array([bounding_box(s) for s in shown if s.any()]).reshape(-1, 2, 2) / resolution
        descriptors = np.stack([describe(image, s) for image, s in zip(images, shown, strict=True) if s.any()])
        usual = descriptors.mean(axis=0)
        precision = np.linalg.inv(np.cov(descriptors.T) + _SLACK * np.eye(len(usual)))
        distances = [_distance(values, usual, precision) for values in descriptors]
        return cls(
            dataset=config.data.name,
            description=resolve(DATASETS, config.data.name, "dataset").description,
            objects=len(trained),
            categories=tuple(sorted({str(name) for name in trained["category"]})),
            resolution=resolution,
            stored=store.resolution,
            background=manifest.background,
            is_plain=is_plain,
            near=manifest.near,
            far=manifest.far,
            bounds_from_origin=manifest.bounds_from_origin,
            focal=_pair(views.cameras.focal[:, 0].numpy()),
            principal=_pair(views.cameras.principal[:, 0].numpy()),
            origin=_triple(views.origin.numpy()),
            elevation=float(np.median([_elevation(store, row, source) for row, source in evaluated])),
            fill=float(np.median((boxes[:, 1] - boxes[:, 0]).max(axis=1))),
            middle=_pair(boxes.mean(axis=1)),
            usual=tuple(map(float, usual)),
            precision=tuple(tuple(map(float, row)) for row in precision),
            farthest=max(distances),
            sample=len(distances),
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Domain:
        """Raises TypeError for other members than these."""

        def frozen(value: Any) -> Any:
            return tuple(map(frozen, value)) if isinstance(value, list) else value

        if not isinstance(values, Mapping):
            raise TypeError(f"{type(values).__name__} is no mapping of members")
        return cls(**{name: frozen(value) for name, value in values.items()})

    def distance_of(self, image: np.ndarray, silhouette: np.ndarray) -> float:
        """Distance of a picture (3, S, S) uint8 from the training pictures, in units of the farthest of these."""
        found = _distance(describe(image, silhouette), np.array(self.usual), np.array(self.precision))
        return found / max(self.farthest, 1e-9)

    def __str__(self) -> str:
        kinds = f" ({', '.join(self.categories[:4])}{', ...' if len(self.categories) > 4 else ''})"
        return f"{self.objects} objects of {self.dataset}{kinds} at {self.resolution} px: {self.description}"


def describe(image: np.ndarray, silhouette: np.ndarray) -> np.ndarray:
    """Descriptors (10,) of an object: mean and deviation of its colours, colourfulness, area, shape of its box.

    image: (3, S, S) uint8; silhouette: (S, S) bool, not empty.
    """
    side = silhouette.shape[0]
    pixels = image[:, silhouette].astype(np.float64) / 255
    left, top, right, bottom = bounding_box(silhouette)
    width, height = (right - left) / side, (bottom - top) / side
    colourful = (pixels.max(axis=0) - pixels.min(axis=0)).mean()
    shape = [colourful, silhouette.mean() / max(width * height, 1e-9), max(width, height), np.log2(width / height) / 4]
    return np.array([*pixels.mean(axis=1), *pixels.std(axis=1), *shape])


def border_share(image: np.ndarray, background: tuple[float, float, float]) -> float:
    """Share of the border's pixels of a picture (3, H, W) uint8 that have exactly the background's colour."""
    border = np.concatenate([image[:, 0], image[:, -1], image[:, 1:-1, 0], image[:, 1:-1, -1]], axis=1)
    colour = np.rint(np.array(background) * 255)[:, None]
    return float((border == colour).all(axis=0).mean())


def _distance(values: np.ndarray, usual: np.ndarray, precision: np.ndarray) -> float:
    difference = values - usual
    return float(np.sqrt(max(difference @ precision @ difference, 0.0)))


def _evaluated(store: Store) -> Iterator[tuple[Any, int]]:
    """The objects of evaluation, and the frame of each that is its source; those that lack it are left out."""
    for split in ("test", "val"):
        for row in store.objects[store.objects["split"] == split].itertuples():
            with suppress(ValueError):
                yield row, int(evaluation_frames(row, store.manifest.evaluation)[0])


def _elevation(store: Store, row: Any, source: int) -> float:
    """Angle of the camera of an object's frame `source` above the plane across its cameras' mean upward direction."""
    cameras = store.world_to_camera[object_frames(row)].astype(np.float64)
    up = -cameras[:, 1, :3].mean(axis=0)
    camera = store.world_to_camera[source].astype(np.float64)
    if len(cameras) < 2 or np.linalg.norm(up) < 1e-6:
        return 0.0
    outward = -camera[:3, :3].T @ camera[:3, 3] - nearest_point(cameras, np.zeros((len(cameras), 2)))
    sine = outward @ up / np.linalg.norm(up) / max(np.linalg.norm(outward), 1e-9)
    return float(np.arcsin(np.clip(sine, -1, 1)))


def _pair(values: np.ndarray) -> tuple[float, float]:
    """Medians of (n, 2); of equal values that value exactly."""
    x, y = np.median(values, axis=0)
    return float(x), float(y)


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = np.median(values, axis=0)
    return float(x), float(y), float(z)
