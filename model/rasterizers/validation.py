"""Rejects inputs that no backend can draw, before calling one."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from model.types import Cameras, Gaussians

#: Coefficients of spherical harmonics of degree 0 to 3.
SH_COEFFICIENTS = (1, 4, 9, 16)

_OF_GAUSSIANS = ("means", "scales", "rotations", "opacities", "sh")


class NonFiniteGaussiansError(ValueError):
    """Gaussians with NaN or infinity, which a rasteriser that reads values does not draw."""


def validate(gaussians: Gaussians, cameras: Cameras, background: Tensor, *, values: bool = True) -> Tensor:
    """Check all inputs of `render`; returns the background as (B, 3) in the dtype of the Gaussians.

    Without `values` only types and shapes are checked, which reads no values from memory or a GPU.

    Raises ValueError naming the argument, the received value and the allowed ones.
    """
    tensors = _tensors(gaussians, cameras, background)
    _check_types(tensors)
    _check_gaussian_shapes(gaussians)
    _check_camera_shapes(cameras, batch=gaussians.means.shape[0])
    _check_background_shape(background, batch=gaussians.means.shape[0])
    if values:
        check_values(gaussians, cameras, background)
    return background.to(gaussians.means.dtype).expand(gaussians.means.shape[0], 3)


def check_values(gaussians: Gaussians, cameras: Cameras, background: Tensor, any_opacity: bool = False) -> None:
    """Raises ValueError naming the argument that is not finite or out of its range, if there is one."""
    _check_finite(_tensors(gaussians, cameras, background))
    if not any_opacity:
        _check_opacities(gaussians.opacities)
    _check_cameras(cameras)


def _tensors(gaussians: Gaussians, cameras: Cameras, background: Tensor) -> dict[str, Tensor]:
    return {
        **{name: getattr(gaussians, name) for name in _OF_GAUSSIANS},
        "world_to_camera": cameras.world_to_camera,
        "focal": cameras.focal,
        "principal": cameras.principal,
        "background": background,
    }


def _check_types(tensors: dict[str, Tensor]) -> None:
    """Checks for floating point everywhere, one device, one dtype among the Gaussians' tensors."""
    means = tensors["means"]
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
        if tensor.device != means.device:
            raise ValueError(f"{name} is on {tensor.device}, means on {means.device}; they must agree")
    for name in ("scales", "rotations", "opacities", "sh"):
        if tensors[name].dtype != means.dtype:
            raise ValueError(f"{name} is {tensors[name].dtype}, means {means.dtype}; they must agree")
    for name in ("world_to_camera", "focal", "principal"):
        if tensors[name].requires_grad:
            raise ValueError(f"{name} requires a gradient, but cameras are constants here; detach it")


def _check_gaussian_shapes(gaussians: Gaussians) -> None:
    means, sh = gaussians.means, gaussians.sh
    if means.ndim != 3 or means.shape[-1] != 3:
        raise ValueError(f"means must be (B, N, 3), got {tuple(means.shape)}")
    leading = tuple(means.shape[:2])
    for name, width in (("scales", 3), ("rotations", 4), ("opacities", 1)):
        shape = tuple(getattr(gaussians, name).shape)
        if shape != (*leading, width):
            raise ValueError(f"{name} must be {(*leading, width)} to go with the means, got {shape}")
    if sh.ndim != 4 or tuple(sh.shape[:2]) != leading or sh.shape[3] != 3:
        raise ValueError(f"sh must be ({leading[0]}, {leading[1]}, K, 3) to go with the means, got {tuple(sh.shape)}")
    if sh.shape[2] not in SH_COEFFICIENTS:
        raise ValueError(f"sh has {sh.shape[2]} coefficients; allowed: {SH_COEFFICIENTS} (degree 0 to 3)")


def _check_camera_shapes(cameras: Cameras, batch: int) -> None:
    matrices = tuple(cameras.world_to_camera.shape)
    if len(matrices) != 4 or matrices[0] != batch or matrices[2:] != (4, 4):
        raise ValueError(f"world_to_camera must be ({batch}, V, 4, 4) to go with the means, got {matrices}")
    for name in ("focal", "principal"):
        shape = tuple(getattr(cameras, name).shape)
        if shape != (*matrices[:2], 2):
            raise ValueError(f"{name} must be {(*matrices[:2], 2)} to go with world_to_camera, got {shape}")
    for name in ("height", "width"):
        size = getattr(cameras, name)
        if not isinstance(size, int) or not 0 < size < 2**15:
            raise ValueError(f"{name} must be an integer from 1 to {2**15 - 1}, got {size!r}")
    if not 0 < cameras.near < float("inf"):
        raise ValueError(f"near must be positive and finite, got {cameras.near}")


def _check_background_shape(background: Tensor, batch: int) -> None:
    if tuple(background.shape) not in ((3,), (batch, 3)):
        raise ValueError(f"background must be (3,) or ({batch}, 3), got {tuple(background.shape)}")


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """Checks for NaN and infinity, first in the Gaussians.

    A sum is the cheapest test; it overflows only for invalid or huge values.
    """
    with torch.no_grad():
        sums = [tensor.sum() for tensor in tensors.values()]
        on_host = sums[0].device.type == "cpu"  # on other devices each read synchronises, so they are read together
        if all(map(math.isfinite, map(float, sums) if on_host else torch.stack([s.double() for s in sums]).tolist())):
            return
        for name, tensor in tensors.items():
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                error = NonFiniteGaussiansError if name in _OF_GAUSSIANS else ValueError
                raise error(f"{name}: {bad} of {tensor.numel()} values are NaN or infinite")


def _check_opacities(opacities: Tensor) -> None:
    with torch.no_grad():
        if opacities.numel():
            low, high = (float(bound) for bound in torch.aminmax(opacities))
            if low < 0 or high > 1:
                raise ValueError(f"opacities must lie in [0, 1], got values from {low:g} to {high:g}")


def _check_cameras(cameras: Cameras) -> None:
    with torch.no_grad():
        if cameras.focal.numel() and float(cameras.focal.min()) <= 0:
            raise ValueError(f"focal must be positive, got {float(cameras.focal.min()):g}")
        rotations = cameras.world_to_camera[..., :3, :3].cpu().double().numpy()
        if (np.linalg.det(rotations) == 0).any():  # numpy takes half the time of torch for such small matrices
            raise ValueError("world_to_camera holds a singular matrix, which is no camera")
