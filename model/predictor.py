"""Splatter Image: source views -> one Gaussian per source pixel, in the world frame (Szymanowicz et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.geometry import (
    invert_rigid,
    matrix_to_quaternion,
    pixel_rays,
    quaternion_multiply,
    rotate_sh1,
)
from model.heads import GaussianHead
from model.types import Context, Gaussians, Views
from model.unet import UNet


class GaussianPredictor(nn.Module):
    """A U-Net, a head, and the geometry that turns raw maps into Gaussians."""

    def __init__(self, unet: UNet, head: GaussianHead) -> None:
        super().__init__()
        self.unet, self.head = unet, head

    def forward(self, source: Views, context: Context) -> Gaussians:
        """source: B objects with V views of H x W -> B scenes of V * H * W Gaussians, view by view, row by row."""
        raw = self.head(self.unet(source.images.flatten(0, 1), context))
        batch, views = source.images.shape[:2]
        return place({name: part.unflatten(0, (batch, views)) for name, part in raw.items()}, source)


def _per_pixel(part: Tensor) -> Tensor:
    """(B, V, C, H, W) -> (B, V, H * W, C)."""
    return part.flatten(3).transpose(2, 3)


def place(raw: dict[str, Tensor], source: Views) -> Gaussians:
    """Raw maps {name: (B, V, n, H, W)} -> Gaussians in the world frame.

    Depth is camera z, between the view's near and far; the position is that depth along the pixel's ray plus an
    unbounded offset in camera axes.
    """
    cameras = source.cameras
    camera_to_world = invert_rigid(cameras.world_to_camera)  # (B, V, 4, 4)
    rotation = camera_to_world[..., :3, :3]
    rays = pixel_rays(cameras.height, cameras.width, cameras.focal, cameras.principal)

    near, far = source.near[:, None, None, None, None], source.far[:, None, None, None, None]
    depth = torch.sigmoid(raw["depth"]) * (far - near) + near
    in_camera = _per_pixel(rays * depth + raw["offset"])  # (B, V, HW, 3)
    means = in_camera @ rotation.transpose(-1, -2) + camera_to_world[..., None, :3, 3]

    local = F.normalize(_per_pixel(raw["rotation"]), dim=-1, eps=1e-12)
    rotations = quaternion_multiply(matrix_to_quaternion(rotation)[..., None, :], local)

    sh = _per_pixel(raw["sh_dc"])[..., None, :]  # (B, V, HW, 1, 3)
    if "sh_rest" in raw:
        rest = _per_pixel(raw["sh_rest"]).unflatten(-1, (-1, 3))
        sh = torch.cat([sh, rotate_sh1(rest, rotation[..., None, :, :])], dim=-2)

    return Gaussians(
        means=means.flatten(1, 2),
        scales=_per_pixel(raw["scale"]).exp().flatten(1, 2),
        rotations=rotations.flatten(1, 2),
        opacities=torch.sigmoid(_per_pixel(raw["opacity"])).flatten(1, 2),
        sh=sh.flatten(1, 2),
    )
