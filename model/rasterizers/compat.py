"""diff-gaussian-rasterization's Python interface without its package: on a CPU, and on a GPU by backend `triton`.

Code written for the CUDA package runs if it imports this module instead:

    from model.rasterizers.compat import GaussianRasterizationSettings, GaussianRasterizer

Two generations of the interface are in use.  In the older one the settings end with `debug` and a call returns
(image, radii); in the newer they end with `antialiasing` and a call returns (image, radii, inverse depth).  Settings
without `antialiasing` get the older behaviour here.

Matrices are transposed, as in the package: points are rows, `p @ viewmatrix`.  Projection runs in float64 in
torch, compositing in our kernels (`model.rasterizers.orthographic`, `model.rasterizers.triton`).  `reference` defines
the result; the package itself leaves out 16 px tiles that lie beyond 3 standard deviations of a Gaussian,
where up to 1.1% of its opacity is left.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.rasterizers import NEAR_PLANE, orthographic, triton
from model.rasterizers.compat_arguments import GaussianRasterizationSettings, Inputs, check, plain_settings, present
from model.rasterizers.reference import (
    DILATION,
    Splats,
    colours_along,
    compensation,
    determinants,
    jacobians,
    rotation_matrices,
)
from model.types import Cameras

#: Tensors may be on any device; adapters to the package read this flag.
DRAWS_ON_CPU = True
TILE = 16  # px; `radii` are 0 where a splat's square misses every tile that the image touches
_DEPTH_EPSILON = 1e-7  # added to the depth that the projection divides by


class GaussianRasterizer(nn.Module):
    """Draws Gaussians from the camera of its settings, of this module's type or any with the same fields."""

    def __init__(self, raster_settings: GaussianRasterizationSettings) -> None:
        super().__init__()
        self.raster_settings = raster_settings

    def markVisible(self, positions: Tensor) -> Tensor:  # noqa: N802  the package's name
        """Whether each of the positions (N, 3) is beyond the near plane: (N,) bool."""
        with torch.no_grad():
            return _in_front(_to_camera(positions, self.raster_settings))

    def forward(
        self,
        means3D: Tensor,
        means2D: Tensor | None,
        opacities: Tensor,
        shs: Tensor | None = None,
        colors_precomp: Tensor | None = None,
        scales: Tensor | None = None,
        rotations: Tensor | None = None,
        cov3D_precomp: Tensor | None = None,
    ) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
        """See `rasterize_gaussians`."""
        return rasterize_gaussians(
            means3D,
            means2D,
            shs,
            colors_precomp,
            opacities,
            scales,
            rotations,
            cov3D_precomp,
            self.raster_settings,
        )


def rasterize_gaussians(
    means3D: Tensor,
    means2D: Tensor | None,
    sh: Tensor | None,
    colors_precomp: Tensor | None,
    opacities: Tensor,
    scales: Tensor | None,
    rotations: Tensor | None,
    cov3Ds_precomp: Tensor | None,
    raster_settings: GaussianRasterizationSettings,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
    """Draw N Gaussians; tensors that are None or empty are absent.

    Args:
        means3D: (N, 3) in the world.
        means2D: (N, 3).  Its values are not used; its gradient is that of the loss by the centres on the image in
            clip-space units, d loss / d pixel * image size / 2, third component 0.  This is what the densification
            of 3D Gaussian Splatting uses.  None where it is not needed.
        sh: (N, K, 3) spherical harmonics, of which the first (sh_degree + 1)^2 are used; 0.5 is added, and negative
            sums are clamped to 0.
        colors_precomp: (N, 3) colours instead, used unchanged.
        opacities: (N, 1) or (N,).
        scales: (N, 3).
        rotations: (N, 4) quaternions, real part first, not normalised.
        cov3Ds_precomp: (N, 6) xx, xy, xz, yy, yz, zz of positive semidefinite covariances, instead of the two.

    Returns:
        The image (3, H, W), differentiable by all of these and by `bg`; the radii (N,) int32 in pixels, 3 standard
        deviations rounded up, 0 for Gaussians not drawn; in the newer generation also the inverse depth (1, H, W).

    Raises:
        ValueError: a shape is wrong, a value is NaN or infinite, colours or shapes are given twice or not at all.
    """
    optional = map(present, (sh, colors_precomp, scales, rotations, cov3Ds_precomp))
    if means2D is None:
        means2D = torch.zeros_like(means3D)
    inputs, settings = Inputs(means3D, means2D, opacities, *optional), plain_settings(raster_settings, means3D)
    check(inputs, settings)
    antialiasing = getattr(settings, "antialiasing", None)
    drawn = torch.nonzero(_in_front(_to_camera(means3D, settings))).squeeze(1)
    splats = _project(inputs.at(drawn), settings, bool(antialiasing))
    image, inverse_depth = _drawing(means3D.device)(
        splats, settings.image_height, settings.image_width, settings.bg.double(), antialiasing is not None
    )
    radii = torch.zeros(len(means3D), dtype=torch.int32, device=means3D.device)
    radii[drawn] = _radii(splats, settings)
    image = image.to(means3D.dtype)
    return (image, radii) if inverse_depth is None else (image, radii, inverse_depth.to(means3D.dtype))


def _drawing(device: torch.device) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The function that composites splats on this device."""
    return triton.draw if device.type == "cuda" else orthographic.draw


def _project(inputs: Inputs, settings: GaussianRasterizationSettings, antialiasing: bool) -> Splats:
    """Projects the Gaussians in front of the camera to the image, in their given order."""
    points = _to_camera(inputs.means3D, settings)
    undilated = _on_image(_covariances(inputs, settings.scale_modifier), points, settings)
    covariances = undilated + undilated.new_tensor([DILATION, 0, DILATION])
    opacities = inputs.opacities.reshape(-1)
    return Splats(
        depths=points[:, 2],
        centres=_centres(inputs.means3D, inputs.means2D, settings),
        covariances=covariances,
        opacities=opacities * compensation(undilated, covariances) if antialiasing else opacities,
        colours=_colours_of(inputs, settings),
    )


def _covariances(inputs: Inputs, scale_modifier: float) -> Tensor:
    """Covariances (N, 3, 3) in the world frame."""
    if inputs.cov3D_precomp is not None:
        return inputs.cov3D_precomp[:, (0, 1, 2, 1, 3, 4, 2, 4, 5)].unflatten(1, (3, 3))
    assert inputs.scales is not None
    assert inputs.rotations is not None
    axes = rotation_matrices(inputs.rotations) * (inputs.scales * scale_modifier).unsqueeze(1)
    return axes @ axes.transpose(1, 2)


def _colours_of(inputs: Inputs, settings: GaussianRasterizationSettings) -> Tensor:
    """Colours (N, 3) RGB; harmonics are evaluated in directions from the centre of projection."""
    if inputs.colors_precomp is not None:
        return inputs.colors_precomp
    assert inputs.shs is not None
    active = inputs.shs[:, : (settings.sh_degree + 1) ** 2]
    return colours_along(active, inputs.means3D - settings.campos.double())


def _to_camera(positions: Tensor, settings: GaussianRasterizationSettings) -> Tensor:
    """World positions (N, 3) in camera axes, float64."""
    view = settings.viewmatrix.double()
    return positions.double() @ view[:3, :3] + view[3, :3]


def _in_front(points: Tensor) -> Tensor:
    """(N,) bool: points in camera axes that are drawn; compared in float32, so that 0.2 is not in front of 0.2."""
    return points[:, 2].float() > NEAR_PLANE


def _on_image(covariances: Tensor, points: Tensor, settings: GaussianRasterizationSettings) -> Tensor:
    """Projects world covariances (N, 3, 3) at points (N, 3) in camera axes: (N, 3) xx, xy, yy in px^2."""
    to_image = jacobians(points, _camera(settings)) @ settings.viewmatrix.double()[:3, :3].T  # (N, 2, 3)
    projected = to_image @ covariances @ to_image.transpose(1, 2)
    return torch.stack([projected[:, 0, 0], projected[:, 0, 1], projected[:, 1, 1]], dim=1)


def _camera(settings: GaussianRasterizationSettings) -> Cameras:
    """Pose, focal length and size; tensors lack their (B, V) dimensions."""
    size = settings.bg.new_tensor([settings.image_width, settings.image_height], dtype=torch.float64)
    return Cameras(
        world_to_camera=settings.viewmatrix.double().T,
        focal=size / (2 * size.new_tensor([settings.tanfovx, settings.tanfovy])),
        principal=size / 2,
        height=settings.image_height,
        width=settings.image_width,
        near=NEAR_PLANE,
    )


def _centres(means: Tensor, means2D: Tensor, settings: GaussianRasterizationSettings) -> Tensor:
    """(N, 2) pixel indices, differentiable by `means2D` as if it were added in clip space."""
    size = means.new_tensor([settings.image_width, settings.image_height])
    projection = settings.projmatrix.double()
    clip = means @ projection[:3] + projection[3]
    nothing = means2D[:, :2] - means2D[:, :2].detach()
    return ((clip[:, :2] / (clip[:, 3:] + _DEPTH_EPSILON) + nothing + 1) * size - 1) / 2


@torch.no_grad()
def _radii(splats: Splats, settings: GaussianRasterizationSettings) -> Tensor:
    """(N',) int32 radii, as reported by the package."""
    mean = (splats.covariances[:, 0] + splats.covariances[:, 2]) / 2
    spread = (mean**2 - determinants(splats.covariances)).clamp(min=0.1).sqrt()
    radii = (3 * (mean + spread).sqrt()).ceil()[:, None]
    size = radii.new_tensor([settings.image_width, settings.image_height])
    tiles = (size / TILE).ceil()
    first = ((splats.centres - radii) / TILE).trunc().clamp(min=0).minimum(tiles)
    last = ((splats.centres + radii + TILE - 1) / TILE).trunc().clamp(min=0).minimum(tiles)
    return torch.where((last > first).all(dim=1), radii[:, 0], 0).to(torch.int32)
