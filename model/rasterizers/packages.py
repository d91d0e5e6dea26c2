"""Shared code of the backends from external packages: finding the package, and checking how it is called."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from model.types import Cameras, Gaussians


class BackendUnavailableError(RuntimeError):
    """The chosen backend is unavailable on this machine, or its installed package lacks a feature."""


def is_usable(name: str) -> bool:
    """Whether the package is installed and there is a GPU for it; nothing is imported."""
    return importlib.util.find_spec(name) is not None and torch.cuda.is_available()


def load(name: str, backend: str, installation: str) -> ModuleType:
    """Import a package.  Raises `BackendUnavailableError` with installation instructions."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == name
        reason = "is not installed" if absent else f"cannot be imported ({error})"
        raise BackendUnavailableError(
            f"the rasteriser backend {backend!r} needs the package {name}, which {reason}. {installation}"
        ) from error


def require_gpu(package: ModuleType, backend: str, gaussians: Gaussians) -> None:
    """Raises ValueError for tensors on the host, whose addresses CUDA code would misread as device addresses.

    A substitute for a package that can draw them has an attribute `DRAWS_ON_CPU`.
    """
    device = gaussians.means.device
    if device.type != "cuda" and not getattr(package, "DRAWS_ON_CPU", False):
        raise ValueError(f"the rasteriser backend {backend!r} draws tensors on a GPU, got means on {device}")


def draw_nothing(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, return_depth: bool
) -> tuple[Tensor, Tensor | None]:
    """The background, for scenes without Gaussians, or without scenes or views.

    All tensors receive a gradient of zeros, or an empty one.
    """
    scenes, views = cameras.focal.shape[:2]
    size = (cameras.height, cameras.width)
    tensors = (gaussians.means, gaussians.scales, gaussians.rotations, gaussians.opacities, gaussians.sh)
    nothing = torch.stack([tensor.flatten(0, 1)[:0].sum() for tensor in tensors]).sum()
    images = background[:, None, :, None, None].expand(scenes, views, 3, *size).to(gaussians.means) + nothing
    return images, images.new_zeros(scenes, views, 1, *size) if return_depth else None
