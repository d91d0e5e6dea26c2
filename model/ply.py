"""Gaussians as .ply files in the format of 3D Gaussian Splatting and its public viewers.

One vertex per Gaussian, all float32: position x y z; an unused normal nx ny nz; spherical harmonics f_dc_0..2 and,
above degree 0, f_rest_*, all of red before green before blue; the logit of the opacity; logarithms of the scales;
the quaternion rot_0..3, real part first.  Positions are in the frame of the Gaussians.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError

from model.types import Gaussians

_SH_COEFFICIENTS = (1, 4, 9, 16)
#: Minimum distance of opacities and scales from the singularities of their logit and logarithm.
_EDGE = float(np.finfo(np.float32).eps)
_SMALLEST = float(np.finfo(np.float32).tiny)

_POSITION = ("x", "y", "z")
_NORMAL = ("nx", "ny", "nz")
_DC = tuple(f"f_dc_{i}" for i in range(3))
_SCALE = tuple(f"scale_{i}" for i in range(3))
_ROTATION = tuple(f"rot_{i}" for i in range(4))


def write_ply(gaussians: Gaussians, path: Path) -> None:
    """Write one scene, with tensors (1, N, ...).

    Opacities of 0 and 1 are read back with an error of 1e-7, scales of 0 as 1e-38; a scale loses its sign, which has no
    effect.  Raises ValueError for another number of scenes.
    """
    scenes = gaussians.means.shape[0]
    if scenes != 1:
        raise ValueError(f"a .ply holds one scene, got {scenes}")
    means, scales, rotations, opacities, sh = (
        tensor[0].detach().cpu().float()
        for tensor in (gaussians.means, gaussians.scales, gaussians.rotations, gaussians.opacities, gaussians.sh)
    )
    columns = torch.cat(
        [
            means,
            torch.zeros_like(means),
            sh[:, 0],
            sh[:, 1:].transpose(1, 2).flatten(1),
            opacities.clamp(_EDGE, 1 - _EDGE).logit(),
            scales.abs().clamp(min=_SMALLEST).log(),
            rotations,
        ],
        dim=1,
    )
    names = [*_POSITION, *_NORMAL, *_DC, *_rest(sh.shape[1]), "opacity", *_SCALE, *_ROTATION]
    vertices = np.ascontiguousarray(columns.numpy(), "<f4").view([(name, "<f4") for name in names])[:, 0]
    PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<").write(str(path))


def read_ply(path: Path) -> Gaussians:
    """One scene (1, N, ...) in float32; quaternions are normalised.

    Raises ValueError, naming the file, where it is no .ply of this format.
    """
    try:
        vertices = PlyData.read(str(path))["vertex"].data
    except (PlyParseError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a .ply of Gaussians: {error}") from error
    present = set(vertices.dtype.names)
    rest = 1 + sum(name.startswith("f_rest_") for name in present) // 3
    expected = [*_POSITION, *_DC, *_rest(rest), "opacity", *_SCALE, *_ROTATION]
    missing = [name for name in expected if name not in present]
    if missing or rest not in _SH_COEFFICIENTS:
        problem = f"it lacks {', '.join(missing)}" if missing else f"{rest} harmonics belong to no degree from 0 to 3"
        raise ValueError(f"{path} is not a .ply of Gaussians: {problem}")

    def columns(*names: str) -> torch.Tensor:
        arrays = [np.asarray(vertices[name], np.float32) for name in names]
        return torch.from_numpy(np.stack(arrays, axis=1) if arrays else np.empty((len(vertices), 0), np.float32))[None]

    bands = columns(*_rest(rest)).unflatten(2, (3, rest - 1)).transpose(2, 3)
    return Gaussians(
        means=columns(*_POSITION),
        scales=columns(*_SCALE).exp(),
        rotations=torch.nn.functional.normalize(columns(*_ROTATION), dim=-1),
        opacities=columns("opacity").sigmoid(),
        sh=torch.cat([columns(*_DC)[:, :, None], bands], dim=2),
    )


def _rest(coefficients: int) -> list[str]:
    """Names of the harmonics above degree 0."""
    return [f"f_rest_{i}" for i in range(3 * (coefficients - 1))]
