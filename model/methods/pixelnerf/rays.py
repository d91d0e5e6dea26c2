"""Rays through pixels, and the interval of each in which the object lies.

Dimensions: B objects, R rays of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.methods.pixelnerf.options import BoundsOf, PixelPoint
from model.types import Cameras, TensorFields

#: Offset in pixels from a pixel's upper left corner to the point that its ray passes through.
PIXEL_OFFSETS: dict[PixelPoint, float] = {"centre": 0.5, "corner": 0.0}


@dataclass(frozen=True, slots=True)
class Rays(TensorFields):
    """R rays of each of B objects, in the world frame."""

    origins: Tensor  # (B, R, 3)
    directions: Tensor  # (B, R, 3) of unit length
    cosines: Tensor  # (B, R) camera z per unit of length along the ray
    near: Tensor  # (B, R) distances along the ray between which the object lies, scene units
    far: Tensor  # (B, R)

    def part(self, start: int, stop: int) -> Rays:
        """Rays start..stop-1 of every object."""
        return Rays(
            self.origins[:, start:stop],
            self.directions[:, start:stop],
            self.cosines[:, start:stop],
            self.near[:, start:stop],
            self.far[:, start:stop],
        )


@dataclass(frozen=True, slots=True)
class Bounds(TensorFields):
    """Bounds of an object along a ray.

    The values of `Views` are bounds of camera z.  Where `of` is "camera_z", a ray is sampled between the two planes:
    its distances are the bounds divided by the cosine between the ray and the camera's axis.  Where it is "distance",
    the same values bound the distance itself, as in the published code; both contain an object that lies in a
    sphere around the origin between them.  Bounds relative to the origin are relative to its camera z, or
    to its distance, in each rendering camera.
    """

    near: Tensor  # (B,) scene units
    far: Tensor  # (B,)
    of: BoundsOf
    origin: Tensor | None = None  # (B, 3) world frame; given where the bounds are relative to it

    def along(self, world_to_camera: Tensor, cosines: Tensor, nearest: float) -> tuple[Tensor, Tensor]:
        """Near and far distances (B, R) along rays with these cosines, of cameras (B, R, 4, 4).

        `nearest` is the minimum camera z.
        """
        near, far = self.near[:, None], self.far[:, None]
        if self.origin is not None:
            seen = transform(self.origin[:, None], world_to_camera)
            offset = seen[..., 2] if self.of == "camera_z" else seen.norm(dim=-1)
            near, far = near + offset, far + offset
        if self.of == "camera_z":
            near, far = near / cosines, far / cosines
        near = torch.maximum(near, nearest / cosines)
        return near, torch.maximum(near, far)


def cast(cameras: Cameras, view: Tensor, row: Tensor, column: Tensor, *, through: PixelPoint, bounds: Bounds) -> Rays:
    """The rays of pixels: `view`, `row` and `column` (B, R), integers."""
    objects = torch.arange(len(view), device=view.device)[:, None]
    world_to_camera = cameras.world_to_camera[objects, view]  # (B, R, 4, 4)
    place = torch.stack([column, row], dim=-1) + PIXEL_OFFSETS[through]
    plane = (place - cameras.principal[objects, view]) / cameras.focal[objects, view]
    at_one = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)
    cosines = 1 / at_one.norm(dim=-1)
    camera_to_world = world_to_camera[..., :3, :3].transpose(-1, -2)
    origins = -rotate(world_to_camera[..., :3, 3], camera_to_world)
    near, far = bounds.along(world_to_camera, cosines, cameras.near)
    return Rays(origins, rotate(at_one * cosines[..., None], camera_to_world), cosines, near, far)


def rotate(vectors: Tensor, rotation: Tensor) -> Tensor:
    """Matrices (..., 3, 3) on vectors (..., 3).

    Matrix products on a GPU may round to ten bits (TF32), too few for positions; this function does not.
    """
    return (rotation * vectors[..., None, :]).sum(-1)


def transform(points: Tensor, matrix: Tensor) -> Tensor:
    """Rigid transforms (..., 4, 4) on points (..., 3)."""
    return rotate(points, matrix[..., :3, :3]) + matrix[..., :3, 3]
