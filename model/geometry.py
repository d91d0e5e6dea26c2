"""Rays, rigid transforms, quaternions and the rotation of spherical harmonics.

Matrices act on column vectors; quaternions are Hamilton's with the real part first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from model.constants import constant


def pixel_rays(height: int, width: int, focal: Tensor, principal: Tensor) -> Tensor:
    """Points at camera z = 1 on the ray of every pixel centre.

    focal, principal: (..., 2) pixels.  Returns (..., 3, H, W) in camera axes, third component 1.
    """
    columns = torch.arange(width, dtype=focal.dtype, device=focal.device) + 0.5
    rows = torch.arange(height, dtype=focal.dtype, device=focal.device) + 0.5
    x = (columns - principal[..., 0, None]) / focal[..., 0, None]  # (..., W)
    y = (rows - principal[..., 1, None]) / focal[..., 1, None]  # (..., H)
    x, y = torch.broadcast_tensors(x[..., None, :], y[..., :, None])
    return torch.stack([x, y, torch.ones_like(x)], dim=-3)


def invert_rigid(transform: Tensor) -> Tensor:
    """The inverse of (..., 4, 4) rotations with translation."""
    rotation_t = transform[..., :3, :3].transpose(-1, -2)
    translation = -rotation_t @ transform[..., :3, 3:]
    bottom = transform[..., 3:, :]
    return torch.cat([torch.cat([rotation_t, translation], dim=-1), bottom], dim=-2)


def quaternion_matrix(a: Tensor) -> Tensor:
    """(..., 4) -> (..., 4, 4): the matrix whose product with a quaternion b is Hamilton's product a b."""
    w, x, y, z = a.unbind(-1)
    rows = [(w, -x, -y, -z), (x, w, -z, y), (y, z, w, -x), (z, -y, x, w)]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def quaternion_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton's product of (..., 4) quaternions: the rotation b, then the rotation a."""
    return (quaternion_matrix(a) @ b[..., None]).squeeze(-1)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """(..., 3, 3) rotations -> (..., 4) unit quaternions.

    Of the four formulas that each divide by one component, the one with the largest divisor is used, so half
    turns are as exact as the rest.  The real part is positive, as published, and 0 for half turns.
    """
    m = rotation.unflatten(-2, (3,)).flatten(-2)  # (..., 9)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m.unbind(-1)
    # Rows: 4 q_i q_j for i = w, x, y, z.
    products = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
            torch.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], -1),
            torch.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], -1),
            torch.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], -1),
        ],
        dim=-2,
    )
    best = products.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = products.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    is_negative = (row[..., :1] < 0) & (products[..., :1, 0] > 0)
    return F.normalize(torch.where(is_negative, -row, row), dim=-1)


def rotate_sh1(sh: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the degree-1 band of real spherical harmonics, for many points by the same rotation.

    sh: (..., N, 3, 3) coefficients k = 0..2 by colour; rotation: (..., 3, 3) from the frame of `sh` to the new one.
    The band is the vector (-s2, -s0, s1): evaluating it along d gives its inner product with d (times C1).
    """
    to_vector = constant([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], rotation)
    turn = to_vector.T @ rotation @ to_vector
    by_colour = sh.transpose(-1, -2).flatten(-3, -2)  # (..., N * 3, k): one product of matrices, not N small ones
    return (by_colour @ turn.transpose(-1, -2)).unflatten(-2, (-1, 3)).transpose(-1, -2)
