"""What a reconstruction method promises: source views and context -> a scene, which cameras render.

Dimensions: B objects, V views, P pixels of each object, H x W pixels a view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from model.types import Cameras, Context, Views, _TensorFields

SceneKind = Literal["gaussians", "field", "pictures"]


@dataclass(frozen=True, slots=True)
class Pixels(_TensorFields):
    """P pixels of each object, drawn from its V views."""

    view: Tensor  # (B, P) int64 index of the view
    row: Tensor  # (B, P) int64
    column: Tensor  # (B, P) int64


@dataclass(frozen=True, slots=True)
class Rendering(_TensorFields):
    """What cameras see of a scene: whole views, or chosen pixels where `Scene.render` was given some."""

    images: Tensor  # (B, V, 3, H, W) RGB, not clamped; of pixels (B, P, 3)
    inverse_depth: Tensor | None = None  # (B, V, 1, H, W) or (B, P, 1), 1/scene units, 0 behind the scene
    opacity: Tensor | None = None  # (B, V, 1, H, W) or (B, P, 1), in [0, 1]
    #: renderings that training also compares with the targets, by name (a coarse pass, say)
    auxiliary: tuple[Rendering, ...] = ()


class Scene(ABC):
    """B reconstructed objects."""

    kind: ClassVar[SceneKind]

    @abstractmethod
    def render(self, cameras: Cameras, background: Tensor, pixels: Pixels | None = None) -> Rendering:
        """Render every object by its V cameras over `background` (B, 3); only `pixels` where they are given."""


@dataclass(frozen=True)
class Targets:
    """What one training step compares with the data."""

    #: pixels of each object; None = whole views
    pixels: int | None = None
    #: first iterations, in which pixels are drawn from the foreground's bounding box only
    in_box_until: int = 0


class Reconstructor(nn.Module, ABC):
    """Source views -> a scene."""

    @abstractmethod
    def forward(self, source: Views, context: Context) -> Scene:
        """source: B objects with their source views, the first camera at the identity."""


@dataclass(frozen=True)
class Setting:
    """What a method is built for, beside its own options."""

    resolution: int  # side of the views, pixels
    seed: int  # of the initial weights
    antialiasing: bool  # of Gaussians
    backend: str  # rasteriser of Gaussians
    device: torch.device
