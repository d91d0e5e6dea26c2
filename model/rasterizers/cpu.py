"""Our compiled rasteriser (`model.native`), which needs no GPU."""

from __future__ import annotations

import ctypes
from typing import NoReturn

import torch
from torch import Tensor

from model.native.library import KernelsMissingError, load_library
from model.native.rasterise import RefusedError, rasterise
from model.rasterizers.backend import Capabilities
from model.rasterizers.packages import BackendUnavailableError
from model.rasterizers.validation import check_values
from model.types import Cameras, Gaussians


def is_available() -> bool:
    """Whether the kernels are built."""
    try:
        load_library()
    except KernelsMissingError:
        return False
    return True


def capabilities() -> Capabilities:
    """All features.  Raises `BackendUnavailableError` where the kernels are not built."""
    try:
        load_library()
    except KernelsMissingError as error:
        raise BackendUnavailableError(str(error)) from error
    return Capabilities(devices=("cpu", "cuda"))


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Tensor,
    antialiasing: bool,
    return_depth: bool,
    any_opacity: bool = False,
    kernels: str | None = None,
    seconds: ctypes.Array[ctypes.c_double] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Backend `cpu`; see `model.rasterizers.Backend`, and `rasterise` for the other arguments.

    Values are checked while drawing: those that are not finite in float32, or out of range, raise the ValueError
    of `validation.check_values`.
    """
    try:
        images, inverse_depths = rasterise(
            gaussians,
            cameras,
            background,
            antialiasing=antialiasing,
            return_depth=return_depth,
            any_opacity=any_opacity,
            kernels=kernels,
            seconds=seconds,
        )
    except RefusedError:
        _explain(gaussians, cameras, background, any_opacity)
    return images.to(gaussians.means), None if inverse_depths is None else inverse_depths.to(gaussians.means)


def _explain(gaussians: Gaussians, cameras: Cameras, background: Tensor, any_opacity: bool) -> NoReturn:
    """Raise an error that names the value rejected by the kernels."""
    in_float32 = gaussians.to(torch.float32)
    check_values(in_float32, cameras.to(torch.float64), background.to(torch.float32), any_opacity)
    raise ValueError("world_to_camera holds a nearly singular matrix, so the camera's centre is undefined")
