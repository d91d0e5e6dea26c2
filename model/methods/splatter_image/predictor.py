"""Splatter Image: source views -> Gaussians for every source pixel, in the world frame (Szymanowicz et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.geometry import (
    invert_rigid,
    matrix_to_quaternion,
    pixel_rays,
    quaternion_matrix,
    rotate_sh1,
)
from model.methods.splatter_image.camera_embedding import embed_pose
from model.methods.splatter_image.heads import SECOND, GaussianHead
from model.precision import full_precision
from model.scenes import GaussianScene, Reconstructor
from model.types import Context, Gaussians, Views


@dataclass(frozen=True, slots=True)
class Frustums:
    """Rays of the pixels of each source view, and the depth bounds of their Gaussians."""

    rays: Tensor  # (B, V, 3, H, W) points at camera z = 1
    near: Tensor  # camera z, scene units, broadcast against (B, V, 1, H, W)
    far: Tensor
    camera_to_world: Tensor  # (B, V, 4, 4) on column vectors
    quaternion: Tensor  # (B, V, 4) its rotation, real part first

    @classmethod
    def of(cls, source: Views) -> Frustums:
        """The frustums of source views."""
        cameras = source.cameras
        camera_to_world = invert_rigid(cameras.world_to_camera)
        near, far = source.near[:, None, None, None, None], source.far[:, None, None, None, None]
        if source.origin_distance is not None:
            distance = source.origin_distance[..., None, None, None]
            near, far = near + distance, far + distance
        return cls(
            rays=pixel_rays(cameras.height, cameras.width, cameras.focal, cameras.principal),
            near=near,
            far=far,
            camera_to_world=camera_to_world,
            quaternion=matrix_to_quaternion(camera_to_world[..., :3, :3]),
        )


class GaussianPredictor(Reconstructor):
    """A backbone, a head, and the geometry that turns raw maps into Gaussians."""

    def __init__(
        self, backbone: nn.Module, head: GaussianHead, backend: str = "auto", antialiasing: bool = False
    ) -> None:
        """`backend` and `antialiasing`: rasteriser settings of its scenes."""
        super().__init__()
        self.backbone, self.head = backbone, head
        self.backend, self.antialiasing = backend, antialiasing
        self.geometry: Callable[[dict[str, Tensor], Frustums], Gaussians] = place

    @property
    def main_network(self) -> nn.Module:
        return self.backbone

    def forward(self, source: Views, context: Context) -> GaussianScene:
        return GaussianScene(self.gaussians(source, context), self.backend, self.antialiasing)

    def gaussians(self, source: Views, context: Context) -> Gaussians:
        """source: B objects with V views of H x W -> B scenes of V * H * W Gaussians, view by view, row by row.

        With two per pixel there are twice as many; all second ones follow all first ones.
        """
        with full_precision(source.images.device):
            frustums = Frustums.of(source)
        raw = self.raw_maps(source.images, frustums.camera_to_world, context)
        with full_precision(source.images.device):
            return self.geometry(raw, frustums)

    def raw_maps(self, images: Tensor, camera_to_world: Tensor, context: Context) -> dict[str, Tensor]:
        """images (B, V, C, H, W), camera_to_world (B, V, 4, 4) -> {name: (B, V, n, H, W)}, at least float32.

        The views of an object attend to each other.
        """
        batch, views = images.shape[:2]
        pose = None if self.backbone.camera is None else embed_pose(camera_to_world).flatten(0, 1)
        raw = self.head(self.backbone(images.flatten(0, 1), context, views, pose))
        precision = torch.promote_types(raw["depth"].dtype, torch.float32)
        return {name: part.to(precision).unflatten(0, (batch, views)) for name, part in raw.items()}


def _per_pixel(part: Tensor) -> Tensor:
    """(B, V, C, H, W) -> (B, V, H * W, C)."""
    return part.flatten(3).transpose(2, 3)


def place(raw: dict[str, Tensor], frustums: Frustums) -> Gaussians:
    """Raw maps {name: (B, V, n, H, W)} -> Gaussians in the world frame.

    Depth is camera z, between near and far; the position is that depth along the pixel's ray plus an unbounded
    offset in camera axes.  If there is a second Gaussian per pixel, its depth is the first one's plus a
    positive step, as in Flash3D (Szymanowicz et al. 2025); all second ones follow all first ones.
    """
    span = frustums.far - frustums.near
    depth = torch.sigmoid(raw["depth"]) * span + frustums.near
    first = _place_one(raw, depth, frustums)
    behind = {name.removeprefix(SECOND): part for name, part in raw.items() if name.startswith(SECOND)}
    if not behind:
        return first
    second = _place_one(behind, depth + F.softplus(behind["step"]) * span, frustums)
    return Gaussians(**{f.name: torch.cat([getattr(first, f.name), getattr(second, f.name)], 1) for f in fields(first)})


def _place_one(raw: dict[str, Tensor], depth: Tensor, frustums: Frustums) -> Gaussians:
    """One Gaussian for every pixel, at `depth` (B, V, 1, H, W)."""
    camera_to_world = frustums.camera_to_world
    rotation = camera_to_world[..., :3, :3]
    in_camera = _per_pixel(frustums.rays * depth + raw["offset"])  # (B, V, HW, 3)
    means = in_camera @ rotation.transpose(-1, -2) + camera_to_world[..., None, :3, 3]
    # As published, divided by the homogeneous coordinate, which is 1, plus epsilon.
    means = means / (1 + 1e-10)

    local = F.normalize(_per_pixel(raw["rotation"]), dim=-1, eps=1e-12)
    rotations = local @ quaternion_matrix(frustums.quaternion).transpose(-1, -2)

    sh = _per_pixel(raw["sh_dc"])[..., None, :]  # (B, V, HW, 1, 3)
    if "sh_rest" in raw:
        rest = _per_pixel(raw["sh_rest"]).unflatten(-1, (-1, 3))
        sh = torch.cat([sh, rotate_sh1(rest, rotation)], dim=-2)

    return Gaussians(
        means=means.flatten(1, 2),
        scales=_per_pixel(raw["scale"]).exp().flatten(1, 2),
        rotations=rotations.flatten(1, 2),
        opacities=torch.sigmoid(_per_pixel(raw["opacity"])).flatten(1, 2),
        sh=sh.flatten(1, 2),
    )
