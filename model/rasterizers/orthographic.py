"""Composites splats, given on the image, by the CPU kernels, which take Gaussians in space.

With an enormous focal length the projection is orthographic: a Gaussian's centre and covariance on the
image are those in space times focal length / depth.  So each splat becomes one Gaussian in front of such a camera,
and gradients are returned by centre, covariance, opacity, colour and depth, which the kernels' own interface folds
into the parameters of Gaussians.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.geometry import matrix_to_quaternion, quaternion_multiply
from model.rasterizers import cpu
from model.rasterizers.reference import DILATION, Splats
from model.types import SH_DC, Cameras, Gaussians

#: Pixels.  The slope x/z of a ray is then below float32's resolution of 1, so nothing depends on it.
FOCAL = 2.0**30
#: px^2.  Thinner splats are drawn this thick, which the kernels' dilation hides; zero lengths have no derivative.
MIN_VARIANCE = 1e-8
_DEPTH_EPSILON = 1e-7  # added by the kernels to the depth in divisions
#: Three orthogonal axes (columns) whose projections along z are 120 degrees apart.
_TRIPOD = (
    (math.sqrt(2 / 3), -math.sqrt(1 / 6), -math.sqrt(1 / 6)),
    (0.0, math.sqrt(1 / 2), -math.sqrt(1 / 2)),
    (math.sqrt(1 / 3), math.sqrt(1 / 3), math.sqrt(1 / 3)),
)


def draw(
    splats: Splats, height: int, width: int, background: Tensor, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """Composite splats, given in any order, over a background (3,).

    Colours may have any sign and size.  Returns the image (3, H, W) and, if requested, the inverse depth
    (1, H, W), both differentiable by all tensors of `splats` and by the background.
    """
    # The kernels clamp colours at 0, with zero gradient there.  A constant added to all colours and the background is a
    # constant added to the image; this one exceeds the rounding of float32.
    lift = 1e-6 - (1 + 1e-6) * min(0.0, _lowest(splats.colours.detach()))
    gaussians, camera = _in_space(splats, height, width, lift)
    images, inverse_depths = cpu.render(
        gaussians, camera, (background + lift)[None], False, return_depth, any_opacity=True
    )
    return images[0, 0] - lift, None if inverse_depths is None else inverse_depths[0, 0]


def _lowest(values: Tensor) -> float:
    return float(values.min()) if values.numel() else 0.0


def _in_space(splats: Splats, height: int, width: int, lift: float) -> tuple[Gaussians, Cameras]:
    """One scene and one camera at its origin, looking along z."""
    depths = splats.depths[:, None]
    middle = depths.new_tensor([width, height]) / 2
    offsets = splats.centres + 0.5 - middle
    undilated = splats.covariances - depths.new_tensor([DILATION, 0, DILATION])
    deviations, rotations = _Axes.apply(undilated)
    gaussians = Gaussians(
        means=torch.cat([offsets * ((depths + _DEPTH_EPSILON) / FOCAL), depths], dim=1)[None],
        scales=(deviations * (depths / FOCAL))[None],
        rotations=rotations[None],
        opacities=splats.opacities[None, :, None],
        sh=((splats.colours + (lift - 0.5)) / SH_DC)[None, :, None],
    )
    camera = Cameras(
        world_to_camera=torch.eye(4, dtype=depths.dtype, device="cpu")[None, None],
        focal=torch.full((1, 1, 2), FOCAL, dtype=depths.dtype, device="cpu"),
        principal=middle.cpu()[None, None],
        height=height,
        width=width,
        near=torch.finfo(torch.float32).tiny,
    )
    return gaussians, camera


class _Axes(torch.autograd.Function):
    """Covariances on the image (N, 3: xx, xy, yy) -> deviations (N, 3) and rotations (N, 4) of Gaussians over it.

    Eigenvectors have no derivative where eigenvalues are equal, as on every round splat.  Here they need none.  With
    three axes h_j that project to directions 120 degrees apart, the covariance is the sum of d_j^2 h_j h_j^T, and
    the derivative by d_j is 2 d_j h_j^T G h_j, where G is the derivative by the covariance: three numbers that
    determine the three of G, whatever the eigenvalues are.  (Two axes, the eigenvectors, would leave one of G out.)
    The derivative by the rotations has no further information, and is ignored.
    """

    @staticmethod
    def forward(ctx: Any, covariances: Tensor) -> tuple[Tensor, Tensor]:
        xx, xy, yy = covariances.unbind(1)
        mean, radius = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
        minor = (mean - radius).clamp(min=MIN_VARIANCE)
        major = torch.maximum(mean + radius, minor)
        # The first axis lies along the major one, so the three numbers are positive for every covariance.
        deviations = torch.stack([1.5 * major - 0.5 * minor, minor, minor], dim=1).sqrt()
        angle = torch.atan2(2 * xy, xx - yy) / 2
        ctx.save_for_backward(deviations, angle)
        nothing = torch.zeros_like(angle)
        turn = torch.stack([(angle / 2).cos(), nothing, nothing, (angle / 2).sin()], dim=1)
        return deviations, quaternion_multiply(turn, matrix_to_quaternion(turn.new_tensor(_TRIPOD)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_deviations: Tensor, _by_rotations: Tensor) -> Tensor:
        deviations, angle = ctx.saved_tensors
        first, second, third = (by_deviations / (2 * deviations)).unbind(1)
        along = 1.5 * first  # G in the frame of the eigenvectors
        across = second + third - 0.5 * first
        mixed = -(math.sqrt(3) / 2) * (second - third)
        c, s = angle.cos(), angle.sin()
        by_xx = c * c * along - 2 * c * s * mixed + s * s * across
        by_yy = s * s * along + 2 * c * s * mixed + c * c * across
        by_xy = c * s * (along - across) + (c * c - s * s) * mixed
        return torch.stack([by_xx, 2 * by_xy, by_yy], dim=1)
