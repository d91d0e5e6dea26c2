"""Datasets of the published networks; no other module of this package names datasets.

The names are part of the format, because the files do not state the depth bounds and the field of view of their
numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from model.methods.splatter_image.options import HeadOptions
from model.registry import UnknownChoiceError


@dataclass(frozen=True)
class PublishedDataset:
    """Facts about one dataset of the published networks."""

    #: bounds of the predicted depth, scene units; relative to the origin's depth where `per_view` is set
    near: float
    far: float
    #: field of view of all its images, degrees; None where every view has its own focal length
    fov: float | None
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)
    head: HeadOptions = field(default_factory=HeadOptions)

    @property
    def per_view(self) -> bool:
        """Whether every view has its own focal length and its own distance from the origin."""
        return self.fov is None

    def focal(self, resolution: int) -> float:
        """Focal length in pixels for images of that size.  Raises ValueError where every view has its own."""
        if self.fov is None:
            raise ValueError("every view of this dataset has a focal length of its own: give `focal`")
        return resolution / (2 * math.tan(math.radians(self.fov) / 2))


_SHAPENET_FOV = 51.98948897809546
_CO3D = PublishedDataset(near=-2.0, far=2.0, fov=None, background=(0.0, 0.0, 0.0))

PUBLISHED: dict[str, PublishedDataset] = {
    "cars": PublishedDataset(
        near=0.8,
        far=1.8,
        fov=_SHAPENET_FOV,
        head=HeadOptions(opacity_scale=0.001, opacity_bias=-3.0, scale_scale=0.001, offset_scale=1e-6),
    ),
    "chairs": PublishedDataset(
        near=1.25,
        far=2.75,
        fov=_SHAPENET_FOV,
        head=HeadOptions(opacity_scale=0.001, opacity_bias=-2.0, scale_scale=0.001, offset_scale=1e-6),
    ),
    "hydrants": _CO3D,
    "teddybears": _CO3D,
    "nmr": PublishedDataset(near=1.2, far=4.0, fov=29.999999290482176),
    # The released network started with a scale_scale of 0.01.
    "objaverse": PublishedDataset(near=0.8, far=3.2, fov=49.134342641202636),
}


def published_dataset(name: str) -> PublishedDataset:
    """The facts about one dataset.  Raises `UnknownChoiceError`, listing the known names."""
    if name not in PUBLISHED:
        raise UnknownChoiceError("published dataset", name, PUBLISHED)
    return PUBLISHED[name]


@dataclass(frozen=True)
class PublishedPixelNerf:
    """Settings that a PixelNeRF's file lacks: resolution in pixels, and whether its encoder pools first."""

    resolution: int = 128
    first_pool: bool = True


#: Settings by our names of the datasets.
_PIXELNERF = {
    "srn_cars": PublishedPixelNerf(),
    "srn_chairs": PublishedPixelNerf(),
    "nmr": PublishedPixelNerf(64, False),
}


def published_pixelnerf(dataset: str) -> PublishedPixelNerf:
    """The facts about PixelNeRFs trained on one of our datasets; the usual ones for other datasets."""
    return _PIXELNERF.get(dataset, PublishedPixelNerf())
