"""`reference` with the approximations of the CUDA packages, so that the packages can be tested to the last digits.

Measured on a GPU against `reference` itself, an image of diff-gaussian-rasterization differed by 0.047 and a gradient
of gsplat by 2.4%.  This module reproduces both figures without a GPU.  They are therefore the packages' own
approximations, and neither an adapter's mistake nor rounding.  The remaining difference is rounding, which `SLACK`
allows for.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from model.rasterizers import reference
from model.rasterizers.reference import ALPHA_MIN, Splats, determinants
from model.types import Cameras

TILE = 16  # px
GSPLAT_MARGIN = 0.3  # of tan(fov/2) beyond the image's edges
#: Relative change of the thresholds that decide whether a Gaussian counts at a pixel.  The test scenes look the same
#: with either sign, so float32, whose errors are smaller, decides like float64.
SLACK = 1e-4


def tiles_within_three_deviations(splats: Splats, height: int, width: int, slack: float = 0.0) -> Tensor:
    """(N', H, W) bool: pixels of the 16 px tiles that the square of 3 standard deviations, rounded up, touches."""
    mean = (splats.covariances[:, 0] + splats.covariances[:, 2]) / 2
    spread = (mean**2 - determinants(splats.covariances)).clamp(min=0.1).sqrt()
    radii = ((1 + slack) * 3 * (mean + spread).sqrt()).ceil()[:, None]
    first = ((splats.centres - radii) / TILE).trunc().clamp(min=0)
    last = ((splats.centres + radii + TILE - 1) / TILE).trunc()  # exclusive
    columns, rows = (torch.arange(size, device=radii.device) // TILE for size in (width, height))
    in_columns = (columns >= first[:, :1]) & (columns < last[:, :1])
    in_rows = (rows >= first[:, 1:]) & (rows < last[:, 1:])
    return in_columns[:, None, :] & in_rows[:, :, None]


def as_inria(monkeypatch, slack: float = 0.0) -> None:
    """Patches `reference` to draw like diff-gaussian-rasterization.

    Gaussians end at the edge of their tiles.  The derivative of antialiasing's factor is evaluated at the dilated
    covariance, in place of the undilated one.
    """
    alpha_maps = reference.alpha_maps

    def cut(splats: Splats, height: int, width: int) -> Tensor:
        inside = tiles_within_three_deviations(splats, height, width, slack)
        return torch.where(inside, alpha_maps(splats, height, width), 0.0)

    monkeypatch.setattr(reference, "ALPHA_MIN", ALPHA_MIN * (1 + slack))
    monkeypatch.setattr(reference, "alpha_maps", cut)
    monkeypatch.setattr(reference, "compensation", InriaCompensation.apply)


class InriaCompensation(torch.autograd.Function):
    """The factor on the opacity (N',), with the package's derivative."""

    @staticmethod
    def forward(ctx, undilated: Tensor, dilated: Tensor) -> Tensor:
        ratio = determinants(undilated) / determinants(dilated)
        factor = ratio.clamp(min=reference.COMPENSATION_MIN).sqrt()
        ctx.save_for_backward(dilated, ratio, factor)
        return factor

    @staticmethod
    def backward(ctx, by_factor: Tensor) -> tuple[Tensor, None]:
        dilated, ratio, factor = ctx.saved_tensors
        (xx, xy, yy), w = dilated.unbind(1), reference.DILATION
        by_ratio = torch.where(ratio > reference.COMPENSATION_MIN, by_factor / (2 * factor), 0.0)
        scale = by_ratio * w / ((xx + w) * (yy + w) - xy**2) ** 2
        by_entries = (w * yy + yy**2 + xy**2, -2 * xy * (w + xx + yy), w * xx + xx**2 + xy**2)
        return scale[:, None] * torch.stack(by_entries, dim=1), None


def as_gsplat(monkeypatch, slack: float = 0.0, version: str = "1.5.3") -> None:
    """Patches `reference` to draw like gsplat.

    Alpha is clamped at 0.999 (at 0.99 from version 1.6 on), where its gradient ends.  The Jacobian is clamped beyond
    the image's edges, wherever the principal point is, and has its exact derivative.  The tiles never cut a Gaussian:
    they cover the opacity's extent, at most 3.33 deviations, up to where alpha falls to 1/255.
    """
    monkeypatch.setattr(reference, "ALPHA_MIN", ALPHA_MIN * (1 + slack))
    alpha_max = 0.999 if tuple(map(int, version.split(".")[:2])) < (1, 6) else 0.99
    monkeypatch.setattr(reference, "alpha_maps", partial(_gsplat_alpha_maps, alpha_max))
    monkeypatch.setattr(reference, "jacobians", _gsplat_jacobians)


def _gsplat_alpha_maps(alpha_max: float, splats: Splats, height: int, width: int) -> Tensor:
    columns, rows = (torch.arange(size).to(splats.centres) for size in (width, height))
    dx, dy = (columns - splats.centres[:, :1])[:, None, :], (rows - splats.centres[:, 1:])[:, :, None]
    inverse = splats.covariances / determinants(splats.covariances)[:, None]
    xx, xy, yy = inverse[:, :, None, None].unbind(1)
    power = -0.5 * (yy * dx**2 + xx * dy**2) + xy * dx * dy
    alphas = (splats.opacities[:, None, None] * power.exp()).clamp(max=alpha_max)
    return torch.where((power <= 0) & (alphas >= reference.ALPHA_MIN), alphas, 0.0)


def _gsplat_jacobians(points: Tensor, camera: Cameras) -> Tensor:
    size = points.new_tensor([camera.width, camera.height])
    margin = GSPLAT_MARGIN * size / (2 * camera.focal)
    low, high = -camera.principal / camera.focal - margin, (size - camera.principal) / camera.focal + margin
    slope = (points[:, :2] / points[:, 2:]).maximum(low).minimum(high)
    z = points[:, 2:]
    return torch.cat([torch.diag_embed(camera.focal / z), (-camera.focal * slope / z).unsqueeze(2)], dim=2)
