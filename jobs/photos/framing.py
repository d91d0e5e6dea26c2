"""Photograph -> source view: cropped around its object as training pictures are, on the dataset's background.

A photograph with a known field of view has another camera distance than training pictures: the one at which the object
has the same size in the picture.  The depth bounds shift by the difference, so the object's relief is preserved.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, radians, tan

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jobs.data.inspect import bounding_box
from jobs.data.resample import area_mean
from jobs.photos.domain import PLAIN_BORDER, Domain, border_share
from jobs.photos.masks import Mask
from jobs.photos.picture import Picture, PictureError
from jobs.pixels import as_bytes
from model.types import Cameras, Views

#: Coverage from which a pixel belongs to the object.
_INSIDE = 0.5
#: Nearest camera z at which an object may begin, as a share of its distance in training.
_NEAREST = 0.05


@dataclass(frozen=True)
class Lens:
    """A photograph's field of view."""

    #: focal length in widths of the photograph; None where it is unknown
    focal: float | None
    #: where it comes from, for people
    origin: str

    @classmethod
    def of(cls, picture: Picture, fov: float | None, focal: float | None) -> Lens:
        """By `fov` (degrees across the width), by `focal` (pixels of the file's picture), or as the camera recorded it.

        Raises ValueError where both are given or `fov` is out of range, and `PictureError` where `focal` is out of the
        range that this picture's width allows.
        """
        width = picture.size[0]
        if fov is not None and focal is not None:
            raise ValueError("--fov and --focal name the same thing; give one of them")
        if fov is not None:
            if not 1 <= fov <= 170:
                raise ValueError(f"--fov {fov:g}; allowed: 1 to 170 degrees, across the picture's width")
            return cls(0.5 / tan(radians(fov) / 2), f"--fov {fov:g}")
        if focal is not None:
            if not width / 20 <= focal <= 100 * width:
                raise PictureError(
                    f"--focal {focal:g}; allowed for {picture.path}: {width / 20:g} to {100 * width} pixels"
                )
            return cls(focal / width, f"--focal {focal:g}")
        if picture.focal is not None:
            return cls(picture.focal / width, "the focal length that the camera recorded")
        return cls(None, "that of the training pictures")

    @property
    def degrees(self) -> float | None:
        """Field of view across the photograph's width."""
        return None if self.focal is None else float(2 * np.arctan(0.5 / self.focal) * 180 / pi)


@dataclass(frozen=True)
class Framed:
    """A photograph as the network reads it."""

    source: Views  # (1, 1)
    #: the object's pixels, (S, S) bool, not empty; None where it was not separated, or covers no pixel
    silhouette: np.ndarray | None
    #: whether the picture was read unchanged, because it is framed as the dataset's pictures are
    as_it_is: bool
    #: left, top, right and bottom of the part that is read, in pixels of the file's picture
    crop: tuple[float, float, float, float]
    remarks: tuple[str, ...] = ()


def is_framed(picture: Picture, domain: Domain) -> bool:
    """Whether a picture looks like one of the dataset's own: opaque, of its size, and on its background."""
    height, width, _ = picture.rgba.shape
    if height != width or width not in (domain.resolution, domain.stored) or picture.is_transparent:
        return False
    colours = picture.rgba[..., :3].transpose(2, 0, 1)
    return not domain.is_plain or border_share(colours, domain.background) >= PLAIN_BORDER


def as_it_is(picture: Picture, domain: Domain, lens: Lens) -> Framed:
    """A picture like those of the dataset, unchanged except for its resolution."""
    colours = torch.from_numpy(np.ascontiguousarray(picture.rgba[..., :3].transpose(2, 0, 1)))[None, None]
    images = area_mean(colours, domain.resolution)
    width, height = picture.size
    focal = None if lens.focal is None else lens.focal * domain.resolution
    source = source_view(images, domain, focal, picture)
    return Framed(source, None, as_it_is=True, crop=(0.0, 0.0, float(width), float(height)))


def cropped(picture: Picture, mask: Mask | None, domain: Domain, lens: Lens) -> Framed:
    """The square around the object that shows it as large, and in the same place, as training pictures do.

    Without a mask it is the largest square in the middle.
    """
    height, width, _ = picture.rgba.shape
    rgba, remarks = picture.rgba, []
    if mask is None:
        side = float(min(width, height))
        left, top = (width - side) / 2, (height - side) / 2
    else:
        # Both may have the same soft edge, which must count once.
        alpha = np.minimum(np.rint(mask.coverage * 255).astype(np.uint8), picture.rgba[..., 3])
        inside = alpha >= 255 * _INSIDE
        if not inside.any():
            raise PictureError(f"{picture.path}: by {mask.how}, no visible pixel is the object's")
        low, high = np.array(bounding_box(inside), float).reshape(2, 2)
        side = float((high - low).max() / domain.fill)
        left, top = (low + high) / 2 - side * np.array(domain.middle)
        rgba = np.concatenate([rgba[..., :3], alpha[..., None]], axis=-1)
    if side < domain.resolution:
        remarks.append(f"the object is shown by {side:.0f} pixels, fewer than the network's {domain.resolution}")
    square = _square(rgba, left, top, side, domain)
    images = torch.from_numpy(square[..., :3].transpose(2, 0, 1).copy()).float().div(255)[None, None]
    scale = picture.size[0] / width
    focal = None if lens.focal is None else lens.focal * width / side * domain.resolution
    silhouette = None if mask is None else square[..., 3] >= 255 * _INSIDE
    return Framed(
        source_view(images, domain, focal, picture),
        silhouette if silhouette is not None and silhouette.any() else None,
        as_it_is=False,
        crop=(left * scale, top * scale, (left + side) * scale, (top + side) * scale),
        remarks=tuple(remarks),
    )


def _square(rgba: np.ndarray, left: float, top: float, side: float, domain: Domain) -> np.ndarray:
    """(S, S, 4) uint8: a square of the picture, which may exceed it, over the background; alpha is kept.

    Pixels are means over the area that they cover.
    """
    height, width, _ = rgba.shape
    margin = int(np.ceil(max(0.0, -left, -top, left + side - width, top + side - height)))
    if margin:
        rgba = np.pad(rgba, ((margin, margin), (margin, margin), (0, 0)))
    box = (left + margin, top + margin, left + side + margin, top + side + margin)
    size = (domain.resolution, domain.resolution)
    how = Image.Resampling.BOX if side >= domain.resolution else Image.Resampling.BICUBIC
    small = np.asarray(Image.fromarray(rgba).resize(size, how, box=box), np.float64)  # weights colours by alpha
    alpha = small[..., 3:] / 255
    colours = small[..., :3] * alpha + 255 * np.array(domain.background) * (1 - alpha)
    return np.rint(np.concatenate([colours, small[..., 3:]], axis=-1)).astype(np.uint8)


def source_view(images: Tensor, domain: Domain, focal: float | None, picture: Picture) -> Views:
    """A view (1, 1, 3, S, S) from the identity camera; `focal` in its pixels, None for that of training pictures.

    Raises `PictureError` for a focal length so short that the object would begin behind the camera.
    """
    size, origin = domain.resolution, torch.tensor(domain.origin)
    farther = 1.0 if focal is None else focal / float(np.mean(domain.focal))
    moved = origin * torch.tensor([1.0, 1.0, farther])
    near, far = domain.near, domain.far
    if not domain.bounds_from_origin:
        shift = float(moved[2] - origin[2])
        near, far = near + shift, far + shift
    begins = near + float(moved[2]) if domain.bounds_from_origin else near
    if begins < _NEAREST * float(origin.norm()):
        raise PictureError(
            f"{picture.path}: with this field of view the object would begin {begins:.2f} scene units from the camera; "
            "a longer focal length is needed (--focal, --fov)"
        )
    cameras = Cameras(
        world_to_camera=torch.eye(4)[None, None],
        focal=torch.tensor(domain.focal if focal is None else (focal, focal))[None, None],
        principal=torch.tensor(domain.principal)[None, None],
        height=size,
        width=size,
    )
    return Views(
        images=images,
        cameras=cameras,
        near=torch.tensor([near]),
        far=torch.tensor([far]),
        background=torch.tensor(domain.background)[None],
        frames=torch.full((1, 1), -1),  # no frame of a store
        origin=moved[None],
        origin_distance=moved[None, None, 2] if domain.bounds_from_origin else None,
    )


def seen(framed: Framed) -> np.ndarray:
    """The picture that the network reads, (3, S, S) uint8."""
    return as_bytes(framed.source.images[0, 0])
