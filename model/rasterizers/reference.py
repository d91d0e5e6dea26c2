"""The definition of what the rasterisers compute: plain torch, dense, in the dtype it is given, slow.

Every Gaussian is evaluated at every pixel, one image after another.  Use float64 to test the other backends.

Conventions follow diff-gaussian-rasterization (Kerbl et al. 2023, "3D Gaussian Splatting for Real-Time Radiance
Field Rendering"), whose gradients differ from the exact derivative in two places, kept here: they pass through the
clamp of alpha at 0.99, and take the clamped x/z, y/z of the Jacobian as constants together with z.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from model.constants import constant
from model.rasterizers.backend import Capabilities
from model.types import SH_DC, Cameras, Gaussians

_Record = TypeVar("_Record", Gaussians, Cameras)

ALPHA_MIN = 1.0 / 255.0  # fainter contributions are skipped
ALPHA_MAX = 0.99
TRANSMITTANCE_MIN = 1e-4  # a pixel stops before the Gaussian that would reduce it below this
DILATION = 0.3  # px^2, added to the variances on the image: the minimum standard deviation is 0.55 px
COMPENSATION_MIN = 0.000025  # of the squared factor that antialiasing puts on opacities
FRUSTUM_MARGIN = 1.3  # the Jacobian is evaluated at most this far off axis, in units of tan(fov/2)


@dataclass(frozen=True)
class Splats:
    """The N' Gaussians in front of one camera, nearest first, projected to its image."""

    depths: Tensor  # (N',) camera z
    centres: Tensor  # (N', 2) pixel indices (the middle of the first pixel is 0), x then y
    covariances: Tensor  # (N', 3) px^2: xx, xy, yy, dilated
    opacities: Tensor  # (N',)
    colours: Tensor  # (N', 3) RGB


def is_available() -> bool:
    """True on every machine."""
    return True


def capabilities() -> Capabilities:
    """All features."""
    return Capabilities(devices=("cpu", "cuda"))


def render(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, antialiasing: bool, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """Backend `reference`; see `model.rasterizers.Backend`."""
    cameras = cameras.to(gaussians.means.dtype)
    scenes, views = cameras.focal.shape[:2]
    channels = [
        _render_one(select(gaussians, b), select(cameras, b, v), background[b], antialiasing)
        for b in range(scenes)
        for v in range(views)
    ]
    shape = (scenes, views, 4, cameras.height, cameras.width)
    stacked = torch.stack(channels).reshape(shape) if channels else background.new_zeros(shape)
    return stacked[:, :, :3], stacked[:, :, 3:] if return_depth else None


def select(record: _Record, *index: int | slice) -> _Record:
    """The record with every tensor indexed along its leading dimensions."""
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    indexed: dict[str, Any] = {name: t[index] for name, t in values.items() if isinstance(t, Tensor)}
    return replace(record, **indexed)


def _render_one(gaussians: Gaussians, camera: Cameras, background: Tensor, antialiasing: bool) -> Tensor:
    """(4, H, W), RGB and inverse depth, of one scene from one camera; tensors lack their (B,) and (B, V) dimensions.

    The inverse depth is composited like a colour over a background of 0.
    """
    splats = project(gaussians, camera, antialiasing)
    alphas = alpha_maps(splats, camera.height, camera.width)
    channels = torch.cat([splats.colours, 1 / splats.depths[:, None]], dim=1)
    return composite(alphas, channels, torch.cat([background, background.new_zeros(1)]))


def project(gaussians: Gaussians, camera: Cameras, antialiasing: bool) -> Splats:
    """Projects the Gaussians of one scene to one camera, sorted by depth (equal depths keep their order)."""
    rotation, translation = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
    z = (gaussians.means @ rotation.T + translation)[:, 2].detach()
    visible = torch.nonzero(z > camera.near).squeeze(1)
    order = visible[torch.argsort(z[visible], stable=True)]

    means = gaussians.means[order]
    points = means @ rotation.T + translation
    undilated, covariances = _project_covariances(gaussians, order, points, camera)
    opacities = gaussians.opacities[order, 0]
    if antialiasing:
        opacities = opacities * compensation(undilated, covariances)
    centre_of_projection = -torch.linalg.solve(rotation, translation)
    return Splats(
        depths=points[:, 2],
        centres=points[:, :2] / (points[:, 2:] + 1e-7) * camera.focal + camera.principal - 0.5,
        covariances=covariances,
        opacities=opacities,
        colours=colours_along(gaussians.sh[order], means - centre_of_projection),
    )


def _project_covariances(gaussians: Gaussians, order: Tensor, points: Tensor, camera: Cameras) -> tuple[Tensor, Tensor]:
    """Covariances on the image (N', 3) by the EWA approximation, before and after the dilation."""
    axes = rotation_matrices(gaussians.rotations[order]) * gaussians.scales[order].unsqueeze(1)  # (N', 3, 3)
    to_image = jacobians(points, camera) @ camera.world_to_camera[:3, :3] @ axes  # (N', 2, 3)
    full = to_image @ to_image.transpose(1, 2)
    undilated = torch.stack([full[:, 0, 0], full[:, 0, 1], full[:, 1, 1]], dim=1)
    return undilated, undilated + undilated.new_tensor([DILATION, 0.0, DILATION])


def jacobians(points: Tensor, camera: Cameras) -> Tensor:
    """(N', 2, 3) derivative of pixel coordinates by camera coordinates, evaluated within the widened frustum."""
    size = points.new_tensor([camera.width, camera.height])
    limit = FRUSTUM_MARGIN * size / (2 * camera.focal)
    xy, z = points[:, :2], points[:, 2:]
    slope = xy.detach() / z.detach()
    clamped_xy = (slope.clamp(min=-limit, max=limit) * z).detach()
    xy = torch.where(slope.abs() > limit, clamped_xy, xy)
    diagonal = torch.diag_embed(camera.focal / z)
    return torch.cat([diagonal, (-camera.focal * xy / z**2).unsqueeze(2)], dim=2)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """(N, 3, 3) of quaternions (N, 4), real part first, taken to be of unit length."""
    r, x, y, z = quaternions.unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - r * z), 2 * (x * z + r * y)],
        [2 * (x * y + r * z), 1 - 2 * (x * x + z * z), 2 * (y * z - r * x)],
        [2 * (x * z - r * y), 2 * (y * z + r * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def determinants(covariances: Tensor) -> Tensor:
    """(N,) of symmetric 2x2 matrices given as (N, 3): xx, xy, yy."""
    xx, xy, yy = covariances.unbind(1)
    return xx * yy - xy**2


def compensation(undilated: Tensor, dilated: Tensor) -> Tensor:
    """(N',) factor on the opacity of a Gaussian that compensates for the dilation."""
    ratio = determinants(undilated) / determinants(dilated)
    return torch.where(ratio > COMPENSATION_MIN, ratio, COMPENSATION_MIN).sqrt()


def colours_along(sh: Tensor, directions: Tensor) -> Tensor:
    """(..., 3) RGB along directions (..., 3) of any length, from coefficients (..., K, 3); negative ones become 0."""
    basis = sh_basis(torch.nn.functional.normalize(directions, dim=-1), sh.shape[-2])
    return ((basis.unsqueeze(-1) * sh).sum(dim=-2) + 0.5).clamp(min=0)


def sh_basis(directions: Tensor, count: int) -> Tensor:
    """The first `count` real spherical harmonics (..., count) along unit vectors (..., 3), with the signs of 3DGS."""
    basis = [directions.new_full((*directions.shape[:-1], 1), SH_DC)]
    if count > 1:
        c = 0.4886025119029199
        basis.append(directions @ constant(((0, 0, -c), (-c, 0, 0), (0, c, 0)), directions))  # -cy, cz, -cx
    if count > 4:
        x, y, z = directions.unbind(-1)
        xx, yy, zz = x * x, y * y, z * z
        c = 1.0925484305920792
        higher = [c * x * y, -c * y * z, 0.31539156525252005 * (2 * zz - xx - yy), -c * x * z]
        higher += [0.5462742152960396 * (xx - yy)]
        if count > 9:
            c = 0.4570457994644658
            higher += [-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z]
            higher += [-c * y * (4 * zz - xx - yy), 0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy)]
            higher += [-c * x * (4 * zz - xx - yy), 1.445305721320277 * z * (xx - yy)]
            higher += [-0.5900435899266435 * x * (xx - 3 * yy)]
        basis.append(torch.stack(higher, dim=-1))
    return torch.cat(basis, dim=-1)


def alpha_maps(splats: Splats, height: int, width: int) -> Tensor:
    """(N', H, W) alpha of every splat at every pixel; 0 where it is below `ALPHA_MIN`."""
    columns = torch.arange(width, dtype=splats.centres.dtype, device=splats.centres.device)
    rows = torch.arange(height, dtype=splats.centres.dtype, device=splats.centres.device)
    dx = columns - splats.centres[:, :1]  # (N', W)
    dy = rows - splats.centres[:, 1:]  # (N', H)
    xx, xy, yy = (splats.covariances / determinants(splats.covariances).unsqueeze(1))[:, :, None, None].unbind(1)
    dx, dy = dx.unsqueeze(1), dy.unsqueeze(2)
    power = -0.5 * (yy * dx**2 + xx * dy**2) + xy * dx * dy  # the inverse swaps xx and yy
    alphas = splats.opacities[:, None, None] * power.exp()
    alphas = alphas + (alphas.clamp(max=ALPHA_MAX) - alphas).detach()
    return torch.where((power <= 0) & (alphas >= ALPHA_MIN), alphas, 0.0)


def composite(alphas: Tensor, colours: Tensor, background: Tensor) -> Tensor:
    """(C, H, W) from alphas (N', H, W) and colours (N', C), nearest first, over a background (C,)."""
    # Transmittance only decreases, so a pixel has stopped where the full product is below the bound.
    going = torch.cumprod(1 - alphas.detach(), dim=0) >= TRANSMITTANCE_MIN
    alphas = torch.where(going, alphas, 0.0)
    nothing_yet = alphas.new_ones(1, *alphas.shape[1:])
    transmittance = torch.cumprod(torch.cat([nothing_yet, 1 - alphas]), dim=0)  # (N' + 1, H, W) before each, after all
    image = torch.einsum("nhw,nc->chw", alphas * transmittance[:-1], colours)
    return image + transmittance[-1] * background[:, None, None]
