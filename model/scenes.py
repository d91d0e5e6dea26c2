"""Scenes and reconstructors: source views and context -> a scene -> renderings of it.

Dimensions: B objects, V views, P pixels of each object, H x W pixels a view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from model.methods.base import SceneKind
from model.rasterizers import render, why_not
from model.types import Cameras, Context, Gaussians, Pixels, Rendering, Views


class Scene(ABC):
    """B reconstructed objects."""

    kind: ClassVar[SceneKind]

    @abstractmethod
    def render(self, cameras: Cameras, background: Tensor, pixels: Pixels | None = None) -> Rendering:
        """Renders V cameras per scene over `background` (B, 3); only at `pixels` where they are given."""

    def for_pictures(self) -> Scene:
        """The scene as this machine can draw it, to be looked at: scores need the renderer that was configured."""
        return self

    def with_geometry(self, rendering: Rendering, cameras: Cameras) -> Rendering:
        """A rendering of whole views by these cameras, with opacity and inverse depth where the scene has them."""
        return rendering

    def extent(self) -> str:
        """Smallest and largest values of the scene's tensors, for error messages."""
        return self.kind

    def without_non_finite(self) -> Scene:
        """The scene without the parts that are not finite, where it has parts; they get no gradient."""
        return self


class Reconstructor(nn.Module, ABC):
    """A method's network, or its substitute in untrained methods."""

    #: a function of tensors alone that follows the main network, which training may replace by a compiled one
    geometry: Callable[..., Any] | None = None

    @property
    def main_network(self) -> nn.Module | None:
        """The submodule that maps tensors to one tensor and takes nearly all the time; None if there is none."""
        return None

    @abstractmethod
    def forward(self, source: Views, context: Context) -> Scene:
        """Reconstructs a scene.  source: B objects with source views, the first camera of each at the identity."""


@dataclass(frozen=True)
class GaussianScene(Scene):
    """B scenes of Gaussians, with rasteriser settings."""

    kind: ClassVar[SceneKind] = "gaussians"

    gaussians: Gaussians
    backend: str = "auto"
    antialiasing: bool = False

    def render(self, cameras: Cameras, background: Tensor, pixels: Pixels | None = None) -> Rendering:
        images = render(self.gaussians, cameras, background, self.backend, self.antialiasing)
        return Rendering(images if pixels is None else pixels.of(images))

    def for_pictures(self) -> GaussianScene:
        """With another rasteriser where its own cannot draw here, as the CUDA packages without a GPU."""
        return replace(self, backend=self._usable_backend(inverse_depth=False))

    def _usable_backend(self, *, inverse_depth: bool) -> str:
        device = self.gaussians.means.device.type
        unable = why_not(self.backend, device, antialiasing=self.antialiasing, inverse_depth=inverse_depth)
        return "auto" if unable else self.backend

    def with_geometry(self, rendering: Rendering, cameras: Cameras) -> Rendering:
        """Draws the Gaussians again, in black over white: their opacity is 1 minus the result."""
        gaussians = self.gaussians
        # The constant harmonic that makes colours negative, which are clamped to 0.
        black = torch.zeros_like(gaussians.sh[:, :, :1]) - 2.0
        white = gaussians.means.new_ones(3)
        images, inverse_depth = render(
            replace(gaussians, sh=black),
            cameras,
            white,
            self._usable_backend(inverse_depth=True),
            self.antialiasing,
            return_depth=True,
        )
        return replace(rendering, opacity=(1 - images[:, :, :1]).clamp(0, 1), inverse_depth=inverse_depth)

    def extent(self) -> str:
        parts = []
        for name in ("means", "scales", "opacities", "sh"):
            values = getattr(self.gaussians, name).detach()
            parts.append(f"{name} {values.min().item():.3g}..{values.max().item():.3g}")
        return "Gaussians: " + ", ".join(parts)

    def without_non_finite(self) -> GaussianScene:
        """Makes Gaussians with a non-finite parameter invisible, as the CUDA rasteriser does.

        A run that continues "as published" after its weights have become NaN renders the background.
        """
        parts = {"means": 0.0, "scales": 1.0, "rotations": 0.5, "opacities": 0.0, "sh": 0.0}
        tensors = {name: getattr(self.gaussians, name) for name in parts}
        numbers = torch.cat([tensor.detach().flatten(2) for tensor in tensors.values()], dim=-1)
        whole = numbers.isfinite().all(-1)  # (B, N)
        finite = {
            name: torch.where(whole.view(*whole.shape, *[1] * (tensor.dim() - 2)), tensor, parts[name])
            for name, tensor in tensors.items()
        }
        return GaussianScene(Gaussians(**finite), self.backend, self.antialiasing)


@dataclass(frozen=True)
class PictureScene(Scene):
    """B objects as one image each, which is the rendering from every camera."""

    kind: ClassVar[SceneKind] = "pictures"

    picture: Tensor | None  # (B, 3, H, W); None: nothing but the background

    def render(self, cameras: Cameras, background: Tensor, pixels: Pixels | None = None) -> Rendering:
        """Raises ValueError for cameras of another size than the picture."""
        picture, size = self.picture, (cameras.height, cameras.width)
        if picture is None:
            picture = background[:, :, None, None].expand(-1, -1, *size)
        if picture.shape[-2:] != size:
            raise ValueError(f"a picture of {tuple(picture.shape[-2:])} pixels for cameras of {size}")
        images = picture[:, None].expand(-1, cameras.world_to_camera.shape[1], -1, -1, -1)
        return Rendering(images if pixels is None else pixels.of(images))
