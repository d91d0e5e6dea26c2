"""Projection of points to source views: position and direction in each source's axes, and the features there.

Dimensions: B objects, V source views, R rays of each object, S samples of each ray, h x w cells of a feature map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.constants import constant
from model.methods.pixelnerf.options import PixelPoint
from model.methods.pixelnerf.rays import PIXEL_OFFSETS, Rays, rotate, transform
from model.types import Cameras, TensorFields

#: Minimum absolute camera z in divisions, scene units.
_SMALLEST_Z = 1e-6


@dataclass(frozen=True, slots=True)
class SampledFeatures(TensorFields):
    """Samples of rays in the frames of V source views."""

    positions: Tensor  # (B, V, R, S, 3) from the object's centre, source axes with y up and z backward
    directions: Tensor  # (B, V, R, 1, 3) of the rays, in the same axes
    places: Tensor  # (B, V, R, S, 2) cells of the feature map, x then y; fractions lie between cells


@dataclass(frozen=True, slots=True)
class Sources(TensorFields):
    """The cameras of the source views and the object between them."""

    cameras: Cameras
    centre: Tensor  # (B, 3) of the object, world frame

    def see(self, rays: Rays, distances: Tensor, size: tuple[int, int], through: PixelPoint) -> SampledFeatures:
        """The samples at `distances` (B, R, S) along rays; `size` (h, w) is the feature map's."""
        matrices = self.cameras.world_to_camera[:, :, None]  # (B, V, 1, 4, 4)
        origins = transform(rays.origins[:, None], matrices)
        directions = rotate(rays.directions[:, None], matrices[..., :3, :3])
        centres = transform(self.centre[:, None, None], matrices)
        published = constant([1.0, -1.0, -1.0], directions)  # axes of OpenGL
        along = distances[:, None, ..., None]
        return SampledFeatures(
            positions=torch.addcmul(
                (published * (origins - centres))[..., None, :], (published * directions)[..., None, :], along
            ),
            directions=(published * directions)[..., None, :],
            places=self._places(torch.addcmul(origins[..., None, :], directions[..., None, :], along), size, through),
        )

    def _places(self, points: Tensor, size: tuple[int, int], through: PixelPoint) -> Tensor:
        """Points (B, V, R, S, 3) in camera axes -> (B, V, R, S, 2), even behind the camera or outside the image.

        Cell k of a map of half the image's size is computed around the middle of pixel 2k.
        """
        z = points[..., 2:]
        z = torch.where(z.abs() < _SMALLEST_Z, _SMALLEST_Z, z)
        focal, principal = self.cameras.focal[:, :, None, None], self.cameras.principal[:, :, None, None]
        pixels = focal * points[..., :2] / z + principal - PIXEL_OFFSETS[through]
        height, width = size
        return pixels * constant([width / self.cameras.width, height / self.cameras.height], pixels)


def read_rows(table: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Features (B, V, ..., C), interpolated at `places` (B, V, ..., 2), with border padding.

    table: a row for each cell of all maps, (B * V * h * w, C).  Interpolation is bilinear, like that of `grid_sample`,
    and four to ten times as fast on a CPU.
    """
    height, width = size
    batch, views = places.shape[:2]
    x = places[..., 0].clamp(0, width - 1)
    y = places[..., 1].clamp(0, height - 1)
    left, top = x.detach().floor().clamp(max=max(width - 2, 0)), y.detach().floor().clamp(max=max(height - 2, 0))
    right_share, lower_share = x - left, y - top
    left_share, upper_share = 1 - right_share, 1 - lower_share
    first = torch.arange(batch * views, device=table.device).view(batch, views, *[1] * (x.dim() - 2)) * (height * width)
    upper_left = first + top.long() * width + left.long()
    right, down = min(1, width - 1), width if height > 1 else 0
    cells = torch.stack([upper_left, upper_left + right, upper_left + down, upper_left + down + right], dim=-1)
    shares = torch.stack(
        [
            left_share * upper_share,
            right_share * upper_share,
            left_share * lower_share,
            right_share * lower_share,
        ],
        dim=-1,
    )
    read = F.embedding_bag(cells.view(-1, 4), table, per_sample_weights=shares.view(-1, 4).to(table.dtype), mode="sum")
    return read.view(*x.shape, -1)
