"""Tensors of a method: views and context as inputs, Gaussians or renderings as outputs.

Frames. *World* is the frame of the scene; *camera* axes are OpenCV's: x right, y down, z forward.
`world_to_camera` is a 4x4 matrix that acts on column vectors.  Pixel (column j, row i) has its centre at
(j + 1/2, i + 1/2); `principal` is in these coordinates, so the middle of an image is (width/2, height/2).
Quaternions are Hamilton's, real part first.

Dimensions: B objects in the batch, V views of each, N Gaussians, K spherical-harmonic coefficients,
H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from model.rasterizers import NEAR_PLANE

#: The constant spherical harmonic: a Gaussian's colour from all directions is 1/2 + SH_DC * sh[0].
SH_DC = 0.28209479177387814


class TensorFields:
    """Base class of records of tensors, with `to`."""

    def to(self, target: torch.device | torch.dtype | str):  # type: ignore[no-untyped-def]
        """A copy on a device, or with floating tensors in a dtype (integer tensors keep theirs).

        The host does not wait for a copy to a GPU.
        """
        return replace(self, **{f.name: _moved(getattr(self, f.name), target) for f in fields(self)})  # type: ignore[type-var, arg-type]


def described(value: Any) -> str:
    """A returned value in words: the shape of a tensor, the type of anything else."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _moved(value: Any, target: torch.device | torch.dtype | str) -> Any:
    """A field of a record on a device or in a dtype; fields without tensors are unchanged."""
    if isinstance(value, TensorFields):
        return value.to(target)
    if isinstance(value, tuple):
        return tuple(_moved(part, target) for part in value)
    if not isinstance(value, Tensor):
        return value
    if isinstance(target, torch.dtype):
        return value.to(target) if value.is_floating_point() else value
    return value.to(target, non_blocking=torch.device(target).type == "cuda")


@dataclass(frozen=True, slots=True)
class Gaussians(TensorFields):
    """A batch of B scenes of N Gaussians each, in the world frame."""

    means: Tensor  # (B, N, 3) scene units
    scales: Tensor  # (B, N, 3) standard deviations along the local axes, scene units, > 0
    rotations: Tensor  # (B, N, 4) unit quaternions, real part first, local axes -> world
    opacities: Tensor  # (B, N, 1) in [0, 1]
    sh: Tensor  # (B, N, K, 3) spherical harmonics, K = (degree + 1)**2


@dataclass(frozen=True, slots=True)
class Cameras(TensorFields):
    """B x V pinhole cameras of one image size."""

    world_to_camera: Tensor  # (B, V, 4, 4) OpenCV axes, column vectors
    focal: Tensor  # (B, V, 2) pixels, x then y
    principal: Tensor  # (B, V, 2) pixels, x then y; the image centre is (width/2, height/2)
    height: int
    width: int
    near: float = NEAR_PLANE  # Gaussians at camera z <= near are not drawn, scene units


@dataclass(frozen=True, slots=True)
class Views(TensorFields):
    """Images with all facts about their cameras.  Downstream code does not depend on a dataset's name."""

    images: Tensor  # (B, V, 3, H, W) RGB in [0, 1]
    cameras: Cameras
    near: Tensor  # (B,) bounds of the depth that the network may predict, scene units, on top of `origin_distance`
    far: Tensor  # (B,)
    background: Tensor  # (B, 3) RGB behind the object
    frames: Tensor  # (B, V) int64, rows of the dataset's store
    depth: Tensor | None = None  # (B, V, 1, H, W) camera z of the surface, scene units; 0 where none.  None in training
    origin_distance: Tensor | None = None  # (B, V) camera z of the dataset's origin, scene units; None means 0
    origin: Tensor | None = None  # (B, 3) the dataset's origin, around which objects lie, in the world frame

    def select(self, start: int, stop: int) -> Views:
        """The views start..stop-1 of every object."""
        cameras = replace(
            self.cameras,
            world_to_camera=self.cameras.world_to_camera[:, start:stop],
            focal=self.cameras.focal[:, start:stop],
            principal=self.cameras.principal[:, start:stop],
        )
        return replace(
            self,
            images=self.images[:, start:stop],
            cameras=cameras,
            frames=self.frames[:, start:stop],
            depth=None if self.depth is None else self.depth[:, start:stop],
            origin_distance=None if self.origin_distance is None else self.origin_distance[:, start:stop],
        )


@dataclass(frozen=True, slots=True)
class Pixels(TensorFields):
    """P pixels of each object, out of its V views."""

    view: Tensor  # (B, P) int64, index of the view
    row: Tensor  # (B, P) int64
    column: Tensor  # (B, P) int64

    def of(self, pictures: Tensor) -> Tensor:
        """The values (B, P, C) of images (B, V, C, H, W) at these pixels."""
        objects = torch.arange(len(pictures), device=pictures.device)[:, None]
        return pictures[objects, self.view, :, self.row, self.column]


@dataclass(frozen=True, slots=True)
class Rendering(TensorFields):
    """Rendering of a scene: whole views (B, V, C, H, W), or the values of chosen pixels (B, P, C)."""

    images: Tensor  # C = 3: RGB, not clamped
    inverse_depth: Tensor | None = None  # C = 1: 1 / camera z, 1 / scene units; 0 where empty
    opacity: Tensor | None = None  # C = 1: in [0, 1]
    #: renderings of the same cameras or pixels that training also compares with the targets, e.g. of a coarse pass
    auxiliary: tuple[Rendering, ...] = ()

    def take(self, index: Tensor) -> Rendering:
        """Selects whole views by `index` (B, K) int64, separately for each object."""
        objects = torch.arange(len(index), device=index.device)[:, None]

        def taken(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[objects, index]

        auxiliary = tuple(seen.take(index) for seen in self.auxiliary)
        return Rendering(self.images[objects, index], taken(self.inverse_depth), taken(self.opacity), auxiliary)


@dataclass(frozen=True, slots=True, init=False)
class Context(TensorFields):
    """Outputs of frozen models for the source views, by source (`model.context.SOURCES`); absent where one is off.

    A vector per view (B, V, D), tokens (B, V, T, D), or a map per view (B, V, C, H, W) in the model's own unit.
    """

    values: dict[str, Tensor]

    def __init__(self, **values: Tensor | None) -> None:
        present = {source: value for source, value in values.items() if value is not None}
        object.__setattr__(self, "values", present)

    def get(self, source: str) -> Tensor | None:
        """Output of that source; None where it is off."""
        return self.values.get(source)

    def to(self, target: torch.device | torch.dtype | str) -> Context:
        return Context(**{source: _moved(value, target) for source, value in self.values.items()})
